r"""`split_text`: parts that fit, and that cut no grapheme cluster.

What that is comes from the `regex` package, whose ``\X`` follows UAX #29 and newer tables than
Python's own.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import regex
from helpers import examples
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pythpeer import InvalidRequestError, split_text
from pythpeer.splitting import _break_class

SAMPLES: Final = Path(__file__).parent / "samples" / "split_text"

EVERY: Final = "".join(chr(code) for code in range(sys.maxunicode + 1))
"""All characters of Unicode."""


def characters(pattern: str) -> list[str]:
    """Every character that the pattern matches."""
    return regex.findall(pattern, EVERY)


def breaks(text: str) -> set[int]:
    """Where UAX #29 lets *text* be cut, its ends included."""
    return {0} | {cluster.end() for cluster in regex.finditer(r"\X", text)}


def spans(text: str, parts: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where each of *parts* stands in *text*: nothing but whitespace is left out."""
    end = 0
    for part in parts:
        begin = text.index(part, end)
        assert not text[end:begin].strip()
        end = begin + len(part)
        yield begin, end
    assert not text[end:].strip()


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("hello", 5, ["hello"]),
        ("hello world", 11, ["hello world"]),
        ("hello world", 10, ["hello", "world"]),
        ("hello world", 6, ["hello", "world"]),
        ("hello world", 5, ["hello", "world"]),
        ("hello \t\r\n\u3000 world", 10, ["hello", "world"]),
        ("a  b", 4, ["a  b"]),
        ("a  b", 3, ["a", "b"]),
        ("  hello\n", 5, ["hello"]),
        ("a b c d e", 3, ["a b", "c d", "e"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("ab cdefgh ij", 4, ["ab c", "defg", "h ij"]),
        ("ab cd", 1, ["a", "b", "c", "d"]),
        ("ab abc", 3, ["ab", "abc"]),
        ("\N{GRINNING FACE}" * 4, 2, ["\N{GRINNING FACE}" * 2] * 2),
    ],
)
def test_text_breaks_at_whitespace(text: str, limit: int, parts: list[str]) -> None:
    """Whitespace at a break is dropped, elsewhere it stays; only a word that is too long is cut."""
    assert split_text(text, limit) == tuple(parts)


@pytest.mark.parametrize("text", ["", " ", "\n", " \t\r\n\u00a0\u3000\x1c"], ids=ascii)
def test_blank_text_has_no_parts(text: str) -> None:
    """There is nothing to post."""
    assert split_text(text) == ()


def test_a_part_has_at_most_250_characters_by_default() -> None:
    """That is what Peerbet documents, and characters are code points."""
    assert split_text("x" * 250) == ("x" * 250,)
    assert split_text("\N{GRINNING FACE}" * 251) == (
        "\N{GRINNING FACE}" * 250,
        "\N{GRINNING FACE}",
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("12345678\nb cdefg", ["12345678", "b cdefg"]),
        ("12345678\r\n b cdefg", ["12345678", "b cdefg"]),
        ("123456\nb c defghi", ["123456\nb c", "defghi"]),  # not near enough to the end
        ("12345678\nb 123456789", ["12345678\nb", "123456789"]),  # it would be a part more
        ("1234\n678 b cdefg", ["1234\n678 b", "cdefg"]),
        ("12345678\nb\ncdefg", ["12345678\nb", "cdefg"]),
        ("12345678\nb cdefg 12345678 i", ["12345678", "b cdefg", "12345678 i"]),
        ("12345678 b cdefg", ["12345678 b", "cdefg"]),
    ],
    ids=ascii,
)
def test_a_line_that_ends_near_is_not_broken_behind(text: str, parts: list[str]) -> None:
    """A part ends with a line rather than one word later, where that costs no further part."""
    assert split_text(text, 10) == tuple(parts)


words = st.text(st.sampled_from("ab\N{GRINNING FACE}\u0301 \n\r\u3000"), max_size=60)


@given(words, st.integers(2, 12))
@example("a " * 4 + "b" * 9, 8)
def test_the_words_of_the_parts_are_the_words_of_the_text(text: str, limit: int) -> None:
    """Nothing is lost, doubled, moved or changed."""
    try:
        parts = split_text(text, limit)
    except InvalidRequestError:
        assert "\u0301" in text
        return
    assert "".join("".join(parts).split()) == "".join(text.split())
    if all(len(word) <= limit for word in text.split()) and "\u0301" not in text:
        assert " ".join(parts).split() == text.split()


# -- what reads as one character ------------------------------------------------------------------

CLUSTERS: Final = {
    "accents": "e\u0301\u0323",
    "an accent over a format character": "a\u200c\u0301",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flag": "\U0001f1e9\U0001f1ea",
    "flag of Scotland": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "heart on fire": "\u2764\ufe0f\u200d\U0001f525",
    "keycap": "1\ufe0f\u20e3",
    "skin tone": "\U0001f44b\U0001f3fd",
    "text style": "\u2764\ufe0e",
    "ideograph variant": "\u845b\U000e0100",
    "Hangul jamo": "\u1112\u1161\u11ab",
    "Hangul syllable and final": "\uac00\u11a8",
    "Hangul old initials": "\u1107\u1109\u1100\u1161",
    "Devanagari conjunct": "\u0915\u094d\u0937",
    "Devanagari conjunct with nukta and joiner": "\u0915\u093c\u094d\u200d\u0937\u093f",
    "Devanagari conjunct with the nukta behind": "\u0915\u094d\u093c\u0937",
    "Bengali vowel": "\u0995\u09cb",
    "Malayalam dot reph": "\u0d4e\u0d15",
    "Thai AM": "\u0e19\u0e33",
    "Lao AM": "\u0e99\u0eb3",
    "halfwidth Katakana": "\uff76\uff9e",
    "Arabic number sign": "\u06001",
}
"""Extended grapheme clusters of every sort."""


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_a_cluster_is_never_cut(cluster: str) -> None:
    """It goes into the next part as a whole, however long the word is, alone or among others."""
    size = len(cluster)
    assert split_text(cluster * 3, size) == (cluster,) * 3
    assert split_text(cluster * 4, 2 * size + 1) == (cluster * 2,) * 2
    for before in range(1, size + 2):
        limit = before + size - 1
        assert split_text("x" * before + cluster, limit) == ("x" * before, cluster)


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_a_cluster_that_does_not_fit_is_an_error(cluster: str) -> None:
    """It can be neither cut nor sent."""
    for text in (cluster, f"x {cluster} x", "x" * 99 + cluster):
        with pytest.raises(InvalidRequestError, match=str(len(cluster))):
            split_text(text, len(cluster) - 1)


def test_unknown_characters_are_kept_together_within_words_only() -> None:
    """It may be a mark, but probably not one on a space."""
    unknown = "\U000e0ca5"
    assert unicodedata.category(unknown) == "Cn"
    assert split_text(f"{unknown} {unknown}", 1) == (unknown, unknown)
    with pytest.raises(InvalidRequestError):
        split_text(unknown * 2, 1)


def test_flags_are_paired_from_the_first() -> None:
    """Letters of flags belong together two by two, and the odd one is alone."""
    a, b, c = "\U0001f1e6", "\U0001f1e7", "\U0001f1e8"
    assert split_text((a + b) * 3, 3) == (a + b,) * 3
    assert split_text(a + b + c, 2) == (a + b, c)
    assert split_text(f"{a} {b}{c}", 2) == (a, b + c)
    assert split_text("x" + a + b + c, 2) == ("x", a + b, c)


def test_what_stands_alone_is_cut_anywhere() -> None:
    """The careful rules must not join letters, ideographs, emoji or syllables."""
    for character in (
        "x",
        "\u6f22",
        "\U0001f600",
        "\uac00",
        "\u3131",
        "\u0915",
        "\u0e01",
        "\U00020000",
    ):
        assert split_text(character * 5, 2) == (character * 2, character * 2, character)
    unassigned = "\U0001faea", "\U000323b0"  # a pictograph and an ideograph of Unicode 17
    for character in unassigned:
        assert split_text(character * 5, 2) == (character * 2, character * 2, character)


SENTENCES: Final = dict(
    line.split(": ", 1)
    for line in (SAMPLES / "sentences.txt").read_text(encoding="utf-8").splitlines()
)
"""Real sentences, by language."""


def packed(text: str, limit: int) -> list[str]:
    """The parts of a text of one line, by the book and one cluster at a time."""
    parts = [""]
    for word in text.split(" "):
        is_short = len(word) <= limit
        separator = " " if parts[-1] else ""
        for piece in [word] if is_short else regex.findall(r"\X", word):
            if len(parts[-1] + separator + piece) > limit:
                parts.append("")
                separator = ""
            parts[-1] += separator + piece
            separator = ""
    return parts


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_real_text_is_split_by_the_book(sentence: str) -> None:
    """No more is kept together than necessary, and its words are found."""
    smallest = max(map(len, regex.findall(r"\X", sentence)))
    for limit in range(smallest, len(sentence) + 1):
        assert [*split_text(sentence, limit)] == packed(sentence, limit)


def test_text_does_not_break_at_a_space_with_an_accent() -> None:
    """It is one character: parts break next to its neighbours, and never lose half of it."""
    assert split_text("ab \u0301cd", 4) == ("ab \u0301", "cd")
    assert split_text("ab \u0301cd", 3) == ("a", "b \u0301", "cd")
    assert split_text("\u0600 ab", 3) == ("\u0600 a", "b")
    assert split_text(" \u0301ab", 2) == ("\u0301a", "b")


PROPERTIES: Final = {
    "\\p{GCB=Extend}": "xvu",
    "\\p{GCB=SpacingMark}": "xvu",
    "\\p{GCB=V}": "xvu",
    "\\p{GCB=T}": "xvu",
    "\\p{GCB=ZWJ}": "v",
    "\\p{GCB=L}": "p",
    "\\p{GCB=Prepend}": "p",
    "\\p{InCB=Linker}": "vu",
    "\\p{GCB=Regional_Indicator}": "r",
    "\\s": "s",
}
"""The classes that each property of UAX #29 may have."""


@pytest.mark.parametrize("pattern", PROPERTIES)
def test_every_character_has_a_class_of_its_property(pattern: str) -> None:
    """All of Unicode, also what this Python does not know."""
    matches = characters(pattern)
    assert matches
    assert {_break_class(character) for character in matches} <= set(PROPERTIES[pattern])


def test_few_characters_have_a_stricter_class_than_needed() -> None:
    """Of what the tables of this Python know, letters, digits, signs and emoji stand alone."""
    single_characters = characters(r"(?V1)[[\p{L}\p{N}\p{P}\p{S}]&&\p{GCB=Other}&&\P{InCB=Linker}]")
    assigned = [character for character in single_characters if _break_class(character) != "u"]
    assert {_break_class(character) for character in assigned} == {"o"}
    assert len(assigned) > 130_000


POOLS: Final = [
    *map(characters, PROPERTIES),
    *map(characters, [r"\p{InCB=Consonant}", r"\p{InCB=Extend}", r"\p{ExtPict}"]),
    *map(characters, [r"\p{GCB=Control}", r"\p{GCB=LV}", r"\p{GCB=LVT}"]),
    list("ab1#* \r\n"),
    list("\ufe0f\u20e3\u200d\u200c\u094d\u0301"),
]


def is_known(text: str) -> bool:
    """Whether no white space is followed by a character that this Python does not know.

    It can only be mistaken for a letter there, which begins a word.
    """
    after = {after for blank, after in pairwise(text) if blank.isspace()}
    return "Cn" not in map(unicodedata.category, after)


texts = st.lists(st.sampled_from(POOLS).flatmap(st.sampled_from), max_size=16).map("".join)


@settings(max_examples=examples(1000))
@given(texts | st.text(max_size=40), st.integers(1, 9))
@example("a\n \u0301b", 3)
@example("\u0600 \u0301", 3)
def test_the_rules_of_splitting(text: str, limit: int) -> None:
    """Parts fit, have no white space at the ends, break no cluster, and are maximal."""
    try:
        parts = split_text(text, limit)
    except InvalidRequestError:
        return
    assume(is_known(text))
    text = text.strip()
    part_spans = list(spans(text, parts))
    assert all(0 < len(part) <= limit and part == part.strip() for part in parts)
    assert {edge for span in part_spans for edge in span} <= breaks(text)
    assert all(end - begin > limit for (begin, _), (_, end) in pairwise(part_spans))


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Z", "Cc"]), max_size=300))
def test_text_without_marks_is_split_like_words(text: str) -> None:
    """No ordinary text is rejected, and no break is missed in it."""
    parts = split_text(text, 60)
    assert "".join("".join(parts).split()) == "".join(text.split())


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["text"]], ids=repr)
def test_only_text_is_split(text: Any) -> None:
    """Anything but text is rejected."""
    with pytest.raises(InvalidRequestError, match="text must be a str"):
        split_text(text)


@pytest.mark.parametrize("limit", [0, -1, 1.0, "5", None, True], ids=repr)
def test_a_limit_is_a_number_of_characters(limit: Any) -> None:
    """From one on, also where there is nothing to split."""
    for text in ("text", ""):
        with pytest.raises(InvalidRequestError, match="limit"):
            split_text(text, limit)


@pytest.mark.parametrize("text", ["\0", "\ud800", "a\udfffb"], ids=ascii)
def test_what_cannot_be_sent_can_be_split(text: str) -> None:
    """Its arguments are checked, with an error that names them."""
    assert split_text(text) == (text,)


def seconds(text: str) -> float:
    """How long it takes the processor to split *text*, at the quickest of three times."""
    taken: list[float] = []
    for _ in range(3):
        start = time.process_time()
        split_text(text)
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize(
    "piece",
    ["word ", "x", " ", "a\u0301", "\U0001f1e9\U0001f1ea", "x" + " " * 100],
    ids=ascii,
)
def test_the_time_grows_with_the_length_of_a_text(piece: str) -> None:
    """Eight times the text takes eight times the time, or little more, and not its square."""
    short_text, long_text = (f"x{piece * (length // len(piece))}y" for length in (10_000, 80_000))
    assert seconds(long_text) < 32 * seconds(short_text)
