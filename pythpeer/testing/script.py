"""Scripts: for each line the speaker, the text, and how it is sent. Pure.

::

    alice: a message to everyone
    bob* a message as a bot
    alice> a private message to the fake's own user
    bob@ a mail to the fake's own user

    alice: blank lines separate scenes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from ..errors import InvalidRequestError

__all__ = ["How", "ScriptLine", "read_scenes"]

How = Literal["chat", "bot", "private", "mail"]

_HOW: Final[Mapping[str, How]] = {":": "chat", "*": "bot", ">": "private", "@": "mail"}
_LINE: Final = re.compile(r"(?P<role>\w+)(?P<how>[:*>@]) (?P<text>.*\S.*)")
_ROLE: Final = re.compile(r"\{(\w+)\}")


class ScriptLine(NamedTuple):
    """One line of a script."""

    role: str
    """The sender, or a role that `with_cast` replaces by a person."""

    how: How
    """The kind of message."""

    text: str
    """The text, in which ``{role}`` stands for a person."""

    def with_cast(self, cast: Mapping[str, str]) -> ScriptLine:
        """Return the line with people in place of roles: as its sender, and for ``{role}``."""
        text = _ROLE.sub(lambda match: cast.get(match[1], match[0]), self.text)
        return ScriptLine(cast.get(self.role, self.role), self.how, text)


def read_scenes(script: str) -> list[list[ScriptLine]]:
    """Return the scenes of *script* as lists of lines. Raises `InvalidRequestError`."""
    scenes: list[list[ScriptLine]] = [[]]
    for line in map(str.strip, script.splitlines()):
        match = _LINE.fullmatch(line)
        if match:
            scenes[-1].append(ScriptLine(match["role"], _HOW[match["how"]], match["text"]))
        elif line:
            raise InvalidRequestError(f"not a script line such as 'alice: hello': {line!r}")
        elif scenes[-1]:
            scenes.append([])
    return [scene for scene in scenes if scene]
