"""Peerbet chat v1.0, whole: the facts of the wire, the models, the calls, the stream.

Documented: ``GET /api/chat/?action=get[&key=K][&mid=N][&last=N]`` and
``?action=set&key=K&msg=TEXT[&bot=1]``, at least 1 s apart each; ``mid`` and ``last`` are Int32,
``last`` at most 300, ``msg`` at most 250 characters and encoded by RFC 3986; an answer's ``status``
is 1 for success and 0 for failure.

Not documented, and taken either way: whether a page after ``mid`` is the newest or the oldest
messages that fit, whether ``mid`` itself is in it, its order, and whether ids are contiguous for
one reader (private messages to others have ids too).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final

import msgspec

from .answers import canonical_json, parse_date
from .calls import Caller
from .errors import DecodeError, InvalidRequestError, PythpeerError
from .feed import Poller, Pollers, log_skipped, store_items
from .line import Priority
from .polling import link_entries
from .posting import Poster, ReadBack
from .secret import Secret
from .shapes import to_bool, to_int, to_text
from .splitting import split_text
from .stores.base import Log, Topic
from .streams import OnGap, Stream
from .wire import (
    INT32_MAX,
    Effect,
    Endpoint,
    Json,
    Param,
    ParsedEndpoint,
    Rate,
    Request,
    check_integer,
    check_text,
)

__all__ = ["ChatMessage", "ChatPage", "ChatStream", "Peerbet"]

PATH: Final = "/api/chat/"
MAX_TEXT: Final = 250
MAX_LAST: Final = 300


class ChatMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the chat."""

    id: int
    """Its number; greater is later."""

    sender: str = msgspec.field(name="by")
    """Who wrote it."""

    text: str = msgspec.field(name="msg")
    """What it says."""

    to: str | None = None
    """The wire's own ``to``, ``""`` for everyone; see `recipient`."""

    date: str | None = None
    """The wire's own ``date``; see `sent_at`."""

    is_bot: bool = msgspec.field(name="bot", default=False)
    """Whether a bot posted it and said so."""

    is_mine: bool = msgspec.field(name="my", default=False)
    """Whether the owner of the session's key wrote it; never without a key."""

    is_private: bool = msgspec.field(name="me", default=False)
    """Whether it is a private message."""

    # Worked out when asked for: for each message of a page it would double the cost of the page.

    @property
    def recipient(self) -> str | None:
        """Whom it is to, or ``None`` for everyone."""
        return self.to or None

    @property
    def sent_at(self) -> datetime | None:
        """When it was sent: naive, by the service's clock, whose zone is not documented.

        ``None`` where the service sent no date, or a zero date.
        """
        return parse_date(self.date)


class ChatPage(msgspec.Struct, frozen=True):
    """What one reading of the chat brought."""

    messages: tuple[ChatMessage, ...]
    """Ascending by id, each id once."""

    users_online: int
    """How many users are online, as the service counts them."""

    skipped: int = 0
    """How many messages were left out because they could not be decoded."""


class ChatStream(Stream[ChatMessage]):
    """The messages of the chat as they come, in id order, each once. See `Stream`."""


class Peerbet:
    """The Peerbet services of a session: ``session.peerbet``."""

    def __init__(self, caller: Caller, feeds: Pollers, *, url: str, key: Secret | None) -> None:
        self._caller = caller
        self._feeds = feeds
        self._key = key
        self.read_endpoint, self.post_endpoint = make_read_endpoint(url), make_post_endpoint(url)
        account = key.fingerprint() if key else "nobody"
        self.endpoint_accounts: Final = (
            (self.read_endpoint, account),
            (self.post_endpoint, account),
        )
        """Each endpoint with the account whose requests the service counts."""
        self._topic = Topic(f"peerbet.chat {url} {account}", ChatMessage)
        self._posts = Poster(caller, self._read_back)

    async def messages(self, after: int | None = None, last: int | None = None) -> ChatPage:
        """Read the chat: messages with ids over *after*, or the last 50.

        *after* is the last message id seen, from 0; *last*, from 1 to 300, is how many messages to
        show at most. Private messages come only with a key. A message that cannot be decoded is
        left out and counted. Raises `InvalidRequestError` before anything is sent, and whatever a
        read can fail with.
        """
        if after is not None:
            check_integer("after", after, 0, endpoint=self.read_endpoint.name)
        if last is not None:
            check_integer("last", last, 1, MAX_LAST, endpoint=self.read_endpoint.name)
        page = await self._caller.call(self._request(after, last))
        messages = page.messages
        if after is not None and messages and messages[0].id <= after:
            messages = tuple(message for message in messages if message.id > after)
        return ChatPage(
            messages, page.users_online, len(page.undecodable_ids) + len(page.undecodable)
        )

    async def post(self, text: str, *, bot: bool = False, confirm: bool = False) -> int:
        """Post *text*, 1 to 250 characters, and return the new message's id.

        It leaves at most once: when no answer says what became of it, `OutcomeUnknownError` is
        raised and nothing is repeated. ``bot=True`` marks it as a bot's. Needs the Peerbet key.

        ``confirm=True`` reads the newest message's id beforehand; if that fails, its error is
        raised and nothing was sent. When no answer says what became of the post, the chat is read
        four times within some seven seconds for a public message of one's own, of the same text,
        that no other post of this session is known by, and its id is returned. If there is none,
        or reading fails, it is `OutcomeUnknownError` all the same, with a note that says which:
        the message may still arrive later. The same text cannot be told from this one where it was
        posted elsewhere with the same key meanwhile, or arrives late from an earlier unknown post.
        """
        self._check_posting(bot=bot, confirm=confirm)
        request = self._post_request(text, bot=bot)
        return await self._posts.post(request, text, confirm=confirm)

    async def post_long(
        self,
        text: str,
        *,
        bot: bool = False,
        confirm: bool = False,
        on_part: Callable[[int], object] | None = None,
    ) -> tuple[int, ...]:
        """Post *text* of any length in parts, one after the other, and return their ids.

        The parts are those of `split_text`; blank text has none. *bot* and *confirm* apply to each,
        as in `post`. All of them are checked before the first is sent. Where one fails, its error
        is raised with a note of how many were posted before it, and those after it are not sent.
        *on_part* is called with the id of each part as soon as it is posted.
        """
        self._check_posting(bot=bot, confirm=confirm)
        if on_part is not None and not callable(on_part):
            raise InvalidRequestError(
                "on_part is something to call", endpoint=self.post_endpoint.name
            )
        try:
            parts = split_text(text, MAX_TEXT)
        except InvalidRequestError as error:
            error.endpoint = self.post_endpoint.name
            raise
        requests = [self._post_request(part, bot=bot) for part in parts]
        ids: list[int] = []
        for part, request in zip(parts, requests, strict=True):
            try:
                ids.append(await self._posts.post(request, part, confirm=confirm))
            except PythpeerError as error:
                error.add_note(f"{len(ids)} of {len(parts)} parts were posted before this")
                raise
            if on_part is not None:
                on_part(ids[-1])
        return tuple(ids)

    def chat_stream(
        self, *, after: int | None = None, name: str | None = None, on_gap: OnGap = "log"
    ) -> ChatStream:
        """The chat's messages as they come: ``async for message in session.peerbet.chat_stream()``.

        Starts after the message id *after* (0 is the oldest available); without it, where the
        stream of this *name* left off; without that, with what arrives from now on. Where the
        service may have had more messages than it could show, ``on_gap="log"`` warns and goes on,
        and ``"raise"`` raises `GapError` once; `Stream.gaps` has them either way. To a stream that
        goes on from an empty chat, and to a name under which nothing was acknowledged yet, all that
        came before the oldest available is such a gap; it is none where *after* is given as 0.
        """
        if after is not None:
            check_integer("after", after, 0, endpoint=self.read_endpoint.name)
        feed = self._feeds.get(self._topic, lambda: _ChatSource(self))
        return ChatStream(feed, after=after, name=name, on_gap=on_gap)

    def _check_posting(self, *, bot: object, confirm: object) -> None:
        fault = None
        if self._key is None:
            fault = "posting needs a Peerbet key"
        elif not isinstance(bot, bool):
            fault = "bot is True or False"
        elif not isinstance(confirm, bool):
            fault = "confirm is True or False"
        if fault is not None:
            raise InvalidRequestError(fault, endpoint=self.post_endpoint.name)

    def _post_request(self, text: str, *, bot: bool) -> Request[_PostResponse]:
        check_text("text", text, MAX_TEXT, endpoint=self.post_endpoint.name)
        params: dict[str, Param] = {"key": self._key, "msg": text, "bot": 1 if bot else None}
        return Request(self.post_endpoint, params)

    async def _read_back(self, after: int | None) -> ReadBack:
        """What came after *after*, or the newest message: for posts that seek theirs."""
        page = await self._caller.call(self._request(after, 1 if after is None else MAX_LAST))
        known = page.by_id()
        if after is None and page.undecodable and not known:
            raise DecodeError(
                "the newest message cannot be decoded", endpoint=self.read_endpoint.name
            )
        mine = {
            message.id: message.text
            for message in page.messages
            if message.is_mine and not message.is_private
        }
        return ReadBack(max(known, default=0), mine, page.is_full)

    def _request(self, after: int | None, last: int | None) -> Request[_Page]:
        return Request(self.read_endpoint, {"key": self._key, "mid": after, "last": last})


class _ChatSource:
    """Polls the chat by last message id."""

    def __init__(self, peerbet: Peerbet) -> None:
        self._peerbet = peerbet
        self.name: Final = peerbet.read_endpoint.name
        self._positioned_last_time = False
        self._reported_undecodable: deque[bytes] = deque(maxlen=MAX_LAST)

    async def drain(self) -> None:
        """Nothing: what was not put down can be read again."""

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        """A stream that starts from now on has to see first where the chat is."""
        return None

    async def poll(self, feed: Poller[ChatMessage]) -> PythpeerError | None:
        """Read what came after the lowest place of the streams that wait."""
        peerbet = self._peerbet
        permit = await peerbet._caller.acquire_permit(peerbet.read_endpoint, Priority.POLL)
        feed.in_flight = True
        # Only now that there is a token: more streams may have come to wait meanwhile.
        # Newcomers that have to see first where the chat is must not keep the others waiting.
        homeless = feed.has_unpositioned and not (
            self._positioned_last_time and feed.has_positioned
        )
        self._positioned_last_time = homeless
        after = feed.min_position
        request = peerbet._request(None, 1) if homeless else peerbet._request(after, MAX_LAST)
        page = await peerbet._caller.try_once(request, permit, feed.attempt)
        if isinstance(page, PythpeerError):
            return page
        strays = self._report_undecodable(page, feed)
        known = page.by_id()
        if homeless:
            if not known and page.undecodable:
                return DecodeError("the newest message cannot be decoded", endpoint=self.name)
            feed.set_initial_position(max(known, default=0))
            return None
        feed.update_newest(max(known, default=0))
        drafts = link_entries(after, known, full=page.is_full)
        await store_items(
            feed.hooks, self.name, feed.log, drafts, received=len(known), undecodable=strays
        )
        feed.confirm(after, full=page.is_full)
        return None

    def _report_undecodable(self, page: _Page, feed: Poller[ChatMessage]) -> int:
        """Warn of each that is new, and say how many are."""
        before = feed.skipped
        for stray in page.undecodable:
            if stray not in self._reported_undecodable:
                self._reported_undecodable.append(stray)
                feed.skipped += 1
                log_skipped(self.name)
        return feed.skipped - before


# -- the wire -------------------------------------------------------------------------------------


class _Page(msgspec.Struct, frozen=True):
    """An answer to ``action=get``, in order."""

    messages: tuple[ChatMessage, ...]
    users_online: int
    undecodable_ids: tuple[int, ...] = ()
    """The ids of messages of which nothing else could be decoded."""
    undecodable: tuple[bytes, ...] = ()
    """Messages without so much as an id, as they came."""

    @property
    def is_full(self) -> bool:
        """Whether the service may have had more messages than it could show."""
        return len(self.messages) + len(self.undecodable_ids) + len(self.undecodable) >= MAX_LAST

    def by_id(self) -> dict[int, ChatMessage | None]:
        """Every id that was shown, with its message or the lack of one."""
        known: dict[int, ChatMessage | None] = dict.fromkeys(self.undecodable_ids)
        known.update({message.id: message for message in self.messages})
        return known


class _DocumentedPage(msgspec.Struct, frozen=True, gc=False):
    """An answer to ``action=get`` that is just as documented."""

    status: int
    message_list: list[ChatMessage]
    users_online: int


class _PostResponse(msgspec.Struct, frozen=True):
    """An answer to ``action=set``."""

    status: int | bool
    mid: Annotated[int, msgspec.Meta(ge=1, le=INT32_MAX)]
    """PHP says 0 where nothing was inserted."""


def make_read_endpoint(url: str) -> Endpoint[_Page]:
    """Reading: ``action=get``. https://www.peerbet.org/developers/peerbet_v1/?type=chat."""
    return ParsedEndpoint(
        "peerbet.chat.get",
        url + PATH,
        query={"action": "get"},
        rate=Rate(1.0),
        parse=_parse_page,
        parse_fast=_parse_page_fast,
    )


def make_post_endpoint(url: str) -> Endpoint[_PostResponse]:
    """Posting: ``action=set``. https://www.peerbet.org/developers/peerbet_v1/?type=chat."""
    return Endpoint(
        "peerbet.chat.set",
        url + PATH,
        query={"action": "set"},
        effect=Effect.WRITE,
        rate=Rate(1.0),
        answer=_PostResponse,
    )


_decode_page: Final = msgspec.json.Decoder(_DocumentedPage, strict=False).decode


def _parse_page_fast(body: bytes) -> _Page:
    """The fast way: a page as documented."""
    page = _decode_page(body)
    if page.status != 1:
        raise ValueError("not a success")
    messages = _sorted_unique(page.message_list)
    if messages and not 0 <= messages[0].id <= messages[-1].id <= INT32_MAX:
        raise ValueError("an id that is none")  # followed, it would carry a cursor past all others
    return _Page(messages, page.users_online)


def _sorted_unique(messages: list[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Ascending by id, each id once."""
    last = -1
    for message in messages:
        if message.id <= last:
            break
        last = message.id
    else:
        return tuple(messages)
    by_id = {message.id: message for message in messages}
    return tuple(by_id[id] for id in sorted(by_id))


def _parse_page(document: Json) -> _Page:
    """The lenient way: message by message, so that a bad one does not hide its neighbours."""
    if not isinstance(document, dict) or "message_list" not in document:
        raise ValueError("no message list")
    found = document["message_list"]
    if isinstance(found, dict):
        found = list(found.values())  # how PHP writes a list with holes in it
    if found is not None and not isinstance(found, list):
        raise ValueError("no message list")
    messages: list[ChatMessage] = []
    holes: set[int] = set()
    strays: list[bytes] = []
    for item in found or ():
        message, id = _parse_message(item)
        if message is not None:
            messages.append(message)
        elif id is not None:
            holes.add(id)
        else:
            strays.append(canonical_json(item))
    holes -= {message.id for message in messages}
    online = to_int(document.get("users_online")) or 0
    return _Page(_sorted_unique(messages), online, tuple(sorted(holes)), tuple(strays))


def _parse_message(item: Json) -> tuple[ChatMessage | None, int | None]:
    """One message in whatever types it came, or at least its id."""
    if not isinstance(item, dict):
        return None, None
    id = parse_id(item.get("id"))
    try:
        message = msgspec.convert(item, ChatMessage, strict=False)  # as nearly all of them are
    except ValueError:
        pass
    else:
        if message.id == id:
            return message, id
    sender, words = to_text(item.get("by")), to_text(item.get("msg"))
    if id is None or sender is None or words is None:
        return None, id
    message = ChatMessage(
        id,
        sender,
        words,
        to_text(item.get("to")),
        to_text(item.get("date")),
        to_bool(item.get("bot")) or False,
        to_bool(item.get("my")) or False,
        to_bool(item.get("me")) or False,
    )
    return message, id


def parse_id(value: Json) -> int | None:
    found = to_int(value)
    return found if found is not None and 0 <= found <= INT32_MAX else None
