"""PythBots: users, staff, statistics and mail.

The fake services check every request and answer in natural shapes; other undocumented shapes are
tested in the tests of `pythpeer.shapes`, and here only as far as the models are concerned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from raw_server import RawServer, answer, drop, hang, open_session
from scripted import DROP, Scripted, ScriptedFault

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    InvalidRequestError,
    Mail,
    OutcomeUnknownError,
    Rate,
    RateLimitedError,
    Session,
    StaffMember,
    User,
)
from pythpeer.testing import FakeServices, SentMail

pytestmark = pytest.mark.anyio

TIRO = 221192
CHAT = 220531305


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


def untouched(session: Session, fake: FakeServices) -> bool:
    """Whether no token was spent and nothing was sent."""
    full = all(limiter.available == limiter.rate.burst for limiter in session.limiters.values())
    return full and fake.requests == []


def texts(mails: tuple[Mail, ...]) -> list[str | None]:
    return [mail.text for mail in mails]


# -- people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name_or_id", "sent"), [("tiro", "tiro"), (TIRO, "221192"), ("221192",) * 2]
)
async def test_a_user_is_found_by_name_or_id(
    fake: FakeServices, session: Session, name_or_id: str | int, sent: str
) -> None:
    """Every documented field of a user, and the whole object in ``raw``."""
    user = await session.pythbots.user(name_or_id)
    assert user == User(
        id=TIRO,
        username="tiro",
        nickname="Tiro",
        avatar=f"https://avatars.example/{TIRO}.png",
        powers=["allpowers", "everypower"],
        chats=["pythbots"],
        rank="Owner",
        online=True,
        raw=user.raw,
    )
    assert user.raw["username"] == "tiro"
    assert set(user.raw) >= {"id", "nickname", "avatar", "powers", "chats", "rank", "online"}
    assert fake.requests[0].target == f"/api/userinfo.php?user={sent}"


async def test_a_users_name_is_encoded(fake: FakeServices, session: Session) -> None:
    """Any name can be looked up."""
    fake.users.add("a b&c=é/+😀", user_id=7)
    assert (await session.pythbots.user("a b&c=é/+😀")).id == 7


async def test_an_unknown_user_is_an_api_error(session: Session) -> None:
    """With the service's message."""
    with pytest.raises(ApiError, match="User not found") as caught:
        await session.pythbots.user("nobody")
    assert type(caught.value) is ApiError
    assert caught.value.endpoint == "pythbots.userinfo"


async def test_what_the_response_lacks_is_none() -> None:
    """Every field may be missing; ``raw`` is there whatever the fields are called."""
    body = b'{"whatever": {"x": 1}, "y": [2]}'
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        user = await session.pythbots.user("tiro")
    nothing = dict.fromkeys(["id", "username", "nickname", "avatar", "powers", "chats", "rank"])
    assert {name: getattr(user, name) for name in nothing} == nothing
    assert user.online is None
    assert user.raw == json.loads(body)


@pytest.mark.parametrize(
    "name_or_id", ["", 0, -1, 2**31, True, None, 1.0, b"tiro", "\ud800"], ids=ascii
)
async def test_an_invalid_user_costs_nothing(
    fake: FakeServices, session: Session, name_or_id: Any
) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    with pytest.raises(InvalidRequestError):
        await session.pythbots.user(name_or_id)
    assert untouched(session, fake)


# -- chats ----------------------------------------------------------------------------------------


async def test_staff_is_in_the_services_order(fake: FakeServices, session: Session) -> None:
    """Each with rank, avatar and the time for which the rank has been held."""
    staff = await session.pythbots.staff(CHAT)
    assert isinstance(staff, tuple)
    assert [(member.username, member.rank) for member in staff] == [
        ("tiro", "Main Owner"),
        ("alice", "Owner"),
        ("bob", "Moderator"),
    ]
    owner = staff[0]
    assert isinstance(owner, StaffMember)
    assert owner.id == TIRO
    assert owner.avatar == f"https://avatars.example/{TIRO}.png"
    assert str(owner.time_held) == str(900 * 86_400)
    assert owner.raw["rank"] == "Main Owner"
    assert fake.requests[0].target == f"/api/crank.php?chatid={CHAT}"


async def test_a_chat_without_staff_is_empty(fake: FakeServices, session: Session) -> None:
    """An empty staff is no error."""
    fake.chats.add(5)
    assert await session.pythbots.staff(5) == ()


async def test_a_chat_that_has_not_opted_in_is_an_api_error(
    fake: FakeServices, session: Session
) -> None:
    """The service returns the error itself, and it is not about the key."""
    fake.chats.add(5, opted_in=False)
    with pytest.raises(ApiError, match="opted in") as caught:
        await session.pythbots.staff(5)
    assert type(caught.value) is ApiError
    assert caught.value.endpoint == "pythbots.crank"


async def test_statistics_are_numbers(fake: FakeServices, session: Session) -> None:
    """The named ones as integers, all of them in ``raw``."""
    stats = await session.pythbots.stats(CHAT)
    assert (stats.messages, stats.active_users) == (125_000, 42)
    assert stats.raw == {
        "messages": 125_000,
        "active_users": 42,
        "messages_today": 310,
        "peak_users": 67,
    }
    assert fake.requests[0].target == f"/api/cstats.php?chatid={CHAT}"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": "125000", "active_users": "42"},
        {"Messages": "125,000", "ActiveUsers": 42.0},
        {"stats": {"total_messages": 125000, "active": "42"}},
    ],
    ids=repr,
)
async def test_numbers_are_numbers_however_they_were_sent(body: dict[str, Any]) -> None:
    """As text, with separators, as floats, one level down."""
    raw = json.dumps(body).encode()
    async with RawServer(answer(raw)) as server, open_session(server.url) as session:
        stats = await session.pythbots.stats(1)
    assert (stats.messages, stats.active_users) == (125_000, 42)
    assert type(stats.messages) is int
    assert type(stats.active_users) is int
    assert stats.raw == body


async def test_an_unknown_chat_is_an_api_error(session: Session) -> None:
    """With the service's message."""
    with pytest.raises(ApiError, match="Chat not found") as caught:
        await session.pythbots.stats(1)
    assert caught.value.endpoint == "pythbots.cstats"


@pytest.mark.parametrize("chat", [0, -1, 2**31, True, None, 1.0, "220531305", b"1"], ids=repr)
@pytest.mark.parametrize("call", ["staff", "stats"])
async def test_a_bad_chat_costs_nothing(
    fake: FakeServices, session: Session, call: str, chat: Any
) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    with pytest.raises(InvalidRequestError, match="chat_id"):
        await getattr(session.pythbots, call)(chat)
    assert untouched(session, fake)


async def test_look_ups_have_a_burst_of_three_each(fake: FakeServices, session: Session) -> None:
    """Three immediately, then one per second; users, ranks and statistics apart."""
    bots = session.pythbots
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: bots.user("tiro"),
        lambda: bots.staff(CHAT),
        lambda: bots.stats(CHAT),
    ]
    await asyncio.gather(*(call() for _ in range(5) for call in calls))
    for name in ("pythbots.userinfo", "pythbots.crank", "pythbots.cstats"):
        first, *rest = [request.at for request in fake.requests if request.endpoint == name]
        assert [at - first for at in rest] == pytest.approx([0, 0, 1, 2], abs=0.1)


# -- sending mail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "recipient"), [("alice", "user=alice"), (101, "id=101"), ("Alice", "user=Alice")]
)
async def test_mail_goes_to_a_name_or_an_id(
    fake: FakeServices, session: Session, to: str | int, recipient: str
) -> None:
    """A ``str`` is sent as ``user=``, an ``int`` as ``id=``; nothing is returned."""
    await session.pythbots.send_mail(to, "a b+c & é 😀")
    assert fake.mail.sent == [SentMail("alice", "a b+c & é 😀")]
    assert fake.requests[0].target == (
        f"/api/mail.php?personal_key=***&{recipient}&message=a%20b%2Bc%20%26%20%C3%A9%20%F0%9F%98%80"
    )


async def test_a_name_of_digits_is_a_name(fake: FakeServices, session: Session) -> None:
    """The type decides, not the content."""
    fake.users.add("101", user_id=9)
    await session.pythbots.send_mail("101", "hi")
    await session.pythbots.send_mail(101, "hi")
    assert [mail.recipient for mail in fake.mail.sent] == ["101", "alice"]


async def test_mail_to_an_unknown_user_is_an_api_error(session: Session) -> None:
    """An API error is no unknown outcome."""
    with pytest.raises(ApiError, match="User not found") as caught:
        await session.pythbots.send_mail("nobody", "hi")
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert caught.value.endpoint == "pythbots.mail"


@pytest.mark.parametrize("to", ["", 0, -1, 2**31, True, None, 1.0, b"alice"], ids=repr)
async def test_a_bad_recipient_costs_nothing(fake: FakeServices, session: Session, to: Any) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    with pytest.raises(InvalidRequestError):
        await session.pythbots.send_mail(to, "hi")
    assert untouched(session, fake)


@pytest.mark.parametrize("text", ["", None, 5, b"bytes", "\ud800", "nul\0"], ids=ascii)
async def test_a_bad_text_costs_nothing(fake: FakeServices, session: Session, text: Any) -> None:
    """It is rejected before a token is spent and before anything is sent."""
    with pytest.raises(InvalidRequestError):
        await session.pythbots.send_mail("alice", text)
    assert untouched(session, fake)


@pytest.mark.parametrize(
    "body",
    [b'{"success":true}', b'{"status":"ok"}', b'"sent"', b"true", b"1", b'{"message":"Sent"}'],
)
async def test_any_response_that_may_be_success_is_accepted(body: bytes) -> None:
    """The response to a sent mail is undocumented."""
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        await session.pythbots.send_mail("alice", "hi")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "step",
    [
        answer(b""),
        answer(b"null"),
        answer(b"{}"),
        answer(b"<html></html>"),
        answer(b"", 500),
        drop(),
        hang(),
    ],
)
async def test_mail_without_a_response_may_have_been_sent(step: Any) -> None:
    """The outcome is unknown, nothing is repeated, and the error shows that."""
    async with RawServer(step) as server, open_session(server.url, timeout=5.0) as session:
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.pythbots.send_mail("alice", "hi")
        assert caught.value.endpoint == "pythbots.mail"
        assert "mail may or may not have been sent" in str(caught.value)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 414])
async def test_the_error_for_a_long_mail_names_the_length_of_the_request(status: int) -> None:
    """Exactly, and only if it may be the cause."""
    steps = (answer(b"<html>", status), answer(b"<html>", status), answer(b"<html>", 404))
    async with RawServer(*steps) as server, open_session(server.url) as session:
        for text in ("hi", "x" * 8000, "x" * 8000):
            with pytest.raises(HttpStatusError) as caught:
                await session.pythbots.send_mail("alice", text)
            if len(server.requests) == 2:
                line = server.requests[-1].head.split(b"\r\n", 1)[0]
                assert f"the request line has {len(line)} bytes" in str(caught.value)
            else:
                assert "request line" not in str(caught.value)


# -- reading mail ---------------------------------------------------------------------------------


async def test_unread_mail_is_fetched_once(fake: FakeServices, session: Session) -> None:
    """Oldest first, with every field, and the service has it marked as read."""
    fake.mail.deliver("alice", "first")
    fake.mail.deliver("bob", "second")
    first, second = await session.pythbots.unread_mail()
    assert (first.id, first.sender, first.sender_id, first.text) == (1, "alice", 101, "first")
    assert (second.id, second.sender, second.sender_id, second.text) == (2, "bob", 102, "second")
    assert first.sent_at == datetime.strptime(fake.mail.inbox[0].date, "%Y-%m-%d %H:%M:%S")
    assert (first.is_read, first.recovered) == (False, False)
    assert first.raw["message"] == "first"
    assert all(letter.read for letter in fake.mail.inbox)
    assert await session.pythbots.unread_mail() == ()
    fake.mail.deliver("alice", "third")
    assert texts(await session.pythbots.unread_mail()) == ["third"]
    targets = {request.target for request in fake.requests}
    assert targets == {"/api/mail.php?personal_key=***&readnew"}


async def test_all_mail_is_the_history(fake: FakeServices, session: Session) -> None:
    """Read and unread, at each call; it marks nothing here and moves no stream."""
    fake.mail.deliver("alice", "first")
    await session.pythbots.unread_mail()
    fake.mail.deliver("bob", "second")
    for _ in range(2):
        history = await session.pythbots.all_mail()
        assert texts(history) == ["first", "second"]
        assert [mail.is_read for mail in history] == [True, False]
        assert not any(mail.recovered for mail in history)
    assert fake.requests[-1].target == "/api/mail.php?personal_key=***&readall"
    assert texts(await session.pythbots.unread_mail()) == ["second"]


async def test_what_cannot_be_decoded_is_no_mail(caplog: pytest.LogCaptureFixture) -> None:
    """It hides no other mail of the history, and is logged."""
    body = b'[null, "hello", 5]'
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        assert texts(await session.pythbots.all_mail()) == ["hello"]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["pythbots.mail: skipped 2 mails that cannot be decoded"]


@pytest.mark.parametrize("item", ["null", "5", "[]", "true"])
async def test_staff_is_all_there_or_an_error(item: str) -> None:
    """A list that lacks a member is not returned as a complete one."""
    body = b'[{"username":"alice"},%b]' % item.encode()
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with pytest.raises(DecodeError):
            await session.pythbots.staff(CHAT)


async def test_no_mail_is_no_error(session: Session) -> None:
    """An empty box is an empty tuple."""
    assert await session.pythbots.unread_mail() == ()
    assert await session.pythbots.all_mail() == ()


async def test_no_parameter_of_mail_can_be_that_of_the_key(
    fake: FakeServices, session: Session
) -> None:
    """The session accepts none of the names that it sends to the mail service itself."""
    for to in ("bob", 221192):
        with contextlib.suppress(ApiError):
            await session.pythbots.send_mail(to, "hello")
    await session.pythbots.unread_mail()
    await session.pythbots.all_mail()
    queries = [request.target.partition("?")[2] for request in fake.requests]
    names = {part.partition("=")[0] for query in queries for part in query.split("&")}
    assert names == {"personal_key", "user", "id", "message", "readnew", "readall"}
    for name in names - {"personal_key"}:
        with pytest.raises(InvalidRequestError, match="another parameter of the mail service"):
            Session(personal_key_param=name)


async def test_mail_of_a_direct_call_reaches_the_streams(
    fake: FakeServices, session: Session
) -> None:
    """Direct calls and streams share one log."""
    fake.mail.deliver("alice", "first")
    assert texts(await session.pythbots.unread_mail()) == ["first"]
    async with session.pythbots.mail_stream() as stream:
        assert (await anext(stream)).text == "first"


async def test_mail_that_a_stream_has_returned_is_not_returned_again(
    fake: FakeServices, session: Session
) -> None:
    """A direct call does not return what was acknowledged in a stream."""
    fake.mail.deliver("alice", "first")
    async with session.pythbots.mail_stream() as stream:
        assert (await anext(stream)).text == "first"
        await stream.ack()
    fake.mail.deliver("alice", "second")
    assert texts(await session.pythbots.unread_mail()) == ["second"]


async def test_a_call_that_fetched_nothing_leaves_nothing_undelivered(
    fake: FakeServices, session: Session
) -> None:
    """A direct call that got no token does not return what streams return after it."""
    limiter = session.limiters["pythbots.mail"]
    limiter.pause(100)
    with pytest.raises(RateLimitedError):
        await session.pythbots.unread_mail()
    fake.mail.deliver("alice", "first")
    async with session.pythbots.mail_stream() as stream:
        assert (await anext(stream)).text == "first"
        await stream.ack()
    assert await session.pythbots.unread_mail() == ()


async def test_max_wait_holds_next_to_a_stream_too(session: Session) -> None:
    """A direct call does not wait longer because a stream waits already: it raises immediately."""
    loop = asyncio.get_running_loop()
    await session.pythbots.unread_mail()
    waiting = asyncio.create_task(anext(session.pythbots.mail_stream()))
    await asyncio.sleep(0.5)
    session.limiters["pythbots.mail"].pause(600)
    start = loop.time()
    try:
        with pytest.raises(RateLimitedError) as caught:
            await asyncio.wait_for(session.pythbots.unread_mail(), 100)
    finally:
        waiting.cancel()
    assert caught.value.retry_after == pytest.approx(600, abs=2)
    assert loop.time() - start < 1


@pytest.mark.parametrize("mail_ids", [True, False], ids=["ids", "no-ids"])
@pytest.mark.parametrize(
    "fault",
    [
        DROP,
        ScriptedFault(status=500),
        ScriptedFault(body=b"<html>"),
        ScriptedFault(body=b""),
        ScriptedFault(end="hang"),
    ],
    ids=["dropped", "500", "html", "empty", "hung"],
)
async def test_mail_of_a_lost_response_is_returned_by_the_next_call(
    fault: ScriptedFault, mail_ids: bool
) -> None:
    """The service marked it as read, and it did not arrive: it is found in the history."""
    async with Scripted(mail_ids=mail_ids) as services, services.session() as session:
        services.deliver("first", "second")
        services.script("readnew", fault)
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.pythbots.unread_mail()
        assert caught.value.endpoint == "pythbots.mail"
        mails = await session.pythbots.unread_mail()
        assert texts(mails) == ["first", "second"]
        assert all(mail.recovered for mail in mails)
        services.deliver("third")
        (last,) = await session.pythbots.unread_mail()
        assert (last.text, last.recovered) == ("third", False)


async def test_mail_of_a_cancelled_call_is_returned_by_the_next() -> None:
    """The request continues to its end, and the next call returns its mail."""
    async with Scripted() as services, services.session() as session:
        services.deliver("first")
        services.script("readnew", ScriptedFault(after=2.0))
        task = asyncio.create_task(session.pythbots.unread_mail())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (mail,) = await session.pythbots.unread_mail()
        assert (mail.text, mail.recovered) == ("first", False)
        assert await session.pythbots.unread_mail() == ()


async def test_a_call_cancelled_in_line_consumes_nothing(
    fake: FakeServices, session: Session
) -> None:
    """Cancelled before it had a token, it was not sent."""
    await session.pythbots.unread_mail()
    fake.mail.deliver("alice", "first")
    task = asyncio.create_task(session.pythbots.unread_mail())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(5)
    assert len(fake.requests) == 1
    assert not fake.mail.inbox[0].read
    assert texts(await session.pythbots.unread_mail()) == ["first"]


async def test_two_concurrent_calls_share_the_mail(fake: FakeServices, session: Session) -> None:
    """Every mail is returned by one of them, whichever fetched it."""
    fake.mail.deliver("alice", "first")
    fake.mail.deliver("alice", "second")
    first, second = await asyncio.gather(
        session.pythbots.unread_mail(), session.pythbots.unread_mail()
    )
    assert {*texts(first), *texts(second)} == {"first", "second"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([{"id": 2, "text": "b"}, {"id": 1, "text": "a"}], ["a", "b"]),
        (
            [
                {"date": "2020-01-02 00:00:00", "text": "b"},
                {"date": "2020-01-01 00:00:00", "text": "a"},
            ],
            ["a", "b"],
        ),
        ([{"text": "a"}, {"text": "b"}], ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ({"0": {"text": "a"}, "1": {"text": "b"}}, ["a", "b"]),
        ({"mails": [{"text": "a"}, {"text": "b"}]}, ["a", "b"]),
        ({"mails": []}, []),
        ([5, {"id": 1, "text": "a"}], ["a"]),
    ],
    ids=repr,
)
async def test_mail_is_oldest_first_in_any_shape(document: object, expected: list[str]) -> None:
    """By id, by date, or in the order received; an undecodable mail hides no others."""
    body = json.dumps(document).encode()
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        assert texts(await session.pythbots.all_mail()) == expected
        assert texts(await session.pythbots.unread_mail()) == expected


@pytest.mark.parametrize("body", [b"", b"null", b"{}x", b'"mail"', b"7", b'{"a":1}', b"<html>"])
async def test_what_is_no_mail_list_is_an_error(body: bytes) -> None:
    """Never "no mail": a harmless read is undecodable, a destructive one of unknown outcome."""
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with pytest.raises(DecodeError):
            await session.pythbots.all_mail()
        with pytest.raises(OutcomeUnknownError):
            await session.pythbots.unread_mail()


# -- keys and permissions -------------------------------------------------------------------------

MAIL_CALLS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "send_mail": lambda session: session.pythbots.send_mail("alice", "hi"),
    "unread_mail": lambda session: session.pythbots.unread_mail(),
    "all_mail": lambda session: session.pythbots.all_mail(),
}
LOOK_UPS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "user": lambda session: session.pythbots.user("tiro"),
    "staff": lambda session: session.pythbots.staff(CHAT),
    "stats": lambda session: session.pythbots.stats(CHAT),
}
CALLS = {**MAIL_CALLS, **LOOK_UPS}

each_mail_call = pytest.mark.parametrize("call", MAIL_CALLS.values(), ids=MAIL_CALLS)
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_mail_call
async def test_mail_needs_the_personal_key(
    fake: FakeServices, call: Callable[[Session], Awaitable[object]]
) -> None:
    """Without one the error names it, before a token is spent."""
    async with fake.session(personal_key=None) as session:
        with pytest.raises(InvalidRequestError, match="personal key") as caught:
            await call(session)
        assert caught.value.endpoint == "pythbots.mail"
        assert untouched(session, fake)


async def test_a_mail_stream_needs_the_personal_key(fake: FakeServices) -> None:
    """The error is raised when the stream is made."""
    async with fake.session(personal_key=None) as session:
        with pytest.raises(InvalidRequestError, match=r"set .*, or PYTHPEER_PERSONAL_KEY"):
            session.pythbots.mail_stream()


@each_mail_call
async def test_a_wrong_personal_key_is_rejected(
    fake: FakeServices, call: Callable[[Session], Awaitable[object]]
) -> None:
    """With the service's message; and a rejected destructive read has marked nothing as read."""
    async with fake.session(personal_key="wrong") as session:
        with pytest.raises(AccessDeniedError) as caught:
            await call(session)
        assert caught.value.message == "Invalid personal key"
        assert caught.value.endpoint == "pythbots.mail"
    assert fake.mail.sent == []


@each_call
async def test_the_api_key_travels_in_its_header(
    call: Callable[[Session], Awaitable[object]],
) -> None:
    """With every call, and never in the URL: the fake would report it."""
    async with FakeServices(pythbots_api_key="api-key") as fake, fake.session() as session:
        await call(session)
        assert fake.violations == []


@each_call
async def test_a_wrong_api_key_is_rejected(
    call: Callable[[Session], Awaitable[object]],
) -> None:
    """The service's message is about the key."""
    async with FakeServices(pythbots_api_key="api-key") as fake:
        async with fake.session(pythbots_api_key="wrong") as session:
            with pytest.raises(AccessDeniedError, match="Invalid API key"):
                await call(session)
        assert fake.violations == []


@each_call
async def test_the_personal_key_goes_to_mail_only(
    call: Callable[[Session], Awaitable[object]],
) -> None:
    """Each key is sent only where it is needed; the Peerbet key is not sent here."""
    async with RawServer(answer(b'[{"a": 1}]')) as server:
        async with open_session(server.url) as session:
            with contextlib.suppress(DecodeError, OutcomeUnknownError):
                await call(session)
        head = server.requests[0].head.decode()
        assert ("personal-key" in head) is ("mail.php" in head)
        assert "peerbet-key" not in head


@each_call
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b'{"error":"no access"}', 200, AccessDeniedError),
        (b'{"error":"Missing API key"}', 401, AccessDeniedError),
        (b'{"error":"Your key may not do this"}', 403, AccessDeniedError),
        (b"<html>Forbidden</html>", 403, AccessDeniedError),
        (b'{"error":"Request limit reached"}', 200, RateLimitedError),
        (b"", 429, RateLimitedError),
        (b'{"error":"Missing parameter"}', 400, ApiError),
    ],
)
async def test_refusals_are_typed(
    call: Callable[[Session], Awaitable[object]], body: bytes, status: int, kind: type[ApiError]
) -> None:
    """The service's message, or its status, for any request."""
    async with RawServer(answer(body, status)) as server, open_session(server.url) as session:
        with pytest.raises(kind) as caught:
            await call(session)
        assert type(caught.value) is kind
        assert caught.value.status == status
        assert str(caught.value.endpoint).startswith("pythbots.")


async def test_a_rejected_read_of_mail_is_over() -> None:
    """After an API error the next call asks for unread mail again, not for the history."""
    async with Scripted() as services, services.session() as session:
        services.deliver("first")
        services.script("readnew", ScriptedFault(effect=False, body=b'{"error": "no access"}'))
        with pytest.raises(AccessDeniedError):
            await session.pythbots.unread_mail()
        assert texts(await session.pythbots.unread_mail()) == ["first"]
        assert services.asked("readall") == []


async def test_all_of_mail_is_paced_as_one() -> None:
    """Sending, reading what is unread and reading all share one bucket: they are one page."""
    rates = {"pythbots.mail": Rate(2.0)}
    async with FakeServices(rates=rates) as fake, fake.session() as session:
        await asyncio.gather(*(call(session) for call in MAIL_CALLS.values()))
        times = [request.at for request in fake.requests]
        assert len(times) == 3
        assert times[2] - times[0] >= 3.99
        assert fake.violations == []


async def test_a_bad_argument_names_its_endpoint(fake: FakeServices, session: Session) -> None:
    """Every error of a call has the name of its endpoint."""
    bots = session.pythbots
    endpoints = []
    for call in (bots.user(""), bots.staff(0), bots.stats(0), bots.send_mail("", "hi")):
        with pytest.raises(InvalidRequestError) as caught:
            await call
        endpoints.append(caught.value.endpoint)
    assert endpoints == [
        "pythbots.userinfo",
        "pythbots.crank",
        "pythbots.cstats",
        "pythbots.mail",
    ]


@pytest.mark.parametrize("body", [b'{"success": false}', b'\xef\xbb\xbf{"success": false}'])
async def test_a_success_that_is_none_is_a_no(body: bytes) -> None:
    """However the response is parsed."""
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with pytest.raises(ApiError):
            await session.pythbots.send_mail("bob", "hi")


@pytest.mark.parametrize("words", ["inbox full: too many unread messages", "too many characters"])
async def test_too_many_of_something_else_is_no_rate_limit(words: str) -> None:
    """Only a 429 is."""
    body = json.dumps({"error": words}).encode()
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with pytest.raises(ApiError, match="too many"):
            await session.pythbots.send_mail("bob", "hi")


# -- what cannot be sent --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "given"), [(None, "None"), (True, "bool"), (1.5, "float"), (b"bob", "bytes")]
)
async def test_a_user_is_a_name_or_an_id(
    fake: FakeServices, session: Session, user: Any, given: str
) -> None:
    """The error says so, whichever of the two was meant; mostly a mail has no sender."""
    problem = f"must be a user name or a user id, not {given}$"
    for call in (session.pythbots.user(user), session.pythbots.send_mail(user, "a")):
        with pytest.raises(InvalidRequestError, match=problem):
            await call
    assert fake.requests == []
