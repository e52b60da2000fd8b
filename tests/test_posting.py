"""Posts without a response: searched for with ``confirm=True``, and never sent twice.

Every test ends with the same look at the wire: as many ``set`` requests as there were posts.
"""

from __future__ import annotations

import asyncio
import html
import json
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from itertools import pairwise
from typing import Any, Final, Self

import anyio
import pytest
from helpers import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    API_ERROR,
    CUT,
    DENIED,
    DROP,
    DROP_WITHOUT_EFFECT,
    EMPTY,
    ERROR_429,
    ERROR_500,
    ERROR_503,
    GARBAGE,
    HANG,
    HTML,
    NOT_FOUND,
    OK,
    Order,
    Scripted,
    ScriptedFault,
    Window,
    line,
)

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    RateLimitedError,
    Retry,
    Session,
    SessionClosedError,
    TransportError,
)
from pythpeer.posting import LOOKUP_DELAYS, MAX_CLAIMED_IDS, MAX_LOOKUP_PAGES

pytestmark = pytest.mark.anyio

TEXT: Final = "hello there"

DONE: Final = {
    "dropped": DROP,
    "cut": CUT,
    "silence": HANG,
    "garbage": GARBAGE,
    "empty": EMPTY,
    "html": HTML,
    "no id": ScriptedFault(body=b'{"status":1}'),
    "500": ERROR_500,
    "503": ScriptedFault(status=503, body=b""),
}
"""The message was posted, and the response does not show it."""

NOT_DONE: Final = {
    "dropped": DROP_WITHOUT_EFFECT,
    "silence": ScriptedFault(effect=False, end="hang"),
    "garbage": ScriptedFault(effect=False, body=b"garbage"),
    "500": ScriptedFault(effect=False, status=500, body=b""),
    "503": ERROR_503,
}
"""The message was not posted, and the response does not show that either."""


@pytest.fixture(params=["newest", "oldest"])
async def services(request: pytest.FixtureRequest) -> AsyncIterator[Scripted]:
    """The scripted services, with the newest or with the oldest messages on a full page."""
    async with Scripted(window=request.param) as services:
        yield services


@pytest.fixture
async def session(services: Scripted) -> AsyncIterator[Session]:
    async with services.session() as session:
        yield session


def sent(services: Scripted) -> list[str]:
    """The texts that were sent, once for each request."""
    return [asked.params["msg"] for asked in services.asked("set")]


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


async def unknown(posting: Awaitable[object]) -> OutcomeUnknownError:
    """Return the error of a post whose outcome is unknown."""
    with pytest.raises(OutcomeUnknownError) as caught:
        await posting
    assert caught.value.endpoint == "peerbet.chat.set"
    return caught.value


# -- one post -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", DONE.values(), ids=DONE)
async def test_a_post_that_arrived_is_found(
    services: Scripted, session: Session, fault: ScriptedFault
) -> None:
    """Whatever arrived in place of a response, the id is that of the message in the chat."""
    services.say(3)
    services.script("set", fault)
    assert await session.peerbet.post(TEXT, bot=True, confirm=True) == 4
    assert sent(services) == [TEXT]
    assert services.asked("set")[0].params["bot"] == "1"


@pytest.mark.parametrize("fault", NOT_DONE.values(), ids=NOT_DONE)
async def test_a_post_that_did_not_arrive_stays_unknown(
    services: Scripted, session: Session, fault: ScriptedFault
) -> None:
    """It is searched for a few times; that it may still arrive can never be excluded."""
    services.say(3)
    services.script("set", fault)
    error = await unknown(session.peerbet.post(TEXT, confirm=True))
    assert "did not find it" in notes(error)
    assert "may still arrive" in notes(error)
    assert error.status == (fault.status if fault.end == "answer" else None)
    assert len(services.asked("get")) == 1 + len(LOOKUP_DELAYS)
    assert sent(services) == [TEXT]


async def test_a_response_needs_no_search(services: Scripted, session: Session) -> None:
    """If the service reports the outcome of the post, nothing is read after it."""
    services.say(3)
    assert await session.peerbet.post(TEXT, confirm=True) == 4
    assert [asked.kind for asked in services.requests] == ["get", "set"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(API_ERROR, ApiError), (DENIED, AccessDeniedError), (ERROR_429, RateLimitedError)],
    ids=["refused", "denied", "429"],
)
async def test_an_api_error_needs_no_search(
    services: Scripted, session: Session, fault: ScriptedFault, kind: type[PythpeerError]
) -> None:
    """It was not posted, and the service reports that."""
    services.script("set", fault)
    with pytest.raises(kind) as caught:
        await session.peerbet.post(TEXT, confirm=True)
    assert not notes(caught.value)
    assert [asked.kind for asked in services.requests] == ["get", "set"]


async def test_nothing_is_read_unless_asked_for(services: Scripted, session: Session) -> None:
    """Reading costs tokens: without ``confirm`` none is spent on it."""
    services.script("set", DROP)
    error = await unknown(session.peerbet.post(TEXT))
    assert not notes(error)
    assert services.asked("get") == []
    assert sent(services) == [TEXT]


async def test_a_failed_connection_sends_nothing(services: Scripted, session: Session) -> None:
    """A post that was not sent has no unknown outcome."""
    reading = session.limiters["peerbet.chat.get"]
    services.say(1)
    services.default_faults["get"] = ScriptedFault(after=0.5)
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    session.limiters["peerbet.chat.set"].pause(2)
    await asyncio.sleep(1.5)
    await services.stop()
    with pytest.raises(TransportError) as caught:
        await post
    assert type(caught.value) is TransportError
    assert caught.value.sent is False
    assert reading.waiting == 0
    assert sent(services) == []


@pytest.mark.parametrize(("hidden", "is_found"), [(0.5, True), (5.0, True), (60.0, False)])
async def test_a_message_may_become_visible_with_a_delay(
    services: Scripted, session: Session, hidden: float, is_found: bool
) -> None:
    """The chat is searched for some seconds, and no longer."""
    services.say(3)
    services.script("set", ScriptedFault(end="drop", hidden=hidden))
    post = session.peerbet.post(TEXT, confirm=True)
    if is_found:
        assert await post == 4
    else:
        await unknown(post)
    times = [asked.at for asked in services.asked("get")]
    assert min(later - previous for previous, later in pairwise(times)) >= 1.0 - 0.001
    assert times[-1] - times[0] < sum(LOOKUP_DELAYS) + 2.0
    assert sent(services) == [TEXT]


async def test_reading_is_an_ordinary_call(services: Scripted, session: Session) -> None:
    """Before the post as well as after it, a failed read is retried by the retry policy."""
    services.say(3)
    services.script("get", ERROR_500, ERROR_429, OK, DROP, ERROR_503)
    services.script("set", DROP)
    assert await session.peerbet.post(TEXT, confirm=True) == 4
    assert len(services.asked("get")) == 6
    assert sent(services) == [TEXT]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(DENIED, AccessDeniedError), (GARBAGE, DecodeError), (NOT_FOUND, HttpStatusError)],
    ids=["denied", "garbage", "404"],
)
async def test_reading_fails_before_anything_is_sent(
    services: Scripted, session: Session, fault: ScriptedFault, kind: type[PythpeerError]
) -> None:
    """Its error is raised, and the post can safely be tried again."""
    services.script("get", fault)
    with pytest.raises(kind) as caught:
        await session.peerbet.post(TEXT, confirm=True)
    assert type(caught.value) is kind
    assert caught.value.endpoint == "peerbet.chat.get"
    assert sent(services) == []


async def test_a_newest_message_without_an_id_is_no_beginning(
    services: Scripted, session: Session
) -> None:
    """Without it, older messages could not be told apart from newer ones."""
    body = {"status": 1, "users_online": 1, "message_list": [{"msg": "what am I?"}]}
    services.script("get", ScriptedFault(body=json.dumps(body).encode()))
    with pytest.raises(DecodeError, match="newest message"):
        await session.peerbet.post(TEXT, confirm=True)
    assert sent(services) == []


async def test_a_newest_message_with_an_id_alone_will_do(
    services: Scripted, session: Session
) -> None:
    """Only the id of the newest message is requested."""
    services.show(7, {"id": 7})
    services.script("set", DROP)
    assert await session.peerbet.post(TEXT, confirm=True) == 8
    assert sent(services) == [TEXT]


async def test_the_first_message_of_all_is_found(services: Scripted, session: Session) -> None:
    """In an empty chat the newest id is 0."""
    services.script("set", DROP)
    assert await session.peerbet.post(TEXT, confirm=True) == 1
    assert sent(services) == [TEXT]


@pytest.mark.parametrize(
    ("fault", "words"),
    [(DENIED, "no access"), (GARBAGE, "not JSON"), (NOT_FOUND, "404")],
    ids=["denied", "garbage", "404"],
)
async def test_reading_back_fails(
    services: Scripted, session: Session, fault: ScriptedFault, words: str
) -> None:
    """The outcome is as unknown as before, and a note gives the reason."""
    services.script("get", OK, fault)
    services.script("set", DROP)
    error = await unknown(session.peerbet.post(TEXT, confirm=True))
    assert "reading back failed: peerbet.chat.get:" in notes(error)
    assert words in notes(error)
    assert error.__context__ is None
    assert len(services.asked("get")) == 2
    assert sent(services) == [TEXT]


async def test_reading_back_fails_permanently(services: Scripted) -> None:
    """It ends when the retry policy allows no further attempt."""
    async with services.session(retry=Retry(attempts=2)) as session:
        services.script("get", OK)
        services.default_faults["get"] = ERROR_500
        services.script("set", DROP)
        error = await unknown(session.peerbet.post(TEXT, confirm=True))
    assert "500" in notes(error)
    assert len(services.asked("get")) == 3
    assert sent(services) == [TEXT]


async def test_a_long_pause_is_not_waited_for(services: Scripted, session: Session) -> None:
    """If the next token for reading is too far away, that is a failure like any other."""
    services.script("set", ScriptedFault(end="drop", after=1))
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    session.limiters["peerbet.chat.get"].pause(600)
    error = await unknown(post)
    assert "reading back failed: peerbet.chat.get: next token in" in notes(error)
    assert sent(services) == [TEXT]


async def test_the_session_is_closed_during_the_search(
    services: Scripted, session: Session
) -> None:
    """The error is still about the outcome of the post."""
    services.script("set", DROP_WITHOUT_EFFECT)
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(3)
    await session.aclose()
    error = await unknown(post)
    assert "the session" in notes(error)
    assert sent(services) == [TEXT]


async def test_the_session_is_closed_before(services: Scripted, session: Session) -> None:
    """Then nothing is sent."""
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await session.peerbet.post(TEXT, confirm=True)
    assert services.requests == []


async def test_the_notes_are_pickled_with_the_error(services: Scripted, session: Session) -> None:
    """Errors keep all their data when they are sent between processes."""
    services.script("set", ScriptedFault(effect=False, status=502))
    error = await unknown(session.peerbet.post(TEXT, confirm=True))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), notes(copy), copy.status) == (str(error), notes(error), 502)


# -- which message it is --------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0, 1, 5])
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("visible", [False, True])
async def test_an_earlier_message_of_ones_own_is_not_this_one(
    overlap: int, order: Order, visible: bool
) -> None:
    """Even an identical one: it is older, also if the service shows it again."""
    async with Scripted(overlap=overlap, order=order, repeat=2) as services:
        services.say(3)
        services.post(TEXT)
        services.post(TEXT)
        services.script("set", DROP if visible else DROP_WITHOUT_EFFECT)
        async with services.session() as session:
            post = session.peerbet.post(TEXT, confirm=True)
            if visible:
                assert await post == 6
            else:
                await unknown(post)
        assert sent(services) == [TEXT]


@pytest.mark.parametrize("bits", [{"my": 0}, {"me": 1}], ids=["somebody else's", "private"])
async def test_what_only_looks_like_it_is_not_taken(
    services: Scripted, session: Session, bits: dict[str, int]
) -> None:
    """A message of another user, or a private one, is not the post."""
    services.script("set", ScriptedFault(effect=False, end="drop", after=1))
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    services.post(TEXT, **bits)
    await unknown(post)
    assert sent(services) == [TEXT]


async def test_it_is_found_among_what_looks_like_it(services: Scripted, session: Session) -> None:
    """Another user's, a private one, one of another text, and then the post."""
    services.script("set", ScriptedFault(end="drop", before=1))
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    services.post(TEXT, my=0)
    services.post(TEXT, me=1)
    services.post(TEXT + "!")
    services.show(4, "no message at all")
    assert await post == 5
    assert sent(services) == [TEXT]


CHANGES: Final[dict[str, tuple[str, Callable[[str], str]]]] = {
    "escaped": ("a < b & \"c\" 'd' > &amp; é", html.escape),
    "escaped but for quotes": ('a < b & "c"', lambda text: html.escape(text, quote=False)),
    "escaped in PHP's way": ("it's", lambda text: text.replace("'", "&#039;")),
    "not escaped": ("&lt;b&gt; &amp; &eacute;", str),
    "trimmed": ("  a b\n", str.strip),
    "on one line": ("a\r\nb\n\nc", lambda text: " ".join(text.split())),
    "with other line breaks": ("a\nb", lambda text: text.replace("\n", "\r\n")),
    "trimmed to nothing": (" ", str.strip),
    "trimmed and escaped": (" <3 ", lambda text: html.escape(text.strip())),
}
"""How services change a text before they show it."""


@pytest.mark.parametrize(("text", "change"), CHANGES.values(), ids=CHANGES)
async def test_a_text_may_be_shown_otherwise(text: str, change: Callable[[str], str]) -> None:
    """Trimmed, with other white space, or escaped for HTML, it is the same text."""
    async with Scripted(transform_text=change) as services, services.session() as session:
        services.script("set", DROP)
        assert await session.peerbet.post(text, confirm=True) == 1
        assert sent(services) == [text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "A"),
        ("ab", "a b"),
        ("a", "aa"),
        ("aa", "a"),
        ("&amp;", "&"),
        ("é", "e\u0301"),
        ("a", ""),
    ],
)
async def test_another_text_is_another(text: str, shown: str) -> None:
    """A text with other words is a different text."""
    async with Scripted(transform_text=lambda _: shown) as services, services.session() as session:
        services.script("set", DROP)
        await unknown(session.peerbet.post(text, confirm=True))
        assert sent(services) == [text]


# -- many messages at the same time ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "before", "after", "is_found"),
    [
        ("newest", 0, 299, True),
        ("newest", 0, 300, False),
        ("newest", 400, 0, True),
        ("newest", 400, 400, False),
        ("oldest", 0, 400, True),
        ("oldest", 299, 0, True),
        ("oldest", 300, 0, True),
        ("oldest", 700, 400, True),
        ("oldest", MAX_LOOKUP_PAGES * 300 - 1, 0, True),
        ("oldest", MAX_LOOKUP_PAGES * 300, 0, False),
    ],
)
async def test_more_messages_arrived_than_fit_a_page(
    window: Window, before: int, after: int, is_found: bool
) -> None:
    """All pages are read; what the service does not show is not found."""
    async with Scripted(window=window) as services, services.session() as session:
        first = services.say(5)
        services.script("set", ScriptedFault(end="drop", before=1, after=1))
        post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
        await asyncio.sleep(0.5)
        services.say(before, step=2)
        await asyncio.sleep(1)
        services.say(after)
        if is_found:
            assert await post == first + 2 * before + 1
        else:
            await unknown(post)
        assert len(services.asked("get")) <= 1 + MAX_LOOKUP_PAGES * len(LOOKUP_DELAYS)
        assert sent(services) == [TEXT]


@pytest.mark.parametrize("bad", [{"id": 7}, "no message at all"], ids=["id alone", "nothing"])
async def test_a_page_is_full_of_bad_messages_too(bad: object) -> None:
    """An undecodable message takes space on a page: the next page is read."""
    async with Scripted(window="oldest") as services, services.session() as session:
        services.script("set", ScriptedFault(end="drop", before=1))
        post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
        await asyncio.sleep(0.5)
        services.say(300)
        services.show(7, bad)
        assert await post == 301
        assert sent(services) == [TEXT]


async def test_a_service_that_always_returns_one_page_is_not_read_indefinitely() -> None:
    """A page without a higher id is the last one."""
    async with Scripted(window="oldest", overlap=10_000) as services:
        services.say(400)
        services.script("set", DROP_WITHOUT_EFFECT)
        async with services.session() as session:
            await unknown(session.peerbet.post(TEXT, confirm=True))
        assert len(services.asked("get")) == 1 + len(LOOKUP_DELAYS)
        assert sent(services) == [TEXT]


# -- identical posts ------------------------------------------------------------------------------

ENDS: Final = {"answered": OK, "lost": DROP, "never there": DROP_WITHOUT_EFFECT}


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
async def test_two_identical_posts_have_an_id_each(
    services: Scripted, session: Session, first: str, second: str
) -> None:
    """Two at the same time, each confirmed, lost, or never posted: no id is returned twice."""
    services.script("set", ENDS[first], ENDS[second])
    both = [session.peerbet.post(TEXT, confirm=True) for _ in range(2)]
    async with asyncio.timeout(60):
        results = await asyncio.gather(*both, return_exceptions=True)
    posted_ids = [result for result in results if isinstance(result, int)]
    ends = [end for end in (first, second) if end != "never there"]
    assert sorted(posted_ids) == list(range(1, len(ends) + 1))
    failed = [result for result in results if not isinstance(result, int)]
    assert all(type(error) is OutcomeUnknownError for error in failed)
    assert sent(services) == [TEXT] * 2


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("slow_first", [False, True])
async def test_a_slow_response_claims_its_id_first(
    services: Scripted, session: Session, confirm: bool, slow_first: bool
) -> None:
    """A message in the chat may belong to a post whose response has not arrived yet."""
    slow, lost = ScriptedFault(after=4), ScriptedFault(effect=False, end="drop", after=0.5)
    services.script("set", *((slow, lost) if slow_first else (lost, slow)))
    posts = []
    for is_slow in (slow_first, not slow_first):
        post = session.peerbet.post(TEXT, confirm=confirm or not is_slow)
        posts.append(asyncio.ensure_future(post))
        await asyncio.sleep(0.2)
    async with asyncio.timeout(60):
        results = await asyncio.gather(*posts, return_exceptions=True)
    answered, failure = results if slow_first else reversed(results)
    assert answered == 1
    assert isinstance(failure, OutcomeUnknownError)
    assert "did not find it" in notes(failure)
    assert sent(services) == [TEXT] * 2


async def test_a_post_that_starts_during_the_search_is_not_waited_for(
    services: Scripted, session: Session
) -> None:
    """Only posts that were sent before the page was read can be on it."""
    services.script("set", DROP, ScriptedFault(before=3))
    first = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    session.limiters["peerbet.chat.set"].pause(2)
    second = asyncio.ensure_future(session.peerbet.post(TEXT))
    start = asyncio.get_running_loop().time()
    assert await first == 1
    assert asyncio.get_running_loop().time() - start < 1
    assert await second == 2
    assert sent(services) == [TEXT] * 2


async def test_posts_of_other_words_are_not_waited_for(
    services: Scripted, session: Session
) -> None:
    """They cannot claim the id of this one."""
    services.script("set", HANG, DROP)
    other = asyncio.ensure_future(session.peerbet.post("something else"))
    await asyncio.sleep(0.1)
    start = asyncio.get_running_loop().time()
    assert await session.peerbet.post(TEXT, confirm=True) == 2
    assert asyncio.get_running_loop().time() - start < 3
    await unknown(other)
    assert sent(services) == ["something else", TEXT]


async def test_the_id_of_any_post_is_taken(services: Scripted, session: Session) -> None:
    """A message whose id is known, but which becomes visible later, does not match a later post."""
    services.say(1)
    services.script("set", ScriptedFault(hidden=2), DROP_WITHOUT_EFFECT)
    assert await session.peerbet.post(TEXT) == 2
    await unknown(session.peerbet.post(TEXT, confirm=True))
    assert sent(services) == [TEXT] * 2


async def test_a_found_id_is_taken(services: Scripted, session: Session) -> None:
    """The same if the id was found by a search."""
    services.say(1)
    services.script("set", ScriptedFault(end="drop"), DROP_WITHOUT_EFFECT)
    services.script("get", OK, OK, ScriptedFault(body=PAGE_OF_ONE))
    assert await session.peerbet.post(TEXT, confirm=True) == 2
    await unknown(session.peerbet.post(TEXT, confirm=True))
    assert sent(services) == [TEXT] * 2


PAGE_OF_ONE: Final = json.dumps(
    {"status": 1, "users_online": 1, "message_list": [line(1)]}
).encode()
"""What a service with a delay shows."""


async def test_only_the_latest_posts_are_remembered() -> None:
    """A session that posts indefinitely uses a limited amount of memory."""
    async with (
        Scripted() as services,
        services.session(rates={"peerbet.chat.set": Rate(0.0)}) as session,
    ):
        for _ in range(MAX_CLAIMED_IDS + 5):
            await session.peerbet.post("x")
        posts = session.peerbet._poster
        assert (len(posts._claimed_ids), len(posts._in_flight)) == (MAX_CLAIMED_IDS, 0)


faults = st.builds(
    ScriptedFault,
    effect=st.booleans(),
    end=st.sampled_from(["answer", "drop", "cut"]),
    body=st.sampled_from([None, b"", b"garbage"]),
    before=st.sampled_from([0.0, 0.7]),
    after=st.sampled_from([0.0, 1.3, 2.6]),
    hidden=st.sampled_from([0.0, 1.5]),
)
posts = st.tuples(st.sampled_from(["a", "b", " a "]), st.booleans(), faults)


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(posts, min_size=1, max_size=6),
    st.sampled_from(["newest", "oldest"]),
    st.integers(0, 2),
)
async def test_no_id_is_given_twice(
    schedule: list[tuple[str, bool, ScriptedFault]], window: Window, overlap: int
) -> None:
    """Whatever is posted concurrently, with any outcome: one id for one post, of its text.

    If all of them are confirmed, each message in the chat is found by a post.
    """
    async with Scripted(window=window, overlap=overlap) as services, services.session() as session:
        services.script("set", *(fault for _, _, fault in schedule))
        results = await asyncio.gather(
            *(session.peerbet.post(text, confirm=confirm) for text, confirm, _ in schedule),
            return_exceptions=True,
        )
        assert Counter(sent(services)) == Counter(text for text, _, _ in schedule)
        await asyncio.sleep(2)  # until everything is shown
        page = await session.peerbet.messages(last=300)
        shown = {message.id: message.text.strip() for message in page.messages}
        given = [result for result in results if isinstance(result, int)]
        assert len(given) == len(set(given))
        for (text, _, _), result in zip(schedule, results, strict=True):
            if isinstance(result, int):
                assert shown[result] == text.strip()
            else:
                assert type(result) is OutcomeUnknownError
        if all(confirm for _, confirm, _ in schedule):
            assert sorted(given) == sorted(shown)


# -- cancellation ---------------------------------------------------------------------------------


class Cut(Generator[Any, Any, object]):
    """Awaits *work*, and cancels the task that does so when it waits for the *at*-th time."""

    def __init__(self, work: Coroutine[Any, Any, object], at: int) -> None:
        self._work = work
        self._left = at
        self.was_cancelled = False

    def __await__(self) -> Self:
        return self

    def send(self, value: Any) -> Any:
        return self._waiting(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waiting(self._work.throw(*error))

    def _waiting(self, future: Any) -> Any:
        if self._left == 0:
            task = asyncio.current_task()
            assert task is not None
            self.was_cancelled = task.cancel()
        self._left -= 1
        return future


async def cut_off(work: Coroutine[Any, Any, object], at: int) -> bool:
    """Whether *work* could be cancelled where it waits for the *at*-th time."""
    cut = Cut(work, at)

    async def run() -> None:
        await cut

    (result,) = await asyncio.gather(run(), return_exceptions=True)
    expected = asyncio.CancelledError if cut.was_cancelled else (type(None), OutcomeUnknownError)
    assert isinstance(result, expected)
    return cut.was_cancelled


HISTORIES: Final = {
    "answered": OK,
    "found": DROP,
    "found late": ScriptedFault(end="drop", hidden=3.0),
    "not found": DROP_WITHOUT_EFFECT,
}


@pytest.mark.parametrize("fault", HISTORIES.values(), ids=HISTORIES)
async def test_a_post_can_be_cancelled_at_any_moment(fault: ScriptedFault) -> None:
    """At each of its awaits: nothing is sent twice, nothing hangs, and the next post succeeds."""
    at, was_cancelled = 0, True
    while was_cancelled:
        async with Scripted() as services, services.session() as session:
            services.script("set", fault)
            tasks = asyncio.all_tasks()
            was_cancelled = await cut_off(session.peerbet.post(TEXT, confirm=True), at)
            assert len(sent(services)) <= 1
            assert not any(limiter.waiting for limiter in session.limiters.values())
            await asyncio.sleep(0.01)  # the server may be about to accept a connection
            assert asyncio.all_tasks() == tasks
            services.faults.clear()
            ends = services.newest
            with anyio.fail_after(10):
                assert await session.peerbet.post(TEXT, confirm=True) == ends + 1
            assert sent(services)[:-1] in ([], [TEXT])
        at += 1
    assert at > 6


async def test_a_cancelled_post_does_not_block_others() -> None:
    """A search that waits for the cancelled post continues."""
    at, was_cancelled = 0, True
    while was_cancelled:
        async with Scripted() as services, services.session() as session:
            services.script("set", ScriptedFault(before=0.5, after=3), DROP_WITHOUT_EFFECT)
            first = asyncio.ensure_future(cut_off(session.peerbet.post(TEXT), at))
            other = session.peerbet.post(TEXT, confirm=True)
            with anyio.fail_after(20):
                (result,) = await asyncio.gather(other, return_exceptions=True)
                was_cancelled = await first
            # Identical messages are interchangeable where no other post can claim them.
            assert result == 1 if was_cancelled else isinstance(result, OutcomeUnknownError)
            assert len(sent(services)) <= 2
        at += 1
    assert at > 3


async def test_a_search_that_waits_for_another_post_can_be_cancelled() -> None:
    """At each of its awaits, including the wait for the other post."""
    at, was_cancelled = 0, True
    while was_cancelled:
        async with Scripted() as services, services.session() as session:
            services.script("set", ScriptedFault(before=0.5, after=4), DROP_WITHOUT_EFFECT)
            first = asyncio.ensure_future(session.peerbet.post(TEXT))
            await asyncio.sleep(0.2)
            was_cancelled = await cut_off(session.peerbet.post(TEXT, confirm=True), at)
            with anyio.fail_after(10):
                assert await first == 1
            assert len(sent(services)) <= 2
        at += 1
    assert at > 6
