"""Who and what PythBots knows: people, and chats with their staff and statistics.

Which facts there are is documented; the names of the fields and their types are not, so these are
natural choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

__all__ = ["Chats", "Person", "Staff", "Users", "seed_directory"]

DAY: Final = 86_400
"""Seconds."""


class Person(msgspec.Struct, frozen=True):
    """One user, field by field as ``userinfo.php`` shows it."""

    id: int
    username: str
    nickname: str
    avatar: str
    powers: tuple[str, ...]
    chats: tuple[str, ...]
    rank: str
    online: bool


class Staff(msgspec.Struct, frozen=True):
    """One member of a chat's staff, as ``crank.php`` shows it. ``time_held`` is in seconds."""

    id: int
    username: str
    rank: str
    avatar: str
    time_held: int


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
        """Add a user, in the place of whoever had that name or id before."""
        known = self.by_name(username)
        if user_id is None:
            user_id = known.id if known else self._next_id()
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
        replaced = (known, self.by_id(user_id))
        self._people = [*(one for one in self._people if one not in replaced), person]
        return person

    def _next_id(self) -> int:
        return 1 + max((one.id for one in self._people), default=0)

    def __iter__(self) -> Iterator[Person]:
        return iter(self._people)

    def by_name(self, username: str) -> Person | None:
        """The user of that name."""
        name = username.casefold()
        return next((one for one in self._people if one.username.casefold() == name), None)

    def by_id(self, user_id: int | str) -> Person | None:
        """The user with that id, given as a number or in digits."""
        return next((one for one in self._people if str(one.id) == str(user_id)), None)

    def find(self, user: str) -> Person | None:
        """The user of that name or, failing that, with that id."""
        return self.by_name(user) or self.by_id(user)

    def ensure(self, username: str) -> Person:
        """The user of that name, added if there is none."""
        return self.by_name(username) or self.add(username)


class Chat(msgspec.Struct):
    """One chat. Only one that has ``opted_in`` shows its staff."""

    opted_in: bool
    stats: dict[str, int]
    staff: list[Staff] = []


class Chats:
    """All chats, by id."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._chats: dict[str, Chat] = {}

    def add(self, chat_id: int, *, opted_in: bool = True, **stats: int) -> None:
        """Add a chat without staff. Only one that has *opted_in* shows its staff.

        *stats* come beside, or in the place of, ``messages`` and ``active_users``, which are 0.
        """
        self._chats[str(chat_id)] = Chat(opted_in, {"messages": 0, "active_users": 0, **stats})

    def appoint(self, chat_id: int, username: str, rank: str, *, time_held: int = 0) -> None:
        """Give *username* a rank, such as ``"Main Owner"``, held for *time_held* seconds."""
        person = self._users.ensure(username)
        member = Staff(person.id, person.username, rank, person.avatar, time_held)
        self._chats[str(chat_id)].staff.append(member)

    def by_id(self, chat_id: str) -> Chat | None:
        """The chat with that id, given in digits."""
        return self._chats.get(chat_id)


def seed_directory(users: Users, chats: Chats) -> None:
    """Put in what the documentation's examples ask for: a user, a chat, and some company."""
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
