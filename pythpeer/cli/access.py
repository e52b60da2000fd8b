"""The session that a command works with: its keys, and the store that it shares with others.

A key comes from the environment, or from the person at the terminal. It is never an argument, which
other users of the machine could read, and it is never printed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from typing import Final, Literal, NamedTuple

from .. import InvalidRequestError, PythpeerError, Session, SessionOptions
from ..stores import store_from_url
from . import ending
from .reading import prompt_key

__all__ = [
    "PEERBET_KEY",
    "PERSONAL_KEY",
    "Key",
    "connected",
    "reject_store_url",
    "store_name",
    "warn_if_volatile",
]


class Key(NamedTuple):
    """A key that a command cannot do without: ``what`` needs it, and where it is looked for."""

    purpose: str
    title: str
    option: Literal["peerbet_key", "personal_key"]
    variable: str


PEERBET_KEY: Final = Key("posting", "Peerbet key", "peerbet_key", "PYTHPEER_PEERBET_KEY")
PERSONAL_KEY: Final = Key("mail", "personal key", "personal_key", "PYTHPEER_PERSONAL_KEY")


@contextlib.asynccontextmanager
async def connected(store: str | None, key: Key | None = None) -> AsyncGenerator[Session]:
    """An open session, with *key* if the command needs one; *store* wins over the environment.

    Raises `InvalidRequestError` where the key is not to be had.
    """
    options: SessionOptions = {}
    reject_store_url(store)
    if store is not None:
        found = store_from_url(store)
        if isinstance(found, InvalidRequestError):
            raise found
        options["store"] = found
    if key is not None and not _is_set(key.variable):
        typed = await prompt_key(f"{key.title} (it is not shown): ")
        if typed is None:
            raise InvalidRequestError(f"{key.purpose} needs a key: set {key.variable}")
        if isinstance(typed, PythpeerError):
            raise typed
        options[key.option] = typed
    async with Session.from_env(**options) as session:
        yield session


def reject_store_url(store: str | None) -> None:
    """Refuse an address as ``--store``: there may be a password in it."""
    if store is not None and "://" in store:
        raise InvalidRequestError("--store takes a file; an address goes in PYTHPEER_STORE")


def store_name(store: str | None) -> str:
    """What names the store: ``--store``, or else the environment."""
    return store or os.environ.get("PYTHPEER_STORE", "").strip() or "memory"


def warn_if_volatile(store: str | None, name: str | None) -> None:
    """Say that a name is of no use without a store that lasts."""
    if name and store_name(store) == "memory":
        ending.print_error("the place of this name is forgotten at the end: --store FILE keeps it")


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())
