"""Every async test runs on a virtual clock, so that an hour of pacing takes no time.

The loop is looptime's: sockets are real, but time jumps to the next timer when nothing is ready.
What a store hands to its thread is done before the loop goes on: no time passes over it. A test
that has to wait for something outside its own loop asks for the `real_time` backend.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import looptime
import pytest
from stores import STORES, NewStore

from pythpeer.stores import Store


class Virtual(looptime.make_event_loop_class(asyncio.SelectorEventLoop)):  # type: ignore[misc]
    """The loop of every test."""

    def run_in_executor(
        self, executor: Any, func: Callable[..., object], *args: object
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        if executor is not None:  # a thread of its own; the loop's own may take their time
            executor.submit(int).result()
        return future


VIRTUAL = Virtual


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The virtual clock, for every test marked ``anyio``."""
    return ("asyncio", {"loop_factory": VIRTUAL})


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for stores, in memory where there is a disk in it: stores sync a lot."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(params=["memory", "sqlite"])
def new_store(request: pytest.FixtureRequest, folder: Path) -> NewStore:
    """Makes stores, of each kind in turn: what is promised is promised on all of them."""

    def make(*, max_length: int = 10_000) -> Store:
        return STORES[request.param](folder, max_length)

    return make
