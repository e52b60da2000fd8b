"""The command ``pythpeer serve``: its output, its connections, and its end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import pytest
from cli_runner import Process, Spawn, needs_signals
from fork_server import HANG_TIMEOUT
from helpers import real_time
from inner_pytest import run_pytest

from pythpeer import Session
from pythpeer.cli import main
from pythpeer.cli.serve import FIRST_SECOND

FREE: Final = ("--port", "0", "--peerbet-port", "0", "--pythbots-port", "0")

pytest_plugins = ("cli_runner", "pytester")


# -- as a process ---------------------------------------------------------------------------------


class Serving:
    """The command as a process, and its output so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def next_line(self) -> str:
        """Return the next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(HANG_TIMEOUT):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line.endswith("\n")
        self.lines.append(line.rstrip("\n"))
        return self.lines[-1]

    async def ready(self) -> Self:
        """Wait until it has printed its URLs."""
        while "Ctrl-C stops" not in await self.next_line():
            pass
        return self

    @property
    def page(self) -> str:
        (url,) = re.findall(r"^Chat with your bot: +(http://\S+)$", self.text, re.MULTILINE)
        return str(url)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment as a shell would read it."""
        return dict(re.findall(r"^  (?:export|set) (PYTHPEER_\w+)=(\S+)$", self.text, re.MULTILINE))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def end(self, number: signal.Signals) -> tuple[int | None, str]:
        """Send a signal; return the exit code, and all of stderr."""
        self.process.send_signal(number)
        out, err = await asyncio.to_thread(self.process.communicate)
        self.lines += out.splitlines()
        return self.process.returncode, err


Serve = Callable[..., Serving]


@pytest.fixture
def serve(spawn: Spawn) -> Serve:
    """``pythpeer serve`` with all warnings about resources that are left open."""
    return lambda *arguments: Serving(spawn("serve", *arguments))


@pytest.mark.anyio
@real_time
@pytest.mark.processes
@needs_signals
async def test_it_prints_its_urls_serves_and_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines have the URLs; Ctrl-C ends it with code 0, with a page open."""
    started = int(time.time())
    command = await serve(*FREE).ready()
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    async with Session.from_env() as session, aiohttp.ClientSession() as http:
        first = await session.peerbet.post("hello")
        assert started <= first + FIRST_SECOND <= time.time()  # above the ids of earlier runs
        async with http.get(command.page) as page, http.get(f"{command.page}api/events") as sse:
            assert "pythpeer serve" in await page.text()
            assert (await sse.content.readline()).startswith(b"retry")
            assert await command.end(signal.SIGINT) == (0, "")
    assert command.environment.keys() == {
        "PYTHPEER_PEERBET_URL",
        "PYTHPEER_PYTHBOTS_URL",
        "PYTHPEER_PEERBET_KEY",
        "PYTHPEER_PERSONAL_KEY",
    }
    assert "\x1b" not in command.text


@pytest.mark.anyio
@real_time
@pytest.mark.processes
@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_at_any_moment_ends_it_well(serve: Serve, number: signal.Signals) -> None:
    """From the first import on: during the start, and during an outage."""
    for lines in (1, 4):
        command = serve(*FREE, "--people")
        for _ in range(lines):
            await command.next_line()
        assert await command.end(number) == (0, "")
    command = await serve(*FREE).ready()
    async with aiohttp.ClientSession() as http:
        headers = {"Origin": command.page.rstrip("/"), "Content-Type": "application/json"}
        down = b'{"target": "peerbet", "kind": "down"}'
        async with http.post(f"{command.page}api/faults", data=down, headers=headers) as answer:
            assert answer.status == 200
        assert await command.end(number) == (0, "")


@pytest.mark.anyio
@real_time
@pytest.mark.processes
@needs_signals
async def test_broken_rules_are_shown(serve: Serve) -> None:
    """As lines, or as JSON; and with --pace 0 no rate is too high."""

    async def ask(url: str, times: int) -> None:
        async with aiohttp.ClientSession(headers={"User-Agent": "test"}) as http:
            for _ in range(times):
                async with http.get(f"{url}/api/chat/?action=get") as answer:
                    assert answer.status == 200

    command = await serve(*FREE).ready()
    await ask(command.environment["PYTHPEER_PEERBET_URL"], 20)  # a busy machine may be slow at one
    assert re.search(
        r" violation: peerbet\.chat\.get: \S+ s too early .*\[pace\]$", await command.next_line()
    )
    command = serve(*FREE, "--json", "--pace", "0")
    row: dict[str, Any] = json.loads(await command.next_line())
    assert row["kind"] == "serving"
    assert row["page"].startswith("http://127.0.0.1:")
    url = row["environment"]["PYTHPEER_PEERBET_URL"]
    await ask(url, 20)
    async with (
        aiohttp.ClientSession(headers={"User-Agent": "test"}) as http,
        http.get(f"{url}/nowhere"),
    ):
        row = json.loads(await command.next_line())
    assert row.pop("date").startswith("20")
    assert row == {
        "kind": "violation",
        "endpoint": "peerbet",
        "rule": "path",
        "text": "unknown path",
    }


@pytest.mark.anyio
@real_time
@pytest.mark.processes
@needs_signals
async def test_people_talk_with_that_option(serve: Serve) -> None:
    """For equal seeds they say the same."""
    conversations: list[list[tuple[str, str]]] = []
    for _ in range(2):
        command = serve(*FREE, "--people", "--seed", "5", "--json")
        row = json.loads(await command.next_line())
        async with Session(peerbet_url=row["environment"]["PYTHPEER_PEERBET_URL"]) as session:
            page = await session.peerbet.messages()
        conversations.append([(message.sender, message.text) for message in page.messages])
    assert conversations[0][0] == conversations[1][0]
    assert conversations[0][0][1] == "good morning, everyone"


@pytest.mark.processes
@needs_signals
def test_it_ends_when_its_pipe_is_closed() -> None:
    """A closed pipe is not a failure, and neither are warnings during imports."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "pythpeer", "serve", *FREE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        while b"Ctrl-C stops" not in process.stdout.readline():
            pass
        process.stdout.close()
        assert process.wait(HANG_TIMEOUT) == 0
        assert process.stderr.read() == b""


# -- in this process ------------------------------------------------------------------------------


@pytest.fixture
def signals() -> Iterator[None]:
    """The command installs signal handlers; they are restored."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("option", ["--port", "--peerbet-port", "--pythbots-port"])
def test_a_port_that_is_taken_is_one_line(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It names the port and the options: that is wrong usage, not a failure of a service."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {**dict.fromkeys(FREE[::2], "0"), option: str(port)}
        assert main(["serve", *chain.from_iterable(ports.items())]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"pythpeer: cannot listen on 127\.0\.0\.1:{port}: [^\n]+\n", err)
    assert option in err


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--peerbet-port", "-1"],
        ["--pythbots-port", "many"],
        ["--pace", "-1"],
        ["--pace", "nan"],
        ["--pace", "inf"],
        ["--seed", "x"],
        ["more"],
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is served."""
    assert main(["serve", *FREE, *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"pythpeer: [^\n]+\n", err)


def test_a_missing_browser_is_reported(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the page's tests cannot run, the summary of the test run reports it."""
    monkeypatch.setenv("PATH", str(pytester.path))
    monkeypatch.setenv("COLUMNS", "100")
    for module in ("browser", "test_page_browser"):  # which may have found one before
        monkeypatch.delitem(sys.modules, module, raising=False)
    tests = Path(__file__).with_name("test_page_browser.py")
    outcome = run_pytest(pytester, "-q", str(tests), "-k", "keyboard")
    assert outcome.counts["skipped"] == 1
    assert outcome.counts.keys() <= {"skipped", "deselected"}
    assert re.search(r"NOT RUN.*\n.*there is no chromium on this machine", outcome.text)
