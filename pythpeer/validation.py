"""Checks of arguments, as numbers, texts and URLs, and of TLS.

Those of arguments raise `InvalidRequestError`.
"""

from __future__ import annotations

import math
import re
import ssl
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import quote

from .errors import InvalidRequestError

__all__ = [
    "INT32_MAX",
    "MAX_STORED_TIME",
    "check_duration",
    "check_integer",
    "check_name",
    "check_seconds",
    "check_text",
    "check_time_limit",
    "check_url",
    "checks_peer",
    "is_loopback",
    "parse_address",
    "percent_encode",
]

INT32_MAX: Final = 2**31 - 1
"""Largest id of both services, which document their ids as Int32."""

MAX_STORED_TIME: Final = 1e12
"""The latest time, in seconds, that a store can contain: with a later one, callers would wait
indefinitely, so that it is treated as damaged."""


def check_integer(
    name: str, value: object, low: int, high: int = INT32_MAX, endpoint: str | None = None
) -> int:
    """Return *value* if it is an integer (no boolean) from *low* to *high*.

    The default upper bound is that of the ids of both services. Raises `InvalidRequestError`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        type_name = type(value).__name__
        raise InvalidRequestError(f"{name} must be an integer, not {type_name}", endpoint=endpoint)
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be from {low} to {high}", endpoint=endpoint)
    return value


def check_seconds(name: str, value: object, endpoint: str | None = None) -> float:
    """Return *value* if it is a finite number of seconds, 0 or more.

    Raises `InvalidRequestError`.
    """
    problem = None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        problem = f"must be a number of seconds, not {type(value).__name__}"
    elif not 0 <= value <= sys.float_info.max:
        problem = "must be a finite number of seconds, 0 or more"
    else:
        return value
    raise InvalidRequestError(f"{name} {problem}", endpoint=endpoint)


def check_duration(name: str, value: object, endpoint: str | None = None) -> float:
    """Return *value* if it is a number of seconds, 0 or more, or infinity for no limit.

    Raises `InvalidRequestError`.
    """
    if isinstance(value, float) and value == math.inf:
        return value
    return check_seconds(name, value, endpoint)


def check_time_limit(value: object, endpoint: str | None = None) -> float:
    """Return *value*, a ``timeout``: a number of seconds over 0, or infinity for no limit.

    Raises `InvalidRequestError`.
    """
    seconds = check_duration("timeout", value, endpoint)
    if not seconds:
        raise InvalidRequestError("timeout must be more than 0 seconds", endpoint=endpoint)
    return seconds


def check_name(name: object, what: str = "name") -> str:
    """Return the name of an endpoint, or of a parameter, if a line of a log can show it.

    Raises `InvalidRequestError`.
    """
    checked = check_text(what, name)
    if not checked.isprintable():
        raise InvalidRequestError(f"{what} must not contain line breaks or control characters")
    return checked


def check_text(
    name: str,
    value: object,
    max_length: int | None = None,
    endpoint: str | None = None,
    *,
    advice: str = "",
) -> str:
    """Return *value* if it is text that can be sent: not empty, and encodable as UTF-8.

    *max_length* is its maximum number of characters, and *advice* what to do with a longer text.
    Raises `InvalidRequestError`.
    """
    problem = None
    if not isinstance(value, str):
        problem = f"must be a str, not {type(value).__name__}"
    elif not value:
        problem = "must not be empty"
    elif max_length is not None and len(value) > max_length:
        length = f"{len(value)} ({len(value) - max_length} too many)"
        problem = f"must have at most {max_length} characters, not {length}"
        problem = f"{problem}; {advice}" if advice else problem
    else:
        percent_encode(name, value, endpoint)
        return value
    raise InvalidRequestError(f"{name} {problem}", endpoint=endpoint)


# Stricter than any URL parser, so that the host that is checked is the one that aiohttp connects
# to: ASCII only, no user information, no query, no fragment.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[a-z0-9\-._~%!$&'()*+,;=:@]*)*)",
    re.IGNORECASE | re.ASCII,
)


def is_loopback(host: str) -> bool:
    """Return whether *host* is an address of this machine, or the name ``localhost``."""
    if host.rstrip(".").lower() == "localhost":
        return True
    address = parse_address(host.strip("[]"))
    # ::ffff:127.0.0.1 is a loopback address for newer versions of Python only: never for this one.
    return address is not None and address.is_loopback and "ffff" not in host.lower()


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that *host* is, ``None`` for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_url(name: str, url: object) -> str:
    """Return *url* if keys may be sent to it: https, or plain http to this machine only.

    Raises `InvalidRequestError`.
    """
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise InvalidRequestError(
            f"{name} must be an https URL, or http to this machine, with a host, a port from 1 to"
            " 65535 or none, and a path; without user name, query and fragment"
        )
    host = match["host"]
    if host.startswith("[") and not isinstance(parse_address(host.strip("[]")), IPv6Address):
        raise InvalidRequestError(f"{name} must have an IPv6 address in its brackets")
    if any(segment in (".", "..") for segment in match["path"].split("/")):
        raise InvalidRequestError(f"{name} must not have '.' or '..' in its path")
    if match["scheme"].lower() != "https" and not is_loopback(host):
        raise InvalidRequestError(f"{name} must be https, because http is for loopback only")
    return match[0]


def checks_peer(context: ssl.SSLContext) -> bool:
    """Return whether TLS checks the certificate of the other side, and that it has its name."""
    return context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def percent_encode(name: str, text: str, endpoint: str | None = None) -> str:
    """Return *text* percent-encoded as a value of a query (RFC 3986), or raise if it cannot be."""
    if "\0" in text:
        raise InvalidRequestError(f"{name} must not contain a NUL", endpoint=endpoint)
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise InvalidRequestError(f"{name} must not contain a lone surrogate", endpoint=endpoint)
    return quote(text, safe="")
