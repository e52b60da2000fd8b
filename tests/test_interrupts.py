"""An interrupt at any line of a call shows no key: Ctrl-C, or a signal handler that raises.

A trace function raises it at one line of the call, a later one each time, until the call ends
before that line. The lines are those of every file: of this package, of asyncio, and of aiohttp.
The server runs in a thread of its own, because its frames hold the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import pytest
import uvloop
from helpers import DEEP, freeze_collector
from raw_server import http
from test_secrecy import KEYED, chain, keyed_session, leaks

from pythpeer import Secret, TransportError

GOOD: Final = http(200, b'{"status":1,"id":1,"messages":[]}')

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}

FAULTS: Final[dict[str, bytes | None]] = {
    "a response": GOOD,
    "no response": b"",
    "half a head": b"HTTP/1.1 200 OK\r\n",
    "a time limit": None,
}
"""What the server sends to the second request of a connection before it closes it; ``None``: it
sends nothing, and closes nothing."""

STRIDE: Final = 199 if not DEEP else 1 if sys.version_info >= (3, 12) else 29
"""How many lines lie between two interrupts: every line of every case takes half a minute, and
crashes Python 3.11 itself after some thousand of them."""


@contextlib.contextmanager
def threaded_server(fault: bytes | None) -> Iterator[str]:
    """The URL of a server that sends a response to the first request of the first connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket, *responses: bytes | None) -> None:
        with connection, contextlib.suppress(OSError):
            for response in responses:
                if not connection.recv(65536):
                    return
                if response is None:
                    connection.recv(1)
                    return
                connection.sendall(response)

    def listen() -> None:
        first = True
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                responses = (GOOD, fault) if first else (fault,)
                threading.Thread(target=serve, args=(connection, *responses), daemon=True).start()
                first = False

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


class InterruptError(KeyboardInterrupt):
    """Raised at a line; as Ctrl-C it ends the event loop, wherever it is raised."""


class Interruption:
    """Raises `InterruptError` at the *at*-th line that is executed in its ``with`` block."""

    def __init__(self, at: int) -> None:
        self._left = at
        """How many lines are executed before it raises."""
        self.raised = False
        self._previous = sys.gettrace()
        """What traced before, for instance to measure coverage, and does so again afterwards."""

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *error: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Trace as before: an exception of a trace function switches tracing off."""
        sys.settrace(self._previous)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._left -= 1
            if self._left < 0:
                sys.settrace(None)
                self.raised = True
                raise InterruptError
        return self._trace


def shown(value: object) -> str:
    """Return the repr of *value*; an object whose creation was interrupted may have none."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001
        return ""


def examine_frames(error: BaseException) -> None:
    """Fail where *error*, its causes and contexts, or a variable of their frames shows a key."""
    for link in chain(error):
        assert not leaks(f"{link!r} {vars(link)!r}")
        traceback = link.__traceback__
        while traceback is not None:
            for name, value in traceback.tb_frame.f_locals.items():
                assert not leaks(shown(value)), (traceback.tb_frame.f_code.co_qualname, name)
            traceback = traceback.tb_next


class Shown(logging.Handler):
    """Collects the exceptions that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert not leaks(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])


async def call_interrupted(name: str, url: str, interruption: Interruption) -> None:
    """Make a call, and then a second one that is interrupted."""
    session = await keyed_session(url, timeout=0.1).open()
    with contextlib.suppress(TransportError):  # the time limit is short for a busy machine
        await KEYED[name].run(session, url)
    try:
        with interruption:
            await KEYED[name].run(session, url)
    except BaseException as error:  # noqa: BLE001  # of any class
        examine_frames(error)
    await session.aclose()


def close_coroutine(task: asyncio.Task[None]) -> None:
    """End the coroutine of an interrupted task.

    Not left to the garbage collector, which may clear what the coroutine waits for before the
    coroutine: Python 3.11 crashes then.
    """
    with contextlib.suppress(BaseException):
        task.get_coro().close()


def run_interrupted(loop_name: str, name: str, fault: str, at: int) -> Iterator[bool]:
    """Interrupt a call at its *at*-th line, in a new event loop. Yields whether it has that line.

    The event loop is not run again to clean up: what the interrupt has lost would never come.

    A generator, because it has an exception state of its own: in Python 3.11, an interrupt at the
    ``return`` of an ``except`` clause leaves the state as it is there, and every later error of the
    thread would have that exception as its context.
    """
    log, interruption = Shown(), Interruption(at)
    logging.getLogger("asyncio").addHandler(log)
    loop = LOOPS[loop_name]()
    task: asyncio.Task[None] | None = None
    try:
        with threaded_server(FAULTS[fault]) as url:
            task = loop.create_task(call_interrupted(name, url, interruption))
            loop.call_later(2.0, loop.stop)
            with contextlib.suppress(RuntimeError, asyncio.CancelledError):
                loop.run_until_complete(task)
    except InterruptError as error:
        examine_frames(error)
    finally:
        interruption.restore()
        if task is not None:
            close_coroutine(task)
        loop.close()
        logging.getLogger("asyncio").removeHandler(log)
        for logged in log.errors:
            examine_frames(logged)
        # A socket that the interrupt has left can have a number that the loop closed, too: it must
        # not be closed when the next loop has a socket with that number.
        del task
        gc.collect()
    yield interruption.raised


@contextlib.contextmanager
def ignoring_unclosed() -> Iterator[None]:
    """Ignore what the garbage collector reports of the connections that an interrupt has left."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda event: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


@pytest.mark.filterwarnings("ignore")  # an interrupt can leave objects unclosed
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["all_mail", "own_read"])
def test_an_interrupt_at_a_line_shows_no_key(name: str, fault: str, loop: str) -> None:
    """Whatever it interrupts: the call, the event loop, the connector or the parser."""
    at = (list(FAULTS).index(fault) * 31 + len(name)) % STRIDE
    freeze_collector()
    with ignoring_unclosed():
        while next(run_interrupted(loop, name, fault, at)):
            at += STRIDE
    assert at > 200
    assert sys.exc_info()[0] is None  # later tests have no exception as their context


@pytest.mark.parametrize("method", [Secret.reveal, Secret.encoded])
def test_an_interrupt_within_the_secret_shows_no_key(method: Callable[[Secret], str]) -> None:
    """At each line of what returns the text of a key."""
    secret, at = Secret("canary7f3a9"), 0
    for at in range(10):
        interruption = Interruption(at)
        try:
            with interruption:
                method(secret)
        except InterruptError as error:
            examine_frames(error)
        if not interruption.raised:
            break
    assert at > 0


def test_an_interrupt_at_a_line_with_a_key_is_found() -> None:
    """The search finds a key that a variable holds at the interrupted line."""

    def fail(text: str) -> int:
        length = len(text)
        return length + 1

    with pytest.raises(InterruptError) as caught, Interruption(1):
        fail("canary7f3a9")
    with pytest.raises(AssertionError):
        examine_frames(caught.value)
