"""An asyncio client for PythBots and Peerbet chat."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers take it; `typing` takes longer than all of this

if TYPE_CHECKING:
    from .public import *  # noqa: F403
    from .public import __all__ as __all__
else:  # hidden from them, or every name would be one to them

    def __getattr__(name: str) -> object:
        """Load everything the first time that anything is asked for.

        Until then nothing is: the command line has to mind Ctrl-C before it takes time to import.
        """
        if name == "public":  # on its way: asking for it would go round in circles
            raise AttributeError(name)
        from importlib import import_module

        public = import_module(".public", __name__)
        if name == "__all__":
            return public.__all__
        if name in public.__all__:
            globals().update({each: getattr(public, each) for each in public.__all__})
            return globals()[name]
        if name in globals():  # a module of the package, which is loaded now
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """The names that there are to be asked for."""
        from .public import __all__ as names

        return sorted({*globals(), *names})
