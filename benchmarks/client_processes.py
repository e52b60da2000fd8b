"""Client processes on the channels of the measuring server, started by a signal.

If processes can be forked, they are forked from a process that has imported everything, so that
sixty of them are ready as soon as a few.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.context import SpawnContext
from typing import Final, cast

from .pacing_client import Outcome, Run, serve

__all__ = ["Client", "begin", "start"]

READY_TIMEOUT: Final = 60.0
"""Seconds that imports may take on a busy machine."""

CAN_FORK: Final = "forkserver" in multiprocessing.get_all_start_methods()
# Both contexts have the methods used here; for the type checkers their base class has not.
CONTEXT: Final = cast(
    "SpawnContext", multiprocessing.get_context("forkserver" if CAN_FORK else "spawn")
)
if CAN_FORK:
    CONTEXT.set_forkserver_preload([serve.__module__])


class Client:
    """A process that runs a limiter on a channel."""

    def __init__(self, run: Run) -> None:
        self.run: Final = run
        self._connection, client_end = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(client_end, run), daemon=True)
        self._process.start()
        client_end.close()  # so that the end of the process is detected

    def get_ready(self) -> None:
        """Wait until the client has imported its libraries and sent its warm-up request."""
        self._receive(READY_TIMEOUT)

    def go(self) -> None:
        """Send the start signal."""
        self._connection.send(None)

    def outcome(self) -> Outcome:
        """Wait for the result of the client, and return it."""
        run = self.run
        outcome = self._receive(
            run.max_duration_ratio * run.requests * run.interval + READY_TIMEOUT
        )
        if not isinstance(outcome, Outcome):
            raise TypeError(f"{run.limiter}: expected an Outcome, not {outcome!r}")
        return outcome

    def _receive(self, seconds: float) -> object:
        try:
            if self._connection.poll(seconds):
                received: object = self._connection.recv()
                return received
        except EOFError:
            pass
        raise RuntimeError(f"{self.run.limiter}: the client did not answer")

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def start(run: Run, stack: ExitStack) -> Client:
    """Start a client, which is ended by *stack*."""
    client = Client(run)
    stack.callback(client.end)
    return client


def begin(clients: Sequence[Client], within: float = 0.0) -> None:
    """Start all clients, evenly within *within* seconds, after all of them are ready."""
    for client in clients:
        client.get_ready()
    for client in clients:
        client.go()
        time.sleep(within / len(clients))
