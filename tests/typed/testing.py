"""The test kit: fake services, what they know and do, and the fixtures of the pytest plugin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, assert_type

from pythpeer import Rate, Session
from pythpeer.testing import (
    BOM,
    DEFAULT_RATES,
    PHP_WARNING,
    Actor,
    ApiKeys,
    ChatLine,
    Chats,
    DiceBet,
    FakeChat,
    FakeDice,
    FakeMail,
    FakeServices,
    Fault,
    Faults,
    Heard,
    Mailbox,
    Pace,
    People,
    Person,
    QuirkOptions,
    Quirks,
    RecordedRequest,
    Rule,
    SentMail,
    Staff,
    StoredMail,
    Users,
    Violation,
    VirtualTimeLoop,
)


async def bot_answers(fake_services: FakeServices, pythpeer_session: Session) -> None:
    """A test as users write it: this is how they annotate the plugin's fixtures."""
    fake_services.people.add("alice").says("!ping")
    await pythpeer_session.peerbet.post("pong")
    assert_type(fake_services.chat.messages[-1].text, str)
    assert_type(fake_services.chat.skip_to(100), None)
    assert_type(fake_services.violations, list[Violation])


async def start_a_fake() -> None:
    quirks: QuirkOptions = {"order": "shuffled", "mail_ids": False, "prefix": BOM + PHP_WARNING}
    services = FakeServices(
        rates=DEFAULT_RATES,
        username="me",
        peerbet_key="key",
        personal_key="key",
        pythbots_api_key=None,
        now=datetime(2012, 12, 12),
        seed="x",
        **quirks,
    )
    async with services as entered:
        assert_type(entered, FakeServices)
        assert_type(services.environment, dict[str, str])
        own_session = assert_type(services.session("alice", timeout=5.0), Session)
        async with own_session, services.outage("peerbet") as nothing:
            assert_type(nothing, None)
    assert_type(await services.start(), None)
    assert_type(services.peerbet_url, str)
    assert_type(services.pythbots_url, str)
    assert_type(services.environment, dict[str, str])
    assert_type(services.date, str)
    assert_type(services.subscribe(lambda arrival: print(arrival.target))(), None)
    assert_type(services.subscribe_disconnects(lambda: print("disconnected"))(), None)
    assert_type(services.register("bob", peerbet_key="k", personal_key="k"), None)
    assert_type(services.set_quirks(window="oldest"), None)
    assert_type(await services.aclose(), None)


async def read_requests(session: Session, fake: FakeServices) -> None:
    fake.faults.add("peerbet.chat.get", Fault.slow(0.1))
    await session.peerbet.messages()
    for arrival in assert_type(fake.requests, list[RecordedRequest]):
        assert_type(arrival.endpoint, str)
        assert_type(arrival.at, float)
        assert_type(arrival.target, str)
        assert_type(arrival.fault, Fault | None)
    violation = Violation("peerbet.chat.get", "pace", "too early")
    assert_type(violation.endpoint, str)
    assert_type(violation.rule, Rule)
    assert_type(violation.detail, str)
    assert_type(fake.username, str)
    assert_type(fake.clock(), float)


async def send_messages_and_mails(fake: FakeServices) -> None:
    chat = assert_type(fake.chat, FakeChat)
    assert_type(chat.say("alice", "hello", to="bob", bot=True), int)
    for line in assert_type(chat.messages, list[ChatLine]):
        assert_type(line.id, int)
        assert_type(line.sender, str)
        assert_type(line.to, str)
        assert_type(line.text, str)
        assert_type(line.date, str)
        assert_type(line.bot, bool)
    assert_type(chat.users_online, int)
    assert_type(chat.after(7), list[ChatLine])
    assert_type(chat.skip_to(7), None)
    assert_type(chat.newest_id, int)
    assert_type(chat.subscribe(lambda line: print(line.text))(), None)

    mail = assert_type(fake.mail, FakeMail)
    assert_type(mail.deliver("alice", "hello", to="bob"), int)
    assert_type(mail.sent, list[SentMail])
    box = assert_type(mail.of("bob"), Mailbox)
    assert_type(box.owner, Person)
    assert_type(box.sent, list[SentMail])
    for letter in (*mail.inbox, *box.inbox):
        assert_type(letter, StoredMail)
        assert_type(letter.id, int)
        assert_type(letter.sender, str)
        assert_type(letter.sender_id, int)
        assert_type(letter.text, str)
        assert_type(letter.date, str)
        assert_type(letter.read, bool)
    sent = SentMail("bob", "hello")
    assert_type(sent.recipient, str)
    assert_type(sent.text, str)
    assert_type(mail.subscribe(lambda person, letter: print(person.username, letter.text))(), None)


async def add_people_and_chats(fake: FakeServices) -> None:
    users = assert_type(fake.users, Users)
    person = assert_type(users.add("alice", user_id=7, powers=["heart"], online=True), Person)
    assert_type(users.by_name("alice"), Person | None)
    assert_type(list(users), list[Person])
    assert_type(users.by_id(7), Person | None)
    assert_type(users.find("alice"), Person | None)
    assert_type(users.ensure("bob"), Person)
    assert_type(person.id, int)
    assert_type(person.username, str)
    assert_type(person.nickname, str)
    assert_type(person.avatar, str)
    assert_type(person.powers, tuple[str, ...])
    assert_type(person.chats, tuple[str, ...])
    assert_type(person.rank, str)
    assert_type(person.online, bool)
    chats = assert_type(fake.chats, Chats)
    assert_type(chats.add(5, opted_in=True, messages=12), None)
    assert_type(chats.appoint(5, "alice", "Owner", time_held=60), None)
    chat = chats.by_id("5")
    assert chat is not None
    assert_type(chat.opted_in, bool)
    assert_type(chat.stats, dict[str, int])
    for member in assert_type(chat.staff, list[Staff]):
        assert_type(member.id, int)
        assert_type(member.username, str)
        assert_type(member.rank, str)
        assert_type(member.avatar, str)
        assert_type(member.time_held, int)
    keys = assert_type(fake.api_keys, ApiKeys)
    assert_type(keys.add("key", endpoints=["pythbots.mail"], per_hour=5), None)


async def script_faults(fake: FakeServices) -> None:
    faults = assert_type(fake.faults, Faults)
    for fault in (
        Fault(status=500, body=b"", headers=(("X-Name", "x"),), delay=0.1),
        Fault.drop(effect=False),
        Fault.reset(),
        Fault.cut(),
        Fault.hang(),
        Fault.slow(1.0),
        Fault.http(502),
        Fault.too_many(3.0),
        Fault.html(),
        Fault.garbage(b"{"),
        Fault.refusal("no", status=400),
        Fault.drop().after(1.0),
    ):
        assert_type(fault, Fault)
        assert_type(fault.end, Literal["answer", "drop", "reset", "cut", "hang"])
        assert_type(fault.effect, bool)
        assert_type(fault.delay, float)
        assert_type(fault.status, int | None)
        assert_type(fault.body, bytes | None)
        assert_type(fault.headers, tuple[tuple[str, str], ...])
    assert_type(faults.add("peerbet.chat.get", Fault.drop(), Fault.cut(), times=2), None)
    assert_type(faults.always("pythbots.mail", Fault.drop(), chance=0.5), None)
    assert_type(faults.pending, Mapping[str, tuple[Fault, ...]])
    assert_type(faults.constant, Mapping[str, Fault])
    assert_type(faults.clear("pythbots.mail"), None)
    assert_type(faults.clear(), None)


async def start_people(fake: FakeServices) -> None:
    def reply(message: Heard) -> str | None:
        assert_type(message.sender, str)
        assert_type(message.text, str)
        assert_type(message.where, Literal["chat", "private", "mail"])
        assert_type(message.match, re.Match[str])
        return None

    people = assert_type(fake.people, People)
    pace: Pace = (0.1, 0.2)
    alice = assert_type(people.add("alice"), Actor)
    alice = assert_type(alice.says("hello", to="bob", after=1.0, every=2.0), Actor)
    alice = assert_type(alice.mails("hello", after=pace), Actor)
    alice = assert_type(alice.answers("ping", "pong").answers("pong", reply), Actor)
    assert_type(alice.name, str)
    assert_type(people.play("alice: hello", cast={"bob": "alice"}, pace=0.0), None)
    assert_type(people.live(pace=pace, command=None), None)
    assert_type(people.stop(), None)


async def deal_with_the_dice(session: Session, fake: FakeServices) -> None:
    dice = assert_type(fake.dice, FakeDice)
    assert_type(dice.set_balance("alice", Decimal(2), currency=11), None)
    assert_type(dice.balance(fake.username), Decimal)
    await session.peerbet.roll("0.1", target=50, side="low")
    for bet in assert_type(dice.rolls, list[DiceBet]):
        assert_type(bet.user, str)
        assert_type(bet.currency, int)
        assert_type(bet.bet, Decimal)
        assert_type(bet.side, Literal["low", "high"])
        assert_type(bet.target, Decimal)
        assert_type(bet.roll, Decimal)
        assert_type(bet.payout, Decimal)
        assert_type(bet.balance, Decimal)
        assert_type(bet.date, str)


async def switch_quirks(fake: FakeServices) -> None:
    quirks = assert_type(fake.quirks, Quirks)
    assert_type(quirks.window, Literal["newest", "oldest"])
    assert_type(quirks.overlap, int)
    assert_type(quirks.repeat, int)
    assert_type(quirks.order, Literal["ascending", "descending", "shuffled"])
    assert_type(quirks.numbered, bool)
    assert_type(quirks.wrapped, bool)
    assert_type(quirks.empty, Literal["list", "null", "object"])
    assert_type(quirks.numbers_as_strings, bool)
    assert_type(quirks.bits_as_booleans, bool)
    assert_type(quirks.mail_ids, bool)
    assert_type(quirks.readall_marks, bool)
    assert_type(quirks.names, Mapping[str, str | None])
    assert_type(quirks.personal_key_param, str)
    assert_type(quirks.dead_key, Literal["rejected", "ignored"])
    assert_type(quirks.refusal_status, int)
    assert_type(quirks.prefix, str)
    assert_type(quirks.content_type, str)
    assert_type(DEFAULT_RATES, Mapping[str, Rate])


async def have_time_of_my_own() -> None:
    loop = VirtualTimeLoop(start=5.0, patience=1.0)
    assert_type(loop.time(), float)
    assert_type(loop.close(), None)
