"""The calls of both services, their results, and user-defined endpoints."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, assert_type

import msgspec

from pythpeer import (
    FLAG,
    ChatMessage,
    ChatPage,
    ChatStats,
    DiceRoll,
    DiceStats,
    Effect,
    Endpoint,
    Json,
    JsonObject,
    Mail,
    Param,
    Peerbet,
    PythBots,
    Rate,
    Secret,
    Session,
    StaffMember,
    User,
    split_text,
)
from pythpeer.testing import FakeServices

if TYPE_CHECKING:
    pass


async def read_the_chat(session: Session, fake: FakeServices) -> None:
    fake.chat.say("alice", "hello")
    peerbet = assert_type(session.peerbet, Peerbet)
    page = assert_type(await peerbet.messages(), ChatPage)
    page = assert_type(await peerbet.messages(after=0, last=50), ChatPage)
    assert_type(await peerbet.messages(None, None), ChatPage)
    assert_type(await peerbet.messages(timeout=5), ChatPage)
    assert_type(page.users_online, int)
    assert_type(page.skipped, int)
    for message in assert_type(page.messages, tuple[ChatMessage, ...]):
        assert_type(message, ChatMessage)
        assert_type(message.id, int)
        assert_type(message.sender, str)
        assert_type(message.recipient, str | None)
        assert_type(message.text, str)
        assert_type(message.sent_at, datetime | None)
        assert_type(message.is_bot, bool)
        assert_type(message.is_mine, bool)
        assert_type(message.is_private, bool)
        assert_type(message.to, str | None)
        assert_type(message.date, str | None)


async def post_to_the_chat(session: Session) -> None:
    assert_type(await session.peerbet.post("hello"), int)
    assert_type(await session.peerbet.post("hello", bot=True, confirm=True, timeout=5.0), int)
    assert_type(await session.peerbet.post_long("hello", bot=True, timeout=None), tuple[int, ...])
    assert_type(split_text("a long text", 250), tuple[str, ...])


async def roll_the_dice(session: Session) -> None:
    roll = session.peerbet.roll
    assert_type(await roll("0.1", target=50, side="low"), DiceRoll)
    assert_type(await roll("0.1", target=50, side="low", timeout=30.0), DiceRoll)
    result = await roll(
        Decimal("0.1"), target=Decimal("49.5"), side="high", seed=7, currency=10, stats=True
    )
    assert_type(result.won, bool)
    assert_type(result.bet, Decimal)
    assert_type(result.payout, Decimal)
    assert_type(result.balance, Decimal)
    assert_type(result.roll, Decimal)
    assert_type(result.target, str)
    assert_type(result.currency, int)
    assert_type(result.server_seed, str)
    assert_type(result.client_seed, int)
    assert_type(result.raw, JsonObject)
    stats = assert_type(result.stats, DiceStats | None)
    if stats is not None:
        assert_type(stats.my_rolls, int | None)
        assert_type(stats.my_bets, Decimal | None)
        assert_type(stats.my_wins, Decimal | None)
        assert_type(stats.total_rolls, int | None)
        assert_type(stats.total_wagered, Decimal | None)


async def look_up(session: Session) -> None:
    pythbots = assert_type(session.pythbots, PythBots)
    user = assert_type(await pythbots.user("tiro"), User)
    user = assert_type(await pythbots.user(221192, timeout=5.0), User)
    assert_type(user.id, int | None)
    assert_type(user.username, str | None)
    assert_type(user.nickname, str | None)
    assert_type(user.avatar, str | None)
    assert_type(user.powers, Json)
    assert_type(user.chats, Json)
    assert_type(user.rank, str | None)
    assert_type(user.online, bool | None)
    assert_type(user.raw, JsonObject)
    for member in assert_type(
        await pythbots.staff(220531305, timeout=5.0), tuple[StaffMember, ...]
    ):
        assert_type(member.id, int | None)
        assert_type(member.username, str | None)
        assert_type(member.rank, str | None)
        assert_type(member.avatar, str | None)
        assert_type(member.time_held, int | str | None)
        assert_type(member.raw, JsonObject)
    stats = assert_type(await pythbots.stats(220531305, timeout=5.0), ChatStats)
    assert_type(stats.messages, int | None)
    assert_type(stats.active_users, int | None)
    assert_type(stats.raw, JsonObject)


async def write_and_read_mail(session: Session, fake: FakeServices) -> None:
    fake.mail.deliver("alice", "hello")
    assert_type(await session.pythbots.send_mail("alice", "hello"), None)
    assert_type(await session.pythbots.send_mail(221192, "hello", timeout=5.0), None)
    mails = assert_type(await session.pythbots.unread_mail(timeout=5.0), tuple[Mail, ...])
    history = assert_type(await session.pythbots.all_mail(timeout=5.0), tuple[Mail, ...])
    for mail in (*mails, *history):
        assert_type(mail.id, int | None)
        assert_type(mail.sender, str | None)
        assert_type(mail.sender_id, int | None)
        assert_type(mail.text, str | None)
        assert_type(mail.sent_at, datetime | None)
        assert_type(mail.is_read, bool | None)
        assert_type(mail.recovered, bool)
        assert_type(mail.raw, JsonObject)


# -- user-defined endpoints -----------------------------------------------------------------------


class Line(msgspec.Struct):
    """The fields of a message that this program uses."""

    id: int
    msg: str


class Lines(msgspec.Struct):
    """The fields of a page that this program uses."""

    message_list: list[Line]


async def call_my_own_endpoints(session: Session, fake: FakeServices) -> None:
    url = fake.peerbet_url + "/api/chat/"
    query = {"action": "get"}
    fast = Rate(0.0)

    plain = Endpoint("mine.plain", url, query=query, rate=fast, effect=Effect.CONSUME)
    assert_type(plain, Endpoint[dict[str, object]])
    assert_type(await session.call(plain), dict[str, object])

    shaped = Endpoint("mine.shaped", url, query=query, rate=fast, answer=Lines)
    assert_type(shaped, Endpoint[Lines])
    params: dict[str, Param] = {"mid": 0, "last": None, "flag": FLAG, "on": True, "x": 1.5}
    lines = await session.call(shaped, key=Secret(fake.peerbet_key), text="a", **params)
    assert_type(lines, Lines)
    assert_type(lines.message_list, list[Line])

    generic = Endpoint("mine.generic", url, query=query, rate=fast, answer=dict[str, msgspec.Raw])
    assert_type(await session.call(generic), dict[str, msgspec.Raw])

    assert_type(shaped.name, str)
    assert_type(shaped.url, str)
    assert_type(shaped.effect, Effect)
    assert shaped.effect in (Effect.READ, Effect.CONSUME, Effect.WRITE)
    assert_type(shaped.rate, Rate)
    assert_type(shaped.answer, type[Lines])
    assert_type(shaped.timeout, float | None)
    assert_type(shaped.with_timeout(5.0), Endpoint[Lines])
    assert_type(await session.call(shaped.with_timeout(None)), Lines)
