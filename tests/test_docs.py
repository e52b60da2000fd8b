"""Every program of the documentation runs against the fake services, and has the stated effect."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import pytest
from helpers import coroutine_of

from pythpeer import SessionHealth
from pythpeer.cli import serve
from pythpeer.testing import FakeServices
from pythpeer.testing.web import Page

pytestmark = pytest.mark.anyio

DOCS: Final = Path(__file__).parent.parent / "docs"
ASYNC: Final = re.compile(r"^(asyncio\.)?run\(", re.MULTILINE)
"""The call that runs an asynchronous program."""

BLOCK: Final = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS: Final = {
    f"{page.relative_to(DOCS).with_suffix('')} {number}": program
    for page in sorted(DOCS.rglob("*.md"))
    if page.name != "testing.md"  # its programs are tests, run by test_testing_page.py
    for number, program in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
}


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[FakeServices]:
    """Fake services whose addresses and keys are in the environment, and a separate folder."""
    monkeypatch.chdir(tmp_path)
    async with FakeServices() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PORT", "0")  # a free port, for programs that listen
        fake.chat.register("docs", "the key")  # the key that a page contains
        (tmp_path / "peerbet").write_text(fake.peerbet_key, encoding="utf-8")
        yield fake
        assert fake.violations == []


async def run(program: str, *actions: Callable[[], object], seconds: float = 4.0) -> None:
    """Run a program, call *actions* one after the other, and cancel it if it does not end."""
    task = asyncio.ensure_future(coroutine_of(program))
    for action in (lambda: None, *actions):
        action()
        await asyncio.wait([task], timeout=seconds)
    ended = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert ended is ("async for" not in program and "while True" not in program)


def texts(fake: FakeServices) -> list[str]:
    return [message.text for message in fake.chat.messages]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if ASYNC.search(PROGRAMS[name])])
async def test_every_program_runs(
    name: str, fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """With new messages and mail the program keeps running, or ends without an error."""
    await run(
        PROGRAMS[name],
        lambda: fake.chat.say("alice", "!ping"),
        lambda: fake.mail.deliver("bob", "hello"),
        lambda: fake.chat.say("bob", "good morning", to="pythpeer"),
    )
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in PROGRAMS if not ASYNC.search(PROGRAMS[name])])
def test_every_script_runs(name: str, tmp_path: Path) -> None:
    """A program without asyncio runs as a separate script, in a folder with an archive."""
    with sqlite3.connect(tmp_path / "archive.sqlite") as archive:
        archive.execute("CREATE TABLE log (id, topic)")
        archive.execute("CREATE TABLE entry (log, item)")
    archive.close()
    script = [sys.executable, "-W", "error", "-c", PROGRAMS[name]]
    process = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


async def test_the_command_bot_answers(fake: FakeServices) -> None:
    """It answers its commands, reports an unknown user, and ignores other bots."""
    await run(
        PROGRAMS["how-to/command-bot 0"],
        lambda: fake.chat.say("alice", "!ping"),
        lambda: fake.chat.say("alice", "!who tiro"),
        lambda: fake.chat.say("alice", "!who unknown-user"),
        lambda: fake.chat.say("otherbot", "!ping", bot=True),
    )
    answers = [message.text for message in fake.chat.messages if message.bot]
    assert answers == [
        "pong",
        "tiro is Owner, and online",
        "unknown-user: User not found",
        "!ping",
    ]


async def test_the_bot_of_the_serve_page_answers_its_visitor(
    fake: FakeServices,
) -> None:
    """A message posted on the page of ``pythpeer serve`` is answered by name."""
    async with Page(fake) as page, aiohttp.ClientSession() as http:

        async def post_message() -> None:
            body = {"sender": "guest", "text": "!ping"}
            origin = {"Origin": page.url.rstrip("/")}
            async with http.post(f"{page.url}api/say", json=body, headers=origin) as answer:
                assert answer.status == 200

        await run(PROGRAMS["how-to/serve 0"], lambda: asyncio.ensure_future(post_message()))
    assert texts(fake) == ["!ping", "pong, guest"]


def test_the_page_shows_the_output_of_serve(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The output is quoted exactly, with the default ports and keys."""
    defaults = serve.serve.__kwdefaults__ or {}
    environment = {
        "PYTHPEER_PEERBET_URL": f"http://127.0.0.1:{defaults['peerbet_port']}",
        "PYTHPEER_PYTHBOTS_URL": f"http://127.0.0.1:{defaults['pythbots_port']}",
    }
    fake = FakeServices()
    environment |= {
        "PYTHPEER_PEERBET_KEY": fake.peerbet_key,
        "PYTHPEER_PERSONAL_KEY": fake.personal_key,
    }
    serve._print_intro(Page(fake, port=defaults["port"]).url, environment)
    page_text = (DOCS / "how-to" / "serve.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out in page_text


async def test_the_moderator_warns_and_reports(fake: FakeServices) -> None:
    """Three equal messages cause a warning, except from staff."""
    posts = [lambda: fake.chat.say("zoe", "buy now"), lambda: fake.chat.say("alice", "hello")]
    await run(PROGRAMS["how-to/moderator 0"], *posts * 3)
    assert texts(fake).count("zoe: we heard you") == 1
    assert not [text for text in texts(fake) if text.startswith("alice:")]
    assert [(mail.recipient, mail.text) for mail in fake.mail.sent] == [
        ("tiro", "zoe repeats himself")
    ]


async def test_the_mail_responder_answers_once(fake: FakeServices) -> None:
    """Answered mail is not answered again after a restart."""
    await run(PROGRAMS["how-to/mail-responder 0"], lambda: fake.mail.deliver("bob", "hello"))
    await run(PROGRAMS["how-to/mail-responder 0"], lambda: fake.mail.deliver("alice", "hello"))
    assert [mail.recipient for mail in fake.mail.sent] == ["bob", "alice"]


async def test_the_archive_can_be_queried(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The query of the page counts the messages that the program stores, while it runs."""
    for _ in range(3):
        fake.chat.say("alice", "hi")
    fake.chat.say("bob", "hi")

    def query() -> None:
        capsys.readouterr()
        exec(PROGRAMS["how-to/archive 1"], {})

    await run(PROGRAMS["how-to/archive 0"], query)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["3", "alice"], ["1", "bob"]]


async def test_user_defined_endpoints_run_on_their_own_fake(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page declares two endpoints and a fake of both; a wrong password is an API error."""
    await run(PROGRAMS["how-to/own-endpoints 0"], seconds=10.0)
    assert capsys.readouterr().out == "rejected: Wrong password\nseed: 777777777\n"
    assert fake.requests == []


async def test_the_roll_of_the_page_is_made_once(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the result, and its money is that of the fake services."""
    await run(PROGRAMS["how-to/dice 0"])
    (bet,) = fake.dice.rolls
    assert str(bet.bet) == "0.00010000"
    assert f"{bet.balance:.8f} left" in capsys.readouterr().out


async def test_the_health_page_is_served(
    fake: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served next to the bot, and contains the bot's position."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PORT", str(port))
    pages: list[asyncio.Task[bytes]] = []

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        page = await reader.read()
        writer.close()
        return page

    await run(
        PROGRAMS["how-to/observe 0"],
        lambda: fake.chat.say("alice", "hello"),
        lambda: pages.append(asyncio.ensure_future(ask())),
    )
    head, _, body = (await pages[0]).partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    health = msgspec.json.decode(body, type=SessionHealth)
    assert health.ok
    assert [stream.cursor for stream in health.streams] == [fake.chat.messages[-1].id]
