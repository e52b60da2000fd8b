"""The options that several commands have."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["Flag", "Json", "Messages", "Name", "Stdin", "StorePath"]

Flag: Final = Parameter(negative=(), show_default=False)

Json = Annotated[bool, Flag, Parameter(help="Print one JSON object on each line.")]

Stdin = Annotated[bool, Flag, Parameter(name="-", help="Read the text from stdin.")]
"""A single hyphen is an option for cyclopts, so it is declared as one."""

Messages = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="End after this many messages or mails.")
]

Name = Annotated[
    str | None,
    Parameter(help="Resume where the last command with this name stopped; it requires a store."),
]

StorePath = Annotated[
    str | None,
    Parameter(
        name="--store",
        help="Keep positions and pacing in this file; PYTHPEER_STORE is the default.",
    ),
]
