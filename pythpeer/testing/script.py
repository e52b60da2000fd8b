"""Scripts: who says what, and how, line by line. Pure.

::

    alice: said to everyone
    bob* said as a bot
    alice> said to the fake's own user alone
    bob@ sent to them by mail

    alice: blank lines stand between scenes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from ..errors import InvalidRequestError

__all__ = ["How", "ScriptLine", "read_scenes"]

How = Literal["chat", "bot", "private", "mail"]

_HOW: Final[Mapping[str, How]] = {":": "chat", "*": "bot", ">": "private", "@": "mail"}
_LINE: Final = re.compile(r"(?P<who>\w+)(?P<how>[:*>@]) (?P<text>.*\S.*)")
_ROLE: Final = re.compile(r"\{(\w+)\}")


class ScriptLine(NamedTuple):
    """One line of a script."""

    who: str
    how: How
    text: str

    def with_cast(self, cast: Mapping[str, str]) -> ScriptLine:
        """The line with people in the place of roles: who says it, and ``{role}`` in its text."""
        text = _ROLE.sub(lambda match: cast.get(match[1], match[0]), self.text)
        return ScriptLine(cast.get(self.who, self.who), self.how, text)


def read_scenes(script: str) -> list[list[ScriptLine]]:
    """The scenes of *script*, each its lines. Raises `InvalidRequestError`."""
    scenes: list[list[ScriptLine]] = [[]]
    for line in map(str.strip, script.splitlines()):
        match = _LINE.fullmatch(line)
        if match:
            scenes[-1].append(ScriptLine(match["who"], _HOW[match["how"]], match["text"]))
        elif line:
            raise InvalidRequestError(f"no line of a script, such as 'alice: hello': {line!r}")
        elif scenes[-1]:
            scenes.append([])
    return [scene for scene in scenes if scene]
