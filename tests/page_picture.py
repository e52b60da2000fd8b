"""Takes the screenshot of ``pythpeer serve`` for the documentation, ``docs/how-to/serve.png``.

Run ``nox -s docs-picture`` after a change of the page's appearance; it requires Chromium.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Final

from browser import browser, running_chromium

from pythpeer.testing import FakeServices
from pythpeer.testing.web import Page

PICTURE: Final = Path(__file__).parent.parent / "docs" / "how-to" / "serve.png"
SCRIPT: Final = """
mika: good morning, everyone
ana: morning, mika! is the new bot in yet?
ana@ The minutes of last night are done. You will find them where the tea is.
mika: it should be. say !ping to it
oskar> psst, are you really a bot?
"""


async def take_picture(chromium: str, peerbet_port: int, pythbots_port: int) -> bytes:
    """Return a PNG of the page, which shows the ports, after a short dialogue with a bot."""
    fake = FakeServices(
        now=datetime(2026, 1, 5, 9, 30), peerbet_port=peerbet_port, pythbots_port=pythbots_port
    )
    async with fake, Page(fake) as page, browser(chromium) as tab:
        fake.people.play(SCRIPT, pace=0.0)
        async with fake.session() as session:
            stream = session.peerbet.chat_stream()
            waiting = asyncio.ensure_future(anext(stream))
            await tab.open(page.url)
            await tab.shows("Your bot is connected")
            await tab.write("!ping")
            await tab.press("Enter")
            await waiting
            await session.peerbet.post("pong", bot=True)
            await tab.shows("pong", "#log .account")
            await tab.write("it lives!")
            await tab.press("Enter")
            await tab.shows("it lives!", "#log")
        return await tab.look(1120, 660)


if __name__ == "__main__":
    with running_chromium() as chromium:
        PICTURE.write_bytes(asyncio.run(take_picture(chromium, 8401, 8402)))
