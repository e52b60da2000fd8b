"""Fixtures and settings of all tests.

Each async test runs on virtual time, so that an hour of pacing takes no time. The event loop is
that of the test kit: sockets are real, but the clock jumps to the next timer when the loop is idle.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
import redis_server
from cpu_time import CPU_TIME
from fake_client import Client, connect
from helpers import DEEP, REAL, SHORT_BACKOFF, UNLIMITED, VIRTUAL, Backend, examples, memory_folder
from hypothesis import settings
from redis_virtual import VirtualRedisStore
from scripted import Scripted
from stores import STORES, StoreFactory, opened, redis_programs

from pythpeer import Session
from pythpeer.stores import RedisStore, Store, fingerprints
from pythpeer.testing import FakeServices

# No deadline, because examples take longer on a machine under load. A failure prints a blob that
# repeats it.
settings.register_profile("small", max_examples=examples(100), deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=examples(100), deadline=None, print_blob=True)
settings.load_profile("deep" if DEEP else "small")

pytest_plugins = ("costs",)

fingerprints.SCRYPT_COST = 2  # the tests open a store hundreds of times

# Modules with helpers that assert; test modules load them as plugins.
pytest.register_assert_rewrite("cli_runner", "processes", "browser")


RUN_ONCE: Final = frozenset(
    f"test_{name}"
    for name in (
        *("benchmark_calls", "benchmark_day", "benchmark_decoding", "benchmark_limiter"),
        *("benchmark_loss", "benchmark_pacing", "benchmark_report", "benchmark_streams"),
        *("cli", "doctor", "examples", "php", "reference", "sanitize"),
        *("cli_rows", "fake_keys", "fake_people", "fake_quirks", "layers", "page"),
        *("request_checker", "shapes", "testing_page", "typed", "wait_queue", "wire"),
    )
)
"""Modules whose results cannot depend on the version of Python: marked ``once``."""

MISSING: Final = [name for name in RUN_ONCE if not Path(__file__).with_name(f"{name}.py").exists()]
if MISSING:
    raise FileNotFoundError(f"RUN_ONCE names modules that do not exist: {MISSING}")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect the tests without garbage collections, and exclude the tests from later ones.

    There are a million objects that live until the end of the run.
    """
    gc.disable()
    try:
        if "PYTEST_XDIST_WORKER" in os.environ:
            import_modules(session.config.args)
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000)
        gc.enable()


def import_modules(arguments: list[str]) -> None:
    """Import the test modules of a run; each worker of pytest-xdist starts with a different one.

    On a first run the workers would otherwise compile the same modules at the same time. The
    order of the tests, which must be the same in all workers, does not depend on this one.
    """
    paths = [Path(argument.partition("::")[0]) for argument in arguments]
    files = [file for path in paths for file in (sorted(path.glob("test_*.py")) or [path])]
    worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    first = len(files) * worker // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for file in files[first:] + files[:first]:
        with suppress(Exception, pytest.skip.Exception):  # pytest's import reports it
            import_module(file.stem)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the modules of `RUN_ONCE`."""
    for item in items:
        if item.path.stem in RUN_ONCE:
            item.add_marker("once")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let each parameter set of a property run in its own kind of loop.

    The plugin of anyio before 4.16 uses the loop of the first one for all of them.
    """
    handle = getattr(pyfuncitem.obj, "hypothesis", None)
    if handle is None:
        return (yield)
    inner_test = handle.inner_test
    try:
        return (yield)
    finally:
        handle.inner_test = inner_test


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which tests could not run on this machine, because a skip is easily overlooked."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
    )
    if reasons:
        terminalreporter.section("NOT RUN on this machine", bold=True, yellow=True)
    for reason, tests in sorted(reasons.items()):
        terminalreporter.line(f"{tests} tests: {reason}", bold=True, yellow=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Virtual time for tests marked ``anyio``; real time if also marked ``real_time``."""
    return VIRTUAL if request.node.get_closest_marker("real_time") is None else REAL


@pytest.fixture
async def fake() -> AsyncIterator[FakeServices]:
    """Fake services without rate limits."""
    async with FakeServices(rates=UNLIMITED) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeServices) -> AsyncIterator[Client]:
    """A client that sends query strings unchanged to `fake`."""
    async with connect() as http:
        yield Client(fake, http)


@pytest.fixture
async def services() -> AsyncIterator[Scripted]:
    """Both services, with scripted faults."""
    async with Scripted() as services:
        yield services


@pytest.fixture
async def session(new_store: StoreFactory, services: Scripted) -> AsyncIterator[Session]:
    """A session with short back-offs for `services`; one test for each kind of store."""
    async with services.session(retry=SHORT_BACKOFF, store=new_store()) as session:
        yield session


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for stores, in memory if possible."""
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        yield Path(name)


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.costly)])
def new_store(request: pytest.FixtureRequest, folder: Path) -> StoreFactory:
    """Makes stores; one test for each kind of store, as all promise the same."""

    def make(*, max_length: int = 10_000) -> Store:
        return STORES[request.param](folder, max_length)

    return make


@pytest.fixture
async def virtual_server() -> AsyncIterator[VirtualRedisStore]:
    """A store on a Redis server with the clock of the loop, which other stores can use."""
    async with opened(VirtualRedisStore(max_length=100)) as store:
        yield store


@pytest.fixture
async def redis_program(
    virtual_server: VirtualRedisStore,
) -> AsyncIterator[Callable[[], RedisStore]]:
    """Creates stores that share all, as those of several programs do."""
    async with redis_programs(virtual_server.url) as create:
        yield create


@pytest.fixture(scope="session")
def redis_url() -> Iterator[Callable[[str], str]]:
    """Returns the URL of the ``fake`` or the ``real`` server, which all tests of a run share."""
    with ExitStack() as servers:

        @cache
        def url(kind: str) -> str:
            if kind == "fake":
                return servers.enter_context(redis_server.fake_server())
            name = servers.enter_context(tempfile.TemporaryDirectory(dir=memory_folder()))
            return servers.enter_context(redis_server.real_server(Path(name))).url

        yield url
        with CPU_TIME.ending_shared():
            servers.close()
