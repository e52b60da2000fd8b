"""The file of positions: a record for each reader, which only moves forwards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from full_disk import no_file_over
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythpeer.stores.sqlite.ack_file import GROWTH_SIZE, AckFile

OWNER: Final = b"database"
SIZE: Final = 16
"""The bytes of a record."""

FIRST: Final = dict.fromkeys(range(1, 3000), 1)
"""The epochs of a database in which no reader was ever moved by seek."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "positions"


@contextmanager
def opened(
    path: Path, owner: bytes = OWNER, epochs: Mapping[int, int] = FIRST
) -> Iterator[AckFile]:
    with closing(AckFile(path, owner, epochs)) as ack_file:
        yield ack_file


def test_a_written_position_is_read_by_every_process(path: Path) -> None:
    """Immediately, by a file object that was opened before, and by one that is opened later."""
    with opened(path) as first, opened(path) as second:
        first.write(1, 1, 7)
        second.write(2, 1, 2**62)
        assert first.read() == second.read() == {1: (1, 7), 2: (1, 2**62)}
    with opened(path) as reopened:
        assert reopened.read() == {1: (1, 7), 2: (1, 2**62)}


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)),
        max_size=20,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_only_moves_forwards(
    tmp_path: Path, writes: list[tuple[int, int, int, int]]
) -> None:
    """In any process: to a later epoch, or to a greater position in the same epoch."""
    path = tmp_path / os.urandom(8).hex()
    maximum: dict[int, tuple[int, int]] = {}
    with opened(path) as first, opened(path) as second:
        for writer, slot, epoch, position in writes:
            (first, second)[writer].write(slot, epoch, position)
            maximum[slot] = max(maximum.get(slot, (0, 0)), (epoch, position))
        assert first.read() == maximum


def test_it_grows_with_its_readers(path: Path) -> None:
    """By a page at a time, in any process, and no record is lost."""
    last = 2 * GROWTH_SIZE // SIZE  # the first that is in the third page
    with opened(path) as first, opened(path) as second:
        assert path.stat().st_size == GROWTH_SIZE
        first.write(last, 1, 5)
        assert path.stat().st_size == 3 * GROWTH_SIZE
        second.write(last - 1, 1, 6)
        second.write(1, 1, 7)
        assert path.stat().st_size == 3 * GROWTH_SIZE
        assert first.read() == {last: (1, 5), last - 1: (1, 6), 1: (1, 7)}
    with opened(path) as reopened:
        assert path.stat().st_size == 3 * GROWTH_SIZE
        assert reopened.read() == {last: (1, 5), last - 1: (1, 6), 1: (1, 7)}


@pytest.mark.parametrize("byte", range(SIZE))
def test_a_damaged_record_is_ignored_and_can_be_written_again(path: Path, byte: int) -> None:
    """A process can be killed while it writes. Other records are not changed."""
    with opened(path) as ack_file:
        for slot in (1, 2, 3):
            ack_file.write(slot, 1, 50)
        data = bytearray(path.read_bytes())
        data[2 * SIZE + byte] ^= 0x55
        path.write_bytes(data)
        assert ack_file.read() == {1: (1, 50), 3: (1, 50)}
        ack_file.write(2, 1, 5)
        assert ack_file.read() == {1: (1, 50), 2: (1, 5), 3: (1, 50)}


@pytest.mark.parametrize("length", [1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE - 1, GROWTH_SIZE - 1])
def test_complete_records_of_a_truncated_file_are_used(path: Path, length: int) -> None:
    """An incomplete record is ignored, and the file has space for all again."""
    records = {1: (1, 10**12), 2: (1, 10**12)}
    with opened(path) as ack_file:
        for slot, record in records.items():
            ack_file.write(slot, *record)
    path.write_bytes(path.read_bytes()[:length])
    with opened(path) as ack_file:
        left = {slot: record for slot, record in records.items() if (slot + 1) * SIZE <= length}
        assert ack_file.read() == left
        assert path.stat().st_size == GROWTH_SIZE
        ack_file.write(2, 1, 6)
        assert ack_file.read() == {2: (1, 6)} | left


def test_the_file_of_another_database_is_replaced_and_not_emptied(path: Path) -> None:
    """To empty it would kill a process that has it mapped."""
    with opened(path) as before:
        before.write(1, 1, 50)
        with opened(path, b"another!") as ack_file:
            assert ack_file.read() == {}
            before.write(1, 1, 60)
            assert ack_file.read() == {}
            ack_file.write(1, 1, 5)
            assert ack_file.read() == {1: (1, 5)}
            assert before.read() == {}


def test_records_with_epochs_of_the_future_are_deleted(path: Path) -> None:
    """The database was restored from a copy, and will reach those slots and epochs again."""
    with opened(path) as ack_file:
        for slot, epoch in ((1, 1), (2, 2), (3, 1), (1500, 4)):
            ack_file.write(slot, epoch, 50)
    with opened(path, epochs={1: 1, 2: 1, 3: 2}) as ack_file:
        assert ack_file.read() == {1: (1, 50), 3: (1, 50)}
        ack_file.write(2, 1, 5)
        ack_file.write(1500, 1, 6)
        assert ack_file.read() == {1: (1, 50), 2: (1, 5), 3: (1, 50), 1500: (1, 6)}


def test_a_deleted_file_has_no_positions(path: Path) -> None:
    """If it is deleted while it is in use, writing still raises no error."""
    with opened(path) as ack_file:
        ack_file.write(1, 1, 50)
        path.unlink()
        assert ack_file.read() == {}
        ack_file.write(1, 1, 60)
        with opened(path) as recreated:
            assert recreated.read() == {}


def test_a_closed_file_is_not_written(path: Path) -> None:
    """It raises an error."""
    with opened(path) as ack_file:
        pass
    with pytest.raises(ValueError, match="closed"):
        ack_file.write(1, 1, 50)


def test_a_folder_of_that_name_is_an_error(path: Path) -> None:
    """The error of the system."""
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        AckFile(path, OWNER, FIRST)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("space", [SIZE - 1, SIZE, 10 * SIZE, GROWTH_SIZE - 1])
def test_a_disk_without_space_for_the_file_is_an_error(path: Path, space: int) -> None:
    """No file is left open. After space was freed it can be opened."""
    before = open_files()
    with no_file_over(space), pytest.raises(OSError, match="too large"):
        AckFile(path, OWNER, FIRST)
    assert open_files() == before
    with opened(path) as ack_file:
        ack_file.write(1, 1, 5)
        assert ack_file.read() == {1: (1, 5)}


def test_a_disk_without_space_for_one_more_record_is_an_error(path: Path) -> None:
    """Existing records can still be written."""
    last = GROWTH_SIZE // SIZE - 1
    with opened(path) as ack_file:
        with no_file_over(GROWTH_SIZE + SIZE):
            ack_file.write(last, 1, 5)
            with pytest.raises(OSError, match="too large"):
                ack_file.write(last + 1, 1, 5)
            ack_file.write(last, 1, 6)
            assert ack_file.read() == {last: (1, 6)}
        ack_file.write(last + 1, 1, 7)
        assert ack_file.read() == {last: (1, 6), last + 1: (1, 7)}
