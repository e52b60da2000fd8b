"""asyncpraw's `stream_generator` over a listing read with aiohttp."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import aiohttp
from asyncpraw.models.util import stream_generator

from .bare_loops import FAILURES, lines
from .polling import Candidate, Reading, ServiceAccess

__all__ = ["CANDIDATES"]


class _Item(NamedTuple):
    id: int
    text: str


def _ignore_failures(error: Exception) -> None:
    if not isinstance(error, FAILURES):
        raise error


@asynccontextmanager
async def _chat(access: ServiceAccess) -> AsyncGenerator[Reading]:
    async def listing(*, limit: int, params: dict[str, Any]) -> AsyncIterator[_Item]:
        before = params["before"]
        params = {"last": limit} if before is None else {"last": limit, "mid": before}
        for line in reversed(await lines(http, access, **params)):
            yield _Item(line["id"], line["msg"])

    async def step() -> Sequence[str]:
        return [(await anext(stream)).text]

    async with aiohttp.ClientSession() as http:
        stream = stream_generator(listing, attribute_name="id", exception_handler=_ignore_failures)
        yield Reading(step)


CANDIDATES: Final = (
    Candidate(
        "asyncpraw, stream_generator",
        chat=_chat,
        note=(
            "asyncpraw requests at most 100 messages, and waits up to 16 s while there "
            "are no new ones."
        ),
    ),
)
