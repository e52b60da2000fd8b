"""The time limit of attempts: one timer serves all attempts that have the limit of the session."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

__all__ = ["Deadline", "DeadlinePassedError", "Deadlines", "TransportClosedError"]


class DeadlinePassedError(Exception):
    """The time limit of an attempt has passed."""


class TransportClosedError(Exception):
    """The transport was closed during an attempt."""


class Deadlines:
    """Attempts under way, each with the time at which it is cancelled.

    Attempts with the common limit end in the order in which they began. Their timer stays set when
    an attempt ends earlier, so that an attempt costs no timer. An attempt with a limit of its own
    has a timer of its own.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        """The common time limit of one attempt; infinity for none."""

        self._loop = asyncio.get_running_loop()

        self.under_way: dict[Deadline, asyncio.TimerHandle | None] = {}
        """The attempts under way, oldest first, with their own timer if they have one: a `Deadline`
        adds and removes itself."""

        self._timer: asyncio.TimerHandle | None = None
        """The next call of `_cancel_expired`: set where an attempt is under way with a limit."""

    def start(self, seconds: float | None = None) -> Deadline:
        """Return the deadline of an attempt of the current task, for use in a ``with`` block.

        *seconds* is the limit of this attempt alone, if it has one of its own; infinity for none.

        The block raises `DeadlinePassedError` when the limit has passed, and `TransportClosedError`
        when `close` is called. A cancellation by any other cause passes through it, also where both
        come at the same time.
        """
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a request must be sent in a task")
        limit = self._seconds if seconds is None else seconds
        return Deadline(self, task, self._loop.time() + limit, is_own=seconds is not None)

    def set_timer(self, deadline: Deadline) -> None:
        """Cancel the task of *deadline* at its time, if no timer will do so."""
        if deadline.is_own:
            if deadline.at < math.inf:
                self.under_way[deadline] = self._loop.call_at(
                    deadline.at, deadline.end, DeadlinePassedError
                )
        elif self._timer is None and self._seconds < math.inf:
            self._timer = self._loop.call_at(deadline.at, self._cancel_expired)

    def _cancel_expired(self) -> None:
        self._timer = None
        now = self._loop.time()
        for deadline in list(self.under_way):
            if deadline.is_own:
                continue
            if deadline.at > now:
                self._timer = self._loop.call_at(deadline.at, self._cancel_expired)
                return
            deadline.end(DeadlinePassedError)

    def close(self) -> None:
        """End every attempt that is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for deadline in list(self.under_way):
            deadline.end(TransportClosedError)


class Deadline:
    """The deadline of one attempt: a context manager that works as ``asyncio.timeout`` does."""

    __slots__ = ("_cancelling", "_deadlines", "_ended_by", "_task", "at", "is_own")

    def __init__(
        self, deadlines: Deadlines, task: asyncio.Task[object], at: float, *, is_own: bool
    ) -> None:
        self._deadlines = deadlines

        self._task = task
        """The task that makes the attempt."""

        self._cancelling = task.cancelling()
        """How often the task was cancelled before: more cancellations than this and the one of
        `end` have another cause."""

        self._ended_by: type[Exception] | None = None
        """What the block raises: set by `end`."""

        self.at: float = at
        """When the attempt is cancelled, in seconds of the event loop."""

        self.is_own: bool = is_own
        """Whether the limit is that of this attempt alone."""

    @property
    def remaining(self) -> float:
        """Seconds until it passes."""
        return self.at - asyncio.get_running_loop().time()

    def end(self, reason: type[Exception]) -> None:
        """Cancel the task, so that the block raises *reason*."""
        timer = self._deadlines.under_way.pop(self, None)
        if timer is not None:
            timer.cancel()
        self._ended_by = reason
        self._task.cancel()

    def __enter__(self) -> None:
        self._deadlines.under_way[self] = None
        self._deadlines.set_timer(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        timer = self._deadlines.under_way.pop(self, None)
        if timer is not None:
            timer.cancel()
        reason = self._ended_by
        if reason is None or self._task.uncancel() > self._cancelling or kind is None:
            return
        if issubclass(kind, asyncio.CancelledError):
            raise reason from None
