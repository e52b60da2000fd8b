"""The checker of `nox -s chaos`: it reports each promise that is not kept, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from chaos_checker import SILENCE, Checker, Kind, Lateness

CHAT: Final[tuple[str, Kind]] = ("own", "chat")
MAIL: Final[tuple[str, Kind]] = ("own", "mail")


def make_checker(*, shared: bool = False, mail_ids: bool = True) -> Checker:
    """A checker that knows three messages and a mail, all of them due."""
    checker = Checker([CHAT, MAIL], shared=shared, mail_ids=mail_ids, interval=0.25)
    for number in (1, 2, 3):
        checker.message(0.0, f"chat {number}", number)
    checker.mail(0.0, "mail 1")
    return checker


def deliver(checker: Checker, *numbers: int, at: float = 1.0) -> None:
    for number in numbers:
        checker.item(at, "worker", CHAT, f"chat {number}", recovered=False)


def deliver_mail(checker: Checker, *, recovered: bool = False) -> None:
    checker.item(1.0, "worker", MAIL, "mail 1", recovered=recovered)


def promises(checker: Checker) -> list[str]:
    return [violation.promise for violation in checker.violations]


def test_mail_with_ids_may_be_redelivered_if_the_history_cannot_count() -> None:
    """Then it must be marked."""
    checker = make_checker()
    checker.has_complete_history = False
    deliver_mail(checker)
    deliver_mail(checker, recovered=True)
    assert promises(checker) == []
    deliver_mail(checker)
    assert promises(checker) == ["nothing acknowledged is redelivered"]


def test_a_worker_that_stood_still_may_count_as_dead() -> None:
    """Its items are redelivered then; that it stood still is known later."""
    checker = make_checker(shared=True)
    deliver(checker, 1, 2, at=1.0)
    deliver(checker, 1, at=1.2)
    assert promises(checker) == ["nothing acknowledged is redelivered"]
    checker.was_late(1.3, 0.5, "other")
    assert promises(checker) == ["nothing acknowledged is redelivered"]
    checker.was_late(1.3, 0.5, "worker")
    assert promises(checker) == []
    deliver(checker, 2, at=9.0)
    deliver(checker, 2, at=20.0)
    checker.was_late(20.0, 0.5)
    assert promises(checker) == ["nothing acknowledged is redelivered"]


def test_a_name_may_be_new_after_the_store_was_emptied() -> None:
    """Its stream of the chat then continues with new messages; no mail is lost."""
    checker = make_checker(shared=True)
    checker.store_emptied(1.0)
    for stream in (CHAT, MAIL):
        checker.began(2.0, stream)
    checker.message(3.0, "chat 4", 4)
    assert list(checker.readings[CHAT].due) == ["chat 4"]
    assert list(checker.readings[MAIL].due) == ["mail 1"]
    checker.began(60.0, CHAT)
    assert list(checker.readings[CHAT].due) == ["chat 4"]


def test_a_run_without_trouble_keeps_all_promises() -> None:
    """Also if a program is killed: its last item is redelivered."""
    checker = make_checker()
    deliver(checker, 1, 2)
    deliver_mail(checker)
    checker.ended(2.0, "worker", clean=False)
    deliver(checker, 2, 3, at=3.0)
    checker.item(3.0, "worker", MAIL, "mail 1", recovered=False)
    checker.posting("post")
    checker.message(4.0, "post", 4)
    checker.posted(4.1, "post", 4)
    checker.item(4.2, "worker", CHAT, "post", recovered=False)
    assert checker.has_all(5.0)
    assert set(checker.end_round(5.0, 5.0)) == {"chat 1", "chat 2", "chat 3"}
    assert promises(checker) == []


def lose(checker: Checker) -> None:
    deliver(checker, 1, 3)
    assert not checker.has_all(1.0)
    assert list(checker.end_round(2.0, 1.0)) == ["chat 1"]


def repeat_after_a_kill(checker: Checker) -> None:
    deliver(checker, 1, 2)
    checker.ended(2.0, "worker", clean=False)
    deliver(checker, 1, at=3.0)


def repeat_after_a_stop(checker: Checker) -> None:
    deliver(checker, 1, 2)
    checker.ended(2.0, "worker", clean=True)
    deliver(checker, 2, at=3.0)


def repeat_a_second_time(checker: Checker) -> None:
    deliver(checker, 1)
    checker.ended(2.0, "worker", clean=False)
    deliver(checker, 1, 1, at=3.0)


def repeat_mail(checker: Checker) -> None:
    deliver_mail(checker)
    deliver_mail(checker, recovered=True)


def reverse(checker: Checker) -> None:
    deliver(checker, 2, 1)


def invent(checker: Checker) -> None:
    deliver(checker, 7)


def post_twice(checker: Checker) -> None:
    checker.posting("post")
    checker.message(1.0, "post", 4)
    checker.message(1.0, "post", 5)


def post_with_another_id(checker: Checker) -> None:
    checker.posting("post")
    checker.message(1.0, "post", 4)
    checker.posted(1.0, "post", 5)


def deny_a_post(checker: Checker) -> None:
    checker.posting("post")
    checker.message(1.0, "post", 4)
    checker.not_posted(1.0, "post", sent=False)


def deny_a_post_before(checker: Checker) -> None:
    checker.posting("post")
    checker.not_posted(1.0, "post", sent=False)
    checker.message(1.0, "post", 4)


def hurry(checker: Checker) -> None:
    for at in (0.0, 0.25, 0.49):
        checker.request(at, "chat.get", late=0.0, guard=0.4)


def fall_silent(checker: Checker) -> None:
    deliver(checker, 1)
    for at in (SILENCE, SILENCE + 2.0, SILENCE + 3.0):
        checker.check_silence(at, CHAT, 0.0)


@pytest.mark.parametrize(
    ("act", "promise"),
    [
        (lose, "nothing is lost"),
        (repeat_after_a_kill, "nothing acknowledged is redelivered"),
        (repeat_after_a_stop, "nothing acknowledged is redelivered"),
        (repeat_a_second_time, "nothing acknowledged is redelivered"),
        (repeat_mail, "nothing acknowledged is redelivered"),
        (reverse, "messages come in order"),
        (invent, "items are those of the service"),
        (post_twice, "a post is sent at most once"),
        (post_with_another_id, "a post returns its id"),
        (deny_a_post, "an error that says not sent is right"),
        (deny_a_post_before, "an error that says not sent is right"),
        (hurry, "no interval is short"),
        (fall_silent, "no stream is silent"),
    ],
)
def test_a_promise_that_is_not_kept_is_reported(
    act: Callable[[Checker], None], promise: str
) -> None:
    """Once, and no other one is."""
    checker = make_checker()
    act(checker)
    assert set(promises(checker)) == {promise}
    if promise != "nothing is lost":
        assert len(checker.violations) == 1


def test_mail_without_ids_may_be_redelivered_if_it_is_marked() -> None:
    """The documented exception; without the mark it is none."""
    checker = make_checker(mail_ids=False)
    repeat_mail(checker)
    assert promises(checker) == []
    deliver_mail(checker)
    assert promises(checker) == ["nothing acknowledged is redelivered"]


def test_on_redis_acknowledgements_may_be_lost_with_a_trouble() -> None:
    """Of items that were delivered while the store could not be reached, or just before."""
    checker = make_checker(shared=True)
    deliver(checker, 1, at=1.0)
    deliver(checker, 2, at=9.8)
    window = checker.trouble_begins(10.0)
    deliver(checker, 3, at=11.0)
    checker.trouble_ends(12.0, window)
    deliver(checker, 2, 3, at=13.0)
    assert promises(checker) == []
    deliver(checker, 1, at=13.0)
    assert promises(checker) == ["nothing acknowledged is redelivered"]


def test_a_silence_in_trouble_is_no_fault() -> None:
    """The workers were stopped, or have reported that they are not ok."""
    checker = make_checker()
    checker.check_silence(SILENCE + 5.0, CHAT, awake_since=6.0)
    assert promises(checker) == []


def test_a_request_that_was_recorded_late_is_not_too_early() -> None:
    """The one after it only seems to be, if its response was lost. That is measured afterwards."""
    checker = make_checker()
    checker.request(1.0, "mail", late=0.0, guard=0.4)
    checker.request(1.2, "mail", late=0.5, guard=0.4)
    assert promises(checker) == []
    checker.request(1.4, "mail", late=0.1, guard=0.4)
    assert promises(checker) == ["no interval is short"]


def test_lateness_is_that_of_the_last_seconds() -> None:
    """Older values are forgotten."""
    lateness = Lateness(5.0)
    lateness.add(0.0, 2.0)
    lateness.add(4.0, 1.0)
    assert lateness.worst == 2.0
    lateness.add(6.0, 0.5)
    assert lateness.worst == 1.0
