"""The public test kit: both services on loopback, and a judge of how they are asked.

It is used like this:

    async with FakeServices() as fake, fake.session() as session:
        fake.chat.say("alice", "hello")
        page = await session.peerbet.messages()
        assert not fake.violations

Everything here is for tests and demonstrations; nothing of it is needed to talk to the services. It
imports no more than a session does until the services start, for its pytest plugin stands in every
test run.
"""

from __future__ import annotations

from .chat import ChatLine, FakeChat
from .directory import Chats, Person, Staff, Users
from .fake import FakeServices
from .faults import Fault, Faults
from .habits import BOM, PHP_WARNING, QuirkOptions, Quirks
from .incoming import Arrival
from .judge import DEFAULT_RATES, Rule, Violation
from .keys import ApiKeys
from .mail import FakeMail, Mailbox, SentMail, StoredMail
from .people import Actor, Heard, Pace, People
from .virtual import VirtualTimeLoop

__all__ = [
    "BOM",
    "DEFAULT_RATES",
    "PHP_WARNING",
    "Actor",
    "ApiKeys",
    "Arrival",
    "ChatLine",
    "Chats",
    "FakeChat",
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
    "Rule",
    "SentMail",
    "Staff",
    "StoredMail",
    "Users",
    "Violation",
    "VirtualTimeLoop",
]
