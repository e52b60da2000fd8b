"""The script `bucket.lua` grants the same tokens as `SharedBucket`, for any sequence of events.

Both use steps of a 64th of a second, which neither has to round.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import pytest
from fakeredis import FakeServer
from helpers import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis_virtual import EPOCH, Commands

from pythpeer import Rate
from pythpeer.pacing.bucket import BucketState
from pythpeer.pacing.shared import TOKEN_TTL, SharedBucket, _State
from pythpeer.stores.redis.scripts import script

TICK: Final = 1 / 64
KEYS: Final = ("state", "server", "alive", "salt:0")
FOREVER: Final = 10**15


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


class ScriptUnderTest:
    """The script, on a separate server whose clock is set by the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self._responses: list[bytes] = []
        self._server = Commands(FakeServer(version=(7,)), 0, client_class=Redis)
        self._server.clock = lambda: self.now
        self._server.write = self._responses.append
        self._execute("HSET", "server", "since", 0, "salt", 0)  # long before the test

    def _execute(self, *words: object) -> bytes:
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in (str(w).encode() for w in words)]
        self._server.sendall(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
        return self._responses.pop()

    def send(
        self, owner: str, rate: Rate, *events: object, session_timeout: float = 0.0
    ) -> tuple[float, float]:
        """Return how long to wait, and how long it is paused, in seconds."""
        self._execute("ZADD", "alive", FOREVER * 10, owner)
        numbers = (
            microseconds(rate.interval),
            rate.burst,
            microseconds(rate.guard),
            microseconds(session_timeout),
            0,
            0,
        )
        response = self._execute("EVAL", script("bucket").text, 4, *KEYS, owner, *numbers, *events)
        assert response.startswith(b"*5\r\n:"), response
        wait, paused = (int(line[1:]) / 1e6 for line in response.split(b"\r\n")[1:3])
        return wait, paused

    def report_dead(self, owner: str) -> None:
        self._execute("ZREM", "alive", owner)


class LockstepModel:
    """A `SharedBucket` and the script, which receive the same events."""

    def __init__(self, rates: list[Rate]) -> None:
        self.script = ScriptUnderTest()
        self.state: bytes | None = None
        self.rates = rates
        # The script does not remember the ticket of a request that a smaller burst has dropped.
        self.same_rates = len(set(rates)) == 1
        self.generations = [0] * len(rates)
        self.names: set[str] = set()
        self.tickets = 0
        self.outstanding: dict[
            int, tuple[int, int, float]
        ] = {}  # by client: both tickets, and the expiry
        self.sent: list[tuple[int, int, str]] = []
        self.wait = 0.0

    def do(self, number: int, action: str, steps: int) -> None:
        rate, owner = self.rates[number], f"{number}-{self.generations[number]}"
        now = self.script.now
        self.names.add(owner)
        if self.state is None:  # the whole burst was used, long ago
            past = BucketState(rate.burst, 0, -EPOCH, [-EPOCH] * rate.burst, 1, -EPOCH)
            self.state = msgspec.msgpack.encode(_State(past, {}, []))
        bucket = SharedBucket(rate, self.state)
        match action:
            case "ask":
                grant = bucket.acquire(owner, now, self.names.__contains__)
                self.tickets += 1
                wait, paused = self.script.send(owner, rate, "t", self.tickets)
                assert abs(wait - grant.retry_in) <= 2e-6
                assert abs(paused - grant.paused_for) <= 2e-6
                self.wait = wait
                if not grant.retry_in and number not in self.outstanding:
                    self.outstanding[number] = (grant.ticket, self.tickets, now + TOKEN_TTL)
                elif not grant.retry_in:
                    bucket.release(grant.ticket)
                    self.script.send(owner, rate, "b", self.tickets)
            case "write" if number in self.outstanding:
                ticket, script_ticket, expiry = self.outstanding.pop(number)
                if now >= expiry:
                    return
                anchor = bucket.written(ticket, now, rate.guard)
                self.script.send(owner, rate, "w", script_ticket, microseconds(rate.guard), 0)
                self.sent.append((anchor, script_ticket, owner))
            case "answer" if self.sent and self.same_rates:
                anchor, script_ticket, sender = self.sent.pop()
                bucket.answered(anchor, now)
                self.script.send(sender, rate, "a", script_ticket, 0)
            case "return" if number in self.outstanding:
                ticket, script_ticket, expiry = self.outstanding.pop(number)
                if now >= expiry:
                    return
                bucket.release(ticket)
                self.script.send(owner, rate, "b", script_ticket)
            case "leave":
                bucket.leave_queue(owner)
                self.script.send(owner, rate, "l")
            case "pause":
                bucket.pause(now + steps * TICK)
                self.script.send(owner, rate, "p", microseconds(steps * TICK))
            case "die":
                bucket.leave_queue(owner)  # the script only removes it after its time
                self.script.send(owner, rate, "l")
                self.script.report_dead(owner)
                self.names.discard(owner)
                self.outstanding.pop(number, None)
                self.sent = [request for request in self.sent if request[2] != owner]
                self.generations[number] += 1
            case "sleep":
                self.script.now += steps * TICK
                return
            case "come back":
                self.script.now += math.ceil(self.wait / TICK) * TICK
                return
            case _:
                return
        self.state = bucket.dump()


RATES: Final = st.builds(
    Rate,
    st.sampled_from([0.125, 1.0, 40.0]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.0625, 0.5]),
)
ACTIONS: Final = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            [
                *["ask", "write", "answer", "come back"] * 3,
                "return",
                "leave",
                "pause",
                "die",
                "sleep",
            ]
        ),
        st.integers(0, 200),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=examples(250), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RATES, min_size=3, max_size=3), st.booleans(), ACTIONS)
@example(  # the first may be under way much longer than the second, which was answered immediately
    [Rate(0.125, 3, 0.5)] * 3,
    True,
    [
        *[(0, "ask", 0), (0, "write", 0), (1, "ask", 0), (1, "write", 0), (1, "answer", 0)],
        *[(1, "sleep", 25), (2, "ask", 0), (2, "write", 0), (2, "ask", 0)],
    ],
)
@example(  # the second one dies with a token, and before the response to its request
    [Rate(0.125, 3, 0.0)] * 3,
    True,
    [
        *[(0, "ask", 0), (1, "ask", 0), (1, "write", 0), (1, "ask", 0), (0, "ask", 0)],
        *[(0, "come back", 0), (1, "die", 0), (0, "answer", 0)],
        *[(0, "ask", 0), (1, "ask", 0), (0, "ask", 0)],
    ],
)
@example(  # the second waiter asks a little late, and is still before the third
    [Rate(1.0, 1, 0.0)] * 3,
    True,
    [(0, "ask", 0), (0, "write", 0), (1, "ask", 0), (2, "ask", 0), (2, "sleep", 92), (2, "ask", 0)],
)
def test_the_script_and_the_bucket_grant_the_same(
    rates: list[Rate], same_rates: bool, actions: list[tuple[int, str, int]]
) -> None:
    """Waits and pauses are the same to the microsecond, also where programs disagree on rates."""
    model = LockstepModel([rates[0]] * 3 if same_rates else rates)
    for number, action, steps in actions:
        model.do(number, action, steps)


@pytest.mark.parametrize(("session_timeout", "alive"), [(2.0, True), (1.0, False)])
def test_a_token_that_was_just_granted_needs_no_heartbeat(
    session_timeout: float, alive: bool
) -> None:
    """Its owner counts as alive for a session timeout, and after it as dead without one."""
    script, rate = ScriptUnderTest(), Rate(0.125)
    assert script.send("one", rate, "t", 1, session_timeout=session_timeout) == (0.0, 0.0)
    script.report_dead("one")
    script.now += 1.5

    wait, _ = script.send("two", rate, "t", 1, session_timeout=session_timeout)

    # An outstanding token delays the next one; one of a dead owner counts as used now.
    recheck_interval = 0.02
    assert wait == (recheck_interval if alive else rate.interval)


def test_a_request_that_is_reported_twice_counts_once() -> None:
    """Its event is sent again where the response to the first one was lost."""
    script, rate = ScriptUnderTest(), Rate(1.0, 2, 0.5)
    assert script.send("one", rate, "t", 1) == (0.0, 0.0)
    for _ in range(2):
        script.send("one", rate, "w", 1, microseconds(0.5), 0)
    assert script.send("one", rate, "t", 2) == (0.0, 0.0)


def test_an_early_response_makes_the_next_token_due_earlier() -> None:
    """The interval counts from it; a second report of it changes nothing."""
    script, rate = ScriptUnderTest(), Rate(1.0, 1, 0.5)
    script.send("one", rate, "t", 1)
    script.send("one", rate, "w", 1, microseconds(0.5), 0)
    for _ in range(2):
        script.now += 0.125
        script.send("one", rate, "a", 1, 0)
    assert script.send("two", rate, "t", 1) == (0.875, 0.0)
