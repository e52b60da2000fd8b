"""A reader that is killed: run by tests/test_kill.py as a process of its own.

A reader follows two names of the chat and one of the mail, and puts each item down before it asks
for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Final

import pythpeer.transport  # so that no life has to import it
from pythpeer import ChatMessage, Mail, Rate, Retry, Session, SqliteStore, Stream

assert pythpeer.transport is not None

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.01, guard=0.002))


async def follow(stream: Stream[ChatMessage] | Stream[Mail], kind: str, book: int) -> None:
    """Put down what comes. The second name acknowledges by itself, and puts that down as well."""
    await stream.__aenter__()
    os.write(book, f"{os.getpid()} began {kind} 0\n".encode())
    async for item in stream:
        await asyncio.sleep(0.002)  # to be killed in the middle of its work
        what, mark = (item.text, item.recovered) if isinstance(item, Mail) else (item.id, False)
        os.write(book, f"{os.getpid()} {kind} {what} {int(mark)}\n".encode())
        if kind == "chat-2":
            await stream.ack()
            os.write(book, f"{os.getpid()} acknowledged {what} 0\n".encode())


async def main(url: str, folder: str, timeout: str) -> None:
    logging.disable(logging.WARNING)  # that the service is down now and then is no news
    book = os.open(Path(folder, "book"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
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
            group.create_task(follow(stream, name, book))
        group.create_task(follow(session.pythbots.mail_stream(name="mail"), "mail", book))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
