"""Decoding of a response into objects: its speed, and the result for a damaged page.

For pythpeer this includes everything that it does with a body, such as the check for an API error.
"""

from __future__ import annotations

import asyncio
import copy
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pythpeer import ChatMessage, Endpoint, PythpeerError
from pythpeer.peerbet import make_read_endpoint
from pythpeer.wire.responses import try_parse_response

from .chart import Bars
from .competitors.decoding import Candidate, load_candidates
from .competitors.installed import OURS
from .measure import interleave
from .report import Cell, Table, ratio
from .server import MESSAGES, PAGE, ROLL, SMALL

__all__ = ["Damage", "damaged_pages", "outcome", "run"]

BARE: Final = "msgspec"
TARGET: Final = 0.8
"""Minimum speed of pythpeer with a page, relative to bare msgspec."""

OTHER_URL: Final = "https://example.com"
BROKEN: Final = 150
"""Index of the broken message of the page."""

T = TypeVar("T")
Message = Mapping[str, object]


class Roll(msgspec.Struct, frozen=True):
    """The small response."""

    status: int
    id: int
    user: str
    roll: float
    bet: str


def run(*, quick: bool) -> list[Table]:
    """Measure every decoder with complete responses and with damaged pages."""
    others, missing = load_candidates()
    candidates = {OURS: _ours()} | others
    for candidate in candidates.values():
        _check(candidate)
    tables = [
        asyncio.run(_complete_responses(candidates, 3 if quick else 25)),
        *asyncio.run(_damaged(candidates, 1 if quick else 9)),
    ]
    for table in tables:
        table.notes += [
            *(candidate.note for candidate in candidates.values() if candidate.note),
            *missing,
        ]
    return tables


def _ours() -> Candidate:
    chat = make_read_endpoint(OTHER_URL)
    small = Endpoint("benchmark.roll", OTHER_URL, answer=Roll)

    def read(endpoint: Endpoint[T], body: bytes) -> T:
        answer = try_parse_response(endpoint, 200, body, list)
        if isinstance(answer, PythpeerError):
            raise answer
        return answer

    def page(body: bytes) -> Sequence[ChatMessage]:
        return read(chat, body).messages

    return Candidate(OURS, lambda body: read(small, body), page, msgspec.to_builtins)


def _check(candidate: Candidate) -> None:
    """Check that the objects of a decoder contain exactly the data that was sent."""
    if dict(candidate.plain(candidate.roll(SMALL))) != ROLL:
        raise RuntimeError(f"{candidate.name} decodes a different roll")
    if list(map(candidate.plain, candidate.page(PAGE))) != MESSAGES:
        raise RuntimeError(f"{candidate.name} decodes a different page")


# -- complete responses ---------------------------------------------------------------------------


async def _complete_responses(candidates: Mapping[str, Candidate], rounds: int) -> Table:
    table = Table(
        "Time to decode a response, by decoder",
        ("response", "decoder", "us", "MB/s", "speed", "target", "met"),
        notes=[
            f"small: an object of {len(SMALL)} bytes; page: 300 messages, {len(PAGE):,} bytes.",
            (
                f"speed: relative to {BARE}, which makes the same Structs; median of the "
                f"ratios of {rounds} rounds."
            ),
            f"{OURS} also checks for an API error, and sorts a page.",
        ],
        chart=Bars("decoder", ("us", "MB/s"), by="response"),
    )
    for answer, body, count in ("small", SMALL, 10_000), ("page", PAGE, 100):
        work = {
            name: _repeated(candidate.roll if answer == "small" else candidate.page, body, count)
            for name, candidate in candidates.items()
        }
        times = await interleave(rounds, work)
        for name, measured in times.items():
            seconds = statistics.median(measured.wall) / count
            speed = ratio(times[BARE].wall, measured.wall)
            has_target = name == OURS and answer == "page"
            target_cells = (f">= {TARGET}", speed >= TARGET) if has_target else (None, None)
            table.add(answer, name, seconds * 1e6, len(body) / seconds / 1e6, speed, *target_cells)
            table.samples[f"{answer} {name} s"] = measured.wall
    return table


# -- damaged pages --------------------------------------------------------------------------------


class Damage(NamedTuple):
    """A damaged page, and the messages that can be recovered from it."""

    body: bytes
    messages: Sequence[Message]


def damaged_pages() -> dict[str, Damage]:
    """Return damaged pages by the kind of damage, each of which PHP or a user's text can cause."""
    whole: list[dict[str, Any]] = copy.deepcopy(MESSAGES)
    others = [*whole[:BROKEN], *whole[BROKEN + 1 :]]

    def page_of(text: str) -> list[dict[str, Any]]:
        return _changed(whole, msg=text)

    def page(messages: object) -> bytes:
        return _json({"status": 1, "users_online": 3, "message_list": messages})

    without = [dict(message) for message in whole]
    del without[BROKEN]["msg"]
    by_number = {str(number): message for number, message in enumerate(whole)}
    warning = (
        b"<br />\n<b>Warning</b>: Undefined index in <b>/chat.php</b> on line <b>7</b><br />\n"
    )
    return {
        "an id is not a number": Damage(page(_changed(whole, id="none")), others),
        "a text is missing": Damage(page(without), others),
        "a lone surrogate": Damage(page(page_of("a\ud83d")), page_of("a\ufffd")),
        "invalid UTF-8": Damage(page(page_of("a!")).replace(b"a!", b"a\xff"), page_of("a\ufffd")),
        "a raw line break": Damage(page(page_of("a!")).replace(b"a!", b"a\n"), page_of("a\n")),
        "an object for a list": Damage(page(by_number), whole),
        "a warning before the JSON": Damage(warning + page(whole), whole),
        "half of the page": Damage(PAGE[: len(PAGE) // 2], []),
    }


def _changed(messages: Sequence[dict[str, Any]], **fields: object) -> list[dict[str, Any]]:
    return [*messages[:BROKEN], messages[BROKEN] | fields, *messages[BROKEN + 1 :]]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class Outcome(NamedTuple):
    """The result of decoding a damaged page."""

    kept: int
    """Correct messages."""

    wrong: int
    """Wrong messages that were returned."""


def outcome(candidate: Candidate, damage: Damage) -> Outcome:
    """Decode a damaged page, and compare the result with the messages that can be recovered."""
    try:
        messages = [candidate.plain(message) for message in candidate.page(damage.body)]
    except Exception:  # noqa: BLE001  # each decoder has different exceptions
        return Outcome(0, 0)
    right = {message["id"]: message for message in damage.messages}
    kept = sum(right.get(message["id"]) == message for message in messages)
    return Outcome(kept, len(messages) - kept)


async def _damaged(candidates: Mapping[str, Candidate], rounds: int) -> list[Table]:
    """Return the tables of all kinds of damage together, and of each kind."""
    count = 10
    by_damage = Table(
        "Messages kept from a damaged page of 300, by kind of damage",
        ("damage", "decoder", "kept", "wrong", "ms", "target", "met"),
        notes=[
            (
                f"Medians of {rounds} rounds of {count}; a decoder that raises an error "
                "finishes sooner."
            ),
            (
                f"target: all messages that can be recovered, and none wrong. {OURS} "
                "counts those that it leaves out."
            ),
        ],
    )
    cases = damaged_pages()
    outcomes: dict[str, list[Outcome]] = {name: [] for name in candidates}
    max_ms = dict.fromkeys(candidates, 0.0)
    for damage_name, damage in cases.items():
        work = {
            name: _repeated(_without_errors(candidate.page), damage.body, count)
            for name, candidate in candidates.items()
        }
        times = await interleave(rounds, work)
        best = Outcome(len(damage.messages), 0)
        for name, candidate in candidates.items():
            ms = statistics.median(times[name].wall) / count * 1e3
            max_ms[name] = max(max_ms[name], ms)
            result = outcome(candidate, damage)
            outcomes[name].append(result)
            by_damage.add(damage_name, name, *result, ms, *_target_cells(name, result, best))
            by_damage.samples[f"{damage_name} {name} s"] = times[name].wall
    best = Outcome(sum(len(damage.messages) for damage in cases.values()), 0)
    whole = Table(
        f"Messages kept from a damaged page of 300, {len(cases)} kinds of damage together",
        ("decoder", "kept", "wrong", "max ms", "target", "met"),
        notes=[
            "kept: correct messages; none if an error is raised.",
            (
                "wrong: returned, but with an id that is not a number or a text that "
                "cannot be encoded."
            ),
        ],
        chart=Bars("decoder", ("kept", "wrong", "max ms")),
    )
    for name, results in outcomes.items():
        total = Outcome(
            sum(result.kept for result in results), sum(result.wrong for result in results)
        )
        whole.add(name, *total, max_ms[name], *_target_cells(name, total, best))
    return [whole, by_damage]


def _target_cells(name: str, result: Outcome, best: Outcome) -> tuple[Cell, Cell]:
    """Return pythpeer's target and whether it was met; empty cells for other decoders."""
    return (f"{best.kept} kept", result == best) if name == OURS else (None, None)


def _without_errors(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return *decode* without its exceptions."""

    def attempt(body: bytes) -> None:
        with suppress(Exception):
            decode(body)

    return attempt


def _repeated(decode: Callable[[bytes], object], body: bytes, count: int) -> Any:
    async def decode_all() -> None:
        for _ in range(count):
            decode(body)

    return decode_all
