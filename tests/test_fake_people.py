"""People of the fake services talk by themselves, and the same again for the same seed."""

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


def moments(fake: FakeServices) -> list[float]:
    """The seconds after which things were said, as far as dates show them."""
    dates = [datetime.fromisoformat(line.date) for line in fake.chat.messages]
    return [(date - datetime(2030, 1, 1)).total_seconds() for date in dates]


@pytest.fixture
def stopped() -> FakeServices:
    """Fake services that have not been started, and will be at the beginning of 2030."""
    return FakeServices(rates=UNLIMITED, now=datetime(2030, 1, 1))


# -- a timetable ----------------------------------------------------------------------------------


async def test_people_talk_on_a_timetable(stopped: FakeServices) -> None:
    """At once, after a while, or again and again, whether told before the start or after."""
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
    assert moments(fake) == [0, 1, 5, 11, 21]


async def test_people_whisper_beep_and_write_mail(fake: FakeServices) -> None:
    """Private and bot messages and mails go where they are meant to."""
    alice = fake.people.add("alice")
    alice.says("psst", to="bob").says("beep", bot=True).mails("hello").mails("hi", to="bob")
    private, beep = fake.chat.messages
    assert (private.to, private.bot, beep.to, beep.bot) == ("bob", False, "", True)
    assert [letter.text for letter in fake.mail.inbox] == ["hello"]
    assert [letter.text for letter in fake.mail.of("bob").inbox] == ["hi"]


async def test_mail_comes_on_a_timetable_too(fake: FakeServices) -> None:
    """Every so often, until the services are closed."""
    fake.people.add("alice").mails("hello", after=60.0, every=60.0)
    await asyncio.sleep(601.0)
    assert len(fake.mail.inbox) == 10
    assert len(fake.people._timers) == 1


async def test_chance_is_decided_by_the_seed() -> None:
    """A time that is between two is the same again for the same seed, and between them."""

    async def times(seed: int) -> list[float]:
        heard: list[float] = []
        loop = asyncio.get_running_loop()
        async with FakeServices(seed=seed) as fake:
            start = loop.time()
            fake.chat.subscribe(lambda line: heard.append(round(loop.time() - start, 6)))
            fake.people.add("alice").says("tick", after=(1.0, 2.0), every=(3.0, 9.0))
            await asyncio.sleep(3600.0)
        return heard

    first = await times(1)
    assert first == await times(1)
    assert first != await times(2)
    assert 1.0 <= first[0] <= 2.0
    gaps = [later - before for before, later in pairwise(first)]
    assert 3.0 <= min(gaps) < 4.0
    assert 8.0 < max(gaps) <= 9.0


async def test_the_same_person_is_the_same(fake: FakeServices) -> None:
    """A name stands for one person, who is a user of PythBots as well."""
    alice = fake.people.add("alice")
    assert fake.people.add("alice") is alice
    assert repr(alice) == "<Actor alice>"
    fake.people.add("newcomer")
    assert fake.users.by_name("newcomer") is not None


async def test_people_go_home(stopped: FakeServices) -> None:
    """When the services close, or by `stop`, nothing more is said; there is no timer left."""
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


async def test_people_answer(fake: FakeServices) -> None:
    """What is found in what others say is answered after a while, by whoever knows an answer."""
    fake.people.add("alice").answers(r"\bping\b", "pong")
    fake.people.add("bob").answers("nothing", "never")
    fake.chat.say("carol", "is this a !ping or what")
    fake.chat.say("carol", "pinging")
    await asyncio.sleep(0.9)
    assert len(fake.chat.messages) == 2
    await asyncio.sleep(0.2)
    assert lines_of(fake)[2:] == [("alice", "pong")]


async def test_nobody_answers_themselves(fake: FakeServices) -> None:
    """Not in the chat, and not by mail."""
    fake.people.add("alice").answers("hello", "hello hello", after=0.0).says("hello")
    fake.people.add("alice").mails("hello", to="alice")
    await asyncio.sleep(60.0)
    assert len(fake.chat.messages) == 1
    assert len(fake.mail.of("alice").inbox) == 1


async def test_answers_go_back_the_way_they_came(fake: FakeServices) -> None:
    """A private message is answered in private, a mail by mail, and others hear nothing of it."""
    for name in ("alice", "bob"):
        fake.people.add(name).answers("hello", f"{name} here", after=2.0)
    fake.chat.say("carol", "hello", to="alice")
    fake.mail.deliver("carol", "hello", to="bob")
    await asyncio.sleep(3.0)
    (_, answer) = fake.chat.messages
    assert (answer.sender, answer.to, answer.text) == ("alice", "carol", "alice here")
    assert [letter.text for letter in fake.mail.of("carol").inbox] == ["bob here"]


async def test_an_answer_may_depend_on_what_was_heard(fake: FakeServices) -> None:
    """It is made when it is due, out of who said what, where, and what the pattern found."""
    heard: list[tuple[str, str, str]] = []

    def reply(what: Heard) -> str | None:
        heard.append((what.sender, what.text, what.where))
        return None if what.match[1] == "nobody" else f"hi {what.match[1]}, says {what.sender}"

    fake.people.add("alice").answers(r"greet (\w+)", reply).answers("", "something else")
    fake.chat.say("bob", "greet carol")
    fake.chat.say("bob", "greet nobody")
    assert heard == []
    await asyncio.sleep(2.0)
    assert lines_of(fake)[2:] == [("alice", "hi carol, says bob")]
    assert heard == [("bob", "greet carol", "chat"), ("bob", "greet nobody", "chat")]


async def test_two_people_may_talk_to_each_other(fake: FakeServices) -> None:
    """Each answer is heard by the other one, for as long as that goes on."""
    fake.people.add("alice").answers("tick", "tock")
    fake.people.add("bob").answers("tock", "tick").says("tick")
    await asyncio.sleep(60.5)
    assert lines_of(fake)[:4] == [("bob", "tick"), ("alice", "tock")] * 2
    assert len(fake.chat.messages) == 61


async def test_people_answer_a_bot(fake: FakeServices) -> None:
    """What a session posts and sends is heard like anything else."""
    fake.people.add("alice").says("!dice").answers("rolled", "lucky!").answers("thanks", "welcome")
    async with fake.session() as session:
        await session.peerbet.post("you rolled 6", bot=True)
        await session.pythbots.send_mail("alice", "thanks")
        await asyncio.sleep(2.0)
        assert [mail.text for mail in await session.pythbots.unread_mail()] == ["welcome"]
    assert lines_of(fake)[-1] == ("alice", "lucky!")


async def test_one_can_listen_to_all_of_it(fake: FakeServices) -> None:
    """`listen` tells of each message and each mail, until one has heard enough."""
    lines: list[ChatLine] = []
    letters: list[tuple[Person, StoredMail]] = []
    deaf = fake.chat.subscribe(lines.append)
    blind = fake.mail.subscribe(lambda *mail: letters.append(mail))
    fake.chat.say("alice", "hello")
    fake.mail.deliver("alice", "hello", to="bob")
    deaf()
    blind()
    fake.chat.say("alice", "goodbye")
    fake.mail.deliver("alice", "goodbye")
    assert lines == fake.chat.messages[:1]
    assert [(to.username, letter.text) for to, letter in letters] == [("bob", "hello")]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (lambda alice: alice.answers("(", "x"), "regular expression"),
        (lambda alice: alice.answers("x", "x", after=-1.0), "pace"),
        (lambda alice: alice.says("x", after=(1.0, -1.0)), "pace"),
        (lambda alice: alice.says("x", every=0.0), "every"),
        (lambda alice: alice.mails("x", every=(0.0, 5.0)), "every"),
    ],
)
def test_what_nobody_can_do_is_refused(told: object, words: str) -> None:
    """No pattern, no time, or all the time."""
    fake = FakeServices()
    assert callable(told)
    with pytest.raises(InvalidRequestError, match=words):
        told(fake.people.add("alice"))
    assert fake.chat.messages == []


# -- scripts --------------------------------------------------------------------------------------


async def test_a_script_is_played(stopped: FakeServices) -> None:
    """Line after line, each the way it is meant, the first one at once."""
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
    _, beep, private = fake.chat.messages
    assert (beep.sender, beep.bot, private.to) == ("hal", True, fake.username)
    assert [letter.text for letter in fake.mail.inbox] == ["Dinner?"]
    assert moments(fake) == [0, 2, 4]


def test_scripts_are_read_scene_by_scene() -> None:
    """Blank lines stand between scenes, and how many does not matter."""
    assert read_scenes("\n\na: x\nb> y: z\n\n\n  c@ w  \n") == [
        [ScriptLine("a", "chat", "x"), ScriptLine("b", "private", "y: z")],
        [ScriptLine("c", "mail", "w")],
    ]
    assert read_scenes("") == []


@pytest.mark.parametrize("wrong", ["hello", "alice hello", "alice:hello", "alice! hello"])
def test_what_is_no_script_is_refused(wrong: str) -> None:
    """The line that is none is shown, and nothing is played."""
    fake = FakeServices()
    with pytest.raises(InvalidRequestError, match=re.escape(repr(wrong.strip()))):
        fake.people.play(f"alice: hello\n{wrong}")
    assert fake.chat.messages == []


async def test_invented_people_live_for_ever() -> None:
    """Everybody says everything, by and by, and now and then a command for a bot."""
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


async def test_invented_people_live_the_same_life_again() -> None:
    """For the same seed, whatever else is left to chance."""

    async def life(seed: int) -> list[tuple[str, str]]:
        async with FakeServices(seed=seed) as fake:
            fake.people.live(pace=0.5, command=None)
            await asyncio.sleep(60.0)
        assert all(text != "!ping" for _, text in lines_of(fake))
        return lines_of(fake)

    first = await life(1)
    assert await life(1) == first
    assert await life(2) != first
    assert len(first) > 80
