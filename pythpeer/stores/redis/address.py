"""`Address`: the address of a server, read from a URL, which is checked.

Its password is a `Secret`.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ...errors import InvalidRequestError, PythpeerError, Result
from ...secret import Secret
from ...validation import is_loopback

__all__ = ["Address", "read_address"]

SCHEMES: Final = {"redis": False, "rediss": True, "valkey": False}
"""The supported schemes, and whether they mean TLS."""

MAX_DB_DIGITS: Final = 9
"""Digits of the number of a database at most."""

TLS_FILES: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""The names of files for TLS that are allowed in the query."""


class Address(NamedTuple):
    """A server and the credentials for it. Its text form has no password."""

    host: str
    port: int
    db: int
    """The number of the database."""

    tls: bool
    files: tuple[tuple[str, str], ...]
    """Names and paths of files for TLS, sorted."""

    username: str | None
    password: Secret | None

    prefix: str | None = None
    """The prefix of all keys that the query names; ``None`` where it names none."""

    @property
    def is_exposed(self) -> bool:
        """Whether the connection to another machine is not encrypted."""
        return not self.tls and not is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.db}"


def read_address(url: object) -> Address | PythpeerError:
    """Parse a URL. An error is returned, not raised, and its text contains no part of the URL.

    The caller can therefore raise it after it has deleted the URL from its own variables.
    """
    text = url.reveal() if isinstance(url, Secret) else url
    if not isinstance(text, str):
        return InvalidRequestError("url must be a str, such as redis://localhost:6379/0")
    try:
        parts = urlsplit(text)
        port = parts.port
        query = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        )
    except ValueError:
        return InvalidRequestError("url must be a valid URL, such as redis://localhost:6379/0")
    prefix = query.pop("prefix", None)
    path = parts.path.strip("/")
    if parts.scheme not in SCHEMES or not parts.hostname or parts.fragment:
        return InvalidRequestError("url must start with redis://, rediss:// or valkey://")
    if path and not (path.isascii() and path.isdigit() and len(path) <= MAX_DB_DIGITS):
        return InvalidRequestError("the path of a Redis URL must be the number of a database")
    if query.keys() - TLS_FILES or not all(query.values()):
        return InvalidRequestError(
            "only prefix, ssl_ca_certs, ssl_certfile and ssl_keyfile are allowed in the query of a"
            " Redis URL, each with a value"
        )
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
        prefix=prefix,
    )


def _password(parts: SplitResult) -> Result[Secret | None]:
    return Secret.try_wrap(unquote(parts.password)) if parts.password else None
