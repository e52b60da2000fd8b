"""The plugin's fixtures for pytest-asyncio: one for each scope that an event loop can have.

They are made with pytest-asyncio's own decorator, which its strict mode requires. This module must
be imported only if pytest-asyncio is active.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Literal

import pytest
import pytest_asyncio

from ..session import Session
from .fake import FakeServices
from .plugin_contexts import open_session, running_services

__all__: list[str] = []

Scope = Literal["function", "class", "module", "package", "session"]

SCOPES: Final[tuple[Scope, ...]] = ("function", "class", "module", "package", "session")


def _add_fixtures(scope: Scope) -> None:
    """Add fixtures for tests whose event loop lasts for *scope*; they last for one test each."""

    async def services(request: pytest.FixtureRequest) -> AsyncGenerator[FakeServices]:
        async with running_services(request) as fake:
            yield fake

    async def session(
        request: pytest.FixtureRequest, fake_services: FakeServices
    ) -> AsyncGenerator[Session]:
        async with open_session(request, fake_services) as opened_session:
            yield opened_session

    for public, fixture in (("fake_services", services), ("pythpeer_session", session)):
        name = f"_{public}_of_asyncio_{scope}"
        globals()[name] = pytest_asyncio.fixture(fixture, loop_scope=scope, name=name)


for _scope in SCOPES:
    _add_fixtures(_scope)
