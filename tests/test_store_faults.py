"""Tests each row of the fault table of stores: streams, a call and the pacing, and opening."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import redis_server
from fault_page import OPENING_TITLE, page
from helpers import real_time
from store_fault_cells import LAST, MARK, run_opening, run_program, stream_warnings
from store_faults import (
    OPENING_FAULTS,
    STORE_FAULTS,
    OpeningFault,
    StoreExpectation,
    StoreFault,
)

from pythpeer.stores.sqlite import database as database_module
from pythpeer.stores.sqlite import store as store_module

pytestmark = pytest.mark.anyio

MAX_DELAY = 8.0
"""Seconds after a trouble within which streams continue: a command that waits for its
response, a back-off step, and some intervals."""


@pytest.fixture(autouse=True)
def short_busy_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a file waits on real time, which must not be long."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.02)
    monkeypatch.setattr(database_module, "BUSY_RETRY", 0.001)
    monkeypatch.setattr(store_module, "OPEN_TIMEOUT", 0.05)
    monkeypatch.setattr(store_module, "OPEN_RETRY", 0.01)


VIRTUAL = {title: row for title, row in STORE_FAULTS.items() if row.store != "real redis"}
REAL = {title: row for title, row in STORE_FAULTS.items() if row.store == "real redis"}


@pytest.mark.parametrize("row", VIRTUAL.values(), ids=VIRTUAL.keys())
async def test_a_program_has_the_outcome_of_the_contract(
    row: StoreFault, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams wait, raise or continue, and lose nothing; no interval is short."""
    await check(row, folder, caplog)


@real_time
@pytest.mark.processes
@redis_server.needs_a_server
@pytest.mark.parametrize("row", REAL.values(), ids=REAL.keys())
async def test_a_program_on_a_real_server_has_the_outcome_of_the_contract(
    row: StoreFault, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only a process can be killed, and come back with older data."""
    await check(row, folder, caplog)


async def check(row: StoreFault, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, trouble in row.troubles.items():
        directory = folder / name.replace(" ", "-")
        directory.mkdir()
        outcome = await run_program(
            row, trouble, directory, lambda: stream_warnings(caplog.records)
        )
        expected = row.expectation
        waits = expected.stream == "waits"
        assert outcome.streams == (expected.stream, expected.stream), name
        assert outcome.call == expected.call, name
        assert outcome.was_ok is not waits, name
        if waits:
            assert outcome.warnings == 2, name
        else:  # redelivered mail may be reported as a gap
            assert outcome.warnings <= int(expected.repeats_mail), name
        assert outcome.delay <= (MAX_DELAY if waits else 0.01), name
        assert outcome.is_ok, name
        assert outcome.shortest >= row.unit - 0.001, name
        check_items(expected, *outcome.items)


def check_items(expected: StoreExpectation, chat: tuple[str, ...], mail: tuple[str, ...]) -> None:
    """All items were returned in order, and none of them twice except what is expected."""
    messages, mails = (
        tuple(f"{kind} {number}" for number in range(1, LAST + 1)) for kind in ("message", "mail")
    )
    assert without_old(chat, expected) == messages
    if not expected.repeats_mail:
        assert mail == mails
        return
    unmarked = [text for text in mail if not text.endswith(MARK)]
    assert len(unmarked) == len(set(unmarked)), mail
    assert {text.removesuffix(MARK) for text in mail} == set(mails)
    assert len(mail) > len(mails)


def without_old(texts: Sequence[str], expected: StoreExpectation) -> tuple[str, ...]:
    """Return messages, without repetitions of those before an older snapshot was restored."""
    if not expected.is_older:
        return tuple(texts)
    return (*texts[:2], *(text for text in texts[2:] if text not in texts[:2]))


@pytest.mark.parametrize("row", OPENING_FAULTS.values(), ids=OPENING_FAULTS.keys())
async def test_opening_has_the_outcome_of_the_contract(row: OpeningFault, folder: Path) -> None:
    """A session that cannot use its store raises a `StoreError` when it opens."""
    for name in row.prepare:
        directory = folder / name.replace(" ", "-")
        directory.mkdir()
        assert await run_opening(row, name, directory) == row.outcome, name


def test_each_row_is_reproduced_and_on_the_page() -> None:
    """Once, with a cell for each column; no row replaces another one in a mapping."""
    assert all(row.troubles for row in STORE_FAULTS.values())
    assert all(row.prepare for row in OPENING_FAULTS.values())
    lines = [line.strip("| ").split(" | ") for line in page().splitlines()]
    rows = [cells[0] for cells in lines if len(cells) == 4]
    assert [title for title in rows if title != "trouble"] == list(STORE_FAULTS)
    opening = page().partition(OPENING_TITLE)[2].splitlines()
    titles = [line.strip("| ").split(" | ")[0] for line in opening if line.startswith("| ")]
    assert titles == ["trouble", *OPENING_FAULTS]
