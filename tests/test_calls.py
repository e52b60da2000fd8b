"""Calls: the result or the error, the repetitions, and the cost in tokens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
import pytest
from faults import DROPPED_RESPONSES
from helpers import now
from raw_server import (
    CALLS,
    GOOD,
    READS,
    RawServer,
    Step,
    answer,
    closed_port,
    drop,
    error_page,
    failure,
    hang,
    http,
    open_session,
    send,
    trickle,
)

from pythpeer import (
    DecodeError,
    Endpoint,
    HttpStatusError,
    InvalidRequestError,
    Mail,
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    RateLimitedError,
    Retry,
    Secret,
    Session,
    SessionClosedError,
    TransportError,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def outcome(name: str, step: Step) -> PythpeerError:
    """Return the error of a call that is answered so; it is sent once."""
    async with RawServer(step) as server, open_session(server.url) as session:
        error = await failure(name, session, server.url)
        assert len(server.requests) == 1
        assert error.endpoint == CALLS[name].endpoint
        return error


# -- requests -------------------------------------------------------------------------------------

PEERBET: Final = "/api/chat/?action="
MAIL: Final = "/api/mail.php?personal_key=personal-key"

TARGETS: Final[dict[str, tuple[Callable[[Session], Awaitable[object]], str]]] = {
    "messages": (lambda s: s.peerbet.messages(), PEERBET + "get&key=peerbet-key"),
    "messages after": (
        lambda s: s.peerbet.messages(after=0),
        PEERBET + "get&key=peerbet-key&mid=0",
    ),
    "messages last": (
        lambda s: s.peerbet.messages(after=2**31 - 1, last=300),
        PEERBET + "get&key=peerbet-key&mid=2147483647&last=300",
    ),
    "post": (
        lambda s: s.peerbet.post("what & why?"),
        PEERBET + "set&key=peerbet-key&msg=what%20%26%20why%3F",
    ),
    "post as bot": (
        lambda s: s.peerbet.post("pong", bot=True),
        PEERBET + "set&key=peerbet-key&msg=pong&bot=1",
    ),
    "user by name": (lambda s: s.pythbots.user("ti ro"), "/api/userinfo.php?user=ti%20ro"),
    "user by id": (lambda s: s.pythbots.user(221192), "/api/userinfo.php?user=221192"),
    "staff": (lambda s: s.pythbots.staff(220531305), "/api/crank.php?chatid=220531305"),
    "stats": (lambda s: s.pythbots.stats(220531305), "/api/cstats.php?chatid=220531305"),
    "mail to a name": (
        lambda s: s.pythbots.send_mail("tiro", "a+b c"),
        MAIL + "&user=tiro&message=a%2Bb%20c",
    ),
    "mail to an id": (
        lambda s: s.pythbots.send_mail(221192, "hi"),
        MAIL + "&id=221192&message=hi",
    ),
    "unread mail": (lambda s: s.pythbots.unread_mail(), MAIL + "&readnew"),
    "all mail": (lambda s: s.pythbots.all_mail(), MAIL + "&readall"),
}


@pytest.mark.parametrize("name", TARGETS)
async def test_a_request_line_is_exact(name: str) -> None:
    """Each call of the services sends exactly what is documented, in that order."""
    run, target = TARGETS[name]
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await run(session)
        assert [asked.head.split(b"\r\n")[0] for asked in server.requests] == [
            f"GET {target} HTTP/1.1".encode()
        ]


@pytest.mark.parametrize("name", TARGETS)
async def test_the_api_key_goes_to_pythbots_only(name: str) -> None:
    """The API key is sent in a header, to its service only, and never in a URL."""
    run, target = TARGETS[name]
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await run(session)
        keys = [value for header, value in server.requests[0].headers if header == "X-API-Key"]
        assert keys == ([] if target.startswith(PEERBET) else ["api-key"])
        assert "api-key" not in server.targets[0]


async def test_keys_that_are_not_given_are_not_sent() -> None:
    """Without keys, reads are sent without them, and a call that needs one raises immediately."""
    async with RawServer(answer()) as server:
        session = open_session(
            server.url, peerbet_key=None, personal_key=None, pythbots_api_key=None
        )
        async with session:
            await session.peerbet.messages()
            await session.pythbots.user("tiro")
            for name in ("post", "unread_mail", "send_mail", "all_mail"):
                error = await failure(name, session, server.url)
                assert isinstance(error, InvalidRequestError)
        assert server.targets == ["/api/chat/?action=get", "/api/userinfo.php?user=tiro"]
        assert b"api-key" not in server.requests[1].head.lower()


async def test_the_parameter_of_the_personal_key_can_be_changed() -> None:
    """An option sets the name of the parameter for the key of the mail service."""
    async with RawServer(answer()) as server:
        async with open_session(server.url, personal_key_param="personalkey") as session:
            await session.pythbots.all_mail()
        assert server.targets == ["/api/mail.php?personalkey=personal-key&readall"]


async def test_a_key_is_encoded_like_any_text() -> None:
    """Characters of a key that mean something in a URL arrive unchanged."""
    async with RawServer(answer()) as server:
        async with open_session(server.url, peerbet_key="a b&c=d/é") as session:
            await session.peerbet.messages()
        assert server.targets == ["/api/chat/?action=get&key=a%20b%26c%3Dd%2F%C3%A9"]


async def test_a_custom_endpoint_gets_no_key() -> None:
    """A custom endpoint is sent its fixed query, then the parameters, and nothing else."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        endpoint = Endpoint("dice", f"{server.url}/api/dice/", query={"action": "roll"})
        await session.call(endpoint, n=3, none=None, key=Secret("k/1"), yes=True, half=0.5)
        assert server.targets == ["/api/dice/?action=roll&n=3&key=k%2F1&yes=1&half=0.5"]
        assert b"api-key" not in server.requests[0].head.lower()


# -- errors ---------------------------------------------------------------------------------------


async def test_a_read_with_an_invalid_response_shows_its_beginning() -> None:
    """An excerpt of at most 200 characters shows what was received."""
    error = await outcome("user", answer(b"<html>\r\n\x00\x1b[31m" + b"x" * 1000))
    assert isinstance(error, DecodeError)
    assert error.excerpt.startswith("<html>")
    assert error.excerpt.isprintable()
    assert len(error.excerpt) == 200


@pytest.mark.parametrize("name", CALLS)
async def test_a_session_that_is_not_open_sends_nothing(name: str) -> None:
    """Before opening and after closing, a call raises an error, and spends no token."""
    async with RawServer(answer()) as server:
        session = open_session(server.url, rates={})
        assert isinstance(await failure(name, session, server.url), SessionClosedError)
        async with session:
            pass
        assert isinstance(await failure(name, session, server.url), SessionClosedError)
        assert all(limiter.available for limiter in session.limiters.values())
        assert server.connection_count == 0


async def test_a_closed_session_raises_before_any_waiting() -> None:
    """Where a call would have to wait for a token, one of a closed session fails immediately."""
    async with RawServer(answer()) as server:
        session = open_session(server.url, rates={"peerbet.chat.set": Rate(30.0)})
        async with session:
            await session.peerbet.post("one")
        start = now()
        assert isinstance(await failure("post", session, server.url), SessionClosedError)
        assert now() == start


# -- retries --------------------------------------------------------------------------------------

PASSING: Final = {
    "drop": drop(),
    "500": error_page(500),
    "503": error_page(503),
    "429": error_page(429),
    "garbage": send(b"garbage\r\n\r\n"),
    "body cut": drop(http(200, GOOD[:9], length=99)),
}
"""Failures that may pass before the next attempt."""


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_the_number_of_attempts_of_a_read(attempts: int, fault: str) -> None:
    """``attempts`` counts all of them, and the last failure is the one that is raised."""
    async with (
        RawServer(PASSING[fault]) as server,
        open_session(server.url, retry=Retry(attempts)) as session,
    ):
        error = await failure("user", session, server.url)
        assert isinstance(error, (TransportError, HttpStatusError))
        assert len(server.requests) == attempts


async def test_four_attempts_are_the_default() -> None:
    """By default, a session tries a read four times."""
    async with (
        RawServer(error_page(500)) as server,
        open_session(server.url, retry=Retry()) as session,
    ):
        await failure("user", session, server.url)
        assert len(server.requests) == 4


@pytest.mark.parametrize("name", READS)
async def test_a_read_that_succeeds_at_last_succeeds(name: str) -> None:
    """Each attempt can fail in a different way; the first result counts."""
    steps = [*PASSING.values(), answer()]
    async with (
        RawServer(*steps) as server,
        open_session(server.url, retry=Retry(len(steps))) as session,
    ):
        await CALLS[name].run(session, server.url)
        assert len(server.requests) == len(steps)


async def test_a_read_that_timed_out_is_tried_again() -> None:
    """Each attempt has a separate time limit."""
    async with (
        RawServer(hang(), hang(http(200, b"", length=5)), answer()) as server,
        open_session(server.url, timeout=3.0, retry=Retry(3, base_delay=0.0)) as session,
    ):
        start = now()
        await CALLS["user"].run(session, server.url)
        assert now() - start == pytest.approx(6.0, abs=0.01)


async def test_a_read_that_never_left_is_tried_again() -> None:
    """A refused connection is repeated like any other failure."""
    with closed_port() as url:
        async with open_session(url, retry=Retry(3, base_delay=8.0)) as session:
            random.seed(7)
            start = now()
            assert isinstance(await failure("user", session, url), TransportError)
            random.seed(7)
            delays = random.uniform(0.0, 8.0), random.uniform(0.0, 16.0)
            assert now() - start == pytest.approx(sum(delays), abs=0.01)


async def test_delays_are_spread_over_the_whole_step() -> None:
    """The delay of each repetition is a random part of a step that doubles up to its maximum."""
    random.seed(1)
    waits: list[list[float]] = []
    for _ in range(25):
        async with (
            RawServer(error_page(500)) as server,
            open_session(server.url, retry=Retry(5, base_delay=2.0, max_delay=7.0)) as session,
        ):
            await failure("user", session, server.url)
            times = [asked.at for asked in server.requests]
            waits.append([later - previous for previous, later in pairwise(times)])
    for step, step_waits in zip((2.0, 4.0, 7.0, 7.0), zip(*waits, strict=True), strict=True):
        assert 0.0 <= min(step_waits) < step / 4
        assert step * 3 / 4 < max(step_waits) <= step + 0.001


@pytest.mark.parametrize("name", READS)
async def test_a_read_waits_for_the_time_of_a_retry_after(name: str) -> None:
    """After a 429 with a Retry-After the next request is sent no earlier than that."""
    dates = [("Date", formatdate(0, usegmt=True)), ("Retry-After", formatdate(9, usegmt=True))]
    steps = [answer(b"", 429, [("Retry-After", "7")]), answer(b"{}", 429, dates), answer()]
    async with (
        RawServer(*steps) as server,
        open_session(server.url, retry=Retry(3, base_delay=0.0)) as session,
    ):
        await CALLS[name].run(session, server.url)
        first, second, third = (asked.at for asked in server.requests)
        assert second - first == pytest.approx(7.0, abs=0.1)
        assert second - first >= 7.0
        assert third - second == pytest.approx(9.0, abs=0.1)
        assert third - second >= 9.0


@pytest.mark.parametrize("name", CALLS)
async def test_a_wait_that_is_too_long_fails_immediately(name: str) -> None:
    """A Retry-After over ``max_wait`` is not waited for: the error has its seconds."""
    async with (
        RawServer(answer(b"", 429, [("Retry-After", "61")])) as server,
        open_session(server.url, retry=Retry(4), max_wait=60.0) as session,
    ):
        start = now()
        error = await failure(name, session, server.url)
        assert isinstance(error, RateLimitedError)
        assert (error.status, error.retry_after) == (429, 61.0)
        assert now() - start < 0.01
        assert len(server.requests) == 1
        again = await failure(name, session, server.url)
        assert isinstance(again, RateLimitedError)
        assert again.status is None
        assert again.retry_after == pytest.approx(61.0, abs=0.1)
        assert now() - start < 0.01
        assert len(server.requests) == 1


async def test_a_service_that_is_down_is_not_used_before_its_retry_after() -> None:
    """A Retry-After of a 503 counts like one of a 429."""
    steps = (answer(b"", 503, [("Retry-After", "7")]), answer())
    async with (
        RawServer(*steps) as server,
        open_session(server.url, retry=Retry(3, base_delay=0.0)) as session,
    ):
        await session.pythbots.user("tiro")
        first, second = (asked.at for asked in server.requests)
        assert 7.0 <= second - first < 7.1


INVALID_BODIES: Final = {
    "cut": lambda head: drop(http(*head, length=999)),
    "too large": lambda head: answer(b" " * 5000, head[0], head[2]),
    "without end": lambda head: hang(http(*head, length=999)),
    "encoded": lambda head: send(http(head[0], b"", [*head[2], ("Content-Encoding", "compress")])),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("body_name", INVALID_BODIES)
async def test_a_retry_after_counts_although_the_body_is_damaged(
    body_name: str, status: int
) -> None:
    """A Retry-After is in the head: a body that cannot be read does not matter."""
    head = (status, b"<html>", [("Retry-After", "7")])
    for name in ("user", "post"):
        async with (
            RawServer(INVALID_BODIES[body_name](head), answer()) as server,
            open_session(
                server.url, retry=Retry(2, base_delay=0.0), max_body=1000, timeout=2.0
            ) as session,
        ):
            if name == "user":
                await session.pythbots.user("tiro")
            else:
                error = await failure("post", session, server.url)
                assert type(error) is (RateLimitedError if status == 429 else OutcomeUnknownError)
                assert error.status == status
                await session.peerbet.post("again")
            first, second = (asked.at for asked in server.requests)
            assert second - first >= 7.0


async def test_a_throttled_write_delays_the_next_one() -> None:
    """The pause of a 429 holds for the endpoint, not only for the call that received it."""
    steps = (answer(b"", 429, [("Retry-After", "5")]), answer())
    async with RawServer(*steps) as server, open_session(server.url) as session:
        error = await failure("post", session, server.url)
        assert isinstance(error, RateLimitedError)
        assert error.retry_after == 5.0
        assert await session.peerbet.post("again") == 7
        first, second = (asked.at for asked in server.requests)
        assert second - first >= 5.0


# -- tokens and time ------------------------------------------------------------------------------

SLOW: Final = {"pythbots.userinfo": Rate(30.0), "peerbet.chat.set": Rate(30.0)}


@pytest.mark.parametrize("name", ["user", "post"])
async def test_a_request_that_never_left_releases_its_token(name: str) -> None:
    """Nothing was sent, so the next call does not wait."""
    with closed_port() as url:
        async with open_session(url, rates=SLOW) as session:
            start = now()
            for _ in range(5):
                error = await failure(name, session, url)
                assert isinstance(error, TransportError)
                assert error.sent is False
                assert session.limiters[CALLS[name].endpoint].available == 1
            assert now() == start


@pytest.mark.parametrize("fault", ["fin", "100 Continue, fin"])
@pytest.mark.parametrize("name", ["user", "post"])
async def test_a_request_that_may_have_left_spends_its_token(name: str, fault: str) -> None:
    """The service may have counted it, so the next call waits."""
    async with (
        RawServer(DROPPED_RESPONSES[fault]) as server,
        open_session(server.url, rates=SLOW) as session,
    ):
        await failure(name, session, server.url)
        assert session.limiters[CALLS[name].endpoint].available == 0
        await failure(name, session, server.url)
        first, second = (asked.at for asked in server.requests)
        assert second - first >= 30.0


@pytest.mark.parametrize("name", ["user", "post"])
async def test_a_request_cancelled_while_connecting_releases_its_token(name: str) -> None:
    """A cancelled call that has not sent anything costs nothing."""
    silent = Step(lambda peer: peer.wait_closed())
    async with RawServer(silent) as server:
        url = server.url.replace("http:", "https:")  # the handshake is never answered
        async with open_session(url, rates=SLOW) as session:
            task = asyncio.ensure_future(CALLS[name].run(session, url))
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert session.limiters[CALLS[name].endpoint].available == 1


@pytest.mark.parametrize("name", ["user", "post"])
async def test_waiting_for_a_token_does_not_count_for_the_time_limit(name: str) -> None:
    """The time limit of an attempt begins when it has its token."""
    async with (
        RawServer(answer()) as server,
        open_session(server.url, rates=SLOW, timeout=1.0) as session,
    ):
        await CALLS[name].run(session, server.url)
        await CALLS[name].run(session, server.url)
        assert server.requests[1].at - server.requests[0].at >= 30.0


async def test_a_response_makes_the_next_wait_shorter() -> None:
    """The guard is for requests that may still be under way: a response shows that one is not."""
    rate = Rate(10.0, guard=5.0)
    async with (
        RawServer(
            answer(), trickle(b"", 0.0, first=http(200, GOOD[:9], length=99)), answer()
        ) as server,
        open_session(server.url, rates={"pythbots.userinfo": rate}, timeout=8.0) as session,
    ):
        await session.pythbots.user("tiro")
        await failure("user", session, server.url)
        await session.pythbots.user("tiro")
        times = [asked.at for asked in server.requests]
        assert [later - previous for previous, later in pairwise(times)] == pytest.approx(
            [10.0] * 2, abs=0.1
        )


async def test_a_request_without_a_response_is_followed_after_the_guard() -> None:
    """Where no response shows when a request arrived, the guard is added to the interval."""
    rate = Rate(10.0, guard=5.0)
    async with (
        RawServer(hang(), answer()) as server,
        open_session(server.url, rates={"pythbots.userinfo": rate}, timeout=8.0) as session,
    ):
        await failure("user", session, server.url)
        await session.pythbots.user("tiro")
        first, second = (asked.at for asked in server.requests)
        assert second - first == pytest.approx(15.0, abs=0.1)


async def test_each_attempt_takes_a_token() -> None:
    """Repetitions are paced like any other request."""
    async with (
        RawServer(error_page(500)) as server,
        open_session(
            server.url, rates={"pythbots.userinfo": Rate(10.0)}, retry=Retry(4, base_delay=0.0)
        ) as session,
    ):
        await failure("user", session, server.url)
        times = [asked.at for asked in server.requests]
        assert [later - previous for previous, later in pairwise(times)] == pytest.approx(
            [10.0] * 3, abs=0.1
        )


async def test_a_queue_that_is_too_long_fails_immediately() -> None:
    """A call that would wait longer than ``max_wait`` in the queue does not even begin."""
    async with (
        RawServer(answer()) as server,
        open_session(server.url, rates=SLOW, max_wait=45.0) as session,
    ):
        await session.peerbet.post("one")
        waiting = asyncio.ensure_future(session.peerbet.post("two"))
        await asyncio.sleep(1.0)
        start = now()
        error = await failure("post", session, server.url)
        assert isinstance(error, RateLimitedError)
        assert error.status is None
        assert error.retry_after is not None
        assert error.retry_after > 45.0
        assert now() == start
        assert await waiting == 7


async def test_a_failure_that_cannot_be_repeated_in_time_is_the_error() -> None:
    """It is raised, and not that the next token is later than ``max_wait``."""
    async with (
        RawServer(error_page(503)) as server,
        open_session(
            server.url,
            rates={"pythbots.userinfo": Rate(10.0)},
            retry=Retry(4, base_delay=0.0),
            max_wait=5.0,
        ) as session,
    ):
        error = await failure("user", session, server.url)
        assert isinstance(error, HttpStatusError)
        assert error.status == 503
        assert len(server.requests) == 1


# -- cancellation ---------------------------------------------------------------------------------

STAGES: Final = {
    "silence": hang(),
    "within the head": hang(b"HTTP/1.1 200 OK\r\nContent-"),
    "within the body": hang(http(200, GOOD[:9], length=99)),
    "by drips": trickle(GOOD, 0.7, first=http(200, b"", length=99)),
}

ENDING_IMMEDIATELY: Final = [name for name in CALLS if name != "unread_mail"]
"""All calls but the one whose request continues when its caller is cancelled."""


def cancelling() -> int:
    """Return how many cancellations this task has not handled."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ENDING_IMMEDIATELY)
async def test_a_time_limit_of_the_caller_works(name: str, stage: str) -> None:
    """``asyncio.timeout`` and ``anyio.fail_after`` end a call in time, and leave nothing behind."""
    async with RawServer(STAGES[stage], STAGES[stage], answer()) as server:
        async with open_session(server.url, retry=Retry(4)) as session:
            start = now()
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(3.0):
                    await CALLS[name].run(session, server.url)
            assert not isinstance(caught.value, PythpeerError)
            assert cancelling() == 0
            with pytest.raises(TimeoutError):
                with anyio.fail_after(3.0):
                    await CALLS[name].run(session, server.url)
            assert cancelling() == 0
            assert now() - start == pytest.approx(6.0, abs=0.01)
            await CALLS[name].run(session, server.url)
        assert len(server.requests) == 3


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ENDING_IMMEDIATELY)
async def test_a_cancelled_call_is_cancelled(name: str, stage: str) -> None:
    """``Task.cancel`` ends a call immediately, as a cancellation."""
    async with (
        RawServer(STAGES[stage]) as server,
        open_session(server.url, retry=Retry(4)) as session,
    ):
        task = asyncio.ensure_future(CALLS[name].run(session, server.url))
        await asyncio.sleep(3.0)
        task.cancel()
        start = now()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == start
        assert task.cancelled()
        await asyncio.sleep(0.1)
        assert server.open_connections == []
        assert len(server.requests) == 1


async def test_a_call_cancelled_between_attempts_sends_no_more() -> None:
    """The delay before a repetition can be cancelled too."""
    async with (
        RawServer(error_page(500)) as server,
        open_session(server.url, retry=Retry(4, base_delay=1000.0, max_delay=1000.0)) as session,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await CALLS["user"].run(session, server.url)
        await asyncio.sleep(5000.0)
        assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["asyncio", "anyio", "task"])
async def test_unread_mail_is_fetched_completely(method: str) -> None:
    """The caller is cancelled immediately; the destructive read continues, its items are kept."""
    slow = trickle(b'[{"id":5,"message":"hi"}]', 0.1, first=http(200, b"", length=25))
    got: tuple[Mail, ...] = ()
    async with RawServer(slow, answer(b"[]")) as server, open_session(server.url) as session:
        start = now()
        if method == "asyncio":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await session.pythbots.unread_mail()
        elif method == "anyio":
            with anyio.move_on_after(1.0):
                got = await session.pythbots.unread_mail()
                await anyio.lowlevel.checkpoint()
                pytest.fail("the scope's time is over")
        else:
            task = asyncio.ensure_future(session.pythbots.unread_mail())
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert now() - start == 1.0
        assert cancelling() == 0
        got += await session.pythbots.unread_mail()
        assert [mail.id for mail in got] == [5]
        assert [target[-8:] for target in server.targets] == ["&readnew"] * 2
