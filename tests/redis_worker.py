"""A worker that is killed: run by tests/test_redis_kill.py as a separate process.

It reads the chat and the mail under the name ``team``, which it shares with the other workers, and
logs each item before it requests the next one.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

import redis.asyncio

import pythpeer.transport  # both so that no worker has to import them
from pythpeer import ChatMessage, Mail, Rate, Retry, Session, Stream
from pythpeer.stores import RedisStore

assert pythpeer.transport is not None
assert redis.asyncio is not None

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.2, guard=0.4))
"""With a wide guard, because the checker runs in the same busy event loop as the test."""


async def follow(stream: Stream[ChatMessage] | Stream[Mail], log_file: int) -> None:
    async with stream:
        os.write(log_file, f"{os.getpid()} ready {type(stream).__name__}\n".encode())
        async for item in stream:
            label = f"mail {item.text}" if isinstance(item, Mail) else f"chat {item.id}"
            os.write(log_file, f"{os.getpid()} {label}\n".encode())
            await asyncio.sleep(0.002)  # so that it is killed while it processes an item


async def main(service: str, server: str, path: str, timeout: str) -> None:
    log_file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    session = Session(
        peerbet_url=service,
        pythbots_url=service,
        peerbet_key="scripted-key",
        personal_key="scripted-key",
        rates=RATES,
        retry=Retry(base_delay=0.01, max_delay=0.2),
        timeout=float(timeout),
        store=RedisStore(server, patience=0.25),
    )
    async with session, asyncio.TaskGroup() as group:
        group.create_task(follow(session.peerbet.chat_stream(name="team", after=None), log_file))
        group.create_task(follow(session.pythbots.mail_stream(name="team"), log_file))
