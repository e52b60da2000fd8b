"""Waking those who wait for the next item of a log, in whichever event loop they do."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["Notifier"]


class Notifier:
    """Whether there has been any, for those who wait and for those who look.

    A store may be used in one event loop after another, so what is bound to a loop lasts no longer
    than a wait.
    """

    def __init__(self) -> None:
        self.generation: int = 0
        """How often there has been news."""
        self._waiting: set[asyncio.Event] = set()

    def notify_all(self) -> None:
        """Wake everybody who waits."""
        self.generation += 1
        for event in self._waiting:
            event.set()

    async def wait(self, seconds: float) -> None:
        """Wait for the next news, *seconds* at most."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with anyio.move_on_after(seconds):
                await event.wait()
        finally:
            self._waiting.remove(event)
