"""Users of the fake services have keys, and API keys have permissions and limits."""

from __future__ import annotations

from typing import Any

import pytest
from fake_client import CHAT, INFO, MAIL, Client, ManualClock, connect
from helpers import UNLIMITED

from pythpeer import AccessDeniedError, InvalidRequestError, RateLimitedError
from pythpeer.testing import FakeServices, SentMail

pytestmark = pytest.mark.anyio

STATS = "/api/cstats.php?chatid=220531305"


# -- users ----------------------------------------------------------------------------------------


async def test_every_user_has_a_mailbox_of_their_own(fake: FakeServices, client: Client) -> None:
    """A personal key opens that user's mailbox, and no other."""
    fake.mail.register("bob", "key-of-bob")
    fake.mail.deliver("alice", "for bob", to="bob")
    fake.mail.deliver("alice", "for the fake's own user")
    (mail,) = await client.get("/api/mail.php?personal_key=key-of-bob&readnew")
    assert mail["message"] == "for bob"
    (mail,) = await client.get(f"{MAIL}&readnew")
    assert mail["message"] == "for the fake's own user"
    assert [letter.read for letter in fake.mail.of("bob").inbox] == [True]


async def test_mail_arrives_at_other_users(fake: FakeServices, client: Client) -> None:
    """The sender is the key's user; it is delivered even if the recipient has no key yet."""
    fake.mail.register("bob", "key-of-bob")
    await client.get("/api/mail.php?personal_key=key-of-bob&user=alice&message=hi")
    await client.get(f"{MAIL}&user=Bob&message=hello")
    assert fake.mail.of("bob").sent == [SentMail("alice", "hi")]
    assert fake.mail.sent == [SentMail("bob", "hello")]
    assert [(mail.sender, mail.text) for mail in fake.mail.of("alice").inbox] == [("bob", "hi")]
    fake.mail.register("alice", "key-of-alice")
    (mail,) = await client.get("/api/mail.php?personal_key=key-of-alice&readnew")
    assert (mail["from"], mail["message"]) == ("bob", "hi")


async def test_a_replaced_user_keeps_the_mailbox(fake: FakeServices, client: Client) -> None:
    """A user that is replaced by `add` keeps the mailbox."""
    fake.mail.deliver("tiro", "first")
    fake.users.add(fake.username, user_id=77)
    await client.get(f"{MAIL}&id=77&message=note")
    assert [letter.text for letter in fake.mail.inbox] == ["first", "note"]


async def test_sessions_of_several_users(fake: FakeServices) -> None:
    """`fake.session("alice")` has her messages, her private ones, and her mail."""
    async with fake.session("alice") as alice, fake.session("bob") as bob:
        await alice.peerbet.post("hello, bob")
        fake.chat.say("alice", "psst", to="bob")
        (first, second) = (await bob.peerbet.messages()).messages
        assert (first.sender, first.is_mine, second.is_private) == ("alice", False, True)
        assert (await alice.peerbet.messages()).messages[0].is_mine
        await alice.pythbots.send_mail("bob", "dinner?")
        assert [mail.sender for mail in await bob.pythbots.unread_mail()] == ["alice"]
        assert await alice.pythbots.unread_mail() == ()
    assert fake.violations == []
    assert "fake-peerbet-key-of" not in str(fake.requests)


# -- API keys -------------------------------------------------------------------------------------


async def test_every_api_key_that_was_added_is_valid(fake: FakeServices, client: Client) -> None:
    """There may be several; from the first one on, PythBots requires one."""
    assert "error" not in await client.get(f"{INFO}tiro")
    for key in ("one", "other"):
        fake.api_keys.add(key)
        assert "error" not in await client.get(f"{INFO}tiro", **{"X-API-Key": key})
    assert await client.get(f"{INFO}tiro") == {"error": "Missing API key"}
    assert await client.get(f"{INFO}tiro", **{"X-API-Key": "third"}) == {"error": "Invalid API key"}
    assert await client.get(f"{CHAT}get")
    assert [violation.rule for violation in fake.violations] == ["key"]


async def test_an_api_key_has_permissions(fake: FakeServices, client: Client) -> None:
    """It is valid for the given endpoints, and has no access to others."""
    fake.api_keys.add("key", endpoints=["pythbots.userinfo", "pythbots.mail"])
    key = {"X-API-Key": "key"}
    assert "error" not in await client.get(f"{INFO}tiro", **key)
    assert await client.get(f"{MAIL}&readnew", **key) == []
    assert await client.get(STATS, **key) == {"error": "no access"}
    fake.api_keys.add("key")
    assert "error" not in await client.get(STATS, **key)


@pytest.mark.parametrize(
    ("limits", "times", "rejected_at"),
    [
        ({"per_hour": 2}, [0, 1, 2, 3599, 3600, 3600.5, 3601, 3602], [2, 3599, 3600.5, 3602]),
        ({"per_day": 1}, [0, 3600, 86399, 86400], [3600, 86399]),
        ({"per_week": 1}, [0, 86400, 604799, 604800], [86400, 604799]),
        ({"per_month": 1}, [0, 604800, 2591999, 2592000], [604800, 2591999]),
        ({"per_hour": 2, "per_day": 3}, [0, 1, 2, 3600, 3601, 86400], [2, 3601]),
        ({"per_day": 0}, [0, 86400], [0, 86400]),
    ],
)
async def test_an_api_key_has_limits(
    limits: dict[str, Any], times: list[float], rejected_at: list[float]
) -> None:
    """So many requests in any hour, day, week or month; a rejected one does not count."""
    clock = ManualClock()
    rejected = []
    async with FakeServices(rates=UNLIMITED, clock=clock) as fake, connect() as http:
        client = Client(fake, http)
        fake.api_keys.add("key", **limits)
        for clock.now in times:
            answer = await client.get(f"{INFO}tiro", **{"X-API-Key": "key"})
            if answer == {"error": "Request limit reached"}:
                rejected.append(clock.now)
    assert rejected == rejected_at


async def test_limits_are_reset_with_the_clock() -> None:
    """A fake that is started again has another clock, so its counts start at 0."""
    fake = FakeServices(rates=UNLIMITED)
    fake.api_keys.add("key", per_hour=1)
    for _ in range(2):
        async with fake, connect() as http:
            answer = await Client(fake, http).get(f"{INFO}tiro", **{"X-API-Key": "key"})
            assert "error" not in answer


def test_invalid_rights_are_rejected() -> None:
    """Unknown endpoints, and limits that are not numbers."""
    fake = FakeServices()
    for endpoint in ("pythbots.users", "peerbet.chat.get"):
        with pytest.raises(InvalidRequestError, match=endpoint):
            fake.api_keys.add("key", endpoints=[endpoint])
    with pytest.raises(InvalidRequestError, match="limit"):
        fake.api_keys.add("key", per_hour=-1)
    assert not fake.api_keys


async def test_a_session_classifies_the_api_errors(fake: FakeServices) -> None:
    """A wrong key and a missing permission deny access; a limit throttles."""
    fake.api_keys.add("key", endpoints=["pythbots.userinfo"], per_hour=1)
    for wrong in ("wrong", None):
        async with fake.session(pythbots_api_key=wrong) as session:
            with pytest.raises(AccessDeniedError):
                await session.pythbots.user("tiro")
    async with fake.session(pythbots_api_key="key") as session:
        with pytest.raises(AccessDeniedError, match="no access"):
            await session.pythbots.stats(220531305)
        await session.pythbots.user("tiro")
        with pytest.raises(RateLimitedError, match="Request limit reached"):
            await session.pythbots.user("tiro")


async def test_no_api_key_is_recorded(fake: FakeServices, client: Client) -> None:
    """The record contains no key, in whatever part of a request it was."""
    fake.api_keys.add("canary")
    fake.mail.register("bob", "secret-of-bob")
    await client.status(f"{INFO}canary")
    await client.status(f"{INFO}secret-of-bob")
    assert [arrival.target for arrival in fake.requests] == [f"{INFO}***"] * 2
