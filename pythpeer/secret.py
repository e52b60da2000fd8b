"""Secret: the type that hides keys.

A key is text in two frames only: where the user passes it, and where the request is written.
Everywhere else it is a `Secret`, which no repr, log record, traceback or pickle can show.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, NoReturn, SupportsIndex, final
from urllib.parse import quote

from .deprecation import warn_renamed
from .errors import InvalidRequestError, Result

__all__ = ["Secret", "account_of"]

ANONYMOUS_ACCOUNT: Final = "nobody"
"""The account of requests without a key. It is part of keys in stores, so its text is fixed."""


def _problem(value: object) -> str | None:
    """Return why *value* is not a valid key, without any part of it; ``None`` if it is valid."""
    if not isinstance(value, str):
        return f"a key must be a str, not {type(value).__name__}"
    if not value:
        return "a key must not be empty"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in value):
        return "a key must not contain line breaks or other control characters"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "a key must not contain a lone surrogate"
    return None


def _keep(text: str) -> Callable[[], str]:
    """Return a function that returns *text*, and whose ``repr`` does not show it.

    It is one of C, because a function of Python has a frame, whose variables a traceback can show.
    """
    function: Callable[[], str] = str.__str__.__get__(text)
    return function


@final
class Secret:
    """A key whose text is shown only by an explicit call: ``Secret("x").reveal()``.

    Its ``repr``, ``str`` and ``format`` show ``***`` only, none of its attributes is the text, and
    pickling it raises ``TypeError``. Two secrets are equal when their texts are equal.

    Args:
        value: The key: text that is not empty, without control characters and lone surrogates.

    Raises:
        InvalidRequestError: *value* is not such a text. The error does not show it.
    """

    # The texts are kept in functions, because many programs show the attributes of an object.
    __slots__ = ("__encoded", "__value", "__weakref__")

    def __init__(self, value: str) -> None:
        problem = _problem(value)
        if problem is not None:
            value = ""  # this frame is part of the traceback, and tracebacks can show locals
            raise InvalidRequestError(problem)
        self.__value = _keep(value)
        self.__encoded = _keep(quote(value, safe=""))

    @classmethod
    def try_wrap(cls, value: object) -> Result[Secret | None]:
        """Return *value* as a secret, or the error if it is not a valid key; ``None`` for ``None``.

        The error is returned and not raised, because the caller must first remove the text from
        its own frame.
        """
        if value is None or isinstance(value, Secret):
            return value
        if isinstance(value, str) and _problem(value) is None:
            return Secret(value)
        return InvalidRequestError(_problem(value) or "")

    @classmethod
    def wrap(cls, value: object) -> Result[Secret | None]:
        """Deprecated name of `try_wrap`."""
        warn_renamed("Secret.wrap()", "Secret.try_wrap()")
        return cls.try_wrap(value)

    def reveal(self) -> str:
        """Return the key as text."""
        return self.__value()

    def encoded(self) -> str:
        """Return the key percent-encoded, as it is written into a query."""
        return self.__encoded()

    def fingerprint(self) -> str:
        """Return a short digest that distinguishes keys in a store without revealing them."""
        return hashlib.blake2b(
            self.__value().encode(), digest_size=8, person=b"pythpeer"
        ).hexdigest()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value().encode(), other.__value().encode())

    def __hash__(self) -> int:
        return hash((Secret, self.__value()))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_Secret__")]

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def account_of(key: Secret | None) -> str:
    """Return the name under which stores keep what belongs to the account of a key."""
    return key.fingerprint() if key else ANONYMOUS_ACCOUNT
