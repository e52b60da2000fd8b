"""Long text in parts: as many whole words as fit, and no grapheme cut in two."""

from __future__ import annotations

import itertools
from typing import Final

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from pythpeer import InvalidRequestError, split_text

PIECES: Final = (
    *("a", "b", "word", " ", "  ", "\n", "\r\n", "\t", "é", "e\u0301"),
    *("\u0301", "ก็", "กำ", "한", "\u1112\u1161\u11ab", "👍", "👍🏽", "👩‍👩‍👧‍👦"),
    *("🏳️‍🌈", "🇩🇪", "🇫🇷", "🇩", "❤️", "1️⃣", "\U0001f3f4\U000e0067\U000e007f"),
    *("\u200d", "\u0600", "क्षि", "क्", "न\u094d\u200dन", "\u0d4e"),
    *("z\u0335\u0321\u0330", "ﾊﾞ", "\u00a0"),
)
TEXTS: Final = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.text(max_size=60),
)


def clusters(text: str) -> list[str]:
    found: list[str] = regex.findall(r"\X", text)
    return found


@given(TEXTS, st.integers(8, 20))
@example("a" * 7 + " \u0301b", 8)
@example("🇩🇪🇫🇷🇩🇪🇫🇷🇩🇪", 9)
def test_parts_are_whole_words_and_whole_graphemes(text: str, limit: int) -> None:
    """Each part fits, has nothing blank at its ends, and begins and ends between graphemes."""
    try:
        parts = split_text(text, limit)
    except InvalidRequestError:
        assert any(len(cluster) > limit for cluster in clusters(text)) or not text.isascii()
        return
    for part in parts:
        assert 0 < len(part) <= limit
    # Taking the parts out of the text one after the other leaves blanks only, ...
    rest, edges = text, []
    for part in parts:
        before, _, rest = rest.partition(part)
        assert before.isspace() or not before
        edges.append(len(text) - len(rest) - len(part))
        edges.append(len(text) - len(rest))
    assert rest.isspace() or not rest
    # ... and every edge is one between graphemes.
    bounds, position = {0}, 0
    for cluster in clusters(text):
        position += len(cluster)
        bounds.add(position)
    assert set(edges) <= bounds


@given(st.lists(st.text("abc", min_size=1, max_size=8), max_size=30), st.integers(8, 30))
def test_as_many_words_as_fit_are_in_each_part(words: list[str], limit: int) -> None:
    """The words stay, and the first word of a part would not have fitted into the one before."""
    parts = split_text(" ".join(words), limit)
    assert " ".join(parts).split() == words
    for part, following in itertools.pairwise(parts):
        assert len(part) + 1 + len(following.split()[0]) > limit


def test_short_text_stays_as_it_is() -> None:
    """But for blanks at its ends."""
    assert split_text("  one\n\n two ") == ("one\n\n two",)
    assert split_text("x" * 250) == ("x" * 250,)


@pytest.mark.parametrize("text", ["", " ", "\r\n\t"])
def test_blank_text_has_no_parts(text: str) -> None:
    """There is nothing to say in it."""
    assert split_text(text) == ()


def test_a_word_that_is_too_long_is_cut() -> None:
    """Where a part is full, and what is left of it goes on with the words behind it."""
    assert split_text("a " + "b" * 25 + " c", 10) == ("a", "b" * 10, "b" * 10, "b" * 5 + " c")


def test_a_family_is_not_torn_apart() -> None:
    """Seven code points, one picture."""
    family = "👩‍👩‍👧‍👦"
    assert split_text(family * 3, 15) == (family * 2, family)


def test_flags_are_pairs_from_the_first_on() -> None:
    """Cutting between the halves of two flags would make other flags of them."""
    assert split_text("🇩🇪🇫🇷🇩🇪", 3) == ("🇩🇪", "🇫🇷", "🇩🇪")


def test_a_grapheme_longer_than_a_part_is_refused() -> None:
    """It could only be posted as something else."""
    with pytest.raises(InvalidRequestError, match="over 10 code points"):
        split_text("z" + "\u0335" * 10, 10)


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "9", None])
def test_the_limit_is_a_positive_number(limit: int) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidRequestError, match="limit"):
        split_text("text", limit)


@pytest.mark.parametrize("text", [None, b"text", 5])
def test_only_text_is_split(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidRequestError, match="text"):
        split_text(text)
