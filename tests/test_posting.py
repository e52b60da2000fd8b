"""Posts that nothing answers: looked for with ``confirm=True``, found or not, and never sent twice.

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
    CUT,
    DENIED,
    DROP,
    DROP_UNSEEN,
    EMPTY,
    ERROR_500,
    ERROR_503,
    GARBAGE,
    HANG,
    HTML,
    NOT_FOUND,
    OK,
    REFUSED,
    TOO_MANY,
    ScriptedFault,
    Order,
    Scripted,
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
"""The message is there, and the answer does not say so."""

NOT_DONE: Final = {
    "dropped": DROP_UNSEEN,
    "silence": ScriptedFault(effect=False, end="hang"),
    "garbage": ScriptedFault(effect=False, body=b"garbage"),
    "500": ScriptedFault(effect=False, status=500, body=b""),
    "503": ERROR_503,
}
"""The message is not there, and the answer does not say so either."""


@pytest.fixture(params=["newest", "oldest"])
async def services(request: pytest.FixtureRequest) -> AsyncIterator[Scripted]:
    """The scripted services, whichever end of a long page they cut off."""
    async with Scripted(window=request.param) as services:
        yield services


@pytest.fixture
async def session(services: Scripted) -> AsyncIterator[Session]:
    async with services.session() as session:
        yield session


def sent(services: Scripted) -> list[str]:
    """The texts that went over the wire, once for each time."""
    return [asked.params["msg"] for asked in services.asked("set")]


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


async def unknown(posting: Awaitable[object]) -> OutcomeUnknownError:
    """The error of a post of which nobody knows what became."""
    with pytest.raises(OutcomeUnknownError) as caught:
        await posting
    assert caught.value.endpoint == "peerbet.chat.set"
    return caught.value


# -- one post -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", DONE.values(), ids=DONE)
async def test_a_post_that_arrived_is_found(
    services: Scripted, session: Session, fault: ScriptedFault
) -> None:
    """Whatever came in place of an answer, the id is that of the message in the chat."""
    services.say(3)
    services.script("set", fault)
    assert await session.peerbet.post(TEXT, bot=True, confirm=True) == 4
    assert sent(services) == [TEXT]
    assert services.asked("set")[0].params["bot"] == "1"


@pytest.mark.parametrize("fault", NOT_DONE.values(), ids=NOT_DONE)
async def test_a_post_that_did_not_arrive_stays_unknown(
    services: Scripted, session: Session, fault: ScriptedFault
) -> None:
    """It is looked for a few times; that it may still arrive can never be excluded."""
    services.say(3)
    services.script("set", fault)
    error = await unknown(session.peerbet.post(TEXT, confirm=True))
    assert "did not find it" in notes(error)
    assert "may still arrive" in notes(error)
    assert error.status == (fault.status if fault.end == "answer" else None)
    assert len(services.asked("get")) == 1 + len(LOOKUP_DELAYS)
    assert sent(services) == [TEXT]


async def test_an_answer_is_as_good_as_ever(services: Scripted, session: Session) -> None:
    """Where the service says what became of the post, nothing is read after it."""
    services.say(3)
    assert await session.peerbet.post(TEXT, confirm=True) == 4
    assert [asked.kind for asked in services.requests] == ["get", "set"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(REFUSED, ApiError), (DENIED, AccessDeniedError), (TOO_MANY, RateLimitedError)],
    ids=["refused", "denied", "429"],
)
async def test_a_clear_no_is_not_looked_into(
    services: Scripted, session: Session, fault: ScriptedFault, kind: type[PythpeerError]
) -> None:
    """It did not happen, and the service says so."""
    services.script("set", fault)
    with pytest.raises(kind) as caught:
        await session.peerbet.post(TEXT, confirm=True)
    assert not notes(caught.value)
    assert [asked.kind for asked in services.requests] == ["get", "set"]


async def test_nothing_is_read_unless_asked_for(services: Scripted, session: Session) -> None:
    """Reading costs tokens: a plain post takes none."""
    services.script("set", DROP)
    error = await unknown(session.peerbet.post(TEXT))
    assert not notes(error)
    assert services.asked("get") == []
    assert sent(services) == [TEXT]


async def test_a_refused_connection_sends_nothing(services: Scripted, session: Session) -> None:
    """What certainly never left is no unknown outcome."""
    reading = session.limiters["peerbet.chat.get"]
    services.say(1)
    services.default_faults["get"] = ScriptedFault(seconds=0.5)
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


@pytest.mark.parametrize(("hidden", "found"), [(0.5, True), (5.0, True), (60.0, False)])
async def test_a_message_may_become_visible_late(
    services: Scripted, session: Session, hidden: float, found: bool
) -> None:
    """The chat is read again for some seconds, and no longer."""
    services.say(3)
    services.script("set", ScriptedFault(end="drop", hidden=hidden))
    post = session.peerbet.post(TEXT, confirm=True)
    if found:
        assert await post == 4
    else:
        await unknown(post)
    times = [asked.at for asked in services.asked("get")]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 1.0 - 0.001
    assert times[-1] - times[0] < sum(LOOKUP_DELAYS) + 2.0
    assert sent(services) == [TEXT]


async def test_reading_is_an_ordinary_call(services: Scripted, session: Session) -> None:
    """Before as well as after, a failed read is tried again as the policy says."""
    services.say(3)
    services.script("get", ERROR_500, TOO_MANY, OK, DROP, ERROR_503)
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
    """Then that is the error, and the post can be tried again without a doubt."""
    services.script("get", fault)
    with pytest.raises(kind) as caught:
        await session.peerbet.post(TEXT, confirm=True)
    assert type(caught.value) is kind
    assert caught.value.endpoint == "peerbet.chat.get"
    assert sent(services) == []


async def test_a_newest_message_without_an_id_is_no_beginning(
    services: Scripted, session: Session
) -> None:
    """What came before the post could not be told from what came after."""
    body = {"status": 1, "users_online": 1, "message_list": [{"msg": "what am I?"}]}
    services.script("get", ScriptedFault(body=json.dumps(body).encode()))
    with pytest.raises(DecodeError, match="newest message"):
        await session.peerbet.post(TEXT, confirm=True)
    assert sent(services) == []


async def test_a_newest_message_with_an_id_alone_will_do(
    services: Scripted, session: Session
) -> None:
    """Nothing but its place is asked for."""
    services.show(7, {"id": 7})
    services.script("set", DROP)
    assert await session.peerbet.post(TEXT, confirm=True) == 8
    assert sent(services) == [TEXT]


async def test_the_first_message_of_all_is_found(services: Scripted, session: Session) -> None:
    """An empty chat has a newest message, too: number 0."""
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
    """The outcome is as unknown as before, and a note says why."""
    services.script("get", OK, fault)
    services.script("set", DROP)
    error = await unknown(session.peerbet.post(TEXT, confirm=True))
    assert "reading back failed: peerbet.chat.get:" in notes(error)
    assert words in notes(error)
    assert error.__context__ is None
    assert len(services.asked("get")) == 2
    assert sent(services) == [TEXT]


async def test_reading_back_fails_for_good(services: Scripted) -> None:
    """It is given up when the policy gives up."""
    async with services.session(retry=Retry(attempts=2)) as session:
        services.script("get", OK)
        services.default_faults["get"] = ERROR_500
        services.script("set", DROP)
        error = await unknown(session.peerbet.post(TEXT, confirm=True))
    assert "500" in notes(error)
    assert len(services.asked("get")) == 3
    assert sent(services) == [TEXT]


async def test_a_long_pause_is_not_waited_for(services: Scripted, session: Session) -> None:
    """A token for reading that would come too late is a failure like any other."""
    services.script("set", ScriptedFault(end="drop", seconds=1))
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    session.limiters["peerbet.chat.get"].pause(600)
    error = await unknown(post)
    assert "reading back failed: peerbet.chat.get: no token" in notes(error)
    assert sent(services) == [TEXT]


async def test_the_session_is_closed_meanwhile(services: Scripted, session: Session) -> None:
    """What became of the post is still what matters."""
    services.script("set", DROP_UNSEEN)
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
    """Errors travel between processes with all that they say."""
    services.script("set", ScriptedFault(effect=False, status=502))
    error = await unknown(session.peerbet.post(TEXT, confirm=True))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), notes(copy), copy.status) == (str(error), notes(error), 502)


# -- which message it is --------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0, 1, 5])
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("arrived", [False, True])
async def test_an_earlier_message_of_ones_own_is_not_this_one(
    overlap: int, order: Order, arrived: bool
) -> None:
    """However identical: it was there before, also if the service shows it again."""
    async with Scripted(overlap=overlap, order=order, repeat=2) as services:
        services.say(3)
        services.post(TEXT)
        services.post(TEXT)
        services.script("set", DROP if arrived else DROP_UNSEEN)
        async with services.session() as session:
            post = session.peerbet.post(TEXT, confirm=True)
            if arrived:
                assert await post == 6
            else:
                await unknown(post)
        assert sent(services) == [TEXT]


@pytest.mark.parametrize("bits", [{"my": 0}, {"me": 1}], ids=["somebody else's", "private"])
async def test_what_only_looks_like_it_is_not_taken(
    services: Scripted, session: Session, bits: dict[str, int]
) -> None:
    """A message of somebody else, or a private one, is not what was posted."""
    services.script("set", ScriptedFault(effect=False, end="drop", seconds=1))
    post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    services.post(TEXT, **bits)
    await unknown(post)
    assert sent(services) == [TEXT]


async def test_it_is_found_among_what_looks_like_it(services: Scripted, session: Session) -> None:
    """Somebody else's, a private one, one of other words, and then it."""
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
"""What services do to a text before they show it."""


@pytest.mark.parametrize(("text", "change"), CHANGES.values(), ids=CHANGES)
async def test_a_text_may_be_shown_otherwise(text: str, change: Callable[[str], str]) -> None:
    """Trimmed, with other blanks, or escaped for HTML, it is the same text."""
    async with Scripted(shown_as=change) as services, services.session() as session:
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
    """Nothing else is guessed at."""
    async with Scripted(shown_as=lambda _: shown) as services, services.session() as session:
        services.script("set", DROP)
        await unknown(session.peerbet.post(text, confirm=True))
        assert sent(services) == [text]


# -- many messages meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "before", "after", "found"),
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
async def test_more_messages_came_than_fit_a_page(
    window: Window, before: int, after: int, found: bool
) -> None:
    """All pages are turned where there are more; what the service does not show is not found."""
    async with Scripted(window=window) as services, services.session() as session:
        first = services.say(5)
        services.script("set", ScriptedFault(end="drop", before=1, seconds=1))
        post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
        await asyncio.sleep(0.5)
        services.say(before, step=2)
        await asyncio.sleep(1)
        services.say(after)
        if found:
            assert await post == first + 2 * before + 1
        else:
            await unknown(post)
        assert len(services.asked("get")) <= 1 + MAX_LOOKUP_PAGES * len(LOOKUP_DELAYS)
        assert sent(services) == [TEXT]


@pytest.mark.parametrize("bad", [{"id": 7}, "no message at all"], ids=["id alone", "nothing"])
async def test_a_page_is_full_of_bad_messages_too(bad: object) -> None:
    """What cannot be decoded takes up room on a page: the next one is turned."""
    async with Scripted(window="oldest") as services, services.session() as session:
        services.script("set", ScriptedFault(end="drop", before=1))
        post = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
        await asyncio.sleep(0.5)
        services.say(300)
        services.show(7, bad)
        assert await post == 301
        assert sent(services) == [TEXT]


async def test_a_service_that_shows_one_page_for_ever_is_not_asked_for_ever() -> None:
    """A page that leads no further is the last."""
    async with Scripted(window="oldest", overlap=10_000) as services:
        services.say(400)
        services.script("set", DROP_UNSEEN)
        async with services.session() as session:
            await unknown(session.peerbet.post(TEXT, confirm=True))
        assert len(services.asked("get")) == 1 + len(LOOKUP_DELAYS)
        assert sent(services) == [TEXT]


# -- identical posts ------------------------------------------------------------------------------

ENDS: Final = {"answered": OK, "lost": DROP, "never there": DROP_UNSEEN}


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
async def test_two_identical_posts_have_an_id_each(
    services: Scripted, session: Session, first: str, second: str
) -> None:
    """Two at once, of which either is answered, lost, or never there: no id is given twice."""
    services.script("set", ENDS[first], ENDS[second])
    both = [session.peerbet.post(TEXT, confirm=True) for _ in range(2)]
    async with asyncio.timeout(60):
        results = await asyncio.gather(*both, return_exceptions=True)
    found = [result for result in results if isinstance(result, int)]
    there = [end for end in (first, second) if end != "never there"]
    assert sorted(found) == list(range(1, len(there) + 1))
    failed = [result for result in results if not isinstance(result, int)]
    assert all(type(error) is OutcomeUnknownError for error in failed)
    assert sent(services) == [TEXT] * 2


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("slow_first", [False, True])
async def test_a_slow_answer_has_the_first_say(
    services: Scripted, session: Session, confirm: bool, slow_first: bool
) -> None:
    """A message in the chat may be that of a post whose answer is still on its way."""
    slow, lost = ScriptedFault(seconds=4), ScriptedFault(effect=False, end="drop", seconds=0.5)
    services.script("set", *((slow, lost) if slow_first else (lost, slow)))
    posts = []
    for is_slow in (slow_first, not slow_first):
        post = session.peerbet.post(TEXT, confirm=confirm or not is_slow)
        posts.append(asyncio.ensure_future(post))
        await asyncio.sleep(0.2)
    async with asyncio.timeout(60):
        results = await asyncio.gather(*posts, return_exceptions=True)
    answered, unanswered = results if slow_first else reversed(results)
    assert answered == 1
    assert isinstance(unanswered, OutcomeUnknownError)
    assert "did not find it" in notes(unanswered)
    assert sent(services) == [TEXT] * 2


async def test_a_post_that_starts_meanwhile_is_not_waited_for(
    services: Scripted, session: Session
) -> None:
    """Only those that were sent before the page was read can be on it."""
    services.script("set", DROP, ScriptedFault(before=3))
    first = asyncio.ensure_future(session.peerbet.post(TEXT, confirm=True))
    await asyncio.sleep(0.5)
    session.limiters["peerbet.chat.set"].pause(2)
    second = asyncio.ensure_future(session.peerbet.post(TEXT))
    begun = asyncio.get_running_loop().time()
    assert await first == 1
    assert asyncio.get_running_loop().time() - begun < 1
    assert await second == 2
    assert sent(services) == [TEXT] * 2


async def test_posts_of_other_words_are_not_waited_for(
    services: Scripted, session: Session
) -> None:
    """They can claim nothing that this one could."""
    services.script("set", HANG, DROP)
    other = asyncio.ensure_future(session.peerbet.post("something else"))
    await asyncio.sleep(0.1)
    begun = asyncio.get_running_loop().time()
    assert await session.peerbet.post(TEXT, confirm=True) == 2
    assert asyncio.get_running_loop().time() - begun < 3
    await unknown(other)
    assert sent(services) == ["something else", TEXT]


async def test_the_id_of_any_post_is_taken(services: Scripted, session: Session) -> None:
    """A message that was answered, and is shown only now, is not that of a later post."""
    services.say(1)
    services.script("set", ScriptedFault(hidden=2), DROP_UNSEEN)
    assert await session.peerbet.post(TEXT) == 2
    await unknown(session.peerbet.post(TEXT, confirm=True))
    assert sent(services) == [TEXT] * 2


async def test_a_found_id_is_taken(services: Scripted, session: Session) -> None:
    """The same holds where it was no answer that told the id."""
    services.say(1)
    services.script("set", ScriptedFault(end="drop"), DROP_UNSEEN)
    services.script("get", OK, OK, ScriptedFault(body=PAGE_OF_ONE))
    assert await session.peerbet.post(TEXT, confirm=True) == 2
    await unknown(session.peerbet.post(TEXT, confirm=True))
    assert sent(services) == [TEXT] * 2


PAGE_OF_ONE: Final = json.dumps(
    {"status": 1, "users_online": 1, "message_list": [line(1)]}
).encode()
"""What a service shows that lags behind."""


async def test_only_the_latest_posts_are_remembered() -> None:
    """A session that posts for ever does not grow for ever."""
    async with (
        Scripted() as services,
        services.session(rates={"peerbet.chat.set": Rate(0.0)}) as session,
    ):
        for _ in range(MAX_CLAIMED_IDS + 5):
            await session.peerbet.post("x")
        posts = session.peerbet._posts
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
    """Whatever is posted at once and whatever becomes of it: one id for one post, of its text.

    Where all of them are confirmed, each message in the chat is found by somebody.
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
        self.happened = False

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
            self.happened = task.cancel()
        self._left -= 1
        return future


async def cut_off(work: Coroutine[Any, Any, object], at: int) -> bool:
    """Whether *work* could be cancelled where it waits for the *at*-th time."""
    cut = Cut(work, at)

    async def run() -> None:
        await cut

    (result,) = await asyncio.gather(run(), return_exceptions=True)
    expected = asyncio.CancelledError if cut.happened else (type(None), OutcomeUnknownError)
    assert isinstance(result, expected)
    return cut.happened


HISTORIES: Final = {
    "answered": OK,
    "found": DROP,
    "found late": ScriptedFault(end="drop", hidden=3.0),
    "not found": DROP_UNSEEN,
}


@pytest.mark.parametrize("fault", HISTORIES.values(), ids=HISTORIES)
async def test_a_post_can_be_cancelled_at_any_moment(fault: ScriptedFault) -> None:
    """At each of its awaits: nothing is sent twice, nothing hangs, the next post is as good."""
    at, happened = 0, True
    while happened:
        async with Scripted() as services, services.session() as session:
            services.script("set", fault)
            tasks = asyncio.all_tasks()
            happened = await cut_off(session.peerbet.post(TEXT, confirm=True), at)
            assert len(sent(services)) <= 1
            assert [limiter.waiting for limiter in session.limiters.values()] == [0] * 6
            await asyncio.sleep(0.01)  # the server may be about to accept a connection
            assert asyncio.all_tasks() == tasks
            services.faults.clear()
            there = services.newest
            with anyio.fail_after(10):
                assert await session.peerbet.post(TEXT, confirm=True) == there + 1
            assert sent(services)[:-1] in ([], [TEXT])
        at += 1
    assert at > 6


async def test_a_cancelled_post_lets_others_go_on() -> None:
    """Whoever waits for it to say which message is its own waits no longer."""
    at, happened = 0, True
    while happened:
        async with Scripted() as services, services.session() as session:
            services.script("set", ScriptedFault(before=0.5, seconds=3), DROP_UNSEEN)
            first = asyncio.ensure_future(cut_off(session.peerbet.post(TEXT), at))
            other = session.peerbet.post(TEXT, confirm=True)
            with anyio.fail_after(20):
                (result,) = await asyncio.gather(other, return_exceptions=True)
                happened = await first
            # Identical messages stand for each other where nobody else can claim them.
            assert result == 1 if happened else isinstance(result, OutcomeUnknownError)
            assert len(sent(services)) <= 2
        at += 1
    assert at > 3


async def test_whoever_waits_for_another_post_can_be_cancelled() -> None:
    """At each of its awaits, the one for the other post's answer among them."""
    at, happened = 0, True
    while happened:
        async with Scripted() as services, services.session() as session:
            services.script("set", ScriptedFault(before=0.5, seconds=4), DROP_UNSEEN)
            first = asyncio.ensure_future(session.peerbet.post(TEXT))
            await asyncio.sleep(0.2)
            happened = await cut_off(session.peerbet.post(TEXT, confirm=True), at)
            with anyio.fail_after(10):
                assert await first == 1
            assert len(sent(services)) <= 2
        at += 1
    assert at > 6
