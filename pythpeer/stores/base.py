"""The interface of a store: logs, the positions of their readers, and the limiters.

A *log* keeps the items of one topic in order. A poller appends to it; a stream reads it through a
*reader*, which stores under the stream's name up to which position its items were acknowledged.
An item is stored before a stream returns it, and a position only moves after its item was
acknowledged.

Entries form a chain: between ``after`` and ``id`` of an entry there is nothing that the service
would have returned. If the ``after`` of the next entry is greater than the position of a reader,
entries are missing between the two (trimmed, or never fetched), and the service is asked again.
"""

from __future__ import annotations

import abc
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from ..errors import StoreError
from ..pacing.bucket import Rate
from ..pacing.limiter import Limiter
from .deprecated import (
    DeprecatedLogNames,
    DeprecatedNewEntryNames,
    DeprecatedReaderNames,
    DeprecatedStoreNames,
    DeprecatedTopicNames,
)
from .snapshot import StoreSnapshot

__all__ = ["DIRECT", "Entry", "Log", "LogTail", "NewEntry", "Reader", "Store", "Topic"]

T = TypeVar("T")

DIRECT: Final = ""
"""The name of the reader that stores up to which id direct calls have returned items. No stream has
this name, and its acknowledgements do not count for `Log.max_acknowledged`."""


class Topic(DeprecatedTopicNames, msgspec.Struct, Generic[T], frozen=True):
    """The subject of a log. A store that writes items to a disk encodes *item* with msgspec."""

    name: str
    """Unique for a service, its address and an account. It never contains a key."""

    item: type[T]
    """The type of the items, which is also the type that stored items are decoded to."""

    destructive: bool = False
    """Whether the service forgets what it has returned. Items of such a log that no reader has
    acknowledged are never trimmed."""

    mark_recovered: Callable[[T], T] | None = None
    """Returns a copy of an item that is marked as possibly returned before. A store on a disk uses
    it after a power failure, and one on a server after a restart of the server: both can undo the
    last acknowledgements."""

    fetch_timeout: float = 60.0
    """Seconds within which a destructive read without a time limit of its own is over. A store that
    has lost fetch intents treats them as lost immediately, and once more after this time."""

    @property
    def scope(self) -> str:
        """What the names of streams belong to: the service and its address, ``""`` for none.

        Accounts have logs of their own, because they see different items. Where the ids are the
        service's, a name keeps its position when the key changes; see `Reader.position`. The logs
        of one scope are those whose names are it, a blank, and the account.
        """
        return "" if self.destructive else self.service

    @property
    def service(self) -> str:
        """What the logs of several accounts have in common: the name without the account."""
        return self.name.rpartition(" ")[0]


class NewEntry(DeprecatedNewEntryNames, msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One item that is to be appended to a log."""

    item: T | None
    """The decoded item, or ``None`` if it is undecodable: readers count those."""

    id: int | None = None
    """The id that the service gave to the item, or ``None`` if it has none: then the log assigns
    the next id, and links the entry to the one before.

    An id that the log has already is not appended again. The stored entry takes over ``after`` and
    ``gap`` of the new one if these tell more: no gap is better than a gap, and of two alike the
    smaller ``after`` is better. The order in which two pages arrive therefore does not matter."""

    after: int = 0
    """The id before: the service has nothing between ``after`` and ``id``. Ignored without an
    id."""

    gap: bool = False
    """Whether the service may have had more between ``after`` and ``id`` than it returned."""

    identity: str = ""
    """For entries without an id: a key that is equal for equal items, and different for others."""

    max_copies: int = 0
    """Append the entry only if the log has seen fewer than this many with the same ``identity``; 0
    is no limit."""

    from_history: bool = False
    """Whether the item was read from the history, so that it may be returned as new later."""

    as_duplicate: T | None = None
    """For an entry without ``max_copies``: the item to append instead, once for each item of the
    same ``identity`` that was appended from the history before. The two are indistinguishable. It
    is not counted as seen. With ``None`` nothing is appended instead."""


class Entry(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One stored item of a log, or an undecodable one."""

    id: int
    """The id, unique in the log; ids are in the order of the log."""

    after: int
    """The id before: there is nothing between the two, unless ``gap`` is set."""

    gap: bool
    """Whether the service may have had more between ``after`` and ``id`` than it returned."""

    item: T | None
    """The item, or ``None`` if it is undecodable."""


class LogTail(msgspec.Struct, Generic[T], frozen=True):
    """The end of a log."""

    head: int
    """The highest id that the log ever had; 0 without one."""

    entries: Sequence[Entry[T]]
    """The last entries, ascending by id."""


class Reader(DeprecatedReaderNames, abc.ABC, Generic[T]):
    """The position of one stream in a log. Without a name it exists as long as the stream does."""

    @abc.abstractmethod
    async def position(self) -> int | None:
        """Return the id of the last acknowledged item, or ``None`` for a name without one.

        If the name has a higher position in another log of the scope, it is moved there.
        """

    @abc.abstractmethod
    async def seek(self, position: int) -> None:
        """Move to *position*, forwards or backwards. For a name it is stored on return.

        It is set in all logs of the scope that have the name.
        """

    @abc.abstractmethod
    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """Return at most *limit* entries with ids over *after*, in ascending order.

        Stores pending acknowledgements as well.
        """

    @abc.abstractmethod
    def ack(self, position: int) -> None:
        """Acknowledge all items up to and including *position*.

        All readers of this store object see it immediately. It is stored immediately where that
        costs little, else with the next `read` or `flush`; see `is_behind`.
        """

    @abc.abstractmethod
    async def flush(self) -> None:
        """Store pending acknowledgements."""

    @property
    def is_behind(self) -> bool:
        """Whether `flush` must be called before the next item is returned.

        Otherwise a killed program could get several acknowledged items again. ``False`` where that
        is not promised, and where an acknowledgement was stored already.
        """
        return False

    # -- where streams of one name share its items ------------------------------------------------

    @property
    def group_position(self) -> int | None:
        """The position of the name before the entries that the last `read` returned.

        The stream takes it as its own position. ``None`` where each reader of a name receives all
        entries, and has a position of its own.
        """
        return None

    async def seek_if_new(self, position: int) -> None:
        """Move to *position*; if readers share a name only if the name has none yet.

        A stream that chose its start automatically must not move the other readers of the name.
        """
        await self.seek(position)

    async def leave(self) -> None:
        """End the use by this stream: store acknowledgements, and release pending items."""
        await self.flush()


class Log(DeprecatedLogNames, abc.ABC, Generic[T]):
    """The handle of one session to the log of a topic."""

    @abc.abstractmethod
    def reader(self, name: str | None) -> Reader[T]:
        """Return a reader of the name *name*, or with ``None`` one whose position is not stored."""

    @abc.abstractmethod
    async def append(
        self, entries: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Append those of *entries* that the log does not have, and return them in their order.

        Completes the fetch intents *completes* in the same transaction.
        """

    @property
    def outlasts_program(self) -> bool:
        """Whether positions are still there when the program is started again."""
        return True

    @property
    def keeps_failed_appends(self) -> bool:
        """Whether the log repeats an append that failed, if its topic is read destructively.

        Otherwise the caller repeats it.
        """
        return False

    async def copies(self) -> Mapping[str, int] | None:
        """Return for each ``identity`` how many entries the log has seen, trimmed ones included.

        ``None`` where the store does not keep that: then equal items cannot be counted.
        """
        return None

    async def unacknowledged_of_others(self) -> int:
        """Return how many items other accounts of the same service have that no reader has had.

        That is: entries of the logs with the same `Topic.service` that neither a stream has
        acknowledged nor a direct call has returned. 0 where the store does not know that.
        """
        return 0

    @property
    def retry_interval(self) -> float:
        """Seconds after which a stream tries again at the latest, after a failure of the store.

        Infinity leaves it to the retry policy of the session.
        """
        return math.inf

    async def append_at(
        self, head: int, entries: Sequence[NewEntry[T]]
    ) -> Sequence[NewEntry[T]] | None:
        """Append *entries* as `append` does, if the highest id of the log is *head*.

        Otherwise another handle has appended since: then nothing is appended, and the result is
        ``None``. A store that no other program uses need not check that.
        """
        return await self.append(entries)

    async def tail(self, limit: int) -> LogTail[T]:
        """Return the highest id of the log, and its last *limit* entries."""
        reader, last = self.reader(None), deque[Entry[T]](maxlen=limit)
        position = 0
        while entries := await reader.read(position, 1000):
            last.extend(entries)
            position = entries[-1].id
        return LogTail(position, list(last))

    @abc.abstractmethod
    async def max_acknowledged(self) -> int:
        """Return the highest position that any reader except `DIRECT` has acknowledged, or 0."""

    @abc.abstractmethod
    async def begin_fetch(self, timeout: float) -> int:
        """Store a fetch intent: a destructive read will be sent. It is durable on return.

        Without a further call the read counts as lost after *timeout* seconds. Returns the number
        of the fetch intent.
        """

    @abc.abstractmethod
    async def cancel_fetch(self, fetch: int) -> None:
        """Delete the fetch intent with the number *fetch*: the read did not happen."""

    @abc.abstractmethod
    async def lose_fetch(self, fetch: int) -> None:
        """Mark the fetch intent *fetch* as lost: the read is over, and its outcome is unknown.

        It is lost also if another handle has completed it because it seemed to be over before.
        """

    @abc.abstractmethod
    async def lost_fetches(self) -> Collection[int]:
        """Return the numbers of the fetch intents whose reads are over with unknown outcome."""

    @abc.abstractmethod
    async def acquire_lease(self, seconds: float) -> bool:
        """Acquire or extend the lease: return whether this handle may poll for *seconds* from now.

        Of all handles to the log, in every process, at most one has it: the leader.
        """

    def release_lease(self) -> None:
        """Release the lease soon, because no stream of this handle waits for a poll now.

        Returns without waiting for that. A store may let the lease expire instead.
        """

    @abc.abstractmethod
    async def wait_for_append(self, timeout: float) -> None:
        """Wait until an entry is appended to the log, at most *timeout* seconds."""


class Store(DeprecatedStoreNames, abc.ABC):
    """The place where positions, logs and pacing are kept.

    Sessions with the same store object share them. Whether programs and machines share them as well
    depends on the store.
    """

    def __init__(self) -> None:
        self._limiters: dict[str, Limiter] = {}
        """The limiters by key. Added by `limiter`, never removed."""

    @abc.abstractmethod
    async def open(self) -> None:
        """Open the store for one more session.

        Raises:
            StoreError: if the store cannot be used.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close the store for one session. The last one closes files and connections."""

    @abc.abstractmethod
    def log(self, topic: Topic[T]) -> Log[T]:
        """Return a handle to the log of *topic*."""

    def limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Return the limiter of one endpoint and account, the same for all sessions.

        Args:
            key: identifies the endpoint and the account.
            name: the name of the endpoint, for messages.
            rate: the rate of the endpoint.

        Raises:
            StoreError: if another session on this store uses a different rate.
        """
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = self.make_limiter(key, name, rate)
        elif limiter.rate != rate:
            raise StoreError(
                "this endpoint has a different rate in another session on this store", endpoint=name
            )
        return limiter

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Create a limiter. A store that several processes use returns one that they share.

        Args:
            key: What shares the limiter: the endpoint's name and a digest of the account.
            name: The endpoint's name.
            rate: The rate.
        """
        return Limiter(name, rate)

    @abc.abstractmethod
    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """Return the present content of the store, with the last *latest* items of each log.

        Changes nothing in the store.
        """
