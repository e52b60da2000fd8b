"""The page "Test your bot": its bot, its tests and its programs run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from inner_pytest import run_pytest

pytest_plugins = ("pytester",)

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(
    re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
)
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
OTHER: Final = "conftest.py for pytest-asyncio"


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    """A folder with what a reader of the page has saved."""
    for name, text in BLOCKS.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    (pytester.path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return pytester.path


def test_every_block_has_a_title() -> None:
    """And so every block is run below."""
    assert len(re.findall("^```python", PAGE, re.MULTILINE)) == len(BLOCKS) == 6


def test_the_page_as_it_stands(folder: Path, pytester: pytest.Pytester) -> None:
    """Saved and run, all of its tests pass; an hour of chat takes its seconds."""
    outcome = run_pytest(pytester, "-p", "no:asyncio")
    assert outcome.counts == {"passed": 11}, outcome.text


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_page_with_pytest_asyncio(folder: Path, pytester: pytest.Pytester, mode: str) -> None:
    """So they do with the other conftest, and with the other mark, or with none in auto mode."""
    (folder / "conftest.py").write_text(BLOCKS[OTHER], encoding="utf-8")
    for name in ("test_bot.py", "test_more.py"):
        mark = "" if mode == "auto" else "pytestmark = pytest.mark.asyncio"
        text = BLOCKS[name].replace("pytestmark = pytest.mark.anyio", mark)
        (folder / name).write_text(text, encoding="utf-8")
    scope = "asyncio_default_fixture_loop_scope=function"
    options = ("-p", "no:anyio", "--asyncio-mode", mode, "-o", scope, "-k", "not hour")
    outcome = run_pytest(pytester, *options)
    assert outcome.counts == {"passed": 10, "deselected": 1}, outcome.text


def test_the_tests_of_the_page_can_fail(folder: Path, pytester: pytest.Pytester) -> None:
    """A bot that posts again what it is not sure of is found out, and so is one that is mute."""
    for right, wrong, failed in [
        ("pass  # sent or not", "await session.peerbet.post(answer, bot=True)  #", 1),
        ('return "pong"', "return None", 3),
    ]:
        text = BLOCKS["bot.py"]
        assert right in text
        (folder / "bot.py").write_text(text.replace(right, wrong), encoding="utf-8")
        outcome = run_pytest(pytester, "-p", "no:asyncio", "-k", "not hour", "test_bot.py")
        assert outcome.counts["failed"] == failed, outcome.text


def test_the_rehearsal(folder: Path) -> None:
    """A minute of chat is printed, with the bot in it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "rehearsal.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout
    assert len(printed.splitlines()) > 50
    assert " pythpeer: pong\n" in printed
