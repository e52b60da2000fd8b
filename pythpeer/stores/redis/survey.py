"""What is on the server under one prefix, for whoever watches: nothing is written.

Each log and each endpoint is looked at in one step of its own; between them something may happen.
"""

from __future__ import annotations

from ..survey import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot
from .link import Argument, Connections
from .pulse import SESSION_TIMEOUT, to_microseconds
from .scripts import script
from .shelf import Keys, RawEntry

__all__ = ["read_snapshot"]


async def read_snapshot(link: Connections, keys: Keys, latest: int) -> StoreSnapshot:
    """All logs and endpoints under *keys*."""
    topics, paces = await _named(link, keys, "log"), await _named(link, keys, "pace")
    # A log of which nothing is there yet but that somebody announced a read, or leads.
    topics |= await _named(link, keys, "meta")
    return StoreSnapshot(
        tuple([await _log(link, keys, topic, latest) for topic in sorted(topics)]),
        tuple([await _endpoint(link, keys, key) for key in sorted(paces)]),
    )


async def _named(link: Connections, keys: Keys, part: str) -> set[str]:
    """What stands behind *part* in the names of keys."""
    start = f"{keys.tag}:{part}:"
    return {key.removeprefix(start) for key in await link.scan(start)}


async def _log(link: Connections, keys: Keys, topic: str, latest: int) -> LogSnapshot:
    answer = await link.run_script(script("survey", of_a_log=True), keys.log(topic), [latest])
    head, length, led, announced, names, stream, late = answer
    last = sorted(map(_latest, [*stream, *late]), key=lambda entry: entry.id)
    return LogSnapshot(
        topic=topic,
        head=head,
        length=length,
        has_leader=bool(led),
        pending_fetches=announced,
        readers=tuple(sorted((_name(*each) for each in names), key=lambda found: found.name)),
        latest=tuple(last[max(0, len(last) - latest) :]),
    )


def _name(name: bytes, place: int, lag: int) -> ReaderSnapshot:
    return ReaderSnapshot(name.decode("utf-8", "replace"), place, lag)


def _latest(entry: RawEntry) -> LatestItem:
    id, fields = entry
    item = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"item")
    return LatestItem(
        int(id.partition(b"-")[0]), None if item is None else item.decode("utf-8", "replace")
    )


async def _endpoint(link: Connections, keys: Keys, key: str) -> EndpointSnapshot:
    nobody: list[Argument] = ["", 0, 0, 0, to_microseconds(SESSION_TIMEOUT)]
    requests, in_hand, waiting, paused = await link.run_script(
        script("pace"), keys.bucket(key), nobody
    )
    return EndpointSnapshot(key, requests, in_hand, waiting, paused / 1e6)
