"""What a store is: logs with the places of their readers, and the limiters of all who share it.

A *log* keeps the items of one topic in order. A poll appends to it, a stream reads it through a
*reader*, which remembers by name how far its items were acknowledged. Items are stored before
anybody sees them, and a place moves only once its item was acknowledged.

Every entry is a link of a chain: between ``after`` and ``id`` there is nothing that the service
would have handed out. Where an entry's ``after`` is greater than where a reader stands, something
is missing between the two (trimmed here, or never asked for), and the service is asked again.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from ..errors import StoreError
from ..limiter import Limiter
from ..wire import Rate
from .survey import StoreSnapshot

__all__ = ["DIRECT", "Entry", "Log", "NewEntry", "Reader", "Store", "Topic"]

T = TypeVar("T")

DIRECT: Final = ""
"""The name of the reader that knows what direct calls have returned. No stream has it, and what it
acknowledges counts for nobody else."""


class Topic(msgspec.Struct, Generic[T], frozen=True):
    """What a log is about. Stores that write items down encode *item* with msgspec."""

    name: str
    """Unique for a service, its address and an account; never holds a key."""

    item: type[T]

    destructive: bool = False
    """The service forgets what it handed out: what no reader acknowledged is never trimmed."""


class NewEntry(msgspec.Struct, Generic[T], frozen=True):
    """One item on its way into a log."""

    item: T | None
    """``None`` stands for one that could not be decoded, so that readers can count it."""

    id: int | None = None
    """The service's own number. An id that the log has is not appended again, but the entry takes
    the draft's link over if that says more: one without a gap says more than one with, and of two
    alike the one that reaches further back. So it does not matter which page came first. Without a
    number the log gives the next one and links it to the one before."""

    after: int = 0
    gap: bool = False

    identity: str = ""
    """For drafts without a number: what tells the item from others."""

    max_copies: int = 0
    """Append only if the log has seen fewer than this many of ``key``; 0 appends always."""

    from_history: bool = False
    """Whether the item is from the history, so that it may come again as new."""

    as_duplicate: T | None = None
    """For a draft that is always appended: what to append instead, once for each item of its key
    that the history brought before. The two cannot be told apart."""


class Entry(msgspec.Struct, Generic[T], frozen=True):
    """One item of a log, or the hole where one could not be decoded."""

    id: int
    after: int
    gap: bool
    """Whether the service may have had more between ``after`` and ``id`` than it could show."""

    item: T | None


class Reader(abc.ABC, Generic[T]):
    """How far one stream has got in a log. Without a name its place lasts as long as it does."""

    @abc.abstractmethod
    async def position(self) -> int | None:
        """The id of the last acknowledged item, or ``None`` for a name the log does not know."""

    @abc.abstractmethod
    async def seek(self, place: int) -> None:
        """Take *place* as acknowledged, forwards or backwards, and store it for a name at once."""

    @abc.abstractmethod
    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """At most *limit* entries with ids over *after*, ascending. Writes acknowledgements too."""

    @abc.abstractmethod
    def ack(self, place: int) -> None:
        """Acknowledge everything up to *place*.

        Every reader of this store object sees it at once; it is written down with the next `read`
        or `flush`, so that acknowledging a batch costs one transaction.
        """

    @abc.abstractmethod
    async def flush(self) -> None:
        """Write acknowledgements down."""

    # -- where streams of one name share its items ------------------------------------------------

    @property
    def group_position(self) -> int | None:
        """Where the name stood before the entries that `read` returned last; the stream goes there.

        ``None`` where each reader of a name gets everything, and stands where it has got to.
        """
        return None

    async def seek_if_new(self, place: int) -> None:
        """Take *place* as `seek` does, but where readers share a name only if it is new to the log.

        What a stream found by itself must not send the others elsewhere.
        """
        await self.seek(place)

    async def leave(self) -> None:
        """The stream is over: write acknowledgements down, and let others have what is left."""
        await self.flush()


class Log(abc.ABC, Generic[T]):
    """One session's hold on the log of a topic."""

    @abc.abstractmethod
    def reader(self, name: str | None) -> Reader[T]:
        """A reader of this name, or one without a memory."""

    @abc.abstractmethod
    async def append(
        self, drafts: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Add what is new among *drafts*, and return that part of them.

        Ends the announcements *settled* in the same transaction.
        """

    @abc.abstractmethod
    async def max_acknowledged(self) -> int:
        """The highest place that any reader but `DIRECT` has acknowledged; 0 at first."""

    @abc.abstractmethod
    async def begin_fetch(self, seconds: float) -> int:
        """Note that a consuming read is about to be sent, and have that on record on return.

        It will be over after *seconds* at the latest. Returns the announcement's number.
        """

    @abc.abstractmethod
    async def cancel_fetch(self, announcement: int) -> None:
        """Take an announcement back: nothing was consumed."""

    @abc.abstractmethod
    async def lose_fetch(self, announcement: int) -> None:
        """The announced read is over, and nobody knows what it consumed.

        That holds although somebody settled it meanwhile, having taken it for over before it was.
        """

    @abc.abstractmethod
    async def lost_fetches(self) -> Collection[int]:
        """The announcements whose reads are over, and of which nobody knows what they consumed."""

    @abc.abstractmethod
    async def acquire_lease(self, seconds: float) -> bool:
        """Whether the holder may poll for all that share the log, for *seconds* from now."""

    def release_lease(self) -> None:
        """Nobody here waits for a poll just now: if the holder leads, another one may.

        Said without waiting for it to be done. A store may as well let the lead run out.
        """

    @abc.abstractmethod
    async def wait_for_append(self, seconds: float) -> None:
        """Wait until somebody appends to the log, *seconds* at most."""


class Store(abc.ABC):
    """Where cursors, logs and pacing live. Sessions may share one: see each store for how far."""

    def __init__(self) -> None:
        self._limiters: dict[str, Limiter] = {}

    @abc.abstractmethod
    async def open(self) -> None:
        """Get ready for one more session. Raises `StoreError` where that is impossible."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """One session less; the last one closes what is open."""

    @abc.abstractmethod
    def log(self, topic: Topic[T]) -> Log[T]:
        """The log of *topic*."""

    def limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """The limiter of one endpoint and account, the same for every session on this store.

        *key* tells endpoint and account apart, *name* is the endpoint's. Raises `StoreError` where
        two sessions want different rates.
        """
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = self.make_limiter(key, name, rate)
        elif limiter.rate != rate:
            raise StoreError(
                "another session on this store holds this endpoint to another rate", endpoint=name
            )
        return limiter

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Make a limiter. Stores that reach beyond this process make one that does too."""
        return Limiter(name, rate)

    @abc.abstractmethod
    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """What is in the store now, with the last *latest* items of each log. Changes nothing."""
