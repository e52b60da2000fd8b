"""Orders that are carried out in processes of their own, each of which prints what it saw."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TypeVar

import msgspec

from .server import ROOT

__all__ = ["carry_out"]

T = TypeVar("T")

PATIENCE = 1800


def carry_out(module: str, orders: Sequence[msgspec.Struct], result: type[T]) -> list[T]:
    """Have *module* of this package carry *orders* out, all at the same time."""
    with ExitStack() as stack:
        children = [_start(module, order, stack) for order in orders]
        results: list[T] = []
        for child in children:
            printed, _ = child.communicate(timeout=PATIENCE)
            if child.returncode:
                raise RuntimeError(f"an order to {module} did not come through")
            results.append(msgspec.json.decode(printed, type=result))
        return results


def _start(module: str, order: msgspec.Struct, stack: ExitStack) -> subprocess.Popen[bytes]:
    words = msgspec.json.encode(order).decode()
    command = [sys.executable, "-m", f"{__package__}.{module}", words]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    stack.callback(_end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
    child.communicate()
