"""The one type that hides keys.

A key is text only twice: where the user hands it over, and in the frame that writes the request.
Everywhere between it is a `Secret`, which no repr, log record, traceback or pickle can show.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn, SupportsIndex, final
from urllib.parse import quote

from .errors import InvalidRequestError

__all__ = ["Secret"]


def _problem(value: object) -> str | None:
    """Say what is wrong with *value* as a key, without showing any of it."""
    if not isinstance(value, str):
        return f"a key is text, not {type(value).__name__}"
    if not value:
        return "a key must not be empty"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in value):
        return "a key has no line breaks and no other control characters in it"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "a key must be encodable: it has a lone surrogate in it"
    return None


@final
class Secret:
    """A key that shows itself only when asked by name: ``Secret("x").reveal()``.

    Its ``repr``, ``str`` and ``format`` show nothing, it has no ``__dict__``, and it refuses to
    pickle. Two secrets are equal when their texts are.

    Raises `InvalidRequestError` for anything but non-empty text without control characters
    and lone surrogates.
    """

    __slots__ = ("__encoded", "__value", "__weakref__")

    def __init__(self, value: str) -> None:
        fault = _problem(value)
        if fault is not None:
            value = ""  # this frame is part of the traceback, and tracebacks can show locals
            raise InvalidRequestError(fault)
        self.__value = value
        self.__encoded = quote(value, safe="")

    @classmethod
    def try_wrap(cls, value: object) -> Secret | InvalidRequestError | None:
        """Turn *value* into a secret, or say what is wrong with it.

        The error comes back as a value, for the caller to raise once the text is out of its
        frame; ``None`` stays ``None``.
        """
        if value is None or isinstance(value, Secret):
            return value
        if isinstance(value, str) and _problem(value) is None:
            return Secret(value)
        return InvalidRequestError(_problem(value) or "")

    def reveal(self) -> str:
        """The key itself."""
        return self.__value

    def encoded(self) -> str:
        """The key percent-encoded, as it stands in a query."""
        return self.__encoded

    def fingerprint(self) -> str:
        """A short digest that tells keys apart in a store without being one."""
        return hashlib.blake2b(self.__value.encode(), digest_size=8, person=b"pythpeer").hexdigest()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret refuses to be pickled")
