"""Every async test runs on a virtual clock, so that an hour of pacing takes no time.

The loop is the test kit's own: sockets are real, but time jumps to the next timer when nothing is
going on.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import redis_server
from fake_client import Client, connect
from helpers import DEEP, SHORT_BACKOFF, REAL, UNLIMITED, VIRTUAL, Backend, examples
from hypothesis import settings
from scripted import Scripted
from stores import STORES, NewStore

from pythpeer import Session
from pythpeer.stores import Store
from pythpeer.testing import FakeServices

# No deadline: a busy machine is no defect. A failure prints how to repeat it.
settings.register_profile("small", max_examples=examples(100), deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=examples(100), deadline=None, print_blob=True)
settings.load_profile("deep" if DEEP else "small")

pytest_plugins = ("costs",)

# The fixtures of the command line's tests, which their modules load as a plugin.
pytest.register_assert_rewrite("cli_runner", "processes", "browser")


RUN_ONCE: Final = frozenset(
    f"test_{name}"
    for name in (
        *("benchmark_calls", "benchmark_day", "benchmark_decoding", "benchmark_limiter"),
        *("benchmark_loss", "benchmark_pacing", "benchmark_report", "benchmark_streams"),
        *("cli_rows", "fake_habits", "fake_keys", "fake_people", "judge", "layers", "line"),
        *("page", "shapes", "testing_page", "typed", "version", "wire"),
    )
)
"""Modules in which nothing can come out differently on another Python: marked ``once``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the modules in `ONCE`."""
    for item in items:
        if item.path.stem in RUN_ONCE:
            item.add_marker("once")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what could not be tried on this machine: a skip is easily taken for a pass."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
    )
    if reasons:
        terminalreporter.section("NOT TRIED on this machine", bold=True, yellow=True)
    for reason, tests in sorted(reasons.items()):
        terminalreporter.line(f"{tests} tests: {reason}", bold=True, yellow=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """The virtual clock, for every test marked ``anyio`` but those marked ``real_time``."""
    return VIRTUAL if request.node.get_closest_marker("real_time") is None else REAL


@pytest.fixture
async def fake() -> AsyncIterator[FakeServices]:
    """Fake services that may be asked at any pace."""
    async with FakeServices(rates=UNLIMITED) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeServices) -> AsyncIterator[Client]:
    """A client that asks `fake` byte for byte."""
    async with connect() as http:
        yield Client(fake, http)


@pytest.fixture
async def services() -> AsyncIterator[Scripted]:
    """Both services, with a script."""
    async with Scripted() as services:
        yield services


@pytest.fixture
async def session(new_store: NewStore, services: Scripted) -> AsyncIterator[Session]:
    """A session with short back-offs for `services`, on each kind of store in turn."""
    async with services.session(retry=SHORT_BACKOFF, store=new_store()) as session:
        yield session


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for stores, in memory where there is a disk in it: stores sync a lot."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.costly)])
def new_store(request: pytest.FixtureRequest, folder: Path) -> NewStore:
    """Makes stores, of each kind in turn: what is promised is promised on all of them."""

    def make(*, max_length: int = 10_000) -> Store:
        return STORES[request.param](folder, max_length)

    return make


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The URL of the ``fake`` server, or of the ``real`` one, for all tests of a run."""
    with ExitStack() as servers:

        @cache
        def url(kind: str) -> str:
            if kind == "fake":
                return servers.enter_context(redis_server.fake_server())
            folder = tmp_path_factory.mktemp("redis")
            return servers.enter_context(redis_server.real_server(folder)).url

        yield url
