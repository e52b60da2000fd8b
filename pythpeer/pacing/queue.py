"""Wait queue of one endpoint: waiters by priority. Knows no tokens and no clock.

Writes are served before calls, and calls before polls. A class that was overtaken five times in a
row is served next. Within a class the order is first in, first out.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from typing import Any, Final, Generic, TypeVar

from ..errors import PythpeerError

__all__ = ["Priority", "WaitQueue", "Waiter"]

T = TypeVar("T")

MAX_OVERTAKEN: Final = 5
"""How often in a row the waiters of one class can be overtaken."""


_EMPTY_QUEUE: Final[deque[Any]] = deque(maxlen=0)
"""The queue of every class that has not had a waiter yet; nothing can be added to it."""


class Priority(enum.IntEnum):
    """The class of a waiter: the lower number is served first."""

    WRITE = 0
    """A request that changes the service."""

    CALL = 1
    """A read that a caller waits for."""

    POLL = 2
    """A read on behalf of a stream."""


class Waiter(Generic[T]):
    """One waiter: a future, and what decides when it is served."""

    __slots__ = ("deadline", "future", "owner", "priority")

    def __init__(
        self, future: asyncio.Future[T], priority: Priority, deadline: float, owner: object
    ) -> None:
        self.future: Final[asyncio.Future[T]] = future
        """Receives the result, or the error that ends the waiting."""

        self.priority: Final[Priority] = priority
        """The class that the waiter is queued in."""

        self.deadline: Final[float] = deadline
        """The time, in seconds of the limiter's clock, after which the waiter is not served."""

        self.owner: Final[object] = owner
        """The object that it waits for, such as a session's `Caller`: see `drain_owner`."""

    def fail(self, error: PythpeerError) -> None:
        """End the waiting with *error*, unless it has ended already."""
        if not self.future.done():
            self.future.set_exception(error)


class WaitQueue(Generic[T]):
    """The waiters of one endpoint, in the order in which they are served.

    Invariants: a waiter is in the queue of its own priority, at most once; each queue is in the
    order of arrival; no counter in ``_overtaken`` exceeds ``MAX_OVERTAKEN``.
    """

    __slots__ = ("_deadlines_unordered", "_overtaken", "_queues")

    def __init__(self) -> None:
        # An empty deque takes 600 bytes, so each class gets one with its first waiter only.
        self._queues: list[deque[Waiter[T]]] = [_EMPTY_QUEUE, _EMPTY_QUEUE, _EMPTY_QUEUE]
        """The waiters of each class, oldest first; the index is the `Priority`."""

        self._overtaken = [0, 0, 0]
        """How often in a row each class was overtaken: counted and reset by `pop`, reset by `push`
        into an empty class."""

        self._deadlines_unordered = False
        """Whether a waiter may have an earlier deadline than one before it: set by `push`, reset by
        `pop_expired` when the queue is empty."""

    def __bool__(self) -> bool:
        writes, calls, polls = self._queues
        return bool(writes or calls or polls)

    def __len__(self) -> int:
        writes, calls, polls = self._queues
        return len(writes) + len(calls) + len(polls)

    def count_ahead(self, priority: Priority) -> int:
        """Return how many waiters will be served before a new one of this *priority*, at most."""
        own = len(self._queues[priority])
        higher = sum(map(len, self._queues[:priority]))
        return own + min(higher, MAX_OVERTAKEN * (own + 1))

    def push(self, waiter: Waiter[T]) -> None:
        """Add *waiter* at the end of its class."""
        queue = self._queues[waiter.priority]
        if queue is _EMPTY_QUEUE:
            queue = self._queues[waiter.priority] = deque()
        if not queue:
            self._overtaken[waiter.priority] = 0
        elif waiter.deadline < queue[-1].deadline:
            self._deadlines_unordered = True
        queue.append(waiter)

    def discard(self, waiter: Waiter[T]) -> bool:
        """Remove *waiter* without serving it. Returns whether it was in the queue."""
        try:
            self._queues[waiter.priority].remove(waiter)
        except ValueError:
            return False
        return True

    def pop(self) -> Waiter[T]:
        """Remove and return the waiter to be served next. The queue must not be empty."""
        overtaken = self._overtaken
        candidates = [index for index, queue in enumerate(self._queues) if queue]
        chosen = max(
            (index for index in candidates if overtaken[index] >= MAX_OVERTAKEN),
            default=candidates[0],
        )
        for index in candidates:
            if index > chosen:
                overtaken[index] += 1
        overtaken[chosen] = 0
        return self._queues[chosen].popleft()

    def drain(self) -> list[Waiter[T]]:
        """Remove and return all waiters."""
        waiters = [waiter for queue in self._queues for waiter in queue]
        for queue in self._queues:
            queue.clear()
        return waiters

    def drain_owner(self, owner: object) -> list[Waiter[T]]:
        """Remove and return the waiters of *owner*; the order of the others does not change."""
        waiters = self.drain()
        for waiter in waiters:
            if waiter.owner is not owner:
                self._queues[waiter.priority].append(waiter)
        return [waiter for waiter in waiters if waiter.owner is owner]

    def pop_expired(
        self, now: float, blocked_until: float, *, asking: bool
    ) -> tuple[list[Waiter[T]], float]:
        """Remove the waiters that cannot be served in time. Returns them, and the next deadline.

        No waiter is served before *blocked_until*, nor after its deadline. While the pacing backend
        is being asked (*asking*), a waiter whose deadline has passed stays in the queue, because a
        waiter that accepts no waiting still receives the result of that.

        The calls of one session all have the same ``max_wait``, so the first waiter of a class
        expires first. Only where sessions with different ``max_wait`` share the queue must every
        waiter be examined.
        """
        self._deadlines_unordered = self._deadlines_unordered and bool(self)
        expired: list[Waiter[T]] = []
        next_deadline = math.inf
        for queue in self._queues:
            for waiter in queue:
                if waiter.deadline < blocked_until or (waiter.deadline <= now and not asking):
                    expired.append(waiter)
                    continue
                if waiter.deadline > now:
                    next_deadline = min(next_deadline, waiter.deadline)
                if not self._deadlines_unordered:
                    break
        for waiter in expired:
            self.discard(waiter)
        return expired, next_deadline
