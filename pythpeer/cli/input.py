"""Reads stdin and the terminal in such a way that Ctrl-C works during the wait.

Signal handlers raise nothing here, so a blocking read could not be interrupted. Instead, input is
polled for, and the event loop runs in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Generator
from typing import Final

from ..errors import InvalidRequestError, Result
from ..secret import Secret
from . import runtime

__all__ = ["confirm", "prompt_key", "read_text"]

POLL_INTERVAL: Final = 0.05
"""Seconds between two polls."""

MAX_INPUT: Final = 1 << 20
"""The most bytes of text."""

CHUNK_SIZE: Final = 1 << 16
"""The most bytes of one read."""


async def read_text(argument: str | None, *, stdin: bool) -> str:
    """Return the text of a command: its argument, or all of stdin, as UTF-8.

    Line breaks at the end of stdin are removed. Raises `InvalidRequestError` if there is neither or
    both, or if stdin is not UTF-8 or has more than `MAX_INPUT` bytes.
    """
    if not stdin and argument is not None:
        return argument
    if not stdin:
        raise InvalidRequestError("give the text in quotes, or - to read it from stdin")
    if argument is not None:
        raise InvalidRequestError("give either the text, or - to read it from stdin, not both")
    if sys.stdin is None:
        raise InvalidRequestError("stdin is closed")
    if sys.stdin.isatty():
        runtime.print_error("type the text; Ctrl-D on an empty line ends it")
    data = bytearray()
    while chunk := await _read(sys.stdin.fileno()):
        data += chunk
        if len(data) > MAX_INPUT:
            raise InvalidRequestError(f"stdin has more than {MAX_INPUT} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        position = error.start
    else:
        return text.rstrip("\r\n")
    raise InvalidRequestError(f"stdin is not UTF-8: see its byte {position}")


async def confirm(question: str, option: str) -> None:
    """Ask a question at the terminal. Raises `InvalidRequestError` unless the answer is yes.

    *option* is the option that gives the answer where there is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise InvalidRequestError(
            f"not confirmed, and there is no terminal to ask at: give {option}"
        )
    print(question, end="", file=sys.stderr, flush=True)
    reply = await _read(sys.stdin.fileno())
    if reply.strip().lower() not in (b"y", b"yes"):
        raise InvalidRequestError("not confirmed: nothing was sent")


async def prompt_key(question: str) -> Result[Secret | None]:
    """Ask for a key at the terminal, without an echo.

    Returns ``None`` if there is no terminal, or if the input is empty. An error is returned, so
    that it is raised in a frame that does not contain the key.
    """
    with _no_echo() as terminal:
        if terminal is None:
            return None
        os.write(terminal, question.encode())
        return Secret.try_wrap((await _read(terminal)).decode("utf-8", "replace").strip() or None)


async def _read(descriptor: int) -> bytes:
    """Wait for the next bytes, and return them; empty at the end."""
    while True:
        # Windows can only wait for sockets.
        if sys.platform == "win32" or select.select([descriptor], [], [], 0)[0]:
            return os.read(descriptor, CHUNK_SIZE)
        await asyncio.sleep(POLL_INTERVAL)


@contextlib.contextmanager
def _no_echo() -> Generator[int | None]:
    """Open the terminal of this process without its echo; ``None`` if stderr is not shown there."""
    if sys.platform == "win32" or not sys.stderr.isatty():
        yield None
        return
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        yield None
        return
    before = termios.tcgetattr(terminal)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        yield terminal
    finally:
        # Flushed, so that the rest of a pasted text does not become a command of the shell.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        os.write(terminal, b"\n")
        os.close(terminal)
