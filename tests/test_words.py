"""The word counter splits, counts and finds what it says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import words
from field_words import MAX_WORDS, choose
from words import (
    ALLOWED,
    FIELD_WORDS,
    OWN_WORDS,
    RETIRED,
    Allowed,
    Source,
    find_retired,
    forms,
    read_source,
    split_name,
    split_prose,
)

WITHOUT_RETIRED = '''
"""A module that places an order: the housing of nobodies and warehouses is no business of it."""

import asyncio as aio

# A comment with room for more: the callers must wait until the lease has expired.
# It is told apart by its id.
MAX_SIZE = 10


class WaitQueue:
    """Callers that wait for a token, in the order in which they came."""

    def pop(self, owner: str, *items: int, replace_all: bool = False) -> None:
        """Return the next waiter; raises KeyError if there is none."""
        self.position = [item for item in items]
        raise KeyError(f"no waiter of {owner}")
'''

WITH_RETIRED = '''
"""What a shelf keeps
for whoever asks."""

MOST = 10


def put_down(in_hand: int) -> None:
    # Whoever is told of it has it in
    # hand, and goes on.
    raise ValueError("an id that is none")


class SharedGate:
    nobody = "nobody"
'''


def found_in(text: str, file: str = "pythpeer/sample.py", area: str = "package") -> list[str]:
    """What is found in a file: line and text of each."""
    hits, unused = find_retired([read_source(file, area, text)], ())
    assert unused == []
    return [f"{hit.line} {hit.text}" for hit in hits]


def names_in(source: Source) -> set[str]:
    return {name.text for name in source.names}


# -- splitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("snake_case_name", "snake case name"),
        ("_private", "private"),
        ("CamelCase", "camel case"),
        ("camelCase", "camel case"),
        ("HTTPError", "http error"),
        ("MAX_SIZE", "max size"),
        ("readAll_HTTPError2", "read all http error"),
        ("_", ""),
        ("utf8_text", "utf text"),
    ],
)
def test_an_identifier_is_split_into_words(name: str, expected: str) -> None:
    """Underscores, capitals and digits divide."""
    assert split_name(name) == expected.split()


def test_prose_is_split_without_code_and_addresses() -> None:
    """Names within backquotes, fenced blocks and URLs are no prose."""
    text = (
        "It's `Stream.ack`, or ``x`` at https://example.org/told.\n\n```python\nnobody()\n```\nEnd"
    )
    assert split_prose(text) == ["it's", "or", "at", "end"]


# -- reading --------------------------------------------------------------------------------------


def test_every_definition_of_a_module_is_read() -> None:
    """Functions, classes, parameters, variables, attributes, aliases and the module itself."""
    source = read_source("pythpeer/sample.py", "package", WITHOUT_RETIRED)
    expected = "sample aio MAX_SIZE WaitQueue pop self owner items replace_all position item"
    assert names_in(source) == set(expected.split())


def test_names_that_statements_bind_are_read() -> None:
    """Errors that are caught, patterns, loops, ``with`` and ``:=``."""
    text = """
async def main():
    try:
        with a as b: (c := 1)
    except ValueError as d:
        for e in f: pass
    match g:
        case [h, *i]: pass
"""
    assert names_in(read_source("tests/x.py", "tests", text)) == {"x", "main", *"bcdehi"}


def test_a_package_is_named_by_its_directory() -> None:
    """And not ``__init__``."""
    assert names_in(read_source("pythpeer/stores/__init__.py", "package", "")) == {"stores"}


def test_docstrings_and_comments_are_prose_and_literals_are_not() -> None:
    """Also the docstring of an attribute; adjacent comments are one text, directives are none."""
    text = '''
"""Module."""
LIMIT = "literal"
"""Attribute."""
# One
# sentence.
x = 1  # noqa: E501
y = 2  # more
'''
    source = read_source("pythpeer/x.py", "package", text)
    assert [piece.text for piece in source.prose] == [
        "Module.",
        "Attribute.",
        " One\n sentence.",
        " more",
    ]
    assert [(piece.text, piece.line) for piece in source.texts] == [("literal", 3)]


def test_a_lua_script_is_read() -> None:
    """Its local names, functions, parameters and loop variables; comments are prose."""
    text = """-- What it does.
local STREAM, META = unpack(KEYS)
local function now_of(clock) return 'local hidden' end
for index, entry in ipairs(list) do -- each
end
"""
    source = read_source("pythpeer/stores/redis/log.lua", "package", text)
    expected = {"log", "STREAM", "META", "now_of", "clock", "index", "entry"}
    assert names_in(source) == expected
    assert [piece.text.split() for piece in source.prose] == [["What", "it", "does."], ["each"]]
    assert [piece.line for piece in source.prose] == [1, 4]


def test_a_javascript_file_is_read() -> None:
    """Its constants, functions and parameters; comments are prose."""
    text = """// One.
const limit = 3, other = "const hidden";
function draw(table) { return rows.map(row => row + "https://x") }
/* Two
lines */
"""
    source = read_source("pythpeer/page.js", "package", text)
    assert {"page", "limit", "draw", "table", "row"} <= names_in(source)
    assert "hidden" not in names_in(source)
    assert [piece.line for piece in source.prose] == [1, 4]


def test_comments_of_settings_are_read() -> None:
    """A line of its own or the end of a line."""
    source = read_source("pyproject.toml", "tools", '# One.\na = "b" # two\n')
    assert [(piece.text.split(), piece.line) for piece in source.prose] == [
        (["One."], 1),
        (["two"], 2),
    ]


# -- counting -------------------------------------------------------------------------------------


def test_rare_words_are_those_that_are_known_in_no_form() -> None:
    """A plural, a participle and a singular of a known word are known."""
    variants = ("rates", "rate", "polled", "caching", "stopping", "tries", "settings", "setting")
    counted = Counter((*variants, "shelf", "shelf"))
    known_words = frozenset({"rate", "poll", "cache", "stop", "try", "settings"})
    assert words.rare_words(counted, known_words) == {"shelf": 2}


def test_forms_are_not_cut_to_pieces() -> None:
    """No form is shorter than a word that counts."""
    assert set(forms("bus")) == {"bus", "buss"}
    assert "red" not in set(forms("reds")) - {"red"}


def test_short_words_are_not_counted() -> None:
    """One or two letters say nothing."""
    source = read_source("tests/ab.py", "tests", "id_of_item = x = 1")
    assert words.count_words([source]) == {"item": 1}


def test_names_of_tests_can_be_left_out() -> None:
    """They are sentences."""
    source = read_source("tests/x.py", "tests", "def test_of_much(a): ...\ndef helper(): ...")
    assert names_in(words.without_tests(source)) == {"x", "a", "helper"}


@pytest.mark.parametrize(
    ("kind", "count"),
    [("person", 3), ("tell", 2), ("must", 1), ("return", 3), ("because", 1)],
)
def test_kinds_of_words_are_counted(kind: str, count: int) -> None:
    """Per 10,000 words of docstrings and comments; code in them does not count."""
    text = (
        "Whoever says so must be those\nwho said it, because `nobody` returns:"
        " nobody returns what others return"
    )
    text += " word" * (100 - len(split_prose(text)))
    source = read_source("docs/x.md", "documents", text)
    (pattern,) = (
        kind_pattern for name, kind_pattern in words.KINDS.items() if name.startswith(kind)
    )
    assert words.per_ten_thousand(pattern, [source]) == pytest.approx(100 * count)


def test_nothing_to_count_is_no_error() -> None:
    """A project without prose has no share of anything."""
    assert words.per_ten_thousand(re.compile("a"), []) == 0


# -- retired words --------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is_retired() -> None:
    """Words that contain a retired one, and usual senses of it, are left alone."""
    assert found_in(WITHOUT_RETIRED) == []


def test_retired_words_are_found() -> None:
    """In docstrings, comments over two lines, identifiers, constants and texts."""
    assert found_in(WITH_RETIRED) == [
        "2 shelf",
        "3 whoever",
        "5 MOST",
        "8 in_hand",
        "8 put_down",
        "9 Whoever",
        "9 in hand",
        "9 is told",
        "10 goes on",
        "11 that is none",
        "14 SharedGate",
        "15 nobody",
    ]


def test_texts_of_tests_are_not_searched() -> None:
    """They are data."""
    text = 'X = "whoever it is"'
    assert found_in(text) == ["1 whoever"]
    assert found_in(text, "tests/x.py", "tests") == []


def test_documents_are_searched_whole() -> None:
    """Code included: a name in it is one that was replaced."""
    text = "# Title\n\nSee\n`limiter._in_hand_now`.\n\n```python\nhold(nobody)\n```\n"
    assert found_in(text, "docs/x.md", "documents") == ["4 in_hand", "7 nobody"]


def test_an_exception_excuses_what_it_names() -> None:
    """A pattern, in a file, in a text; one that excuses nothing is returned."""
    source = read_source("pythpeer/x.py", "package", "nobody = 1\nnobody_else = 2\nwhoever = 3")
    used = Allowed("nobody", "pythpeer/*.py", "else", "a reason")
    unused = [
        Allowed("nobody", "tests/*.py", "", "of another file"),
        Allowed("nobody", "pythpeer/*.py", "another", "of another text"),
        Allowed("somebody", "pythpeer/*.py", "", "of another pattern"),
    ]
    hits, left = find_retired([source], [used, *unused])
    assert [hit.text for hit in hits] == ["nobody", "whoever"]
    assert left == unused


def test_every_exception_names_a_pattern_and_a_reason() -> None:
    """A pattern that was changed must not leave an exception behind."""
    patterns = {retired.pattern for retired in RETIRED}
    assert {allowed.pattern for allowed in ALLOWED} <= patterns
    assert all(allowed.reason for allowed in ALLOWED)


def test_every_pattern_says_what_to_write_instead() -> None:
    """And stands once in the table."""
    assert all(retired.instead for retired in RETIRED)
    assert len({retired.pattern for retired in RETIRED}) == len(RETIRED)


# -- the lists and the program --------------------------------------------------------------------


def test_the_lists_are_words_and_nothing_else() -> None:
    """The field's list is sorted, has each word once, and is short."""
    lines = FIELD_WORDS.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(set(lines))
    assert 2000 < len(lines) <= MAX_WORDS
    assert all(re.fullmatch("[a-z]+", word) for word in (*lines, *words.read_words(OWN_WORDS)))


def test_words_of_two_libraries_are_chosen() -> None:
    """Of more, where the list would be too long."""
    counted = Counter({"alpha": 1, "beta": 2, "gamma": 3, "delta": 2})
    assert choose(counted, 3) == ["beta", "delta", "gamma"]
    assert choose(counted, 2) == ["gamma"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that the program runs on, with no exceptions."""
    monkeypatch.setattr(words, "ROOT", tmp_path)
    monkeypatch.setattr(words, "find_retired", lambda sources: find_retired(sources, ()))
    (tmp_path / "pythpeer").mkdir()
    return tmp_path


def test_the_program_fails_on_a_retired_word(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints file and line, and what to write; with --report it does not fail."""
    (project / "pythpeer" / "sample.py").write_text(WITH_RETIRED, encoding="utf-8")
    assert words.main([]) == 1
    report = capsys.readouterr().out
    assert "12 uses of retired words" in report
    assert "pythpeer/sample.py:2: 'shelf': write log state\n" in report
    assert "shelf" not in report.partition("uses of retired words")[0]
    assert words.main(["--report"]) == 0
    assert capsys.readouterr().out == report


def test_the_program_passes_without_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are printed all the time."""
    (project / "pythpeer" / "sample.py").write_text(WITHOUT_RETIRED, encoding="utf-8")
    (project / "README.md").write_text("Nothing.", encoding="utf-8")
    assert words.main([]) == 0
    report = capsys.readouterr().out
    assert "0 uses of retired words" in report
    assert re.search(r"^package +\d+ +0 +0\.0% ", report, re.MULTILINE)


def test_rare_words_are_printed_with_locations(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The most frequent first."""
    text = "zyzzyva = 1\nclass ZyzzyvaQuux: ..."
    (project / "pythpeer" / "sample.py").write_text(text, encoding="utf-8")
    words.main([])
    report = capsys.readouterr().out
    first, second = re.findall(r"^(?:zyzzyva|quux) .*$", report, re.MULTILINE)
    assert first.split(maxsplit=2) == [
        "zyzzyva",
        "2",
        "pythpeer/sample.py:1 zyzzyva; pythpeer/sample.py:2 ZyzzyvaQuux",
    ]
    assert second.split(maxsplit=2) == ["quux", "1", "pythpeer/sample.py:2 ZyzzyvaQuux"]
