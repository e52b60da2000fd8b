"""`script`: loads the Lua scripts, each of which the server executes as one atomic step.

They are files in the folder ``lua``. The server identifies a script by its digest; a server that
does not have it receives its text.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

__all__ = ["Script", "script"]


class Script:
    """One script: its text, and the digest by which the server identifies it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.digest: Final = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str, *, with_common: bool = False) -> Script:
    """Return the script of that name, after ``_clock.lua``, and ``_common.lua`` if about a log."""
    names = ["_clock", "_common", name] if with_common else ["_clock", name]
    folder = files(__name__.rpartition(".")[0]).joinpath("lua")
    texts = [folder.joinpath(f"{file_name}.lua").read_text("utf-8") for file_name in names]
    return Script("".join(texts))
