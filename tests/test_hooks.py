"""Hooks receive every request, and cannot break any of them."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio
import msgspec
import pytest
from raw_server import (
    GOOD,
    RawServer,
    Step,
    answer,
    api_error,
    closed_port,
    drop,
    error_page,
    hang,
    open_session,
)
from scripted import DROP_WITHOUT_EFFECT, ERROR_503, OK, Scripted, ScriptedFault

from pythpeer import (
    FLAG,
    DeliveryEvent,
    Endpoint,
    GapEvent,
    InvalidRequestError,
    MemoryStore,
    Param,
    PythpeerError,
    Rate,
    RequestEvent,
    ResponseEvent,
    Retry,
    RetryEvent,
    Secret,
    Session,
    StoreEvent,
    Telemetry,
)
from pythpeer.hooks import CLOSE_TIMEOUT, MAX_PENDING, Listener
from pythpeer.wire.request import Request

pytestmark = pytest.mark.anyio

Events = list[Any]


class RecordingTelemetry(Telemetry):
    """Keeps every event of every kind."""

    def __init__(self) -> None:
        self.seen: Events = []
        for kind in ("request", "response", "retry", "gap", "store", "delivery"):
            setattr(self, f"on_{kind}", self.seen.append)

    def of(self, kind: type) -> Events:
        return [event for event in self.seen if type(event) is kind]


def hook_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log messages about hooks."""
    return [record.getMessage() for record in caplog.records if record.name == "pythpeer.hooks"]


def fail(event: object) -> None:
    raise LookupError("the hook is broken")


# -- events ---------------------------------------------------------------------------------------


async def test_a_request_has_an_event_before_and_after() -> None:
    """The URL, and the time until its outcome."""
    seen: Events = []
    async with (
        RawServer(Step(_answer_late)) as server,
        open_session(server.url, on_request=seen.append, on_response=seen.append) as session,
    ):
        await session.peerbet.messages(after=7)
        assert not server.requests[1:]
    url = f"{server.url}/api/chat/?action=get&key=***&mid=7"
    before, after = seen
    assert before == RequestEvent("peerbet.chat.get", url, 1, 0.0)
    assert 1.5 <= after.duration < 1.6
    reported = ResponseEvent("peerbet.chat.get", url, 1, 0.0, after.duration, 200, "ok", None)
    assert after == reported


async def _answer_late(peer: Any) -> None:
    await asyncio.sleep(1.5)
    await answer().run(peer)


async def test_the_wait_for_a_token_is_reported() -> None:
    """The second of two calls at the same time has waited for its token."""
    seen: list[RequestEvent] = []
    async with (
        RawServer(answer()) as server,
        open_session(
            server.url, rates={"peerbet.chat.get": Rate(2.0, 1, 0.0)}, on_request=seen.append
        ) as session,
    ):
        await asyncio.gather(session.peerbet.messages(), session.peerbet.messages())
    assert [round(event.waited, 1) for event in seen] == [0.0, 2.0]


ENDS: Final[dict[str, tuple[Step, int | None, str, str | None]]] = {
    "answer": (answer(), 200, "ok", None),
    "refusal": (api_error("not today"), 200, "refused", "ApiError"),
    "key refused": (api_error("who are you", 401), 401, "refused", "AccessDeniedError"),
    "too many": (error_page(429), 429, "limited", "RateLimitedError"),
    "server error": (error_page(500), 500, "failed", "HttpStatusError"),
    "garbage": (answer(b"{"), 200, "failed", "DecodeError"),
    "dropped": (drop(), None, "failed", "TransportError"),
    "cut": (
        drop(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        200,
        "failed",
        "TransportError",
    ),
    "silence": (hang(), None, "failed", "RequestTimeoutError"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_outcome_is_reported(end: str) -> None:
    """Each end of a request has its outcome, and the class of its error."""
    step, *expected = ENDS[end]
    seen: list[ResponseEvent] = []
    async with (
        RawServer(step) as server,
        open_session(server.url, on_response=seen.append, timeout=3.0) as session,
    ):
        with contextlib.suppress(PythpeerError):
            await session.peerbet.messages()
    (event,) = seen
    assert [event.status, event.outcome, event.error] == expected


async def test_a_write_that_may_have_happened_is_unknown() -> None:
    """A write whose connection broke is neither done nor failed."""
    seen: list[ResponseEvent] = []
    async with (
        RawServer(drop()) as server,
        open_session(server.url, on_response=seen.append) as session,
    ):
        with pytest.raises(PythpeerError):
            await session.peerbet.post("hello")
    assert [(event.outcome, event.error) for event in seen] == [("unknown", "OutcomeUnknownError")]


async def test_a_cancelled_request_is_reported_and_stays_cancelled() -> None:
    """Hooks receive its event, and the cancellation continues."""
    seen: list[ResponseEvent] = []
    async with (
        RawServer(hang()) as server,
        open_session(server.url, on_response=seen.append) as session,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await session.peerbet.messages()
    (event,) = seen
    assert (event.outcome, event.error, event.status) == ("cancelled", "CancelledError", None)
    assert 0.9 < event.duration < 1.1


async def test_repetitions_are_reported() -> None:
    """Each failure with its delay, each attempt with its number."""
    seen: Events = []
    hooks: Any = dict.fromkeys(("on_request", "on_retry"), seen.append)
    async with (
        RawServer(error_page(503), drop(b"HTTP/1.1 200 OK\r\n"), answer()) as server,
        open_session(server.url, retry=Retry(3, base_delay=4.0), **hooks) as session,
    ):
        start = asyncio.get_running_loop().time()
        await session.peerbet.messages()
        elapsed = asyncio.get_running_loop().time() - start
    retries = [event for event in seen if isinstance(event, RetryEvent)]
    assert [(e.attempt, e.status, e.error) for e in retries] == [
        (1, 503, "HttpStatusError"),
        (2, None, "TransportError"),
    ]
    assert abs(elapsed - sum(event.delay for event in retries)) < 0.1
    assert [e.attempt for e in seen if isinstance(e, RequestEvent)] == [1, 2, 3]


async def test_a_stream_reports_its_polls_and_their_repetition() -> None:
    """A stream that keeps retrying notifies hooks like a call; its new items are reported too."""
    everything = RecordingTelemetry()
    async with Scripted() as services, services.session(telemetry=everything) as session:
        services.script("get", DROP_WITHOUT_EFFECT, DROP_WITHOUT_EFFECT, OK)
        services.say(3)
        stream = session.peerbet.chat_stream(after=0, name="mine")
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
    assert [event.attempt for event in everything.of(RequestEvent)] == [1, 2, 3]
    assert [event.attempt for event in everything.of(RetryEvent)] == [1, 2]
    (stored,) = everything.of(StoreEvent)
    assert (stored.items, stored.duplicates, stored.skipped) == (3, 0, 0)
    (delivered,) = everything.of(DeliveryEvent)
    assert delivered == DeliveryEvent("peerbet.chat.get", "mine", 3, 0)


async def test_what_a_store_drops_and_skips_is_reported() -> None:
    """Messages that were received before, and messages that cannot be decoded."""
    everything = RecordingTelemetry()
    async with (
        Scripted(overlap=2) as services,
        services.session(telemetry=everything) as session,
    ):
        services.say(3)
        async with session.peerbet.chat_stream(after=0) as stream:
            for _ in range(3):
                await anext(stream)
            services.show(4, {"id": 4, "by": 7, "msg": []})
            services.show(5, {"by": "nobody"})
            services.say()
            await anext(stream)
    events = everything.of(StoreEvent)
    assert [(e.items, e.duplicates, e.skipped) for e in events] == [(3, 0, 0), (1, 2, 2)]


async def test_a_stream_behind_reports_its_lag() -> None:
    """A stream reads a backlog in batches, each with its remaining lag."""
    everything = RecordingTelemetry()
    async with Scripted() as services, services.session(telemetry=everything) as session:
        services.say(250)
        async with session.peerbet.chat_stream(after=0) as stream:
            for _ in range(250):
                await anext(stream)
    assert [(e.items, e.lag) for e in everything.of(DeliveryEvent)] == [
        (100, 150),
        (100, 50),
        (50, 0),
    ]


async def test_a_gap_is_reported_once() -> None:
    """However many streams find it."""
    seen: list[GapEvent] = []
    async with Scripted() as services, services.session(on_gap=seen.append) as session:
        services.say(400)
        streams = [session.peerbet.chat_stream(after=1) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        assert [stream.gaps[0].before for stream in streams] == [101] * 3
    assert seen == [GapEvent("peerbet.chat.get", 1, 101)]


async def test_destructive_reads_are_reported_too() -> None:
    """Mail requests reach hooks in the same way, although they are shielded."""
    everything = RecordingTelemetry()
    async with Scripted() as services, services.session(telemetry=everything) as session:
        services.deliver("one", "two")
        await session.pythbots.unread_mail()
    (request,) = everything.of(RequestEvent)
    assert request.url == f"{services.url}/api/mail.php?personal_key=***&readnew"
    assert [event.items for event in everything.of(StoreEvent)] == [2]


# -- what events do not hold ----------------------------------------------------------------------


def test_a_redacted_url_has_numbers_and_bare_names_and_nothing_else() -> None:
    """Keys and texts are replaced, also those that look like numbers; the fixed query is not."""
    endpoint = Endpoint("own", "https://a.example/b", query={"action": "get", "k": Secret("s1")})
    params: dict[str, Param] = {
        "k2": Secret("s2"),
        "text": "4711",
        "n": 7,
        "x": 1.5,
        "yes": True,
        "gone": None,
    }
    request = Request(endpoint, {**params, "é": FLAG})
    assert request.redacted() == (
        "https://a.example/b?action=get&k=***&k2=***&text=***&n=7&x=1.5&yes=1&%C3%A9"
    )
    assert Request(Endpoint("own", "https://a.example/b"), {}).redacted() == "https://a.example/b"


@pytest.mark.parametrize(
    "event",
    [
        RequestEvent("a", "b", 1, 0.5),
        ResponseEvent("a", "b", 1, 0.5, 1.5, None, "failed", "TransportError"),
        RetryEvent("a", 1, 0.5, 503, "HttpStatusError"),
        GapEvent("a", 1, 9),
        StoreEvent("a", 3, 2, 1, 0.1),
        DeliveryEvent("a", None, 3, 0),
    ],
)
def test_events_are_frozen_and_turn_into_json(event: Any) -> None:
    """They are values for a queue, a file or another process."""
    with pytest.raises(AttributeError):
        event.endpoint = "other"
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event
    assert pickle.loads(pickle.dumps(event)) == event
    assert hash(event) == hash(pickle.loads(pickle.dumps(event)))


# -- hooks that fail ------------------------------------------------------------------------------


async def fail_later(event: object) -> None:
    await asyncio.sleep(0.1)
    raise LookupError("the hook is broken")


def cancel(event: object) -> None:
    raise asyncio.CancelledError


async def cancel_later(event: object) -> None:
    waited = asyncio.get_running_loop().create_future()
    waited.cancel()
    await waited


def close(event: object) -> None:
    raise GeneratorExit


async def close_later(event: object) -> None:
    await asyncio.sleep(0.1)
    raise GeneratorExit


@pytest.mark.parametrize(
    "hook",
    [fail, fail_later, cancel, cancel_later, close, close_later],
    ids=lambda hook: hook.__name__,
)
@pytest.mark.parametrize("name", ["on_request", "on_response", "on_retry", "on_gap"])
async def test_a_broken_hook_breaks_nothing(
    name: str, hook: Callable[[object], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Calls and streams work as without it; it is logged once, and receives every event."""
    calls: Events = []

    def called(event: object) -> Any:
        calls.append(event)
        return hook(event)

    hooks: Any = {name: called}
    async with Scripted() as services, services.session(**hooks) as session:
        services.script("get", ERROR_503, OK, ERROR_503, OK)
        services.say(400)
        assert len((await session.peerbet.messages()).messages) == 50
        async with session.peerbet.chat_stream(after=1) as stream:
            assert (await anext(stream)).id == 101
        services.say(400)
        async with session.peerbet.chat_stream(after=401) as stream:
            assert (await anext(stream)).id == 501
    assert len(calls) >= 2
    assert hook_messages(caplog) == [f"hook {name} failed, it still receives events (logged once)"]


@pytest.mark.parametrize("run", [lambda close: close(), lambda close: asyncio.run(close_in(close))])
def test_a_listener_whose_coroutine_is_closed_calls_no_hook_any_more(
    run: Callable[[Callable[[], None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The event loop was abandoned: that is no failure of the hook, in whatever task it happens."""
    calls: Events = []

    async def wait(event: object) -> None:
        calls.append(event)
        await asyncio.sleep(1.0)

    async def notify() -> Any:
        listener = Listener("on_request", wait)
        listener("first")
        listener("second")
        await asyncio.sleep(0)
        assert listener.task is not None
        return listener.task

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # the task is deleted while it waits
    task = loop.run_until_complete(notify())
    run(task.get_coro().close)
    loop.close()
    assert (calls, hook_messages(caplog)) == (["first"], [])


async def close_in(close: Callable[[], None]) -> None:
    close()


async def test_a_hook_does_not_hide_an_error() -> None:
    """The call raises its own error, which holds nothing of the hook's error."""
    async with (
        RawServer(error_page(500)) as server,
        open_session(server.url, on_response=fail) as session,
    ):
        with pytest.raises(PythpeerError) as caught:
            await session.peerbet.messages()
    assert caught.value.__context__ is None


async def test_a_hook_inherits_nothing_of_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    """Its exception does not refer to the exception that is being raised."""
    async with (
        RawServer(hang()) as server,
        open_session(server.url, on_response=fail) as session,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await session.peerbet.messages()
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, LookupError)
    assert error.__context__ is None


async def test_an_interrupt_passes_and_releases_the_token() -> None:
    """Listeners do not catch what must end the program."""

    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    async with (
        RawServer(answer()) as server,
        open_session(
            server.url, rates={"peerbet.chat.get": Rate(60.0)}, on_request=interrupt
        ) as session,
    ):
        with pytest.raises(KeyboardInterrupt):
            await session.peerbet.messages()
        assert session.limiters["peerbet.chat.get"].available == 1
        assert server.requests == []


# -- slow hooks -----------------------------------------------------------------------------------


async def test_a_slow_hook_delays_no_call() -> None:
    """An asynchronous hook receives its events in order, one at a time, and calls do not wait."""
    seen: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()

    async def slow(event: RequestEvent) -> None:
        await asyncio.sleep(10.0)
        seen.append((event.url.partition("mid=")[2], round(loop.time() - start)))

    async with RawServer(answer()) as server, open_session(server.url, on_request=slow) as session:
        start = loop.time()
        for number in range(3):
            await session.peerbet.messages(after=number)
        assert loop.time() - start < 0.5
        await asyncio.sleep(35.0)
        assert seen == [("0", 10), ("1", 20), ("2", 30)]
        assert len(asyncio.all_tasks()) == 2 + len(
            server.open_connections
        )  # this task, and the test's runner


async def test_closing_waits_a_second_for_hooks(caplog: pytest.LogCaptureFixture) -> None:
    """What ends soon is awaited; the rest is cancelled, and no task is left."""
    ended: list[str] = []

    async def take(seconds: float, event: object) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("done")

    for seconds, end in ((CLOSE_TIMEOUT / 2, ["done", "done"]), (CLOSE_TIMEOUT * 5, ["cancelled"])):
        ended.clear()
        async with RawServer(answer()) as server:
            hook = partial(take, seconds)
            async with open_session(server.url, on_request=hook) as session:
                await session.peerbet.messages()
                await asyncio.sleep(CLOSE_TIMEOUT / 2) if end[1:] else None
                await session.peerbet.messages()
        assert ended == end
    assert hook_messages(caplog) == []


async def test_closing_that_is_cancelled_waits_for_hooks_too() -> None:
    """A time limit of the program does not leave the session half closed."""
    ended: list[object] = []

    async def take(event: object) -> None:
        await asyncio.sleep(CLOSE_TIMEOUT / 2)
        ended.append(event)

    async with RawServer(answer()) as server:
        session = await open_session(server.url, on_request=take).open()
        await session.peerbet.messages()
        with anyio.move_on_after(CLOSE_TIMEOUT / 4) as scope:
            await session.aclose()
        assert scope.cancel_called
        assert len(ended) == 1


async def test_a_hook_that_does_not_end_is_abandoned() -> None:
    """Closing does not wait indefinitely for a hook that ignores its cancellation."""
    over = asyncio.Event()

    async def run_until_over(event: object) -> None:
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    loop = asyncio.get_running_loop()
    async with RawServer(answer()) as server:
        async with open_session(server.url, on_request=run_until_over) as session:
            await session.peerbet.messages()
            start = loop.time()
        assert 2 * CLOSE_TIMEOUT <= loop.time() - start < 2 * CLOSE_TIMEOUT + 0.5
        over.set()
        await asyncio.sleep(0)


async def test_a_hook_may_close_the_session() -> None:
    """Closing does not wait for the hook that closes."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def close(event: object) -> None:
        start = loop.time()
        await session.aclose()
        assert loop.time() - start < CLOSE_TIMEOUT / 2
        closed.set()

    async with RawServer(answer()) as server:
        session = await open_session(server.url, on_response=close).open()
        await session.peerbet.messages()
        await closed.wait()


async def test_a_hook_that_is_too_slow_misses_events(caplog: pytest.LogCaptureFixture) -> None:
    """The number of pending events is limited, and that is logged once."""
    go, seen = asyncio.Event(), 0

    async def slow(event: object) -> None:
        nonlocal seen
        await go.wait()
        seen += 1

    async with RawServer(answer()) as server, open_session(server.url, on_request=slow) as session:
        for _ in range(MAX_PENDING + 5):
            await session.peerbet.messages()
        go.set()
        await asyncio.sleep(1.0)
    assert seen == MAX_PENDING + 1  # the pending events, and the one that the hook was processing
    assert hook_messages(caplog) == ["hook on_request is too slow, events are dropped"]


async def test_a_hook_may_use_the_session() -> None:
    """It runs in a separate task, so that it can wait for a call."""
    answers: Events = []

    async def ask(event: GapEvent) -> None:
        answers.append(await session.peerbet.messages(after=event.after, last=1))

    async with Scripted() as services, services.session(on_gap=ask) as session:
        services.say(400)
        async with session.peerbet.chat_stream(after=1) as stream:
            await anext(stream)
        await asyncio.sleep(5.0)
        assert [page.messages[0].id for page in answers] == [400]


def test_a_session_outlives_a_loop_that_was_left_with_hooks_in_it() -> None:
    """Pending events of an old loop are discarded; events of the next loop are delivered."""
    seen: Events = []

    async def slow(event: object) -> None:
        await asyncio.sleep(0.001)
        seen.append(event)

    session = Session(on_retry=slow, store=MemoryStore())
    (listener,) = session._hooks.retry

    async def tell() -> None:
        session._hooks.reset()
        listener(RetryEvent("a", 1, 0.0, None, "TransportError"))
        await asyncio.sleep(0.0)

    for _ in range(2):
        loop = asyncio.new_event_loop()
        task = loop.create_task(tell())
        loop.run_until_complete(task)
        left = listener.task
        assert left is not None
        assert not left.done()
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(left)
        loop.close()
    assert seen == []


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["on_request", "on_response", "on_retry", "on_gap"])
def test_a_hook_must_be_callable(name: str) -> None:
    """Any other value raises an error when the session is created."""
    options: Any = {name: "print"}
    with pytest.raises(InvalidRequestError, match=name):
        Session(**options)


def test_a_telemetry_must_be_a_telemetry() -> None:
    """Any other value raises an error when the session is created."""
    options: Any = {"telemetry": object()}
    with pytest.raises(InvalidRequestError, match="telemetry"):
        Session(**options)


def test_a_telemetry_that_overrides_nothing_costs_nothing() -> None:
    """Only overridden methods are called."""

    class Gaps(Telemetry):
        def on_gap(self, event: GapEvent, /) -> None:
            raise NotImplementedError

    hooks = Session(telemetry=Gaps())._hooks
    assert not hooks.has_request_listeners
    assert (hooks.store, hooks.delivery, hooks.retry) == ((), (), ())
    assert len(hooks.gap) == 1
    assert len(Session(telemetry=Gaps(), on_gap=fail)._hooks.gap) == 2


async def test_a_hook_and_a_telemetry_are_both_notified(caplog: pytest.LogCaptureFixture) -> None:
    """Each has its own failures."""

    class Broken(Telemetry):
        def on_request(self, event: RequestEvent, /) -> None:
            raise LookupError

    async with (
        RawServer(answer(GOOD)) as server,
        open_session(server.url, on_request=fail, telemetry=Broken()) as session,
    ):
        await session.peerbet.messages()
    messages = [line.split()[1] for line in hook_messages(caplog)]
    assert messages == ["on_request", "Broken.on_request"]


async def test_a_refused_connection_is_reported() -> None:
    """No request was sent, but the call has an outcome."""
    seen: list[ResponseEvent] = []
    with closed_port() as url:
        async with open_session(url, on_response=seen.append) as session:
            with pytest.raises(PythpeerError):
                await session.peerbet.post("hello")
    assert [(event.outcome, event.error) for event in seen] == [("failed", "TransportError")]


async def test_a_failed_poll_is_an_outcome_like_any_other() -> None:
    """Hooks receive the failures that a stream waits out."""
    seen: list[ResponseEvent] = []
    async with Scripted() as services, services.session(on_response=seen.append) as session:
        services.script("readnew", ScriptedFault(body=b"[{"), OK)
        services.deliver("hello")
        async with session.pythbots.mail_stream() as stream:
            await anext(stream)
    assert [event.outcome for event in seen] == ["unknown", "ok"]
    assert [event.attempt for event in seen] == [1, 2]
    assert seen[1].url.endswith("personal_key=***&readall")
