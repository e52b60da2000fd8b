"""Every async test runs on a virtual clock, so that an hour of pacing takes no time.

The loop is looptime's: sockets are real, but time jumps to the next timer when nothing is ready.
A test that has to wait for something outside its own loop asks for the `real_time` backend.
"""

from __future__ import annotations

import asyncio

import looptime
import pytest

VIRTUAL = looptime.make_event_loop_class(asyncio.SelectorEventLoop)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The virtual clock, for every test marked ``anyio``."""
    return ("asyncio", {"loop_factory": VIRTUAL})
