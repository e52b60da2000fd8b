"""Orders that are carried out in processes of their own, each of which prints what it saw.

Both sides of it: who gives them, and who, on virtual time and with a folder, obeys.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pythpeer.testing import VirtualTimeLoop

from .server import ROOT

__all__ = ["read_spec", "run_all", "run_spec"]

T = TypeVar("T")

TIMEOUT: Final = 1800


def run_all(module: str, specs: Sequence[msgspec.Struct], result: type[T]) -> list[T]:
    """Have *module* of this package carry *orders* out, all at the same time."""
    with ExitStack() as stack:
        children = [_start(module, spec, stack) for spec in specs]
        results: list[T] = []
        for child in children:
            printed, _ = child.communicate(timeout=TIMEOUT)
            if child.returncode:
                raise RuntimeError(f"an order to {module} did not come through")
            results.append(msgspec.json.decode(printed, type=result))
        return results


def _start(module: str, spec: msgspec.Struct, stack: ExitStack) -> subprocess.Popen[bytes]:
    encoded = msgspec.json.encode(spec).decode()
    command = [sys.executable, "-m", f"{__package__}.{module}", encoded]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    stack.callback(_end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
    child.communicate()


# -- in the process -------------------------------------------------------------------------------


def read_spec(kind: type[T]) -> T:
    """The order that this process was started with."""
    return msgspec.json.decode(sys.argv[1], type=kind)


def run_spec(spec: T, run: Callable[[T, Path], Coroutine[Any, Any, object]]) -> None:
    """Carry it out, and print what came of it. *run* has a folder of its own."""
    logging.disable()  # it says whatever goes wrong, and something does all the time
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        result = runner.run(run(spec, Path(folder)))
    print(msgspec.json.encode(result).decode())
