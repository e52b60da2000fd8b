"""Context managers behind the fixtures of the pytest plugin, for every plugin that runs tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ..session import Session
from .fake import FakeServices

__all__ = ["open_session", "running_services"]


def _options(request: pytest.FixtureRequest, marker: str) -> dict[str, Any]:
    """Return the arguments of all markers of this name; those closest to the test win."""
    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers(marker))):
        if mark.args:
            pytest.fail(f"arguments of the marker {marker} must be given by name")
        options |= mark.kwargs
    return options


@asynccontextmanager
async def running_services(request: pytest.FixtureRequest) -> AsyncGenerator[FakeServices]:
    """Run `FakeServices` with the arguments of the test's markers."""
    async with FakeServices(**_options(request, "fake_services")) as fake:
        yield fake


@asynccontextmanager
async def open_session(
    request: pytest.FixtureRequest, fake_services: FakeServices
) -> AsyncGenerator[Session]:
    """Open a `Session` with the arguments of the test's markers."""
    async with fake_services.session(**_options(request, "pythpeer_session")) as session:
        yield session
