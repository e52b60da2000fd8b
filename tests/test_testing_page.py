"""The page "Test your bot": its bot, its tests and its programs run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(
    re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
)
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
OTHER: Final = "conftest.py for pytest-asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what a reader of the page has saved."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return tmp_path


def run(folder: Path, *command: str) -> str:
    """What a command prints that does well, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_pytest(folder: Path, *options: str) -> str:
    others = ("no:randomly", "no:hypothesispytest", "no:cacheprovider")
    plugins = [part for name in others for part in ("-p", name)]
    return run(folder, "-m", "pytest", "-W", "error", *plugins, *options)


def test_every_block_has_a_title() -> None:
    """And so every block is run below."""
    assert len(re.findall("^```python", PAGE, re.MULTILINE)) == len(BLOCKS) == 6


def test_the_page_as_it_stands(folder: Path) -> None:
    """Saved and run, all of its tests pass."""
    assert " 11 passed" in run_pytest(folder, "-p", "no:asyncio")


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_page_with_pytest_asyncio(folder: Path, mode: str) -> None:
    """So they do with the other conftest, and with the other mark, or with none in auto mode."""
    (folder / "conftest.py").write_text(BLOCKS[OTHER], encoding="utf-8")
    for name in ("test_bot.py", "test_more.py"):
        mark = "" if mode == "auto" else "pytestmark = pytest.mark.asyncio"
        text = BLOCKS[name].replace("pytestmark = pytest.mark.anyio", mark)
        (folder / name).write_text(text, encoding="utf-8")
    scope = "asyncio_default_fixture_loop_scope=function"
    options = ("-p", "no:anyio", "--asyncio-mode", mode, "-o", scope, "-k", "not hour")
    assert " 10 passed" in run_pytest(folder, *options)


def test_the_tests_of_the_page_can_fail(folder: Path) -> None:
    """A bot that posts again what it is not sure of is found out, and so is one that is mute."""
    for right, wrong, failed in [
        ("pass  # sent or not", "await session.peerbet.post(answer, bot=True)  #", 1),
        ('return "pong"', "return None", 3),
    ]:
        text = BLOCKS["bot.py"]
        assert right in text
        (folder / "bot.py").write_text(text.replace(right, wrong), encoding="utf-8")
        with pytest.raises(AssertionError, match=f" {failed} failed"):
            run_pytest(folder, "-p", "no:asyncio", "-k", "not hour", "test_bot.py")


def test_the_rehearsal(folder: Path) -> None:
    """A minute of chat is printed, with the bot in it."""
    printed = run(folder, "rehearsal.py")
    assert len(printed.splitlines()) > 50
    assert " pythpeer: pong\n" in printed
