"""One of several programs on one file: run by tests/test_processes.py as a separate process.

With ``chat NAME`` and ``mail NAME`` it prints the items of a stream, with ``call N`` it repeatedly
requests the last N messages of the chat, with ``unread`` it gets mail once.
"""

from __future__ import annotations

import os
from typing import Final

import pythpeer.transport  # so that no program has to import it
from pythpeer import Mail, Rate, Session, SqliteStore

assert pythpeer.transport is not None

# A wide guard for so short an interval: the checker is on the same busy machine, and may be late.
RATES: Final = dict.fromkeys(
    ("peerbet.chat.get", "peerbet.chat.set", "pythbots.mail"), Rate(0.05, guard=0.4)
)


def output(line: object) -> None:
    os.write(1, f"{line}\n".encode())


async def main(url: str, path: str, command: str, detail: str = "") -> None:
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
        output("ready")
        match command:
            case "call":
                while True:
                    await session.peerbet.messages(last=int(detail))
            case "unread":
                for mail in await session.pythbots.unread_mail():
                    output(mail.text)
            case _:
                chat = session.peerbet.chat_stream(name=detail)
                stream = chat if command == "chat" else session.pythbots.mail_stream(name=detail)
                async with stream:
                    output("following")
                    async for item in stream:
                        output(item.text if isinstance(item, Mail) else item.id)
