"""Where the server is, read from a URL. The password in it is a `Secret` from here on."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ...errors import InvalidRequestError, PythpeerError, Result
from ...secret import Secret

__all__ = ["Address", "read_address"]

SCHEMES: Final = {"redis": False, "rediss": True, "valkey": False}
"""The schemes that are understood, and whether they mean TLS."""

FILES: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""What may follow the question mark: files for TLS."""


class Address(NamedTuple):
    """A server, and how to introduce oneself there. Its text form has no password."""

    host: str
    port: int
    db: int
    tls: bool
    files: tuple[tuple[str, str], ...]
    username: str | None
    password: Secret | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.db}"


def read_address(url: object) -> Result[Address]:
    """Read a URL. What is wrong with it comes back as a value, and says nothing of what is in it.

    So the caller can raise it when the URL is in none of its variables any more.
    """
    text = url.reveal() if isinstance(url, Secret) else url
    if not isinstance(text, str):
        return InvalidRequestError("a server's address is text, such as redis://localhost:6379/0")
    try:
        parts = urlsplit(text)
        port, query = parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        return InvalidRequestError("a server's address is a URL, such as redis://localhost:6379/0")
    path = parts.path.strip("/")
    if parts.scheme not in SCHEMES or not parts.hostname or parts.fragment:
        return InvalidRequestError("a server's address begins with redis://, rediss://, valkey://")
    if path and not (path.isascii() and path.isdigit()):
        return InvalidRequestError("the path of a server's address is the number of a database")
    if query.keys() - FILES:
        return InvalidRequestError("a server's address has only files for TLS after its '?'")
    password = _password(parts)
    if isinstance(password, PythpeerError):
        return password
    return Address(
        host=parts.hostname,
        port=6379 if port is None else port,
        db=int(path or 0),
        tls=SCHEMES[parts.scheme],
        files=tuple(sorted(query.items())),
        username=unquote(parts.username) if parts.username else None,
        password=password,
    )


def _password(parts: SplitResult) -> Result[Secret | None]:
    return Secret.try_wrap(unquote(parts.password)) if parts.password else None
