"""The options of a session: their types, their checks, keys, and environment variables."""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final, Self, TypedDict, TypeVar, cast

import msgspec

from .errors import InvalidRequestError, PythpeerError
from .hooks import GapEvent, Hook, RequestEvent, ResponseEvent, RetryEvent, Telemetry
from .pacing.bucket import Rate
from .retry import Retry
from .secret import Secret
from .stores import Store, store_from_url
from .validation import check_name, check_url, checks_peer

__all__ = [
    "Keys",
    "SessionOptions",
    "add_environment",
    "check_rates",
    "check_ssl_context",
    "check_store",
    "check_type",
    "misspelt_rates",
]

T = TypeVar("T")

KEY_VARIABLES: Final = {
    "peerbet_key": "PYTHPEER_PEERBET_KEY",
    "personal_key": "PYTHPEER_PERSONAL_KEY",
    "pythbots_api_key": "PYTHPEER_PYTHBOTS_API_KEY",
}
"""The environment variable of each key, by the name of the option. In the order of `Keys.wrap`."""

URL_VARIABLES: Final = {
    "peerbet_url": "PYTHPEER_PEERBET_URL",
    "pythbots_url": "PYTHPEER_PYTHBOTS_URL",
}
"""The environment variable of each option that is the URL of a service."""

TEXT_VARIABLES: Final = {**URL_VARIABLES, "personal_key_param": "PYTHPEER_PERSONAL_KEY_PARAM"}
"""The environment variable of each option that is text and no key."""

SIMILARITY: Final = 0.8
"""How similar the name of an endpoint is at least, from 0 to 1, to count as misspelt."""

STORE_VARIABLE: Final = "PYTHPEER_STORE"
"""The environment variable of the store."""


class SessionOptions(TypedDict, total=False):
    """The options of `Session`, each as described there."""

    peerbet_key: str | Secret | None
    """The Peerbet key."""
    personal_key: str | Secret | None
    """The personal key of PythBots."""
    pythbots_api_key: str | Secret | None
    """The API key of PythBots."""
    peerbet_url: str
    """The address of Peerbet."""
    pythbots_url: str
    """The address of PythBots."""
    personal_key_param: str
    """The name of the parameter for the personal key."""
    rates: Mapping[str, Rate] | None
    """Rates by endpoint name, in place of the defaults."""
    retry: Retry
    """The retry policy for failed reads."""
    timeout: float
    """Seconds of one attempt at most; within it, connecting to an address has a limit of 5 s."""
    max_wait: float
    """Seconds that a call may wait for a token."""
    store: Store | None
    """Where positions, logs and pacing are kept."""
    max_body: int
    """Bytes of a response body at most."""
    max_header: int
    """Bytes of one header of a response at most."""
    idle_check: float
    """Seconds without a new message after which a chat stream looks for the newest one."""
    ssl_context: ssl.SSLContext | None
    """A TLS context, for a private certificate authority."""
    on_request: Hook[RequestEvent] | None
    """A hook that is called before each request."""
    on_response: Hook[ResponseEvent] | None
    """A hook that is called after each request."""
    on_retry: Hook[RetryEvent] | None
    """A hook that is called before a failed read is repeated."""
    on_gap: Hook[GapEvent] | None
    """A hook that is called when messages may be missing."""
    telemetry: Telemetry | None
    """Receives further events."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a session as secrets, or the reason why one of them is not valid."""

    peerbet: Secret | None = None
    """The key of Peerbet."""

    personal: Secret | None = None
    """The personal key of PythBots' mail."""

    pythbots_api: Secret | None = None
    """The API key of PythBots."""

    error: PythpeerError | None = None
    """The error for the first key that is not valid; then there are no keys."""

    @classmethod
    def wrap(cls, peerbet_key: object, personal_key: object, pythbots_api_key: object) -> Self:
        """Wrap three keys, each text, a `Secret` or ``None``. Never raises.

        An error is returned as `error`. The caller must remove the texts from its frame before it
        calls `raise_error`, because a traceback can show the variables of each frame.
        """
        peerbet, personal = Secret.try_wrap(peerbet_key), Secret.try_wrap(personal_key)
        pythbots_api = Secret.try_wrap(pythbots_api_key)
        if isinstance(peerbet, PythpeerError):
            return cls(error=peerbet)
        if isinstance(personal, PythpeerError):
            return cls(error=personal)
        if isinstance(pythbots_api, PythpeerError):
            return cls(error=pythbots_api)
        if pythbots_api is not None and not pythbots_api.reveal().isascii():
            problem = "pythbots_api_key must be ASCII, because it is sent in a header"
            return cls(error=InvalidRequestError(problem))
        return cls(peerbet=peerbet, personal=personal, pythbots_api=pythbots_api)

    def present(self) -> list[Secret]:
        """Return the keys that there are."""
        keys = (self.peerbet, self.personal, self.pythbots_api)
        return [key for key in keys if key is not None]

    def raise_error(self) -> None:
        """Raise `error`, if there is one."""
        if self.error is not None:
            raise self.error


# -- environment variables ------------------------------------------------------------------------


def add_environment(options: SessionOptions) -> None:
    """Add options from environment variables to *options*, for those that it does not have.

    Changes *options* in place, so that no key remains in the caller's frame: keys are replaced by
    secrets, or removed if one is not valid.

    Raises:
        InvalidRequestError: If a key or a variable is not valid.
    """
    fields = cast("dict[str, object]", options)
    keys = _pop_keys(fields)
    keys.raise_error()
    options["peerbet_key"] = keys.peerbet
    options["personal_key"] = keys.personal
    options["pythbots_api_key"] = keys.pythbots_api
    for name, variable in TEXT_VARIABLES.items():
        text = _env(variable)
        if text is not None and name not in fields:
            fields[name] = check_url(variable, text) if name in URL_VARIABLES else text
    if "store" not in options:
        store = _store_from_env()
        if store is not None:
            options["store"] = store


def _env(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _pop_keys(options: dict[str, object]) -> Keys:
    """Remove the keys from *options*, and wrap them; a key not given is read from its variable."""
    return Keys.wrap(
        *(
            options.pop(name) if name in options else _env(variable)
            for name, variable in KEY_VARIABLES.items()
        )
    )


def _store_from_env() -> Store | None:
    """Return the store that the environment variable names, ``None`` if it is empty."""
    text = _env(STORE_VARIABLE)
    store = None if text is None else store_from_url(text)
    text = None  # it may hold a password, and a traceback can show this frame
    if isinstance(store, InvalidRequestError):
        raise store
    return store


# -- checks ---------------------------------------------------------------------------------------


def check_rates(rates: object) -> dict[str, Rate]:
    """Check rates by endpoint name; ``None`` is an empty mapping."""
    if rates is None:
        return {}
    if not isinstance(rates, Mapping):
        raise InvalidRequestError(
            f"rates must be a mapping of endpoint names to Rate, not {type(rates).__name__}"
        )
    return {
        check_name(name, "an endpoint's name"): check_type(f"rates[{name!r}]", Rate, rate)
        for name, rate in cast("Mapping[object, object]", rates).items()
    }


def misspelt_rates(rates: Mapping[str, Rate], known: Collection[str]) -> dict[str, list[str]]:
    """Return the names in *rates* that are similar to *known* ones, with those, the best first.

    Other unknown names are those of the user's own endpoints.
    """
    similar = {
        name: get_close_matches(name, known, 2, SIMILARITY) for name in rates if name not in known
    }
    return {name: matches for name, matches in similar.items() if matches}


def check_type(name: str, kind: type[T], value: object) -> T:
    """Return *value* if it is an instance of *kind*."""
    if not isinstance(value, kind):
        raise InvalidRequestError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def check_store(store: object) -> Store:
    """Return the option ``store``; the error names no value, because a URL can have a password."""
    if isinstance(store, Store):
        return store
    raise InvalidRequestError(
        f"store must be a Store, not {type(store).__name__}: for a file use "
        "SqliteStore('bot.sqlite'), for memory MemoryStore(), and for a server RedisStore(url)"
    )


def check_ssl_context(context: object) -> ssl.SSLContext | None:
    """Return *context* if it checks certificates and host names: keys are sent with it."""
    if context is None:
        return None
    context = check_type("ssl_context", ssl.SSLContext, context)
    if not checks_peer(context):
        raise InvalidRequestError(
            "ssl_context must check certificates and host names: to trust a certificate of your"
            " own, use ssl.create_default_context(cafile=...)"
        )
    return context
