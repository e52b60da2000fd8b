"""httpx and pydantic, another common pair for API clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from ..server import PAGE_PATH, SMALL_PATH
from .calling import Calls, Candidate, page_params, roll_params
from .pydantic_models import Message, Page, Roll, plain

__all__ = ["CANDIDATES"]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Calls, None]:
    # Its documentation recommends one shared client; http2 and proxies have their defaults.
    async with httpx.AsyncClient(base_url=url) as client:

        async def roll(number: int) -> object:
            response = await client.get(SMALL_PATH, params=roll_params(number))
            return Roll.model_validate_json(response.content)

        async def page(after: int) -> list[Message]:
            response = await client.get(PAGE_PATH, params=page_params(after))
            return Page.model_validate_json(response.content).message_list

        yield Calls(roll, page)


CANDIDATES: Final = (Candidate("httpx + pydantic", _open, plain),)
