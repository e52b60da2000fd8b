"""The public test kit: both services on loopback, and a checker of every request to them.

It is used like this:

    async with FakeServices() as fake, fake.session() as session:
        fake.chat.say("alice", "hello")
        page = await session.peerbet.messages()
        assert not fake.violations

Everything here is for tests and demonstrations; sessions do not need it. The pytest plugin imports
this package in every test run, so until the services start it must import no more than a session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..deprecation import old_names
from .chat import ChatLine, FakeChat
from .checker import Rule, Violation
from .dice import DiceBet, FakeDice
from .directory import Chats, Person, Staff, Users
from .endpoints import DEFAULT_RATES
from .fake import FakeServices
from .faults import Fault, Faults
from .keys import ApiKeys
from .mail import FakeMail, Mailbox, SentMail, StoredMail
from .people import Actor, Heard, Pace, People
from .quirks import BOM, PHP_WARNING, QuirkOptions, Quirks
from .requests import RecordedRequest
from .virtual import VirtualTimeLoop

__all__ = [
    "BOM",
    "DEFAULT_RATES",
    "PHP_WARNING",
    "Actor",
    "ApiKeys",
    "ChatLine",
    "Chats",
    "DiceBet",
    "FakeChat",
    "FakeDice",
    "FakeMail",
    "FakeServices",
    "Fault",
    "Faults",
    "Heard",
    "Mailbox",
    "Pace",
    "People",
    "Person",
    "QuirkOptions",
    "Quirks",
    "RecordedRequest",
    "Rule",
    "SentMail",
    "Staff",
    "StoredMail",
    "Users",
    "Violation",
    "VirtualTimeLoop",
]

RENAMED: Final = {
    "Arrival": "pythpeer.testing.RecordedRequest",
    "HabitOptions": "pythpeer.testing.QuirkOptions",
    "Habits": "pythpeer.testing.Quirks",
    "LAW": "pythpeer.testing.DEFAULT_RATES",
    "Letter": "pythpeer.testing.StoredMail",
}
"""Old names that work for one version, and the paths that replace them."""

if TYPE_CHECKING:
    Arrival = RecordedRequest
    HabitOptions = QuirkOptions
    Habits = Quirks
    LAW = DEFAULT_RATES
    Letter = StoredMail
else:
    __getattr__ = old_names(__name__, RENAMED)
