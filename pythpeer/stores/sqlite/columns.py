"""Checks of what a column has: SQLite stores a value of any type in a column of any type.

They are called in jobs of the database, whose errors are raised as those of a damaged file.
"""

from __future__ import annotations

from ...validation import MAX_STORED_TIME

__all__ = ["blob", "integer", "optional_text", "text", "timestamp"]


def blob(value: object) -> bytes:
    """Return *value*. Raises `TypeError` if it is not a blob."""
    if not isinstance(value, bytes):
        raise _wrong_type(value)
    return value


def integer(value: object) -> int:
    """Return *value*. Raises `TypeError` if it is not an integer."""
    if type(value) is not int:
        raise _wrong_type(value)
    return value


def timestamp(value: object) -> float:
    """Return *value*. Raises `TypeError` if it is not a number, `ValueError` if it is too large."""
    if not isinstance(value, int | float):
        raise _wrong_type(value)
    if abs(value) > MAX_STORED_TIME:
        raise ValueError(f"{value} s is not a time that a program can have stored")
    return value


def text(value: object) -> str:
    """Return *value*. Raises `TypeError` if it is not text."""
    if not isinstance(value, str):
        raise _wrong_type(value)
    return value


def optional_text(value: object) -> str | None:
    """Return *value*. Raises `TypeError` if it is neither text nor ``None``."""
    return None if value is None else text(value)


def _wrong_type(value: object) -> TypeError:
    return TypeError(f"{type(value).__name__} is not the type of the column")
