"""The client of a fork server: requests a process; as a program, stands in for a command.

``fork_client.py SOCKET ORDER ARGUMENT...`` requests a process that runs what ORDER, a JSON object,
specifies. The process gets the streams, the folder and the environment of this program, which
forwards signals to it and ends with the same exit code. It imports few modules, to start quickly.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence


def request_process(path: str, order: dict[str, object], streams: Sequence[int]) -> socket.socket:
    """Request a process from the server at *path*, with these descriptors as *streams*.

    Returns the connection. Through it the server sends the process id in one line, and at the end
    of the process its exit code and its seconds of CPU in another.
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
    """Let the server run a command."""
    path, text, *arguments = sys.argv[1:]
    order = json.loads(text) | {"arguments": arguments}
    order |= {"folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    with request_process(path, order, (0, 1, 2)) as connection:
        lines = connection.makefile()
        pid = int(lines.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        code = int(lines.readline().split()[0])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
