"""Every program of the README runs against the fake services, and has the stated effect."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers import CLEAR_SCREEN, coroutine_of

from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def program_with(marker: str) -> Coroutine[Any, Any, object]:
    """Return the one program that contains *marker*, to be awaited."""
    (program,) = (program for program in PROGRAMS if marker in program)
    return coroutine_of(program)


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServices]:
    """Fake services whose addresses and keys are in the environment."""
    async with FakeServices() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake
        assert fake.violations == []


@asynccontextmanager
async def running(program: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run a program that ends only when it is cancelled."""
    task = asyncio.ensure_future(program)
    await asyncio.sleep(2.0)
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_every_program_is_run_here() -> None:
    """A new program in the README needs a separate test."""
    assert len(PROGRAMS) == 7


async def test_the_first_program_answers_a_ping(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first bot prints the messages and answers ``!ping``."""
    async with running(program_with('"pong"')):
        fake.chat.say(CLEAR_SCREEN, CLEAR_SCREEN)
        fake.chat.say("alice", "!ping")
        await asyncio.sleep(3.0)
    out = capsys.readouterr().out
    assert "'alice': '!ping'" in out
    assert "\x1b" not in out
    assert fake.chat.messages[-1].text == "pong"


async def test_the_tour_of_calls_runs(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of call returns its result."""
    for sender in ("alice", CLEAR_SCREEN):
        fake.chat.say(sender, "good morning")
        fake.mail.deliver(sender, "you have mail")
    await program_with("messages(last=5)")
    out = capsys.readouterr().out
    for expected in ("1 'alice': ", "221192 'tiro'", "'Main Owner' ", "'alice': 'you have mail'"):
        assert expected in out
    assert "\x1b" not in out
    assert fake.mail.sent == [("tiro", "hello")]


async def test_the_posts_arrive(fake: FakeServices, capsys: pytest.CaptureFixture[str]) -> None:
    """A post is confirmed, and a long one comes in parts, each after a second."""
    await program_with("post_long(story")
    assert capsys.readouterr().out == "posted as 1\nposted as 2 3 4\n"
    texts = [line.text for line in fake.chat.messages]
    assert texts[0] == "hello"
    assert (
        " ".join(texts[1:]) == ("Once upon a time there was a bot that liked to talk. " * 12)[:-1]
    )


async def test_the_merged_streams_show_chat_and_mail(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chat and mail are delivered in one loop."""
    async with running(program_with("merge(chat, mail)")):
        fake.chat.say("alice", "hi")
        fake.mail.deliver("bob", CLEAR_SCREEN)
        await asyncio.sleep(3.0)
    out = capsys.readouterr().out
    assert "chat 'alice': 'hi'" in out
    assert "mail 'bob': 'mallory\\x1b[2J'" in out


async def test_user_defined_endpoints_are_called_as_declared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The action comes first, then the parameters in their order; the fake is that of the docs."""
    page = (Path(__file__).parent.parent / "docs/how-to/own-endpoints.md").read_text("utf-8")
    names: dict[str, Any] = {"__name__": "docs"}
    exec(page.partition("```python\n")[2].partition("\nasync def start_fake")[0], names)
    targets: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        targets.append(request.path_qs)
        response: web.Response = await names["answer"](request)
        return response

    server = await asyncio.get_running_loop().create_server(web.Server(answer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("PYTHPEER_PEERBET_URL", f"http://127.0.0.1:{port}")
    try:
        await program_with("peerbet.account.signin")
    finally:
        server.close()
        await server.wait_closed()
    assert targets == [
        "/api/account/?action=signin&user=alice&pass=a%20password",
        "/api/dice/?action=getseed&key=the%20key%20of%20alice",
    ]
    assert capsys.readouterr().out == "777777777\n"


async def test_the_bot_test_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of a test runs and passes."""
    await program_with("FakeServices()")
    assert capsys.readouterr().out == "'hello alice'\n"


def test_the_test_with_the_fixtures_passes(tmp_path: Path) -> None:
    """Pytest loads the plugin automatically."""
    (program,) = (program for program in PROGRAMS if "fake_services" in program)
    (tmp_path / "test_readme.py").write_text(program, encoding="utf-8")
    others = ("asyncio", "hypothesispytest", "randomly", "xdist", "cacheprovider")
    plugins = [part for name in others for part in ("-p", f"no:{name}")]
    renamed = "ignore:_pytest.python.CallSpec2 has been renamed"  # in the oldest supported anyio
    warnings = ("-W", "error", "-W", renamed)
    command = [sys.executable, "-m", "pytest", *warnings, *plugins, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
