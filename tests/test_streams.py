"""The stream engine over a source in memory: places, shared polls, order, gaps, failures."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Final, Literal, NamedTuple

import anyio
import msgspec
import pytest
from helpers import assert_nothing_more, examples, logged_levels, now, schedule, take_ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import StoreFactory

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    Gap,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    MemoryStore,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    Retry,
    SessionClosedError,
    StoreError,
    Stream,
    TransportError,
)
from pythpeer.feed import LEASE, Poller
from pythpeer.polling import link_entries
from pythpeer.stores import Log, RedisStore, Store, Topic

pytestmark = pytest.mark.anyio

async_property = settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

INTERVAL: Final = 1.0


class Line(msgspec.Struct, frozen=True):
    """A message of the room."""

    id: int


class Poll(NamedTuple):
    """One poll of the room: ``after`` is ``None`` where it asked for the place only."""

    at: float
    after: int | None
    feed: Poller[Line]


class Room:
    """A source in memory, polled once per second at most: answers take `latency` seconds."""

    name = "room"

    def __init__(
        self,
        *ids: int,
        size: int = 300,
        window: Literal["newest", "oldest"] = "newest",
        latency: float = 0.0,
    ) -> None:
        self.ids = list(ids)
        self.size = size
        self.window = window
        self.latency = latency
        self.poison: set[int] = set()
        self.failures: deque[PythpeerError] = deque()
        self.refusal: PythpeerError | None = None
        self.polls: list[Poll] = []
        self._due = 0.0

    def say(self, *ids: int) -> None:
        self.ids = sorted({*self.ids, *ids})

    async def initial_position(self, log: Log[Line]) -> int | None:
        return None

    async def drain(self) -> None:
        pass

    async def poll(self, feed: Poller[Line]) -> PythpeerError | None:
        await asyncio.sleep(max(0.0, self._due - now()))
        self._due = now() + INTERVAL
        homeless, after = feed.has_unpositioned, feed.min_position
        self.polls.append(Poll(now(), None if homeless else after, feed))
        failure = self.failures.popleft() if self.failures else None
        ids, newest = [id for id in self.ids if id > after], max(self.ids, default=0)
        await asyncio.sleep(self.latency)
        if self.refusal is not None:
            raise self.refusal
        if failure is not None:
            return failure
        if homeless:
            feed.set_initial_position(newest)
            return None
        shown = ids[: self.size] if self.window == "oldest" else ids[-self.size :]
        page = {id: None if id in self.poison else Line(id) for id in shown}
        full = len(page) >= self.size
        await feed.log.append(link_entries(after, page, full=full) if page else [])
        feed.confirm(after, full=full)
        return None


TOPIC: Final = Topic("room", Line)


def feed_of(room: Room, store: Store | None = None, *, max_delay: float = 30.0) -> Poller[Line]:
    """One session's feed of *room*."""
    store = MemoryStore() if store is None else store
    return Poller(room, store.log(TOPIC), Retry(max_delay=max_delay))


@asynccontextmanager
async def running(
    *work: Coroutine[object, object, object],
) -> AsyncIterator[list[asyncio.Task[object]]]:
    """Run *work* in tasks of its own, and leave none behind."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """Use *store* without a session."""
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(new_store: StoreFactory) -> AsyncIterator[Store]:
    async with opened(new_store()) as store:
        yield store


# -- where a stream starts ------------------------------------------------------------------------


async def test_without_a_place_only_what_arrives_from_now_on_comes(store: Store) -> None:
    """``after=None`` without a name skips all that is there already."""
    room = Room(1, 2, 3)
    stream = Stream(feed_of(room, store))
    schedule(2.5, room.say, 4, 5)
    assert await take_ids(stream, 2) == [4, 5]


async def test_an_empty_room_is_a_place_too(store: Store) -> None:
    """A stream that starts in an empty room gets the very first message."""
    room = Room()
    stream = Stream(feed_of(room, store))
    schedule(2.5, room.say, 1)
    assert await take_ids(stream, 1) == [1]


@pytest.mark.parametrize(("after", "first"), [(0, 1), (1, 2), (4, 5)])
async def test_after_says_where_to_start(store: Store, after: int, first: int) -> None:
    """``after=0`` is the oldest available, ``after=n`` what has a greater id than n."""
    stream = Stream(feed_of(Room(*range(1, 8)), store), after=after)
    assert await take_ids(stream, 8 - first) == list(range(first, 8))


async def test_entering_takes_the_place(store: Store) -> None:
    """What arrives after ``async with`` has begun is in the stream, however late it is asked."""
    room = Room(1, 2)
    async with Stream(feed_of(room, store)) as stream:
        room.say(3)
        await asyncio.sleep(10)
        room.say(4)
        assert await take_ids(stream, 2) == [3, 4]


async def test_entering_twice_keeps_the_place(store: Store) -> None:
    """A stream that has its place does not take another."""
    room = Room(1)
    async with Stream(feed_of(room, store)) as stream:
        room.say(2)
        async with stream:
            assert await take_ids(stream, 1) == [2]


async def test_finding_a_place_moves_nobody_who_has_one(store: Store) -> None:
    """One poll for the newest id serves those who want what comes from now on, and only them."""
    room = Room(1, 2, 3, latency=0.2)
    feed = feed_of(room, store)
    placed, homeless = Stream(feed, after=1), Stream(feed)
    schedule(2.5, room.say, 4)
    found = await asyncio.gather(take_ids(placed, 3), take_ids(homeless, 1))
    assert list(found) == [[2, 3, 4], [4]]
    assert room.polls[0].after is None


class Slow(Room):
    """Takes a second after each poll, when everything that it brought is known already."""

    async def poll(self, feed: Poller[Line]) -> PythpeerError | None:
        error = await super().poll(feed)
        await asyncio.sleep(1.0)
        return error


async def test_a_start_that_was_cancelled_goes_on_with_the_place_it_found(store: Store) -> None:
    """What arrived since then is in the stream, and the place is stored for its name after all."""
    room = Slow(1, 2)
    stream = Stream(feed_of(room, store), name="me")
    with anyio.move_on_after(0.5):
        await stream.__aenter__()
    assert await store.log(TOPIC).reader("me").position() is None
    room.say(3)
    async with stream:
        assert await store.log(TOPIC).reader("me").position() == 2
        assert await take_ids(stream, 1) == [3]


async def test_a_new_name_is_stored_at_once(store: Store) -> None:
    """Nothing has to be acknowledged first: the next stream of the name starts where this did."""
    room = Room(1, 2)
    async with Stream(feed_of(room, store), name="new"):
        pass
    room.say(3)
    assert await store.log(TOPIC).reader("new").position() == 2
    assert await take_ids(Stream(feed_of(room, store), name="new"), 1) == [3]


async def test_a_new_name_with_after_is_stored_at_once(store: Store) -> None:
    """``after=n`` is the place of a new name before any item was acknowledged."""
    room = Room(*range(1, 6))
    async with Stream(feed_of(room, store), name="new", after=3):
        assert await store.log(TOPIC).reader("new").position() == 3


async def test_a_known_name_goes_on_where_it_was_acknowledged(store: Store) -> None:
    """Only a name the store knows reaches back: others start with what comes from now on."""
    room = Room(1, 2, 3, 4)
    first = Stream(feed_of(room, store), after=0, name="known")
    assert await take_ids(first, 3) == [1, 2, 3]  # 3 is not acknowledged: nobody asked for the next
    await first.aclose()
    assert await take_ids(Stream(feed_of(room, store), name="known"), 2) == [3, 4]
    await assert_nothing_more(Stream(feed_of(room, store), name="unknown"))


async def test_an_explicit_after_wins_and_moves_the_stored_place(store: Store) -> None:
    """Forwards and backwards, at once: a later stream of the name starts from there."""
    room = Room(*range(1, 10))
    for after in (6, 2):
        moved = take_ids(Stream(feed_of(room, store), after=after, name="me"), 1)
        assert await moved == [after + 1]
        assert await take_ids(Stream(feed_of(room, store), name="me"), 1) == [after + 1]


# -- who polls, and how often ---------------------------------------------------------------------


async def test_many_streams_share_one_poll_per_interval(store: Store) -> None:
    """Ten streams cost as many polls as one, and each of them gets everything."""
    room = Room()
    feed = feed_of(room, store)
    streams = [Stream(feed, after=0) for _ in range(10)]
    for second in range(10):
        schedule(second + 0.5, room.say, second + 1)
    found = await asyncio.gather(*(take_ids(stream, 10) for stream in streams))
    assert found == [list(range(1, 11))] * 10
    assert now() == 10.0
    assert len(room.polls) == 11


async def test_nobody_polls_while_nobody_asks(store: Store) -> None:
    """There is no background task: a stream costs nothing while its consumer is busy."""
    room = Room(1, 2)
    stream = Stream(feed_of(room, store), after=0)
    assert await take_ids(stream, 1) == [1]
    tasks = asyncio.all_tasks()
    await asyncio.sleep(100)
    assert len(room.polls) == 1
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("at", [0.5, 1.0, 1.1])
async def test_a_follower_takes_over_from_a_cancelled_leader(store: Store, at: float) -> None:
    """The leader is cancelled while it waits for its turn or for the answer: the others go on."""
    room = Room(latency=0.2)
    feed = feed_of(room, store)
    leader, *followers = (Stream(feed, after=0) for _ in range(4))
    reading = (take_ids(stream, 1) for stream in (leader, *followers))
    async with running(*reading) as tasks:
        await asyncio.sleep(at)
        tasks[0].cancel()
        room.say(1)
        await asyncio.wait(tasks, timeout=3)
        assert [task.result() for task in tasks[1:]] == [[1]] * 3
        assert tasks[0].cancelled()
    assert len(room.polls) <= 3


async def test_everybody_but_one_may_be_cancelled(store: Store) -> None:
    """However many leaders are cancelled one after the other, who remains is served."""
    room = Room(latency=0.3)
    feed = feed_of(room, store)
    async with running(*(take_ids(Stream(feed, after=0), 1) for _ in range(20))) as tasks:
        for task in tasks[:-1]:
            await asyncio.sleep(0.1)
            task.cancel()
        room.say(1)
        async with asyncio.timeout(5):
            assert await tasks[-1] == [1]


async def test_polls_ask_from_the_lowest_place_of_those_who_wait(store: Store) -> None:
    """Who comes late to the round is asked for too, and who does not wait is not."""
    room = Room(*range(1, 10))
    feed = feed_of(room, store)
    high, low, idle = (Stream(feed, after=after) for after in (9, 7, 2))
    assert await take_ids(idle, 1) == [3]
    async with running(take_ids(high, 1)):
        await asyncio.sleep(0.5)
        assert await take_ids(low, 2) == [8, 9]
    room.say(10)
    async with running(take_ids(high, 1), take_ids(low, 1)) as tasks:
        async with asyncio.timeout(5):
            assert await asyncio.gather(*tasks) == [[10], [10]]
    assert [poll.after for poll in room.polls][:1] == [2]
    assert 2 not in [poll.after for poll in room.polls][1:]
    assert room.polls[-1].after == 9


async def test_the_lowest_place_counts_although_its_stream_came_last(store: Store) -> None:
    """A stream that comes while the leader waits for its turn is in that very poll."""
    room = Room(*range(1, 10))
    feed = feed_of(room, store)
    ahead, behind = Stream(feed, after=9), Stream(feed, after=4)
    async with running(take_ids(ahead, 1)):
        await asyncio.sleep(0.5)  # the first poll is over, the second is due at 1.0
        assert await take_ids(behind, 5) == [5, 6, 7, 8, 9]
    assert [(poll.at, poll.after) for poll in room.polls[:2]] == [(0.0, 9), (1.0, 4)]


async def test_a_thousand_streams_work(store: Store) -> None:
    """A thousand streams of one session get everything, on one poll per interval.

    Costs 3 s with Redis, because each of the thousand asks the server for each message.
    """
    room = Room()
    feed = feed_of(room, store)
    streams = [Stream(feed, after=0) for _ in range(1000)]
    for second in range(3):
        schedule(second + 0.5, room.say, second + 1)
    found = await asyncio.gather(*(take_ids(stream, 3) for stream in streams))
    assert found == [[1, 2, 3]] * 1000
    assert len(room.polls) == 4


# -- order and completeness -----------------------------------------------------------------------

arrivals = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 3)), max_size=25)
"""When in tenths of a second somebody says something, and how many ids on."""


@async_property
@given(
    arrivals,
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.sampled_from(["newest", "oldest"]),
    st.sampled_from([0.0, 0.3]),
)
async def test_every_stream_gets_everything_after_its_place_once_in_order(
    new_store: StoreFactory,
    times: list[tuple[int, int]],
    places: list[int],
    window: Literal["newest", "oldest"],
    latency: float,
) -> None:
    """Whoever starts wherever: each id after the place comes once, in order, without a gap."""
    async with opened(new_store()) as store:
        room = Room(window=window, latency=latency)
        id = 0
        for tenths, step in sorted(times):
            id += step
            schedule(tenths / 10, room.say, id)
        schedule(6.0, room.say, id + 100)
        feed = feed_of(room, store)

        async def read(after: int) -> tuple[int, list[int]]:
            stream = Stream(feed, after=after)
            found: list[int] = []
            while id + 100 not in found:
                found += await take_ids(stream, 1)
                await asyncio.sleep(after / 10)
            assert stream.gaps == ()
            return after, found

        for after, found in await asyncio.gather(*map(read, places)):
            assert found == [id for id in room.ids if id > after]


@async_property
@given(
    st.integers(1, 40),
    st.integers(2, 9),
    st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True),
)
async def test_a_backlog_of_full_pages_comes_whole(
    new_store: StoreFactory, many: int, size: int, places: list[int]
) -> None:
    """Where the oldest come first, page by page, there is no gap, for however many streams."""
    async with opened(new_store()) as store:
        room = Room(*range(1, many + 1), size=size, window="oldest")
        feed = feed_of(room, store)

        async def read(after: int) -> None:
            stream = Stream(feed, after=min(after, many))
            wanted = list(range(min(after, many) + 1, many + 1))
            assert await take_ids(stream, len(wanted)) == wanted
            assert stream.gaps == ()

        await asyncio.gather(*map(read, places))


# -- acknowledgement ------------------------------------------------------------------------------


async def stored(store: Store, name: str = "me") -> int | None:
    return await store.log(TOPIC).reader(name).position()


async def test_asking_for_the_next_acknowledges(store: Store) -> None:
    """An item is acknowledged when the next one is asked for, not when it is handed out."""
    room = Room(1, 2)
    stream = Stream(feed_of(room, store), after=0, name="me")
    assert await take_ids(stream, 1) == [1]
    assert await stored(store) == 0
    await nothing_after(stream, 2)
    assert await stored(store) == 2


async def nothing_after(stream: Stream[Line], last: int) -> None:
    """Take *last*, then ask for one that never comes."""
    assert await take_ids(stream, 1) == [last]
    await assert_nothing_more(stream)


async def test_ack_acknowledges_at_once(store: Store) -> None:
    """``ack()`` has the item on record on return; twice does no harm, nor does it before any."""
    room = Room(1, 2)
    stream = Stream(feed_of(room, store), after=0, name="me")
    await stream.ack()
    assert await stored(store) is None
    assert await take_ids(stream, 1) == [1]
    await stream.ack()
    await stream.ack()
    assert await stored(store) == 1
    await stream.aclose()
    assert await take_ids(Stream(feed_of(room, store), name="me"), 1) == [2]


@pytest.mark.parametrize("how", ["break", "aclose", "context", "exception"])
@pytest.mark.parametrize("again", ["same session", "new session"])
async def test_what_was_not_acknowledged_comes_again(store: Store, how: str, again: str) -> None:
    """Leaving the loop, closing, or failing does not acknowledge what was handed out last."""
    room = Room(1, 2, 3)
    feed = feed_of(room, store)
    stream = Stream(feed, after=0, name="me")

    async def consume() -> None:
        async with stream:
            async for line in stream:
                if line.id == 2 and how == "exception":
                    raise ZeroDivisionError
                if line.id == 2:
                    break

    if how == "context":
        await consume()
    elif how == "exception":
        with pytest.raises(ZeroDivisionError):
            await consume()
    else:
        async for line in stream:
            if line.id == 2:
                break
        if how == "aclose":
            await stream.aclose()
        elif isinstance(store, RedisStore):
            del stream  # else it is at work on what it has in hand, and the heir a colleague
    heir = Stream(feed if again == "same session" else feed_of(room, store), name="me")
    await asyncio.sleep(5)  # whatever lease the first session had is over
    assert await take_ids(heir, 2) == [2, 3]


async def test_streams_of_different_names_get_everything_each(store: Store) -> None:
    """A name's place is its own."""
    room = Room(1, 2, 3)
    feed = feed_of(room, store)
    for name in ("one", "other"):
        assert await take_ids(Stream(feed, after=0, name=name), 3) == [1, 2, 3]
    assert [await stored(store, name) for name in ("one", "other")] == [2, 2]


@async_property
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=8))
async def test_no_item_is_lost_and_none_comes_again_once_acknowledged(
    new_store: StoreFactory,
    takes: list[tuple[int, bool]],
) -> None:
    """One stream of the name after the other: each starts right after the last acknowledged."""
    async with opened(new_store()) as store:
        room = Room(*range(1, 40))
        feed, place = feed_of(room, store), 0
        async with Stream(feed, after=0, name="me"):
            pass
        for many, acknowledged in takes:
            stream = Stream(feed, name="me")
            assert await take_ids(stream, many) == list(range(place + 1, place + many + 1))
            place += many - 1
            if acknowledged:
                await stream.ack()
                place += 1
            await stream.aclose()


# -- gaps -----------------------------------------------------------------------------------------


async def test_what_did_not_fit_is_a_gap(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A full answer whose lowest id is not the next one: `gaps` says where, and so does the log."""
    room = Room(1, size=10)
    async with Stream(feed_of(room, store), after=1) as stream:
        room.say(*range(2, 31))
        assert await take_ids(stream, 10) == list(range(21, 31))
    assert stream.gaps == (Gap(1, 21),)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "between 1 and 21" in warnings[0].getMessage()


async def test_a_gap_that_many_streams_meet_is_warned_of_once(
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of the streams has it in its `gaps`, the log has it once."""
    room = Room(*range(1, 31), size=10)
    feed = feed_of(room, store)
    streams = [Stream(feed, after=1) for _ in range(3)]
    await asyncio.gather(*(take_ids(stream, 10) for stream in streams))
    assert [stream.gaps for stream in streams] == [(Gap(1, 21),)] * 3
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize("missing", [0, 1, 5])
async def test_only_a_lowest_id_that_is_not_the_next_makes_a_gap(
    store: Store, missing: int
) -> None:
    """An answer that is full, but begins with the next id, misses nothing."""
    room = Room(*range(4 + missing, 14 + missing), size=10)
    stream = Stream(feed_of(room, store), after=3)
    await take_ids(stream, 10)
    assert stream.gaps == ((Gap(3, 4 + missing),) if missing else ())


async def test_ids_left_out_of_an_answer_that_is_not_full_are_no_gap(store: Store) -> None:
    """Ids need not be contiguous: private messages of others have some too."""
    stream = Stream(feed_of(Room(5, 9, 20, size=10), store), after=3)
    assert await take_ids(stream, 3) == [5, 9, 20]
    assert stream.gaps == ()


@pytest.mark.parametrize("on_gap", ["log", "raise"])
async def test_from_the_oldest_available_there_is_no_gap(
    store: Store, on_gap: Literal["log", "raise"]
) -> None:
    """``after=0`` asks for what there is; what is long gone is no gap."""
    stream = Stream(feed_of(Room(*range(100, 150), size=10), store), after=0, on_gap=on_gap)
    assert await take_ids(stream, 10) == list(range(140, 150))
    assert stream.gaps == ()


async def test_a_gap_can_be_raised_once_and_passed(store: Store) -> None:
    """`GapError` comes between the items it lies between, once; asking again goes on behind it."""
    room = Room(1, 2, size=5)
    stream = Stream(feed_of(room, store), after=0, on_gap="raise")
    assert await take_ids(stream, 2) == [1, 2]
    room.say(*range(3, 20))
    with pytest.raises(GapError) as caught:
        await take_ids(stream, 1)
    assert (caught.value.after, caught.value.before, caught.value.endpoint) == (2, 15, "room")
    assert await take_ids(stream, 5) == list(range(15, 20))
    room.say(20)
    assert await take_ids(stream, 1) == [20]
    assert stream.gaps == (Gap(2, 15),)


async def test_the_item_before_a_raised_gap_is_acknowledged(store: Store) -> None:
    """It was asked for more: a later stream of the name meets the gap, not that item."""
    room = Room(1, size=5)
    stream = Stream(feed_of(room, store), after=0, name="me", on_gap="raise")
    assert await take_ids(stream, 1) == [1]
    room.say(*range(2, 20))
    with pytest.raises(GapError):
        await take_ids(stream, 1)
    assert await stored(store) == 1


async def test_gaps_are_each_stream_s_own(new_store: StoreFactory) -> None:
    """One that keeps up has none, though another that did not has; and it gets no false one."""
    async with opened(new_store(max_length=10)) as store:
        room = Room(1, size=10)
        feed = feed_of(room, store)
        quick, slow = Stream(feed, after=1), Stream(feed, after=1)
        for first in range(2, 50, 4):
            room.say(*range(first, first + 4))
            assert await take_ids(quick, 4) == list(range(first, first + 4))
        assert await take_ids(slow, 10) == list(range(40, 50))
        room.say(50)
        assert await take_ids(quick, 1) == await take_ids(slow, 1) == [50]
        assert quick.gaps == ()
        assert slow.gaps == (Gap(1, 40),)


async def test_a_slow_stream_asks_the_service_for_what_was_trimmed(new_store: StoreFactory) -> None:
    """What a short log no longer has is fetched again, and where the service has it is no gap."""
    async with opened(new_store(max_length=5)) as store:
        room = Room()
        feed = feed_of(room, store)
        quick, slow = Stream(feed, after=0), Stream(feed, after=0, on_gap="raise")
        for id in range(1, 21):
            room.say(id)
            assert await take_ids(quick, 1) == [id]
        assert await take_ids(slow, 20) == list(range(1, 21))
        assert slow.gaps == ()


async def test_a_page_longer_than_the_log_comes_whole(new_store: StoreFactory) -> None:
    """The log's length bounds what is kept, not what one answer can bring."""
    async with opened(new_store(max_length=10)) as store:
        stream = Stream(feed_of(Room(*range(1, 31)), store), after=0)
        assert await take_ids(stream, 30) == list(range(1, 31))
        assert stream.gaps == ()


async def test_a_slow_stream_is_told_of_what_is_gone(new_store: StoreFactory) -> None:
    """Trimmed here and gone there: one gap, from where it stood to what there is."""
    async with opened(new_store(max_length=5)) as store:
        room = Room()
        feed = feed_of(room, store)
        quick, slow = Stream(feed, after=0), Stream(feed, after=0, name="slow")
        room.say(1)
        assert await take_ids(quick, 1) == await take_ids(slow, 1) == [1]
        for id in range(2, 31):
            room.say(id)
            assert await take_ids(quick, 1) == [id]
        del room.ids[:-3]
        assert await take_ids(slow, 5) == list(range(26, 31))
        assert slow.gaps == (Gap(1, 26),)
        assert quick.gaps == ()


async def test_another_s_gap_is_not_passed_on(store: Store) -> None:
    """A gap that one stream met is no gap for one whose log has what is in between."""
    room = Room(*range(1, 21), size=10)
    feed = feed_of(room, store)
    early = Stream(feed, after=2)
    assert await take_ids(early, 10) == list(range(11, 21))
    assert early.gaps == (Gap(2, 11),)
    late = Stream(feed, after=10)
    assert await take_ids(late, 10) == list(range(11, 21))
    assert late.gaps == ()


@pytest.mark.parametrize("answered_last", ["who knows", "who does not"])
async def test_what_somebody_knows_to_be_no_gap_is_none(store: Store, answered_last: str) -> None:
    """One session's answer was full, another's was not: the second says that nothing is missing."""
    room = Room(100, 110, size=3)
    near, far = Stream(feed_of(room, store), after=90), Stream(feed_of(room, store), after=50)
    room.latency = 5.0 if answered_last == "who knows" else 0.0
    async with running(take_ids(near, 2)) as (reading,):
        await asyncio.sleep(0.5)
        room.latency = 0.0
        room.say(120)
        assert await take_ids(far, 3) == [100, 110, 120]
        assert await reading == [100, 110]
    assert near.gaps == ()
    assert far.gaps == (Gap(50, 100),)
    assert await take_ids(Stream(feed_of(room, store), after=90, on_gap="raise"), 1) == [100]


# -- what cannot be decoded -----------------------------------------------------------------------


async def test_poison_is_skipped_and_counted_once_for_each_stream(store: Store) -> None:
    """Bad messages hide no neighbours; each stream counts those after its own place."""
    room = Room(*range(1, 10))
    room.poison = {2, 3, 9}
    feed = feed_of(room, store)
    one, other = Stream(feed, after=0), Stream(feed, after=2)
    assert await take_ids(one, 6) == [1, 4, 5, 6, 7, 8]
    assert await take_ids(other, 5) == [4, 5, 6, 7, 8]
    await assert_nothing_more(one)
    await assert_nothing_more(other)
    room.say(10)
    assert await take_ids(one, 1) == await take_ids(other, 1) == [10]
    assert (one.skipped, other.skipped) == (3, 2)


async def test_poison_is_no_gap(store: Store) -> None:
    """An undecodable message was there: nothing is missing."""
    room = Room(*range(1, 21), size=10, window="oldest")
    room.poison = {1, 10, 11}
    stream = Stream(feed_of(room, store), after=0, on_gap="raise")
    assert await take_ids(stream, 17) == [*range(2, 10), *range(12, 21)]
    assert stream.gaps == ()


# -- failures -------------------------------------------------------------------------------------

TRANSIENT: Final = [
    TransportError("no connection", sent=False),
    TransportError("broke"),
    RequestTimeoutError("too late"),
    HttpStatusError("HTTP status 500", status=500),
    HttpStatusError("HTTP status 503", status=503),
    RateLimitedError("too many", status=429, retry_after=1.0),
    DecodeError("not JSON"),
    ResponseTooLargeError("too large"),
    ApiError("come back later", message="come back later", status=200),
]
FATAL: Final = [
    AccessDeniedError("wrong key", message="wrong key", status=200),
    HttpStatusError("HTTP status 404", status=404),
    StoreError("the disk is full"),
    InvalidRequestError("a key is missing"),
]


def kind(error: object) -> str:
    return f"{type(error).__name__}-{error}" if isinstance(error, PythpeerError) else str(error)


@pytest.mark.parametrize("error", TRANSIENT, ids=kind)
async def test_a_transient_failure_is_waited_out(
    error: PythpeerError, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind, any number in a row: one WARNING when it starts and one INFO when it is over."""
    caplog.set_level(logging.DEBUG)
    room = Room(1)
    room.failures.extend([error] * 4)
    stream = Stream(feed_of(room), after=0)
    assert await take_ids(stream, 1) == [1]
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO]
    assert len(room.polls) == 5


async def test_each_time_of_failure_is_said_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Trouble that comes back is a new WARNING and, once over, a new INFO."""
    caplog.set_level(logging.INFO)
    room = Room(1)
    stream = Stream(feed_of(room), after=0)
    room.failures.append(TransportError())
    assert await take_ids(stream, 1) == [1]
    room.failures.extend([TransportError(), DecodeError()])
    room.say(2)
    assert await take_ids(stream, 1) == [2]
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO] * 2


async def test_many_streams_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING and one INFO for all the streams that wait."""
    caplog.set_level(logging.INFO)
    room = Room(1)
    room.failures.extend([HttpStatusError(status=502)] * 3)
    feed = feed_of(room)
    await asyncio.gather(*(take_ids(Stream(feed, after=0), 1) for _ in range(5)))
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO]


async def test_a_stream_never_gives_up_and_never_waits_longer_than_max_delay() -> None:
    """After hundreds of failures it still asks, every ``max_delay`` seconds at least."""
    room = Room(1)
    room.failures.extend([TransportError()] * 300)
    stream = Stream(feed_of(room, max_delay=7.0), after=0)
    assert await take_ids(stream, 1, within=1e5) == [1]
    gaps = [later.at - sooner.at for sooner, later in itertools.pairwise(room.polls)]
    assert max(gaps) <= 7.0 + INTERVAL
    assert max(gaps) > 5.0


async def test_the_back_off_outlasts_consumers_who_give_up() -> None:
    """Consumers with short time limits do not make the service be asked more often."""
    room = Room()
    room.failures.extend([TransportError()] * 100)
    stream = Stream(feed_of(room, max_delay=30.0), after=0)
    for _ in range(400):
        with anyio.move_on_after(0.25):
            await anext(stream)
    assert now() == pytest.approx(100.0)
    assert len(room.polls) < 25


@pytest.mark.parametrize("error", FATAL, ids=kind)
@pytest.mark.parametrize("way", ["returned", "raised"])
async def test_what_will_not_pass_is_raised_every_time(error: PythpeerError, way: str) -> None:
    """Whoever asks gets it, whenever they ask; when it is mended, the stream goes on."""
    room = Room(1, 2)
    stream = Stream(feed_of(room), after=0)
    assert await take_ids(stream, 2) == [1, 2]
    for _ in range(3):
        if way == "returned":
            room.failures.append(error)
        else:
            room.refusal = error
        with pytest.raises(type(error), match=str(error)):
            await take_ids(stream, 1)
    room.refusal = None
    room.say(3)
    assert await take_ids(stream, 1) == [3]


async def test_every_stream_that_waits_gets_the_error() -> None:
    """The leader and its followers are all told, each with an exception object of its own."""
    room = Room(latency=0.2)
    room.refusal = AccessDeniedError("wrong key", message="wrong key", status=403)
    feed = feed_of(room)
    async with running(*(take_ids(Stream(feed, after=0), 1) for _ in range(5))) as tasks:
        await asyncio.wait(tasks, timeout=5)
        errors = [task.exception() for task in tasks]
    assert [type(error) for error in errors] == [AccessDeniedError] * 5
    assert len(set(map(id, errors))) == 5
    assert {getattr(error, "message", None) for error in errors} == {"wrong key"}
    assert len(room.polls) == 1


# -- cancellation ---------------------------------------------------------------------------------

How = Literal["asyncio.timeout", "anyio", "cancel"]


async def ask(stream: Stream[Line], limit: float, how: How) -> list[int]:
    """Ask for one item, and be cancelled after *limit* seconds."""
    found: list[int] = []

    async def one() -> None:
        found.append((await anext(stream)).id)

    match how:
        case "asyncio.timeout":
            try:
                async with asyncio.timeout(limit):
                    await one()
            except TimeoutError:
                pass
        case "anyio":
            with anyio.move_on_after(limit):
                await one()
        case "cancel":
            async with running(one()) as (task,):
                await asyncio.sleep(limit)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or found
    return found


ways = st.sampled_from(["asyncio.timeout", "anyio", "cancel"])
limits = st.integers(0, 30).map(lambda number: number / 10)


@async_property
@given(
    st.lists(st.tuples(limits, ways), max_size=15),
    arrivals,
    st.sampled_from([0.0, 0.2, 0.7]),
    st.integers(0, 3),
    st.booleans(),
)
async def test_asking_can_be_cancelled_anywhere(
    new_store: StoreFactory,
    cancellations: list[tuple[float, How]],
    times: list[tuple[int, int]],
    latency: float,
    failures: int,
    homeless: bool,
) -> None:
    """Whenever and however it is cancelled: afterwards everything is there, once, in order."""
    async with opened(new_store()) as store:
        room = Room(latency=latency)
        room.failures.extend([TransportError()] * failures)
        feed = feed_of(room, store, max_delay=2.0)
        id = 0
        for tenths, step in sorted(times):
            id += step
            schedule(tenths / 10, room.say, id)
        stream = Stream(feed, after=None if homeless else 0, name="me")
        found: list[int] = []
        for limit, how in cancellations:
            found += await ask(stream, limit, how)
        if homeless:
            async with stream:
                await asyncio.sleep(6)
                room.say(id + 1)
                last = id + 1
                while last not in found:
                    found += await take_ids(stream, 1)
            assert found == room.ids[room.ids.index(found[0]) :]
        else:
            await asyncio.sleep(6)
            found += await take_ids(stream, len(room.ids) - len(found))
            assert found == room.ids
        assert stream.gaps == ()


async def test_a_time_limit_around_asking_is_just_that() -> None:
    """``asyncio.timeout`` and ``anyio.fail_after`` raise `TimeoutError`, and the stream goes on."""
    room = Room()
    stream = Stream(feed_of(room), after=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await anext(stream)
    with pytest.raises(TimeoutError), anyio.fail_after(2.5):
        await anext(stream)
    assert now() == 5.0
    room.say(1)
    assert await take_ids(stream, 1) == [1]


async def test_a_consumer_s_own_scope_works_across_items() -> None:
    """A cancel scope around a loop does not get mixed up with the stream."""
    room = Room(1, 2, 3)
    stream = Stream(feed_of(room), after=0)
    found: list[int] = []
    with anyio.move_on_after(10) as scope:
        async for line in stream:
            found.append(line.id)
            with anyio.move_on_after(0.5):
                await anyio.sleep(1)
    assert scope.cancelled_caught
    assert found == [1, 2, 3]
    assert now() == 10.0


# -- misuse, and the end --------------------------------------------------------------------------


async def test_plain_for_says_what_to_write() -> None:
    """``for`` on a stream raises a `TypeError` that names ``async for``."""
    with pytest.raises(TypeError, match="async for"):
        list(as_iterable(Stream(feed_of(Room()), after=0)))


def as_iterable(stream: object) -> Iterable[object]:
    """What a caller who checks no types would do."""
    assert isinstance(stream, Iterable)
    return stream


async def test_two_tasks_cannot_ask_one_stream(store: Store) -> None:
    """The second gets a clear error, the first its item; afterwards either may ask."""
    room = Room()
    stream = Stream(feed_of(room, store), after=0)
    async with running(take_ids(stream, 1)) as (first,):
        await asyncio.sleep(0.5)
        with pytest.raises(InvalidRequestError, match="another task"):
            await anext(stream)
        with pytest.raises(InvalidRequestError, match="another task"):
            await stream.__aenter__()
        room.say(1)
        async with asyncio.timeout(5):
            assert await first == [1]
    room.say(2)
    assert await take_ids(stream, 1) == [2]


@pytest.mark.parametrize("after", [-1, True, 1.5, "3", 2**31])
async def test_after_must_be_an_id(after: int) -> None:
    """Anything but an integer from 0 is refused where the stream is made."""
    with pytest.raises(InvalidRequestError, match="after"):
        Stream(feed_of(Room()), after=after)


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800", 5])
async def test_a_name_must_be_text(name: str) -> None:
    """A name that no store could keep is refused where the stream is made."""
    with pytest.raises(InvalidRequestError, match="name"):
        Stream(feed_of(Room()), name=name)


async def test_on_gap_is_one_of_two() -> None:
    """Another word is refused where the stream is made."""
    with pytest.raises(InvalidRequestError, match="on_gap"):
        Stream(feed_of(Room()), on_gap="ignore")  # type: ignore[arg-type]  # that is the point


async def test_a_closed_stream_is_at_its_end(store: Store) -> None:
    """``aclose()`` ends the loop, may be called twice, and drops what was fetched ahead."""
    room = Room(1, 2, 3)
    stream = Stream(feed_of(room, store), after=0)
    found = []
    async for line in stream:
        found.append(line.id)
        await stream.aclose()
        await stream.aclose()
    assert found == [1]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_ends_a_wait(store: Store) -> None:
    """Who waits for an item when another task closes the stream comes to the end of it soon."""
    stream = Stream(feed_of(Room(), store), after=0)

    async def read() -> list[Line]:
        return [line async for line in stream]

    async with running(read()) as (wait,):
        await asyncio.sleep(0.5)
        await stream.aclose()
        async with asyncio.timeout(2 * INTERVAL):
            assert await wait == []


async def test_a_closed_session_is_said_to_everybody(store: Store) -> None:
    """Waiting, resting or coming later: `SessionClosedError`, every time."""
    room = Room()
    room.failures.extend([TransportError()] * 1000)
    feed = feed_of(room, store, max_delay=100.0)
    streams = [Stream(feed, after=0) for _ in range(3)]
    async with running(*(take_ids(stream, 1, 1e4) for stream in streams)) as tasks:
        await asyncio.sleep(500)
        closed_at = now()
        feed.close()
        await asyncio.wait(tasks, timeout=10)
        assert [type(task.exception()) for task in tasks] == [SessionClosedError] * 3
        assert now() - closed_at <= INTERVAL
    for _ in range(2):
        with pytest.raises(SessionClosedError):
            await take_ids(streams[0], 1)


async def test_a_stream_says_what_it_is() -> None:
    """Its repr has the endpoint, the name and the place."""
    stream = Stream(feed_of(Room(1)), after=0, name="me")
    await take_ids(stream, 1)
    assert repr(stream) == "<Stream of room 'me', at 1>"
    await stream.aclose()
    assert repr(stream) == "<Stream of room 'me', closed>"
    assert repr(Stream(feed_of(Room()))) == "<Stream of room, at None>"


# -- sessions that share a store ------------------------------------------------------------------


async def test_one_session_polls_for_all(store: Store) -> None:
    """Two sessions on one store cost no more polls than one, and both get everything."""
    room = Room()
    feeds = [feed_of(room, store) for _ in range(2)]
    for second in range(20):
        schedule(second + 0.5, room.say, second + 1)
    streams = [Stream(feed, after=0) for feed in feeds]
    found = await asyncio.gather(*(take_ids(stream, 20) for stream in streams))
    assert found == [list(range(1, 21))] * 2
    assert len({poll.feed for poll in room.polls[3:]}) == 1
    assert len(room.polls) <= 22
    assert now() <= 21.0


async def test_another_session_takes_over(store: Store) -> None:
    """When the one that polls stops asking, another does, after a short while."""
    room = Room()
    first, second = Stream(feed_of(room, store), after=0), Stream(feed_of(room, store), after=0)
    async with running(take_ids(first, 1), take_ids(second, 1)) as tasks:
        await asyncio.sleep(5)
        tasks[0].cancel()
        room.say(1)
        async with asyncio.timeout(5):
            assert await tasks[1] == [1]


async def test_a_new_stream_finds_its_place_while_another_session_polls(store: Store) -> None:
    """Who needs to know where the room stands gets to know it, although others do the polling."""
    room = Room(1, 2)
    busy, new = Stream(feed_of(room, store), after=2), Stream(feed_of(room, store))
    async with running(take_ids(busy, 100)):
        await asyncio.sleep(5)
        async with asyncio.timeout(10):
            await new.__aenter__()
        room.say(3)
        assert await take_ids(new, 1, within=10) == [3]


async def test_a_late_stream_gets_the_past_while_another_session_polls(store: Store) -> None:
    """What the shared log lacks is asked for, although another session does the polling."""
    room = Room(*range(1, 10))
    busy, late = Stream(feed_of(room, store), after=8), Stream(feed_of(room, store), after=0)
    async with running(take_ids(busy, 100)):
        await asyncio.sleep(5)
        assert await take_ids(late, 9, within=10) == list(range(1, 10))


async def test_a_stream_that_comes_while_the_store_is_asked_for_the_lead_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the store takes to say that another session has it."""
    room, store = Room(1, 2), MemoryStore()
    feed = feed_of(room, store)
    lead = feed.log.acquire_lease

    async def slowly(seconds: float) -> bool:
        await asyncio.sleep(0.5)
        return await lead(seconds)

    monkeypatch.setattr(feed.log, "acquire_lease", slowly)
    busy, waits, new = (
        Stream(feed_of(room, store), after=2),
        Stream(feed, after=2),
        Stream(feed),
    )
    async with running(take_ids(busy, 100), take_ids(waits, 100)):
        await asyncio.sleep(0.1)
        start = now()
        await new.__aenter__()
        assert now() - start < LEASE


async def test_a_late_stream_is_not_kept_waiting_by_one_that_waits_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where reading takes a while, who waits beside it is always back before it, and leads."""
    room, store = Room(*range(1, 6)), MemoryStore()
    feed = feed_of(room, store)
    asked: list[float] = []

    def slow(kind: type[object], name: str) -> None:
        does = getattr(kind, name)

        async def slowly(*args: object, **options: object) -> object:
            if name == "acquire_lease":
                asked.append(now())
            await asyncio.sleep(0.002)
            return await does(*args, **options)

        monkeypatch.setattr(kind, name, slowly)

    slow(type(feed.log), "acquire_lease")
    slow(type(feed.log.reader(None)), "read")
    busy, waits, late = (
        Stream(feed_of(room, store), after=5),
        Stream(feed, after=5),
        Stream(feed, after=2),
    )
    async with running(take_ids(busy, 100), take_ids(waits, 100)):
        await asyncio.sleep(5)
        del asked[:]
        start = now()
        assert await take_ids(late, 3, within=LEASE) == [3, 4, 5]
        assert len(asked) < 5 + (now() - start)


async def test_a_closed_session_says_so_while_another_polls(store: Store) -> None:
    """A stream of a closed session raises although its log goes on."""
    room = Room()
    closed = feed_of(room, store)
    busy, stream = Stream(feed_of(room, store), after=0), Stream(closed, after=0)
    async with running(take_ids(busy, 100), take_ids(stream, 1)) as tasks:
        await asyncio.sleep(5)
        closed.close()
        await asyncio.wait(tasks[1:], timeout=10)
        assert tasks[1].done()
        assert isinstance(tasks[1].exception(), SessionClosedError)


async def test_a_store_that_fails_while_another_session_polls_is_said(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who only waits for what others append hears of it where the store cannot tell."""
    room = Room()
    feed = feed_of(room, store)

    async def news(seconds: float) -> None:
        await asyncio.sleep(1.0)
        raise StoreError("the disk is gone")

    monkeypatch.setattr(feed.log, "wait_for_append", news)
    async with running(take_ids(Stream(feed_of(room, store), after=0), 100)):
        await asyncio.sleep(5)
        with pytest.raises(StoreError, match="disk"):
            await take_ids(Stream(feed, after=0), 1)
