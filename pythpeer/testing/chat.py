"""The Peerbet chat, v1.0: who said what, and what a reader gets to see of it.

Documented: 50 messages without ``mid``, ``last`` at most 300, ``msg`` at most 250 characters, bits
as 0 and 1, and the shape of the answers. Not documented, and so decided here: ids count from 1,
and a wrong key is refused. What else is documented nowhere is a habit (`Habits`).
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

from .habits import Quirks
from .incoming import IncomingRequest
from .replies import RefusedError, as_bit, as_php_list, ordered

__all__ = ["ChatLine", "FakeChat"]

DEFAULT_PAGE: Final = 50
"""How many messages there are without ``mid`` and ``last``."""

MAX_PAGE: Final = 300
"""How many messages there are in one answer at most."""

MAX_TEXT: Final = 250
"""How many characters one message has at most."""


class ChatLine(msgspec.Struct, frozen=True):
    """One message: ``to`` is empty when it is for everyone, ``date`` is ``yyyy-MM-dd HH:mm:ss``."""

    id: int
    sender: str
    to: str
    text: str
    date: str
    bot: bool


class FakeChat:
    """The chat room. ``messages`` is all that was said, in order; ids are 1, 2, 3 ...

    Messages may also be put there directly, with ids in ascending order: the next one said gets an
    id after theirs.

    ``users_online`` is the number that the answers carry; set it at will.
    """

    def __init__(
        self, *, habits: Callable[[], Quirks], date: Callable[[], str], rng: Random
    ) -> None:
        self.messages: list[ChatLine] = []
        self.users_online = 1
        self._habits = habits
        self._date = date
        self._chance = rng
        self._users: dict[str, str] = {}
        self._last_id = 0
        self._listeners: list[Callable[[ChatLine], None]] = []

    def register(self, user: str, key: str) -> None:
        """Let *user* in with *key*: to post, and to see the private messages from and to them."""
        self._users[key] = user

    @property
    def keys(self) -> Collection[str]:
        """The keys of all users."""
        return self._users.keys()

    def say(self, sender: str, text: str, *, to: str = "", bot: bool = False) -> int:
        """Add a message, private if *to* names a user, and return its id."""
        shown = self.messages[-1].id if self.messages else 0
        self._last_id = max(self._last_id, shown) + 1
        line = ChatLine(self._last_id, sender, to, text, self._date(), bot)
        self.messages.append(line)
        for listener in tuple(self._listeners):
            listener(line)
        return line.id

    def after(self, id: int) -> list[ChatLine]:
        """The messages behind the one with this id, in order."""
        return self.messages[bisect_right(self.messages, id, key=attrgetter("id")) :]

    def subscribe(self, listener: Callable[[ChatLine], None]) -> Callable[[], None]:
        """Have *listener* called with each message from now on, until what is returned is called.

        It is called before the message's sender is answered, and should return soon.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def answer(self, call: IncomingRequest) -> dict[str, object]:
        """Answer one request. Raises `RefusedError`."""
        match call.endpoint:
            case "peerbet.chat.get":
                return self._get(call)
            case "peerbet.chat.set":
                return self._set(call)
            case _:
                raise _refusal("Unknown action")

    def _get(self, call: IncomingRequest) -> dict[str, object]:
        reader = self._user(call)
        last, mid = _int32_param(call, "last"), _int32_param(call, "mid")
        if last is not None and last < 1:
            raise _refusal("Invalid last")
        habits = self._habits()
        lines = ordered(self._page(reader, mid, last), habits, self._chance)
        return {
            "status": 1,
            "users_online": self.users_online,
            "message_list": as_php_list([_as_json(line, reader, habits) for line in lines], habits),
        }

    def _page(self, reader: str | None, mid: int | None, last: int | None) -> list[ChatLine]:
        habits = self._habits()
        start = 0 if mid is None else bisect_right(self.messages, mid, key=attrgetter("id"))
        seen = [line for line in self.messages[start:] if _can_see(reader, line)]
        if habits.overlap:
            before = (line for line in reversed(self.messages[:start]) if _can_see(reader, line))
            seen[:0] = reversed(list(islice(before, habits.overlap)))
        size = min(last or (DEFAULT_PAGE if mid is None else MAX_PAGE), MAX_PAGE)
        oldest = mid is not None and habits.window == "oldest"
        page = seen[:size] if oldest else seen[-size:]
        return [line for line in page for _ in range(habits.repeat)]

    def _set(self, call: IncomingRequest) -> dict[str, object]:
        sender = self._user(call)
        if sender is None:
            raise _refusal("Invalid key")
        text = call.params.get("msg", "")
        if not text:
            raise _refusal("Message is empty")
        if len(text) > MAX_TEXT:
            raise _refusal(f"Message is too long, {MAX_TEXT} characters at most")
        bot = call.params.get("bot", "").lower() in ("1", "true")
        return {"status": 1, "mid": self.say(sender, text, bot=bot)}

    def _user(self, call: IncomingRequest) -> str | None:
        """The user whose key the request carries, ``None`` without one."""
        key = call.params.get("key")
        if not key:
            return None
        if key not in self._users:
            raise _refusal("Invalid key")
        return self._users[key]


def _refusal(words: str) -> RefusedError:
    return RefusedError({"status": 0, "message": words})


def _int32_param(call: IncomingRequest, name: str) -> int | None:
    text = call.params.get(name)
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,10}", text) or not -(2**31) <= int(text) < 2**31:
        raise _refusal(f"Invalid {name}")
    return int(text)


def _can_see(reader: str | None, line: ChatLine) -> bool:
    return not line.to or reader in (line.sender, line.to)


def _as_json(line: ChatLine, reader: str | None, habits: Quirks) -> dict[str, object]:
    """Shape a message for *reader*, as documented."""
    return {
        "id": line.id,
        "by": line.sender,
        "to": line.to,
        "msg": line.text,
        "date": line.date,
        "bot": as_bit(line.bot, habits),
        "my": as_bit(line.sender == reader, habits),
        "me": as_bit(bool(line.to), habits),
    }
