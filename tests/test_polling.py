"""The law of cursor, order and gaps."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer.polling import Gap, link_entries

ids = st.integers(min_value=0, max_value=60)
pages = st.dictionaries(ids, st.none() | st.text(max_size=2), max_size=12)
some_pages = st.dictionaries(ids, st.none() | st.text(max_size=2), min_size=1, max_size=12)


@given(ids, pages)
def test_links_are_one_chain_in_order(after: int, page: dict[int, str | None]) -> None:
    """Ascending ids, each linked to the one before, the first to where the question started."""
    drafts = link_entries(after, page, full=False)
    numbers = [draft.id for draft in drafts]
    assert numbers == sorted(id for id in page if id > after)
    assert [draft.after for draft in drafts] == [after, *numbers][: len(drafts)]


@given(ids, pages)
def test_nothing_old_and_nothing_made_up(after: int, page: dict[int, str | None]) -> None:
    """Every message after the cursor is there with its own item, and no other."""
    drafts = link_entries(after, page, full=False)
    assert {draft.id: draft.item for draft in drafts} == {
        id: item for id, item in page.items() if id > after
    }


@given(ids, some_pages, st.booleans())
def test_the_gap_law(after: int, page: dict[int, str | None], full: bool) -> None:
    """A gap is: a full answer, whose lowest id is not the next one."""
    drafts = link_entries(after, page, full=full)
    gap = full and min(page) > after + 1
    assert [draft.gap for draft in drafts] == [gap, *([False] * len(drafts))][: len(drafts)]


@given(ids, some_pages, st.booleans(), st.integers(0, 999))
def test_the_order_of_the_answer_does_not_matter(
    after: int, page: dict[int, str | None], full: bool, seed: int
) -> None:
    """The service's order is undocumented, so any will do."""
    items = list(page.items())
    random.Random(seed).shuffle(items)
    assert link_entries(after, dict(items), full=full) == link_entries(after, page, full=full)


@pytest.mark.parametrize(
    ("after", "page", "full", "gap"),
    [
        (5, {7: "a", 8: "b"}, True, True),  # the newest that fit: 6 may be missing
        (5, {6: "a", 7: "b"}, True, False),  # the oldest first: a backlog, nothing missing
        (5, {5: "x", 9: "a"}, True, False),  # overlaps where we stood: nothing between
        (5, {3: "x", 9: "a"}, True, False),  # reaches further back than we stood
        (5, {7: "a", 8: "b"}, False, False),  # not full: 6 is a private message to others
        (0, {7: "a", 8: "b"}, True, True),  # streams at 0 take no notice; others may stand at 5
    ],
)
def test_where_there_may_be_a_gap(after: int, page: dict[int, str], full: bool, gap: bool) -> None:
    """Only a full answer that does not begin with the next id may have lost something."""
    assert link_entries(after, page, full=full)[0].gap is gap


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("after", [0, 5])
def test_a_page_without_any_id_has_no_links(after: int, full: bool) -> None:
    """An empty answer, or one full of messages without ids, is nothing to append and no failure."""
    assert link_entries(after, {}, full=full) == []


def test_a_full_page_of_old_messages_has_no_links() -> None:
    """What was there before stays where it is."""
    assert link_entries(9, {7: "a", 8: "b", 9: "c"}, full=True) == []


def test_a_hole_keeps_its_place() -> None:
    """A message that could not be decoded is a link like any other."""
    drafts = link_entries(1, {2: "a", 3: None, 4: "b"}, full=False)
    assert [(draft.id, draft.item, draft.after) for draft in drafts] == [
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
