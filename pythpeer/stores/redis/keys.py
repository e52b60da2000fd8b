"""The names of the keys of one log in Redis."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Keys"]


class Keys(NamedTuple):
    """The keys of a store. All have the same hash tag, because scripts use them together.

    What is stored under each of them stands at the beginning of ``lua/_common.lua``.
    """

    prefix: str
    """The ``prefix`` of the store."""

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
        """The id of the server's run, and since when it runs."""
        return f"{self.tag}:server"

    def topics(self, scope: str) -> str:
        """The topics of all logs of a scope."""
        return f"{self.tag}:topics:{scope}"

    def bucket(self, key: str) -> tuple[str, str, str]:
        """Return the keys of ``bucket.lua`` for one endpoint and account."""
        return (f"{self.tag}:pace:{key}", self.server, self.alive)

    def log(self, topic: str) -> tuple[str, ...]:
        """Return the keys of the scripts about a log, in their order: the stream is the first."""
        parts = ("log", "meta", "links", "late", "late-ids", "late-order", "seen", "announced")
        return (*(f"{self.tag}:{part}:{topic}" for part in parts), self.alive, self.deaths)
