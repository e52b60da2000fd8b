"""Who waits for a token, and whose turn it is. Knows no tokens and no clock.

Writes go before calls, calls before polls, and a class that has been overtaken five times in a row
goes next. Within a class it is first come, first served.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from typing import Any, Final, Generic, TypeVar

from .errors import PythpeerError

__all__ = ["Priority", "WaitQueue", "Waiter"]

T = TypeVar("T")

MAX_OVERTAKEN: Final = 5
"""How often the waiters of one class can be overtaken in a row."""


_EMPTY_QUEUE: Final[deque[Any]] = deque(maxlen=0)
"""The queue of a class in which nobody has waited yet; nobody can be put into it."""


class Priority(enum.IntEnum):
    """Who goes first where several wait for one endpoint."""

    WRITE = 0
    CALL = 1
    POLL = 2


class Waiter(Generic[T]):
    """Somebody who waits: for what they are told, until when at most, and for whom."""

    __slots__ = ("deadline", "future", "owner", "priority")

    def __init__(
        self, told: asyncio.Future[T], priority: Priority, deadline: float, owner: object
    ) -> None:
        self.future: Final[asyncio.Future[T]] = told
        self.priority: Final[Priority] = priority
        self.deadline: Final[float] = deadline
        self.owner: Final[object] = owner

    def fail(self, error: PythpeerError) -> None:
        """Tell them that they wait in vain, unless they have gone already."""
        if not self.future.done():
            self.future.set_exception(error)


class WaitQueue(Generic[T]):
    """Those who wait for one endpoint, in the order in which they go."""

    __slots__ = ("_deadlines_unordered", "_overtaken", "_queues")

    def __init__(self) -> None:
        # A deque takes 600 bytes even if it is empty, so a class has one from its first waiter on.
        self._queues: list[deque[Waiter[T]]] = [_EMPTY_QUEUE, _EMPTY_QUEUE, _EMPTY_QUEUE]
        self._overtaken = [0, 0, 0]
        self._deadlines_unordered = (
            False  # whether somebody waits less long than one who came before
        )

    def __bool__(self) -> bool:
        writes, calls, polls = self._queues
        return bool(writes or calls or polls)

    def __len__(self) -> int:
        writes, calls, polls = self._queues
        return len(writes) + len(calls) + len(polls)

    def count_ahead(self, priority: Priority) -> int:
        """How many have a right to go before somebody who comes now."""
        own = len(self._queues[priority])
        higher = sum(map(len, self._queues[:priority]))
        return own + min(higher, MAX_OVERTAKEN * (own + 1))

    def push(self, waiter: Waiter[T]) -> None:
        """Stand at the end of one's class."""
        queue = self._queues[waiter.priority]
        if queue is _EMPTY_QUEUE:
            queue = self._queues[waiter.priority] = deque()
        if not queue:
            self._overtaken[waiter.priority] = 0
        elif waiter.deadline < queue[-1].deadline:
            self._deadlines_unordered = True
        queue.append(waiter)

    def discard(self, waiter: Waiter[T]) -> bool:
        """Go without having been served. Says whether they were still in line."""
        try:
            self._queues[waiter.priority].remove(waiter)
        except ValueError:
            return False
        return True

    def pop(self) -> Waiter[T]:
        """Take the one out whose turn it is."""
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
        """Take everybody out."""
        waiters = [waiter for queue in self._queues for waiter in queue]
        for queue in self._queues:
            queue.clear()
        return waiters

    def drain_owner(self, owner: object) -> list[Waiter[T]]:
        """Take all out who wait on behalf of *owner*."""
        waiters = self.drain()
        for waiter in waiters:
            if waiter.owner is not owner:
                self._queues[waiter.priority].append(waiter)
        return [waiter for waiter in waiters if waiter.owner is owner]

    def pop_expired(
        self, now: float, closed: float, *, asking: bool
    ) -> tuple[list[Waiter[T]], float]:
        """Take those out who cannot be served in time. Returns them, and the next deadline.

        Nobody is served before *closed*, nor after their deadline; but while others are being asked
        (*asking*), whoever will not wait at all still has to hear what they say.

        One session's calls all have the same patience, so the first in line is the first to lose
        it. Only where sessions of different patience wait together has everybody to be looked at.
        """
        self._deadlines_unordered = self._deadlines_unordered and bool(self)
        late: list[Waiter[T]] = []
        next_deadline = math.inf
        for queue in self._queues:
            for waiter in queue:
                if waiter.deadline < closed or (waiter.deadline <= now and not asking):
                    late.append(waiter)
                    continue
                if waiter.deadline > now:
                    next_deadline = min(next_deadline, waiter.deadline)
                if not self._deadlines_unordered:
                    break
        for waiter in late:
            self.discard(waiter)
        return late, next_deadline
