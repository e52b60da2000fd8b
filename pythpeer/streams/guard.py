"""A guard that lets one task at a time iterate over a stream."""

from __future__ import annotations

from typing import Protocol

from ..errors import InvalidRequestError


class _Guarded(Protocol):
    """What only one task at a time may use."""

    busy: bool
    """Whether a task uses it."""


class ResourceGuard:
    """Lets one task at a time iterate over a stream; a second one gets an error."""

    __slots__ = ("_resource",)

    def __init__(self, resource: _Guarded) -> None:
        self._resource = resource

    def __enter__(self) -> None:
        if self._resource.busy:
            raise InvalidRequestError(
                "this stream is already being iterated by another task: make one for each"
            )
        self._resource.busy = True

    def __exit__(self, *exc_info: object) -> None:
        self._resource.busy = False
