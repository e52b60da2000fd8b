"""Tests that no response keeps the event loop busy, however many items it has.

Work is counted, not timed: the calls that the package makes between two turns of the loop, on its
thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, ParamSpec, TypeVar

import msgspec
import pytest
from helpers import (
    DEEP,
    SHORT_BACKOFF,
    assert_nothing_more,
    logged_skips,
    take,
    take_ids,
)
from hypothesis import given
from hypothesis import strategies as st
from raw_server import RawServer, answer, drop, open_session
from stores import InterceptingStore, StoreFactory

import pythpeer
from pythpeer import ApiError, DecodeError, Endpoint, Json, MemoryStore, Rate, Session, StoreError
from pythpeer.peerbet import MAX_LAST
from pythpeer.stores import RedisStore, Store
from pythpeer.streams import destructive
from pythpeer.streams import stream as stream_module
from pythpeer.wire import responses
from pythpeer.wire.endpoints import ParsedEndpoint
from pythpeer.wire.responses import LONG_BODY, MANY_VALUES, is_long

pytestmark = pytest.mark.anyio

T = TypeVar("T")
P = ParamSpec("P")

SCALE: Final = 1 if DEEP else 5
"""By how much everything is smaller, because counting the calls of functions takes long."""

PIECE_SIZE: Final = destructive.PIECE_SIZE // SCALE

COUNT: Final = 6 * PIECE_SIZE
"""The items of a large response. With their fields they are more than twice `MANY_VALUES`."""

MANY: Final = SCALE * COUNT
"""The same where the turns are not scaled."""

MAX_CALLS: Final = 45 * PIECE_SIZE
"""The calls of functions in one turn of the loop at most. For one item, parsing needs about 40,
appending it to a log about 10, and to one in Redis 38."""

PACKAGE: Final = str(Path(pythpeer.__file__).parent)
"""The folder of the package."""


def mails(count: int) -> bytes:
    """The response with so many mails."""
    return msgspec.json.encode([{"id": id, "text": "a"} for id in range(1, count + 1)])


MAILS: Final = mails(COUNT)
TEXTS: Final = msgspec.json.encode([str(id) for id in range(COUNT)])
UNDECODABLE: Final = msgspec.json.encode(list(range(COUNT)))
FIELDS: Final = msgspec.json.encode({f"field {number}": number for number in range(COUNT)})


def chat(*messages: object) -> bytes:
    """A page of the chat."""
    return msgspec.json.encode({"status": 1, "users_online": 0, "message_list": messages})


def message(id: int, **fields: object) -> object:
    return {"id": id, "by": "ann", "msg": "hi", **fields}


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make smaller what one turn of the loop handles: `PIECE_SIZE`, and what belongs to it."""
    for module, name in (
        (destructive, "PIECE_SIZE"),
        (responses, "MANY_VALUES"),
        (stream_module, "MAX_BATCHES"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) // SCALE)


class TurnCosts:
    """Counts the calls of functions in the package, and by it, on this thread."""

    def __init__(self) -> None:
        self.highest = 0
        """The calls in the most expensive turn of the loop."""
        self._calls = 0
        """Those of the present turn."""

    def count(self, frame: FrameType, event: str, argument: object) -> None:
        """Count one event, as `sys.setprofile` reports it."""
        if event == "call" and frame.f_code.co_name == "_run_once":  # of asyncio
            self._calls = 0
        elif event in ("call", "c_call") and frame.f_code.co_filename.startswith(PACKAGE):
            self._calls += 1
            self.highest = max(self.highest, self._calls)


@contextmanager
def counted() -> Iterator[TurnCosts]:
    """Count the work of each turn of the loop."""
    costs = TurnCosts()
    sys.setprofile(costs.count)
    try:
        yield costs
    finally:
        sys.setprofile(None)


Call = Callable[[Session, str], Awaitable[object]]


async def call_own(session: Session, url: str) -> int:
    endpoint = Endpoint("own", f"{url}/own", rate=Rate(0.0), answer=list[object])
    return len(await session.call(endpoint))


async def count_messages(session: Session, url: str) -> int:
    page = await session.peerbet.messages()
    return len(page.messages) + page.skipped


async def count_staff(session: Session, url: str) -> int:
    return len(await session.pythbots.staff(1))


async def count_history(session: Session, url: str) -> int:
    return len(await session.pythbots.all_mail())


async def count_fields(session: Session, url: str) -> int:
    return len((await session.pythbots.user("ann")).raw)


async def count_statistics(session: Session, url: str) -> int:
    return len((await session.pythbots.stats(1)).raw)


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize(
    ("call", "body"),
    [
        (call_own, MAILS),
        (count_messages, chat(*(message(id, by=1) for id in range(1, COUNT + 1)))),
        (count_messages, chat(*({"id": id} for id in range(1, COUNT + 1)))),
        (count_messages, chat(*({} for _ in range(COUNT)))),
        (count_staff, TEXTS),
        (count_history, MAILS),
        (count_history, TEXTS),
        (count_fields, FIELDS),
        (count_statistics, FIELDS),
    ],
)
async def test_a_call_never_keeps_the_loop_busy(call: Call, body: bytes) -> None:
    """A list, or an object with many fields, is parsed in a thread."""
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with counted() as costs:
            assert await call(session, server.url) == COUNT
        assert costs.highest < MAX_CALLS


def paced_session(url: str, store: Store) -> Session:
    """A session with the default rates, so that it does not poll all the time."""
    return open_session(url, store=store, rates={}, retry=SHORT_BACKOFF)


in_files = pytest.mark.parametrize("new_store", ["memory", "sqlite"], indirect=True)
"""Marks a test that takes long with the Redis server of the tests, which runs in this process."""


@pytest.mark.usefixtures("scaled")
async def test_mail_of_a_call_never_keeps_the_loop_busy(
    new_store: StoreFactory, request: pytest.FixtureRequest
) -> None:
    """It is stored in pieces, and read from the log in pieces."""
    count = 2 * PIECE_SIZE if "redis" in request.node.name else COUNT
    async with (
        RawServer(answer(mails(count))) as server,
        paced_session(server.url, new_store()) as session,
    ):
        with counted() as costs:
            assert len(await session.pythbots.unread_mail()) == count
        assert costs.highest < MAX_CALLS


@pytest.mark.usefixtures("scaled")
@in_files
async def test_mail_of_a_stream_never_keeps_the_loop_busy(new_store: StoreFactory) -> None:
    """It is stored in pieces, and the stream reads it in pieces."""
    async with (
        RawServer(answer(MAILS), answer(b"[]")) as server,
        paced_session(server.url, new_store()) as session,
    ):
        with counted() as costs:
            await take(session.pythbots.mail_stream(), COUNT)
        assert costs.highest < MAX_CALLS


@pytest.mark.usefixtures("scaled")
@in_files
async def test_a_large_history_never_keeps_the_loop_busy(new_store: StoreFactory) -> None:
    """The mail of a lost response is stored in pieces, too."""
    async with (
        RawServer(drop(), answer(MAILS), answer(b"[]")) as server,
        paced_session(server.url, new_store()) as session,
    ):
        with counted() as costs:
            taken = await take(session.pythbots.mail_stream(), COUNT)
        assert {mail.recovered for mail in taken} == {True}
        assert costs.highest < MAX_CALLS


@pytest.mark.usefixtures("scaled")
async def test_much_undecodable_mail_never_keeps_the_loop_busy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged in a few records, which state how many there were."""
    body = b'[%b, {"id": 1}]' % UNDECODABLE[1:-1]
    async with (
        RawServer(answer(body), answer(b"[]")) as server,
        paced_session(server.url, MemoryStore()) as session,
    ):
        stream = session.pythbots.mail_stream()
        with counted() as costs:
            await take(stream, 1)
        assert stream.skipped == logged_skips(caplog) == COUNT
        assert len(caplog.records) < COUNT / 100
        assert costs.highest < MAX_CALLS


# -- nothing is lost between two pieces -----------------------------------------------------------


class FailingPiece(InterceptingStore):
    """A store whose second append of a whole piece fails.

    It has appended the piece if it is one that repeats a failed append itself.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.pieces = 0
        """The appends of whole pieces so far."""
        self.appended = asyncio.Event()
        """Set when a piece was appended."""

    async def intercept(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        entries = args[0] if work.__name__ == "append" else None
        if isinstance(entries, Sequence) and len(entries) == PIECE_SIZE:
            self.pieces += 1
            if self.pieces == 2:
                if isinstance(self.inner, RedisStore):
                    await work(*args, **kwargs)
                raise StoreError("full", transient=True)
            self.appended.set()
        return await super().intercept(work, *args, **kwargs)


def texts(count: int) -> bytes:
    """The response with so many mails without ids."""
    return msgspec.json.encode([str(number) for number in range(count)])


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("lost", [False, True], ids=["unread", "history"])
async def test_a_failure_of_the_store_between_two_pieces_loses_and_repeats_nothing(
    new_store: StoreFactory, *, lost: bool
) -> None:
    """Unread mail is appended from the piece that failed on; the history is read again."""
    count = 2 * PIECE_SIZE + 1
    store = FailingPiece(new_store())
    answers = [drop(), *[answer(texts(count))] * 2] if lost else [answer(texts(count))]
    async with (
        RawServer(*answers, answer(b"[]")) as server,
        paced_session(server.url, store) as session,
    ):
        stream = session.pythbots.mail_stream()
        taken = await take(stream, count)
        assert [mail.text for mail in taken] == [str(number) for number in range(count)]
        await assert_nothing_more(stream)
        assert store.pieces >= 2


@pytest.mark.usefixtures("scaled")
async def test_a_cancellation_between_two_pieces_loses_and_repeats_nothing(
    new_store: StoreFactory,
) -> None:
    """The read continues when its caller is cancelled, and the next session has the rest."""
    count = 3 * PIECE_SIZE + 1
    store = FailingPiece(new_store())
    async with RawServer(answer(texts(count)), answer(b"[]")) as server:
        async with paced_session(server.url, store) as session:
            stream = session.pythbots.mail_stream(name="bot")
            waiting = asyncio.ensure_future(take(stream, count))
            await asyncio.wait_for(store.appended.wait(), 60.0)
            waiting.cancel()
            await asyncio.wait([waiting])
        async with paced_session(server.url, store) as session:
            taken = await take(session.pythbots.mail_stream(name="bot"), count)
    assert [mail.text for mail in taken] == [str(number) for number in range(count)]


# -- the chat -------------------------------------------------------------------------------------


async def test_a_page_with_more_messages_than_were_requested_is_read_in_pieces(
    new_store: StoreFactory,
) -> None:
    """Each poll takes the lowest ids, and no message is lost, repeated, or a gap."""
    count = 3 * MAX_LAST + 1
    ids = list(range(5, 5 + 2 * count, 2))
    page = chat(*map(message, ids), *map(message, ids[:9]))
    async with (
        RawServer(answer(page)) as server,
        paced_session(server.url, new_store(max_length=400)) as session,
    ):
        stream = session.peerbet.chat_stream(after=5)
        assert await take_ids(stream, count - 1) == ids[1:]
        await assert_nothing_more(stream)
        assert [(gap.after, gap.before) for gap in stream.gaps] == [(5, 7)]


@pytest.mark.parametrize(
    "page",
    [
        chat(*(message(id) for id in range(1, 2 * MANY, 2))),
        chat(*(message(id, by=1) for id in range(MANY, 0, -1))),
        chat(message(1), *({"id": id} for id in range(2, MANY))),
        chat(message(1), *range(MANY)),
    ],
    ids=["odd", "lenient", "undecodable", "no ids"],
)
async def test_a_large_page_never_keeps_the_loop_busy(
    page: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in any of several polls, whatever its messages are."""
    async with (
        RawServer(answer(page)) as server,
        paced_session(server.url, MemoryStore()) as session,
    ):
        stream = session.peerbet.chat_stream(after=0)
        with counted() as costs:
            await take(stream, 1)
            await assert_nothing_more(stream, 3.5) if stream.skipped else await take(stream, 900)
        assert costs.highest < SCALE * MAX_CALLS
        assert len(caplog.records) < 9


# -- which responses are parsed in a thread -------------------------------------------------------


@given(st.integers(MANY_VALUES + 1, 2 * MANY_VALUES), st.sampled_from(["1", '""', "{}", "[]"]))
def test_a_body_with_many_values_is_long(count: int, value: str) -> None:
    """In a list or in an object, however short each value is."""
    values = [value.encode()] * (count + 1)
    assert is_long(b"[%b]" % b",".join(values))
    assert is_long(b"{%b}" % b",".join(b'"":%b' % value for value in values))


def test_a_documented_page_is_not_long() -> None:
    """A page of 300 messages with all fields, of 250 characters, is parsed on the loop."""
    fields: dict[str, object] = dict.fromkeys(("to", "date"), "2026-01-02 03:04:05")
    fields |= dict.fromkeys(("bot", "my", "me"), 0)
    assert not is_long(chat(*(message(id, msg=250 * "ä", **fields) for id in range(MAX_LAST))))


@pytest.mark.parametrize("padding", [0, LONG_BODY], ids=["on the loop", "in a thread"])
@pytest.mark.parametrize("text", ['{"status":0,"message":"no"}', '{"status":1}', "damaged"])
async def test_a_response_is_decoded_once(text: str, padding: int) -> None:
    """Also if it is not in the documented form, wherever it is parsed."""
    bodies: list[bytes] = []

    def parse_fast(body: bytes) -> int:
        bodies.append(body)
        if b'"status":1' not in body:
            raise ValueError
        return 6

    def parse(document: Json) -> int:
        raise ValueError

    body = text.encode() + b" " * padding
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with suppress(ApiError, DecodeError):
            endpoint = ParsedEndpoint("mine", server.url, parse=parse, parse_fast=parse_fast)
            assert await session.call(endpoint) == 6
    assert bodies == [body]


async def test_a_program_that_can_start_no_thread_still_gets_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The response is parsed on the loop then."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with RawServer(answer(mails(MANY))) as server, open_session(server.url) as session:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await count_history(session, server.url) == MANY


async def test_a_thread_ends_with_its_response() -> None:
    """None is left for the next one, nor for the end of the program."""

    def join_parsers() -> None:
        for thread in threading.enumerate():
            if thread.name.startswith("pythpeer-parser"):
                thread.join(10.0)

    async with RawServer(answer(mails(MANY))) as server, open_session(server.url) as session:
        join_parsers()  # those of other tests
        before = set(threading.enumerate())  # one of another test can end concurrently
        assert await count_history(session, server.url) == MANY
        join_parsers()
        assert set(threading.enumerate()) <= before
