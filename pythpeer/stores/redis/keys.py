"""The names of the keys of one log in Redis."""

from __future__ import annotations

from typing import Final

from ..fingerprints import make_salt, stored_name

__all__ = ["Keys"]


class Keys:
    """The keys of a store. All have the same hash tag, because scripts use them together.

    What is stored under each of them stands at the beginning of ``lua/_common.lua``.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix: Final = prefix
        """The ``prefix`` of the store."""
        self.salt: bytes = make_salt()
        """The salt of the fingerprints in the names. Each connection proposes it to the server, and
        replaces it if the server has another one."""

    @property
    def tag(self) -> str:
        """The beginning of every key."""
        return f"{{pythpeer:{self.prefix}}}"

    @property
    def alive(self) -> str:
        """The owners that are alive, by the time at which they expire."""
        return f"{self.tag}:alive"

    @property
    def deaths(self) -> str:
        """The number of deaths of owners."""
        return f"{self.tag}:deaths"

    @property
    def server(self) -> str:
        """The id of the server's run, since when it runs, and the time of the store."""
        return f"{self.tag}:server"

    def stored(self, name: str) -> str:
        """Return the name of a topic, or the key of a limiter, as it is stored."""
        return stored_name(name, self.salt)

    def topics(self, service: str) -> str:
        """The topics of all logs of a service, one for each account."""
        return f"{self.tag}:topics:{service}"

    @property
    def salt_name(self) -> str:
        """The name of no key, from which scripts read the salt of the other names."""
        return f"{self.tag}:salt:{self.salt.hex()}"

    def bucket(self, key: str) -> tuple[str, ...]:
        """Return the keys of ``bucket.lua`` for one endpoint and account."""
        return (f"{self.tag}:pace:{self.stored(key)}", self.server, self.alive, self.salt_name)

    def log(self, topic: str) -> tuple[str, ...]:
        """Return the keys of the scripts about a log, in their order: the stream is the first."""
        parts = ("log", "meta", "links", "late", "late-ids", "late-order", "seen", "announced")
        name = self.stored(topic)
        names = (f"{self.tag}:{part}:{name}" for part in parts)
        return (*names, self.alive, self.deaths, self.server, self.salt_name)
