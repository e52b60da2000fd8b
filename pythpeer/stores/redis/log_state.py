"""`LogState`: one log on the server, shared by all its handles in this process; and its `Keys`."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections import deque
from collections.abc import Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from ..base import Entry, LogTail, NewEntry, Reader, Topic
from .connection import Argument, Connections
from .heartbeat import Heartbeat, to_microseconds
from .keys import Keys
from .scripts import script

__all__ = ["MAX_APPEND", "LogState", "RawEntry", "logger"]

logger: Final = logging.getLogger(__name__)

T = TypeVar("T")

RawEntry = tuple[bytes, Sequence[bytes]]
"""An entry as the stream has it: its id, then names and values alternately."""

MAX_APPEND: Final = 10_000
"""The entries that are appended in one step. A page of a service has far less."""


def _mark_retrieved(task: asyncio.Future[object]) -> None:
    """Retrieve the exception of a task, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


class _Change:
    """A call of a script that changes a log, which is sent until the server has executed it."""

    __slots__ = ("appended", "args", "more_keys", "script")

    def __init__(self, script: str, args: list[Argument], *more_keys: str) -> None:
        self.script: Final = script
        """The name of the script."""
        self.more_keys: Final = more_keys
        """Its keys after those of the log."""
        self.args: Final = args
        """The arguments, without what is known of the log."""
        self.appended: Sequence[int] | None = ()
        """The indices of the entries that were new; ``None`` if the log did not have the expected
        head. Set by `LogState`."""


class LogState(Generic[T]):
    """One log on the server, as known in this process, and the calls of its scripts.

    Invariants: ``head`` never decreases while the server keeps the log. Scripts receive it, with
    the run of the server, in order to detect that the server has lost the end of the log. What a
    destructive read returned, or that its response was lost, is kept here until the server has it,
    because a server that forgets does not know that there was a read.
    """

    def __init__(
        self,
        topic: Topic[T],
        connections: Connections,
        heartbeat: Heartbeat,
        keys: Keys,
        max_length: int | None,
    ) -> None:
        self.topic = topic
        self.connections = connections
        self.heartbeat = heartbeat
        self.head: int = 0
        """The highest id that was seen in the log. Changed by reads and appends."""
        self._known: str = "0"
        """What scripts receive as known of the log: the head, the server's run, and `_suspect`.
        Changed by `update_head`."""
        self._suspect = 0
        """The id up to which items may have been acknowledged before: the server has restarted
        since they were appended, and may have lost its last writes. Changed by `update_head`."""
        self._unwritten: deque[_Change] = deque()
        """The changes that the server does not have yet, in their order. Added by `append` and
        `lose_fetch`, removed by `write_pending`."""
        self._write_lock = asyncio.Lock()
        """Held while changes are sent. Replaced in another event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the lock."""
        self.readers: weakref.WeakSet[Reader[T]] = weakref.WeakSet()
        """The readers with pending items or acknowledgements. Added and removed by themselves."""
        self._background_tasks: set[asyncio.Future[object]] = set()
        """The tasks of `run_in_background` that are not done."""
        self._names = keys
        self._tag = keys.tag
        self._max_length = "" if max_length is None else max_length
        """The number of entries to keep, as the scripts expect it."""
        self.fetch_time: int = to_microseconds(topic.fetch_timeout) if topic.destructive else 0
        """The time of a fetch at most, as the scripts expect it."""
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(topic.item).decode

    @property
    def _keys(self) -> tuple[str, ...]:
        """The keys of the log. They change if a server that was emptied has another salt."""
        return self._names.log(self.topic.name)

    @property
    def name(self) -> str:
        """The name of the topic as it is stored, for messages."""
        return self._names.stored(self.topic.name)

    @property
    def stream(self) -> str:
        """The key of the stream."""
        return self._keys[0]

    @property
    def script_head(self) -> tuple[Argument, Argument]:
        """The first arguments of scripts that need the end of the log."""
        return self._known, self.fetch_time

    @property
    def known(self) -> str:
        """What is known of the log, for `read`."""
        return self._known

    @property
    def has_unwritten(self) -> bool:
        """Whether there are changes that the server does not have yet."""
        return bool(self._unwritten)

    def update_head(self, known: bytes) -> None:
        """Take over what a script returned as known of the log."""
        self._known = known.decode()
        head, _, suspect = self._known.split()
        self.head, self._suspect = int(head), int(suspect)

    def run_in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run *work* as a task, without waiting. An error is ignored."""
        task = asyncio.ensure_future(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
        task.add_done_callback(_mark_retrieved)

    async def wait_background(self) -> None:
        """Wait for the tasks of `run_in_background`."""
        if self._background_tasks:
            await asyncio.wait(self._background_tasks)

    async def run_script(self, name: str, *args: Argument) -> Any:
        """Execute one of the scripts about a log."""
        command = script(name, with_common=True)
        return await self.connections.run_script(command, lambda: self._keys, args)

    async def run_in_others(self, name: str, *args: Argument) -> list[Any]:
        """Execute a script about a log for each other log of the scope. Returns the results."""
        return await self._run_in(self.topic.scope, name, *args)

    async def run_for_other_accounts(self, name: str, *args: Argument) -> list[Any]:
        """Execute a script for the log of each other account. Returns the results."""
        return await self._run_in(self.topic.service, name, *args)

    async def _run_in(self, service: str, name: str, *args: Argument) -> list[Any]:
        if not service:
            return []
        command = script(name, with_common=True)
        topics = await self._topics_of(service) - {self.name}
        results: list[Any] = []
        for topic in sorted(topics):
            keys = partial(self._names.log, topic)
            results.append(await self.connections.run_script(command, keys, args))
        return results

    async def _topics_of(self, service: str) -> set[str]:
        """Return the stored names of the topics of a service, which this log is added to."""
        own = self.name
        topics = await self._add_topics(service)
        if own not in topics:
            # Logs of earlier versions are not in the set: all keys are searched for them, once.
            prefix = f"{self._tag}:log:"
            found = [] if topics else await self.connections.scan(f"{prefix}{service} ")
            names = (key.removeprefix(prefix) for key in found)
            added = [name for name in names if name.rpartition(" ")[0] == service]
            topics = await self._add_topics(service, own, *added)
        return topics

    async def _add_topics(self, service: str, *topics: str) -> set[str]:
        command, key = script("topics"), self._names.topics(service)
        members: list[bytes] = await self.connections.run_script(command, lambda: (key,), topics)
        return {member.decode("utf-8", "replace") for member in members}

    async def read(
        self, after: int, limit: int | None, meta_field: str, acknowledged: int | None, known: str
    ) -> Sequence[Entry[T]]:
        """Return entries after a position, and store the *acknowledged* one in *meta_field*.

        *known* is what was known when the position was read.
        """
        max_entries = "" if limit is None else limit
        acknowledged_up_to = "" if acknowledged is None else acknowledged
        result: tuple[bytes, list[RawEntry]] = await self.run_script(
            "read",
            *self.script_head,
            after,
            max_entries,
            meta_field,
            acknowledged_up_to,
            known,
        )
        self.update_head(result[0])
        return self.entries(result[1])

    async def tail(self, limit: int) -> LogTail[T]:
        """Return the head, and the last *limit* entries, ascending."""
        result: tuple[int, list[RawEntry]] = await self.run_script("tail", limit)
        self.head = result[0]
        return LogTail(result[0], self.entries(result[1]))

    async def append(
        self,
        owner: str,
        entries: Sequence[NewEntry[T]],
        completes: Collection[int],
        expected_head: int | None = None,
    ) -> Sequence[NewEntry[T]] | None:
        """Append those of *entries* that are new, and return them.

        If *expected_head* is given and is not the head, nothing happens, and the result is
        ``None``. If that fails for a log that is read destructively, they are appended later, by
        `write_pending`.
        """
        args: list[Argument] = [
            *(self._max_length, owner),
            "" if expected_head is None else expected_head,
            *(len(completes), *completes),
        ]
        for new in entries:
            args += self._encode_entry(new)
        done = f"{self._tag}:done:{os.urandom(8).hex()}"
        indices = await self._change(_Change("append", args, done))
        return None if indices is None else [entries[index] for index in indices]

    async def lose_fetch(self, owner: str, fetch: int) -> None:
        """Mark a fetch intent as lost, later if that fails now."""
        args: list[Argument] = ["lose fetch", owner, fetch]
        await self._change(_Change("lease_and_fetches", args))

    async def write_pending(self) -> None:
        """Send the changes that the server does not have yet."""
        while self._unwritten:
            async with self._lock():
                if self._unwritten:
                    await self._send(self._unwritten[0])
                    self._unwritten.popleft()

    async def _change(self, change: _Change) -> Sequence[int] | None:
        """Send a change after all earlier ones. Returns the indices of appended entries."""
        if not self.topic.destructive:
            return await self._send(change)
        self._unwritten.append(change)
        await self.write_pending()
        return change.appended

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._write_lock = loop, asyncio.Lock()
        return self._write_lock

    async def _send(self, change: _Change) -> Sequence[int] | None:
        args = change.args
        if change.script == "append":
            args = [*self.script_head, *args]
        result = await self.connections.run_script(
            script(change.script, with_common=True),
            lambda: (*self._keys, *change.more_keys),
            args,
        )
        if change.script == "append" and result is None:
            change.appended = None
        elif change.script == "append":
            self.update_head(result[0])
            change.appended = result[1:]
        return change.appended

    def _encode_entry(self, new: NewEntry[T]) -> tuple[Argument, ...]:
        item = self._encode_item(new.item, new.id)
        if new.id is not None:
            return ("n", new.id, new.after, int(new.gap), item)
        duplicate = self._encode_item(new.as_duplicate, new.id)
        return ("l", new.identity, new.max_copies, int(new.from_history), item, duplicate)

    def _encode_item(self, item: T | None, id: int | None) -> bytes:
        try:
            return b"" if item is None else self._encode(item)
        except (ValueError, RecursionError):
            number = "without an id" if id is None else id
            logger.warning("%s: item %s cannot be encoded", self.name, number)
            return b""

    def entries(self, raw_entries: Sequence[RawEntry]) -> list[Entry[T]]:
        """Decode entries. One that was trimmed before it was delivered has a gap, and no item."""
        decode = self._decode
        entries: list[Entry[T]] = []
        for raw_id, fields in raw_entries:
            id = int(raw_id.partition(b"-")[0])
            if not fields:
                logger.warning("%s: item %d was trimmed before it was delivered", self.name, id)
                entries.append(Entry(id, id - 1, gap=True, item=None))
                continue
            item: T | None = None
            if fields[-2] == b"item":
                try:
                    item = decode(fields[-1])
                except (ValueError, RecursionError):
                    logger.warning("%s: item %d is damaged in the store", self.name, id)
            if item is not None and id <= self._suspect and self.topic.mark_recovered is not None:
                item = self.topic.mark_recovered(item)
            after = fields[1] if fields[0] == b"after" else b""
            # An entry of another writer has no link. It is undecodable, and hides nothing.
            link = int(after) if after.isdigit() else id - 1
            entries.append(Entry(id, link, fields[2:3] == [b"gap"], item))
        return entries
