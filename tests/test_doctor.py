"""The doctor: every variant of the services is recognised, every fault has a finding of its own.

The services are those of the test kit, with their quirks. All data of users contain a canary, which
must not be in a report.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import re
import socket
import stat
import time
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import trustme
from helpers import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_server import (
    RawServer,
    answer,
    client_context,
    hang,
    legacy_server_context,
    open_session,
    server_context,
)
from test_shapes import SHAPED

from pythpeer import InvalidRequestError, Secret, SessionClosedError
from pythpeer.doctor import Finding, Report, Sample, Status, examine, write_samples
from pythpeer.doctor import peerbet as chat
from pythpeer.doctor import pythbots as bots
from pythpeer.doctor.redact import (
    Hidden,
    allowed_field,
    describe_types,
    list_fields,
    redact,
    redact_words,
    type_name,
)
from pythpeer.pythbots import parse_user
from pythpeer.testing import BOM, PHP_WARNING, FakeServices, Fault, Quirks, VirtualTimeLoop
from pythpeer.wire.fields import Fields
from pythpeer.wire.query import JsonObject
from pythpeer.wire.responses import try_parse_response

pytestmark = pytest.mark.anyio

CANARY: Final = "canary7f3a9"
KEYS: Final[Mapping[str, Any]] = {
    "peerbet_key": f"{CANARY}-of-peerbet",
    "personal_key": f"{CANARY} of/pythbots",
}
API_KEY: Final = f"{CANARY}-of-the-api"

OK, NOTE, WARNING, PROBLEM, SKIPPED = (
    Status.OK,
    Status.NOTE,
    Status.WARNING,
    Status.PROBLEM,
    Status.SKIPPED,
)


@pytest.fixture(autouse=True)
def no_canary_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log record of any level contains a canary."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


def services(**options: Any) -> FakeServices:
    """Fake services with messages in the chat and mails in the mailbox."""
    fake = FakeServices(**{**KEYS, **options})
    for number in range(8):
        fake.chat.say(f"{CANARY} {number % 3}", f"{CANARY} says {number}")
    fake.chat.say(fake.username, f"{CANARY} is mine", to=CANARY)
    for number in range(3):
        fake.mail.deliver(f"{CANARY}{number}", f"{CANARY} writes {number}")
    return fake


async def report_on(fake: FakeServices, **overrides: Any) -> Report:
    """Examine running services, and check that nothing was changed in them."""
    messages = list(fake.chat.messages)
    async with fake.session(**overrides) as session:
        report = await examine(session)
    assert fake.chat.messages == messages
    assert fake.mail.sent == []
    assert all_that_shows(report)
    return report


def all_that_shows(report: Report) -> str:
    """Return all texts of a report, and check that they contain no canary."""
    shown = [repr(report), json.dumps(report.as_json()), *map(repr, report.samples)]
    text = "\n".join(shown) + b"".join(sample.body for sample in report.samples).decode()
    assert CANARY not in text
    assert CANARY not in text.encode().decode("unicode_escape")
    return text


async def examined(options: Mapping[str, Any], **overrides: Any) -> Report:
    async with services(**options) as fake:
        return await report_on(fake, **overrides)


def finding_of(report: Report, check: str) -> Finding:
    finding = report.find(check)
    assert finding is not None, (
        f"{check} is not in {[finding.check for finding in report.findings]}"
    )
    return finding


# -- all is well ----------------------------------------------------------------------------------


async def test_services_as_documented_are_well() -> None:
    """There is no warning and no problem; notes are on undocumented behaviour."""
    report = await examined({})
    assert report.status is NOTE
    notes = {finding.check for finding in report.findings if finding.status is NOTE}
    assert notes == {
        "peerbet.tls",
        "peerbet.chat.window",
        "peerbet.content-type",
        "pythbots.tls",
        "pythbots.cstats.unknown",
        "pythbots.content-type",
    }
    assert {finding.check for finding in report.findings if finding.status is SKIPPED} == {
        "pythbots.mail.empty"
    }
    assert all(
        (finding.advice is not None) == (finding.status is WARNING) for finding in report.findings
    )


async def test_it_only_reads_and_keeps_the_rates() -> None:
    """No post, no mail, no destructive read; unread mail stays unread."""
    async with services(pythbots_api_key=API_KEY) as fake:
        started = asyncio.get_running_loop().time()
        await report_on(fake)
        assert 3.0 <= asyncio.get_running_loop().time() - started <= 30.0
        assert fake.violations == []
        targets = " ".join(arrival.target for arrival in fake.requests)
        assert not any(word in targets for word in ("readnew", "message=", "msg=", "=set"))
        assert not any(letter.read for letter in fake.mail.inbox)
        assert len(fake.requests) <= 15


async def test_watch_receives_each_finding() -> None:
    """`watch` has received each of them, in order, by the end."""
    watched: list[Finding] = []
    async with services() as fake, fake.session() as session:
        report = await examine(session, watch=watched.append)
    assert tuple(watched) == report.findings


async def test_mail_can_be_excluded() -> None:
    """Reading it may mark it."""
    async with services() as fake, fake.session() as session:
        report = await examine(session, mail=False)
        assert finding_of(report, "pythbots.personal-key").status is SKIPPED
        assert "pythbots.mail" not in {arrival.endpoint for arrival in fake.requests}


async def test_without_keys_some_checks_are_skipped() -> None:
    """Checks without a key are skipped, and the variable is named; that is not a warning."""
    async with services() as fake:
        report = await report_on(fake, peerbet_key=None, personal_key=None)
    assert finding_of(report, "peerbet.key").status is SKIPPED
    assert "PYTHPEER_PEERBET_KEY" in (finding_of(report, "peerbet.key").advice or "")
    assert "PYTHPEER_PERSONAL_KEY" in (finding_of(report, "pythbots.personal-key").advice or "")
    assert report.status is NOTE


async def test_a_session_that_is_not_open_is_an_error() -> None:
    """It is an error before any check, and so are wrong arguments."""
    async with services() as fake:
        with pytest.raises(SessionClosedError):
            await examine(fake.session())
        async with fake.session() as session:
            for wrong in ({"user": 0}, {"user": ""}, {"chat_id": "1"}, {"chat_id": 0}):
                with pytest.raises(InvalidRequestError):
                    await examine(session, **wrong)
        assert fake.requests == []


# -- every variant is recognised ------------------------------------------------------------------


class ExpectedFinding(NamedTuple):
    """The finding by which a variant is recognised, and a text in it."""

    options: Mapping[str, Any]
    check: str
    status: Status
    words: str


VARIANTS: Final[Mapping[str, ExpectedFinding]] = {
    "window newest": ExpectedFinding(
        {"window": "newest"}, "peerbet.chat.window", NOTE, "the newest are sent"
    ),
    "window oldest": ExpectedFinding(
        {"window": "oldest"}, "peerbet.chat.window", OK, "the oldest are sent"
    ),
    "overlap of one": ExpectedFinding({"overlap": 1}, "peerbet.chat.overlap", NOTE, "mid itself"),
    "overlap of three": ExpectedFinding(
        {"overlap": 3}, "peerbet.chat.overlap", NOTE, "3 messages up to mid"
    ),
    "repeat": ExpectedFinding({"repeat": 2}, "peerbet.chat.repeats", NOTE, "9 messages repeated"),
    "order descending": ExpectedFinding(
        {"order": "descending"}, "peerbet.chat.order", NOTE, "descending"
    ),
    "order shuffled": ExpectedFinding(
        {"order": "shuffled"}, "peerbet.chat.order", NOTE, "unsorted"
    ),
    "order of mail": ExpectedFinding(
        {"order": "descending"}, "pythbots.mail.order", NOTE, "descending"
    ),
    "numbered chat": ExpectedFinding(
        {"numbered": True}, "peerbet.chat.list", NOTE, "numbers for keys"
    ),
    "numbered staff": ExpectedFinding(
        {"numbered": True}, "pythbots.crank.form", NOTE, "numbers for keys"
    ),
    "numbered mail": ExpectedFinding(
        {"numbered": True}, "pythbots.mail.form", NOTE, "numbers for keys"
    ),
    "wrapped staff": ExpectedFinding(
        {"wrapped": True}, "pythbots.crank.form", NOTE, "inside an object"
    ),
    "wrapped mail": ExpectedFinding(
        {"wrapped": True}, "pythbots.mail.form", NOTE, "inside an object"
    ),
    "empty list": ExpectedFinding({"empty": "list"}, "peerbet.chat.empty", OK, "[]"),
    "empty null": ExpectedFinding({"empty": "null"}, "peerbet.chat.empty", NOTE, "null"),
    "empty object": ExpectedFinding({"empty": "object"}, "peerbet.chat.empty", NOTE, "{}"),
    "numbers_as_strings in chat": ExpectedFinding(
        {"numbers_as_strings": True}, "peerbet.chat.types", NOTE, "numbers are strings"
    ),
    "numbers_as_strings in staff": ExpectedFinding(
        {"numbers_as_strings": True}, "pythbots.crank.types", NOTE, "numbers are strings"
    ),
    "numbers_as_strings in mail": ExpectedFinding(
        {"numbers_as_strings": True}, "pythbots.mail.types", NOTE, "bits are strings"
    ),
    "bits_as_booleans in chat": ExpectedFinding(
        {"bits_as_booleans": True}, "peerbet.chat.types", NOTE, "bits are booleans"
    ),
    "bits_as_booleans in mail": ExpectedFinding(
        {"bits_as_booleans": True}, "pythbots.mail.types", OK, "bits are booleans"
    ),
    "mail_ids": ExpectedFinding(
        {"mail_ids": False}, "pythbots.mail.ids", NOTE, "3 of 3 mails have no id"
    ),
    "readall_marks": ExpectedFinding(
        {"readall_marks": True}, "pythbots.mail.marks", WARNING, "3 unread before it, 0 after"
    ),
    "readall does not mark": ExpectedFinding(
        {"readall_marks": False}, "pythbots.mail.marks", OK, "leaves unread mail unread"
    ),
    "names that are unknown": ExpectedFinding(
        {"names": {"from": "author", "from_id": "author_id"}},
        "pythbots.mail.missing",
        WARNING,
        "sender",
    ),
    "names that are unknown, shown": ExpectedFinding(
        {"names": {"from": "author"}}, "pythbots.mail.unknown", NOTE, "author"
    ),
    "names that could be somebody's": ExpectedFinding(
        {"names": {"from": CANARY}}, "pythbots.mail.unknown", NOTE, "1 whose names are not shown"
    ),
    "names that are known": ExpectedFinding(
        {"names": {"from": "sender", "message": "text"}}, "pythbots.mail.missing", OK, "every field"
    ),
    "names left out": ExpectedFinding(
        {"names": {"rank": None}}, "pythbots.crank.missing", WARNING, "rank"
    ),
    "names left out, of no need": ExpectedFinding(
        {"names": {"read": None}}, "pythbots.mail.missing", NOTE, "is_read"
    ),
    "personal_key_param": ExpectedFinding(
        {"personal_key_param": "personalkey"},
        "pythbots.personal-key",
        PROBLEM,
        "only with the parameter personalkey",
    ),
    "refusal_status": ExpectedFinding(
        {"refusal_status": 403}, "pythbots.refusals", OK, '("User not found", HTTP status 403)'
    ),
    "prefix BOM": ExpectedFinding({"prefix": BOM}, "peerbet.around", NOTE, "a byte-order mark"),
    "prefix PHP": ExpectedFinding(
        {"prefix": PHP_WARNING}, "pythbots.around", WARNING, "PHP's warnings"
    ),
    "prefix of both": ExpectedFinding(
        {"prefix": BOM + PHP_WARNING}, "peerbet.around", WARNING, "a byte-order mark, and"
    ),
    "content_type": ExpectedFinding(
        {"content_type": "application/json"},
        "peerbet.content-type",
        OK,
        "Content-Type is application/json",
    ),
    "content_type text": ExpectedFinding(
        {"content_type": "text/plain"}, "peerbet.content-type", NOTE, "text/plain"
    ),
    "content_type odd": ExpectedFinding(
        {"content_type": CANARY}, "pythbots.content-type", NOTE, "another"
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_every_variant_is_recognised(variant: str) -> None:
    """Each has a finding of its own, and causes no problem elsewhere."""
    sign = VARIANTS[variant]
    # The session is the user's: it knows nothing of how the service spells a parameter.
    report = await examined(sign.options, personal_key_param="personal_key")
    finding = finding_of(report, sign.check)
    assert (finding.status, sign.words in finding.text) == (sign.status, True), finding
    failed_checks = [finding.check for finding in report.findings if finding.status is PROBLEM]
    assert failed_checks == ([sign.check] if sign.status is PROBLEM else [])


def test_the_table_has_every_variant_there_is() -> None:
    """A new quirk of the test kit requires a new row."""
    switched = {name for sign in VARIANTS.values() for name in sign.options}
    others = {"dead_key"}  # has tests of its own, with a key that is dead
    assert switched | others == set(Quirks.__struct_fields__)


async def test_a_dead_key_that_looks_like_no_key_is_reported() -> None:
    """The page has no private message and none of the owner, whichever key was sent."""
    report = await examined({"dead_key": "ignored"}, peerbet_key=f"{CANARY} of old")
    found = finding_of(report, "peerbet.key")
    assert found.status is NOTE
    assert "a wrong key may look like no key" in found.text
    assert "run this again" in (found.advice or "")
    for valid in (await examined({"dead_key": "ignored"}), await examined({})):
        assert finding_of(valid, "peerbet.key").status is OK


async def test_a_dead_key_that_is_rejected_is_a_problem() -> None:
    """The other variant: the error of the service names the key."""
    report = await examined({}, peerbet_key=f"{CANARY} of old")
    assert finding_of(report, "peerbet.key").status is PROBLEM


async def test_private_messages_prove_a_key() -> None:
    """Also where its owner has written nothing."""
    async with FakeServices(**KEYS) as fake:
        fake.chat.say(CANARY, f"{CANARY} says", to=fake.username.upper())
        found = finding_of(await report_on(fake), "peerbet.key")
    assert (found.status, "private messages are returned (1" in found.text) == (OK, True)


async def test_the_right_parameter_name_is_found() -> None:
    """For either parameter name in the session, and for one that is neither."""
    for configured in ("personalkey", "key_of_mine"):
        report = await examined({}, personal_key_param=configured)
        finding = finding_of(report, "pythbots.personal-key")
        assert (finding.status, finding.advice) == (
            PROBLEM,
            (
                "set PYTHPEER_PERSONAL_KEY_PARAM=personal_key, or create sessions with"
                ' Session(personal_key_param="personal_key")'
            ),
        )
    report = await examined({"personal_key_param": "personalkey"}, personal_key_param="personalkey")
    assert finding_of(report, "pythbots.personal-key").text.endswith("the parameter is personalkey")


@pytest.mark.parametrize("options", [{}, {"wrapped": True}])
async def test_an_empty_mailbox_as_null_is_a_problem(options: Mapping[str, Any]) -> None:
    """A stream would recover lost mail indefinitely, because it treats that as damaged."""
    async with FakeServices(empty="null", **options) as fake:
        report = await report_on(fake)
    finding = finding_of(report, "pythbots.mail.null")
    assert finding.status is PROBLEM
    assert "recover lost mail indefinitely" in finding.text
    assert finding_of(report, "pythbots.personal-key").status is OK


@pytest.mark.parametrize("body", ["null", '{"mail": null}', '{"count": 0, "mail": null}', '""'])
async def test_null_is_recognised_in_every_form(body: str) -> None:
    """In every position, with any other fields."""
    async with services() as fake:
        fake.faults.always("pythbots.mail", Fault.garbage(body.encode()))
        report = await report_on(fake)
    assert finding_of(report, "pythbots.mail.null").status is PROBLEM


@pytest.mark.parametrize("empty", ["list", "object"])
async def test_an_empty_mailbox_is_well_otherwise(empty: Any) -> None:
    """It is a list without elements."""
    async with FakeServices(empty=empty) as fake:
        report = await report_on(fake)
    assert finding_of(report, "pythbots.mail.empty").status is OK
    assert report.find("pythbots.mail.null") is None
    assert finding_of(report, "pythbots.mail.marks").status is SKIPPED


async def test_an_empty_chat_is_well() -> None:
    """Checks that require messages are skipped."""
    async with FakeServices() as fake:
        report = await report_on(fake)
    assert finding_of(report, "peerbet.chat.overlap").status is SKIPPED
    assert report.status is NOTE


async def test_a_chat_of_few_messages_shows_no_window() -> None:
    """The check of the window requires more messages than a response contains."""
    async with FakeServices() as fake:
        for _ in range(3):
            fake.chat.say("alice", "hello")
        report = await report_on(fake)
    assert finding_of(report, "peerbet.chat.window").status is SKIPPED
    assert finding_of(report, "peerbet.chat.overlap").status is OK


async def test_new_messages_during_the_examination_change_nothing() -> None:
    """The window is still recognised if there are new messages."""
    for window, words_of_it in (
        ("oldest", "the oldest are sent"),
        ("newest", "the newest are sent"),
    ):
        async with services(window=window) as fake:
            fake.people.add("alice").says("hello", every=0.4)
            async with fake.session() as session:
                report = await examine(session)
        assert words_of_it in finding_of(report, "peerbet.chat.window").text


# -- keys -----------------------------------------------------------------------------------------


async def test_keys_that_are_accepted() -> None:
    """They are recognised by what only the key's owner receives, if there is such a thing."""
    report = await examined({"pythbots_api_key": API_KEY})
    assert "messages are marked (1 on the page)" in finding_of(report, "peerbet.key").text
    assert finding_of(report, "pythbots.api-key").text == "accepted by 3 of 3 look-ups"
    assert finding_of(report, "pythbots.personal-key").status is OK


async def test_keys_that_are_wrong() -> None:
    """Each is named, and whatever does not need it is still checked."""
    async with services(pythbots_api_key=API_KEY) as fake:
        wrong = f"{CANARY}-wrong"
        keys = ("peerbet_key", "personal_key", "pythbots_api_key")
        report = await report_on(fake, **dict.fromkeys(keys, wrong))
    assert finding_of(report, "peerbet.key").status is PROBLEM
    assert '("Invalid key", HTTP status 200)' in finding_of(report, "peerbet.key").text
    assert finding_of(report, "peerbet.chat.types").status is OK
    assert finding_of(report, "peerbet.chat.window").status is NOTE
    assert "the API key is rejected" in finding_of(report, "pythbots.api-key").text
    assert finding_of(report, "pythbots.personal-key").status is PROBLEM


async def test_a_wrong_personal_key_is_tried_with_both_parameter_names() -> None:
    """So the parameter's name cannot be the cause."""
    async with services() as fake:
        report = await report_on(fake, personal_key=f"{CANARY}-wrong")
        asked = [request.target for request in fake.requests if request.endpoint == "pythbots.mail"]
    assert len(asked) == 2
    assert finding_of(report, "pythbots.personal-key").status is PROBLEM


async def test_an_api_key_that_is_required_and_missing() -> None:
    """The variable to set is named."""
    report = await examined({"pythbots_api_key": API_KEY}, pythbots_api_key=None)
    finding = finding_of(report, "pythbots.api-key")
    assert (finding.status, finding.advice) == (PROBLEM, "set PYTHPEER_PYTHBOTS_API_KEY")


async def test_an_api_key_without_a_permission() -> None:
    """The endpoints without permission are named."""
    async with services() as fake:
        fake.api_keys.add(API_KEY, endpoints=["pythbots.userinfo", "pythbots.cstats"])
        report = await report_on(fake, pythbots_api_key=API_KEY)
    finding = finding_of(report, "pythbots.api-key")
    assert finding.status is PROBLEM
    assert 'has no permission for: staff ("no access", HTTP status 200)' in finding.text
    assert finding_of(report, "pythbots.personal-key").status is PROBLEM
    assert "API key needs permission" in (finding_of(report, "pythbots.personal-key").advice or "")


@pytest.mark.parametrize("limit", ["per_hour", "per_day", "per_week", "per_month"])
async def test_an_api_key_that_is_used_up(limit: str) -> None:
    """Its limit is the cause, not the key itself."""
    async with services() as fake:
        used_up: dict[str, Any] = {limit: 1}
        fake.api_keys.add(API_KEY, **used_up)
        report = await report_on(fake, pythbots_api_key=API_KEY)
    assert finding_of(report, "pythbots.userinfo.answer").status is OK
    finding = finding_of(report, "pythbots.crank.answer")
    assert (finding.status, "throttled by the service" in finding.text) == (WARNING, True)


# -- faults ---------------------------------------------------------------------------------------

PORTAL: Final = f"<!DOCTYPE html><html><body>Welcome, {CANARY}</body></html>".encode()
OLD_DATE: Final = format_datetime(datetime.now(UTC) - timedelta(hours=3), usegmt=True)


class FaultCase(NamedTuple):
    """A fault that applies to every request, and the text in the finding of a look-up."""

    fault: Fault
    status: Status
    words: str


FAULTS: Final[Mapping[str, FaultCase]] = {
    "drop": FaultCase(Fault.drop(), PROBLEM, " broke before the response"),
    "reset": FaultCase(Fault.reset(), PROBLEM, " broke before the response"),
    "cut": FaultCase(Fault.cut(), PROBLEM, " broke within the body"),
    "hang": FaultCase(Fault.hang(), PROBLEM, "no complete response within the time limit"),
    "slow": FaultCase(Fault.slow(7.0), OK, "can be read"),
    "after": FaultCase(Fault.html().after(1.0), PROBLEM, "a web page (HTTP status 200)"),
    "http": FaultCase(Fault.http(503), PROBLEM, "web page (HTTP status 503)"),
    "http bare": FaultCase(Fault(status=500, body=b""), PROBLEM, "500: the service has a failure"),
    "not found": FaultCase(Fault(status=404, body=b""), PROBLEM, "HTTP status 404"),
    "too_many": FaultCase(Fault.too_many(3600), WARNING, "throttled by the service for 3600 s"),
    "html": FaultCase(Fault.html(), PROBLEM, "a web page (HTTP status 200)"),
    "portal": FaultCase(Fault.garbage(PORTAL), PROBLEM, "a web page (HTTP status 200)"),
    "guard": FaultCase(Fault(status=403, body=PORTAL), PROBLEM, "a web page (HTTP status 403)"),
    "garbage": FaultCase(Fault.garbage(), PROBLEM, "no JSON, or damaged JSON"),
    "empty": FaultCase(Fault.garbage(b""), PROBLEM, "an empty response"),
    "another shape": FaultCase(Fault.garbage(b'"word"'), PROBLEM, "JSON of an unexpected shape"),
    "too large": FaultCase(Fault.garbage(b" " * 2_000_000), PROBLEM, "more than 1048576 bytes"),
    "redirect": FaultCase(
        Fault(status=302, body=b"", headers=(("Location", f"https://{CANARY}.example/?{CANARY}"),)),
        PROBLEM,
        "HTTP status 302: redirect to another host, not followed",
    ),
    "redirect nearby": FaultCase(
        Fault(status=301, body=b"", headers=(("Location", f"/{CANARY}"),)),
        PROBLEM,
        "HTTP status 301: redirect to another address",
    ),
    "refusal": FaultCase(Fault.refusal(f"no {CANARY} today"), WARNING, 'API error ("no … today"'),
    "denial": FaultCase(Fault.refusal("no access", status=403), PROBLEM, "access denied"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_every_fault_has_its_own_line(name: str) -> None:
    """On both services; the examination is completed."""
    met_fault = FAULTS[name]
    async with services() as fake:
        fake.faults.always("peerbet", met_fault.fault)
        fake.faults.always("pythbots", met_fault.fault)
        report = await report_on(fake)
    looked_up, read = (
        finding_of(report, "pythbots.userinfo.answer"),
        report.find("peerbet.chat.public"),
    )
    assert (looked_up.status, met_fault.words in looked_up.text) == (met_fault.status, True), (
        looked_up
    )
    assert read is not None
    if name == "denial":  # no key was sent there, and none is needed by the documentation
        assert (read.status, "documented as optional" in read.text) == (WARNING, True)
    elif name == "slow":
        assert read.status is OK
    else:
        assert (read.status, met_fault.words in read.text) == (met_fault.status, True), read
    assert report.find("pythbots.personal-key") or report.find("pythbots.mail.answer")


def test_the_table_has_every_fault_there_is() -> None:
    """A new fault of the test kit requires a new row."""
    made = {name for name, value in vars(Fault).items() if isinstance(value, classmethod)}
    assert made | {"after"} <= FAULTS.keys()


async def test_slow_services_are_called_slow() -> None:
    """The finding contains the time."""
    async with services() as fake:
        fake.faults.always("pythbots.crank", Fault.slow(7.0))
        report = await report_on(fake)
    finding = finding_of(report, "pythbots.speed")
    assert finding.status is WARNING
    assert "took 7.0" in finding.text
    assert "(staff)" in finding.text
    assert finding_of(report, "peerbet.speed").status is OK


@pytest.mark.parametrize(
    ("date", "status", "text"),
    [
        (OLD_DATE, WARNING, "s ahead of the service's"),
        (
            format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True),
            WARNING,
            "s behind the service's",
        ),
        (CANARY, NOTE, "no date to compare"),
    ],
    ids=["ahead", "behind", "none"],
)
async def test_a_clock_that_is_off(date: str, status: Status, text: str) -> None:
    """It is compared with the date of every response."""
    async with services() as fake:
        fake.faults.always("pythbots", Fault(headers=(("Date", date),)))
        report = await report_on(fake)
    finding = finding_of(report, "pythbots.clock")
    assert (finding.status, text in finding.text) == (status, True), finding
    assert finding_of(report, "peerbet.clock").status is OK


async def test_a_chat_that_is_not_opted_in_is_no_problem() -> None:
    """Another chat may be."""
    async with services() as fake, fake.session() as session:
        report = await examine(session, chat_id=7)
    finding = finding_of(report, "pythbots.crank.answer")
    assert (finding.status, "Chat has not opted in" in finding.text) == (WARNING, True)
    assert finding_of(report, "pythbots.api-key").status is OK


# -- the way there --------------------------------------------------------------------------------


async def test_a_service_that_is_down() -> None:
    """It receives no request; the other one is still examined."""
    async with services() as fake, fake.session() as session, fake.outage("peerbet"):
        report = await examine(session)
    assert finding_of(report, "peerbet.tcp").status is PROBLEM
    assert finding_of(report, "peerbet.answers").status is SKIPPED
    assert finding_of(report, "pythbots.personal-key").status is OK
    assert report.status is PROBLEM


async def test_an_unresolvable_name() -> None:
    """It is a finding before any request."""
    async with open_session("https://nobody.invalid") as session:
        report = await examine(session)
    assert [finding.check for finding in report.findings] == [
        "peerbet.dns",
        "peerbet.answers",
        "pythbots.dns",
        "pythbots.answers",
    ]
    assert finding_of(report, "peerbet.dns").text == "nobody.invalid cannot be resolved"


def _days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days, hours=1)


@pytest.mark.parametrize(
    ("tls", "status", "text"),
    [
        (lambda: server_context(expires=_days(300)), OK, "is trusted, and expires in 300 days"),
        (lambda: server_context(expires=_days(5)), WARNING, "expires in 5 days"),
        (lambda: server_context(expires=_days(-5)), PROBLEM, "it has expired"),
        (
            lambda: server_context(ca=trustme.CA()),
            PROBLEM,
            "an authority that is not trusted on this machine",
        ),
        (lambda: server_context("127.0.0.2"), PROBLEM, "it is the certificate of another host"),
        (legacy_server_context, PROBLEM, "no TLS connection"),
    ],
    ids=["good", "soon", "expired", "unknown authority", "other host", "old"],
)
async def test_certificates(tls: Any, status: Status, text: str) -> None:
    """Whether they are trusted, the reason if not, and when they expire."""
    async with RawServer(answer(b"{}"), tls=tls()) as server:
        async with open_session(server.url, ssl_context=client_context()) as session:
            report = await examine(session)
        assert (server.requests == []) is (status is PROBLEM)
    finding = finding_of(report, "peerbet.tls")
    assert (finding.status, text in finding.text) == (status, True), finding


async def test_a_certificate_is_not_trusted_by_default() -> None:
    """By default a session trusts the system's authorities only."""
    async with RawServer(answer(b"{}"), tls=server_context()) as server:
        async with open_session(server.url) as session:
            report = await examine(session)
        assert server.requests == []
    assert "the certificate is not trusted" in finding_of(report, "pythbots.tls").text


async def test_a_port_that_speaks_no_tls() -> None:
    """It closes the connection, or never responds."""
    async with (
        RawServer(answer(b"{}")) as server,
        open_session(server.url.replace("http:", "https:")) as session,
    ):
        report = await examine(session)
    assert "no TLS connection" in finding_of(report, "peerbet.tls").text
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with open_session(f"https://127.0.0.1:{silent.getsockname()[1]}") as session:
            report = await examine(session)
    assert finding_of(report, "peerbet.tls").status is PROBLEM


async def test_it_can_be_cancelled_at_any_moment() -> None:
    """The frames of a cancellation contain no key."""
    async with RawServer(hang()) as server, open_session(server.url, **KEYS) as session:
        task = asyncio.ensure_future(examine(session))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert len(server.requests) == 1
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


async def test_a_failure_of_the_watcher_shows_no_key() -> None:
    """The frames of its exception contain responses, but the repr of those shows none."""

    def watch(finding: Finding) -> None:
        if finding.check == "pythbots.mail.ids":
            raise BrokenPipeError

    async with services() as fake, fake.session() as session:
        with pytest.raises(BrokenPipeError) as caught:
            await examine(session, watch=watch)
        frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        inner = [
            f"{frame.name} {frame.locals}"
            for frame in frames.stack
            if "pythpeer" in frame.filename and "tests" not in frame.filename
        ]
    assert any("mail" in frame for frame in inner)
    assert not any(key in frame for frame in inner for key in KEYS.values())


# -- whatever comes -------------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.sampled_from(["", CANARY, f"{CANARY} {CANARY}", "1", "0", "-7", "2020-02-02 02:02:02"])
NAMES = TEXTS | st.sampled_from(
    [
        "id",
        "by",
        "msg",
        "message_list",
        "mail",
        "data",
        "from",
        "message",
        "status",
        "read",
        "error",
    ]
)
DOCUMENTS = st.recursive(
    SCALARS | TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)
MESSAGES = st.fixed_dictionaries(
    {"id": SCALARS | TEXTS | st.integers(0, 20), "by": TEXTS, "msg": SCALARS | TEXTS},
    optional=dict.fromkeys(("to", "date", "bot", "my", "me", CANARY), SCALARS | TEXTS),
)
PAGES = st.fixed_dictionaries({"message_list": st.lists(MESSAGES, max_size=6)})
MAILS = st.lists(
    st.dictionaries(st.sampled_from(["id", "from", "message", "date", "read"]), SCALARS | TEXTS),
    max_size=4,
)


@settings(max_examples=examples(60))
@given(chat=DOCUMENTS | PAGES, lookup=DOCUMENTS, mail=DOCUMENTS | MAILS)
@example(chat={"message_list": [{"id": 2**63}]}, lookup=None, mail=None)
@example(chat={"message_list": [{"id": -7}]}, lookup={"": ""}, mail=[{"id": 2**70}])
def test_for_any_response_there_is_a_report(chat: Any, lookup: Any, mail: Any) -> None:
    """For any JSON there is a report, which contains nothing of the JSON."""

    async def main() -> Report:
        async with FakeServices(**KEYS) as fake:
            for name, body in (("peerbet", chat), ("pythbots", lookup), ("pythbots.mail", mail)):
                fake.faults.always(name, Fault.garbage(json.dumps(body).encode()))
            return await report_on(fake)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        report = runner.run(main())
    assert report.find("peerbet.around") is not None
    assert report.find("pythbots.api-key") is not None


@settings(max_examples=examples(300))
@given(DOCUMENTS | PAGES | MAILS)
def test_checks_never_raise(document: Any) -> None:
    """Each check accepts any JSON."""
    findings = [
        *chat.check_fields(document),
        *chat.check_list(document, 300),
        *chat.check_overlap(document, 5),
        chat.check_window(document, [1, 2, 3, 4], 2),
        *(checked for model in MODELS for checked in bots.check_object(model, document)),
        *(checked for model in MODELS for checked in bots.check_list(model, document)),
        *bots.check_mail(document),
        bots.check_marks_read(document, document),
        bots.ambiguous_empty_finding(document),
    ]
    assert CANARY not in repr(findings)


MODELS = (bots.USER, bots.STAFF, bots.STATS, bots.MAIL)


# -- what is missing, unknown, or of another type -------------------------------------------------


def texts_by_check(*findings: Finding) -> dict[str, tuple[Status, str]]:
    return {finding.check: (finding.status, finding.text) for finding in findings}


def test_documented_fields_that_are_missing() -> None:
    """Without an id, a sender or a text a message is lost; the other fields are optional."""
    whole: Any = {"id": 1, "by": "a", "to": "", "msg": "b", "date": "2020-02-02 02:02:02"}
    page: Any = {
        "status": 1,
        "users_online": 1,
        "message_list": [whole | dict.fromkeys(BITS, 0), whole],
    }
    status, text = texts_by_check(*chat.check_fields(page))["peerbet.chat.missing"]
    assert (status, text.count("in 1 of 2 messages")) == (WARNING, 3)
    page["message_list"] = [{"by": "a", "msg": "b"}]
    texts = texts_by_check(*chat.check_fields(page))
    assert texts["peerbet.chat.missing"][0] is PROBLEM
    assert texts["peerbet.chat.unreadable"][1].startswith("1 of 1 messages cannot be read")
    del page["users_online"]
    assert "users_online" in texts_by_check(*chat.check_fields(page))["peerbet.chat.missing"][1]


BITS = ("bot", "my", "me")


def test_unexpected_types() -> None:
    """Each field is named with its type, and never with its value."""
    message: Any = {
        "id": "1",
        "by": None,
        "to": 7,
        "msg": [],
        "date": 1.5,
        **dict.fromkeys(BITS, True),
    }
    page: Any = {"status": "1", "users_online": None, "message_list": {"0": message}, CANARY: 1}
    status, text = texts_by_check(*chat.check_fields(page))["peerbet.chat.types"]
    assert status is NOTE
    for named in (
        *("status (digits)", "users_online (null)", "message_list (object)", "id (digits)"),
        *("by (null)", "to (integer)", "msg (list)", "date (fraction)", "bot (boolean)"),
    ):
        assert named in text
    assert (
        "1 whose names are not shown"
        in texts_by_check(*chat.check_fields(page))["peerbet.chat.unknown"][1]
    )


def test_dates_that_no_model_can_read() -> None:
    """A number of seconds instead of a date is an unreadable value."""
    mails: Any = [
        {"id": 1, "from": "a", "from_id": 2, "message": "b", "date": 1700000000, "read": 0}
    ]
    status, text = texts_by_check(*bots.check_mail(mails))["pythbots.mail.unreadable"]
    assert (status, "sent_at (integer)" in text) == (WARNING, True)


def test_null_in_a_field_is_no_surprise() -> None:
    """A nickname may be null, which is not unreadable."""
    user: Any = {"id": 1, "username": "a", "nickname": None}
    finding = texts_by_check(*bots.check_object(bots.USER, user))
    assert finding["pythbots.userinfo.unreadable"][0] is OK
    assert "nickname" not in finding["pythbots.userinfo.missing"][1]


def test_an_object_within_an_object_is_read_there() -> None:
    """The fields of the inner one count."""
    inner: Any = {"id": 1, "username": "a", "shoes": 3}
    finding = texts_by_check(*bots.check_object(bots.USER, {"data": inner}))
    assert finding["pythbots.userinfo.form"][0] is NOTE
    assert finding["pythbots.userinfo.unknown"][1].endswith("1 whose names are not shown")


def test_an_object_in_a_field_is_not_the_record() -> None:
    """A user's avatar object is not the user."""
    user: Any = {"id": 1, "username": "a", "room": {"id": 9, "name": "b"}}
    finding = texts_by_check(*bots.check_object(bots.USER, user))
    assert "pythbots.userinfo.form" not in finding
    assert "id" not in finding["pythbots.userinfo.unknown"][1].split(": ")[1]


def test_staff_by_rank() -> None:
    """Several lists, by rank."""
    staff: Any = {"owners": [{"id": 1, "username": "a"}], "mods": [{"id": 2, "username": "b"}]}
    finding = texts_by_check(*bots.check_list(bots.STAFF, staff))
    assert "several lists, by name" in finding["pythbots.crank.form"][1]


def test_elements_that_are_not_objects() -> None:
    """Elements that are not objects are counted."""
    finding = texts_by_check(*bots.check_list(bots.MAIL, [{"id": 1, "message": "a"}, 7, None]))
    assert finding["pythbots.mail.strays"][1].startswith("2 of 3")


def test_mail_without_a_read_mark() -> None:
    """The effect of reading cannot be seen."""
    mails: Any = [{"id": 2, "message": "a"}, {"id": 2, "message": "b"}]
    assert bots.check_marks_read(mails, mails).status is SKIPPED
    assert texts_by_check(*bots.check_mail(mails))["pythbots.mail.ids"][1].endswith(
        "some are equal"
    )
    bare: Any = [{"message": "a"}, {"message": "b"}]
    assert "not sorted" in texts_by_check(*bots.check_mail(bare))["pythbots.mail.order"][1]


def test_windows_that_are_neither() -> None:
    """An unknown window should be reported; one that ignores ``last`` is a different case."""

    def page(*numbers: int) -> Any:
        return {"message_list": [{"id": number} for number in numbers]}

    previous_ids = [1, 2, 3, 4, 5, 6]
    assert chat.check_window(page(3, 4), previous_ids, 2).status is WARNING
    assert chat.check_window(page(), previous_ids, 2).status is WARNING
    assert "last has no effect" in chat.check_window(page(2, 3, 4), previous_ids, 2).text
    assert chat.check_window(page(2, 3), previous_ids, 2).status is OK
    assert chat.check_window(page(7, 8), previous_ids, 2).status is NOTE


# -- what is kept of answers ----------------------------------------------------------------------


@settings(max_examples=examples(300))
@given(DOCUMENTS | PAGES | MAILS)
def test_samples_keep_the_types_and_nothing_else(finding: Any) -> None:
    """The shape is equal, there is no canary, and redacting again gives the same."""
    body = redact(finding)
    assert body is not None
    assert CANARY.encode() not in body
    again = json.loads(body)
    assert redact(again) == body
    assert _types(again) == _types(finding)


def _types(finding: Any) -> Any:
    """Return the types of everything in order, without names."""
    if isinstance(finding, list):
        return [_types(inner) for inner in finding]
    if isinstance(finding, dict):
        return {"object": [_types(inner) for inner in finding.values()]}
    return type_name(finding)


@given(st.lists(st.integers(), unique=True), st.lists(st.dates(), unique=True))
def test_samples_keep_the_order(numbers: list[int], days: list[Any]) -> None:
    """Of numbers of either sign, and of dates; small numbers are kept as harmless."""
    dates = [f"{day} 12:00:00" for day in days]
    texts = [str(number) for number in numbers if abs(number) < 10**18]
    finding: Any = [numbers, texts, dates]
    body = redact(finding)
    assert body is not None
    new_numbers, new_texts, new_dates = json.loads(body)
    for old, new in zip(numbers, new_numbers, strict=True):
        assert len(str(new)) == len(str(old))
        assert abs(old) >= 10 or new == old
    assert _ranks(new_numbers) == _ranks(numbers)
    assert _ranks(list(map(int, new_texts))) == _ranks([n for n in numbers if abs(n) < 10**18])
    assert _ranks(new_dates) == _ranks(dates)


def _ranks(values: list[Any]) -> list[int]:
    return [sorted(values).index(value) for value in values]


def test_samples_keep_no_id() -> None:
    """An id is replaced, as a number, as a string and as the name of a field."""
    body = redact([221192, "221192", {"221192": 1}, 42, "2024-02-29 12:34:56"])
    assert body is not None
    assert json.loads(body) == [
        100000,
        "100000",
        {"100000": 1},
        10,
        "2012-12-12 21:12:21",
    ]


def test_samples_keep_which_texts_are_equal() -> None:
    """Mail without ids is identified by its contents."""
    body = redact(["hello there", "hello there", "good morning", "Owner", "https://a.example/b"])
    assert body is not None
    first, second, third, rank, link = json.loads(body)
    assert first == second != third
    assert (rank, link[:20]) == ("Owner", "https://example.com/")


def test_responses_nested_too_deeply_are_not_kept() -> None:
    """What is nested too deeply has no sample, and its shape is limited."""
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    assert redact(deep) is None
    assert len(describe_types(deep)) < 100


@pytest.mark.parametrize("name", ["from", "from_id", "messageList", "mail-id", "userID", "is_read"])
def test_names_that_interfaces_use_are_shown(name: str) -> None:
    """In every notation."""
    assert allowed_field(name) == name


@pytest.mark.parametrize("name", ["", "7", "tiro", "id7", "id\n", "ïd", "user_tiro", "x" * 99])
def test_other_names_are_not(name: str) -> None:
    """They could be a user's; only their length is shown."""
    assert allowed_field(name) is None
    assert re.fullmatch(
        r"\{id: integer, \(a name of .* characters\): integer\}", describe_types({"id": 1, name: 2})
    )


def test_words_of_an_api_error() -> None:
    """The listed words are kept, everything else is omitted."""
    assert redact_words(f"Invalid key {CANARY} {CANARY}: no access.") == "Invalid key … no access."
    assert redact_words(CANARY) == "…"


LISTED_KEYS: Final[Mapping[str, Any]] = {
    "peerbet_key": "moderator",
    "personal_key": "owner avatar",
    "pythbots_api_key": "Week_Zone_Active",
}
"""Keys that consist of words which the doctor shows."""

LISTED_USER: Final = "yesterday"

LISTED: Final = re.compile(
    "moderator|owner.?avatar|week.?zone|zone.?active|yesterday", re.IGNORECASE
)
"""What a report with these keys, and about this user, must not contain."""


def repeated(text: str) -> list[Any]:
    """Return documents of each kind that repeat *text*: in names, values, records and errors."""
    record = {"id": 1, "by": "a", "msg": "b", text: 7, "rank": text, text.upper(): 1}
    if text != LISTED_USER:
        record[f"last_{text}"] = text
    return [
        record,
        [record, record],
        {"message_list": [record], text: 1},
        {"status": 0, "error": f"Invalid key {text}.", text: text},
        {
            "status": 0,
            "error": {"message": f"No user {text}", "reason": f"wrong {text} 1"},
            text: 0,
        },
    ]


@pytest.mark.parametrize("text", [*LISTED_KEYS.values(), LISTED_USER])
@pytest.mark.parametrize("kind", range(5))
async def test_listed_words_that_are_a_key_are_not_shown(text: str, kind: int) -> None:
    """Nor the name of the requested user: in findings, shapes, samples."""
    body = json.dumps(repeated(text)[kind]).encode()
    async with FakeServices(**LISTED_KEYS) as fake:
        for name in ("peerbet", "pythbots"):
            fake.faults.always(name, Fault.garbage(body))
        async with fake.session() as session:
            report = await examine(session, user=LISTED_USER)
    assert not LISTED.search(all_that_shows(report))
    unhidden = redact(repeated(text)[kind], refusal=kind > 2)
    assert unhidden is not None
    assert LISTED.search(unhidden.decode())


def test_names_are_searched_for_keys_up_to_a_limit() -> None:
    """The search takes time; names that are not searched are not shown."""
    hidden = Hidden([Secret("personal key/1")])
    words = ("id", "user", "rank", "chat", "mail", "time", "date", "from")
    names = map("_".join, itertools.product(words, repeat=4))
    document: JsonObject = dict.fromkeys(names, 1)
    started = time.process_time()
    body = redact(document, hidden)
    assert time.process_time() - started < 2.0
    assert body is not None
    replaced = json.loads(body)
    assert sum(not name.startswith("unlisted") for name in replaced) == 2_000
    assert list_fields(["user_name", "owner_name", "ids"], hidden) == (
        "3 whose names are not shown"
    )


@pytest.mark.parametrize("key", ["e", "7", "id"])
def test_a_short_key_is_hidden_as_a_word_only(key: str) -> None:
    """All names and words with these characters would be missing from the report otherwise."""
    hidden = Hidden([Secret(key)])
    assert list_fields(["message_id", "user_name"], hidden) == "message_id, user_name"
    assert allowed_field("id", hidden) == ("id" if key != "id" else None)
    assert redact_words("invalid message", hidden) == "invalid message"
    assert key not in redact_words(f"the key {key} is invalid", hidden).split()


async def test_samples_are_files_that_can_be_dropped_in(tmp_path: Path) -> None:
    """One for each response, which models read like the response; private, never overwritten."""
    report = await examined({"pythbots_api_key": API_KEY, "order": "shuffled", "prefix": BOM})
    paths = write_samples(report.samples, tmp_path / "new")
    assert {path.parent.name for path in paths} == SHAPED.keys() - {"peerbet.chat.set"}
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 or os.name == "nt"
        body = path.read_bytes()
        assert CANARY.encode() not in body
        answer_to_it = try_parse_response(SHAPED[path.parent.name], 200, body, list)
        assert isinstance(answer_to_it, Exception) is path.name.startswith("captured_refusal")
    before = {path: path.read_bytes() for path in paths}
    again = write_samples(report.samples, tmp_path / "new")
    assert not set(again) & set(paths)
    assert {path: path.read_bytes() for path in paths} == before
    assert len(again) == len(paths)


async def test_a_sample_has_the_findings_of_the_response() -> None:
    """The findings on a sample are those on the response, for every variant."""
    for sign in VARIANTS.values():
        async with services(**sign.options) as fake, fake.session() as session:
            report = await examine(session)
        shapes = {document.name.replace(" ", "_"): document.shape for document in report.shapes}
        for document in report.samples:
            name = document.name.removeprefix("refusal_")
            assert without_names(describe_types(json.loads(document.body))) == without_names(
                shapes[name]
            )


def without_names(text: str) -> str:
    """Return a shape with one text in place of every name that is not shown."""
    text = re.sub(r"\(a name of [^)]*\)", "*", text)
    return re.sub(r"unlisted_\d+", "*", text)


def test_samples_that_cannot_be_written(tmp_path: Path) -> None:
    """One clear error, without the text of another exception."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="cannot be written"):
        write_samples((), tmp_path / "file")
    with pytest.raises(InvalidRequestError, match="cannot be written"):
        write_samples([Sample("x", "y", b"{}")], tmp_path / "file" / "within")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_the_work_for_a_large_object_is_limited() -> None:
    """Its fields are tried one by one, but only some, and no copy has all of them."""
    sizes: list[int] = []

    def read(record: JsonObject) -> msgspec.Struct | None:
        sizes.append(len(record))
        return parse_user(Fields(record))

    model = bots.Model("pythbots.userinfo", read)
    document: JsonObject = {"username": "tiro", **{f"field {at}": at for at in range(90_000)}}
    findings = {finding.check: finding for finding in bots.check_object(model, document)}
    assert sum(sizes) < 200_000
    assert "90000" in findings["pythbots.userinfo.unknown"].text
    assert "username" not in findings["pythbots.userinfo.missing"].text
