"""The client of PythBots: protocol, models, calls and mail stream.

Documented (https://pythbots.com/wiki/index.php?page=api-documentation): every call is a GET, every
response JSON. ``/api/userinfo.php?user=U``, ``/api/crank.php?chatid=C``,
``/api/cstats.php?chatid=C`` and ``/api/mail.php?personal_key=K`` with ``&user=U&message=TEXT`` or
``&id=ID&message=TEXT`` to send, the bare ``&readnew`` to get unread mail and mark it as read, the
bare ``&readall`` for all of it. An API key is optional, and sent in the header ``X-API-Key``.

Undocumented: the names of the fields in any response, whether mail has ids, whether ``readall``
marks mail as read, and the allowed request rate.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar, cast

import msgspec

from .calls import Caller
from .errors import InvalidRequestError, MissingKeyError
from .pacing.bucket import Rate
from .secret import Secret, account_of
from .stores.base import Topic
from .streams.destructive import DecodedItem, DestructiveSource, Reads, fetch_timeout
from .streams.poller import Poller, Pollers
from .streams.stream import Stream
from .validation import check_integer, check_name, check_text
from .wire.endpoints import Effect, Endpoint, ParsedEndpoint
from .wire.fields import Fields, list_parser, object_parser, parse_success
from .wire.lenient_json import canonical_json
from .wire.query import FLAG, Json, JsonObject, Param
from .wire.request import Request

__all__ = ["ChatStats", "Mail", "MailStream", "PythBots", "StaffMember", "User"]

logger: Final = logging.getLogger(__name__)

T = TypeVar("T")

LOOKUP_RATE: Final = Rate(1.0, 3)
"""The default rate of each look-up: one per second, with bursts of three."""

MAIL_RATE: Final = Rate(1.0)
"""The default rate of all mail requests together: one per second."""


KEY_PARAM: Final = "personal_key"
"""The default name of the parameter for the personal key.

The documentation shows ``personalkey``, but the program that renders its pages drops underscores.
"""

MAIL_PARAMS: Final = frozenset({"user", "id", "message", "readnew", "readall"})
"""The names of the mail service's other parameters."""

API_KEY_HINT: Final = (
    "set pythbots_api_key, or PYTHPEER_PYTHBOTS_API_KEY, to a key with the permission"
)
"""What to do if a look-up is rejected."""

UNKNOWN_SEND: Final = "the mail may or may not have been sent"
"""The text of an error where the outcome of sending is unknown."""

UNKNOWN_READ: Final = (
    "unread mail may or may not have been marked as read: the next read looks for it in the history"
)
"""The text of an error where the outcome of reading the unread mail is unknown."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user as PythBots describes them. A field is ``None`` if the response lacks it."""

    id: int | None = None
    """The user id."""
    username: str | None = None
    """The registered name."""
    nickname: str | None = None
    """The name that the user shows."""
    avatar: str | None = None
    """The picture, as sent: mostly a URL."""
    powers: Json = None
    """The user's powers, as sent."""
    chats: Json = None
    """The user's chats, as sent."""
    rank: str | None = None
    """The rank, in the service's spelling."""
    online: bool | None = None
    """Whether the user is online."""
    raw: JsonObject
    """The whole object as the service sent it, decoded from JSON."""


class StaffMember(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A member of a chat's staff. A field is ``None`` if the response lacks it."""

    id: int | None = None
    """The user id."""
    username: str | None = None
    """The registered name."""
    rank: str | None = None
    """Main Owner, Owner or Moderator, in the service's spelling."""
    avatar: str | None = None
    """The picture, as sent: mostly a URL."""
    time_held: int | str | None = None
    """How long the member has had the rank: a number as sent (unit undocumented), or text."""
    raw: JsonObject
    """The whole object as the service sent it, decoded from JSON."""


class ChatStats(msgspec.Struct, frozen=True, kw_only=True):
    """A chat's statistics. A field is ``None`` if the response lacks it."""

    messages: int | None = None
    """The total number of messages."""
    active_users: int | None = None
    """The number of active users."""
    raw: JsonObject
    """The whole object as the service sent it, decoded from JSON."""


class Mail(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One mail. A field is ``None`` if the response lacks it."""

    id: int | None = None
    """The mail's id."""
    sender: str | None = None
    """The sender's user name."""
    sender_id: int | None = None
    """The sender's user id."""
    text: str | None = None
    """The text of the mail, with any control characters in it: print it with ``!r``."""
    sent_at: datetime | None = None
    """The time of sending, naive, by the service's clock."""
    is_read: bool | None = None
    """Whether the mail was marked as read when the service returned it."""
    recovered: bool = False
    """Whether it was read from the history after a response was lost: it may have been returned
    before, or be old. After the first lost response, this is all mail that the store has never
    had, also what was read before the store existed: check `sent_at` before you answer it."""
    raw: JsonObject
    """The whole object as the service sent it, decoded from JSON."""


class MailStream(Stream[Mail]):
    """Mail as it arrives, oldest first. See `Stream`."""


def _mark_recovered(mail: Mail) -> Mail:
    return msgspec.structs.replace(mail, recovered=True)


class PythBots:
    """The PythBots services of a session: ``session.pythbots``."""

    def __init__(
        self,
        caller: Caller,
        pollers: Pollers,
        *,
        url: str,
        personal_key: Secret | None,
        api_key: Secret | None,
        personal_key_param: str,
    ) -> None:
        self._caller = caller
        """Runs all calls."""
        self._pollers = pollers
        """The pollers of all streams of the session."""
        self._personal_key = personal_key
        """The personal key, ``None`` without one."""
        # Comments up to `history_endpoint`, because the reference shows what has a docstring: these
        # attributes are internal, for the session and the doctor, and never change.
        # The name of the parameter for the personal key.
        self.key_param: Final = _check_key_param(personal_key_param)
        # The headers of each request for a look-up, ``None`` without an API key.
        self.headers: Final = {"X-API-Key": api_key} if api_key else None
        # One endpoint for each method; reading the mail has two, as unread mail is marked as read.
        self.user_endpoint: Final = userinfo_endpoint(url)
        self.staff_endpoint: Final = crank_endpoint(url)
        self.stats_endpoint: Final = cstats_endpoint(url)
        param = self.key_param
        self.send_endpoint: Final = mail_endpoint(
            url, parse_success, Effect.WRITE, param, UNKNOWN_SEND
        )
        self.unread_endpoint: Final = mail_endpoint(
            url, parse_mails, Effect.CONSUME, param, UNKNOWN_READ
        )
        self.history_endpoint: Final = mail_endpoint(url, parse_mails, Effect.READ, param)
        mail_account = account_of(personal_key)
        lookup_account = account_of(api_key)
        self.endpoint_accounts: Final = (
            (self.send_endpoint, mail_account),
            (self.user_endpoint, lookup_account),
            (self.staff_endpoint, lookup_account),
            (self.stats_endpoint, lookup_account),
        )
        """Each endpoint with the account whose requests the service counts."""
        self._topic = Topic(
            f"pythbots.mail {url} {mail_account}",
            Mail,
            destructive=True,
            mark_recovered=_mark_recovered,
            fetch_timeout=fetch_timeout(caller.timeout),
        )
        """The log of the mail, one for each account."""

    async def user(self, user: str | int, *, timeout: float | None = None) -> User:
        """Look up a user.

        Args:
            user: The user name, or the user id.
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            ApiError: If the service returned an error, for example because there is no such user.
            PythpeerError: If the read failed.
        """
        endpoint = self.user_endpoint.with_timeout(timeout)
        return await self._lookup(endpoint, {"user": _user_param("user", user, endpoint.name)})

    async def staff(self, chat_id: int, *, timeout: float | None = None) -> tuple[StaffMember, ...]:
        """Return the staff of a chat, in the service's order.

        Args:
            chat_id: The chat's id, from 1. The chat must be opted in.
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            ApiError: If the service returned an error, for example for a chat that is not opted in.
            DecodeError: If a member is neither an object nor a name. No list is returned then,
                because a list without one member would look complete.
            PythpeerError: If the read failed.
        """
        endpoint = self.staff_endpoint.with_timeout(timeout)
        return await self._lookup(endpoint, _chat_params(chat_id, endpoint.name))

    async def stats(self, chat_id: int, *, timeout: float | None = None) -> ChatStats:
        """Return the statistics of a chat.

        Args:
            chat_id: The chat's id, from 1.
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            PythpeerError: If the read failed.
        """
        endpoint = self.stats_endpoint.with_timeout(timeout)
        return await self._lookup(endpoint, _chat_params(chat_id, endpoint.name))

    async def send_mail(self, to: str | int, text: str, *, timeout: float | None = None) -> None:
        """Send a mail. Needs the personal key.

        It leaves at most once: when the outcome is unknown, `OutcomeUnknownError` is raised and
        nothing is repeated. The response to a mail is undocumented: an object without an error in
        it is treated as success, and so is a bare ``1``, ``true`` or ``"sent"``.

        Args:
            to: The recipient's user name, or user id.
            text: The text of the mail; it must not be empty. How long it may be is not documented.
                It is part of the URL, which many servers limit to some 8,000 bytes after encoding:
                a longer one is mostly an `HttpStatusError` with the status 400, 413 or 414.
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            MissingKeyError: If there is no personal key; nothing was sent.
            OutcomeUnknownError: If the mail may or may not have been sent.
            PythpeerError: If sending failed; no mail was sent.
        """
        endpoint = self.send_endpoint.with_timeout(timeout)
        recipient = _user_param("to", to, endpoint.name)
        check_text("text", text, endpoint=endpoint.name)
        name = "user" if isinstance(to, str) else "id"
        await self._caller.call(self._mail_request(endpoint, {name: recipient, "message": text}))

    async def unread_mail(self, *, timeout: float | None = None) -> tuple[Mail, ...]:
        """Return the unread mail, oldest first; the service marks it as read (``readnew``).

        Mail that is fetched here is returned by the mail streams too. A cancellation takes effect
        immediately, but a request that was sent continues, at most for its time limit; its mail, or
        that of a lost response, is returned by the next call. Needs the personal key.

        Args:
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            MissingKeyError: If there is no personal key; nothing was sent.
            SessionClosedError: If the session is not open.
            OutcomeUnknownError: If the mail may have been marked as read.
            PythpeerError: If the read failed.
        """
        reads = self._mail_reads(timeout)
        poller, source = self._mail_poller()
        return await source.fetch(poller, reads)

    async def all_mail(self, *, timeout: float | None = None) -> tuple[Mail, ...]:
        """Return the whole history, read and unread (``readall``). Needs the personal key.

        In the order of ids if all mails have one, else of dates if all have one, else in the
        service's order. Mail that cannot be decoded is left out, with a WARNING.

        Args:
            timeout: Seconds of one attempt at most, in place of those of the session.

        Raises:
            InvalidRequestError: If an argument is not valid; nothing was sent.
            MissingKeyError: If there is no personal key; nothing was sent.
            PythpeerError: If the read failed.
        """
        endpoint = self.history_endpoint.with_timeout(timeout)
        decoded = await self._caller.call(self._mail_request(endpoint, {"readall": FLAG}))
        mails = tuple(entry.item for entry in decoded if entry.item is not None)
        if len(mails) < len(decoded):
            skipped = len(decoded) - len(mails)
            logger.warning("%s: skipped %d mails that cannot be decoded", endpoint.name, skipped)
        return mails

    def mail_stream(self, *, name: str | None = None) -> MailStream:
        """Unread mail as it arrives: ``async for mail in session.pythbots.mail_stream()``.

        Starts with the unread mail, and with the mail in the store that no stream has acknowledged.
        Nothing is lost although the service marks mail as read before the response arrives: mail of
        a lost response is returned again, with `Mail.recovered` set. Needs the personal key.

        Args:
            name: The name under which the store keeps the position, at most 200 characters. A
                stream whose name the store knows resumes where that stream ended.

        Raises:
            InvalidRequestError: If *name* is not valid.
            MissingKeyError: If there is no personal key.
            SessionClosedError: If the session is not open.
        """
        poller, _ = self._mail_poller()
        return MailStream(poller, name=name)

    async def _lookup(self, endpoint: Endpoint[T], params: Mapping[str, Param]) -> T:
        return await self._caller.call(Request(endpoint, params, self.headers))

    def _required_key(self, endpoint: str) -> Secret:
        if self._personal_key is None:
            raise MissingKeyError(
                "mail needs a personal key: set personal_key, or PYTHPEER_PERSONAL_KEY",
                endpoint=endpoint,
            )
        return self._personal_key

    def _mail_request(self, endpoint: Endpoint[T], params: Mapping[str, Param]) -> Request[T]:
        key = {self.key_param: self._required_key(endpoint.name)}
        return Request(endpoint, {**key, **params}, self.headers)

    def _mail_reads(self, timeout: float | None = None) -> Reads[Mail]:
        unread = self.unread_endpoint.with_timeout(timeout)
        history = self.history_endpoint.with_timeout(timeout)
        return Reads(
            self._mail_request(unread, {"readnew": FLAG}),
            self._mail_request(history, {"readall": FLAG}),
        )

    def _mail_poller(self) -> tuple[Poller[Mail], DestructiveSource[Mail]]:
        """Return the poller of unread mail and its source, which direct calls use as well."""
        self._required_key(self.unread_endpoint.name)
        poller = self._pollers.get(
            self._topic,
            lambda: DestructiveSource(
                self._caller, self._mail_reads(), mark_recovered=_mark_recovered
            ),
        )
        return poller, cast("DestructiveSource[Mail]", poller.source)


def _check_key_param(param: object) -> str:
    """Return the name of the parameter for the personal key if a mail request can have it."""
    name = check_name(param, "personal_key_param")
    if name in MAIL_PARAMS:
        raise InvalidRequestError(
            f"personal_key_param must not be {name!r}, which is another parameter of the mail"
            f" service: {KEY_PARAM!r}, the default, is the name for the personal key"
        )
    return name


# -- the protocol ---------------------------------------------------------------------------------


def userinfo_endpoint(url: str) -> Endpoint[User]:
    """Make the endpoint of a user: ``/api/userinfo.php?user=``."""
    return _make_endpoint(
        "pythbots.userinfo", f"{url}/api/userinfo.php", object_parser(parse_user), LOOKUP_RATE
    )


def crank_endpoint(url: str) -> Endpoint[tuple[StaffMember, ...]]:
    """Make the endpoint of a chat's staff: ``/api/crank.php?chatid=``."""
    return _make_endpoint(
        "pythbots.crank", f"{url}/api/crank.php", list_parser(parse_staff_member), LOOKUP_RATE
    )


def cstats_endpoint(url: str) -> Endpoint[ChatStats]:
    """Make the endpoint of a chat's statistics: ``/api/cstats.php?chatid=``."""
    return _make_endpoint(
        "pythbots.cstats", f"{url}/api/cstats.php", object_parser(parse_stats), LOOKUP_RATE
    )


def mail_endpoint(
    url: str,
    parse: Callable[[Json], T],
    effect: Effect,
    key_param: str = KEY_PARAM,
    unknown_outcome: str | None = None,
) -> Endpoint[T]:
    """Make the endpoint of ``/api/mail.php?personal_key=``, for one of its three uses."""
    hint = (
        "set personal_key, or PYTHPEER_PERSONAL_KEY, to a key that is valid; if it is valid, the"
        f" service may expect another parameter than {key_param}: personal_key_param, or"
        " PYTHPEER_PERSONAL_KEY_PARAM, sets it"
    )
    return ParsedEndpoint(
        "pythbots.mail",
        f"{url}/api/mail.php",
        parse=parse,
        rate=MAIL_RATE,
        effect=effect,
        status_means_success=False,
        denied_hint=hint,
        unknown_outcome=unknown_outcome,
    )


def _make_endpoint(name: str, url: str, parse: Callable[[Json], T], rate: Rate) -> Endpoint[T]:
    return ParsedEndpoint(
        name,
        url,
        parse=parse,
        rate=rate,
        status_means_success=False,
        denied_hint=API_KEY_HINT,
    )


def _user_param(name: str, user: object, endpoint: str) -> str | int:
    """Check a user name or a user id."""
    if isinstance(user, str):
        return check_text(name, user, endpoint=endpoint)
    if isinstance(user, bool) or not isinstance(user, int):
        given = None if user is None else type(user).__name__
        problem = f"must be a user name or a user id, not {given}"
        raise InvalidRequestError(f"{name} {problem}", endpoint=endpoint)
    return check_integer(name, user, 1, endpoint=endpoint)


def _chat_params(chat_id: object, endpoint: str) -> dict[str, Param]:
    return {"chatid": check_integer("chat_id", chat_id, 1, endpoint=endpoint)}


# The names that a field may have, as `Fields` compares them: lower case, letters and digits only.
_ID_FIELDS: Final = ("id", "userid", "uid", "xatid")
_NAME_FIELDS: Final = ("username", "regname", "user", "name")
_RANK_FIELDS: Final = ("rank", "rankname", "role", "title")
_AVATAR_FIELDS: Final = ("avatar", "avatarurl", "pic", "a")
_TIME_HELD_FIELDS: Final = ("timeheld", "held", "heldfor", "time", "duration", "since")
_MESSAGES_FIELDS: Final = (
    "messages",
    "totalmessages",
    "messagetotal",
    "messagestotal",
    "messagecount",
)
_ACTIVE_USERS_FIELDS: Final = ("activeusers", "usersactive", "active", "activeusercount")
_MAIL_ID_FIELDS: Final = ("id", "mailid", "messageid", "mid")
_SENDER_FIELDS: Final = ("from", "sender", "fromuser", "username", "by", "user")
_SENDER_ID_FIELDS: Final = ("fromid", "senderid", "fromuserid", "userid")
_TEXT_FIELDS: Final = ("message", "text", "msg", "body", "content", "mail")
_DATE_FIELDS: Final = ("date", "sentat", "time", "createdat", "timestamp", "sent")
_READ_STATE_FIELDS: Final = ("read", "isread", "seen", "status", "unread", "new", "isnew")


def parse_user(record: Fields) -> User:
    """Make a `User` of an object, or of the object in it that has the fields."""
    fields = record.unwrap(*_ID_FIELDS, *_NAME_FIELDS, "nickname", "nick")
    return User(
        id=fields.integer(*_ID_FIELDS),
        username=fields.text(*_NAME_FIELDS),
        nickname=fields.text("nickname", "nick", "displayname"),
        avatar=fields.text(*_AVATAR_FIELDS),
        powers=fields.first("powers", "powercount", "power"),
        chats=fields.first("chats", "chat", "rooms"),
        rank=fields.text(*_RANK_FIELDS),
        online=fields.boolean("online", "isonline", "onlinestatus", "status", "live"),
        raw=record.raw,
    )


def parse_staff_member(item: Json, key: str) -> StaffMember:
    """Make a `StaffMember` of an object or a bare name; *key* is what the list is stored under."""
    fields = Fields({"username": item} if isinstance(item, str) else item)
    time_held: int | str | None = fields.integer(*_TIME_HELD_FIELDS)
    if time_held is None:
        time_held = fields.text(*_TIME_HELD_FIELDS)
    rank = fields.text(*_RANK_FIELDS)
    if rank is None and re.search("owner|mod", key, re.IGNORECASE):
        rank = key  # the service lists the members by rank
    return StaffMember(
        id=fields.integer(*_ID_FIELDS),
        username=fields.text(*_NAME_FIELDS),
        rank=rank,
        avatar=fields.text(*_AVATAR_FIELDS),
        time_held=time_held,
        raw=fields.raw,
    )


def parse_stats(record: Fields) -> ChatStats:
    """Make `ChatStats` of an object, or of the object in it that has the fields."""
    fields = record.unwrap(*_MESSAGES_FIELDS, *_ACTIVE_USERS_FIELDS)
    return ChatStats(
        messages=fields.integer(*_MESSAGES_FIELDS),
        active_users=fields.integer(*_ACTIVE_USERS_FIELDS),
        raw=record.raw,
    )


def parse_mails(document: Json) -> tuple[DecodedItem[Mail], ...]:
    """Parse a list of mails: by id if all have one, else by date if all have one, else unsorted."""
    decoded = list_parser(parse_mail)(document)
    mails = [entry.item for entry in decoded if entry.item is not None]
    ids = [mail.id for mail in mails if mail.id is not None]
    dates = [mail.sent_at for mail in mails if mail.sent_at is not None]
    sort_keys: Sequence[int] | Sequence[datetime] = ids if len(ids) == len(decoded) else dates
    if len(sort_keys) < len(decoded):
        return decoded
    order = sorted(range(len(decoded)), key=sort_keys.__getitem__)
    return tuple(decoded[index] for index in order)


def parse_mail(item: Json, _: str) -> DecodedItem[Mail]:
    """Make a `Mail` of an object or a bare text, with its identity."""
    try:
        fields = Fields({"message": item} if isinstance(item, str) else item)
    except ValueError:
        return DecodedItem(None, _digest(item), has_id=False)
    is_read = fields.boolean("read", "isread", "seen")
    unread = fields.boolean("unread", "isnew", "new")
    if unread is not None:
        is_read = not unread
    mail = Mail(
        id=fields.integer(*_MAIL_ID_FIELDS),
        sender=fields.text(*_SENDER_FIELDS),
        sender_id=fields.integer(*_SENDER_ID_FIELDS),
        text=fields.text(*_TEXT_FIELDS),
        sent_at=fields.date(*_DATE_FIELDS),
        is_read=is_read,
        raw=fields.raw,
    )
    # The content is part of the identity even with an id, because the id may be the sender's.
    id = fields.text(*_MAIL_ID_FIELDS)
    return DecodedItem(mail, f"{id} {_digest(_content(fields, mail))}", has_id=id is not None)


def _content(fields: Fields, mail: Mail) -> JsonObject:
    """Return the fields that distinguish a mail: sender, text and date, if these are known.

    Others may change with time, such as a counter, a read mark of any name, or "2 hours ago".
    """
    if mail.text is None or (mail.sender is None and mail.sender_id is None):
        return fields.without(*_MAIL_ID_FIELDS, *_READ_STATE_FIELDS)
    date_fields = () if mail.sent_at is None else _DATE_FIELDS
    return fields.first_of_each(_SENDER_FIELDS, _SENDER_ID_FIELDS, _TEXT_FIELDS, date_fields)


def _digest(value: object) -> str:
    return hashlib.blake2b(canonical_json(value), digest_size=16).hexdigest()
