"""`FakeServices` responds as documented, records requests, and starts and stops well.

The client here is a bare aiohttp session, so that every byte of a query is the test's own.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import msgspec
import pytest
from fake_client import (
    CHAT,
    INFO,
    MAIL,
    SET,
    Client,
    ManualClock,
    add_messages,
    connect,
    on_virtual_time,
)
from helpers import REAL, UNLIMITED, VIRTUAL, freeze_collector

import pythpeer.testing
from pythpeer import Rate, Session
from pythpeer.testing import DEFAULT_RATES, FakeServices, RecordedRequest, SentMail

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[REAL, VIRTUAL], ids=["real", "virtual"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Every test runs on the ordinary event loop and on one with virtual time."""
    return request.param


# -- reading the chat -----------------------------------------------------------------------------


async def test_ids_can_start_higher() -> None:
    """`skip_to` sets the next id, and never goes back."""
    async with FakeServices() as fake:
        fake.chat.skip_to(1000)
        assert [fake.chat.say("alice", "one"), fake.chat.say("alice", "two")] == [1000, 1001]
        fake.chat.skip_to(7)
        assert fake.chat.say("alice", "three") == 1002


async def test_a_response_has_the_documented_shape(fake: FakeServices, client: Client) -> None:
    """Fields, bits and dates are those of the documentation's example."""
    fake.chat.users_online = 7
    fake.chat.say("System", "This is a test message")
    answer = await client.get(f"{CHAT}get")
    date = answer["message_list"][0].pop("date")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", date)
    assert answer == {
        "status": 1,
        "users_online": 7,
        "message_list": [
            {
                "id": 1,
                "by": "System",
                "to": "",
                "msg": "This is a test message",
                "bot": 0,
                "my": 0,
                "me": 0,
            }
        ],
    }


async def test_responses_look_like_php(fake: FakeServices, client: Client) -> None:
    """JSON has the type text/html, is in ASCII, and has escaped slashes."""
    fake.chat.say("alice", "a/b é")
    async with client.http.get(client.url(f"{CHAT}get")) as response:
        assert response.content_type == "text/html"
        assert rb'"msg":"a\/b \u00e9"' in await response.read()


async def test_without_mid_the_newest_50_are_returned(fake: FakeServices, client: Client) -> None:
    """Without a last id, a response has the 50 newest messages, in ascending order."""
    add_messages(fake, 60)
    assert await client.ids() == list(range(11, 61))


@pytest.mark.parametrize(("last", "count"), [(1, 1), (60, 60), (300, 300), (301, 300), (9999, 300)])
async def test_last_is_the_number_of_messages(
    fake: FakeServices, client: Client, last: int, count: int
) -> None:
    """`last` is the number of newest messages, at most 300."""
    add_messages(fake, 310)
    assert await client.ids(f"&last={last}") == list(range(311 - count, 311))


async def test_mid_is_the_last_id_seen(fake: FakeServices, client: Client) -> None:
    """With `mid`, a response has the messages after it, without it."""
    add_messages(fake, 60)
    assert await client.ids("&mid=57") == [58, 59, 60]
    assert await client.ids("&mid=60") == []
    assert await client.ids("&mid=999") == []
    assert await client.ids("&mid=0") == list(range(1, 61))


async def test_the_newest_after_mid_are_returned_if_there_are_too_many(
    fake: FakeServices, client: Client
) -> None:
    """If more messages follow `mid` than a response holds, the newest are returned."""
    add_messages(fake, 310)
    assert await client.ids("&mid=5") == list(range(11, 311))
    assert await client.ids("&mid=5&last=2") == [309, 310]


async def test_the_oldest_after_mid_are_returned_with_that_quirk() -> None:
    """With `window="oldest"`, a response has the oldest messages after `mid`."""
    async with FakeServices(rates=UNLIMITED, window="oldest") as fake, connect() as http:
        client = Client(fake, http)
        add_messages(fake, 310)
        assert await client.ids("&mid=5") == list(range(6, 306))
        assert await client.ids("&mid=5&last=2") == [6, 7]
        assert await client.ids("&last=2") == [309, 310]


async def test_a_message_gets_an_id_after_those_that_were_appended(
    fake: FakeServices, client: Client
) -> None:
    """Ids may have gaps; no id is used twice, even if its message was removed."""
    fake.chat.say("alice", "one")
    fake.chat.messages.append(msgspec.structs.replace(fake.chat.messages[0], id=7))
    assert fake.chat.say("alice", "eight") == 8
    del fake.chat.messages[1:]
    assert fake.chat.say("alice", "nine") == 9
    assert await client.ids() == [1, 9]


async def test_a_window_is_newest_or_oldest() -> None:
    """Other values are an error in the constructor."""
    with pytest.raises(ValueError, match="window"):
        FakeServices(window="latest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("query", ["&mid=x", "&mid=1.5", "&mid=2147483648", "&last=0", "&last=-1"])
async def test_numbers_are_int32(client: Client, query: str) -> None:
    """`mid` and `last` are Int32, and `last` is positive."""
    answer = await client.get(f"{CHAT}get{query}")
    assert answer["status"] == 0
    assert answer["message"].startswith("Invalid ")


async def test_bits_mark_messages_of_bots_and_of_the_user(
    fake: FakeServices, client: Client
) -> None:
    """`bot` is set on messages of bots, `my` on those of the key's user."""
    fake.chat.say("alice", "beep", bot=True)
    fake.chat.say(fake.username, "hello")
    answer = await client.get(f"{CHAT}get&key={fake.peerbet_key}")
    bits = [(message["bot"], message["my"], message["me"]) for message in answer["message_list"]]
    assert bits == [(1, 0, 0), (0, 1, 0)]


async def test_without_a_key_no_message_is_mine(fake: FakeServices, client: Client) -> None:
    """`my` is never 1 without a key."""
    fake.chat.say(fake.username, "hello")
    answer = await client.get(f"{CHAT}get")
    assert answer["message_list"][0]["my"] == 0


async def test_private_messages_are_for_sender_and_recipient(
    fake: FakeServices, client: Client
) -> None:
    """A private message is visible with a key of its sender or its recipient, and has `me`."""
    fake.chat.register("alice", "key-of-alice")
    fake.chat.register("bob", "key-of-bob")
    fake.chat.say("alice", "psst", to=fake.username)
    assert await client.ids() == []
    assert await client.ids("&key=key-of-bob") == []
    assert await client.ids("&key=key-of-alice") == [1]
    answer = await client.get(f"{CHAT}get&key={fake.peerbet_key}")
    message = answer["message_list"][0]
    assert (message["to"], message["me"], message["my"]) == (fake.username, 1, 0)


async def test_private_messages_of_others_do_not_count(fake: FakeServices, client: Client) -> None:
    """Messages that a reader cannot see do not count among the `last` ones."""
    add_messages(fake, 2)
    fake.chat.say("alice", "psst", to="bob")
    assert await client.ids("&last=2") == [1, 2]


async def test_a_wrong_key_is_rejected_when_reading(client: Client) -> None:
    """Reading with an unknown key is an API error, with HTTP status 200."""
    assert await client.get(f"{CHAT}get&key=wrong") == {"status": 0, "message": "Invalid key"}
    assert await client.status(f"{CHAT}get&key=wrong") == 200


# -- writing to the chat --------------------------------------------------------------------------


async def test_set_posts_a_message(fake: FakeServices, client: Client) -> None:
    """A message is posted under the name of the key's user, and the response has its id."""
    add_messages(fake, 4)
    target = f"{CHAT}set&key={fake.peerbet_key}&msg=a%2Bb%20%C3%A9%F0%9F%98%80"
    assert await client.get(target) == {"status": 1, "mid": 5}
    line = fake.chat.messages[-1]
    assert (line.id, line.sender, line.text, line.to) == (5, fake.username, "a+b é😀", "")


@pytest.mark.parametrize(("query", "bot"), [("", False), ("&bot=0", False), ("&bot=1", True)])
async def test_bot_is_off_unless_set(
    fake: FakeServices, client: Client, query: str, bot: bool
) -> None:
    """A message is marked as a bot's if the request requires it."""
    await client.get(f"{CHAT}set&key={fake.peerbet_key}&msg=hi{query}")
    assert fake.chat.messages[-1].bot is bot


@pytest.mark.parametrize("key", ["", "&key=", "&key=wrong"])
async def test_posting_requires_a_key(fake: FakeServices, client: Client, key: str) -> None:
    """Without a valid key nothing is posted."""
    answer = await client.get(f"{CHAT}set{key}&msg=hi")
    assert answer == {"status": 0, "message": "Invalid key"}
    assert fake.chat.messages == []


@pytest.mark.parametrize("query", ["", "&msg=", "&msg=" + "x" * 251])
async def test_a_message_has_1_to_250_characters(
    fake: FakeServices, client: Client, query: str
) -> None:
    """Empty and too long texts are API errors."""
    answer = await client.get(f"{CHAT}set&key={fake.peerbet_key}{query}")
    assert answer["status"] == 0
    assert fake.chat.messages == []


async def test_characters_are_counted_not_bytes(fake: FakeServices, client: Client) -> None:
    """250 characters are allowed, for any number of bytes."""
    await client.get(f"{CHAT}set&key={fake.peerbet_key}&msg={quote('😀' * 250)}")
    assert fake.chat.messages[-1].text == "😀" * 250


@pytest.mark.parametrize("action", ["", "delete"])
async def test_an_unknown_action_is_an_error(client: Client, action: str) -> None:
    """There are only get and set."""
    assert await client.get(CHAT + action) == {"status": 0, "message": "Unknown action"}


# -- people and chats -----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["tiro", "TIRO", "221192"])
async def test_users_are_found_by_name_and_by_id(client: Client, user: str) -> None:
    """The documentation's example user exists, under both."""
    assert await client.get(f"/api/userinfo.php?user={user}") == {
        "id": 221192,
        "username": "tiro",
        "nickname": "Tiro",
        "avatar": "https://avatars.example/221192.png",
        "powers": ["allpowers", "everypower"],
        "chats": ["pythbots"],
        "rank": "Owner",
        "online": True,
    }


async def test_parameters_are_read_as_php_reads_them(fake: FakeServices, client: Client) -> None:
    """A plus is a space, the last of equal names counts, and bytes without meaning are replaced."""
    await client.get(f"{SET}&msg=first&msg=the+last%FF")
    assert fake.chat.messages[-1].text == "the last\ufffd"


async def test_an_unknown_user_is_an_error(client: Client) -> None:
    """An unknown user is an `error` string, with HTTP status 200."""
    assert await client.get("/api/userinfo.php?user=nobody") == {"error": "User not found"}
    assert await client.status("/api/userinfo.php?user=nobody") == 200


@pytest.mark.parametrize(
    "target",
    [
        "/api/userinfo.php",
        "/api/crank.php",
        "/api/cstats.php",
        MAIL,
        f"{MAIL}&user=tiro",
        f"{MAIL}&message=hi",
    ],
)
async def test_a_missing_parameter_is_an_error(client: Client, target: str) -> None:
    """A missing parameter is an `error` string, with HTTP status 400."""
    assert (await client.get(target))["error"].startswith("Missing ")
    assert await client.status(target) == 400


async def test_users_can_be_added(fake: FakeServices, client: Client) -> None:
    """A test can add a user, and replace one by adding it again."""
    first = fake.users.add("dora", nickname="Dora", online=True)
    assert fake.users.add("Dora").id == first.id
    assert fake.users.add("eve", user_id=first.id).id == first.id
    assert (await client.get(f"/api/userinfo.php?user={first.id}"))["username"] == "eve"
    assert "error" in await client.get("/api/userinfo.php?user=dora")


async def test_staff_have_ranks(client: Client) -> None:
    """The documentation's example chat has a main owner, an owner and a moderator."""
    staff = await client.get("/api/crank.php?chatid=220531305")
    assert [member["rank"] for member in staff] == ["Main Owner", "Owner", "Moderator"]
    assert staff[0] == {
        "id": 221192,
        "username": "tiro",
        "rank": "Main Owner",
        "avatar": "https://avatars.example/221192.png",
        "time_held": 77_760_000,
    }


async def test_statistics_are_numbers(client: Client) -> None:
    """The documentation's example chat has statistics."""
    stats = await client.get("/api/cstats.php?chatid=220531305")
    assert stats == {
        "messages": 125_000,
        "active_users": 42,
        "messages_today": 310,
        "peak_users": 67,
    }


async def test_a_chat_that_has_not_opted_in_shows_no_staff(
    fake: FakeServices, client: Client
) -> None:
    """Its statistics are still available."""
    fake.chats.add(7, opted_in=False, messages=3)
    fake.chats.appoint(7, "newcomer", "Owner")
    assert await client.get("/api/crank.php?chatid=7") == {"error": "Chat has not opted in"}
    assert await client.get("/api/cstats.php?chatid=7") == {"messages": 3, "active_users": 0}
    fake.chats.add(7)
    fake.chats.appoint(7, "newcomer", "Owner", time_held=60)
    staff = await client.get("/api/crank.php?chatid=7")
    assert [(member["username"], member["time_held"]) for member in staff] == [("newcomer", 60)]


@pytest.mark.parametrize("page", ["crank", "cstats"])
async def test_an_unknown_chat_is_an_error(client: Client, page: str) -> None:
    """An unknown chat is an `error` string."""
    assert "error" in await client.get(f"/api/{page}.php?chatid=1")


# -- mail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipient", ["user=tiro", "id=221192"])
async def test_mail_is_sent_by_name_or_by_id(
    fake: FakeServices, client: Client, recipient: str
) -> None:
    """A mail is sent to `user=` a name or `id=` a number, and is recorded."""
    assert await client.get(f"{MAIL}&{recipient}&message=hi%20there") == {"success": True}
    assert fake.mail.sent == [SentMail("tiro", "hi there")]
    assert fake.mail.inbox == []


@pytest.mark.parametrize("recipient", ["user=nobody", "user=221192", "id=tiro", "id=1"])
async def test_mail_to_an_unknown_user_is_an_error(
    fake: FakeServices, client: Client, recipient: str
) -> None:
    """A name is not an id, an id is not a name, and an unknown user receives no mail."""
    answer = await client.get(f"{MAIL}&{recipient}&message=hi")
    assert answer == {"error": "User not found"}
    assert fake.mail.sent == []


async def test_unread_mail_is_marked_as_read(fake: FakeServices, client: Client) -> None:
    """`readnew` returns each mail once."""
    assert await client.get(f"{MAIL}&readnew") == []
    assert fake.mail.deliver("tiro", "first") == 1
    (mail,) = await client.get(f"{MAIL}&readnew")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", mail.pop("date"))
    assert mail == {"id": 1, "from": "tiro", "from_id": 221192, "message": "first", "read": 0}
    fake.mail.deliver("alice", "second")
    assert [mail["id"] for mail in await client.get(f"{MAIL}&readnew")] == [2]
    assert await client.get(f"{MAIL}&readnew") == []


async def test_all_mail_is_not_marked_as_read(fake: FakeServices, client: Client) -> None:
    """`readall` returns all mail, read and unread, and does not change that."""
    fake.mail.deliver("tiro", "first")
    await client.get(f"{MAIL}&readnew")
    fake.mail.deliver("alice", "second")
    for _ in range(2):
        mails = await client.get(f"{MAIL}&readall")
        assert [(mail["id"], mail["read"]) for mail in mails] == [(1, 1), (2, 0)]
    assert len(await client.get(f"{MAIL}&readnew")) == 1


async def test_all_mail_is_marked_as_read_with_that_quirk() -> None:
    """With `readall_marks`, `readall` leaves nothing unread."""
    async with FakeServices(rates=UNLIMITED, readall_marks=True) as fake, connect() as http:
        client = Client(fake, http)
        fake.mail.deliver("tiro", "first")
        assert [mail["read"] for mail in await client.get(f"{MAIL}&readall")] == [0]
        assert await client.get(f"{MAIL}&readnew") == []


async def test_mail_to_oneself_is_delivered(fake: FakeServices, client: Client) -> None:
    """The key's owner receives mail from themselves."""
    await client.get(f"{MAIL}&user={fake.username}&message=note")
    (mail,) = await client.get(f"{MAIL}&readnew")
    assert (mail["from"], mail["message"]) == (fake.username, "note")


async def test_an_unknown_sender_becomes_a_user(fake: FakeServices, client: Client) -> None:
    """The sender of a mail can be looked up and written to."""
    fake.mail.deliver("stranger", "hello")
    (mail,) = await client.get(f"{MAIL}&readnew")
    person = await client.get(f"/api/userinfo.php?user={mail['from_id']}")
    assert person["username"] == "stranger"


@pytest.mark.parametrize("key", ["", "personal_key=", "personal_key=wrong"])
async def test_mail_requires_the_personal_key(fake: FakeServices, client: Client, key: str) -> None:
    """Without the personal key, mail can be neither read nor sent."""
    fake.mail.deliver("tiro", "first")
    for rest in ("&readnew", "&readall", "&user=tiro&message=hi"):
        answer = await client.get(f"/api/mail.php?{key}{rest}")
        assert answer == {"error": "Invalid personal key"}
    assert fake.mail.sent == []
    assert not fake.mail.inbox[0].read


async def test_the_personal_key_can_have_another_name() -> None:
    """`personal_key_param` is the required name; the other one is invalid then."""
    async with (
        FakeServices(rates=UNLIMITED, personal_key_param="personalkey") as fake,
        connect() as http,
    ):
        client = Client(fake, http)
        target = f"/api/mail.php?personalkey={fake.personal_key}&readnew"
        assert await client.get(target) == []
        assert "error" in await client.get(f"{MAIL}&readnew")


@pytest.mark.parametrize("page", ["userinfo.php?user=tiro", "cstats.php?chatid=220531305"])
async def test_an_api_key_is_required_if_there_is_one(page: str) -> None:
    """If there is an API key, PythBots responds to no request without one."""
    async with (
        FakeServices(rates=UNLIMITED, pythbots_api_key="the-api-key") as fake,
        connect() as http,
    ):
        client = Client(fake, http)
        target = f"/api/{page}"
        assert await client.get(target) == {"error": "Missing API key"}
        assert await client.get(target, **{"X-API-Key": "wrong"}) == {"error": "Invalid API key"}
        assert "error" not in await client.get(target, **{"X-API-Key": "the-api-key"})
        assert "error" not in await client.get(target, Authorization="Bearer the-api-key")
        assert [violation.rule for violation in fake.violations] == ["key"]


async def test_an_api_key_that_is_not_required_has_no_effect(client: Client) -> None:
    """By default there is no API key, and one in a request has no effect."""
    assert "error" not in await client.get(f"{INFO}tiro", **{"X-API-Key": "some-key"})


# -- time -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_virtual_time_moves_the_fake() -> None:
    """On a loop with virtual time, rates and dates follow it."""
    async with FakeServices() as fake, connect() as http:
        client = Client(fake, http)
        for pause in (0.0, 1.0, 3600.0, 0.5):
            await asyncio.sleep(pause)
            await client.get(f"{SET}&msg=hi")
        assert [str(violation) for violation in fake.violations] == [
            "peerbet.chat.set: 0.500 s too early (1 every 1 s, bursts of 1) [pace]"
        ]
        times = [datetime.fromisoformat(line.date) for line in fake.chat.messages]
        assert times[2] - times[1] == timedelta(hours=1)
        start = fake.requests[0].at
        assert [round(arrival.at - start, 3) for arrival in fake.requests] == [0, 1, 3601, 3601.5]


async def test_the_loops_clock_is_the_default() -> None:
    """The time is that of an asyncio loop."""
    async with FakeServices() as fake:
        assert fake.clock == asyncio.get_running_loop().time


@pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not to be had everywhere")
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_uvloops_clock_is_not_used() -> None:
    """The machine's clock is used instead, because uvloop updates its own once per iteration."""
    async with FakeServices(rates=UNLIMITED) as fake, connect() as http:
        assert fake.clock is time.monotonic
        assert await Client(fake, http).ids() == []


async def test_dates_follow_the_clock() -> None:
    """A message's date advances by as many seconds as the clock."""
    clock = ManualClock()
    async with FakeServices(clock=clock) as fake:
        fake.chat.say("alice", "now")
        clock.now = 90.0
        fake.chat.say("alice", "later")
        fake.mail.deliver("alice", "later too")
    now, later = (datetime.fromisoformat(line.date) for line in fake.chat.messages)
    assert later - now == timedelta(seconds=90)
    assert fake.mail.inbox[0].date == fake.chat.messages[-1].date


async def test_dates_begin_with_todays() -> None:
    """Whatever the clock starts with, dates start with the present one, in UTC."""
    fake = FakeServices()
    fake.chat.say("alice", "before the start")
    async with fake:
        fake.chat.say("alice", "after it")
    for line in fake.chat.messages:
        date = datetime.fromisoformat(line.date).replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)


# -- the record, and secrecy ----------------------------------------------------------------------


async def test_requests_are_recorded(fake: FakeServices, client: Client) -> None:
    """The record has the endpoint, the time and the raw target of each request."""
    before = fake.clock()
    await client.get(f"{CHAT}get&mid=5")
    await client.get(f"{INFO}%74iro")
    await client.status("/favicon.ico")
    assert [(arrival.endpoint, arrival.target) for arrival in fake.requests] == [
        ("peerbet.chat.get", f"{CHAT}get&mid=5"),
        ("pythbots.userinfo", f"{INFO}%74iro"),
        ("pythbots", "/favicon.ico"),
    ]
    times = [before, *(arrival.at for arrival in fake.requests), fake.clock()]
    assert times == sorted(times)


async def test_the_record_is_bounded(
    fake: FakeServices, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the latest requests are recorded."""
    monkeypatch.setattr("pythpeer.testing.fake.MAX_RECORDED", 2)
    for mid in range(5):
        await client.get(f"{CHAT}get&mid={mid}")
    assert [arrival.target[-5:] for arrival in fake.requests] == ["mid=3", "mid=4"]


@pytest.mark.parametrize(
    "target",
    [
        f"{CHAT}get&key=canary",
        f"{CHAT}get&%6Bey=canary",
        f"{CHAT}get&KEY=canary&mid=1",
        "/api/mail.php?personal_key=canary&readnew",
        "/api/mail.php?personalkey=canary&readnew",
        f"{INFO}tiro&api_key=canary",
        f"{INFO}fake-personal-key%2F",
        f"{INFO}fake-peerbet-key",
        "/fake-peerbet-key",
    ],
)
async def test_no_key_is_recorded(fake: FakeServices, client: Client, target: str) -> None:
    """Neither the record nor a violation contains a key of any user, wherever it was."""
    await client.status(target)
    shown = f"{fake.requests} {fake.violations} {fake!r}"
    assert "***" in shown
    assert not re.search("canary|fake-peerbet-key|fake-personal-key", shown)


async def test_no_form_of_a_key_is_recorded() -> None:
    """A key that must be encoded is removed in its raw and in its encoded form."""
    async with FakeServices(rates=UNLIMITED, peerbet_key="can/ary+1") as fake, connect() as http:
        client = Client(fake, http)
        await client.status(f"{INFO}can%2Fary%2B1")
        await client.status(f"{INFO}can/ary+1")
        assert [arrival.target for arrival in fake.requests] == [f"{INFO}***", f"{INFO}***"]


async def test_no_key_is_logged(
    fake: FakeServices, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Even a request that is not HTTP leaves no key in the logs."""
    caplog.set_level(logging.DEBUG)
    assert await client.status(f"{SET}&msg=a b") == 400
    assert await client.status(f"{SET}&msg=ab") == 200
    assert fake.peerbet_key not in caplog.text


# -- starting and stopping ------------------------------------------------------------------------


def port(url: str) -> int:
    return urlsplit(url).port or 0


@pytest.fixture(scope="module")
def quick_collections() -> None:
    """Exclude what other tests have left from the garbage collections of `open_sockets`."""
    freeze_collector()


def open_sockets() -> set[int]:
    """Return the descriptors of all new open sockets, also of those that only the loop holds."""
    gc.collect()
    return {
        object_.fileno() for object_ in gc.get_objects() if isinstance(object_, socket.socket)
    } - {-1}


async def test_each_service_has_a_loopback_port(fake: FakeServices) -> None:
    """Both URLs are plain http on 127.0.0.1, with different ports."""
    pattern = r"http://127\.0\.0\.1:[1-9]\d*"
    assert re.fullmatch(pattern, fake.peerbet_url)
    assert re.fullmatch(pattern, fake.pythbots_url)
    assert fake.peerbet_url != fake.pythbots_url


async def test_ports_can_be_chosen() -> None:
    """Each service listens on the given port; it does not start if that is in use."""
    async with FakeServices() as first:
        urls = (first.peerbet_url, first.pythbots_url)
        with pytest.raises(OSError, match="in use"):
            await FakeServices(pythbots_port=port(urls[1])).start()
    again = FakeServices(peerbet_port=port(urls[0]), pythbots_port=port(urls[1]))
    for _ in range(2):
        async with again as second:
            assert (second.peerbet_url, second.pythbots_url) == urls


async def test_the_environment_configures_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all keys; it does not exist while the fake is not running."""
    fake = FakeServices(pythbots_api_key="the api key")
    with pytest.raises(RuntimeError, match="not running"):
        _ = fake.environment
    async with fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        async with Session.from_env() as session:
            await session.peerbet.post("hello")
            assert await session.pythbots.unread_mail() == ()
    assert fake.violations == []


async def test_listeners_receive_each_request_after_its_effect(
    fake: FakeServices, client: Client
) -> None:
    """It is checked and recorded, and not yet answered; until the listener unsubscribes."""
    received: list[tuple[RecordedRequest, int, int]] = []

    def listener(arrival: RecordedRequest) -> None:
        received.append((arrival, len(fake.chat.messages), len(fake.violations)))

    unsubscribe = fake.subscribe(listener)
    await client.get(SET + "&msg=hi")
    await client.get(SET + "&msg=a+b")
    assert received == [(fake.requests[0], 1, 0), (fake.requests[1], 2, 1)]
    unsubscribe()
    await client.get(f"{CHAT}get")
    assert len(received) == 2


async def test_messages_after_an_id_can_be_read(fake: FakeServices) -> None:
    """In order, with private messages; the services' date is that of the next one."""
    add_messages(fake, 3)
    fake.chat.say("alice", "psst", to="bob")
    assert [line.id for line in fake.chat.after(2)] == [3, 4]
    assert fake.chat.after(4) == fake.chat.after(99) == []
    assert fake.chat.after(0) == fake.chat.messages
    assert fake.chat.messages[-1].date == fake.date
    assert {"tiro", "alice", "bob", "pythpeer"} <= {person.username for person in fake.users}


async def test_it_can_be_started_and_closed_by_hand() -> None:
    """There are no URLs before the start and after the close; closing twice has no effect."""
    fake = FakeServices()
    with pytest.raises(RuntimeError, match="not running"):
        _ = fake.peerbet_url
    await fake.start()
    with pytest.raises(RuntimeError, match="running already"):
        await fake.start()
    url = fake.pythbots_url
    await fake.aclose()
    await fake.aclose()
    with pytest.raises(RuntimeError, match="not running"):
        _ = fake.pythbots_url
    with pytest.raises(ConnectionRefusedError), socket.socket() as connection:
        connection.connect(("127.0.0.1", port(url)))


async def test_it_can_be_started_again() -> None:
    """Messages are kept, and the rates are reset."""
    fake = FakeServices(clock=ManualClock())
    for run in (1, 2):
        async with fake, connect() as http:
            await Client(fake, http).get(f"{SET}&msg=run%20{run}")
    assert [line.text for line in fake.chat.messages] == ["run 1", "run 2"]
    assert fake.violations == []


async def test_it_can_be_left_in_another_task() -> None:
    """Test fixtures enter in one task and exit in another."""
    fake = await asyncio.create_task(FakeServices().__aenter__())
    async with connect() as http:
        assert await Client(fake, http).ids() == []
    await asyncio.create_task(fake.__aexit__(None, None, None))


@pytest.mark.parametrize("iterations", range(12))
@pytest.mark.usefixtures("quick_collections")
async def test_a_start_can_be_cancelled(iterations: int) -> None:
    """In any iteration of the loop, no socket is left open."""
    before = open_sockets()
    loop = asyncio.get_running_loop()
    fake = FakeServices()
    with anyio.CancelScope() as scope:

        def cancel(iterations: int) -> None:
            if iterations:
                loop.call_soon(cancel, iterations - 1)
            else:
                scope.cancel()

        cancel(iterations)
        async with fake:
            await anyio.sleep_forever()
    assert repr(fake) == "<FakeServices stopped, violations=0>"
    assert open_sockets() == before


class FailingPortLoop(asyncio.SelectorEventLoop):
    """A loop on a machine with one free port, until more are released."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1
        self.servers: list[asyncio.Server] = []

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        if self.left == 0:
            raise OSError(errno.EADDRNOTAVAIL, "no port is left")
        self.left -= 1
        self.servers.append(await super().create_server(*args, **options))
        return self.servers[-1]


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"loop_factory": FailingPortLoop})], ids=["ports"]
)
async def test_a_start_that_fails_closes_what_it_opened() -> None:
    """If the second port is not available, the first one is released; a retry is possible."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FailingPortLoop)
    fake = FakeServices(rates=UNLIMITED)
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:0: "):
        await fake.start()
    (server,) = loop.servers
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="not running"):
        _ = fake.peerbet_url
    loop.left = 2
    async with fake, connect() as http:
        assert await Client(fake, http).ids() == []


WEB_PAGE_HEADERS: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Host": "evil.example"},
    {"Host": "evil.example:8401"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost@evil.example"},
    {"Host": ""},
]


@pytest.mark.parametrize("headers", WEB_PAGE_HEADERS, ids=str)
async def test_requests_of_web_pages_are_rejected(
    fake: FakeServices, client: Client, headers: dict[str, str]
) -> None:
    """Nothing is posted, sent or read, and the bot is not blamed: its keys can be guessed."""
    fake.mail.deliver("alice", "hello")
    for target in (f"{SET}&msg=EVIL", f"{MAIL}&user=alice&message=EVIL", f"{MAIL}&readnew"):
        async with client.http.get(client.url(target), headers=headers) as response:
            assert response.status == 403
            assert "no web page" in (await response.json())["error"]
    assert (fake.chat.messages, fake.mail.sent) == ([], [])
    assert [mail.read for mail in fake.mail.inbox] == [False]
    assert (fake.requests, fake.violations) == ([], [])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost"},
        {"Host": "LocalHost:8401"},
        {"Host": "127.0.0.1:1"},
        {"Host": "[::1]:8401"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
async def test_requests_of_programs_on_this_machine_are_answered(
    client: Client, headers: dict[str, str]
) -> None:
    """Under every name of it, with the port of a tunnel, and from the address bar of a browser."""
    assert (await client.get(f"{CHAT}get", **headers))["status"] == 1


async def test_it_runs_no_task_of_its_own() -> None:
    """Without requests no task runs; after closing none is left."""
    before = asyncio.all_tasks()
    async with FakeServices(rates=UNLIMITED) as fake:
        assert asyncio.all_tasks() == before
        async with connect() as http:
            await Client(fake, http).get(f"{CHAT}get")
            await fake.aclose()
            assert asyncio.all_tasks() == before


@on_virtual_time
async def test_closing_does_not_wait() -> None:
    """Idle connections, partial requests, and clients that do not read are dropped immediately."""
    async with FakeServices(rates=UNLIMITED) as fake, connect() as http:
        add_messages(fake, 300)
        await Client(fake, http).get(f"{CHAT}get")
        half_asked = await asyncio.open_connection("127.0.0.1", port(fake.peerbet_url))
        half_asked[1].write(b"GET /api/chat/?action=g")
        silent = await asyncio.open_connection("127.0.0.1", port(fake.pythbots_url))
        deaf = await asyncio.open_connection("127.0.0.1", port(fake.peerbet_url), limit=1)
        deaf[1].write(
            b"GET /api/chat/?action=get&last=300 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300
        )
        await asyncio.sleep(1.0)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await fake.aclose()
        assert loop.time() - before < 0.05
        assert len(fake.requests) < 300
        for reader, writer in (half_asked, silent):
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        deaf[1].transport.abort()


async def test_it_can_be_left_by_cancellation() -> None:
    """Leaving a cancelled scope still frees the ports and drops the connections."""
    before = asyncio.all_tasks()
    urls: list[str] = []
    with anyio.CancelScope() as scope:
        async with connect() as http, FakeServices(rates=UNLIMITED) as fake:
            await Client(fake, http).get(f"{CHAT}get")
            urls += (fake.peerbet_url, fake.pythbots_url)
            scope.cancel()
            await anyio.sleep_forever()
    assert asyncio.all_tasks() == before
    assert len(urls) == 2
    for url in urls:
        with pytest.raises(ConnectionRefusedError), socket.socket() as connection:
            connection.connect(("127.0.0.1", port(url)))


async def test_its_repr_shows_its_state(fake: FakeServices, client: Client) -> None:
    """It shows whether it runs, and how many violations there were."""
    await client.status("/favicon.ico")
    assert repr(fake) == "<FakeServices running, violations=1>"
    await fake.aclose()
    assert repr(fake) == "<FakeServices stopped, violations=1>"


# -- with the library -----------------------------------------------------------------------------


async def test_a_session_is_ready_to_use(fake: FakeServices) -> None:
    """`fake.session()` has the URLs and the keys, and breaks no rule."""
    fake.mail.deliver("tiro", "first")
    async with fake.session() as session:
        assert await session.peerbet.post("hello there") == 1
        assert [m.is_mine for m in (await session.peerbet.messages()).messages] == [True]
        assert [mail.text for mail in await session.pythbots.unread_mail()] == ["first"]
        await session.pythbots.send_mail(221192, "hi")
        assert (await session.pythbots.user("tiro")).id == 221192
        assert len(await session.pythbots.staff(220531305)) == 3
        assert (await session.pythbots.stats(220531305)).active_users == 42
    assert fake.mail.sent == [("tiro", "hi")]
    assert fake.violations == []


async def test_a_session_counts_from_the_last_response() -> None:
    """A busy machine cannot make it break a rule; rates of the fake apply to it."""
    rates = {"pythbots.mail": Rate(0.25, burst=2)}
    async with FakeServices(rates=rates) as fake:
        limiters = fake.session().limiters
        assert {name: limiter.rate for name, limiter in limiters.items()} == {
            **{
                name: Rate(rate.interval, rate.burst, guard=5.0)
                for name, rate in DEFAULT_RATES.items()
            },
            **rates,
        }


async def test_a_sessions_settings_can_be_overridden(fake: FakeServices) -> None:
    """Arguments of `fake.session()` take precedence."""
    fake.chat.say(fake.username, "mine")
    async with fake.session(peerbet_key=None) as session:
        assert [m.is_mine for m in (await session.peerbet.messages()).messages] == [False]


def test_all_names_are_there_and_sorted() -> None:
    """The package has the names in its list."""
    names = pythpeer.testing.__all__
    assert all(hasattr(pythpeer.testing, name) for name in names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
