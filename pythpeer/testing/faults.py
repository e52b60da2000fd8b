"""What goes wrong on purpose: a script of faults for each endpoint.

A fault happens on the wire: connections are really closed or broken, bodies really cut. Whether the
service did what it was asked before that is the fault's ``effect``: an answer that is lost after it
is what tells careful clients from others.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Final, Literal, Self

import msgspec

from ..errors import InvalidRequestError
from ..wire import check_integer, check_seconds

__all__ = ["Fault", "Faults"]

End = Literal["answer", "drop", "reset", "cut", "hang"]

NAMES: Final = frozenset(
    {
        "peerbet",
        "peerbet.chat",
        "peerbet.chat.get",
        "peerbet.chat.set",
        "pythbots",
        "pythbots.userinfo",
        "pythbots.crank",
        "pythbots.cstats",
        "pythbots.mail",
        "pythbots.mail.send",
        "pythbots.mail.readnew",
        "pythbots.mail.readall",
    }
)
"""What faults can be scripted for: an endpoint, what is done with mail, or all that begins so."""

ERROR_PAGE: Final = b"<!DOCTYPE html><html><body><h1>Sorry, something went wrong</h1></body></html>"
"""What the proxy in front of a service says."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What happens to one request. The class methods make the usual ones.

    ``effect``: whether the service does what it was asked. ``delay``: seconds from then until the
    answer. ``end``: how it ends, with an answer or in one of the ways without. ``status``, ``body``
    and ``headers`` are the answer's, in the place of the service's own or beside them.
    """

    end: End = "answer"
    effect: bool = True
    delay: float = 0.0
    status: int | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_seconds("a fault's delay", self.delay)

    @classmethod
    def drop(cls, *, effect: bool = True) -> Self:
        """Close the connection in good order (FIN) without a word."""
        return cls(end="drop", effect=effect)

    @classmethod
    def reset(cls, *, effect: bool = True) -> Self:
        """Break the connection (RST) without a word."""
        return cls(end="reset", effect=effect)

    @classmethod
    def cut(cls, *, effect: bool = True) -> Self:
        """Send half of the body that was promised, then close the connection."""
        return cls(end="cut", effect=effect)

    @classmethod
    def hang(cls, *, effect: bool = True) -> Self:
        """Never answer, and keep the connection for as long as the client does."""
        return cls(end="hang", effect=effect)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Answer as always, but *seconds* later."""
        return cls(delay=seconds)

    @classmethod
    def http(
        cls, status: int, *, retry_after: float | str | None = None, effect: bool = False
    ) -> Self:
        """Answer with this status and an HTML page, as a proxy in front of the service does."""
        headers = () if retry_after is None else (("Retry-After", f"{retry_after}"),)
        return cls(effect=effect, status=status, body=ERROR_PAGE, headers=headers)

    @classmethod
    def too_many(cls, retry_after: float | str | None = None) -> Self:
        """Answer with status 429, and say after how many seconds, or when, to come again."""
        return cls.http(429, retry_after=retry_after)

    @classmethod
    def html(cls, *, effect: bool = True) -> Self:
        """Answer with status 200 and an HTML page in the place of the JSON."""
        return cls(effect=effect, body=ERROR_PAGE)

    @classmethod
    def garbage(cls, body: bytes = b'[{"id": 1, "mess', *, effect: bool = True) -> Self:
        """Answer with *body* in the place of the service's own."""
        return cls(effect=effect, body=body)

    @classmethod
    def refusal(cls, words: str, *, status: int = 200) -> Self:
        """Say no in the form of both services, without any effect."""
        body = json.dumps({"status": 0, "message": words, "error": words}).encode()
        return cls(effect=False, status=status, body=body)

    def after(self, seconds: float) -> Self:
        """The same, *seconds* later."""
        return msgspec.structs.replace(self, delay=self.delay + seconds)


class Faults:
    """Which requests meet which fault.

    They are scripted by name:

        fake.faults.add("peerbet.chat.set", Fault.drop())  # the next one
        fake.faults.add("pythbots.mail.readnew", Fault.cut(), times=3)
        fake.faults.always("pythbots", Fault.http(503))  # until it is cleared
        fake.faults.clear()

    A name stands for all that begin with it: ``"pythbots"``, ``"pythbots.mail"``,
    ``"pythbots.mail.readnew"``. What was added comes before what is always so, and then the closer
    name before the wider. Names that there are not are an `InvalidRequestError`.
    """

    def __init__(self, rng: Random) -> None:
        self._chance = rng
        self._queues: dict[str, deque[Fault]] = {}
        self._constant: dict[str, tuple[Fault, float]] = {}

    def add(self, name: str, fault: Fault, *more: Fault, times: int = 1) -> None:
        """Let the next requests meet these faults, one each, and all of them *times* over."""
        check_integer("times", times, 1)
        self._queues.setdefault(_check_name(name), deque()).extend((fault, *more) * times)

    def always(self, name: str, fault: Fault, *, chance: float = 1.0) -> None:
        """Let every request meet *fault*, or that part of them which *chance* says (0.0 to 1.0).

        It takes the place of the last one for the same name.
        """
        if not 0.0 <= chance <= 1.0:
            raise InvalidRequestError("chance is a number from 0.0 to 1.0")
        self._constant[_check_name(name)] = (fault, chance)

    def clear(self, name: str | None = None) -> None:
        """Forget every fault for *name* and what begins with it, or all faults that there are."""
        for script in (self._queues, self._constant):
            for each in list(script):
                if name is None or _check_name(name) in _prefixes(each):
                    del script[each]

    @property
    def pending(self) -> Mapping[str, tuple[Fault, ...]]:
        """What was added and has not happened yet, by name."""
        return {name: tuple(queue) for name, queue in self._queues.items() if queue}

    @property
    def constant(self) -> Mapping[str, Fault]:
        """What is always so, by name."""
        return {name: fault for name, (fault, _) in self._constant.items()}

    def next_for(self, kind: str) -> Fault | None:
        """Decide what happens to a request of this *kind*, the closest name that it has."""
        names = _prefixes(kind)
        for name in names:
            if queue := self._queues.get(name):
                return queue.popleft()
        for name in names:
            fault, chance = self._constant.get(name, (None, 0.0))
            if fault is not None and self._chance.random() < chance:
                return fault
        return None

    def __repr__(self) -> str:
        pending = (f"{name}: {', '.join(map(repr, queue))}" for name, queue in self.pending.items())
        constant = (
            f"{name}: always {fault!r}" + (f", chance {chance:g}" if chance < 1 else "")
            for name, (fault, chance) in self._constant.items()
        )
        return f"<Faults {'; '.join([*pending, *constant]) or 'none'}>"


def _check_name(name: str) -> str:
    if name not in NAMES:
        raise InvalidRequestError(f"no such endpoint: {name}; there are {', '.join(sorted(NAMES))}")
    return name


def _prefixes(name: str) -> list[str]:
    """*name* and the names that it begins with, from the closest to the widest."""
    parts = name.split(".")
    return [".".join(parts[:many]) for many in range(len(parts), 0, -1)]
