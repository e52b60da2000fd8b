"""The client of Peerbet chat v1.0: protocol, models, calls and stream.

Documented: ``GET /api/chat/?action=get[&key=K][&mid=N][&last=N]`` and
``?action=set&key=K&msg=TEXT[&bot=1]``, at least 1 s apart each; ``mid`` and ``last`` are Int32,
``last`` at most 300, ``msg`` at most 250 characters and encoded by RFC 3986; a response's
``status`` is 1 for success and 0 for failure.

Undocumented, and both variants are supported: whether a page after ``mid`` has the newest or the
oldest messages that fit, whether it includes ``mid`` itself, its order, and whether ids are
contiguous for one reader (private messages to others have ids too).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from .calls import Caller
from .dice import (
    BITCOIN,
    MAX_SEED,
    DiceRoll,
    Side,
    make_roll_endpoint,
    roll_params,
    unknown_roll,
)
from .errors import (
    DecodeError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
)
from .pacing.bucket import Rate
from .posting import Poster, ReadBack
from .secret import Secret, account_of
from .splitting import split_text
from .stores.base import Topic
from .streams.numbered import NumberedSource
from .streams.poller import Pollers
from .streams.stream import OnGap, Stream
from .validation import INT32_MAX, check_integer, check_text
from .wire.endpoints import Effect, Endpoint, ParsedEndpoint
from .wire.fields import parse_date, to_bool, to_int, to_text
from .wire.lenient_json import canonical_json
from .wire.query import Json, Param
from .wire.request import Request

__all__ = ["ChatMessage", "ChatPage", "ChatStream", "Peerbet"]

PATH: Final = "/api/chat/"
"""The path of both endpoints."""

MAX_TEXT: Final = 250
"""Characters of one message at most, as documented."""

DENIED_HINT: Final = "set peerbet_key, or PYTHPEER_PEERBET_KEY, to a key that is valid"
"""What to do if the key is rejected."""

TOO_LONG_ADVICE: Final = "post_long() posts a long text in parts"
"""What to do with a text of more than `MAX_TEXT` characters."""

MAX_LAST: Final = 300
"""Messages on one page at most, as documented."""


class ChatMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the chat.

    It prints `recipient` and `sent_at`, which are computed from the fields *to* and *date* that the
    service sent.
    """

    id: int
    """The message id; a later message has a higher id."""

    sender: str = msgspec.field(name="by")
    """The user name of the sender."""

    text: str = msgspec.field(name="msg")
    """The text of the message, with any control characters in it: print it with ``!r``."""

    to: str | None = None
    """The field ``to`` as the service sent it, ``""`` for everyone: use `recipient`."""

    date: str | None = None
    """The field ``date`` as the service sent it, a text: use `sent_at`."""

    is_bot: bool = msgspec.field(name="bot", default=False)
    """Whether the message was posted with the mark of a bot."""

    is_mine: bool = msgspec.field(name="my", default=False)
    """Whether the owner of the session's key wrote it; always false without a key."""

    is_private: bool = msgspec.field(name="me", default=False)
    """Whether it is a private message."""

    # Properties, not fields: computed for each message they would double the cost of a page.

    @property
    def recipient(self) -> str | None:
        """The user name of the recipient, ``None`` for everyone."""
        return self.to or None

    @property
    def sent_at(self) -> datetime | None:
        """The time of sending, naive, by the service's clock, whose time zone is undocumented.

        ``None`` if the service sent no date, or a zero date.
        """
        return parse_date(self.date)

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what is printed: also by rich, which otherwise prints the fields as sent."""
        return [
            ("id", self.id),
            ("sender", self.sender),
            ("text", self.text),
            ("recipient", self.recipient),
            ("sent_at", self.sent_at),
            ("is_bot", self.is_bot),
            ("is_mine", self.is_mine),
            ("is_private", self.is_private),
        ]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"


class ChatPage(msgspec.Struct, frozen=True):
    """One page of the chat."""

    messages: tuple[ChatMessage, ...]
    """Ascending by id, each id once."""

    users_online: int
    """The number of users who are online, as the service counts them."""

    skipped: int = 0
    """The number of messages that were left out because they could not be decoded."""


class ChatStream(Stream[ChatMessage]):
    """The messages of the chat as they arrive, in id order. See `Stream`.

    A message that arrives within seconds after one with a higher id is returned then, out of order.
    """


class Peerbet:
    """The Peerbet services of a session: ``session.peerbet``."""

    def __init__(
        self,
        caller: Caller,
        pollers: Pollers,
        *,
        url: str,
        key: Secret | None,
        idle_check: float = 60.0,
    ) -> None:
        self._caller = caller
        """Runs all calls."""
        self._idle_check = idle_check
        """Seconds without a new message after which a stream reads the newest id; 0 for never."""
        self._pollers = pollers
        """The pollers of all streams of the session."""
        self._key = key
        """The key, ``None`` without one."""
        # Comments, because the reference shows what has a docstring: the endpoints of the chat are
        # internal, for the session and the doctor, and never change.
        self.read_endpoint: Final[Endpoint[_Page]] = make_read_endpoint(url)
        self.post_endpoint: Final[Endpoint[_PostResponse]] = make_post_endpoint(url)
        self.roll_endpoint: Final[Endpoint[DiceRoll]] = make_roll_endpoint(url, DENIED_HINT)
        self._client_seed: int | None = None
        """The client's seed of the next roll, from the last response. Set by `roll`."""
        account = account_of(key)
        self.endpoint_accounts: Final = (
            (self.read_endpoint, account),
            (self.post_endpoint, account),
            (self.roll_endpoint, account),
        )
        """Each endpoint with the account whose requests the service counts."""
        self._topic = Topic(f"peerbet.chat {url} {account}", ChatMessage)
        """The log of the chat, one for each account."""
        self._poster = Poster(caller, self._read_back)
        """Sends posts, and searches the chat for those whose outcome is unknown."""

    async def messages(
        self, after: int | None = None, last: int | None = None, *, timeout: float | None = None
    ) -> ChatPage:
        """Read one page of the chat; without arguments the last 50 messages.

        Private messages are included only with a key. A message that cannot be decoded is left out
        and counted.

        Args:
            after: Return only messages with ids over this one, from 0. By default the service
                returns the latest.
            last: Return this many messages at most, from 1 to 300. By default the service decides.
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            PythpeerError: If the read failed.
        """
        if after is not None:
            check_integer("after", after, 0, endpoint=self.read_endpoint.name)
        if last is not None:
            check_integer("last", last, 1, MAX_LAST, endpoint=self.read_endpoint.name)
        page = await self._caller.call(self._page_request(after, last, timeout))
        messages = page.messages
        if after is not None and messages and messages[0].id <= after:
            messages = tuple(message for message in messages if message.id > after)
        return ChatPage(
            messages, page.users_online, len(page.undecodable_ids) + len(page.undecodable)
        )

    async def post(
        self, text: str, *, bot: bool = False, confirm: bool = False, timeout: float | None = None
    ) -> int:
        """Post *text* and return the new message's id. Needs the Peerbet key.

        It leaves at most once: when the outcome is unknown, `OutcomeUnknownError` is raised and
        nothing is repeated.

        With ``confirm=True`` the newest message's id is read before the post; if that fails, its
        error is raised and nothing was sent. When the outcome of the post is unknown, the chat is
        read four times within some eight seconds, in search of a public message of the same text by
        the owner of the key whose id belongs to no other post of this session. Its id is returned.
        If there is none, or reading fails, `OutcomeUnknownError` is still raised, with a note that
        names the reason: the message may arrive later. It helps within this call only: after a
        restart nothing is known of posts of an earlier run. A message of the same text cannot be
        told apart from this one if another program posts it with the same key in that time, or if
        it arrives late from an earlier post of unknown outcome.

        Args:
            text: The text, 1 to 250 characters.
            bot: Mark the message as posted by a bot.
            confirm: Search the chat for the message when the outcome of the post is unknown.
            timeout: Seconds of one attempt at most, in place of those of the session. It applies to
                the post, and to each read of the chat for *confirm*.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            MissingKeyError: If there is no Peerbet key; nothing was sent.
            OutcomeUnknownError: If the message may or may not have been posted.
            PythpeerError: If the post failed; nothing was posted.
        """
        self._check_posting(bot=bot, confirm=confirm)
        request = self._post_request(text, bot=bot, timeout=timeout)
        return await self._poster.post(request, text, confirm=confirm)

    async def post_long(
        self,
        text: str,
        *,
        bot: bool = False,
        confirm: bool = False,
        timeout: float | None = None,
        on_part: Callable[[int], object] | None = None,
    ) -> tuple[int, ...]:
        """Post *text* of any length in parts, one after the other, and return their ids in order.

        All parts are checked before the first is sent. If a part fails, its error is raised with a
        note of how many parts were posted before it, and no further part is sent. Called again with
        the same text, it posts those parts again: collect their ids with *on_part*, and post only
        the rest of the parts of `split_text`.

        Args:
            text: The text. Its parts are those of `split_text`; blank text has no parts.
            bot: As in `post`, for each part.
            confirm: As in `post`, for each part.
            timeout: As in `post`, for each part.
            on_part: Called with the id of each part as soon as it is posted.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            MissingKeyError: If there is no Peerbet key; nothing was sent.
            OutcomeUnknownError: If a part may or may not have been posted.
            PythpeerError: If a part failed.
        """
        self._check_posting(bot=bot, confirm=confirm)
        if on_part is not None and not callable(on_part):
            raise InvalidRequestError("on_part must be callable", endpoint=self.post_endpoint.name)
        self.post_endpoint.with_timeout(timeout)  # a text without parts needs valid arguments, too
        try:
            parts = split_text(text, MAX_TEXT)
        except InvalidRequestError as error:
            error.endpoint = self.post_endpoint.name
            raise
        requests = [self._post_request(part, bot=bot, timeout=timeout) for part in parts]
        ids: list[int] = []
        for part, request in zip(parts, requests, strict=True):
            try:
                ids.append(await self._poster.post(request, part, confirm=confirm))
            except PythpeerError as error:
                error.add_note(f"{len(ids)} of {len(parts)} parts were posted before this")
                raise
            if on_part is not None:
                on_part(ids[-1])
        return tuple(ids)

    async def roll(
        self,
        bet: Decimal | int | str,
        *,
        target: Decimal | int | str,
        side: Side,
        seed: int | None = None,
        currency: int = BITCOIN,
        stats: bool = False,
        timeout: float | None = None,
    ) -> DiceRoll:
        """Roll the dice once. **This spends money.** Needs the Peerbet key.

        The roll leaves at most once, and is never repeated, whatever happens. When its outcome is
        unknown, `OutcomeUnknownError` is raised, and there is no way to find it out. Its time limit
        is that of the session, but 10 seconds at least, because small bets are answered late.

        Args:
            bet: The bet: at least 0.0000001 in bitcoins, 0.0001 in other currencies, with at most 8
                decimals. A ``float`` is rejected, because it is not exactly what it is written as.
            target: The number to roll below or above, from 0.0001 to 99.9999, with at most 4
                decimals. A ``float`` is rejected.
            side: ``"low"`` wins if the roll is below the target, ``"high"`` if it is above.
            seed: The client's seed, from 1 to 999,999,999. By default it is the ``client_seed`` of
                the session's last roll, or a random one.
            currency: The service's code of the currency; 10 is bitcoin, 11 litecoin.
            stats: Request statistics as well.
            timeout: Seconds that the roll may take, 10 at least, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            MissingKeyError: If there is no Peerbet key; nothing was sent.
            OutcomeUnknownError: If the roll may or may not have happened.
            PythpeerError: If the roll failed; it has not happened.
        """
        if self._key is None:
            raise MissingKeyError(
                "a roll needs a Peerbet key: set peerbet_key, or PYTHPEER_PEERBET_KEY",
                endpoint=self.roll_endpoint.name,
            )
        params = roll_params(
            bet=bet,
            target=target,
            side=side,
            seed=self._next_seed() if seed is None else seed,
            currency=currency,
            stats=stats,
        )
        request = Request(self.roll_endpoint.with_timeout(timeout), {"key": self._key, **params})
        try:
            result = await self._caller.call(request)
        except OutcomeUnknownError as error:
            unknown_roll(error)
            raise
        self._client_seed = result.client_seed
        return result

    def _next_seed(self) -> int:
        """Return the seed of the last response, or a random one if that cannot be sent."""
        if self._client_seed is not None and 1 <= self._client_seed <= MAX_SEED:
            return self._client_seed
        return 1 + secrets.randbelow(MAX_SEED)

    def chat_stream(
        self, *, after: int | None = None, name: str | None = None, on_gap: OnGap = "log"
    ) -> ChatStream:
        """The chat's messages as they arrive: ``async for m in session.peerbet.chat_stream()``.

        The service may have had more messages than it could show: such gaps are in `Stream.gaps`.
        A stream that waits in an empty chat, or whose *name* has acknowledged nothing yet, should
        receive everything from then on. If the oldest available message then has the id 500, the
        gap is ``Gap(after=0, before=500)``. With ``after=0`` there is no such gap, because that
        asks for the oldest available message.

        Args:
            after: Start after this message id; 0 starts with the oldest message available. By
                default the stream resumes where the stream of the same *name* ended, and without
                that returns what arrives from now on.
            name: The name under which the store keeps the position, at most 200 characters. It
                belongs to the service and its address, whichever key the session has.
            on_gap: ``"log"`` logs a WARNING for a gap and continues, ``"raise"`` also raises
                `GapError` once.

        Raises:
            InvalidRequestError: If an argument is not valid.
            SessionClosedError: If the session is not open.
        """
        if after is not None:
            check_integer("after", after, 0, endpoint=self.read_endpoint.name)
        poller = self._pollers.get(
            self._topic,
            lambda: NumberedSource(
                self._caller,
                endpoint=self.read_endpoint,
                page_request=self._page_request,
                max_page=MAX_LAST,
                idle_check=self._idle_check,
                is_same=_is_same,
                date_of=lambda message: message.sent_at,
            ),
        )
        return ChatStream(poller, after=after, name=name, on_gap=on_gap)

    def _check_posting(self, *, bot: object, confirm: object) -> None:
        if self._key is None:
            raise MissingKeyError(
                "posting needs a Peerbet key: set peerbet_key, or PYTHPEER_PEERBET_KEY",
                endpoint=self.post_endpoint.name,
            )
        problem = None
        if not isinstance(bot, bool):
            problem = f"bot must be a bool, not {type(bot).__name__}"
        elif not isinstance(confirm, bool):
            problem = f"confirm must be a bool, not {type(confirm).__name__}"
        if problem is not None:
            raise InvalidRequestError(problem, endpoint=self.post_endpoint.name)

    def _post_request(
        self, text: str, *, bot: bool, timeout: float | None
    ) -> Request[_PostResponse]:
        check_text("text", text, MAX_TEXT, self.post_endpoint.name, advice=TOO_LONG_ADVICE)
        params: dict[str, Param] = {"key": self._key, "msg": text, "bot": 1 if bot else None}
        return Request(self.post_endpoint.with_timeout(timeout), params)

    async def _read_back(self, after: int | None, timeout: float | None) -> ReadBack:
        """Read the messages with ids over *after*, or the newest one: for `Poster`."""
        last = 1 if after is None else MAX_LAST
        page = await self._caller.call(self._page_request(after, last, timeout))
        messages_by_id = page.by_id()
        if after is None and page.undecodable and not messages_by_id:
            raise DecodeError(
                "the newest message cannot be decoded", endpoint=self.read_endpoint.name
            )
        own_texts = {
            message.id: message.text
            for message in page.messages
            if message.is_mine and not message.is_private
        }
        return ReadBack(max(messages_by_id, default=0), own_texts, page.is_full)

    def _page_request(
        self, after: int | None, last: int | None, timeout: float | None = None
    ) -> Request[_Page]:
        endpoint = self.read_endpoint.with_timeout(timeout)
        return Request(endpoint, {"key": self._key, "mid": after, "last": last})


def _is_same(one: ChatMessage, other: ChatMessage) -> bool:
    """Return whether two messages with one id are the same one.

    The marks are not compared: `is_mine` depends on the key.
    """
    return (one.id, one.sender, one.text, one.date) == (
        other.id,
        other.sender,
        other.text,
        other.date,
    )


# -- the protocol ---------------------------------------------------------------------------------


class _Page(msgspec.Struct, frozen=True):
    """The result of ``action=get``."""

    messages: tuple[ChatMessage, ...]
    """Ascending by id, each id once."""
    users_online: int
    """The number of users who are online; 0 if the response lacks it."""
    undecodable_ids: tuple[int, ...] = ()
    """The ids of messages of which nothing else could be decoded, ascending."""
    undecodable: tuple[bytes, ...] = ()
    """Undecodable messages without an id, as canonical JSON, in the order of the response."""

    @property
    def is_full(self) -> bool:
        """Whether the service may have had more messages than fit on a page."""
        return len(self.messages) + len(self.undecodable_ids) + len(self.undecodable) >= MAX_LAST

    def by_id(self) -> dict[int, ChatMessage | None]:
        """Map every id on the page to its message, or to ``None`` if that is undecodable."""
        messages_by_id: dict[int, ChatMessage | None] = dict.fromkeys(self.undecodable_ids)
        messages_by_id.update({message.id: message for message in self.messages})
        return messages_by_id


class _DocumentedPage(msgspec.Struct, frozen=True, gc=False):
    """A response to ``action=get`` that is exactly as documented."""

    status: int
    message_list: list[ChatMessage]
    users_online: int


class _PostResponse(msgspec.Struct, frozen=True):
    """A response to ``action=set``."""

    status: int | bool
    """1 for success."""
    mid: Annotated[int, msgspec.Meta(ge=1, le=INT32_MAX)]
    """The new message's id; never 0, which PHP returns when nothing was inserted."""


def make_read_endpoint(url: str) -> Endpoint[_Page]:
    """Make the endpoint of ``action=get``. https://www.peerbet.org/developers/peerbet_v1/?type=chat."""
    return ParsedEndpoint(
        "peerbet.chat.get",
        url + PATH,
        query={"action": "get"},
        rate=Rate(1.0),
        parse=_parse_page,
        parse_fast=_parse_page_fast,
        denied_hint=DENIED_HINT,
    )


def make_post_endpoint(url: str) -> Endpoint[_PostResponse]:
    """Make the endpoint of ``action=set``. https://www.peerbet.org/developers/peerbet_v1/?type=chat."""
    endpoint = Endpoint(
        "peerbet.chat.set",
        url + PATH,
        query={"action": "set"},
        effect=Effect.WRITE,
        rate=Rate(1.0),
        answer=_PostResponse,
    )
    endpoint.denied_hint = DENIED_HINT
    endpoint.unknown_outcome = "the message may or may not have been posted"
    return endpoint


_decode_page: Final = msgspec.json.Decoder(_DocumentedPage, strict=False).decode


def _parse_page_fast(body: bytes) -> _Page:
    """Parse a page that is exactly as documented. Raises ``ValueError`` for any other."""
    page = _decode_page(body)
    if page.status != 1:
        raise ValueError("not a success")
    messages = _sorted_unique(page.message_list)
    if messages and not 1 <= messages[0].id <= messages[-1].id <= INT32_MAX:
        raise ValueError("id out of range")  # as a position it would skip all other messages
    return _Page(messages, page.users_online)


def _sorted_unique(messages: list[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return *messages* ascending by id, each id once; of two with one id the later one."""
    previous_id = -1
    for message in messages:
        if message.id <= previous_id:
            break
        previous_id = message.id
    else:
        return tuple(messages)
    by_id = {message.id: message for message in messages}
    return tuple(by_id[id] for id in sorted(by_id))


def _parse_page(document: Json) -> _Page:
    """Parse a page leniently, message by message, so that one bad message hides no others."""
    if not isinstance(document, dict) or "message_list" not in document:
        raise ValueError("no message list")
    message_list = document["message_list"]
    if isinstance(message_list, dict):
        message_list = list(message_list.values())  # PHP writes a list with missing indices so
    if message_list is not None and not isinstance(message_list, list):
        raise ValueError("no message list")
    messages: list[ChatMessage] = []
    undecodable_ids: set[int] = set()
    undecodable: list[bytes] = []
    for item in message_list or ():
        message, id = _parse_message(item)
        if message is not None:
            messages.append(message)
        elif id is not None:
            undecodable_ids.add(id)
        else:
            undecodable.append(canonical_json(item))
    undecodable_ids -= {message.id for message in messages}
    users_online = to_int(document.get("users_online")) or 0
    return _Page(
        _sorted_unique(messages), users_online, tuple(sorted(undecodable_ids)), tuple(undecodable)
    )


def _parse_message(item: Json) -> tuple[ChatMessage | None, int | None]:
    """Return the message and its id, whatever the types of the fields; ``None`` for what fails."""
    if not isinstance(item, dict):
        return None, None
    id = parse_id(item.get("id"))
    try:
        message = msgspec.convert(item, ChatMessage, strict=False)  # works for almost all messages
    except ValueError:
        pass
    else:
        if message.id == id:
            return message, id
    sender, text = to_text(item.get("by")), to_text(item.get("msg"))
    if id is None or sender is None or text is None:
        return None, id
    message = ChatMessage(
        id,
        sender,
        text,
        to_text(item.get("to")),
        to_text(item.get("date")),
        to_bool(item.get("bot")) or False,
        to_bool(item.get("my")) or False,
        to_bool(item.get("me")) or False,
    )
    return message, id


def parse_id(value: Json) -> int | None:
    """Return a message id, or ``None`` if *value* is not an integer from 1 to 2147483647."""
    id = to_int(value)
    if id is None or not 1 <= id <= INT32_MAX:
        return None
    return id
