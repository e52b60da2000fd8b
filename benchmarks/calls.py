"""One call, small and large: pythpeer against bare aiohttp and msgspec, both without pacing."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import msgspec

from pythpeer import ChatMessage, Endpoint, Rate, Secret, Session

from .measure import take_turns
from .report import Table, ratio
from .server import PAGE_PATH, SMALL_PATH, Server

__all__ = ["run"]

OFF: Final = Rate(0.0, 1000)
WIDTH: Final = 16
KEY: Final = "0123456789abcdef"

Call = Callable[[], Awaitable[object]]


class Roll(msgspec.Struct, frozen=True):
    """The small answer."""

    status: int
    id: int
    user: str
    roll: float
    bet: str


class Page(msgspec.Struct, frozen=True, gc=False):
    """The large answer, 300 messages."""

    status: int
    message_list: list[ChatMessage]
    users_online: int


def run(*, quick: bool) -> list[Table]:
    """Measure small calls and pages, one after the other and 16 at once."""
    with Server() as server:
        return [asyncio.run(_run(server.url, quick=quick))]


async def _run(url: str, *, quick: bool) -> Table:
    rounds = 5 if quick else 25
    counts = {"small": 320 if quick else 960, "page": 96 if quick else 320}
    targets = {"small": 0.85, "page": 0.9}
    table = Table(
        "Calls: microseconds of one (median of rounds), and pythpeer's speed over bare's",
        ("answer", "at once", "bare us", "pythpeer us", "ratio", "CPU ratio", "target", "met"),
        notes=[
            f"{rounds} rounds of {counts['small']} calls or {counts['page']} pages, in turns.",
            "ratio: bare's time over pythpeer's, median of the rounds' ratios.",
            "bare: aiohttp's get() and read() of a ready URL, msgspec into the same Struct.",
        ],
    )
    small: Endpoint[Roll] = Endpoint("benchmark.roll", url + SMALL_PATH, rate=OFF, answer=Roll)
    key = Secret(KEY)
    decode_roll = msgspec.json.Decoder(Roll).decode
    decode_page = msgspec.json.Decoder(Page, strict=False).decode
    small_url = f"{url}{SMALL_PATH}?key={KEY}"
    page_url = f"{url}{PAGE_PATH}?action=get&key={KEY}&mid=0&last=300"
    async with (
        aiohttp.ClientSession() as client,
        Session(
            peerbet_key=key,
            peerbet_url=url,
            rates={"peerbet.chat.get": OFF},
        ) as session,
    ):

        async def bare_small() -> Roll:
            async with client.get(small_url) as response:
                return decode_roll(await response.read())

        async def our_small() -> Roll:
            return await session.call(small, key=key)

        async def bare_page() -> Page:
            async with client.get(page_url) as response:
                return decode_page(await response.read())

        async def our_page() -> object:
            return await session.peerbet.messages(after=0, last=300)

        if await bare_small() != await our_small():
            raise RuntimeError("the two small answers differ")
        page = await session.peerbet.messages(after=0, last=300)
        if (await bare_page()).message_list != list(page.messages) or len(page.messages) != 300:
            raise RuntimeError("the two pages differ")

        arms: dict[str, tuple[Call, Call]] = {
            "small": (bare_small, our_small),
            "page": (bare_page, our_page),
        }
        for answer, (bare, ours) in arms.items():
            for width in (1, WIDTH):
                count = counts[answer]
                times = await take_turns(
                    rounds,
                    {"bare": _repeated(bare, count, width), "ours": _repeated(ours, count, width)},
                )
                b, o = times["bare"], times["ours"]
                speed = ratio(b.wall, o.wall)
                table.add(
                    answer,
                    width,
                    statistics.median(b.wall) / count * 1e6,
                    statistics.median(o.wall) / count * 1e6,
                    speed,
                    ratio(b.cpu, o.cpu),
                    f">= {targets[answer]}",
                    speed >= targets[answer],
                )
                table.samples[f"{answer} {width} bare s"] = b.wall
                table.samples[f"{answer} {width} pythpeer s"] = o.wall
    return table


def _repeated(call: Call, count: int, width: int) -> Call:
    """*count* calls by *width* tasks at once, or one after the other in this one."""

    async def some(share: int) -> None:
        for _ in range(share):
            await call()

    async def all_of_them() -> None:
        if width == 1:
            await some(count)
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(some(count // width))

    return all_of_them
