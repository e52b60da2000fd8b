"""The options that several commands have."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["Flag", "Json", "Mails", "Messages", "MessagesAndMails", "Name", "Stdin", "StorePath"]

Flag: Final = Parameter(negative=(), show_default=False)

Json = Annotated[bool, Flag, Parameter(help="Print one JSON object on each line.")]

Stdin = Annotated[bool, Flag, Parameter(name="-", help="Read the text from stdin.")]
"""A single hyphen is an option for cyclopts, so it is declared as one."""


def _end_after(items: str) -> Parameter:
    return Parameter(
        name="--messages", validator=Number(gte=1), help=f"End after this many {items}."
    )


Messages = Annotated[int | None, _end_after("messages")]

Mails = Annotated[int | None, _end_after("mails")]

MessagesAndMails = Annotated[int | None, _end_after("messages and mails")]

Name = Annotated[
    str | None,
    Parameter(
        help="Resume where the last command with this name stopped; without a store, the position"
        " is lost at the end."
    ),
]

StorePath = Annotated[
    str | None,
    Parameter(
        name="--store",
        help="Keep positions and pacing in this file; PYTHPEER_STORE is the default.",
    ),
]
