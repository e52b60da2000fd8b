"""An asyncio client for PythBots and Peerbet chat."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers treat it as true; importing `typing` would take longer

if TYPE_CHECKING:
    from .public import *  # noqa: F403
    from .public import __all__ as __all__
else:  # not for type checkers: they would accept any name because of `__getattr__`
    _MODULES = {
        "dice": "DiceRoll DiceStats",
        "errors": """
            AccessDeniedError ApiError DecodeError GapError HttpStatusError InvalidRequestError
            MissingKeyError OutcomeUnknownError PythpeerError RateLimitedError RequestTimeoutError
            ResponseTooLargeError SessionClosedError StoreError TransportError""",
        "health": "EndpointHealth SessionHealth StreamHealth",
        "hooks": """
            DeliveryEvent GapEvent Hook Outcome RequestEvent ResponseEvent RetryEvent StoreEvent
            Telemetry""",
        "pacing.bucket": "Rate",
        "pacing.limiter": "Limiter",
        "peerbet": "ChatMessage ChatPage ChatStream Peerbet",
        "pythbots": "ChatStats Mail MailStream PythBots StaffMember User",
        "retry": "Retry",
        "running": "run",
        "secret": "Secret",
        "session": "Session SessionOptions",
        "splitting": "split_text",
        "stores": "MemoryStore SqliteStore",
        "streams.gaps": "Gap",
        "streams.merged": "MergedStream merge",
        "streams.stream": "Stream",
        "version": "__version__",
        "wire.endpoints": "Effect Endpoint",
        "wire.query": "FLAG Json JsonObject Param",
    }
    """By module, the public names to import from it. `public` is the same for type checkers."""

    _NAMES = {name: module for module, names in _MODULES.items() for name in names.split()}
    """The module of each public name."""

    _SUBMODULES = {module.partition(".")[0] for module in _MODULES}
    """The modules that are attributes of the package without an import of their own."""

    # Constants, classes, functions.
    __all__ = list(_NAMES)
    __all__.sort(key=lambda name: (not name.isupper(), name[0].islower(), name))

    def __getattr__(name: str) -> object:
        """Import a public name on the first access to it.

        Importing all of them takes long, and a command that only prints its help needs none.
        """
        if name not in _NAMES and name not in _SUBMODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name not in _NAMES:
            return import_module(f".{name}", __name__)
        value = getattr(import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Return the public names, and what the module holds."""
        return sorted({*globals(), *_NAMES, *_SUBMODULES})
