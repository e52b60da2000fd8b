"""What helps where a class is used wrongly: errors and texts. Pure.

The base classes raise errors that name the missing ``async``. Their methods exist only at run time:
type checkers must not see them, because they would then accept a plain ``for`` or ``with``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

__all__ = ["AsyncContextOnly", "AsyncIterationOnly", "tolerant_repr"]

T = TypeVar("T")


def tolerant_repr(method: Callable[[T], str]) -> Callable[[T], str]:
    """Return a ``__repr__`` that does not raise for an object whose ``__init__`` raised.

    Such an object is a variable of the frames in the traceback, which debuggers and log handlers
    show.
    """

    @functools.wraps(method)
    def repr_or_name(self: T) -> str:
        try:
            return method(self)
        except AttributeError:
            return f"<{type(self).__name__}, not initialized>"

    return repr_or_name


class AsyncIterationOnly:
    """Base of asynchronous iterables: a plain ``for`` raises a helpful ``TypeError``."""

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{type(self).__name__} is asynchronous: write 'async for', not 'for'")


class AsyncContextOnly:
    """Base of asynchronous context managers: a plain ``with`` raises such a ``TypeError``."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            name = type(self).__name__
            raise TypeError(f"{name} is asynchronous: write 'async with', not 'with'")

        def __exit__(self, *exc_info: object) -> None:
            """Never called; Python calls `__enter__` only where this method exists."""
