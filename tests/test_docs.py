"""Every program of the documentation runs, against the fake services, and does what it should."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import pytest

from pythpeer import SessionHealth
from pythpeer.cli import serve
from pythpeer.testing import FakeServices
from pythpeer.testing.page import Page

pytestmark = pytest.mark.anyio

DOCS: Final = Path(__file__).parent.parent / "docs"
END: Final = "asyncio.run(main())\n"

BLOCK: Final = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS: Final = {
    f"{page.relative_to(DOCS).with_suffix('')} {number}": program
    for page in sorted(DOCS.rglob("*.md"))
    if page.name != "testing.md"  # its programs are tests themselves
    for number, program in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
}


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[FakeServices]:
    """Fake services that the environment points to, and a folder of the program's own."""
    monkeypatch.chdir(tmp_path)
    async with FakeServices() as fake:
        monkeypatch.setenv("PYTHPEER_PEERBET_URL", fake.peerbet_url)
        monkeypatch.setenv("PYTHPEER_PYTHBOTS_URL", fake.pythbots_url)
        monkeypatch.setenv("PYTHPEER_PEERBET_KEY", fake.peerbet_key)
        monkeypatch.setenv("PYTHPEER_PERSONAL_KEY", fake.personal_key)
        monkeypatch.setenv("PORT", "0")  # whichever is free, for what listens itself
        fake.chat.register("docs", "the key")  # what the pages hand over themselves
        (tmp_path / "peerbet").write_text(fake.peerbet_key, encoding="utf-8")
        yield fake
        assert fake.violations == []


def main_of(program: str) -> Callable[[], Awaitable[None]]:
    assert program.endswith(END)
    names: dict[str, object] = {"__name__": "docs"}
    exec(compile(program.removesuffix(END), "docs", "exec"), names)
    main = names["main"]
    assert callable(main)
    return main


async def run(program: str, *acts: Callable[[], object], seconds: float = 4.0) -> None:
    """Run a program, have things happen one after the other, and cancel it if it does not end."""
    task = asyncio.ensure_future(main_of(program)())
    for act in (lambda: None, *acts):
        act()
        await asyncio.wait([task], timeout=seconds)
    ended = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert ended is ("async for" not in program and "while True" not in program)


def texts(fake: FakeServices) -> list[str]:
    return [message.text for message in fake.chat.messages]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if PROGRAMS[name].endswith(END)])
async def test_every_program_runs(
    name: str, fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """Things happen in the chat and in the mailbox, and it goes on, or ends well by itself."""
    await run(
        PROGRAMS[name],
        lambda: fake.chat.say("alice", "!ping"),
        lambda: fake.mail.deliver("bob", "hello"),
        lambda: fake.chat.say("bob", "good morning", to="pythpeer"),
    )
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in PROGRAMS if not PROGRAMS[name].endswith(END)])
def test_every_script_runs(name: str, tmp_path: Path) -> None:
    """What is no asyncio program runs as a script of its own, beside an archive that is there."""
    with sqlite3.connect(tmp_path / "archive.sqlite") as archive:
        archive.execute("CREATE TABLE log (id, topic)")
        archive.execute("CREATE TABLE entry (log, item)")
    archive.close()
    script = [sys.executable, "-W", "error", "-c", PROGRAMS[name]]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_command_bot_answers(fake: FakeServices) -> None:
    """It knows its commands, says when somebody is unknown, and lets other bots be."""
    await run(
        PROGRAMS["how-to/command-bot 0"],
        lambda: fake.chat.say("alice", "!ping"),
        lambda: fake.chat.say("alice", "!who tiro"),
        lambda: fake.chat.say("alice", "!who nobody-at-all"),
        lambda: fake.chat.say("otherbot", "!ping", bot=True),
    )
    answers = [message.text for message in fake.chat.messages if message.bot]
    assert answers == [
        "pong",
        "tiro is Owner, and online",
        "nobody-at-all: User not found",
        "!ping",
    ]


async def test_the_bot_of_the_page_answers_whoever_chats_there(
    fake: FakeServices,
) -> None:
    """What is said on the page of ``pythpeer serve`` is answered by name."""
    async with Page(fake) as page, aiohttp.ClientSession() as http:

        async def say() -> None:
            wish = {"sender": "guest", "text": "!ping"}
            origin = {"Origin": page.url.rstrip("/")}
            async with http.post(f"{page.url}api/say", json=wish, headers=origin) as answer:
                assert answer.status == 200

        await run(PROGRAMS["how-to/serve 0"], lambda: asyncio.ensure_future(say()))
    assert texts(fake) == ["!ping", "pong, guest"]


def test_what_serve_prints_is_what_its_page_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Addresses, keys and all, with the ports that it has where no others are chosen."""
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
    shown = (DOCS / "how-to" / "serve.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out in shown


async def test_the_moderator_warns_and_reports(fake: FakeServices) -> None:
    """Three times the same is once too often, but for staff."""
    said = [lambda: fake.chat.say("zoe", "buy now"), lambda: fake.chat.say("alice", "hello")]
    await run(PROGRAMS["how-to/moderator 0"], *said * 3)
    assert texts(fake).count("zoe: we heard you") == 1
    assert not [text for text in texts(fake) if text.startswith("alice:")]
    assert [(mail.recipient, mail.text) for mail in fake.mail.sent] == [
        ("tiro", "zoe repeats himself")
    ]


async def test_the_mail_responder_answers_once(fake: FakeServices) -> None:
    """Also over a restart: what was answered is not answered again."""
    await run(PROGRAMS["how-to/mail-responder 0"], lambda: fake.mail.deliver("bob", "hello"))
    await run(PROGRAMS["how-to/mail-responder 0"], lambda: fake.mail.deliver("alice", "hello"))
    assert [mail.recipient for mail in fake.mail.sent] == ["bob", "alice"]


async def test_the_archive_can_be_queried(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The query of the page counts what the program of the page has kept, while it runs."""
    for _ in range(3):
        fake.chat.say("alice", "hi")
    fake.chat.say("bob", "hi")

    def query() -> None:
        capsys.readouterr()
        exec(PROGRAMS["how-to/archive 1"], {})

    await run(PROGRAMS["how-to/archive 0"], query)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["3", "alice"], ["1", "bob"]]


async def test_the_page_of_health_is_there(
    fake: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served beside the bot, and says what the bot is at."""
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
