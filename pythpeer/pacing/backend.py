"""The interface of pacing that several processes share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["Grant", "PacingBackend"]


class Grant(NamedTuple):
    """Response of a `PacingBackend`: a token, or the time of the next try."""

    retry_in: float
    """Seconds after which to ask again; 0 if the token is granted."""

    ticket: int
    """Number of the granted token, 1 or more; 0 if none is granted."""

    paused_for: float
    """Seconds until the end of a pause that any process has set; 0 without one."""


class PacingBackend(Protocol):
    """Pacing shared by processes: the interface that the limiter of one process uses.

    Only `acquire` waits for a response. The other methods only record: they take effect in the
    order in which they were called, and before the next `acquire`.
    """

    async def acquire(self) -> Grant:
        """Ask for a token; the process keeps its position in the queue until it has one.

        If it is cancelled, the process holds no token and is not in the queue. Raises
        `PythpeerError` where the backend cannot be used.
        """
        ...

    def is_held(self, ticket: int) -> bool:
        """Return whether the token of *ticket* was certainly not given to another process.

        It may have been, for example, if this process was stopped so long that it was treated as
        dead. The time limit of a token, `TOKEN_TTL`, is checked elsewhere.
        """
        ...

    def written(self, ticket: int, guard: float) -> None:
        """Record that the request of *ticket* is being written now, with a guard in seconds."""

    def answered(self, ticket: int) -> None:
        """Record that the request of *ticket* is answered now.

        It is not called where that would not change when a token is due.
        """

    def release(self, ticket: int) -> None:
        """Return a token whose request certainly never left."""

    def leave_queue(self) -> None:
        """Give up the position in the queue, because no caller of this process waits any more."""

    def pause(self, seconds: float) -> None:
        """Make no token due for *seconds* from now, in any process."""
