"""Every async test runs on a virtual clock, so that an hour of pacing takes no time.

The loop is looptime's: sockets are real, but time jumps to the next timer when nothing is ready.
What a store hands to its thread is done before the loop goes on: no time passes over it. A test
that has to wait for something outside its own loop asks for the `real_time` backend.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import looptime
import pytest

from pythpeer.stores.sqlite.worker import Worker


class Virtual(looptime.make_event_loop_class(asyncio.SelectorEventLoop)):  # type: ignore[misc]
    """The loop of every test."""

    def run_in_executor(
        self, executor: Any, func: Callable[..., object], *args: object
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        if isinstance(executor, Worker):  # the loop's own threads may take their time
            done = threading.Event()
            executor.post(done.set)
            done.wait()
        return future


VIRTUAL = Virtual


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The virtual clock, for every test marked ``anyio``."""
    return ("asyncio", {"loop_factory": VIRTUAL})
