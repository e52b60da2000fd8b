"""A program that is stopped in one of many ways; ``tests/test_stopping.py`` runs it.

``proc_stopped.py URL FILE LOOP WAY`` follows chat and mail and prints the text of each item after
handling it. It ends as WAY specifies, or at a signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Final

from pythpeer import MemoryStore, Rate, Session, SqliteStore, merge

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.05, guard=0.02))


def say(what: object) -> None:
    os.write(1, f"{what}\n".encode())


async def main(url: str, path: str, way: str) -> None:
    asyncio.get_running_loop().slow_callback_duration = 60.0  # imports, on a busy machine
    if way == "handler":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    session = Session(
        peerbet_url=url,
        pythbots_url=url,
        peerbet_key="stopper",
        personal_key="stopper",
        rates=RATES,
        timeout=1.0,
        store=MemoryStore() if path == "memory" else SqliteStore(path),
    )
    async with session:
        chat = session.peerbet.chat_stream(after=None if os.path.exists("been") else 0, name="me")  # noqa: ASYNC240, PTH110
        if way == "alone":
            await anext(chat)  # and never closed
            return
        stream = merge(chat, session.pythbots.mail_stream(name="me"))
        if way == "close":
            asyncio.get_running_loop().call_later(0.5, asyncio.ensure_future, session.aclose())
        async for item in stream:
            say(item.text)
            if way == "break" and item.text == "message 3":
                break
            if way == "raise" and item.text == "message 3":
                raise ValueError("the program's own")
        if way == "break":
            return
        await stream.aclose()


def run() -> None:
    url, path, loop, way = sys.argv[1:]
    try:
        if loop == "uvloop":
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main(url, path, way))
        else:
            asyncio.run(main(url, path, way))
    except (ValueError, KeyboardInterrupt, asyncio.CancelledError) as error:
        say(type(error).__name__)
    except Exception as error:  # noqa: BLE001
        say(type(error).__name__)


if __name__ == "__main__":
    run()
