"""Reads a snapshot of all keys with one prefix, and writes nothing.

Each log and each endpoint is read in a separate step; they may change between two steps.
"""

from __future__ import annotations

from functools import partial

from ..ids import service_id
from ..snapshot import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot
from .connection import Argument, Connections
from .heartbeat import SESSION_TIMEOUT, to_microseconds
from .keys import Keys
from .log_state import RawEntry
from .scripts import script

__all__ = ["read_snapshot"]


async def read_snapshot(connections: Connections, keys: Keys, latest: int) -> StoreSnapshot:
    """Return all logs and endpoints under *keys*."""
    topics = await _names_of(connections, keys, "log")
    bucket_keys = await _names_of(connections, keys, "pace")
    # A log without entries that has a leader or a fetch intent.
    topics |= await _names_of(connections, keys, "meta")
    return StoreSnapshot(
        tuple([await _log(connections, keys, topic, latest) for topic in sorted(topics)]),
        tuple([await _endpoint(connections, keys, key) for key in sorted(bucket_keys)]),
    )


async def _names_of(connections: Connections, keys: Keys, part: str) -> set[str]:
    """Return what follows *part* in the keys."""
    prefix = f"{keys.tag}:{part}:"
    return {key.removeprefix(prefix) for key in await connections.scan(prefix)}


async def _log(connections: Connections, keys: Keys, topic: str, latest: int) -> LogSnapshot:
    result = await connections.run_script(
        script("snapshot", with_common=True), partial(keys.log, topic), [latest]
    )
    head, length, has_leader, pending_fetches, readers, stream, out_of_order, idle = result
    raw_entries = sorted([*stream, *out_of_order], key=_log_id)
    return LogSnapshot(
        topic=topic,
        head=service_id(head),
        length=length,
        has_leader=bool(has_leader),
        pending_fetches=pending_fetches,
        readers=tuple(
            sorted((_reader(*fields) for fields in readers), key=lambda reader: reader.name)
        ),
        latest=tuple(map(_latest, raw_entries[max(0, len(raw_entries) - latest) :])),
        idle_for=None if idle < 0 else idle / 1e6,
    )


def _reader(name: bytes, position: int, lag: int) -> ReaderSnapshot:
    return ReaderSnapshot(name.decode("utf-8", "replace"), service_id(position), lag)


def _log_id(entry: RawEntry) -> int:
    return int(entry[0].partition(b"-")[0])


def _latest(entry: RawEntry) -> LatestItem:
    fields = entry[1]
    item = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"item")
    text = None if item is None else item.decode("utf-8", "replace")
    return LatestItem(service_id(_log_id(entry)), text)


async def _endpoint(connections: Connections, keys: Keys, key: str) -> EndpointSnapshot:
    read_only: list[Argument] = ["", 0, 0, 0, to_microseconds(SESSION_TIMEOUT)]
    requests, outstanding, waiting, paused = await connections.run_script(
        script("bucket"), partial(keys.bucket, key), read_only
    )
    return EndpointSnapshot(key, requests, outstanding, waiting, paused / 1e6)
