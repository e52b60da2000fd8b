"""Undocumented behaviour can be switched, and a session returns the same with each quirk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fake_client import CHAT, INFO, MAIL, SET, Client, add_messages, connect
from helpers import UNLIMITED

from pythpeer import InvalidRequestError
from pythpeer.testing import BOM, PHP_WARNING, FakeServices, QuirkOptions, Quirks

pytestmark = pytest.mark.anyio

STAFF = "/api/crank.php?chatid=220531305"
STATS = "/api/cstats.php?chatid=220531305"


# -- the switches ---------------------------------------------------------------------------------


def test_every_quirk_can_be_given_by_name() -> None:
    """The arguments of `FakeServices` are exactly the fields of `Quirks`."""
    assert set(QuirkOptions.__annotations__) == set(Quirks.__struct_fields__)


def test_quirks_are_given_read_and_shown() -> None:
    """They are as given, and their repr shows those that differ from the default."""
    fake = FakeServices(order="shuffled", mail_ids=False)
    assert fake.quirks == Quirks(order="shuffled", mail_ids=False)
    assert repr(fake.quirks) == "Quirks(order='shuffled', mail_ids=False)"
    assert repr(Quirks()) == "Quirks()"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"window": "latest"}, "window"),
        ({"order": "random"}, "order"),
        ({"overlap": -1}, "overlap"),
        ({"repeat": 0}, "repeat"),
        ({"empty": "nothing"}, "empty"),
        ({"mail_ids": "no"}, "mail_ids"),
        ({"refusal_status": 500}, "refusal_status"),
        ({"personal_key_param": ""}, "personal_key_param"),
        ({"windw": "newest"}, "no quirk or argument .windw.; quirks: .*window"),
    ],
)
def test_unknown_quirks_are_rejected(wrong: dict[str, Any], words: str) -> None:
    """A misspelt quirk, or an invalid value, is an error that names it."""
    with pytest.raises(InvalidRequestError, match=words):
        FakeServices(**wrong)
    fake = FakeServices()
    with pytest.raises(InvalidRequestError, match=words):
        fake.set_quirks(**wrong)
    assert fake.quirks == Quirks()


async def test_quirks_can_change_while_it_runs(fake: FakeServices, client: Client) -> None:
    """From the next request on; quirks that are not named do not change."""
    add_messages(fake, 3)
    assert await client.ids() == [1, 2, 3]
    fake.set_quirks(order="descending")
    assert await client.ids() == [3, 2, 1]
    fake.set_quirks(overlap=1)
    assert await client.ids("&mid=2") == [3, 2]


# -- what is on the wire --------------------------------------------------------------------------


async def test_the_oldest_after_mid_may_be_returned(fake: FakeServices, client: Client) -> None:
    """With `window="oldest"`, a response has the oldest messages after `mid`."""
    fake.set_quirks(window="oldest")
    add_messages(fake, 310)
    assert await client.ids("&mid=5") == list(range(6, 306))
    assert await client.ids("&mid=5&last=2") == [6, 7]
    assert await client.ids("&last=2") == [309, 310]


async def test_mid_itself_may_be_repeated(fake: FakeServices, client: Client) -> None:
    """With `overlap`, that many messages up to `mid` are repeated, of those the reader can see."""
    fake.set_quirks(overlap=2)
    add_messages(fake, 4)
    fake.chat.say("alice", "psst", to="bob")
    add_messages(fake, 2)
    assert await client.ids("&mid=4") == [3, 4, 6, 7]
    assert await client.ids("&mid=6") == [4, 6, 7]
    assert await client.ids("&mid=0") == [1, 2, 3, 4, 6, 7]
    assert await client.ids("&mid=7") == [6, 7]
    assert await client.ids() == [1, 2, 3, 4, 6, 7]


async def test_messages_may_be_duplicated_in_a_response(fake: FakeServices, client: Client) -> None:
    """With `repeat`, a response has each message that many times."""
    fake.set_quirks(repeat=2)
    add_messages(fake, 3)
    assert await client.ids("&last=2") == [2, 2, 3, 3]


async def test_shuffled_is_the_same_for_the_same_seed() -> None:
    """The order of messages and mails depends on the seed only."""

    async def orders(seed: int) -> list[list[int]]:
        options = QuirkOptions(order="shuffled")
        async with FakeServices(rates=UNLIMITED, seed=seed, **options) as fake, connect() as http:
            client = Client(fake, http)
            add_messages(fake, 20)
            for number in range(20):
                fake.mail.deliver("alice", f"mail {number}")
            mails = await client.get(f"{MAIL}&readall")
            return [await client.ids(), await client.ids(), [mail["id"] for mail in mails]]

    first = await orders(7)
    assert await orders(7) == first
    assert await orders(8) != first
    assert first[0] != first[1]
    assert [sorted(order) for order in first] == [list(range(1, 21))] * 3


async def test_mail_may_be_in_any_order_and_without_ids(fake: FakeServices, client: Client) -> None:
    """`order` applies to mail, too, and with `mail_ids=False` no mail has an id."""
    fake.set_quirks(order="descending", mail_ids=False)
    fake.mail.deliver("tiro", "first")
    fake.mail.deliver("tiro", "second")
    mails = await client.get(f"{MAIL}&readnew")
    assert [mail["message"] for mail in mails] == ["second", "first"]
    assert not any("id" in mail for mail in mails)


async def test_reading_all_mail_may_mark_it(fake: FakeServices, client: Client) -> None:
    """With `readall_marks`, `readall` leaves nothing unread."""
    fake.set_quirks(readall_marks=True)
    fake.mail.deliver("tiro", "first")
    assert [mail["read"] for mail in await client.get(f"{MAIL}&readall")] == [0]
    assert await client.get(f"{MAIL}&readnew") == []


async def test_lists_may_be_objects(fake: FakeServices, client: Client) -> None:
    """With `numbered`, the keys of every list are numbers, as PHP makes of some arrays."""
    fake.set_quirks(numbered=True)
    add_messages(fake, 2)
    chat = (await client.get(f"{CHAT}get"))["message_list"]
    assert [(key, message["id"]) for key, message in chat.items()] == [("0", 1), ("1", 2)]
    assert list(await client.get(STAFF)) == ["0", "1", "2"]
    assert (await client.get(f"{MAIL}&readall")) == []


async def test_lists_may_be_inside_an_object(fake: FakeServices, client: Client) -> None:
    """With `wrapped`, PythBots' lists are inside an object; the chat's list is documented."""
    fake.set_quirks(wrapped=True)
    assert len((await client.get(STAFF))["data"]) == 3
    assert await client.get(f"{MAIL}&readnew") == {"data": []}
    assert await client.get(f"{MAIL}&readall") == {"data": []}
    assert (await client.get(f"{CHAT}get"))["message_list"] == []


@pytest.mark.parametrize(("empty", "shown"), [("null", None), ("object", {}), ("list", [])])
async def test_an_empty_list_may_be_anything(
    fake: FakeServices, client: Client, empty: Any, shown: object
) -> None:
    """`empty` is the JSON of an empty list."""
    fake.set_quirks(empty=empty)
    assert (await client.get(f"{CHAT}get"))["message_list"] == shown
    assert await client.get(f"{MAIL}&readnew") == shown


async def test_numbers_may_be_strings(fake: FakeServices, client: Client) -> None:
    """With `numbers_as_strings`, every number is a string, and every bit as well."""
    fake.set_quirks(numbers_as_strings=True)
    assert await client.get(f"{SET}&msg=hi") == {"status": "1", "mid": "1"}
    answer = await client.get(f"{CHAT}get")
    assert answer["users_online"] == "1"
    assert {answer["message_list"][0][name] for name in ("id", "bot")} == {"1", "0"}
    assert (await client.get(STATS))["messages"] == "125000"
    person = await client.get(f"{INFO}tiro")
    assert (person["id"], person["online"]) == ("221192", True)


async def test_bits_may_be_booleans(fake: FakeServices, client: Client) -> None:
    """With `bits_as_booleans`, they are true and false, for every form of numbers."""
    fake.set_quirks(bits_as_booleans=True, numbers_as_strings=True)
    fake.chat.say("alice", "beep", bot=True)
    fake.mail.deliver("alice", "hello")
    message = (await client.get(f"{CHAT}get"))["message_list"][0]
    assert [message[name] for name in ("id", "bot", "my", "me")] == ["1", True, False, False]
    assert (await client.get(f"{MAIL}&readall"))[0]["read"] is False


async def test_fields_of_pythbots_may_have_other_names(fake: FakeServices, client: Client) -> None:
    """With `names`, fields have other names, or are omitted."""
    fake.set_quirks(names={"from": "sender", "avatar": None, "messages": "total"})
    fake.mail.deliver("alice", "hello")
    (mail,) = await client.get(f"{MAIL}&readall")
    assert (mail["sender"], "from" in mail) == ("alice", False)
    assert not any("avatar" in member for member in await client.get(STAFF))
    assert "avatar" not in await client.get(f"{INFO}tiro")
    assert (await client.get(STATS))["total"] == 125_000


async def test_the_personal_key_may_have_another_name(fake: FakeServices, client: Client) -> None:
    """`personal_key_param` is the required name; the other one is invalid then."""
    fake.set_quirks(personal_key_param="personalkey")
    assert await client.get(f"/api/mail.php?personalkey={fake.personal_key}&readnew") == []
    assert "error" in await client.get(f"{MAIL}&readnew")
    assert [violation.rule for violation in fake.violations] == ["key"]


async def test_a_dead_key_may_look_like_none(fake: FakeServices, client: Client) -> None:
    """`dead_key` is whether the chat can be read with an unknown key; no one can post with it."""
    fake.set_quirks(dead_key="ignored")
    fake.chat.say("alice", "psst", to=fake.username.title())
    fake.chat.say(fake.username.upper(), "hello")
    page = await client.get(f"{CHAT}get&key=dead")
    assert [(line["msg"], line["my"], line["me"]) for line in page["message_list"]] == [
        ("hello", 0, 0)
    ]
    page = await client.get(f"{CHAT}get&key={fake.peerbet_key}")
    assert [(line["msg"], line["my"], line["me"]) for line in page["message_list"]] == [
        ("psst", 0, 1),
        ("hello", 1, 0),
    ]
    assert await client.get(f"{CHAT}set&key=dead&msg=hi") == {"status": 0, "message": "Invalid key"}


async def test_api_errors_may_have_a_status(fake: FakeServices, client: Client) -> None:
    """`refusal_status` is the status of every API error that has no specific one."""
    fake.set_quirks(refusal_status=403)
    assert await client.status(f"{CHAT}get&key=wrong") == 403
    assert await client.status("/api/userinfo.php?user=nobody") == 403
    assert await client.status("/api/userinfo.php") == 400
    assert await client.status(f"{CHAT}get") == 200


@pytest.mark.parametrize(
    ("prefix", "printed"),
    [(BOM, b"\xef\xbb\xbf"), (PHP_WARNING, b"<br />"), (BOM + PHP_WARNING, b"\xef\xbb\xbf<br />")],
)
async def test_something_may_be_printed_before_the_json(
    fake: FakeServices, client: Client, prefix: str, printed: bytes
) -> None:
    """`prefix` precedes the JSON, and `content_type` is the type of responses."""
    fake.set_quirks(prefix=prefix, content_type="application/json")
    async with client.http.get(client.url(STATS)) as response:
        body = await response.read()
        assert response.content_type == "application/json"
    assert body.startswith(printed)
    assert body.endswith(b"}")


# -- with the library -----------------------------------------------------------------------------

VARIANTS: list[QuirkOptions] = [
    {},
    {"window": "oldest"},
    {"overlap": 3},
    {"repeat": 2},
    {"order": "descending"},
    {"order": "shuffled"},
    {"numbered": True},
    {"wrapped": True},
    {"wrapped": True, "numbered": True},
    {"empty": "object"},
    {"numbers_as_strings": True},
    {"bits_as_booleans": True},
    {"readall_marks": True},
    {"names": {"from": "sender", "from_id": "sender_id", "username": "regname"}},
    {"personal_key_param": "personalkey"},
    {"refusal_status": 400},
    {"prefix": BOM},
    {"prefix": PHP_WARNING},
    {"content_type": "application/json"},
]


def test_every_quirk_is_tried_with_the_library() -> None:
    """All but those that a session cannot compensate: mails without ids, and a dead key."""
    tried = {name for variant in VARIANTS for name in variant}
    assert tried | {"mail_ids", "dead_key"} == set(Quirks.__struct_fields__)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant) or "none")
async def test_a_session_returns_the_same_for_every_quirk(variant: QuirkOptions) -> None:
    """Messages, people and mails are equal for all quirks."""
    async with FakeServices(rates=UNLIMITED, **variant) as fake, fake.session() as session:
        assert (await session.peerbet.messages()).messages == ()
        assert await session.pythbots.unread_mail() == ()
        for number in range(3):
            fake.chat.say("alice", f"message {number}", bot=number == 1)
            fake.mail.deliver("tiro", f"mail {number}")
        assert await session.peerbet.post("hello") == 4
        page = await session.peerbet.messages(after=2)
        assert [(line.id, line.is_mine) for line in page.messages] == [(3, False), (4, True)]
        page = await session.peerbet.messages(last=3)
        assert [line.is_bot for line in page.messages] == [True, False, False]
        person = await session.pythbots.user("tiro")
        assert (person.id, person.username, person.online) == (221192, "tiro", True)
        staff = await session.pythbots.staff(220531305)
        assert [(member.username, member.time_held) for member in staff][2] == ("bob", 2592000)
        assert (await session.pythbots.stats(220531305)).messages == 125_000
        mails = await session.pythbots.unread_mail()
        assert sorted((mail.id or 0, mail.sender, mail.text) for mail in mails) == [
            (1, "tiro", "mail 0"),
            (2, "tiro", "mail 1"),
            (3, "tiro", "mail 2"),
        ]
        assert {mail.sender_id for mail in mails} == {221192}
        assert {mail.is_read for mail in await session.pythbots.all_mail()} == {True}
        with pytest.raises(Exception, match="User not found"):
            await session.pythbots.user("nobody")
        assert fake.violations == []


async def test_a_session_takes_null_for_an_empty_chat() -> None:
    """PHP writes that for a list that was never created."""
    async with FakeServices(empty="null") as fake, fake.session() as session:
        assert (await session.peerbet.messages()).messages == ()


@pytest.mark.parametrize("marks", [False, True])
async def test_a_session_reads_mails_that_have_no_ids(*, marks: bool) -> None:
    """Mails are then identified by their contents."""
    options = QuirkOptions(mail_ids=False, readall_marks=marks)
    async with FakeServices(rates=UNLIMITED, **options) as fake, fake.session() as session:
        fake.mail.deliver("tiro", "hello")
        fake.mail.deliver("tiro", "hello again")
        mails = await session.pythbots.unread_mail()
        assert [(mail.id, mail.text) for mail in mails] == [(None, "hello"), (None, "hello again")]


def test_quirks_are_a_value() -> None:
    """They are frozen, and can be converted to JSON and back."""
    quirks = Quirks(order="shuffled", names={"from": None})
    with pytest.raises(AttributeError):
        quirks.order = "ascending"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert msgspec.json.decode(msgspec.json.encode(quirks), type=Quirks) == quirks
