"""The session: its options, how it opens and closes, and the calls of custom endpoints.

Where the bytes on the wire matter, a raw loopback server answers; where tasks are counted, a server
without tasks of its own.
"""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Awaitable, Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from helpers import UNLIMITED, now, run_loop_turns
from processes import needs_fork
from raw_server import RawServer, answer, api_error, closed_port, drop, hang, open_session
from scripted import Scripted
from stores import StoreFactory

from pythpeer import (
    FLAG,
    AccessDeniedError,
    ApiError,
    ChatPage,
    ChatStream,
    DecodeError,
    Effect,
    Endpoint,
    HttpStatusError,
    InvalidRequestError,
    MemoryStore,
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    RateLimitedError,
    Retry,
    Secret,
    Session,
    SessionClosedError,
    SessionOptions,
    SqliteStore,
    StoreError,
    TransportError,
)
from pythpeer.pacing.queue import Priority
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio


ENDPOINTS = [
    "peerbet.chat.get",
    "peerbet.chat.set",
    "peerbet.dice.roll",
    "pythbots.cstats",
    "pythbots.crank",
    "pythbots.mail",
    "pythbots.userinfo",
]
VARIABLES = ["PEERBET_KEY", "PERSONAL_KEY", "PYTHBOTS_API_KEY", "PEERBET_URL", "PYTHBOTS_URL"]

REQUESTS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "messages": lambda session: session.peerbet.messages(),
    "post": lambda session: session.peerbet.post("hi"),
    "roll": lambda session: session.peerbet.roll("0.1", target=50, side="low"),
    "user": lambda session: session.pythbots.user("tiro"),
    "staff": lambda session: session.pythbots.staff(1),
    "stats": lambda session: session.pythbots.stats(1),
    "send_mail": lambda session: session.pythbots.send_mail("tiro", "hi"),
    "unread_mail": lambda session: session.pythbots.unread_mail(),
    "all_mail": lambda session: session.pythbots.all_mail(),
    "call": lambda session: session.call(Endpoint("own", "http://127.0.0.1:9/")),
}
"""Each kind of request to a service."""

each_request = pytest.mark.parametrize("ask", REQUESTS.values(), ids=REQUESTS)


class Roll(msgspec.Struct):
    """What a custom endpoint may answer."""

    id: int
    value: float = 0.0


# -- opening and closing --------------------------------------------------------------------------


async def test_a_session_is_an_async_context_manager() -> None:
    """``async with`` opens it, returns it, and closes it."""
    async with FakeServices() as fake:
        session = fake.session()
        async with session as inner:
            assert inner is session
            await session.peerbet.messages()
        with pytest.raises(SessionClosedError):
            await session.peerbet.messages()
    assert fake.violations == []


async def test_opening_and_closing_are_idempotent() -> None:
    """Opening what is open and closing what is closed do nothing."""
    async with FakeServices() as fake:
        session = fake.session()
        await session.aclose()
        assert await session.open() is session
        assert await session.open() is session
        await session.peerbet.messages()
        await session.aclose()
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await session.peerbet.messages()


class CountingStore(MemoryStore):
    """Counts how often it is opened and closed, and takes its time to open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.closed = 0

    async def open(self) -> None:
        self.opened += 1
        await asyncio.sleep(1)

    async def aclose(self) -> None:
        self.closed += 1


async def test_opening_twice_concurrently_opens_once() -> None:
    """Two tasks may open one session: the store and the connections are opened once."""
    store = CountingStore()
    session = Session(store=store)
    async with asyncio.TaskGroup() as group:
        opening = [group.create_task(session.open()) for _ in range(2)]
    assert [task.result() for task in opening] == [session, session]
    await session.aclose()
    assert (store.opened, store.closed) == (1, 1)


async def test_a_store_is_opened_and_closed_with_its_session() -> None:
    """Each opening of a session opens its store, each closing closes it."""
    store = CountingStore()
    session = Session(store=store)
    for times in (1, 2):
        async with session:
            assert (store.opened, store.closed) == (times, times - 1)
        assert (store.opened, store.closed) == (times, times)


class BrokenStore(MemoryStore):
    """Cannot be opened."""

    async def open(self) -> None:
        raise StoreError("no room")


async def test_a_store_that_cannot_be_opened_leaves_the_session_closed() -> None:
    """Its error is raised, and the session is unchanged."""
    session = Session(store=BrokenStore())
    with pytest.raises(StoreError, match="no room"):
        await session.open()
    with pytest.raises(SessionClosedError):
        await session.peerbet.messages()
    await session.aclose()


@each_request
async def test_a_closed_session_raises(ask: Callable[[Session], Awaitable[object]]) -> None:
    """Before it was opened and after it was closed, each call is a clear error, and no request."""
    session = Session(peerbet_key="k", personal_key="k")
    with pytest.raises(SessionClosedError, match="not open"):
        await ask(session)
    async with session:
        pass
    with pytest.raises(SessionClosedError, match="not open"):
        await ask(session)
    assert all(limiter.available for limiter in session.limiters.values())


async def test_a_closed_session_has_no_streams() -> None:
    """Using a stream of a closed session raises it too, at the latest when it is read."""
    session = Session(peerbet_key="k", personal_key="k")
    for make in (session.peerbet.chat_stream, session.pythbots.mail_stream):
        with pytest.raises(SessionClosedError):
            await anext(make())


async def test_a_session_can_be_opened_again() -> None:
    """It continues unchanged: same keys, same pacing."""
    async with FakeServices() as fake:
        session = fake.session()
        async with session:
            await session.peerbet.messages()
            closed_at = now()
        async with session:
            await session.peerbet.messages()
            await session.peerbet.post("again")
        assert now() >= closed_at + 0.95
    assert fake.violations == []


async def test_a_session_is_entered_in_one_task_and_left_in_another() -> None:
    """As fixtures do it: no scope and no task group is tied to the task that entered."""
    async with FakeServices() as fake:
        session = fake.session()
        await asyncio.create_task(session.__aenter__())
        await asyncio.create_task(session.pythbots.user("tiro"))
        await session.pythbots.user("alice")
        await asyncio.create_task(session.__aexit__(None, None, None))
        with pytest.raises(SessionClosedError):
            await session.pythbots.user("tiro")
    assert fake.violations == []


async def test_a_session_used_after_an_error_within_still_closes() -> None:
    """An exception in the block is raised from it, and the session is closed."""
    session = Session()
    with pytest.raises(ZeroDivisionError):
        async with session:
            _ = 1 / 0
    assert "closed" in repr(session)


def test_a_session_belongs_to_the_loop_it_was_opened_in() -> None:
    """Used in another loop, open or not any more, it is a clear error."""
    session = Session(peerbet_key="k")
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(session.open())
        for ask in (session.peerbet.messages, session.open):
            with pytest.raises(SessionClosedError, match="another event loop"):
                second.run_until_complete(ask())
        first.run_until_complete(session.aclose())
        second.run_until_complete(session.open())
        second.run_until_complete(session.aclose())
    finally:
        first.close()
        second.close()


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_forked_process_opens_a_session_of_its_own(kind: str, tmp_path: Path) -> None:
    """On the store of the parent, whose open session raises an error, and whose request continues.

    The pages about delivery and about workers state it; `test_redis_fork.py` has the third store.
    """
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "bot.sqlite")
    rates = {"peerbet.chat.get": Rate(0.02, guard=0.0)}
    options: dict[str, Any] = {"store": store, "rates": rates, "retry": Retry(1)}

    async def use(inherited: Session) -> None:
        for ask in (inherited.peerbet.messages, inherited.open, inherited.aclose):
            with pytest.raises(SessionClosedError, match="another event loop"):
                await ask()
        async with Session(**options) as session:
            with pytest.raises(TransportError, match=r"127\.0\.0\.1"):
                await session.peerbet.messages()

    async def fork() -> int:
        async with Session(**options) as session:
            limiter = session.limiters["peerbet.chat.get"]
            permit = await limiter.acquire(Priority.CALL)
            waiting = asyncio.ensure_future(session.peerbet.messages())
            await run_loop_turns(5)
            child = os.fork()
            if not child:
                asyncio.events._set_running_loop(None)  # as in a worker that runs a loop of its own
                code = 1
                try:
                    asyncio.new_event_loop().run_until_complete(use(session))
                    code = 0
                finally:
                    os._exit(code)
            permit.close()
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            with pytest.raises(TransportError):
                await waiting
        return os.waitstatus_to_exitcode(status)

    with closed_port() as options["peerbet_url"]:
        assert asyncio.run(fork()) == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_session_left_open_in_a_closed_loop_can_be_opened_again() -> None:
    """A program that forgot to close it can still use it in the next ``asyncio.run``."""
    session = Session(peerbet_key="k", rates=UNLIMITED)

    async def use(url: str) -> int:
        async with session:
            own = Endpoint("own", url, rate=Rate(0.0), answer=list[int])
            return len(await session.call(own))

    async def scenario() -> int:
        async with RawServer(answer(b"[1, 2]")) as server:
            return await use(server.url)

    asyncio.run(_open_and_forget(session))
    assert asyncio.run(scenario()) == 2


async def _open_and_forget(session: Session) -> None:
    await session.open()


def test_two_runs_one_after_the_other() -> None:
    """One session serves in several ``asyncio.run``, each time opened and closed."""
    session = Session(peerbet_key="k", rates=UNLIMITED)

    async def use() -> int:
        async with RawServer(answer(b"[1, 2]")) as server, session:
            own = Endpoint(f"own {server.url}", server.url, rate=Rate(0.0), answer=list[int])
            return len(await session.call(own))

    assert [asyncio.run(use()) for _ in range(2)] == [2, 2]


async def test_no_task_outlives_a_call() -> None:
    """After calls of every kind, also failed and cancelled ones, the tasks are the same."""
    async with Scripted() as services:
        services.mails.clear()
        before = asyncio.all_tasks()
        async with services.session() as session:
            assert asyncio.all_tasks() == before
            await session.peerbet.messages()
            await session.peerbet.post("hi")
            await session.pythbots.unread_mail()
            await session.pythbots.all_mail()
            await session.pythbots.send_mail("bob", "hi")
            with anyio.move_on_after(0.01):
                await session.pythbots.unread_mail()
            await run_loop_turns()
            assert asyncio.all_tasks() == before
        assert asyncio.all_tasks() == before


async def test_no_task_outlives_a_stream() -> None:
    """Between the items of a stream, and after it, nothing runs in the background."""
    async with Scripted() as services:
        services.say(3)
        services.deliver("one", "two")
        before = asyncio.all_tasks()
        async with services.session() as session:
            async with session.peerbet.chat_stream(after=0) as chat:
                assert (await anext(chat)).id == 1
                assert asyncio.all_tasks() == before
                with anyio.move_on_after(5):
                    async for _ in chat:
                        assert asyncio.all_tasks() == before
            mail = session.pythbots.mail_stream()
            assert (await anext(mail)).text == "one"
            await run_loop_turns()
            assert asyncio.all_tasks() == before
        assert asyncio.all_tasks() == before


async def test_closing_fails_the_callers_that_wait_for_a_token() -> None:
    """Callers in the queue get a `SessionClosedError`, immediately."""
    async with FakeServices() as fake:
        session = await fake.session().open()
        await session.peerbet.messages()
        waiting = [asyncio.create_task(session.peerbet.messages()) for _ in range(3)]
        await run_loop_turns()
        assert session.limiters["peerbet.chat.get"].waiting == 3
        start = now()
        await session.aclose()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert now() - start < 0.5
        assert [type(result) for result in results] == [SessionClosedError] * 3
        assert session.limiters["peerbet.chat.get"].waiting == 0
        assert len(fake.requests) == 1


async def test_closing_fails_the_callers_that_wait_for_a_response() -> None:
    """Requests in flight end immediately, with an error of this library."""
    async with RawServer(hang()) as server:
        session = await open_session(server.url).open()
        reading = asyncio.create_task(session.peerbet.messages())
        writing = asyncio.create_task(session.peerbet.post("hi"))
        await asyncio.sleep(1)
        start = now()
        await session.aclose()
        read, written = await asyncio.gather(reading, writing, return_exceptions=True)
        assert now() - start < 0.5
        assert isinstance(read, SessionClosedError | TransportError)
        assert isinstance(written, OutcomeUnknownError)


async def test_closing_fails_the_callers_that_wait_to_try_again() -> None:
    """A read in its back-off makes no further attempt once the session is closed."""
    async with RawServer(answer(b"", 500)) as server:
        retry = Retry(attempts=4, base_delay=10.0)
        session = await open_session(server.url, retry=retry).open()
        reading = asyncio.create_task(session.peerbet.messages())
        await asyncio.sleep(0.001)
        assert len(server.requests) == 1
        start = now()
        await session.aclose()
        await session.open()
        with pytest.raises(SessionClosedError, match="was closed"):
            await reading
        assert now() - start < 0.5
        assert len(server.requests) == 1
        await session.aclose()


async def test_a_read_that_closing_ended_is_not_tried_again() -> None:
    """It fails immediately, without a back-off."""
    async with RawServer(hang()) as server:
        retry = Retry(attempts=4, base_delay=10.0)
        session = await open_session(server.url, retry=retry).open()
        reading = asyncio.create_task(session.peerbet.messages())
        await asyncio.sleep(1)
        start = now()
        await session.aclose()
        with pytest.raises(SessionClosedError, match="was closed"):
            await reading
        assert now() - start < 0.5
        assert reading.cancelling() == 0


async def test_closing_one_session_leaves_the_other_alone(new_store: StoreFactory) -> None:
    """Of two sessions on one store, only the callers of the closed one fail."""
    async with FakeServices() as fake:
        store = new_store()
        first = await fake.session(store=store).open()
        async with fake.session(store=store) as second:
            await first.peerbet.messages()
            own_call = asyncio.create_task(first.peerbet.messages())
            other = asyncio.create_task(second.peerbet.messages())
            await run_loop_turns()
            await first.aclose()
            with pytest.raises(SessionClosedError):
                await own_call
            assert (await other).messages == ()
    assert fake.violations == []


async def test_the_repr_of_a_session_shows_no_key() -> None:
    """It shows whether it is open."""
    session = Session(peerbet_key="hidden", personal_key="hidden", pythbots_api_key="hidden")
    assert "closed" in repr(session)
    async with session:
        assert "open" in repr(session)
    assert "hidden" not in f"{session!r} {session} {session.limiters}"


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["text", Secret("text")], ids=["str", "Secret"])
async def test_keys_are_text_or_secrets(key: str | Secret) -> None:
    """Both are sent as the key itself, each to the right service."""
    async with RawServer(answer()) as server:
        options = {"peerbet_key": key, "personal_key": key, "pythbots_api_key": key}
        async with open_session(server.url, **options) as session:  # type: ignore[arg-type]
            await session.peerbet.post("hi")
            await session.pythbots.send_mail("bob", "hi")
        chat, mail = server.requests
        assert chat.target == "/api/chat/?action=set&key=text&msg=hi"
        assert mail.target == "/api/mail.php?personal_key=text&user=bob&message=hi"
        assert ("X-API-Key", "text") in mail.headers
        assert "X-API-Key" not in dict(chat.headers)


async def test_the_personal_keys_parameter_can_be_spelled_otherwise() -> None:
    """``personal_key_param`` is the name of its parameter."""
    async with FakeServices(personal_key_param="personalkey") as fake:
        async with fake.session() as session:
            await session.pythbots.all_mail()
        assert fake.requests[0].target == "/api/mail.php?personalkey=***&readall"
    assert fake.violations == []


async def test_a_rejected_personal_key_names_the_spelling_and_the_option() -> None:
    """The key may be right, and the name of its parameter wrong."""
    async with (
        FakeServices(personal_key_param="personalkey") as fake,
        fake.session(personal_key_param="personal_key") as session,
    ):
        for call in (
            session.pythbots.all_mail(),
            session.pythbots.unread_mail(),
            session.pythbots.send_mail("tiro", "hi"),
        ):
            with pytest.raises(AccessDeniedError) as raised:
                await call
            assert raised.value.message == "Invalid personal key"
            assert str(raised.value).endswith(
                "Invalid personal key (set personal_key, or PYTHPEER_PERSONAL_KEY, to a key that is"
                " valid; if it is valid, the service may expect another parameter than"
                " personal_key: personal_key_param, or PYTHPEER_PERSONAL_KEY_PARAM, sets it)"
            )
        with pytest.raises(AccessDeniedError, match="personal_key_param"):
            await anext(session.pythbots.mail_stream())


async def test_a_rejected_key_names_the_variable() -> None:
    """So do posts, reads of the chat, and look-ups."""
    async with (
        FakeServices(pythbots_api_key="another") as fake,
        fake.session(peerbet_key="dead", pythbots_api_key="wrong") as session,
    ):
        with pytest.raises(AccessDeniedError, match=r"Invalid key \(.*PYTHPEER_PEERBET_KEY"):
            await session.peerbet.post("hi")
        with pytest.raises(AccessDeniedError, match=r"PYTHPEER_PEERBET_KEY"):
            await session.peerbet.messages()
        with pytest.raises(AccessDeniedError, match=r"PYTHPEER_PYTHBOTS_API_KEY"):
            await session.pythbots.user("tiro")
        fake.set_quirks(dead_key="ignored")
        assert (await session.peerbet.messages()).messages == ()
        with pytest.raises(AccessDeniedError, match=r"PYTHPEER_PEERBET_KEY"):
            await session.peerbet.post("hi")
        assert fake.chat.messages == []


@pytest.mark.parametrize("option", ["peerbet_url", "pythbots_url"])
@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "https://example.org/",
        "https://example.org:8443/base/path",
        "https://EXAMPLE.org",
        "http://127.0.0.1:8080",
        "http://127.8.8.8",
        "http://localhost:1",
        "http://[::1]:8080/base",
    ],
)
def test_urls_are_https_or_loopback(option: str, url: str) -> None:
    """Any https URL is accepted, and plain http to this machine."""
    assert isinstance(Session(**{option: url}), Session)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["peerbet_url", "pythbots_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://192.168.0.1",
        "http://0.0.0.0",
        "http://[::2]",
        "https://user:password@example.org",
        "https://user@example.org",
        "http://127.0.0.1@example.org",
        "http://example.org#@127.0.0.1",
        "http://example.org\\@127.0.0.1",
        "https://example.org?query=1",
        "https://example.org#fragment",
        "https://example.org:0",
        "https://example.org:99999",
        "https://example.org/../up",
        "https://exa mple.org",
        "https://example.org\n",
        "https://",
        "https:///path",
        "ftp://example.org",
        "example.org",
        "//example.org",
        "",
        b"https://example.org",
        None,
        7,
    ],
    ids=repr,
)
def test_other_urls_are_errors_at_construction(option: str, url: object) -> None:
    """Anything else is rejected before a key could be sent to it."""
    with pytest.raises(InvalidRequestError, match=option):
        Session(**{option: url})  # type: ignore[arg-type]


async def test_a_path_in_the_url_precedes_the_services_own() -> None:
    """The services may live under a path; a slash at its end makes no difference."""
    async with RawServer(answer()) as server:
        for base in ("/base", "/base/"):
            url = server.url + base
            async with open_session(url, personal_key=None, pythbots_api_key=None) as session:
                await session.peerbet.post("hi")
                await session.pythbots.user("bob")
        assert {target.partition("?")[0] for target in server.targets} == {
            "/base/api/chat/",
            "/base/api/userinfo.php",
        }


NUMBERS = ["1", None, True, math.nan, 0, -1]

BAD_OPTIONS: list[tuple[str, object]] = [
    *(("timeout", value) for value in NUMBERS),
    *(("max_wait", value) for value in NUMBERS if value != 0),
    *(("max_body", value) for value in [*NUMBERS, 1.5]),
    ("peerbet_key", ""),
    ("peerbet_key", 7),
    ("peerbet_key", b"key"),
    ("personal_key", "two\nlines"),
    ("personal_key", "tab\t"),
    ("pythbots_api_key", "key\r\nX-More: 1"),
    ("pythbots_api_key", "schlüssel"),
    ("pythbots_api_key", "\ud800"),
    ("personal_key_param", ""),
    ("personal_key_param", 7),
    ("personal_key_param", "personal\nkey"),
    ("personal_key_param", "key\x1b[2J"),
    *(("personal_key_param", name) for name in ("user", "id", "message", "readnew", "readall")),
    ("rates", 7),
    ("rates", {"peerbet.chat.get": 1.0}),
    ("rates", {"peerbet.chat.get": None}),
    ("rates", {7: Rate(1.0)}),
    ("rates", {"": Rate(1.0)}),
    ("rates", [Rate(1.0)]),
    ("retry", 4),
    ("retry", None),
    ("retry", Retry),
    ("store", "memory"),
    ("store", MemoryStore),
    ("ssl_context", True),
    ("ssl_context", False),
]


@pytest.mark.parametrize(("option", "value"), BAD_OPTIONS, ids=repr)
def test_bad_options_are_errors_at_construction(option: str, value: object) -> None:
    """An invalid option is an `InvalidRequestError`, which is a `ValueError`."""
    with pytest.raises(InvalidRequestError) as caught:
        Session(**{option: value})  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("value", ["bot.sqlite", "redis://:secret@host/0", Path("bot.sqlite")])
def test_an_address_instead_of_a_store_is_an_error_that_names_the_stores(value: object) -> None:
    """The error contains no part of the address, because a URL can have a password."""
    with pytest.raises(InvalidRequestError, match=r"for a file use SqliteStore\(") as caught:
        Session(store=value)  # type: ignore[arg-type]
    assert "RedisStore(url)" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "weaken",
    [
        {"check_hostname": False},
        {"check_hostname": False, "verify_mode": ssl.CERT_OPTIONAL},
        {"check_hostname": False, "verify_mode": ssl.CERT_NONE},
    ],
    ids=str,
)
def test_a_context_that_does_not_check_is_an_error(weaken: dict[str, object]) -> None:
    """A key would be sent to anything that answers."""
    context = ssl.create_default_context()
    for name, value in weaken.items():
        setattr(context, name, value)
    for checks_too_little in (context, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
        with pytest.raises(InvalidRequestError, match="cafile"):
            Session(ssl_context=checks_too_little)


async def test_a_context_that_stops_checking_is_an_error_at_opening() -> None:
    """Contexts can be changed; nothing is opened with such a one."""
    context = ssl.create_default_context()
    session = Session(ssl_context=context)
    context.check_hostname = False
    with pytest.raises(InvalidRequestError, match="must check certificates and host names"):
        await session.open()
    context.check_hostname = True
    async with session:
        pass


def test_an_unknown_option_is_a_type_error() -> None:
    """A misspelled option is not ignored."""
    with pytest.raises(TypeError, match="peerbet_keey"):
        Session(peerbet_keey="k")  # type: ignore[call-arg]


def test_options_are_keyword_only() -> None:
    """A key by position could be mistaken for another."""
    with pytest.raises(TypeError):
        Session("key")  # type: ignore[call-arg]


def test_good_options_are_taken() -> None:
    """Every option at the edges of what it can be."""
    session = Session(
        timeout=math.inf,
        max_wait=math.inf,
        max_body=1,
        rates={"peerbet.chat.get": Rate(0.5), "not.known.yet": Rate(2.0)},
        retry=Retry(attempts=1),
        store=MemoryStore(),
        ssl_context=ssl.create_default_context(),
        personal_key_param="personalkey",
    )
    assert session.limiters["peerbet.chat.get"].rate == Rate(0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"interval": -1.0},
        {"interval": math.inf},
        {"interval": math.nan},
        {"interval": "1"},
        {"interval": True},
        {"interval": 1.0, "burst": 0},
        {"interval": 1.0, "burst": 1.5},
        {"interval": 1.0, "burst": True},
        {"interval": 1.0, "guard": -0.1},
        {"interval": 1.0, "guard": math.nan},
        {"interval": 1.0, "guard": None},
    ],
    ids=repr,
)
def test_a_bad_rate_is_an_error_where_it_is_made(arguments: dict[str, Any]) -> None:
    """So it never reaches a session."""
    with pytest.raises(InvalidRequestError):
        Rate(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": 0},
        {"attempts": 1.0},
        {"attempts": True},
        {"base_delay": -1.0},
        {"base_delay": math.inf},
        {"max_delay": math.nan},
        {"max_delay": "30"},
    ],
    ids=repr,
)
def test_a_bad_retry_is_an_error_where_it_is_made(arguments: dict[str, Any]) -> None:
    """So it never reaches a session."""
    with pytest.raises(InvalidRequestError):
        Retry(**arguments)


async def test_a_body_over_max_body_is_not_read() -> None:
    """``max_body`` is the session's limit for every call."""
    async with RawServer(answer(b'{"a": "' + b"x" * 2000 + b'"}')) as server:
        own = Endpoint("own", server.url, rate=Rate(0.0))
        async with Session(max_body=2009) as session:
            assert len(str((await session.call(own))["a"])) == 2000
        async with Session(max_body=2008) as session:
            with pytest.raises(Exception, match="2008 bytes") as caught:
                await session.call(own)
            assert type(caught.value).__name__ == "ResponseTooLargeError"


async def test_the_time_limit_counts_from_the_token() -> None:
    """Waiting for a token does not count for ``timeout``."""
    async with FakeServices() as fake, fake.session(timeout=0.5) as session:
        await asyncio.gather(*(session.peerbet.messages() for _ in range(5)))
        assert len(fake.requests) == 5
    assert fake.violations == []


async def test_max_wait_bounds_the_wait_of_a_call() -> None:
    """A call that would have to wait longer fails immediately, before it is sent."""
    async with FakeServices() as fake, fake.session(max_wait=2.5) as session:
        await session.peerbet.messages()
        start = now()
        calls = [asyncio.create_task(session.peerbet.messages()) for _ in range(4)]
        await run_loop_turns()
        assert [task.done() for task in calls] == [False, False, True, True]
        for task in calls[2:]:
            error = task.exception()
            assert isinstance(error, RateLimitedError)
            assert error.endpoint == "peerbet.chat.get"
            assert error.retry_after == pytest.approx(3.0, abs=0.2)
        await asyncio.gather(*calls[:2])
        assert now() - start == pytest.approx(2.0, abs=0.2)
        assert len(fake.requests) == 3
    assert fake.violations == []


async def test_a_pause_over_max_wait_fails_calls_immediately() -> None:
    """``session.limiters[name].pause`` holds every call of that endpoint, and of no other."""
    async with FakeServices() as fake, fake.session() as session:
        session.limiters["peerbet.chat.get"].pause(61)
        with pytest.raises(RateLimitedError) as caught:
            await session.peerbet.messages()
        assert caught.value.retry_after == pytest.approx(61, abs=0.1)
        await session.peerbet.post("hi")
        session.limiters["pythbots.userinfo"].pause(30)
        start = now()
        await session.pythbots.user("tiro")
        assert now() - start == pytest.approx(30, abs=0.1)
    assert fake.violations == []


# -- from the environment -------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any variable of this library."""
    for variable in [*VARIABLES, "STORE", "PERSONAL_KEY_PARAM"]:
        monkeypatch.delenv(f"PYTHPEER_{variable}", raising=False)
    return monkeypatch


async def wire_of(session: Session, server: RawServer) -> tuple[str, str, str | None]:
    """The Peerbet key, the personal key and the API key that a session sends."""
    async with session:
        await session.peerbet.post("hi")
        await session.pythbots.send_mail("bob", "hi")
    chat, mail = server.requests
    key = chat.target.partition("&key=")[2].partition("&")[0]
    personal = mail.target.partition("personal_key=")[2].partition("&")[0]
    return key, personal, dict(mail.headers).get("X-API-Key")


async def test_from_env_reads_every_variable(environment: pytest.MonkeyPatch) -> None:
    """Keys and addresses are read from their variables."""
    async with RawServer(answer()) as server:
        values = ["chat-key", "mail-key", "api-key", server.url, server.url]
        for variable, value in zip(VARIABLES, values, strict=True):
            environment.setenv(f"PYTHPEER_{variable}", value)
        environment.setenv("PYTHPEER_STORE", "memory")
        session = Session.from_env()
        assert "MemoryStore" in repr(session)
        assert await wire_of(session, server) == ("chat-key", "mail-key", "api-key")


async def test_from_env_spells_the_personal_key_s_parameter(
    environment: pytest.MonkeyPatch,
) -> None:
    """From the environment, unless it is given as an argument."""
    environment.setenv("PYTHPEER_PERSONAL_KEY_PARAM", "personal_key")
    environment.setenv("PYTHPEER_PERSONAL_KEY", "mail-key")
    async with RawServer(answer()) as server:
        url = server.url
        by_hand = SessionOptions(pythbots_url=url, personal_key_param="own")
        for options in (SessionOptions(pythbots_url=url), by_hand):
            async with Session.from_env(**options) as session:
                await session.pythbots.send_mail("bob", "hi")
        first, second = (asked.target for asked in server.requests)
    assert "personal_key=mail-key" in first
    assert "own=mail-key" in second


async def test_from_env_overrides_win(environment: pytest.MonkeyPatch) -> None:
    """An argument takes precedence over the environment, even if the variable is not valid."""
    async with RawServer(answer()) as server:
        for variable in VARIABLES:
            environment.setenv(f"PYTHPEER_{variable}", "http://not.loopback.example")
        environment.setenv("PYTHPEER_STORE", "gopher://nowhere")
        store = MemoryStore()
        session = Session.from_env(
            peerbet_key="chat-key",
            personal_key=Secret("mail-key"),
            pythbots_api_key=None,
            peerbet_url=server.url,
            pythbots_url=server.url,
            store=store,
        )
        assert await wire_of(session, server) == ("chat-key", "mail-key", None)


async def test_from_env_takes_empty_variables_for_none(environment: pytest.MonkeyPatch) -> None:
    """A variable that is empty or blank is as good as unset."""
    for variable in [*VARIABLES, "STORE", "PERSONAL_KEY_PARAM"]:
        environment.setenv(f"PYTHPEER_{variable}", " ")
    async with Session.from_env() as session:
        with pytest.raises(InvalidRequestError, match="key"):
            await session.peerbet.post("hi")
        with pytest.raises(InvalidRequestError, match="key"):
            await session.pythbots.all_mail()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PEERBET_URL", "http://example.org"),
        ("PYTHBOTS_URL", "nonsense"),
        ("PEERBET_KEY", "two\nlines"),
        ("PYTHBOTS_API_KEY", "schlüssel"),
        ("STORE", "gopher://nowhere/at/all"),
    ],
)
def test_from_env_refuses_what_is_wrong(
    environment: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """An invalid variable is an invalid option, and its value is not in the error."""
    environment.setenv(f"PYTHPEER_{variable}", value)
    with pytest.raises(InvalidRequestError) as caught:
        Session.from_env()
    assert value not in str(caught.value)
    assert variable.endswith("_KEY") or f"PYTHPEER_{variable}" in str(caught.value)


def test_from_env_passes_other_options_on(environment: pytest.MonkeyPatch) -> None:
    """Options without a variable can be given in addition."""
    session = Session.from_env(rates={"peerbet.chat.get": Rate(9.0)})
    assert session.limiters["peerbet.chat.get"].rate == Rate(9.0)
    with pytest.raises(InvalidRequestError):
        Session.from_env(timeout=-1)


def test_from_env_makes_a_session_of_the_derived_class(environment: pytest.MonkeyPatch) -> None:
    """A class derived from `Session` returns its own type."""

    class MySession(Session):
        pass

    assert type(MySession.from_env()) is MySession


# -- pacing ---------------------------------------------------------------------------------------


def test_limiters_are_there_from_the_start() -> None:
    """One for each endpoint, by its name, with the documented or the cautious rate."""
    limiters = Session().limiters
    assert sorted(limiters) == sorted(ENDPOINTS)
    for name, limiter in limiters.items():
        lookup = name in ("pythbots.userinfo", "pythbots.crank", "pythbots.cstats")
        interval = 2.0 if name == "peerbet.dice.roll" else 1.0
        assert limiter.rate == Rate(interval, burst=3 if lookup else 1)
        assert (limiter.name, limiter.waiting) == (name, 0)
        assert limiter.available == limiter.rate.burst


def test_limiters_can_be_looked_at_and_not_replaced() -> None:
    """The mapping is read-only."""
    limiters = Session().limiters
    with pytest.raises(TypeError):
        limiters["peerbet.chat.get"] = limiters["peerbet.chat.set"]  # type: ignore[index]


@pytest.mark.parametrize("name", ENDPOINTS)
def test_rates_override_the_pace_of_each_endpoint(name: str) -> None:
    """By name, and the others keep their rates."""
    session, plain = Session(rates={name: Rate(7.0, burst=2, guard=0.5)}), Session()
    assert session.limiters[name].rate == Rate(7.0, burst=2, guard=0.5)
    for other in set(ENDPOINTS) - {name}:
        assert session.limiters[other].rate == plain.limiters[other].rate


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("peerbet.chat", "peerbet.chat.get"),
        ("peerbet.chat.post", "peerbet.chat.set"),
        ("peerbet.roll", "peerbet.dice.roll"),
        ("pythbots.user", "pythbots.userinfo"),
        ("pythbots.stats", "pythbots.cstats"),
        ("pythbots.mail.send", "pythbots.mail"),
        *((name, None) for name in (*ENDPOINTS, "mine", "peerbet.dice.history", "not.known.yet")),
    ],
)
async def test_a_misspelt_rate_is_reported_when_the_session_is_opened(
    name: str, meant: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """With the name that was probably meant; other unknown names are those of own endpoints."""
    session = Session(rates={name: Rate(2.0)})
    assert caplog.records == []
    async with session:
        pass
    assert len(caplog.records) == (meant is not None)
    for record in caplog.records:
        assert f"no endpoint is called '{name}', did you mean '" in record.message
        assert f"'{meant}'" in record.message
        assert meant in vars(record)["similar"]


async def test_rates_override_the_pace_of_a_users_endpoint() -> None:
    """``rates`` may name an endpoint that the session calls later."""
    async with RawServer(answer(b"{}")) as server, Session(rates={"own": Rate(5.0)}) as session:
        own = Endpoint("own", server.url, rate=Rate(1.0))
        assert "own" not in session.limiters
        for _ in range(3):
            await session.call(own)
        assert session.limiters["own"].rate == Rate(5.0)
        times = [asked.at for asked in server.requests]
        assert [times[1] - times[0], times[2] - times[1]] == pytest.approx([5.0, 5.0], abs=0.1)


async def test_a_custom_endpoint_has_its_own_rate() -> None:
    """Without an override the endpoint's rate holds, by default one per second."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        plain, slow = Endpoint("plain", server.url), Endpoint("slow", server.url, rate=Rate(3.0, 2))
        for endpoint in (plain, plain, slow, slow, slow):
            await session.call(endpoint)
        times = [asked.at - server.requests[0].at for asked in server.requests]
        assert times == pytest.approx([0, 1, 1, 1, 4], abs=0.1)
        assert session.limiters["plain"].rate == Rate(1.0)


async def test_two_endpoints_of_one_name_share_a_bucket() -> None:
    """As mail's three calls do: what has one name is paced as one."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        await session.call(Endpoint("own", f"{server.url}/one"))
        await session.call(Endpoint("own", f"{server.url}/two"))
        assert server.requests[1].at - server.requests[0].at >= 0.999


async def test_two_rates_for_one_name_are_an_error() -> None:
    """Which of them holds is undefined; nothing is sent, and no token spent."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        await session.call(Endpoint("own", server.url, rate=Rate(1.0, burst=2)))
        available = session.limiters["own"].available
        with pytest.raises(InvalidRequestError) as caught:
            await session.call(Endpoint("own", server.url, rate=Rate(2.0)))
        assert caught.value.endpoint == "own"
        assert session.limiters["own"].available == available
        assert len(server.requests) == 1


async def test_two_rates_for_one_name_are_overridden_by_rates() -> None:
    """Where ``rates`` names it, that rate holds for both."""
    override = {"own": Rate(0.0)}
    async with RawServer(answer(b"{}")) as server, Session(rates=override) as session:
        await session.call(Endpoint("own", server.url, rate=Rate(1.0)))
        await session.call(Endpoint("own", server.url, rate=Rate(2.0)))
        assert session.limiters["own"].rate == Rate(0.0)


async def test_a_users_endpoint_can_be_named_after_a_services_own() -> None:
    """It then shares its bucket: one more call of an endpoint that is there already."""
    async with FakeServices() as fake, fake.session() as session:
        own = Endpoint("peerbet.chat.get", f"{fake.peerbet_url}/api/chat/", query={"action": "get"})
        start = now()
        await session.peerbet.messages()
        await session.call(own, key=Secret(fake.peerbet_key))
        assert now() - start >= 0.99
    assert fake.violations == []


async def test_sessions_on_one_store_share_their_pacing(new_store: StoreFactory) -> None:
    """Two sessions with the same keys and one store keep the interval between them."""
    async with FakeServices() as fake:
        store = new_store()
        async with fake.session(store=store) as first, fake.session(store=store) as second:
            await asyncio.gather(
                *(session.peerbet.messages() for session in (first, second) for _ in range(5)),
                *(session.pythbots.user("tiro") for session in (first, second) for _ in range(5)),
                *(session.pythbots.all_mail() for session in (first, second) for _ in range(3)),
            )
        assert len(fake.requests) == 26
    assert fake.violations == []


async def test_sessions_with_stores_of_their_own_do_not() -> None:
    """The fake reports it, so the test above can fail."""
    async with FakeServices() as fake, fake.session() as first, fake.session() as second:
        await asyncio.gather(*(session.peerbet.messages() for session in (first, second)))
    assert [violation.rule for violation in fake.violations] == ["pace"]


async def test_sessions_of_different_accounts_do_not_wait_for_each_other(
    new_store: StoreFactory,
) -> None:
    """The services count by key, so a shared store does too."""
    async with FakeServices() as fake:
        fake.chat.register("alice", "key-of-alice")
        store = new_store()
        hers = fake.session(store=store, peerbet_key="key-of-alice")
        async with fake.session(store=store) as own_session, hers:
            start = now()
            await asyncio.gather(own_session.peerbet.messages(), hers.peerbet.messages())
            assert now() - start < 0.5
    assert fake.violations == []


def test_sessions_on_one_store_agree_on_rates(new_store: StoreFactory) -> None:
    """Two sessions with different rates for one endpoint get an error."""
    store = new_store()
    _ = Session(store=store)
    with pytest.raises(StoreError) as caught:
        Session(store=store, rates={"peerbet.chat.get": Rate(0.1)})
    assert caught.value.endpoint == "peerbet.chat.get"


# -- calling a user's endpoint --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (dict, b'{"id": 1}', {"id": 1}),
        (Roll, b'{"id": "1", "value": "0.5", "more": []}', Roll(1, 0.5)),
        (list[Roll], b'[{"id": 1}, {"id": 2}]', [Roll(1), Roll(2)]),
        (list[Roll], b"[]", []),
        (dict[str, int], b'{"a": "1"}', {"a": 1}),
        (int, b"7", 7),
        (str, b'"words"', "words"),
        (bool, b"true", True),
        (Roll, b'\xef\xbb\xbf{"id": 1}', Roll(1)),
        (Roll, b'<br />\n<b>Warning</b>: x in y on line 1<br />\n{"id": 1}', Roll(1)),
    ],
)
async def test_a_result_is_of_the_endpoints_type(
    kind: type[object], body: bytes, expected: object
) -> None:
    """Any type that msgspec decodes; numbers may be strings, as PHP sends them."""
    async with RawServer(answer(body)) as server, Session() as session:
        got = await session.call(Endpoint("own", server.url, answer=kind))
        assert got == expected
        assert type(got) is type(expected)


@pytest.mark.parametrize("body", [b'{"id": "x"}', b"[]", b"{}", b"null", b"", b"<html></html>"])
async def test_another_result_is_a_decode_error(body: bytes) -> None:
    """A response that does not fit the type is an error, which shows what arrived."""
    async with RawServer(answer(body)) as server, Session() as session:
        with pytest.raises(DecodeError) as caught:
            await session.call(Endpoint("own", server.url, answer=Roll))
        assert caught.value.endpoint == "own"
        assert caught.value.excerpt == body.decode()


async def test_parameters_are_sent_as_documented() -> None:
    """In order, after the fixed query, by RFC 3986; None is left out, FLAG is a bare name."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        own = Endpoint("own", f"{server.url}/a/b", query={"action": "x y", "v": 1, "f": FLAG})
        await session.call(
            own,
            text="a+b&c=é/~ 😀",
            none=None,
            yes=True,
            no=False,
            number=-5,
            half=0.5,
            key=Secret("k/y+%"),
            flag=FLAG,
            empty="",
        )
        (target,) = server.targets
        assert target == (
            "/a/b?action=x%20y&v=1&f&text=a%2Bb%26c%3D%C3%A9%2F~%20%F0%9F%98%80"
            "&yes=1&no=0&number=-5&half=0.5&key=k%2Fy%2B%25&flag&empty="
        )


async def test_parameters_may_have_any_name() -> None:
    """Even with the names of the method's own arguments."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        own = Endpoint("own", f"{server.url}/")
        await session.call(own, **{"self": 1, "endpoint": 2, "a b": 3})
        assert server.targets == ["/?self=1&endpoint=2&a%20b=3"]


async def test_without_parameters_there_is_no_query() -> None:
    """No parameter, no question mark."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        await session.call(Endpoint("own", f"{server.url}/path"), nothing=None)
        assert server.targets == ["/path"]


async def test_no_key_is_added_to_a_users_endpoint() -> None:
    """The session's keys are for its services."""
    async with RawServer(answer(b"{}")) as server, open_session(server.url) as session:
        await session.call(Endpoint("own", f"{server.url}/"), a=1)
        head = server.requests[0].head.decode().lower()
        assert "-key" not in head


BAD_PARAMS: list[dict[str, Any]] = [
    {"a": ...},
    {"a": b"bytes"},
    {"a": [1]},
    {"a": math.nan},
    {"a": math.inf},
    {"a": 2**64},
    {"a": "\ud800"},
    {"a": "nul\0"},
    {"\ud800": 1},
    {"fixed": 2},
]


@pytest.mark.parametrize("params", BAD_PARAMS, ids=ascii)
async def test_bad_parameters_are_errors_before_a_token_is_spent(params: dict[str, Any]) -> None:
    """A parameter that cannot be sent, or is fixed already, spends no token."""
    async with RawServer(answer(b"{}")) as server, Session() as session:
        own = Endpoint("own", server.url, query={"fixed": 1})
        await session.call(own)
        await asyncio.sleep(10)
        with pytest.raises(InvalidRequestError) as caught:
            await session.call(own, **params)
        assert caught.value.endpoint == "own"
        assert session.limiters["own"].available == 1
        assert len(server.requests) == 1


@pytest.mark.parametrize("endpoint", ["own", None, "http://127.0.0.1/", Endpoint], ids=repr)
async def test_only_endpoints_can_be_called(endpoint: Any) -> None:
    """Anything else is an `InvalidRequestError`."""
    async with Session() as session:
        with pytest.raises(InvalidRequestError):
            await session.call(endpoint)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": 7},
        {"url": "http://example.org"},
        {"url": "https://user@example.org"},
        {"url": "https://example.org?a=1"},
        {"url": None},
        {"effect": "read"},
        {"rate": 1.0},
        {"query": {"a": ...}},
        {"query": {7: "a"}},
        {"query": 7},
        {"answer": ...},
        {"answer": "dict"},
    ],
    ids=repr,
)
def test_a_bad_endpoint_is_an_error_where_it_is_made(arguments: dict[str, Any]) -> None:
    """Name, URL, query, effect, rate and answer are checked immediately."""
    with pytest.raises(InvalidRequestError):
        Endpoint(**{"name": "own", "url": "https://example.org", **arguments})


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        (b'{"status": 0, "message": "no such roll"}', 200, ApiError, "no such roll"),
        (b'{"error": "no such roll"}', 200, ApiError, "no such roll"),
        (b'{"error": "no such roll"}', 400, ApiError, "no such roll"),
        (b'{"message": "no such user"}', 200, ApiError, "no such user"),
        (b'{"error": "no access"}', 200, AccessDeniedError, "no access"),
        (b'{"status": 0, "message": "Invalid key"}', 200, AccessDeniedError, "Invalid key"),
        (b'{"error": "who are you"}', 401, AccessDeniedError, "who are you"),
    ],
)
@pytest.mark.parametrize("kind_of_answer", [dict, Roll, list[Roll]], ids=["dict", "Roll", "list"])
async def test_the_services_refusals_are_recognised(
    kind_of_answer: type[object], body: bytes, status: int, kind: type[ApiError], words: str
) -> None:
    """An error envelope is an error in a custom endpoint too, whatever its type."""
    async with RawServer(answer(body, status)) as server, Session() as session:
        with pytest.raises(ApiError) as caught:
            await session.call(Endpoint("own", server.url, answer=kind_of_answer))
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.status) == (words, status)
        assert caught.value.endpoint == "own"
        assert len(server.requests) == 1


async def test_an_api_error_about_the_rate_is_recognised() -> None:
    """The service's message about it is a `RateLimitedError`; the next call waits."""
    once = Session(retry=Retry(attempts=1))
    async with RawServer(api_error("Request limit reached")) as server, once as session:
        with pytest.raises(RateLimitedError) as caught:
            await session.call(Endpoint("own", server.url))
        assert (caught.value.status, caught.value.retry_after) == (200, None)
        assert session.limiters["own"].guard > 0.05


async def test_a_read_is_repeated() -> None:
    """Transport failures and 5xx are tried again, up to ``attempts`` in all, each on a token."""
    script = (drop(), answer(b"", 503), answer(b"{}"))
    async with RawServer(*script) as server, Session() as session:
        assert await session.call(Endpoint("own", server.url)) == {}
        times = [asked.at for asked in server.requests]
        assert len(times) == 3
        assert times[1] - times[0] >= 0.999
        assert times[2] - times[1] >= 0.999


async def test_a_read_is_not_repeated_indefinitely() -> None:
    """After ``attempts`` the last failure is raised."""
    with_attempts = Session(retry=Retry(attempts=3))
    async with RawServer(answer(b"", 500)) as server, with_attempts as session:
        with pytest.raises(HttpStatusError) as caught:
            await session.call(Endpoint("own", server.url, rate=Rate(0.0)))
        assert caught.value.status == 500
        assert len(server.requests) == 3


@pytest.mark.parametrize("effect", [Effect.WRITE, Effect.CONSUME])
@pytest.mark.parametrize(
    ("step", "status"),
    [(drop(), None), (answer(b"", 500), 500), (answer(b"<html></html>"), 200), (hang(), None)],
    ids=["dropped", "500", "no-json", "timed-out"],
)
async def test_what_changes_the_server_is_never_repeated(
    effect: Effect, step: Any, status: int | None
) -> None:
    """A write or destructive read of unknown outcome is sent once, and not repeated."""
    async with RawServer(step, answer(b"{}")) as server, Session(timeout=5.0) as session:
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.call(Endpoint("own", server.url, effect=effect), a=1)
        assert (caught.value.status, caught.value.endpoint) == (status, "own")
        await asyncio.sleep(60)
        assert len(server.requests) == 1


async def test_a_429_within_max_wait_is_waited_out() -> None:
    """A read waits for as long as ``Retry-After`` says, and is sent again."""
    too_many = answer(b"", 429, [("Retry-After", "20")])
    async with RawServer(too_many, answer(b"{}")) as server, Session() as session:
        assert await session.call(Endpoint("own", server.url)) == {}
        assert server.requests[1].at - server.requests[0].at >= 19.999


async def test_a_429_beyond_max_wait_is_raised() -> None:
    """If that takes too long, the call fails immediately, and so does the next."""
    too_many = answer(b"", 429, [("Retry-After", "61")])
    async with RawServer(too_many, answer(b"{}")) as server, Session() as session:
        own = Endpoint("own", server.url)
        start = now()
        for status in (429, None):
            with pytest.raises(RateLimitedError) as caught:
                await session.call(own)
            assert caught.value.status == status
            assert caught.value.retry_after == pytest.approx(61, abs=0.1)
        assert now() - start < 0.5
        assert len(server.requests) == 1
        session.limiters["own"].pause(0)
        await asyncio.sleep(61)
        assert await session.call(own) == {}


def test_streams_and_closing_raise_in_another_loop() -> None:
    """A stream, new or old, and closing raise an error in a second loop."""

    async def use_in_another_loop(session: Session, stream: ChatStream) -> None:
        with pytest.raises(SessionClosedError, match="another event loop"):
            await anext(session.peerbet.chat_stream(after=0))
        with pytest.raises(SessionClosedError, match="another event loop"):
            await anext(stream)
        with pytest.raises(SessionClosedError, match="another event loop"):
            await session.aclose()

    async def here() -> None:
        async with FakeServices() as fake, fake.session() as session:
            fake.chat.say("alice", "hi")
            stream = session.peerbet.chat_stream(after=0)
            await asyncio.to_thread(asyncio.run, use_in_another_loop(session, stream))
            assert (await anext(stream)).text == "hi"

    asyncio.run(here())


@pytest.mark.parametrize("timeout", [math.inf])
async def test_a_time_limit_can_be_none(timeout: float) -> None:
    """Infinity is no limit."""
    async with FakeServices() as fake, fake.session(timeout=timeout) as session:
        assert (await session.peerbet.messages()).messages == ()


@pytest.mark.parametrize("value", [Decimal("Infinity"), Decimal("sNaN"), Fraction(1), 1j])
@pytest.mark.parametrize("option", ["timeout", "max_wait"])
def test_other_types_of_numbers_are_no_limits(option: str, value: object) -> None:
    """A call would raise an error of Python when it adds one to the time."""
    with pytest.raises(InvalidRequestError, match=f"{option} must be a number of seconds"):
        Session(**{option: value})  # type: ignore[arg-type]


async def test_a_call_may_refuse_to_wait_at_all() -> None:
    """With ``max_wait=0`` a call is sent immediately or not at all."""
    async with FakeServices() as fake, fake.session(max_wait=0) as session:
        await session.peerbet.messages()
        with pytest.raises(RateLimitedError):
            await session.peerbet.messages()


def test_what_a_closed_loop_left_can_be_closed_in_another() -> None:
    """The loop was closed before the session: closing the session then is no error."""
    session = Session()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.open())
    loop.close()
    asyncio.run(session.aclose())
    with pytest.raises(SessionClosedError, match="not open"):
        asyncio.run(session.peerbet.messages())


async def test_a_failed_read_s_own_error_outlasts_a_long_queue() -> None:
    """If its repetition would wait too long for a token, the failure is raised."""
    tasks: list[asyncio.Task[ChatPage]] = []

    class CallingRetry(Retry, frozen=True):
        def delay(self, error: PythpeerError, attempt: int) -> float | None:
            tasks.append(asyncio.ensure_future(session.peerbet.messages()))
            return 0.01 if len(tasks) == 1 else None

    async with (
        RawServer(answer(b"", 500)) as server,
        open_session(
            server.url, rates={"peerbet.chat.get": Rate(1.0)}, max_wait=1.5, retry=CallingRetry()
        ) as session,
    ):
        with pytest.raises(HttpStatusError) as caught:
            await session.peerbet.messages()
        assert caught.value.status == 500
        await asyncio.gather(*tasks, return_exceptions=True)
