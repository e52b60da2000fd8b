"""What every store keeps to, whichever it is of `STORES`, and the one on a server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest
import redis_server
from helpers import examples, real_time
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stores import STORES

from pythpeer import InvalidRequestError, MemoryStore, Rate, StoreError
from pythpeer.line import Priority
from pythpeer.polling import link_entries
from pythpeer.stores import (
    DIRECT,
    EndpointSnapshot,
    Entry,
    LatestItem,
    Log,
    LogSnapshot,
    NewEntry,
    ReaderSnapshot,
    RedisStore,
    Store,
    StoreSnapshot,
    Topic,
)

pytestmark = pytest.mark.anyio

Make = Callable[[int], Store]
"""Makes a new store, not yet open, whose logs keep so many items."""

REAL_SERVER: Final = "redis on a real server"

KINDS: Final = [
    *STORES,
    pytest.param(
        REAL_SERVER, marks=[real_time, pytest.mark.processes, redis_server.needs_a_server]
    ),
]

LONG: Final = 1000
SHORT: Final = 5


class Note(msgspec.Struct, frozen=True):
    """An item with something of everything that items are made of."""

    text: str
    sent_at: datetime | None = None
    flag: bool = False
    raw: dict[str, object] = {}


CHAT: Final = Topic("chat", Note)
MAIL: Final = Topic("mail", Note, destructive=True)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def second(kind: str) -> float:
    """How long a second is."""
    return 0.02 if kind == REAL_SERVER else 1.0


@pytest.fixture
def virtual(kind: str) -> bool:
    """Whether time is exact. On a busy machine real time says at least who is too early."""
    return kind != REAL_SERVER


async def comes(happened: Callable[[], Awaitable[object]], step: float) -> float:
    """Ask every *step* seconds until it has happened; return when it had not happened yet."""
    now = asyncio.get_running_loop().time
    end = now() + 60.0
    while True:
        before = now()
        assert before < end, "it did not happen"
        if await happened():
            return before
        await asyncio.sleep(step)


@pytest.fixture
def make(request: pytest.FixtureRequest, kind: str, folder: Path) -> Make:
    if kind != REAL_SERVER:
        return lambda length: STORES[kind](folder, length)
    url = request.getfixturevalue("redis_url")("real")
    return lambda length: RedisStore(url, prefix=uuid.uuid4().hex, max_length=length)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[Store]:
    store = make(LONG)
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
async def short(make: Make) -> AsyncIterator[Store]:
    """A store whose logs keep five items."""
    store = make(SHORT)
    await store.open()
    yield store
    await store.aclose()


def numbered(*ids: int, after: int | None = None) -> list[NewEntry[Note]]:
    """Drafts with these ids, each linked to the one before, the first to *after*."""
    links = (ids[0] - 1 if after is None else after, *ids)
    return [
        NewEntry(Note(f"note {id}"), id=id, after=link)
        for link, id in zip(links, ids, strict=False)
    ]


def lettered(*keys: str, copies: int = 0) -> list[NewEntry[Note]]:
    """Drafts without ids, told apart by these keys."""
    return [NewEntry(Note(key), identity=key, max_copies=copies) for key in keys]


async def entries(log: Log[Note], after: int = 0, limit: int = 100) -> list[Entry[Note]]:
    return list(await log.reader(None).read(after, limit))


async def ids(log: Log[Note], after: int = 0, limit: int = 100) -> list[int]:
    return [entry.id for entry in await entries(log, after, limit)]


async def links(log: Log[Note], place: int) -> list[tuple[int, int, bool]]:
    """What the chain says to a reader at *place*: each id, what it is linked to, if with a gap."""
    found: list[tuple[int, int, bool]] = []
    for entry in await entries(log, place):
        found.append((entry.id, max(entry.after, place), entry.gap))
        place = entry.id
    return found


async def texts(log: Log[Note]) -> list[str]:
    return [entry.item.text for entry in await entries(log) if entry.item is not None]


# -- the log --------------------------------------------------------------------------------------


async def test_a_new_log_is_empty(store: Store) -> None:
    """There is nothing to read, nothing acknowledged and nothing announced."""
    log = store.log(CHAT)
    assert await ids(log) == []
    assert await log.max_acknowledged() == 0
    assert not await log.lost_fetches()


async def test_what_is_appended_is_read_back_whole(store: Store) -> None:
    """Every field of item and link comes back as it was."""
    note = Note("é\0\n", datetime(2012, 12, 12, 21, 12, 21), flag=True, raw={"a": [1, None, "x"]})
    draft = NewEntry(note, id=7, after=3, gap=True)
    log = store.log(CHAT)
    assert list(await log.append([draft])) == [draft]
    assert await entries(log) == [Entry(7, 3, True, note)]


async def test_entries_come_in_id_order_after_a_place_and_up_to_a_limit(store: Store) -> None:
    """*after* is exclusive, *limit* is a maximum, and the order is that of the ids."""
    log = store.log(CHAT)
    await log.append(numbered(10, 20, 30))
    await log.append(numbered(5, 15))
    assert await ids(log) == [5, 10, 15, 20, 30]
    assert await ids(log, 10) == [15, 20, 30]
    assert await ids(log, 14, 2) == [15, 20]
    assert await ids(log, 30) == []


async def test_nothing_to_append_is_nothing(store: Store) -> None:
    """An empty page does no harm."""
    log = store.log(CHAT)
    assert list(await log.append([])) == []
    assert await ids(log) == []


async def test_an_id_is_appended_once(store: Store) -> None:
    """`append` returns what was new, and what was known stays as it was."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2))
    other = [NewEntry(Note("other"), id=2, after=1), NewEntry(Note("note 3"), id=3, after=2)]
    assert list(await log.append(other)) == other[1:]
    assert await texts(log) == ["note 1", "note 2", "note 3"]


async def test_an_id_that_comes_twice_at_once_is_appended_once(store: Store) -> None:
    """The first one counts, with the link that reaches further back, and so does the length."""
    log = store.log(CHAT)
    first, again = numbered(7, after=5), numbered(7, after=3)
    assert list(await log.append([*first, *again, *numbered(8)])) == [*first, *numbered(8)]
    assert [(entry.id, entry.after) for entry in await entries(log)] == [(7, 3), (8, 7)]
    assert list(await log.append(numbered(9))) == numbered(9)
    assert await ids(log) == [7, 8, 9]


SAYS_MORE: Final = [
    ((8, False), (4, False)),
    ((8, True), (4, True)),
    ((8, True), (4, False)),
    ((4, True), (4, False)),
    ((4, True), (8, False)),
]
"""Pairs of links, each as how far it reaches back and whether there is a gap; the second says more:
that there is nothing between is worth more than not to know what there is."""


@pytest.mark.parametrize(("less", "more"), SAYS_MORE)
async def test_a_link_that_says_more_is_taken_over(
    store: Store, less: tuple[int, bool], more: tuple[int, bool]
) -> None:
    """Then the entry has the new link, but the item it had."""
    log = store.log(CHAT)
    await log.append([NewEntry(Note("first"), id=9, after=less[0], gap=less[1])])
    assert await links(log, 8) == [(9, 8, less[1])]
    other = NewEntry(Note("second"), id=9, after=more[0], gap=more[1])
    assert list(await log.append([other])) == []
    assert await entries(log) == [Entry(9, *more, Note("first"))]
    assert await links(log, 8) == [(9, 8, more[1])]


@pytest.mark.parametrize(("less", "more"), SAYS_MORE)
async def test_a_link_that_says_less_is_not(
    store: Store, less: tuple[int, bool], more: tuple[int, bool]
) -> None:
    """The entry stays as it was."""
    log = store.log(CHAT)
    await log.append([NewEntry(Note("first"), id=9, after=more[0], gap=more[1])])
    await log.append([NewEntry(Note("second"), id=9, after=less[0], gap=less[1])])
    assert await entries(log) == [Entry(9, *more, Note("first"))]
    assert await links(log, 8) == [(9, 8, more[1])]


PAGES: Final = st.lists(
    st.tuples(st.integers(0, 20), st.sets(st.integers(1, 30), max_size=8), st.booleans()),
    max_size=6,
)
"""The place that was asked from, the ids that were shown, and whether there were as many as fit."""


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([(0, {1}, False), (0, {2, 3}, False)])
@given(PAGES)
async def test_it_does_not_matter_which_page_came_first(
    make: Make, pages: list[tuple[int, set[int], bool]]
) -> None:
    """Sessions that share a log may be answered in any order: what it says is the same."""
    store = make(LONG)
    await store.open()
    log, other = store.log(CHAT), store.log(Topic("other", Note))
    for one, turn in ((log, pages), (other, reversed(pages))):
        for after, shown, full in turn:
            page = {id: Note(str(id)) for id in shown}
            await one.append(link_entries(after, page, full=full))
    for place in range(30):
        assert await links(log, place) == await links(other, place)
    await store.aclose()


async def test_a_hole_is_an_entry_too(store: Store) -> None:
    """One that could not be decoded is read back as such, once."""
    log = store.log(CHAT)
    hole: NewEntry[Note] = NewEntry(None, id=2, after=1)
    assert list(await log.append([hole])) == [hole]
    assert list(await log.append([hole])) == []
    assert await entries(log) == [Entry(2, 1, False, None)]


async def test_drafts_without_ids_are_numbered_in_order(store: Store) -> None:
    """The log gives the next number, and links each to the one before."""
    log = store.log(MAIL)
    await log.append(lettered("a", "b"))
    await log.append(lettered("c"))
    assert [(entry.after, entry.id, entry.gap) for entry in await entries(log)] == [
        (0, 1, False),
        (1, 2, False),
        (2, 3, False),
    ]
    assert await texts(log) == ["a", "b", "c"]


async def test_copies_bound_how_often_a_key_is_appended(store: Store) -> None:
    """A draft is new only while the log has seen fewer of its key; 0 sets no bound."""
    log = store.log(MAIL)
    assert len(await log.append(lettered("a", "a", "b", copies=1))) == 2
    assert len(await log.append(lettered("a", "b", copies=1))) == 0
    assert len(await log.append(lettered("a", copies=2))) == 1
    assert len(await log.append(lettered("a", "a"))) == 2
    assert len(await log.append(lettered("a", copies=4))) == 0
    assert await texts(log) == ["a", "b", "a", "a", "a"]


async def test_keys_are_remembered_longer_than_entries(short: Store) -> None:
    """Mail that was trimmed is not new because of that."""
    log = short.log(MAIL)
    reader = log.reader("me")
    for number in range(20):
        await log.append(lettered(f"id {number}", copies=1))
        reader.ack(number + 1)
        await reader.flush()
    assert len(await ids(log)) <= SHORT + 1
    assert list(await log.append(lettered("id 0", copies=1))) == []


async def test_logs_are_told_apart_by_topic(store: Store) -> None:
    """What one log has, another has not: items, keys, places, announcements."""
    one, other = store.log(MAIL), store.log(Topic("other", Note, destructive=True))
    await one.append(lettered("a", copies=1))
    await one.reader("me").seek(1)
    await one.lose_fetch(await one.begin_fetch(20.0))
    assert await ids(other) == []
    assert await other.reader("me").position() is None
    assert not await other.lost_fetches()
    assert len(await other.append(lettered("a", copies=1))) == 1


async def test_holds_on_one_log_share_all(store: Store) -> None:
    """Each session has its own hold on the log, and sees what the others append."""
    one, other = store.log(CHAT), store.log(CHAT)
    await one.append(numbered(1))
    await other.append(numbered(1, 2))
    assert await ids(one) == await ids(other) == [1, 2]


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.lists(st.integers(1, 60), max_size=8, unique=True), max_size=12),
    st.integers(1, 10),
)
async def test_whatever_is_appended_is_read_once_in_order(
    make: Make, pages: list[list[int]], limit: int
) -> None:
    """A log is the sorted union of all pages, read in pieces of any size."""
    store = make(LONG)
    await store.open()
    log, known = store.log(CHAT), set[int]()
    for page in pages:
        drafts = [NewEntry(Note(str(id)), id=id, after=id - 1) for id in page]
        added = await log.append(drafts)
        assert [draft.id for draft in added] == [id for id in page if id not in known]
        known.update(page)
    found: list[int] = []
    while piece := await ids(log, found[-1] if found else 0, limit):
        assert len(piece) <= limit
        found += piece
    assert found == sorted(known)
    await store.aclose()


# -- how long a log is ----------------------------------------------------------------------------


async def test_a_log_keeps_its_last_items(short: Store) -> None:
    """The first that came go first."""
    log = short.log(CHAT)
    for id in range(1, 21):
        await log.append(numbered(id))
    assert await ids(log) == [16, 17, 18, 19, 20]


async def test_items_fetched_again_for_a_late_reader_stay(short: Store) -> None:
    """What counts is when an item came, not its id: else the late reader never saw it."""
    log = short.log(CHAT)
    await log.append(numbered(11, 12, 13, 14, 15))
    await log.append(numbered(1, 2, 3))
    assert [id for id in await ids(log) if id < 10] == [1, 2, 3]
    assert await log.append(numbered(4, 5))
    assert await ids(log) == [1, 2, 3, 4, 5]


async def test_unacknowledged_mail_is_never_trimmed(short: Store) -> None:
    """The service has forgotten it, so the log must not, however long it gets."""
    log = short.log(MAIL)
    for number in range(20):
        await log.append(lettered(f"mail {number}"))
    assert await ids(log) == list(range(1, 21))
    reader = log.reader("me")
    reader.ack(18)
    await reader.flush()
    await log.append(lettered("one more"))
    assert await ids(log, 18) == [19, 20, 21]
    assert len(await ids(log)) == SHORT


async def test_a_trimmed_log_keeps_its_numbers_going(short: Store) -> None:
    """A number is given once, whatever became of the entry that had it."""
    log = short.log(MAIL)
    reader = log.reader("me")
    for number in range(1, 21):
        await log.append(lettered(f"mail {number}"))
        reader.ack(number)
        await reader.flush()
    assert (await ids(log))[-1] == 20


# -- places ---------------------------------------------------------------------------------------


async def test_an_unknown_name_has_no_place(store: Store) -> None:
    """Nor has a reader without a name."""
    log = store.log(CHAT)
    assert await log.reader("me").position() is None
    assert await log.reader(None).position() is None


async def test_seeking_stores_a_place_at_once_forwards_and_backwards(store: Store) -> None:
    """Every reader of the name has it, also on another hold."""
    log = store.log(CHAT)
    for place in (7, 0, 3):
        await log.reader("me").seek(place)
        assert await log.reader("me").position() == place
        assert await store.log(CHAT).reader("me").position() == place


async def test_acknowledging_moves_a_place_forwards_only(store: Store) -> None:
    """Late acknowledgements of earlier items do not take it back."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2, 3, 4))
    reader = log.reader("me")
    await reader.seek(1)
    for acknowledged, place in ((3, 3), (2, 3), (4, 4)):
        reader.ack(acknowledged)
        await reader.flush()
        assert await log.reader("me").position() == place
        assert await log.max_acknowledged() == place


async def test_reading_writes_acknowledgements_too(store: Store) -> None:
    """No flush is needed where one goes on reading."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2))
    reader = log.reader("me")
    reader.ack(1)
    await reader.read(1, 10)
    assert await store.log(CHAT).reader("me").position() == 1


async def test_an_acknowledgement_is_seen_at_once(store: Store) -> None:
    """Every reader of the same store object knows it before it is flushed."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2))
    log.reader("me").ack(2)
    assert await log.reader("me").position() == 2
    assert await log.max_acknowledged() == 2


async def test_flushing_nothing_changes_nothing(store: Store) -> None:
    """A reader that acknowledged nothing leaves no place behind."""
    reader = store.log(CHAT).reader("me")
    await reader.flush()
    assert await reader.position() is None


async def test_names_have_places_of_their_own(store: Store) -> None:
    """What one name acknowledged, another has still to come."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2, 3))
    one, other = log.reader("one"), log.reader("other")
    await one.seek(0)
    await other.seek(0)
    one.ack(3)
    await one.flush()
    assert [await one.position(), await other.position()] == [3, 0]


async def test_readers_without_names_count_as_acknowledging(store: Store) -> None:
    """`acknowledged` is the highest place of all, with a name or without."""
    log = store.log(MAIL)
    await log.append(lettered("a", "b", "c"))
    for name, place, highest in ((None, 1, 1), ("me", 3, 3), (None, 2, 3)):
        reader = log.reader(name)
        reader.ack(place)
        await reader.flush()
        assert await store.log(MAIL).max_acknowledged() == highest


# -- announcements --------------------------------------------------------------------------------


async def test_what_was_given_up_is_unsettled_until_it_is_settled(store: Store) -> None:
    """Every hold sees it; appending ends it only where it says so."""
    log, other = store.log(MAIL), store.log(MAIL)
    lost = await log.begin_fetch(20.0)
    await log.lose_fetch(lost)
    assert list(await other.lost_fetches()) == [lost]
    await log.append(lettered("a"))
    assert list(await other.lost_fetches()) == [lost]
    await other.append([], completes=[lost])
    assert not await log.lost_fetches()


async def test_a_read_under_way_is_nobody_s_to_settle(
    store: Store, second: float, virtual: bool
) -> None:
    """Until its time is over: then whoever announced it is gone."""
    log, other = store.log(MAIL), store.log(MAIL)
    now = asyncio.get_running_loop().time
    began = now()
    announced = await log.begin_fetch(20.0 * second)
    looked = await comes(other.lost_fetches, 0.5 * second)
    assert now() - began >= 20.0 * second - 0.001
    assert not virtual or looked - began <= 20.5 * second
    assert list(await other.lost_fetches()) == [announced]


async def test_what_was_settled_too_early_is_settled_again(store: Store, second: float) -> None:
    """A read that came behind its time, because the machine slept, may have taken effect since."""
    log, other = store.log(MAIL), store.log(MAIL)
    announced = await log.begin_fetch(5.0 * second)
    await asyncio.sleep(5.5 * second)
    await other.append([], completes=[announced])
    assert not await other.lost_fetches()
    await log.lose_fetch(announced)
    assert list(await other.lost_fetches()) == [announced]
    await other.append([], completes=[announced])
    assert not await log.lost_fetches()


async def test_an_announcement_can_be_taken_back(store: Store, second: float) -> None:
    """Also twice, and without touching another."""
    log = store.log(MAIL)
    one, two = await log.begin_fetch(5.0 * second), await log.begin_fetch(5.0 * second)
    await log.lose_fetch(two)
    await log.cancel_fetch(one)
    await log.cancel_fetch(one)
    await asyncio.sleep(6.0 * second)
    assert list(await log.lost_fetches()) == [two]


async def test_what_cannot_be_told_from_history_comes_marked(store: Store) -> None:
    """Once for each time the history brought it."""
    log = store.log(MAIL)
    history = NewEntry(Note("a"), identity="a", max_copies=1, from_history=True)
    new = NewEntry(Note("a"), identity="a", as_duplicate=Note("a again"))
    await log.append([history, new, new])
    assert await texts(log) == ["a", "a again", "a"]


# -- who polls ------------------------------------------------------------------------------------


async def test_one_hold_leads_until_its_time_is_over(
    store: Store, second: float, virtual: bool
) -> None:
    """It may renew its lead; the others get theirs when it stops."""
    one, other = store.log(CHAT), store.log(CHAT)
    now = asyncio.get_running_loop().time
    long = 2.0 if virtual else 3600.0
    assert await one.acquire_lease(long)
    assert not await other.acquire_lease(long)
    await asyncio.sleep(1.5 * second)
    assert await one.acquire_lease(long)
    await asyncio.sleep(1.5 * second)
    assert not await other.acquire_lease(long)
    if not virtual:  # such a lead is too long to be waited for
        one, other = store.log(MAIL), store.log(MAIL)
    renewed = now() - (1.5 if virtual else 0.0)
    assert virtual or await one.acquire_lease(2.0 * second)
    looked = await comes(lambda: other.acquire_lease(long), 0.1 * second)
    assert now() - renewed >= 2.0 * second - 0.001
    assert not virtual or looked - renewed <= 2.11 * second
    assert not await one.acquire_lease(long)


async def test_logs_are_led_apart(store: Store) -> None:
    """Who polls the chat need not be who polls the mail."""
    assert await store.log(CHAT).acquire_lease(2.0)
    assert await store.log(MAIL).acquire_lease(2.0)


async def test_news_wakes_everybody_who_waits(store: Store, second: float, virtual: bool) -> None:
    """An append on one hold ends the wait on the others, long before it would be over."""
    log = store.log(CHAT)
    loop = asyncio.get_running_loop()
    long = 100.0 if virtual else 3600.0
    began = loop.time()
    waits = [asyncio.ensure_future(store.log(CHAT).wait_for_append(long)) for _ in range(3)]
    await asyncio.sleep(1.0 * second)
    assert not any(wait.done() for wait in waits)
    await log.append(numbered(1))
    await asyncio.wait(waits)
    assert loop.time() < began + (10.0 if virtual else 60.0)
    for wait in waits:
        await wait


async def test_a_wait_for_news_ends_by_itself(store: Store, second: float, virtual: bool) -> None:
    """After so many seconds, whether there was any or not."""
    loop = asyncio.get_running_loop()
    seconds = 3.0 if virtual else 0.3
    began = loop.time()
    await store.log(CHAT).wait_for_append(seconds)
    took = loop.time() - began
    assert took >= seconds - (0.5 if virtual else 0.1)
    assert took <= seconds + (0.5 if virtual else 60.0)


def test_a_log_is_waited_on_in_one_loop_after_another(make: Make, kind: str) -> None:
    """A store may outlive the loop in which somebody waited for news, also if it is left open.

    But for connections: where there are any they end with their loop.
    """
    store = make(LONG)

    async def wait_in_vain() -> None:
        await store.log(CHAT).wait_for_append(0.01)

    async def wait() -> None:
        waiting = asyncio.ensure_future(store.log(CHAT).wait_for_append(100.0))
        await asyncio.sleep(0.01)
        await store.log(CHAT).append(numbered(1))
        await waiting

    with asyncio.Runner() as first:
        first.run(store.open())
        first.run(wait_in_vain())
        if "redis" in kind:
            first.run(store.aclose())
    with asyncio.Runner() as second:
        if "redis" in kind:
            second.run(store.open())
        second.run(wait_in_vain())
        second.run(wait())
        second.run(store.aclose())


# -- the store ------------------------------------------------------------------------------------


async def test_a_limiter_is_shared_by_its_key(store: Store) -> None:
    """One bucket for an endpoint and account, whoever asks; another for another."""
    limiter = store.limiter("chat nobody", "chat", Rate(1.0))
    assert store.limiter("chat nobody", "chat", Rate(1.0)) is limiter
    assert store.limiter("chat somebody", "chat", Rate(1.0)) is not limiter
    assert (limiter.name, limiter.rate) == ("chat", Rate(1.0))


async def test_sessions_must_agree_on_a_rate(store: Store) -> None:
    """Two rates for one bucket are an error that names the endpoint."""
    store.limiter("chat nobody", "chat", Rate(1.0))
    with pytest.raises(StoreError) as caught:
        store.limiter("chat nobody", "chat", Rate(2.0))
    assert caught.value.endpoint == "chat"


async def test_a_store_outlives_one_of_its_sessions(store: Store) -> None:
    """Opened twice and closed once, it is still of use."""
    await store.open()
    log = store.log(CHAT)
    await log.append(numbered(1))
    await store.aclose()
    assert await ids(log) == [1]
    assert await ids(store.log(CHAT)) == [1]


async def test_a_survey_tells_what_is_there(store: Store, second: float, virtual: bool) -> None:
    """Logs with their last items and their readers, and the pace: as values."""
    long = (lambda seconds: seconds) if virtual else (lambda seconds: 3600.0)
    if isinstance(store, RedisStore) and not virtual:
        await redis_server.owe_nothing(store)
    assert await store.snapshot() == StoreSnapshot((), ())
    chat, mail = store.log(CHAT), store.log(MAIL)
    await chat.append(numbered(3, 4, 8))
    await mail.append(lettered("a"))
    await mail.begin_fetch(20.0 * second)
    assert await mail.acquire_lease(long(20.0))
    for name, place in (("zoe", 8), ("bob", 3), (DIRECT, 4), (None, 4)):
        reader = chat.reader(name)
        await reader.seek(3)
        reader.ack(place)
        await reader.flush()
    limiter = store.limiter("chat nobody", "chat", Rate(long(2.0), burst=3, guard=0.0))
    limiter.pause(7.0 * second)
    await asyncio.sleep(7.0 * second)
    for permit in [await limiter.acquire(Priority.CALL) for _ in range(3)][:2]:
        permit.on_written()
    await asyncio.sleep(0.5 * second)
    limiter.pause(long(4.0))

    survey = await store.snapshot(latest=2)
    assert survey.logs == (await store.snapshot(latest=2)).logs
    about_chat, about_mail = survey.logs
    assert about_chat == LogSnapshot(
        topic="chat",
        head=8,
        length=3,
        has_leader=False,
        pending_fetches=0,
        readers=(
            ReaderSnapshot("bob", position=3, lag=2),
            ReaderSnapshot("zoe", position=8, lag=0),
        ),
        latest=about_chat.latest,
    )
    assert [item.id for item in about_chat.latest] == [4, 8]
    assert [msgspec.json.decode(item.item or "", type=Note).text for item in about_chat.latest] == [
        "note 4",
        "note 8",
    ]
    assert (about_mail.has_leader, about_mail.pending_fetches, about_mail.head) == (True, 1, 1)
    (endpoint,) = survey.endpoints
    assert endpoint == EndpointSnapshot("chat nobody", 2, 1, 0, endpoint.paused_for)
    assert long(4.0) - (0.1 if virtual else 60.0) <= endpoint.paused_for <= long(4.0) + 1e-9
    assert msgspec.json.decode(msgspec.json.encode(survey), type=StoreSnapshot) == survey

    if not virtual:  # the lead was too long to be waited for
        assert await mail.acquire_lease(20.0 * second)
    await asyncio.sleep(20.0 * second)
    about_mail = (await store.snapshot()).logs[1]
    assert (about_mail.has_leader, about_mail.pending_fetches) == (False, 1)


async def test_a_survey_shows_holes(store: Store) -> None:
    """What could not be decoded is there without its item."""
    await store.log(CHAT).append([NewEntry(None, id=1)])
    (log,) = (await store.snapshot()).logs
    assert log.latest == (LatestItem(1, None),)


# -- what is the memory store's own ---------------------------------------------------------------


@pytest.mark.parametrize("length", [0, -1, True, 1.5, "10"])
def test_a_length_is_a_positive_number(length: int) -> None:
    """Anything else is refused where the store is made."""
    with pytest.raises(InvalidRequestError, match="max_length"):
        MemoryStore(max_length=length)


async def test_a_survey_of_a_memory_store_counts_callers() -> None:
    """Who waits for a token of the one limiter is known there."""
    store = MemoryStore()
    limiter = store.limiter("chat nobody", "chat", Rate(10.0))
    (await limiter.acquire(Priority.CALL)).on_written()
    waiting = [asyncio.ensure_future(limiter.acquire(Priority.CALL)) for _ in range(2)]
    await asyncio.sleep(1.0)
    assert (await store.snapshot()).endpoints == (EndpointSnapshot("chat nobody", 1, 0, 2, 0.0),)
    for waiter in waiting:
        waiter.cancel()
    await asyncio.wait(waiting)


async def test_a_memory_store_says_what_it_holds() -> None:
    """Its repr names the logs and how long they are."""
    store = MemoryStore()
    assert repr(store) == "<MemoryStore 0 logs, 0 items>"
    await store.log(CHAT).append(numbered(1, 2))
    assert repr(store) == "<MemoryStore 1 logs, 2 items>"


async def test_a_memory_store_forgets_nothing_between_sessions() -> None:
    """It lasts as long as the object, not as long as a session."""
    store = MemoryStore()
    await store.open()
    await store.log(MAIL).append(lettered("a"))
    lost = await store.log(MAIL).begin_fetch(20.0)
    await store.log(MAIL).lose_fetch(lost)
    await store.aclose()
    await store.open()
    assert await texts(store.log(MAIL)) == ["a"]
    assert list(await store.log(MAIL).lost_fetches()) == [lost]
