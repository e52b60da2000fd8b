"""`People`: users who act by themselves, at given times, from a script, or in reply to others.

They need no task, because the event loop's timers run them. One seed decides whatever is left to
chance, so with an equal seed the same people send the same messages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Generator, Mapping
from functools import partial
from random import Random
from typing import Final, Literal, NamedTuple, Protocol, Self

from ..errors import InvalidRequestError
from ..misuse import tolerant_repr
from ..validation import check_seconds
from .chat import ChatLine, FakeChat
from .directory import Person, same_name
from .mail import FakeMail, StoredMail
from .scenes import CAST, OPENING, SCENES
from .script import ScriptLine, read_scenes

__all__ = ["Actor", "Heard", "Pace", "People"]

Pace = float | tuple[float, float]
"""A number of seconds, or the minimum and the maximum of a random number of seconds."""

DEFAULT_PACE: Final = (0.15, 1.2)
"""The minimum and the maximum of seconds between two things that invented people do."""


class Heard(NamedTuple):
    """A message to which an `Actor` replies."""

    sender: str
    """The sender's username."""

    text: str
    """The text."""

    where: Literal["chat", "private", "mail"]
    """The kind of message."""

    match: re.Match[str]
    """The match of the pattern in the text."""


Reply = str | Callable[[Heard], str | None]
"""A text, or a function that returns one, or ``None`` for no reply."""


class _Say(Protocol):
    def __call__(self, sender: str, text: str, *, to: str = "", bot: bool = False) -> int: ...


class _Deliver(Protocol):
    def __call__(self, sender: str, text: str, *, to: str | None = None) -> int: ...


class _Schedule(Protocol):
    def __call__(self, pace: Pace, action: Callable[[], object]) -> None: ...


class People:
    """All users who are not clients of the fake services.

    They act only while the services run: what is due before then is done at the start, and what is
    still due when the services are closed is not done.
    """

    def __init__(self, chat: FakeChat, mail: FakeMail, *, owner: Person, rng: Random) -> None:
        self._chat = chat
        self._mail = mail
        self._owner = owner
        self._rng = rng
        self._actors: dict[str, Actor] = {}
        """The people by name in lower case; `add` adds to them."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the services while they run, else ``None``."""
        self._delayed: list[tuple[float, Callable[[], object]]] = []
        """Actions scheduled before the services run, each with its seconds after the start."""
        self._timers: set[asyncio.TimerHandle] = set()
        """The timers of actions that are still to be done; each removes itself when it fires."""
        chat.subscribe(self._on_chat)
        mail.subscribe(self._on_mail)

    def add(self, name: str) -> Actor:
        """Return the person with the name *name*, who is added if necessary."""
        self._mail.of(name)
        actor = Actor(name, say=self._chat.say, deliver=self._mail.deliver, schedule=self.schedule)
        return self._actors.setdefault(name.casefold(), actor)

    def play(
        self, script: str, *, cast: Mapping[str, str] | None = None, pace: Pace = DEFAULT_PACE
    ) -> None:
        """Play *script*, one line after another with *pace* between them.

        Such as:

            alice: hello
            bob> psst, are you a bot?
            alice@ Will you have dinner with us, {bob}?

        ``:`` is a message to everyone, ``*`` one as a bot, ``>`` a private one to the fake's own
        user, and ``@`` a mail to that user. *cast* maps roles to people, also where a role is in
        braces. The first line is sent immediately. Raises `InvalidRequestError`.
        """
        _check_pace(pace)
        lines = (line for scene in read_scenes(script) for line in scene)
        self._next_line((line.with_cast(cast or {}) for line in lines), pace)

    def live(self, *, pace: Pace = DEFAULT_PACE, command: str | None = "!ping") -> None:
        """Let invented people talk with *pace*, and sometimes send *command* to a bot."""
        _check_pace(pace)
        self._next_line(self._endless_script(command), pace)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the timers in *loop*. The fake services call this when they start."""
        self._loop = loop
        delayed, self._delayed = self._delayed, []
        for seconds, action in delayed:
            self.schedule(seconds, action)

    def stop(self) -> None:
        """Cancel everything that is still to be done."""
        self._loop = None
        self._delayed.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def schedule(self, pace: Pace, action: Callable[[], object]) -> None:
        """Call *action* after *pace*, or immediately if that is 0."""
        seconds = self._rng.uniform(*pace) if isinstance(pace, tuple) else pace
        if not seconds:
            action()
        elif self._loop is None:
            self._delayed.append((seconds, action))
        else:

            def fire() -> None:
                self._timers.discard(timer)
                action()

            timer = self._loop.call_later(seconds, fire)
            self._timers.add(timer)

    def _perform(self, line: ScriptLine) -> None:
        """Send *line* now."""
        match line.how:
            case "chat" | "bot":
                self._chat.say(line.role, line.text, bot=line.how == "bot")
            case "private":
                self._chat.say(line.role, line.text, to=self._owner.username)
            case "mail":
                self._mail.deliver(line.role, line.text)

    def _next_line(self, lines: Generator[ScriptLine], pace: Pace) -> None:
        line = next(lines, None)
        if line is not None:
            self._perform(line)
            self.schedule(pace, partial(self._next_line, lines, pace))

    def _endless_script(self, command: str | None) -> Generator[ScriptLine]:
        """Yield the opening, then all scenes in random order, again and again, with new casts."""
        scenes, command_chance = read_scenes(OPENING), 1.0
        while True:
            for scene in scenes:
                cast = dict(zip("abc", self._rng.sample(CAST, 3), strict=True))
                yield from (line.with_cast(cast) for line in scene)
                if command is not None and self._rng.random() < command_chance:
                    yield ScriptLine(cast["c"], "chat", command)
            scenes, command_chance = read_scenes(SCENES), 0.5
            self._rng.shuffle(scenes)

    # -- reacting to messages ---------------------------------------------------------------------

    def _on_chat(self, line: ChatLine) -> None:
        for actor in tuple(self._actors.values()):
            addressed = not line.to or same_name(line.to, actor.name)
            if addressed and not same_name(line.sender, actor.name):
                actor.react(line.sender, line.text, "private" if line.to else "chat")

    def _on_mail(self, recipient: Person, mail: StoredMail) -> None:
        actor = self._actors.get(recipient.username.casefold())
        if actor is not None and not same_name(mail.sender, actor.name):
            actor.react(mail.sender, mail.text, "mail")


class Actor:
    """One person, whose actions are scheduled by method calls.

    Each method returns the person, so that calls can be chained:

        fake.people.add("alice").says("!ping", after=2.0).answers("pong", "thank you")

    The attribute ``name`` is the person's name.
    """

    def __init__(self, name: str, *, say: _Say, deliver: _Deliver, schedule: _Schedule) -> None:
        self.name = name
        """The user name."""
        self._say = say
        self._deliver = deliver
        self._schedule = schedule
        self._answers: list[tuple[re.Pattern[str], Reply, Pace]] = []
        """Pattern, reply and delay of each reaction; the first pattern that is found decides."""

    @tolerant_repr
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
        """Post *text*: now or *after* some seconds, then *every* so many.

        The message is private if *to* is given, and from a bot if *bot* is true.
        """
        return self._schedule_action(
            partial(self._say, self.name, text, to=to, bot=bot), after, every
        )

    def mails(
        self,
        text: str,
        *,
        to: str | None = None,
        after: Pace = 0.0,
        every: Pace | None = None,
    ) -> Self:
        """Mail *text* to *to*, by default the fake's own user: now or *after*, then *every*."""
        return self._schedule_action(partial(self._deliver, self.name, text, to=to), after, every)

    def answers(self, pattern: str, reply: Reply, *, after: Pace = 1.0) -> Self:
        """Reply whenever another user sends a message or a mail in which *pattern* is found.

        The reply is sent *after* some seconds, to the same recipients as the message. *reply* is a
        text, or a function that is called with what was `Heard` and returns a text, or ``None`` for
        no reply. Of several patterns the first that is found decides. Raises `InvalidRequestError`.
        """
        _check_pace(after)
        try:
            compiled = re.compile(pattern)
        except re.error:
            raise InvalidRequestError(f"not a regular expression: {pattern!r}") from None
        self._answers.append((compiled, reply, after))
        return self

    def react(self, sender: str, text: str, where: Literal["chat", "private", "mail"]) -> None:
        """Schedule the reply to a message, if any pattern is found in it."""
        for pattern, reply, after in self._answers:
            match = pattern.search(text)
            if match:
                heard = Heard(sender, text, where, match)
                self._schedule(after, partial(self._reply, heard, reply))
                return

    def _reply(self, heard: Heard, reply: Reply) -> None:
        text = reply if isinstance(reply, str) else reply(heard)
        if text is None:
            return
        if heard.where == "mail":
            self._deliver(self.name, text, to=heard.sender)
        else:
            to = heard.sender if heard.where == "private" else ""
            self._say(self.name, text, to=to)

    def _schedule_action(
        self, action: Callable[[], object], after: Pace, every: Pace | None
    ) -> Self:
        _check_pace(after)
        if every is not None and not _check_pace(every):
            raise InvalidRequestError("every must be more than 0 seconds")

        def act() -> None:
            action()
            if every is not None:
                self._schedule(every, act)

        self._schedule(after, act)
        return self


def _check_pace(pace: Pace) -> float:
    """Return the minimum of *pace* in seconds. Raises `InvalidRequestError`."""
    if isinstance(pace, tuple):
        minimum, maximum = (check_seconds("pace", seconds) for seconds in pace)
        return min(minimum, maximum)
    return check_seconds("pace", pace)
