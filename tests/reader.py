"""A reader that is killed: run by tests/test_kill.py as a separate process.

It reads the chat under two names and the mail under one, and logs each item before it requests the
next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import pythpeer.transport  # so that no killed process has to import it
from pythpeer import ChatMessage, Mail, Rate, Retry, Session, SqliteStore, Stream

assert pythpeer.transport is not None

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.01, guard=0.002))


async def follow(stream: Stream[ChatMessage] | Stream[Mail], kind: str, log_file: int) -> None:
    """Log each item. The second name acknowledges explicitly, and logs that as well."""
    await stream.__aenter__()
    os.write(log_file, f"{os.getpid()} began {kind} 0\n".encode())
    async for item in stream:
        await asyncio.sleep(0.002)  # so that it is killed while it processes an item
        label: object = item.text if isinstance(item, Mail) else item.id
        recovered = isinstance(item, Mail) and item.recovered
        os.write(log_file, f"{os.getpid()} {kind} {label} {int(recovered)}\n".encode())
        if kind == "chat-2":
            await stream.ack()
            os.write(log_file, f"{os.getpid()} acknowledged {label} 0\n".encode())


async def main(url: str, folder: str, timeout: str) -> None:
    logging.disable(logging.WARNING)  # the service fails now and then on purpose
    log_file = os.open(Path(folder, "book"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    session = Session(
        peerbet_url=url,
        pythbots_url=url,
        peerbet_key="reader",
        personal_key="reader",
        rates=RATES,
        retry=Retry(base_delay=0.01, max_delay=0.02),
        timeout=float(timeout),
        store=SqliteStore(Path(folder, "store.sqlite")),
    )
    async with session, asyncio.TaskGroup() as group:
        for name in ("chat-1", "chat-2"):
            stream = session.peerbet.chat_stream(name=name, after=None)
            group.create_task(follow(stream, name, log_file))
        group.create_task(follow(session.pythbots.mail_stream(name="mail"), "mail", log_file))
