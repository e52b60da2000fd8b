"""The PythBots mail: a mailbox for each user, open to whoever has that user's personal key."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import count
from random import Random
from typing import NamedTuple

import msgspec

from .directory import Person, Users
from .habits import Quirks
from .replies import as_bit, as_php_list, ordered, renamed

__all__ = ["FakeMail", "Mailbox", "SentMail", "StoredMail"]


class StoredMail(msgspec.Struct, frozen=True):
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


class Mailbox:
    """One user's mail: ``box`` is what came, in order; ``sent`` is what they sent by the API."""

    def __init__(self, owner: Person) -> None:
        self.owner = owner
        self.inbox: list[StoredMail] = []
        self.sent: list[SentMail] = []

    def _mark_all(self) -> None:
        """Mark everything as read."""
        self.inbox[:] = [msgspec.structs.replace(letter, read=True) for letter in self.inbox]


class FakeMail:
    """All mailboxes; ``box`` and ``sent`` are those of the fake's own user.

    Mail between users arrives, whether or not they have a key.
    """

    def __init__(
        self,
        users: Users,
        owner: Person,
        *,
        habits: Callable[[], Quirks],
        date: Callable[[], str],
        rng: Random,
    ) -> None:
        self._users = users
        self._owner = Mailbox(owner)
        self._habits = habits
        self._date = date
        self._chance = rng
        self._boxes = {owner.username.casefold(): self._owner}
        self._keys: dict[str, Mailbox] = {}
        self._ids = count(1)
        self._listeners: list[Callable[[Person, StoredMail], None]] = []

    @property
    def box(self) -> list[StoredMail]:
        """What came for the fake's own user, in order."""
        return self._owner.inbox

    @property
    def sent(self) -> list[SentMail]:
        """What the fake's own user sent."""
        return self._owner.sent

    def of(self, username: str) -> Mailbox:
        """The mailbox of *username*, who becomes a user if unknown."""
        person = self._users.ensure(username)
        return self._boxes.setdefault(person.username.casefold(), Mailbox(person))

    def register(self, username: str, key: str) -> Mailbox:
        """Open the mailbox of *username* to whoever has *key*."""
        self._keys[key] = mailbox = self.of(username)
        return mailbox

    @property
    def keys(self) -> Collection[str]:
        """The personal keys of all users."""
        return self._keys.keys()

    def _opened_by(self, key: str | None) -> Mailbox | None:
        """The mailbox that *key* opens."""
        return None if key is None else self._keys.get(key)

    def deliver(self, sender: str, text: str, *, to: str | None = None) -> int:
        """Put an unread mail into a box, and return its id. An unknown sender becomes a user.

        It is for the fake's own user, or for *to*.
        """
        mailbox = self._owner if to is None else self.of(to)
        author = self._users.ensure(sender)
        letter = StoredMail(next(self._ids), author.username, author.id, text, self._date())
        mailbox.inbox.append(letter)
        for listener in tuple(self._listeners):
            listener(mailbox.owner, letter)
        return letter.id

    def listen(self, listener: Callable[[Person, StoredMail], None]) -> Callable[[], None]:
        """Have *listener* called with the recipient and each mail from now on.

        That ends when what is returned is called. It should return soon.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- what the API does ------------------------------------------------------------------------

    def _send(self, mailbox: Mailbox, recipient: Person, text: str) -> None:
        """Take a mail from the owner of *mailbox*, who may also write to themselves."""
        mailbox.sent.append(SentMail(recipient.username, text))
        self.deliver(mailbox.owner.username, text, to=recipient.username)

    def _read_new(self, mailbox: Mailbox) -> object:
        """Hand out the unread mail as it is, and mark it as read."""
        shown = self._shown([letter for letter in mailbox.inbox if not letter.read])
        mailbox._mark_all()
        return shown

    def _read_all(self, mailbox: Mailbox) -> object:
        """Hand out all mail as it is. Whether that marks it as read is a habit."""
        shown = self._shown(mailbox.inbox)
        if self._habits().readall_marks:
            mailbox._mark_all()
        return shown

    def _shown(self, letters: list[StoredMail]) -> object:
        habits = self._habits()
        return as_php_list(
            [_fields(letter, habits) for letter in ordered(letters, habits, self._chance)], habits
        )


def _fields(letter: StoredMail, habits: Quirks) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": letter.id,
        "from": letter.sender,
        "from_id": letter.sender_id,
        "message": letter.text,
        "date": letter.date,
        "read": as_bit(letter.read, habits),
    }
    if not habits.mail_ids:
        del fields["id"]
    return renamed(fields, habits)
