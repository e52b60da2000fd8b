"""One log on the server, as all holds on it in this process share it."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from ..base import Entry, NewEntry, Reader, Topic
from .link import Argument, Connections
from .pulse import Heartbeat
from .scripts import script

__all__ = ["Keys", "LogState", "RawEntry"]

logger: Final = logging.getLogger(__name__)

T = TypeVar("T")

RawEntry = tuple[bytes, Sequence[bytes]]
"""An entry as it is in the stream: its id, and names and values by turns."""

MAX_APPEND: Final = 10_000
"""Drafts that are appended in one step. What a service says at a time is far less."""


class Keys(NamedTuple):
    """Where things lie on the server. One hash tag for all of them: they are used together."""

    prefix: str

    @property
    def tag(self) -> str:
        """What every key begins with."""
        return f"{{pythpeer:{self.prefix}}}"

    @property
    def alive(self) -> str:
        """Who is alive, by until when they count as such."""
        return f"{self.tag}:alive"

    @property
    def deaths(self) -> str:
        """How often somebody died."""
        return f"{self.tag}:deaths"

    @property
    def server(self) -> str:
        """Which run of the server this is, and since when."""
        return f"{self.tag}:server"

    def bucket(self, key: str) -> tuple[str, str, str]:
        """The tokens of one endpoint and account, with what else their script looks at."""
        return (f"{self.tag}:pace:{key}", self.server, self.alive)

    def log(self, topic: str) -> tuple[str, ...]:
        """A log: its stream, and what belongs to it, as its scripts want to have it."""
        parts = ("log", "meta", "links", "late", "late-ids", "late-order", "seen", "announced")
        return (*(f"{self.tag}:{part}:{topic}" for part in parts), self.alive, self.deaths)


def _mark_retrieved(task: asyncio.Future[object]) -> None:
    if not task.cancelled():
        task.exception()


class LogState(Generic[T]):
    """What is known here of one log, and how to speak to the server about it."""

    def __init__(
        self,
        topic: Topic[T],
        link: Connections,
        pulse: Heartbeat,
        keys: Keys,
        max_length: int | None,
    ) -> None:
        self.topic = topic
        self.connections = link
        self.heartbeat = pulse
        self.head: int = 0
        """The highest id that was seen in the log."""
        self.readers: weakref.WeakSet[Reader[T]] = weakref.WeakSet()
        """Those here that have something in hand, or to write down."""
        self._background_tasks: set[asyncio.Future[object]] = set()
        self._keys = keys.log(topic.name)
        self._tag = keys.tag
        self._max_length = "" if max_length is None else max_length
        self._destructive = int(topic.destructive)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(topic.item).decode

    @property
    def stream(self) -> str:
        """The key of the stream."""
        return self._keys[0]

    @property
    def script_head(self) -> tuple[Argument, Argument]:
        """What scripts have to know that look for the end of the log."""
        return self.head, self._destructive

    def run_in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Have something told to the server, without waiting. If that fails it makes no odds."""
        task = asyncio.ensure_future(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
        task.add_done_callback(_mark_retrieved)

    async def wait_background(self) -> None:
        """Wait for what was spawned."""
        if self._background_tasks:
            await asyncio.wait(self._background_tasks)

    async def run_script(self, name: str, *args: Argument) -> Any:
        """Run one of the scripts about a log."""
        return await self.connections.run_script(script(name, of_a_log=True), self._keys, args)

    async def read(
        self, after: int, limit: int | None, note: str, acknowledged: int | None
    ) -> Sequence[Entry[T]]:
        """Entries after a place, and a note of what was *acknowledged*."""
        most = "" if limit is None else limit
        upto = "" if acknowledged is None else acknowledged
        answer: tuple[int, list[RawEntry]] = await self.run_script(
            "range", *self.script_head, after, most, note, upto
        )
        self.head = answer[0]
        return self.entries(answer[1])

    async def append(
        self, who: str, drafts: Sequence[NewEntry[T]], settled: Collection[int]
    ) -> Sequence[NewEntry[T]]:
        """Add what is new among *drafts*, and return that."""
        args: list[Argument] = [*self.script_head, self._max_length, who, len(settled), *settled]
        for draft in drafts:
            args += self._encode_entry(draft)
        keys = (*self._keys, f"{self._tag}:done:{os.urandom(8).hex()}")
        answer: list[int] = await self.connections.run_script(
            script("append", of_a_log=True), keys, args
        )
        self.head = answer[0]
        return [drafts[index] for index in answer[1:]]

    def _encode_entry(self, draft: NewEntry[T]) -> tuple[Argument, ...]:
        item = self._encode_item(draft.item, draft.id)
        if draft.id is not None:
            return ("n", draft.id, draft.after, int(draft.gap), item)
        again = self._encode_item(draft.as_duplicate, draft.id)
        return ("l", draft.identity, draft.max_copies, int(draft.from_history), item, again)

    def _encode_item(self, item: T | None, id: int | None) -> bytes:
        try:
            return b"" if item is None else self._encode(item)
        except (ValueError, RecursionError):
            logger.warning("%s: item %s cannot be written down", self.topic.name, id or "of mail")
            return b""

    def entries(self, found: Sequence[RawEntry]) -> list[Entry[T]]:
        """Entries as readers want them. One that was trimmed meanwhile is a hole with a gap."""
        decode = self._decode
        entries: list[Entry[T]] = []
        for raw, fields in found:
            id = int(raw[:-2])
            if not fields:
                logger.warning("%s: item %d was trimmed before its time", self.topic.name, id)
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
