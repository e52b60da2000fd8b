"""Virtual time: an event loop on which an hour of chat takes a few milliseconds.

Sockets are real, time is virtual: it stands still while anything can run, and jumps to the next
timer when nothing can. So waiting for the clock takes no real time, and running takes no virtual
time. The clock must never jump while a thread is still at work for the loop.
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
"""How many packets in sequence, each caused by the one before, must arrive before a jump: a
connection takes that many until it is open on both sides."""

MAX_DELIVERY: Final = 1.0
"""Seconds of real time in which a packet must arrive at another socket of this process."""

KERNEL_WAIT: Final = 1e-6
"""Seconds of real time to sleep before a jump, if no packet can be used to wait."""

OWN_SOCKETS: Final = 1
"""Sockets that the loop has for itself. If it has no other, no task waits for a socket."""

DECIMALS: Final = 9
"""Decimals of a second to which the clock is rounded, so that 0.1 and 0.2 make 0.3."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock.

    The class itself is a loop factory:

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    It waits for calls in threads of which the loop knows (`asyncio.to_thread`, ``run_in_executor``,
    resolving names). It does not wait for other processes, nor for threads that were started
    otherwise: use an ordinary loop for them.

    Args:
        start: The time at the beginning, in seconds.
        patience: Seconds of real time after which it no longer waits for a call in a thread,
            because the call may be waiting for the clock.
    """

    def __init__(self, *, start: float = 0.0, patience: float = 10.0) -> None:
        self._virtual = _AutojumpSelector(start, patience)
        """The selector, which keeps the virtual time and advances it."""
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds on the virtual clock."""
        return self._virtual.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> Future[T]:
        """Call *func* in a thread; virtual time stands still until it returns."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.threads += 1
        future.add_done_callback(self._virtual.on_done)
        return future

    if sys.version_info >= (3, 12):

        async def shutdown_default_executor(self, timeout: float | None = None) -> None:
            """Wait for the threads of the default executor; virtual time stands still.

            asyncio waits for them in a thread of which the loop does not know, so the clock would
            jump to *timeout* before that thread has run.
            """
            self._virtual.threads += 1
            try:
                await super().shutdown_default_executor(timeout)
            finally:
                self._virtual.threads -= 1


class _AutojumpSelector(selectors.DefaultSelector):
    """Polls sockets as usual, and moves the clock instead of waiting.

    It never moves the clock while a socket is ready or a thread is at work.
    """

    def __init__(self, start: float, patience: float) -> None:
        super().__init__()
        self.now = start
        """The time of the virtual clock in seconds; only `_jump` changes it."""
        self.threads = 0
        """Calls in threads that have not returned; the loop counts them."""
        self._thread_timeout = patience
        """Seconds of real time to wait for such a call."""
        self._loopback = _Loopback()

    def close(self) -> None:
        self._loopback.close()
        super().close()

    def on_done(self, future: Future[T]) -> None:
        self.threads -= 1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            timeout = math.inf  # there is no timer: only a socket or a thread can wake the loop
        ready = super().select(0)
        if ready or timeout <= 0:
            return ready
        if timeout == math.inf:
            return super().select(None)
        if self.threads:
            ready = super().select(self._thread_timeout)
        elif len(self.get_map()) > OWN_SOCKETS:
            ready = self._select_delivered()
        if not ready:
            self._jump(timeout)
        return ready

    def _select_delivered(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Poll the sockets after the packets between them have arrived."""
        for _ in range(HOPS):
            self._loopback.wait()
            ready = super().select(0)
            if ready:
                return ready
        return []

    def _jump(self, seconds: float) -> None:
        """Move the clock, even by less than its rounding, so that no timer stays too early."""
        then = self.now + seconds
        shown = round(then, DECIMALS)
        self.now = shown if shown > self.now else then


class _Loopback:
    """Waits for the packets on the loopback interface, without releasing the processor.

    Packets arrive in the order in which they were sent: once one that is sent now has arrived, so
    have those before it. Sleeping is not enough: on a busy machine it lasts for as long as other
    processes keep the processor, and the packets may arrive even later.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        """A UDP socket connected to itself; ``None`` if it could not be opened, or failed."""
        with contextlib.suppress(OSError):  # a test run may forbid sockets
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self._socket.connect(self._socket.getsockname())
            self._socket.settimeout(MAX_DELIVERY)

    def wait(self) -> None:
        """Return when all packets that were sent before have arrived."""
        if self._socket is not None:
            try:
                self._socket.send(b"?")
                self._socket.recv(1)
            except OSError:
                self.close()
        if self._socket is None:
            time.sleep(KERNEL_WAIT)

    def close(self) -> None:
        """Close the socket; after that, `wait` sleeps."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
