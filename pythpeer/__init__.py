"""An asyncio client for PythBots and Peerbet chat."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers treat it as true; importing `typing` would take longer

if TYPE_CHECKING:
    from .public import *  # noqa: F403
    from .public import __all__ as __all__
else:  # not for type checkers: they would accept any name because of `__getattr__`

    def __getattr__(name: str) -> object:
        """Load all public names on the first access to one of them.

        They are not loaded earlier, because the command line must handle Ctrl-C before the import,
        which takes time.
        """
        if name == "public":  # its import has begun: a second one would never end
            raise AttributeError(name)
        from importlib import import_module

        public = import_module(".public", __name__)
        if name == "__all__":
            return public.__all__
        if name in public.__all__:
            globals().update({entry: getattr(public, entry) for entry in public.__all__})
            return globals()[name]
        if name in globals():  # a module of the package, which the import has loaded
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Return the public names, and what the module holds."""
        from .public import __all__ as names

        return sorted({*globals(), *names})
