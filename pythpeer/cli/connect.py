"""The session of a command: its keys, and its store.

A key is read from the environment or from the terminal. It is never an argument, which other users
of the machine could read, and it is never printed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from typing import Final, Literal, NamedTuple

from .. import InvalidRequestError, MissingKeyError, PythpeerError, Session, SessionOptions
from ..stores import is_like_url, store_from_url
from .input import prompt_key

__all__ = [
    "PEERBET_KEY",
    "PERSONAL_KEY",
    "ROLL_KEY",
    "Key",
    "connected",
    "reject_store_url",
    "store_name",
]


class Key(NamedTuple):
    """A key that a command requires."""

    purpose: str
    """What requires it, in words."""

    title: str
    """Its name in words."""

    option: Literal["peerbet_key", "personal_key"]
    """The argument of `Session`."""

    variable: str
    """The environment variable that contains it."""


PEERBET_KEY: Final = Key("posting", "Peerbet key", "peerbet_key", "PYTHPEER_PEERBET_KEY")
ROLL_KEY: Final = PEERBET_KEY._replace(purpose="a roll")
PERSONAL_KEY: Final = Key("mail", "personal key", "personal_key", "PYTHPEER_PERSONAL_KEY")


@contextlib.asynccontextmanager
async def connected(store: str | None, key: Key | None = None) -> AsyncGenerator[Session]:
    """Open a session, with *key* if the command requires one.

    *store* takes precedence over the environment. Raises `InvalidRequestError` if the key is
    neither in the environment nor given at the terminal.
    """
    options: SessionOptions = {}
    reject_store_url(store)
    if store is not None:
        opened_store = store_from_url(store)
        if isinstance(opened_store, PythpeerError):
            raise opened_store
        options["store"] = opened_store
    if key is not None and not _is_set(key.variable):
        typed = await prompt_key(f"{key.title} (not displayed): ")
        if typed is None:
            raise MissingKeyError(f"{key.purpose} requires a key: set {key.variable}")
        if isinstance(typed, PythpeerError):
            raise typed
        options[key.option] = typed
    async with Session.from_env(**options) as session:
        yield session


def reject_store_url(store: str | None) -> None:
    """Raise `InvalidRequestError` for a URL as ``--store``, because it may contain a password."""
    if store is not None and is_like_url(store):
        raise InvalidRequestError("--store must be a file; set PYTHPEER_STORE for a URL")


def store_name(store: str | None) -> str:
    """Return the name of the store: ``--store``, else the environment's, else ``"memory"``."""
    return store or os.environ.get("PYTHPEER_STORE", "").strip() or "memory"


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())
