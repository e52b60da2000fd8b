"""Forks the programs of tests that need processes: run by tests/processes.py.

It imports each program once, so that a process takes no longer to begin than it has to. Each line
that comes in is a process to fork; its id goes out.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any

Main = Callable[..., Coroutine[Any, Any, None]]


def become(main: Main, arguments: list[str], said: str, errors: str) -> None:
    """Run *main* with its output and its errors in these files, and end."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, path in ((1, said), (2, errors)):
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        random.seed()  # of the parent's state all would make the same
        asyncio.run(main(*arguments))
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it was, it goes no further
        traceback.print_exc()
    finally:
        os._exit(status)


def bury(number: int, frame: FrameType | None) -> None:
    """Leave no zombies: whoever looks for a process finds it gone."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run() -> None:
    signal.signal(signal.SIGCHLD, bury)
    for line in sys.stdin:
        program, arguments, said, errors = json.loads(line)
        main = importlib.import_module(program).main
        pid = os.fork()
        if not pid:
            become(main, arguments, said, errors)
        os.write(1, b"%d\n" % pid)
    os.killpg(0, signal.SIGKILL)  # whoever wanted them is no more


if __name__ == "__main__":
    run()
