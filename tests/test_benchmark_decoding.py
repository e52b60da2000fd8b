"""Damaged pages: the correct and the wrong messages that a decoder returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from benchmarks.competitors.decoding import Candidate
from benchmarks.decoding import Damage, Outcome, damaged_pages, outcome

BEST = [{"id": 1, "msg": "one"}, {"id": 2, "msg": "t\ufffdo"}]


def candidate(page: Callable[[bytes], Sequence[Any]]) -> Candidate:
    return Candidate("one", lambda body: None, page, dict)


def fail(body: bytes) -> Sequence[Any]:
    raise ValueError


@pytest.mark.parametrize(
    ("messages", "kept", "wrong"),
    [
        (BEST, 2, 0),
        (BEST[1:], 1, 0),
        ([], 0, 0),
        ([BEST[0], {"id": 2, "msg": "t\ud800o"}], 1, 1),
        ([*BEST, {"id": "none", "msg": "three"}], 2, 1),
        ([{"id": 1, "msg": "another"}], 0, 1),
    ],
)
def test_a_message_that_is_not_correct_is_wrong(messages: list[Any], kept: int, wrong: int) -> None:
    assert outcome(candidate(lambda body: messages), Damage(b"", BEST)) == Outcome(kept, wrong)


def test_a_decoder_that_raises_an_error_keeps_nothing() -> None:
    assert outcome(candidate(fail), Damage(b"", BEST)) == Outcome(0, 0)


def test_each_page_is_damaged_and_has_its_recoverable_messages() -> None:
    pages = damaged_pages()
    had = {name: len(damaged_page.messages) for name, damaged_page in pages.items()}
    assert had.pop("an id is not a number") == had.pop("a text is missing") == 299
    assert had.pop("half of the page") == 0
    assert set(had.values()) == {300}
    with pytest.raises(UnicodeDecodeError):
        pages["invalid UTF-8"].body.decode()
    for name in ("a raw line break", "a warning before the JSON", "half of the page"):
        with pytest.raises(ValueError):
            json.loads(pages[name].body)
    for name, text in (("a lone surrogate", "a\ufffd"), ("a raw line break", "a\n")):
        assert pages[name].messages[150]["msg"] == text
