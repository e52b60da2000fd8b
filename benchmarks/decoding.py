"""An answer's bytes into objects: how fast, and what is left of a page that is damaged.

Pythpeer's way is all that it does with the body of an answer, the look for a refusal included.
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
from pythpeer.answers import try_parse_response
from pythpeer.peerbet import make_read_endpoint

from .chart import Bars
from .measure import take_turns
from .report import Cell, Table, ratio
from .rivals.decoding import Arm, arms
from .rivals.installed import OURS
from .server import MESSAGES, PAGE, ROLL, SMALL

__all__ = ["Damage", "damages", "outcome", "run"]

BARE: Final = "msgspec"
TARGET: Final = 0.8
"""How fast pythpeer is to be with a page, of the speed of bare msgspec."""

ELSEWHERE: Final = "https://example.com"
BROKEN: Final = 150
"""Which message of the page is broken, from 0."""

T = TypeVar("T")
Message = Mapping[str, object]


class Roll(msgspec.Struct, frozen=True):
    """The small answer."""

    status: int
    id: int
    user: str
    roll: float
    bet: str


def run(*, quick: bool) -> list[Table]:
    """Measure every decoder with whole answers and with damaged pages."""
    found, absent = arms()
    everybody = {OURS: _ours()} | found
    for arm in everybody.values():
        _check(arm)
    tables = [
        asyncio.run(_whole(everybody, 3 if quick else 25)),
        *asyncio.run(_damaged(everybody, 1 if quick else 9)),
    ]
    for table in tables:
        table.notes += [*(arm.note for arm in everybody.values() if arm.note), *absent]
    return tables


def _ours() -> Arm:
    chat = make_read_endpoint(ELSEWHERE)
    small = Endpoint("benchmark.roll", ELSEWHERE, answer=Roll)

    def read(endpoint: Endpoint[T], body: bytes) -> T:
        answer = try_parse_response(endpoint, 200, body, list)
        if isinstance(answer, PythpeerError):
            raise answer
        return answer

    def page(body: bytes) -> Sequence[ChatMessage]:
        return read(chat, body).messages

    return Arm(OURS, lambda body: read(small, body), page, msgspec.to_builtins)


def _check(arm: Arm) -> None:
    """What is compared does the same: the objects have in them what was sent."""
    if dict(arm.plain(arm.roll(SMALL))) != ROLL:
        raise RuntimeError(f"{arm.name} makes another roll of it")
    if list(map(arm.plain, arm.page(PAGE))) != MESSAGES:
        raise RuntimeError(f"{arm.name} makes another page of it")


# -- whole answers --------------------------------------------------------------------------------


async def _whole(everybody: Mapping[str, Arm], rounds: int) -> Table:
    table = Table(
        "Answers as documented: microseconds of one",
        ("answer", "decoder", "us", "MB/s", "speed", "target", "met"),
        notes=[
            f"small: an object of {len(SMALL)} bytes; page: 300 messages, {len(PAGE):,} bytes.",
            f"speed: of {BARE}, which makes the same Structs; median of {rounds} rounds' ratios.",
            f"{OURS} looks for a refusal as well, and brings a page into order.",
        ],
        chart=Bars("decoder", ("us", "MB/s"), by="answer"),
    )
    for answer, body, count in ("small", SMALL, 10_000), ("page", PAGE, 100):
        work = {
            name: _repeated(arm.roll if answer == "small" else arm.page, body, count)
            for name, arm in everybody.items()
        }
        times = await take_turns(rounds, work)
        for name, each in times.items():
            seconds = statistics.median(each.wall) / count
            speed = ratio(times[BARE].wall, each.wall)
            judged = name == OURS and answer == "page"
            held = (f">= {TARGET}", speed >= TARGET) if judged else (None, None)
            table.add(answer, name, seconds * 1e6, len(body) / seconds / 1e6, speed, *held)
            table.samples[f"{answer} {name} s"] = each.wall
    return table


# -- damaged pages --------------------------------------------------------------------------------


class Damage(NamedTuple):
    """A page on which something is broken, and the messages that can be had of it all the same."""

    body: bytes
    messages: Sequence[Message]


def damages() -> dict[str, Damage]:
    """Every damage by what it is. All of them are what PHP, or a text of somebody's, can do."""
    whole: list[dict[str, Any]] = copy.deepcopy(MESSAGES)
    others = [*whole[:BROKEN], *whole[BROKEN + 1 :]]

    def said(text: str) -> list[dict[str, Any]]:
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
        "an id is no number": Damage(page(_changed(whole, id="none")), others),
        "a text is missing": Damage(page(without), others),
        "a lone surrogate": Damage(page(said("a\ud83d")), said("a\ufffd")),
        "no UTF-8": Damage(page(said("a!")).replace(b"a!", b"a\xff"), said("a\ufffd")),
        "a raw line break": Damage(page(said("a!")).replace(b"a!", b"a\n"), said("a\n")),
        "an object for a list": Damage(page(by_number), whole),
        "a warning before it": Damage(warning + page(whole), whole),
        "half of it": Damage(PAGE[: len(PAGE) // 2], []),
    }


def _changed(messages: Sequence[dict[str, Any]], **fields: object) -> list[dict[str, Any]]:
    return [*messages[:BROKEN], messages[BROKEN] | fields, *messages[BROKEN + 1 :]]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class Outcome(NamedTuple):
    """What came of a damaged page."""

    kept: int
    """Messages that are as they should be."""

    wrong: int
    """Messages that are not, and were handed out all the same."""


def outcome(arm: Arm, damage: Damage) -> Outcome:
    """Decode a damaged page, and compare what comes of it with what can be had."""
    try:
        found = [arm.plain(message) for message in arm.page(damage.body)]
    except Exception:  # noqa: BLE001  # each decoder has errors of its own
        return Outcome(0, 0)
    right = {message["id"]: message for message in damage.messages}
    kept = sum(right.get(message["id"]) == message for message in found)
    return Outcome(kept, len(found) - kept)


async def _damaged(everybody: Mapping[str, Arm], rounds: int) -> list[Table]:
    """All damages taken together, and each by itself."""
    count = 10
    each = Table(
        "A damaged page, by what is damaged",
        ("damage", "decoder", "kept", "wrong", "ms", "target", "met"),
        notes=[
            f"Medians of {rounds} rounds of {count}; who raises an error is done sooner.",
            f"target: all that can be had, and nothing wrong. {OURS} counts what it leaves out.",
        ],
    )
    cases = damages()
    outcomes: dict[str, list[Outcome]] = {name: [] for name in everybody}
    longest = dict.fromkeys(everybody, 0.0)
    for said, damage in cases.items():
        work = {
            name: _repeated(_forgiven(arm.page), damage.body, count)
            for name, arm in everybody.items()
        }
        times = await take_turns(rounds, work)
        best = Outcome(len(damage.messages), 0)
        for name, arm in everybody.items():
            ms = statistics.median(times[name].wall) / count * 1e3
            longest[name] = max(longest[name], ms)
            found = outcome(arm, damage)
            outcomes[name].append(found)
            each.add(said, name, *found, ms, *_held(name, found, best))
            each.samples[f"{said} {name} s"] = times[name].wall
    best = Outcome(sum(len(damage.messages) for damage in cases.values()), 0)
    whole = Table(
        f"A damaged page of 300 messages: what is left of it, {len(cases)} damages together",
        ("decoder", "kept", "wrong", "ms at most", "target", "met"),
        notes=[
            "kept: messages that are as they should be; where an error is raised there are none.",
            "wrong: handed out, with an id that is no number or a text that cannot be encoded.",
        ],
        chart=Bars("decoder", ("kept", "wrong", "ms at most")),
    )
    for name, those in outcomes.items():
        total = Outcome(sum(one.kept for one in those), sum(one.wrong for one in those))
        whole.add(name, *total, longest[name], *_held(name, total, best))
    return [whole, each]


def _held(name: str, found: Outcome, best: Outcome) -> tuple[Cell, Cell]:
    """What pythpeer is held to, and whether it did it; nothing for others."""
    return (f"{best.kept} kept", found == best) if name == OURS else (None, None)


def _forgiven(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """*decode*, of which no error is heard."""

    def attempt(body: bytes) -> None:
        with suppress(Exception):
            decode(body)

    return attempt


def _repeated(decode: Callable[[bytes], object], body: bytes, count: int) -> Any:
    async def all_of_them() -> None:
        for _ in range(count):
            decode(body)

    return all_of_them
