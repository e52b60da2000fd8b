"""The request checker reports requests that are too early or incorrect."""

from __future__ import annotations

import pickle
from typing import get_args

import aiohttp
import pytest
from fake_client import CHAT, INFO, MAIL, SET, Client, ManualClock, connect

from pythpeer import Rate
from pythpeer.testing import FakeServices, Rule, Violation

pytestmark = pytest.mark.anyio


# -- violations: what is asked, and how -----------------------------------------------------------

GOOD = [
    f"{CHAT}get",
    f"{CHAT}get&key=fake-peerbet-key&mid=1&last=300",
    f"{SET}&msg=a%20b%2Bc%26~-._&bot=1",
    f"{SET}&msg=%f0%9f%98%80",
    f"{INFO}tiro",
    "/api/crank.php?chatid=220531305",
    "/api/cstats.php?chatid=220531305",
    f"{MAIL}&readnew",
    f"{MAIL}&readall",
    f"{MAIL}&user=tiro&message=readnew%3D",
    f"{MAIL}&id=221192&message=hi",
]

BAD: list[tuple[str, str, Rule]] = [
    (f"{SET}&msg=a+b", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=it's", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=a/b", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=a?", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=%zz", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=50%", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=%e", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=%ff", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=%C3&bot=%A9", "peerbet.chat.set", "encoding"),
    (f"{SET}&msg=%ED%A0%80", "peerbet.chat.set", "encoding"),
    (f"{MAIL}&readnew=", "pythbots.mail", "flag"),
    (f"{MAIL}&readall=1", "pythbots.mail", "flag"),
    (f"{INFO}tiro&api_key=k", "pythbots.userinfo", "key-in-url"),
    (f"{CHAT}set&msg=hi", "peerbet.chat.set", "key"),
    (f"{CHAT}set&key=&msg=hi", "peerbet.chat.set", "key"),
    ("/api/mail.php?readnew", "pythbots.mail", "key"),
    (SET, "peerbet.chat.set", "parameter"),
    (f"{SET}&msg=", "peerbet.chat.set", "parameter"),
    (INFO, "pythbots.userinfo", "parameter"),
    ("/api/crank.php", "pythbots.crank", "parameter"),
    ("/api/cstats.php?chatid", "pythbots.cstats", "parameter"),
    (f"{MAIL}&user=tiro", "pythbots.mail", "parameter"),
    (f"{MAIL}&message=hi", "pythbots.mail", "parameter"),
    (CHAT, "peerbet.chat", "action"),
    ("/api/chat/", "peerbet.chat", "action"),
    (f"{CHAT}delete", "peerbet.chat", "action"),
    ("/api/chat", "peerbet", "path"),
    ("/api/rank.php", "pythbots", "path"),
]


@pytest.mark.parametrize("target", GOOD)
async def test_good_requests_are_no_violations(
    fake: FakeServices, client: Client, target: str
) -> None:
    """Documented requests cause no violation."""
    assert "error" not in await client.get(target)
    assert fake.violations == []


@pytest.mark.parametrize(("target", "endpoint", "rule"), BAD)
async def test_bad_requests_are_violations(
    fake: FakeServices, client: Client, target: str, endpoint: str, rule: Rule
) -> None:
    """Each error in a request is reported once, with the endpoint's name."""
    await client.status(target)
    assert [(violation.endpoint, violation.rule) for violation in fake.violations] == [
        (endpoint, rule)
    ]


@pytest.mark.parametrize("text", ["a b", "é"])
async def test_bytes_that_no_url_has_are_violations(
    fake: FakeServices, client: Client, text: str
) -> None:
    """A raw space or non-ASCII byte is reported; of the service, if it cannot be parsed."""
    await client.status(f"{SET}&msg={text}")
    (violation,) = fake.violations
    assert violation.rule == "encoding"
    assert violation.endpoint in ("peerbet", "peerbet.chat.set")


async def test_flags_are_understood_even_with_a_value(fake: FakeServices, client: Client) -> None:
    """`readnew=` is a violation, and has its effect, as in PHP."""
    fake.mail.deliver("tiro", "first")
    assert len(await client.get(f"{MAIL}&readnew=")) == 1


async def test_a_plus_is_a_space(fake: FakeServices, client: Client) -> None:
    """A raw `+` is a violation, and is read as a space, as in PHP."""
    await client.get(f"{SET}&msg=a+b")
    assert fake.chat.messages[-1].text == "a b"


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
async def test_everything_is_a_get(fake: FakeServices, client: Client, method: str) -> None:
    """Any other method is a violation, is rejected, and has no effect."""
    assert await client.status(f"{SET}&msg=hi", method) == 405
    assert [violation.rule for violation in fake.violations] == ["method"]
    assert fake.chat.messages == []


async def test_aiohttps_own_user_agent_is_a_violation(fake: FakeServices) -> None:
    """A client must have a User-Agent of its own."""
    async with aiohttp.ClientSession() as http:
        await Client(fake, http).get(f"{CHAT}get")
    assert [violation.rule for violation in fake.violations] == ["agent"]


async def test_a_request_can_be_wrong_in_several_ways(fake: FakeServices, client: Client) -> None:
    """Every broken rule is reported."""
    await client.status("/api/mail.php?readnew=&message=+", "POST")
    rules = {violation.rule for violation in fake.violations}
    assert rules == {"encoding", "flag", "method", "key"}


def test_every_rule_is_tested() -> None:
    """Every rule has an example in this file."""
    assert {rule for _, _, rule in BAD} | {"pace", "method", "agent"} == set(get_args(Rule))


async def test_violations_read_well() -> None:
    """A violation is a frozen value, whose text has the endpoint, the detail and the rule."""
    violation = Violation("pythbots.mail", "flag", "readnew is a bare flag")
    assert str(violation) == "pythbots.mail: readnew is a bare flag [flag]"
    assert pickle.loads(pickle.dumps(violation)) == violation
    with pytest.raises(AttributeError):
        violation.detail = ""  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# -- violations: pace -----------------------------------------------------------------------------


async def arrivals(
    times: list[float], target: str = f"{CHAT}get", rates: dict[str, Rate] | None = None
) -> list[tuple[float, str]]:
    """Send requests at those times; return which of them were too early, with the details."""
    clock = ManualClock()
    early: list[tuple[float, str]] = []
    async with FakeServices(clock=clock, rates=rates) as fake, connect() as http:
        client = Client(fake, http)
        for clock.now in times:
            await client.status(target)
            early += ((clock.now, violation.detail) for violation in fake.violations)
            fake.violations.clear()
    return early


@pytest.mark.parametrize(
    "target", [f"{CHAT}get", f"{SET}&msg=hi", f"{MAIL}&readnew"], ids=["get", "set", "mail"]
)
async def test_one_request_a_second(target: str) -> None:
    """Chat and mail allow one request per second; an early one is reported with the seconds."""
    early = await arrivals([0.0, 1.0, 1.6, 2.6, 3.7], target)
    assert early == [(1.6, "0.400 s too early (1 every 1 s, bursts of 1)")]


@pytest.mark.parametrize(
    "target", [f"{INFO}tiro", "/api/crank.php?chatid=1", "/api/cstats.php?chatid=1"]
)
async def test_look_ups_allow_bursts_of_three(target: str) -> None:
    """Look-ups have three tokens at most, and one more every second."""
    early = await arrivals([0.0, 0.0, 0.0, 0.5, 1.5, 10.0, 10.0, 10.0, 10.9], target)
    assert [at for at, _ in early] == [0.5, 10.9]


async def test_nothing_saves_up_with_a_burst_of_one() -> None:
    """A long pause allows one request, not two."""
    assert [at for at, _ in await arrivals([0.0, 60.0, 60.5])] == [60.5]


async def test_a_millisecond_early_is_in_time() -> None:
    """Timers are not exact; more than 1 ms is too early."""
    assert await arrivals([0.0, 0.9995, 1.999]) == []
    assert [at for at, _ in await arrivals([0.0, 0.998])] == [0.998]


async def test_early_requests_do_not_accumulate() -> None:
    """Each interval is checked separately: after a flood, one second is enough."""
    assert [at for at, _ in await arrivals([0.0, 0.1, 0.2, 1.2, 2.2])] == [0.1, 0.2]


async def test_the_rates_can_be_changed() -> None:
    """`rates` sets the rate of an endpoint; the guard, a client's precaution, has no effect."""
    rates = {"peerbet.chat.get": Rate(0.25, burst=2, guard=9.0)}
    early = await arrivals([0.0, 0.0, 0.25, 0.4], rates=rates)
    assert [at for at, _ in early] == [0.4]
    assert await arrivals([0.0] * 9, rates={"peerbet.chat.get": Rate(0.0)}) == []


async def test_unknown_endpoints_have_no_rate() -> None:
    """A misspelt endpoint name is an error."""
    with pytest.raises(ValueError, match=r"peerbet\.chat\.got"):
        FakeServices(rates={"peerbet.chat.got": Rate(1.0)})


async def test_endpoints_and_keys_have_separate_tokens() -> None:
    """Each endpoint has a separate rate, and so has each key."""
    async with FakeServices(clock=ManualClock()) as fake, connect() as http:
        client = Client(fake, http)
        fake.chat.register("alice", "key-of-alice")
        await client.get(f"{CHAT}get")
        await client.get(f"{CHAT}get&key={fake.peerbet_key}")
        await client.get(f"{CHAT}get&key=key-of-alice")
        await client.get(f"{SET}&msg=hi")
        await client.get(f"{MAIL}&readnew")
        assert fake.violations == []
        await client.get(f"{CHAT}get&key=key-of-alice")
        assert [violation.rule for violation in fake.violations] == ["pace"]


async def test_operations_of_mail_share_one_rate() -> None:
    """Sending and reading mail are one endpoint."""
    async with FakeServices(clock=ManualClock()) as fake, connect() as http:
        client = Client(fake, http)
        await client.get(f"{MAIL}&readnew")
        await client.get(f"{MAIL}&user=tiro&message=hi")
        assert [violation.rule for violation in fake.violations] == ["pace"]
