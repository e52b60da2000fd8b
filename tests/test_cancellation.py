"""The consumer of a stream is cancelled at every await, one after the other.

For each case everything is set up anew: the consumer is cancelled at its first suspension, its
second, and so on until it reaches its end; then it, or another stream of its name, resumes.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final, TypeVar

import pytest
from helpers import DEEP, wait_until
from scripted import DROP, ERROR_500, Scripted, ScriptedFault
from stores import StoreFactory, flush_events

from pythpeer import ChatMessage, Mail, Retry, Session, Stream

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
    assert at > 8 + step


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
