"""The users of PythBots, and its chats with their staff and statistics.

Documented is which facts there are. The names and types of the fields are not, so these are natural
choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

__all__ = ["Chats", "Person", "Staff", "Users", "same_name", "seed_directory"]

DAY: Final = 86_400
"""Seconds."""


def same_name(one: str, other: str) -> bool:
    """Return whether two names are those of one user: both services compare them without case."""
    return one.casefold() == other.casefold()


class Person(msgspec.Struct, frozen=True):
    """One user, with the fields that ``userinfo.php`` shows."""

    id: int
    """The id, unique among users."""

    username: str
    """The name, unique in any case."""

    nickname: str
    """The displayed name."""

    avatar: str
    """The URL of the picture."""

    powers: tuple[str, ...]
    """Names of powers."""

    chats: tuple[str, ...]
    """Names of chats."""

    rank: str
    """The rank."""

    online: bool
    """Whether the user is online."""


class Staff(msgspec.Struct, frozen=True):
    """One member of a chat's staff, with the fields that ``crank.php`` shows."""

    id: int
    """The user's id."""

    username: str
    """The user's name."""

    rank: str
    """The rank in the chat, such as ``"Main Owner"``."""

    avatar: str
    """The URL of the user's picture."""

    time_held: int
    """Seconds for which the rank has been held."""


class Users:
    """All users, by name (in any case) and by id."""

    def __init__(self) -> None:
        self._people: list[Person] = []

    def add(
        self,
        username: str,
        *,
        user_id: int | None = None,
        nickname: str | None = None,
        avatar: str | None = None,
        powers: Iterable[str] = (),
        chats: Iterable[str] = (),
        rank: str = "User",
        online: bool = False,
    ) -> Person:
        """Add a user and return it; replaces users who have the same name or id.

        Args:
            username: The name, unique in any case.
            user_id: The id; by default that of the user replaced, or the next free one.
            nickname: The displayed name, by default *username*.
            avatar: The URL of a picture; by default an invented one.
            powers: Names of powers.
            chats: Names of chats.
            rank: The rank.
            online: Whether the user is online.
        """
        namesake = self.by_name(username)
        if user_id is None:
            user_id = namesake.id if namesake else self._next_id()
        person = Person(
            id=user_id,
            username=username,
            nickname=username if nickname is None else nickname,
            avatar=f"https://avatars.example/{user_id}.png" if avatar is None else avatar,
            powers=tuple(powers),
            chats=tuple(chats),
            rank=rank,
            online=online,
        )
        replaced = (namesake, self.by_id(user_id))
        self._people = [*(other for other in self._people if other not in replaced), person]
        return person

    def _next_id(self) -> int:
        return 1 + max((person.id for person in self._people), default=0)

    def __iter__(self) -> Iterator[Person]:
        return iter(self._people)

    def by_name(self, username: str) -> Person | None:
        """Return the user with the name *username*, in any case; ``None`` if there is none."""
        return next((user for user in self._people if same_name(user.username, username)), None)

    def by_id(self, user_id: int | str) -> Person | None:
        """Return the user with the id *user_id*, also as digits; ``None`` if there is none."""
        return next((user for user in self._people if str(user.id) == str(user_id)), None)

    def find(self, user: str) -> Person | None:
        """Return the user whose name, or else id, is *user*; ``None`` if there is none."""
        return self.by_name(user) or self.by_id(user)

    def ensure(self, username: str) -> Person:
        """Return the user with the name *username*, who is added if necessary."""
        return self.by_name(username) or self.add(username)


class Chat(msgspec.Struct):
    """One chat. Its staff is shown only if it has ``opted_in``."""

    opted_in: bool
    """Whether the staff is shown."""
    stats: dict[str, int]
    """The statistics by name."""
    staff: list[Staff] = []
    """The staff."""


class Chats:
    """All chats, by id."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._chats: dict[str, Chat] = {}

    def add(self, chat_id: int, *, opted_in: bool = True, **stats: int) -> None:
        """Add the chat *chat_id* without staff, whose staff is shown only if it has *opted_in*.

        *stats* are statistics in addition to ``messages`` and ``active_users``, which are 0 by
        default.
        """
        self._chats[str(chat_id)] = Chat(opted_in, {"messages": 0, "active_users": 0, **stats})

    def appoint(self, chat_id: int, username: str, rank: str, *, time_held: int = 0) -> None:
        """Add *username* to the staff of *chat_id*, with *rank* held for *time_held* seconds.

        Raises ``KeyError`` for an unknown chat.
        """
        person = self._users.ensure(username)
        member = Staff(person.id, person.username, rank, person.avatar, time_held)
        self._chats[str(chat_id)].staff.append(member)

    def by_id(self, chat_id: str) -> Chat | None:
        """Return the chat with the id *chat_id*, digits as a text; ``None`` if there is none."""
        return self._chats.get(chat_id)


def seed_directory(users: Users, chats: Chats) -> None:
    """Add the user and the chat of the documentation's examples, and two more users."""
    users.add(
        "tiro",
        user_id=221192,
        nickname="Tiro",
        powers=("allpowers", "everypower"),
        chats=("pythbots",),
        rank="Owner",
        online=True,
    )
    users.add("alice", user_id=101, nickname="Alice", powers=("nameglow",), chats=("pythbots",))
    users.add("bob", user_id=102, nickname="Bob", online=True)
    chats.add(220531305, messages=125_000, active_users=42, messages_today=310, peak_users=67)
    chats.appoint(220531305, "tiro", "Main Owner", time_held=900 * DAY)
    chats.appoint(220531305, "alice", "Owner", time_held=365 * DAY)
    chats.appoint(220531305, "bob", "Moderator", time_held=30 * DAY)
