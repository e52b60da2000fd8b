"""`mail_stream` and `unread_mail`: the service forgets what it handed out, and none is lost."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from typing import Final, Literal, ParamSpec, TypeVar, cast

import anyio
import pytest
from helpers import DEEP, SHORT_BACKOFF, examples, schedule, take
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    CUT,
    DENIED,
    DROP,
    DROP_UNSEEN,
    EMPTY,
    ERROR_500,
    ERROR_503,
    GARBAGE,
    HANG,
    HTML,
    NOT_FOUND,
    OK,
    REFUSED,
    TOO_MANY,
    ScriptedFault,
    Scripted,
)
from stores import NewStore, WrappedStore, told

from pythpeer import (
    AccessDeniedError,
    ApiError,
    HttpStatusError,
    InvalidRequestError,
    Mail,
    MailStream,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    Session,
    SessionClosedError,
    TransportError,
)
from pythpeer.line import Priority
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
"""What can become of an answer after the service has marked its mail as read."""

REFUSALS: Final = {
    "refused": (REFUSED, ApiError),
    "denied": (DENIED, AccessDeniedError),
    "429": (TOO_MANY, RateLimitedError),
    "404": (NOT_FOUND, HttpStatusError),
}
"""Answers that say for certain that nothing was handed out."""

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
    request: pytest.FixtureRequest, new_store: NewStore, mail_ids: bool
) -> AsyncIterator[Scripted]:
    """The services, of every habit: unless `DEEP`, two of the four with each store."""
    on_disk = request.node.callspec.params["new_store"] == "sqlite"
    marks = MARKS.get(request.param, mail_ids is not on_disk)
    async with Scripted(mail_ids=mail_ids, readall_marks=marks) as services:
        yield services


@pytest.fixture
async def plain() -> AsyncIterator[Scripted]:
    """A service of one habit, for what has nothing to do with habits."""
    async with Scripted() as services:
        yield services


def seen(*mails: Mail) -> Seen:
    return [(mail.text, mail.recovered) for mail in mails]


def texts(*mails: Mail) -> list[str | None]:
    return [mail.text for mail in mails]


async def all_of(stream: MailStream, within: float = 8.0) -> list[Mail]:
    """Whatever comes for so long."""
    found: list[Mail] = []
    with anyio.move_on_after(within):
        async for mail in stream:
            found.append(mail)  # noqa: PERF401  # what came before the time was up counts
    return found


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


async def test_unread_mail_comes_as_it_arrives(services: Scripted, session: Session) -> None:
    """What is unread first, then what comes, each once, by one ``readnew`` per interval."""
    services.deliver("one", "two")
    schedule(2.5, services.deliver, "three")
    stream = session.pythbots.mail_stream()
    assert seen(*await take(stream, 3)) == [("one", False), ("two", False), ("three", False)]
    assert await all_of(stream, 3.5) == []
    assert set(kinds(services)) == {"readnew"}
    times = [request.at for request in services.requests]
    assert all(b - a == pytest.approx(1.0, abs=1e-3) for a, b in itertools.pairwise(times))


async def test_streams_share_their_polls(services: Scripted, session: Session) -> None:
    """Many streams of one session get all mail each, at the price of one."""
    schedule(1.5, services.deliver, "one", "two")
    streams = [session.pythbots.mail_stream(name=f"stream {n}") for n in range(20)]
    found = await asyncio.gather(*(take(stream, 2) for stream in streams))
    assert [texts(*mails) for mails in found] == [["one", "two"]] * 20
    assert len(services.requests) == 3


async def test_identical_mails_are_all_delivered(services: Scripted, session: Session) -> None:
    """The same words twice are two mails, with ids or without."""
    services.deliver("hi", "hi")
    schedule(2.5, services.deliver, "hi")
    assert seen(*await all_of(session.pythbots.mail_stream())) == [("hi", False)] * 3


async def test_mail_needs_a_personal_key(plain: Scripted) -> None:
    """Without one nothing is sent."""
    async with plain.session(personal_key=None) as session:
        with pytest.raises(InvalidRequestError, match="personal key"):
            session.pythbots.mail_stream()
        with pytest.raises(InvalidRequestError, match="personal key"):
            await session.pythbots.unread_mail()
    assert plain.requests == []


# -- an answer is lost ----------------------------------------------------------------------------


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
"""What became of an answer, on each store, from a service with ids and from one without."""


@pytest.mark.parametrize(
    ("fault", "new_store", "mail_ids"), BY_TURNS, indirect=["new_store", "mail_ids"]
)
async def test_a_lost_answer_loses_no_mail(
    fault: ScriptedFault, services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """It is found in the history and marked ``recovered``; with ids it comes once."""
    caplog.set_level(logging.INFO)
    services.deliver("one")
    stream = session.pythbots.mail_stream()
    assert seen(*await take(stream, 1)) == [("one", False)]
    services.script("readnew", fault)
    services.deliver("two", "two", "three")
    assert seen(*await all_of(stream)) == [("two", True), ("two", True), ("three", True)]
    schedule(0.5, services.deliver, "four")
    assert seen(*await all_of(stream, 4.0)) == [("four", False)]
    levels = [r.levelno for r in caplog.records if r.name.startswith("pythpeer")]
    assert [level for level in levels if level >= logging.INFO] == [logging.WARNING, logging.INFO]
    assert kinds(services).count("readall") == 1


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
async def test_the_history_is_asked_until_it_arrives_whole(
    new_store: NewStore, fault: ScriptedFault, plain: Scripted
) -> None:
    """Nothing is settled by a history that was lost itself."""
    plain.script("readnew", DROP)
    plain.script("readall", fault, fault, REFUSED, fault)
    plain.deliver("one", "two")
    async with plain.session(retry=SHORT_BACKOFF, store=new_store()) as session:
        stream = session.pythbots.mail_stream()
        found = await take(stream, 2) + await all_of(stream)
    assert seen(*found) == [("one", True), ("two", True)]
    assert kinds(plain)[:6] == ["readnew"] + ["readall"] * 5


async def test_mail_that_was_never_consumed_comes_once_with_ids(
    services: Scripted, session: Session
) -> None:
    """The request was lost, not the answer: without ids that may be told twice, but marked."""
    services.script("readnew", DROP_UNSEEN)
    services.deliver("one")
    found = seen(*await all_of(session.pythbots.mail_stream()))
    again = not services.quirks.mail_ids and not services.quirks.readall_marks
    assert found == [("one", True)] * (2 if again else 1)


async def test_identical_mails_are_counted(services: Scripted, session: Session) -> None:
    """As many of the same words as the history has more than the log are delivered."""
    stream = session.pythbots.mail_stream()
    services.deliver("hi")
    assert seen(*await take(stream, 1)) == [("hi", False)]
    services.script("readnew", DROP)
    services.deliver("hi", "hi")
    assert seen(*await all_of(stream)) == [("hi", True)] * 2
    services.deliver("hi")  # without an id it may be one of the two
    assert seen(*await all_of(stream)) == [("hi", not services.quirks.mail_ids)]


async def test_old_mail_of_the_same_words_is_not_taken_for_lost(
    services: Scripted, session: Session
) -> None:
    """What the log has had is not delivered again because an answer was lost."""
    stream = session.pythbots.mail_stream()
    services.deliver("a", "b", "a")
    await take(stream, 3)
    services.script("readnew", CUT)
    assert seen(*await all_of(stream)) == []


@pytest.mark.parametrize(("fault", "kind"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_does_not_ask_for_the_history(
    fault: ScriptedFault, kind: type[PythpeerError], services: Scripted, session: Session
) -> None:
    """The service said that it handed nothing out, so ``readnew`` will do."""
    services.script("readnew", fault)
    services.deliver("one")
    with pytest.raises(kind):
        await session.pythbots.unread_mail()
    assert seen(*await session.pythbots.unread_mail()) == [("one", False)]
    assert "readall" not in kinds(services)


async def test_a_connection_refused_does_not_ask_for_the_history(
    services: Scripted, session: Session
) -> None:
    """What certainly never left has consumed nothing."""
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
    [((REFUSED, TOO_MANY), ()), ((ERROR_503,), (ERROR_503, HANG)), ((HANG,), (REFUSED, GARBAGE))],
    ids=["certain", "503", "timeout"],
)
async def test_transient_failures_are_waited_out(
    new_store: NewStore,
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
    levels = [r.levelno for r in caplog.records if r.name.startswith("pythpeer")]
    assert [level for level in levels if level >= logging.INFO] == [logging.WARNING, logging.INFO]


async def test_a_refused_key_is_raised_every_time(new_store: NewStore, plain: Scripted) -> None:
    """To every stream that waits, whenever it is asked; once mended, all go on."""
    async with plain.session(store=new_store()) as session:
        plain.default_faults["readnew"] = DENIED
        streams = [session.pythbots.mail_stream(name=name) for name in ("one", "other")]
        for _ in range(2):
            found = await asyncio.gather(*(take(s, 1) for s in streams), return_exceptions=True)
            assert [type(error) for error in found] == [AccessDeniedError] * 2
        plain.default_faults.clear()
        plain.deliver("mail")
        assert [texts(*await take(stream, 1)) for stream in streams] == [["mail"]] * 2


# -- a consumer is cancelled ----------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
async def test_a_cancelled_stream_loses_no_mail(
    how: How, services: Scripted, session: Session
) -> None:
    """The read is ended in peace: its mail is in the log, and no history is needed."""
    services.script("readnew", ScriptedFault(seconds=2.0))
    services.deliver("one", "two")
    stream = session.pythbots.mail_stream()
    found: list[Mail] = []

    async def one() -> None:
        found.append(await anext(stream))

    await limited(one, 1.0, how)
    found += await take(stream, 2 - len(found), 0.1)
    assert seen(*found) == [("one", False), ("two", False)]
    assert kinds(services) == ["readnew"]


@pytest.mark.parametrize("how", HOWS)
async def test_a_cancellation_waits_for_no_longer_than_the_time_limit(
    how: How, services: Scripted, session: Session
) -> None:
    """If the answer does not come, the mail is found in the history as ever."""
    loop = asyncio.get_running_loop()
    services.script("readnew", HANG)
    services.deliver("one")
    stream = session.pythbots.mail_stream()
    await limited(lambda: anext(stream), 1.0, how)
    assert loop.time() == pytest.approx(5.0, abs=0.01)  # the session's time limit
    assert seen(*await take(stream, 1)) == [("one", True)]


async def test_cancelled_again_and_again_it_still_ends_its_read(
    services: Scripted, session: Session
) -> None:
    """A native cancellation that is repeated does not get through the shield."""
    services.script("readnew", ScriptedFault(seconds=2.0))
    services.deliver("one")
    stream = session.pythbots.mail_stream()
    task = asyncio.ensure_future(anext(stream))
    for _ in range(15):
        await asyncio.sleep(0.1)
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert seen(*await take(stream, 1, 0.1)) == [("one", False)]
    assert kinds(services) == ["readnew"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("at", [0.5, 1.5])
async def test_a_direct_call_that_is_cancelled_leaves_its_mail_to_the_next(
    how: How, at: float, services: Scripted, session: Session
) -> None:
    """While it waits for its token it has consumed nothing; later the next call returns it."""
    await session.pythbots.all_mail()  # the next token is due a second later
    services.script("readnew", ScriptedFault(seconds=2.0))
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
    """Oldest first, by one ``readnew`` a call; what was returned does not come again."""
    services.deliver("one", "two")
    assert seen(*await session.pythbots.unread_mail()) == [("one", False), ("two", False)]
    assert await session.pythbots.unread_mail() == ()
    services.deliver("three")
    assert seen(*await session.pythbots.unread_mail()) == [("three", False)]
    assert kinds(services) == ["readnew"] * 3


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
async def test_a_lost_answer_is_an_error_and_the_next_call_returns_its_mail(
    new_store: NewStore, fault: ScriptedFault, plain: Scripted
) -> None:
    """`OutcomeUnknownError`, nothing repeated; then the mail, ``recovered``."""
    plain.script("readnew", fault)
    plain.deliver("one", "one")
    async with plain.session(store=new_store()) as session:
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.pythbots.unread_mail()
        assert caught.value.endpoint == "pythbots.mail"
        assert kinds(plain) == ["readnew"]
        plain.deliver("two")
        found = seen(*await session.pythbots.unread_mail())
        assert found == [("one", True), ("one", True), ("two", True)]


async def test_several_lost_answers_add_up(services: Scripted, session: Session) -> None:
    """Whatever failed in between, the call that succeeds returns all that was owed."""
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
    """One that waits, one that is made later, and one of a name: each gets it."""
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
    services.default_faults["readnew"] = DENIED  # no stream gets anything by itself from here on
    wanted = ["one", "two", "three"]
    assert texts(*await take(session.pythbots.mail_stream(name="me"), 3)) == wanted
    assert texts(*await take(waiting, 1)) == ["three"]


async def test_direct_calls_at_once_return_each_mail_to_somebody(
    services: Scripted, session: Session
) -> None:
    """Two calls that wait for each other both end well, and between them miss nothing."""
    services.deliver("one")
    schedule(0.5, services.deliver, "two")
    async with asyncio.timeout(30):
        found = await asyncio.gather(*(session.pythbots.unread_mail() for _ in range(3)))
    assert {text for mails in found for text in texts(*mails)} == {"one", "two"}
    services.deliver("three")
    assert texts(*await session.pythbots.unread_mail()) == ["three"]


async def test_a_direct_call_does_not_wait_longer_than_it_may(
    new_store: NewStore, plain: Scripted
) -> None:
    """Though a stream's poll waits an hour for its token, the call says so at once."""
    async with plain.session(max_wait=10.0, store=new_store()) as session:
        session.limiters["pythbots.mail"].pause(3000.0)
        waiting = asyncio.ensure_future(take(session.pythbots.mail_stream(), 1, 4000.0))
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        with pytest.raises(RateLimitedError):
            await asyncio.wait_for(session.pythbots.unread_mail(), 100.0)
        assert asyncio.get_running_loop().time() - began <= 10.0
        plain.deliver("one")
        assert texts(*await waiting) == ["one"]


async def test_a_call_that_gets_its_token_as_the_session_closes_sends_nothing(
    new_store: NewStore,
    plain: Scripted,
) -> None:
    """It says so, gives the token back, and leaves no read on record that never was one."""
    store = Watched(new_store())
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


# -- places ---------------------------------------------------------------------------------------


async def test_a_stream_starts_with_what_nobody_acknowledged(
    services: Scripted, session: Session
) -> None:
    """The store's unacknowledged mail first, then the service's unread."""
    services.deliver("one", "two", "three")
    first = session.pythbots.mail_stream()
    assert texts(*await take(first, 2)) == ["one", "two"]  # only "one" is acknowledged
    await first.aclose()
    services.deliver("four")
    assert texts(*await take(session.pythbots.mail_stream(), 3)) == ["two", "three", "four"]


async def test_a_name_goes_on_where_it_was(services: Scripted, session: Session) -> None:
    """Its own acknowledgements count, not those of others."""
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


async def test_unacknowledged_mail_comes_again_in_a_new_session(
    new_store: NewStore, services: Scripted
) -> None:
    """The service has forgotten it, the store has not."""
    store = new_store()
    services.deliver("one", "two", "three")
    async with services.session(store=store) as session:
        stream = session.pythbots.mail_stream(name="me")
        assert texts(*await take(stream, 2)) == ["one", "two"]
    async with services.session(store=store) as session:
        assert texts(*await take(session.pythbots.mail_stream(name="me"), 2)) == ["two", "three"]


async def test_unacknowledged_mail_outlives_a_short_log(
    new_store: NewStore, services: Scripted
) -> None:
    """However many more arrive than the store was told to keep."""
    async with services.session(store=new_store(max_length=3)) as session:
        wanted = [f"mail {number}" for number in range(20)]
        for text in wanted:
            services.deliver(text)
            await session.pythbots.unread_mail()
        assert texts(*await take(session.pythbots.mail_stream(), 20)) == wanted


# -- sessions -------------------------------------------------------------------------------------


async def test_a_session_closed_in_the_middle_of_a_read_loses_no_mail(
    new_store: NewStore, services: Scripted
) -> None:
    """The next session on the store finds in the history what the answer held."""
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


class Watched(WrappedStore):
    """Knows which reads are on record, under way or not."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.on_record: set[int] = set()
        self.logs: list[Log[Mail]] = []

    def log(self, topic: Topic[T]) -> Log[T]:
        log = super().log(topic)
        self.logs.append(cast("Log[Mail]", log))
        return log

    async def do(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        result = await super().do(work, *args, **kwargs)
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

    async def in_doubt(self) -> bool:
        """Whether a read was announced of which nobody knows what became of it, a minute later."""
        await asyncio.sleep(60.0)
        return bool(await self.logs[0].lost_fetches())


@pytest.mark.parametrize("end", ["answer", "drop"])
async def test_a_read_is_on_record_before_it_is_sent(
    new_store: NewStore, end: Literal["answer", "drop"], plain: Scripted
) -> None:
    """So a crash at any moment of it is known of; it is cleared by a whole answer only."""
    store = Watched(new_store())
    plain.script("readnew", ScriptedFault(before=1.0, seconds=1.0, end=end))
    async with plain.session(store=store) as session:
        reading = asyncio.ensure_future(session.pythbots.unread_mail())
        for _ in range(3):
            await asyncio.sleep(0.6)
            assert len(plain.requests) == 1
            assert store.on_record
        await asyncio.wait([reading])
        assert (reading.exception() is None) is (end == "answer")
        assert await store.in_doubt() is (end == "drop")


async def test_mail_that_comes_again_to_another_session_is_marked(new_store: NewStore) -> None:
    """One session took it from the history; that it is still unread is news to the next one."""
    store = new_store()
    async with Scripted(mail_ids=False, readall_marks=False) as services:
        services.deliver("one")
        services.script("readnew", DROP_UNSEEN)
        async with services.session(store=store) as session:
            with pytest.raises(OutcomeUnknownError):
                await session.pythbots.unread_mail()
            assert seen(*await session.pythbots.unread_mail()) == [("one", True)]
        async with services.session(store=store) as session:
            found = seen(*await all_of(session.pythbots.mail_stream()))
        assert found == [("one", True), ("one", True)]


async def test_a_read_that_takes_effect_late_loses_no_mail(
    new_store: NewStore, services: Scripted
) -> None:
    """Another session settled meanwhile; what was read after that has to be found too."""
    store = new_store()
    services.script("readnew", ScriptedFault(before=4.8, end="drop"))
    async with (
        services.session(store=store, timeout=20.0) as one,
        services.session(store=store, timeout=20.0) as other,
    ):
        services.deliver("early")
        reading = asyncio.ensure_future(all_of(one.pythbots.mail_stream(name="one"), 30.0))
        await asyncio.sleep(0.1)
        schedule(4.6, services.deliver, "late")
        found = await all_of(other.pythbots.mail_stream(name="other"), 30.0)
        assert {"early", "late"} <= set(texts(*found))
        assert {"early", "late"} <= set(texts(*await reading))


async def test_two_sessions_on_one_store_poll_as_one(
    new_store: NewStore, services: Scripted
) -> None:
    """What one of them fetched reaches the streams of both."""
    store = new_store()
    async with services.session(store=store) as one, services.session(store=store) as other:
        for second in range(10):
            schedule(second + 0.5, services.deliver, f"mail {second}")
        streams = [s.pythbots.mail_stream(name=n) for s, n in ((one, "one"), (other, "other"))]
        found = await asyncio.gather(*(take(stream, 10) for stream in streams))
        assert [seen(*mails) for mails in found] == [
            [(f"mail {second}", False) for second in range(10)]
        ] * 2
        assert len(services.requests) <= 12


async def test_no_task_is_left_over(new_store: NewStore, plain: Scripted) -> None:
    """The task that shields a read ends before the call does."""
    before, store = asyncio.all_tasks(), new_store()
    async with plain.session(store=store) as session:
        plain.deliver("one")
        plain.script("readnew", ScriptedFault(seconds=2.0))
        stream = session.pythbots.mail_stream()
        for how in HOWS:
            await limited(lambda: anext(stream), 0.5, how)
            await told(store)
            assert asyncio.all_tasks() == before
            await limited(session.pythbots.unread_mail, 0.5, how)
            await told(store)
            assert asyncio.all_tasks() == before
    assert asyncio.all_tasks() == before


# -- shapes nobody published ----------------------------------------------------------------------


async def test_bad_mail_hides_no_neighbours(
    new_store: NewStore, plain: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """It is skipped, logged and counted, once each."""
    body = b'[{"id": 1, "message": "one"}, 5, null, {"id": 2, "message": "two"}, [1]]'
    plain.script("readnew", ScriptedFault(body=body))
    async with plain.session(store=new_store()) as session:
        stream = session.pythbots.mail_stream()
        assert texts(*await all_of(stream)) == ["one", "two"]
        assert stream.skipped == 3
        levels = [r.levelno for r in caplog.records if r.name.startswith("pythpeer")]
        assert levels == [logging.WARNING] * 3


@pytest.mark.parametrize("id", ['""', "0", '"0"', "null", "7", '"x"'])
async def test_what_looks_like_an_id_but_is_none_loses_no_mail(
    new_store: NewStore, id: str, plain: Scripted
) -> None:
    """Different mails under one id (it may be the sender's) are different mails."""
    body = f'[{{"id": {id}, "message": "one"}}, {{"id": {id}, "message": "two"}}]'
    plain.script("readnew", ScriptedFault(body=body.encode()))
    async with plain.session(store=new_store()) as session:
        found = await all_of(session.pythbots.mail_stream())
        assert sorted(map(str, texts(*found))) == ["one", "two"]


# -- everything at once ---------------------------------------------------------------------------

FAULTS: Final = st.sampled_from(
    [
        *(OK, DROP, DROP_UNSEEN, CUT, HANG, GARBAGE, HTML, ERROR_500, ERROR_503, TOO_MANY, REFUSED),
        *(ScriptedFault(seconds=0.7), ScriptedFault(before=0.7), ScriptedFault(before=0.7, end="drop")),
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
    new_store: NewStore,
    ids: bool,
    marks: bool,
    unread_faults: list[ScriptedFault],
    history_faults: list[ScriptedFault],
    deliveries: list[tuple[int, str]],
    steps: list[tuple[str, float, How]],
) -> None:
    """Any faults, any cancellations: nothing is lost; twice comes only what says that it may.

    Costs 2 s with Redis: an example takes a minute of polls, each of which asks the server often.
    """
    async with (
        Scripted(mail_ids=ids, readall_marks=marks) as services,
        services.session(retry=SHORT_BACKOFF, timeout=2.0, store=new_store()) as session,
    ):
        services.script("readnew", *unread_faults)
        services.script("readall", *history_faults)
        for tenths, text in deliveries:
            schedule(tenths / 10, services.deliver, text)
        stream = session.pythbots.mail_stream(name="me")
        found: list[Mail] = []

        async def one() -> None:
            found.append(await anext(stream))

        async def direct() -> None:
            with suppress(PythpeerError):
                await session.pythbots.unread_mail()

        for what, limit, how in steps:
            if what == "new session":
                await session.aclose()
                await session.open()
                await stream.ack()
                stream = session.pythbots.mail_stream(name="me")
            else:
                await limited(one if what == "stream" else direct, limit, how)
        await asyncio.sleep(12)
        found += await all_of(stream, 30.0)
        wanted = Counter(letter.text for letter in services.mails)
        assert Counter(texts(*found)) >= wanted
        if ids:
            assert sorted(mail.id or 0 for mail in found) == [
                letter.id for letter in services.mails
            ]
        if any(what == "new session" for what, _, _ in steps):
            return  # what a later session has to mark is the sessions' part above
        for text, many in wanted.items():
            marks_of_it = [mail.recovered for mail in found if mail.text == text]
            assert marks_of_it.count(False) <= many
            if many == 1:
                assert all(marks_of_it[1:])
