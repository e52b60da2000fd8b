"""`run`: logging, signals and exit codes of a bot."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pytest
from fork_server import HANG_TIMEOUT, ForkedProcess, ForkServer
from helpers import real_time, wait_until
from scripted import Scripted, ScriptedFault

from pythpeer import InvalidRequestError, MemoryStore, Session, run

pytestmark = pytest.mark.anyio

PROGRAM: Final = Path(__file__).with_name("proc_run.py")

IMPORTED: Final = ("pythpeer.public", "pythpeer.stores.sqlite", "aiohttp")
"""What the fork server imports."""

EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit codes after a second signal."""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A fork server in development mode, with warnings as errors."""
    with ForkServer(*IMPORTED, options=("-X", "dev", "-W", "error")) as server:
        yield server


class RunningBot:
    """A bot in a process while ``with`` lasts; its output is written to files."""

    def __init__(self, server: ForkServer, services: Scripted, folder: Path, bot: str) -> None:
        self._files = [folder / name for name in ("stdout", "stderr")]
        """The files of its output."""
        self._arguments = (services.url, str(folder / "bot.sqlite"), bot)
        """The arguments of the program."""
        self._server = server
        """The fork server."""

    def __enter__(self) -> Self:
        with self._files[0].open("w") as stdout, self._files[1].open("w") as stderr:
            self.process = ForkedProcess(
                self._server,
                *self._arguments,
                program=str(PROGRAM),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.close()

    @property
    def lines(self) -> list[str]:
        """The lines on stdout until now."""
        return self._files[0].read_text().splitlines()

    @property
    def log(self) -> list[str]:
        """The lines on stderr until now, without the time at their beginning.

        Those about slow callbacks are left out, which the development mode adds on a busy machine.
        """
        lines = self._files[1].read_text().splitlines()
        lines = [re.sub(r"^[-\d]+ [:,\d]+ ", "", line) for line in lines]
        return [line for line in lines if "asyncio: Executing" not in line]

    async def printed(self, line: str) -> None:
        """Wait until this line was printed."""
        await wait_until(lambda: line in self.lines)

    async def end(self) -> int:
        """Wait for the end, and return the exit code."""
        return await asyncio.to_thread(self.process.wait, HANG_TIMEOUT)


# -- signals, in a process ------------------------------------------------------------------------


@real_time
@pytest.mark.processes
@pytest.mark.parametrize("number", EXIT_CODES)
async def test_a_signal_stops_a_bot_that_waits(
    server: ForkServer, tmp_path: Path, number: signal.Signals
) -> None:
    """The loop ends as usual, `run` returns, and the log has no traceback."""
    async with Scripted() as services:
        services.say(2)
        with RunningBot(server, services, tmp_path, "answer") as bot:
            await bot.printed("message 2")
            bot.process.send_signal(number)
            assert await bot.end() == 0
            assert bot.lines == ["message 1", "message 2", "ended", "returned"]
            first, *middle, last, end = bot.log
    assert first.startswith("INFO    pythpeer.run: pythpeer ")
    assert first.endswith(
        f": Peerbet at {services.url}, PythBots at {services.url}; keys: Peerbet; "
        f"store: file {str(tmp_path / 'bot.sqlite')!r}"
    )
    assert all(line.startswith("INFO    pythpeer.streams: ") for line in middle)
    assert last == (
        f"INFO    pythpeer.run: {number.name}: streams end after the current item; "
        "a second signal cancels the bot"
    )
    assert re.fullmatch(
        r"INFO    pythpeer\.run: stopped: the session is closed, \d+\.\d s after the signal", end
    )


@real_time
@pytest.mark.processes
@pytest.mark.parametrize("number", EXIT_CODES)
async def test_a_post_in_flight_ends_as_usual(
    server: ForkServer, tmp_path: Path, number: signal.Signals
) -> None:
    """It is sent once, its message counts as processed, and the next program starts behind it."""
    async with Scripted() as services:
        services.post("!ping")
        services.script("set", ScriptedFault(after=0.3))
        for runs, ids in ((1, "posted 2"), (2, "message 3")):
            with RunningBot(server, services, tmp_path, "answer") as bot:
                if runs == 1:
                    await wait_until(lambda: services.asked("set"))
                else:
                    await bot.printed("message 3")
                bot.process.send_signal(number)
                assert await bot.end() == 0
                assert ids in bot.lines
                assert bot.lines[-2:] == ["ended", "returned"]
                if runs == 2:
                    assert "!ping" not in bot.lines
            services.say()
        assert len(services.asked("set")) == 1


@real_time
@pytest.mark.processes
@pytest.mark.parametrize("number", EXIT_CODES)
async def test_a_second_signal_cancels_the_bot(
    server: ForkServer, tmp_path: Path, number: signal.Signals
) -> None:
    """Without a traceback; the exit code is 128 plus the number of the signal."""
    async with Scripted() as services:
        with RunningBot(server, services, tmp_path, "sleep") as bot:
            await bot.printed("sleeping")
            bot.process.send_signal(number)
            await wait_until(lambda: any("a second signal" in line for line in bot.log))
            bot.process.send_signal(number)
            assert await bot.end() == EXIT_CODES[number]
            assert bot.lines == ["sleeping", "cancelled"]
            assert all(line.startswith("INFO ") for line in bot.log)


@real_time
@pytest.mark.processes
async def test_an_exception_of_the_bot_comes_out(server: ForkServer, tmp_path: Path) -> None:
    """With its traceback, and exit code 1."""
    async with Scripted() as services:
        with RunningBot(server, services, tmp_path, "fail") as bot:
            assert await bot.end() == 1
            assert bot.lines == []
            assert bot.log[-1] == "LookupError: raised by the bot"


# -- in this process ------------------------------------------------------------------------------


async def do_nothing(session: Session) -> None:
    """A bot that ends immediately."""


@contextmanager
def unconfigured_logging() -> Iterator[logging.Logger]:
    """The root logger without handlers, as in a program that has not configured logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_it_returns_when_the_bot_does() -> None:
    """The bot gets the open session; the result of the bot is ignored."""
    sessions: list[Session] = []

    async def bot(session: Session) -> str:
        assert not session.stopping
        sessions.append(session)
        return "ignored"

    run(bot, timeout=5.0)
    assert repr(sessions[0]).startswith("<Session closed")


def test_an_awaitable_of_another_kind_is_run() -> None:
    """A lambda that passes more arguments to the bot, for example."""
    names: list[str] = []

    async def bot(session: Session, name: str) -> None:
        names.append(name)

    run(lambda session: bot(session, "me"))
    assert names == ["me"]


def test_it_can_run_in_another_thread() -> None:
    """Signals are not handled there, because Python handles them in the main thread only."""
    before = signal.getsignal(signal.SIGTERM)
    handlers: list[object] = []

    async def bot(session: Session) -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run, args=(bot,))
    thread.start()
    thread.join()
    assert handlers == [before]


def test_it_restores_the_handlers_of_signals() -> None:
    """Those that the program had installed before."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run(do_nothing)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_signal_before_the_session_is_open_is_not_lost() -> None:
    """The session is stopping when the bot gets it."""

    class SignalledStore(MemoryStore):
        async def open(self) -> None:
            signal.raise_signal(signal.SIGINT)

    stopping: list[bool] = []

    async def bot(session: Session) -> None:
        stopping.append(session.stopping)

    run(bot, store=SignalledStore())
    assert stopping == [True]


def test_a_cancellation_by_the_bot_itself_comes_out() -> None:
    """No signal was received, so there is no exit code for it."""

    async def bot(session: Session) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(bot)


@pytest.mark.parametrize("level", ["DEBUG", "info", logging.WARNING])
def test_logging_is_configured(level: str | int, capfd: pytest.CaptureFixture[str]) -> None:
    """One handler of the root logger, which writes lines to stderr."""
    expected = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    with unconfigured_logging() as root:
        run(do_nothing, log_level=level)
        assert len(root.handlers) == 1
        assert root.level == expected
    printed = [line.split(None, 2)[2] for line in capfd.readouterr().err.splitlines()]
    assert any(line.startswith("INFO    pythpeer.run: ") for line in printed) == (expected <= 20)


def test_logging_that_is_configured_is_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the handlers nor the level; the line about the session is a record like others."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with caplog.at_level(logging.INFO, "pythpeer"):
        run(do_nothing, peerbet_key="hidden-key", personal_key="hidden-key")
    assert (root.handlers, root.level) == before
    record, end = [record for record in caplog.records if record.name == "pythpeer.run"]
    assert end.getMessage() == "the bot has returned, and the session is closed"
    assert record.getMessage().endswith(
        ": Peerbet at https://www.peerbet.org, PythBots at https://pythbots.com; "
        "keys: Peerbet, personal; store: memory"
    )
    assert "hidden-key" not in caplog.text


async def test_a_running_event_loop_is_an_error() -> None:
    """The error says what to write there."""
    with pytest.raises(InvalidRequestError, match=r"async with Session\.from_env\(\)"):
        run(do_nothing)


@pytest.mark.parametrize(
    ("bot", "text"),
    [
        (lambda: do_nothing(Session()), r"write run\(main\), not run\(main\(\)\)"),
        (lambda: None, "a coroutine function, not NoneType"),
        (lambda: lambda session: None, "write 'async def'"),
    ],
)
def test_anything_but_a_coroutine_function_is_an_error(bot: Callable[[], Any], text: str) -> None:
    """The error says what to write."""
    with pytest.raises(InvalidRequestError, match=text):
        run(bot())


@pytest.mark.parametrize("level", ["LOUD", None, 1.5])
def test_another_log_level_is_an_error(level: Any) -> None:
    """Before the session is made."""
    with unconfigured_logging() as root:
        with pytest.raises(InvalidRequestError, match="log_level must be a level such as 'INFO'"):
            run(do_nothing, log_level=level, timeout=-1.0)
        assert root.handlers == []
