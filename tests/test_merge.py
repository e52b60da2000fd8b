"""`merge`: one stream of several, each with its own order, acknowledgements, gaps and failures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

import anyio
import pytest
from helpers import SHORT_BACKOFF, assert_nothing_more, examples, schedule, take
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import DENIED, DROP, ERROR_500, FAST, HANG, Scripted, ScriptedFault
from stores import StoreFactory, flush_events

from pythpeer import (
    AccessDeniedError,
    ChatMessage,
    Gap,
    GapError,
    InvalidRequestError,
    Mail,
    MergedStream,
    Rate,
    Session,
    SessionClosedError,
    Stream,
    merge,
)

pytestmark = pytest.mark.anyio

Both = MergedStream[ChatMessage | Mail]


def both(session: Session, after: int | None = 0) -> Both:
    """Chat and mail of one session; ``after=None`` resumes where the last one ended."""
    chat = session.peerbet.chat_stream(after=after, name="me")
    return merge(chat, session.pythbots.mail_stream(name="me"))


def label(item: ChatMessage | Mail) -> int | str:
    """A chat message's id, a mail's text."""
    return item.id if isinstance(item, ChatMessage) else str(item.text)


async def take_labels(merged: Both, count: int, within: float = 60.0) -> list[int | str]:
    return [label(item) for item in await take(merged, count, within)]


# -- order of items -------------------------------------------------------------------------------


async def test_chat_and_mail_are_merged(services: Scripted, session: Session) -> None:
    """Items are returned in the order of arrival, and each of the streams keeps its order."""
    for delay, mail in ((1.5, ""), (3.5, "one"), (5.5, ""), (7.5, "two")):
        schedule(delay, *((services.deliver, mail) if mail else (services.say,)))
    assert await take_labels(both(session), 4) == [1, "one", 2, "two"]


async def test_a_merged_stream_is_iterated_like_any_other(
    services: Scripted, session: Session
) -> None:
    """``async with`` finds every position, ``async for`` continues, leaving closes all."""
    services.say(3)
    chat, mail = session.peerbet.chat_stream(), session.pythbots.mail_stream()
    taken: list[int | str] = []
    async with merge(chat, mail) as merged:
        services.say()
        services.deliver("mail")
        async for item in merged:
            taken.append(label(item))
            if len(taken) == 2:
                break
    assert sorted(map(str, taken)) == ["4", "mail"]
    for stream in (chat, mail):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_backlog_does_not_hold_up_the_other_stream(
    services: Scripted, session: Session
) -> None:
    """Mail is returned before the whole backlog of the chat, and then they alternate."""
    services.say(300)
    services.deliver(*(f"mail {number}" for number in range(50)))
    merged = both(session)
    taken: list[int | str] = []
    for _ in range(350):
        taken += await take_labels(merged, 1)
        await asyncio.sleep(0.05)
    kinds = [type(item) for item in taken]
    start = kinds.index(str)
    assert start < 250
    kinds_after_start = kinds[start : start + 50]
    if "RedisStore" in repr(session):
        # A stream that requests its next items from the server misses rounds. How many depends on
        # the machine, because the bytes of a response take real time.
        assert set(kinds_after_start) == {int, str}
    else:
        assert all(
            kind is not next_kind for kind, next_kind in itertools.pairwise(kinds_after_start)
        )
    assert [item for item in taken if isinstance(item, int)] == list(range(1, 301))


async def test_more_than_two_streams_alternate(services: Scripted, session: Session) -> None:
    """Every stream's items are returned, one stream after the other."""
    services.say(10)
    streams = [session.peerbet.chat_stream(after=0) for _ in range(5)]
    merged = merge(*streams)
    async with asyncio.timeout(60):
        taken = [(await anext(merged)).id for _ in range(50)]
    assert sorted(taken) == sorted(list(range(1, 11)) * 5)
    assert max(taken[:25]) <= 7


async def test_a_busy_stream_does_not_starve_a_slow_one(
    new_store: StoreFactory, services: Scripted
) -> None:
    """Mail every second, answered immediately, and a slow chat: both are returned."""
    services.default_faults["get"] = ScriptedFault(after=0.4)
    async with services.session(store=new_store()) as session:
        for second in range(60):
            schedule(second + 0.9, services.deliver, f"mail {second}")
        for delay in (5.5, 6.5, 7.5):
            schedule(delay, services.say)
        taken = await take_labels(both(session), 30)
        assert [item for item in taken if isinstance(item, int)] == [1, 2, 3]


async def test_a_failing_stream_does_not_starve_a_slow_one(
    new_store: StoreFactory, services: Scripted
) -> None:
    """A stream with a rejected key raises each time; the other's items are returned in between."""
    services.default_faults["get"] = ScriptedFault(after=0.4)
    services.default_faults["readnew"] = DENIED
    async with services.session(store=new_store()) as session:
        services.say(3)
        merged = both(session)
        taken: list[int | str] = []
        async with asyncio.timeout(30):
            while len(taken) < 3:
                with suppress(AccessDeniedError):
                    taken.append(label(await anext(merged)))
        assert taken == [1, 2, 3]


async def test_a_hanging_mail_poll_does_not_hold_up_the_chat(
    new_store: StoreFactory, services: Scripted
) -> None:
    """A destructive read continues on its own; its result is returned when it has ended."""
    loop = asyncio.get_running_loop()
    services.script("readnew", ScriptedFault(after=30.0))
    services.deliver("mail")
    async with services.session(timeout=60.0, store=new_store()) as session:
        merged = both(session)
        for second in range(10):
            schedule(second + 0.5, services.say)
        assert await take_labels(merged, 10) == list(range(1, 11))
        assert loop.time() <= 10.1
        assert await take_labels(merged, 1) == ["mail"]
        assert loop.time() == pytest.approx(30.0, abs=1.5)


async def test_a_mail_poll_that_is_lost_does_not_hold_up_the_chat(
    services: Scripted, session: Session
) -> None:
    """Its mail is taken in the history, as usual."""
    services.script("readnew", HANG)
    services.deliver("mail")
    for second in range(10):
        schedule(second + 0.5, services.say)
    taken = await take_labels(both(session), 11)
    assert [item for item in taken if isinstance(item, int)] == list(range(1, 11))
    assert "mail" in taken


# -- acknowledgement ------------------------------------------------------------------------------


async def test_the_right_stream_is_acknowledged(
    new_store: StoreFactory, services: Scripted
) -> None:
    """Requesting the next item acknowledges the item returned last, in its own stream only."""
    store = new_store()
    async with services.session(store=store) as session:
        merged = both(session)
        services.say(2)
        assert await take_labels(merged, 2) == [1, 2]
        services.deliver("one", "two")
        assert await take_labels(merged, 1) == ["one"]  # which acknowledges 2
        await merged.aclose()
    async with services.session(store=store) as session:
        services.say()
        taken = await take_labels(both(session, after=None), 3)
        assert sorted(map(str, taken)) == ["3", "one", "two"]


async def test_ack_is_for_the_item_returned_last(services: Scripted, session: Session) -> None:
    """`ack` works immediately, in the stream of the item; before any item it does nothing."""
    merged = both(session)
    await merged.ack()
    services.deliver("one")
    assert await take_labels(merged, 1) == ["one"]
    await merged.ack()
    await merged.ack()
    await merged.aclose()
    services.deliver("two")
    services.say()
    assert sorted(map(str, await take_labels(both(session), 2))) == ["1", "two"]


async def test_buffered_items_are_not_acknowledged(services: Scripted, session: Session) -> None:
    """Closing leaves the items not returned, and the item returned last, for the next stream."""
    services.say(5)
    services.deliver("one", "two")
    merged = both(session)
    first = await take_labels(merged, 1)
    await merged.aclose()
    again = await take_labels(both(session), 7)
    assert sorted(map(str, again)) == ["1", "2", "3", "4", "5", "one", "two"]
    assert str(first[0]) in map(str, again)


# -- gaps and failures ----------------------------------------------------------------------------


async def test_a_gap_is_raised_through_the_merged_stream(
    services: Scripted, session: Session
) -> None:
    """`GapError` once; then both continue. The merged stream has the gaps of all."""
    services.say(1000)
    services.deliver("mail")
    chat = session.peerbet.chat_stream(after=1, on_gap="raise")
    merged = merge(chat, session.pythbots.mail_stream())
    taken: list[int | str] = []
    gaps: list[tuple[int, int]] = []
    async with asyncio.timeout(60):
        while len(taken) < 301:
            try:
                taken.append(label(await anext(merged)))
            except GapError as gap:
                gaps.append((gap.after, gap.before))
    assert gaps == [(1, 701)]
    assert sorted(item for item in taken if isinstance(item, int)) == list(range(701, 1001))
    assert "mail" in taken
    assert merged.gaps == (Gap(1, 701),)


async def test_skipped_messages_of_all_are_counted(services: Scripted, session: Session) -> None:
    """`skipped` is the sum over the streams."""
    services.say()
    services.show(2, {"id": 2})
    services.script("readnew", ScriptedFault(body=b'[5, {"id": 1, "message": "mail"}]'))
    merged = both(session)
    assert sorted(map(str, await take_labels(merged, 2))) == ["1", "mail"]
    await assert_nothing_more(merged)
    assert merged.skipped == 2


async def test_an_error_is_raised_at_each_request(services: Scripted, session: Session) -> None:
    """And the other stream's items are still returned."""
    services.default_faults["readnew"] = DENIED
    merged = both(session)
    for _ in range(3):
        with pytest.raises(AccessDeniedError):
            await take_labels(merged, 1)
    del services.default_faults["readnew"]
    services.say()
    services.deliver("mail")
    assert sorted(map(str, await take_labels(merged, 2))) == ["1", "mail"]


async def test_an_error_does_not_hide_an_item(services: Scripted, session: Session) -> None:
    """If one stream fails while another has an item, the item is returned, and the error later."""
    services.say(3)
    services.default_faults["readnew"] = DENIED
    merged = both(session)
    taken: list[int | str] = []
    errors = 0
    async with asyncio.timeout(60):
        while len(taken) < 3:
            try:
                taken.append(label(await anext(merged)))
            except AccessDeniedError:
                errors += 1
    assert taken == [1, 2, 3]
    with pytest.raises(AccessDeniedError):
        await take_labels(merged, 1)


async def test_a_transient_failure_affects_one_stream_only(
    services: Scripted, session: Session
) -> None:
    """While one stream backs off, the other continues."""
    services.default_faults["readnew"] = ERROR_500
    services.default_faults["readall"] = ERROR_500
    merged = both(session)
    for second in range(5):
        schedule(second + 0.5, services.say)
    assert await take_labels(merged, 5, within=10.0) == [1, 2, 3, 4, 5]
    services.default_faults.clear()
    services.deliver("mail")
    assert await take_labels(merged, 1) == ["mail"]


async def test_a_closed_session_is_reported(new_store: StoreFactory, services: Scripted) -> None:
    """While the stream waits, and at each request afterwards."""
    session = services.session(store=new_store())
    await session.open()
    merged = both(session)
    wait = asyncio.ensure_future(take_labels(merged, 1))
    await asyncio.sleep(2.5)
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await wait
    with pytest.raises(SessionClosedError):
        await take_labels(merged, 1)


# -- cancellation ---------------------------------------------------------------------------------

Cut = tuple[float, Literal["anyio", "asyncio", "task"]]


@settings(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30).map(lambda number: number / 10),
            st.sampled_from(["anyio", "asyncio", "task"]),
        ),
        max_size=8,
    ),
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12),
    st.lists(st.sampled_from([ScriptedFault(after=0.3), DROP, HANG, ERROR_500]), max_size=3),
)
async def test_asking_can_be_cancelled_anywhere(
    new_store: StoreFactory,
    cuts: list[Cut],
    times: list[tuple[int, bool]],
    faults: list[ScriptedFault],
) -> None:
    """Whenever and however: every item of each stream is returned afterwards, once, in order."""
    async with (
        Scripted() as services,
        services.session(retry=SHORT_BACKOFF, timeout=2.0, store=new_store()) as session,
    ):
        services.script("get", *faults)
        services.script("readnew", *faults)
        for number, (tick, is_mail) in enumerate(times):
            deliver = (services.deliver, f"mail {number}") if is_mail else (services.say,)
            schedule(tick / 10, *deliver)
        merged = both(session)
        taken: list[int | str] = []

        async def take_one() -> None:
            taken.append(label(await anext(merged)))

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
        taken += await take_labels(merged, len(times) - len(taken))
        await assert_nothing_more(merged, 3.0)
        assert [item for item in taken if isinstance(item, int)] == services.ids
        assert [item for item in taken if isinstance(item, str)] == [
            letter.text for letter in services.mails
        ]
        await merged.aclose()


async def test_no_task_is_left_over(new_store: StoreFactory, services: Scripted) -> None:
    """After an item, and a close in the middle of a destructive read, which ends by itself."""
    before, store = asyncio.all_tasks(), new_store()
    async with services.session(store=store) as session:
        merged = both(session)
        services.say()
        await take_labels(merged, 1)
        services.script("readnew", ScriptedFault(after=3.0))
        services.deliver("mail")
        await assert_nothing_more(merged, 2.5)
        await merged.aclose()
        await asyncio.sleep(3.5)
        await flush_events(store)
        assert asyncio.all_tasks() == before
    assert asyncio.all_tasks() == before


async def test_mail_is_kept_when_the_merged_stream_is_closed_in_its_read(
    services: Scripted, session: Session
) -> None:
    """Closing waits for a destructive read, whose mail the next stream returns."""
    services.script("readnew", ScriptedFault(after=3.0))
    services.deliver("mail")
    merged = both(session)
    await assert_nothing_more(merged, 1.0)
    await merged.aclose()
    assert await take_labels(both(session), 1, within=3.0) == ["mail"]
    assert [request.kind for request in services.requests].count("readall") == 0


# -- misuse, and the end --------------------------------------------------------------------------


async def test_a_merged_stream_ends_with_its_last_stream(
    services: Scripted, session: Session
) -> None:
    """A closed stream is left out; when all are closed, the loop ends."""
    chat, mail = session.peerbet.chat_stream(after=0), session.pythbots.mail_stream()
    merged = merge(chat, mail)
    await chat.aclose()
    services.say()
    services.deliver("mail")
    assert await take_labels(merged, 1) == ["mail"]
    await mail.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(merged)


async def test_closing_is_idempotent_and_ends_a_wait(session: Session) -> None:
    """A wait ends soon after another task closes the stream."""
    merged = both(session)
    wait = asyncio.ensure_future(anext(merged, None))
    await asyncio.sleep(1.5)
    await merged.aclose()
    await merged.aclose()
    async with asyncio.timeout(2.0):
        assert await wait is None


async def test_two_tasks_cannot_iterate_at_the_same_time(
    services: Scripted, session: Session
) -> None:
    """Neither the merged stream, nor one of its streams while it waits."""
    chat = session.peerbet.chat_stream(after=0)
    merged = merge(chat, session.pythbots.mail_stream())
    wait = asyncio.ensure_future(anext(merged))
    await asyncio.sleep(0.5)
    with pytest.raises(InvalidRequestError, match="another task"):
        await anext(merged)
    with pytest.raises(InvalidRequestError, match="another task"):
        await anext(chat)
    services.say()
    async with asyncio.timeout(10):
        assert label(await wait) == 1


async def test_plain_for_raises_an_error_that_names_async_for(session: Session) -> None:
    """``for`` raises a `TypeError` that names ``async for``."""
    merged: object = both(session)
    assert isinstance(merged, Iterable)
    with pytest.raises(TypeError, match="async for"):
        list(merged)


async def test_only_streams_can_be_merged_each_once(session: Session) -> None:
    """No stream, something else, or the same stream twice is rejected."""
    chat = session.peerbet.chat_stream(after=0)
    with pytest.raises(InvalidRequestError, match="needs at least one stream"):
        merge()
    with pytest.raises(InvalidRequestError, match="needs distinct streams"):
        merge(chat, chat)
    with pytest.raises(InvalidRequestError, match="must be a Stream, not list_iterator"):
        merge(chat, iter([1]))  # type: ignore[call-overload]  # on purpose


async def test_streams_of_several_sessions_can_be_merged(
    new_store: StoreFactory, services: Scripted
) -> None:
    """They need nothing in common."""
    rates = {"peerbet.chat.get": FAST, "pythbots.mail": Rate(0.5)}
    first_store, second_store = new_store(), new_store()
    async with (
        services.session(store=first_store) as first,
        services.session(rates=rates, store=second_store) as second,
    ):
        streams: list[Stream[ChatMessage]] = [
            s.peerbet.chat_stream(after=0) for s in (first, second)
        ]
        services.say(3)
        merged = merge(*streams)
        async with asyncio.timeout(60):
            assert sorted([(await anext(merged)).id for _ in range(6)]) == [1, 1, 2, 2, 3, 3]
