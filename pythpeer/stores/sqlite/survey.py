"""What is in the file, for whoever watches: read in one look, and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base import DIRECT
from ..shared import endpoint_snapshot as survey_endpoint
from ..survey import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot
from .log import ANONYMOUS
from .owner import is_alive
from .places import AckFile
from .readers import stored_positions

if TYPE_CHECKING:
    import sqlite3

__all__ = ["survey"]


def survey(
    db: sqlite3.Connection, places: AckFile | None, now: float, latest: int
) -> StoreSnapshot:
    """All logs and endpoints, as of one moment: *now*, by the clock that the file is written by."""
    db.execute("BEGIN")  # one look for all of it
    try:
        return StoreSnapshot(tuple(_logs(db, places, now, latest)), tuple(_endpoints(db, now)))
    finally:
        db.execute("COMMIT")


def _logs(
    db: sqlite3.Connection, places: AckFile | None, now: float, latest: int
) -> list[LogSnapshot]:
    rows = db.execute(
        "SELECT id, topic, head, length, leader, leads_until FROM log ORDER BY topic"
    ).fetchall()
    return [
        LogSnapshot(
            topic=topic,
            head=head,
            length=length,
            has_leader=leader is not None and now < until and is_alive(leader),
            pending_fetches=_count(db, "SELECT count(*) FROM announcement WHERE log = ?", log),
            readers=tuple(
                ReaderSnapshot(name, found.place, _count(db, AFTER, log, found.place))
                for name, found in sorted(stored_positions(log, db, places))
                if name not in (DIRECT, ANONYMOUS)
            ),
            latest=tuple(LatestItem(*row) for row in reversed(_latest(db, log, latest))),
        )
        for log, topic, head, length, leader, until in rows
    ]


AFTER = "SELECT count(*) FROM entry WHERE log = ? AND id > ?"


def _count(db: sqlite3.Connection, what: str, *of: int) -> int:
    return int(db.execute(what, of).fetchone()[0])


def _latest(db: sqlite3.Connection, log: int, many: int) -> list[tuple[int, str | None]]:
    return db.execute(
        "SELECT id, item FROM entry WHERE log = ? ORDER BY id DESC LIMIT ?", (log, many)
    ).fetchall()


def _endpoints(db: sqlite3.Connection, now: float) -> list[EndpointSnapshot]:
    rows = db.execute("SELECT key, state FROM pace ORDER BY key").fetchall()
    return [survey_endpoint(key, state, now, is_alive) for key, state in rows]
