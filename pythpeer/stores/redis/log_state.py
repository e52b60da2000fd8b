"""`LogState`: one log on the server, shared by all its handles in this process; and its `Keys`."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from ..base import Entry, LogTail, NewEntry, Reader, Topic
from .connection import Argument, Connections
from .heartbeat import Heartbeat
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


class LogState(Generic[T]):
    """One log on the server, as known in this process, and the calls of its scripts.

    Invariant: ``head`` never decreases while the server keeps the log. Scripts receive it in order
    to detect that the server has lost the end of the log.
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
        self.readers: weakref.WeakSet[Reader[T]] = weakref.WeakSet()
        """The readers with pending items or acknowledgements. Added and removed by themselves."""
        self._background_tasks: set[asyncio.Future[object]] = set()
        """The tasks of `run_in_background` that are not done."""
        self._keys = keys.log(topic.name)
        self._tag = keys.tag
        self._max_length = "" if max_length is None else max_length
        """The number of entries to keep, as the scripts expect it."""
        self._destructive = int(topic.destructive)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(topic.item).decode

    @property
    def stream(self) -> str:
        """The key of the stream."""
        return self._keys[0]

    @property
    def script_head(self) -> tuple[Argument, Argument]:
        """The first arguments of scripts that need the end of the log."""
        return self.head, self._destructive

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
        return await self.connections.run_script(script(name, with_common=True), self._keys, args)

    async def read(
        self, after: int, limit: int | None, meta_field: str, acknowledged: int | None
    ) -> Sequence[Entry[T]]:
        """Return entries after a position, and store the *acknowledged* one in *meta_field*."""
        max_entries = "" if limit is None else limit
        acknowledged_up_to = "" if acknowledged is None else acknowledged
        result: tuple[int, list[RawEntry]] = await self.run_script(
            "read", *self.script_head, after, max_entries, meta_field, acknowledged_up_to
        )
        self.head = result[0]
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
        ``None``.
        """
        args: list[Argument] = [
            *(*self.script_head, self._max_length, owner),
            "" if expected_head is None else expected_head,
            *(len(completes), *completes),
        ]
        for new in entries:
            args += self._encode_entry(new)
        keys = (*self._keys, f"{self._tag}:done:{os.urandom(8).hex()}")
        append = script("append", with_common=True)
        result: list[Any] | None = await self.connections.run_script(append, keys, args)
        if result is None:
            return None
        self.head = int(result[0])  # text, because it may be large
        return [entries[index] for index in result[1:]]

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
            logger.warning("%s: item %s cannot be encoded", self.topic.name, number)
            return b""

    def entries(self, raw_entries: Sequence[RawEntry]) -> list[Entry[T]]:
        """Decode entries. One that was trimmed before it was delivered has a gap, and no item."""
        decode = self._decode
        entries: list[Entry[T]] = []
        for raw_id, fields in raw_entries:
            id = int(raw_id[:-2])
            if not fields:
                logger.warning(
                    "%s: item %d was trimmed before it was delivered", self.topic.name, id
                )
                entries.append(Entry(id, id - 1, gap=True, item=None))
                continue
            item: T | None = None
            if fields[-2] == b"item":
                try:
                    item = decode(fields[-1])
                except (ValueError, RecursionError):
                    logger.warning("%s: item %d is damaged in the store", self.topic.name, id)
            entries.append(Entry(id, int(fields[1]), fields[2:3] == [b"gap"], item))
        return entries
