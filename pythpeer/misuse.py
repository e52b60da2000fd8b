"""Base classes whose errors name the missing ``async``. Pure.

The methods exist only at run time: type checkers must not see them, because they would then accept
a plain ``for`` or ``with``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncContextOnly", "AsyncIterationOnly"]


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
