"""Reads a snapshot of the file in one transaction, and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..base import DIRECT
from ..ids import service_id
from ..snapshot import (
    EndpointSnapshot,
    LatestItem,
    LogSnapshot,
    ReaderSnapshot,
    StoreSnapshot,
    endpoint_snapshot,
)
from .columns import integer, optional_text, text, timestamp
from .log import ANONYMOUS
from .owner import is_alive

if TYPE_CHECKING:
    import sqlite3

__all__ = ["read_snapshot"]


def read_snapshot(db: sqlite3.Connection, now: float, latest: int) -> StoreSnapshot:
    """Return all logs and endpoints. *now* is the time of the clock that the file is written by."""
    db.execute("BEGIN")  # one state of the file for all queries
    try:
        return StoreSnapshot(tuple(_logs(db, now, latest)), tuple(_endpoints(db, now)))
    finally:
        db.execute("COMMIT")


def _logs(db: sqlite3.Connection, now: float, latest: int) -> list[LogSnapshot]:
    rows = db.execute(
        "SELECT id, topic, head, length, leader, leads_until FROM log ORDER BY topic"
    ).fetchall()
    return [
        LogSnapshot(
            topic=text(topic),
            head=service_id(integer(head)),
            length=integer(length),
            has_leader=leader is not None and now < timestamp(lease_until) and is_alive(leader),
            pending_fetches=_count(db, COUNT_FETCHES, log),
            readers=tuple(
                ReaderSnapshot(
                    text(name),
                    service_id(integer(position)),
                    _count(db, COUNT_AFTER, log, position),
                )
                for name, position in db.execute(READERS, (log,)).fetchall()
                if name not in (DIRECT, ANONYMOUS)
            ),
            latest=tuple(
                LatestItem(service_id(integer(id)), optional_text(item))
                for id, item in reversed(_latest(db, log, latest))
            ),
            idle_for=max(0.0, now - timestamp(lease_until)) if lease_until else None,
        )
        for log, topic, head, length, leader, lease_until in rows
    ]


READERS: Final = "SELECT name, place FROM reader WHERE log = ? ORDER BY name"
COUNT_FETCHES: Final = "SELECT count(*) FROM announcement WHERE log = ?"
COUNT_AFTER: Final = "SELECT count(*) FROM entry WHERE log = ? AND id > ?"


def _count(db: sqlite3.Connection, query: str, *parameters: int) -> int:
    return int(db.execute(query, parameters).fetchone()[0])


def _latest(db: sqlite3.Connection, log: int, count: int) -> list[tuple[int, str | None]]:
    return db.execute(
        "SELECT id, item FROM entry WHERE log = ? ORDER BY id DESC LIMIT ?", (log, count)
    ).fetchall()


def _endpoints(db: sqlite3.Connection, now: float) -> list[EndpointSnapshot]:
    rows = db.execute("SELECT key, state FROM pace ORDER BY key").fetchall()
    return [endpoint_snapshot(text(key), state, now, is_alive) for key, state in rows]
