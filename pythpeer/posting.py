"""Posts: each is sent at most once, and looked for in the chat if its outcome is unknown.

Nothing here sends a post a second time, whether or not it is found.
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
from .pacing.queue import Priority
from .wire.request import Request

__all__ = ["PostResponse", "Poster", "ReadBack"]

LOOKUP_DELAYS: Final = (0.0, 1.0, 2.0, 4.0)
"""Seconds before each search for a post, which may become visible with a delay."""

MAX_LOOKUP_PAGES: Final = 10
"""How many pages one search reads at most, if the service returns the oldest messages first."""

MAX_CLAIMED_IDS: Final = 1000
"""How many of the latest claimed ids are kept, so that no two posts get the same id."""


class PostResponse(Protocol):
    """The response to a post."""

    @property
    def mid(self) -> int:
        """The new message's id."""
        ...


class ReadBack(msgspec.Struct, frozen=True):
    """One page of the chat, as far as a search for a post needs it."""

    newest: int
    """The highest id on the page, 0 if it is empty."""

    own_texts: Mapping[int, str]
    """The texts of the key owner's public messages by id, ascending."""

    full: bool
    """Whether the service may have had more messages than fit on the page."""


class Poster:
    """Sends the posts of one session, and finds the ids of those whose outcome is unknown.

    *read* returns the page of messages with ids over its first argument, or the newest message for
    ``None``, within the time limit that is its second argument, or else that of the session.
    """

    # Invariant: an id is claimed by at most one post, while it is among the latest 1000.

    def __init__(
        self, caller: Caller, read: Callable[[int | None, float | None], Awaitable[ReadBack]]
    ) -> None:
        self._caller = caller
        """Gets tokens and sends requests."""
        self._read = read
        """Reads a page of the chat."""
        self._in_flight: set[_InFlightPost] = set()
        """The posts that are being sent. `_try_send` adds and removes them."""
        self._claimed_ids: deque[int] = deque(maxlen=MAX_CLAIMED_IDS)
        """The latest ids that are known to belong to a post, from a response or a search."""

    async def post(self, request: Request[PostResponse], text: str, *, confirm: bool) -> int:
        """Send *request*, which posts *text*, and return the new message's id.

        With *confirm* a post whose outcome is unknown is searched for in the chat. Raises the error
        of the read before the post, in which case nothing was sent; after that only the error of
        the post itself.
        """
        timeout = request.endpoint.timeout
        newest = (await self._read(None, timeout)).newest if confirm else None
        result = await self._try_send(request, text)
        if isinstance(result, int):
            return result
        if isinstance(result, OutcomeUnknownError) and newest is not None:
            try:
                posted_id = await self._find_posted(text, newest, timeout)
            except PythpeerError as error:
                result.add_note(f"reading back failed: {error}")
            else:
                if posted_id is not None:
                    return posted_id
                result.add_note("reading back did not find it; it may still arrive")
        try:
            raise result
        finally:
            del result  # otherwise the error and this frame would refer to each other

    async def _try_send(self, request: Request[PostResponse], text: str) -> int | PythpeerError:
        """Send *request* once. Returns the new message's id, or the error as a value."""
        caller = self._caller
        permit = await caller.acquire_permit(request.endpoint, Priority.WRITE, caller.max_wait)
        post = _InFlightPost(text)
        self._in_flight.add(post)
        try:
            result = await caller.try_once(request, permit)
            if isinstance(result, PythpeerError):
                return result
            self._claimed_ids.append(result.mid)
            return result.mid
        finally:
            self._in_flight.remove(post)
            post.done.set()

    async def _find_posted(self, text: str, after: int, timeout: float | None) -> int | None:
        """Search for *text* among the messages with ids over *after*, up to four times."""
        for delay in LOOKUP_DELAYS:
            await anyio.sleep(delay)
            posted_id = await self._search_once(text, after, timeout)
            if posted_id is not None:
                return posted_id
        return None

    async def _search_once(self, text: str, after: int, timeout: float | None) -> int | None:
        """Search through all pages, up to `MAX_LOOKUP_PAGES`. Claims and returns the id."""
        for _ in range(MAX_LOOKUP_PAGES):
            page = await self._read(after, timeout)
            ids = [
                id
                for id, own_text in page.own_texts.items()
                if id > after and _is_same_text(text, own_text)
            ]
            await self._await_in_flight({page.own_texts[id] for id in ids})
            for id in ids:
                if id not in self._claimed_ids:
                    self._claimed_ids.append(id)
                    return id
            if not page.full or page.newest <= after:
                break
            after = page.newest
        return None

    async def _await_in_flight(self, texts: set[str]) -> None:
        """Wait for the posts in flight whose text is among *texts*: they claim their ids first.

        A page shows nothing that was sent after it, so posts that start during the wait do not
        matter.
        """
        for post in list(self._in_flight):
            if any(_is_same_text(post.text, shown_text) for shown_text in texts):
                await post.done.wait()


class _InFlightPost:
    """A post that is being sent."""

    __slots__ = ("done", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        """The text that is posted."""
        self.done = asyncio.Event()
        """Set when the post has claimed its id, or has failed."""


def _is_same_text(text: str, shown_text: str) -> bool:
    """Whether the service may show *text* like that: other white space, or escaped for HTML."""
    words = text.split()
    return words == shown_text.split() or words == html.unescape(shown_text).split()
