"""The PythBots mailbox of the one user whose personal key the fake knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

import msgspec

from .directory import Person, Users

__all__ = ["FakeMail", "Letter", "SentMail"]


class Letter(msgspec.Struct, frozen=True):
    """One mail in the box; ``date`` is ``yyyy-MM-dd HH:mm:ss``."""

    id: int
    sender: str
    sender_id: int
    text: str
    date: str
    read: bool = False


class SentMail(NamedTuple):
    """What a client sent: the recipient's username, however it was addressed, and the text."""

    recipient: str
    text: str


class FakeMail:
    """``box`` is what came for the key's owner, in order; ``sent`` is what clients sent."""

    def __init__(
        self, users: Users, owner: Person, *, readall_marks: bool, date: Callable[[], str]
    ) -> None:
        self.box: list[Letter] = []
        self.sent: list[SentMail] = []
        self._users = users
        self._owner = owner
        self._readall_marks = readall_marks
        self._date = date
        self._ids = count(1)

    def deliver(self, sender: str, text: str) -> int:
        """Put an unread mail into the box and return its id. An unknown sender becomes a user."""
        author = self._users.ensure(sender)
        letter = Letter(next(self._ids), author.username, author.id, text, self._date())
        self.box.append(letter)
        return letter.id

    def send(self, recipient: Person, text: str) -> None:
        """Take a mail from the key's owner, who may also write to themselves."""
        self.sent.append(SentMail(recipient.username, text))
        if recipient.id == self._owner.id:
            self.deliver(recipient.username, text)

    def read_new(self) -> list[dict[str, object]]:
        """Hand out the unread mail as it is, and mark it as read."""
        unread = [letter for letter in self.box if not letter.read]
        self._mark_all()
        return _shown(unread)

    def read_all(self) -> list[dict[str, object]]:
        """Hand out all mail as it is. Whether that marks it as read is documented nowhere."""
        letters = _shown(self.box)
        if self._readall_marks:
            self._mark_all()
        return letters

    def _mark_all(self) -> None:
        self.box[:] = [msgspec.structs.replace(letter, read=True) for letter in self.box]


def _shown(letters: Iterable[Letter]) -> list[dict[str, object]]:
    return [
        {
            "id": letter.id,
            "from": letter.sender,
            "from_id": letter.sender_id,
            "message": letter.text,
            "date": letter.date,
            "read": int(letter.read),
        }
        for letter in letters
    ]
