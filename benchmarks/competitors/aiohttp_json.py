"""aiohttp with ``response.json()`` and dictionaries, the most common use."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from ..server import PAGE_PATH, SMALL_PATH
from .calling import Calls, Candidate, page_params, roll_params

__all__ = ["CANDIDATES"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Calls, None]:
    async with aiohttp.ClientSession() as client:

        async def get(path: str, params: dict[str, str | int]) -> Any:
            async with client.get(url + path, params=params) as response:
                # The services send JSON as text/html, which json() rejects by default.
                return await response.json(content_type=None)

        async def roll(number: int) -> object:
            decoded: dict[str, object] = await get(SMALL_PATH, roll_params(number))
            return decoded

        async def page(after: int) -> list[object]:
            decoded: dict[str, list[object]] = await get(PAGE_PATH, page_params(after))
            return decoded["message_list"]

        yield Calls(roll, page)


CANDIDATES: Final = (
    Candidate("aiohttp + json", _open, dict, note="aiohttp + json: dictionaries, no types."),
)
