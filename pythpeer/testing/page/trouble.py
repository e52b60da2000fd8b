"""The fault panel: which trouble there is, by service or by what is asked of it.

It sets the faults that `FakeServices.faults` has, and shows them whoever set them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

import anyio

from ...errors import InvalidRequestError
from ..fake import SERVICES, FakeServices
from ..faults import Fault
from ..incoming import Service

__all__ = ["KINDS", "TARGETS", "FaultPanel"]

NORMAL: Final = "normal"
DOWN: Final = "down"

KINDS: Final[Mapping[str, str]] = {
    NORMAL: "Normal",
    "slow": "Slow: 3 s late",
    DOWN: "Down",
    "error": "Error page, status 503",
    "limited": "Too many requests, status 429",
    "garbage": "Garbage for an answer",
    "lost": "Done, but the answer is lost",
}
"""Every kind of trouble, in words."""

TARGETS: Final[Mapping[str, str]] = {
    "peerbet": "Peerbet",
    "peerbet.chat.get": "Read the chat",
    "peerbet.chat.set": "Post",
    "pythbots": "PythBots",
    "pythbots.userinfo": "User info",
    "pythbots.crank": "Staff",
    "pythbots.cstats": "Statistics",
    "pythbots.mail.send": "Send mail",
    "pythbots.mail.readnew": "Read new mail",
    "pythbots.mail.readall": "Read all mail",
}
"""Everything that can be in trouble, in words. A service stands for all that is asked of it."""

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
    """Makes trouble at *fake*, and ends it. A service that is down refuses connections."""

    def __init__(self, fake: FakeServices) -> None:
        self._fake = fake
        self._outages: dict[Service, AsyncExitStack] = {}
        self._turn = anyio.Lock()

    @property
    def now(self) -> dict[str, str]:
        """The kind of trouble by target, without what is normal; ``other`` is none of `KINDS`."""
        names = {fault: kind for kind, fault in FAULTS.items()}
        constant = self._fake.faults.constant
        kinds = {name: names.get(fault, "other") for name, fault in constant.items()}
        return kinds | dict.fromkeys(self._outages, DOWN)

    async def set(self, target: str, kind: str) -> None:
        """Have *target* in trouble of this *kind*, or back to normal with all that belongs to it.

        Raises `InvalidRequestError`, and ``OSError`` where a service cannot come back because its
        port is taken: then it is still down.
        """
        if target not in TARGETS or kind not in KINDS:
            raise InvalidRequestError(f"there is no {kind!r} of {target!r}")
        async with self._turn:
            service = _SERVICES.get(target)
            if service is not None:
                if kind == DOWN:
                    await self._take_down(service)
                    return
                await self._bring_back(service)
            if kind == NORMAL:
                self._fake.faults.clear(target)
            else:
                self._fake.faults.always(target, FAULTS[kind])

    async def clear(self) -> None:
        """Have everything back to normal. Raises as `make` does."""
        for service in SERVICES:
            await self.set(service, NORMAL)

    async def _take_down(self, service: Service) -> None:
        if service not in self._outages:
            outage = AsyncExitStack()
            await outage.enter_async_context(self._fake.outage(service))
            self._outages[service] = outage

    async def _bring_back(self, service: Service) -> None:
        outage = self._outages.pop(service, None)
        if outage is None:
            return
        try:
            await outage.aclose()
        except OSError:
            await self._take_down(service)
            raise
