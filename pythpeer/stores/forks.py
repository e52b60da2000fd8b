"""What a store does in a child process right after a fork: it becomes another program."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["reset_after_fork"]


class Resettable(Protocol):
    """An object with state that only one process may use: names, connections, tasks."""

    def reset_after_fork(self) -> None:
        """Forget what belongs to the parent process, and take another identity."""


_objects: Final[WeakSet[Resettable]] = WeakSet()
"""The living objects of `reset_after_fork`, which adds them."""


def reset_after_fork(resettable: Resettable) -> None:
    """Call the method of that name in each child process, while the object lives."""
    _objects.add(resettable)


def _in_child() -> None:
    for resettable in list(_objects):
        resettable.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
