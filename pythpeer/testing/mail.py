"""The PythBots mail: a mailbox for each user, opened by that user's personal key."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import count
from random import Random
from typing import NamedTuple

import msgspec

from ..deprecation import warn_renamed
from .directory import Person, Users
from .quirks import Quirks
from .responses import as_bit, as_php_list, ordered, renamed

__all__ = ["FakeMail", "Mailbox", "SentMail", "StoredMail"]


class StoredMail(msgspec.Struct, frozen=True):
    """One mail in an inbox."""

    id: int
    """The id, unique among all mails."""

    sender: str
    """The sender's username."""

    sender_id: int
    """The sender's id."""

    text: str
    """The text, unchanged."""

    date: str
    """The services' date of the delivery, ``yyyy-MM-dd HH:mm:ss``."""

    read: bool = False
    """Whether it was marked as read."""


class SentMail(NamedTuple):
    """One mail that a client sent."""

    recipient: str
    """The recipient's username, also if it was sent to an id."""

    text: str
    """The text, unchanged."""


class Mailbox:
    """One user's mail: the attribute ``owner`` is the user, ``inbox`` and ``sent`` are mails."""

    def __init__(self, owner: Person) -> None:
        self.owner = owner
        """The user whose mail it is."""
        self.inbox: list[StoredMail] = []
        """The mails for the owner, in the order of delivery."""
        self.sent: list[SentMail] = []
        """The mails that the owner sent by the API."""

    @property
    def box(self) -> list[StoredMail]:
        """Deprecated name of ``inbox``."""
        warn_renamed("Mailbox.box", "Mailbox.inbox")
        return self.inbox

    def mark_all_read(self) -> None:
        """Mark all mails in the inbox as read."""
        self.inbox[:] = [msgspec.structs.replace(mail, read=True) for mail in self.inbox]


class FakeMail:
    """All mailboxes; ``inbox`` and ``sent`` are those of the fake's own user.

    A mail between users is delivered whether or not they have a key.
    """

    def __init__(
        self,
        users: Users,
        owner: Person,
        *,
        quirks: Callable[[], Quirks],
        date: Callable[[], str],
        rng: Random,
    ) -> None:
        self._users = users
        self._owner = Mailbox(owner)
        self._quirks = quirks
        self._date = date
        self._rng = rng
        self._mailboxes = {owner.username.casefold(): self._owner}
        """The mailboxes by username in lower case; `of` adds to them."""
        self._keys: dict[str, Mailbox] = {}
        """The mailboxes by personal key; `register` adds to them."""
        self._ids = count(1)
        self._listeners: list[Callable[[Person, StoredMail], None]] = []

    @property
    def inbox(self) -> list[StoredMail]:
        """The mails for the fake's own user, in the order of delivery."""
        return self._owner.inbox

    @property
    def box(self) -> list[StoredMail]:
        """Deprecated name of ``inbox``."""
        warn_renamed("FakeMail.box", "FakeMail.inbox")
        return self._owner.inbox

    @property
    def sent(self) -> list[SentMail]:
        """The mails that the fake's own user sent."""
        return self._owner.sent

    def of(self, username: str) -> Mailbox:
        """Return the mailbox of *username*, who becomes a user if unknown."""
        person = self._users.ensure(username)
        return self._mailboxes.setdefault(person.username.casefold(), Mailbox(person))

    def register(self, username: str, key: str) -> Mailbox:
        """Make *key* a personal key of *username*, and return the mailbox that it opens."""
        self._keys[key] = mailbox = self.of(username)
        return mailbox

    @property
    def keys(self) -> Collection[str]:
        """The personal keys of all users."""
        return self._keys.keys()

    def opened_by(self, key: str | None) -> Mailbox | None:
        """Return the mailbox that *key* opens, ``None`` if there is none."""
        return None if key is None else self._keys.get(key)

    def deliver(self, sender: str, text: str, *, to: str | None = None) -> int:
        """Put an unread mail with *text* into an inbox, and return its id.

        If the user *sender* is unknown, that user is added.

        The recipient is *to*, by default the fake's own user.
        """
        mailbox = self._owner if to is None else self.of(to)
        author = self._users.ensure(sender)
        mail = StoredMail(next(self._ids), author.username, author.id, text, self._date())
        mailbox.inbox.append(mail)
        for listener in tuple(self._listeners):
            listener(mailbox.owner, mail)
        return mail.id

    def subscribe(self, listener: Callable[[Person, StoredMail], None]) -> Callable[[], None]:
        """Call *listener* with the recipient and each mail from now on.

        That ends when the returned function is called. *listener* must return soon.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def listen(self, listener: Callable[[Person, StoredMail], None]) -> Callable[[], None]:
        """Deprecated name of `subscribe`."""
        warn_renamed("FakeMail.listen()", "FakeMail.subscribe()")
        return self.subscribe(listener)

    # -- what the API does ------------------------------------------------------------------------

    def send(self, mailbox: Mailbox, recipient: Person, text: str) -> None:
        """Send a mail from the owner of *mailbox*, to any user including the owner."""
        mailbox.sent.append(SentMail(recipient.username, text))
        self.deliver(mailbox.owner.username, text, to=recipient.username)

    def read_new(self, mailbox: Mailbox) -> object:
        """Return the unread mail in its state before this call, and mark it as read."""
        document = self._as_json([mail for mail in mailbox.inbox if not mail.read])
        mailbox.mark_all_read()
        return document

    def read_all(self, mailbox: Mailbox) -> object:
        """Return all mail in its state before this call. Marking it as read is a quirk."""
        document = self._as_json(mailbox.inbox)
        if self._quirks().readall_marks:
            mailbox.mark_all_read()
        return document

    def _as_json(self, mails: list[StoredMail]) -> object:
        quirks = self._quirks()
        return as_php_list(
            [_as_fields(mail, quirks) for mail in ordered(mails, quirks, self._rng)], quirks
        )


def _as_fields(mail: StoredMail, quirks: Quirks) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": mail.id,
        "from": mail.sender,
        "from_id": mail.sender_id,
        "message": mail.text,
        "date": mail.date,
        "read": as_bit(mail.read, quirks),
    }
    if not quirks.mail_ids:
        del fields["id"]
    return renamed(fields, quirks)
