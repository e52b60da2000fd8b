"""`Stream` over a source in memory: positions, shared polls, order, gaps, failures."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, Literal, NamedTuple, ParamSpec, TypeVar

import anyio
import msgspec
import pytest
from helpers import (
    assert_nothing_more,
    examples,
    logged_levels,
    now,
    running,
    schedule,
    take_ids,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import Scripted
from stores import InterceptingStore, StoreFactory, opened

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
    SqliteStore,
    StoreError,
    Stream,
    TransportError,
)
from pythpeer.stores import RedisStore, Store, Topic
from pythpeer.streams.gaps import link_entries
from pythpeer.streams.poller import LEASE, Cursor, Poller, PollSource

P = ParamSpec("P")
T = TypeVar("T")

pytestmark = pytest.mark.anyio

async_property = settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

INTERVAL: Final = 1.0


class Item(msgspec.Struct, frozen=True):
    """An item of the source."""

    id: int


class PollRecord(NamedTuple):
    """One poll of the source: ``after`` is ``None`` if it asked for the newest id only."""

    at: float
    after: int | None
    poller: Poller[Item]


class MemorySource(PollSource[Item]):
    """A source in memory, polled once per second at most; a response takes `latency` seconds."""

    name = "source"

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
        self.undecodable: set[int] = set()
        self.failures: deque[PythpeerError] = deque()
        self.permanent_error: PythpeerError | None = None
        self.polls: list[PollRecord] = []
        self._due = 0.0

    def add(self, *ids: int) -> None:
        self.ids = sorted({*self.ids, *ids})

    async def try_poll(self, poller: Poller[Item]) -> PythpeerError | None:
        await asyncio.sleep(max(0.0, self._due - now()))
        self._due = now() + INTERVAL
        without_position, after = poller.has_unpositioned, poller.min_position
        self.polls.append(PollRecord(now(), None if without_position else after, poller))
        failure = self.failures.popleft() if self.failures else None
        ids, newest = [id for id in self.ids if id > after], max(self.ids, default=0)
        await asyncio.sleep(self.latency)
        if self.permanent_error is not None:
            raise self.permanent_error
        if failure is not None:
            return failure
        if without_position:
            poller.set_initial_position(newest)
            return None
        shown = ids[: self.size] if self.window == "oldest" else ids[-self.size :]
        page = {id: None if id in self.undecodable else Item(id) for id in shown}
        full = len(page) >= self.size
        await poller.log.append(link_entries(after, page, full=full) if page else [])
        poller.confirm(after, full=full)
        return None


TOPIC: Final = Topic("source", Item)


def poller_of(
    source: MemorySource, store: Store | None = None, *, max_delay: float = 30.0
) -> Poller[Item]:
    """Return a new poller of *source*, as one session has it."""
    store = MemoryStore() if store is None else store
    return Poller(source, store.log(TOPIC), Retry(max_delay=max_delay))


@pytest.fixture
async def store(new_store: StoreFactory) -> AsyncIterator[Store]:
    async with opened(new_store()) as store:
        yield store


# -- where a stream starts ------------------------------------------------------------------------


async def test_without_a_position_a_stream_starts_from_now(store: Store) -> None:
    """``after=None`` without a name skips all that is there already."""
    source = MemorySource(1, 2, 3)
    stream = Stream(poller_of(source, store))
    schedule(2.5, source.add, 4, 5)
    assert await take_ids(stream, 2) == [4, 5]


async def test_an_empty_source_has_a_position(store: Store) -> None:
    """A stream that starts while the source is empty gets the very first item."""
    source = MemorySource()
    stream = Stream(poller_of(source, store))
    schedule(2.5, source.add, 1)
    assert await take_ids(stream, 1) == [1]


@pytest.mark.parametrize(("after", "first"), [(0, 1), (1, 2), (4, 5)])
async def test_after_is_the_position_to_start_from(store: Store, after: int, first: int) -> None:
    """``after=0`` is the oldest available, ``after=n`` everything with an id over n."""
    stream = Stream(poller_of(MemorySource(*range(1, 8)), store), after=after)
    assert await take_ids(stream, 8 - first) == list(range(first, 8))


async def test_entering_finds_the_position(store: Store) -> None:
    """What arrives after ``async with`` has begun is returned, even if requested much later."""
    source = MemorySource(1, 2)
    async with Stream(poller_of(source, store)) as stream:
        source.add(3)
        await asyncio.sleep(10)
        source.add(4)
        assert await take_ids(stream, 2) == [3, 4]


async def test_entering_twice_keeps_the_position(store: Store) -> None:
    """A stream that has a position does not look for another."""
    source = MemorySource(1)
    async with Stream(poller_of(source, store)) as stream:
        source.add(2)
        async with stream:
            assert await take_ids(stream, 1) == [2]


async def test_finding_a_position_moves_no_other_stream(store: Store) -> None:
    """One poll for the newest id gives a position to the streams without one, and only to them."""
    source = MemorySource(1, 2, 3, latency=0.2)
    poller = poller_of(source, store)
    positioned, without_position = Stream(poller, after=1), Stream(poller)
    schedule(2.5, source.add, 4)
    taken = await asyncio.gather(take_ids(positioned, 3), take_ids(without_position, 1))
    assert list(taken) == [[2, 3, 4], [4]]
    assert source.polls[0].after is None


class SlowSource(MemorySource):
    """Takes a second after each poll, when everything that it brought is known already."""

    async def try_poll(self, poller: Poller[Item]) -> PythpeerError | None:
        error = await super().try_poll(poller)
        await asyncio.sleep(1.0)
        return error


async def test_a_cancelled_start_resumes_with_the_position_it_found(store: Store) -> None:
    """What has arrived since then is returned, and the position is stored for the name."""
    source = SlowSource(1, 2)
    stream = Stream(poller_of(source, store), name="me")
    with anyio.move_on_after(0.5):
        await stream.__aenter__()
    assert await store.log(TOPIC).reader("me").position() is None
    source.add(3)
    async with stream:
        assert await store.log(TOPIC).reader("me").position() == 2
        assert await take_ids(stream, 1) == [3]


async def test_a_new_name_is_stored_immediately(store: Store) -> None:
    """No acknowledgement is needed: the next stream of the name starts where this one did."""
    source = MemorySource(1, 2)
    async with Stream(poller_of(source, store), name="new"):
        pass
    source.add(3)
    assert await store.log(TOPIC).reader("new").position() == 2
    assert await take_ids(Stream(poller_of(source, store), name="new"), 1) == [3]


async def test_a_new_name_with_after_is_stored_immediately(store: Store) -> None:
    """``after=n`` is the position of a new name before any item was acknowledged."""
    source = MemorySource(*range(1, 6))
    async with Stream(poller_of(source, store), name="new", after=3):
        assert await store.log(TOPIC).reader("new").position() == 3


async def test_a_known_name_resumes_after_the_acknowledged_item(store: Store) -> None:
    """Only a name that the store knows reaches back: other streams start from now."""
    source = MemorySource(1, 2, 3, 4)
    first = Stream(poller_of(source, store), after=0, name="known")
    assert await take_ids(first, 3) == [1, 2, 3]  # 3 stays unacknowledged
    await first.aclose()
    assert await take_ids(Stream(poller_of(source, store), name="known"), 2) == [3, 4]
    await assert_nothing_more(Stream(poller_of(source, store), name="unknown"))


async def test_an_explicit_after_replaces_the_stored_position(store: Store) -> None:
    """Forwards and backwards, immediately: a later stream of the name starts from there."""
    source = MemorySource(*range(1, 10))
    for after in (6, 2):
        moved = take_ids(Stream(poller_of(source, store), after=after, name="me"), 1)
        assert await moved == [after + 1]
        assert await take_ids(Stream(poller_of(source, store), name="me"), 1) == [after + 1]


# -- which stream polls, and how often ------------------------------------------------------------


async def test_many_streams_share_one_poll_per_interval(store: Store) -> None:
    """Ten streams cost as count polls as one, and each of them gets everything."""
    source = MemorySource()
    poller = poller_of(source, store)
    streams = [Stream(poller, after=0) for _ in range(10)]
    for second in range(10):
        schedule(second + 0.5, source.add, second + 1)
    taken = await asyncio.gather(*(take_ids(stream, 10) for stream in streams))
    assert taken == [list(range(1, 11))] * 10
    assert now() == 10.0
    assert len(source.polls) == 11


async def test_without_a_waiting_stream_there_is_no_poll(store: Store) -> None:
    """There is no background task: a stream costs nothing while its consumer is busy."""
    source = MemorySource(1, 2)
    stream = Stream(poller_of(source, store), after=0)
    assert await take_ids(stream, 1) == [1]
    tasks = asyncio.all_tasks()
    await asyncio.sleep(100)
    assert len(source.polls) == 1
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("at", [0.5, 1.0, 1.1])
async def test_a_follower_takes_over_from_a_cancelled_leader(store: Store, at: float) -> None:
    """A leader is cancelled while it waits for its poll or for a response: the others continue."""
    source = MemorySource(latency=0.2)
    poller = poller_of(source, store)
    leader, *followers = (Stream(poller, after=0) for _ in range(4))
    reading = (take_ids(stream, 1) for stream in (leader, *followers))
    async with running(*reading) as tasks:
        await asyncio.sleep(at)
        tasks[0].cancel()
        source.add(1)
        await asyncio.wait(tasks, timeout=3)
        assert [task.result() for task in tasks[1:]] == [[1]] * 3
        assert tasks[0].cancelled()
    assert len(source.polls) <= 3


async def test_all_but_one_may_be_cancelled(store: Store) -> None:
    """However count leaders are cancelled one after the other, the last stream is served."""
    source = MemorySource(latency=0.3)
    poller = poller_of(source, store)
    async with running(*(take_ids(Stream(poller, after=0), 1) for _ in range(20))) as tasks:
        for task in tasks[:-1]:
            await asyncio.sleep(0.1)
            task.cancel()
        source.add(1)
        async with asyncio.timeout(5):
            assert await tasks[-1] == [1]


async def test_polls_ask_from_the_lowest_position_of_the_waiting_streams(store: Store) -> None:
    """A stream that joins a round is included in its poll; a stream that does not wait is not."""
    source = MemorySource(*range(1, 10))
    poller = poller_of(source, store)
    high, low, idle = (Stream(poller, after=after) for after in (9, 7, 2))
    assert await take_ids(idle, 1) == [3]
    async with running(take_ids(high, 1)):
        await asyncio.sleep(0.5)
        assert await take_ids(low, 2) == [8, 9]
    source.add(10)
    async with running(take_ids(high, 1), take_ids(low, 1)) as tasks:
        async with asyncio.timeout(5):
            assert await asyncio.gather(*tasks) == [[10], [10]]
    assert [poll.after for poll in source.polls][:1] == [2]
    assert 2 not in [poll.after for poll in source.polls][1:]
    assert source.polls[-1].after == 9


async def test_the_lowest_position_counts_although_its_stream_joined_last(store: Store) -> None:
    """A stream that joins while the leader waits for its poll is included in that poll."""
    source = MemorySource(*range(1, 10))
    poller = poller_of(source, store)
    ahead, behind = Stream(poller, after=9), Stream(poller, after=4)
    async with running(take_ids(ahead, 1)):
        await asyncio.sleep(0.5)  # after the first poll; the second is sent at 1.0
        assert await take_ids(behind, 5) == [5, 6, 7, 8, 9]
    assert [(poll.at, poll.after) for poll in source.polls[:2]] == [(0.0, 9), (1.0, 4)]


async def test_a_thousand_streams_work(store: Store) -> None:
    """A thousand streams of one session get everything, on one poll per interval.

    Costs 3 s with Redis, because each of the thousand asks the server for each message.
    """
    source = MemorySource()
    poller = poller_of(source, store)
    streams = [Stream(poller, after=0) for _ in range(1000)]
    for second in range(3):
        schedule(second + 0.5, source.add, second + 1)
    taken = await asyncio.gather(*(take_ids(stream, 3) for stream in streams))
    assert taken == [[1, 2, 3]] * 1000
    assert len(source.polls) == 4


# -- order and completeness -----------------------------------------------------------------------

arrivals = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 3)), max_size=25)
"""When, in tenths of a second, an item arrives, and how much its id increases."""


@async_property
@given(
    arrivals,
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.sampled_from(["newest", "oldest"]),
    st.sampled_from([0.0, 0.3]),
)
async def test_every_stream_gets_everything_after_its_position_once_in_order(
    new_store: StoreFactory,
    times: list[tuple[int, int]],
    positions: list[int],
    window: Literal["newest", "oldest"],
    latency: float,
) -> None:
    """From any start a stream gets each id after its position once, in order, without a gap."""
    async with opened(new_store()) as store:
        source = MemorySource(window=window, latency=latency)
        id = 0
        for tick, step in sorted(times):
            id += step
            schedule(tick / 10, source.add, id)
        schedule(6.0, source.add, id + 100)
        poller = poller_of(source, store)

        async def read(after: int) -> tuple[int, list[int]]:
            stream = Stream(poller, after=after)
            taken: list[int] = []
            while id + 100 not in taken:
                taken += await take_ids(stream, 1)
                await asyncio.sleep(after / 10)
            assert stream.gaps == ()
            return after, taken

        for after, taken in await asyncio.gather(*map(read, positions)):
            assert taken == [id for id in source.ids if id > after]


@pytest.mark.parametrize("full", [True, False])
def test_a_full_page_confirms_no_position_behind_its_start(full: bool) -> None:
    """What follows a later position may lie behind the end of the page."""
    poller = poller_of(MemorySource())
    cursors = {position: Cursor() for position in (2, 5)}
    for position, cursor in cursors.items():
        cursor.position = position
        poller._waiting[cursor] = None
    poller.confirm(2, full=full)
    confirmed = {position for position, cursor in cursors.items() if not cursor.may_be_incomplete}
    assert confirmed == ({2} if full else {2, 5})
    assert {cursors[position].confirmed_at for position in confirmed} == confirmed


@async_property
@given(
    st.integers(1, 40),
    st.integers(2, 9),
    st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True),
)
async def test_a_backlog_of_full_pages_is_read_completely(
    new_store: StoreFactory, count: int, size: int, positions: list[int]
) -> None:
    """If the oldest items are returned first, page by page, no stream has a gap."""
    async with opened(new_store()) as store:
        source = MemorySource(*range(1, count + 1), size=size, window="oldest")
        poller = poller_of(source, store)

        async def read(after: int) -> None:
            stream = Stream(poller, after=min(after, count))
            wanted = list(range(min(after, count) + 1, count + 1))
            assert await take_ids(stream, len(wanted)) == wanted
            assert stream.gaps == ()

        await asyncio.gather(*map(read, positions))


# -- acknowledgement ------------------------------------------------------------------------------


async def stored(store: Store, name: str = "me") -> int | None:
    return await store.log(TOPIC).reader(name).position()


async def test_asking_for_the_next_acknowledges(store: Store) -> None:
    """An item is acknowledged when the next one is requested, not when it is returned."""
    source = MemorySource(1, 2)
    stream = Stream(poller_of(source, store), after=0, name="me")
    assert await take_ids(stream, 1) == [1]
    assert await stored(store) == 0
    await nothing_after(stream, 2)
    assert await stored(store) == 2


async def nothing_after(stream: Stream[Item], last: int) -> None:
    """Take *last*, then request an item that never arrives."""
    assert await take_ids(stream, 1) == [last]
    await assert_nothing_more(stream)


async def test_ack_acknowledges_immediately(store: Store) -> None:
    """``ack()`` has stored it on return; calling it twice, or before any item, does no harm."""
    source = MemorySource(1, 2)
    stream = Stream(poller_of(source, store), after=0, name="me")
    await stream.ack()
    assert await stored(store) is None
    assert await take_ids(stream, 1) == [1]
    await stream.ack()
    await stream.ack()
    assert await stored(store) == 1
    await stream.aclose()
    assert await take_ids(Stream(poller_of(source, store), name="me"), 1) == [2]


@pytest.mark.parametrize("how", ["break", "aclose", "context", "exception"])
@pytest.mark.parametrize("again", ["same session", "new session"])
async def test_an_unacknowledged_item_is_returned_again(store: Store, how: str, again: str) -> None:
    """Leaving the loop, closing, or failing does not acknowledge the item returned last."""
    source = MemorySource(1, 2, 3)
    poller = poller_of(source, store)
    stream = Stream(poller, after=0, name="me")

    async def consume() -> None:
        async with stream:
            async for item in stream:
                if item.id == 2 and how == "exception":
                    raise ZeroDivisionError
                if item.id == 2:
                    break

    if how == "context":
        await consume()
    elif how == "exception":
        with pytest.raises(ZeroDivisionError):
            await consume()
    else:
        async for item in stream:
            if item.id == 2:
                break
        if how == "aclose":
            await stream.aclose()
        elif isinstance(store, RedisStore):
            del (
                stream
            )  # else it keeps its unacknowledged items, and the next stream shares the name
    next_stream = Stream(poller if again == "same session" else poller_of(source, store), name="me")
    await asyncio.sleep(5)  # the lease of the first session has expired
    assert await take_ids(next_stream, 2) == [2, 3]


async def test_streams_of_different_names_get_everything_each(store: Store) -> None:
    """Each name has a position of its own."""
    source = MemorySource(1, 2, 3)
    poller = poller_of(source, store)
    for name in ("one", "other"):
        assert await take_ids(Stream(poller, after=0, name=name), 3) == [1, 2, 3]
    assert [await stored(store, name) for name in ("one", "other")] == [2, 2]


@async_property
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=8))
async def test_no_item_is_lost_and_an_acknowledged_item_is_not_repeated(
    new_store: StoreFactory,
    takes: list[tuple[int, bool]],
) -> None:
    """One stream of the name after the other: each starts right after the last acknowledged."""
    async with opened(new_store()) as store:
        source = MemorySource(*range(1, 40))
        poller, position = poller_of(source, store), 0
        async with Stream(poller, after=0, name="me"):
            pass
        for count, acknowledged in takes:
            stream = Stream(poller, name="me")
            assert await take_ids(stream, count) == list(range(position + 1, position + count + 1))
            position += count - 1
            if acknowledged:
                await stream.ack()
                position += 1
            await stream.aclose()


# -- gaps -----------------------------------------------------------------------------------------


async def test_what_did_not_fit_is_a_gap(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A full page whose lowest id is not the next one is a gap, in `gaps` and in the log."""
    source = MemorySource(1, size=10)
    async with Stream(poller_of(source, store), after=1) as stream:
        source.add(*range(2, 31))
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
    source = MemorySource(*range(1, 31), size=10)
    poller = poller_of(source, store)
    streams = [Stream(poller, after=1) for _ in range(3)]
    await asyncio.gather(*(take_ids(stream, 10) for stream in streams))
    assert [stream.gaps for stream in streams] == [(Gap(1, 21),)] * 3
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize("missing", [0, 1, 5])
async def test_only_a_lowest_id_that_is_not_the_next_makes_a_gap(
    store: Store, missing: int
) -> None:
    """A full page that begins with the next id misses nothing."""
    source = MemorySource(*range(4 + missing, 14 + missing), size=10)
    stream = Stream(poller_of(source, store), after=3)
    await take_ids(stream, 10)
    assert stream.gaps == ((Gap(3, 4 + missing),) if missing else ())


async def test_ids_left_out_of_a_page_that_is_not_full_are_no_gap(store: Store) -> None:
    """Ids need not be contiguous: private messages of others have some too."""
    stream = Stream(poller_of(MemorySource(5, 9, 20, size=10), store), after=3)
    assert await take_ids(stream, 3) == [5, 9, 20]
    assert stream.gaps == ()


@pytest.mark.parametrize("on_gap", ["log", "raise"])
async def test_from_the_oldest_available_there_is_no_gap(
    store: Store, on_gap: Literal["log", "raise"]
) -> None:
    """``after=0`` asks for what is available; older items are no gap."""
    stream = Stream(
        poller_of(MemorySource(*range(100, 150), size=10), store), after=0, on_gap=on_gap
    )
    assert await take_ids(stream, 10) == list(range(140, 150))
    assert stream.gaps == ()


async def test_a_gap_can_be_raised_once_and_passed(store: Store) -> None:
    """`GapError` is raised once, between the two items; the next request continues after it."""
    source = MemorySource(1, 2, size=5)
    stream = Stream(poller_of(source, store), after=0, on_gap="raise")
    assert await take_ids(stream, 2) == [1, 2]
    source.add(*range(3, 20))
    with pytest.raises(GapError) as caught:
        await take_ids(stream, 1)
    assert (caught.value.after, caught.value.before, caught.value.endpoint) == (2, 15, "source")
    assert await take_ids(stream, 5) == list(range(15, 20))
    source.add(20)
    assert await take_ids(stream, 1) == [20]
    assert stream.gaps == (Gap(2, 15),)


async def test_the_item_before_a_raised_gap_is_acknowledged(store: Store) -> None:
    """It was lease_requests for more: a later stream of the name meets the gap, not that item."""
    source = MemorySource(1, size=5)
    stream = Stream(poller_of(source, store), after=0, name="me", on_gap="raise")
    assert await take_ids(stream, 1) == [1]
    source.add(*range(2, 20))
    with pytest.raises(GapError):
        await take_ids(stream, 1)
    assert await stored(store) == 1


async def test_gaps_are_each_stream_s_own(new_store: StoreFactory) -> None:
    """One that keeps up has none, though another that did not has; and it gets no false one."""
    async with opened(new_store(max_length=10)) as store:
        source = MemorySource(1, size=10)
        poller = poller_of(source, store)
        quick, slow = Stream(poller, after=1), Stream(poller, after=1)
        for first in range(2, 50, 4):
            source.add(*range(first, first + 4))
            assert await take_ids(quick, 4) == list(range(first, first + 4))
        assert await take_ids(slow, 10) == list(range(40, 50))
        source.add(50)
        assert await take_ids(quick, 1) == await take_ids(slow, 1) == [50]
        assert quick.gaps == ()
        assert slow.gaps == (Gap(1, 40),)


async def test_a_slow_stream_asks_the_service_for_what_was_trimmed(new_store: StoreFactory) -> None:
    """What a short log no longer has is fetched again, and where the service has it is no gap."""
    async with opened(new_store(max_length=5)) as store:
        source = MemorySource()
        poller = poller_of(source, store)
        quick, slow = Stream(poller, after=0), Stream(poller, after=0, on_gap="raise")
        for id in range(1, 21):
            source.add(id)
            assert await take_ids(quick, 1) == [id]
        assert await take_ids(slow, 20) == list(range(1, 21))
        assert slow.gaps == ()


async def test_a_page_longer_than_the_log_is_returned_completely(new_store: StoreFactory) -> None:
    """The log's length limits what is kept, not the length of one page."""
    async with opened(new_store(max_length=10)) as store:
        stream = Stream(poller_of(MemorySource(*range(1, 31)), store), after=0)
        assert await take_ids(stream, 30) == list(range(1, 31))
        assert stream.gaps == ()


async def test_a_slow_stream_reports_a_gap_for_items_no_longer_available(
    new_store: StoreFactory,
) -> None:
    """Trimmed here, dropped by the service: one gap, from its position to the oldest available."""
    async with opened(new_store(max_length=5)) as store:
        source = MemorySource()
        poller = poller_of(source, store)
        quick, slow = Stream(poller, after=0), Stream(poller, after=0, name="slow")
        source.add(1)
        assert await take_ids(quick, 1) == await take_ids(slow, 1) == [1]
        for id in range(2, 31):
            source.add(id)
            assert await take_ids(quick, 1) == [id]
        del source.ids[:-3]
        assert await take_ids(slow, 5) == list(range(26, 31))
        assert slow.gaps == (Gap(1, 26),)
        assert quick.gaps == ()


async def test_another_s_gap_is_not_passed_on(store: Store) -> None:
    """A gap of one stream is no gap for another whose log has what is in between."""
    source = MemorySource(*range(1, 21), size=10)
    poller = poller_of(source, store)
    early = Stream(poller, after=2)
    assert await take_ids(early, 10) == list(range(11, 21))
    assert early.gaps == (Gap(2, 11),)
    late = Stream(poller, after=10)
    assert await take_ids(late, 10) == list(range(11, 21))
    assert late.gaps == ()


@pytest.mark.parametrize("last_page", ["not full", "full"])
async def test_a_page_that_is_not_full_proves_that_there_is_no_gap(
    store: Store, last_page: str
) -> None:
    """One session's page was full, another's was not: the second shows that nothing is missing."""
    source = MemorySource(100, 110, size=3)
    near, far = (
        Stream(poller_of(source, store), after=90),
        Stream(poller_of(source, store), after=50),
    )
    source.latency = 5.0 if last_page == "not full" else 0.0
    async with running(take_ids(near, 2)) as (reading,):
        await asyncio.sleep(0.5)
        source.latency = 0.0
        source.add(120)
        assert await take_ids(far, 3) == [100, 110, 120]
        assert await reading == [100, 110]
    assert near.gaps == ()
    assert far.gaps == (Gap(50, 100),)
    assert await take_ids(Stream(poller_of(source, store), after=90, on_gap="raise"), 1) == [100]


# -- what cannot be decoded -----------------------------------------------------------------------


async def test_undecodable_items_are_skipped_and_counted_once_for_each_stream(store: Store) -> None:
    """They hide no other items; each stream counts those after its own position."""
    source = MemorySource(*range(1, 10))
    source.undecodable = {2, 3, 9}
    poller = poller_of(source, store)
    first, second = Stream(poller, after=0), Stream(poller, after=2)
    assert await take_ids(first, 6) == [1, 4, 5, 6, 7, 8]
    assert await take_ids(second, 5) == [4, 5, 6, 7, 8]
    await assert_nothing_more(first)
    await assert_nothing_more(second)
    source.add(10)
    assert await take_ids(first, 1) == await take_ids(second, 1) == [10]
    assert (first.skipped, second.skipped) == (3, 2)


async def test_an_undecodable_item_is_no_gap(store: Store) -> None:
    """An undecodable item has arrived: nothing is missing."""
    source = MemorySource(*range(1, 21), size=10, window="oldest")
    source.undecodable = {1, 10, 11}
    stream = Stream(poller_of(source, store), after=0, on_gap="raise")
    assert await take_ids(stream, 17) == [*range(2, 10), *range(12, 21)]
    assert stream.gaps == ()


# -- failures -------------------------------------------------------------------------------------

TRANSIENT: Final = [
    TransportError("no connection", sent=False),
    TransportError("broke"),
    RequestTimeoutError("too late"),
    HttpStatusError("HTTP status 500", status=500),
    HttpStatusError("HTTP status 503", status=503),
    RateLimitedError("too count", status=429, retry_after=1.0),
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
async def test_a_transient_failure_is_retried(
    error: PythpeerError, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind, any number in a row: one WARNING for the first and one INFO for the recovery."""
    caplog.set_level(logging.DEBUG)
    source = MemorySource(1)
    source.failures.extend([error] * 4)
    stream = Stream(poller_of(source), after=0)
    assert await take_ids(stream, 1) == [1]
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO]
    assert len(source.polls) == 5


async def test_each_series_of_failures_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A failure after a recovery is a new WARNING and, after the next recovery, a new INFO."""
    caplog.set_level(logging.INFO)
    source = MemorySource(1)
    stream = Stream(poller_of(source), after=0)
    source.failures.append(TransportError())
    assert await take_ids(stream, 1) == [1]
    source.failures.extend([TransportError(), DecodeError()])
    source.add(2)
    assert await take_ids(stream, 1) == [2]
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO] * 2


async def test_many_streams_log_a_failure_once(caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING and one INFO for all the streams that wait."""
    caplog.set_level(logging.INFO)
    source = MemorySource(1)
    source.failures.extend([HttpStatusError(status=502)] * 3)
    poller = poller_of(source)
    await asyncio.gather(*(take_ids(Stream(poller, after=0), 1) for _ in range(5)))
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO]


async def test_a_stream_never_gives_up_and_never_waits_longer_than_max_delay() -> None:
    """After hundreds of failures it still asks, every ``max_delay`` seconds at least."""
    source = MemorySource(1)
    source.failures.extend([TransportError()] * 300)
    stream = Stream(poller_of(source, max_delay=7.0), after=0)
    assert await take_ids(stream, 1, within=1e5) == [1]
    gaps = [later.at - previous.at for previous, later in itertools.pairwise(source.polls)]
    assert max(gaps) <= 7.0 + INTERVAL
    assert max(gaps) > 5.0


async def test_the_back_off_outlasts_consumers_that_stop_waiting() -> None:
    """Consumers with short time limits do not make the service be polled more often."""
    source = MemorySource()
    source.failures.extend([TransportError()] * 100)
    stream = Stream(poller_of(source, max_delay=30.0), after=0)
    for _ in range(400):
        with anyio.move_on_after(0.25):
            await anext(stream)
    assert now() == pytest.approx(100.0)
    assert len(source.polls) < 25


@pytest.mark.parametrize("error", FATAL, ids=kind)
@pytest.mark.parametrize("mode", ["returned", "raised"])
async def test_a_permanent_error_is_raised_every_time(error: PythpeerError, mode: str) -> None:
    """Every request raises it; after the cause is removed, the stream continues."""
    source = MemorySource(1, 2)
    stream = Stream(poller_of(source), after=0)
    assert await take_ids(stream, 2) == [1, 2]
    for _ in range(3):
        if mode == "returned":
            source.failures.append(error)
        else:
            source.permanent_error = error
        with pytest.raises(type(error), match=str(error)):
            await take_ids(stream, 1)
    source.permanent_error = None
    source.add(3)
    assert await take_ids(stream, 1) == [3]


async def test_every_stream_that_waits_gets_the_error() -> None:
    """The leader and its followers all raise it, each an exception object of its own."""
    source = MemorySource(latency=0.2)
    source.permanent_error = AccessDeniedError("wrong key", message="wrong key", status=403)
    poller = poller_of(source)
    async with running(*(take_ids(Stream(poller, after=0), 1) for _ in range(5))) as tasks:
        await asyncio.wait(tasks, timeout=5)
        errors = [task.exception() for task in tasks]
    assert [type(error) for error in errors] == [AccessDeniedError] * 5
    assert len(set(map(id, errors))) == 5
    assert {getattr(error, "message", None) for error in errors} == {"wrong key"}
    assert len(source.polls) == 1


# -- cancellation ---------------------------------------------------------------------------------

How = Literal["asyncio.timeout", "anyio", "cancel"]


async def ask(stream: Stream[Item], limit: float, how: How) -> list[int]:
    """Ask for one item, and be cancelled after *limit* seconds."""
    taken: list[int] = []

    async def take_one() -> None:
        taken.append((await anext(stream)).id)

    match how:
        case "asyncio.timeout":
            try:
                async with asyncio.timeout(limit):
                    await take_one()
            except TimeoutError:
                pass
        case "anyio":
            with anyio.move_on_after(limit):
                await take_one()
        case "cancel":
            async with running(take_one()) as (task,):
                await asyncio.sleep(limit)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or taken
    return taken


cancel_modes = st.sampled_from(["asyncio.timeout", "anyio", "cancel"])
limits = st.integers(0, 30).map(lambda number: number / 10)


@async_property
@given(
    st.lists(st.tuples(limits, cancel_modes), max_size=15),
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
    without_position: bool,
) -> None:
    """Whenever and however it is cancelled: afterwards every item is returned, once, in order."""
    async with opened(new_store()) as store:
        source = MemorySource(latency=latency)
        source.failures.extend([TransportError()] * failures)
        poller = poller_of(source, store, max_delay=2.0)
        id = 0
        for tick, step in sorted(times):
            id += step
            schedule(tick / 10, source.add, id)
        stream = Stream(poller, after=None if without_position else 0, name="me")
        taken: list[int] = []
        for limit, how in cancellations:
            taken += await ask(stream, limit, how)
        if without_position:
            async with stream:
                await asyncio.sleep(6)
                source.add(id + 1)
                last = id + 1
                while last not in taken:
                    taken += await take_ids(stream, 1)
            assert taken == source.ids[source.ids.index(taken[0]) :]
        else:
            await asyncio.sleep(6)
            taken += await take_ids(stream, len(source.ids) - len(taken))
            assert taken == source.ids
        assert stream.gaps == ()


async def test_a_time_limit_around_asking_is_just_that() -> None:
    """``asyncio.timeout`` and ``anyio.fail_after`` raise `TimeoutError`; the stream continues."""
    source = MemorySource()
    stream = Stream(poller_of(source), after=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await anext(stream)
    with pytest.raises(TimeoutError), anyio.fail_after(2.5):
        await anext(stream)
    assert now() == 5.0
    source.add(1)
    assert await take_ids(stream, 1) == [1]


async def test_a_consumer_s_own_scope_works_across_items() -> None:
    """A cancel scope around a loop does not get mixed up with the stream."""
    source = MemorySource(1, 2, 3)
    stream = Stream(poller_of(source), after=0)
    taken: list[int] = []
    with anyio.move_on_after(10) as scope:
        async for item in stream:
            taken.append(item.id)
            with anyio.move_on_after(0.5):
                await anyio.sleep(1)
    assert scope.cancelled_caught
    assert taken == [1, 2, 3]
    assert now() == 10.0


# -- misuse, and the end --------------------------------------------------------------------------


async def test_plain_for_raises_an_error_that_names_async_for() -> None:
    """``for`` on a stream raises a `TypeError` that names ``async for``."""
    with pytest.raises(TypeError, match="async for"):
        list(as_iterable(Stream(poller_of(MemorySource()), after=0)))


def as_iterable(stream: object) -> Iterable[object]:
    """Do what a caller without a type checker may do."""
    assert isinstance(stream, Iterable)
    return stream


async def test_two_tasks_cannot_iterate_over_one_stream(store: Store) -> None:
    """The second gets a clear error, the first its item; afterwards either may continue."""
    source = MemorySource()
    stream = Stream(poller_of(source, store), after=0)
    async with running(take_ids(stream, 1)) as (first,):
        await asyncio.sleep(0.5)
        with pytest.raises(InvalidRequestError, match="another task"):
            await anext(stream)
        with pytest.raises(InvalidRequestError, match="another task"):
            await stream.__aenter__()
        source.add(1)
        async with asyncio.timeout(5):
            assert await first == [1]
    source.add(2)
    assert await take_ids(stream, 1) == [2]


@pytest.mark.parametrize("after", [-1, True, 1.5, "3", 2**31])
async def test_after_must_be_an_id(after: int) -> None:
    """Anything but an integer from 0 is rejected when the stream is made."""
    with pytest.raises(InvalidRequestError, match="after"):
        Stream(poller_of(MemorySource()), after=after)


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800", 5])
async def test_a_name_must_be_text(name: str) -> None:
    """A name that no store could keep is rejected when the stream is made."""
    with pytest.raises(InvalidRequestError, match="name"):
        Stream(poller_of(MemorySource()), name=name)


async def test_on_gap_is_one_of_two() -> None:
    """Another value is rejected when the stream is made."""
    with pytest.raises(InvalidRequestError, match="on_gap"):
        Stream(poller_of(MemorySource()), on_gap="ignore")  # type: ignore[arg-type]  # that is the point


async def test_a_closed_stream_is_at_its_end(store: Store) -> None:
    """``aclose()`` ends the loop, may be called twice, and drops what is in the buffer."""
    source = MemorySource(1, 2, 3)
    stream = Stream(poller_of(source, store), after=0)
    taken = []
    async for item in stream:
        taken.append(item.id)
        await stream.aclose()
        await stream.aclose()
    assert taken == [1]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_ends_a_wait(store: Store) -> None:
    """A stream that waits for an item ends soon after another task closes it."""
    stream = Stream(poller_of(MemorySource(), store), after=0)

    async def read() -> list[Item]:
        return [item async for item in stream]

    async with running(read()) as (wait,):
        await asyncio.sleep(0.5)
        await stream.aclose()
        async with asyncio.timeout(2 * INTERVAL):
            assert await wait == []


async def test_a_closed_session_is_reported_to_every_stream(store: Store) -> None:
    """While it waits, during a back-off, or later: `SessionClosedError`, every time."""
    source = MemorySource()
    source.failures.extend([TransportError()] * 1000)
    poller = poller_of(source, store, max_delay=100.0)
    streams = [Stream(poller, after=0) for _ in range(3)]
    async with running(*(take_ids(stream, 1, 1e4) for stream in streams)) as tasks:
        await asyncio.sleep(500)
        closed_at = now()
        poller.close()
        await asyncio.wait(tasks, timeout=10)
        assert [type(task.exception()) for task in tasks] == [SessionClosedError] * 3
        assert now() - closed_at <= INTERVAL
    for _ in range(2):
        with pytest.raises(SessionClosedError):
            await take_ids(streams[0], 1)


async def test_the_repr_shows_endpoint_name_and_position() -> None:
    """And whether the stream is closed."""
    stream = Stream(poller_of(MemorySource(1)), after=0, name="me")
    await take_ids(stream, 1)
    assert repr(stream) == "<Stream of source 'me', at 1>"
    await stream.aclose()
    assert repr(stream) == "<Stream of source 'me', closed>"
    assert repr(Stream(poller_of(MemorySource()))) == "<Stream of source, at None>"


# -- sessions that share a store ------------------------------------------------------------------


async def test_one_session_polls_for_all(store: Store) -> None:
    """Two sessions on one store cost no more polls than one, and both get everything."""
    source = MemorySource()
    pollers = [poller_of(source, store) for _ in range(2)]
    for second in range(20):
        schedule(second + 0.5, source.add, second + 1)
    streams = [Stream(poller, after=0) for poller in pollers]
    taken = await asyncio.gather(*(take_ids(stream, 20) for stream in streams))
    assert taken == [list(range(1, 21))] * 2
    assert len({poll.poller for poll in source.polls[3:]}) == 1
    assert len(source.polls) <= 22
    assert now() <= 21.0


async def test_another_session_takes_over(store: Store) -> None:
    """When the session that polls stops, another polls after a short while."""
    source = MemorySource()
    first, second = (
        Stream(poller_of(source, store), after=0),
        Stream(poller_of(source, store), after=0),
    )
    async with running(take_ids(first, 1), take_ids(second, 1)) as tasks:
        await asyncio.sleep(5)
        tasks[0].cancel()
        source.add(1)
        async with asyncio.timeout(5):
            assert await tasks[1] == [1]


async def ask_repeatedly(stream: Stream[Item], pause: float, errors: list[PythpeerError]) -> None:
    """Ask for items, and again some seconds after each error."""
    while True:
        try:
            async for _ in stream:
                pass
        except PythpeerError as error:
            errors.append(error)
        await asyncio.sleep(pause)


@pytest.mark.parametrize("pause", [0.0, 0.3, 1.0, 5.0])
async def test_a_permanent_error_is_raised_in_every_session(store: Store, pause: float) -> None:
    """Also where one of them asks again so soon that it could always be the one that polls."""
    source = MemorySource()
    streams = [Stream(poller_of(source, store), after=0) for _ in range(2)]
    errors: list[list[PythpeerError]] = [[], []]
    async with running(*map(ask_repeatedly, streams, [pause] * 2, errors)):
        await asyncio.sleep(5)
        source.permanent_error = FATAL[0]
        await asyncio.sleep(30)
        assert min(map(len, errors)) >= 3
        assert all(stream.health().last_error == type(FATAL[0]).__name__ for stream in streams)


@pytest.mark.parametrize("error", [FATAL[0], TransportError("no connection", sent=False)], ids=kind)
async def test_a_session_that_fails_leaves_the_polls_to_another(
    store: Store, error: PythpeerError
) -> None:
    """Its connection or its options may be the cause. It gets what the other one fetches."""
    failing, working = MemorySource(), MemorySource()
    first = Stream(poller_of(failing, store, max_delay=0.5), after=0)
    second = Stream(poller_of(working, store), after=0)
    async with running(ask_repeatedly(first, 0.3, []), take_ids(second, 3)) as tasks:
        await asyncio.sleep(5)
        failing.failures.extend([error] * 1000)
        for id in range(1, 4):
            await asyncio.sleep(5)
            working.add(id)
        async with asyncio.timeout(10):
            assert await tasks[1] == [1, 2, 3]
        await asyncio.sleep(5)
        assert first.health().cursor == 3


async def test_a_new_stream_finds_its_position_while_another_session_polls(store: Store) -> None:
    """A stream without a position gets one, although another session polls."""
    source = MemorySource(1, 2)
    busy, new = Stream(poller_of(source, store), after=2), Stream(poller_of(source, store))
    async with running(take_ids(busy, 100)):
        await asyncio.sleep(5)
        async with asyncio.timeout(10):
            await new.__aenter__()
        source.add(3)
        assert await take_ids(new, 1, within=10) == [3]


async def test_a_stream_from_the_start_gets_the_past_while_another_session_polls(
    store: Store,
) -> None:
    """What the shared log lacks is requested, although another session polls."""
    source = MemorySource(*range(1, 10))
    busy, late = (
        Stream(poller_of(source, store), after=8),
        Stream(poller_of(source, store), after=0),
    )
    async with running(take_ids(busy, 100)):
        await asyncio.sleep(5)
        assert await take_ids(late, 9, within=10) == list(range(1, 10))


async def test_a_stream_that_joins_while_the_lease_is_requested_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the store takes to report that another session has the lease."""
    source, store = MemorySource(1, 2), MemoryStore()
    poller = poller_of(source, store)
    acquire_lease = poller.log.acquire_lease

    async def acquire_later(seconds: float) -> bool:
        await asyncio.sleep(0.5)
        return await acquire_lease(seconds)

    monkeypatch.setattr(poller.log, "acquire_lease", acquire_later)
    busy, waits, new = (
        Stream(poller_of(source, store), after=2),
        Stream(poller, after=2),
        Stream(poller),
    )
    async with running(take_ids(busy, 100), take_ids(waits, 100)):
        await asyncio.sleep(0.1)
        start = now()
        await new.__aenter__()
        assert now() - start < LEASE


async def test_a_stream_from_the_start_is_not_delayed_by_one_that_waits_for_another_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If reading takes a while, the stream that waits returns first, and becomes the leader."""
    source, store = MemorySource(*range(1, 6)), MemoryStore()
    poller = poller_of(source, store)
    lease_requests: list[float] = []

    def slow(kind: type[object], name: str) -> None:
        does = getattr(kind, name)

        async def acquire_later(*args: object, **options: object) -> object:
            if name == "acquire_lease":
                lease_requests.append(now())
            await asyncio.sleep(0.002)
            return await does(*args, **options)

        monkeypatch.setattr(kind, name, acquire_later)

    slow(type(poller.log), "acquire_lease")
    slow(type(poller.log.reader(None)), "read")
    busy, waits, late = (
        Stream(poller_of(source, store), after=5),
        Stream(poller, after=5),
        Stream(poller, after=2),
    )
    async with running(take_ids(busy, 100), take_ids(waits, 100)):
        await asyncio.sleep(5)
        del lease_requests[:]
        start = now()
        assert await take_ids(late, 3, within=LEASE) == [3, 4, 5]
        assert len(lease_requests) < 5 + (now() - start)


async def test_a_closed_session_is_reported_while_another_polls(store: Store) -> None:
    """A stream of a closed session raises although its log still grows."""
    source = MemorySource()
    closed = poller_of(source, store)
    busy, stream = Stream(poller_of(source, store), after=0), Stream(closed, after=0)
    async with running(take_ids(busy, 100), take_ids(stream, 1)) as tasks:
        await asyncio.sleep(5)
        closed.close()
        await asyncio.wait(tasks[1:], timeout=10)
        assert tasks[1].done()
        assert isinstance(tasks[1].exception(), SessionClosedError)


async def test_a_store_that_fails_while_another_session_polls_is_reported(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream that waits for another session's append raises the store's error."""
    source = MemorySource()
    poller = poller_of(source, store)

    async def failing_wait(seconds: float) -> None:
        await asyncio.sleep(1.0)
        raise StoreError("the disk is gone")

    monkeypatch.setattr(poller.log, "wait_for_append", failing_wait)
    async with running(take_ids(Stream(poller_of(source, store), after=0), 100)):
        await asyncio.sleep(5)
        with pytest.raises(StoreError, match="disk"):
            await take_ids(Stream(poller, after=0), 1)


async def test_a_lease_that_cannot_be_acquired_is_tried_after_a_back_off(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store that fails immediately is not asked without a pause; it is logged once."""
    source = MemorySource(1)
    poller = poller_of(source, store)
    stream = Stream(poller, after=0)
    assert await take_ids(stream, 1) == [1]
    acquire, tries = poller.log.acquire_lease, list[float]()

    async def failing(seconds: float) -> bool:
        tries.append(now())
        if len(tries) <= 20:
            raise StoreError("the disk is full", transient=True)
        return await acquire(seconds)

    monkeypatch.setattr(poller.log, "acquire_lease", failing)
    source.add(2)
    assert await take_ids(stream, 1, within=1e4) == [2]
    assert tries[20] - tries[0] > 2.0
    levels = logged_levels(caplog)
    assert levels.count(logging.WARNING) == 1


class FailingStore(InterceptingStore):
    """A store whose calls fail while `fails` is true; opening and closing succeed."""

    fails = False

    async def intercept(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self.fails and work.__name__ not in ("open", "aclose"):
            raise StoreError("unreachable", transient=True)
        return await super().intercept(work, *args, **kwargs)


async def test_a_stream_continues_soon_after_a_long_failure_of_its_store(
    new_store: StoreFactory, services: Scripted
) -> None:
    """On a disk within a second, on a server within five, however long the failure was."""
    store = FailingStore(new_store())
    bound = {MemoryStore: 30.0, SqliteStore: 1.0}.get(type(store.inner), 5.0)
    async with services.session(store=store, retry=Retry(max_delay=30.0)) as session:
        stream = session.peerbet.chat_stream(after=0)
        services.say()
        assert await take_ids(stream, 1) == [1]
        store.fails = True
        services.say()
        for end in range(100, 124, 2):  # a back-off has jitter: one of them would take longer
            reading = asyncio.ensure_future(take_ids(stream, 1, within=200.0))
            schedule(end, setattr, store, "fails", False)
            await asyncio.sleep(end + bound + 2.0)
            assert reading.done()
            await reading
            store.fails = True
            services.say()
        store.fails = False
