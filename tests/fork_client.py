"""Asks a fork server for a process; as a program, a command whose work such a process does.

``fork_client.py SOCKET ORDER ARGUMENT...`` lends its streams, folder and environment to a process
that does as ORDER says, which is JSON, passes signals on to it, and ends as it does. It imports
little, to start quickly.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence


def ask(path: str, order: dict[str, object], streams: Sequence[int]) -> socket.socket:
    """Ask the server at *path* for a process with these *streams*.

    The process id comes through the connection on a line, and once it has ended its exit code.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        connection.sendmsg([b"."], rights)
        connection.sendall(json.dumps(order).encode() + b"\n")
    except BaseException:
        connection.close()
        raise
    return connection


def main() -> None:
    """Have a command run by the server."""
    path, text, *arguments = sys.argv[1:]
    order = json.loads(text) | {"arguments": arguments}
    order |= {"folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    with ask(path, order, (0, 1, 2)) as connection:
        answers = connection.makefile()
        pid = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        code = int(answers.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
