"""Parsing of responses in every form that a service can send, over samples on disk.

``samples/<endpoint>/<case>.json``: Peerbet's ``documented`` ones are byte for byte what its
documentation shows; the others are what a PHP service may plausibly send where nothing is
documented. What `pythpeer doctor --capture` writes can be stored next to them unchanged.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer import AccessDeniedError, ApiError, DecodeError, Effect, Endpoint, RateLimitedError
from pythpeer.peerbet import make_post_endpoint, make_read_endpoint
from pythpeer.pythbots import (
    crank_endpoint,
    cstats_endpoint,
    mail_endpoint,
    parse_mails,
    userinfo_endpoint,
)
from pythpeer.wire.fields import Fields, list_parser, object_parser, parse_success
from pythpeer.wire.responses import try_parse_response

BASE = "https://example.com"
SAMPLES = Path(__file__).parent / "samples"

GET, SET = make_read_endpoint(BASE), make_post_endpoint(BASE)
USER, STAFF, STATS = userinfo_endpoint(BASE), crank_endpoint(BASE), cstats_endpoint(BASE)
MAIL = mail_endpoint(BASE, parse_mails, Effect.READ)
SEND = mail_endpoint(BASE, parse_success, Effect.WRITE)

SHAPED: dict[str, Endpoint[Any]] = {
    "peerbet.chat.get": GET,
    "peerbet.chat.set": SET,
    "pythbots.userinfo": USER,
    "pythbots.crank": STAFF,
    "pythbots.cstats": STATS,
    "pythbots.mail": MAIL,
}

CASES = sorted(
    path.relative_to(SAMPLES).with_suffix("").as_posix() for path in SAMPLES.glob("*/*.json")
)


def body(case: str) -> bytes:
    """Return the sample of this name, such as ``pythbots.crank/list``."""
    return (SAMPLES / f"{case}.json").read_bytes()


def read(endpoint: Endpoint[Any], answer: bytes | str) -> Any:
    """Return what the endpoint makes of a response with status 200."""
    return try_parse_response(
        endpoint, 200, answer.encode() if isinstance(answer, str) else answer, list
    )


def sample(case: str) -> Any:
    """Return what the sample's own endpoint makes of it."""
    return read(SHAPED[case.partition("/")[0]], body(case))


def raw(case: str) -> Any:
    """Return the sample as plain JSON."""
    return json.loads(body(case))


# -- every sample ---------------------------------------------------------------------------------

DOCUMENTED = {
    "peerbet.chat.get/documented": b'{"status":1,"users_online":0,"message_list":[{"id":1,'
    b'"by":"System","to":"","msg":"This is a test message","date":"2012-12-12 21:12:21",'
    b'"bot":0,"my":0,"me":0}]}',
    "peerbet.chat.set/documented": b'{"status":1,"mid":1}',
}

REJECTED: dict[str, tuple[type[Exception], str]] = {
    "peerbet.chat.get/refused": (AccessDeniedError, "Invalid key"),
    "peerbet.chat.get/refused_older": (ApiError, "Invalid action"),
    "peerbet.chat.get/refused_without_words": (ApiError, "rejected without an error message"),
    "peerbet.chat.set/refused": (ApiError, "You are muted"),
    "pythbots.crank/not_opted_in": (ApiError, "This chat has not opted in"),
    "pythbots.mail/unknown_user": (ApiError, "User does not exist"),
    "pythbots.mail/wrong_key": (AccessDeniedError, "Invalid personal key"),
    "pythbots.userinfo/limit_reached": (RateLimitedError, "Request limit reached"),
    "pythbots.userinfo/missing_user": (ApiError, "Missing user"),
    "pythbots.userinfo/no_access": (AccessDeniedError, "no access"),
}

ANSWERS_TO_A_WRITE = {"pythbots.mail/sent", "pythbots.mail/sent_word"}


@pytest.mark.parametrize("case", DOCUMENTED)
def test_documented_samples_are_as_documented(case: str) -> None:
    """Byte for byte, without a line break at the end."""
    assert body(case) == DOCUMENTED[case]


@pytest.mark.parametrize("case", CASES)
def test_every_sample_is_parsed(case: str) -> None:
    """Each is a result of its endpoint, and each error sample is the right error."""
    answer = sample(case)
    if case in REJECTED:
        kind, words = REJECTED[case]
        assert type(answer) is kind
        shown, _, hint = str(answer).partition(" (")
        assert shown == f"{case.partition('/')[0]}: {words}"
        assert bool(hint) == isinstance(answer, AccessDeniedError)
    elif case.partition("/")[2].startswith("captured_refusal"):
        assert isinstance(answer, (ApiError, RateLimitedError))
    elif case in ANSWERS_TO_A_WRITE:
        assert isinstance(answer, DecodeError)  # because there is no mail in it
        assert read(SEND, body(case)) == raw(case)
    else:
        assert not isinstance(answer, Exception)


@pytest.mark.parametrize("case", REJECTED)
def test_an_error_is_an_error_for_a_write_too(case: str) -> None:
    """An endpoint that accepts any document does not accept an error envelope."""
    assert type(read(SEND, body(case))) is REJECTED[case][0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\nWarning: x in /a.php on line 3\n"])
def test_damage_around_a_sample_changes_nothing(case: str, before: bytes) -> None:
    """The lenient and the fast parser give the same result."""
    endpoint = SHAPED[case.partition("/")[0]]
    clean, invalid = read(endpoint, body(case)), read(endpoint, before + body(case))
    if isinstance(clean, Exception):
        assert type(invalid) is type(clean)
    else:
        assert invalid == clean


# -- Peerbet --------------------------------------------------------------------------------------


def test_a_page_of_strings() -> None:
    """Numbers and bits can be sent as text."""
    page = sample("peerbet.chat.get/strings")
    (message,) = page.messages
    assert page.users_online == 12
    assert (message.id, message.sender, message.recipient) == (1, "System", "bob")
    assert message.sent_at == datetime(2012, 12, 12, 21, 12, 21)
    assert (message.is_bot, message.is_mine, message.is_private) == (True, False, True)


def test_a_page_of_booleans() -> None:
    """Bits can be booleans; ``null`` is no user, and a zero date is ``None``."""
    (message,) = sample("peerbet.chat.get/booleans").messages
    assert (message.is_bot, message.is_mine, message.is_private) == (True, False, True)
    assert message.recipient is None
    assert message.sent_at is None


def test_a_page_of_numbers() -> None:
    """PHP sends a name that looks like a number as a number."""
    (message,) = sample("peerbet.chat.get/numeric_names").messages
    assert (message.sender, message.recipient, message.text) == ("12345", "678", "42")
    assert message.sent_at is None


@pytest.mark.parametrize("case", ["null_list", "empty", "empty_object"])
def test_a_page_without_messages(case: str) -> None:
    """An empty list, in every form that PHP sends."""
    page = sample(f"peerbet.chat.get/{case}")
    assert page.messages == page.undecodable_ids == page.undecodable == ()


def test_a_list_with_numeric_keys() -> None:
    """PHP sends a list with missing indexes so."""
    page = sample("peerbet.chat.get/numeric_keys")
    assert [(message.id, message.text) for message in page.messages] == [(1, "x"), (2, "y")]


def test_any_order_becomes_ascending() -> None:
    """Ascending by id, each id once."""
    page = sample("peerbet.chat.get/descending_with_repeats")
    assert [(message.id, message.text) for message in page.messages] == [
        (1, "x"),
        (2, "y"),
        (3, "z"),
    ]


def test_an_undecodable_message_does_not_hide_its_neighbours() -> None:
    """A message with an id only is undecodable, one without an id undecodable without id."""
    page = sample("peerbet.chat.get/poisoned")
    assert [message.id for message in page.messages] == [1, 3]
    assert page.undecodable_ids == (2,)
    assert page.undecodable == (b'"?"',)
    assert set(page.by_id()) == {1, 2, 3}
    assert page.by_id()[2] is None


def test_additional_fields_are_accepted() -> None:
    """A service may add fields."""
    (message,) = sample("peerbet.chat.get/more_fields").messages
    assert message.text == "hi"


def test_a_post_can_be_answered_in_strings() -> None:
    """The id is a number in any form."""
    assert sample("peerbet.chat.set/strings").mid == 7


@pytest.mark.parametrize(
    "answer",
    [
        "[]",
        "{}",
        "null",
        '{"status":1}',
        '{"status":1,"users_online":3}',
        '{"message_list":"none"}',
        '{"message_list":5,"status":1}',
        '{"message_list":false,"status":1}',
    ],
)
def test_a_page_without_a_list_is_an_error(answer: str) -> None:
    """Without ``message_list`` it is not known that there were no messages."""
    assert isinstance(read(GET, answer), DecodeError)


def test_a_page_needs_only_its_list() -> None:
    """``status`` and ``users_online`` do not matter for the messages."""
    page = read(GET, '{"message_list":[{"id":1,"by":"a","msg":"x"}],"users_online":"many"}')
    assert [message.id for message in page.messages] == [1]
    assert page.users_online == 0


def test_a_decoded_message_replaces_its_undecodable_copy() -> None:
    """An id that was sent twice, once damaged, is not missing."""
    page = read(GET, '{"status":1,"message_list":[{"id":1},{"id":1,"by":"a","msg":"x"},null]}')
    assert [message.id for message in page.messages] == [1]
    assert page.undecodable_ids == ()
    assert page.undecodable == (b"null",)


# -- user -----------------------------------------------------------------------------------------


def test_a_user() -> None:
    """Every documented field, and the whole object as ``raw``."""
    user = sample("pythbots.userinfo/flat")
    assert (user.id, user.username, user.rank, user.online) == (221192, "tiro", "Owner", True)
    assert user.nickname == "Tiro (glow#ff0000)"
    assert user.avatar == "1234"
    assert user.powers == 512
    assert user.chats == ["help", "lobby"]
    assert user.raw == raw("pythbots.userinfo/flat")


def test_a_user_of_strings() -> None:
    """Other names, and numbers as text."""
    user = sample("pythbots.userinfo/strings")
    assert (user.id, user.username, user.nickname) == (221192, "tiro", "Tiro")
    assert user.avatar == "https://example.com/a.png"
    assert user.powers == "1,024"
    assert user.online is True


def test_a_user_in_capitals() -> None:
    """Names are compared without case and punctuation; text can be sent as a number."""
    user = sample("pythbots.userinfo/capitals")
    assert (user.id, user.username, user.nickname) == (221192, "tiro", "Tiro")
    assert (user.avatar, user.rank, user.online) == ("7", "4", False)
    assert (user.powers, user.chats) == (["allpowers"], [])


@pytest.mark.parametrize("case", ["in_data", "in_user"])
def test_a_user_one_level_down(case: str) -> None:
    """With any name of the object within; ``raw`` is the whole response."""
    user = sample(f"pythbots.userinfo/{case}")
    assert (user.id, user.username, user.online) == (221192, "tiro", False)
    assert user.raw == raw(f"pythbots.userinfo/{case}")


def test_a_user_whose_status_is_offline() -> None:
    """``status`` 0 among other fields is a user who is offline."""
    assert sample("pythbots.userinfo/offline_status").online is False


@pytest.mark.parametrize("case", ["nulls", "unheard_of"])
def test_what_a_user_lacks_is_none(case: str) -> None:
    """Absent and null are the same, and ``raw`` has the unknown fields."""
    user = sample(f"pythbots.userinfo/{case}")
    fields = (user.nickname, user.avatar, user.powers, user.chats, user.rank, user.online)
    assert fields == (None,) * 6
    assert user.raw == raw(f"pythbots.userinfo/{case}")


@pytest.mark.parametrize("answer", ["[]", "{}", "null", "true", "1", '""', '"tiro"', '[{"id":1}]'])
@pytest.mark.parametrize("endpoint", [USER, STATS], ids=lambda endpoint: endpoint.name)
def test_where_an_object_is_required(endpoint: Endpoint[Any], answer: str) -> None:
    """Any non-empty object is accepted, and nothing else: PHP's empty object is a list."""
    assert isinstance(read(endpoint, answer), DecodeError)


# -- staff ----------------------------------------------------------------------------------------

TIRO = ("tiro", "Main Owner")
BOB = ("bob", "Owner")


@pytest.mark.parametrize(
    ("case", "staff"),
    [
        ("list", [TIRO, BOB]),
        ("strings", [TIRO]),
        ("in_staff", [TIRO]),
        ("numeric_keys", [TIRO, BOB]),
        ("numeric_keys_within", [TIRO, BOB]),
        ("by_rank", [TIRO, BOB]),
        ("names", [TIRO, ("bob", "Moderator"), ("eve", "Moderator")]),
        ("empty", []),
        ("empty_within", []),
    ],
)
def test_staff(case: str, staff: list[tuple[str, str]]) -> None:
    """A list, an object with numeric keys, or either one level down, in the service's order."""
    members = sample(f"pythbots.crank/{case}")
    assert isinstance(members, tuple)
    assert [(member.username, member.rank) for member in members] == staff


def test_a_member_of_staff() -> None:
    """Every documented field, and the whole object as ``raw``."""
    tiro, _ = sample("pythbots.crank/list")
    assert (tiro.id, tiro.avatar, tiro.time_held) == (1, "12", "2 years")
    assert tiro.raw == raw("pythbots.crank/list")[0]
    (tiro,) = sample("pythbots.crank/strings")
    assert (tiro.id, tiro.avatar, str(tiro.time_held)) == (1, "12", "86400")


@pytest.mark.parametrize(
    "answer",
    [
        "null",
        "true",
        "5",
        '""',
        '"tiro"',
        '{"chat":"Help"}',
        '{"staff":null}',
        '{"staff":"none"}',
        '{"a":{"b":[{"id":1}]}}',
        '{"0":{"id":1},"count":1}',
        "[1]",
        "[null]",
        "[[]]",
    ],
)
def test_where_a_list_is_required(answer: str) -> None:
    """Two levels down is too deep, and any other value is not a list."""
    assert isinstance(read(STAFF, answer), DecodeError)


# -- stats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "messages", "active_users"),
    [
        ("flat", 12345, 67),
        ("strings", 1234567, 67),
        ("in_stats", 12345, 67),
        ("words", None, None),
        ("missing", None, None),
    ],
)
def test_stats(case: str, messages: int | None, active_users: int | None) -> None:
    """Numbers are numbers in any form."""
    stats = sample(f"pythbots.cstats/{case}")
    assert (stats.messages, stats.active_users) == (messages, active_users)
    assert type(stats.messages) is (int if messages is not None else type(None))
    assert stats.raw == raw(f"pythbots.cstats/{case}")


# -- mail -----------------------------------------------------------------------------------------

HI = ("tiro", "hi")
HO = ("bob", "ho")


@pytest.mark.parametrize(
    ("case", "mails"),
    [
        ("list", [HI, HO]),
        ("strings_newest_first", [HI, HO]),
        ("no_ids_newest_first", [HI, HO]),
        ("numeric_keys", [HI, HO]),
        ("texts", [(None, "first"), (None, "second")]),
        ("none", []),
        ("none_within", []),
    ],
)
def test_mail(case: str, mails: list[tuple[str | None, str]]) -> None:
    """Oldest first: by id or else by date where all mails have one, else in order of arrival."""
    decoded = sample(f"pythbots.mail/{case}")
    assert [(mail.item.sender, mail.item.text) for mail in decoded] == mails


@pytest.mark.parametrize("case", ["list", "strings_newest_first"])
def test_a_mail(case: str) -> None:
    """Every field, and the whole object as ``raw``."""
    first, second = (mail.item for mail in sample(f"pythbots.mail/{case}"))
    assert (first.id, first.sender_id, first.is_read) == (1, 221192, False)
    assert (second.id, second.sender_id, second.is_read) == (2, 7, True)
    assert first.sent_at == datetime(2012, 12, 12, 21, 12, 21)
    assert first.recovered is False
    listed = raw(f"pythbots.mail/{case}")
    assert first.raw in (listed["mail"] if isinstance(listed, dict) else listed)


def test_unread_can_be_the_opposite_field() -> None:
    """``unread`` and ``new`` are the opposite of ``read``."""
    for answer, is_read in [
        ('[{"message":"x","unread":1}]', False),
        ('[{"message":"x","unread":"0"}]', True),
        ('[{"message":"x","new":true}]', False),
        ('[{"message":"x","is_read":"yes"}]', True),
        ('[{"message":"x","seen":0}]', False),
        ('[{"message":"x"}]', None),
    ]:
        (mail,) = read(MAIL, answer)
        assert mail.item.is_read is is_read


def test_an_undecodable_mail_keeps_the_rest() -> None:
    """A mail that cannot be decoded is undecodable, and hides no other."""
    mails = sample("pythbots.mail/poisoned")
    assert [mail.item and mail.item.text for mail in mails] == ["hi", None, "ho"]


def keys(answer: str) -> list[str]:
    """Return the keys of these mails."""
    return [mail.identity for mail in read(MAIL, answer)]


def test_mail_with_an_id_is_identified_by_it() -> None:
    """The same id is the same mail, in any form of the id, and whether or not it was read."""
    assert keys('[{"id":5,"message":"x","read":0}]') == keys('[{"id":"5","message":"x","read":1}]')
    assert keys('[{"id":5,"message":"x"}]') != keys('[{"id":6,"message":"x"}]')


def test_mail_without_ids_is_identified_by_its_contents() -> None:
    """All of them, in any order, apart from whether it was read."""
    first = keys('[{"from":"a","message":"x","date":"2012-12-12 21:12:21","read":0}]')
    same = keys('[{"read":1,"date":"2012-12-12 21:12:21","message":"x","from":"a"}]')
    other = keys('[{"from":"a","message":"y","date":"2012-12-12 21:12:21","read":0}]')
    assert first == same != other


def test_an_id_sent_twice_is_not_the_number_of_a_mail() -> None:
    """``id`` can be the sender's: two mails of one id with other contents are two mails."""
    first, other = keys(
        '[{"id":221192,"user":"tiro","message":"hi"},{"id":221192,"user":"tiro","message":"ho"}]'
    )
    assert first != other


def test_valid_and_invalid_dates_can_be_mixed() -> None:
    """An invalid date does not break the order of the valid ones."""
    mails = read(
        MAIL,
        '[{"message":"a","date":"2012-12-12 21:12+01"},'
        '{"message":"b","date":"2012-12-12 21:12:21"}]',
    )
    assert sorted(mail.item.text for mail in mails) == ["a", "b"]


def test_mail_with_numbers_of_any_size() -> None:
    """A number that fits no machine word is only an unknown field."""
    (mail,) = read(MAIL, '[{"message":"x","n":123456789012345678901234567890}]')
    assert mail.item.text == "x"


@pytest.mark.parametrize("word", ["<script>", "<html><body>", '{"error":"no access"}', '"error":'])
def test_no_text_can_block_a_mailbox(word: str) -> None:
    """Markup and envelopes inside a mail are its text."""
    (mail,) = read(MAIL, json.dumps([{"id": 1, "from": "eve", "message": word}]))
    assert mail.item.text == word


# -- sending --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        *('{"ok":1}', '{"status":1}', "true", "1", '"1"', '"OK"', '"Sent."', '" done!"'),
        *('"Your message was sent to alice."', '"Mail delivered successfully"'),
    ],
)
def test_a_write_can_be_confirmed_by_an_object_or_a_word(answer: str) -> None:
    """The response to a sent mail is undocumented: these are no errors."""
    assert read(SEND, answer) == json.loads(answer)


@pytest.mark.parametrize(
    "answer",
    [
        *("", "null", "false", "{}", "[]", '""', "0", "<html></html>", "sent"),
        *(
            '"not sent"',
            '"Sent 0 mails: failed"',
            '"1 error"',
            '"user not found"',
            '"0"',
            "7",
            "-1",
            "1.5",
            "[1]",
            '[{"ok":1}]',
        ),
    ],
)
def test_nothing_else_confirms_a_write(answer: str) -> None:
    """Other words can be an error message, and the meaning of a number or a list is not known."""
    assert isinstance(read(SEND, answer), DecodeError)


# -- fields ---------------------------------------------------------------------------------------


def test_names_are_compared_without_case_and_punctuation() -> None:
    """``Active-Users``, ``active_users`` and ``activeUsers`` are one name."""
    for name in ("Active-Users", "active_users", "activeUsers", "ACTIVE USERS", "active.users"):
        assert Fields({name: 5}).integer("activeusers") == 5


def test_the_first_name_that_is_present_counts() -> None:
    """In the order of the arguments, not of the object; null is not present."""
    fields = Fields({"c": 3, "b": 2, "a": None})
    assert fields.integer("a", "b", "c") == 2
    assert fields.first("a") is None
    assert fields.first("x", "y") is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (-5, -5),
        (0, 0),
        (5.0, 5),
        ("5", 5),
        (" 5 ", 5),
        ("-5", -5),
        ("+5", 5),
        ("007", 7),
        ("5.0", 5),
        ("1,234,567", 1234567),
        ("1 234", 1234),
        (2**70, 2**70),
        (5.5, None),
        ("5.5", None),
        ("", None),
        ("five", None),
        ("1e3", None),
        ("0x10", None),
        ("\u0665", None),
        ("1_000", None),
        ("9" * 5000, None),
        (True, None),
        (None, None),
        ([], None),
        ({}, None),
    ],
    ids=range(26),
)
def test_numbers(value: Any, number: int | None) -> None:
    """A whole number in any form; a boolean is not a number."""
    assert Fields({"n": value}).integer("n") == number
    assert not isinstance(Fields({"n": value}).integer("n"), (bool, float))


@pytest.mark.parametrize(
    ("value", "bit"),
    [
        (1, True), (0, False), ("1", True), ("0", False), (True, True), (False, False),
        ("true", True), ("False", False), (" YES ", True), ("no", False), ("Online", True),
        ("offline", False), ("on", True), ("off", False), ("", False),
        (2, None), ("maybe", None), (None, None), ([], None), ({}, None), (1.0, None),
    ],
)  # fmt: skip
def test_bits(value: Any, bit: bool | None) -> None:
    """Words for yes and no; any other value is neither."""
    assert Fields({"b": value}).boolean("b") is bit


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), ("", ""), (5, "5"), (1.5, "1.5"), (True, None), (None, None), ([], None)],
)
def test_texts(value: Any, text: str | None) -> None:
    """Text, or a number as text; not a boolean, a list or an object."""
    assert Fields({"t": value}).text("t") == text


def test_dates() -> None:
    """In the services' format only."""
    assert Fields({"d": "2012-12-12 21:12:21"}).date("d") == datetime(2012, 12, 12, 21, 12, 21)
    assert Fields({"d": "0000-00-00 00:00:00"}).date("d") is None
    assert Fields({"d": 1355346741}).date("d") is None


def test_fields_without_some() -> None:
    """The object without these, in any form of their names."""
    assert Fields({"Is-Read": 1, "text": "x"}).without("isread") == {"text": "x"}


def test_an_object_is_needed_for_fields() -> None:
    """Lists and scalars have no fields."""
    values: list[Any] = [[], "x", 5, None]
    for value in values:
        with pytest.raises(ValueError, match="not an object"):
            Fields(value)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("01xyz äß", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "1", "id", "mail", "Owner"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(documents)
def test_a_success_is_an_object_or_a_word(document: Any) -> None:
    """Not empty, and returned unchanged."""
    yes = document.strip() == "1" if isinstance(document, str) else document == 1
    if yes or (isinstance(document, dict) and document):
        assert parse_success(document) is document
    else:
        with pytest.raises(ValueError, match="not a success"):
            parse_success(document)


@given(documents)
def test_an_object_is_any_object_with_fields(document: Any) -> None:
    """Not empty, and passed on unchanged."""
    shape = object_parser(lambda fields: fields.raw)
    if isinstance(document, dict) and document:
        assert shape(document) is document
    else:
        with pytest.raises(ValueError, match="not an object"):
            shape(document)


@given(documents)
def test_a_list_is_found_at_the_top_or_one_level_down(document: Any) -> None:
    """By the rule of the contract, for any document."""

    def listed(value: Any) -> bool:
        return isinstance(value, list) or (isinstance(value, dict) and set(value) <= {"0", "1"})

    shape = list_parser(lambda item, key: (item, key))
    if listed(document):
        items = document if isinstance(document, list) else document.values()
        assert shape(document) == tuple((item, "") for item in items)
    elif isinstance(document, dict) and any(listed(value) for value in document.values()):
        assert {key for _, key in shape(document)} <= set(document)
    else:
        with pytest.raises(ValueError, match=r"not a list|no list in the object"):
            shape(document)


@given(st.lists(st.fixed_dictionaries({"id": st.integers(1, 99), "user": st.text(max_size=3)})))
def test_a_list_is_the_same_in_each_of_its_forms(items: list[dict[str, Any]]) -> None:
    """A list, numeric keys, or either within an object."""
    keyed = {str(index): item for index, item in enumerate(items)}
    shapes: list[Any] = [items, keyed, {"staff": items}, {"n": 3, "staff": items}, {"x": keyed}]
    lists = [read(STAFF, json.dumps(shape)) for shape in shapes]
    assert [[member.raw for member in members] for members in lists] == [items] * len(shapes)
