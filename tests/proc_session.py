"""What the programs that tests run as processes have in common: a session, and lines of output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pythpeer.transport  # so that the fork server imports it, not each process
from pythpeer import Rate, Retry, Session
from pythpeer.stores import Store, fingerprints

fingerprints.SCRYPT_COST = 2  # as in the other processes of the tests

assert pythpeer.transport is not None


def make_session(
    url: str,
    key: str,
    *,
    rates: Mapping[str, Rate],
    timeout: float,
    store: Store,
    retry: Retry = Retry(),
) -> Session:
    """Return a session for both services at *url*, with *key* for both."""
    return Session(
        peerbet_url=url,
        pythbots_url=url,
        peerbet_key=key,
        personal_key=key,
        rates=rates,
        timeout=timeout,
        store=store,
        retry=retry,
    )


def open_log(path: str | Path) -> int:
    """Open a log file for `log_line`, which several processes append to."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def log_line(log: int, text: str) -> None:
    """Append a line with the process id, without a buffer: it is kept if the process is killed."""
    os.write(log, f"{os.getpid()} {text}\n".encode())


def print_line(text: object) -> None:
    """Print a line without a buffer, so that it is not lost when the process is killed."""
    os.write(1, f"{text}\n".encode())
