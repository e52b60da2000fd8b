"""One of several programs with a store in one file; ``tests/test_processes.py`` runs them.

With ``chat NAME`` and ``mail NAME`` it prints the items of a stream. With ``call N`` it requests
the last N messages of the chat repeatedly, and with ``unread`` it requests unread mail once.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from proc_session import make_session, print_line

from pythpeer import Mail, Rate, SqliteStore

# A long guard compared with the interval: the services run on the same machine under load, and may
# record a request late.
RATES: Final = dict.fromkeys(
    ("peerbet.chat.get", "peerbet.chat.set", "pythbots.mail"), Rate(0.05, guard=0.4)
)


async def main(url: str, path: str, task: str, detail: str = "") -> None:
    session = make_session(url, "worker", rates=RATES, timeout=10.0, store=SqliteStore(path))
    async with session:
        print_line("ready")
        match task:
            case "call":
                while True:
                    await session.peerbet.messages(last=int(detail))
            case "unread":
                for mail in await session.pythbots.unread_mail():
                    print_line(mail.text)
            case _:
                chat = session.peerbet.chat_stream(name=detail)
                stream = chat if task == "chat" else session.pythbots.mail_stream(name=detail)
                async with stream:
                    print_line("following")
                    async for item in stream:
                        print_line(item.text if isinstance(item, Mail) else item.id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
