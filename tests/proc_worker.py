"""One of several programs on one file: run by tests/test_processes.py as a process of its own.

With ``chat NAME`` and ``mail NAME`` it prints what a stream hands out, with ``call N`` it asks the
chat again and again for its last N messages, with ``unread`` it gets mail once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import pythpeer.transport  # so that no program has to import it
from pythpeer import Mail, Rate, Session, SqliteStore

assert pythpeer.transport is not None

# A wide guard for so short an interval: the judge is on the same busy machine, and may look late.
RATES: Final = dict.fromkeys(
    ("peerbet.chat.get", "peerbet.chat.set", "pythbots.mail"), Rate(0.05, guard=0.4)
)


def say(what: object) -> None:
    os.write(1, f"{what}\n".encode())


async def main(url: str, path: str, what: str, detail: str = "") -> None:
    session = Session(
        peerbet_url=url,
        pythbots_url=url,
        peerbet_key="worker",
        personal_key="worker",
        rates=RATES,
        timeout=10.0,
        store=SqliteStore(path),
    )
    async with session:
        say("ready")
        match what:
            case "call":
                while True:
                    await session.peerbet.messages(last=int(detail))
            case "unread":
                for mail in await session.pythbots.unread_mail():
                    say(mail.text)
            case _:
                chat = session.peerbet.chat_stream(name=detail)
                stream = chat if what == "chat" else session.pythbots.mail_stream(name=detail)
                async with stream:
                    say("following")
                    async for item in stream:
                        say(item.text if isinstance(item, Mail) else item.id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
