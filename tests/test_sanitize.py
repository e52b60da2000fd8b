"""`sanitize` and `printable`: foreign text is safe for a terminal and for a log."""

from __future__ import annotations

import ast
import pickle
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import DEEP, examples
from hypothesis import given, settings
from hypothesis import strategies as st

import pythpeer
from pythpeer import InvalidRequestError, StoreError
from pythpeer.cli.output.console import make_console
from pythpeer.cli.output.ndjson import json_line
from pythpeer.sanitize import printable, sanitize

CLI = Path(pythpeer.__file__).parent / "cli"

HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x1b\x9b\x9d\x90\x98\x9e\x9f\x9c\x07[]()P;?0123mHJ\\\r\n\t\x08\x7f\x85"),
        st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp")),
        st.characters(),
    ),
    max_size=60,
)


def assert_harmless(text: str) -> None:
    """Fail for an escape, another control, a bidirectional or invisible one, half of a pair."""
    for character in text:
        category = unicodedata.category(character)
        allowed = character in "\u200c\u200d"
        assert allowed or category not in ("Cc", "Cf", "Cs", "Zl", "Zp"), ascii(text)


@settings(max_examples=examples(1000))
@given(HOSTILE)
def test_nothing_is_left_that_a_terminal_interprets(text: str) -> None:
    """Whatever the text, and cleaning it again changes nothing."""
    cleaned = sanitize(text)
    assert_harmless(cleaned)
    assert sanitize(cleaned) == cleaned
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=60))
def test_visible_text_is_unchanged(text: str) -> None:
    """In every script."""
    assert sanitize(text) == printable(text) == text


@pytest.mark.parametrize(
    "piece",
    ["\x9d", "\x1b]", "\x90\x98", "\x9e\x9f\x9d", "\x9b", "\x1b[0", "\x9b0;", "\x1b ", "\x9d\x9b0"],
    ids=ascii,
)
def test_the_time_is_proportional_to_the_length(piece: str) -> None:
    """A sequence that never ends is not searched to the end from each of its characters.

    A quadratic search of 300,000 characters would take some ten minutes.
    """
    count = (500_000 if DEEP else 300_000) // len(piece)
    assert_harmless(sanitize(piece * count)[:1000])
    assert sanitize(piece * count + "\x1b[31mend").endswith("end")


@settings(max_examples=examples(200))
@given(HOSTILE)
def test_no_error_has_a_control_character(text: str) -> None:
    """Texts of servers, of services and of arguments can be part of one."""
    for error in (StoreError(text), InvalidRequestError(text, endpoint="peerbet.chat.get")):
        assert str(error).isprintable()
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@settings(max_examples=examples(200))
@given(HOSTILE)
def test_no_console_prints_a_control_character(text: str) -> None:
    """Whatever is printed, also if the command did not clean it, and as JSON."""
    console = make_console()
    with console.capture() as capture:
        console.print(text)
    assert_harmless(capture.get().replace("\n", ""))
    assert_harmless(json_line({"text": text}).decode().removesuffix("\n"))


def calls(path: Path) -> Iterator[str]:
    """Yield the name of each function that a module calls directly."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_commands_print_in_one_module_only() -> None:
    """Everything that the command line prints goes through the sanitizer there.

    `runtime` prints errors, without rich. The others print texts of the program itself: its
    version, its help, its questions, and the script for a shell.
    """
    own_texts = {"__init__.py", "overview.py", "input.py", "completion.py"}
    printing = {path.relative_to(CLI).as_posix() for path in CLI.rglob("*.py") if is_printing(path)}
    assert printing == {"output/console.py", "runtime.py", *own_texts}


def is_printing(path: Path) -> bool:
    return not {"print", "Console"}.isdisjoint(calls(path))
