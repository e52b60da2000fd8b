"""The contract of every store, tested with each of `STORES` and with a real server."""

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
from pythpeer.pacing.queue import Priority
from pythpeer.stores import (
    DIRECT,
    EndpointSnapshot,
    Entry,
    LatestItem,
    Log,
    LogSnapshot,
    LogTail,
    NewEntry,
    ReaderSnapshot,
    RedisStore,
    Store,
    StoreSnapshot,
    Topic,
)
from pythpeer.streams.gaps import link_entries

pytestmark = pytest.mark.anyio

Make = Callable[[int], Store]
"""Creates a new store, not yet open, whose logs keep the given number of items."""

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
    """An item with a field of each kind that items have."""

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
    """The length of a second: on a real server it is shorter."""
    return 0.02 if kind == REAL_SERVER else 1.0


@pytest.fixture
def virtual(kind: str) -> bool:
    """Whether time is exact. On a busy machine real time only proves that nothing is too early."""
    return kind != REAL_SERVER


async def wait_until(condition: Callable[[], Awaitable[object]], step: float) -> float:
    """Check every *step* seconds; return when it had not happened for the last time."""
    now = asyncio.get_running_loop().time
    end = now() + 60.0
    while True:
        before = now()
        assert before < end, "it did not happen"
        if await condition():
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
    """New entries with these ids, each linked to the one before, the first to *after*."""
    links = (ids[0] - 1 if after is None else after, *ids)
    return [
        NewEntry(Note(f"note {id}"), id=id, after=link)
        for link, id in zip(links, ids, strict=False)
    ]


def without_ids(*identities: str, copies: int = 0) -> list[NewEntry[Note]]:
    """New entries without ids, distinguished by these identities."""
    return [
        NewEntry(Note(identity), identity=identity, max_copies=copies) for identity in identities
    ]


async def entries(log: Log[Note], after: int = 0, limit: int = 100) -> list[Entry[Note]]:
    return list(await log.reader(None).read(after, limit))


async def ids(log: Log[Note], after: int = 0, limit: int = 100) -> list[int]:
    return [entry.id for entry in await entries(log, after, limit)]


async def links(log: Log[Note], position: int) -> list[tuple[int, int, bool]]:
    """Return the chain as a reader at *position* sees it: id, id before, and whether with a gap."""
    chain: list[tuple[int, int, bool]] = []
    for entry in await entries(log, position):
        chain.append((entry.id, max(entry.after, position), entry.gap))
        position = entry.id
    return chain


async def texts(log: Log[Note]) -> list[str]:
    return [entry.item.text for entry in await entries(log) if entry.item is not None]


# -- the log --------------------------------------------------------------------------------------


async def test_a_new_log_is_empty(store: Store) -> None:
    """It has no entries, no acknowledged position and no fetch intents."""
    log = store.log(CHAT)
    assert await ids(log) == []
    assert await log.max_acknowledged() == 0
    assert not await log.lost_fetches()


async def test_an_appended_entry_is_read_back_unchanged(store: Store) -> None:
    """Every field of the item and of the link is the same."""
    note = Note("é\0\n", datetime(2012, 12, 12, 21, 12, 21), flag=True, raw={"a": [1, None, "x"]})
    new = NewEntry(note, id=7, after=3, gap=True)
    log = store.log(CHAT)
    assert list(await log.append([new])) == [new]
    assert await entries(log) == [Entry(7, 3, True, note)]


async def test_entries_are_read_in_id_order_after_a_position_and_up_to_a_limit(
    store: Store,
) -> None:
    """*after* is exclusive, *limit* is a maximum, and the order is that of the ids."""
    log = store.log(CHAT)
    await log.append(numbered(10, 20, 30))
    await log.append(numbered(5, 15))
    assert await ids(log) == [5, 10, 15, 20, 30]
    assert await ids(log, 10) == [15, 20, 30]
    assert await ids(log, 14, 2) == [15, 20]
    assert await ids(log, 30) == []


async def test_an_empty_page_can_be_appended(store: Store) -> None:
    """It changes nothing."""
    log = store.log(CHAT)
    assert list(await log.append([])) == []
    assert await ids(log) == []


async def test_an_id_is_appended_once(store: Store) -> None:
    """`append` returns what was new, and a known entry is not changed."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2))
    other = [NewEntry(Note("other"), id=2, after=1), NewEntry(Note("note 3"), id=3, after=2)]
    assert list(await log.append(other)) == other[1:]
    assert await texts(log) == ["note 1", "note 2", "note 3"]


async def test_an_id_that_is_twice_on_a_page_is_appended_once(store: Store) -> None:
    """The first entry is stored, with the better link of both, and the length counts it once."""
    log = store.log(CHAT)
    first, second = numbered(7, after=5), numbered(7, after=3)
    assert list(await log.append([*first, *second, *numbered(8)])) == [*first, *numbered(8)]
    assert [(entry.id, entry.after) for entry in await entries(log)] == [(7, 3), (8, 7)]
    assert list(await log.append(numbered(9))) == numbered(9)
    assert await ids(log) == [7, 8, 9]


BETTER_LINKS: Final = [
    ((8, False), (4, False)),
    ((8, True), (4, True)),
    ((8, True), (4, False)),
    ((4, True), (4, False)),
    ((4, True), (8, False)),
]
"""Pairs of links, each as its ``after`` and whether there is a gap; the second is better: no gap is
better than a gap, and then the smaller ``after`` is."""


@pytest.mark.parametrize(("worse", "better"), BETTER_LINKS)
async def test_a_better_link_replaces_the_stored_one(
    store: Store, worse: tuple[int, bool], better: tuple[int, bool]
) -> None:
    """The entry has the new link then, and its old item."""
    log = store.log(CHAT)
    await log.append([NewEntry(Note("first"), id=9, after=worse[0], gap=worse[1])])
    assert await links(log, 8) == [(9, 8, worse[1])]
    other = NewEntry(Note("second"), id=9, after=better[0], gap=better[1])
    assert list(await log.append([other])) == []
    assert await entries(log) == [Entry(9, *better, Note("first"))]
    assert await links(log, 8) == [(9, 8, better[1])]


@pytest.mark.parametrize(("worse", "better"), BETTER_LINKS)
async def test_a_worse_link_is_ignored(
    store: Store, worse: tuple[int, bool], better: tuple[int, bool]
) -> None:
    """The entry is not changed."""
    log = store.log(CHAT)
    await log.append([NewEntry(Note("first"), id=9, after=better[0], gap=better[1])])
    await log.append([NewEntry(Note("second"), id=9, after=worse[0], gap=worse[1])])
    assert await entries(log) == [Entry(9, *better, Note("first"))]
    assert await links(log, 8) == [(9, 8, better[1])]


PAGES: Final = st.lists(
    st.tuples(st.integers(0, 20), st.sets(st.integers(1, 30), max_size=8), st.booleans()),
    max_size=6,
)
"""The position of the request, the ids of the page, and whether the page was full."""


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([(0, {1}, False), (0, {2, 3}, False)])
@given(PAGES)
async def test_the_order_of_pages_does_not_matter(
    make: Make, pages: list[tuple[int, set[int], bool]]
) -> None:
    """Sessions that share a log may append in any order: the chain is the same."""
    store = make(LONG)
    await store.open()
    log, other = store.log(CHAT), store.log(Topic("other", Note))
    for target, ordered in ((log, pages), (other, reversed(pages))):
        for after, shown, full in ordered:
            page = {id: Note(str(id)) for id in shown}
            await target.append(link_entries(after, page, full=full))
    for position in range(30):
        assert await links(log, position) == await links(other, position)
    await store.aclose()


async def test_an_undecodable_entry_is_stored(store: Store) -> None:
    """It is read back without an item, once."""
    log = store.log(CHAT)
    undecodable: NewEntry[Note] = NewEntry(None, id=2, after=1)
    assert list(await log.append([undecodable])) == [undecodable]
    assert list(await log.append([undecodable])) == []
    assert await entries(log) == [Entry(2, 1, False, None)]


async def test_entries_without_ids_are_numbered_in_order(store: Store) -> None:
    """The log assigns the next id, and links each entry to the one before."""
    log = store.log(MAIL)
    await log.append(without_ids("a", "b"))
    await log.append(without_ids("c"))
    assert [(entry.after, entry.id, entry.gap) for entry in await entries(log)] == [
        (0, 1, False),
        (1, 2, False),
        (2, 3, False),
    ]
    assert await texts(log) == ["a", "b", "c"]


async def test_an_identity_is_appended_at_most_max_copies_times(store: Store) -> None:
    """An entry is new only while the log has seen fewer of its identity; 0 is no limit."""
    log = store.log(MAIL)
    assert len(await log.append(without_ids("a", "a", "b", copies=1))) == 2
    assert len(await log.append(without_ids("a", "b", copies=1))) == 0
    assert len(await log.append(without_ids("a", copies=2))) == 1
    assert len(await log.append(without_ids("a", "a"))) == 2
    assert len(await log.append(without_ids("a", copies=4))) == 0
    assert await texts(log) == ["a", "b", "a", "a", "a"]


async def test_identities_are_remembered_longer_than_entries(short: Store) -> None:
    """Mail that was trimmed does not count as new."""
    log = short.log(MAIL)
    reader = log.reader("me")
    for number in range(20):
        await log.append(without_ids(f"id {number}", copies=1))
        reader.ack(number + 1)
        await reader.flush()
    assert len(await ids(log)) <= SHORT + 1
    assert list(await log.append(without_ids("id 0", copies=1))) == []


LARGE: Final = (1 << 53) - 5
"""The largest ids that Lua's numbers represent exactly are a few above this one."""


async def test_an_append_at_another_head_changes_nothing(store: Store) -> None:
    """It returns ``None``, so that the caller can read what another handle has appended."""
    log, other = store.log(CHAT), store.log(CHAT)
    assert await log.append_at(0, numbered(1, 2)) == numbered(1, 2)
    assert await other.append_at(0, numbered(3)) is None
    assert await other.append_at(2, numbered(2, 3)) == numbered(3)
    assert await log.append_at(2, numbered(4)) is None
    assert await log.append_at(3, []) is not None
    assert await ids(log) == [1, 2, 3]


async def test_the_tail_of_a_log_is_its_last_entries(short: Store) -> None:
    """Ascending, also if some arrived out of order, with the highest id."""
    log = short.log(CHAT)
    assert await log.tail(3) == await log.tail(0) == LogTail(0, [])
    await log.append(numbered(1, 2, 5, 6))
    await log.append(numbered(4, after=3))
    tail = await log.tail(3)
    assert (tail.head, [entry.id for entry in tail.entries]) == (6, [4, 5, 6])
    assert tail.entries == await entries(log, 3)
    assert len((await log.tail(100)).entries) == 5
    assert await log.tail(0) == LogTail(6, [])


async def test_ids_of_53_bits_are_exact(store: Store) -> None:
    """Entries, links, positions and heads."""
    log, reader = store.log(CHAT), store.log(CHAT).reader("bot")
    await reader.seek(LARGE)
    assert await log.append_at(0, numbered(LARGE + 1, LARGE + 4)) is not None
    await log.append(numbered(LARGE + 3, after=LARGE + 2))
    assert await links(log, LARGE) == [
        (LARGE + 1, LARGE, False),
        (LARGE + 3, LARGE + 2, False),
        (LARGE + 4, LARGE + 3, False),
    ]
    assert (await log.tail(1)).head == LARGE + 4
    assert await log.append_at(LARGE + 4, numbered(LARGE + 5)) is not None
    reader.ack(LARGE + 3)
    await reader.flush()
    assert await store.log(CHAT).reader("bot").position() == LARGE + 3


ACCOUNTS: Final = [Topic(f"chat https://a.example {account}", Note) for account in ("x", "y")]
"""The topics of two accounts at one service and address."""


async def test_a_name_has_one_position_in_the_logs_of_a_scope(store: Store) -> None:
    """The highest one, until it is moved; entries are separate."""
    first, second = (store.log(topic) for topic in ACCOUNTS)
    await first.append(numbered(1, 2, 3))
    await first.reader("bot").seek(1)
    reader = first.reader("bot")
    reader.ack(3)
    await reader.flush()
    assert await second.reader("bot").position() == 3
    assert await second.reader("other").position() is None
    assert await ids(second) == []
    second_reader = second.reader("bot")
    await second_reader.seek_if_new(3)
    second_reader.ack(5)
    await second_reader.flush()
    assert await first.reader("bot").position() == 5
    await first.reader("bot").seek(2)
    assert await second.reader("bot").position() == 2


@pytest.mark.parametrize(
    ("name", "destructive"),
    [
        ("chat https://a.example:1 x", False),
        ("chat https://a.example/ x", False),
        ("chat https://b.example x", False),
        ("chat https://a.example x y", False),
        ("mail https://a.example x", True),
    ],
)
async def test_another_scope_shares_no_positions(
    store: Store, name: str, destructive: bool
) -> None:
    """Another service, another address; and mail, whose ids are the log's own."""
    await store.log(ACCOUNTS[0]).reader("bot").seek(7)
    await store.log(Topic("mail https://a.example y", Note, destructive=True)).reader("bot").seek(8)
    topic = Topic(name, Note, destructive=destructive)
    assert await store.log(topic).reader("bot").position() is None


MAIL_ACCOUNTS: Final = [
    Topic(f"mail https://a.example {account}", Note, destructive=True) for account in ("x", "y")
]
"""The topics of the mail of two accounts at one service and address."""


async def test_unacknowledged_items_of_other_accounts_are_counted(store: Store) -> None:
    """Also those that another session appended; not what any reader has had, or another service."""
    own, other = (store.log(topic) for topic in MAIL_ACCOUNTS)
    elsewhere = [
        store.log(Topic(name, Note, destructive=True))
        for name in ("mail https://a.example:1 x", "mail https://b.example x", "mail")
    ]
    for log in (own, other, *elsewhere):
        await log.append(without_ids("a", "b", "c", "d"))
    assert await own.unacknowledged_of_others() == 4
    assert await elsewhere[-1].unacknowledged_of_others() == 0
    reader = other.reader("bot")
    await reader.seek_if_new(0)
    await reader.read(0, 10)
    reader.ack(1)
    await reader.flush()
    assert await own.unacknowledged_of_others() == 3
    direct = other.reader(DIRECT)
    direct.ack(3)
    await direct.flush()
    assert await own.unacknowledged_of_others() == 1
    assert await other.unacknowledged_of_others() == 4
    assert await store.log(CHAT).unacknowledged_of_others() == 0


async def test_logs_of_different_topics_share_nothing(store: Store) -> None:
    """Neither items, identities, positions nor fetch intents."""
    first_log, second_log = store.log(MAIL), store.log(Topic("other", Note, destructive=True))
    await first_log.append(without_ids("a", copies=1))
    await first_log.reader("me").seek(1)
    await first_log.lose_fetch(await first_log.begin_fetch(20.0))
    assert await ids(second_log) == []
    assert await second_log.reader("me").position() is None
    assert not await second_log.lost_fetches()
    assert len(await second_log.append(without_ids("a", copies=1))) == 1


async def test_handles_of_one_log_share_its_entries(store: Store) -> None:
    """Each session has a handle to the log, and sees what the others append."""
    first_log, second_log = store.log(CHAT), store.log(CHAT)
    await first_log.append(numbered(1))
    await second_log.append(numbered(1, 2))
    assert await ids(first_log) == await ids(second_log) == [1, 2]


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.lists(st.integers(1, 60), max_size=8, unique=True), max_size=12),
    st.integers(1, 10),
)
async def test_every_appended_entry_is_read_once_in_order(
    make: Make, pages: list[list[int]], limit: int
) -> None:
    """A log is the sorted union of all pages, read with any limit."""
    store = make(LONG)
    await store.open()
    log, stored_ids = store.log(CHAT), set[int]()
    for page in pages:
        new_entries = [NewEntry(Note(str(id)), id=id, after=id - 1) for id in page]
        added = await log.append(new_entries)
        assert [new.id for new in added] == [id for id in page if id not in stored_ids]
        stored_ids.update(page)
    read: list[int] = []
    while batch := await ids(log, read[-1] if read else 0, limit):
        assert len(batch) <= limit
        read += batch
    assert read == sorted(stored_ids)
    await store.aclose()


# -- the length of a log --------------------------------------------------------------------------


async def test_a_log_keeps_its_last_items(short: Store) -> None:
    """Those that arrived first are deleted first."""
    log = short.log(CHAT)
    for id in range(1, 21):
        await log.append(numbered(id))
    assert await ids(log) == [16, 17, 18, 19, 20]


async def test_items_fetched_again_for_a_slow_reader_stay(short: Store) -> None:
    """Items are trimmed in the order of arrival: else the reader would never get them."""
    log = short.log(CHAT)
    await log.append(numbered(11, 12, 13, 14, 15))
    await log.append(numbered(1, 2, 3))
    assert [id for id in await ids(log) if id < 10] == [1, 2, 3]
    assert await log.append(numbered(4, 5))
    assert await ids(log) == [1, 2, 3, 4, 5]


async def test_unacknowledged_mail_is_never_trimmed(short: Store) -> None:
    """The service has forgotten it, so the log must keep it, at any length."""
    log = short.log(MAIL)
    for number in range(20):
        await log.append(without_ids(f"mail {number}"))
    assert await ids(log) == list(range(1, 21))
    reader = log.reader("me")
    reader.ack(18)
    await reader.flush()
    await log.append(without_ids("one more"))
    assert await ids(log, 18) == [19, 20, 21]
    assert len(await ids(log)) == SHORT


async def test_a_trimmed_log_assigns_no_id_twice(short: Store) -> None:
    """Not even if the entry that had it was deleted."""
    log = short.log(MAIL)
    reader = log.reader("me")
    for number in range(1, 21):
        await log.append(without_ids(f"mail {number}"))
        reader.ack(number)
        await reader.flush()
    assert (await ids(log))[-1] == 20


# -- positions ------------------------------------------------------------------------------------


async def test_an_unknown_name_has_no_position(store: Store) -> None:
    """Nor has a reader without a name."""
    log = store.log(CHAT)
    assert await log.reader("me").position() is None
    assert await log.reader(None).position() is None


async def test_a_seek_stores_a_position_forwards_and_backwards(store: Store) -> None:
    """Every reader of the name has it, also with another handle."""
    log = store.log(CHAT)
    for position in (7, 0, 3):
        await log.reader("me").seek(position)
        assert await log.reader("me").position() == position
        assert await store.log(CHAT).reader("me").position() == position


async def test_an_acknowledgement_moves_a_position_forwards_only(store: Store) -> None:
    """A later acknowledgement of an earlier item does not move it back."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2, 3, 4))
    reader = log.reader("me")
    await reader.seek(1)
    for acknowledged, position in ((3, 3), (2, 3), (4, 4)):
        reader.ack(acknowledged)
        await reader.flush()
        assert await log.reader("me").position() == position
        assert await log.max_acknowledged() == position


async def test_reading_writes_acknowledgements_too(store: Store) -> None:
    """No flush is needed if the reader reads again."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2))
    reader = log.reader("me")
    reader.ack(1)
    await reader.read(1, 10)
    assert await store.log(CHAT).reader("me").position() == 1


async def test_an_acknowledgement_is_seen_immediately(store: Store) -> None:
    """Every reader of the same store object sees it before it is flushed."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2))
    log.reader("me").ack(2)
    assert await log.reader("me").position() == 2
    assert await log.max_acknowledged() == 2


async def test_flushing_nothing_changes_nothing(store: Store) -> None:
    """A reader that has acknowledged nothing stores no position."""
    reader = store.log(CHAT).reader("me")
    await reader.flush()
    assert await reader.position() is None


async def test_names_have_separate_positions(store: Store) -> None:
    """An acknowledgement of one name does not count for another."""
    log = store.log(CHAT)
    await log.append(numbered(1, 2, 3))
    first_reader, second_reader = log.reader("one"), log.reader("other")
    await first_reader.seek(0)
    await second_reader.seek(0)
    first_reader.ack(3)
    await first_reader.flush()
    assert [await first_reader.position(), await second_reader.position()] == [3, 0]


async def test_readers_without_names_count_as_acknowledging(store: Store) -> None:
    """`max_acknowledged` is the highest position of all readers, with a name or without."""
    log = store.log(MAIL)
    await log.append(without_ids("a", "b", "c"))
    for name, position, highest in ((None, 1, 1), ("me", 3, 3), (None, 2, 3)):
        reader = log.reader(name)
        reader.ack(position)
        await reader.flush()
        assert await store.log(MAIL).max_acknowledged() == highest


# -- fetch intents --------------------------------------------------------------------------------


async def test_a_lost_fetch_is_lost_until_it_is_completed(store: Store) -> None:
    """Every handle sees it; an append completes it only if it names it."""
    log, other = store.log(MAIL), store.log(MAIL)
    lost = await log.begin_fetch(20.0)
    await log.lose_fetch(lost)
    assert list(await other.lost_fetches()) == [lost]
    await log.append(without_ids("a"))
    assert list(await other.lost_fetches()) == [lost]
    await other.append([], completes=[lost])
    assert not await log.lost_fetches()


async def test_a_read_under_way_is_not_lost(store: Store, second: float, virtual: bool) -> None:
    """Until its time is over: then its owner is dead."""
    log, other = store.log(MAIL), store.log(MAIL)
    now = asyncio.get_running_loop().time
    started = now()
    fetch = await log.begin_fetch(20.0 * second)
    last_check = await wait_until(other.lost_fetches, 0.5 * second)
    assert now() - started >= 20.0 * second - 0.001
    assert not virtual or last_check - started <= 20.5 * second
    assert list(await other.lost_fetches()) == [fetch]


async def test_a_fetch_that_was_completed_too_early_can_be_lost_again(
    store: Store, second: float
) -> None:
    """A read that ended after its time, because the machine slept, may have taken effect."""
    log, other = store.log(MAIL), store.log(MAIL)
    fetch = await log.begin_fetch(5.0 * second)
    await asyncio.sleep(5.5 * second)
    await other.append([], completes=[fetch])
    assert not await other.lost_fetches()
    await log.lose_fetch(fetch)
    assert list(await other.lost_fetches()) == [fetch]
    await other.append([], completes=[fetch])
    assert not await log.lost_fetches()


async def test_a_fetch_can_be_cancelled(store: Store, second: float) -> None:
    """Also twice, and without an effect on another one."""
    log = store.log(MAIL)
    first_fetch, second_fetch = (
        await log.begin_fetch(5.0 * second),
        await log.begin_fetch(5.0 * second),
    )
    await log.lose_fetch(second_fetch)
    await log.cancel_fetch(first_fetch)
    await log.cancel_fetch(first_fetch)
    await asyncio.sleep(6.0 * second)
    assert list(await log.lost_fetches()) == [second_fetch]


async def test_a_possible_duplicate_of_the_history_is_marked(store: Store) -> None:
    """Once for each copy that was read from the history. It does not count as seen."""
    log = store.log(MAIL)
    history = NewEntry(Note("a"), identity="a", max_copies=1, from_history=True)
    new = NewEntry(Note("a"), identity="a", as_duplicate=Note("a again"))
    await log.append([history, new, new])
    assert await texts(log) == ["a", "a again", "a"]
    assert await log.copies() == {"a": 2}


async def test_a_possible_duplicate_without_a_marked_copy_is_not_appended(store: Store) -> None:
    """However often; an item that was not in the history is."""
    log = store.log(MAIL)
    history = NewEntry(Note("a"), identity="a", max_copies=1, from_history=True)
    await log.append([history])
    assert list(await log.append(without_ids("a", "b", "a"))) == without_ids("b")
    assert await texts(log) == ["a", "b"]


async def test_the_copies_of_each_identity_are_counted(short: Store) -> None:
    """Of all entries that were ever appended, those that were trimmed included."""
    log = short.log(MAIL)
    assert await log.copies() == {}
    for number in range(20):
        await log.append(without_ids("a", f"id {number}"))
        log.reader("me").ack(2 * number + 2)
    assert await log.copies() == {"a": 20} | {f"id {number}": 1 for number in range(20)}


# -- the lease ------------------------------------------------------------------------------------


async def test_one_handle_has_the_lease_until_it_expires(
    store: Store, second: float, virtual: bool
) -> None:
    """It can extend the lease; another handle gets it after it has expired."""
    first_log, second_log = store.log(CHAT), store.log(CHAT)
    now = asyncio.get_running_loop().time
    long = 2.0 if virtual else 3600.0
    assert await first_log.acquire_lease(long)
    assert not await second_log.acquire_lease(long)
    await asyncio.sleep(1.5 * second)
    assert await first_log.acquire_lease(long)
    await asyncio.sleep(1.5 * second)
    assert not await second_log.acquire_lease(long)
    if not virtual:  # that lease is too long to wait for
        first_log, second_log = store.log(MAIL), store.log(MAIL)
    renewed = now() - (1.5 if virtual else 0.0)
    assert virtual or await first_log.acquire_lease(2.0 * second)
    last_check = await wait_until(lambda: second_log.acquire_lease(long), 0.1 * second)
    assert now() - renewed >= 2.0 * second - 0.001
    assert not virtual or last_check - renewed <= 2.11 * second
    assert not await first_log.acquire_lease(long)


async def test_logs_have_separate_leases(store: Store) -> None:
    """The leader of the chat need not be that of the mail."""
    assert await store.log(CHAT).acquire_lease(2.0)
    assert await store.log(MAIL).acquire_lease(2.0)


async def test_an_append_wakes_all_waiting_handles(
    store: Store, second: float, virtual: bool
) -> None:
    """An append with one handle ends the wait of the others, long before their time-outs."""
    log = store.log(CHAT)
    loop = asyncio.get_running_loop()
    long = 100.0 if virtual else 3600.0
    started = loop.time()
    waits = [asyncio.ensure_future(store.log(CHAT).wait_for_append(long)) for _ in range(3)]
    await asyncio.sleep(1.0 * second)
    assert not any(wait.done() for wait in waits)
    await log.append(numbered(1))
    await asyncio.wait(waits)
    assert loop.time() < started + (10.0 if virtual else 60.0)
    for wait in waits:
        await wait


async def test_a_wait_for_an_append_ends_after_its_timeout(
    store: Store, second: float, virtual: bool
) -> None:
    """Also if nothing was appended."""
    loop = asyncio.get_running_loop()
    seconds = 3.0 if virtual else 0.3
    started = loop.time()
    await store.log(CHAT).wait_for_append(seconds)
    elapsed = loop.time() - started
    assert elapsed >= seconds - (0.5 if virtual else 0.1)
    assert elapsed <= seconds + (0.5 if virtual else 60.0)


def test_a_log_is_waited_on_in_one_loop_after_another(make: Make, kind: str) -> None:
    """A store can be used in another loop than that of a former wait, also if it was not closed.

    Connections are the exception: they end with their loop.
    """
    store = make(LONG)

    async def wait_until_timeout() -> None:
        await store.log(CHAT).wait_for_append(0.01)

    async def wait() -> None:
        waiting = asyncio.ensure_future(store.log(CHAT).wait_for_append(100.0))
        await asyncio.sleep(0.01)
        await store.log(CHAT).append(numbered(1))
        await waiting

    with asyncio.Runner() as first:
        first.run(store.open())
        first.run(wait_until_timeout())
        if "redis" in kind:
            first.run(store.aclose())
    with asyncio.Runner() as second:
        if "redis" in kind:
            second.run(store.open())
        second.run(wait_until_timeout())
        second.run(wait())
        second.run(store.aclose())


# -- the store ------------------------------------------------------------------------------------


async def test_a_limiter_is_shared_by_its_key(store: Store) -> None:
    """Each endpoint and account has one bucket for all sessions."""
    limiter = store.limiter("chat anonymous", "chat", Rate(1.0))
    assert store.limiter("chat anonymous", "chat", Rate(1.0)) is limiter
    assert store.limiter("chat account", "chat", Rate(1.0)) is not limiter
    assert (limiter.name, limiter.rate) == ("chat", Rate(1.0))


async def test_sessions_must_agree_on_a_rate(store: Store) -> None:
    """Two rates for one bucket are an error that names the endpoint."""
    store.limiter("chat anonymous", "chat", Rate(1.0))
    with pytest.raises(StoreError) as caught:
        store.limiter("chat anonymous", "chat", Rate(2.0))
    assert caught.value.endpoint == "chat"


async def test_a_store_outlives_one_of_its_sessions(store: Store) -> None:
    """Opened twice and closed once, it can still be used."""
    await store.open()
    log = store.log(CHAT)
    await log.append(numbered(1))
    await store.aclose()
    assert await ids(log) == [1]
    assert await ids(store.log(CHAT)) == [1]


async def test_a_snapshot_shows_the_content(store: Store, second: float, virtual: bool) -> None:
    """Logs with their last items and their readers, and pacing, as values."""
    long = (lambda seconds: seconds) if virtual else (lambda seconds: 3600.0)
    if isinstance(store, RedisStore) and not virtual:
        await redis_server.make_tokens_available(store)
    assert await store.snapshot() == StoreSnapshot((), ())
    chat, mail = store.log(CHAT), store.log(MAIL)
    await chat.append(numbered(3, 4, 8))
    await mail.append(without_ids("a"))
    await mail.begin_fetch(20.0 * second)
    assert await mail.acquire_lease(long(20.0))
    for name, position in (("zoe", 8), ("bob", 3), (DIRECT, 4), (None, 4)):
        reader = chat.reader(name)
        await reader.seek(3)
        reader.ack(position)
        await reader.flush()
    limiter = store.limiter("chat anonymous", "chat", Rate(long(2.0), burst=3, guard=0.0))
    limiter.pause(7.0 * second)
    await asyncio.sleep(7.0 * second)
    for permit in [await limiter.acquire(Priority.CALL) for _ in range(3)][:2]:
        permit.on_written()
    await asyncio.sleep(0.5 * second)
    limiter.pause(long(4.0))

    snapshot = await store.snapshot(latest=2)
    assert snapshot.logs == (await store.snapshot(latest=2)).logs
    about_chat, about_mail = snapshot.logs
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
    idle_while_led = about_mail.idle_for
    (endpoint,) = snapshot.endpoints
    assert endpoint == EndpointSnapshot("chat anonymous", 2, 1, 0, endpoint.paused_for)
    assert long(4.0) - (0.1 if virtual else 60.0) <= endpoint.paused_for <= long(4.0) + 1e-9
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=StoreSnapshot) == snapshot

    if not virtual:  # the lease was too long to wait for
        assert await mail.acquire_lease(20.0 * second)
    await asyncio.sleep(20.0 * second)
    about_mail = (await store.snapshot()).logs[1]
    assert (about_mail.has_leader, about_mail.pending_fetches) == (False, 1)
    assert (about_chat.idle_for, idle_while_led) == (None, 0)
    await asyncio.sleep(3.0 * second)
    before, idle_for = about_mail.idle_for, (await store.snapshot()).logs[1].idle_for
    assert before is not None
    assert idle_for is not None
    assert idle_for - before >= 2.9 * second
    assert idle_for < 60.0


async def test_a_snapshot_shows_undecodable_entries(store: Store) -> None:
    """Without an item."""
    await store.log(CHAT).append([NewEntry(None, id=1)])
    (log,) = (await store.snapshot()).logs
    assert log.latest == (LatestItem(1, None),)


# -- the memory store -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, -1, True, 1.5, "10"])
def test_a_length_is_a_positive_number(length: int) -> None:
    """Anything else raises an error when the store is created."""
    with pytest.raises(InvalidRequestError, match="max_length"):
        MemoryStore(max_length=length)


async def test_a_snapshot_of_a_memory_store_counts_callers() -> None:
    """Those that wait for a token of its limiters."""
    store = MemoryStore()
    limiter = store.limiter("chat anonymous", "chat", Rate(10.0))
    (await limiter.acquire(Priority.CALL)).on_written()
    waiting = [asyncio.ensure_future(limiter.acquire(Priority.CALL)) for _ in range(2)]
    await asyncio.sleep(1.0)
    assert (await store.snapshot()).endpoints == (EndpointSnapshot("chat anonymous", 1, 0, 2, 0.0),)
    for waiter in waiting:
        waiter.cancel()
    await asyncio.wait(waiting)


async def test_the_repr_of_a_memory_store_shows_its_size() -> None:
    """The number of logs, and of items."""
    store = MemoryStore()
    assert repr(store) == "<MemoryStore 0 logs, 0 items>"
    await store.log(CHAT).append(numbered(1, 2))
    assert repr(store) == "<MemoryStore 1 logs, 2 items>"


async def test_a_memory_store_forgets_nothing_between_sessions() -> None:
    """Its content exists as long as the object does."""
    store = MemoryStore()
    await store.open()
    await store.log(MAIL).append(without_ids("a"))
    lost = await store.log(MAIL).begin_fetch(20.0)
    await store.log(MAIL).lose_fetch(lost)
    await store.aclose()
    await store.open()
    assert await texts(store.log(MAIL)) == ["a"]
    assert list(await store.log(MAIL).lost_fetches()) == [lost]
