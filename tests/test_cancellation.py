"""The consumer of a stream, or a call, is cancelled at every await, one after the other.

For each case everything is set up anew: it is cancelled at its first suspension, its second, and so
on until it reaches its end; then it, another stream of its name, or another call resumes.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator, Mapping
from typing import Any, Final, TypeVar

import pytest
from helpers import DEEP, now, wait_until
from raw_server import CALLS, Call, RawServer, answer, open_session, peerbet
from scripted import DROP, ERROR_500, Scripted, ScriptedFault
from stores import StoreFactory, flush_events

from pythpeer import ChatMessage, Effect, Mail, Rate, Retry, Session, Stream

pytestmark = pytest.mark.anyio

T = TypeVar("T")

ITEMS: Final = 10 if DEEP else 8


@types.coroutine
def cancel_at(work: Coroutine[Any, Any, T], at: int) -> Generator[Any, Any, T]:
    """Run *work*, and cancel its task at its *at*-th suspension."""
    awaits, failure = 0, None
    while True:
        try:
            waiting = work.send(None) if failure is None else work.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        task = asyncio.current_task()
        if awaits == at and task is not None:
            task.cancel()
        awaits += 1
        try:
            yield waiting
            failure = None
        except BaseException as error:  # noqa: BLE001  # it is the work's
            failure = error


def stream_of(session: Session, service: str) -> Stream[ChatMessage] | Stream[Mail]:
    if service == "chat":
        return session.peerbet.chat_stream(name="me")
    return session.pythbots.mail_stream(name="me")


def name_of(item: ChatMessage | Mail) -> int:
    """Return the number of a message or mail, from 1."""
    return item.id if isinstance(item, ChatMessage) else int((item.text or "").split()[1])


async def live(stream: Stream[Any], seen: list[int], *, ack: bool, close: bool) -> None:
    """Iterate over the stream, record its items, and perhaps close it."""
    try:
        async for item in stream:
            seen.append(name_of(item))
            if ack:
                await stream.ack()
            if len(seen) == ITEMS:
                return
    finally:
        if close:
            await stream.aclose()


FAULTS: Final = {"slow": ScriptedFault(after=0.2), "500": ERROR_500, "drop": DROP}


@pytest.mark.parametrize("service", ["chat", "mail"])
@pytest.mark.parametrize("is_resumed", [False, True], ids=["the same stream", "a successor"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_consumer_that_resumes_has_everything_in_order(
    service: str, is_resumed: bool, fault: str, new_store: StoreFactory
) -> None:
    """Nothing is lost, only unacknowledged items are repeated, no task and no token is left.

    Every await is cancelled once, both where the same stream resumes and where a successor does,
    under one of the faults; under each of them only if `DEEP`, because a run takes 10 ms to 50 ms.
    """
    step = 1 if DEEP else len(FAULTS)
    at, whole = (list(FAULTS).index(fault) + is_resumed) % step, False
    while not whole:
        whole = await _run_cancelled(service, at, FAULTS[fault], new_store, is_resumed=is_resumed)
        at += step
    assert at >= 8 + step


async def _run_cancelled(
    service: str, at: int, fault: ScriptedFault, new_store: StoreFactory, *, is_resumed: bool
) -> bool:
    """Run one consumer, cancelled at its *at*-th await. Returns whether it ended before that."""
    before = asyncio.all_tasks()
    # Mail without ids is repeated where it cannot be distinguished from that of a lost response.
    exact = service == "chat" or at % 2 == 0
    async with Scripted(mail_ids=at % 2 == 0, readall_marks=at % 4 < 2) as services:
        retry, store = Retry(max_delay=0.2), new_store()
        async with services.session(store=store, retry=retry, timeout=2.0) as session:
            async with stream_of(session, service):
                pass  # creates the name before there is any item
            for number in range(1, ITEMS + 1):
                asyncio.get_running_loop().call_later(
                    0.4 * number, add_item, services, service, number
                )
            services.script("get" if service == "chat" else "readnew", ScriptedFault(), fault)
            seen: list[int] = []
            stream = stream_of(session, service)
            work = live(stream, seen, ack=at % 2 == 1, close=is_resumed)
            task = asyncio.ensure_future(_task(cancel_at(work, at)))
            await asyncio.wait([task], timeout=60)
            assert task.done()
            whole = not task.cancelled()
            if task.cancelled():
                await asyncio.sleep(0.01)
            await flush_events(store)
            if service == "mail":  # a read continues, at most for its time limit
                await wait_until(lambda: asyncio.all_tasks() == before, 3.0, "a task is left")
            assert asyncio.all_tasks() == before
            assert all(limiter.waiting == 0 for limiter in session.limiters.values())
            if exact:
                assert seen == list(range(1, len(seen) + 1))
            handed = len(seen)
            following = stream_of(session, service) if is_resumed else stream
            async with asyncio.timeout(30):
                while set(seen) != set(range(1, ITEMS + 1)):
                    seen.append(name_of(await anext(following)))
            rest = seen[handed:]
            if exact:  # a successor receives the unacknowledged one again
                new_items, again = (
                    list(range(handed + 1, ITEMS + 1)),
                    list(range(handed, ITEMS + 1)),
                )
                assert rest == new_items or (rest == again and is_resumed)
            start = asyncio.get_running_loop().time()
            await session.peerbet.messages(last=1)
            assert asyncio.get_running_loop().time() - start <= 1.0 + 1e-6
        return whole


async def _task(work: Any) -> None:
    await work


def add_item(services: Scripted, service: str, number: int) -> None:
    """Return the next message or mail."""
    if service == "chat":
        services.say()
    else:
        services.deliver(f"mail {number}")


# -- calls ----------------------------------------------------------------------------------------

ALL_CALLS: Final[Mapping[str, Call]] = {
    **CALLS,
    "post_confirm": peerbet(Effect.WRITE, "set", lambda chat: chat.post("hello", confirm=True)),
    "post_long": peerbet(Effect.WRITE, "set", lambda chat: chat.post_long("hello " * 50)),
}
"""Each kind of call."""

ENDPOINTS: Final = (
    *("peerbet.chat.get", "peerbet.chat.set", "peerbet.dice.roll"),
    *("pythbots.userinfo", "pythbots.crank", "pythbots.cstats", "pythbots.mail"),
    *("own.read", "own.consume", "own.write"),
)

INTERVAL: Final = 0.5
"""Seconds between the tokens of each endpoint."""


def client_tasks() -> set[asyncio.Task[Any]]:
    """The tasks that are not done, except those of the server."""
    return {task for task in asyncio.all_tasks() if "RawServer" not in repr(task.get_coro())}


@pytest.mark.parametrize("name", ALL_CALLS)
async def test_a_call_can_be_cancelled_at_every_await(name: str, new_store: StoreFactory) -> None:
    """It ends as cancelled, no task and no token is left, and the next call has its token in time.

    A write is sent once at most. Every await is tried if `DEEP`, otherwise one of four.
    """
    step = 1 if DEEP else 4
    at, whole = list(ALL_CALLS).index(name) % step, False
    while not whole:
        whole = await _run_cancelled_call(ALL_CALLS[name], at, new_store)
        at += step
    assert at > step


async def _run_cancelled_call(call: Call, at: int, new_store: StoreFactory) -> bool:
    """Run one call, cancelled at its *at*-th await. Returns whether it ended before that."""
    before, store = client_tasks(), new_store()
    async with RawServer(answer()) as server:
        rates = {endpoint: Rate(INTERVAL) for endpoint in ENDPOINTS}
        async with open_session(server.url, store=store, rates=rates, timeout=2.0) as session:
            work = _task(call.run(session, server.url))
            task = asyncio.ensure_future(_task(cancel_at(work, at)))
            await asyncio.wait([task], timeout=20.0)
            assert task.done()
            is_cancelled = task.cancelled()
            assert is_cancelled or task.exception() is None
            await wait_until(lambda: client_tasks() == before, 3.0, "a task is left")
            await flush_events(store)
            assert all(limiter.waiting == 0 for limiter in session.limiters.values())
            assert all(limiter.outstanding == 0 for limiter in session.limiters.values())
            sent = len(server.requests)
            if call.effect is not Effect.READ:
                changes = [target for target in server.targets if "action=get" not in target]
                assert len(changes) == len(set(changes))
            start = now()
            await CALLS["messages" if "peerbet" in call.endpoint else "user"].run(
                session, server.url
            )
            await call.run(session, server.url)
            assert len(server.requests) >= sent + 2
            assert now() - start <= 3 * INTERVAL + 2.0
        assert client_tasks() == before
    return not is_cancelled
