"""Runs in subprocesses, each of which prints its result as JSON.

Contains both sides: `run_all` starts the subprocesses; `read_spec` and `run_spec` run in them, on
virtual time.
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
    """Execute the specs with *module* of this package, at the same time; return their results."""
    with ExitStack() as stack:
        children = [_start(module, spec, stack) for spec in specs]
        results: list[T] = []
        for child in children:
            printed, _ = child.communicate(timeout=TIMEOUT)
            if child.returncode:
                raise RuntimeError(f"{module} failed")
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
    """Return the spec from the command line of this process."""
    return msgspec.json.decode(sys.argv[1], type=kind)


def run_spec(spec: T, run: Callable[[T, Path], Coroutine[Any, Any, object]]) -> None:
    """Execute *run* with the spec and a temporary folder, and print the result."""
    logging.disable()  # faults occur constantly, and each is logged
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        result = runner.run(run(spec, Path(folder)))
    print(msgspec.json.encode(result).decode())
