"""The request to end all streams of a session, which may be made from a signal handler."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

import anyio

__all__ = ["StopRequest"]


class StopRequest:
    """The request to end all streams of a session; shared by the session and its streams.

    A stream reads `made` before each item, and waits only within `ends_wait`. `wait` waits for it.
    """

    # Invariant: the scopes are those of the streams that wait; each is cancelled in the event loop.

    __slots__ = ("_over", "_scopes", "made")

    def __init__(self) -> None:
        self.made: bool = False
        """Whether the streams are to end. A plain attribute, because it is read for each item."""
        self._scopes: set[anyio.CancelScope] = set()
        """The scopes of the waits in progress. `ends_wait` adds and removes them."""
        self._over = asyncio.Event()
        """Set when the request is made, and when the session closes. Replaced by `clear`."""

    def make(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the streams, and their waits in *loop*. Safe in signal handlers and other threads."""
        self.made = True
        # The loop may be blocked in its selector, which a signal handler does not wake up.
        loop.call_soon_threadsafe(self._cancel_waits)

    def clear(self) -> None:
        """Let streams return items again: the session was opened anew."""
        self.made = False
        self._over = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        """Wait until the request is made or the session closes, at most *timeout* seconds."""
        with anyio.move_on_after(timeout):
            await self._over.wait()

    def close(self) -> None:
        """The session closes: end every `wait`."""
        self._over.set()

    @contextmanager
    def ends_wait(self) -> Generator[None]:
        """End the wait inside this context as soon as the request is made."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def _cancel_waits(self) -> None:
        if self.made:
            self._over.set()
            for scope in list(self._scopes):
                scope.cancel()
