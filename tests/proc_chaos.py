"""One of the workers of ``tests/chaos.py``: a bot that reads streams and posts, until it is ended.

Its argument is JSON. It prints each event as a line of JSON on stdout, a pipe, without a buffer:
what is written is not lost when the process is killed, and no full disk affects it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import redis.asyncio  # so that the fork server imports it, not each process
from proc_session import make_session

import pythpeer
from pythpeer import (
    ChatMessage,
    Mail,
    PythpeerError,
    Rate,
    Retry,
    Session,
    SqliteStore,
    StoreError,
    Stream,
)
from pythpeer.stores import RedisStore, Store

assert make_session is not None
assert redis.asyncio is not None

STORE_UNUSABLE: Final = 75
"""The exit code of a program whose store could not be opened or closed."""

HEALTH_INTERVAL: Final = 0.2
"""Seconds between two reports of the health."""

MAX_LATE: Final = 0.3
"""Seconds for which a process may stand still unreported: heartbeats may be too late after more."""


class Settings(msgspec.Struct, frozen=True):
    """What a worker does."""

    worker: str
    url: str
    """The address of both services."""
    store: str
    """The path of a file, or the address of a Redis server."""
    names: tuple[str, ...]
    """The names of its streams: each of them is one of the chat, and one of the mail."""
    interval: float
    guard: float
    idle_check: float
    max_length: int
    """Items that a log keeps."""
    uvloop: bool = False
    """Whether its event loop is one of uvloop."""


def report(*event: object) -> None:
    os.write(1, msgspec.json.encode(event) + b"\n")


def make_store(settings: Settings) -> Store:
    if settings.store.startswith("redis://"):
        return RedisStore(settings.store, patience=0.5, max_length=settings.max_length)
    return SqliteStore(settings.store, max_length=settings.max_length)


async def follow(stream: Stream[ChatMessage] | Stream[Mail], name: str, kind: str) -> None:
    async with stream:
        report("began", name, kind)
        async for item in stream:
            report("item", name, kind, item.text, isinstance(item, Mail) and item.recovered)
            await asyncio.sleep(0.001)  # to be killed while it processes an item
    report("gaps", name, kind, len(stream.gaps))


def dump_tasks() -> None:
    """Print for each task where it waits, from the outermost coroutine to the innermost."""
    for task in asyncio.all_tasks():
        frames: list[str] = []
        link: Any = task.get_coro()
        while link is not None:
            frame = getattr(link, "cr_frame", None) or getattr(link, "gi_frame", None)
            if frame is not None:
                name = Path(frame.f_code.co_filename).name
                frames.append(f"{frame.f_code.co_name} ({name}:{frame.f_lineno})")
            link = getattr(link, "cr_await", None) or getattr(link, "gi_yieldfrom", None)
        sys.stderr.write(f"{task.get_name()}: {' > '.join(frames)}\n")


async def watch(session: Session) -> None:
    """Report the health of the session, and for how long this process stood still."""
    while True:
        report("health", session.health().ok)
        due = time.monotonic() + HEALTH_INTERVAL
        await asyncio.sleep(HEALTH_INTERVAL)
        if time.monotonic() > due + MAX_LATE:
            report("late", time.monotonic() - due)


async def post(session: Session, worker: str) -> None:
    """Post at random moments, and sometimes read mail with a call that is cancelled."""
    for number in itertools.count():
        await asyncio.sleep(random.uniform(0.3, 2.0))
        if session.stopping:
            return
        text = f"post {worker} {os.getpid()} {number}"
        report("posting", text)
        try:
            id = await session.peerbet.post(text, bot=True, confirm=random.random() < 0.3)
        except PythpeerError as error:
            report("failed", text, type(error).__name__, getattr(error, "sent", False))
        else:
            report("posted", text, id)
        if random.random() < 0.2:
            await read_mail(session)


async def read_mail(session: Session) -> None:
    try:
        async with asyncio.timeout(random.uniform(0.01, 1.0)):
            await session.pythbots.unread_mail()
    except TimeoutError:
        pass  # also `RequestTimeoutError`
    except PythpeerError as error:
        report("call failed", type(error).__name__)


def run(settings: Settings) -> None:
    if settings.uvloop:
        import uvloop

        uvloop.install()
    rate = Rate(settings.interval, guard=settings.guard)
    rates: Mapping[str, Rate] = dict.fromkeys(
        ("peerbet.chat.get", "peerbet.chat.set", "pythbots.mail"), rate
    )
    session: Session | None = None

    async def bot(opened: Session) -> None:
        nonlocal session
        session = opened
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, dump_tasks)
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch(session))
            poster = group.create_task(post(session, settings.worker))
            async with asyncio.TaskGroup() as streams:
                for name in settings.names:
                    chat = session.peerbet.chat_stream(name=name)
                    streams.create_task(follow(chat, name, "chat"))
                    mail = session.pythbots.mail_stream(name=name)
                    streams.create_task(follow(mail, name, "mail"))
            watcher.cancel()
            await asyncio.wait([poster], timeout=10.0)
            poster.cancel()

    try:
        pythpeer.run(
            bot,
            peerbet_url=settings.url,
            pythbots_url=settings.url,
            peerbet_key="chaos-key",
            personal_key="chaos-key",
            rates=rates,
            retry=Retry(base_delay=0.05, max_delay=1.0),
            timeout=1.0,
            max_wait=5.0,
            idle_check=settings.idle_check,
            store=make_store(settings),
        )
    except* StoreError as errors:
        if session is not None and not session.stopping:
            raise
        report("unusable", str(errors.exceptions[0]))
        sys.exit(STORE_UNUSABLE)
    report("stopped")


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=Settings))
