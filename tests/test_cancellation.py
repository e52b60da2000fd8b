"""A stream's consumer is cancelled at every await of its life, one after the other.

Each time everything is set up anew, the consumer is cut off at its first suspension, its second,
and so on until it gets to its end; and each time it, or another stream of its name, goes on.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final, TypeVar

import pytest
from helpers import DEEP
from scripted import DROP, ERROR_500, ScriptedFault, Scripted
from stores import NewStore, told

from pythpeer import ChatMessage, Mail, Retry, Session, Stream

pytestmark = pytest.mark.anyio

T = TypeVar("T")

ITEMS: Final = 10 if DEEP else 8


@types.coroutine
def cut(work: Coroutine[Any, Any, T], at: int) -> Generator[Any, Any, T]:
    """Do *work*, and cancel the task that does it at its *at*-th suspension."""
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


def stream_of(session: Session, what: str) -> Stream[ChatMessage] | Stream[Mail]:
    if what == "chat":
        return session.peerbet.chat_stream(name="me")
    return session.pythbots.mail_stream(name="me")


def name_of(item: ChatMessage | Mail) -> int:
    """The number of a message or mail, from 1."""
    return item.id if isinstance(item, ChatMessage) else int((item.text or "").split()[1])


async def live(stream: Stream[Any], seen: list[int], *, ack: bool, close: bool) -> None:
    """Take what comes, put it down, and perhaps close the stream."""
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


FAULTS: Final = {"slow": ScriptedFault(seconds=0.2), "500": ERROR_500, "drop": DROP}


@pytest.mark.parametrize("what", ["chat", "mail"])
@pytest.mark.parametrize("heir", [False, True], ids=["itself", "an heir"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_whoever_goes_on_has_everything_in_order(
    what: str, heir: bool, fault: str, new_store: NewStore
) -> None:
    """Nothing lost, nothing twice but what was not acknowledged, no task and no token left.

    Every await has its turn, both where the stream itself goes on and where an heir does, under one
    of the faults; under each of them only if `DEEP`, because a life takes 10 ms to 50 ms.
    """
    step = 1 if DEEP else len(FAULTS)
    at, whole = (list(FAULTS).index(fault) + heir) % step, False
    while not whole:
        whole = await _live_and_be_cut(what, at, FAULTS[fault], new_store, heir=heir)
        at += step
    assert at > 8 + step


async def _live_and_be_cut(
    what: str, at: int, fault: ScriptedFault, new_store: NewStore, *, heir: bool
) -> bool:
    """One life, cut off at its *at*-th await. Says whether it came to its end before that."""
    before = asyncio.all_tasks()
    # Mail without ids comes again where it cannot be told from what a lost answer held.
    exact = what == "chat" or at % 2 == 0
    async with Scripted(mail_ids=at % 2 == 0, readall_marks=at % 4 < 2) as services:
        retry, store = Retry(max_delay=0.2), new_store()
        async with services.session(store=store, retry=retry, timeout=2.0) as session:
            async with stream_of(session, what):
                pass  # a place for the name, before anything is there
            for number in range(1, ITEMS + 1):
                asyncio.get_running_loop().call_later(0.4 * number, come, services, what, number)
            services.script("get" if what == "chat" else "readnew", ScriptedFault(), fault)
            seen: list[int] = []
            stream = stream_of(session, what)
            work = live(stream, seen, ack=at % 2 == 1, close=heir)
            life = asyncio.ensure_future(_task(cut(work, at)))
            await asyncio.wait([life], timeout=60)
            assert life.done()
            whole = not life.cancelled()
            if life.cancelled():
                await asyncio.sleep(0.01)
            await told(store)
            assert asyncio.all_tasks() == before
            assert all(limiter.waiting == 0 for limiter in session.limiters.values())
            if exact:
                assert seen == list(range(1, len(seen) + 1))
            handed = len(seen)
            following = stream_of(session, what) if heir else stream
            async with asyncio.timeout(30):
                while set(seen) != set(range(1, ITEMS + 1)):
                    seen.append(name_of(await anext(following)))
            rest = seen[handed:]
            if exact:  # an heir gets the one again that was not acknowledged
                onwards, again = list(range(handed + 1, ITEMS + 1)), list(range(handed, ITEMS + 1))
                assert rest == onwards or (rest == again and heir)
            began = asyncio.get_running_loop().time()
            await session.peerbet.messages(last=1)
            assert asyncio.get_running_loop().time() - began <= 1.0 + 1e-6
        return whole


async def _task(work: Any) -> None:
    await work


def come(services: Scripted, what: str, number: int) -> None:
    """Have the next message, or mail."""
    if what == "chat":
        services.say()
    else:
        services.deliver(f"mail {number}")
