"""The output of commands: a terminal or a pipe, as text or as JSON.

There are three forms. On a terminal: columns and colours, wrapped to its width. Elsewhere: one
plain line for each row. With ``--json``: one JSON object on each line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from shutil import get_terminal_size
from typing import Any, Final

import msgspec
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment

from ...dice import DiceRoll
from ...peerbet import ChatMessage
from ...pythbots import ChatStats, Mail, StaffMember, User
from ...sanitize import sanitize
from .colours import THEME_16, THEME_256
from .ndjson import json_line

__all__ = ["as_json", "is_interactive", "make_console", "print_line", "write_json"]


MIN_WIDTH: Final = 20
"""The least width that is assumed: with less, the formatter of the help fails or does not end."""


class _Console(Console):
    """A rich console that prints no control character of any text.

    It raises an error for a broken pipe instead of exiting.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        # Everything that is printed comes through here, whichever renderable it is part of.
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(sanitize, segment.text.split("\n"))), segment.style)

    @property
    def size(self) -> ConsoleDimensions:
        """The columns, at least `MIN_WIDTH`, and the lines."""
        size = super().size
        width = size.width or get_terminal_size().columns  # COLUMNS=0 is as if it was not set
        return size._replace(width=max(width, MIN_WIDTH))

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self.width, self.height = new_size

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console(*, stderr: bool = False) -> Console:
    """Return the console; without a terminal, or with ``NO_COLOR``, it prints no escapes."""
    console = _Console(
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        force_terminal=(sys.stderr if stderr else sys.stdout).isatty(),
        no_color=False,
        markup=False,
        emoji=False,
        highlight=False,
        stderr=stderr,
    )
    if console.is_dumb_terminal:
        # rich assumes 80 columns for all of them.
        console.size = ConsoleDimensions(*get_terminal_size())
    console.push_theme(THEME_16 if console.color_system == "standard" else THEME_256)
    return console


def is_interactive(console: Console) -> bool:
    """Return whether it is a terminal on which printed lines can be replaced."""
    return console.is_terminal and not console.is_dumb_terminal


def print_line(*cells: str) -> None:
    """Print one line, with tabs between *cells*, without control characters in them."""
    print("\t".join(map(sanitize, cells)), flush=True)


def write_json(kind: str, fields: Mapping[str, object]) -> None:
    """Print one row of NDJSON, in UTF-8 for every encoding of the terminal."""
    sys.stdout.buffer.write(json_line({"kind": kind, **fields}))
    sys.stdout.buffer.flush()


def as_json(
    item: ChatMessage | Mail | User | StaffMember | ChatStats | DiceRoll,
) -> dict[str, Any]:
    """Return the public fields of a model."""
    if not isinstance(item, ChatMessage):
        fields: dict[str, Any] = msgspec.to_builtins(item)
        return fields
    return {
        "id": item.id,
        "sender": item.sender,
        "recipient": item.recipient,
        "text": item.text,
        "sent_at": item.sent_at and item.sent_at.isoformat(),
        "is_bot": item.is_bot,
        "is_mine": item.is_mine,
        "is_private": item.is_private,
    }
