"""Writes the fault table as a page of the documentation: ``python tests/fault_page.py``.

``test_faults.py`` fails if the page on disk differs. The page is made from the table only, and the
same tests compare each cell of the table with the outcome of a call or a stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fault_cells import STREAMS, may_lose_items
from faults import REPRODUCTIONS, TABLE, TIMEOUT, Expectation, FaultRow
from raw_server import CALLS
from store_faults import (
    OPENING,
    STORE_TABLE,
    OpeningFault,
    Outcome,
    StoreExpectation,
    StoreFault,
)

from pythpeer import Effect, OutcomeUnknownError

PATH: Final = Path(__file__).parent.parent / "docs" / "faults.md"

TOP: Final = """\
# How each fault is handled

The result or error of your program for each fault that the network or a service can produce. This
page is made from a table in the project's tests, which check it: {reproductions} variants of
the faults are reproduced on a server that works on plain bytes, for each of {calls} calls and
{streams} streams. If the outcome of one of these {cells} cells differs, or this page does, the
tests fail. (`tests/faults.py` contains the table, `tests/test_faults.py` checks it,
`nox -s docs-faults` writes this page: do not edit it.)

| column | calls |
|---|---|
| read | {reads} |
| destructive read | {destructive_reads} |
| write | {writes} |
| streams | `chat_stream()`, `mail_stream()` |

- **Retried**: a read is retried as often as `Retry` specifies. If the last attempt fails as well,
  it raises the error that follows. Destructive reads and writes are never retried: each reaches the
  service at most once.
- **Not sent**: the request was certainly not sent, and `.sent` is `False`; otherwise `.sent` is
  `True`, if the error has it. `.status`, `.retry_after` and `.message` are also set if the error
  has them.
- **Wait**: the streams retry after a back-off, and log one WARNING at the first failure and one
  INFO when they have recovered. **Mail recovers**: the service may have marked mail as read whose
  response was lost, so the next poll, or the next `unread_mail()`, searches the history for it.
  While the history cannot be read (over `max_body`, or a failure that stays), new mail is fetched
  as usual, and the lost mail is recovered later: [delivery guarantees](delivery.md).
- **Raise**: the streams raise the error, each time they are asked for an item. They continue as
  soon as the cause is removed.
- **Accepted**: there is a result, and the streams **continue** with it.

`timeout`, `max_wait`, `max_body` and `max_header` are options of `Session`. The meaning of each
error: [errors](errors.md).
"""

HEAD: Final = """
## {title}

| fault | read | destructive read | write | streams |
|---|---|---|---|---|
"""

STORES: Final = """
## Trouble of a store while a program runs

A store keeps the positions and the log of streams, and the pacing that programs share. This part
is made and checked in the same way (`tests/store_faults.py`, `tests/test_store_faults.py`): each
trouble is caused on a file, or between a program and a server, while two streams read and a call
is made.

- **Wait**: the streams log one WARNING at the first failure, and `health().ok` is `False`. When the
  trouble is over, they continue from the same position: after a back-off (`Retry.max_delay` at
  most, on SQLite one second, on Redis five) and the time that a command waits for its response.
- **Raise**: the streams raise `StoreError`, each time they are asked for an item. They continue as
  soon as the cause is removed.
- A call raises `StoreError` if the trouble lasts longer than the call waits for the store: 5 s for
  a file, `patience` for a server. **Transient**: its `.transient` is `True`.
- **Continue**: without an error, within that time.

Nothing is lost in any row, and no interval between two requests is shorter than its rate, during
the trouble or after it: pacing waits for the store, too.
"""

STORE_HEAD: Final = """
### {title}

| trouble | streams | a call | redelivered |
|---|---|---|---|
"""

OPENING_TITLE: Final = "## Trouble of a store when a session opens"

OPENING_HEAD: Final = f"""
{OPENING_TITLE}

| trouble | `Session.open()` |
|---|---|
"""

OUTCOMES: Final[dict[Outcome, str]] = {
    "continues": "continue",
    "waits": "wait",
    "raises": "raise `StoreError`",
    "raises transient": "raise `StoreError`, transient",
}
"""The outcomes of streams, in the plural."""

CALLS_OF: Final = {
    effect: [name for name, call in CALLS.items() if call.effect is effect] for effect in Effect
}
"""The names of the calls in each column."""


def page() -> str:
    """Return the text of the page."""
    text = TOP.format(
        reproductions=len(REPRODUCTIONS),
        calls=len(CALLS),
        streams=len(STREAMS),
        cells=len(REPRODUCTIONS) * (len(CALLS) + len(STREAMS)),
        reads=format_calls(CALLS_OF[Effect.READ]),
        destructive_reads=format_calls(CALLS_OF[Effect.CONSUME]),
        writes=format_calls(CALLS_OF[Effect.WRITE]),
    )
    for title, rows in TABLE.items():
        text += HEAD.format(title=title) + "".join(map(format_row, rows))
    text += STORES
    for title, store_rows in STORE_TABLE.items():
        text += STORE_HEAD.format(title=title) + "".join(map(format_store_row, store_rows))
    return text + OPENING_HEAD + "".join(map(format_opening_row, OPENING))


def format_store_row(row: StoreFault) -> str:
    """Return one line of a table of a running program."""
    call = OUTCOMES[row.expectation.call].replace("raise", "raises").replace("inue", "inues")
    cells = (row.title, OUTCOMES[row.expectation.stream], call, format_repeats(row.expectation))
    return f"| {' | '.join(cells)} |\n"


def format_repeats(expectation: StoreExpectation) -> str:
    """Return what the streams redeliver."""
    if not expectation.repeats_mail:
        return "nothing"
    since = "what was acknowledged since the snapshot; " if expectation.is_older else ""
    return f"{since}mail, with `recovered=True`"


def format_opening_row(row: OpeningFault) -> str:
    """Return one line of the table of sessions that open."""
    outcome = OUTCOMES[row.outcome].replace("raise", "raises")
    return f"| {row.title} | {outcome} |\n"


def format_calls(names: Iterable[str]) -> str:
    """Return calls of `CALLS` in the form in which a user writes them."""
    return ", ".join("your own" if name.startswith("own_") else f"`{name}()`" for name in names)


def format_row(row: FaultRow) -> str:
    """Return one line of a table."""
    cells = (
        row.title + format_delay(row),
        *(format_cell(row, effect) for effect in Effect),
        format_streams(row),
    )
    return f"| {' | '.join(cells)} |\n"


def format_delay(row: FaultRow) -> str:
    """Return the time after which an attempt fails, in brackets."""
    if not row.seconds:
        return ""
    return " (after `timeout`)" if row.seconds == TIMEOUT else f" (after {row.seconds:g} s)"


def format_cell(row: FaultRow, effect: Effect) -> str:
    """Return the outcome of most calls with this effect, and then each different outcome."""
    calls_by_outcome: dict[str, list[str]] = {}
    for name in CALLS_OF[effect]:
        expectation = row.overrides.get(name, row.expectation)
        outcome = format_outcome(row, expectation, effect)
        calls_by_outcome.setdefault(outcome, []).append(name)
    if len(calls_by_outcome) == 1:
        return next(iter(calls_by_outcome))
    default = format_outcome(row, row.expectation, effect)
    calls_by_outcome.pop(default, None)
    different = [f"{format_calls(calls)}: {text}" for text, calls in calls_by_outcome.items()]
    return "; ".join([default, *different])


def format_outcome(row: FaultRow, expectation: Expectation, effect: Effect) -> str:
    """Return the outcome of a call with this effect."""
    error = expectation.read if effect is Effect.READ else expectation.single_attempt
    if error is None:
        return "accepted"
    text = f"`{error.__name__}`"
    if expectation.retried and effect is Effect.READ:
        text = f"retried, then {text}"
    if not expectation.sent:
        text += ", not sent"
    return text + (format_status(row) if error is OutcomeUnknownError else "")


def format_status(row: FaultRow) -> str:
    """Return the status that the error has, if any."""
    statuses = {reproduction.status for reproduction in row.reproductions.values()}
    if statuses == {None}:
        return ""
    if len(statuses) > 1:
        return ", with the status"
    optional = any(reproduction.status_optional for reproduction in row.reproductions.values())
    return f", status {statuses.pop()}{' or none' if optional else ''}"


def format_streams(row: FaultRow) -> str:
    """Return what the streams do; for each stream, if they differ."""
    chat, mail = (row.overrides.get(name, row.expectation) for name in STREAMS)
    if chat.stream != mail.stream:
        return f"chat {chat.stream}; mail {mail.stream}{format_recovery(mail, ' and ')}"
    if chat.stream == "raises" and chat.read:
        return f"raise `{chat.read.__name__}`"
    return chat.stream.removesuffix("s") + format_recovery(mail, "; mail ")


def format_recovery(expectation: Expectation, before: str) -> str:
    """Return *before* and a verb, if the mail stream searches for lost mail."""
    return f"{before}recovers" if may_lose_items("unread_mail", expectation) else ""


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
