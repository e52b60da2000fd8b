"""Error classes: their tree and fields. The text of an error is written where it is raised.

::

    PythpeerError
    ├── InvalidRequestError      (also ValueError)    nothing was sent, no token spent
    │   └── MissingKeyError                           a key is needed, and was not given
    ├── TransportError                                no usable answer
    │   ├── RequestTimeoutError  (also TimeoutError)  the time limit passed
    │   └── OutcomeUnknownError                       a write may or may not have happened
    ├── HttpStatusError                               not 2xx, without an error message
    │   └── RateLimitedError                          too many requests, or too long a wait
    ├── DecodeError                                   not the documented JSON
    ├── ResponseTooLargeError                         the body is larger than ``max_body``
    ├── ApiError                                      the service returned an error message
    │   └── AccessDeniedError                         the key is missing, wrong or not allowed
    ├── GapError                                      a stream may have missed messages
    ├── SessionClosedError                            closed, or open in another event loop
    └── StoreError                                    the store cannot be used

Errors have scalar attributes only: they can be pickled, and none of them holds a URL, a key, a
response or an exception of another library.

A function that may return an error instead of raising it is called ``try_...`` and returns a
`Result`. The caller raises the error in a frame that holds neither URL nor key, because a traceback
can show the locals of its frames.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from .sanitize import printable

__all__ = [
    "AccessDeniedError",
    "ApiError",
    "DecodeError",
    "GapError",
    "HttpStatusError",
    "InvalidRequestError",
    "MissingKeyError",
    "OutcomeUnknownError",
    "PythpeerError",
    "RateLimitedError",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "Result",
    "SessionClosedError",
    "StoreError",
    "TransportError",
]

T = TypeVar("T")


class PythpeerError(Exception):
    """The base of every error that this library raises. Its attribute is ``endpoint``."""

    # Every parameter but the text is optional and keyword-only, because the default pickling of
    # exceptions (class, args, attributes) can restore an error only so.
    def __init__(self, text: str = "", *, endpoint: str | None = None) -> None:
        # Texts of services, servers and users can be part of it.
        super().__init__(printable(text))
        self.endpoint: str | None = endpoint
        """Name of the endpoint, such as ``"peerbet.chat.get"``; ``None`` where no endpoint is
        involved."""

    def __str__(self) -> str:
        text = str(self.args[0]) if self.args else ""
        return f"{self.endpoint}: {text}" if self.endpoint else text


Result: TypeAlias = T | PythpeerError
"""What a ``try_...`` function returns: ``Result[int]`` is an integer or the error."""


class InvalidRequestError(PythpeerError, ValueError):
    """An argument or a setting is not valid, or a required key is missing.

    Nothing was sent and no token was spent.
    """


class MissingKeyError(InvalidRequestError):
    """The call needs a key that the session does not have: the text names its variable."""


class TransportError(PythpeerError):
    """There is no usable response: the connection failed, broke, or did not carry HTTP.

    The attribute ``sent`` states whether it may have left, ``untrusted`` whether the certificate is
    the reason.
    """

    def __init__(
        self,
        text: str = "",
        *,
        endpoint: str | None = None,
        sent: bool = True,
        untrusted: bool = False,
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.sent: bool = sent
        """``False`` where the request certainly never left this machine, else ``True``."""
        self.untrusted: bool = untrusted
        """``True`` where the certificate of the service is not trusted, is for another name, or has
        expired. Streams raise such an error, because waiting does not help."""


class RequestTimeoutError(TransportError, TimeoutError):
    """A time limit passed before the response was complete: the text names it, in seconds."""


class OutcomeUnknownError(TransportError):
    """A write or a destructive read may or may not have happened.

    The connection broke, the request timed out, or the response has a 5xx status or is not the
    documented JSON. The library never repeats such a request automatically. The attribute
    ``status`` is the HTTP status, if there was one.
    """

    def __init__(
        self,
        text: str = "",
        *,
        endpoint: str | None = None,
        sent: bool = True,
        status: int | None = None,
    ) -> None:
        super().__init__(text, endpoint=endpoint, sent=sent)
        self.status: int | None = status
        """The HTTP status; ``None`` without a response."""


class HttpStatusError(PythpeerError):
    """The HTTP status is not 2xx, and the response has no error message of the service.

    Redirects are never followed, so each of them raises this error too. The attribute is
    ``status``.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.status: int | None = status
        """The HTTP status; ``None`` only in a `RateLimitedError` for which nothing was sent."""


class RateLimitedError(HttpStatusError):
    """Too many requests: status 429, an error message about it, or a wait over ``max_wait``.

    The attribute ``retry_after`` has the seconds to wait, if they are known.
    """

    def __init__(
        self,
        text: str = "",
        *,
        endpoint: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, endpoint=endpoint, status=status)
        self.retry_after: float | None = retry_after
        """Seconds after which another try makes sense; ``None`` where that is not known."""


class DecodeError(PythpeerError):
    """The response is not the documented JSON. The attribute ``excerpt`` is its beginning."""

    def __init__(self, text: str = "", *, endpoint: str | None = None, excerpt: str = "") -> None:
        super().__init__(text, endpoint=endpoint)
        self.excerpt: str = excerpt
        """The beginning of the body, at most 200 characters, without keys."""


class ResponseTooLargeError(PythpeerError):
    """The body is larger than ``max_body`` bytes, and the rest of it was not read.

    The attribute ``limit`` is that number.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, limit: int | None = None
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.limit: int | None = limit
        """The limit in bytes: ``max_body`` of the session."""


class ApiError(PythpeerError):
    """The service returned an error message, with a 2xx or a 4xx status.

    The attribute ``message`` is its text, ``status`` the HTTP status.
    """

    def __init__(
        self,
        text: str = "",
        *,
        endpoint: str | None = None,
        message: str = "",
        status: int | None = None,
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.message: str = message
        """The error message of the service, without keys."""
        self.status: int | None = status
        """The HTTP status."""


class AccessDeniedError(ApiError):
    """The service rejected the key: it is missing, wrong, or not permitted to do this."""


class GapError(PythpeerError):
    """A stream with ``on_gap="raise"`` may have missed messages.

    It is raised once for each gap; the next item of the stream is the one after the gap. The
    attributes ``after`` and ``before`` are the ids on both sides.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, after: int = 0, before: int = 0
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.after: int = after
        """Missing messages have ids greater than this one."""
        self.before: int = before
        """Missing messages have ids smaller than this one."""


class SessionClosedError(PythpeerError):
    """The session is not open, or it is open in another event loop."""


class StoreError(PythpeerError):
    """The store cannot be opened, read or written.

    The attribute ``transient`` states whether it may recover by itself.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.transient: bool = transient
        """Whether the store may recover without any change to the program or its settings: streams
        wait for that."""
