"""A program that ends in one of many ways; ``tests/test_stopping.py`` runs it.

``proc_stopped.py URL STORE LOOP ENDING`` reads chat and mail and prints the text of each item after
processing it. STORE is ``memory`` or the path of a SQLite file. The program ends as ENDING
specifies, or at a signal.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

from proc_session import make_session, print_line

from pythpeer import MemoryStore, Rate, SqliteStore, merge

RATES: Final = dict.fromkeys(("peerbet.chat.get", "pythbots.mail"), Rate(0.05, guard=0.02))

RESTARTED: Final = Path("restarted")
"""A file in the working directory that exists if the program has run before."""


async def main(url: str, path: str, ending: str) -> None:
    asyncio.get_running_loop().slow_callback_duration = 60.0  # no warning about slow imports
    if ending == "handler":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    store = MemoryStore() if path == "memory" else SqliteStore(path)
    session = make_session(url, "stopped", rates=RATES, timeout=1.0, store=store)
    async with session:
        after = None if RESTARTED.exists() else 0
        chat = session.peerbet.chat_stream(after=after, name="me")
        if ending == "not closed":
            await anext(chat)
            return
        stream = merge(chat, session.pythbots.mail_stream(name="me"))
        if ending == "close":
            asyncio.get_running_loop().call_later(0.5, asyncio.ensure_future, session.aclose())
        async for item in stream:
            print_line(item.text)
            if ending == "break" and item.text == "message 3":
                break
            if ending == "raise" and item.text == "message 3":
                raise ValueError("raised by the program")
        if ending == "break":
            return
        await stream.aclose()


def run() -> None:
    url, path, loop, ending = sys.argv[1:]
    try:
        if loop == "uvloop":
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main(url, path, ending))
        else:
            asyncio.run(main(url, path, ending))
    except (ValueError, KeyboardInterrupt, asyncio.CancelledError) as error:
        print_line(type(error).__name__)
    except Exception as error:  # noqa: BLE001
        print_line(type(error).__name__)


if __name__ == "__main__":
    run()
