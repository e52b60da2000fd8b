"""`Faults`: failures on purpose, scripted for each endpoint.

A fault happens on the wire: connections are really closed or broken, bodies really cut. A fault's
``effect`` is whether the service performs the request before that: a response that is lost after
the effect is the case that most clients get wrong.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Final, Literal, Self

import msgspec

from ..errors import InvalidRequestError
from ..misuse import tolerant_repr
from ..validation import check_integer, check_seconds
from .endpoints import FAULT_NAMES, prefixes

__all__ = ["Fault", "Faults"]

End = Literal["answer", "drop", "reset", "cut", "hang"]

ERROR_PAGE: Final = b"<!DOCTYPE html><html><body><h1>Sorry, something went wrong</h1></body></html>"
"""The body of an error page, as a proxy in front of a service returns it."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What happens to one request. The class methods make the usual ones.

    Their argument *effect* is whether the service performs the request before the fault.

    Raises `InvalidRequestError` for a delay that is not a number of seconds.
    """

    end: End = "answer"
    """How the request ends: with a response, or in one of four ways without a whole one."""

    effect: bool = True
    """Whether the service performs the request."""

    delay: float = 0.0
    """Seconds from the effect until the response or the failure."""

    status: int | None = None
    """The HTTP status; ``None`` for the service's own."""

    body: bytes | None = None
    """The body of the response; ``None`` for the service's own."""

    headers: tuple[tuple[str, str], ...] = ()
    """Names and values of headers that the response has in addition to the usual ones."""

    def __post_init__(self) -> None:
        check_seconds("delay", self.delay)

    @classmethod
    def drop(cls, *, effect: bool = True) -> Self:
        """Close the connection in good order (FIN), no response; *effect* is as for the class."""
        return cls(end="drop", effect=effect)

    @classmethod
    def reset(cls, *, effect: bool = True) -> Self:
        """Reset the connection (RST) without a response; *effect* is as for the class."""
        return cls(end="reset", effect=effect)

    @classmethod
    def cut(cls, *, effect: bool = True) -> Self:
        """Send half of the body of ``Content-Length``, then close; *effect* is as for the class."""
        return cls(end="cut", effect=effect)

    @classmethod
    def hang(cls, *, effect: bool = True) -> Self:
        """Never respond, and wait until the client closes; *effect* is as for the class."""
        return cls(end="hang", effect=effect)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Respond as usual, but *seconds* later."""
        return cls(delay=seconds)

    @classmethod
    def http(
        cls, status: int, *, retry_after: float | str | None = None, effect: bool = False
    ) -> Self:
        """Respond with *status* and an HTML page, as a proxy in front of the service does.

        *retry_after* is the value of the header ``Retry-After``, which is absent by default;
        *effect* is as for the class.
        """
        headers = () if retry_after is None else (("Retry-After", f"{retry_after}"),)
        return cls(effect=effect, status=status, body=ERROR_PAGE, headers=headers)

    @classmethod
    def too_many(cls, retry_after: float | str | None = None) -> Self:
        """Respond with status 429; *retry_after* is as for `http`."""
        return cls.http(429, retry_after=retry_after)

    @classmethod
    def html(cls, *, effect: bool = True) -> Self:
        """Respond with status 200 and an HTML page, not JSON; *effect* is as for the class."""
        return cls(effect=effect, body=ERROR_PAGE)

    @classmethod
    def garbage(cls, body: bytes = b'[{"id": 1, "mess', *, effect: bool = True) -> Self:
        """Respond with *body* instead of the service's own; *effect* is as for the class."""
        return cls(effect=effect, body=body)

    @classmethod
    def refusal(cls, message: str, *, status: int = 200) -> Self:
        """Respond with the API error *message* in the form of both services, without any effect.

        *status* is the HTTP status.
        """
        body = json.dumps({"status": 0, "message": message, "error": message}).encode()
        return cls(effect=False, status=status, body=body)

    def after(self, seconds: float) -> Self:
        """Return the same fault with a delay that is *seconds* longer."""
        return msgspec.structs.replace(self, delay=self.delay + seconds)


class Faults:
    """The faults of the next requests, scripted by name.

        fake.faults.add("peerbet.chat.set", Fault.drop())  # the next request
        fake.faults.add("pythbots.mail.readnew", Fault.cut(), times=3)
        fake.faults.always("pythbots", Fault.http(503))  # until it is cleared
        fake.faults.clear()

    A name stands for all names that begin with it: ``"pythbots"``, ``"pythbots.mail"``,
    ``"pythbots.mail.readnew"``. What was added precedes what always applies; within each, the
    longer name precedes the shorter. An unknown name is an `InvalidRequestError`.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._queues: dict[str, deque[Fault]] = {}
        """The faults to come, by name; `add` appends them, a request removes the first."""
        self._constant: dict[str, tuple[Fault, float]] = {}
        """The faults that always apply, by name, each with its chance from 0.0 to 1.0."""

    def add(self, name: str, fault: Fault, *others: Fault, times: int = 1) -> None:
        """Script *fault* and *others* for the next requests with *name*, one each, in order.

        The whole series is scripted *times* times. Raises `InvalidRequestError`.
        """
        check_integer("times", times, 1)
        self._queues.setdefault(_check_name(name), deque()).extend((fault, *others) * times)

    def always(self, name: str, fault: Fault, *, chance: float = 1.0) -> None:
        """Script *fault* for every request with *name*, or for a part: *chance* is from 0.0 to 1.0.

        It replaces the last one for the same name. Raises `InvalidRequestError`.
        """
        if not 0.0 <= chance <= 1.0:
            raise InvalidRequestError("chance must be a number from 0.0 to 1.0")
        self._constant[_check_name(name)] = (fault, chance)

    def clear(self, name: str | None = None) -> None:
        """Remove the faults for *name* and for all that begins with it; by default all faults."""
        for script in (self._queues, self._constant):
            for scripted in list(script):
                if name is None or _check_name(name) in prefixes(scripted):
                    del script[scripted]

    @property
    def pending(self) -> Mapping[str, tuple[Fault, ...]]:
        """The faults that were added and have not happened yet, by name."""
        return {name: tuple(queue) for name, queue in self._queues.items() if queue}

    @property
    def constant(self) -> Mapping[str, Fault]:
        """The faults that always apply, by name."""
        return {name: fault for name, (fault, _) in self._constant.items()}

    def next_for(self, kind: str) -> Fault | None:
        """Return the fault of a request, and remove it if it was added for one request only.

        *kind* is the longest name of the request. Without a fault, returns ``None``.
        """
        names = prefixes(kind)
        for name in names:
            if queue := self._queues.get(name):
                return queue.popleft()
        for name in names:
            fault, chance = self._constant.get(name, (None, 0.0))
            if fault is not None and self._rng.random() < chance:
                return fault
        return None

    @tolerant_repr
    def __repr__(self) -> str:
        pending = (f"{name}: {', '.join(map(repr, queue))}" for name, queue in self.pending.items())
        constant = (
            f"{name}: always {fault!r}" + (f", chance {chance:g}" if chance < 1 else "")
            for name, (fault, chance) in self._constant.items()
        )
        return f"<Faults {'; '.join([*pending, *constant]) or 'none'}>"


def _check_name(name: str) -> str:
    if name not in FAULT_NAMES:
        names = ", ".join(sorted(FAULT_NAMES))
        raise InvalidRequestError(f"unknown endpoint: {name}; must be one of {names}")
    return name
