"""Old names that keep working for one version, with a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["moved"]


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a ``__getattr__`` for *module*, from which *names* have moved.

    Each name is mapped to the module that has it now, and is imported when it is asked for.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        target = names[name]
        public = "pythpeer" if hasattr(import_module("pythpeer"), name) else target
        warnings.warn(
            f"{module}.{name} is deprecated, use {public}.{name}", DeprecationWarning, stacklevel=2
        )
        return getattr(import_module(target), name)

    return find
