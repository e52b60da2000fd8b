"""The script that shares tokens on a server says what `SharedBucket` says, whatever happens.

Both count in steps of a 64th of a second, which neither has to round.
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
from pythpeer.bucket import BucketState
from pythpeer.stores.redis.scripts import script
from pythpeer.stores.shared import TOKEN_TTL, SharedBucket, _State

STEP: Final = 1 / 64
KEYS: Final = ("state", "server", "alive")
FOREVER: Final = 10**15


def micro(seconds: float) -> int:
    return round(seconds * 1_000_000)


class Script:
    """The script, on a server of its own with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self._answers: list[bytes] = []
        self._server = Commands(FakeServer(version=(7,)), 0, client_class=Redis)
        self._server.clock = lambda: self.now
        self._server.write = self._answers.append
        self._do("HSET", "server", "since", 0)  # long before all this

    def _do(self, *words: object) -> bytes:
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in (str(w).encode() for w in words)]
        self._server.sendall(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
        return self._answers.pop()

    def tell(self, who: str, rate: Rate, *what: object, term: float = 0.0) -> tuple[float, float]:
        """How long to wait, and how long it is paused, in seconds."""
        self._do("ZADD", "alive", FOREVER * 10, who)
        numbers = (micro(rate.interval), rate.burst, micro(rate.guard), micro(term))
        answer = self._do("EVAL", script("bucket").text, 3, *KEYS, who, *numbers, *what)
        if answer.startswith(b":"):
            return int(answer[1:]) / 1e6, 0.0
        assert answer.startswith(b"*2\r\n:"), answer
        wait, paused = (int(line[1:]) / 1e6 for line in answer.split(b"\r\n")[1:3])
        return wait, paused

    def die(self, who: str) -> None:
        self._do("ZREM", "alive", who)


class Twins:
    """The same things happen to both."""

    def __init__(self, rates: list[Rate]) -> None:
        self.script = Script()
        self.state: bytes | None = None
        self.rates = rates
        # Of a request that a smaller burst forgot, the script knows the number no more.
        self.agreed = len(set(rates)) == 1
        self.lives = [0] * len(rates)
        self.names: set[str] = set()
        self.tickets = 0
        self.in_hand: dict[int, tuple[int, int, float]] = {}  # by number: theirs, and the end
        self.asked: list[tuple[int, int, str]] = []
        self.wait = 0.0

    def do(self, number: int, what: str, steps: int) -> None:
        rate, who = self.rates[number], f"{number}-{self.lives[number]}"
        now = self.script.now
        self.names.add(who)
        if self.state is None:  # all that could be sent was sent, long ago
            past = BucketState(rate.burst, 0, -EPOCH, [-EPOCH] * rate.burst, 1, -EPOCH)
            self.state = msgspec.msgpack.encode(_State(past, {}, []))
        bucket = SharedBucket(rate, self.state)
        match what:
            case "ask":
                turn = bucket.acquire(who, now, self.names.__contains__)
                self.tickets += 1
                wait, paused = self.script.tell(who, rate, "t", self.tickets)
                assert abs(wait - turn.retry_in) <= 2e-6
                assert abs(paused - turn.paused_for) <= 2e-6
                self.wait = wait
                if not turn.retry_in and number not in self.in_hand:
                    self.in_hand[number] = (turn.ticket, self.tickets, now + TOKEN_TTL)
                elif not turn.retry_in:
                    bucket.release(turn.ticket)
                    self.script.tell(who, rate, "b", self.tickets)
            case "write" if number in self.in_hand:
                mine, its, ends = self.in_hand.pop(number)
                if now >= ends:
                    return
                anchor = bucket.written(mine, now, rate.guard)
                self.script.tell(who, rate, "w", its, micro(rate.guard), 0)
                self.asked.append((anchor, its, who))
            case "answer" if self.asked and self.agreed:
                anchor, its, asker = self.asked.pop()
                bucket.answered(anchor, now)
                self.script.tell(asker, rate, "a", its, 0)
            case "return" if number in self.in_hand:
                mine, its, ends = self.in_hand.pop(number)
                if now >= ends:
                    return
                bucket.release(mine)
                self.script.tell(who, rate, "b", its)
            case "leave":
                bucket.leave_queue(who)
                self.script.tell(who, rate, "l")
            case "pause":
                bucket.pause(now + steps * STEP)
                self.script.tell(who, rate, "p", micro(steps * STEP))
            case "die":
                bucket.leave_queue(who)  # a server finds that out by the time alone
                self.script.tell(who, rate, "l")
                self.script.die(who)
                self.names.discard(who)
                self.in_hand.pop(number, None)
                self.lives[number] += 1
            case "sleep":
                self.script.now += steps * STEP
                return
            case "come back":
                self.script.now += math.ceil(self.wait / STEP) * STEP
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
DOINGS: Final = st.lists(
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
@given(st.lists(RATES, min_size=3, max_size=3), st.booleans(), DOINGS)
@example(  # the first may be on its way far longer than the second, which was answered at once
    [Rate(0.125, 3, 0.5)] * 3,
    True,
    [
        *[(0, "ask", 0), (0, "write", 0), (1, "ask", 0), (1, "write", 0), (1, "answer", 0)],
        *[(1, "sleep", 25), (2, "ask", 0), (2, "write", 0), (2, "ask", 0)],
    ],
)
@example(  # the second to wait is a little late, and still before the third
    [Rate(1.0, 1, 0.0)] * 3,
    True,
    [(0, "ask", 0), (0, "write", 0), (1, "ask", 0), (2, "ask", 0), (2, "sleep", 92), (2, "ask", 0)],
)
def test_the_script_says_what_the_bucket_says(
    rates: list[Rate], agreed: bool, doings: list[tuple[int, str, int]]
) -> None:
    """Waits and pauses are the same to the microsecond, also where programs disagree on rates."""
    twins = Twins([rates[0]] * 3 if agreed else rates)
    for number, what, steps in doings:
        twins.do(number, what, steps)


@pytest.mark.parametrize(("term", "alive"), [(2.0, True), (1.0, False)])
def test_a_token_just_taken_needs_no_sign_of_life(term: float, alive: bool) -> None:
    """Within a term of the taking its owner counts as alive, after it as whoever shows no sign."""
    script, rate = Script(), Rate(0.125)
    assert script.tell("one", rate, "t", 1, term=term) == (0.0, 0.0)
    script.die("one")
    script.now += 1.5

    wait, _ = script.tell("two", rate, "t", 1, term=term)

    # A token that may yet be used holds the next one back; one that was lost counts as used now.
    held_back = 0.02  # a glance
    assert wait == (held_back if alive else rate.interval)
