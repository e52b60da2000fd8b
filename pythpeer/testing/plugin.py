"""The pytest plugin: `fake_services` and `pythpeer_session`, for async tests of bots.

pytest itself has no async fixtures: each plugin that runs async tests handles them differently, in
an event loop of its own. So the fixtures that open something exist once for each plugin, and the
fixtures with the public names select one of them during the setup of a test. This module is
imported whenever pytest starts, so it must import no more than the package does.
``-p no:pythpeer`` disables it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import pytest

from ..session import Session
from .fake import FakeServices
from .plugin_contexts import open_session, running_services

__all__ = [
    "fake_services",
    "open_session",
    "pytest_configure",
    "pythpeer_session",
    "running_services",
]


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and the fixtures for pytest-asyncio if that plugin is active."""
    for marker, arguments in (("fake_services", "FakeServices"), ("pythpeer_session", "Session")):
        line = f"{marker}(**options): arguments of {arguments} for the fixture of this name"
        config.addinivalue_line("markers", line)
    if config.pluginmanager.has_plugin("asyncio"):
        from . import plugin_asyncio

        config.pluginmanager.register(plugin_asyncio, "pythpeer-asyncio")


@pytest.fixture
def fake_services(request: pytest.FixtureRequest) -> Iterator[FakeServices]:
    """`FakeServices` that are running in the event loop of the test.

    ``@pytest.mark.fake_services(order="shuffled")`` gives arguments; those of a module, a class and
    a test are combined. A test during which a rule of the services is broken ends with an error:
    clear ``fake_services.violations`` if that was intended.
    """
    fake: FakeServices = request.getfixturevalue(_fixture_for(request, "fake_services"))
    yield fake
    if fake.violations:
        broken = "\n".join(map(str, fake.violations))
        pytest.fail(f"rules of the services were broken:\n{broken}", pytrace=False)


@pytest.fixture
def pythpeer_session(request: pytest.FixtureRequest) -> Session:
    """An open `Session` with the keys and URLs of `fake_services`.

    ``@pytest.mark.pythpeer_session(timeout=5.0)`` gives arguments.
    """
    session: Session = request.getfixturevalue(_fixture_for(request, "pythpeer_session"))
    return session


def _fixture_for(request: pytest.FixtureRequest, name: str) -> str:
    """Return the name of the fixture for the plugin that runs the test."""
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        if "asyncio" not in (backend, backend[0]):
            pytest.fail("pythpeer needs asyncio: the fixture anyio_backend must return it")
        if _asyncio_mode(request.config) == "auto":
            pytest.fail("pytest-asyncio's auto mode also runs anyio's tests: use its strict mode")
        return f"_{name}_of_anyio"
    if request.config.pluginmanager.has_plugin("pythpeer-asyncio"):
        marker = request.node.get_closest_marker("asyncio")
        scope = marker and (marker.kwargs.get("loop_scope") or marker.kwargs.get("scope"))
        scope = scope or request.config.getini("asyncio_default_test_loop_scope")
        return f"_{name}_of_asyncio_{scope}"
    pytest.fail(f"{name} is for async tests: mark them with anyio, or install pytest-asyncio")


def _asyncio_mode(config: pytest.Config) -> str:
    if not config.pluginmanager.has_plugin("asyncio"):
        return ""
    return str(config.getoption("asyncio_mode") or config.getini("asyncio_mode"))


# anyio's plugin runs async fixtures that depend on `anyio_backend`.


@pytest.fixture
async def _fake_services_of_anyio(
    request: pytest.FixtureRequest,
    anyio_backend: object,  # noqa: ARG001
) -> AsyncGenerator[FakeServices]:
    async with running_services(request) as fake:
        yield fake


@pytest.fixture
async def _pythpeer_session_of_anyio(
    request: pytest.FixtureRequest,
    anyio_backend: object,  # noqa: ARG001
    fake_services: FakeServices,
) -> AsyncGenerator[Session]:
    async with open_session(request, fake_services) as session:
        yield session
