"""Bare aiohttp and msgspec, the libraries on which pythpeer is built."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from ..server import PAGE_PATH, SMALL_PATH
from .calling import BARE, Calls, Candidate, page_params, roll_params
from .msgspec_structs import Message, decode_page, decode_roll, plain

__all__ = ["CANDIDATES"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Calls, None]:
    async with aiohttp.ClientSession() as client:

        async def roll(number: int) -> object:
            async with client.get(url + SMALL_PATH, params=roll_params(number)) as response:
                return decode_roll(await response.read())

        async def page(after: int) -> list[Message]:
            async with client.get(url + PAGE_PATH, params=page_params(after)) as response:
                return decode_page(await response.read()).message_list

        yield Calls(roll, page)


CANDIDATES: Final = (
    Candidate(
        BARE,
        _open,
        plain,
        note=f"{BARE}: get() with params and read(), decoded into the same Structs.",
    ),
)
