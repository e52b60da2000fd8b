"""Posts whose outcome is looked up in the chat, and posts that are too long for one message."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from typing import Final

import pytest
from scripted import (
    CUT,
    DENIED,
    DROP,
    DROP_UNSEEN,
    ERROR_500,
    GARBAGE,
    HANG,
    Fault,
    Scripted,
    Window,
    line,
)

from pythpeer import (
    AccessDeniedError,
    HttpStatusError,
    InvalidRequestError,
    OutcomeUnknownError,
    Rate,
    Retry,
    Session,
)

pytestmark = pytest.mark.anyio

LOST: Final = {
    "dropped": DROP,
    "cut": CUT,
    "no answer in time": HANG,
    "garbage": GARBAGE,
    "500": ERROR_500,
}
"""Answers that do not say what became of a post that did happen."""


class Chat(Scripted):
    """Knows which messages the session posted, and can show them later than they come."""

    def __init__(self, *, window: Window = "newest") -> None:
        super().__init__(window=window)
        self.shown_after = 0.0
        self.spelling = "{}"

    def post(self, text: str, *, mine: bool = True) -> int:
        id = self.newest + 1
        loop = asyncio.get_running_loop()
        spoken = line(id, self.spelling.format(text)) | {"my": int(mine)}
        self.lines.append((id, {"id": 0} if self.shown_after else spoken))
        at = len(self.lines) - 1
        loop.call_later(self.shown_after, self.lines.__setitem__, at, (id, spoken))
        return id

    def _answer(self, kind: str, params: dict[str, str]) -> object:
        if kind == "set":
            return {"status": 1, "mid": self.post(params["msg"])}
        return super()._answer(kind, params)


@pytest.fixture(params=["newest", "oldest"])
async def chat(request: pytest.FixtureRequest) -> AsyncIterator[Chat]:
    async with Chat(window=request.param) as chat:
        yield chat


@pytest.fixture
async def session(chat: Chat) -> AsyncIterator[Session]:
    rates = dict.fromkeys(("peerbet.chat.get", "peerbet.chat.set"), Rate(1.0, guard=0.0))
    async with chat.session(rates=rates, retry=Retry(attempts=2, max_delay=0.1)) as session:
        yield session


# -- posts that are looked up ---------------------------------------------------------------------


@pytest.mark.parametrize("fault", LOST)
async def test_a_post_that_happened_is_found(chat: Chat, session: Session, fault: str) -> None:
    """Its id is returned as if it had been answered, and it left once."""
    chat.say(5)
    chat.script("set", LOST[fault])
    assert await session.peerbet.post("hello", confirm=True) == chat.newest == 6
    assert len(chat.asked("set")) == 1


async def test_a_post_that_is_answered_is_not_looked_for(chat: Chat, session: Session) -> None:
    """One look before it, to know what was there, and none behind it."""
    assert await session.peerbet.post("hello", confirm=True) == 1
    assert [asked.kind for asked in chat.requests] == ["get", "set"]


async def test_a_post_that_is_not_there_stays_unknown(chat: Chat, session: Session) -> None:
    """It could still appear, so the error says neither yes nor no; nothing is posted again."""
    chat.script("set", DROP_UNSEEN)
    with pytest.raises(OutcomeUnknownError) as caught:
        await session.peerbet.post("hello", confirm=True)
    assert "could still appear" in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert [asked.kind for asked in chat.requests] == ["get", "set", "get", "get", "get"]


async def test_a_post_that_shows_late_is_found(chat: Chat, session: Session) -> None:
    """The chat is read more than once for it."""
    chat.shown_after = 1.5
    chat.script("set", DROP)
    assert await session.peerbet.post("hello", confirm=True) == 1


@pytest.mark.parametrize("spelling", ["{} ", "  {}", "{}\r\n"])
async def test_a_post_is_known_by_its_words(chat: Chat, session: Session, spelling: str) -> None:
    """The service may trim it, and escape it for HTML."""
    chat.spelling = spelling.replace("{}", "1 &lt; 2 &amp; so on")
    chat.script("set", DROP)
    assert await session.peerbet.post("1 < 2 & so on", confirm=True) == 1


async def test_what_was_there_before_is_not_taken_for_it(chat: Chat, session: Session) -> None:
    """The same words of ours from before, and of others at any time, prove nothing."""
    chat.post("hello")
    asyncio.get_running_loop().call_later(0.5, lambda: chat.post("hello", mine=False))
    chat.script("set", Fault(effect=False, before=1.0, end="drop"))
    with pytest.raises(OutcomeUnknownError):
        await session.peerbet.post("hello", confirm=True)


async def test_two_posts_of_the_same_words_are_two(chat: Chat, session: Session) -> None:
    """Where one of them happened, one is found, and the other one stays unknown."""
    chat.script("set", DROP, DROP_UNSEEN)
    posts = [session.peerbet.post("hello", confirm=True) for _ in range(2)]
    found = await asyncio.gather(*posts, return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["OutcomeUnknownError", "int"]
    chat.script("set", DROP, DROP)
    posts = [session.peerbet.post("hello", confirm=True) for _ in range(2)]
    assert sorted(await asyncio.gather(*posts)) == [2, 3]


async def test_one_message_is_not_found_twice(chat: Chat) -> None:
    """Two lost posts that look at the same time find one each, or one of them none."""
    rates = dict.fromkeys(("peerbet.chat.get", "peerbet.chat.set"), Rate(0.0))
    async with chat.session(rates=rates) as session:
        for faults, found in (((DROP, DROP), {1, 2}), ((DROP, DROP_UNSEEN), {3, None})):
            chat.script("set", *faults)
            posts = [session.peerbet.post("hello", confirm=True) for _ in faults]
            results = await asyncio.gather(*posts, return_exceptions=True)
            assert {each if isinstance(each, int) else None for each in results} == found


async def test_a_post_under_way_is_not_taken_for_another(chat: Chat, session: Session) -> None:
    """What the chat shows may be the one whose answer is still on its way."""
    chat.script("set", Fault(effect=False, end="drop"), Fault(after=2.5))
    lost = asyncio.ensure_future(session.peerbet.post("hello", confirm=True))
    await asyncio.sleep(0.5)
    slow = asyncio.ensure_future(session.peerbet.post("hello"))
    assert await slow == 1
    with pytest.raises(OutcomeUnknownError):
        await lost


async def test_it_is_found_behind_more_than_a_page(chat: Chat, session: Session) -> None:
    """Where the oldest come first, the pages behind are read as well."""
    asyncio.get_running_loop().call_later(0.5, chat.say, 500)
    chat.script("set", Fault(before=1.0, end="drop"))
    assert await session.peerbet.post("hello", confirm=True) == 501


async def test_a_failure_before_the_post_is_just_that(chat: Chat, session: Session) -> None:
    """Nothing was posted then."""
    chat.constant["get"] = DENIED
    with pytest.raises(AccessDeniedError):
        await session.peerbet.post("hello", confirm=True)
    assert not chat.asked("set")


async def test_a_failure_of_the_look_leaves_it_unknown(chat: Chat, session: Session) -> None:
    """The error is the post's own, not that of looking."""
    chat.script("get", Fault())
    chat.constant["get"] = DENIED
    chat.script("set", DROP)
    with pytest.raises(OutcomeUnknownError):
        await session.peerbet.post("hello", confirm=True)


async def test_a_clear_no_is_not_looked_up(chat: Chat, session: Session) -> None:
    """Only what is unknown is."""
    chat.script("set", Fault(effect=False, status=404, body=b""))
    with pytest.raises(HttpStatusError):
        await session.peerbet.post("hello", confirm=True)
    assert len(chat.asked("get")) == 1


@pytest.mark.parametrize("at", [n / 4 for n in range(1, 22)])
async def test_it_can_be_cancelled_at_any_time(chat: Chat, session: Session, at: float) -> None:
    """It posts once at most, and the next one is not disturbed by it."""
    chat.script("get", Fault(after=0.6), Fault(after=0.6), Fault(after=0.6), Fault(after=0.6))
    chat.script("set", Fault(effect=False, after=0.7, end="drop"))
    post = asyncio.ensure_future(session.peerbet.post("hello", confirm=True))
    await asyncio.wait([post], timeout=at)
    post.cancel()
    await asyncio.wait([post])
    assert len(chat.asked("set")) <= 1
    chat.faults.clear()
    async with asyncio.timeout(10):
        assert await session.peerbet.post("hello", confirm=True) == 1


@pytest.mark.parametrize("confirm", [1, None, "yes"])
async def test_confirm_is_yes_or_no(session: Session, confirm: bool) -> None:
    """Anything else is refused before anything is sent."""
    with pytest.raises(InvalidRequestError, match="confirm"):
        await session.peerbet.post("hello", confirm=confirm)


# -- long posts -----------------------------------------------------------------------------------

LONG: Final = " ".join(f"word{number}" for number in range(100))


async def test_a_long_text_is_posted_in_parts(chat: Chat, session: Session) -> None:
    """In order, whole, and an interval apart."""
    ids = await session.peerbet.post_long(LONG, bot=True)
    assert ids == (1, 2, 3)
    said = [asked.params["msg"] for asked in chat.asked("set")]
    assert " ".join(said) == LONG
    assert max(map(len, said)) <= 250
    assert {asked.params["bot"] for asked in chat.asked("set")} == {"1"}


async def test_a_short_text_is_one_part(chat: Chat, session: Session) -> None:
    """As if `post` had been asked."""
    assert await session.peerbet.post_long("hello") == (1,)


async def test_what_fails_in_the_middle_says_how_far_it_came(chat: Chat, session: Session) -> None:
    """And nothing is posted behind it."""
    chat.script("set", Fault(), DROP)
    with pytest.raises(OutcomeUnknownError) as caught:
        await session.peerbet.post_long(LONG)
    assert caught.value.__notes__ == ["1 of 3 parts were posted before"]
    assert len(chat.asked("set")) == 2


async def test_long_posts_are_looked_up_part_by_part(chat: Chat, session: Session) -> None:
    """With ``confirm`` a lost answer in the middle ends nothing."""
    chat.script("set", Fault(), DROP)
    assert await session.peerbet.post_long(LONG, confirm=True) == (1, 2, 3)


@pytest.mark.parametrize("text", ["", "  \n", None, "a\ud800", "word " * 60 + "\0"])
async def test_what_cannot_be_posted_whole_is_not_begun(
    chat: Chat, session: Session, text: str
) -> None:
    """Every part is checked before the first one leaves."""
    with pytest.raises(InvalidRequestError):
        await session.peerbet.post_long(text)
    assert not chat.requests
