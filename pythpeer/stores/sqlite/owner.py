"""`OwnerId`: identifies what has written a row of the file, and whether its process is alive."""

from __future__ import annotations

import os
import weakref
from typing import Final

__all__ = ["OwnerId", "is_alive"]


class OwnerId:
    """The identity of one user of the file. Its name is unique among all processes."""

    def __init__(self) -> None:
        self.name: Final = f"{os.getpid()}:{os.urandom(8).hex()}"
        _local_owners[self.name] = self


# The thread of the database reads this while others add to it: a look-up is safe, a loop is not.
_local_owners: Final[weakref.WeakValueDictionary[str, OwnerId]] = weakref.WeakValueDictionary()
"""The owners in this process, by name. An owner is added by its constructor, and disappears when it
is garbage-collected."""


def is_alive(name: str) -> bool:
    """Return whether the owner of that name is alive, as far as this process can determine.

    Use it only where both wrong answers do no harm: the system reuses process ids, and in another
    container they mean other processes.
    """
    pid = int(name.partition(":")[0])
    if pid == os.getpid():
        return name in _local_owners
    if os.name == "nt":
        return True  # os.kill would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # the process exists, and belongs to another user
    return True
