"""Links and gaps of numbered messages: `link_entries`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer.streams.gaps import Gap, link_entries

ids = st.integers(min_value=0, max_value=60)
pages = st.dictionaries(ids, st.none() | st.text(max_size=2), max_size=12)
some_pages = st.dictionaries(ids, st.none() | st.text(max_size=2), min_size=1, max_size=12)


@given(ids, pages)
def test_links_are_one_chain_in_order(after: int, page: dict[int, str | None]) -> None:
    """Ascending ids, each linked to the one before, the first to the position."""
    entries = link_entries(after, page, full=False)
    numbers = [entry.id for entry in entries]
    assert numbers == sorted(id for id in page if id > after)
    assert [entry.after for entry in entries] == [after, *numbers][: len(entries)]


@given(ids, pages)
def test_only_new_messages_with_their_own_items(after: int, page: dict[int, str | None]) -> None:
    """Every message after the position is there with its own item, and no other."""
    entries = link_entries(after, page, full=False)
    assert {entry.id: entry.item for entry in entries} == {
        id: item for id, item in page.items() if id > after
    }


@given(ids, some_pages, st.booleans())
def test_which_entry_has_a_gap(after: int, page: dict[int, str | None], full: bool) -> None:
    """A gap is a full page whose lowest id is not the next one."""
    entries = link_entries(after, page, full=full)
    gap = full and min(page) > after + 1
    assert [entry.gap for entry in entries] == [gap, *([False] * len(entries))][: len(entries)]


@given(ids, some_pages, st.booleans(), st.integers(0, 999))
def test_the_order_of_the_page_does_not_matter(
    after: int, page: dict[int, str | None], full: bool, seed: int
) -> None:
    """The service's order is undocumented, so every order works."""
    items = list(page.items())
    random.Random(seed).shuffle(items)
    assert link_entries(after, dict(items), full=full) == link_entries(after, page, full=full)


@pytest.mark.parametrize(
    ("after", "page", "full", "gap"),
    [
        (5, {7: "a", 8: "b"}, True, True),  # the newest that fit: 6 may be missing
        (5, {6: "a", 7: "b"}, True, False),  # the oldest first: a backlog, nothing missing
        (5, {5: "x", 9: "a"}, True, False),  # overlaps the position: nothing in between
        (5, {3: "x", 9: "a"}, True, False),  # reaches further back than the position
        (5, {7: "a", 8: "b"}, False, False),  # not full: 6 is a private message to others
        (0, {7: "a", 8: "b"}, True, True),  # a stream from 0 ignores it; others may be at 5
    ],
)
def test_where_there_may_be_a_gap(after: int, page: dict[int, str], full: bool, gap: bool) -> None:
    """Only a full page that does not begin with the next id may have lost something."""
    assert link_entries(after, page, full=full)[0].gap is gap


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("after", [0, 5])
def test_a_page_without_any_id_has_no_links(after: int, full: bool) -> None:
    """An empty page, or one of messages without ids, has nothing to append and is no failure."""
    assert link_entries(after, {}, full=full) == []


def test_a_full_page_of_old_messages_has_no_links() -> None:
    """Old messages are not appended again."""
    assert link_entries(9, {7: "a", 8: "b", 9: "c"}, full=True) == []


def test_an_undecodable_message_keeps_its_position() -> None:
    """A message that could not be decoded is a link like any other."""
    entries = link_entries(1, {2: "a", 3: None, 4: "b"}, full=False)
    assert [(entry.id, entry.item, entry.after) for entry in entries] == [
        (2, "a", 1),
        (3, None, 2),
        (4, "b", 3),
    ]


def test_a_gap_is_a_value() -> None:
    """It compares, hashes, and cannot be changed."""
    gap = Gap(3, 9)
    assert gap == Gap(after=3, before=9)
    assert len({gap, Gap(3, 9)}) == 1
    with pytest.raises(AttributeError):
        gap.after = 4  # type: ignore[misc]
