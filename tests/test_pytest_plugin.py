"""The pytest plugin gives its fixtures to tests that anyio runs, or pytest-asyncio in either mode.

Each test here is a pytest run of its own, of a small suite such as users write, with whatever
plugins are found; it takes place in this process (see `inner_pytest`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from inner_pytest import Outcome, run_pytest
from test_exports import imported_by

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.costly

SUITE = """
import asyncio

import pytest

from pythpeer import Session
from pythpeer.testing import FakeServices

{mark}


async def test_a_session_talks_to_the_services(
    pythpeer_session: Session, fake_services: FakeServices
) -> None:
    fake_services.chat.say("alice", "hello")
    page = await pythpeer_session.peerbet.messages()
    assert [message.text for message in page.messages] == ["hello"]
    assert fake_services.clock == asyncio.get_running_loop().time


async def test_each_test_has_services_of_its_own(fake_services: FakeServices) -> None:
    assert fake_services.chat.messages == []
    assert repr(fake_services) == "<FakeServices running, violations=0>"


@pytest.fixture
def one_of_ones_own(fake_services: FakeServices, pythpeer_session: Session) -> Session:
    fake_services.chat.say("bob", "from a fixture")
    return pythpeer_session


async def test_fixtures_of_ones_own_may_build_on_them(one_of_ones_own: Session) -> None:
    async with one_of_ones_own.peerbet.chat_stream(after=0) as stream:
        assert (await anext(stream)).sender == "bob"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), {patience})


@pytest.mark.fake_services(order="descending")
@pytest.mark.pythpeer_session(timeout=7.0)
class TestMarkers:
    @pytest.mark.fake_services(mail_ids=False)
    async def test_markers_add_up(
        self, fake_services: FakeServices, pythpeer_session: Session
    ) -> None:
        assert repr(fake_services.quirks) == "Quirks(order='descending', mail_ids=False)"
        assert pythpeer_session._timeout == 7.0

    @pytest.mark.fake_services(order="shuffled")
    async def test_the_closest_marker_wins(self, fake_services: FakeServices) -> None:
        assert fake_services.quirks.order == "shuffled"
"""
"""Five tests."""

VIRTUAL = """

async def test_ten_minutes_pass(fake_services: FakeServices, pythpeer_session: Session) -> None:
    fake_services.people.add("alice").says("hello", every=60.0)
    start = asyncio.get_running_loop().time()
    async with pythpeer_session.peerbet.chat_stream(after=0) as stream:
        for _ in range(11):
            await anext(stream)
    assert 600.0 <= asyncio.get_running_loop().time() - start < 602.0
"""

ANYIO = """
import pytest


@pytest.fixture
def anyio_backend():
    return {backend}
"""

ANYIO_VIRTUAL = ANYIO.format(backend='("asyncio", {"loop_factory": VirtualTimeLoop})').replace(
    "import pytest\n", "import pytest\n\nfrom pythpeer.testing import VirtualTimeLoop\n"
)

ASYNCIO_VIRTUAL = """
from pythpeer.testing import VirtualTimeLoop


def pytest_asyncio_loop_factories(config, item):
    return {"virtual": VirtualTimeLoop}
"""

MARK = "pytestmark = pytest.mark.{}"
WITHOUT = ("-p", "no:asyncio")
FUNCTION = ("-o", "asyncio_default_fixture_loop_scope=function")
AUTO = (*FUNCTION, "--asyncio-mode=auto")


class Runner(NamedTuple):
    """One kind of async tests: the suite's mark, a conftest, and options for pytest."""

    mark: str
    conftest: str
    options: tuple[str, ...]


RUNNERS = {
    "anyio": Runner(MARK.format("anyio"), ANYIO.format(backend='"asyncio"'), WITHOUT),
    "anyio beside pytest-asyncio": Runner(
        MARK.format("anyio"),
        ANYIO.format(backend='("asyncio", {})'),
        FUNCTION,
    ),
    "strict": Runner(MARK.format("asyncio"), "", (*FUNCTION, "-p", "no:anyio")),
    "strict beside anyio": Runner(MARK.format("asyncio"), "", (*FUNCTION, "--asyncio-mode=strict")),
    "auto": Runner("", "", AUTO),
}
VIRTUAL_RUNNERS = {
    "anyio": Runner(MARK.format("anyio"), ANYIO_VIRTUAL, WITHOUT),
    "strict": Runner(MARK.format("asyncio"), ASYNCIO_VIRTUAL, FUNCTION),
    "auto": Runner("", ASYNCIO_VIRTUAL, AUTO),
}


Run = Callable[..., Outcome]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run a suite in a separate folder, with warnings as errors."""

    def run(suite: str, *options: str, conftest: str = "") -> Outcome:
        for name, text in (("test_suite.py", suite), ("conftest.py", conftest)):
            (pytester.path / name).write_text(text, encoding="utf-8")
        (pytester.path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        return run_pytest(pytester, *options)

    return run


# -- who runs the tests ---------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
def test_the_fixtures_work_with_each_plugin(run: Run, runner: Runner) -> None:
    """In the loop of the test, on the ordinary clock, with each plugin."""
    suite = SUITE.format(mark=runner.mark, patience=0.1)
    outcome = run(suite, *runner.options, conftest=runner.conftest)
    assert outcome.counts == {"passed": 5}, outcome.text


@pytest.mark.parametrize("way", VIRTUAL_RUNNERS.values(), ids=VIRTUAL_RUNNERS)
def test_the_fixtures_work_on_virtual_time(run: Run, way: Runner) -> None:
    """As each plugin configures other event loops."""
    suite = SUITE.format(mark=way.mark, patience=60.0) + VIRTUAL
    outcome = run(suite, *way.options, conftest=way.conftest)
    assert outcome.counts == {"passed": 6}, outcome.text


@pytest.mark.parametrize("scope", ["module", "session"])
def test_loops_may_last_longer_than_tests(run: Run, scope: str) -> None:
    """For every scope of pytest-asyncio's loops, the fixtures are in the test's loop."""
    suite = SUITE.format(mark=MARK.format("asyncio"), patience=0.1)
    outcome = run(suite, *FUNCTION, "-o", f"asyncio_default_test_loop_scope={scope}")
    assert outcome.counts == {"passed": 5}, outcome.text


def test_a_test_may_have_a_loop_of_another_scope(run: Run) -> None:
    """Its mark takes precedence over the configuration."""
    suite = SUITE.format(mark=MARK.format('asyncio(loop_scope="module")'), patience=0.1)
    outcome = run(suite, *FUNCTION, "-o", "asyncio_default_test_loop_scope=session")
    assert outcome.counts == {"passed": 5}, outcome.text


# -- what can go wrong ----------------------------------------------------------------------------

BROKEN = """
import pytest

{mark}

async def ask(session, fake):
    await session.peerbet.messages()
    await session.peerbet.messages()

@pytest.mark.pythpeer_session(rates={{}})
@pytest.mark.fake_services(clock=lambda: 1.0)
class TestHaste:
    async def test_told(self, pythpeer_session, fake_services):
        await ask(pythpeer_session, fake_services)

    async def test_cleared(self, pythpeer_session, fake_services):
        await ask(pythpeer_session, fake_services)
        fake_services.violations.clear()
"""


@pytest.mark.parametrize("runner_name", ["anyio", "strict"])
def test_broken_rules_end_a_test_with_an_error(run: Run, runner_name: str) -> None:
    """The error lists the rules only, unless the test has cleared them."""
    mark, conftest, options = VIRTUAL_RUNNERS[runner_name]
    outcome = run(BROKEN.format(mark=mark), *options, conftest=conftest)
    assert outcome.counts == {"passed": 2, "error": 1}, outcome.text
    assert "ERROR at teardown of TestHaste.test_told" in outcome.text
    assert "peerbet.chat.get: 1.000 s too early" in outcome.text
    assert "pythpeer/testing" not in outcome.text


WITHOUT_PLUGIN = """
import pytest

async def test_lonely(fake_services):
    pass

def test_not_async(pythpeer_session):
    pass
"""
ONE = "import pytest\n\n{}\n\nasync def test_one(fake_services):\n    pass\n"
TRIO = ANYIO.format(backend='"trio"')
INVALID_MARK = "pytestmark = [pytest.mark.asyncio, pytest.mark.fake_services('shuffled')]"


@pytest.mark.parametrize(
    ("suite", "conftest", "options", "words"),
    [
        (WITHOUT_PLUGIN, "", WITHOUT, "mark them with anyio, or install pytest-asyncio"),
        (ONE.format(MARK.format("anyio")), TRIO, WITHOUT, "pythpeer needs asyncio"),
        (ONE.format(MARK.format("anyio")), "", AUTO, "use its strict mode"),
        (
            ONE.format(INVALID_MARK),
            "",
            FUNCTION,
            "arguments of the marker fake_services must be given by name",
        ),
        (ONE.format(""), "", (*FUNCTION, "-p", "no:pythpeer"), "fixture 'fake_services' not found"),
    ],
    ids=["nobody", "trio", "auto and anyio", "argument", "opted out"],
)
def test_what_cannot_work_has_an_explanation(
    run: Run, suite: str, conftest: str, options: tuple[str, ...], words: str
) -> None:
    """One line of advice, for each such test."""
    outcome = run(suite, *options, conftest=conftest)
    assert words in outcome.text
    assert "passed" not in outcome.counts
    assert "INTERNALERROR" not in outcome.text


def test_the_plugin_documents_itself(run: Run) -> None:
    """Pytest lists its markers and fixtures with explanations."""
    markers = run("", "--markers", *WITHOUT).text
    assert "@pytest.mark.fake_services(**options): arguments of FakeServices" in markers
    assert "@pytest.mark.pythpeer_session(**options): arguments of Session" in markers
    fixtures = run("", "--fixtures", *WITHOUT).text
    assert "fake_services -- " in fixtures
    assert "that are running in the event loop of the test" in fixtures
    assert "_of_anyio" not in fixtures


def test_the_plugin_is_light() -> None:
    """Every test run imports it, so it imports neither aiohttp nor the command line."""
    heavy = {"aiohttp", "yarl", "pytest_asyncio", "cyclopts", "rich", "sqlite3", "hypothesis"}
    assert imported_by("import pythpeer.testing.plugin") & heavy == set()
