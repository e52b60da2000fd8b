"""Random trouble for workers on one store, for as long as it is left to run: ``nox -s chaos``.

Several programs (`proc_chaos`) read the chat and the mail of the fake services, and post, on one
SQLite file and then on one Redis server. They are killed, ended and stopped; requests are dropped,
reset, cut and delayed; the store is locked, full, frozen, restarted; clocks are set; ids start
anew. `chaos_checker` compares all that the services and the workers have seen with the promises.

The run consists of rounds of a minute. What happens in a round, and when, follows from the seed;
at its end all trouble is over, all items must have arrived, and everything is forgotten. One line
is printed for each round, and one for each promise that is not kept. The exit code is 1 then.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import mmap
import os
import random
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
import redis_server
from chaos_checker import Checker, Kind, Lateness, Violation
from fork_server import ForkedProcess, ForkServer
from helpers import memory_folder
from proc_chaos import MAX_LATE, STORE_UNUSABLE, Settings
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis_proxy import RedisProxy
from scripted import (
    API_ERROR,
    CUT,
    DROP,
    DROP_WITHOUT_EFFECT,
    ERROR_429,
    ERROR_500,
    GARBAGE,
    HANG,
    OK,
    RESET,
    RecordedCall,
    Scripted,
    ScriptedFault,
    _Connection,
)

HERE: Final = Path(__file__).parent
WORKER_PROGRAM: Final = HERE / "proc_chaos.py"
COMPILER: Final = shutil.which("cc") or shutil.which("gcc")

WORKERS: Final = 3
INTERVAL: Final = 0.25
"""Seconds between two requests to an endpoint."""

GUARD: Final = 0.4
"""Long, because the services share a loop with this program, and may record a request late."""

IDLE_CHECK: Final = 2.0
MAX_LENGTH: Final = 3000
"""Items that a log keeps: more than a round has."""

MAX_BEHIND: Final = 150
"""Items that a stream may lack before the services wait for it: they show 300."""

MAX_MAILBOX: Final = 1500
"""Mails that the history keeps; with more, each `readall` would take long."""

MIN_RESTART: Final = 400
"""Ids that must be in use before they start anew: with fewer, new ones overtake the old ones."""

COMPLETE_SECONDS: Final = 45.0
"""Seconds after the end of all trouble within which everything must have arrived."""

STOP_SECONDS: Final = 20.0
"""Seconds within which a worker must have ended after SIGTERM."""

MAX_VIOLATIONS: Final = 20
"""Violations after which the run ends."""

MAX_SHOWN: Final = 10
"""Violations of a round that are printed."""

ENDPOINTS: Final = MappingProxyType(
    {"get": "chat.get", "set": "chat.set", "readnew": "mail", "readall": "mail", "send": "mail"}
)

WIRE_FAULTS: Final = (
    *(DROP, DROP_WITHOUT_EFFECT, RESET, CUT, HANG, GARBAGE, ERROR_500, ERROR_429, API_ERROR),
)


def now() -> float:
    return asyncio.get_running_loop().time()


# -- the services ---------------------------------------------------------------------------------


class ChaosServices(Scripted):
    """Both services, which answer some requests badly and notify the checker of all of them."""

    def __init__(self, checker: Checker, *, mail_ids: bool, readall_marks: bool) -> None:
        super().__init__(mail_ids=mail_ids, readall_marks=readall_marks)
        self.checker = checker
        self.lateness = Lateness()
        self.rng = random.Random()
        """Chooses the faults."""
        self.fault_share = 0.0
        """The share of requests that are answered badly."""
        self.on_mail_read: Callable[[int], object] | None = None
        """Called once, with the port of the client, when mail was marked as read. The response is
        lost."""
        self.last_requests: deque[RecordedCall] = deque(maxlen=24)
        """Printed with a violation."""
        self._known = 0
        """How many messages of the chat the checker knows."""

    def receive(self, connection: _Connection, target: str) -> None:
        for kind in ENDPOINTS:
            self.default_faults[kind] = self._fault()
        loses_mail = self.on_mail_read is not None and self._reads_mail(target)
        if loses_mail:
            self.script("readnew", HANG)
        super().receive(connection, target)
        if loses_mail:
            on_mail_read, self.on_mail_read = self.on_mail_read, None
            assert on_mail_read is not None
            on_mail_read(connection.transport.get_extra_info("peername")[1])
        call = self.requests.pop()
        self.last_requests.append(call)
        self.checker.request(call.at, ENDPOINTS[call.kind], self.lateness.worst, GUARD)

    def _reads_mail(self, target: str) -> bool:
        """Return whether a request marks mail as read."""
        is_destructive = "readnew" in target.partition("?")[2]
        return is_destructive and any(not mail.read for mail in self.mails)

    def _fault(self) -> ScriptedFault:
        if self.rng.random() < self.fault_share:
            return self.rng.choice(WIRE_FAULTS)
        if self.fault_share == 0.0:
            return OK
        return ScriptedFault(before=self.rng.uniform(0, 0.02), after=self.rng.uniform(0, 0.02))

    def _answer(self, kind: str, call: Any) -> object:
        document = super()._answer(kind, call)
        self.show_checker()  # a post is a message, too
        return document

    def show_checker(self) -> None:
        """Notify the checker of new messages."""
        for message in self.chat.messages[self._known :]:
            self.checker.message(now(), message.text, message.id)
        self._known = len(self.chat.messages)

    def forget(self, texts: set[str]) -> None:
        """Forget what all names have, but not the last messages, which are still requested.

        Mail is only forgotten when there is much: without it the history cannot count.
        """
        kept = self.chat.messages[-300:]
        if len(self.mails) > MAX_MAILBOX:
            self.mails[:] = [mail for mail in self.mails if mail.text not in texts]
            self.checker.has_complete_history = False
        texts -= {message.text for message in kept} | {mail.text for mail in self.mails}
        self.chat.messages[:] = kept
        self._known = len(kept)
        self.checker.forget(texts)

    def restart_ids(self) -> None:
        """Start with id 1 again, with an empty chat."""
        self.chat.messages.clear()
        self.chat._last_id = 0
        self._known = 0
        self.checker.forget_due_messages()


# -- workers --------------------------------------------------------------------------------------


class Worker:
    """A process that is started again whenever it has ended, and what it has reported last."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self._run = run
        self.settings = settings
        self.name = settings.worker
        self._process: ForkedProcess | None = None
        self._rest = b""
        """The bytes of a line that is not complete yet."""
        self.errors: deque[str] = deque(maxlen=80)
        """The last lines of its stderr."""
        self._is_killed = False
        """Whether this life was ended by SIGKILL."""
        self._terminated_at: float | None = None
        """When SIGTERM was sent."""
        self._open_streams = 0
        """Streams of this life that have begun and not reported their end."""
        self.is_stopped = False
        """Whether it stands still by SIGSTOP."""
        self.is_ok = False
        """The health that it has reported last."""
        self.awake_since = 0.0
        """When it was last started, stopped, continued or not ok."""
        self.lives = 0

    @property
    def is_alive(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def has_begun(self) -> bool:
        """Whether all streams of this life have begun."""
        return self._open_streams == 2 * len(self.settings.names)

    def start(self) -> None:
        argument = msgspec.json.encode(self.settings).decode()
        self._process = process = ForkedProcess(
            self._run.fork_server, argument, program=str(WORKER_PROGRAM)
        )
        self.lives += 1
        self._rest, self._is_killed, self._terminated_at = b"", False, None
        self._open_streams, self.is_ok, self.awake_since = 0, False, now()
        self.errors.clear()
        for stream, read in ((process.stdout, self._read), (process.stderr, self._read_errors)):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            asyncio.get_running_loop().add_reader(stream.fileno(), read)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._is_killed |= number == signal.SIGKILL
            if number == signal.SIGTERM:
                if self._terminated_at is not None:
                    return  # a second signal would cancel it
                self._terminated_at = now()
            self._process.send_signal(number)

    def check_stop(self) -> None:
        """Report a worker that does not end after SIGTERM, and kill it."""
        if self._terminated_at is None or self.is_stopped:
            return
        if now() - max(self._terminated_at, self._run.calm_since) > STOP_SECONDS:
            self._run.report("a worker stops at SIGTERM", f"{self.name} runs on")
            self._terminated_at = None
            self.send(signal.SIGKILL)

    # -- what it reports --------------------------------------------------------------------------

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        data = os.read(self._process.stdout.fileno(), 1 << 16)
        if not data:
            self._end()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._handle(*msgspec.json.decode(line))

    def _read_errors(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        data = os.read(self._process.stderr.fileno(), 1 << 16)
        if data:
            self.errors.extend(data.decode(errors="replace").splitlines())
        else:
            asyncio.get_running_loop().remove_reader(self._process.stderr.fileno())

    def _handle(self, event: str, *values: Any) -> None:
        checker = self._run.checker
        match event:
            case "item":
                name, kind, text, recovered = values
                checker.item(now(), self.name, (name, kind), text, recovered=recovered)
            case "health":
                self.is_ok = values[0]
                if not self.is_ok:
                    self.awake_since = now()
            case "late":
                checker.was_late(now(), values[0], self.name)
            case "began":
                self._open_streams += 1
                checker.began(now(), (values[0], values[1]))
            case "gaps":
                self._open_streams -= 1
                checker.counts["gaps"] += values[2]
            case "posting":
                checker.posting(values[0])
            case "posted":
                checker.posted(now(), *values)
            case "failed":
                text, _, sent = values
                checker.counts["posts failed"] += 1
                checker.not_posted(now(), text, sent=sent)
            case _:
                checker.counts[event] += 1

    def _end(self) -> None:
        """All that it has reported is known; its exit code follows."""
        process, self._process = self._process, None
        assert process is not None
        loop = asyncio.get_running_loop()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            loop.remove_reader(stream.fileno())
        assert process.stderr is not None
        with suppress(BlockingIOError):
            self.errors.extend(os.read(process.stderr.fileno(), 1 << 16).decode().splitlines())
        code = process.wait()
        process.close()
        self.is_stopped = False
        expected = {0} if self._terminated_at is not None else set[int]()
        expected |= {-signal.SIGKILL} if self._is_killed else set()
        if self._terminated_at is not None and not self._open_streams:
            expected.add(-signal.SIGTERM)  # it came before `pythpeer.run`, or after it
        if code == STORE_UNUSABLE and self._run.in_trouble:
            expected.add(code)
        if code not in expected:
            errors = "\n    ".join(self.errors)
            self._run.report("no trouble ends a bot", f"{self.name}: code {code}\n    {errors}")
        self._run.checker.ended(now(), self.name, clean=code == 0)


# -- stores ---------------------------------------------------------------------------------------


class Action(NamedTuple):
    """One trouble of a round."""

    at: float
    """Seconds after the start of the round."""
    name: str
    seconds: float
    worker: int
    """The worker that it concerns, if it concerns one."""
    amount: float
    """A random number from 0 to 1."""

    def __str__(self) -> str:
        return f"{self.at:.1f} {self.name}"


class SqliteTrouble:
    """One SQLite file that all workers share."""

    name: Final = "sqlite"
    actions: Final = ("lock", "lock", "full disk", "checkpoint")
    is_shared: Final = False

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.address = str(folder / "store.sqlite")

    @contextmanager
    def started(self) -> Iterator[None]:
        yield  # the first worker makes the file

    @asynccontextmanager
    async def reachable(self) -> AsyncIterator[None]:
        yield

    def streams_of(self, worker: int) -> tuple[str, ...]:
        return (f"own-{worker}",)

    async def run(self, action: Action, run: Run) -> None:
        match action.name:
            case "lock":
                await asyncio.to_thread(self._lock, 2.0 * action.seconds)
            case "checkpoint":
                await asyncio.to_thread(self._checkpoint)
            case _:
                with run.no_file_over(1):
                    await asyncio.sleep(action.seconds)

    async def measure(self, was_late: Callable[[float, float], object]) -> None:
        """Do nothing: streams of a file share no items."""

    def _lock(self, seconds: float) -> None:
        """Hold the file's lock for writing, as a backup does."""
        with closing(sqlite3.connect(self.address, timeout=20.0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        with (
            closing(sqlite3.connect(self.address, timeout=1.0)) as other,
            suppress(sqlite3.OperationalError),
        ):
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class RedisTrouble:
    """One Redis server that all workers share, behind a proxy that loses responses."""

    name: Final = "redis"
    actions: tuple[str, ...] = (
        *("freeze", "restart", "kill clients", "flush scripts", "lose responses", "reset"),
        *("busy", "no replicas", "out of memory", "password"),
    )
    is_shared: Final = True

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        data = folder / "redis"
        data.mkdir()
        self._server = redis_server.RealServer(data)
        self._proxy = RedisProxy(self._server.port)
        self.address = ""
        """The address of the proxy."""
        if options.flush:
            self.actions = (*self.actions, "flush")

    @contextmanager
    def started(self) -> Iterator[None]:
        self._server.start()
        try:
            yield
        finally:
            self._server.kill()

    def streams_of(self, worker: int) -> tuple[str, ...]:
        return (f"own-{worker}", "team")

    @asynccontextmanager
    async def reachable(self) -> AsyncIterator[None]:
        async with self._proxy:
            self.address = self._proxy.url
            yield

    async def run(self, action: Action, run: Run) -> None:
        match action.name:
            case "freeze":
                self._server.signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(action.seconds)
                finally:
                    self._server.signal(signal.SIGCONT)
            case "restart":
                self._server.kill()
                await asyncio.sleep(action.seconds)
                await asyncio.to_thread(self._server.start)
            case "reset":
                self._proxy.reset()
            case "lose responses":
                self._proxy.lose += 1 + int(5 * action.amount)
            case "busy":
                await asyncio.to_thread(self._be_busy, action.seconds)
            case "kill clients":
                await self._command("CLIENT", "KILL", "TYPE", "normal")
            case "flush scripts":
                await self._command("SCRIPT", "FLUSH")
            case "flush":
                run.checker.store_emptied(now())
                await self._command("FLUSHALL")
            case "no replicas":
                await self._configured("min-replicas-to-write", "1", "0", action.seconds)
            case "out of memory":
                await self._configured("maxmemory", "1", "0", action.seconds)
            case _:
                await self._configured("requirepass", "another", "", action.seconds, "another")

    async def measure(self, was_late: Callable[[float, float], object]) -> None:
        """Measure how long the server takes to respond: if it is long, workers seem to be dead."""
        while True:
            with suppress(OSError):
                await self._measure(was_late)
            await asyncio.sleep(0.1)

    async def _measure(self, was_late: Callable[[float, float], object]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        with closing(writer):
            while True:
                sent = now()
                writer.write(b"PING\r\n")
                if not await reader.readline():
                    return  # the connection was killed
                if now() > sent + MAX_LATE:
                    was_late(now(), now() - sent)
                await asyncio.sleep(0.1)

    async def _command(self, *words: str, password: str | None = None) -> None:
        def execute() -> None:
            with Redis(port=self._server.port, password=password) as client:
                while True:
                    try:
                        client.execute_command(*words)
                    except ResponseError as error:
                        if not str(error).startswith("BUSY"):
                            raise
                        time.sleep(0.05)  # another action keeps the server busy
                    else:
                        return

        await asyncio.to_thread(execute)

    async def _configured(
        self, option: str, value: str, usual: str, seconds: float, password: str | None = None
    ) -> None:
        await self._command("CONFIG", "SET", option, value)
        try:
            if password is not None:
                await self._command("CLIENT", "KILL", "TYPE", "normal", password=password)
            await asyncio.sleep(seconds)
        finally:
            await self._command("CONFIG", "SET", option, usual, password=password)

    def _be_busy(self, seconds: float) -> None:
        """Run a script that does not end, as another program may, and end it."""
        with Redis(port=self._server.port) as client:
            client.config_set("lua-time-limit", 50)
        with Redis(port=self._server.port, socket_timeout=0.2) as client, suppress(RedisError):
            client.eval("while true do end", 0)
        time.sleep(seconds)
        with Redis(port=self._server.port) as client:
            client.script_kill()


StoreTrouble = SqliteTrouble | RedisTrouble

COMMON_ACTIONS: Final = (
    *(
        "kill",
        "kill",
        "kill",
        "kill mail reader",
        "terminate",
        "terminate",
        "stop",
        "stop",
        "clock",
    ),
    *("burst", "wire"),
)
"""Troubles on every store; the more often one is listed, the more often it happens."""


def make_round(
    seed: str,
    seconds: float,
    actions: tuple[str, ...],
    *,
    good_wire: bool,
    restart: bool,
    only: Sequence[str] | None,
) -> list[Action]:
    """Return the troubles of a round in their order; they follow from the seed alone.

    With a *good wire*, no request is answered badly. The store has one trouble at a time, so that
    each of them can be ended.
    """
    rng = random.Random(seed)
    common = [name for name in COMMON_ACTIONS if not (good_wire and name == "wire")]
    made: list[Action] = []
    at, store_free_at = 1.0, 0.0
    while at < seconds:
        available = (*common, *(2 * actions if at >= store_free_at else ()))
        name, duration = rng.choice(available), rng.uniform(0.2, 3.5)
        made.append(Action(at, name, duration, rng.randrange(WORKERS), rng.random()))
        if name in actions:
            store_free_at = at + 2.0 * duration
        at += rng.uniform(0.3, 2.5)
    if restart and rng.random() < 0.5:
        made.append(Action(rng.uniform(0.3, 0.7) * seconds, "restart ids", 0.0, 0, 0.0))
    return sorted(action for action in made if only is None or action.name in only)


class Clock:
    """The wall clock of the programs in which the library of `clock_shift.c` is preloaded."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock_shift.so"
        path = folder / "clock_shift"
        path.write_bytes(struct.pack("d", 0.0))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 8)
        self.is_available = COMPILER is not None and sys.platform.startswith("linux")
        if self.is_available:
            command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(self._library)]
            subprocess.run([*command, "clock_shift.c", "-lm"], cwd=HERE, check=True)
        self._environment = {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT": str(path)}

    def set(self, seconds: float) -> None:
        self._map[:8] = struct.pack("d", seconds)

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        """Preload the library into the programs that are started in this block."""
        if not self.is_available:
            yield
            return
        os.environ.update(self._environment)
        try:
            yield
        finally:
            for name in self._environment:
                del os.environ[name]


# -- the run --------------------------------------------------------------------------------------


class Run:
    """Rounds of trouble on one store."""

    def __init__(
        self,
        options: argparse.Namespace,
        store: StoreTrouble,
        fork_server: ForkServer,
        clock: Clock,
    ) -> None:
        self._options = options
        self._store = store
        self.fork_server = fork_server
        self._clock = clock
        rng = random.Random(f"{options.seed} {store.name}")
        self._quirks = {"mail_ids": rng.random() < 0.5, "readall_marks": rng.random() < 0.5}
        names = {name for worker in range(WORKERS) for name in store.streams_of(worker)}
        kinds: tuple[Kind, ...] = ("chat", "mail")
        self.checker = Checker(
            itertools.product(sorted(names), kinds),
            shared=store.is_shared,
            mail_ids=self._quirks["mail_ids"],
            interval=INTERVAL,
        )
        self.services = ChaosServices(self.checker, **self._quirks)
        self.workers: list[Worker] = []
        self._keeps_workers = True
        """Whether workers that have ended are started again."""
        self._troubles = 0
        """Troubles of the store at this moment."""
        self._store_lock = asyncio.Lock()
        """Held during a trouble of the store, which may take longer than it was planned."""
        self.calm_since = 0.0
        """When the last trouble of the store ended."""
        self._shown = 0
        """Violations that were printed."""
        self._round = 0
        self._log: deque[str] = deque(maxlen=12)
        """The last actions, printed with a violation."""
        self._number = itertools.count(1)

    def report(self, promise: str, details: str) -> None:
        self.checker.report(now(), promise, details)

    @property
    def violations(self) -> list[Violation]:
        return self.checker.violations

    @property
    def in_trouble(self) -> bool:
        """Whether the store cannot be used, or could not a moment ago."""
        return self._troubles > 0 or now() - self.calm_since < 10.0

    async def run(self, rounds: Sequence[int], seconds: float) -> None:
        async with self.services:
            for number in range(WORKERS):
                settings = Settings(
                    f"worker-{number}",
                    self.services.url,
                    self._store.address,
                    self._store.streams_of(number),
                    INTERVAL,
                    GUARD,
                    IDLE_CHECK,
                    MAX_LENGTH,
                    self._options.uvloop,
                )
                self.workers.append(Worker(self, settings))
                self.workers[-1].start()
            measures = self._measure(), self._store.measure(self.checker.was_late)
            background = [asyncio.ensure_future(task) for task in (*measures, self._supervise())]
            try:
                await self._wait(lambda: all(worker.has_begun for worker in self.workers), 60.0)
                self.checker.forget_due_messages()  # a stream starts with what comes after it
                for self._round in rounds:
                    await self._run_round(seconds)
                    if len(self.violations) >= MAX_VIOLATIONS:
                        return
            finally:
                self._keeps_workers = False
                await self._end_workers()
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                self._print_violations()

    async def _end_workers(self) -> None:
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        if not await self._wait(self._all_ended, STOP_SECONDS):
            self.report("a worker stops at SIGTERM", "at the end of the run")
            for worker in self.workers:
                worker.send(signal.SIGKILL)
            await self._wait(self._all_ended, 10.0)

    def _all_ended(self) -> bool:
        return not any(worker.is_alive for worker in self.workers)

    async def _run_round(self, seconds: float) -> None:
        seed = f"{self._options.seed} {self._store.name} {self._round}"
        self.services.rng = random.Random(seed)
        # A lost response lets the history be read, which hides other losses of mail.
        good_wire = self._round % 2 == 1
        self.services.fault_share = 0.0 if good_wire else self.services.rng.choice((0.1, 0.3))
        actions = make_round(
            seed,
            seconds,
            self._store.actions,
            good_wire=good_wire,
            restart=self.services.newest > MIN_RESTART,
            only=self._options.only,
        )
        start = now()
        self.checker.counts.clear()
        lives = sum(worker.lives for worker in self.workers)
        traffic = asyncio.ensure_future(self._traffic(random.Random(f"{seed} traffic")))
        async with asyncio.TaskGroup() as group:
            for action in actions:
                await asyncio.sleep(max(0.0, start + action.at - now()))
                group.create_task(self._act(action))
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)
        ended = now()
        await self._complete()
        counts = self.checker.counts | Counter(
            {"lives": sum(worker.lives for worker in self.workers) - lives}
        )
        done = Counter(action.name for action in actions)
        self._print_violations()
        self._print_round(counts, done, now() - ended)

    async def _complete(self) -> None:
        """Wait until everything has arrived, check it, and forget the round."""
        self.services.fault_share = 0.0
        start = self.calm_since = now()
        arrived = await self._wait(lambda: self.checker.has_all(start), COMPLETE_SECONDS)
        well = await self._wait(
            lambda: all(worker.is_alive and worker.is_ok for worker in self.workers),
            COMPLETE_SECONDS if arrived else 1.0,
        )
        if arrived and not well:
            bad = ", ".join(worker.name for worker in self.workers if not worker.is_ok)
            self.report("health is ok after the trouble", bad)
        if not (arrived and well):
            await self._print_tasks()
        self.services.show_checker()
        texts = set(self.checker.end_round(now(), start))
        self.services.forget(texts)

    async def _wait(self, condition: Callable[[], bool], within: float) -> bool:
        """Wait until a condition is true, for a time that a slow machine makes longer."""
        end = now() + within
        while not condition():
            if now() > end + 20.0 * self.services.lateness.worst:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _print_tasks(self) -> None:
        """Print what each worker waits for, and its last log records."""
        for worker in self.workers:
            worker.send(signal.SIGUSR1)
        await asyncio.sleep(1.0)
        for worker in self.workers:
            print_line(f"{worker.name}:\n    " + "\n    ".join(worker.errors))

    # -- at all times -----------------------------------------------------------------------------

    async def _measure(self) -> None:
        """Measure by how much this loop is late."""
        while True:
            due = now() + 0.01
            await asyncio.sleep(0.01)
            self.services.lateness.add(now(), now() - due)
            if now() > due + MAX_LATE:
                self.checker.was_late(now(), now() - due)

    async def _supervise(self) -> None:
        """Start workers that have ended again, and look for streams that are silent."""
        rng = random.Random(f"{self._options.seed} supervisor")
        while True:
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            for worker in self.workers:
                if not worker.is_alive and self._keeps_workers:
                    worker.start()
                worker.check_stop()
            for stream in self.checker.readings:
                readers = [worker for worker in self.workers if stream[0] in worker.settings.names]
                if not any(worker.is_stopped for worker in readers):
                    # The one that polls for all may be another one, which is not ok.
                    awake_since = max(worker.awake_since for worker in self.workers)
                    late = 10.0 * self.services.lateness.worst
                    self.checker.check_silence(now() - late, stream, awake_since)

    async def _traffic(self, rng: random.Random) -> None:
        """Add messages and mails, at a pace that the slowest stream can follow."""
        while True:
            await asyncio.sleep(rng.uniform(0.02, 0.3))
            if self.checker.max_due < MAX_BEHIND:
                self._add(rng, 1 + (rng.random() < 0.2))

    def _add(self, rng: random.Random, count: int) -> None:
        for _ in range(count):
            number = next(self._number)
            self.services._add(self.services.newest + rng.randrange(1, 4), text=f"chat {number}")
            self.services.show_checker()
            if rng.random() < 0.3:
                self.services.deliver(f"mail {number}")
                self.checker.mail(now(), f"mail {number}")

    # -- troubles ---------------------------------------------------------------------------------

    async def _act(self, action: Action) -> None:
        self._log.append(f"round {self._round}: {action}")
        worker = self.workers[action.worker]
        match action.name:
            case "kill":
                worker.send(signal.SIGKILL)
            case "kill mail reader":
                self.services.on_mail_read = self._kill_client
            case "terminate":
                worker.send(signal.SIGTERM)
            case "stop":
                await self._stop(worker, action.seconds)
            case "clock":
                self._clock.set((action.amount - 0.5) * 20_000.0)
            case "burst":
                if self.checker.max_due < MAX_BEHIND / 2:
                    self._add(random.Random(action.amount), int(MAX_BEHIND * action.amount))
            case "wire":
                self.services.fault_share = 0.5 * action.amount
            case "restart ids":
                self.services.restart_ids()
            case _:
                async with self._store_lock:
                    with self._trouble():
                        await self._store.run(action, self)

    def _kill_client(self, port: int) -> None:
        """Kill the worker that has a connection from this port; it has sent the only request."""
        sockets = sockets_at(port)
        for worker in self.workers:
            if worker.is_alive and sockets & sockets_of(worker.pid):
                worker.send(signal.SIGKILL)

    async def _stop(self, worker: Worker, seconds: float) -> None:
        """Let a worker stand still, as a machine under load does."""
        if worker.is_stopped or not worker.is_alive:
            return
        worker.is_stopped = True
        worker.send(signal.SIGSTOP)
        window = self.checker.trouble_begins(now(), worker.name)
        await asyncio.sleep(seconds)
        worker.send(signal.SIGCONT)
        worker.is_stopped, worker.awake_since = False, now()
        self.checker.trouble_ends(now(), window)

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        self._troubles += 1
        window = self.checker.trouble_begins(now())
        try:
            yield
        finally:
            self._troubles -= 1
            self.calm_since = now()
            self.checker.trouble_ends(now(), window)

    @contextmanager
    def no_file_over(self, size: int) -> Iterator[None]:
        """Let no file of a worker grow over a size, as if the disk were full."""
        pids = [worker.pid for worker in self.workers if worker.is_alive]
        limit = resource.RLIM_INFINITY
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, limit))
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))

    # -- output -----------------------------------------------------------------------------------

    def _print_violations(self) -> None:
        new = self.violations[self._shown :]
        for violation in new[:MAX_SHOWN]:
            print_line(f"NOT KEPT: {violation.promise}: {violation.details}")
        if len(new) > MAX_SHOWN:
            print_line(f"  and {len(new) - MAX_SHOWN} more in this round")
        if self._shown < len(self.violations):
            print_line("  after " + "; ".join(self._log))
            requests = (
                f"{call.kind} {wire_numbers(call)} {now() - call.at:.1f} s ago"
                for call in self.services.last_requests
            )
            print_line(f"  newest id {self.services.newest}; " + "; ".join(requests))
        self._shown = len(self.violations)

    def _print_round(self, counts: Mapping[str, int], done: Counter[str], seconds: float) -> None:
        seen = ", ".join(f"{counts.get(name, 0)} {name}" for name in SHOWN_COUNTS)
        troubles = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
        print_line(
            f"{self._store.name} round {self._round}: {seen}; complete in {seconds:.1f} s;"
            f" {len(self.violations)} not kept; {troubles}"
        )


SHOWN_COUNTS: Final = (
    *("chat", "mail", "delivered", "redelivered", "recovered", "requests", "posted"),
    *("posts failed", "gaps", "lives", "unusable"),
)


def sockets_at(port: int) -> set[str]:
    """Return the sockets of this machine that are connected from a local port."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:])
    return {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}


def sockets_of(pid: int) -> set[str]:
    """Return the sockets that a process has open."""
    sockets: set[str] = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed in the meantime
            sockets.add(str(path.readlink()))
    return sockets


def wire_numbers(call: RecordedCall) -> str:
    """Return the parameters of a request that are numbers."""
    return " ".join(f"{name}={value}" for name, value in call.params.items() if value.isdecimal())


def print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chaos", description="Random trouble for workers on one store"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of trouble in all")
    parser.add_argument("--seed", type=int, default=None, help="repeats the troubles of a run")
    parser.add_argument("--store", choices=("sqlite", "redis", "both"), default="both")
    parser.add_argument("--uvloop", action="store_true", help="the event loops of the workers")
    parser.add_argument("--only", nargs="+", metavar="TROUBLE", help="to find a cause: no others")
    parser.add_argument(
        "--flush",
        action="store_true",
        help="also empty the Redis server: names without a running worker lose items then",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "big")
    print_line(f"chaos --minutes {options.minutes:g} --seed {options.seed}")
    stores = [options.store] if options.store != "both" else ["sqlite", "redis"]
    if redis_server.PROGRAM is None and "redis" in stores:
        stores.remove("redis")
        print_line("NOT RUN: redis: redis-server is not installed")
    violations: list[Violation] = []
    total = 60.0 * options.minutes / max(1, len(stores))
    count = max(1, round(total / 60.0))
    for name in stores:
        violations += asyncio.run(run_store(name, options, range(1, count + 1), total / count))
    promises = Counter(violation.promise for violation in violations)
    for promise, times in promises.items():
        print_line(f"{times} times not kept: {promise}")
    print_line("every promise was kept" if not violations else f"repeat: --seed {options.seed}")
    return int(bool(violations))


async def run_store(
    name: str, options: argparse.Namespace, rounds: Sequence[int], seconds: float
) -> list[Violation]:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        clock = Clock(Path(folder))
        store = (SqliteTrouble if name == "sqlite" else RedisTrouble)(Path(folder), options)
        with ExitStack() as stack:
            with clock.preloaded():
                fork_server = stack.enter_context(ForkServer("proc_chaos"))
                stack.enter_context(store.started())
            async with store.reachable():
                run = Run(options, store, fork_server, clock)
                await run.run(rounds, seconds)
                return run.violations


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
