"""Peerbet chat: reading, posting, and pages that PHP has damaged.

The fake services check every request; a raw server sends the pages that no sane service would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import anyio
import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import RawServer, answer, drop, open_session
from rich.pretty import pretty_repr
from scripted import (
    API_ERROR,
    DROP,
    DROP_WITHOUT_EFFECT,
    ERROR_429,
    GARBAGE,
    NOT_FOUND,
    OK,
    Scripted,
    ScriptedFault,
)

from pythpeer import (
    AccessDeniedError,
    ApiError,
    ChatMessage,
    ChatPage,
    DecodeError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    Session,
    split_text,
)
from pythpeer.peerbet import _parse_message
from pythpeer.testing import FakeServices
from pythpeer.wire import fields as shapes

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake() -> AsyncIterator[FakeServices]:
    """The fake services; after each test no request may have been wrong in any way."""
    async with FakeServices() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
async def session(fake: FakeServices) -> AsyncIterator[Session]:
    async with fake.session() as session:
        yield session


def add_messages(fake: FakeServices, count: int) -> None:
    for number in range(count):
        fake.chat.say("alice", f"message {number}")


def ids(page: ChatPage) -> list[int]:
    return [message.id for message in page.messages]


# -- reading --------------------------------------------------------------------------------------


async def test_a_page_has_messages_and_users_online(fake: FakeServices, session: Session) -> None:
    """Every field of a message and of a page is as the service sent it."""
    fake.chat.users_online = 17
    fake.chat.say("alice", "hello & <b>goodbye</b> 😀")
    page = await session.peerbet.messages()
    assert (page.users_online, page.skipped) == (17, 0)
    (message,) = page.messages
    assert isinstance(message, ChatMessage)
    assert (message.id, message.sender, message.text) == (1, "alice", "hello & <b>goodbye</b> 😀")
    assert message.recipient is None
    assert (message.is_bot, message.is_mine, message.is_private) == (False, False, False)
    date = datetime.strptime(fake.chat.messages[0].date, "%Y-%m-%d %H:%M:%S")
    assert message.sent_at == date
    assert message.sent_at is not None
    assert message.sent_at.tzinfo is None


async def test_flags_mark_bots_private_messages_and_own_messages(
    fake: FakeServices, session: Session
) -> None:
    """``is_bot``, ``is_mine`` and ``is_private`` are booleans, ``recipient`` is a name."""
    fake.chat.say("robot", "beep", bot=True)
    fake.chat.say(fake.username, "mine")
    fake.chat.say("alice", "psst", to=fake.username)
    page = await session.peerbet.messages()
    bits = [(message.is_bot, message.is_mine, message.is_private) for message in page.messages]
    assert bits == [(True, False, False), (False, True, False), (False, False, True)]
    assert [message.recipient for message in page.messages] == [None, None, fake.username]


async def test_without_a_key_only_public_messages_are_returned(fake: FakeServices) -> None:
    """The key is optional for reading; without it there are no private messages."""
    fake.chat.say(fake.username, "mine")
    fake.chat.say("alice", "psst", to=fake.username)
    async with fake.session(peerbet_key=None) as session:
        page = await session.peerbet.messages()
    assert [(message.id, message.is_mine) for message in page.messages] == [(1, False)]
    assert fake.requests[0].target == "/api/chat/?action=get"


async def test_an_empty_chat_is_an_empty_page(session: Session) -> None:
    """No messages are no error."""
    page = await session.peerbet.messages()
    assert page.messages == ()


@pytest.mark.parametrize(
    ("after", "last", "expected", "query"),
    [
        (None, None, range(261, 311), ""),
        (None, 1, [310], "&last=1"),
        (None, 300, range(11, 311), "&last=300"),
        (0, None, range(11, 311), "&mid=0"),
        (305, None, range(306, 311), "&mid=305"),
        (310, None, [], "&mid=310"),
        (2**31 - 1, None, [], "&mid=2147483647"),
        (300, 3, [308, 309, 310], "&mid=300&last=3"),
    ],
)
async def test_after_and_last_choose_the_messages(
    fake: FakeServices,
    session: Session,
    after: int | None,
    last: int | None,
    expected: list[int],
    query: str,
) -> None:
    """By last id seen, by number, by both, or the last 50."""
    add_messages(fake, 310)
    page = await session.peerbet.messages(after=after, last=last)
    assert ids(page) == list(expected)
    assert fake.requests[0].target == f"/api/chat/?action=get&key=***{query}"


async def test_arguments_can_be_given_by_position(fake: FakeServices, session: Session) -> None:
    """``messages(after, last)``, in this order."""
    add_messages(fake, 9)
    assert ids(await session.peerbet.messages(4, 2)) == [8, 9]


async def test_the_oldest_are_returned_first_if_the_service_does_so() -> None:
    """Which messages a full page leaves out is the service's choice; the order is not."""
    async with FakeServices(window="oldest") as fake, fake.session() as session:
        add_messages(fake, 310)
        assert ids(await session.peerbet.messages(after=5)) == list(range(6, 306))
    assert fake.violations == []


@pytest.mark.parametrize("after", [-1, 2**31, 1.0, "5", True, False, b"5"], ids=repr)
async def test_a_bad_after_costs_nothing(fake: FakeServices, session: Session, after: Any) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    with pytest.raises(InvalidRequestError, match="after"):
        await session.peerbet.messages(after=after)
    assert session.limiters["peerbet.chat.get"].available == 1
    assert fake.requests == []


@pytest.mark.parametrize("last", [0, -1, 301, 1.0, "5", True, b"5"], ids=repr)
async def test_a_bad_last_costs_nothing(fake: FakeServices, session: Session, last: Any) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    with pytest.raises(InvalidRequestError, match="last"):
        await session.peerbet.messages(last=last)
    assert session.limiters["peerbet.chat.get"].available == 1
    assert fake.requests == []


@pytest.mark.parametrize(
    "arguments", [{"after": -1}, {"after": "5"}, {"name": ""}, {"name": 5}, {"on_gap": "ignore"}]
)
async def test_a_bad_stream_costs_nothing(
    fake: FakeServices, session: Session, arguments: dict[str, Any]
) -> None:
    """A stream's arguments are checked where it is made."""
    with pytest.raises(InvalidRequestError):
        session.peerbet.chat_stream(**arguments)
    assert fake.requests == []


async def test_a_wrong_key_is_rejected(fake: FakeServices) -> None:
    """The error has the service's message."""
    async with fake.session(peerbet_key="wrong") as session:
        with pytest.raises(AccessDeniedError) as caught:
            await session.peerbet.messages()
    assert (caught.value.message, caught.value.status) == ("Invalid key", 200)
    assert caught.value.endpoint == "peerbet.chat.get"


# -- posting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bot", [False, True])
async def test_post_returns_the_new_messages_id(
    fake: FakeServices, session: Session, bot: bool
) -> None:
    """A message arrives unchanged, as a bot's or not, and its id is returned."""
    add_messages(fake, 41)
    text = "a+b=c&d #1 100% é 😀 ~-._"
    assert await session.peerbet.post(text, bot=bot) == 42
    line = fake.chat.messages[-1]
    assert (line.id, line.sender, line.text, line.bot) == (42, fake.username, text, bot)


async def test_a_post_is_encoded_as_documented(fake: FakeServices, session: Session) -> None:
    """RFC 3986: a space is ``%20``, and ``bot`` is left out unless it is set."""
    await session.peerbet.post("a b+c")
    await session.peerbet.post("x", bot=True)
    assert [request.target for request in fake.requests] == [
        "/api/chat/?action=set&key=***&msg=a%20b%2Bc",
        "/api/chat/?action=set&key=***&msg=x&bot=1",
    ]


@settings(max_examples=examples(25))
@given(
    text=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=250)
)
def test_any_text_arrives_unchanged(text: str) -> None:
    """Whatever is written in up to 250 characters is what the service reads."""

    async def scenario() -> None:
        async with FakeServices() as fake, fake.session() as session:
            assert await session.peerbet.post(text) == 1
            assert fake.chat.messages[0].text == text
            assert fake.violations == []

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["x", "x" * 250, "😀" * 250, " ", "0"], ids=len)
async def test_a_post_has_1_to_250_characters(
    fake: FakeServices, session: Session, text: str
) -> None:
    """Characters count, not bytes."""
    await session.peerbet.post(text)
    assert fake.chat.messages[0].text == text


@pytest.mark.parametrize(
    "text", ["", "x" * 251, "\ud800", "nul\0", None, 5, b"bytes", True], ids=ascii
)
async def test_a_bad_post_costs_nothing(fake: FakeServices, session: Session, text: Any) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    for confirm in (False, True):
        with pytest.raises(InvalidRequestError):
            await session.peerbet.post(text, confirm=confirm)
    assert session.limiters["peerbet.chat.get"].available == 1
    assert session.limiters["peerbet.chat.set"].available == 1
    assert fake.requests == []


@pytest.mark.parametrize("to", ["", "bob", None])
def test_a_message_prints_its_recipient_and_time(to: str | None) -> None:
    """Not the fields of the service, from which they are computed; rich prints the same."""
    message = ChatMessage(id=7, sender="ann", text="hi", to=to, date="2012-12-12 21:12:21")
    shown = (
        f"ChatMessage(id=7, sender='ann', text='hi', recipient={to or None!r}, "
        "sent_at=datetime.datetime(2012, 12, 12, 21, 12, 21), is_bot=False, is_mine=False, "
        "is_private=False)"
    )
    assert repr(message) == shown
    assert pretty_repr(message, max_width=1000) == shown


async def test_a_text_too_long_names_what_to_do(session: Session) -> None:
    """The error has the number of characters too many, and the call for a long text."""
    with pytest.raises(InvalidRequestError, match=r"not 260 \(10 too many\); post_long\(\)"):
        await session.peerbet.post("x" * 260)


@pytest.mark.parametrize("option", ["bot", "confirm"])
@pytest.mark.parametrize("value", [1, 0, "yes", None], ids=repr)
@pytest.mark.parametrize("name", ["post", "post_long"])
async def test_options_are_booleans(
    fake: FakeServices, session: Session, name: str, option: str, value: Any
) -> None:
    """Any other value is rejected, and they cannot be given by position."""
    post = getattr(session.peerbet, name)
    message = f"{option} must be a bool, not {type(value).__name__}$"
    with pytest.raises(InvalidRequestError, match=message):
        await post("hi", **{option: value})
    with pytest.raises(TypeError):
        await post("hi", value)
    assert session.limiters["peerbet.chat.set"].available == 1
    assert fake.requests == []


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("name", ["post", "post_long"])
async def test_posting_needs_a_key(fake: FakeServices, name: str, confirm: bool) -> None:
    """Without one the error names it, before a token is spent."""
    async with fake.session(peerbet_key=None) as session:
        with pytest.raises(MissingKeyError, match=r"set .*, or PYTHPEER_PEERBET_KEY") as caught:
            await getattr(session.peerbet, name)("hi", confirm=confirm)
        assert caught.value.endpoint == "peerbet.chat.set"
        assert session.limiters["peerbet.chat.set"].available == 1
    assert fake.requests == []


async def test_posting_with_a_wrong_key_is_rejected(fake: FakeServices) -> None:
    """An API error is no unknown outcome."""
    async with fake.session(peerbet_key="wrong") as session:
        with pytest.raises(AccessDeniedError) as caught:
            await session.peerbet.post("hi")
    assert caught.value.message == "Invalid key"
    assert fake.chat.messages == []


async def test_a_bad_argument_names_its_endpoint(fake: FakeServices, session: Session) -> None:
    """Every error of a call has the name of its endpoint."""
    endpoints = []
    for call in (
        session.peerbet.messages(after=-1),
        session.peerbet.messages(last=0),
        session.peerbet.post(""),
        session.peerbet.post("x" * 251),
        session.peerbet.post("\ud800"),
        session.peerbet.post("", confirm=True),
        session.peerbet.post_long(b"bytes"),  # type: ignore[arg-type]
        session.peerbet.post_long("e" + "\u0301" * 250),
        session.peerbet.post_long("x\0"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await call
        endpoints.append(caught.value.endpoint)
    assert endpoints == ["peerbet.chat.get"] * 2 + ["peerbet.chat.set"] * 7


@pytest.mark.parametrize("body", [b'{"status":1,"mid":7}', b'{"status":"1","mid":"7"}'])
async def test_the_new_id_is_a_number_however_it_was_sent(body: bytes) -> None:
    """PHP may write it as text."""
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        assert await session.peerbet.post("hi") == 7


@pytest.mark.parametrize(
    "step",
    [
        answer(b'{"status":1}'),
        answer(b'{"status":1,"mid":null}'),
        answer(b'{"status":1,"mid":true}'),
        answer(b'{"status":1,"mid":0}'),
        answer(b'{"status":1,"mid":-1}'),
        answer(b'{"status":1,"mid":"2147483648"}'),
        answer(b"[]"),
        answer(b""),
        answer(b"<html>Sorry</html>"),
        answer(b"", 502),
        drop(),
    ],
)
async def test_a_post_without_a_response_may_have_happened(step: Any) -> None:
    """Only a documented response or an API error decides the outcome; nothing is repeated."""
    async with RawServer(step) as server, open_session(server.url) as session:
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.peerbet.post("hi")
        assert "message may or may not have been posted" in str(caught.value)
        assert caught.value.endpoint == "peerbet.chat.set"
        assert len(server.requests) == 1


async def test_a_rejected_post_did_not_happen() -> None:
    """The service's message is in an `ApiError`."""
    body = b'{"status":0,"message":"You are muted"}'
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with pytest.raises(ApiError, match="You are muted") as caught:
            await session.peerbet.post("hi")
        assert type(caught.value) is ApiError


async def test_posts_in_a_row_keep_their_distance(fake: FakeServices, session: Session) -> None:
    """Posting and reading are paced apart, at a second each, in the order of the calls."""
    posted = await asyncio.gather(*(session.peerbet.post(f"{number}") for number in range(5)))
    assert posted == [1, 2, 3, 4, 5]
    assert [line.text for line in fake.chat.messages] == ["0", "1", "2", "3", "4"]
    assert fake.requests[-1].at - fake.requests[0].at >= 3.99


# -- long posts -----------------------------------------------------------------------------------

LONG = " ".join(f"word{number}" for number in range(120))
"""Four parts."""


@pytest.mark.parametrize("bot", [False, True])
@pytest.mark.parametrize("confirm", [False, True])
async def test_a_long_text_is_posted_in_parts(
    fake: FakeServices, session: Session, bot: bool, confirm: bool
) -> None:
    """One after the other, as a bot's or not, and the ids are returned in order."""
    add_messages(fake, 3)
    assert await session.peerbet.post_long(LONG, bot=bot, confirm=confirm) == (4, 5, 6, 7)
    lines = fake.chat.messages[3:]
    assert tuple(line.text for line in lines) == split_text(LONG)
    assert " ".join(line.text for line in lines) == LONG
    assert {(line.sender, line.bot) for line in lines} == {(fake.username, bot)}
    reads = [request for request in fake.requests if request.endpoint == "peerbet.chat.get"]
    assert len(reads) == (4 if confirm else 0)


async def test_on_part_is_called_for_each_part_that_was_posted() -> None:
    """Also for the parts before one that fails, whose ids are returned in no other way."""
    posted_parts: list[tuple[int, int]] = []
    async with Scripted() as services, services.session() as session:
        services.script("set", OK, OK, DROP)
        with pytest.raises(OutcomeUnknownError):
            await session.peerbet.post_long(
                LONG, on_part=lambda new: posted_parts.append((new, len(services.asked("set"))))
            )
    assert posted_parts == [(1, 1), (2, 2)]


async def test_on_part_must_be_callable(fake: FakeServices, session: Session) -> None:
    """Nothing is posted if it is not."""
    with pytest.raises(InvalidRequestError):
        await session.peerbet.post_long(LONG, on_part="me")  # type: ignore[arg-type]
    assert fake.requests == []


async def test_a_short_text_is_one_post(fake: FakeServices, session: Session) -> None:
    """Without the white space around it; blank text is not posted."""
    assert await session.peerbet.post_long(" hello there\n") == (1,)
    assert await session.peerbet.post_long(" \n") == ()
    with pytest.raises(InvalidRequestError, match="timeout"):
        await session.peerbet.post_long(" \n", timeout=-1.0)
    assert await session.peerbet.post_long("") == ()
    assert [line.text for line in fake.chat.messages] == ["hello there"]


@pytest.mark.parametrize(
    "text",
    [f"{LONG}\0", f"{LONG} \ud800", f"{LONG} e" + "\u0301" * 250, None, 5, b"bytes"],
    ids=["nul", "surrogate", "too long a character", "none", "number", "bytes"],
)
async def test_a_bad_long_post_costs_nothing(
    fake: FakeServices, session: Session, text: Any
) -> None:
    """All of it is checked before the first part is sent."""
    for confirm in (False, True):
        with pytest.raises(InvalidRequestError) as caught:
            await session.peerbet.post_long(text, confirm=confirm)
        assert not hasattr(caught.value, "__notes__")
    assert session.limiters["peerbet.chat.set"].available == 1
    assert fake.requests == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (DROP, OutcomeUnknownError),
        (DROP_WITHOUT_EFFECT, OutcomeUnknownError),
        (ERROR_429, RateLimitedError),
        (API_ERROR, ApiError),
        (NOT_FOUND, HttpStatusError),
    ],
    ids=["dropped", "dropped unseen", "429", "refused", "404"],
)
@pytest.mark.parametrize("posted", range(4))
async def test_no_part_follows_one_that_failed(
    posted: int, fault: ScriptedFault, kind: type[PythpeerError]
) -> None:
    """Its own error is raised, with a note of how many parts were posted before it."""
    async with Scripted() as services, services.session() as session:
        services.script("set", *[OK] * posted, fault)
        with pytest.raises(kind) as caught:
            await session.peerbet.post_long(LONG)
        assert type(caught.value) is kind
        assert caught.value.__notes__ == [f"{posted} of 4 parts were posted before this"]
        texts = [asked.params["msg"] for asked in services.asked("set")]
        assert texts == [*split_text(LONG)[: posted + 1]]


async def test_each_part_can_be_confirmed() -> None:
    """After a part that was lost and found the next is posted, also an identical one."""
    text = " ".join(["x" * 250] * 3)
    async with Scripted() as services, services.session() as session:
        services.script("set", DROP, OK, GARBAGE)
        assert await session.peerbet.post_long(text, confirm=True) == (1, 2, 3)
        services.script("set", DROP, DROP_WITHOUT_EFFECT)
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.peerbet.post_long(text, confirm=True)
        reason, parts = caught.value.__notes__
        assert "did not find it" in reason
        assert parts == "1 of 3 parts were posted before this"
        assert len(services.asked("set")) == 5


async def test_a_cancelled_long_post_sends_no_more(fake: FakeServices, session: Session) -> None:
    """The parts before it are posted; the rest is not."""
    with anyio.move_on_after(1.5):
        await session.peerbet.post_long(LONG)
    await asyncio.sleep(5)
    assert [line.text for line in fake.chat.messages] == [*split_text(LONG)[:2]]


# -- damaged pages --------------------------------------------------------------------------------


def wire(id: object = 1, **fields: object) -> dict[str, object]:
    """A message as documented, but for these fields."""
    message: dict[str, object] = {
        "id": id,
        "by": "alice",
        "to": "",
        "msg": f"message {id}",
        "date": "2012-12-12 21:12:21",
        "bot": 0,
        "my": 0,
        "me": 0,
    }
    return message | fields


async def read(message_list: object, after: int | None = None, **fields: object) -> ChatPage:
    """Return the page that a session makes of this message list."""
    document = {"status": 1, "users_online": 3, "message_list": message_list, **fields}
    return await read_body(json.dumps(document).encode(), after)


async def read_body(body: bytes, after: int | None = None) -> ChatPage:
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        return await session.peerbet.messages(after)


@pytest.mark.parametrize("message_list", [None, [], {}], ids=repr)
async def test_a_list_of_nothing_is_no_messages(message_list: object) -> None:
    """PHP writes an empty list as null, as ``[]`` or as ``{}``."""
    page = await read(message_list)
    assert (page.messages, page.users_online, page.skipped) == ((), 3, 0)


async def test_a_list_with_missing_indices_is_an_object() -> None:
    """PHP writes a list with numbers missing as an object with numeric keys."""
    page = await read({"0": wire(4), "2": wire(7)})
    assert (ids(page), page.skipped) == ([4, 7], 0)


@pytest.mark.parametrize("order", [[3, 1, 2], [2, 1], [1, 1, 2], [3, 2, 2, 1, 3]], ids=repr)
async def test_messages_are_ascending_and_unique(order: list[int]) -> None:
    """Whatever the order and repetition in the response."""
    page = await read([wire(id) for id in order])
    assert ids(page) == sorted(set(order))
    assert page.skipped == 0


async def test_messages_up_to_after_are_left_out() -> None:
    """Whether a page includes ``mid`` itself is undocumented; here it is left out."""
    page = await read([wire(id) for id in (3, 4, 5, 6)], after=4)
    assert ids(page) == [5, 6]


@pytest.mark.parametrize(
    ("bit", "is_set"),
    [
        *((bit, False) for bit in (0, False, "0", "false", "False")),
        *((bit, True) for bit in (1, True, "1", "true", "True")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("other_value", [[], ["not a message"]], ids=["alone", "with-poison"])
async def test_flags_are_read_from_numbers_booleans_and_words(
    bit: object, is_set: bool, other_value: list[object]
) -> None:
    """The documentation names both 1/0 and True/False, and a damaged neighbour changes nothing."""
    page = await read([wire(bot=bit, my=bit, me=bit), *other_value])
    (message,) = page.messages
    assert (message.is_bot, message.is_mine, message.is_private) == (is_set, is_set, is_set)


@pytest.mark.parametrize("field", ["bot", "my", "me"])
@pytest.mark.parametrize("value", [None, "", [], 2], ids=repr)
async def test_a_strange_bit_does_not_cost_the_message(field: str, value: object) -> None:
    """A value that is not a flag is false; the text is what matters."""
    page = await read([wire(1, **{field: value}), wire(2)])
    assert (ids(page), page.skipped) == ([1, 2], 0)
    assert not page.messages[0].is_bot
    assert not page.messages[0].is_private


@pytest.mark.parametrize("field", ["to", "date", "bot", "my", "me"])
async def test_a_missing_field_does_not_cost_the_message(field: str) -> None:
    """Only the id, the sender and the text are required."""
    message = wire(1)
    del message[field]
    page = await read([message, wire(2)])
    assert (ids(page), page.skipped) == ([1, 2], 0)
    if field == "date":
        assert page.messages[0].sent_at is None
    if field == "to":
        assert page.messages[0].recipient is None


@pytest.mark.parametrize(("sender", "name"), [(123, "123"), (0, "0"), ("123", "123"), ("", "")])
async def test_a_numeric_sender_is_a_name(sender: object, name: str) -> None:
    """PHP writes a name made of digits as a number; so it does a text."""
    page = await read([wire(by=sender, to=sender, msg=sender)])
    (message,) = page.messages
    assert (message.sender, message.text) == (name, name)
    assert message.recipient == (name or None)


@pytest.mark.parametrize("id", ["7", 7, 7.0], ids=repr)
async def test_an_id_is_a_number_however_it_was_sent(id: object) -> None:
    """As text or as a float."""
    assert ids(await read([wire(id)])) == [7]


@pytest.mark.parametrize(
    ("date", "sent_at"),
    [
        ("2012-12-12 21:12:21", datetime(2012, 12, 12, 21, 12, 21)),
        ("0000-00-00 00:00:00", None),
        ("2012-02-30 00:00:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1355346741, None),
    ],
    ids=repr,
)
async def test_a_date_is_naive_or_none(date: object, sent_at: datetime | None) -> None:
    """The documented form, in an undocumented time zone; a zero date is ``None``."""
    page = await read([wire(date=date)])
    assert [message.sent_at for message in page.messages] == [sent_at]


ANY_VALUE: st.SearchStrategy[object] = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2**33)
    | st.sampled_from([0.0, 1.0, 1.5])
    | st.text("01-+e. trufalsn", max_size=5)
    | st.just([])
)


@given(st.fixed_dictionaries(dict.fromkeys(("id", "by", "to", "msg", "bot", "my"), ANY_VALUE)))
def test_a_message_is_read_like_its_fields_one_by_one(item: dict[str, Any]) -> None:
    """Also if most of them can be decoded together."""
    id, sender, words = (
        shapes.to_int(item["id"]),
        shapes.to_text(item["by"]),
        shapes.to_text(item["msg"]),
    )
    id = id if id is not None and 1 <= id < 2**31 else None
    message = None
    if id is not None and sender is not None and words is not None:
        bits = (shapes.to_bool(item["bot"]) or False, shapes.to_bool(item["my"]) or False)
        message = ChatMessage(id, sender, words, shapes.to_text(item["to"]), None, *bits)
    assert _parse_message(item) == (message, id)


UNDECODABLE: list[object] = [
    None,
    5,
    "text",
    [],
    {},
    {"msg": "no id"},
    wire(None),
    wire("x"),
    wire(True),
    wire(-1),
    wire(2**40),
    wire(1.5),
    wire(5, by=None),
    wire(5, by=[]),
    wire(5, msg=None),
    wire(5, msg={}),
    {"id": 5},
]


@pytest.mark.parametrize("undecodable", UNDECODABLE, ids=repr)
async def test_one_undecodable_message_hides_no_others(undecodable: object) -> None:
    """It is left out and counted, and the others are returned."""
    page = await read([wire(3), undecodable, wire(9)])
    assert (ids(page), page.skipped, page.users_online) == ([3, 9], 1, 3)


async def test_every_bad_message_is_counted() -> None:
    """However many and however alike; a decodable copy replaces an undecodable one."""
    assert (await read(["bad", "bad", wire(1), None])).skipped == 3
    page = await read([wire(5, msg=None), wire(5)])
    assert (ids(page), page.skipped) == ([5], 0)


async def test_bad_messages_alone_are_a_page() -> None:
    """They are no error: the next page may be better."""
    page = await read(["bad"])
    assert (page.messages, page.skipped) == ((), 1)


@pytest.mark.parametrize(
    ("online", "number"), [(7, 7), ("7", 7), (None, 0), ("many", 0), ([], 0)], ids=repr
)
async def test_users_online_is_a_number(online: object, number: int) -> None:
    """Unchanged, or 0 if it is not a number: no reason to lose the messages."""
    page = await read([wire(1)], users_online=online)
    assert (ids(page), page.users_online) == ([1], number)


async def test_more_fields_do_no_harm() -> None:
    """Fields that the service may add are ignored."""
    page = await read([wire(1, colour="red")], version=2)
    assert ids(page) == [1]


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"status":1,"users_online":0,"message_list":[]}',
        b'<br />\n<b>Notice</b>: x in <b>y</b> on line 3<br />\n{"status":1,"message_list":[]}',
        b'{"status":"1","users_online":"0","message_list":null}\n\n',
        b'{"status":true,"users_online":0,"message_list":[]}',
    ],
    ids=["bom", "notice", "strings", "boolean"],
)
async def test_what_php_prints_around_a_page_is_ignored(body: bytes) -> None:
    """A byte-order mark, a warning, a line break, a status in words."""
    assert (await read_body(body)).messages == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"status":1}',
        b'{"status":1,"users_online":0}',
        b'{"status":1,"message_list":"none"}',
        b'{"status":1,"message_list":5}',
        b'{"status":1,"users_online":0,"message_list":[{"id":1,"by":"al',
        b"<html>[]</html>",
    ],
)
async def test_what_is_no_page_is_a_decode_error(body: bytes) -> None:
    """It is an error, and not "no messages"."""
    with pytest.raises(DecodeError) as caught:
        await read_body(body)
    assert caught.value.endpoint == "peerbet.chat.get"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"status":0,"message":"Chat is closed"}', ApiError, "Chat is closed"),
        (b'{"status":"0","message":"Chat is closed"}', ApiError, "Chat is closed"),
        (b'{"status":0,"error":"Chat is closed"}', ApiError, "Chat is closed"),
        (b'{"status":0,"message":"Invalid key"}', AccessDeniedError, "Invalid key"),
        (b'{"status":0,"message_list":[]}', ApiError, "rejected"),
        (b'{"status":0}', ApiError, "rejected"),
    ],
)
async def test_a_status_of_0_is_an_api_error(body: bytes, kind: type[ApiError], words: str) -> None:
    """With the service's message, if there is one."""
    with pytest.raises(ApiError, match=words) as caught:
        await read_body(body)
    assert type(caught.value) is kind


async def test_an_api_error_about_the_rate() -> None:
    """Some messages mean the rate limit, and raise its error."""
    with pytest.raises(RateLimitedError) as caught:
        await read_body(b'{"status":0,"message":"Too many requests"}')
    assert caught.value.status == 200
