"""Virtual time: an event loop on which an hour of chat takes a moment.

Sockets are real, time is not: it stands still while anything is going on, and jumps to the next
timer when nothing is. What waits for the clock alone therefore takes no time, and what is done on
the way takes none of the clock's. It must never jump while a thread is still at work for the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import socket
import sys
import time
from asyncio.futures import Future
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar, TypeVarTuple, Unpack

__all__ = ["VirtualTimeLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HOPS: Final = 3
"""How many packets that follow from one another have to arrive before a jump: a connection takes as
many until both sides have it."""

MAX_DELIVERY: Final = 1.0
"""Seconds of real time that a packet may take from one socket of this process to another."""

KERNEL_WAIT: Final = 1e-6
"""Seconds of real time that are slept, before a jump, where no packet can be waited for."""

OWN_SOCKETS: Final = 1
"""Sockets that the loop watches for itself. Where it watches no other, nobody waits for one."""

DECIMALS: Final = 9
"""Decimals of a second that the clock shows, so that 0.1 and 0.2 make 0.3."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own.

    The class is a loop factory as it stands:

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    The clock shows *start* at first, in seconds. It waits for calls in threads that the loop knows
    of (`asyncio.to_thread`, ``run_in_executor``, resolving names); for one that has been at work
    for *patience* seconds of real time, it waits no longer, in case that one waits for the clock.
    It does not wait for other processes, nor for threads that were started by other means: there,
    use an ordinary loop.
    """

    def __init__(self, *, start: float = 0.0, patience: float = 10.0) -> None:
        self._virtual = _AutojumpSelector(start, patience)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds on the virtual clock."""
        return self._virtual.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> Future[T]:
        """Have *func* called in a thread, and let no time pass until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.threads += 1
        future.add_done_callback(self._virtual.on_done)
        return future

    if sys.version_info >= (3, 12):

        async def shutdown_default_executor(self, timeout: float | None = None) -> None:
            """Wait for the threads of the default executor, and let no time pass meanwhile.

            What waits for them is a thread that the loop does not know of, and to *timeout* the
            clock would jump before that one has looked.
            """
            self._virtual.threads += 1
            try:
                await super().shutdown_default_executor(timeout)
            finally:
                self._virtual.threads -= 1


class _AutojumpSelector(selectors.DefaultSelector):
    """Looks at sockets as usual, and moves the clock instead of waiting."""

    def __init__(self, start: float, patience: float) -> None:
        super().__init__()
        self.now = start
        self.threads = 0
        self._patience = patience
        self._loopback = _Loopback()

    def close(self) -> None:
        self._loopback.close()
        super().close()

    def on_done(self, future: Future[T]) -> None:
        self.threads -= 1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            timeout = math.inf  # there is no timer: only what comes from without can go on
        ready = super().select(0)
        if ready or timeout <= 0:
            return ready
        if timeout == math.inf:
            return super().select(None)
        if self.threads:
            ready = super().select(self._patience)
        elif len(self.get_map()) > OWN_SOCKETS:
            ready = self._select_delivered()
        if not ready:
            self._jump(timeout)
        return ready

    def _select_delivered(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Look at the sockets once what is on its way between them has arrived."""
        for _ in range(HOPS):
            self._loopback.wait()
            ready = super().select(0)
            if ready:
                return ready
        return []

    def _jump(self, seconds: float) -> None:
        """Move the clock, and also by less than it shows: who is early must not stay so."""
        then = self.now + seconds
        shown = round(then, DECIMALS)
        self.now = shown if shown > self.now else then


class _Loopback:
    """Waits for what is on its way over the loopback interface, without giving up the processor.

    Packets arrive in the order in which they were sent: once one that is sent now has arrived, so
    have those before it. Sleeping for a moment would not do: on a busy machine it lasts as long as
    others keep the processor, and what it waits for may come even later.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):  # a test may be kept from opening sockets of its own
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self._socket.connect(self._socket.getsockname())
            self._socket.settimeout(MAX_DELIVERY)

    def wait(self) -> None:
        """Return when all that was sent before has arrived."""
        if self._socket is not None:
            try:
                self._socket.send(b"?")
                self._socket.recv(1)
            except OSError:
                self.close()
        if self._socket is None:
            time.sleep(KERNEL_WAIT)

    def close(self) -> None:
        """Close the socket; from then on, waiting is sleeping."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
