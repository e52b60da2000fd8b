"""Log records: logger, level and attributes of each, as documented."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import msgspec
import pytest
from raw_server import RawServer, answer, drop, error_page, open_session
from scripted import DROP_WITHOUT_EFFECT, ERROR_500, HTML, OK, Scripted
from test_restarts import start_anew

import pythpeer
from pythpeer import MemoryStore, PythpeerError, Rate, ResponseEvent, Retry, SqliteStore
from pythpeer.hooks import MAX_PENDING

pytestmark = pytest.mark.anyio

PAGE: Final = Path(__file__).parent.parent / "docs" / "how-to" / "observe.md"
PACKAGE: Final = Path(pythpeer.__file__).parent
ROW: Final = re.compile(r"^\| `(pythpeer[.\w]+)` \| ([A-Z]+) \| .* \|(.*)\|$", re.MULTILINE)
DOCUMENTED: Final = {
    (logger, level, frozenset(re.findall(r"`(\w+)`", extra)))
    for logger, level, extra in ROW.findall(PAGE.read_text(encoding="utf-8"))
}
WITH_ATTRIBUTES: Final = {row for row in DOCUMENTED if row[2]}
"""The rows about records with attributes of their own."""

PLAIN: Final = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

LogLine = tuple[str, str, frozenset[str]]


def records_of(caplog: pytest.LogCaptureFixture) -> list[LogLine]:
    """Logger, level and attributes of a record."""
    return [
        (record.name, record.levelname, frozenset(vars(record).keys() - PLAIN))
        for record in caplog.records
        if record.name.startswith("pythpeer")
    ]


def fail(event: object) -> None:
    raise LookupError


async def sleep(event: object) -> None:
    await asyncio.sleep(9e9)


async def test_the_documented_records_are_logged(
    caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    """Each row of the table occurs, and nothing else does."""
    caplog.set_level(logging.DEBUG)
    async with Scripted() as services:
        async with services.session(on_gap=fail, store=SqliteStore(folder / "a")) as session:
            services.script("get", DROP_WITHOUT_EFFECT, ERROR_500)
            await session.peerbet.messages()
            services.say(400)
            services.show(401, {"id": 401, "by": 7, "msg": []})
            services.script("get", DROP_WITHOUT_EFFECT, HTML, OK)
            async with session.peerbet.chat_stream(after=1) as stream:
                for _ in range(299):
                    await anext(stream)
        async with services.session(store=SqliteStore(folder / "a")) as session:
            await _corrupt(folder / "a")
            async with session.peerbet.chat_stream(after=300) as stream:
                for _ in range(99):
                    await anext(stream)
            services.deliver("not acknowledged")
            await anext(session.pythbots.mail_stream())
        async with services.session(
            store=SqliteStore(folder / "a"), personal_key="new", rates={"peerbet.chat": Rate(1.0)}
        ) as session:
            await session.pythbots.unread_mail()
            start_anew(services, 2)
            await anext(session.peerbet.chat_stream(after=401))
        async with services.session(on_request=sleep) as session:
            for _ in range(MAX_PENDING + 2):
                session._hooks.request[0](None)  # type: ignore[arg-type]  # it does not look
            async with session.peerbet.chat_stream(name="bot"):
                pass
    assert set(records_of(caplog)) == WITH_ATTRIBUTES
    assert len(WITH_ATTRIBUTES) == 14


async def test_a_name_in_a_store_without_a_file_is_logged_once(
    caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    """Its position is lost when the program ends; without a name there is none to lose."""
    caplog.set_level(logging.INFO, "pythpeer.streams")
    async with Scripted() as services:
        for store in (MemoryStore(), SqliteStore(folder / "a")):
            for after in (None, 0, None):
                async with services.session(store=store) as session:
                    for name in ("bot", None, "other"):
                        async with session.peerbet.chat_stream(name=name, after=after):
                            pass
                        if name is not None:
                            async with session.pythbots.mail_stream(name=name):
                                pass
    lines = [record.getMessage() for record in caplog.records if hasattr(record, "stream")]
    assert [line.partition(" is lost")[0] for line in lines] == [
        f"{endpoint}: the position of '{name}'"
        for name in ("bot", "other")
        for endpoint in ("peerbet.chat.get", "pythbots.mail")
    ]
    assert "PYTHPEER_STORE" in lines[0]


async def _corrupt(path: Path) -> None:
    """Damage one item of an archive."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as archive, archive:
        changed = archive.execute("UPDATE entry SET item = '{' WHERE id = 350").rowcount
    assert changed == 1


async def test_each_request_is_logged_redacted(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, when it has ended, with its outcome."""
    caplog.set_level(logging.DEBUG, "pythpeer")
    async with (
        RawServer(answer(), drop()) as server,
        open_session(server.url) as session,
    ):
        await session.pythbots.user("tiro")
        with pytest.raises(PythpeerError):
            await session.pythbots.send_mail(5, "private words")
    first, second = [record for record in caplog.records if record.name == "pythpeer.requests"]
    assert re.fullmatch(
        rf"pythbots\.userinfo: ok after \d\.\d{{3}} s: {server.url}/api/userinfo\.php\?user=\*\*\*",
        first.getMessage(),
    )
    assert second.getMessage().startswith("pythbots.mail: OutcomeUnknownError after ")
    assert second.getMessage().endswith("/api/mail.php?personal_key=***&id=5&message=***")
    about = {name: getattr(second, name) for name in ResponseEvent.__struct_fields__}
    event = msgspec.convert(about, ResponseEvent)
    assert (event.endpoint, event.outcome, event.status) == ("pythbots.mail", "unknown", None)


async def test_each_repetition_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, with the delay before it."""
    caplog.set_level(logging.DEBUG, "pythpeer")
    async with (
        RawServer(error_page(503), answer()) as server,
        open_session(server.url, retry=Retry(2)) as session,
    ):
        await session.peerbet.messages()
    (record,) = [record for record in caplog.records if hasattr(record, "delay")]
    delay = f"{vars(record)['delay']:.2f}"
    assert record.getMessage() == (
        f"peerbet.chat.get: attempt 1 failed with HttpStatusError, the next is in {delay} s"
    )


async def test_a_failing_call_is_not_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    """It raises, and that is enough: many failures do not fill the log."""
    caplog.set_level(logging.INFO)
    async with RawServer(error_page(500)) as server, open_session(server.url) as session:
        for _ in range(20):
            with pytest.raises(PythpeerError):
                await session.peerbet.messages()
    assert records_of(caplog) == []


async def test_a_service_that_is_down_is_one_warning_and_one_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many polls fail within ten minutes, and however many streams and calls there are."""
    caplog.set_level(logging.INFO)
    async with Scripted() as services, services.session(retry=Retry(1)) as session:
        services.say()
        services.script("get", *[DROP_WITHOUT_EFFECT] * 20)
        streams = [session.peerbet.chat_stream(after=0) for _ in range(5)]
        waits = [asyncio.ensure_future(anext(stream)) for stream in streams]
        for _ in range(10):
            await asyncio.sleep(1.0)
            with pytest.raises(PythpeerError):
                await session.peerbet.messages()
        await asyncio.gather(*waits)
    assert [(name, level) for name, level, _ in records_of(caplog)] == [
        ("pythpeer.streams", "WARNING"),
        ("pythpeer.streams", "INFO"),  # the end of the failures; it is the first poll, too
    ]


async def test_a_failure_that_lasts_is_logged_every_ten_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And `health` shows since when, until it is over."""
    async with Scripted() as services, services.session() as session:
        services.default_faults["get"] = DROP_WITHOUT_EFFECT
        stream = session.peerbet.chat_stream(after=0)
        start = datetime.now(UTC)
        with anyio.move_on_after(35 * 60):
            await anext(stream)
        assert len(records_of(caplog)) == 4
        health = session.health()
        assert not health.ok
        assert health.streams[0].last_error == "TransportError"
        since = health.streams[0].failing_since
        assert since is not None
        assert start <= since <= datetime.now(UTC)
        services.default_faults.clear()
        services.say()
        await anext(stream)
        assert session.health().ok
        assert stream.health().failing_since is None


LATE_IMPORTS: Final = """
import asyncio, sys
from pythpeer import Session

PAGE = (
    b'{"status":1,"mid":7,"users_online":0,"message_list":[{"id":1,"by":"a","to":"","msg":"hi",'
    b'"date":"2026-01-02 03:04:05","bot":0,"my":0,"me":0}]}'
)

class Recorder:
    def find_spec(self, name, path=None, target=None):
        print(name)

async def answer(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    body = b"[]" if b"readnew" in head else PAGE
    writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n")
    writer.write(b"Content-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    session = Session(peerbet_url=url, pythbots_url=url, peerbet_key="a key", personal_key="b key")
    await session.open()
    sys.meta_path.insert(0, Recorder())
    await anext(session.peerbet.chat_stream(after=0))
    await session.pythbots.unread_mail()
    await session.peerbet.post("hello")
    await session.wait_stopping(0.01)
    await session.aclose()
    sys.meta_path.pop(0)
    server.close()

asyncio.run(main())
"""


def test_an_open_session_imports_nothing() -> None:
    """A call of a program that has no free file descriptor could not import a module."""
    done = subprocess.run(
        [sys.executable, "-c", LATE_IMPORTS], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_printed_by_default() -> None:
    """A program that does not configure logging prints nothing of it."""
    log_call = "logging.getLogger('pythpeer.streams').warning('hello')"
    program = f"import logging; from pythpeer import Session; {log_call}"
    for setup, shown in (("", ""), ("logging.basicConfig(); ", "WARNING:pythpeer.streams:hello")):
        script = program.replace("Session; ", f"Session; {setup}")
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert (done.stdout + done.stderr).strip() == shown


# -- the table ------------------------------------------------------------------------------------


def loggers_in_code() -> set[tuple[str, str]]:
    """The name and the level of every call of a logger in the package."""
    found: set[tuple[str, str]] = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        made = re.search(r"^logger: Final = logging\.getLogger\((.*)\)$", source, re.MULTILINE)
        if made is None:
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts) if made[1] == "__name__" else made[1].strip('"')
        levels = re.findall(r"\blogger\.(debug|info|warning|error|exception)\(", source)
        levels += ["error"] if "logger=logger" in source else []  # passed to aiohttp
        found |= {(name, level.upper()) for level in levels}
    return found


def test_the_table_has_every_logger_and_level() -> None:
    """And no other."""
    assert len(loggers_in_code()) > 8
    assert {(name, level) for name, level, _ in DOCUMENTED} == loggers_in_code()
