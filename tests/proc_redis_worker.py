"""One of several workers with a `RedisStore`; ``tests/test_redis_kill.py`` runs and kills them.

It reads the chat and the mail under the name ``team``, which all workers share. It appends each
item to a log file before it takes the next one.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import redis.asyncio  # so that the fork server imports it, not each process
from proc_session import log_line, make_session, open_log

from pythpeer import ChatMessage, Mail, Rate, Retry, Stream
from pythpeer.stores import RedisStore, fingerprints

assert redis.asyncio is not None

fingerprints.SCRYPT_COST = 2  # as in the other processes of the tests

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.2, guard=0.4))
"""The guard is long: the services share a loop with the test, and may record a request late."""


async def follow(stream: Stream[ChatMessage] | Stream[Mail], log: int) -> None:
    async with stream:
        log_line(log, f"ready {type(stream).__name__}")
        async for item in stream:
            log_line(log, f"mail {item.text}" if isinstance(item, Mail) else f"chat {item.id}")
            await asyncio.sleep(0.002)  # to be killed while it processes an item


async def main(service: str, server: str, path: str, timeout: str) -> None:
    log = open_log(path)
    session = make_session(
        service,
        "scripted-key",
        rates=RATES,
        retry=Retry(base_delay=0.01, max_delay=0.2),
        timeout=float(timeout),
        store=RedisStore(server, patience=0.25),
    )
    async with session, asyncio.TaskGroup() as group:
        group.create_task(follow(session.peerbet.chat_stream(name="team", after=None), log))
        group.create_task(follow(session.pythbots.mail_stream(name="team"), log))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
