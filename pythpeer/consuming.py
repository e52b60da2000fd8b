"""Reading what the service forgets once it was read, without losing any of it.

Before such a read is sent it is announced in the log, and the announcement ends in the very
transaction that appends what it brought. If that never happens (cut off, timed out, garbage,
crash), the next read asks for the whole history instead, and appends what the log lacks. What
cannot be told apart is delivered again, and marked, rather than dropped.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

import msgspec

from .calls import Caller, shielded
from .errors import OutcomeUnknownError, PythpeerError
from .feed import Feed, put_down
from .limiter import Permit
from .line import Priority
from .stores.base import DIRECT, Draft, Log
from .wire import Request

__all__ = ["ConsumingSource", "Found"]

T = TypeVar("T")

GRACE: Final = 1.0
"""Seconds beyond its time limit within which an announced read can still reach the log."""


class Found(msgspec.Struct, Generic[T], frozen=True):
    """One item of an answer."""

    item: T | None
    """``None`` if it could not be decoded."""

    key: str
    """What tells it from others: a digest of all that is in it, but for whether it was read."""

    has_id: bool
    """Whether there is an id among that, so that two items of one key are the same."""


class ConsumingSource(Generic[T]):
    """Polls *unread*, which consumes what it returns, and falls back on *history*, which has all.

    *recovered* marks an item that may have been delivered before.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        unread: Request[tuple[Found[T], ...]],
        history: Request[tuple[Found[T], ...]],
        recovered: Callable[[T], T],
    ) -> None:
        self.name: Final = unread.endpoint.name
        self._caller = caller
        self._unread = unread
        self._history = history
        self._recovered = recovered
        self._turn = asyncio.Lock()
        self._owed: int | None = None
        """The place after which a direct call has not returned what it fetched."""

    async def start(self, log: Log[T]) -> int | None:
        """A stream without a place starts with what no stream acknowledged."""
        return await log.acknowledged()

    async def poll(self, feed: Feed[T]) -> PythpeerError | None:
        """Fetch what is unread into the log."""
        permit = await self._caller.token(self._unread.endpoint, Priority.POLL)
        feed.asking = True
        try:
            async with self._turn:
                error = await self._fetch(feed.log, permit, feed.attempt)
        finally:
            permit.close()
        if error is None:
            feed.prove(feed.lowest, full=False)
        return error

    async def collect(self, log: Log[T]) -> tuple[T, ...]:
        """Fetch for a direct call: returns that, and what earlier calls could not return."""
        endpoint = self._unread.endpoint
        permit = await self._caller.token(endpoint, Priority.CALL, self._caller.max_wait)
        try:
            async with self._turn:
                return await self._collect(log, permit)
        finally:
            permit.close()

    async def finish(self) -> None:
        """Wait until no read is under way whose outcome has to be put down."""
        async with self._turn:
            pass

    async def _collect(self, log: Log[T], permit: Permit) -> tuple[T, ...]:
        returned = log.reader(DIRECT)
        owed_before = self._owed
        if owed_before is None:
            self._owed = max(await returned.place() or 0, await log.acknowledged())
        after = self._owed or 0
        error = await self._fetch(log, permit)
        if error is not None:
            if not isinstance(error, OutcomeUnknownError):
                self._owed = owed_before  # nothing was fetched that could be owed
            raise error
        entries = await returned.read(after, sys.maxsize)
        returned.ack(max([after, *(entry.id for entry in entries)]))
        await returned.flush()
        self._owed = None
        return tuple(entry.item for entry in entries if entry.item is not None)

    async def _fetch(self, log: Log[T], permit: Permit, attempt: int = 1) -> PythpeerError | None:
        """Use the token in hand for whichever of the two requests is due."""
        lost = await log.unsettled()
        if lost:
            return await self._settle(log, permit, lost, attempt)
        return await shielded(lambda: self._consume(log, permit, attempt))

    async def _consume(self, log: Log[T], permit: Permit, attempt: int) -> PythpeerError | None:
        """The read that makes the service forget what it returns."""
        announcement = await log.announce(self._caller.timeout + GRACE)
        try:
            answer = await self._caller.attempt(self._unread, permit, attempt)
        except PythpeerError as error:
            answer = error.with_traceback(None)  # the session was closed: it never left
        if not isinstance(answer, PythpeerError):
            drafts = [self._draft(found) for found in answer]
            await put_down(self._caller.hooks, self.name, log, drafts, settled=[announcement])
            return None
        if isinstance(answer, OutcomeUnknownError):
            await log.give_up(announcement)
        else:
            await log.withdraw(announcement)  # it never left, or it was refused
        return answer

    def _draft(self, found: Found[T]) -> Draft[T]:
        if found.has_id:
            return Draft(found.item, key=found.key, copies=1)
        return Draft(found.item, key=found.key, again=found.item and self._recovered(found.item))

    async def _settle(
        self, log: Log[T], permit: Permit, lost: Collection[int], attempt: int
    ) -> PythpeerError | None:
        """Find in the history what the answers of *lost* reads held."""
        answer = await self._caller.attempt(self._history, permit, attempt)
        if isinstance(answer, PythpeerError):
            return answer
        drafts: list[Draft[T]] = []
        copies: Counter[str] = Counter()  # identical items may exist: the log must have as many
        for found in answer:
            copies[found.key] += 1
            item = found.item and self._recovered(found.item)
            drafts.append(Draft(item, key=found.key, copies=copies[found.key], history=True))
        await put_down(self._caller.hooks, self.name, log, drafts, settled=lost)
        return None
