"""`OwnerId`: identifies what has written a row of the file, and whether its process is alive."""

from __future__ import annotations

import hashlib
import os
import socket
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["OwnerId", "boot_id", "is_alive"]


class OwnerId:
    """The identity of one user of the file, unique among all processes of all containers.

    A process that is forked has other names for the same objects than its parent.
    """

    def __init__(self) -> None:
        self._token: Final = os.urandom(8).hex()
        """What distinguishes the owners of one process."""
        _local_owners[self._token] = self

    @property
    def name(self) -> str:
        """The name in the file: the process, the scope of its id, and the token."""
        return f"{os.getpid()}:{_scope()}:{self._token}"


# The thread of the database reads this while others add to it: a look-up is safe, a loop is not.
_local_owners: Final[weakref.WeakValueDictionary[str, OwnerId]] = weakref.WeakValueDictionary()
"""The owners in this process, by token. An owner is added by its constructor, and disappears when
it is garbage-collected."""

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE: Final = Path("/proc/self/ns/pid")


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return a text that changes when the machine boots; empty where the system has none."""
    try:
        return BOOT_ID_FILE.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=1)
def _scope() -> str:
    """Return a digest of where a process id is unique: this boot, machine and pid namespace."""
    try:
        namespace = str(PID_NAMESPACE.readlink())
    except OSError:
        namespace = ""
    text = f"{boot_id()} {namespace} {socket.gethostname() if not namespace else ''}"
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def is_alive(name: str) -> bool:
    """Return whether the owner of that name is alive, as far as this process can determine.

    Returns ``True`` if it cannot: a process in another container, or a name that is damaged. Use it
    only where both wrong answers do no harm, because the system reuses process ids.
    """
    number, _, rest = name.partition(":")
    scope, _, token = rest.rpartition(":")  # names of version 0.1 have no scope
    if not number.isdecimal() or (scope and scope != _scope()):
        return True
    pid = int(number[:20])
    if pid == os.getpid():
        return token in _local_owners
    if os.name == "nt":
        return True  # os.kill would end the process there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # the process exists, and belongs to another user
    return True
