"""Options that several commands have, spelled and explained once."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["Flag", "Json", "Messages", "Name", "Stdin", "StorePath"]

Flag: Final = Parameter(negative=(), show_default=False)

Json = Annotated[bool, Flag, Parameter(help="Print one JSON object on each line.")]

Stdin = Annotated[bool, Flag, Parameter(name="-", help="Take the text from stdin.")]
"""A lone hyphen is an option to cyclopts: so it is one here."""

Messages = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="End after this many rows.")
]

Name = Annotated[
    str | None,
    Parameter(help="Go on where the last command of this name stopped, if the store has that."),
]

StorePath = Annotated[
    str | None,
    Parameter(
        name="--store",
        help="Remember places and share the pace in this file; PYTHPEER_STORE is the default.",
    ),
]
