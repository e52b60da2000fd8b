"""A program that reads streams until it is killed; ``tests/test_kill.py`` runs it.

It reads two named streams of the chat and one of the mail. It appends each item to a log file
before it takes the next one.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Final

from proc_session import log_line, make_session, open_log

from pythpeer import ChatMessage, Mail, Rate, Retry, SqliteStore, Stream

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.01, guard=0.002))


async def follow(stream: Stream[ChatMessage] | Stream[Mail], kind: str, log: int) -> None:
    """Append each item to the file *log*, and the acknowledgements of the second chat stream."""
    await stream.__aenter__()
    log_line(log, f"began {kind} 0")
    async for item in stream:
        await asyncio.sleep(0.002)  # to be killed while it processes an item
        if isinstance(item, Mail):
            key, recovered = item.text, item.recovered
        else:
            key, recovered = str(item.id), False
        log_line(log, f"{kind} {key} {int(recovered)}")
        if kind == "chat-2":
            await stream.ack()
            log_line(log, f"acknowledged {key} 0")


async def main(url: str, folder: str, timeout: str) -> None:
    logging.disable(logging.WARNING)  # the services fail often, and stderr must stay empty
    log = open_log(Path(folder, "book"))
    session = make_session(
        url,
        "reader",
        rates=RATES,
        retry=Retry(base_delay=0.01, max_delay=0.02),
        timeout=float(timeout),
        store=SqliteStore(Path(folder, "store.sqlite")),
    )
    async with session, asyncio.TaskGroup() as group:
        for name in ("chat-1", "chat-2"):
            stream = session.peerbet.chat_stream(name=name, after=None)
            group.create_task(follow(stream, name, log))
        group.create_task(follow(session.pythbots.mail_stream(name="mail"), "mail", log))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
