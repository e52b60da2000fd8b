"""The fault panel: which fault each service has, and each thing that can be requested of it.

It sets the faults of `FakeServices.faults`, and shows those that were set by other means, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

import anyio

from ...errors import InvalidRequestError
from ..endpoints import LABELS, SERVICES, Service
from ..fake import FakeServices
from ..faults import Fault

__all__ = ["KINDS", "TARGETS", "FaultPanel"]

NORMAL: Final = "normal"
DOWN: Final = "down"

KINDS: Final[Mapping[str, str]] = {
    NORMAL: "Normal",
    "slow": "Slow: 3 s",
    DOWN: "Down",
    "error": "Error page (503)",
    "limited": "Too many requests (429)",
    "garbage": "Garbage instead of JSON",
    "lost": "Done, but response lost",
}
"""Every kind of fault, in words."""

TARGETS: Final = LABELS
"""What can have a fault, in words: a service, or one thing that it does."""

FAULTS: Final[Mapping[str, Fault]] = {
    "slow": Fault.slow(3.0),
    DOWN: Fault.drop(effect=False),
    "error": Fault.http(503),
    "limited": Fault.too_many(5),
    "garbage": Fault.garbage(),
    "lost": Fault.drop(),
}


_SERVICES: Final[Mapping[str, Service]] = {name: name for name in SERVICES}


class FaultPanel:
    """Sets the faults of *fake*, and clears them. A service that is down refuses connections."""

    def __init__(self, fake: FakeServices) -> None:
        self._fake = fake
        """The services whose faults it sets."""
        self._outages: dict[Service, AsyncExitStack] = {}
        """The outages that this panel started; closing one ends it."""
        self._lock = anyio.Lock()
        """One change at a time, because starting and ending an outage awaits."""

    @property
    def now(self) -> dict[str, str]:
        """The kind of fault by target, without normal ones; ``other`` is a fault not in `KINDS`."""
        names = {fault: kind for kind, fault in FAULTS.items()}
        constant = self._fake.faults.constant
        kinds = {name: names.get(fault, "other") for name, fault in constant.items()}
        return kinds | dict.fromkeys(self._outages, DOWN)

    async def set(self, target: str, kind: str) -> None:
        """Set a fault for *target*, or clear all faults of it and of what belongs to it.

        Raises `InvalidRequestError` for an unknown one, and ``OSError`` where the outage of a
        service cannot be ended because its port is taken: then the service is still down.
        """
        if target not in TARGETS or kind not in KINDS:
            raise InvalidRequestError(f"unknown fault {kind!r} for {target!r}")
        async with self._lock:
            service = _SERVICES.get(target)
            if service is not None:
                if kind == DOWN:
                    await self._start_outage(service)
                    return
                await self._end_outage(service)
            if kind == NORMAL:
                self._fake.faults.clear(target)
            else:
                self._fake.faults.always(target, FAULTS[kind])

    async def clear(self) -> None:
        """Clear all faults. Raises as `set` does."""
        for service in SERVICES:
            await self.set(service, NORMAL)

    async def _start_outage(self, service: Service) -> None:
        if service not in self._outages:
            outage = AsyncExitStack()
            await outage.enter_async_context(self._fake.outage(service))
            self._outages[service] = outage

    async def _end_outage(self, service: Service) -> None:
        outage = self._outages.pop(service, None)
        if outage is None:
            return
        try:
            await outage.aclose()
        except OSError:
            await self._start_outage(service)
            raise
