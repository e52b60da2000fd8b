"""`Quirks`: what is undocumented about the services, as switches.

Every default is what is documented or, where nothing is, what is most natural. A client that gets
the same results with all of them works with the real services, whichever they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypedDict, Unpack

import msgspec

from ..errors import InvalidRequestError

__all__ = ["BOM", "PHP_WARNING", "QuirkOptions", "Quirks", "make_quirks"]

BOM: Final = "\ufeff"
"""A byte-order mark, for ``prefix``: a PHP file that was saved with one prints it first."""

PHP_WARNING: Final = (
    "<br />\n<b>Warning</b>:  Undefined array key 3 in <b>/var/www/api.php</b> on line <b>7</b>"
    "<br />\n"
)
"""A warning as PHP prints it unless its configuration forbids that, for ``prefix``."""

Window = Literal["newest", "oldest"]
Order = Literal["ascending", "descending", "shuffled"]
Empty = Literal["list", "null", "object"]
DeadKey = Literal["rejected", "ignored"]


class QuirkOptions(TypedDict, total=False):
    """The quirks as keyword arguments, each as described in `Quirks`."""

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
    dead_key: DeadKey
    refusal_status: int
    prefix: str
    content_type: str


class Quirks(
    msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True, forbid_unknown_fields=True
):
    """The undocumented behaviour of the fake services; `FakeServices` takes each field by name."""

    window: Window = "newest"
    """Which messages a response contains where more follow ``mid`` than it can hold."""

    overlap: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many messages up to ``mid`` a response repeats: 1 is ``mid`` itself."""

    repeat: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How often a response contains each message."""

    order: Order = "ascending"
    """The order of messages and mails in a response, by their ids."""

    numbered: bool = False
    """Whether a list is an object whose keys are numbers, as PHP makes of some arrays."""

    wrapped: bool = False
    """Whether PythBots' lists, of staff and of mails, are inside an object."""

    empty: Empty = "list"
    """The JSON of an empty list: ``[]``, ``null`` or ``{}``."""

    numbers_as_strings: bool = False
    """Whether numbers, and bits as well, are strings: ``"1"``."""

    bits_as_booleans: bool = False
    """Whether bits are ``true`` and ``false`` instead of 1 and 0."""

    mail_ids: bool = True
    """Whether mails have an ``id``."""

    readall_marks: bool = False
    """Whether ``readall`` marks mail as read."""

    names: Mapping[str, str | None] = {}
    """Other names of PythBots' fields, such as ``{"from": "sender"}``; ``None`` omits a field."""

    personal_key_param: Annotated[str, msgspec.Meta(min_length=1)] = "personal_key"
    """The name of the parameter for the personal key; the documentation prints ``personalkey``."""

    dead_key: DeadKey = "rejected"
    """How the chat is read with a key that Peerbet does not know: not at all, or as without a key,
    with neither private messages nor marks of one's own."""

    refusal_status: Annotated[int, msgspec.Meta(ge=200, le=499)] = 200
    """The HTTP status of API errors that have no specific one."""

    prefix: str = ""
    """Text before the JSON: `BOM`, `PHP_WARNING`, or both."""

    content_type: str = "text/html"
    """The ``Content-Type`` of responses."""


def make_quirks(old: Quirks, **changes: Unpack[QuirkOptions]) -> Quirks:
    """Return *old* with *changes*. Raises `InvalidRequestError` for an unknown or invalid quirk."""
    unknown = [name for name in changes if name not in Quirks.__struct_fields__]
    if unknown:
        names = ", ".join(Quirks.__struct_fields__)
        raise InvalidRequestError(f"there is no quirk or argument {unknown[0]!r}; quirks: {names}")
    try:
        return msgspec.convert({**msgspec.structs.asdict(old), **changes}, Quirks)
    except msgspec.ValidationError as error:
        reason = str(error)
    raise InvalidRequestError(f"invalid quirk: {reason}")
