"""Posts: each leaves once, and one that nothing answered is looked for in what the service shows.

Nothing here sends a post a second time, whatever is found or not found.
"""

from __future__ import annotations

import asyncio
import html
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import anyio
import msgspec

from .calls import Caller
from .errors import OutcomeUnknownError, PythpeerError
from .line import Priority
from .wire import Request

__all__ = ["PostResponse", "Poster", "ReadBack"]

LOOKUP_DELAYS: Final = (0.0, 1.0, 2.0, 4.0)
"""Seconds before each look for a message, which may become visible late."""

MAX_LOOKUP_PAGES: Final = 10
"""How many pages one look turns at most, where the service shows the oldest messages first."""

MAX_CLAIMED_IDS: Final = 1000
"""How many of the latest ids are remembered, so that no two posts are told the same."""


class PostResponse(Protocol):
    """What a service answers to a post."""

    @property
    def mid(self) -> int:
        """The new message's id."""
        ...


class ReadBack(msgspec.Struct, frozen=True):
    """What one reading showed."""

    newest: int
    """The greatest id of all, 0 without any."""

    own_texts: Mapping[int, str]
    """The texts of one's own public messages by id, ascending."""

    full: bool
    """Whether there may be more messages than it could show."""


class Poster:
    """The posts of one session: those under way, and the ids that are some post's already.

    *read* shows what came after an id, or the newest message after ``None``.
    """

    def __init__(self, caller: Caller, read: Callable[[int | None], Awaitable[ReadBack]]) -> None:
        self._caller = caller
        self._read = read
        self._in_flight: set[_InFlightPost] = set()
        self._claimed_ids: deque[int] = deque(maxlen=MAX_CLAIMED_IDS)

    async def post(self, request: Request[PostResponse], text: str, *, confirm: bool) -> int:
        """Send *request*, which posts *text*, and return the id; with *confirm* seek it if need be.

        Raises whatever reading fails with before anything is sent; after that nothing but what
        became of the post.
        """
        newest = (await self._read(None)).newest if confirm else None
        answer = await self._send(request, text)
        if isinstance(answer, int):
            return answer
        if isinstance(answer, OutcomeUnknownError) and newest is not None:
            try:
                found = await self._find_posted(text, newest)
            except PythpeerError as error:
                answer.add_note(f"reading back failed: {error}")
            else:
                if found is not None:
                    return found
                answer.add_note("reading back did not find it; it may still arrive")
        raise answer

    async def _send(self, request: Request[PostResponse], text: str) -> int | PythpeerError:
        caller = self._caller
        permit = await caller.acquire_permit(request.endpoint, Priority.WRITE, caller.max_wait)
        post = _InFlightPost(text)
        self._in_flight.add(post)
        try:
            answer = await caller.try_once(request, permit)
            if isinstance(answer, PythpeerError):
                return answer
            self._claimed_ids.append(answer.mid)
            return answer.mid
        finally:
            self._in_flight.remove(post)
            post.done.set()

    async def _find_posted(self, text: str, after: int) -> int | None:
        """Look for *text* among the messages after *after*, a few times."""
        for pause in LOOKUP_DELAYS:
            await anyio.sleep(pause)
            found = await self._search_once(text, after)
            if found is not None:
                return found
        return None

    async def _search_once(self, text: str, after: int) -> int | None:
        """Look once, through as many pages as there are."""
        for _ in range(MAX_LOOKUP_PAGES):
            shown = await self._read(after)
            ids = [
                id
                for id, words in shown.own_texts.items()
                if id > after and _is_same_text(text, words)
            ]
            await self._await_in_flight({shown.own_texts[id] for id in ids})
            for id in ids:
                if id not in self._claimed_ids:
                    self._claimed_ids.append(id)
                    return id
            if not shown.full or shown.newest <= after:
                break
            after = shown.newest
        return None

    async def _await_in_flight(self, texts: set[str]) -> None:
        """Let the posts under way that may be shown as one of *texts* say first which is theirs.

        A page shows nothing that was sent after it, so those that start meanwhile do not matter.
        """
        for post in list(self._in_flight):
            if any(_is_same_text(post.text, words) for words in texts):
                await post.done.wait()


class _InFlightPost:
    """A post that is being sent."""

    __slots__ = ("done", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.done = asyncio.Event()
        """It was answered, and its id is taken; or nobody knows what became of it."""


def _is_same_text(text: str, shown: str) -> bool:
    """Whether *text* may be shown like that: trimmed, with other blanks, or escaped for HTML."""
    words = text.split()
    return words == shown.split() or words == html.unescape(shown).split()
