"""`Notifier`: wakes the tasks that wait for the next entry of a log, in any event loop."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["Notifier"]


class Notifier:
    """A condition that is not bound to an event loop.

    A store may be used in one event loop after another. What is bound to a loop, an event, exists
    therefore only while a task waits.
    """

    def __init__(self) -> None:
        self.generation: int = 0
        """How often `notify_all` was called: a caller can compare it with an earlier value."""
        self._waiting: set[asyncio.Event] = set()
        """One event for each task in `wait`, which adds and removes it."""

    def notify_all(self) -> None:
        """Wake all waiting tasks."""
        self.generation += 1
        for event in self._waiting:
            event.set()

    async def wait(self, seconds: float) -> None:
        """Wait for the next `notify_all`, at most *seconds*."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with anyio.move_on_after(seconds):
                await event.wait()
        finally:
            self._waiting.remove(event)
