"""Names of the last version that have another name now: each works, and warns.

The command line has one too, which is an alias without a warning.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import warns_renamed

import pythpeer.testing
from pythpeer.doctor import Finding, Report, Status
from pythpeer.testing import ChatLine, FakeServices, Person, RecordedRequest, StoredMail


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Arrival", "RecordedRequest"),
        ("HabitOptions", "QuirkOptions"),
        ("Habits", "Quirks"),
        ("LAW", "DEFAULT_RATES"),
        ("Letter", "StoredMail"),
    ],
)
def test_old_names_of_the_test_kit(old: str, new: str) -> None:
    """Each is the same object as the new name, and is not exported."""
    with warns_renamed(f"pythpeer.testing.{old}", f"pythpeer.testing.{new}") as warned:
        renamed = getattr(pythpeer.testing, old)
    assert renamed is getattr(pythpeer.testing, new)
    assert warned[0].filename == __file__
    assert old not in pythpeer.testing.__all__


def test_unknown_names_are_still_errors() -> None:
    """The error is the usual one."""
    with pytest.raises(AttributeError, match=r"^module 'pythpeer.testing' has no attribute 'Law'$"):
        pythpeer.testing.Law  # type: ignore[attr-defined]  # noqa: B018


def test_old_names_of_quirks() -> None:
    """`habits` is `quirks`, and `adopt` is `set_quirks`."""
    fake = FakeServices(order="shuffled")
    with warns_renamed("FakeServices.habits", "FakeServices.quirks"):
        assert fake.habits is fake.quirks
    with warns_renamed("FakeServices.adopt()", "FakeServices.set_quirks()"):
        fake.adopt(mail_ids=False)
    assert (fake.quirks.order, fake.quirks.mail_ids) == ("shuffled", False)


def test_old_names_of_inboxes() -> None:
    """`box` is the same list as `inbox`, of one mailbox and of the fake's own user."""
    fake = FakeServices()
    fake.mail.deliver("alice", "hello")
    mailbox = fake.mail.of("alice")
    with warns_renamed("FakeMail.box", "FakeMail.inbox"):
        assert fake.mail.box is fake.mail.inbox
    with warns_renamed("Mailbox.box", "Mailbox.inbox"):
        assert mailbox.box is mailbox.inbox
    assert [mail.text for mail in fake.mail.inbox] == ["hello"]


def test_old_names_of_subscribe() -> None:
    """`listen` subscribes, and returns the function that ends it."""
    fake = FakeServices()
    lines: list[ChatLine] = []
    mails: list[tuple[Person, StoredMail]] = []
    requests: list[RecordedRequest] = []
    ends: list[Callable[[], None]] = []
    with warns_renamed("FakeChat.listen()", "FakeChat.subscribe()"):
        ends.append(fake.chat.listen(lines.append))
    with warns_renamed("FakeMail.listen()", "FakeMail.subscribe()"):
        ends.append(fake.mail.listen(lambda person, mail: mails.append((person, mail))))
    with warns_renamed("FakeServices.listen()", "FakeServices.subscribe()"):
        ends.append(fake.listen(requests.append))
    for text in ("first", "second"):
        fake.chat.say("alice", text)
        fake.mail.deliver("alice", text)
        while ends:
            ends.pop()()
    assert [line.text for line in lines] == ["first"]
    assert [(person.username, mail.text) for person, mail in mails] == [("pythpeer", "first")]
    assert requests == []


def test_the_old_name_of_find() -> None:
    """`Report.of` returns what `Report.find` returns."""
    finding = Finding("peerbet.dns", Status.OK, "example.org has 1 address(es)")
    report = Report("1.0", (finding,))
    with warns_renamed("Report.of()", "Report.find()") as warned:
        assert report.of("peerbet.dns") is finding
    assert warned[0].filename == __file__
    with warns_renamed("Report.of()", "Report.find()"):
        assert report.of("peerbet.tcp") is None
