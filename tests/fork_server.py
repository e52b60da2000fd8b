"""Processes that need not import anything first: forked from one that has imported it all.

Half a second of imports is nearly all that a command costs. ``fork_server.py SOCKET MODULE...``
imports the modules, says so, and then forks a process for whoever asks on the socket (see
`fork_client`). It has streams, a folder, an environment and perhaps a terminal of its own, runs a
module as ``python -m`` does, or a program, and ends as every process does. The server ends when its
stdin does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final, NoReturn, Self

from fork_client import ask

HANG_TIMEOUT: Final = 60.0
"""Seconds after which a process is taken for one that hangs."""


# -- those who ask --------------------------------------------------------------------------------


class ForkServer:
    """A server as a process: ``with ForkServer("module to import", options=("-X", "dev"))``."""

    def __init__(self, *modules: str, options: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path: Final = str(Path(self._folder.name) / "socket")
        self._process = subprocess.Popen(
            [sys.executable, *options, __file__, self.path, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            raise AssertionError("the fork server did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._process:  # closes its stdin
            pass
        self._folder.cleanup()


class ForkedProcess:
    """A process that *server* forks: as much of `subprocess.Popen` as the tests use, as text.

    The streams are pipes; *stdin* is ``/dev/null`` unless given. All of them may be descriptors.
    *terminal* is the descriptor of a terminal to have as its own; *order* is read by `obey`.
    """

    def __init__(
        self,
        server: ForkServer,
        *arguments: str,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        terminal: int | None = None,
        folder: Path | None = None,
        **order: Any,
    ) -> None:
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        ours: list[int] = []
        if stdin is None:
            stdin = os.open(os.devnull, os.O_RDONLY)
            ours.append(stdin)
        if stdout is None:
            reader, stdout = os.pipe()
            self.stdout = open(reader, encoding="utf-8")  # noqa: SIM115, PTH123
            ours.append(stdout)
        if stderr is None:
            reader, stderr = os.pipe()
            self.stderr = open(reader, encoding="utf-8")  # noqa: SIM115, PTH123
            ours.append(stderr)
        order |= {"arguments": arguments, "terminal": terminal is not None}
        order |= {"folder": str(folder or Path.cwd()), "environment": dict(os.environ)}
        streams = [stdin, stdout, stderr, *([] if terminal is None else [terminal])]
        self._connection = ask(server.path, order, streams)
        for descriptor in ours:
            os.close(descriptor)
        self._answers = self._connection.makefile()
        self.pid: Final = int(self._answers.readline())

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = HANG_TIMEOUT) -> int:
        """Wait for its end, and return the exit code."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float = HANG_TIMEOUT) -> tuple[str, str]:
        """What it says until its end, on stdout and stderr."""
        said = {"stdout": "", "stderr": ""}

        def read(name: str, stream: IO[str]) -> None:
            said[name] = stream.read()

        threads = [
            threading.Thread(target=read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.stdout), ("stderr", self.stderr))
            if stream is not None and not stream.closed
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired("a forked process", timeout)
        self.wait(max(1.0, end - time.monotonic()))
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Kill it if need be, and close its pipes."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


# -- the server -----------------------------------------------------------------------------------


def serve(path: str) -> dict[str, Any]:
    """Fork a process for whoever asks. Returns in that process, with what it is to do."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        os.write(1, b"ready\n")
        while listener.fileno() in select.select([listener.fileno(), 0], [], [])[0]:
            connection, _ = listener.accept()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # a zombie less
                    pass
            with connection:
                if os.fork() == 0:
                    listener.close()
                    return supervise(connection)
    with contextlib.suppress(ChildProcessError):
        while os.wait():
            pass
    sys.exit()


def supervise(connection: socket.socket) -> dict[str, Any]:
    """Fork the process that is asked for, and tell its id and how it ended."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 4)
    with connection.makefile() as lines:
        order: dict[str, Any] = json.loads(lines.readline())
    pid = os.fork()
    if pid:
        for descriptor in (0, 1, 2, *streams):
            os.close(descriptor)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    return order | {"streams": streams}


def run_order(order: dict[str, Any]) -> None:
    """Be the process that was asked for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    if order.get("terminal"):
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(order["streams"][3], termios.TIOCSCTTY, 0)
    for target, descriptor in zip(range(3), order["streams"], strict=False):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        stream = open(  # noqa: SIM115
            number,
            "w" if number else "r",
            buffering=1 if number == 2 or (number and os.isatty(number)) else -1,
            encoding=before.encoding,
            errors=before.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if order.get("warnings_are_errors"):
        warnings.simplefilter("error")
    if order.get("patient"):
        from patient import make_patient

        from pythpeer.cli import signals

        make_patient()
        signals.NOTICE_AFTER = HANG_TIMEOUT
    if order.get("virtual_time"):
        from pythpeer.cli import ending
        from pythpeer.testing import VirtualTimeLoop

        ending.LOOP_FACTORY = VirtualTimeLoop
    if "program" in order:
        sys.argv = [order["program"], *order["arguments"]]
        runpy.run_path(order["program"], run_name="__main__")
    else:
        sys.argv = ["", *order["arguments"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def main() -> NoReturn:
    """Import the modules, serve, and obey in each process that was forked."""
    path, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # no process need look at what it shares with the others
    run_order(serve(path))
    sys.exit()


if __name__ == "__main__":
    main()
