"""`mail_stream` and `unread_mail`: the service forgets what it returned, and none is lost."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from typing import Final, Literal, ParamSpec, TypeVar, cast

import anyio
import pytest
from helpers import (
    DEEP,
    SHORT_BACKOFF,
    examples,
    freeze_collector,
    logged_levels,
    logged_skips,
    now,
    schedule,
    take,
    wait_until,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    API_ERROR,
    CUT,
    DENIED,
    DROP,
    DROP_WITHOUT_EFFECT,
    EMPTY,
    ERROR_429,
    ERROR_500,
    ERROR_503,
    GARBAGE,
    HANG,
    HTML,
    NOT_FOUND,
    OK,
    Scripted,
    ScriptedFault,
)
from stores import InterceptingStore, StoreFactory, flush_events

from pythpeer import (
    AccessDeniedError,
    ApiError,
    HttpStatusError,
    Mail,
    MailStream,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    Session,
    SessionClosedError,
    StoreError,
    TransportError,
)
from pythpeer.pacing.queue import Priority
from pythpeer.stores import Log, Store, Topic

pytestmark = pytest.mark.anyio

T = TypeVar("T")
P = ParamSpec("P")

LOST: Final = {
    "dropped": DROP,
    "cut": CUT,
    "no answer in time": HANG,
    "garbage": GARBAGE,
    "empty": EMPTY,
    "a page": HTML,
    "500": ERROR_500,
    "502 with a list": ScriptedFault(status=502, body=b"[]"),
    "not a list": ScriptedFault(body=b'{"result": 5}'),
    "too large": ScriptedFault(body=b"[" + b" " * 2_000_000 + b"]"),
    "a list that is cut off": ScriptedFault(body=b'Warning: x in y on line 1\n[]\n{"id": 1, "mes'),
}
"""Failures of a response after the service has marked its mail as read."""

REJECTED: Final = {
    "refused": (API_ERROR, ApiError),
    "denied": (DENIED, AccessDeniedError),
    "429": (ERROR_429, RateLimitedError),
    "404": (NOT_FOUND, HttpStatusError),
}
"""Responses which show that no mail was returned."""

How = Literal["asyncio.timeout", "anyio", "cancel"]
HOWS: Final[tuple[How, ...]] = ("asyncio.timeout", "anyio", "cancel")

Seen = list[tuple[str | None, bool]]
"""Texts, and whether they were recovered."""


@pytest.fixture(params=[True, False], ids=["ids", "no ids"])
def mail_ids(request: pytest.FixtureRequest) -> bool:
    """Whether the service's mails have ids."""
    return bool(request.param)


MARKS: Final = {"readall marks": True, "readall leaves": False}
"""What reading the history does to mail that is unread."""


@pytest.fixture(params=MARKS if DEEP else ["by turns"])
async def services(
    request: pytest.FixtureRequest, new_store: StoreFactory, mail_ids: bool
) -> AsyncIterator[Scripted]:
    """The services with every quirk: unless `DEEP`, two of the four with each store."""
    on_disk = request.node.callspec.params["new_store"] == "sqlite"
    marks = MARKS.get(request.param, mail_ids is not on_disk)
    async with Scripted(mail_ids=mail_ids, readall_marks=marks) as services:
        yield services


@pytest.fixture
async def plain() -> AsyncIterator[Scripted]:
    """A service with one quirk, for tests about something else."""
    async with Scripted() as services:
        yield services


def seen(*mails: Mail) -> Seen:
    return [(mail.text, mail.recovered) for mail in mails]


def texts(*mails: Mail) -> list[str | None]:
    return [mail.text for mail in mails]


async def all_of(stream: MailStream, within: float = 8.0) -> list[Mail]:
    """Return the mail that arrives within so many seconds."""
    taken: list[Mail] = []
    with anyio.move_on_after(within):
        async for mail in stream:
            taken.append(mail)  # noqa: PERF401  # what arrived in time is returned
    return taken


async def limited(work: Callable[[], Awaitable[object]], limit: float, how: How) -> None:
    """Do *work*, and be cancelled after *limit* seconds."""
    match how:
        case "asyncio.timeout":
            try:
                async with asyncio.timeout(limit):
                    await work()
            except TimeoutError:
                pass
        case "anyio":
            with anyio.move_on_after(limit):
                await work()
        case "cancel":
            task = asyncio.ensure_future(work())
            await asyncio.wait([task], timeout=limit)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()


def kinds(services: Scripted) -> list[str]:
    return [request.kind for request in services.requests]


# -- the ordinary way -----------------------------------------------------------------------------


async def test_unread_mail_is_returned_as_it_arrives(services: Scripted, session: Session) -> None:
    """First what is unread, then what arrives, each once, by one ``readnew`` per interval."""
    services.deliver("one", "two")
    schedule(2.5, services.deliver, "three")
    stream = session.pythbots.mail_stream()
    assert seen(*await take(stream, 3)) == [("one", False), ("two", False), ("three", False)]
    assert await all_of(stream, 3.5) == []
    assert set(kinds(services)) == {"readnew"}
    times = [request.at for request in services.requests]
    assert all(b - a == pytest.approx(1.0, abs=1e-3) for a, b in itertools.pairwise(times))


async def test_a_hanging_read_keeps_no_token_from_other_requests(plain: Scripted) -> None:
    """A poll and a call that wait for a read in progress hold no token while they wait."""
    plain.script("readnew", HANG)

    async def read_directly(session: Session) -> None:
        with suppress(OutcomeUnknownError):
            await session.pythbots.unread_mail()

    async with plain.session() as session, anyio.create_task_group() as tasks:
        tasks.start_soon(read_directly, session)
        await wait_until(lambda: plain.requests)
        tasks.start_soon(all_of, session.pythbots.mail_stream())
        tasks.start_soon(read_directly, session)
        await asyncio.sleep(2.5)
        assert session.limiters["pythbots.mail"].outstanding == 0
        start = now()
        await session.pythbots.send_mail("bob", "hello")
        assert now() - start < 0.5
        assert kinds(plain) == ["readnew", "send"]


async def test_streams_share_their_polls(services: Scripted, session: Session) -> None:
    """Many streams of one session get all mail each, with the polls of one."""
    schedule(1.5, services.deliver, "one", "two")
    streams = [session.pythbots.mail_stream(name=f"stream {n}") for n in range(20)]
    taken = await asyncio.gather(*(take(stream, 2) for stream in streams))
    assert [texts(*mails) for mails in taken] == [["one", "two"]] * 20
    assert len(services.requests) == 3


async def test_identical_mails_are_all_delivered(services: Scripted, session: Session) -> None:
    """The same text twice is two mails, with ids or without."""
    services.deliver("hi", "hi")
    schedule(2.5, services.deliver, "hi")
    assert seen(*await all_of(session.pythbots.mail_stream())) == [("hi", False)] * 3


async def test_mail_needs_a_personal_key(plain: Scripted) -> None:
    """Without the personal key nothing is sent."""
    async with plain.session(personal_key=None) as session:
        with pytest.raises(MissingKeyError, match="personal key"):
            session.pythbots.mail_stream()
        with pytest.raises(MissingKeyError, match="personal key"):
            await session.pythbots.unread_mail()
    with pytest.raises(MissingKeyError):  # this is what has to be mended first, not the closed one
        session.pythbots.mail_stream()
    assert plain.requests == []


# -- a lost response ------------------------------------------------------------------------------


BY_TURNS: Final = [
    pytest.param(
        *(fault, store, ids),
        id=f"{name}-{store}-{'ids' if ids else 'no ids'}",
        marks=[pytest.mark.costly] if store == "redis" else [],
    )
    for number, (name, fault) in enumerate(LOST.items())
    for store, ids in itertools.product(("memory", "sqlite", "redis"), (True, False))
    if DEEP or ids is ((number % 2 == 0) is (store != "redis"))
]
"""Failures of a response, on each store, from a service with ids and from one without."""


@pytest.mark.parametrize(
    ("fault", "new_store", "mail_ids"), BY_TURNS, indirect=["new_store", "mail_ids"]
)
async def test_a_lost_response_loses_no_mail(
    fault: ScriptedFault, services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """It is found in the history and marked ``recovered``; with ids it is returned once."""
    caplog.set_level(logging.INFO)
    services.deliver("one")
    stream = session.pythbots.mail_stream()
    assert seen(*await take(stream, 1)) == [("one", False)]
    services.script("readnew", fault)
    services.deliver("two", "two", "three")
    assert seen(*await all_of(stream)) == [("two", True), ("two", True), ("three", True)]
    schedule(0.5, services.deliver, "four")
    assert seen(*await all_of(stream, 4.0)) == [("four", False)]
    levels = logged_levels(caplog)
    assert [level for level in levels if level >= logging.INFO] == [logging.WARNING, logging.INFO]
    assert kinds(services).count("readall") == 1


WAITED_OUT: Final = {name: fault for name, fault in LOST.items() if name != "too large"}


@pytest.mark.parametrize("fault", WAITED_OUT.values(), ids=WAITED_OUT.keys())
async def test_the_history_is_asked_until_it_arrives_whole(
    new_store: StoreFactory, fault: ScriptedFault, plain: Scripted
) -> None:
    """A lost history completes nothing."""
    plain.script("readnew", DROP)
    plain.script("readall", fault, fault, API_ERROR, fault)
    plain.deliver("one", "two")
    async with plain.session(retry=SHORT_BACKOFF, store=new_store()) as session:
        stream = session.pythbots.mail_stream()
        taken = await take(stream, 2) + await all_of(stream)
    assert seen(*taken) == [("one", True), ("two", True)]
    assert kinds(plain)[:6] == ["readnew"] + ["readall"] * 5


async def test_unread_mail_is_returned_once_after_a_lost_request(
    services: Scripted, session: Session
) -> None:
    """The request was lost, not the response: the mail comes from the history, and is unread."""
    services.script("readnew", DROP_WITHOUT_EFFECT)
    services.deliver("one")
    assert seen(*await all_of(session.pythbots.mail_stream())) == [("one", True)]


async def test_identical_mails_are_counted(services: Scripted, session: Session) -> None:
    """Of identical mails, as many are returned as the history has more than the log."""
    stream = session.pythbots.mail_stream()
    services.deliver("hi")
    assert seen(*await take(stream, 1)) == [("hi", False)]
    services.script("readnew", DROP)
    services.deliver("hi", "hi")
    assert seen(*await all_of(stream)) == [("hi", True)] * 2
    services.deliver("hi")  # without an id it may be one of the two: the history counts three
    assert seen(*await all_of(stream)) == [("hi", False)]


async def test_old_mail_of_the_same_text_is_not_treated_as_lost(
    services: Scripted, session: Session
) -> None:
    """What the log has had is not returned again because a response was lost."""
    stream = session.pythbots.mail_stream()
    services.deliver("a", "b", "a")
    await take(stream, 3)
    services.script("readnew", CUT)
    assert seen(*await all_of(stream)) == []


@pytest.mark.parametrize(("fault", "kind"), REJECTED.values(), ids=REJECTED.keys())
async def test_a_rejected_read_does_not_request_the_history(
    fault: ScriptedFault, kind: type[PythpeerError], services: Scripted, session: Session
) -> None:
    """The service reported that it returned nothing, so ``readnew`` is sufficient."""
    services.script("readnew", fault)
    services.deliver("one")
    with pytest.raises(kind):
        await session.pythbots.unread_mail()
    assert seen(*await session.pythbots.unread_mail()) == [("one", False)]
    assert "readall" not in kinds(services)


async def test_a_failed_connection_does_not_request_the_history(
    services: Scripted, session: Session
) -> None:
    """A read that was not sent has marked nothing as read."""
    await services.stop()
    services.deliver("one")
    with pytest.raises(TransportError) as caught:
        await session.pythbots.unread_mail()
    assert not caught.value.sent
    stream = session.pythbots.mail_stream()
    assert await all_of(stream, 10.0) == []
    await services.start()
    assert seen(*await take(stream, 1)) == [("one", False)]
    assert "readall" not in kinds(services)


@pytest.mark.parametrize(
    ("unread", "history"),
    [
        ((API_ERROR, ERROR_429), ()),
        ((ERROR_503,), (ERROR_503, HANG)),
        ((HANG,), (API_ERROR, GARBAGE)),
    ],
    ids=["certain", "503", "timeout"],
)
async def test_transient_failures_are_waited_out(
    new_store: StoreFactory,
    unread: tuple[ScriptedFault, ...],
    history: tuple[ScriptedFault, ...],
    plain: Scripted,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Several in a row are one WARNING and one INFO."""
    caplog.set_level(logging.INFO)
    plain.script("readnew", *unread)
    plain.script("readall", *history)
    plain.deliver("one")
    async with plain.session(retry=SHORT_BACKOFF, store=new_store()) as session:
        stream = session.pythbots.mail_stream()
        assert texts(*await take(stream, 1), *await all_of(stream)) == ["one"]
    levels = logged_levels(caplog)
    assert [level for level in levels if level >= logging.INFO] == [logging.WARNING, logging.INFO]


async def test_a_rejected_key_is_raised_every_time(
    new_store: StoreFactory, plain: Scripted
) -> None:
    """Every stream that waits raises it, every time; after the cause is removed, all continue."""
    async with plain.session(store=new_store()) as session:
        plain.default_faults["readnew"] = DENIED
        streams = [session.pythbots.mail_stream(name=name) for name in ("one", "other")]
        for _ in range(2):
            taken = await asyncio.gather(*(take(s, 1) for s in streams), return_exceptions=True)
            assert [type(error) for error in taken] == [AccessDeniedError] * 2
        plain.default_faults.clear()
        plain.deliver("mail")
        assert [texts(*await take(stream, 1)) for stream in streams] == [["mail"]] * 2


# -- a consumer is cancelled ----------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
async def test_a_cancelled_stream_loses_no_mail(
    how: How, services: Scripted, session: Session
) -> None:
    """The read is not interrupted: the next request for an item waits for its mail."""
    services.script("readnew", ScriptedFault(after=2.0))
    services.deliver("one", "two")
    stream = session.pythbots.mail_stream()
    await limited(lambda: anext(stream), 1.0, how)
    assert seen(*await take(stream, 2, 1.2)) == [("one", False), ("two", False)]
    assert kinds(services) == ["readnew"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("of", ["stream", "direct"])
async def test_a_cancellation_takes_effect_immediately(
    of: str, how: How, services: Scripted, session: Session
) -> None:
    """The read ends at its time limit; the mail of a lost response is then recovered as usual."""
    loop = asyncio.get_running_loop()
    services.script("readnew", HANG)
    services.deliver("one")
    stream = session.pythbots.mail_stream()
    work = stream.__anext__ if of == "stream" else session.pythbots.unread_mail
    for attempt in (1, 2, 3):
        await limited(work, 1.0, how)
        assert loop.time() == pytest.approx(attempt, abs=0.01)
    assert kinds(services) == ["readnew"]
    assert seen(*await take(stream, 1)) == [("one", True)]
    assert kinds(services) == ["readnew", "readall"]


async def test_cancelled_again_and_again_the_read_still_ends(
    services: Scripted, session: Session
) -> None:
    """However often its callers are cancelled, the read is sent once, and its mail is kept."""
    services.script("readnew", ScriptedFault(after=2.0))
    services.deliver("one")
    stream = session.pythbots.mail_stream()
    for _ in range(15):
        await limited(lambda: anext(stream), 0.1, "cancel")
    assert seen(*await take(stream, 1, 0.6)) == [("one", False)]
    assert kinds(services) == ["readnew"]


@pytest.mark.parametrize("end", ["answer", "hang"])
async def test_closing_the_session_waits_for_the_read(
    new_store: StoreFactory, end: Literal["answer", "hang"], services: Scripted
) -> None:
    """Until its mail is stored, or its time limit is over; no task is left then."""
    loop, store, before = asyncio.get_running_loop(), new_store(), asyncio.all_tasks()
    services.deliver("one")
    services.script("readnew", ScriptedFault(after=3.0, end=end))
    async with services.session(store=store) as session:
        await limited(session.pythbots.unread_mail, 1.0, "asyncio.timeout")
        assert loop.time() == pytest.approx(1.0, abs=0.01)
    assert loop.time() == pytest.approx(3.0 if end == "answer" else 5.0, abs=0.1)
    await flush_events(store)
    assert asyncio.all_tasks() == before
    async with services.session(store=store) as session:
        mails = await take(session.pythbots.mail_stream(), 1)
        assert seen(*mails) == [("one", end == "hang")]


async def test_closing_can_be_cancelled(new_store: StoreFactory, services: Scripted) -> None:
    """The read is then aborted, the session is closed, and its mail is recovered."""
    loop, store, before = asyncio.get_running_loop(), new_store(), asyncio.all_tasks()
    services.deliver("one")
    services.script("readnew", HANG)
    session = await services.session(store=store, timeout=1000.0).open()
    stream = session.pythbots.mail_stream()
    await limited(lambda: anext(stream), 1.0, "cancel")
    await limited(session.aclose, 1.0, "asyncio.timeout")
    assert loop.time() == pytest.approx(2.0, abs=0.1)
    await flush_events(store)
    assert asyncio.all_tasks() == before
    await session.open()
    assert seen(*await take(session.pythbots.mail_stream(), 1)) == [("one", True)]
    await session.aclose()


async def test_opening_again_waits_for_the_end_of_closing(services: Scripted) -> None:
    """A session that still waits for a read is not opened."""
    services.script("readnew", ScriptedFault(after=3.0))
    services.deliver("one")
    session = await services.session().open()
    await limited(session.pythbots.unread_mail, 1.0, "cancel")
    closing = asyncio.ensure_future(session.aclose())
    await asyncio.sleep(0.1)
    async with session:
        assert closing.done()
        assert seen(*await session.pythbots.unread_mail()) == [("one", False)]


@pytest.mark.parametrize("timeout", [math.inf, 1e9])
async def test_without_a_time_limit_closing_still_ends(
    new_store: StoreFactory, timeout: float, plain: Scripted
) -> None:
    """It waits some minutes for a read, and the mail is recovered later."""
    services = plain
    loop, store = asyncio.get_running_loop(), new_store()
    services.deliver("one")
    services.script("readnew", HANG)
    async with services.session(store=store, timeout=timeout) as session:
        await limited(session.pythbots.unread_mail, 1.0, "cancel")
    assert loop.time() < 400.0
    async with services.session(store=store, timeout=timeout) as session:
        assert seen(*await session.pythbots.unread_mail()) == [("one", True)]


async def test_a_failure_without_a_caller_is_not_reported(
    new_store: StoreFactory, plain: Scripted
) -> None:
    """The store fails when the caller has gone: no message about an exception not retrieved."""
    services = plain
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    store = FailingAppends(new_store())
    services.script("readnew", ScriptedFault(after=2.0))
    services.deliver("one")
    freeze_collector()
    async with services.session(store=store) as session:
        await limited(session.pythbots.unread_mail, 1.0, "cancel")
        await asyncio.sleep(5.0)
        assert store.failures == 1
        gc.collect()
    gc.collect()
    assert reports == []


class FailingAppends(InterceptingStore):
    """A store whose first append fails."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.failures = 0

    async def intercept(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if work.__name__ == "append" and not self.failures:
            self.failures += 1
            raise StoreError("full", transient=True)
        return await super().intercept(work, *args, **kwargs)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("at", [0.5, 1.5])
async def test_a_direct_call_that_is_cancelled_leaves_its_mail_to_the_next(
    how: How, at: float, services: Scripted, session: Session
) -> None:
    """While it waits for its token nothing is marked as read; later the next call returns it."""
    await session.pythbots.all_mail()  # the next token is due a second later
    services.script("readnew", ScriptedFault(after=2.0))
    services.deliver("one")
    returned: list[Mail] = []

    async def call() -> None:
        returned.extend(await session.pythbots.unread_mail())

    await limited(call, at, how)
    services.deliver("two")
    returned += await session.pythbots.unread_mail()
    assert seen(*returned) == [("one", False), ("two", False)]
    assert await session.pythbots.unread_mail() == ()
    assert kinds(services).count("readall") == 1


# -- direct calls ---------------------------------------------------------------------------------


async def test_unread_mail_is_returned_once(services: Scripted, session: Session) -> None:
    """Oldest first, by one ``readnew`` for each call; what was returned is not returned again."""
    services.deliver("one", "two")
    assert seen(*await session.pythbots.unread_mail()) == [("one", False), ("two", False)]
    assert await session.pythbots.unread_mail() == ()
    services.deliver("three")
    assert seen(*await session.pythbots.unread_mail()) == [("three", False)]
    assert kinds(services) == ["readnew"] * 3


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
async def test_a_lost_response_is_an_error_and_the_next_call_returns_its_mail(
    new_store: StoreFactory, fault: ScriptedFault, plain: Scripted
) -> None:
    """`OutcomeUnknownError`, nothing repeated; then the mail, ``recovered``."""
    plain.script("readnew", fault)
    plain.deliver("one", "one")
    async with plain.session(store=new_store()) as session:
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.pythbots.unread_mail()
        assert caught.value.endpoint == "pythbots.mail"
        assert "unread mail may or may not have been marked as read" in str(caught.value)
        assert kinds(plain) == ["readnew"]
        plain.deliver("two")
        taken = seen(*await session.pythbots.unread_mail())
        assert taken == [("one", True), ("one", True), ("two", True)]


async def test_several_lost_responses_add_up(services: Scripted, session: Session) -> None:
    """Whatever failed in between, the call that succeeds returns all that is undelivered."""
    services.deliver("one")
    services.script("readnew", DROP, DROP)
    services.script("readall", ERROR_500, OK)
    with pytest.raises(OutcomeUnknownError):
        await session.pythbots.unread_mail()
    with pytest.raises(HttpStatusError):
        await session.pythbots.unread_mail()
    services.deliver("two")
    assert [text for text, _ in seen(*await session.pythbots.unread_mail())] == ["one", "two"]


async def test_mail_fetched_directly_reaches_the_streams(
    services: Scripted, session: Session
) -> None:
    """One that waits, one that is made later, and one with a name: each gets it."""
    waiting, named = session.pythbots.mail_stream(), session.pythbots.mail_stream(name="me")
    async with named:
        pass
    task = asyncio.ensure_future(take(waiting, 2))
    await asyncio.sleep(0.1)
    services.deliver("one", "two")
    assert texts(*await session.pythbots.unread_mail()) == ["one", "two"]
    assert texts(*await task) == ["one", "two"]
    services.deliver("three")
    assert texts(*await session.pythbots.unread_mail())[-1] == "three"
    services.default_faults["readnew"] = DENIED  # from here on no stream gets mail by its own polls
    wanted = ["one", "two", "three"]
    assert texts(*await take(session.pythbots.mail_stream(name="me"), 3)) == wanted
    assert texts(*await take(waiting, 1)) == ["three"]


async def test_concurrent_direct_calls_return_each_mail_once(
    services: Scripted, session: Session
) -> None:
    """Two calls that wait for each other both succeed, and together return every mail."""
    services.deliver("one")
    schedule(0.5, services.deliver, "two")
    async with asyncio.timeout(30):
        taken = await asyncio.gather(*(session.pythbots.unread_mail() for _ in range(3)))
    assert {text for mails in taken for text in texts(*mails)} == {"one", "two"}
    services.deliver("three")
    assert texts(*await session.pythbots.unread_mail()) == ["three"]


async def test_a_direct_call_does_not_wait_longer_than_it_may(
    new_store: StoreFactory, plain: Scripted
) -> None:
    """Though a stream's poll waits an hour for its token, the call raises immediately."""
    async with plain.session(max_wait=10.0, store=new_store()) as session:
        session.limiters["pythbots.mail"].pause(3000.0)
        waiting = asyncio.ensure_future(take(session.pythbots.mail_stream(), 1, 4000.0))
        await asyncio.sleep(1.0)
        start = asyncio.get_running_loop().time()
        with pytest.raises(RateLimitedError):
            await asyncio.wait_for(session.pythbots.unread_mail(), 100.0)
        assert asyncio.get_running_loop().time() - start <= 10.0
        plain.deliver("one")
        assert texts(*await waiting) == ["one"]


async def test_a_call_that_gets_its_token_as_the_session_closes_sends_nothing(
    new_store: StoreFactory,
    plain: Scripted,
) -> None:
    """It raises, releases its token, and leaves no fetch intent for a read that was not sent."""
    store = RecordingStore(new_store())
    plain.deliver("one")
    async with plain.session(store=store) as session:
        limiter = session.limiters["pythbots.mail"]
        permit = await limiter.acquire(Priority.CALL)
        reading = asyncio.ensure_future(session.pythbots.unread_mail())
        await asyncio.sleep(1.0)
        assert limiter.waiting == 1
        permit.close()  # the token is the call's, and the call has not run yet
    with pytest.raises(SessionClosedError):
        await reading
    assert plain.requests == []
    assert not store.on_record
    assert (limiter.available, limiter.waiting) == (1, 0)
    async with plain.session(store=store) as session:
        assert seen(*await session.pythbots.unread_mail()) == [("one", False)]
    assert kinds(plain) == ["readnew"]


# -- positions ------------------------------------------------------------------------------------


async def test_a_stream_starts_with_unacknowledged_mail(
    services: Scripted, session: Session
) -> None:
    """The store's unacknowledged mail first, then the service's unread."""
    services.deliver("one", "two", "three")
    first = session.pythbots.mail_stream()
    assert texts(*await take(first, 2)) == ["one", "two"]  # only "one" is acknowledged
    await first.aclose()
    services.deliver("four")
    assert texts(*await take(session.pythbots.mail_stream(), 3)) == ["two", "three", "four"]


async def test_a_name_resumes_where_it_ended(services: Scripted, session: Session) -> None:
    """Its own acknowledgements count, not those of other names."""
    services.deliver("one", "two")
    slow = session.pythbots.mail_stream(name="slow")
    assert texts(*await take(slow, 1)) == ["one"]
    await slow.ack()
    await slow.aclose()
    assert texts(*await take(session.pythbots.mail_stream(name="quick"), 1)) == ["two"]
    quick = session.pythbots.mail_stream()
    assert texts(*await take(quick, 1)) == ["two"]
    await quick.ack()
    assert texts(*await take(session.pythbots.mail_stream(name="slow"), 1)) == ["two"]


async def test_unacknowledged_mail_is_returned_again_in_a_new_session(
    new_store: StoreFactory, services: Scripted
) -> None:
    """The service does not return it any more, the store does."""
    store = new_store()
    services.deliver("one", "two", "three")
    async with services.session(store=store) as session:
        stream = session.pythbots.mail_stream(name="me")
        assert texts(*await take(stream, 2)) == ["one", "two"]
    async with services.session(store=store) as session:
        assert texts(*await take(session.pythbots.mail_stream(name="me"), 2)) == ["two", "three"]


@pytest.mark.parametrize("direct", [False, True], ids=["stream", "call"])
async def test_mail_of_another_personal_key_is_reported_and_kept_for_it(
    new_store: StoreFactory, services: Scripted, caplog: pytest.LogCaptureFixture, direct: bool
) -> None:
    """Once per session, with how many; only a session with that key delivers it."""
    store = new_store()
    services.deliver("one", "two", "three")
    async with services.session(store=store) as session:
        stream = session.pythbots.mail_stream(name="me")
        assert texts(*await take(stream, 2)) == ["one", "two"]
    async with services.session(store=store, personal_key="a-new-key") as session:
        services.deliver("four")
        stream = session.pythbots.mail_stream(name="me")
        if direct:
            assert texts(*await session.pythbots.unread_mail()) == ["four"]
        assert texts(*await take(stream, 1)) == ["four"]
        await stream.ack()
        assert await all_of(stream) == []
    [warning] = [record for record in caplog.records if "another personal key" in record.message]
    assert (warning.levelname, vars(warning)["count"]) == ("WARNING", 2)
    assert "never acknowledged (2);" in warning.message
    assert "a-new-key" not in caplog.text
    caplog.clear()
    services.default_faults["readnew"] = services.default_faults["readall"] = DENIED
    async with services.session(store=store) as session:
        assert texts(*await take(session.pythbots.mail_stream(name="me"), 2)) == ["two", "three"]
    assert "another personal key" not in caplog.text


@pytest.mark.parametrize("transient", [False, True])
async def test_the_log_of_another_account_stops_no_mail(
    transient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is damaged; after a failure that may pass it is read again at the next poll."""
    asked = 0

    async def fail(log: Log[object]) -> int:
        nonlocal asked
        asked += 1
        raise StoreError("the log of another account is damaged", transient=transient)

    async with Scripted() as services, services.session() as session:
        stream = session.pythbots.mail_stream(name="me")
        log = type(stream._poller.log)
        monkeypatch.setattr(log, "unacknowledged_of_others", fail)
        for text in ("one", "two"):
            services.deliver(text)
            assert texts(*await take(stream, 1)) == [text]
    assert (asked > 1) is transient


async def test_unacknowledged_mail_outlives_a_short_log(
    new_store: StoreFactory, services: Scripted
) -> None:
    """However much more arrives than the store is set to keep."""
    async with services.session(store=new_store(max_length=3)) as session:
        wanted = [f"mail {number}" for number in range(20)]
        for text in wanted:
            services.deliver(text)
            await session.pythbots.unread_mail()
        assert texts(*await take(session.pythbots.mail_stream(), 20)) == wanted


# -- sessions -------------------------------------------------------------------------------------


async def test_a_session_closed_in_the_middle_of_a_read_loses_no_mail(
    new_store: StoreFactory, services: Scripted
) -> None:
    """The next session on the store finds in the history what the response held."""
    store = new_store()
    services.deliver("one")
    services.script("readnew", HANG)
    async with services.session(store=store) as session:
        task = asyncio.ensure_future(take(session.pythbots.mail_stream(name="me"), 1))
        await asyncio.sleep(1.0)
    with pytest.raises(SessionClosedError):
        await task
    async with services.session(store=store) as session:
        assert seen(*await take(session.pythbots.mail_stream(name="me"), 1)) == [("one", True)]


class RecordingStore(InterceptingStore):
    """A store that records which fetch intents are pending."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.on_record: set[int] = set()
        self.logs: list[Log[Mail]] = []

    def log(self, topic: Topic[T]) -> Log[T]:
        log = super().log(topic)
        self.logs.append(cast("Log[Mail]", log))
        return log

    async def intercept(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        result = await super().intercept(work, *args, **kwargs)
        match work.__name__, result:
            case "begin_fetch", int(number):
                self.on_record.add(number)
            case "cancel_fetch", _:
                self.on_record -= {*args}
            case "append", _:
                self.on_record -= {*cast("Collection[int]", kwargs["completes"])}
            case _:
                pass
        return result

    async def fetch_is_lost(self) -> bool:
        """Whether a fetch counts as lost a minute later."""
        await asyncio.sleep(60.0)
        return bool(await self.logs[0].lost_fetches())


@pytest.mark.parametrize("end", ["answer", "drop"])
async def test_a_read_is_on_record_before_it_is_sent(
    new_store: StoreFactory, end: Literal["answer", "drop"], plain: Scripted
) -> None:
    """So a crash at any moment of it is detected; only a complete response completes it."""
    store = RecordingStore(new_store())
    plain.script("readnew", ScriptedFault(before=1.0, after=1.0, end=end))
    async with plain.session(store=store) as session:
        reading = asyncio.ensure_future(session.pythbots.unread_mail())
        for _ in range(3):
            await asyncio.sleep(0.6)
            assert len(plain.requests) == 1
            assert store.on_record
        await asyncio.wait([reading])
        assert (reading.exception() is None) is (end == "answer")
        assert await store.fetch_is_lost() is (end == "drop")


async def test_a_new_key_warns_of_mail_under_the_old_one(
    new_store: StoreFactory, plain: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """It is delivered to the old key only; where there is none, there is no warning."""
    store = new_store()
    for number in range(3):
        plain.deliver(f"mail {number}")
    async with plain.session(store=store) as session:
        stream = session.pythbots.mail_stream(name="me")
        await take(stream, 1)
        await stream.ack()
    async with plain.session(store=store, personal_key="another") as session:
        assert await all_of(session.pythbots.mail_stream(name="me")) == []
    [warning] = [record.getMessage() for record in caplog.records]
    assert "with another personal key and never acknowledged (2); only" in warning
    async with plain.session(store=store) as session:
        assert texts(*await take(session.pythbots.mail_stream(name="me"), 2)) == [
            "mail 1",
            "mail 2",
        ]
        await session.pythbots.mail_stream(name="me").aclose()
    async with plain.session(store=store) as session:
        await all_of(session.pythbots.mail_stream(name="me"))
    async with plain.session(store=store, personal_key="a third") as session:
        await all_of(session.pythbots.mail_stream(name="me"))
    assert len(caplog.records) == 1


async def test_reads_that_stay_lost_are_logged_once(
    new_store: StoreFactory, plain: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is recovered from the history, which ends no series of failures: only a read does."""
    caplog.set_level(logging.INFO, "pythpeer.streams")
    plain.script("readnew", *[DROP] * 6)
    async with plain.session(store=new_store()) as session:
        stream = session.pythbots.mail_stream(name="me")
        for number in range(6):
            schedule(number * 3.0, plain.deliver, f"mail {number}")
        taken = await all_of(stream, 60.0)
    assert texts(*taken) == [f"mail {number}" for number in range(6)]
    lines = [record.getMessage() for record in caplog.records if hasattr(record, "failures")]
    assert len(lines) == 2
    assert lines[0].endswith("the stream keeps retrying")
    assert lines[1] == "pythbots.mail recovered after 6 failures"


async def test_a_read_with_a_limit_of_its_own_is_not_lost_before_it(
    new_store: StoreFactory, plain: Scripted
) -> None:
    """Another session would treat it as lost, and read the whole history."""
    store = RecordingStore(new_store())
    plain.script("readnew", ScriptedFault(after=40.0))
    async with plain.session(store=store, timeout=5.0) as session:
        reading = asyncio.ensure_future(session.pythbots.unread_mail(timeout=60.0))
        await asyncio.sleep(39.0)
        assert not await store.logs[0].lost_fetches()
        assert await reading == ()


async def test_mail_that_another_session_recovered_is_not_repeated(
    new_store: StoreFactory,
) -> None:
    """One session read it from the history; to the next session it is still unread."""
    store = new_store()
    async with Scripted(mail_ids=False, readall_marks=False) as services:
        services.deliver("one")
        services.script("readnew", DROP_WITHOUT_EFFECT)
        async with services.session(store=store) as session:
            with pytest.raises(OutcomeUnknownError):
                await session.pythbots.unread_mail()
            assert seen(*await session.pythbots.unread_mail()) == [("one", True)]
        async with services.session(store=store) as session:
            taken = seen(*await all_of(session.pythbots.mail_stream()))
        assert taken == [("one", True)]


async def test_a_read_that_takes_effect_after_its_time_limit_loses_no_mail(
    new_store: StoreFactory, services: Scripted
) -> None:
    """Another session has recovered the fetch by then; what was read after that is found too."""
    store = new_store()
    services.script("readnew", ScriptedFault(before=4.8, end="drop"))
    async with (
        services.session(store=store, timeout=20.0) as first,
        services.session(store=store, timeout=20.0) as second,
    ):
        services.deliver("early")
        reading = asyncio.ensure_future(all_of(first.pythbots.mail_stream(name="one"), 30.0))
        await asyncio.sleep(0.1)
        schedule(4.6, services.deliver, "late")
        taken = await all_of(second.pythbots.mail_stream(name="other"), 30.0)
        assert {"early", "late"} <= set(texts(*taken))
        assert {"early", "late"} <= set(texts(*await reading))


async def test_two_sessions_on_one_store_poll_as_one(
    new_store: StoreFactory, services: Scripted
) -> None:
    """What one of them fetched reaches the streams of both."""
    store = new_store()
    async with services.session(store=store) as first, services.session(store=store) as second:
        for delay in range(10):
            schedule(delay + 0.5, services.deliver, f"mail {delay}")
        streams = [s.pythbots.mail_stream(name=n) for s, n in ((first, "one"), (second, "other"))]
        taken = await asyncio.gather(*(take(stream, 10) for stream in streams))
        assert [seen(*mails) for mails in taken] == [
            [(f"mail {second}", False) for second in range(10)]
        ] * 2
        assert len(services.requests) <= 12


async def test_no_task_is_left_over(new_store: StoreFactory, plain: Scripted) -> None:
    """A read that continues without its caller is one task, which ends with the response."""
    before, store = asyncio.all_tasks(), new_store()
    async with plain.session(store=store) as session:
        stream = session.pythbots.mail_stream()
        works: tuple[Callable[[], Awaitable[object]], ...] = (
            stream.__anext__,
            session.pythbots.unread_mail,
        )
        for how, work in itertools.product(HOWS, works):
            plain.script("readnew", ScriptedFault(after=2.0))
            await asyncio.sleep(1.0)  # the next token is due
            await limited(work, 0.5, how)
            assert len(asyncio.all_tasks() - before) >= 1
            await asyncio.sleep(2.0)
            await flush_events(store)
            assert asyncio.all_tasks() == before
    await flush_events(store)
    assert asyncio.all_tasks() == before


# -- undocumented shapes --------------------------------------------------------------------------


async def test_bad_mail_hides_no_neighbours(
    new_store: StoreFactory, plain: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """It is skipped, logged and counted, once each."""
    body = b'[{"id": 1, "message": "one"}, 5, null, {"id": 2, "message": "two"}, [1]]'
    plain.script("readnew", ScriptedFault(body=body))
    async with plain.session(store=new_store()) as session:
        stream = session.pythbots.mail_stream()
        assert texts(*await all_of(stream)) == ["one", "two"]
        assert stream.skipped == 3
        assert logged_skips(caplog) == 3


@pytest.mark.parametrize("id", ['""', "0", '"0"', "null", "7", '"x"'])
async def test_what_looks_like_an_id_but_is_none_loses_no_mail(
    new_store: StoreFactory, id: str, plain: Scripted
) -> None:
    """Different mails under one id (it may be the sender's) are different mails."""
    body = f'[{{"id": {id}, "message": "one"}}, {{"id": {id}, "message": "two"}}]'
    plain.script("readnew", ScriptedFault(body=body.encode()))
    async with plain.session(store=new_store()) as session:
        taken = await all_of(session.pythbots.mail_stream())
        assert sorted(map(str, texts(*taken))) == ["one", "two"]


# -- everything at the same time ------------------------------------------------------------------

FAULTS: Final = st.sampled_from(
    [
        *(
            OK,
            DROP,
            DROP_WITHOUT_EFFECT,
            CUT,
            HANG,
            GARBAGE,
            HTML,
            ERROR_500,
            ERROR_503,
            ERROR_429,
            API_ERROR,
        ),
        *(
            ScriptedFault(after=0.7),
            ScriptedFault(before=0.7),
            ScriptedFault(before=0.7, end="drop"),
        ),
    ]
)
DELIVERIES: Final = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from("aaabcdefgh")), max_size=12
)
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["stream", "direct", "new session"]),
        st.integers(1, 40).map(lambda number: number / 10),
        st.sampled_from(HOWS),
    ),
    max_size=6,
)


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.booleans(),
    st.booleans(),
    st.lists(FAULTS, max_size=6),
    st.lists(FAULTS, max_size=4),
    DELIVERIES,
    STEPS,
)
async def test_every_mail_is_seen_and_none_twice_without_saying_so(
    new_store: StoreFactory,
    ids: bool,
    marks: bool,
    unread_faults: list[ScriptedFault],
    history_faults: list[ScriptedFault],
    deliveries: list[tuple[int, str]],
    steps: list[tuple[str, float, How]],
) -> None:
    """Any faults, any cancellations: nothing is lost; only marked mail is returned twice.

    Costs 2 s with Redis: an example takes a minute of polls, each of which asks the server often.
    """
    async with (
        Scripted(mail_ids=ids, readall_marks=marks) as services,
        services.session(retry=SHORT_BACKOFF, timeout=2.0, store=new_store()) as session,
    ):
        services.script("readnew", *unread_faults)
        services.script("readall", *history_faults)
        for tick, text in deliveries:
            schedule(tick / 10, services.deliver, text)
        stream = session.pythbots.mail_stream(name="me")
        taken: list[Mail] = []

        async def take_one() -> None:
            taken.append(await anext(stream))

        async def direct() -> None:
            with suppress(PythpeerError):
                await session.pythbots.unread_mail()

        for step, limit, how in steps:
            if step == "new session":
                await session.aclose()
                await session.open()
                await stream.ack()
                stream = session.pythbots.mail_stream(name="me")
            else:
                await limited(take_one if step == "stream" else direct, limit, how)
        await asyncio.sleep(12)
        taken += await all_of(stream, 30.0)
        wanted = Counter(letter.text for letter in services.mails)
        assert Counter(texts(*taken)) >= wanted
        if ids:
            assert sorted(mail.id or 0 for mail in taken) == [
                letter.id for letter in services.mails
            ]
        if any(step == "new session" for step, _, _ in steps):
            return  # what a later session has to mark is the sessions' part above
        for text, count in wanted.items():
            marks_of_it = [mail.recovered for mail in taken if mail.text == text]
            assert marks_of_it.count(False) <= count
            if count == 1:
                assert all(marks_of_it[1:])
