"""The page of ``pythpeer serve`` in a real browser: what a user does there, and sees.

In real time, with a real bot of ten lines. Pictures of the page are left in pytest's temporary
folder, to be looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from browser import CHROMIUM, Browser, browser
from helpers import free_port, real_time
from page_picture import take_picture
from processes import Delays

from pythpeer import Rate, Session, TransportError
from pythpeer.testing import DEFAULT_RATES, FakeServices
from pythpeer.testing.web import Page

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]

pytest_plugins = ("browser",)

QUICK: Final = {name: Rate(0.1, rate.burst, 5.0) for name, rate in DEFAULT_RATES.items()}
"""Rates at which the bot hardly waits, because its waiting is not tested here.

With this guard each interval counts from a response, on a machine under load, too. A request that
an outage leaves without one delays the next for as long, so it must be far below `WAIT_TIMEOUT`.
"""

SCRIPT_MARKUP: Final = "<script>document.title = 'mallory'</script><img src=x onerror=alert(1)>"


@pytest.fixture
async def fake() -> AsyncIterator[FakeServices]:
    # Ports that the kernel assigns to no other program, not even during an outage.
    peerbet, pythbots = free_port(), free_port()
    async with FakeServices(rates=QUICK, peerbet_port=peerbet, pythbots_port=pythbots) as fake:
        yield fake


@pytest.fixture
async def tab(fake: FakeServices, chromium: str) -> AsyncIterator[Browser]:
    """A browser that shows the page, and has no errors at the end."""
    async with Page(fake) as page, browser(chromium) as tab:
        await tab.open(page.url)
        await tab.shows("PYTHPEER_PEERBET_URL", "#environment")
        yield tab
        assert tab.errors == []


@contextlib.asynccontextmanager
async def bot(fake: FakeServices) -> AsyncIterator[None]:
    """A bot that replies to !ping, and to mail."""

    async def chat(session: Session) -> None:
        async for message in session.peerbet.chat_stream(after=0):
            while message.text == "!ping":
                try:
                    await session.peerbet.post("pong", bot=True)
                except TransportError as error:
                    if error.sent:
                        raise
                    await asyncio.sleep(0.1)  # the service is down: try again
                else:
                    break

    async def mail(session: Session) -> None:
        async for letter in session.pythbots.mail_stream():
            await session.pythbots.send_mail(letter.sender or "", "thank you")

    # The failure of one of them ends the test with its reason, which else is that nothing happens.
    async with fake.session() as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(session)) for run in (chat, mail)]
        yield
        for task in tasks:
            task.cancel()


async def test_post_a_message_and_see_the_reply(fake: FakeServices, tab: Browser) -> None:
    """The cursor is in the field: write, press Enter, and the reply appears."""
    await tab.shows("No bot yet", "#presence")
    assert await tab.focused() == "text"
    async with bot(fake):
        await tab.write("!ping")
        await tab.press("Enter")
        await tab.shows("!ping", "#log .own")
        await tab.shows("pong", "#log .account")
        await tab.shows("bot", "#log .account .chip")
        await tab.shows("Your bot is connected", "#presence")
        assert await tab.focused() == "text"
        assert await tab.run("document.querySelector('#text').value") == ""
    assert [(line.sender, line.text) for line in fake.chat.messages] == [
        ("guest", "!ping"),
        ("pythpeer", "pong"),
    ]
    assert fake.violations == []


async def test_whatever_people_write_is_text(fake: FakeServices, tab: Browser) -> None:
    """In the chat, in mails, in names: markup is shown as text, and has no effect."""
    fake.chat.say(SCRIPT_MARKUP, SCRIPT_MARKUP)
    fake.chat.say("bob", "psst", to="pythpeer")
    fake.mail.deliver(SCRIPT_MARKUP, SCRIPT_MARKUP)
    await tab.shows(SCRIPT_MARKUP, "#log")
    for panel, selector in (("mail", "#inbox"), ("users", "#users")):
        await tab.run(f"document.querySelector('#tab-{panel}').click()")
        await tab.shows(SCRIPT_MARKUP, selector)
    await tab.shows("private to pythpeer", "#log .private")
    assert await tab.run("document.title") == "pythpeer serve"
    assert await tab.run("document.querySelectorAll('main :is(script, img)').length") == 0


async def test_other_pages_cannot_use_the_services(fake: FakeServices, tab: Browser) -> None:
    """Neither with an image nor with a request that needs no permission: nothing takes effect."""
    post = f"{fake.peerbet_url}/api/chat/?action=set&key={fake.peerbet_key}&msg=EVIL"
    mail = f"{fake.pythbots_url}/api/mail.php?personalkey={fake.personal_key}&readnew"
    fake.mail.deliver("alice", "hello")
    # A page of this machine: Chromium itself keeps those of the internet from loopback.
    await tab.open(f"{fake.pythbots_url}/another-page")
    for url in (post, mail):
        await tab.run(f"fetch({url!r}, {{mode: 'no-cors'}}).then(() => 0, () => 0)")
        await tab.run(
            "new Promise((done) => {"
            f" const image = new Image(); image.onerror = image.onload = done; image.src = {url!r};"
            "})"
        )
    assert fake.chat.messages == []
    assert [letter.read for letter in fake.mail.inbox] == [False]
    assert {request.endpoint for request in fake.requests} == {"pythbots"}  # the page itself


async def test_the_keyboard_is_enough(fake: FakeServices, tab: Browser) -> None:
    """Names, private messages, tabs and contents: Tab, arrows, Enter; visible focus."""
    assert await tab.tab_to("sender", shift=True) == ["bot", "to", "sender"]
    await tab.write("zoe")
    await tab.press("Tab")
    await tab.press("ArrowDown")
    await tab.tab_to("text")
    await tab.write("psst")
    await tab.press("Enter")
    await tab.shows("private to pythpeer", "#log .own")
    assert [(line.sender, line.to) for line in fake.chat.messages] == [("zoe", "pythpeer")]

    await tab.tab_to("tab-bot")
    outline_style = "getComputedStyle(document.activeElement).outlineStyle"
    assert await tab.run(outline_style) == "solid"
    await tab.press("ArrowRight")
    assert await tab.focused() == "tab-faults"
    await tab.tab_to("peerbet")
    await tab.press("ArrowDown")
    await tab.shows("1", "#tab-faults")
    assert fake.faults.constant.keys() == {"peerbet"}
    await tab.tab_to("normal")
    await tab.press("Enter")
    await tab.until("!document.querySelector('#tab-faults b').textContent")
    assert fake.faults.constant == {}

    await tab.tab_to("tab-faults", shift=True)
    await tab.press("ArrowRight")
    await tab.tab_to("text")
    await tab.write("hello")
    await tab.press("Enter")
    await tab.shows("unread", "#inbox")
    assert [letter.text for letter in fake.mail.inbox] == ["hello"]


async def test_faults_apply_to_the_bot(fake: FakeServices, tab: Browser) -> None:
    """While down, it receives nothing; back to normal, it replies to what was posted before.

    That takes as long as the guard of `QUICK` if a poll was under way when the service went down.
    """
    await tab.run("document.querySelector('#tab-faults').click()")
    choose = """
        (() => {
            const choice = document.querySelector(`[name="peerbet"]`);
            choice.value = "KIND";
            choice.dispatchEvent(new Event("change"));
        })()
    """
    async with bot(fake):
        await tab.shows("Your bot is connected", "#presence")
        await tab.run(choose.replace("KIND", "down"))
        await tab.until("document.querySelector('[name=\"peerbet\"]').className === 'set'")
        await tab.write("!ping")
        await tab.press("Enter")
        await tab.shows("!ping", "#log")
        await asyncio.sleep(0.5)  # several times as long as it waits to ask
        assert not await tab.run("document.querySelector('#log .account')")
        await tab.run(choose.replace("KIND", "normal"))
        await tab.shows("pong", "#log .account")


async def test_mail_is_answered_and_shown_as_read(fake: FakeServices, tab: Browser) -> None:
    """A delivered mail is unread until the bot has fetched it, and its reply appears."""
    await tab.run("document.querySelector('#tab-mail').click()")
    await tab.run("document.querySelector('#deliver textarea').focus()")
    await tab.write("are you there?")
    await tab.press("Enter")
    await tab.shows("unread", "#inbox")
    async with bot(fake):
        await tab.shows("to guest", "#sent")
        await tab.shows("thank you", "#sent")
        await tab.until("!document.querySelector('#inbox .unread')")


async def test_a_flood_leaves_a_gap_that_is_shown(fake: FakeServices, tab: Browser) -> None:
    """In the chat and in the list of notices, which can be cleared."""
    async with bot(fake):
        await tab.write("!ping")
        await tab.press("Enter")
        await tab.shows("pong", "#log .account")
        await tab.run("document.querySelector('#flood').click()")
        await tab.shows("1 gap", "#noticed")
        await tab.shows("Gap: peerbet.chat.get: ", "#log .aside")
        await tab.shows("50 messages are not shown here", "#log .left-out")
        for width in (1280, 380):  # the chat scrolls, the page does not
            await tab.look(width, 760)
            page = "document.documentElement"
            assert await tab.run(f"{page}.scrollWidth <= {page}.clientWidth")
            if width == 1280:
                assert await tab.run(f"{page}.scrollHeight <= innerHeight")
        await tab.run("document.querySelector('#noticed').click()")
        await tab.shows("Gap: peerbet.chat.get", "#notices")
        assert await tab.focused() == "tab-bot"
        await tab.run("document.querySelector('#forget').click()")
        await tab.until("document.querySelector('#noticed').hidden")
        await tab.until("!document.querySelector('#notices').children.length")


async def test_it_survives_a_reload(fake: FakeServices, tab: Browser) -> None:
    """The name, the unsent text and the tab are unchanged, and messages are not duplicated."""
    await tab.write("hello")
    await tab.press("Enter")
    await tab.shows("hello", "#log")
    await tab.tab_to("sender", shift=True)
    await tab.write("zoe")
    await tab.tab_to("text")
    await tab.write("half a thou")
    await tab.run("document.querySelector('#tab-users').click()")
    await tab.run("document.querySelector('#user [name=username]').focus()")
    await tab.write("somebody")
    await tab.reload()
    await tab.shows("hello", "#log")
    assert await tab.run("document.querySelector('#text').value") == "half a thou"
    assert await tab.run("document.querySelector('[name=sender]').value") == "zoe"
    assert await tab.run("document.querySelector('#user [name=username]').value") == "somebody"
    assert await tab.run("document.querySelector('#tab-users').ariaSelected") == "true"
    assert await tab.run("document.querySelectorAll('.message').length") == 1


async def test_it_reconnects_automatically(fake: FakeServices, chromium: str) -> None:
    """It shows when it is disconnected, and discards the contents of the old server."""
    port = free_port()
    fake.chat.say("alice", "the first")
    async with browser(chromium) as tab:
        async with Page(fake, port=port) as page:
            await tab.open(page.url)
            await tab.shows("the first", "#log")
            assert page._runner.server is not None
            for connection in page._runner.server.connections:
                assert connection.transport is not None
                connection.transport.abort()
            fake.chat.say("alice", "the next")
            await tab.shows("the next", "#log")
            assert await tab.run("document.querySelectorAll('.message').length") == 2
        await tab.shows("Not connected", "#lost")
        await tab.write("to nobody")
        await tab.press("Enter")
        await tab.shows("does not respond", "#alert")
        assert await tab.run("document.querySelector('#text').value") == "to nobody"
        async with FakeServices() as other:
            other.chat.say("bob", "the second")
            async with Page(other, port=port):
                await tab.shows("the second", "#log")
                await tab.until("document.querySelector('#lost').hidden")
                assert await tab.run("document.querySelectorAll('.message').length") == 1


async def test_a_text_that_is_too_long_cannot_be_sent(fake: FakeServices, tab: Browser) -> None:
    """Characters are counted as the service does, and the unsent text is kept."""
    await tab.write("👍" * 251)
    await tab.shows("1 character too many", "#left")
    assert await tab.run("document.querySelector('#send').disabled")
    await tab.press("Enter")
    await tab.write("👍")
    await tab.shows("2 characters too many", "#left")
    assert fake.chat.messages == []
    await tab.run("document.querySelector('#text').value = '👍'.repeat(249)")
    await tab.write("👍")
    assert not await tab.run("document.querySelector('#send').disabled")
    await tab.press("Enter")
    await tab.until("document.querySelector('.message')")
    assert fake.chat.messages[0].text == "👍" * 250


async def test_a_text_of_blanks_is_named_as_such(fake: FakeServices, tab: Browser) -> None:
    """The browser shows why it is not sent."""
    await tab.write("  ")
    await tab.press("Enter")
    validity = await tab.run("document.querySelector('#text').validationMessage")
    assert validity == "Write more than blanks."
    assert fake.chat.messages == []


async def test_the_end_of_a_bot_is_shown_within_a_second(fake: FakeServices, tab: Browser) -> None:
    """It closes its connections, so that the page need not wait for requests."""
    async with bot(fake):
        await tab.shows("Your bot is connected", "#presence")
    started = time.monotonic()
    async with Delays() as delays:  # as late as this process are those of the browser
        await tab.shows("Your bot disconnected", "#presence")
    assert time.monotonic() - started < delays.allowed(1.0)


async def test_a_tab_of_a_narrow_page_brings_its_panel_into_view(tab: Browser) -> None:
    """The panels are below the chat there; on a wide page nothing is scrolled."""
    for width, is_scrolled in ((1280, False), (380, True)):
        await tab.look(width, 760)
        await tab.run("document.querySelector('#tab-mail').click()")
        top = await tab.run("document.querySelector('#panel-mail').getBoundingClientRect().top")
        assert 0 < top < 200
        assert await tab.run("scrollY > 100") is is_scrolled


LOOKS: Final = {
    "light": (1280, 800, "light"),
    "dark": (1280, 800, "dark"),
    "narrow": (380, 760, "light"),
    "narrow-dark": (380, 760, "dark"),
}


async def test_it_looks_well(fake: FakeServices, tab: Browser, tmp_path: Path) -> None:
    """Light, dark, narrow: nothing overflows, and the contrast of text is sufficient."""
    async with bot(fake):
        fake.chat.say("mika", "morning, ana! is the new bot in yet?")
        fake.chat.say("oskar", "psst, are you really a bot?", to="pythpeer")
        fake.chat.say("zoe", f"{'long' * 30} {'and longer ' * 10}")
        fake.mail.deliver("ana", "The minutes of last night are done.")
        await tab.write("!ping")
        await tab.press("Enter")
        await tab.shows("pong", "#log .account")
        for name, (width, height, scheme) in LOOKS.items():
            screenshot = await tab.look(width, height, scheme)
            (tmp_path / f"{name}.png").write_bytes(screenshot)
            assert struct.unpack(">II", screenshot[16:24]) == (width, height)
            for whole in ("document.documentElement", "document.querySelector('#scroller')"):
                assert await tab.run(f"{whole}.scrollWidth <= {whole}.clientWidth"), name
            for panel in ("bot", "faults", "mail", "users"):
                await tab.run(f"document.querySelector('#tab-{panel}').click()")
                assert await tab.run(CONTRAST) == [], (name, panel)


async def test_the_picture_of_the_documentation_can_be_taken(chromium: str) -> None:
    """Its script waits for texts that the page must still show."""
    picture = await take_picture(chromium, 0, 0)
    assert struct.unpack(">II", picture[16:24]) == (1120, 660)


CONTRAST: Final = """
(() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgb = (colours) => {
        context.clearRect(0, 0, 1, 1);
        for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (colours) => rgb(colours).map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const grounds = [];
        for (let up = element; up; up = up.parentElement) {
            grounds.unshift(getComputedStyle(up).backgroundColor);
        }
        const ink = getComputedStyle(element).color;
        const [more, less] = [light([...grounds, ink]), light(grounds)].sort((a, b) => b - a);
        if ((more + 0.05) / (less + 0.05) < 4.5) faint.push(`${walker.currentNode.data}: ${ink}`);
    }
    return faint;
})()
"""
"""Finds words that stand out too little from what is behind them: under 4.5 to 1 (WCAG AA)."""
