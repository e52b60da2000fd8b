"""Everything that can go wrong, as one tree of exceptions.

::

    PythpeerError
    ├── InvalidRequestError      (also ValueError)    nothing was sent, no token spent
    ├── TransportError                                no usable answer
    │   ├── RequestTimeoutError  (also TimeoutError)  the time limit passed
    │   └── OutcomeUnknownError                       a write may or may not have happened
    ├── HttpStatusError                               not 2xx, without the service's own words
    │   └── RateLimitedError                          too many requests, or too long a wait
    ├── DecodeError                                   not the documented JSON
    ├── ResponseTooLargeError                         the body went over ``max_body``
    ├── ApiError                                      the service said no in its own words
    │   └── AccessDeniedError                         the key is missing, wrong or not allowed
    ├── GapError                                      a stream may have missed messages
    ├── SessionClosedError                            closed, or open in another event loop
    └── StoreError                                    the store cannot be used

Errors carry scalars only: they pickle, and none of them holds a URL, a key, a response or another
library's exception.
"""

from __future__ import annotations

__all__ = [
    "AccessDeniedError",
    "ApiError",
    "DecodeError",
    "GapError",
    "HttpStatusError",
    "InvalidRequestError",
    "OutcomeUnknownError",
    "PythpeerError",
    "RateLimitedError",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "SessionClosedError",
    "StoreError",
    "TransportError",
]


class PythpeerError(Exception):
    """The base of every error this library raises.

    ``endpoint`` is the name of the endpoint that was asked, such as ``"peerbet.chat.get"``, or
    ``None`` where no endpoint is involved.
    """

    # Everything but the text is optional and keyword-only: that is what lets the default pickling
    # of exceptions (class, args, attributes) rebuild each of them.
    def __init__(self, text: str = "", *, endpoint: str | None = None) -> None:
        super().__init__(text)
        self.endpoint = endpoint

    def __str__(self) -> str:
        text = str(self.args[0]) if self.args else ""
        return f"{self.endpoint}: {text}" if self.endpoint else text


class InvalidRequestError(PythpeerError, ValueError):
    """A bad argument or setting, or a key that is needed and missing.

    Nothing was sent and no token was spent.
    """


class TransportError(PythpeerError):
    """There is no usable answer.

    ``sent`` is ``False`` when the request certainly never left this machine, else ``True``.
    ``untrusted`` is ``True`` when the service could not prove who it is: its certificate is not
    trusted, for another name, or has expired. Waiting does not mend that, so streams raise it.
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
        self.sent = sent
        self.untrusted = untrusted


class RequestTimeoutError(TransportError, TimeoutError):
    """A time limit passed before the answer was whole: its text says which, and its seconds."""


class OutcomeUnknownError(TransportError):
    """A write or a consuming read may or may not have happened.

    It was dropped, timed out, or was answered with a 5xx status or with something that is not the
    documented JSON. The library never repeats it by itself. ``status`` is the HTTP status if there
    was one, else ``None``.
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
        self.status = status


class HttpStatusError(PythpeerError):
    """An HTTP status other than 2xx, without the service's own words around it.

    Redirects are never followed, so they end here too. ``status`` is ``None`` only in a
    `RateLimitedError` for which nothing was sent.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.status = status


class RateLimitedError(HttpStatusError):
    """Too many requests: status 429, the service's own words, or a wait over ``max_wait``.

    ``retry_after`` is the number of seconds after which another try makes sense, or ``None`` where
    nobody said.
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
        self.retry_after = retry_after


class DecodeError(PythpeerError):
    """The answer is not the documented JSON.

    ``excerpt`` is the beginning of the body, at most 200 characters, without secrets.
    """

    def __init__(self, text: str = "", *, endpoint: str | None = None, excerpt: str = "") -> None:
        super().__init__(text, endpoint=endpoint)
        self.excerpt = excerpt


class ResponseTooLargeError(PythpeerError):
    """The body went over ``max_body`` bytes, and was not read any further.

    ``limit`` is that number of bytes.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, limit: int | None = None
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.limit = limit


class ApiError(PythpeerError):
    """The service said no in its own words, whatever the 2xx or 4xx status around them.

    ``message`` is those words without secrets, ``status`` the HTTP status.
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
        self.message = message
        self.status = status


class AccessDeniedError(ApiError):
    """The service says that the key is missing, wrong or not allowed to do this."""


class GapError(PythpeerError):
    """A stream with ``on_gap="raise"`` may have missed messages.

    They would have had ids greater than ``after`` and smaller than ``before``. It is raised once
    for each gap; asking the stream again goes on behind it.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, after: int = 0, before: int = 0
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.after = after
        self.before = before


class SessionClosedError(PythpeerError):
    """The session is not open, or it is open in another event loop."""


class StoreError(PythpeerError):
    """The store cannot be opened, read or written.

    ``transient`` says that it may be back without anybody changing anything: streams wait for that.
    """

    def __init__(
        self, text: str = "", *, endpoint: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(text, endpoint=endpoint)
        self.transient = transient
