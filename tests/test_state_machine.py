"""A machine plays services, store and two consumers against a model, with faults and crashes.

Its rules are data, drawn as a whole, and each history is played in one event loop on virtual time.
A crash drops everything that is not in the file: the session, the store, what was in memory.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from helpers import examples
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scripted import (
    CUT,
    DROP,
    DROP_UNSEEN,
    ERROR_500,
    GARBAGE,
    OK,
    REFUSED,
    RESET,
    ScriptedFault,
    Scripted,
    Window,
)

from pythpeer import (
    ChatStream,
    Mail,
    MailStream,
    MemoryStore,
    PythpeerError,
    Retry,
    Session,
    SqliteStore,
)
from pythpeer.stores import Store

pytestmark = pytest.mark.anyio

NAMES: Final = ("one", "two")


class Rule(NamedTuple):
    """One step of a history."""

    what: str
    number: int = 0
    name: str = "one"
    fault: ScriptedFault = OK


FAULTS: Final = st.sampled_from(
    [
        DROP,
        DROP_UNSEEN,
        RESET,
        CUT,
        GARBAGE,
        ERROR_500,
        REFUSED,
        ScriptedFault(seconds=0.7),
        ScriptedFault(before=0.7),
    ]
)
NAMED: Final = st.sampled_from(NAMES)
RULES: Final = st.one_of(
    st.integers(1, 6).map(lambda many: Rule("say", many)),
    st.integers(0, 3).map(lambda letter: Rule("deliver", letter)),
    st.tuples(st.integers(1, 5), NAMED).map(lambda how: Rule("chat", *how)),
    st.tuples(st.integers(1, 3), NAMED).map(lambda how: Rule("mail", *how)),
    NAMED.map(lambda name: Rule("acknowledge", name=name)),
    NAMED.map(lambda name: Rule("abandon", name=name)),
    st.sampled_from(["close", "crash", "direct", "wait"]).map(Rule),
    st.tuples(st.sampled_from(["get", "readnew", "readall"]), FAULTS).map(
        lambda how: Rule(how[0], fault=how[1])
    ),
)


class Consumer:
    """One name: its streams, what they handed out, and what it acknowledged, as the law has it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.chat: ChatStream | None = None
        self.mail: MailStream | None = None
        self.acknowledged = 0
        self.handed: int | None = None  # the last one, not acknowledged yet
        self.seen: list[int] = []
        self.mails: list[Mail] = []

    def abandon(self) -> None:
        """Whoever had the streams is gone."""
        self.chat = self.mail = None
        self.handed = None


class World:
    """The services, the store and the consumers."""

    def __init__(self, services: Scripted, path: Path, kind: str) -> None:
        self.services = services
        self.path = path
        self.kind = kind
        self.memory = MemoryStore()
        self.consumers = {name: Consumer(name) for name in NAMES}
        self.session = self.new_session()

    def new_session(self) -> Session:
        self.store: Store = self.memory if self.kind == "memory" else SqliteStore(self.path)
        return self.services.session(store=self.store, retry=Retry(max_delay=0.3), timeout=2.0)

    async def begin(self) -> None:
        """Open the session, and have a place for each name before anything happens."""
        await self.session.open()
        for name in NAMES:
            async with self.session.peerbet.chat_stream(after=0, name=name):
                pass
            async with self.session.pythbots.mail_stream(name=name):
                pass

    async def play(self, rule: Rule) -> None:
        consumer = self.consumers[rule.name]
        match rule.what:
            case "say":
                self.services.say(rule.number, step=1 + rule.number % 3)
            case "deliver":
                self.services.deliver("abca"[rule.number])
            case "chat":
                await self.take_chat(consumer, rule.number)
            case "mail":
                await self.take_mail(consumer, rule.number)
            case "acknowledge":
                await self.acknowledge(consumer)
            case "abandon":
                consumer.abandon()
            case "close":
                await self.session.aclose()
                await self.reopen()
            case "crash":
                await self.crash()
                await self.reopen()
            case "direct":
                with suppress(PythpeerError):
                    await self.session.pythbots.unread_mail()
            case "wait":
                await asyncio.sleep(4.0)
            case kind:
                self.services.script(kind, rule.fault)

    async def crash(self) -> None:
        """Drop the connections and whatever was only in memory; nothing is written any more."""
        assert self.session._transport is not None
        await self.session._transport.aclose()
        if isinstance(self.store, SqliteStore):
            await self.store._database.aclose()
        else:
            await self.session.aclose()

    async def reopen(self) -> None:
        for consumer in self.consumers.values():
            consumer.abandon()
        self.session = self.new_session()
        await self.session.open()

    async def take_chat(self, consumer: Consumer, many: int, within: float = 1.7) -> None:
        if consumer.chat is None:
            consumer.chat = self.session.peerbet.chat_stream(name=consumer.name)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for _ in range(many):
                    asked = consumer.handed
                    consumer.handed = None
                    if asked is not None:
                        consumer.acknowledged = max(consumer.acknowledged, asked)
                    message = await anext(consumer.chat)
                    assert message.id > consumer.acknowledged, "it was acknowledged"
                    assert asked is None or message.id > asked, "out of order"
                    consumer.handed = message.id
                    consumer.seen.append(message.id)

    async def take_mail(self, consumer: Consumer, many: int, within: float = 1.7) -> None:
        if consumer.mail is None:
            consumer.mail = self.session.pythbots.mail_stream(name=consumer.name)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for _ in range(many):
                    consumer.mails.append(await anext(consumer.mail))

    async def acknowledge(self, consumer: Consumer) -> None:
        if consumer.chat is not None:
            await consumer.chat.ack()
            if consumer.handed is not None:
                consumer.acknowledged = max(consumer.acknowledged, consumer.handed)
                consumer.handed = None
        if consumer.mail is not None:
            await consumer.mail.ack()

    async def judge(self) -> None:
        """In the end all of it has reached everybody, in order, and the pace was kept."""
        self.services.faults.clear()
        await asyncio.sleep(5.0)  # whatever was on its way has taken effect
        ids = self.services.ids
        for consumer in self.consumers.values():
            consumer.abandon()
            for _ in range(20):
                await self.take_chat(consumer, 1000, 3.0)
                await self.take_mail(consumer, 1000, 3.0)
                if set(ids) <= set(consumer.seen):
                    break
            assert set(consumer.seen) == set(ids)
            mails = Counter(mail.text for mail in consumer.mails)
            assert mails >= Counter(letter.text for letter in self.services.mails)
        for kinds in (("get",), ("readnew", "readall")):
            times = [asked.at for asked in self.services.asked(*kinds)]
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert all(gap >= 1.0 - 1e-3 for gap in gaps)


@settings(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(RULES, min_size=3, max_size=25),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["newest", "oldest"]),
    st.integers(0, 2**32),
)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whatever_happens_nothing_is_lost_and_nothing_acknowledged_comes_again(
    kind: str,
    folder: Path,
    rules: list[Rule],
    mail_ids: bool,
    marks: bool,
    window: Window,
    number: int,
) -> None:
    """Every message and mail reaches every name, in order; what was acknowledged only once."""
    async with Scripted(
        mail_ids=mail_ids, readall_marks=marks, window=window, overlap=number % 3
    ) as services:
        world = World(services, folder / f"{number}-{len(rules)}-{id(rules)}.sqlite", kind)
        await world.begin()
        try:
            for rule in rules:
                await world.play(rule)
            await world.judge()
        finally:
            await world.session.aclose()
    event(f"crashes: {sum(rule.what == 'crash' for rule in rules)}")
