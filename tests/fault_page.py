"""The fault table as a page of the documentation: ``python tests/fault_page.py`` writes it.

``test_faults.py`` fails where the page on disk is another. The page knows nothing but the table, to
which the same tests hold every cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fault_cells import STREAMS, may_lose_items
from faults import TABLE, TIMEOUT, REPRODUCTIONS, FaultRow, Expectation
from raw_server import CALLS

from pythpeer import Effect, OutcomeUnknownError

PATH: Final = Path(__file__).parent.parent / "docs" / "faults.md"

TOP: Final = """\
# What becomes of every fault

What your program gets for each fault that the network or a service can produce. This page is made
of a table in the project's tests, which hold it true: {ways} ways to do wrong are brought about, on
a server that speaks plain bytes, for each of {calls} calls and {streams} streams. Where one of
these {cells} cells is otherwise, or this page is, the tests fail. (`tests/faults.py` has the table,
`tests/test_faults.py` runs it, `nox -s docs-faults` writes this page: do not edit it.)

| column | what is in it |
|---|---|
| read | {reads} |
| consuming read | {consumes} |
| write | {writes} |
| streams | `chat_stream()`, `mail_stream()` |

- **Repeated**: a read is asked again, as often as `Retry` says, and what stands behind it is raised
  if the last attempt fails, too. Nothing else is ever asked again: it reaches the service once, at
  most.
- **Not sent**: the request certainly never left, and `.sent` is `False`; otherwise it is `True`,
  where the error has it. In the same way errors have `.status`, `.retry_after` and `.message`.
- **Wait**: the streams go on trying, with one WARNING when it starts and one INFO when it is over.
  **Mail settles**: mail may have been marked as read without having come here, so the next poll, or
  the next `unread_mail()`, looks for it in the history.
- **Raise**: the streams raise that, each time they are asked. Once it is mended, they go on.
- **Understood**: there is an answer after all, and the streams **go on** with it.

`timeout`, `max_wait` and `max_body` are options of `Session`. What an error means:
[errors](errors.md).
"""

HEAD: Final = """
## {title}

| what happens | read | consuming read | write | streams |
|---|---|---|---|---|
"""

CALLS_OF: Final = {
    effect: [name for name, call in CALLS.items() if call.effect is effect] for effect in Effect
}


def page() -> str:
    """The whole page."""
    text = TOP.format(
        ways=len(REPRODUCTIONS),
        calls=len(CALLS),
        streams=len(STREAMS),
        cells=len(REPRODUCTIONS) * (len(CALLS) + len(STREAMS)),
        reads=format_calls(CALLS_OF[Effect.READ]),
        consumes=format_calls(CALLS_OF[Effect.CONSUME]),
        writes=format_calls(CALLS_OF[Effect.WRITE]),
    )
    for title, group in TABLE.items():
        text += HEAD.format(title=title) + "".join(map(format_row, group))
    return text


def format_calls(names: Iterable[str]) -> str:
    """Calls, as a user calls them."""
    return ", ".join("your own" if name.startswith("own_") else f"`{name}()`" for name in names)


def format_row(fault: FaultRow) -> str:
    """One line of a table."""
    cells = (
        fault.title + format_delay(fault),
        *(format_cell(fault, effect) for effect in Effect),
        format_streams(fault),
    )
    return f"| {' | '.join(cells)} |\n"


def format_delay(fault: FaultRow) -> str:
    """How long it takes to find out."""
    if not fault.seconds:
        return ""
    return " (after `timeout`)" if fault.seconds == TIMEOUT else f" (after {fault.seconds:g} s)"


def format_cell(fault: FaultRow, effect: Effect) -> str:
    """What calls of this effect get, and then those for which it is otherwise."""
    kinds: dict[Expectation, list[str]] = {}
    for name in CALLS_OF[effect]:
        kinds.setdefault(fault.overrides.get(name, fault.expectation), []).append(name)
    if len(kinds) == 1:
        return format_outcome(fault, next(iter(kinds)), effect)
    usual = format_outcome(fault, fault.expectation, effect)
    rest = {format_outcome(fault, kind, effect): names for kind, names in kinds.items()}
    rest.pop(usual, None)
    return "; ".join([usual, *(f"{format_calls(names)}: {words}" for words, names in rest.items())])


def format_outcome(fault: FaultRow, kind: Expectation, effect: Effect) -> str:
    """What a call gets, in words."""
    error = kind.read if effect is Effect.READ else kind.single_attempt
    if error is None:
        return "understood"
    words = f"`{error.__name__}`"
    if kind.repeated and effect is Effect.READ:
        words = f"repeated, then {words}"
    if not kind.sent:
        words += ", not sent"
    return words + (format_status(fault) if error is OutcomeUnknownError else "")


def format_status(fault: FaultRow) -> str:
    """Which status there was, if any."""
    told = {way.status for way in fault.reproductions.values()}
    if told == {None}:
        return ""
    if len(told) > 1:
        return ", with the status"
    hasty = any(way.status_optional for way in fault.reproductions.values())
    return f", status {told.pop()}{' or none' if hasty else ''}"


def format_streams(fault: FaultRow) -> str:
    """What the streams do; how they differ, where they do."""
    chat, mail = (fault.overrides.get(name, fault.expectation) for name in STREAMS)
    if chat.stream != mail.stream:
        return f"chat {chat.stream}; mail {mail.stream}{format_recovery(mail, ' and ')}"
    if chat.stream == "raises" and chat.read:
        return f"raise `{chat.read.__name__}`"
    return {"waits": "wait", "goes on": "go on"}[chat.stream] + format_recovery(mail, "; mail ")


def format_recovery(kind: Expectation, before: str) -> str:
    """Whether the mail stream looks for what may be lost."""
    return f"{before}settles" if may_lose_items("unread_mail", kind) else ""


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
