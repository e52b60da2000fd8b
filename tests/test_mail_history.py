"""The history of mail: how often each mail is in it, and what happens while it cannot be read."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar

import anyio
import pytest
from helpers import SHORT_BACKOFF, examples, now, schedule, take
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    CUT,
    DENIED,
    DROP,
    DROP_WITHOUT_EFFECT,
    ERROR_500,
    ERROR_503,
    GARBAGE,
    HANG,
    NOT_FOUND,
    OK,
    Scripted,
    ScriptedFault,
)
from stores import InterceptingStore, StoreFactory

from pythpeer import (
    ApiError,
    Mail,
    MailStream,
    OutcomeUnknownError,
    Rate,
    RateLimitedError,
    Session,
    StoreError,
)
from pythpeer.stores import Store
from pythpeer.streams.destructive import HISTORY_ATTEMPTS, HISTORY_INTERVAL
from pythpeer.testing.requests import IncomingRequest

pytestmark = pytest.mark.anyio

T = TypeVar("T")
P = ParamSpec("P")

TOO_LARGE: Final = ScriptedFault(body=b"[" + b" " * 2_000_000 + b"]")
"""A response over the session's ``max_body``."""


class ChangingServices(Scripted):
    """Services whose mails have fields that change with each response, in a random order."""

    def __init__(self, **quirks: Any) -> None:
        super().__init__(**quirks)
        self._views = itertools.count(1)
        self._random = random.Random(1)

    def _answer(self, kind: str, call: IncomingRequest) -> object:
        document: Any = super()._answer(kind, call)
        if kind in ("readnew", "readall"):
            views = next(self._views)
            changing = {"views": views, "age": f"{views} minutes ago", "opened": kind == "readall"}
            document = [{**changing, **mail} for mail in document]
            self._random.shuffle(document)
        return document


def seen(mails: list[Mail]) -> Counter[tuple[str | None, bool]]:
    return Counter((mail.text, mail.recovered) for mail in mails)


async def all_within(seconds: float, *streams: MailStream) -> list[Mail]:
    """Return the mail that arrives within so many seconds, each acknowledged."""
    taken: list[Mail] = []

    async def take_all(stream: MailStream) -> None:
        async for mail in stream:
            taken.append(mail)
            await stream.ack()

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            for stream in streams:
                group.start_soon(take_all, stream)
    return taken


def warnings_about_history(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    # Not those of a failed poll, after which the history is read.
    return [line for line in lines if "history" in line and "keeps retrying" not in line]


# -- it cannot be read ----------------------------------------------------------------------------

SLOW: Final = {"pythbots.mail": Rate(50.0, 1, 0.0)}
"""Few polls, for tests that take an hour."""

PERMANENT: Final = {
    "too large": (TOO_LARGE, "ResponseTooLargeError"),
    "404": (NOT_FOUND, "HttpStatusError"),
    "denied": (DENIED, "AccessDeniedError"),
}


@pytest.mark.parametrize("kind", PERMANENT)
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_new_mail_comes_while_the_history_is_unreadable(
    new_store: StoreFactory, kind: str, ids: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, shown in the health, retried rarely, and what was lost is recovered at last."""
    caplog.set_level(logging.INFO)
    fault, error = PERMANENT[kind]
    async with (
        Scripted(mail_ids=ids) as services,
        services.session(rates=SLOW, store=new_store()) as session,
    ):
        services.default_faults["readall"] = fault
        services.script("readnew", DROP)
        services.deliver("lost", "hi")
        for delay in (25, 100, 700, 1300):
            schedule(delay, services.deliver, "hi")
        stream = session.pythbots.mail_stream()
        taken = await all_within(1500.0, stream)
        assert seen(taken) == {("hi", False): 4}
        assert stream.health().recovery_error == error
        assert stream.health().failures == 0
        assert not session.health().ok
        assert len(services.asked("readall")) == 3  # ten minutes apart
        assert len(warnings_about_history(caplog)) == 3
        services.default_faults.clear()
        recovered = await all_within(HISTORY_INTERVAL, stream)
        assert seen(recovered) == {("lost", True): 1, ("hi", True): 1}
        assert stream.health().recovery_error is None
        assert session.health().ok
        assert "was read again" in warnings_about_history(caplog)[-1]


async def test_what_was_lost_is_recovered_in_a_later_session(new_store: StoreFactory) -> None:
    """The next session, which may read more, recovers it immediately."""
    store = new_store()
    async with Scripted() as services:
        services.script("readnew", DROP)
        services.default_faults["readall"] = TOO_LARGE
        services.deliver("lost")
        async with services.session(store=store) as session:
            schedule(10.0, services.deliver, "new")
            stream = session.pythbots.mail_stream(name="me")
            assert seen(await all_within(60.0, stream)) == {("new", False): 1}
        services.default_faults.clear()
        async with services.session(store=store) as session:
            stream = session.pythbots.mail_stream(name="me")
            assert seen(await all_within(5.0, stream)) == {("lost", True): 1}


async def test_mail_from_before_the_store_comes_once_after_a_lost_response(
    new_store: StoreFactory,
) -> None:
    """It was read elsewhere, which nothing in the history tells, so that it is not dropped."""
    store = new_store()
    async with Scripted() as services:
        services.deliver("old", "older")
        async with services.session() as elsewhere:
            assert len(await elsewhere.pythbots.unread_mail()) == 2
        services.deliver("first")
        async with services.session(store=store) as session:
            stream = session.pythbots.mail_stream(name="me")
            assert seen(await all_within(5.0, stream)) == {("first", False): 1}
            services.script("readnew", DROP)
            services.deliver("lost")
            recovered = {("old", True): 1, ("older", True): 1, ("lost", True): 1}
            assert seen(await all_within(60.0, stream)) == recovered
            services.script("readnew", DROP)
            services.deliver("lost again")
            assert seen(await all_within(60.0, stream)) == {("lost again", True): 1}


async def test_a_direct_call_reads_on_while_the_history_is_unreadable(
    services: Scripted, session: Session
) -> None:
    """The same call returns the new mail, and a later one what was lost."""
    services.script("readnew", DROP)
    services.default_faults["readall"] = TOO_LARGE
    services.deliver("lost")
    with pytest.raises(OutcomeUnknownError):
        await session.pythbots.unread_mail()
    services.deliver("new")
    assert seen([*await session.pythbots.unread_mail()]) == {("new", False): 1}
    assert await session.pythbots.unread_mail() == ()
    services.default_faults.clear()
    await asyncio.sleep(HISTORY_INTERVAL)
    assert seen([*await session.pythbots.unread_mail()]) == {("lost", True): 1}


async def test_unread_mail_that_is_too_large_hides_no_later_mail(
    services: Scripted, session: Session
) -> None:
    """A mailbox that was filled while the program was off is neither in a response, nor an end."""
    services.default_faults["readall"] = TOO_LARGE
    services.script("readnew", ScriptedFault(body=TOO_LARGE.body))
    services.deliver("one of a thousand")
    schedule(20.0, services.deliver, "important")
    stream = session.pythbots.mail_stream()
    assert seen(await all_within(30.0, stream)) == {("important", False): 1}


@pytest.mark.parametrize(("timeout", "retry_after"), [(10.0, 10.0), (float("inf"), None)])
async def test_a_direct_call_waits_for_others_no_longer_than_max_wait(
    timeout: float, retry_after: float | None
) -> None:
    """They are made one after the other, each until the service responds."""
    async with Scripted() as services, services.session(timeout=timeout, max_wait=2.0) as session:
        services.default_faults["readnew"] = HANG
        start = now()
        first = asyncio.ensure_future(session.pythbots.unread_mail())
        await asyncio.sleep(1.0)
        with pytest.raises(RateLimitedError, match="longer than max_wait") as caught:
            await session.pythbots.unread_mail()
        assert now() - start == pytest.approx(3.0)
        assert caught.value.retry_after == retry_after
        services.default_faults.clear()
        if retry_after is None:
            first.cancel()
            return
        with pytest.raises(OutcomeUnknownError):
            await first
        assert await session.pythbots.unread_mail() == ()


@pytest.mark.parametrize("mails", ['[{"message": "hello"}]', '{"7": {"message": "hello"}}'])
async def test_mail_with_an_error_message_is_delivered(
    services: Scripted, session: Session, mails: str
) -> None:
    """The service has marked it as read, and will not return it again."""
    body = f'{{"error": "1 mail could not be read", "mail": {mails}}}'.encode()
    services.script("readnew", ScriptedFault(body=body))
    stream = session.pythbots.mail_stream()
    assert seen(await all_within(10.0, stream)) == {("hello", False): 1}


@pytest.mark.parametrize("rest", ['"mail": []', '"mail": {}', '"mail": ["x"]', '"at": {"line": 3}'])
async def test_an_error_message_without_mail_is_an_error(
    services: Scripted, session: Session, rest: str
) -> None:
    """Nothing was returned, so the history is not requested."""
    services.script("readnew", ScriptedFault(body=f'{{"error": "database", {rest}}}'.encode()))
    with pytest.raises(ApiError, match="database"):
        await session.pythbots.unread_mail()
    assert await session.pythbots.unread_mail() == ()
    assert services.asked("readall") == []


async def test_a_history_that_always_fails_is_left_for_later(
    services: Scripted, session: Session
) -> None:
    """A failure that may pass is waited out some times; then new mail is fetched first."""
    services.default_faults["readall"] = ERROR_500
    services.script("readnew", DROP)
    services.deliver("lost")
    schedule(5.0, services.deliver, "new")
    stream = session.pythbots.mail_stream()
    assert seen(await all_within(100.0, stream)) == {("new", False): 1}
    times = [request.at for request in services.asked("readall")]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[HISTORY_ATTEMPTS - 1 :] == pytest.approx([10.0, 20.0, 40.0], abs=1.5)
    assert stream.health().recovery_error == "HttpStatusError"


async def test_after_an_outage_lost_mail_is_recovered_soon(
    services: Scripted, session: Session
) -> None:
    """The history is not left for later where the whole service had failed."""
    services.default_faults.update(readall=ERROR_503, readnew=ERROR_500)
    services.deliver("lost")
    schedule(100.0, services.default_faults.clear)
    stream = session.pythbots.mail_stream()
    assert seen(await all_within(110.0, stream)) == {("lost", True): 1}
    assert stream.health().recovery_error is None


async def test_an_outage_is_one_failure_until_a_response_comes(
    services: Scripted, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """A history that is left for later is no success: nothing has arrived."""
    caplog.set_level(logging.INFO)
    services.default_faults.update(readall=ERROR_503, readnew=ERROR_503)
    schedule(200.0, services.default_faults.clear)
    schedule(210.0, services.deliver, "after it")
    stream = session.pythbots.mail_stream()
    with anyio.move_on_after(190.0):
        await anext(stream)
    assert stream.health().last_success is None
    assert stream.health().failing_since is not None
    assert len(services.asked("readall")) > HISTORY_ATTEMPTS
    await take(stream, 1)
    texts = [record.getMessage() for record in caplog.records]
    assert sum("keeps retrying" in text for text in texts) == 1
    assert sum("recovered after" in text for text in texts) == 1
    assert not any("first poll succeeded" in text for text in texts)


async def test_mail_that_the_service_repeats_is_not_delivered_each_time(
    new_store: StoreFactory,
) -> None:
    """The service does not mark it as read, and the history cannot be read."""
    mail = b'[{"id": 1, "from": "bob", "message": "hi"}]'
    async with Scripted() as services, services.session(store=new_store()) as session:
        services.default_faults.update(readall=TOO_LARGE, readnew=ScriptedFault(body=mail))
        stream = session.pythbots.mail_stream()
        taken = await all_within(20.0, stream)
        assert 1 <= len(taken) <= 2
        assert all(mail.recovered for mail in taken[1:])


async def test_what_another_session_recovers_is_not_missing(new_store: StoreFactory) -> None:
    """The health of a session that could not read the history is good again."""
    store = new_store()
    async with (
        Scripted() as services,
        services.session(store=store, max_body=1000) as small,
        services.session(store=store) as large,
    ):
        services.deliver(*(f"a mail that is long enough {number}" for number in range(20)))
        stream, other = (s.pythbots.mail_stream(name=s.describe()) for s in (small, large))
        assert len(await all_within(5.0, stream)) == 0
        assert stream.health().recovery_error is not None
        assert len(await all_within(5.0, other)) == 20
        await all_within(5.0, stream)
        assert stream.health().recovery_error is None


class FullDisk(InterceptingStore):
    """A store in which nothing can be written for some time."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.is_full = False

    async def intercept(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self.is_full and work.__name__ in ("append", "begin_fetch", "lose_fetch"):
            raise StoreError("the disk is full", transient=True)
        return await super().intercept(work, *args, **kwargs)


@pytest.mark.parametrize("end", ["the disk has room", "the session closes"])
@pytest.mark.parametrize("new_store", ["memory", "sqlite"], indirect=True)
async def test_fetched_mail_is_kept_until_the_store_has_it(
    new_store: StoreFactory, end: str
) -> None:
    """In memory: neither the history nor a mark is needed when the store works again."""
    store = FullDisk(new_store())
    async with Scripted(mail_ids=False) as services:
        services.default_faults["readall"] = TOO_LARGE
        services.script("readnew", ScriptedFault(after=1.0))
        services.deliver("hi", "hi")
        schedule(0.5, setattr, store, "is_full", True)
        async with services.session(store=store, retry=SHORT_BACKOFF) as session:
            schedule(20.0, setattr, store, "is_full", False)
            stream = session.pythbots.mail_stream(name="me")
            if end == "the disk has room":
                assert await all_within(19.0, stream) == []
                assert seen(await all_within(5.0, stream)) == {("hi", False): 2}
            else:
                assert await all_within(10.0, stream) == []
                store.is_full = False
        async with services.session(store=store) as session:
            stream = session.pythbots.mail_stream(name="me")
            later = seen(await all_within(5.0, stream))
            assert later == ({} if end == "the disk has room" else {("hi", False): 2})
            assert services.asked("readall") == []


# -- it counts equal mails ------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [True, False], ids=["readall marks", "readall leaves"])
async def test_of_many_mails_none_is_duplicated(new_store: StoreFactory, marks: bool) -> None:
    """200 mails without ids, and a request or response in three is lost."""
    rng = random.Random(3)
    async with (
        Scripted(mail_ids=False, readall_marks=marks) as services,
        services.session(retry=SHORT_BACKOFF, store=new_store()) as session,
    ):
        for number in range(200):
            schedule(rng.uniform(0, 40), services.deliver, f"mail {number // 2}")
        faults = [rng.choice((DROP, DROP_WITHOUT_EFFECT, OK, OK, OK, OK)) for _ in range(30)]
        services.script("readnew", *faults)
        taken = await all_within(80.0, session.pythbots.mail_stream())
        assert Counter(mail.text for mail in taken) == {f"mail {n}": 2 for n in range(100)}


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_a_field_that_changes_makes_no_new_mail(new_store: StoreFactory, ids: bool) -> None:
    """Counters, ages, read marks of any name, and the order: only what was lost is recovered."""
    async with (
        ChangingServices(mail_ids=ids) as services,
        services.session(retry=SHORT_BACKOFF, store=new_store()) as session,
    ):
        stream = session.pythbots.mail_stream()
        services.deliver("one", "two", "two")
        await take(stream, 3)
        services.script("readnew", DROP)
        services.deliver("two", "three")
        assert seen(await all_within(8.0, stream)) == {("two", True): 1, ("three", True): 1}


async def test_a_history_that_is_not_complete_drops_no_mail(new_store: StoreFactory) -> None:
    """It cannot count: a mail that may be a duplicate is delivered, marked."""
    async with (
        Scripted(mail_ids=False, readall_marks=False) as services,
        services.session(retry=SHORT_BACKOFF, store=new_store()) as session,
    ):
        stream = session.pythbots.mail_stream()
        services.deliver("old")
        await take(stream, 1)
        services.mails.clear()
        services.script("readnew", DROP_WITHOUT_EFFECT)
        services.deliver("hi")
        assert seen(await all_within(8.0, stream)) == {("hi", True): 2}


async def test_a_history_that_becomes_unreadable_drops_no_mail(new_store: StoreFactory) -> None:
    """A mail that was held back until the history counts is delivered, marked."""
    async with (
        Scripted(mail_ids=False, readall_marks=False) as services,
        services.session(retry=SHORT_BACKOFF, store=new_store()) as session,
    ):
        services.script("readnew", DROP_WITHOUT_EFFECT)
        services.script("readall", OK)
        services.default_faults["readall"] = TOO_LARGE
        services.deliver("hi")
        assert seen(await all_within(8.0, session.pythbots.mail_stream())) == {("hi", True): 2}


async def test_a_direct_call_counts_before_it_returns(new_store: StoreFactory) -> None:
    """What may be a duplicate is decided within the call: it returns new mail, and only that."""
    async with (
        Scripted(mail_ids=False, readall_marks=False) as services,
        services.session(store=new_store()) as session,
    ):
        services.script("readnew", DROP_WITHOUT_EFFECT)
        services.deliver("hi")
        with pytest.raises(OutcomeUnknownError):
            await session.pythbots.unread_mail()
        assert seen([*await session.pythbots.unread_mail()]) == {("hi", True): 1}
        services.deliver("hi")
        assert seen([*await session.pythbots.unread_mail()]) == {("hi", False): 1}
        assert await session.pythbots.unread_mail() == ()


async def test_what_is_held_back_outlives_the_session(new_store: StoreFactory) -> None:
    """The session ends between the response and the history: the next one counts."""
    store = new_store()
    async with Scripted(mail_ids=False, readall_marks=False) as services:
        services.script("readnew", DROP_WITHOUT_EFFECT)
        services.script("readall", OK, HANG)
        services.deliver("hi")
        async with services.session(store=store) as session:
            stream = session.pythbots.mail_stream(name="me")
            assert seen(await all_within(1.5, stream)) == {("hi", True): 1}
            services.deliver("hi")
            assert await all_within(2.0, stream) == []
        async with services.session(store=store) as session:
            stream = session.pythbots.mail_stream(name="me")
            assert seen(await all_within(8.0, stream)) == {("hi", True): 1}


FAULTS: Final = st.lists(
    st.sampled_from(
        [OK, DROP, DROP_WITHOUT_EFFECT, CUT, HANG, GARBAGE, ERROR_500, ScriptedFault(after=0.7)]
    ),
    max_size=HISTORY_ATTEMPTS - 1,
)
DELIVERIES: Final = st.lists(
    st.tuples(st.integers(0, 250), st.sampled_from("aaab")), min_size=1, max_size=12
)
USES: Final = st.lists(
    st.tuples(st.sampled_from(["stream", "direct", "restart"]), st.integers(1, 60)), max_size=8
)


@settings(
    max_examples=examples(20),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.booleans(), st.booleans(), FAULTS, FAULTS, DELIVERIES, USES)
async def test_with_a_complete_history_each_mail_comes_once(
    new_store: StoreFactory,
    ids: bool,
    marks: bool,
    unread_faults: list[ScriptedFault],
    history_faults: list[ScriptedFault],
    deliveries: list[tuple[int, str]],
    uses: list[tuple[str, int]],
) -> None:
    """Equal mails, changing fields, lost responses, cancelled calls, restarts: none is duplicated.

    Costs 2 s with Redis: an example takes a minute of polls, each of which asks the server often.
    """
    store = new_store()
    taken: list[Mail] = []
    async with ChangingServices(mail_ids=ids, readall_marks=marks) as services:
        services.script("readnew", *unread_faults)
        services.script("readall", *history_faults)
        for tick, text in deliveries:
            schedule(tick / 10, services.deliver, text)
        session = services.session(retry=SHORT_BACKOFF, timeout=2.0, store=store)
        await session.open()
        for use, tenths in uses:
            if use == "restart":
                await session.aclose()
                await session.open()
            else:
                taken += await _use(session, use, tenths / 10)
        await asyncio.sleep(26.0)
        taken += await all_within(20.0, session.pythbots.mail_stream(name="me"))
        await session.aclose()
        assert Counter(mail.text for mail in taken) == Counter(mail.text for mail in services.mails)


async def _use(session: Session, use: str, seconds: float) -> list[Mail]:
    """Use the mailbox for so long. Returns what a stream of the name has returned."""
    work: Callable[[], Awaitable[object]] = session.pythbots.unread_mail
    if use == "stream":
        return await all_within(seconds, session.pythbots.mail_stream(name="me"))
    task = asyncio.ensure_future(work())
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return []
