"""A bot on `pythpeer.run`; ``tests/test_run.py`` runs it.

``proc_run.py URL STORE BOT`` prints a line for each item that the bot has processed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pythpeer import Rate, Session, SqliteStore, run

RATES = dict.fromkeys(("peerbet.chat.get", "peerbet.chat.set"), Rate(0.05, guard=0.02))

STORE = sys.argv[2]
AFTER = None if Path(STORE).exists() else 0
"""A first run starts with the oldest message, a later one resumes."""


def print_line(text: object) -> None:
    """Print a line without a buffer, so that the test receives it immediately."""
    os.write(1, f"{text}\n".encode())


async def answer(session: Session) -> None:
    """Read the chat, and post a line for each message of another user."""
    async for message in session.peerbet.chat_stream(after=AFTER, name="bot"):
        print_line(message.text)
        if message.text == "!ping":
            print_line(f"posted {await session.peerbet.post('pong')}")
    print_line("ended")


async def sleep(session: Session) -> None:
    """Sleep, whatever the session is asked to do."""
    print_line("sleeping")
    try:
        await asyncio.sleep(3600.0)
    finally:
        print_line("cancelled")


async def fail(session: Session) -> None:
    raise LookupError("raised by the bot")


BOTS = {"answer": answer, "sleep": sleep, "fail": fail}


def main() -> None:
    url, _, bot = sys.argv[1:]
    run(
        BOTS[bot],
        peerbet_url=url,
        pythbots_url=url,
        peerbet_key="stopped",
        rates=RATES,
        timeout=10.0,
        store=SqliteStore(STORE),
    )
    print_line("returned")


if __name__ == "__main__":
    main()
