"""The public test kit: both services on loopback, and a judge of how they are asked.

::

    async with FakeServices() as fake, fake.session() as session:
        fake.chat.say("alice", "hello")
        page = await session.peerbet.messages()
        assert not fake.violations

Everything here is for tests and demonstrations; nothing of it is needed to talk to the services.
"""

from __future__ import annotations

from .chat import ChatLine, FakeChat
from .directory import Chats, Person, Staff, Users
from .fake import FakeServices
from .incoming import Arrival
from .judge import LAW, Rule, Violation
from .mail import FakeMail, Letter, SentMail
from .virtual import VirtualTimeLoop

__all__ = [
    "LAW",
    "Arrival",
    "ChatLine",
    "Chats",
    "FakeChat",
    "FakeMail",
    "FakeServices",
    "Letter",
    "Person",
    "Rule",
    "SentMail",
    "Staff",
    "Users",
    "Violation",
    "VirtualTimeLoop",
]
