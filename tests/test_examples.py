"""The complete programs of the documentation live through every fault, and answer once."""

from __future__ import annotations

import asyncio
import io
import os
import re
import runpy
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, redirect_stdout
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice, product
from pathlib import Path
from textwrap import indent
from typing import Any, Final, Unpack
from unittest.mock import patch
from urllib.parse import unquote

import aiohttp
import aiohttp.web
import msgspec
import pytest
from helpers import CLEAR_SCREEN, DEEP, free_port, now
from redis_virtual import VirtualRedisStore

import pythpeer
from pythpeer import (
    AccessDeniedError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    PythBots,
    PythpeerError,
    Session,
    SessionHealth,
    SessionOptions,
    split_text,
)
from pythpeer.running import Bot
from pythpeer.testing import FakeServices, Fault, RecordedRequest
from pythpeer.testing.web.fault_panel import KINDS, TARGETS, FaultPanel

pytestmark = pytest.mark.anyio

FOLDER: Final = Path(__file__).parent.parent / "docs" / "examples"

FAULTS: Final = [(target, kind) for target, kind in product(TARGETS, KINDS) if kind != "normal"]
"""Every fault that the page of ``pythpeer serve`` can cause."""

FAULT_SECONDS: Final = 40.0 if DEEP else 20.0
"""How long each fault lasts, in virtual time."""

PAUSE_SECONDS: Final = 30.0 if DEEP else 10.0
"""How long the services are well before the next fault."""

RECOVERY_SECONDS: Final = 120.0 if DEEP else 40.0
"""How long a program has for the rest, after the last fault: a back-off is up to 30 seconds."""

START: Final = datetime(2026, 11, 25, 7, 59, 40, tzinfo=UTC)
"""The date of the services when a test begins."""

WRITES: Final = {"peerbet.chat.set": "chat", "pythbots.mail": "mail"}
"""Where each endpoint writes to."""


# -- what causes an answer ------------------------------------------------------------------------


def ping(fake: FakeServices, user: str) -> str:
    fake.chat.say(user, "!ping")
    return "chat"


def who(fake: FakeServices, user: str) -> str:
    fake.chat.say(user, f"!who {user}")
    return "chat"


def repeat(fake: FakeServices, user: str) -> str:
    for _ in range(3):
        fake.chat.say(user, "buy now")
    return "chat mail"


def mail(fake: FakeServices, user: str) -> str:
    fake.mail.deliver(user, "hello")
    return "mail"


def talk(fake: FakeServices, user: str) -> str:
    fake.chat.say(user, "good morning")
    return ""


Cause = Callable[[FakeServices, str], str]
"""Does something as a user; returns where the program must write to for it, as in `WRITES`."""

EXAMPLES: Final[Mapping[str, tuple[Cause, ...]]] = {
    "ping": (ping,),
    "commands": (ping, who),
    "once": (ping,),
    "moderator": (repeat,),
    "mail_responder": (mail,),
    "archive": (talk,),
    "dashboard": (talk,),
    "survivor": (ping, mail, who),
    "desk": (ping, mail),
    "worker": (ping,),
}
"""The programs on `pythpeer.run`, and what they react to."""

OTHERS: Final = {"archive_query", "fastapi_app", "systemd_bot", "web_app", "worker_once"}
"""The programs that tests of their own run."""


class Program:
    """An example, which is started and stopped as often as a test needs."""

    def __init__(self, name: str, fake: FakeServices, **constants: object) -> None:
        self.name = name
        """The name of the file."""
        self.source = source_of(name)
        """The program. A test may set a variant of it."""
        self.constants = constants
        """Constants and functions of the program that are replaced here."""
        self.output = io.StringIO()
        """What the program has printed, and what the one about the archive has."""
        self.task: asyncio.Task[None] | None = None
        """The program that runs. Set by `running`."""
        self.writes: list[RecordedRequest] = []
        """The requests by which it wrote, in order. `count_writes` adds to it."""
        self.shown: Counter[str] = Counter()
        """How often each user is in what the program shows. `running` sets it at the end."""
        self._fake = fake
        """The services that it uses."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Session]:
        """Start the program, and stop it as `run` does at a first signal."""
        bot, options = self._load()
        async with Session.from_env(**options) as session:
            with redirect_stdout(self.output):
                self.task = task = asyncio.ensure_future(_await(bot, session))
                await asyncio.sleep(3.0)
                yield session
                assert not task.done(), "the program ended by itself"
                await self._read_pages()
                session.stop()
                await asyncio.wait_for(task, 120.0)
        self.count_writes()

    def _load(self) -> tuple[Bot, SessionOptions]:
        """Execute the file, and return what it passes to `run`."""
        calls: list[tuple[Bot, SessionOptions]] = []

        def run(bot: Bot, /, **options: Unpack[SessionOptions]) -> None:
            calls.append((bot, options))

        names: dict[str, object] = {"__name__": "__main__"}
        with patch.object(pythpeer, "run", run):
            exec(compile(self.source, self.name, "exec"), names)
        names["MESSAGES"] = 10_000  # the dashboard shows all of them
        names["MAX_AGE"] = datetime.now(UTC) - START + timedelta(days=2)  # mail is as old as START
        names.update(self.constants)
        [call] = calls
        return call

    def count_writes(self) -> None:
        """Move the recorded requests that write to `writes`, before the record forgets them."""
        requests = self._fake.requests
        self.writes += [r for r in requests if r.endpoint in WRITES and "message=" in r.target]
        self.writes += [r for r in requests if r.endpoint == "peerbet.chat.set"]
        requests.clear()

    def received(self, user: str) -> Counter[str]:
        """Where the program wrote to because of *user*, with a request that perhaps succeeded."""
        return Counter(
            WRITES[write.endpoint]
            for write in self.writes
            if re.search(rf"\b{user}\b", unquote(write.target)) and may_succeed(write)
        )

    async def _read_pages(self) -> None:
        """Add to `shown` what the program shows, if it is stopped now."""
        if self.name == "dashboard":
            page = (await get_page("/")).decode()
            self.shown.update(re.findall(r"<li>(user\d+): good", page))
        if self.name == "archive":
            with redirect_stdout(io.StringIO()) as output:
                runpy.run_path(str(FOLDER / "archive_query.py"))
            assert len(output.getvalue().splitlines()) == 10
            self.output.write(output.getvalue())
            with closing(sqlite3.connect("archive.sqlite")) as archive:
                rows = archive.execute("SELECT json_extract(item, '$.by') FROM entry")
                self.shown = Counter(user for (user,) in rows)


async def get_page(path: str) -> bytes:
    """Return a page of the dashboard; its status must be 200."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{os.environ['PORT']}{path}") as response,
    ):
        assert response.status == 200
        return await response.read()


def source_of(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def function(source: str, name: str) -> str:
    """Return the source of one function, from ``def`` to the next empty line outside of it."""
    return source[source.index(f"def {name}(") :].split("\n\n\n", maxsplit=1)[0]


async def _await(bot: Bot, session: Session) -> None:
    await bot(session)


def may_succeed(write: RecordedRequest) -> bool:
    """Whether the client cannot exclude that the service performed the request."""
    return write.fault is None or write.fault.status != 429


@pytest.fixture
async def fake(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    anyio_backend: object,
) -> AsyncIterator[FakeServices]:
    """Fake services whose addresses and keys are in the environment, and a separate folder.

    The parameter is the time at their start, by default `START`.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PORT", str(free_port()))
    monkeypatch.setenv("PYTHPEER_STORE", "bot.sqlite")
    async with FakeServices(now=getattr(request, "param", START)) as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake
        assert fake.violations == []


def sample(name: str) -> Iterator[tuple[str, str]]:
    """The faults that a program runs with: every one, for an hour, if `DEEP`, otherwise some.

    They differ between the programs, so that all programs together run with all faults.
    """
    names = list(EXAMPLES)
    return islice(FAULTS, names.index(name) % len(names), None, 1 if DEEP else len(names))


# -- tests ----------------------------------------------------------------------------------------


def test_every_example_is_run_here() -> None:
    """A new file needs an entry."""
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert files == {*EXAMPLES, *OTHERS}
    tried = {fault for name in EXAMPLES for fault in sample(name)}
    assert tried == set(FAULTS)


def test_all_bots_send_in_the_same_way() -> None:
    """Each file can be copied alone, so each contains the function; what one test shows holds."""
    sources = [source_of(path.stem) for path in FOLDER.glob("*.py")]
    senders = [source for source in sources if "async def send" in source]
    assert len(senders) == 10
    for name in ("send", "is_refused", "may_pass"):
        assert len({function(source, name) for source in senders}) == 1
    assert function(source_of("systemd_bot"), "main") == function(source_of("ping"), "main")


async def test_the_bot_for_systemd_reads_its_key(
    fake: FakeServices, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """From the folder of credentials, and answers."""
    (folder / "peerbet").write_text(f"{fake.peerbet_key}\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    monkeypatch.delenv("PYTHPEER_PEERBET_KEY")
    program = Program("systemd_bot", fake)
    async with program.running() as session:
        fake.chat.say("user1", "!ping")
        await asyncio.sleep(5.0)
        assert "keys: Peerbet" in session.describe()
    assert program.received("user1") == {"chat": 1}


@pytest.mark.parametrize("error", [AccessDeniedError, MissingKeyError, InvalidRequestError])
def test_the_bot_for_systemd_is_not_started_again_with_a_wrong_key(
    error: type[PythpeerError],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends with the exit code that the unit of the page names, and logs one line."""
    (folder / "peerbet").write_text("a key", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))

    def run(bot: Bot, /, **options: Unpack[SessionOptions]) -> None:
        raise error("Invalid key")

    monkeypatch.setattr(pythpeer, "run", run)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "systemd_bot.py"), run_name="__main__")
    page = (FOLDER.parent / "how-to" / "systemd.md").read_text(encoding="utf-8")
    assert f"RestartPreventExitStatus={ended.value.code}\n" in page
    [record] = caplog.records
    assert (record.getMessage(), record.exc_info) == ("Invalid key", None)


@pytest.mark.parametrize("name", ["ping", "commands", "survivor"])
async def test_without_its_key_an_example_ends_at_the_first_answer(
    name: str, fake: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the message is answered after the key was set: it must not consume the messages."""
    program = Program(name, fake)
    async with program.running():
        pass

    async def answer() -> None:
        async with program.running():
            EXAMPLES[name][0](fake, "user1")
            await asyncio.sleep(10.0)

    with monkeypatch.context() as without:
        without.delenv("PYTHPEER_PEERBET_KEY")
        with pytest.raises(AssertionError, match="ended by itself"):
            await answer()
        assert program.task is not None
        assert isinstance(program.task.exception(), MissingKeyError)
    async with program.running():
        await asyncio.sleep(10.0)
    assert program.received("user1")["chat"] == 1


@pytest.mark.parametrize("outage", [False, True], ids=["", "the chat cannot be read"])
@pytest.mark.parametrize(
    ("name", "posted", "answers"), [("once", True, 1), ("once", False, 1), ("ping", True, 2)]
)
async def test_a_killed_bot_answers_once_if_it_looks_first(
    name: str, posted: bool, answers: int, outage: bool, fake: FakeServices
) -> None:
    """Killed after the service has performed the post, or before; others answer once more."""
    program = Program(name, fake)
    fake.faults.add("peerbet.chat.set", Fault.slow(0.01), Fault.hang(effect=posted))
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with program.running():
            fake.chat.say("user1", "!ping")
            fake.chat.say("user1", "!ping")
            await asyncio.sleep(5.0)
            assert program.task is not None
            program.task.cancel()
            await asyncio.sleep(1.0)
    if outage:
        fake.faults.add("peerbet.chat.get", Fault.http(500), times=9)
    async with program.running():
        await asyncio.sleep(300.0)  # the back-offs of nine failures take up to four minutes
        fake.chat.say("user1", "!ping")
        await asyncio.sleep(5.0)
    texts = [message.text for message in fake.chat.messages if message.bot]
    assert len(texts) == 2 + answers
    assert len(set(texts)) == (3 if name == "once" else 1)


async def test_a_bot_that_stops_before_it_could_look_answers_later(fake: FakeServices) -> None:
    """It does not post what may have been posted."""
    program = Program("once", fake)
    fake.faults.add("peerbet.chat.set", Fault.hang())
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with program.running():
            fake.chat.say("user1", "!ping")
            await asyncio.sleep(3.0)
            assert program.task is not None
            program.task.cancel()
            await asyncio.sleep(1.0)
    for fault in (Fault.http(500), None):
        fake.faults.clear()
        if fault is not None:
            fake.faults.always("peerbet.chat.get", fault)
        async with program.running():
            await asyncio.sleep(30.0)
    assert [message.text for message in fake.chat.messages if message.bot] == ["pong 1, user1"]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "confirm"), [*((name, False) for name in EXAMPLES), ("ping", True)]
)
async def test_an_example_survives_every_fault(
    name: str, confirm: bool, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """It continues, reacts to everything exactly once, and logs no traceback.

    A write whose outcome is unknown counts as once. In the middle it is stopped and started again.
    It takes seconds, because minutes of polling pass, with a file as the store.
    """
    program = confirmed(name, fake) if confirm else Program(name, fake)
    panel = FaultPanel(fake)
    causes = cycle(EXAMPLES[name])
    expected: dict[str, Counter[str]] = {}

    async def live(seconds: float) -> None:
        end = now() + seconds
        while now() < end:
            user = f"user{len(expected)}"
            expected[user] = Counter(next(causes)(fake, user).split())
            await asyncio.sleep(7.3)

    faults = list(sample(name))
    for half in (faults[: len(faults) // 2], faults[len(faults) // 2 :]):
        async with program.running():
            for target, kind in half:
                await panel.set(target, kind)
                await live(FAULT_SECONDS)
                await panel.clear()
                await live(PAUSE_SECONDS)
                program.count_writes()
            await asyncio.sleep(RECOVERY_SECONDS)
        await live(1.0)  # while the program does not run
    async with program.running():
        await asyncio.sleep(RECOVERY_SECONDS)
    assert {user: program.received(user) for user in expected} == expected
    if EXAMPLES[name] == (talk,):
        assert program.shown == dict.fromkeys(expected, 1)
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("fake", [START - timedelta(days=3)], indirect=True)
@pytest.mark.parametrize("name", [name for name, causes in EXAMPLES.items() if mail in causes])
async def test_old_mail_is_not_answered_after_a_lost_response(
    name: str, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """Old is what was read elsewhere, days before the store existed; what was lost is answered."""
    for number in range(5):
        fake.mail.deliver(f"old{number}", "hello")
    async with fake.session() as elsewhere:
        assert len(await elsewhere.pythbots.unread_mail()) == 5
    await asyncio.sleep(3 * 86400.0)
    program = Program(name, fake)
    async with program.running():
        fake.mail.deliver("user1", "hello")
        await asyncio.sleep(30.0)
        fake.faults.add("pythbots.mail.readnew", Fault.drop())
        fake.mail.deliver("user2", "hello")
        await asyncio.sleep(60.0)
    thanked = [sent.recipient for sent in fake.mail.sent if sent.text.startswith("Thank you")]
    assert thanked == ["user1", "user2"]
    manually = [record for record in caplog.records if "checked manually" in record.message]
    assert len(manually) == 5


def confirmed(name: str, fake: FakeServices) -> Program:
    """Return an example that posts with ``confirm=True``, as the page recommends."""
    program = Program(name, fake)
    assert "bot=True)" in program.source
    program.source = program.source.replace("bot=True)", "bot=True, confirm=True)")
    return program


@pytest.mark.parametrize(
    "fault",
    [
        Fault.http(503),
        Fault.garbage(),
        Fault.html(),
        Fault.too_many(5),
        Fault.drop(),
        Fault.cut(),
        Fault.refusal("Down for maintenance"),
    ],
    ids=["503", "garbage", "html", "429", "drop", "cut", "refusal"],
)
async def test_a_failed_read_before_a_confirmed_post_is_repeated(
    fault: Fault, fake: FakeServices
) -> None:
    """The bot continues, and answers once when the chat can be read again."""
    program = confirmed("ping", fake)
    async with program.running():
        fake.chat.say("user1", "!ping")
        fake.faults.add("peerbet.chat.get", Fault.slow(0.01))  # this poll returns the message
        fake.faults.add("peerbet.chat.get", fault, times=9)
        await asyncio.sleep(90.0)
        fake.chat.say("user2", "!ping")
        await asyncio.sleep(10.0)
    texts = [message.text for message in fake.chat.messages if message.bot]
    assert texts == ["pong, user1", "pong, user2"]


@pytest.mark.parametrize(
    "fault",
    [Fault.refusal("Invalid key", status=401), Fault.http(404), Fault.http(414)],
    ids=["key", "404", "414"],
)
async def test_a_read_before_a_confirmed_post_that_never_succeeds_ends_the_bot(
    fault: Fault, fake: FakeServices
) -> None:
    """Its message is not treated as refused: it is answered after the next start."""
    program = confirmed("ping", fake)
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with program.running():
            fake.chat.say("user1", "!ping")
            fake.faults.add("peerbet.chat.get", Fault.slow(0.01), fault)
            await asyncio.sleep(10.0)
    assert program.task is not None
    assert isinstance(program.task.exception(), (AccessDeniedError, HttpStatusError))
    async with program.running():
        await asyncio.sleep(10.0)
    assert program.received("user1") == {"chat": 1}


async def test_the_recipe_for_a_long_text_posts_each_part_once(fake: FakeServices) -> None:
    """The one of the page, in a bot whose second part is throttled, and whose third is lost."""
    page = (FOLDER.parent / "how-to" / "survive.md").read_text(encoding="utf-8")
    _, _, recipe = page.partition('```python title="long text"\n')
    program = Program("ping", fake)
    before, _, rest = program.source.partition("        answer = ")
    lines = 'text = f"pong, {message.sender} " * 60\n' + recipe.partition("```")[0]
    _, _, after = rest.partition("\n\n\n")
    program.source = f"from pythpeer import split_text\n{before}{indent(lines, ' ' * 8)}\n\n{after}"
    async with program.running():
        throttled = (Fault.slow(0.01), Fault.too_many(1), Fault.too_many(1))
        fake.faults.add("peerbet.chat.set", *throttled, Fault.slow(0.01), Fault.drop())
        fake.chat.say("user1", "!ping")
        await asyncio.sleep(60.0)
    texts = [message.text for message in fake.chat.messages if message.bot]
    assert texts == list(split_text("pong, user1 " * 60))
    assert len(texts) > 2


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_prints_no_control_character_of_a_user(
    name: str, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of a name nor of a text; also if an answer to it is refused, which is logged."""
    program = Program(name, fake)
    async with program.running():
        for number in range(10):
            fake.chat.say(f"{CLEAR_SCREEN}{number}", CLEAR_SCREEN)
        fake.faults.always("peerbet.chat.set", Fault.refusal(CLEAR_SCREEN))
        for cause in EXAMPLES[name]:
            cause(fake, CLEAR_SCREEN)
        await asyncio.sleep(10.0)
    assert "\x1b" not in program.output.getvalue() + caplog.text
    assert ("mallory" in program.output.getvalue()) is (name == "archive")


async def test_the_dashboard_shows_its_state(fake: FakeServices) -> None:
    """Its page of health is that of the session."""
    async with Program("dashboard", fake).running():
        fake.chat.say("alice", "<b>hello</b>")
        await asyncio.sleep(3.0)
        health = msgspec.json.decode(await get_page("/health"), type=SessionHealth)
        assert "alice: &lt;b&gt;hello&lt;/b&gt;" in (await get_page("/")).decode()
    assert health.ok
    assert [stream.cursor for stream in health.streams] == [fake.chat.messages[-1].id]


@pytest.mark.parametrize(
    "name",
    ["ping", "once", "commands", "moderator", "mail_responder", "survivor", "desk", "worker"],
)
async def test_an_answer_that_was_not_sent_is_sent_after_a_restart(
    name: str, fake: FakeServices
) -> None:
    """A program that is stopped while it waits does not acknowledge the item."""
    program = Program(name, fake)
    cause = EXAMPLES[name][0]
    async with program.running():
        for endpoint in ("peerbet.chat.set", "pythbots.mail.send"):
            fake.faults.always(endpoint, Fault.too_many(5))
        expected = Counter(cause(fake, "user1").split())
        await asyncio.sleep(20.0)
    assert program.received("user1") == Counter()
    fake.faults.clear()
    if name == "moderator":
        return  # it counts messages in memory: the item that is redelivered is the first of three
    async with program.running():
        await asyncio.sleep(20.0)
    assert program.received("user1") == expected


@pytest.mark.parametrize("name", ["moderator", "survivor"])
async def test_an_example_continues_after_a_gap(
    name: str, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """More messages than the service shows."""
    program = Program(name, fake)
    async with program.running():
        for _ in range(400):
            fake.chat.say("alice", "flood")
        await asyncio.sleep(10.0)
        expected = Counter(EXAMPLES[name][0](fake, "user1").split())
        await asyncio.sleep(10.0)
    assert "were missed" in caplog.text
    assert program.received("user1") == expected


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.refusal("Invalid key", status=401), AccessDeniedError),
        (Fault.http(404), HttpStatusError),
    ],
)
@pytest.mark.parametrize("endpoint", ["peerbet.chat.get", "peerbet.chat.set"])
async def test_an_error_that_waiting_does_not_mend_ends_the_bot(
    fault: Fault, error: type[Exception], endpoint: str, fake: FakeServices
) -> None:
    """It comes out of `run`, so that a supervisor notices it."""
    program = Program("survivor", fake)
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with program.running():
            fake.faults.always(endpoint, fault)
            fake.chat.say("user1", "!ping")
            await asyncio.sleep(30.0)
    assert program.task is not None
    assert type(program.task.exception()) is error


async def test_a_mistake_in_the_program_does_not_end_the_bot(
    fake: FakeServices, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback, and the item is not returned again."""

    async def fail(service: PythBots, user: str | int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(PythBots, "user", fail)
    program = Program("survivor", fake)
    async with program.running():
        fake.chat.say("alice", "!who tiro")
        fake.chat.say("user1", "!ping")
        await asyncio.sleep(10.0)
    assert program.received("user1") == {"chat": 1}
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "an item is skipped"
    ]


@pytest.mark.parametrize("status", [400, 413, 414])
async def test_a_text_that_is_too_long_for_the_server_does_not_end_the_bot(
    status: int, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not sent again, also not after a restart, and the next one is sent."""
    program = Program("survivor", fake)
    fake.faults.add("pythbots.mail.send", Fault.http(status))
    async with program.running():
        fake.mail.deliver("user1", "long")
        fake.mail.deliver("user2", "short")
        await asyncio.sleep(10.0)
    assert program.received("user1") == program.received("user2") == {"mail": 1}
    assert [mail.recipient for mail in fake.mail.sent] == ["user2"]
    assert f"refused: pythbots.mail: HTTP status {status}" in caplog.text


@pytest.mark.parametrize("name", ["ping", "moderator"])
async def test_a_stop_ends_the_pause_between_two_attempts(name: str, fake: FakeServices) -> None:
    """A pause may be long, and a supervisor kills what does not stop."""
    program = Program(name, fake, PAUSE=300.0)
    fake.faults.always("peerbet.chat.set", Fault.too_many(300))
    fake.faults.always("pythbots.crank", Fault.http(500))
    async with program.running():
        EXAMPLES[name][0](fake, "user1")
        await asyncio.sleep(10.0)
        start = now()
    assert now() - start < 1.0


async def test_a_refused_answer_does_not_end_the_bot(fake: FakeServices) -> None:
    """The refusal of one text, or of one user."""
    program = Program("ping", fake)
    fake.faults.add("peerbet.chat.set", Fault.refusal("Message rejected"))
    async with program.running():
        fake.chat.say("user1", "!ping")
        fake.chat.say("user2", "!ping")
        await asyncio.sleep(10.0)
    assert [message.text for message in fake.chat.messages if message.bot] == ["pong, user2"]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch, fake: FakeServices) -> AsyncIterator[None]:
    """A Redis server, whose URL is that of the store in the environment."""
    store = VirtualRedisStore(max_length=1000)
    monkeypatch.setenv("PYTHPEER_STORE", store.url)
    async with fake.session(store=store):
        yield


@pytest.mark.parametrize("name", ["worker", "worker_once"])
async def test_workers_share_the_messages(name: str, fake: FakeServices, server: None) -> None:
    """Each message is answered by one of them."""
    workers = [Program(name, fake), Program(name, fake)]
    async with workers[0].running(), workers[1].running():
        for number in range(6):
            fake.chat.say(f"user{number}", "!ping")
        await asyncio.sleep(12.0)
    texts = sorted(message.text for message in fake.chat.messages if message.bot)
    assert [text.partition(", ")[2] for text in texts] == [f"user{number}" for number in range(6)]


@pytest.mark.parametrize("posted", [True, False])
@pytest.mark.parametrize(("name", "answers"), [("worker_once", 1), ("worker", 2)])
async def test_another_worker_takes_over_and_looks_first(
    name: str, posted: bool, answers: int, fake: FakeServices, server: None
) -> None:
    """One is killed after the service has performed its post, or before."""
    killed, other = Program(name, fake), Program(name, fake)
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with killed.running():
            fake.faults.add("peerbet.chat.set", Fault.hang(effect=posted))
            fake.chat.say("user1", "!ping")
            await asyncio.sleep(3.0)
            assert killed.task is not None
            killed.task.cancel()
            await asyncio.sleep(0.1)
    async with other.running():
        await asyncio.sleep(15.0)
        fake.chat.say("user2", "!ping")
        await asyncio.sleep(5.0)
    texts = [message.text for message in fake.chat.messages if message.bot]
    assert len([text for text in texts if "user1" in text]) == (answers if posted else 1)
    assert len([text for text in texts if "user2" in text]) == 1


def desk(fake: FakeServices) -> Program:
    """Return the program with three tasks, on the date of the fake services."""
    return Program("desk", fake, CHECK=3.0, utc_now=lambda: datetime.fromisoformat(fake.date))


def reports(fake: FakeServices) -> list[str]:
    return [mail.text for mail in fake.mail.sent if mail.recipient == "tiro"]


async def test_a_report_is_sent_once_a_day(fake: FakeServices) -> None:
    """From its hour on, also if the bot is restarted after it, or did not run at that hour."""
    program = desk(fake)
    async with program.running():
        await asyncio.sleep(10.0)
        assert reports(fake) == []
        await asyncio.sleep(15.0)
        assert reports(fake) == ["Report of 2026-11-25: all is well."]
    async with program.running():
        await asyncio.sleep(5.0)
    assert len(reports(fake)) == 1
    await asyncio.sleep(26 * 3600.0)
    async with program.running():
        await asyncio.sleep(5.0)
    assert reports(fake)[1:] == ["Report of 2026-11-26: all is well."]


async def test_a_report_that_was_not_sent_is_sent_later(fake: FakeServices) -> None:
    """When the service accepts it again, also after a restart; not if it was perhaps sent."""
    program = desk(fake)
    await asyncio.sleep(300.0)
    fake.faults.always("pythbots.mail.send", Fault.too_many(1))
    async with program.running():
        await asyncio.sleep(15.0)
    assert reports(fake) == []
    fake.faults.clear()
    fake.faults.add("pythbots.mail.send", Fault.too_many(1), Fault.drop())
    for _ in range(2):
        async with program.running():
            await asyncio.sleep(15.0)
    assert len(reports(fake)) == 1


async def test_the_first_error_of_several_tasks_ends_the_program_after_a_post(
    fake: FakeServices,
) -> None:
    """A post that was sent is not cancelled; the error itself is raised, not a group of them."""
    program = desk(fake)
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with program.running():
            fake.faults.always("peerbet.chat.set", Fault.slow(8.0))
            fake.chat.say("user1", "!ping")
            await asyncio.sleep(3.0)
            fake.faults.always("pythbots.mail.readnew", Fault.refusal("Invalid key", status=401))
            await asyncio.sleep(3.0)
            assert program.task is not None
            assert not program.task.done()
            await asyncio.sleep(10.0)
    assert program.task is not None
    assert type(program.task.exception()) is AccessDeniedError
    fake.faults.clear()
    async with program.running():
        await asyncio.sleep(10.0)
    assert program.received("user1") == {"chat": 1}


async def test_a_second_signal_ends_all_tasks(fake: FakeServices) -> None:
    """It cancels the program, which leaves no task behind."""
    program = desk(fake)
    with pytest.raises(AssertionError, match="ended by itself"):  # noqa: PT012
        async with program.running():
            assert program.task is not None
            program.task.cancel()
            await asyncio.sleep(1.0)
            names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
            assert names.isdisjoint({"answer_chat", "answer_mail", "report"})
    assert program.task is not None
    assert program.task.cancelled()


@pytest.mark.parametrize("name", ["web_app", "fastapi_app"])
async def test_a_web_application_stops_its_bot(
    name: str, fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bot lives as long as the application, and ends after the message that it has."""
    async with application(name):
        await asyncio.sleep(2.0)
        fake.chat.say("alice", "hello")
        fake.chat.say(CLEAR_SCREEN, CLEAR_SCREEN)
        await asyncio.sleep(2.0)
        health = msgspec.json.decode(await get_page("/health"), type=SessionHealth)
    assert health.ok
    assert [stream.name for stream in health.streams] == ["bot"]
    shown = r"'mallory\x1b[2J'"
    assert capsys.readouterr().out == f"'alice': 'hello'\n{shown}: {shown}\n"


@pytest.mark.parametrize("name", ["web_app", "fastapi_app"])
async def test_a_web_application_shows_that_its_bot_has_ended(
    name: str, fake: FakeServices, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error of its own: the application continues, logs it, and is not healthy any more."""

    def fail(text: str) -> None:
        raise ZeroDivisionError(text)

    async with application(name) as names:
        await asyncio.sleep(2.0)
        before = await read_health()
        monkeypatch.setitem(names["bot"].__globals__, "print", fail)
        fake.chat.say("alice", "hello")
        await asyncio.sleep(10.0)
        after = await read_health()
        [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (before, after) == ((200, True), (503, False))
    assert record.getMessage() == "the bot has ended"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.parametrize("name", ["web_app", "fastapi_app"])
async def test_a_web_application_with_a_wrong_key_ends_without_an_error(
    name: str, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs the error of the bot."""
    fake.faults.always("peerbet.chat.get", Fault.refusal("Invalid key", status=401))
    async with application(name):
        await asyncio.sleep(10.0)
        assert await read_health() == (503, False)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], AccessDeniedError)


async def read_health() -> tuple[int, bool]:
    """Return the status of the page of health, and what it states."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{os.environ['PORT']}/health") as response,
    ):
        return response.status, msgspec.json.decode(await response.read(), type=SessionHealth).ok


@asynccontextmanager
async def application(name: str) -> AsyncIterator[dict[str, Any]]:
    """Serve an application, and yield the names of its program."""
    names = runpy.run_path(str(FOLDER / f"{name}.py"))
    port = int(os.environ["PORT"])
    if name == "fastapi_app":
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(names["app"], port=port, log_config=None))
        serving = asyncio.ensure_future(server.serve())
        yield names
        server.should_exit = True
        async with asyncio.timeout(2.0):
            await serving
        return
    runner = aiohttp.web.AppRunner(names["make_app"]())
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()
    yield names
    async with asyncio.timeout(1.0):
        await runner.cleanup()


@pytest.mark.parametrize("name", ["ping", "survivor"])
async def test_an_outage_while_posting_is_one_warning(
    name: str, fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the first failure, and one line at INFO when the message is sent; others are at DEBUG."""
    caplog.set_level("INFO", "bot")
    program = Program(name, fake)
    async with program.running():
        fake.faults.always("peerbet.chat.set", Fault.too_many(1))
        fake.chat.say("user1", "!ping")
        await asyncio.sleep(60.0)
        attempts = [r for r in fake.requests if r.endpoint == "peerbet.chat.set"]
        fake.faults.clear()
        await asyncio.sleep(20.0)
    records = [record for record in caplog.records if record.name == "bot"]
    assert len(attempts) > 5
    assert [record.levelname for record in records] == ["WARNING", "INFO"]
    assert "not sent yet" in records[0].getMessage()
    assert records[1].getMessage() == "sent, after failures"


async def test_the_dashboard_logs_no_line_for_each_request(
    fake: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    """A monitor that reads its health each second would fill the log."""
    caplog.set_level("INFO")
    async with Program("dashboard", fake).running():
        await get_page("/")
    lines = [record.getMessage() for record in caplog.records if record.name == "aiohttp.access"]
    assert [line for line in lines if '"GET / HTTP' in line] == []
