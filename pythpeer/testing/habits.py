"""What no document says about the services, and so may turn out either way: as switches.

Every default is what is documented or, where nothing is, what is most natural. A client that gets
the same out of all of them is ready for whichever the real services have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypedDict, Unpack

import msgspec

from ..errors import InvalidRequestError

__all__ = ["BOM", "PHP_WARNING", "QuirkOptions", "Quirks", "habits_from"]

BOM: Final = "\ufeff"
"""A byte-order mark, for ``prefix``: a PHP file that was saved with one prints it first."""

PHP_WARNING: Final = (
    "<br />\n<b>Warning</b>:  Undefined array key 3 in <b>/var/www/api.php</b> on line <b>7</b>"
    "<br />\n"
)
"""What PHP prints when something is odd and nobody switched it off, for ``prefix``."""

Window = Literal["newest", "oldest"]
Order = Literal["ascending", "descending", "shuffled"]
Empty = Literal["list", "null", "object"]


class QuirkOptions(TypedDict, total=False):
    """The habits that `FakeServices` can be given, each as described in `Habits`."""

    window: Window
    overlap: int
    repeat: int
    order: Order
    numbered: bool
    wrapped: bool
    empty: Empty
    numbers_as_strings: bool
    bits_as_booleans: bool
    mail_ids: bool
    readall_marks: bool
    names: Mapping[str, str | None]
    personal_key_param: str
    refusal_status: int
    prefix: str
    content_type: str


class Quirks(
    msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True, forbid_unknown_fields=True
):
    """How the services behave where nothing is documented. `FakeServices` takes each by name."""

    window: Window = "newest"
    """Which messages come where there are more after ``mid`` than one answer holds."""

    overlap: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many messages up to ``mid`` come once more: 1 is ``mid`` itself."""

    repeat: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How often each message stands in an answer."""

    order: Order = "ascending"
    """In which order messages and mails come, by their ids."""

    numbered: bool = False
    """Whether a list is an object with numbers for keys, as PHP makes of some arrays."""

    wrapped: bool = False
    """Whether the lists of PythBots, of staff and mails, stand one level down in an object."""

    empty: Empty = "list"
    """What an empty list is: ``[]``, ``null`` or ``{}``."""

    numbers_as_strings: bool = False
    """Whether numbers, and bits with them, are strings: ``"1"``."""

    bits_as_booleans: bool = False
    """Whether bits are ``true`` and ``false`` instead of 1 and 0."""

    mail_ids: bool = True
    """Whether mails have an ``id``."""

    readall_marks: bool = False
    """Whether ``readall`` marks mail as read."""

    names: Mapping[str, str | None] = {}
    """Other names for fields of PythBots, such as ``{"from": "sender"}``; ``None`` leaves one
    out."""

    personal_key_param: Annotated[str, msgspec.Meta(min_length=1)] = "personalkey"
    """How the parameter for the personal key is spelled; ``personal_key`` is the likely other."""

    refusal_status: Annotated[int, msgspec.Meta(ge=200, le=499)] = 200
    """The HTTP status around a refusal that has no other for a reason."""

    prefix: str = ""
    """What is printed before the JSON: `BOM`, `PHP_WARNING`, or both."""

    content_type: str = "text/html"
    """What the answers say that they are."""


def habits_from(old: Quirks, **changes: Unpack[QuirkOptions]) -> Quirks:
    """Return *old* with *changes*. Raises `InvalidRequestError` for what is no habit."""
    try:
        return msgspec.convert({**msgspec.structs.asdict(old), **changes}, Quirks)
    except msgspec.ValidationError as error:
        words = str(error)
    raise InvalidRequestError(f"no such habit: {words}")
