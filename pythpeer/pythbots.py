"""PythBots, whole: the facts of the wire, the models, the calls, the mail stream.

Documented (https://pythbots.com/wiki/index.php?page=api-documentation): every call is a GET, every
answer JSON. ``/api/userinfo.php?user=U``, ``/api/crank.php?chatid=C``, ``/api/cstats.php?chatid=C``
and ``/api/mail.php?personalkey=K`` with ``&user=U&message=TEXT`` or ``&id=ID&message=TEXT`` to
send, the bare ``&readnew`` to get unread mail and mark it as read, the bare ``&readall`` for all
of it. An API key, where one is used, travels in the header ``X-API-Key``.

Not documented: what the fields of any answer are called, whether mail has ids, whether ``readall``
marks mail as read, and how often one may ask.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar, cast

import msgspec

from .answers import canonical_json
from .calls import Caller
from .consuming import DecodedItem, DestructiveSource
from .errors import InvalidRequestError
from .feed import Poller, Pollers
from .secret import Secret
from .shapes import Fields, list_parser, object_parser, parse_success
from .stores.base import Topic
from .streams import Stream
from .wire import (
    FLAG,
    Effect,
    Endpoint,
    Json,
    JsonObject,
    Param,
    ParsedEndpoint,
    Rate,
    Request,
    check_integer,
    check_text,
)

__all__ = ["ChatStats", "Mail", "MailStream", "PythBots", "StaffMember", "User"]

logger: Final = logging.getLogger(__name__)

T = TypeVar("T")

LOOKUP_RATE: Final = Rate(1.0, 3)
MAIL_RATE: Final = Rate(1.0)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """What PythBots knows about somebody. A field is ``None`` where the answer lacks it."""

    id: int | None = None
    username: str | None = None
    nickname: str | None = None
    avatar: str | None = None
    powers: Json = None
    chats: Json = None
    rank: str | None = None
    online: bool | None = None
    raw: JsonObject
    """The whole object, as it was decoded."""


class StaffMember(msgspec.Struct, frozen=True, kw_only=True):
    """One of a chat's staff. A field is ``None`` where the answer lacks it."""

    id: int | None = None
    username: str | None = None
    rank: str | None = None
    """Main Owner, Owner or Moderator, in the service's spelling."""
    avatar: str | None = None
    time_held: int | str | None = None
    """For how long the rank has been held: a number as sent (unit undocumented), or words."""
    raw: JsonObject
    """The whole object, as it was decoded."""


class ChatStats(msgspec.Struct, frozen=True, kw_only=True):
    """A chat's statistics. A field is ``None`` where the answer lacks it."""

    messages: int | None = None
    """Messages in all."""
    active_users: int | None = None
    raw: JsonObject
    """The whole object, as it was decoded."""


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One mail. A field is ``None`` where the answer lacks it."""

    id: int | None = None
    sender: str | None = None
    sender_id: int | None = None
    text: str | None = None
    sent_at: datetime | None = None
    """Naive, by the service's clock."""
    is_read: bool | None = None
    recovered: bool = False
    """Whether it came by the history after an answer was lost: it may have been seen before."""
    raw: JsonObject
    """The whole object, as it was decoded."""


class MailStream(Stream[Mail]):
    """Mail as it comes, oldest first. See `Stream`."""


class PythBots:
    """The PythBots services of a session: ``session.pythbots``."""

    def __init__(
        self,
        caller: Caller,
        feeds: Pollers,
        *,
        url: str,
        personal_key: Secret | None,
        api_key: Secret | None,
        personal_key_param: str,
    ) -> None:
        self._caller = caller
        self._feeds = feeds
        self._personal_key = personal_key
        self._key_param = check_text("personal_key_param", personal_key_param)
        self._headers = {"X-API-Key": api_key} if api_key else None
        self._user, self._staff, self._stats = userinfo(url), crank(url), cstats(url)
        self._send = mail(url, parse_success, Effect.WRITE)
        self._unread = mail(url, parse_mails, Effect.CONSUME)
        self._all = mail(url, parse_mails, Effect.READ)
        account = personal_key.fingerprint() if personal_key else "nobody"
        asker = api_key.fingerprint() if api_key else "nobody"
        lookups = (self._user, self._staff, self._stats)
        self.endpoint_accounts: Final = (
            (self._send, account),
            *((lookup, asker) for lookup in lookups),
        )
        """Each endpoint with the account whose requests the service counts."""
        self._topic = Topic(f"pythbots.mail {url} {account}", Mail, destructive=True)

    async def user(self, user: str | int) -> User:
        """Look somebody up by name or by id."""
        return await self._lookup(self._user, {"user": _user_param("user", user, self._user.name)})

    async def staff(self, chat_id: int) -> tuple[StaffMember, ...]:
        """The staff of a chat, in the service's order. The chat must be opted in (`ApiError`).

        Where one of them is neither an object nor a name, all is a `DecodeError`: a list in which
        somebody is missing would pass for the whole.
        """
        return await self._lookup(self._staff, _chat_params(chat_id, self._staff.name))

    async def stats(self, chat_id: int) -> ChatStats:
        """The statistics of a chat."""
        return await self._lookup(self._stats, _chat_params(chat_id, self._stats.name))

    async def send_mail(self, to: str | int, text: str) -> None:
        """Send a mail to a user name or to a user id. Needs the personal key.

        It leaves at most once: when no answer says what became of it, `OutcomeUnknownError` is
        raised and nothing is repeated. What the service answers is documented nowhere: an object
        without an error in it is taken for success, and so is a bare ``1``, ``true`` or ``"sent"``.
        """
        recipient = _user_param("to", to, self._send.name)
        check_text("text", text, endpoint=self._send.name)
        name = "user" if isinstance(to, str) else "id"
        await self._caller.call(self._mail_request(self._send, {name: recipient, "message": text}))

    async def unread_mail(self) -> tuple[Mail, ...]:
        """Get the unread mail, oldest first, and have it marked as read (``readnew``).

        What is fetched here reaches the mail streams too. A cancellation takes effect only once
        the answer is in, or its time limit is over; what it brought, or what a lost answer held, is
        in what the next call returns. Needs the personal key.
        """
        feed, source = self._mail_feed()
        return await source.fetch(feed.log)

    async def all_mail(self) -> tuple[Mail, ...]:
        """Get the whole history, read and unread (``readall``). Needs the personal key.

        A mail that cannot be decoded is left out, with a WARNING.
        """
        found = await self._caller.call(self._mail_request(self._all, {"readall": FLAG}))
        mails = tuple(each.item for each in found if each.item is not None)
        if len(mails) < len(found):
            skipped = len(found) - len(mails)
            logger.warning("%s: skipped %d mails that cannot be decoded", self._all.name, skipped)
        return mails

    def mail_stream(self, *, name: str | None = None) -> MailStream:
        """Unread mail as it comes: ``async for mail in session.pythbots.mail_stream()``.

        Starts with the unread mail and with what the store holds that no stream acknowledged; with
        a *name* the store knows, where that stream left off. Nothing is lost although the service
        marks mail as read before it is here: what may have been is delivered again, ``recovered``.
        """
        feed, _ = self._mail_feed()
        return MailStream(feed, name=name)

    async def _lookup(self, endpoint: Endpoint[T], params: Mapping[str, Param]) -> T:
        return await self._caller.call(Request(endpoint, params, self._headers))

    def _mail_request(self, endpoint: Endpoint[T], params: Mapping[str, Param]) -> Request[T]:
        if self._personal_key is None:
            raise InvalidRequestError("mail needs a personal key", endpoint=endpoint.name)
        key = {self._key_param: self._personal_key}
        return Request(endpoint, {**key, **params}, self._headers)

    def _mail_feed(self) -> tuple[Poller[Mail], DestructiveSource[Mail]]:
        """The feed of unread mail with its source, which direct calls go through as well."""
        unread = self._mail_request(self._unread, {"readnew": FLAG})
        feed = self._feeds.get(
            self._topic,
            lambda: DestructiveSource(
                self._caller,
                unread=unread,
                history=self._mail_request(self._all, {"readall": FLAG}),
                mark_recovered=lambda mail: msgspec.structs.replace(mail, recovered=True),
            ),
        )
        return feed, cast("DestructiveSource[Mail]", feed.source)


# -- the wire -------------------------------------------------------------------------------------


def userinfo(url: str) -> Endpoint[User]:
    """Who somebody is: ``/api/userinfo.php?user=``."""
    return _endpoint(
        "pythbots.userinfo", f"{url}/api/userinfo.php", object_parser(parse_user), LOOKUP_RATE
    )


def crank(url: str) -> Endpoint[tuple[StaffMember, ...]]:
    """A chat's staff: ``/api/crank.php?chatid=``."""
    return _endpoint(
        "pythbots.crank", f"{url}/api/crank.php", list_parser(parse_staff_member), LOOKUP_RATE
    )


def cstats(url: str) -> Endpoint[ChatStats]:
    """A chat's statistics: ``/api/cstats.php?chatid=``."""
    return _endpoint(
        "pythbots.cstats", f"{url}/api/cstats.php", object_parser(parse_stats), LOOKUP_RATE
    )


def mail(url: str, shape: Callable[[Json], T], effect: Effect) -> Endpoint[T]:
    """``/api/mail.php?personalkey=``: sending, reading what is unread, and reading all."""
    return _endpoint("pythbots.mail", f"{url}/api/mail.php", shape, MAIL_RATE, effect)


def _endpoint(
    name: str,
    url: str,
    shape: Callable[[Json], T],
    rate: Rate,
    effect: Effect = Effect.READ,
) -> Endpoint[T]:
    return ParsedEndpoint(
        name, url, parse=shape, rate=rate, effect=effect, status_means_success=False
    )


def _user_param(name: str, user: object, endpoint: str) -> str | int:
    """A user name, or a user id."""
    if isinstance(user, str):
        return check_text(name, user, endpoint=endpoint)
    return check_integer(name, user, 1, endpoint=endpoint)


def _chat_params(chat_id: object, endpoint: str) -> dict[str, Param]:
    return {"chatid": check_integer("chat_id", chat_id, 1, endpoint=endpoint)}


_ID: Final = ("id", "userid", "uid", "xatid")
_NAME: Final = ("username", "regname", "user", "name")
_RANK: Final = ("rank", "rankname", "role", "title")
_AVATAR: Final = ("avatar", "avatarurl", "pic", "a")


def parse_user(found: Fields) -> User:
    fields = found.unwrap(*_ID, *_NAME, "nickname", "nick")
    return User(
        id=fields.integer(*_ID),
        username=fields.text(*_NAME),
        nickname=fields.text("nickname", "nick", "displayname"),
        avatar=fields.text(*_AVATAR),
        powers=fields.first("powers", "powercount", "power"),
        chats=fields.first("chats", "chat", "rooms"),
        rank=fields.text(*_RANK),
        online=fields.boolean("online", "isonline", "onlinestatus", "status", "live"),
        raw=found.raw,
    )


def parse_staff_member(item: Json, key: str) -> StaffMember:
    fields = Fields({"username": item} if isinstance(item, str) else item)
    held = ("timeheld", "held", "heldfor", "time", "duration", "since")
    number = fields.integer(*held)
    rank = fields.text(*_RANK)
    if rank is None and re.search("owner|mod", key, re.IGNORECASE):
        rank = key  # listed by rank
    return StaffMember(
        id=fields.integer(*_ID),
        username=fields.text(*_NAME),
        rank=rank,
        avatar=fields.text(*_AVATAR),
        time_held=fields.text(*held) if number is None else number,
        raw=fields.raw,
    )


def parse_stats(found: Fields) -> ChatStats:
    messages = ("messages", "totalmessages", "messagetotal", "messagestotal", "messagecount")
    active = ("activeusers", "usersactive", "active", "activeusercount")
    fields = found.unwrap(*messages, *active)
    return ChatStats(
        messages=fields.integer(*messages), active_users=fields.integer(*active), raw=found.raw
    )


def parse_mails(document: Json) -> tuple[DecodedItem[Mail], ...]:
    """Mails in order: by id where all have one, by date where all have one, else as they came."""
    found = list_parser(parse_mail)(document)
    ids = [each.item.id for each in found if each.item and each.item.id is not None]
    dates = [each.item.sent_at for each in found if each.item and each.item.sent_at is not None]
    order: Sequence[int] | Sequence[datetime] = ids if len(ids) == len(found) else dates
    if len(order) < len(found):
        return found
    return tuple(found[index] for index in sorted(range(len(found)), key=order.__getitem__))


_MAIL_ID: Final = ("id", "mailid", "messageid", "mid")
_READ_STATE: Final = ("read", "isread", "seen", "status", "unread", "new", "isnew")


def parse_mail(item: Json, _: str) -> DecodedItem[Mail]:
    try:
        fields = Fields({"message": item} if isinstance(item, str) else item)
    except ValueError:
        return DecodedItem(None, _digest(item), has_id=False)
    unread = fields.boolean("unread", "isnew", "new")
    mail = Mail(
        id=fields.integer(*_MAIL_ID),
        sender=fields.text("from", "sender", "fromuser", "username", "by", "user"),
        sender_id=fields.integer("fromid", "senderid", "fromuserid", "userid"),
        text=fields.text("message", "text", "msg", "body", "content", "mail"),
        sent_at=fields.date("date", "sentat", "time", "createdat", "timestamp", "sent"),
        is_read=fields.boolean("read", "isread", "seen") if unread is None else not unread,
        raw=fields.raw,
    )
    # Contents count beside an id: for all that is known, it could be the sender's.
    id = fields.text(*_MAIL_ID)
    key = f"{id} {_digest(fields.without(*_MAIL_ID, *_READ_STATE))}"
    return DecodedItem(mail, key, has_id=id is not None)


def _digest(found: object) -> str:
    return hashlib.blake2b(canonical_json(found), digest_size=16).hexdigest()
