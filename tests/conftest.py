"""Every async test runs on a virtual clock, so that an hour of pacing takes no time.

The loop is the test kit's own: sockets are real, but time jumps to the next timer when nothing is
going on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fake_client import AT_WILL, Client, connect

from pythpeer.testing import FakeServices, VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The virtual clock, for every test marked ``anyio``."""
    return ("asyncio", {"loop_factory": VirtualTimeLoop})


@pytest.fixture
async def fake() -> AsyncIterator[FakeServices]:
    """Fake services that may be asked at any pace."""
    async with FakeServices(rates=AT_WILL) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeServices) -> AsyncIterator[Client]:
    """A client that asks `fake` byte for byte."""
    async with connect() as http:
        yield Client(fake, http)
