"""`session.peerbet.chat_stream` against a scripted service: pages, quirks, faults, sessions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import Final, Literal

import anyio
import pytest
import trustme
from helpers import (
    DEEP,
    SHORT_BACKOFF,
    assert_nothing_more,
    examples,
    logged_levels,
    logged_skips,
    schedule,
    take_ids,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_server import RawServer, answer, client_context, open_session, server_context
from scripted import (
    API_ERROR,
    CUT,
    DENIED,
    DROP,
    ERROR_429,
    ERROR_500,
    ERROR_503,
    GARBAGE,
    HANG,
    NOT_FOUND,
    Order,
    Scripted,
    ScriptedFault,
    Window,
)
from stores import StoreFactory, flush_events

from pythpeer import (
    AccessDeniedError,
    ChatMessage,
    ChatStream,
    Gap,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    PythpeerError,
    Retry,
    Session,
    SessionClosedError,
    TransportError,
)
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio

TRANSIENT: Final = {
    "dropped": DROP,
    "no answer in time": HANG,
    "garbage": GARBAGE,
    "503": ERROR_503,
    "429": ERROR_429,
    "refused": API_ERROR,
    "not a list": ScriptedFault(body=b'{"status": 1, "users_online": 1, "message_list": 5}'),
}
"""One of each kind: the fault table has the rest."""

FATAL: Final = {"denied": (DENIED, AccessDeniedError), "404": (NOT_FOUND, HttpStatusError)}


# -- what is asked --------------------------------------------------------------------------------


async def test_messages_arrive_as_they_are_posted(services: Scripted, session: Session) -> None:
    """The loop of the documentation: whole messages, as they arrive."""
    services.say(2)
    schedule(5.5, services.say)
    taken: list[ChatMessage] = []
    async with asyncio.timeout(60):
        async for message in session.peerbet.chat_stream(after=0):
            taken.append(message)
            if len(taken) == 3:
                break
    assert [(message.id, message.sender, message.text) for message in taken] == [
        (id, "alice", f"message {id}") for id in (1, 2, 3)
    ]


async def test_polls_ask_by_last_id_once_per_interval(services: Scripted, session: Session) -> None:
    """Each asks for up to 300 messages after the last one seen, a second after the last poll."""
    services.say(5)
    schedule(2.5, services.say, 2)
    stream = session.peerbet.chat_stream(after=3)
    assert await take_ids(stream, 4) == [4, 5, 6, 7]
    await assert_nothing_more(stream, 3.5)
    assert [poll.params["mid"] for poll in services.requests] == ["3", "5", "5", "5", "7", "7", "7"]
    assert {poll.params["last"] for poll in services.requests} == {"300"}
    times = [poll.at for poll in services.requests]
    assert [later - previous for previous, later in itertools.pairwise(times)] == pytest.approx(
        [1.0] * 6, abs=1e-3
    )


async def test_finding_a_position_reads_one_message(services: Scripted, session: Session) -> None:
    """The newest message is read without a last id, and is not in the stream."""
    services.say(400)
    async with session.peerbet.chat_stream() as stream:
        assert services.requests[0].params.get("last") == "1"
        assert "mid" not in services.requests[0].params
        services.say()
        assert await take_ids(stream, 1) == [401]
    assert stream.gaps == ()


async def test_streams_share_their_polls(services: Scripted, session: Session) -> None:
    """Many streams of one session poll as often as one, and each gets everything.

    A hundred, and a thousand if `DEEP`: `test_streams` has a thousand on every store.
    """
    for second in range(4):
        schedule(second + 0.5, services.say)
    count = 1000 if DEEP else 100
    streams = [session.peerbet.chat_stream(after=0) for _ in range(count)]
    taken = await asyncio.gather(*(take_ids(stream, 4) for stream in streams))
    assert taken == [[1, 2, 3, 4]] * count
    assert len(services.requests) == 5


async def test_streams_keep_the_services_rules(new_store: StoreFactory) -> None:
    """Two streams, and posts between, against the checker of the test kit: no violation."""
    async with FakeServices() as fake, fake.session(store=new_store()) as session:
        streams = [session.peerbet.chat_stream(after=0) for _ in range(2)]

        async def read(stream: ChatStream) -> list[str]:
            async with asyncio.timeout(60):
                return [(await anext(stream)).text for _ in range(5)]

        async def post_all() -> None:
            for number in range(5):
                await session.peerbet.post(str(number))

        *taken, _ = await asyncio.gather(*map(read, streams), post_all())
        assert taken == [["0", "1", "2", "3", "4"]] * 2
        assert fake.violations == []


# -- quirks of the service -----------------------------------------------------------------------


WINDOWS: Final[tuple[Window, ...]] = ("newest", "oldest")
ORDERS: Final[tuple[Order, ...]] = ("ascending", "descending", "shuffled")
OVERLAPS: Final = (0, 1, 7)
REPEATS: Final = (1, 2)

PAIRS: Final = [
    (WINDOWS[(i + j) % 2], overlap, order, REPEATS[(i // 2 + j) % 2])
    for i, overlap in enumerate(OVERLAPS)
    for j, order in enumerate(ORDERS)
]
"""Quirks, of which every two occur together somewhere."""


def test_every_pair_of_quirks_is_tried() -> None:
    """A run that is not `DEEP` tries all combinations of any two of the four dimensions."""
    dimensions = (WINDOWS, OVERLAPS, ORDERS, REPEATS)
    for first, second in itertools.combinations(range(4), 2):
        tried = {(quirks[first], quirks[second]) for quirks in PAIRS}
        assert tried == {*itertools.product(dimensions[first], dimensions[second])}


@pytest.mark.parametrize(
    ("window", "overlap", "order", "repeat"),
    list(itertools.product(WINDOWS, OVERLAPS, ORDERS, REPEATS)) if DEEP else PAIRS,
)
async def test_whatever_its_quirks_messages_are_returned_once_in_order(
    new_store: StoreFactory, window: Window, overlap: int, order: Order, repeat: int
) -> None:
    """Windows, overlap, disorder and repetition do not show in the stream."""
    quirks = Scripted(window=window, overlap=overlap, order=order, repeat=repeat)
    async with quirks as services, services.session(store=new_store()) as session:
        services.say(20)
        for tick in (5, 12, 13, 27):
            schedule(tick / 10, services.say, 10, step=3)
        stream = session.peerbet.chat_stream(after=4, on_gap="raise")
        assert await take_ids(stream, 56) == [id for id in services.ids if id > 4]
        assert stream.skipped == 0


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("after", [0, 50])
async def test_a_backlog_with_the_oldest_first_is_read_completely(
    new_store: StoreFactory, after: int, overlap: int
) -> None:
    """Page after full page, without a gap."""
    async with (
        Scripted(window="oldest", overlap=overlap) as services,
        services.session(store=new_store()) as session,
    ):
        services.say(1000)
        stream = session.peerbet.chat_stream(after=after, on_gap="raise")
        assert await take_ids(stream, 1000 - after) == list(range(after + 1, 1001))
        assert stream.gaps == ()


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_page_that_is_too_large_is_requested_in_parts(
    new_store: StoreFactory, window: Window
) -> None:
    """Half as many messages each time; where the service returns the newest, that is a gap."""
    async with (
        Scripted(window=window) as services,
        services.session(store=new_store(), max_body=20_000, retry=SHORT_BACKOFF) as session,
    ):
        services.say(400)  # about 100 bytes each
        stream = session.peerbet.chat_stream(after=50)
        first = 51 if window == "oldest" else 251
        assert await take_ids(stream, 401 - first) == list(range(first, 401))
        assert stream.gaps == (() if window == "oldest" else (Gap(50, first),))
        for last in (405, 410):
            services.say(5)
            assert await take_ids(stream, 5) == list(range(last - 4, last + 1))
        sizes = [int(request.params["last"]) for request in services.asked("get")]
        assert sizes[:3] == [300, 150, 150]
        assert sizes[-1] == 300


@pytest.mark.parametrize(("after", "gaps"), [(0, ()), (50, (Gap(50, 701),)), (700, ()), (750, ())])
async def test_a_backlog_with_the_newest_first_reports_what_is_missing(
    after: int, gaps: tuple[Gap, ...], services: Scripted, session: Session
) -> None:
    """Only the newest 300 are returned; before them there is a gap, except for ``after=0``."""
    services.say(1000)
    stream = session.peerbet.chat_stream(after=after)
    first = max(701, after + 1)
    assert await take_ids(stream, 1001 - first) == list(range(first, 1001))
    assert stream.gaps == gaps


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("window", "count", "gaps"),
    [
        ("newest", 300, ()),
        ("newest", 301, (Gap(0, 2),)),
        ("newest", 1000, (Gap(0, 701),)),
        ("oldest", 1000, ()),
    ],
)
async def test_a_stream_that_started_in_an_empty_chat_reports_what_is_missing(
    new_store: StoreFactory, window: Window, count: int, gaps: tuple[Gap, ...], *, resumed: bool
) -> None:
    """It started before the first message, so that what the service cannot show is a gap."""
    store, first = new_store(), gaps[0].before if gaps else 1
    async with Scripted(window=window) as services, contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(services.session(store=store))
        stream = session.peerbet.chat_stream(name="me")
        await stream.__aenter__()
        if resumed:
            await session.aclose()
            session = await stack.enter_async_context(services.session(store=store))
            stream = session.peerbet.chat_stream(name="me")
        services.say(count)
        assert await take_ids(stream, count + 1 - first) == list(range(first, count + 1))
        assert stream.gaps == gaps


async def test_a_gap_can_be_raised(
    services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """``on_gap="raise"``: `GapError` once and a WARNING, and the stream continues after the gap."""
    services.say(1000)
    stream = session.peerbet.chat_stream(after=1, on_gap="raise")
    with pytest.raises(GapError) as caught:
        await take_ids(stream, 1)
    assert (caught.value.after, caught.value.before) == (1, 701)
    assert caught.value.endpoint == "peerbet.chat.get"
    assert await take_ids(stream, 300) == list(range(701, 1001))
    assert logged_levels(caplog) == [logging.WARNING]
    (fields,) = (vars(record) for record in caplog.records if hasattr(record, "before"))
    assert (fields["endpoint"], fields["after"], fields["before"]) == (
        "peerbet.chat.get",
        1,
        701,
    )


async def test_a_gap_counts_different_ids(session: Session, services: Scripted) -> None:
    """Three hundred lines that repeat a hundred messages are not a full page."""
    services.set_quirks(repeat=3)
    services.say(100, step=5)
    stream = session.peerbet.chat_stream(after=2)
    await take_ids(stream, 100)
    assert stream.gaps == ()


@pytest.mark.parametrize("window", ["newest", "oldest"])
async def test_a_stream_that_falls_behind_its_log_asks_again(
    new_store: StoreFactory, window: Window
) -> None:
    """What a short log has trimmed is read again from the service, and is no gap."""
    store = new_store(max_length=20)
    async with Scripted(window=window) as services, services.session(store=store) as session:
        quick = session.peerbet.chat_stream(after=0)
        slow = session.peerbet.chat_stream(after=0)
        for _ in range(10):
            services.say(10)
            await take_ids(quick, 10)
        assert await take_ids(slow, 100) == list(range(1, 101))
        assert slow.gaps == quick.gaps == ()


# -- messages that cannot be decoded --------------------------------------------------------------

UNDECODABLE: Final[list[dict[str, object]]] = [
    {"id": 0},
    {"id": 0, "by": "alice", "msg": None},
    {"id": 0, "by": ["x"], "msg": "no sender"},
]
WITHOUT_ID: Final[list[object]] = [
    None,
    "text",
    {"by": "alice", "msg": "no id"},
    {"id": "x", "by": "alice", "msg": "no number"},
    {"id": 0, "by": "alice", "msg": "no stream starts below"},
]


@pytest.mark.parametrize("overlap", [0, 30])
async def test_bad_messages_hide_no_neighbours(
    new_store: StoreFactory, overlap: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is skipped, logged and counted once, although polls show it again and again."""
    async with (
        Scripted(overlap=overlap) as services,
        services.session(store=new_store()) as session,
    ):
        for bad in (*UNDECODABLE, *WITHOUT_ID):
            services.say()
            id = services.newest + 1
            services.show(id, {**bad, "id": id} if bad in UNDECODABLE else bad)
        services.say()
        stream = session.peerbet.chat_stream(after=0)
        assert await take_ids(stream, 9) == list(range(1, 18, 2))
        await assert_nothing_more(stream, 3.5)
        services.say()
        assert await take_ids(stream, 1) == [18]
        assert stream.skipped == 8
        assert logged_skips(caplog) == 8
        assert stream.gaps == ()


async def test_bad_messages_are_logged_once_for_all_streams(
    services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Every stream counts them, the log has each of them once."""
    services.say()
    services.show(2, {"id": 2})
    services.show(3, "stray")
    services.say()
    streams = [session.peerbet.chat_stream(after=0) for _ in range(3)]
    assert await asyncio.gather(*(take_ids(stream, 2) for stream in streams)) == [[1, 4]] * 3
    assert [stream.skipped for stream in streams] == [2, 2, 2]
    assert logged_levels(caplog) == [logging.WARNING] * 2


async def test_an_undecodable_newest_message_is_a_position(
    services: Scripted, session: Session
) -> None:
    """A stream that starts from now starts after it."""
    services.say()
    services.show(2, {"id": 2})
    async with session.peerbet.chat_stream() as stream:
        services.say()
        assert await take_ids(stream, 1) == [3]


async def test_a_newest_message_without_an_id_is_no_position(
    services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """A new stream cannot know its position then: it waits for a message that has an id."""
    caplog.set_level(logging.INFO)
    services.say()
    services.show(2, "stray")
    schedule(4.5, services.say)
    async with asyncio.timeout(60), session.peerbet.chat_stream() as stream:
        assert asyncio.get_running_loop().time() >= 4.5
        assert {request.params.get("mid") for request in services.requests} == {None}
        services.say()
        assert await take_ids(stream, 1) == [4]
    assert logged_levels(caplog) == [logging.WARNING, logging.WARNING, logging.INFO]
    assert "newest message cannot be decoded" in caplog.text


@pytest.mark.parametrize("count", [2, 3, 100])
async def test_messages_without_usable_ids_are_no_silence(
    services: Scripted, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """Where there are several and no others, the stream cannot continue, and its health shows it.

    Idle checks, which see one of them, are no success.
    """
    caplog.set_level(logging.INFO)
    services.say()
    async with services.session(retry=SHORT_BACKOFF, idle_check=2.0) as session:
        stream = session.peerbet.chat_stream(after=0)
        assert await take_ids(stream, 1) == [1]
        for number in range(count):
            services.show(2 + number, {"id": f"m{number}", "by": "alice", "msg": "hello"})
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(2.0)
        for _ in range(20):
            await asyncio.sleep(1.0)
            health = stream.health()
            assert session.health().ok is (count < 3)
            assert health.last_error == (None if count < 3 else "DecodeError")
        assert stream.skipped == count
        services.say()
        assert (await waiting).id == count + 2
        assert session.health().ok
    about_polls = [record for record in caplog.records if "usable" in record.getMessage()]
    assert len(about_polls) == int(count >= 3)


async def test_when_messages_without_usable_ids_are_gone_the_stream_is_well(
    services: Scripted,
) -> None:
    """Although no other message has come since."""
    services.say()
    async with services.session(retry=SHORT_BACKOFF, idle_check=2.0) as session:
        stream = session.peerbet.chat_stream(after=0)
        assert await take_ids(stream, 1) == [1]
        for number in range(3):
            services.show(2 + number, {"id": f"m{number}"})
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(10.0)
        assert not session.health().ok
        del services.chat.messages[1:]
        await asyncio.sleep(5.0)
        for _ in range(20):
            await asyncio.sleep(1.0)
            assert session.health().ok
        services.say(4)  # the first three ids are shown without them
        assert (await waiting).id == 5


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
async def test_a_transient_failure_is_waited_out(
    fault: ScriptedFault, services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind, three in a row: one WARNING, one INFO, and every message once."""
    caplog.set_level(logging.INFO)
    services.say(3)
    stream = session.peerbet.chat_stream(after=0)
    assert await take_ids(stream, 3) == [1, 2, 3]
    services.script("get", fault, fault, fault)
    services.say(3)
    assert await take_ids(stream, 3) == [4, 5, 6]
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO]


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
async def test_finding_a_position_retries_failures_too(
    fault: ScriptedFault, services: Scripted, session: Session
) -> None:
    """A stream that starts from now finds its position however long the failures last."""
    services.say(3)
    services.script("get", fault, fault)
    async with asyncio.timeout(60), session.peerbet.chat_stream() as stream:
        services.say()
        assert await take_ids(stream, 1) == [4]


async def test_a_service_that_is_away_is_waited_for(
    services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections fail for a while: one WARNING, one INFO, nothing lost."""
    caplog.set_level(logging.INFO)
    services.say()
    stream = session.peerbet.chat_stream(after=0)
    assert await take_ids(stream, 1) == [1]
    await services.stop()
    services.say()
    await assert_nothing_more(stream, 60.0)
    await services.start()
    assert await take_ids(stream, 1) == [2]
    assert logged_levels(caplog) == [logging.WARNING, logging.INFO]


async def test_a_retry_after_is_kept_to(services: Scripted, session: Session) -> None:
    """No poll is sent before the time in ``Retry-After`` is over."""
    services.say()
    services.script("get", ScriptedFault(status=429, headers="Retry-After: 90\r\n", body=b""))
    assert await take_ids(session.peerbet.chat_stream(after=0), 1, within=120.0) == [1]
    assert services.requests[1].at - services.requests[0].at >= 90.0


@pytest.mark.parametrize(("fault", "kind"), FATAL.values(), ids=FATAL.keys())
async def test_what_will_not_pass_is_raised_every_time(
    fault: ScriptedFault, kind: type[PythpeerError], services: Scripted, session: Session
) -> None:
    """Every stream that waits raises it, every time; after the cause is removed, both continue."""
    services.default_faults["get"] = fault
    streams = [session.peerbet.chat_stream(after=0) for _ in range(2)]
    for _ in range(2):
        taken = await asyncio.gather(*(take_ids(s, 1) for s in streams), return_exceptions=True)
        assert [type(error) for error in taken] == [kind, kind]
        assert {getattr(error, "endpoint", None) for error in taken} == {"peerbet.chat.get"}
    del services.default_faults["get"]
    services.say()
    assert await asyncio.gather(*(take_ids(stream, 1) for stream in streams)) == [[1], [1]]


async def test_a_service_that_is_not_trusted_is_not_stormed() -> None:
    """The error about its certificate is raised at each request, at least a second apart."""
    loop = asyncio.get_running_loop()
    async with (
        RawServer(answer(), tls=server_context(ca=trustme.CA())) as server,
        open_session(server.url, ssl_context=client_context()) as session,
    ):
        stream = session.peerbet.chat_stream(after=0)
        start = loop.time()
        for _ in range(5):
            with pytest.raises(TransportError, match=r"certificate of .* is not trusted") as caught:
                await anext(stream)
            assert (caught.value.sent, caught.value.untrusted) == (False, True)
        assert loop.time() - start >= 4.0
        assert server.requests == []


# -- cancellation ---------------------------------------------------------------------------------

FAULTS: Final = st.sampled_from(
    [DROP, CUT, HANG, GARBAGE, ERROR_500, ERROR_429, ScriptedFault(after=0.4)]
)
CUTS: Final = st.tuples(
    st.integers(0, 40).map(lambda number: number / 10),
    st.sampled_from(["anyio", "asyncio", "task"]),
)


@settings(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(CUTS, max_size=8),
    st.lists(st.tuples(st.integers(0, 80), st.integers(1, 3)), max_size=10),
    st.lists(FAULTS, max_size=4),
    st.sampled_from(["newest", "oldest"]),
    st.integers(0, 2),
    st.sampled_from(["ascending", "shuffled"]),
)
async def test_nothing_is_lost_by_cancellation_and_faults(
    new_store: StoreFactory,
    cuts: list[tuple[float, Literal["anyio", "asyncio", "task"]]],
    times: list[tuple[int, int]],
    faults: list[ScriptedFault],
    window: Window,
    overlap: int,
    order: Order,
) -> None:
    """However the stream is cancelled and the service fails: each message once, in order."""
    async with (
        Scripted(window=window, overlap=overlap, order=order) as services,
        services.session(retry=SHORT_BACKOFF, timeout=2.0, store=new_store()) as session,
    ):
        services.script("get", *faults)
        for tick, step in times:
            schedule(tick / 10, services.say, step=step)
        stream = session.peerbet.chat_stream(after=0)
        taken: list[int] = []

        async def take_one() -> None:
            taken.append((await anext(stream)).id)

        for limit, how in cuts:
            if how == "anyio":
                with anyio.move_on_after(limit):
                    await take_one()
            elif how == "asyncio":
                try:
                    async with asyncio.timeout(limit):
                        await take_one()
                except TimeoutError:
                    pass
            else:
                task = asyncio.ensure_future(take_one())
                await asyncio.wait([task], timeout=limit)
                task.cancel()
                await asyncio.wait([task])
        await asyncio.sleep(8)
        taken += await take_ids(stream, len(services.ids) - len(taken))
        assert taken == services.ids
        assert stream.gaps == ()


# -- names and sessions ---------------------------------------------------------------------------


async def test_a_name_resumes_in_the_next_session(
    new_store: StoreFactory, services: Scripted
) -> None:
    """What was acknowledged is not returned again, the rest is, and nothing is lost."""
    store = new_store()
    async with services.session(store=store) as session:
        services.say(4)
        stream = session.peerbet.chat_stream(after=0, name="bot")
        assert await take_ids(stream, 3) == [1, 2, 3]
    services.say(4)
    async with services.session(store=store) as session:
        assert await take_ids(session.peerbet.chat_stream(name="bot"), 6) == list(range(3, 9))


async def test_two_sessions_on_one_store_poll_as_one(
    new_store: StoreFactory, services: Scripted
) -> None:
    """One polls for all, and both get everything, whenever they start."""
    store = new_store()
    async with services.session(store=store) as first, services.session(store=store) as second:
        for delay in range(10):
            schedule(delay + 0.5, services.say)
        streams = [s.peerbet.chat_stream(after=0) for s in (first, second)]
        taken = await asyncio.gather(*(take_ids(stream, 10) for stream in streams))
        assert taken == [list(range(1, 11))] * 2
        assert len(services.requests) <= 12


async def test_a_session_that_joins_later_starts_where_it_wants(
    new_store: StoreFactory, services: Scripted
) -> None:
    """From now, or from the past, although the other session polls all the time."""
    store = new_store()
    async with services.session(store=store) as first, services.session(store=store) as second:
        services.say(10)
        reading = asyncio.ensure_future(take_ids(first.peerbet.chat_stream(after=10), 2))
        await asyncio.sleep(3)
        taken = await take_ids(second.peerbet.chat_stream(after=0), 10, within=5)
        assert taken == list(range(1, 11))
        async with asyncio.timeout(5), second.peerbet.chat_stream() as stream:
            services.say(2)
            assert await take_ids(stream, 2, within=5) == [11, 12]
        assert await reading == [11, 12]


# -- the end --------------------------------------------------------------------------------------


async def test_a_session_that_is_not_open_has_no_streams(services: Scripted) -> None:
    """Before it is opened and after it was closed: a clear error."""
    session = services.session()
    with pytest.raises(SessionClosedError):
        session.peerbet.chat_stream()
    async with session:
        session.peerbet.chat_stream()
    with pytest.raises(SessionClosedError):
        session.peerbet.chat_stream()


@pytest.mark.parametrize(
    "pending_step", ["waiting for a token", "waiting for an answer", "resting"]
)
async def test_closing_the_session_ends_its_streams(
    new_store: StoreFactory, pending_step: str, services: Scripted
) -> None:
    """Whatever they wait for: `SessionClosedError` soon, and again at each request."""
    session = services.session(retry=Retry(max_delay=1e5), timeout=1e4, store=new_store())
    await session.open()
    if pending_step == "waiting for a token":
        session.limiters["peerbet.chat.get"].pause(1000)
    elif pending_step == "waiting for an answer":
        services.default_faults["get"] = HANG
    else:
        services.default_faults["get"] = ERROR_500
    streams = [session.peerbet.chat_stream(after=0) for _ in range(3)]
    waits = [asyncio.ensure_future(take_ids(stream, 1, 1e4)) for stream in streams]
    await asyncio.sleep(500)
    assert not any(wait.done() for wait in waits)
    await session.aclose()
    await asyncio.wait(waits, timeout=5)
    assert [type(wait.exception()) for wait in waits] == [SessionClosedError] * 3
    for _ in range(2):
        with pytest.raises(SessionClosedError):
            await take_ids(streams[0], 1)


async def test_a_closed_session_s_stream_raises_while_another_session_polls(
    new_store: StoreFactory,
    services: Scripted,
) -> None:
    """The poll of another session on the store does not keep it open."""
    store = new_store()
    async with services.session(store=store) as other:
        reading = asyncio.ensure_future(take_ids(other.peerbet.chat_stream(after=0), 2))
        await asyncio.sleep(1.5)
        async with services.session(store=store) as session:
            stream = session.peerbet.chat_stream(after=0)
            await assert_nothing_more(stream, 3.5)
        with pytest.raises(SessionClosedError):
            await take_ids(stream, 1, within=10)
        services.say(2)
        assert await reading == [1, 2]


async def test_no_task_is_left_over(new_store: StoreFactory, services: Scripted) -> None:
    """After a break, a cancellation, a close: the tasks are the same as before."""
    before, store = asyncio.all_tasks(), new_store()
    async with services.session(store=store) as session:
        services.say(2)
        async for _ in session.peerbet.chat_stream(after=0):
            break
        await flush_events(store)
        assert asyncio.all_tasks() == before
        streams = [session.peerbet.chat_stream() for _ in range(3)]
        waits = [asyncio.ensure_future(take_ids(stream, 1)) for stream in streams]
        await asyncio.sleep(2)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await flush_events(store)
        assert asyncio.all_tasks() == before
    assert asyncio.all_tasks() == before


async def test_arguments_are_checked_where_the_stream_is_made(session: Session) -> None:
    """An invalid position, name or option."""
    with pytest.raises(InvalidRequestError, match="after"):
        session.peerbet.chat_stream(after=-1)
    with pytest.raises(InvalidRequestError, match="name"):
        session.peerbet.chat_stream(name="")
    with pytest.raises(InvalidRequestError, match="on_gap"):
        session.peerbet.chat_stream(on_gap="never")  # type: ignore[arg-type]  # on purpose


async def test_a_gap_does_not_depend_on_which_stream_polled(new_store: StoreFactory) -> None:
    """A stream from 0 has no gap, but the page that it polled has one for the streams after 0."""
    async with (
        Scripted(window="newest") as services,
        services.session(store=new_store()) as session,
    ):
        services.say(400)
        behind = session.peerbet.chat_stream(after=50)
        from_oldest = session.peerbet.chat_stream(after=0)
        assert await take_ids(from_oldest, 1) == [101]
        assert await take_ids(behind, 1) == [101]
        assert behind.gaps == (Gap(50, 101),)
        assert from_oldest.gaps == ()


async def test_newcomers_do_not_keep_others_waiting(new_store: StoreFactory) -> None:
    """Finding a position needs a separate poll, but there are never two in a row."""
    async with Scripted() as services, services.session(store=new_store()) as session:
        services.say(1)
        placed = asyncio.ensure_future(take_ids(session.peerbet.chat_stream(after=0), 1, within=10))
        new_streams = []
        for _ in range(20):
            stream = session.peerbet.chat_stream()
            new_streams.append(asyncio.ensure_future(take_ids(stream, 1, within=60)))
            await asyncio.sleep(0.4)
        assert placed.done()
        assert await placed == [1]
        await asyncio.sleep(3.0)
        services.say(1)
        assert await asyncio.gather(*new_streams) == [[2]] * 20
