"""``pythpeer demo``: the real session against the fake services, with invented people in them.

Everything goes over HTTP on this machine, and the fake services judge each request by the pace and
the encoding that the real ones document.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Iterator
from typing import Final

from rich.live import Live
from rich.text import Text

from .. import ChatMessage, Mail, Rate, Session, merge
from ..testing import FakeServices
from . import ending
from .show import Rows

__all__ = ["Demo"]

PEOPLE: Final = ("mika", "ana", "oskar", "zoe", "tariq", "lin")

PACE: Final = (0.15, 1.2)
"""The fewest and the most seconds between two things that people do."""

RATES: Final = {
    name: Rate(1.0, guard=5.0) for name in ("peerbet.chat.get", "peerbet.chat.set", "pythbots.mail")
}
"""One request a second, counted from the last answer: here the server shares our event loop, and on
a busy machine it may come to see a request later than the guard for a network allows."""

SHOWN: Final = 5
"""How many broken rules are named; the summary counts them all."""

OPENING: Final = """
a: good morning, everyone
b@ The minutes of last night are done. You will find them where the tea is.
b: morning, {a}! is the new bot in yet?
c: !ping
"""

SCENES: Final = """
a: who won last night?
b: nobody, the dice were asleep
c: speak for yourself, {b}

a: [bold]is this bold?[/bold]
b: no, {a}. it is brackets. it was brackets yesterday too

a> psst, are you really a bot?
b: what are you whispering over there, {a}

a@ Could you keep an eye on the chat while I am at lunch? There is cake in it for you.
a: back in half an hour
b: bring me a sandwich, {a}

a: does anybody know how often one may ask the server?
b: once a second
c: and if one asks twice?
b: then it answers slowly, and looks at you

a: здравствуйте! おはよう! bon dia!
b: hello {a}, are you three people today?

a@ Your library book is overdue by eleven years. Take your time.

a* reminder: the quiz starts at eight
b: i am not ready for the quiz
c: nobody is ever ready for the quiz

a: my connection dropped again
b: did you lose anything?
a: not a line. it all came once it was back, in order

a> could you tell {b} that i am not talking to them
b: {a}, we can all see you typing

a: ☕?
b: ☕
c: ☕☕

a@ Thank you for answering at three in the morning. Do you ever sleep?

a: 100 % of statistics contain a % sign
b: & an ampersand + a plus, {a}
c: you two should test software

a: good night then
b: it is morning, {a}
a: good night anyway
"""

_LINE: Final = re.compile(r"(?P<who>[abc])(?P<how>[:>@*]) (?P<text>.+)")


class Demo:
    """One run of the demonstration: shows rows until it has shown *limit* or is interrupted."""

    def __init__(self, rows: Rows, limit: int | None, seed: int | None) -> None:
        self._rows = rows
        self._limit = limit
        self._chance = random.Random(seed)
        self._messages = self._mails = self._pongs = 0
        self._violations: list[str] = []

    def run(self) -> int:
        """Run it, and return the exit code: 1 if the session broke a rule of the services."""
        with contextlib.suppress(ending.Interrupted):  # that is how to stop it
            ending.run(self._play())
        if not self._rows.json:
            self._say(f"{self._counts()}, violations of the services' rules: ", "bold", end="")
            self._say(str(len(self._violations)), "bold red" if self._violations else "bold green")
        for violation in self._violations[:SHOWN]:
            ending.complain(violation)
        return ending.FAILED if self._violations else 0

    async def _play(self) -> None:
        self._introduce()
        async with FakeServices() as fake:
            opening = self._acted(fake, OPENING)
            for _ in range(2):
                next(opening)
            people = asyncio.create_task(self._live(fake, opening))
            try:
                async with fake.session(rates=RATES) as session:
                    await self._watch(session)
            finally:
                people.cancel()
                self._violations = [str(violation) for violation in fake.violations]

    async def _watch(self, session: Session) -> None:
        """The program that this is a demonstration of, and the counting."""
        stream = merge(session.peerbet.chat_stream(after=0), session.pythbots.mail_stream())
        async with stream:
            with ending.while_read(), self._footer() as footer:
                async for item in stream:
                    self._rows.show(item)
                    self._count(item)
                    if isinstance(item, ChatMessage) and item.text == "!ping":
                        await session.peerbet.post("pong", bot=True)
                        self._pongs += 1
                    if footer is not None:
                        footer.update(self._status(), refresh=True)
                    if self._messages + self._mails == self._limit:
                        return

    # -- what people see --------------------------------------------------------------------------

    def _introduce(self) -> None:
        if self._rows.json:
            return
        end = f"It ends after {self._limit} rows." if self._limit else "Ctrl-C stops it."
        self._say("pythpeer demo: a chat and a mailbox, both faked on this machine", "bold")
        self._say(
            "Invented people talk. A real session polls over HTTP, once a second each, shows what"
            f" comes, and answers !ping. {end}"
        )
        self._say("")

    def _say(self, text: str, style: str = "", end: str = "\n") -> None:
        self._rows.screen.print(Text(text, style), end=end, soft_wrap=not self._terminal)

    @property
    def _terminal(self) -> bool:
        return self._rows.screen.is_terminal

    def _footer(self) -> contextlib.AbstractContextManager[Live | None]:
        """A line that stays at the bottom of a terminal that can do that."""
        screen = self._rows.screen
        if self._rows.json or not screen.is_terminal or screen.is_dumb_terminal:
            return contextlib.nullcontext()
        return Live(self._status(), console=screen, auto_refresh=False, transient=True)

    def _status(self) -> Text:
        text = Text(f"Ctrl-C stops · {self._counts()}", "reverse", no_wrap=True)
        text.truncate(self._rows.screen.width - 4, overflow="ellipsis")  # leaves room for a ^C
        return text

    def _counts(self) -> str:
        return f"messages: {self._messages}, mails: {self._mails}, pings answered: {self._pongs}"

    def _count(self, item: ChatMessage | Mail) -> None:
        if isinstance(item, Mail):
            self._mails += 1
        else:
            self._messages += 1

    # -- who they talk to -------------------------------------------------------------------------

    async def _live(self, fake: FakeServices, opening: Iterator[None]) -> None:
        """Have people say something every now and then, for ever."""
        for _ in opening:
            await asyncio.sleep(self._chance.uniform(*PACE))
        while True:
            scenes = SCENES.strip().split("\n\n")
            self._chance.shuffle(scenes)
            for scene in scenes:
                ping = "\nc: !ping" if self._chance.random() < 0.5 else ""
                for _ in self._acted(fake, scene + ping):
                    await asyncio.sleep(self._chance.uniform(*PACE))

    def _acted(self, fake: FakeServices, scene: str) -> Iterator[None]:
        """Cast a scene, and have one line of it said at each step."""
        cast = dict(zip("abc", self._chance.sample(PEOPLE, 3), strict=True))
        for line in filter(None, map(_LINE.fullmatch, scene.splitlines())):
            who, text = cast[line["who"]], line["text"].format(**cast)
            match line["how"]:
                case "@":
                    fake.mail.deliver(who, text)
                case ">":
                    fake.chat.say(who, text, to=fake.username)
                case how:
                    fake.chat.say(who, text, bot=how == "*")
            yield
