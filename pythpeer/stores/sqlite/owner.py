"""Who wrote something into the file, and whether that process is still there."""

from __future__ import annotations

import os
import weakref
from typing import Final

__all__ = ["OwnerId", "is_alive"]


class OwnerId:
    """One user of the file. Its name is like no other's, here or in another process."""

    def __init__(self) -> None:
        self.name: Final = f"{os.getpid()}:{os.urandom(8).hex()}"
        _local_owners[self.name] = self


# Looked into by the database's thread while others add to it: a look-up is safe, a loop is not.
_local_owners: Final[weakref.WeakValueDictionary[str, OwnerId]] = weakref.WeakValueDictionary()


def is_alive(name: str) -> bool:
    """Whether the owner of that name is still there, as far as can be told.

    Use it only where being wrong either way does no harm: process ids are given anew, and mean
    something else in another container.
    """
    pid = int(name.partition(":")[0])
    if pid == os.getpid():
        return name in _local_owners
    if os.name == "nt":
        return True  # asking there would be to kill
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # there, and somebody else's
    return True
