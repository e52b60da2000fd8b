"""The scripts that run on the server, each as one step that nobody can come between.

They lie beside this module as Lua, and are known to the server by their digests; a server that has
forgotten one is told it again.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

__all__ = ["Script", "script"]


class Script:
    """One script: its text, and the digest by which the server knows it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.digest: Final = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str, *, with_common: bool = False) -> Script:
    """The script of that name; those *of a log* begin with what they have in common."""
    names = ["log", name] if with_common else [name]
    folder = files(__name__.rpartition(".")[0])
    return Script("".join(folder.joinpath(f"{each}.lua").read_text("utf-8") for each in names))
