"""Writes the programs of the pages into files: ``page_programs.py FOLDER``.

`nox -s typing` then checks their types, as a user does who copies one of them.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BLOCK: Final = re.compile(
    r'^```python(?: title="[^"]*")?\n(?!--8<--)(.*?)^```', re.DOTALL | re.MULTILINE
)
"""A program of a page; the included ones are files already."""

FRAGMENTS: Final = ("await session.aclose()", "for part in split_text(text):")
"""What is in blocks that are no programs: a cell of a notebook, and lines for the loop of a bot."""


def programs() -> Iterator[tuple[str, str]]:
    """Return the name of a module, and the text, of each program."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        stem = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
        for number, program in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            if not any(fragment in program for fragment in FRAGMENTS):
                yield f"{stem}_{number}", program


def main(folder: str) -> None:
    """Write all of them, with the bot that the tests of the page "Test your bot" import."""
    for name, program in programs():
        (Path(folder) / f"{name}.py").write_text(program, encoding="utf-8")
    shutil.copy(ROOT / "docs" / "examples" / "survivor.py", Path(folder) / "bot.py")


if __name__ == "__main__":
    main(*sys.argv[1:])
