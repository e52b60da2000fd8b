"""The endpoints of both services, as the test kit serves them: one table for all of its modules.

The client has constants of its own, on purpose: a fake that took its facts from the client would
share the client's mistakes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

import msgspec

from ..pacing.bucket import Rate

__all__ = [
    "DEFAULT_RATES",
    "ENDPOINTS",
    "FAULT_NAMES",
    "LABELS",
    "PERSONAL_KEY",
    "SERVICES",
    "EndpointFacts",
    "Operation",
    "Service",
    "endpoint_at",
    "operation_of",
    "prefixes",
    "required_params",
]

Service = Literal["peerbet", "pythbots"]

SERVICES: Final[tuple[Service, ...]] = ("peerbet", "pythbots")

SERVICE_LABELS: Final[Mapping[Service, str]] = {"peerbet": "Peerbet", "pythbots": "PythBots"}

PERSONAL_KEY: Final = "(personal key)"
"""Stands for the parameter of the personal key, whose name is a quirk."""

Required = tuple[tuple[str, ...], ...]
"""The parameters that a request must have; of each inner tuple, at least one."""


class Operation(msgspec.Struct, frozen=True):
    """One of several things that a single endpoint does, under a single rate."""

    name: str
    """The name of the operation, such as ``"pythbots.mail.send"``."""

    label: str
    """The operation in words."""

    flag: str | None
    """The bare flag in the query that selects it; ``None`` where no other flag is present."""

    required: Required
    """The parameters that it must have."""


class EndpointFacts(msgspec.Struct, frozen=True):
    """One endpoint: what has a rate of its own."""

    service: Service
    """The service that has it."""

    name: str
    """The endpoint's name, as in ``Session(rates=...)``."""

    path: str
    """The path of its URL."""

    rate: Rate
    """How often it may be requested with one key."""

    label: str
    """The endpoint in words."""

    required: Required = ()
    """The parameters that every request must have."""

    action: str | None = None
    """The value of ``action`` that selects it, where several endpoints have one path."""

    operations: tuple[Operation, ...] = ()
    """What it does, where that is more than one thing."""


ENDPOINTS: Final = (
    EndpointFacts(
        "peerbet", "peerbet.chat.get", "/api/chat/", Rate(1.0), "Read the chat", action="get"
    ),
    EndpointFacts(
        *("peerbet", "peerbet.chat.set", "/api/chat/", Rate(1.0), "Post"),
        required=(("key",), ("msg",)),
        action="set",
    ),
    EndpointFacts(
        *("peerbet", "peerbet.dice.roll", "/api/dice/", Rate(2.0), "Roll the dice"),
        required=(("key",), ("roll",), ("target",), ("cur",), ("bet",), ("seed",)),
        action="roll",
    ),
    EndpointFacts(
        *("pythbots", "pythbots.userinfo", "/api/userinfo.php", Rate(1.0, burst=3), "User info"),
        required=(("user",),),
    ),
    EndpointFacts(
        *("pythbots", "pythbots.crank", "/api/crank.php", Rate(1.0, burst=3), "Staff"),
        required=(("chatid",),),
    ),
    EndpointFacts(
        *("pythbots", "pythbots.cstats", "/api/cstats.php", Rate(1.0, burst=3), "Statistics"),
        required=(("chatid",),),
    ),
    EndpointFacts(
        *("pythbots", "pythbots.mail", "/api/mail.php", Rate(1.0), "Mail"),
        required=((PERSONAL_KEY,),),
        operations=(
            Operation("pythbots.mail.send", "Send mail", None, (("user", "id"), ("message",))),
            Operation("pythbots.mail.readnew", "Read new mail", "readnew", ()),
            Operation("pythbots.mail.readall", "Read all mail", "readall", ()),
        ),
    ),
)
"""All endpoints, in the order in which they are shown."""

_BY_NAME: Final = {endpoint.name: endpoint for endpoint in ENDPOINTS}

DEFAULT_RATES: Final[Mapping[str, Rate]] = {endpoint.name: endpoint.rate for endpoint in ENDPOINTS}
"""How often each endpoint may be requested with one key, unless `FakeServices` has other rates.

Peerbet documents its intervals; PythBots only asks not to send "too many requests too fast".
"""


def _labels() -> dict[str, str]:
    labels: dict[str, str] = {}
    for service in SERVICES:
        labels[service] = SERVICE_LABELS[service]
        for endpoint in ENDPOINTS:
            if endpoint.service == service:
                parts = endpoint.operations or (endpoint,)
                labels |= {part.name: part.label for part in parts}
    return labels


LABELS: Final[Mapping[str, str]] = _labels()
"""In words, each service and after it everything that can be requested of it."""


def prefixes(name: str) -> list[str]:
    """Return *name* and the names that it begins with, from the longest to the shortest."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


FAULT_NAMES: Final = frozenset(prefix for name in LABELS for prefix in prefixes(name))
"""The names for which faults can be scripted: operations, endpoints, and all their prefixes."""


def endpoint_at(service: Service, path: str, action: str | None) -> str:
    """Return the name of the endpoint at *path*, with this value of ``action``.

    For a path with an unknown action, that is what its endpoints' names have in common; for an
    unknown path, the name of the service.
    """
    name: str = service
    for endpoint in ENDPOINTS:
        if (endpoint.service, endpoint.path) == (service, path):
            if endpoint.action in (None, action):
                return endpoint.name
            name = endpoint.name.rpartition(".")[0]
    return name


def operation_of(endpoint: str, params: Collection[str]) -> str:
    """Return the name of what a request does: its operation's, or the endpoint's if it has none."""
    operation = _operation(endpoint, params)
    return endpoint if operation is None else operation.name


def required_params(endpoint: str, params: Collection[str]) -> Required:
    """Return the parameters that a request with *params* must have; none for an unknown name."""
    facts = _BY_NAME.get(endpoint)
    if facts is None:
        return ()
    operation = _operation(endpoint, params)
    return facts.required + (() if operation is None else operation.required)


def _operation(endpoint: str, params: Collection[str]) -> Operation | None:
    facts = _BY_NAME.get(endpoint)
    operations = () if facts is None else facts.operations
    selected = (operation for operation in operations if operation.flag in params)
    default = (operation for operation in operations if operation.flag is None)
    return next(selected, next(default, None))
