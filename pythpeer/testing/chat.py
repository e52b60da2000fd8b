"""The Peerbet chat, v1.0: its messages, and the pages that a reader receives.

Documented: 50 messages without ``mid``, ``last`` at most 300, ``msg`` at most 250 characters, bits
as 0 and 1, and the fields of responses. Undocumented and decided here: ids count from 1, and a
wrong key is an API error. Whatever else is undocumented is a quirk (`Quirks`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection
from itertools import islice
from operator import attrgetter
from random import Random
from typing import Final

import msgspec

from ..deprecation import warn_renamed
from .directory import same_name
from .quirks import Quirks
from .requests import IncomingRequest
from .responses import RejectedError, as_bit, as_php_list, ordered

__all__ = ["ChatLine", "FakeChat"]

DEFAULT_PAGE: Final = 50
"""Messages in a response without ``mid`` and ``last``."""

MAX_PAGE: Final = 300
"""The most messages in one response."""

MAX_TEXT: Final = 250
"""The most characters in one message."""


class ChatLine(msgspec.Struct, frozen=True):
    """One message."""

    id: int
    """The id, greater than those of all earlier messages."""

    sender: str
    """The sender's username."""

    to: str
    """The recipient's username of a private message; empty if it is for everyone."""

    text: str
    """The text, unchanged."""

    date: str
    """The services' date, ``yyyy-MM-dd HH:mm:ss``."""

    bot: bool
    """Whether it is marked as a bot's message."""


class FakeChat:
    """The chat, whose messages have the ids 1, 2, 3 ..., unless `skip_to` is called.

    They are in the attribute ``messages``; ``users_online`` is the number that responses have.
    """

    def __init__(
        self, *, quirks: Callable[[], Quirks], date: Callable[[], str], rng: Random
    ) -> None:
        self.messages: list[ChatLine] = []
        """All messages in order. They may also be appended directly, with ids in ascending order:
        the next message that is posted gets an id after theirs."""
        self.users_online = 1
        """The number of users online in every response; may be set."""
        self._quirks = quirks
        self._date = date
        self._rng = rng
        self._users: dict[str, str] = {}
        """Usernames by key; `register` adds to them."""
        self._last_id = 0
        """The highest id that was given to a message; it never decreases."""
        self._listeners: list[Callable[[ChatLine], None]] = []
        """The callers of `subscribe`, called with each message."""

    def register(self, user: str, key: str) -> None:
        """Accept *key* as that of *user*: to post, and to see private messages from and to them."""
        self._users[key] = user

    def user_of(self, key: str) -> str | None:
        """Return the user who has *key*, ``None`` if there is none."""
        return self._users.get(key)

    @property
    def keys(self) -> Collection[str]:
        """The keys of all users."""
        return self._users.keys()

    def say(self, sender: str, text: str, *, to: str = "", bot: bool = False) -> int:
        """Add a message with *text* from the user *sender*, and return its id.

        It is private if *to* is a username, and from a bot if *bot* is true.
        """
        self._last_id = self.newest_id + 1
        line = ChatLine(self._last_id, sender, to, text, self._date(), bot)
        self.messages.append(line)
        for listener in tuple(self._listeners):
            listener(line)
        return line.id

    def skip_to(self, id: int) -> None:
        """Give the next message the id *id*, or a higher one if there are messages over it."""
        self._last_id = max(self._last_id, id - 1)

    @property
    def newest_id(self) -> int:
        """The id of the newest message; before the first one, one less than its id will be."""
        return max(self._last_id, self.messages[-1].id if self.messages else 0)

    def after(self, id: int) -> list[ChatLine]:
        """Return the messages with ids over *id*, in order."""
        return self.messages[bisect_right(self.messages, id, key=attrgetter("id")) :]

    def subscribe(self, listener: Callable[[ChatLine], None]) -> Callable[[], None]:
        """Call *listener* with each message from now on, until the returned function is called.

        It is called before the sender receives a response, and must return soon.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def listen(self, listener: Callable[[ChatLine], None]) -> Callable[[], None]:
        """Deprecated name of `subscribe`."""
        warn_renamed("FakeChat.listen()", "FakeChat.subscribe()")
        return self.subscribe(listener)

    def answer(self, call: IncomingRequest) -> dict[str, object]:
        """Return the JSON document for one request. Raises `RejectedError`."""
        match call.endpoint:
            case "peerbet.chat.get":
                return self._get(call)
            case "peerbet.chat.set":
                return self._set(call)
            case _:
                raise _rejected("Unknown action")

    def _get(self, call: IncomingRequest) -> dict[str, object]:
        ignored = self._quirks().dead_key == "ignored"
        reader = self._users.get(call.params.get("key", "")) if ignored else self._user(call)
        last, mid = _int32_param(call, "last"), _int32_param(call, "mid")
        if last is not None and last < 1:
            raise _rejected("Invalid last")
        quirks = self._quirks()
        lines = ordered(self._page(reader, mid, last), quirks, self._rng)
        return {
            "status": 1,
            "users_online": self.users_online,
            "message_list": as_php_list([_as_json(line, reader, quirks) for line in lines], quirks),
        }

    def _page(self, reader: str | None, mid: int | None, last: int | None) -> list[ChatLine]:
        quirks = self._quirks()
        start = 0 if mid is None else bisect_right(self.messages, mid, key=attrgetter("id"))
        visible = [line for line in self.messages[start:] if _can_see(reader, line)]
        if quirks.overlap:
            before = (line for line in reversed(self.messages[:start]) if _can_see(reader, line))
            visible[:0] = reversed(list(islice(before, quirks.overlap)))
        size = min(last or (DEFAULT_PAGE if mid is None else MAX_PAGE), MAX_PAGE)
        oldest = mid is not None and quirks.window == "oldest"
        page = visible[:size] if oldest else visible[-size:]
        return [line for line in page for _ in range(quirks.repeat)]

    def _set(self, call: IncomingRequest) -> dict[str, object]:
        sender = self._user(call)
        if sender is None:
            raise _rejected("Invalid key")
        text = call.params.get("msg", "")
        if not text:
            raise _rejected("Message is empty")
        if len(text) > MAX_TEXT:
            raise _rejected(f"Message is too long, {MAX_TEXT} characters at most")
        bot = call.params.get("bot", "").lower() in ("1", "true")
        return {"status": 1, "mid": self.say(sender, text, bot=bot)}

    def _user(self, call: IncomingRequest) -> str | None:
        """Return the user whose key the request carries, ``None`` without a key."""
        key = call.params.get("key")
        if not key:
            return None
        if key not in self._users:
            raise _rejected("Invalid key")
        return self._users[key]


def _rejected(message: str) -> RejectedError:
    return RejectedError({"status": 0, "message": message})


def _int32_param(call: IncomingRequest, name: str) -> int | None:
    text = call.params.get(name)
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,10}", text) or not -(2**31) <= int(text) < 2**31:
        raise _rejected(f"Invalid {name}")
    return int(text)


def _can_see(reader: str | None, line: ChatLine) -> bool:
    if not line.to:
        return True
    return reader is not None and (same_name(reader, line.sender) or same_name(reader, line.to))


def _as_json(line: ChatLine, reader: str | None, quirks: Quirks) -> dict[str, object]:
    """Return the fields of a message for *reader*, as documented."""
    return {
        "id": line.id,
        "by": line.sender,
        "to": line.to,
        "msg": line.text,
        "date": line.date,
        "bot": as_bit(line.bot, quirks),
        "my": as_bit(reader is not None and same_name(line.sender, reader), quirks),
        "me": as_bit(bool(line.to), quirks),
    }
