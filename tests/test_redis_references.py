"""What a caller has is freed when it ends: no error of redis-py keeps it alive.

Each of them is part of a reference cycle with its frames. From Python 3.12 on a frame keeps the
frames of all callers, too: a stream that was left, and with it its unacknowledged items.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest
from redis_server import FaultyRedis

from pythpeer.stores import RedisStore, Topic

pytestmark = pytest.mark.anyio


class Item(msgspec.Struct, frozen=True):
    id: int


CHAT: Final = Topic("chat", Item)


class Marker:
    """Stands in the frame of a caller."""


async def call(store: RedisStore) -> weakref.ref[Marker]:
    """Call *store* from a frame with a marker, and return a reference to that."""
    marker = Marker()
    await store.log(CHAT).max_acknowledged()
    return weakref.ref(marker)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing frees reference cycles during the test."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
async def test_a_command_that_fails() -> None:
    """The script is not known, and then it is."""
    async with FaultyRedis(b"-NOSCRIPT No matching script") as store:
        await store.open()
        marker = await call(store)
        assert marker() is None


@pytest.mark.usefixtures("no_collection")
async def test_a_server_that_does_not_tell_its_version() -> None:
    """A new connection is opened, and may be used."""
    async with FaultyRedis(version=None) as store:
        await store.open()
        await store._connections._discard_idle()
        marker = await call(store)
        assert marker() is None
