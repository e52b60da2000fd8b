"""A server that forks processes which have already imported what they need.

Most of the time that a short program takes is half a second of imports. ``fork_server.py SOCKET
MODULE...`` imports the modules, prints ``ready``, and forks a process for each connection to the
socket (see `fork_client`). The process has streams, a folder, an environment and, if requested, a
terminal of its own. It runs a module, as ``python -m`` does, or a program file, and exits as any
process does. The server ends when its stdin is closed, and kills the processes that still run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
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

from cpu_time import CPU_TIME
from fork_client import request_process

HANG_TIMEOUT: Final = 60.0
"""Seconds of waiting after which a test fails because a process hangs."""


# -- in the tests ---------------------------------------------------------------------------------


class ForkServer:
    """A fork server as a process: ``with ForkServer("a module to import") as server``.

    *options* are options of the interpreter, such as ``-X dev``. At the end of the block, or when
    the tests are killed, the server kills the processes that still run and ends.
    """

    def __init__(self, *modules: str, options: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path: Final = str(Path(self._folder.name) / "socket")
        """The socket on which the server listens."""
        self.forked_cpu_time = 0.0
        """Seconds of CPU of the processes that have ended; `ForkedProcess.wait` adds them."""
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
        with CPU_TIME.ending_shared(self.forked_cpu_time), self._process:  # closes its stdin
            pass
        self._folder.cleanup()


class ForkedProcess:
    """A process that *server* forks, with the part of `subprocess.Popen` that the tests need.

    The streams are text. *stdin* is ``/dev/null`` and the others are pipes, unless a descriptor is
    given. *terminal* is the descriptor of a terminal that becomes the controlling terminal of the
    process. *folder* is the working directory, by default that of the tests. *order* specifies what
    the process runs, and is read by `run_order`.
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
        """The exit code, or minus the number of a signal. `wait` sets it."""
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        """The ends of the pipes to read from; ``None`` for a stream that is not a pipe."""
        self._server = server
        """The server, whose CPU time `wait` updates."""
        to_close: list[int] = []
        if stdin is None:
            stdin = os.open(os.devnull, os.O_RDONLY)
            to_close.append(stdin)
        if stdout is None:
            reader, stdout = os.pipe()
            self.stdout = open(reader, encoding="utf-8")  # noqa: SIM115, PTH123
            to_close.append(stdout)
        if stderr is None:
            reader, stderr = os.pipe()
            self.stderr = open(reader, encoding="utf-8")  # noqa: SIM115, PTH123
            to_close.append(stderr)
        order |= {"arguments": arguments, "terminal": terminal is not None}
        order |= {"folder": str(folder or Path.cwd()), "environment": dict(os.environ)}
        streams = [stdin, stdout, stderr]
        if terminal is not None:
            streams.append(terminal)
        self._connection = request_process(server.path, order, streams)
        """Readable once the process has ended; `wait` closes it then."""
        for descriptor in to_close:
            os.close(descriptor)
        self._lines = self._connection.makefile()
        """The lines that the server sends: the process id, then the exit code and CPU time."""
        self.pid: Final = int(self._lines.readline())
        """The process id."""

    def poll(self) -> int | None:
        """Return the exit code, or ``None`` while the process runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = HANG_TIMEOUT) -> int:
        """Wait for the end of the process, at most *timeout* seconds, and return the exit code."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            code, cpu_time = self._lines.readline().split()
            self.returncode = int(code)
            CPU_TIME.add_forked(float(cpu_time))
            self._server.forked_cpu_time += float(cpu_time)
            self._lines.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float = HANG_TIMEOUT) -> tuple[str, str]:
        """Wait for the end of the process, and return the rest of its stdout and stderr."""
        texts = {"stdout": "", "stderr": ""}

        def read(name: str, stream: IO[str]) -> None:
            texts[name] = stream.read()

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
        return texts["stdout"], texts["stderr"]

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Kill the process if it still runs, and close its pipes."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


# -- in the server --------------------------------------------------------------------------------


def serve(path: str) -> dict[str, Any]:
    """Fork a process for each connection. Returns in that process, with its order.

    Each process has a supervisor, which is a child of the server and the parent of the process.
    """
    supervisors: set[int] = set()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        os.write(1, b"ready\n")
        while listener.fileno() in select.select([listener.fileno(), 0], [], [])[0]:
            connection, _ = listener.accept()
            while supervisors and (ended := os.waitpid(-1, os.WNOHANG)[0]):
                supervisors.remove(ended)
            with connection:
                supervisor = os.fork()
                if supervisor == 0:
                    listener.close()
                    return supervise(connection)
                supervisors.add(supervisor)
    for supervisor in supervisors:
        os.kill(supervisor, signal.SIGTERM)
    for _ in supervisors:
        os.wait()
    sys.exit()


def supervise(connection: socket.socket) -> dict[str, Any]:
    """Fork the requested process; send its id, and at the end its exit code and CPU time.

    SIGTERM kills the process. Returns in the new process only, with its order.
    """
    _, streams, _, _ = socket.recv_fds(connection, 1, 4)
    with connection.makefile() as lines:
        order: dict[str, Any] = json.loads(lines.readline())
    pid = os.fork()
    if pid:
        for descriptor in (0, 1, 2, *streams):
            os.close(descriptor)
        signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, signal.SIGKILL))
        connection.sendall(b"%d\n" % pid)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):  # the client may have been killed
            connection.sendall(b"%d %f\n" % (code, usage.ru_utime + usage.ru_stime))
        os._exit(0)
    return order | {"streams": streams}


def run_order(order: dict[str, Any]) -> None:
    """Turn this process into the requested one, and run its module or program.

    | key | meaning |
    |---|---|
    | ``folder``, ``environment`` | the working directory and all variables |
    | ``streams`` | descriptors for stdin, stdout and stderr, and one of a terminal |
    | ``terminal`` | whether there is a terminal among the streams |
    | ``module`` or ``program`` | the name of a module, or the path of a file |
    | ``arguments`` | what follows the program's name in ``sys.argv`` |
    | ``warnings_are_errors`` | whether each warning raises |
    | ``patient`` | whether sessions wait long for their permits (see `patient`) |
    | ``virtual_time`` | whether commands run on a `VirtualTimeLoop` |
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()  # with the state of the server, all processes would draw the same numbers
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    if order.get("terminal"):
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(order["streams"][3], termios.TIOCSCTTY, 0)
    replace_streams(order["streams"])
    if order.get("warnings_are_errors"):
        warnings.simplefilter("error")
    if order.get("patient"):
        from patient import make_patient

        from pythpeer.cli import signals

        make_patient()
        signals.NOTICE_AFTER = HANG_TIMEOUT
    if order.get("virtual_time"):
        from pythpeer.cli import runner
        from pythpeer.testing import VirtualTimeLoop

        runner.LOOP_FACTORY = VirtualTimeLoop
    if "program" in order:
        sys.argv = [order["program"], *order["arguments"]]
        runpy.run_path(order["program"], run_name="__main__")
    else:
        sys.argv = ["", *order["arguments"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def replace_streams(descriptors: Sequence[int]) -> None:
    """Make these the descriptors 0 to 2, and open `sys.stdin`, `sys.stdout`, `sys.stderr` anew."""
    for target, descriptor in zip(range(3), descriptors, strict=False):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        by_line = number == 2 or (number == 1 and os.isatty(number))
        stream = open(  # noqa: SIM115
            number,
            "w" if number else "r",
            buffering=1 if by_line else -1,
            encoding=before.encoding,
            errors=before.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> NoReturn:
    """Import the modules and serve; in each forked process, run its order."""
    path, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # collections in a process need not look at the objects it shares
    run_order(serve(path))
    sys.exit()


if __name__ == "__main__":
    main()
