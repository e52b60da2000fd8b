"""What is said to one who forgets an ``async``, where Python by itself would say less.

Only at run time: type checkers must not see any of it, or they would accept such programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncContextOnly", "AsyncIterationOnly"]


class AsyncIterationOnly:
    """What is iterated over by ``async for`` only: a plain ``for`` says so."""

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{type(self).__name__} is asynchronous: write 'async for', not 'for'")


class AsyncContextOnly:
    """What is opened by ``async with`` only: a plain ``with`` says so."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            name = type(self).__name__
            raise TypeError(f"{name} is asynchronous: write 'async with', not 'with'")

        def __exit__(self, *exc_info: object) -> None:
            """Never called; without it Python would not call `__enter__` either."""
