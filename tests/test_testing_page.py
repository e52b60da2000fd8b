"""Tests the page "Test your bot": its bot, its tests and its programs run unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from helpers import with_examples
from inner_pytest import run_pytest

pytest_plugins = ("pytester",)

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(
    re.findall(
        r'^```python title="([^"]+)"\n(.*?)^```', with_examples(PAGE), re.DOTALL | re.MULTILINE
    )
)
SETTINGS: Final = "".join(
    re.findall(r'^```ini title="pytest.ini"\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
)
"""The settings for pytest-asyncio."""

ASYNCIO_CONFTEST: Final = "conftest.py for pytest-asyncio"
"""The title of the block that replaces ``conftest.py``."""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    """A folder with the files that a reader of the page saves."""
    for name, text in BLOCKS.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    (pytester.path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return pytester.path


def test_every_block_has_a_title() -> None:
    """So each block is in a file of `folder`, and runs in a test below."""
    assert len(re.findall("^```python", PAGE, re.MULTILINE)) == len(BLOCKS) == 6


def test_all_tests_of_the_page_pass(folder: Path, pytester: pytest.Pytester) -> None:
    """They pass unchanged. This takes long because one of them is an hour of chat."""
    outcome = run_pytest(pytester, "-p", "no:asyncio")
    assert outcome.counts == {"passed": 15}, outcome.text


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_page_with_pytest_asyncio(folder: Path, pytester: pytest.Pytester, mode: str) -> None:
    """They pass with the other conftest, and with the other mark, or without one in auto mode."""
    (folder / "conftest.py").write_text(BLOCKS[ASYNCIO_CONFTEST], encoding="utf-8")
    (folder / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    for name in ("test_bot.py", "test_more.py"):
        mark = "" if mode == "auto" else "pytestmark = pytest.mark.asyncio"
        text = BLOCKS[name].replace("pytestmark = pytest.mark.anyio", mark)
        (folder / name).write_text(text, encoding="utf-8")
    options = ("-p", "no:anyio", "--asyncio-mode", mode, "-k", "not hour")
    outcome = run_pytest(pytester, *options)
    assert outcome.counts == {"passed": 14, "deselected": 1}, outcome.text


def test_the_tests_of_the_page_can_fail(folder: Path, pytester: pytest.Pytester) -> None:
    """A bot that repeats a post with an unknown outcome fails, and so does one without answers."""
    for right, wrong, failed in [
        ('not sent again: %s", error)\n            return True', 'sent again: %s", error)', 1),
        ('text = f"pong, {message.sender}"', "return None", 5),
    ]:
        text = BLOCKS["bot.py"]
        assert right in text
        (folder / "bot.py").write_text(text.replace(right, wrong), encoding="utf-8")
        outcome = run_pytest(pytester, "-p", "no:asyncio", "-k", "not hour", "test_bot.py")
        assert outcome.counts["failed"] == failed, outcome.text


def test_the_rehearsal_program(folder: Path) -> None:
    """It prints a minute of chat, with messages of the bot."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "rehearsal.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) > 50
    assert " 'pythpeer': 'pong, " in result.stdout
