"""People of the fake services act by themselves, and repeat that for equal seeds."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from itertools import pairwise

import pytest
from helpers import UNLIMITED

from pythpeer import InvalidRequestError
from pythpeer.testing import ChatLine, FakeServices, Heard, Person, StoredMail
from pythpeer.testing.scenes import CAST, OPENING, SCENES
from pythpeer.testing.script import ScriptLine, read_scenes

pytestmark = pytest.mark.anyio


def lines_of(fake: FakeServices) -> list[tuple[str, str]]:
    return [(line.sender, line.text) for line in fake.chat.messages]


def posting_times(fake: FakeServices) -> list[float]:
    """Return after how many seconds the messages were posted, to the precision of dates."""
    dates = [datetime.fromisoformat(line.date) for line in fake.chat.messages]
    return [(date - datetime(2030, 1, 1)).total_seconds() for date in dates]


@pytest.fixture
def stopped() -> FakeServices:
    """Fake services that are not started, whose date is the beginning of 2030."""
    return FakeServices(rates=UNLIMITED, now=datetime(2030, 1, 1))


# -- a timetable ----------------------------------------------------------------------------------


async def test_people_post_at_scheduled_times(stopped: FakeServices) -> None:
    """Immediately, after a while, or repeatedly, scheduled before or after the start."""
    stopped.people.add("alice").says("now").says("later", after=5.0)
    assert lines_of(stopped) == [("alice", "now")]
    async with stopped as fake:
        fake.people.add("bob").says("tick", after=1.0, every=10.0)
        await asyncio.sleep(25.0)
    assert lines_of(fake) == [
        ("alice", "now"),
        ("bob", "tick"),
        ("alice", "later"),
        ("bob", "tick"),
        ("bob", "tick"),
    ]
    assert posting_times(fake) == [0, 1, 5, 11, 21]


async def test_people_send_private_messages_bot_messages_and_mails(fake: FakeServices) -> None:
    """Private messages, bot messages and mails have their recipients."""
    alice = fake.people.add("alice")
    alice.says("psst", to="bob").says("beep", bot=True).mails("hello").mails("hi", to="bob")
    private, bot_message = fake.chat.messages
    assert (private.to, private.bot, bot_message.to, bot_message.bot) == ("bob", False, "", True)
    assert [letter.text for letter in fake.mail.inbox] == ["hello"]
    assert [letter.text for letter in fake.mail.of("bob").inbox] == ["hi"]


async def test_mail_is_sent_at_scheduled_times(fake: FakeServices) -> None:
    """Repeatedly, until the services are closed."""
    fake.people.add("alice").mails("hello", after=60.0, every=60.0)
    await asyncio.sleep(601.0)
    assert len(fake.mail.inbox) == 10
    assert len(fake.people._timers) == 1


async def test_chance_is_decided_by_the_seed() -> None:
    """A random time is within its limits, and equal for equal seeds."""

    async def times(seed: int) -> list[float]:
        received: list[float] = []
        loop = asyncio.get_running_loop()
        async with FakeServices(seed=seed) as fake:
            start = loop.time()
            fake.chat.subscribe(lambda line: received.append(round(loop.time() - start, 6)))
            fake.people.add("alice").says("tick", after=(1.0, 2.0), every=(3.0, 9.0))
            await asyncio.sleep(3600.0)
        return received

    first = await times(1)
    assert first == await times(1)
    assert first != await times(2)
    assert 1.0 <= first[0] <= 2.0
    gaps = [later - before for before, later in pairwise(first)]
    assert 3.0 <= min(gaps) < 4.0
    assert 8.0 < max(gaps) <= 9.0


async def test_the_same_person_is_the_same(fake: FakeServices) -> None:
    """A name is one person, who is a user of PythBots as well."""
    alice = fake.people.add("alice")
    assert fake.people.add("alice") is alice
    assert repr(alice) == "<Actor alice>"
    fake.people.add("newcomer")
    assert fake.users.by_name("newcomer") is not None


async def test_people_stop(stopped: FakeServices) -> None:
    """After the services are closed, or after `stop`, nothing is sent and no timer is left."""
    async with stopped as fake:
        alice = fake.people.add("alice").says("tick", after=1.0, every=1.0)
        await asyncio.sleep(2.5)
        fake.people.stop()
        await asyncio.sleep(60.0)
        assert len(fake.chat.messages) == 2
    async with fake:
        alice.says("tock", after=1.0)
        await asyncio.sleep(0.5)
    await asyncio.sleep(60.0)
    assert len(fake.chat.messages) == 2


# -- answers --------------------------------------------------------------------------------------


async def test_people_reply(fake: FakeServices) -> None:
    """A person replies after a while to messages in which the pattern is found."""
    fake.people.add("alice").answers(r"\bping\b", "pong")
    fake.people.add("bob").answers("nothing", "never")
    fake.chat.say("carol", "is this a !ping or what")
    fake.chat.say("carol", "pinging")
    await asyncio.sleep(0.9)
    assert len(fake.chat.messages) == 2
    await asyncio.sleep(0.2)
    assert lines_of(fake)[2:] == [("alice", "pong")]


async def test_names_of_people_are_compared_without_case(fake: FakeServices) -> None:
    """A person is addressed in any case, and does not reply to another spelling of the name."""
    alice = fake.people.add("Alice").answers("ping", "pong", after=0.0)
    assert fake.people.add("ALICE") is alice
    fake.chat.say("bob", "ping", to="alice")
    fake.chat.say("ALICE", "ping")
    fake.mail.deliver("bob", "ping", to="aLICE")
    fake.mail.deliver("alicE", "ping", to="Alice")
    assert [(line.sender, line.text, line.to) for line in fake.chat.messages] == [
        ("bob", "ping", "alice"),
        ("Alice", "pong", "bob"),
        ("ALICE", "ping", ""),
    ]
    assert [mail.text for mail in fake.mail.of("bob").inbox] == ["pong"]


async def test_people_do_not_reply_to_themselves(fake: FakeServices) -> None:
    """Neither in the chat nor by mail."""
    fake.people.add("alice").answers("hello", "hello hello", after=0.0).says("hello")
    fake.people.add("alice").mails("hello", to="alice")
    await asyncio.sleep(60.0)
    assert len(fake.chat.messages) == 1
    assert len(fake.mail.of("alice").inbox) == 1


async def test_replies_are_sent_as_the_message_was(fake: FakeServices) -> None:
    """The reply to a private message is private, and that to a mail is a mail."""
    for name in ("alice", "bob"):
        fake.people.add(name).answers("hello", f"{name} here", after=2.0)
    fake.chat.say("carol", "hello", to="alice")
    fake.mail.deliver("carol", "hello", to="bob")
    await asyncio.sleep(3.0)
    (_, answer) = fake.chat.messages
    assert (answer.sender, answer.to, answer.text) == ("alice", "carol", "alice here")
    assert [letter.text for letter in fake.mail.of("carol").inbox] == ["bob here"]


async def test_a_reply_may_depend_on_the_message(fake: FakeServices) -> None:
    """It is made when it is due, from the sender, the text, the kind, and the match."""
    received: list[tuple[str, str, str]] = []

    def reply(message: Heard) -> str | None:
        received.append((message.sender, message.text, message.where))
        return (
            None
            if message.match[1] == "nobody"
            else f"hi {message.match[1]}, says {message.sender}"
        )

    fake.people.add("alice").answers(r"greet (\w+)", reply).answers("", "something else")
    fake.chat.say("bob", "greet carol")
    fake.chat.say("bob", "greet nobody")
    assert received == []
    await asyncio.sleep(2.0)
    assert lines_of(fake)[2:] == [("alice", "hi carol, says bob")]
    assert received == [("bob", "greet carol", "chat"), ("bob", "greet nobody", "chat")]


async def test_two_people_may_talk_to_each_other(fake: FakeServices) -> None:
    """Each reply causes the next one."""
    fake.people.add("alice").answers("tick", "tock")
    fake.people.add("bob").answers("tock", "tick").says("tick")
    await asyncio.sleep(60.5)
    assert lines_of(fake)[:4] == [("bob", "tick"), ("alice", "tock")] * 2
    assert len(fake.chat.messages) == 61


async def test_people_reply_to_a_bot(fake: FakeServices) -> None:
    """They react to what a session posts and sends as to other messages."""
    fake.people.add("alice").says("!dice").answers("rolled", "lucky!").answers("thanks", "welcome")
    async with fake.session() as session:
        await session.peerbet.post("you rolled 6", bot=True)
        await session.pythbots.send_mail("alice", "thanks")
        await asyncio.sleep(2.0)
        assert [mail.text for mail in await session.pythbots.unread_mail()] == ["welcome"]
    assert lines_of(fake)[-1] == ("alice", "lucky!")


async def test_listeners_receive_everything(fake: FakeServices) -> None:
    """Listeners receive each message and each mail, until they unsubscribe."""
    lines: list[ChatLine] = []
    letters: list[tuple[Person, StoredMail]] = []
    chat_subscription = fake.chat.subscribe(lines.append)
    mail_subscription = fake.mail.subscribe(lambda *mail: letters.append(mail))
    fake.chat.say("alice", "hello")
    fake.mail.deliver("alice", "hello", to="bob")
    chat_subscription()
    mail_subscription()
    fake.chat.say("alice", "goodbye")
    fake.mail.deliver("alice", "goodbye")
    assert lines == fake.chat.messages[:1]
    assert [(to.username, letter.text) for to, letter in letters] == [("bob", "hello")]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda alice: alice.answers("(", "x"), "regular expression"),
        (lambda alice: alice.answers("x", "x", after=-1.0), "pace"),
        (lambda alice: alice.says("x", after=(1.0, -1.0)), "pace"),
        (lambda alice: alice.says("x", every=0.0), "every"),
        (lambda alice: alice.mails("x", every=(0.0, 5.0)), "every"),
    ],
)
def test_invalid_actions_are_rejected(action: object, words: str) -> None:
    """An invalid pattern, an invalid time, an interval of 0."""
    fake = FakeServices()
    assert callable(action)
    with pytest.raises(InvalidRequestError, match=words):
        action(fake.people.add("alice"))
    assert fake.chat.messages == []


# -- scripts --------------------------------------------------------------------------------------


async def test_a_script_is_played(stopped: FakeServices) -> None:
    """Line by line, each of its kind, the first one immediately."""
    async with stopped as fake:
        fake.people.play(
            """
            alice: hello {bot}, {this} is no role
            bot* beep

            bob> psst
            bob@ Dinner?
            """,
            cast={"bot": "hal"},
            pace=2.0,
        )
        assert lines_of(fake) == [("alice", "hello hal, {this} is no role")]
        await asyncio.sleep(60.0)
    _, bot_message, private = fake.chat.messages
    assert (bot_message.sender, bot_message.bot, private.to) == ("hal", True, fake.username)
    assert [letter.text for letter in fake.mail.inbox] == ["Dinner?"]
    assert posting_times(fake) == [0, 2, 4]


def test_scripts_are_read_scene_by_scene() -> None:
    """One or more blank lines separate scenes."""
    assert read_scenes("\n\na: x\nb> y: z\n\n\n  c@ w  \n") == [
        [ScriptLine("a", "chat", "x"), ScriptLine("b", "private", "y: z")],
        [ScriptLine("c", "mail", "w")],
    ]
    assert read_scenes("") == []


@pytest.mark.parametrize("wrong", ["hello", "alice hello", "alice:hello", "alice! hello"])
def test_an_invalid_script_is_rejected(wrong: str) -> None:
    """The error shows the invalid line, and nothing is played."""
    fake = FakeServices()
    with pytest.raises(InvalidRequestError, match=re.escape(repr(wrong.strip()))):
        fake.people.play(f"alice: hello\n{wrong}")
    assert fake.chat.messages == []


async def test_invented_people_talk_indefinitely() -> None:
    """All of them send all lines, and sometimes a command for a bot."""
    async with FakeServices(seed=4) as fake:
        fake.people.live(command="!dice")
        await asyncio.sleep(600.0)
    assert {line.sender for line in fake.chat.messages} == set(CAST)
    plain = re.findall(r"^\w[:>*] ([^{}\n]+)$", OPENING + SCENES, re.MULTILINE)
    texts = [line.text for line in fake.chat.messages]
    assert set(plain) < set(texts)
    assert texts[2] == "!dice"
    assert 10 < texts.count("!dice") < len(texts) / 3
    assert len(fake.mail.inbox) > 10
    assert not re.search(r"\{\w+\}", " ".join(texts))


async def test_invented_people_repeat_a_conversation() -> None:
    """For equal seeds."""

    async def run_people(seed: int) -> list[tuple[str, str]]:
        async with FakeServices(seed=seed) as fake:
            fake.people.live(pace=0.5, command=None)
            await asyncio.sleep(60.0)
        assert all(text != "!ping" for _, text in lines_of(fake))
        return lines_of(fake)

    first = await run_people(1)
    assert await run_people(1) == first
    assert await run_people(2) != first
    assert len(first) > 80
