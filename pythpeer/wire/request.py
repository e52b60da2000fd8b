"""One request: an endpoint and its encoded parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Generic
from urllib.parse import urlsplit

from ..errors import InvalidRequestError
from ..misuse import tolerant_repr
from ..secret import Secret
from .endpoints import Endpoint, T_co
from .query import Param, encode_query, redacted_query, render_query

__all__ = ["Request"]


class Request(Generic[T_co]):
    """One request to an endpoint, checked and encoded, with its keys still in `Secret`."""

    __slots__ = ("_params", "endpoint", "headers", "segments")

    def __init__(
        self,
        endpoint: Endpoint[T_co],
        params: Mapping[str, Param],
        headers: Mapping[str, Secret] | None = None,
    ) -> None:
        self.endpoint: Final[Endpoint[T_co]] = endpoint
        """The endpoint."""
        self.headers: Final[Mapping[str, Secret] | None] = headers
        """The headers that hold keys."""
        # Set before any check, because the traceback of an error below may show this object.
        self.segments: Sequence[str | Secret] = endpoint.segments
        """The encoded query: text, and keys still in `Secret`. A parameter begins with ``&``."""
        self._params = params
        if not endpoint.query.keys().isdisjoint(params):
            raise InvalidRequestError(
                "params must not contain a name of the endpoint's query", endpoint=endpoint.name
            )
        self.segments = [*endpoint.segments, *encode_query(params, endpoint.name)]

    @tolerant_repr
    def __repr__(self) -> str:
        return f"<Request {self.endpoint.name} {''.join(map(str, self.segments))[1:]}>"

    def redacted(self) -> str:
        """Return the URL without keys and without text of messages or users.

        The endpoint's fixed query, numbers and bare names are shown as sent, other values as
        ``***``.
        """
        query = "".join(map(str, self.endpoint.segments)) + "".join(redacted_query(self._params))
        return f"{self.endpoint.url}?{query[1:]}" if query else self.endpoint.url

    def secrets(self) -> list[Secret]:
        """Return every key of this request, in the URL and in the headers."""
        return [
            *(segment for segment in self.segments if isinstance(segment, Secret)),
            *(self.headers or {}).values(),
        ]

    def size(self) -> int:
        """Return the bytes of the request line."""
        path = urlsplit(self.endpoint.url).path or "/"
        return len(f"GET {path}? HTTP/1.1") + len(render_query(self.segments))

    def texts(self) -> list[str]:
        """Return every text among the parameters, which other users may have written."""
        return [value for value in self._params.values() if isinstance(value, str)]
