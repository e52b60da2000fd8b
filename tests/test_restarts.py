"""A service that starts its ids anew, and messages that arrive late, on every store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import anyio
import pytest
from helpers import assert_nothing_more, examples, take_ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import Scripted, Window
from stores import StoreFactory

from pythpeer import ChatMessage, ChatStream, Gap, InvalidRequestError, Session
from pythpeer.stores import Store
from pythpeer.validation import INT32_MAX

pytestmark = pytest.mark.anyio

IDLE: Final = 5.0
"""The `idle_check` of these tests."""


def start_anew(services: Scripted, count: int, *, first: int = 1, text: str = "new") -> list[int]:
    """Remove all messages, add *count* with ids from *first* on, and return these ids."""
    services.chat.messages.clear()
    return add(services, range(first, first + count), text)


def add(services: Scripted, ids: Sequence[int], text: str = "new") -> list[int]:
    """Add messages with these ids."""
    for id in ids:
        services._add(id, text=f"{text} {id}")
    services.chat.messages.sort(key=lambda message: message.id)
    return list(ids)


def open_session(services: Scripted, store: Store, idle_check: float = IDLE) -> Session:
    return services.session(store=store, idle_check=idle_check)


async def all_messages(stream: ChatStream, within: float) -> list[ChatMessage]:
    """Return the messages that arrive within so many seconds."""
    taken: list[ChatMessage] = []
    with anyio.move_on_after(within):
        async for message in stream:
            taken.append(message)  # noqa: PERF401  # what arrived in time is returned
    return taken


async def ids_within(stream: ChatStream, within: float) -> list[int]:
    return [message.id for message in await all_messages(stream, within)]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# -- ids that start anew --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bot", None])
async def test_a_running_stream_continues_with_the_new_ids(
    new_store: StoreFactory, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Oldest first, each once; it is logged once, and counted."""
    async with Scripted() as services, open_session(services, new_store()) as session:
        services.say(500)
        stream = session.peerbet.chat_stream(after=495, name=name)
        assert await take_ids(stream, 5) == [496, 497, 498, 499, 500]
        assert start_anew(services, 60) == await ids_within(stream, IDLE + 5)
        services.say(2)
        assert await ids_within(stream, 3.0) == [61, 62]
        assert stream.restarts == stream.health().restarts == 1
        assert stream.health().cursor == 62
        assert stream.health().lag == 0
        assert stream.gaps == ()
    assert len(warnings_of(caplog)) == 1
    assert "started its ids anew" in warnings_of(caplog)[0]


async def test_no_request_is_added(services: Scripted, session: Session) -> None:
    """An idle check replaces a poll: after the first one without new items, then each 60 s."""
    services.say(5)
    stream = session.peerbet.chat_stream(after=5)
    await assert_nothing_more(stream, 130.5)
    checks = [request for request in services.requests if "mid" not in request.params]
    assert [request.params["last"] for request in checks] == ["1"] * 3
    assert [request.at - services.requests[0].at for request in checks] == pytest.approx(
        [1, 61, 121], abs=0.1
    )
    assert len(services.requests) == 131


@pytest.mark.parametrize("idle_check", [0, 0.0])
async def test_an_idle_check_of_zero_is_never_made(services: Scripted, idle_check: float) -> None:
    services.say(5)
    async with services.session(idle_check=idle_check) as session:
        stream = session.peerbet.chat_stream(after=5)
        await assert_nothing_more(stream, 200.0)
    assert all("mid" in request.params for request in services.requests)


@pytest.mark.parametrize("value", [-1, "60", None, float("nan"), float("inf")])
async def test_idle_check_is_validated(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="idle_check"):
        Session(idle_check=value)  # type: ignore[arg-type]


async def test_a_name_that_resumes_notices_it_immediately(new_store: StoreFactory) -> None:
    """What it had not acknowledged of the old ids comes first; then the new ones."""
    store = new_store()
    async with Scripted() as services:
        services.say(20)
        async with open_session(services, store, 1000.0) as session:
            stream = session.peerbet.chat_stream(after=0, name="bot")
            await take_ids(stream, 15)
            await stream.ack()
        start_anew(services, 7)
        async with open_session(services, store, 1000.0) as session:
            stream = session.peerbet.chat_stream(name="bot")
            assert await ids_within(stream, 4.0) == [*range(16, 21), *range(1, 8)]
            assert stream.restarts == 1
            await stream.ack()
        add(services, [8, 9])
        async with open_session(services, store, 1000.0) as session:
            assert await ids_within(session.peerbet.chat_stream(name="bot"), 4.0) == [8, 9]


@pytest.mark.parametrize("after", [0, None, 3])
async def test_a_new_stream_reads_nothing_of_the_old_ids(
    new_store: StoreFactory, after: int | None
) -> None:
    """Whether it starts from the beginning, from now on, or after an id."""
    store = new_store()
    async with Scripted() as services:
        services.say(20)
        async with open_session(services, store) as session:
            await take_ids(session.peerbet.chat_stream(after=0, name="bot"), 20)
        start_anew(services, 7)
        async with open_session(services, store) as session:
            stream = session.peerbet.chat_stream(after=after, name="fresh")
            async with stream:
                await asyncio.sleep(3.0)
                add(services, [8, 9])
                expected = range(8 if after is None else after + 1, 10)
                assert await ids_within(stream, 5.0) == list(expected)


async def test_all_names_and_sessions_follow(new_store: StoreFactory) -> None:
    """The session that polls notices it; those that read from the log follow by themselves."""
    store = new_store()
    async with (
        Scripted() as services,
        open_session(services, store) as first,
        open_session(services, store) as second,
    ):
        services.say(30)
        streams = [
            session.peerbet.chat_stream(after=25 + number, name=f"{number}")
            for number, session in enumerate((first, second, first))
        ]
        taken = await asyncio.gather(*(ids_within(stream, 3.0) for stream in streams))
        assert taken == [list(range(26 + number, 31)) for number in range(3)]
        new = start_anew(services, 12)
        taken = await asyncio.gather(*(ids_within(stream, IDLE + 6) for stream in streams))
        assert taken == [new] * 3
        assert [stream.restarts for stream in streams] == [1, 1, 1]


async def test_a_new_stream_that_notices_it_delays_no_other(new_store: StoreFactory) -> None:
    """A stream from now on appends the latest alone; a name behind it gets all before that."""
    store = new_store()
    async with Scripted() as services:
        services.say(30)
        async with open_session(services, store) as session:
            await take_ids(session.peerbet.chat_stream(after=0, name="bot"), 30)
            await session.peerbet.chat_stream(after=30, name="bot").__aenter__()
        start_anew(services, 12)
        async with open_session(services, store) as first, open_session(services, store) as second:
            async with first.peerbet.chat_stream() as fresh:
                add(services, [13, 14])
                assert await ids_within(fresh, 3.0) == [13, 14]
            stream = second.peerbet.chat_stream(name="bot")
            assert await ids_within(stream, 8.0) == list(range(1, 15))
            assert stream.restarts == 1
            assert stream.gaps == ()


async def test_a_session_that_has_polled_before_follows_another_one(
    new_store: StoreFactory,
) -> None:
    """It finds the new ids in the log, reads what it had known of the log again, and asks."""
    store = new_store()
    async with (
        Scripted() as services,
        open_session(services, store, 0) as first,
        open_session(services, store) as second,
    ):
        services.say(30)
        bot = first.peerbet.chat_stream(after=0, name="bot")
        assert len(await ids_within(bot, 3.0)) == 30
        start_anew(services, 12)
        async with second.peerbet.chat_stream() as fresh:
            add(services, [13, 14])
            assert await ids_within(fresh, 3.0) == [13, 14]
        assert await ids_within(bot, 8.0) == list(range(1, 15))
        assert bot.restarts == 1
        assert bot.gaps == ()


async def test_what_was_trimmed_of_the_old_ids_is_a_gap(new_store: StoreFactory) -> None:
    """A slow name gets what the log still has of them, and then the new ones."""
    store = new_store(max_length=5)
    async with Scripted() as services, open_session(services, store) as session:
        services.say(5)
        async with session.peerbet.chat_stream(after=0, name="slow"):
            pass
        stream = session.peerbet.chat_stream(after=0, name="bot")
        for _ in range(4):
            services.say(5)
            await ids_within(stream, 2.0)
        new = start_anew(services, 3)
        assert await ids_within(stream, IDLE + 5) == new
        slow = session.peerbet.chat_stream(name="slow")
        taken = await ids_within(slow, 8.0)
        assert taken[-3:] == new
        assert taken[:-3] == list(range(taken[0], 26))
        assert slow.gaps == (Gap(0, taken[0]),)
        assert slow.restarts == 1


async def test_it_happens_again_and_again(new_store: StoreFactory) -> None:
    """Each new beginning is noticed, at the end of Int32, too."""
    async with Scripted() as services, open_session(services, new_store()) as session:
        start_anew(services, 3, first=INT32_MAX - 2)
        stream = session.peerbet.chat_stream(after=0, name="bot")
        assert await ids_within(stream, 3.0) == [INT32_MAX - 2, INT32_MAX - 1, INT32_MAX]
        for number in range(5):
            new = start_anew(services, 5 - number, text=f"round {number}")
            assert await ids_within(stream, IDLE + 5) == new
        assert stream.restarts == 5


async def test_ids_that_jump_ahead_and_come_back_are_followed(new_store: StoreFactory) -> None:
    """What was delivered before the jump is not redelivered."""
    async with Scripted() as services, open_session(services, new_store()) as session:
        services.say(20)
        stream = session.peerbet.chat_stream(after=0, name="bot")
        assert await ids_within(stream, 3.0) == list(range(1, 21))
        far = add(services, [2_000_000_000, 2_000_000_001])
        assert await ids_within(stream, 3.0) == far
        del services.chat.messages[-2:]
        back = add(services, range(21, 26))
        assert await ids_within(stream, IDLE + 5) == back
        assert stream.restarts == 1


async def test_more_than_a_page_of_new_ids_is_a_gap(new_store: StoreFactory) -> None:
    """The service shows the newest 300 of them, and the stream reports the others."""
    async with (
        Scripted(window="newest") as services,
        open_session(services, new_store()) as session,
    ):
        services.say(1000)
        stream = session.peerbet.chat_stream(after=999)
        await take_ids(stream, 1)
        start_anew(services, 400)
        assert await ids_within(stream, IDLE + 5) == list(range(101, 401))
        assert stream.gaps == (Gap(0, 101),)


@pytest.mark.parametrize("deleted", [1, 2])
@pytest.mark.parametrize("start", [0, 17, None])
async def test_deleted_messages_are_no_new_beginning(
    new_store: StoreFactory, deleted: int, start: int | None
) -> None:
    """While it runs and after a restart, whether the log has the messages before them or not."""
    store = new_store()
    async with Scripted() as services:
        services.say(20)
        async with open_session(services, store) as session:
            stream = session.peerbet.chat_stream(after=start, name="bot")
            async with stream:
                services.say(0 if start is not None else 2)
                await ids_within(stream, 3.0)
                del services.chat.messages[-deleted:]
                assert await ids_within(stream, 3 * IDLE) == []
                await stream.ack()
        async with open_session(services, store) as session:
            stream = session.peerbet.chat_stream(name="bot")
            assert await ids_within(stream, 3 * IDLE) == []
            add(services, [30, 31])
            assert await ids_within(stream, 3.0) == [30, 31]
            assert stream.restarts == 0


async def test_a_log_that_lacks_the_new_ids_decides_by_dates(new_store: StoreFactory) -> None:
    """A newest message that is younger than the last one of the log is a new beginning."""
    async with Scripted() as services, open_session(services, new_store()) as session:
        services.say(100)
        async with session.peerbet.chat_stream(name="bot") as stream:
            start_anew(services, 3)
            for id in services.ids:
                services.show(id, message(id, "2099-01-01 00:00:00"))
            assert await ids_within(stream, IDLE + 5) == [1, 2, 3]


async def test_an_older_newest_message_is_a_deletion(new_store: StoreFactory) -> None:
    """Whatever its distance is."""
    async with Scripted() as services, open_session(services, new_store()) as session:
        services.say(1000)
        async with session.peerbet.chat_stream(name="bot") as stream:
            services.say(5)
            assert len(await ids_within(stream, 3.0)) == 5
            del services.chat.messages[500:]
            services.show(500, message(500, "1999-01-01 00:00:00"))
            assert await ids_within(stream, 3 * IDLE) == []
            assert stream.restarts == 0


def message(id: int, date: str) -> dict[str, object]:
    return {
        "id": id,
        "by": "bob",
        "to": "",
        "msg": "hello",
        "date": date,
        "bot": 0,
        "my": 0,
        "me": 0,
    }


async def test_an_unchanged_service_is_no_new_beginning_for_a_trimmed_log(
    new_store: StoreFactory,
) -> None:
    """The log keeps five messages; a name that is far behind reports what it has missed."""
    store = new_store(max_length=5)
    async with Scripted(window="newest") as services, open_session(services, store) as session:
        services.say(5)
        await session.peerbet.chat_stream(after=0, name="slow").__aenter__()
        stream = session.peerbet.chat_stream(after=0, name="bot")
        services.say(400)
        assert len(await ids_within(stream, 3.0)) == 300
        del services.chat.messages[:-1]
        assert await ids_within(stream, 2 * IDLE) == []
        slow = session.peerbet.chat_stream(name="slow")
        assert (await take_ids(slow, 1))[0] > 105
        assert len(slow.gaps) == 1
        assert slow.restarts == stream.restarts == 0


# -- late messages --------------------------------------------------------------------------------


async def test_a_late_message_is_delivered_when_it_arrives(new_store: StoreFactory) -> None:
    """To each name, out of order, once; what is in order keeps its order."""
    async with Scripted() as services, open_session(services, new_store()) as session:
        streams = [session.peerbet.chat_stream(after=0, name=name) for name in ("a", "b", None)]
        add(services, [97, 98, 99])
        expected = [97, 98, 99, 101, 100, 102, 103]
        taking = [asyncio.ensure_future(ids_within(stream, 20.0)) for stream in streams]
        await asyncio.sleep(3.0)
        add(services, [101])
        await asyncio.sleep(5.0)
        add(services, [100, 102])
        await asyncio.sleep(3.0)
        add(services, [103])
        assert await asyncio.gather(*taking) == [expected] * 3
        assert all(stream.gaps == () and stream.restarts == 0 for stream in streams)


async def test_a_late_message_survives_a_restart_of_the_program(new_store: StoreFactory) -> None:
    """Positions after it are stored, and nothing is redelivered."""
    store = new_store()
    async with Scripted() as services:
        add(services, [1, 2, 4])
        async with open_session(services, store) as session:
            stream = session.peerbet.chat_stream(after=0, name="bot")
            assert await ids_within(stream, 3.0) == [1, 2, 4]
            add(services, [3])
            assert await ids_within(stream, 3.0) == [3]
            await stream.ack()
        add(services, [5])
        async with open_session(services, store) as session:
            stream = session.peerbet.chat_stream(name="bot")
            assert await ids_within(stream, 3 * IDLE) == [5]
            again = session.peerbet.chat_stream(after=0)
            assert await take_ids(again, 5) == [1, 2, 4, 3, 5]


async def test_an_id_that_has_long_been_missing_is_left_out(
    services: Scripted, session: Session
) -> None:
    """After ten seconds it is not asked for again."""
    add(services, [1, 2, 4])
    stream = session.peerbet.chat_stream(after=0)
    assert await ids_within(stream, 15.0) == [1, 2, 4]
    add(services, [3, 5])
    assert await ids_within(stream, 5.0) == [5]
    mids = [request.params.get("mid") for request in services.asked("get")]
    assert mids[:2] == ["0", "2"]
    assert mids[-1] == "5"


async def test_contiguous_ids_are_asked_for_once(services: Scripted, session: Session) -> None:
    """Only an id that was left out can arrive late, so that the overlap costs nothing."""
    stream = session.peerbet.chat_stream(after=0)
    for _ in range(5):
        last = services.say(10)
        await take_ids(stream, 10)
        assert int(services.requests[-1].params["mid"]) == last - 10


class Model:
    """A service and what each name must have received of it."""

    def __init__(self, services: Scripted) -> None:
        self.services = services
        self.next_id = 1
        self.left_out: list[int] = []
        """Ids that were left out since the last pause."""
        self.said: list[str] = []
        """The texts of all messages, in the order of their arrival."""
        self.round = 0

    def say(self, count: int, step: int) -> None:
        for _ in range(count):
            if self.next_id > 1:  # the first id of a new beginning must not be treated as late
                self.left_out += range(self.next_id, self.next_id + step - 1)
                self.next_id += step - 1
            self._add(self.next_id)
            self.next_id += 1

    def fill(self) -> None:
        """The messages that were left out arrive late."""
        while self.left_out:
            self._add(self.left_out.pop())

    def start_anew(self) -> None:
        self.services.chat.messages.clear()
        self.left_out.clear()
        self.round += 1
        self.next_id = 1

    def _add(self, id: int) -> None:
        text = f"round {self.round}: {id}"
        add(self.services, [id], f"round {self.round}:")
        self.said.append(text)


STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 4), st.integers(1, 3)),
        st.tuples(st.sampled_from(["fill", "read", "anew", "reopen"]), st.just(0), st.just(0)),
    ),
    max_size=10,
)


@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, window=st.sampled_from(["newest", "oldest"]))
async def test_every_message_comes_once_whatever_the_ids_do(
    new_store: StoreFactory, steps: list[tuple[str, int, int]], window: Window
) -> None:
    """Two names in two sessions: with late messages, new beginnings and runs of the program.

    Over 2 s on Redis, because each example reads for minutes of virtual time, with a poll a second.
    """
    store = new_store()
    async with Scripted(window=window) as services:
        model = Model(services)
        got: dict[str, list[str]] = {"one": [], "two": []}

        async def read(session: Session, name: str, within: float) -> None:
            stream = session.peerbet.chat_stream(name=name)
            got[name] += [message.text for message in await all_messages(stream, within)]
            await stream.ack()
            await stream.aclose()

        async def read_all(within: float) -> None:
            await asyncio.gather(*(read(*args, within) for args in zip(sessions, got, strict=True)))

        def make_sessions() -> list[Session]:
            return [open_session(services, store) for _ in got]

        sessions = make_sessions()
        for session, name in zip(sessions, got, strict=True):
            await session.open()
            async with session.peerbet.chat_stream(after=0, name=name):
                pass
        try:
            for kind, count, step in steps:
                match kind:
                    case "say":
                        model.say(count, step)
                    case "fill":
                        await read_all(2.5)
                        model.fill()
                        await read_all(5.0)
                    case "read":
                        await read_all(12.0)
                        model.left_out.clear()
                    case "anew":
                        # What is removed must have been read, and the new ids must be below the
                        # old ones when they are looked at.
                        await read_all(3 * IDLE)
                        if model.next_id > 2:
                            model.start_anew()
                            model.say(1, 1)
                        await read_all(3 * IDLE)
                    case _:
                        for session in sessions:
                            await session.aclose()
                        sessions = make_sessions()
                        for session in sessions:
                            await session.open()
            await read_all(3 * IDLE)
        finally:
            for session in sessions:
                await session.aclose()
        for texts in got.values():
            assert sorted(texts) == sorted(model.said)
