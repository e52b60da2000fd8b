"""Every async test runs on a virtual clock, so that an hour of pacing takes no time.

The loop is the test kit's own: sockets are real, but time jumps to the next timer when nothing is
going on.
"""

from __future__ import annotations

import pytest

from pythpeer.testing import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The virtual clock, for every test marked ``anyio``."""
    return ("asyncio", {"loop_factory": VirtualTimeLoop})
