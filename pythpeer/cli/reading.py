"""What people type and other programs pipe in, read so that Ctrl-C works while it is waited for.

Signal handlers raise nothing here, so a read that blocks could not be interrupted: what is to be
read is looked for every now and then instead, and the event loop does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Generator
from typing import Final

from ..errors import InvalidRequestError
from ..secret import Secret
from . import ending

__all__ = ["prompt_key", "read_text"]

POLL_INTERVAL: Final = 0.05
"""Seconds between two looks."""

MAX_INPUT: Final = 1 << 20
"""Bytes of text that are taken."""

CHUNK_SIZE: Final = 1 << 16


async def read_text(argument: str | None, *, stdin: bool) -> str:
    """The text that a command is about: its argument, or all of stdin, as UTF-8.

    Line breaks at the end of stdin are no part of it. Raises `InvalidRequestError` where there is
    neither or both, or stdin has no text in it, or more than is sensible.
    """
    if not stdin and argument is not None:
        return argument
    if not stdin or argument is not None:
        raise InvalidRequestError("give one text, or - to take it from stdin (--help shows how)")
    if sys.stdin is None:
        raise InvalidRequestError("there is no stdin to read from")
    if sys.stdin.isatty():
        ending.print_error("type the text; Ctrl-D on a line of its own ends it")
    data = bytearray()
    while piece := await _read(sys.stdin.fileno()):
        data += piece
        if len(data) > MAX_INPUT:
            raise InvalidRequestError(f"stdin has more than {MAX_INPUT} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        where = error.start
    else:
        return text.rstrip("\r\n")
    raise InvalidRequestError(f"stdin is no UTF-8: see its byte {where}")


async def prompt_key(what: str) -> Secret | InvalidRequestError | None:
    """Ask the person at the terminal for a key, which is not shown as it is typed.

    ``None`` where there is no terminal to ask on, or nothing was typed. *what* is the question.
    An error comes back as a value, for a frame to raise in which there is no key.
    """
    with _no_echo() as terminal:
        if terminal is None:
            return None
        os.write(terminal, what.encode())
        return Secret.wrap((await _read(terminal)).decode("utf-8", "replace").strip() or None)


async def _read(descriptor: int) -> bytes:
    """Wait for what comes next; nothing is the end."""
    while True:
        # Windows can only wait for sockets.
        if sys.platform == "win32" or select.select([descriptor], [], [], 0)[0]:
            return os.read(descriptor, CHUNK_SIZE)
        await asyncio.sleep(POLL_INTERVAL)


@contextlib.contextmanager
def _no_echo() -> Generator[int | None]:
    """The terminal that belongs to this process, if people see stderr there, without its echo."""
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
        # Flushed, so that the rest of what was pasted does not end up as a command of the shell.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        os.write(terminal, b"\n")
        os.close(terminal)
