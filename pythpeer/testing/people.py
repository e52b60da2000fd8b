"""People who talk by themselves: on a timetable, from a script, or when they are spoken to.

They live by the event loop's timers and need no task. Whatever is left to chance comes from one
seed, so the same people say the same things again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Generator, Mapping
from functools import partial
from random import Random
from typing import Final, Literal, NamedTuple, Self

from ..errors import InvalidRequestError
from ..wire import check_seconds
from .chat import ChatLine, FakeChat
from .directory import Person
from .mail import FakeMail, StoredMail
from .scenes import CAST, OPENING, SCENES
from .script import ScriptLine, read_scenes

__all__ = ["Actor", "Heard", "Pace", "People"]

Pace = float | tuple[float, float]
"""A number of seconds, or the least and the most of them."""

PACE: Final = (0.15, 1.2)
"""The fewest and the most seconds between two things that invented people do."""


class Heard(NamedTuple):
    """What somebody reacts to: who said it and where, and what of it their pattern matched."""

    sender: str
    text: str
    where: Literal["chat", "private", "mail"]
    match: re.Match[str]


Reply = str | Callable[[Heard], str | None]


class People:
    """Everybody who is not a client of the fake services.

    They begin to live when the services start, and go home when those are closed.
    """

    def __init__(self, chat: FakeChat, mail: FakeMail, *, owner: Person, rng: Random) -> None:
        self._chat = chat
        self._mail = mail
        self._owner = owner
        self._chance = rng
        self._actors: dict[str, Actor] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[float, Callable[[], object]]] = []
        self._timers: set[asyncio.TimerHandle] = set()
        chat.subscribe(self._hear_chat)
        mail.listen(self._hear_mail)

    def add(self, name: str) -> Actor:
        """The person of that name, who comes in if they are not there yet."""
        return self._actors.setdefault(name, Actor(self, name))

    def play(
        self, script: str, *, cast: Mapping[str, str] | None = None, pace: Pace = PACE
    ) -> None:
        """Have a script played, one line after another with *pace* between them.

        Such as:

            alice: hello
            bob> psst, are you a bot?
            alice@ Will you have dinner with us, {bob}?

        ``:`` is said to everyone, ``*`` as a bot, ``>`` to the fake's own user alone, and ``@`` is
        a mail to them. *cast* has people for roles, also where a role stands in braces. The first
        line is said at once. Raises `InvalidRequestError`.
        """
        _check_pace(pace)
        lines = (line for scene in read_scenes(script) for line in scene)
        self._next_line((line.with_cast(cast or {}) for line in lines), pace)

    def live(self, *, pace: Pace = PACE, command: str | None = "!ping") -> None:
        """Have invented people talk for ever, and say *command* to a bot every now and then."""
        _check_pace(pace)
        self._next_line(self._endless_script(command), pace)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to live, in *loop*. The fake services do this when they start."""
        self._loop = loop
        waiting, self._waiting = self._waiting, []
        for seconds, action in waiting:
            self._schedule(seconds, action)

    def stop(self) -> None:
        """Go home: whatever was still to be said is not said."""
        self._loop = None
        self._waiting.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _schedule(self, pace: Pace, action: Callable[[], object]) -> None:
        """Do something by and by, or at once if that is now."""
        seconds = self._chance.uniform(*pace) if isinstance(pace, tuple) else pace
        if not seconds:
            action()
        elif self._loop is None:
            self._waiting.append((seconds, action))
        else:

            def fire() -> None:
                self._timers.discard(timer)
                action()

            timer = self._loop.call_later(seconds, fire)
            self._timers.add(timer)

    def _perform(self, line: ScriptLine) -> None:
        """Say *line* now."""
        match line.how:
            case "chat" | "bot":
                self._chat.say(line.who, line.text, bot=line.how == "bot")
            case "private":
                self._chat.say(line.who, line.text, to=self._owner.username)
            case "mail":
                self._mail.deliver(line.who, line.text)

    def _next_line(self, lines: Generator[ScriptLine], pace: Pace) -> None:
        line = next(lines, None)
        if line is not None:
            self._perform(line)
            self._schedule(pace, partial(self._next_line, lines, pace))

    def _endless_script(self, command: str | None) -> Generator[ScriptLine]:
        """The opening, then all scenes in any order, and again, each with another cast."""
        scenes, likely = read_scenes(OPENING), 1.0
        while True:
            for scene in scenes:
                cast = dict(zip("abc", self._chance.sample(CAST, 3), strict=True))
                yield from (line.with_cast(cast) for line in scene)
                if command is not None and self._chance.random() < likely:
                    yield ScriptLine(cast["c"], "chat", command)
            scenes, likely = read_scenes(SCENES), 0.5
            self._chance.shuffle(scenes)

    # -- hearing ----------------------------------------------------------------------------------

    def _hear_chat(self, line: ChatLine) -> None:
        for actor in tuple(self._actors.values()):
            if line.sender != actor.name and line.to in ("", actor.name):
                actor._react(line.sender, line.text, "private" if line.to else "chat")

    def _hear_mail(self, recipient: Person, letter: StoredMail) -> None:
        actor = self._actors.get(recipient.username)
        if actor is not None and letter.sender != actor.name:
            actor._react(letter.sender, letter.text, "mail")


class Actor:
    """One person, told what to do.

    Each method returns the person, so that one can go on:

        fake.people.add("alice").says("!ping", after=2.0).answers("pong", "thank you")
    """

    def __init__(self, people: People, name: str) -> None:
        self._people = people
        self.name = name
        self._answers: list[tuple[re.Pattern[str], Reply, Pace]] = []
        people._mail.of(name)

    def __repr__(self) -> str:
        return f"<Actor {self.name}>"

    def says(
        self,
        text: str,
        *,
        to: str = "",
        bot: bool = False,
        after: Pace = 0.0,
        every: Pace | None = None,
    ) -> Self:
        """Say something, to *to* alone if given: now or *after* some seconds, and then *every*."""
        return self._schedule_action(
            partial(self._people._chat.say, self.name, text, to=to, bot=bot), after, every
        )

    def mails(
        self,
        text: str,
        *,
        to: str | None = None,
        after: Pace = 0.0,
        every: Pace | None = None,
    ) -> Self:
        """Send a mail, by default to the fake's own user: now or *after*, and then *every*."""
        return self._schedule_action(
            partial(self._people._mail.deliver, self.name, text, to=to), after, every
        )

    def answers(self, pattern: str, reply: Reply, *, after: Pace = 1.0) -> Self:
        """Whenever somebody else says or mails something that *pattern* is found in, say *reply*.

        It goes back the way it came: to everyone, in private, or by mail. *reply* is a text, or
        makes one out of what was `Heard`, or ``None`` for no answer. Of several patterns the first
        that is found counts. Raises `InvalidRequestError`.
        """
        _check_pace(after)
        try:
            compiled = re.compile(pattern)
        except re.error:
            raise InvalidRequestError(f"no regular expression: {pattern!r}") from None
        self._answers.append((compiled, reply, after))
        return self

    def _react(self, sender: str, text: str, where: Literal["chat", "private", "mail"]) -> None:
        """React to what somebody said, if there is anything to say."""
        for pattern, reply, after in self._answers:
            match = pattern.search(text)
            if match:
                heard = Heard(sender, text, where, match)
                self._people._schedule(after, partial(self._reply, heard, reply))
                return

    def _reply(self, heard: Heard, reply: Reply) -> None:
        text = reply if isinstance(reply, str) else reply(heard)
        if text is None:
            return
        if heard.where == "mail":
            self._people._mail.deliver(self.name, text, to=heard.sender)
        else:
            to = heard.sender if heard.where == "private" else ""
            self._people._chat.say(self.name, text, to=to)

    def _schedule_action(
        self, action: Callable[[], object], after: Pace, every: Pace | None
    ) -> Self:
        _check_pace(after)
        if every is not None and not _check_pace(every):
            raise InvalidRequestError("every is more than 0 seconds")

        def act() -> None:
            action()
            if every is not None:
                self._people._schedule(every, act)

        self._people._schedule(after, act)
        return self


def _check_pace(pace: Pace) -> float:
    """Return the least that *pace* can be. Raises `InvalidRequestError`."""
    if isinstance(pace, tuple):
        least, most = (check_seconds("a pace", seconds) for seconds in pace)
        return min(least, most)
    return check_seconds("a pace", pace)
