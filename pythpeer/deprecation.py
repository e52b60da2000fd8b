"""Old names that keep working for one version, with a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

__all__ = ["old_names", "warn_renamed"]

REMOVED_IN: Final = "0.3"
"""The version without the old names."""


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that *old* is *new* now.

    *stacklevel* counts from the calling function, as in `warnings.warn`: 2 is its caller.
    """
    text = f"{old} is now {new}; the old name will be removed in version {REMOVED_IN}"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a ``__getattr__`` for *module*, which returns objects under their old names.

    *names* maps each old name to the full path of the object, which is imported on access. The
    warning shows the path in `pythpeer` if there is one.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        target, _, new = names[name].rpartition(".")
        public = "pythpeer" if hasattr(import_module("pythpeer"), new) else target
        warn_renamed(f"{module}.{name}", f"{public}.{new}")
        found: object = getattr(import_module(target), new)
        return found

    return find
