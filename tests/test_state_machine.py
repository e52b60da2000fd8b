"""A state machine plays services, store and two consumers against a model, with faults and crashes.

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
    API_ERROR,
    CUT,
    DROP,
    DROP_WITHOUT_EFFECT,
    ERROR_500,
    GARBAGE,
    OK,
    RESET,
    Scripted,
    ScriptedFault,
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


class Action(NamedTuple):
    """One step of a history."""

    kind: str
    number: int = 0
    name: str = "one"
    fault: ScriptedFault = OK


FAULTS: Final = st.sampled_from(
    [
        DROP,
        DROP_WITHOUT_EFFECT,
        RESET,
        CUT,
        GARBAGE,
        ERROR_500,
        API_ERROR,
        ScriptedFault(after=0.7),
        ScriptedFault(before=0.7),
    ]
)
NAMED: Final = st.sampled_from(NAMES)
ACTIONS: Final = st.one_of(
    st.integers(1, 6).map(lambda count: Action("say", count)),
    st.integers(0, 3).map(lambda letter: Action("deliver", letter)),
    st.tuples(st.integers(1, 5), NAMED).map(lambda how: Action("chat", *how)),
    st.tuples(st.integers(1, 3), NAMED).map(lambda how: Action("mail", *how)),
    NAMED.map(lambda name: Action("acknowledge", name=name)),
    NAMED.map(lambda name: Action("abandon", name=name)),
    st.sampled_from(["close", "crash", "direct", "wait"]).map(Action),
    st.tuples(st.sampled_from(["get", "readnew", "readall"]), FAULTS).map(
        lambda how: Action(how[0], fault=how[1])
    ),
)


class Consumer:
    """One name: its streams, the items they returned, and the items it acknowledged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.chat: ChatStream | None = None
        self.mail: MailStream | None = None
        self.acknowledged = 0
        self.unacknowledged: int | None = None  # the last item, not acknowledged yet
        self.seen: list[int] = []
        self.mails: list[Mail] = []

    def abandon(self) -> None:
        """The process that had the streams has ended."""
        self.chat = self.mail = None
        self.unacknowledged = None


class System:
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
        """Open the session, and find a position for each name before anything happens."""
        await self.session.open()
        for name in NAMES:
            async with self.session.peerbet.chat_stream(after=0, name=name):
                pass
            async with self.session.pythbots.mail_stream(name=name):
                pass

    async def play(self, action: Action) -> None:
        consumer = self.consumers[action.name]
        match action.kind:
            case "say":
                self.services.say(action.number, step=1 + action.number % 3)
            case "deliver":
                self.services.deliver("abca"[action.number])
            case "chat":
                await self.take_chat(consumer, action.number)
            case "mail":
                await self.take_mail(consumer, action.number)
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
                self.services.script(kind, action.fault)

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

    async def take_chat(self, consumer: Consumer, count: int, within: float = 1.7) -> None:
        if consumer.chat is None:
            consumer.chat = self.session.peerbet.chat_stream(name=consumer.name)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for _ in range(count):
                    asked = consumer.unacknowledged
                    consumer.unacknowledged = None
                    if asked is not None:
                        consumer.acknowledged = max(consumer.acknowledged, asked)
                    message = await anext(consumer.chat)
                    assert message.id > consumer.acknowledged, "it was acknowledged"
                    assert asked is None or message.id > asked, "out of order"
                    consumer.unacknowledged = message.id
                    consumer.seen.append(message.id)

    async def take_mail(self, consumer: Consumer, count: int, within: float = 1.7) -> None:
        if consumer.mail is None:
            consumer.mail = self.session.pythbots.mail_stream(name=consumer.name)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for _ in range(count):
                    consumer.mails.append(await anext(consumer.mail))

    async def acknowledge(self, consumer: Consumer) -> None:
        if consumer.chat is not None:
            await consumer.chat.ack()
            if consumer.unacknowledged is not None:
                consumer.acknowledged = max(consumer.acknowledged, consumer.unacknowledged)
                consumer.unacknowledged = None
        if consumer.mail is not None:
            await consumer.mail.ack()

    async def verify(self) -> None:
        """In the end every name has received everything, in order, and the pace was kept."""
        self.services.faults.clear()
        await asyncio.sleep(5.0)  # everything in flight has taken effect
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
            gaps = [later - previous for previous, later in itertools.pairwise(times)]
            assert all(gap >= 1.0 - 1e-3 for gap in gaps)


@settings(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(ACTIONS, min_size=3, max_size=25),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["newest", "oldest"]),
    st.integers(0, 2**32),
)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whatever_happens_nothing_is_lost_and_no_acknowledged_item_is_repeated(
    kind: str,
    folder: Path,
    actions: list[Action],
    mail_ids: bool,
    marks: bool,
    window: Window,
    number: int,
) -> None:
    """Every message and mail reaches every name, in order; what was acknowledged only once."""
    async with Scripted(
        mail_ids=mail_ids, readall_marks=marks, window=window, overlap=number % 3
    ) as services:
        system = System(services, folder / f"{number}-{len(actions)}-{id(actions)}.sqlite", kind)
        await system.begin()
        try:
            for action in actions:
                await system.play(action)
            await system.verify()
        finally:
            await system.session.aclose()
    event(f"crashes: {sum(action.kind == 'crash' for action in actions)}")
