"""A complete response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..misuse import tolerant_repr

__all__ = ["RawResponse"]


class RawResponse:
    """A complete response: its status, its headers, its body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status: Final[int] = status
        """HTTP status."""
        self.headers: Final[Mapping[str, str]] = headers
        """Headers; names are compared without case."""
        self.body: Final[bytes] = body
        """Body, decompressed; empty where the status makes it unnecessary and it broke."""

    @tolerant_repr
    def __repr__(self) -> str:
        return f"<RawResponse {self.status}, {len(self.body)} bytes>"
