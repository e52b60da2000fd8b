"""The file of places: a record for each reader, which only ever moves it further."""

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

from pythpeer.stores.sqlite.places import GROWTH_SIZE, AckFile

OWNER: Final = b"database"
SIZE: Final = 16
"""Bytes of a record."""

FIRST: Final = dict.fromkeys(range(1, 3000), 1)
"""The epochs of a database from which no reader was ever sent elsewhere."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "places"


@contextmanager
def opened(
    path: Path, owner: bytes = OWNER, epochs: Mapping[int, int] = FIRST
) -> Iterator[AckFile]:
    with closing(AckFile(path, owner, epochs)) as places:
        yield places


def test_what_is_written_is_read_by_all(path: Path) -> None:
    """At once, also by whoever opened it before, and by those who open it later."""
    with opened(path) as one, opened(path) as other:
        one.write(1, 1, 7)
        other.write(2, 1, 2**62)
        assert one.read() == other.read() == {1: (1, 7), 2: (1, 2**62)}
    with opened(path) as again:
        assert again.read() == {1: (1, 7), 2: (1, 2**62)}


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)),
        max_size=20,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_only_ever_moves_further(
    tmp_path: Path, writes: list[tuple[int, int, int, int]]
) -> None:
    """Whoever writes it: a later epoch first of all, and then a greater place."""
    path = tmp_path / os.urandom(8).hex()
    furthest: dict[int, tuple[int, int]] = {}
    with opened(path) as one, opened(path) as other:
        for which, slot, epoch, place in writes:
            (one, other)[which].write(slot, epoch, place)
            furthest[slot] = max(furthest.get(slot, (0, 0)), (epoch, place))
        assert one.read() == furthest


def test_it_grows_with_its_readers(path: Path) -> None:
    """Page by page, in any process, and nothing gets lost by it."""
    last = 2 * GROWTH_SIZE // SIZE  # the first that is in the third page
    with opened(path) as one, opened(path) as other:
        assert path.stat().st_size == GROWTH_SIZE
        one.write(last, 1, 5)
        assert path.stat().st_size == 3 * GROWTH_SIZE
        other.write(last - 1, 1, 6)
        other.write(1, 1, 7)
        assert path.stat().st_size == 3 * GROWTH_SIZE
        assert one.read() == {last: (1, 5), last - 1: (1, 6), 1: (1, 7)}
    with opened(path) as again:
        assert path.stat().st_size == 3 * GROWTH_SIZE
        assert again.read() == {last: (1, 5), last - 1: (1, 6), 1: (1, 7)}


@pytest.mark.parametrize("byte", range(SIZE))
def test_half_a_record_does_not_count_and_can_be_written_again(path: Path, byte: int) -> None:
    """A process can be killed in the middle of it. What is beside it is not touched."""
    with opened(path) as places:
        for slot in (1, 2, 3):
            places.write(slot, 1, 50)
        data = bytearray(path.read_bytes())
        data[2 * SIZE + byte] ^= 0x55
        path.write_bytes(data)
        assert places.read() == {1: (1, 50), 3: (1, 50)}
        places.write(2, 1, 5)
        assert places.read() == {1: (1, 50), 2: (1, 5), 3: (1, 50)}


@pytest.mark.parametrize("length", [1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE - 1, GROWTH_SIZE - 1])
def test_a_file_that_was_cut_off_is_used_as_far_as_it_goes(path: Path, length: int) -> None:
    """A record that is not whole is none, and there is room again for all."""
    records = {1: (1, 10**12), 2: (1, 10**12)}
    with opened(path) as places:
        for slot, record in records.items():
            places.write(slot, *record)
    path.write_bytes(path.read_bytes()[:length])
    with opened(path) as places:
        left = {slot: record for slot, record in records.items() if (slot + 1) * SIZE <= length}
        assert places.read() == left
        assert path.stat().st_size == GROWTH_SIZE
        places.write(2, 1, 6)
        assert places.read() == {2: (1, 6)} | left


def test_another_database_s_places_are_left_to_whoever_uses_them(path: Path) -> None:
    """The file is another one then: to empty it would kill a process that has it mapped."""
    with opened(path) as before:
        before.write(1, 1, 50)
        with opened(path, b"another!") as places:
            assert places.read() == {}
            before.write(1, 1, 60)
            assert places.read() == {}
            places.write(1, 1, 5)
            assert places.read() == {1: (1, 5)}
            assert before.read() == {}


def test_records_from_another_life_of_the_database_are_taken_out(path: Path) -> None:
    """It was put back from a copy and will get to those slots and epochs again."""
    with opened(path) as places:
        for slot, epoch in ((1, 1), (2, 2), (3, 1), (1500, 4)):
            places.write(slot, epoch, 50)
    with opened(path, epochs={1: 1, 2: 1, 3: 2}) as places:
        assert places.read() == {1: (1, 50), 3: (1, 50)}
        places.write(2, 1, 5)
        places.write(1500, 1, 6)
        assert places.read() == {1: (1, 50), 2: (1, 5), 3: (1, 50), 1500: (1, 6)}


def test_without_the_file_nothing_is_known(path: Path) -> None:
    """Where it was deleted while it was in use, and the writing goes on into nowhere."""
    with opened(path) as places:
        places.write(1, 1, 50)
        path.unlink()
        assert places.read() == {}
        places.write(1, 1, 60)
        with opened(path) as anew:
            assert anew.read() == {}


def test_closed_is_closed(path: Path) -> None:
    """Nothing is written any more, and that is said."""
    with opened(path) as places:
        pass
    with pytest.raises(ValueError, match="closed"):
        places.write(1, 1, 50)


def test_a_folder_in_its_place_is_said(path: Path) -> None:
    """As the system says it."""
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        AckFile(path, OWNER, FIRST)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("room", [SIZE - 1, SIZE, 10 * SIZE, GROWTH_SIZE - 1])
def test_a_disk_without_room_for_it_is_said(path: Path, room: int) -> None:
    """And no file is left open, which would be warned of. Once there is room all is well."""
    before = open_files()
    with no_file_over(room), pytest.raises(OSError, match="too large"):
        AckFile(path, OWNER, FIRST)
    assert open_files() == before
    with opened(path) as places:
        places.write(1, 1, 5)
        assert places.read() == {1: (1, 5)}


def test_a_disk_without_room_for_one_more_is_said(path: Path) -> None:
    """Those that are there have their room."""
    last = GROWTH_SIZE // SIZE - 1
    with opened(path) as places:
        with no_file_over(GROWTH_SIZE + SIZE):
            places.write(last, 1, 5)
            with pytest.raises(OSError, match="too large"):
                places.write(last + 1, 1, 5)
            places.write(last, 1, 6)
            assert places.read() == {last: (1, 6)}
        places.write(last + 1, 1, 7)
        assert places.read() == {last: (1, 6), last + 1: (1, 7)}
