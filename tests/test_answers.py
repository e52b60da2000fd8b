"""Parsing of responses: every status and body is a result or an error."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final, get_origin
from urllib.parse import quote

import msgspec
import pytest
from helpers import DEEP, examples
from hypothesis import given, settings
from hypothesis import strategies as st

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    Effect,
    Endpoint,
    HttpStatusError,
    PythpeerError,
    RateLimitedError,
    Secret,
)
from pythpeer.peerbet import make_post_endpoint, make_read_endpoint
from pythpeer.pythbots import (
    crank_endpoint,
    cstats_endpoint,
    mail_endpoint,
    parse_mails,
    userinfo_endpoint,
)
from pythpeer.wire.endpoints import ParsedEndpoint
from pythpeer.wire.fields import parse_date
from pythpeer.wire.lenient_json import MAX_NESTING, NO_JSON, parse_json
from pythpeer.wire.responses import MAX_RETRY_AFTER, parse_retry_after, try_parse_response

BASE = "https://example.com"
SAMPLES = Path(__file__).parent / "samples"

GET, SET = make_read_endpoint(BASE), make_post_endpoint(BASE)
USER, STAFF, STATS = userinfo_endpoint(BASE), crank_endpoint(BASE), cstats_endpoint(BASE)
MAIL = mail_endpoint(BASE, parse_mails, Effect.READ)


class Roll(msgspec.Struct):
    """The response of a custom endpoint."""

    roll: int


class LenientModel(msgspec.Struct):
    """A model that accepts any object, because every field has a default."""

    status: int = 1
    roll: int = 0


OBJECT: Endpoint[dict[str, object]] = Endpoint("mine", f"{BASE}/o")
ROLL = Endpoint("mine", f"{BASE}/r", answer=Roll)
ROLLS = Endpoint("mine", f"{BASE}/rs", answer=list[Roll])
LENIENT = Endpoint("mine", f"{BASE}/e", answer=LenientModel)
ANY: Endpoint[Any] = ParsedEndpoint("mine", f"{BASE}/any", parse=lambda document: document)
ENDPOINTS: tuple[Endpoint[Any], ...] = (
    GET,
    SET,
    USER,
    STAFF,
    STATS,
    MAIL,
    OBJECT,
    ROLL,
    ROLLS,
    ANY,
)

PAGE = (SAMPLES / "peerbet.chat.get" / "documented.json").read_bytes()


def read(endpoint: Endpoint[Any], body: bytes | str, status: int = 200, *keys: str) -> Any:
    """Parse *body* as a response of *endpoint* to a request with these keys."""
    raw = body.encode() if isinstance(body, str) else body
    return try_parse_response(endpoint, status, raw, lambda: [Secret(key) for key in keys])


def parsed(body: bytes | str) -> object:
    """Return what the lenient parser makes of *body*."""
    return parse_json(body.encode() if isinstance(body, str) else body)


# -- the error table ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
def test_any_2xx_with_the_documented_json_is_the_result(status: int) -> None:
    """The status means success, the body is the result."""
    assert read(ROLL, '{"roll":6}', status) == Roll(6)
    assert read(SET, '{"status":1,"mid":7}', status).mid == 7


@pytest.mark.parametrize("status", [100, 101, 199, 300, 301, 302, 303, 304, 307, 308, 399])
@pytest.mark.parametrize("body", ["", '{"roll":6}', '{"error":"no access"}', "<html>"])
def test_neither_success_nor_client_error_is_a_status_error(status: int, body: str) -> None:
    """Redirects are never followed, and nothing in their body counts."""
    error = read(ROLL, body, status)
    assert type(error) is HttpStatusError
    assert (error.status, error.endpoint) == (status, "mine")


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 599, 999])
@pytest.mark.parametrize(
    "body", ["", "<html>Bad Gateway</html>", '{"roll":6}', '{"error":"no access"}', '{"status":0}']
)
def test_5xx_is_a_status_error_whatever_it_says(status: int, body: str) -> None:
    """The text of a server that has failed does not count."""
    error = read(ROLL, body, status)
    assert type(error) is HttpStatusError
    assert error.status == status


@pytest.mark.parametrize("status", [400, 402, 404, 405, 406, 408, 410, 422, 451, 499])
@pytest.mark.parametrize("body", ["", "Not Found", "<html>404</html>", "[]", "{}", '{"roll":6}'])
def test_4xx_without_a_message_is_a_status_error(status: int, body: str) -> None:
    """The response is an error, but without an error message of the service."""
    error = read(ROLL, body, status)
    assert type(error) is HttpStatusError
    assert error.status == status


@pytest.mark.parametrize("status", [404, 405, 410])
@pytest.mark.parametrize("body", ['{"message":"Not Found"}', '{"error":"Not Found"}'])
def test_a_message_that_may_be_another_programs_has_advice(status: int, body: str) -> None:
    """The text has the status and the advice, the message is unchanged."""
    error = read(ROLL, body, status)
    assert isinstance(error, ApiError)
    assert error.message == "Not Found"
    advice = f"Not Found (HTTP status {status}: unless the service means that, check its URL)"
    assert str(error) == f"{ROLL.name}: {advice}"
    assert "URL" not in str(read(ROLL, body, 400))


@pytest.mark.parametrize("status", [200, 201, 400, 404, 405, 422])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error":"Missing user"}', "Missing user"),
        ('{"status":0,"message":"You are muted"}', "You are muted"),
        ('{"status":0,"message":"You are muted","error":""}', "You are muted"),
        ('{"status":"0","message":"You are muted"}', "You are muted"),
        ('{"status":false,"message":"You are muted"}', "You are muted"),
        ('{"status":0,"error":"Missing user"}', "Missing user"),
        ('{"error":true,"message":"Missing user"}', "Missing user"),
        ('{"error":{"code":5},"message":"Missing user"}', "Missing user"),
        ('\ufeff{"error":"Missing user"}', "Missing user"),
        ('Warning: x in /a.php on line 3\n{"error":"Missing user"}', "Missing user"),
        ('{"error":"Missing\\u0000 us\\ner\\u202e"}', "Missing  us er"),
    ],
)
def test_an_error_envelope_is_an_api_error(status: int, body: str, message: str) -> None:
    """An ``error`` string, or ``status`` 0, is an API error with any 2xx or 4xx status."""
    for endpoint in ENDPOINTS:
        error = read(endpoint, body, status)
        assert type(error) is ApiError
        assert (error.message, error.status, error.endpoint) == (message, status, endpoint.name)
        assert str(error).startswith(f"{endpoint.name}: {message}")


@pytest.mark.parametrize("body", ['{"status":0}', '{"status":0,"message":""}', '{"error":true}'])
def test_an_error_without_a_message_is_still_an_error(body: str) -> None:
    """The failure flag is enough."""
    error = read(GET, body)
    assert type(error) is ApiError
    assert error.message


def test_a_message_alone_is_an_error_in_peerbets_family() -> None:
    """Its sign-in call rejects with a ``message`` and no other field."""
    for endpoint in (GET, SET, OBJECT, ROLL):
        error = read(endpoint, '{"message":"Wrong password"}')
        assert type(error) is ApiError
        assert error.message == "Wrong password"


def test_a_page_with_a_failure_flag_is_an_error() -> None:
    """Whatever else is in it."""
    error = read(GET, PAGE.replace(b'"status":1', b'"status":0'))
    assert type(error) is ApiError
    assert error.status == 200


@pytest.mark.parametrize(
    "words",
    [
        "no access",
        "Invalid key",
        "Missing API key",
        "Invalid api_key",
        "Wrong personal key",
        "personalkey is not valid",
        "Access denied",
        "Permission denied",
        "Forbidden",
        "Unauthorized",
        "You are not logged in",
        "This key is not allowed to do this",
        "NO ACCESS",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_words_about_the_key_mean_that_access_is_denied(words: str, status: int) -> None:
    """The message means that the key is missing, wrong or not permitted."""
    for body in ({"error": words}, {"status": 0, "message": words}):
        error = read(USER, json.dumps(body), status)
        assert type(error) is AccessDeniedError
        assert (error.message, error.status) == (words, status)


@pytest.mark.parametrize("words", ["Unknown monkey", "Chat is keyless", "Missing user", "muted"])
def test_words_about_something_else_do_not(words: str) -> None:
    """A word that only contains "key", such as "monkey", does not count."""
    assert type(read(USER, json.dumps({"error": words}))) is ApiError


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", ["", "<html>Forbidden</html>", "[]", '{"error":"Missing user"}'])
def test_401_and_403_are_about_access_with_any_message(status: int, body: str) -> None:
    """Those two statuses have no other meaning."""
    error = read(USER, body, status)
    assert type(error) is AccessDeniedError
    assert error.status == status
    assert error.message == ("Missing user" if "Missing" in body else "")
    assert str(error).startswith("pythbots.userinfo: ")


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"error":"no access"}', '{"roll":1}'])
def test_429_is_rate_limited_with_any_message(body: str) -> None:
    """The status itself, with or without a message."""
    error = read(ROLL, body, 429)
    assert type(error) is RateLimitedError
    assert (error.status, error.retry_after, error.endpoint) == (429, None, "mine")


def test_429_keeps_the_message_of_the_service() -> None:
    """The message about the limit is kept."""
    assert "Five per hour" in str(read(ROLL, '{"error":"Five per hour"}', 429))


@pytest.mark.parametrize(
    "words",
    ["Request limit reached", "Rate limit exceeded", "rate-limited", "Too many requests",
     "You are posting too fast", "limit has been reached", "Please slow down"],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400])
def test_a_message_about_a_limit_is_a_rate_limit(words: str, status: int) -> None:
    """The services send it with status 200, too."""
    for body in ({"error": words}, {"status": 0, "message": words}):
        error = read(USER, json.dumps(body), status)
        assert type(error) is RateLimitedError
        assert error.status == status
        assert words in str(error)


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "OK",
        "<html></html>",
        "{",
        '{"status":1',
        "[]",
        "null",
        "true",
        "1",
        '"text"',
        '{"status":1}',
        '{"status":1,"mid":null}',
        '{"status":1,"mid":"many"}',
        '{"status":1,"mid":1.5}',
    ],
)
def test_anything_else_is_a_decode_error(status: int, body: str) -> None:
    """Not the documented JSON, with its beginning as excerpt."""
    error = read(SET, body, status)
    assert type(error) is DecodeError
    assert error.endpoint == "peerbet.chat.set"
    assert error.excerpt == body.strip()


def test_a_type_with_defaults_does_not_hide_an_error() -> None:
    """A type whose fields all have defaults accepts any object, but not the error envelope."""
    assert type(read(LENIENT, '{"error":"Missing user"}')) is ApiError
    assert type(read(LENIENT, '{"status":0,"message":"no"}')) is ApiError
    assert read(LENIENT, '{"roll":6}') == LenientModel(1, 6)
    assert read(LENIENT, '{"status":1,"roll":6}') == LenientModel(1, 6)


def test_an_empty_error_is_no_error() -> None:
    """Services that always send the field send it empty after a success."""
    for empty in ('""', "null", "false", "0", "[]", "{}"):
        assert read(ROLL, f'{{"error":{empty},"roll":6}}') == Roll(6)


def test_peerbets_status_means_success_and_pythbots_is_data() -> None:
    """Where ``status`` can be the online status of a user, 0 among other fields is no error."""
    body = '{"username":"tiro","status":0}'
    assert read(USER, body).online is False
    assert type(read(OBJECT, body)) is ApiError


def test_an_envelope_quoted_in_a_message_is_text() -> None:
    """The text of a chat message cannot be mistaken for an envelope."""
    encoded_text = json.dumps('{"error": "no access", "status": 0, "message": "x"}')
    body = PAGE.replace(b'"This is a test message"', encoded_text.encode())
    assert read(GET, body).messages[0].text == json.loads(encoded_text)


# -- the documented responses ---------------------------------------------------------------------


def test_the_documented_page() -> None:
    """The example of the chat's documentation, byte for byte."""
    page = read(GET, PAGE)
    (message,) = page.messages
    assert page.users_online == 0
    assert (message.id, message.sender, message.text) == (1, "System", "This is a test message")
    assert message.sent_at == datetime(2012, 12, 12, 21, 12, 21)
    assert message.recipient is None
    assert (message.is_bot, message.is_mine, message.is_private) == (False, False, False)


def test_the_documented_response_to_a_post() -> None:
    """The other example."""
    assert read(SET, (SAMPLES / "peerbet.chat.set" / "documented.json").read_bytes()).mid == 1


# -- PHP damage -----------------------------------------------------------------------------------

BOM = "\ufeff"
HTML_WARNING = (
    "<br />\n<b>Warning</b>:  Undefined variable $x in <b>/var/www/api.php</b> on line <b>3</b>"
    "<br />\n"
)
PLAIN_WARNING = "\nWarning: Undefined variable $x in /var/www/api.php on line 3\n"

BEFORE = [
    "",
    " \r\n\t",
    BOM,
    BOM + BOM,
    BOM + "\n",
    "\0",
    HTML_WARNING,
    PLAIN_WARNING,
    BOM + HTML_WARNING,
    HTML_WARNING + BOM,
    PLAIN_WARNING + BOM,
    HTML_WARNING * 3,
    HTML_WARNING * 60,
    PLAIN_WARNING * 100,
    "PHP Warning:  x in /a.php on line 3\n",
    "\nNotice: Undefined index: 'a' in /a.php on line 3\n",
    "<br />\n<b>Deprecated</b>:  Function x() is deprecated in <b>/a</b> on line <b>3</b><br />\n",
    "\nStrict Standards: x in /a.php on line 3\n",
    "\nWarning: Undefined array key [0] in /a.php on line 3\n",
    '\nWarning: Array to string conversion [] {} {"a":1} in /a.php on line 3\n',
    "\nWarning: unexpected '[' in /a.php on line 3\n",
    "<br />\n<b>Warning</b>:  x([1, 2]) in <b>/a[1].php</b> on line <b>3</b><br />\n",
]

AFTER = ["", "\n", " \r\n\t", "\0\0", BOM, HTML_WARNING, PLAIN_WARNING, "<!-- 3 ms -->", "<br />\n"]


@pytest.mark.parametrize("before", BEFORE, ids=range(len(BEFORE)))
def test_what_php_prints_around_the_json_is_ignored(before: str) -> None:
    """Byte-order marks, white space and diagnostics, before and after."""
    for after in AFTER:
        assert read(ROLL, f'{before}{{"roll":6}}{after}') == Roll(6)
        assert read(ROLLS, f'{before}[{{"roll":6}}]{after}') == [Roll(6)]
        assert read(ROLLS, f"{before}[]{after}") == []


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":"caf\xe9"}', {"a": "caf\ufffd"}),
        (b'{"a":"\xff\xfe"}', {"a": "\ufffd\ufffd"}),
        (b'{"a":"\xed\xa0\x80"}', {"a": "\ufffd\ufffd\ufffd"}),
        (b'{"a":"\\ud83d"}', {"a": "\ufffd"}),
        (b'{"a":"x\\udc00y"}', {"a": "x\ufffdy"}),
        (b'{"\\ud800":["\\ud800",{"b":"\\ud800"}]}', {"\ufffd": ["\ufffd", {"b": "\ufffd"}]}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":"one\ntwo\r\n\tthree"}', {"a": "one\ntwo\r\n\tthree"}),
        (b'{"a":"x\x00y\x01z"}', {"a": "x\x00y\x01z"}),
        (b'{"a":1}\x00', {"a": 1}),
        (
            b'{"a":"<html><script>[]</script></html>"}\x00',
            {"a": "<html><script>[]</script></html>"},
        ),
        (b'{"a":"Warning: x\n[]"}', {"a": "Warning: x\n[]"}),
    ],
    ids=range(12),
)
def test_damage_within_the_json_is_repaired(body: bytes, value: object) -> None:
    """Invalid UTF-8, lone surrogates, raw control characters; markup in a string is text."""
    assert parse_json(body) == value
    assert read(OBJECT, body) == value


def test_one_damaged_message_does_not_hide_its_page() -> None:
    """A lone surrogate in one message costs one character."""
    body = PAGE.replace(b"This is a test message", b"a \\ud83d b")
    assert read(GET, body).messages[0].text == "a \ufffd b"


@pytest.mark.parametrize("word", ["<script>x</script>", "<html>", "<!DOCTYPE html>", "<body/>"])
def test_a_message_with_markup_is_a_message(word: str) -> None:
    """No user can make a page or a mailbox undecodable by writing HTML into it."""
    encoded_text = json.dumps(word).encode()
    invalid = PAGE.replace(b'"This is a test message"', encoded_text) + b"\0"
    assert read(GET, invalid).messages[0].text == word
    mail = f'[{{"from":"eve","message":{json.dumps(word)}}}]'
    assert read(ANY, mail) == [{"from": "eve", "message": word}]


@pytest.mark.parametrize(
    "body",
    [
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        "NaN",
        "[Infinity]",
        '{"a":1e999}',
        '{"a":-1e999}',
        '{"a":1e999,"b":"\\u0041"}',
        '{"a":[[{"b":1e999}]],"c":"\ud83d"}'.encode("utf-8", "surrogatepass").decode("latin-1"),
        "{'a':1}",
        "{a:1}",
        '{"a":1,}',
        "[1,]",
        '{"a":01}',
        '{"a":+1}',
        '{"a":.5}',
        '{"a":0x10}',
        '{"a":undefined}',
        '{"a":1}{"b":2}',
        '{"a":1} trailing words',
        '{"a":1}]',
        "[1] [2]",
        '{"a":"\\x41"}',
        '{"a":"it\\\'s"}',
        '{"a":' + "1" * 5000 + "}",
        "/* comment */ {}",
        "while(1);[]",
        ")]}',\n[]",
        "callback([])",
        "OK\n[]",
        "Everything is fine\n{}",
    ],
)
def test_what_is_not_json_stays_invalid(body: str) -> None:
    """The parser accepts the quirks of PHP, not those of other languages; infinity is no number."""
    assert parsed(body) is NO_JSON
    assert type(read(OBJECT, body)) is DecodeError


@pytest.mark.parametrize(("starts", "answer"), [(7, [Roll(6)]), (8, DecodeError)])
def test_the_search_for_the_json_after_diagnostics_is_limited(starts: int, answer: object) -> None:
    """As many false starts are ignored as real warnings can have, and no more."""
    body = "\nWarning: x in /a.php on line 3\n[of something" * starts
    made = read(ROLLS, f'{body}{PLAIN_WARNING}[{{"roll":6}}]')
    assert answer in (made, type(made))


# -- truncated documents --------------------------------------------------------------------------

MAILBOX = {
    "status": 1,
    "mail": [
        {"id": 1, "from": "tiro", "to": [], "message": "a [] b", "meta": {}},
        {"id": 2, "from": "bob", "to": [[], {}], "message": "{}\n[]\n", "meta": {"tags": []}},
    ],
    "more": [],
}
DOCUMENTS = [
    json.dumps(MAILBOX),
    json.dumps(MAILBOX, separators=(",", ":")),
    json.dumps(MAILBOX, indent=4),
    json.dumps(MAILBOX, indent=0),
    json.dumps(MAILBOX).replace("{", "\n{").replace("[", "\n["),
    json.dumps(MAILBOX["mail"], indent=1),
]


@pytest.mark.parametrize(
    "before", [b"", BOM.encode(), HTML_WARNING.encode(), PLAIN_WARNING.encode()]
)
@pytest.mark.parametrize("index", range(len(DOCUMENTS)))
def test_a_truncated_document_is_no_json(before: bytes, index: int) -> None:
    """Truncated at any point: an inner ``[]`` must never be read as "no mail"."""
    body = DOCUMENTS[index].encode()
    assert parse_json(before + body) is not NO_JSON
    read_as = {
        end: value
        for end in range(len(body))
        if (value := parse_json(before + body[:end])) is not NO_JSON
    }
    assert read_as == {}


UNUSUAL_TEXT = st.text("a\u00e9\ud83d\ude00\udfff\U0001f600", max_size=4)


def replaced(value: Any) -> Any:
    """Return *value* without lone surrogates, in the slowest and plainest way."""
    match value:
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case list():
            return [replaced(item) for item in value]
        case dict():
            return {replaced(key): replaced(item) for key, item in value.items()}
        case _:
            return value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.just(0.5) | UNUSUAL_TEXT,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(UNUSUAL_TEXT, inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_lone_surrogates_are_replaced_everywhere(value: object) -> None:
    """In every text and every name; nothing else changes, the order of names included."""
    text = json.dumps(value)
    expected = replaced(json.loads(text))  # two that stand together are a pair now
    assert json.dumps(parsed(text)) == json.dumps(expected)
    assert parsed(f"[1e999,{text}]") is parsed(f'[{{"a":-1e999}},{text}]') is NO_JSON


@pytest.mark.parametrize("after", ["<html>", "<!DOCTYPE html>", "</script></body></html>"])
def test_a_document_with_a_page_after_it_is_no_json(after: str) -> None:
    """The service failed after the JSON, or the JSON was part of the page."""
    assert parsed(f"[]\n{after}") is NO_JSON
    assert parsed(f'["{"x" * 5000}"]\n{after}') is NO_JSON


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | st.text("[]{}\n\"'<>:a", max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("a[", max_size=2), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(lambda inner: {"x": inner, "y": []}),
    st.sampled_from(["", BOM, HTML_WARNING, PLAIN_WARNING]),
    st.sampled_from([None, 0, 2]),
    st.data(),
)
def test_any_document_is_read_completely_or_not_at_all(
    value: object, before: str, indent: int | None, data: st.DataObject
) -> None:
    """For every document, truncated at any point."""
    text = json.dumps(value, indent=indent)
    assert parsed(before + text) == value
    end = data.draw(st.integers(0, len(text) - 1))
    assert parsed(before + text[:end]) is NO_JSON


# -- pages of HTML --------------------------------------------------------------------------------

JSON_LD = (
    '<script type="application/ld+json">\n{"@context":"https://schema.org","roll":6}\n</script>'
)

PAGES = [
    f"<!DOCTYPE html>\n<html><head>{JSON_LD}</head><body>Bad Gateway</body></html>",
    f"\n\n<!doctype HTML>\n<HTML>\n<HEAD>{JSON_LD}</HEAD></HTML>",
    f"{BOM}<html>{JSON_LD}</html>",
    f'<?xml version="1.0"?>\n<html>{JSON_LD}</html>',
    f"<head>{JSON_LD}</head>",
    "<body>\n[]\n</body>",
    f"<!-- cached -->\n<html>{JSON_LD}</html>",
    "<center><h1>502 Bad Gateway</h1></center>\n[]",
    "<pre>\n[]\n</pre>",
    JSON_LD,
    "<script>\n{}\n</script>",
    f"{HTML_WARNING}<!DOCTYPE html><html><head>{JSON_LD}</head></html>",
    f"{PLAIN_WARNING}<html>\n<body>\n[]\n</body>\n</html>",
    f"{HTML_WARNING * 60}<!DOCTYPE html>\n<html><head>{JSON_LD}</head></html>",
    f"{PLAIN_WARNING * 100}<html><body>\n[]\n</body></html>",
    f"{PLAIN_WARNING}<html><body>{PLAIN_WARNING}[]",
    f"{HTML_WARNING}<p>{'x' * 5000}</p><html>{JSON_LD}</html>",
    f"{HTML_WARNING}<title>Error</title>\n<div>\n[]\n</div></html>",
]


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_no_json_is_extracted_from_a_page(page: str) -> None:
    """For no endpoint, and not after warnings, however many of them."""
    assert parsed(page) is NO_JSON
    assert {type(read(endpoint, page)) for endpoint in ENDPOINTS} == {DecodeError}


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_a_page_is_no_api_error_either(page: str) -> None:
    """The ``message`` of JSON-LD in a page is not an error message of the service."""
    error_page = page.replace('"roll":6', '"error":"no access"').replace(
        "[]", '{"error":"no access"}'
    )
    assert type(read(ROLL, error_page)) is DecodeError
    assert type(read(ROLL, error_page, 404)) is HttpStatusError


# -- bombs ----------------------------------------------------------------------------------------

MIB = 1_048_576
BOMBS: dict[str, bytes] = {
    "brackets": b"[" * MIB,
    "braces": b"{" * MIB,
    "nested objects": b'{"a":' * (MIB // 5),
    "closed nest": b"[" * (MIB // 2) + b"]" * (MIB // 2),
    "nest of a thousand": b"[" * 990 + b"]" * 990 + b"x",
    "string without an end": b'"' + b"a" * (MIB - 1),
    "backslashes": b'"' + b"\\" * (MIB - 1),
    "quotes": b'"' * MIB,
    "digits": b"1" * MIB,
    "minus": b"-" * MIB,
    "zeros": b"0." + b"0" * (MIB - 2),
    "commas": b"[" + b"1," * (MIB // 2 - 1),
    "blanks": b" " * MIB,
    "marks": b"\xef\xbb\xbf" * (MIB // 3),
    "nuls": b"\0" * MIB,
    "no utf-8": b"\xff" * MIB,
    "escapes": b'["' + b"\\ud800" * (MIB // 6 - 1) + b'"]x',
    "less than": b"<" * MIB,
    "tags": b"<b>" * (MIB // 3),
    "tags with blanks": b"<b>   " * (MIB // 6),
    "warned brackets": PLAIN_WARNING.encode() + b"\n[" * (MIB // 2),
    "warned braces": PLAIN_WARNING.encode() + b'\n{"a":' * (MIB // 6),
    "warned strings": PLAIN_WARNING.encode() + b'\n["' * (MIB // 3),
    "warned lists": PLAIN_WARNING.encode() + b"\n[]" * (MIB // 3),
    "warned numbers": PLAIN_WARNING.encode() + b"\n[" + b"1," * (MIB // 2),
    "warned lines": PLAIN_WARNING.encode() + b"\n" * MIB,
    "warned blanks": PLAIN_WARNING.encode() + b"\n" + b" " * MIB,
    "warned tags": b"<b>" * (MIB // 3) + b"Warning:",
    "warned in vain": b"PHP" + b" " * MIB,
    "warnings": PLAIN_WARNING.encode() * (MIB // len(PLAIN_WARNING)),
    "html warnings": HTML_WARNING.encode() * (MIB // len(HTML_WARNING)),
    "trailing tags": b"[]" + b"<b> " * (MIB // 4),
    "trailing blanks": b"[]" + b" \0" * (MIB // 2) + b"x",
    "opening pages": b"<ht" * (MIB // 3),
}


def numbered(item: bytes, count: int) -> bytes:
    """Return *count* items separated by commas, each with its number in place of ``%d``."""
    return b",".join(item % number for number in range(count))


VALID_SIZE: Final = MIB if DEEP else MIB // 64
"""Bytes of a document that is valid: its decoding takes up to 3 s for each mebibyte."""


def filled(item: bytes, frame: bytes = b"[%b]") -> bytes:
    """Return *frame* with so many items that it has `VALID_SIZE` bytes."""
    count = (VALID_SIZE - len(frame)) // (len(item) + 1)
    return frame % b",".join([item] * count)


VALID_BOMBS: dict[str, bytes] = {
    "records": filled(b"{}"),
    "records of one field": filled(b'{"a":1}'),
    "records of records": filled(b'{"a":{"a":{}}}'),
    "lists": filled(b"[]"),
    "lists of records": filled(b"[{}]"),
    "empty texts": filled(b'""'),
    "nulls": filled(b"null"),
    "numbers": filled(b"1"),
    "numbers beyond floats": filled(b"1e400"),
    "an id of thousands of digits": b'[{"id":' + b"1" * 5000 + b"}]",
    "an id of very many digits": b'[{"id":' + b"1" * VALID_SIZE + b"}]",
    "an id as very long text": b'[{"id":"' + b"1" * VALID_SIZE + b'"}]',
    "a long exponent": b'[{"id":1e' + b"9" * VALID_SIZE + b"}]",
    "numbers for names": b"{%b}" % numbered(b'"%d":1', VALID_SIZE // 12),
    "records by number": b"{%b}" % numbered(b'"%d":{}', VALID_SIZE // 12),
    "records by name": b"{%b}" % numbered(b'"a%d":{"id":1}', VALID_SIZE // 20),
    "lists by name": b"{%b}" % numbered(b'"a%d":[]', VALID_SIZE // 12),
    "one name, repeated": filled(b'"a":1', b"{%b}"),
    "long names": b"{%b}" % numbered(b'"' + b"a" * 1000 + b'%d":1', VALID_SIZE // 1010),
    "mails without ids": filled(b'{"from":"a","message":"b"}'),
    "mails of one id": filled(b'{"id":1,"from":"a","message":"b"}'),
    "messages": b'{"status":1,"message_list":[%b]}'
    % numbered(b'{"id":%d,"by":"a","msg":"b"}', VALID_SIZE // 36),
    "messages that cannot be read": filled(b"{}", b'{"status":1,"message_list":[%b]}'),
    "lone surrogates": b'[{"message":"' + b"\\ud800" * (VALID_SIZE // 6) + b'"}]',
    "pairs of surrogates": b'[{"message":"' + b"\\ud83d\\ude00" * (VALID_SIZE // 12) + b'"}]',
    "dates": filled(b'{"date":"2024-02-29 12:34:56"}'),
    "a long error": b'{"status":0,"error":"' + b"key " * (VALID_SIZE // 4) + b'"}',
    "a long error with escapes": b'{"status":0,"error":"' + b"&amp;" * (VALID_SIZE // 5) + b'"}',
    "errors in errors": b'{"status":0,"error":' * 400 + b"1" + b"}" * 400,
}
"""Documents that the decoder accepts, with as many values of one kind as fit."""


@pytest.mark.parametrize("bomb", VALID_BOMBS)
def test_a_large_valid_document_takes_bounded_time(bomb: str) -> None:
    """For every endpoint. Takes up to 8 s if `DEEP`: ten endpoints decode a mebibyte."""
    body = VALID_BOMBS[bomb]
    for endpoint in ENDPOINTS:
        start = time.process_time()
        read(endpoint, body, 200, "key/1", "k")
        assert time.process_time() - start < (10.0 if DEEP else 1.0)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_bounded_time(bomb: str) -> None:
    """A mebibyte of hostile input costs a fraction of a second, for every endpoint and status.

    Two thirds of that are decoding, which a refused call needs as well: in the small run each bomb
    meets one of their statuses, and the next bomb the other.
    """
    body = BOMBS[bomb]
    error_statuses = (400, 429) if DEEP else ((400, 429)[list(BOMBS).index(bomb) % 2],)
    start = time.process_time()
    for status in (200, *error_statuses):
        answer = read(STAFF, body, status, "key/1", "k")
        assert isinstance(answer, PythpeerError) or answer == ()
    assert time.process_time() - start < 3.0


def test_deep_nesting_is_a_decode_error() -> None:
    """However deep, and however well formed: the error is one of this library."""
    for depth in (300, 900, 990, 1100, 5000, 100_000):
        body = "[" * depth + "]" * depth
        for endpoint in ENDPOINTS:
            for text in (body, f'{{"a":{body},"b":"\\ud800"}}', f"{BOM}{body}"):
                answer = read(endpoint, text)
                assert depth <= MAX_NESTING or isinstance(answer, DecodeError)


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        pytest.param(b"[" * MAX_NESTING + b"]" * MAX_NESTING, True, id="as deep as may be"),
        pytest.param(b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1), False, id="one deeper"),
        pytest.param(b"[" + b",".join([b"[{}]"] * 600) + b"]", True, id="many side by side"),
        pytest.param(b'["' + b"[" * 20_000 + b'"]', True, id="brackets in a text"),
        pytest.param(b'["\\"' + b"[" * 20_000 + b'"]', True, id="after an escaped quote"),
        pytest.param(b'{"a":' * 501 + b"1" + b"}" * 501, False, id="objects"),
        pytest.param(b"[" * 20_000 + b"]" * 20_000, False, id="where some Pythons could read it"),
    ],
)
def test_nesting_has_the_same_limit_on_every_python(body: bytes, *, accepted: bool) -> None:
    """The limit of nesting does not depend on the decoder's stack."""
    answer = read(ANY, body)
    assert (not isinstance(answer, DecodeError)) is accepted
    assert (parsed(body) is not NO_JSON) is accepted


def test_nesting_in_a_field_that_is_not_read_changes_nothing() -> None:
    """The page is that without the field, or rejected where the decoder goes no deeper."""
    page = read(GET, b'{"message_list":[]}')
    for depth in (300, 900, 5000, 20_000, 100_000):
        answer = read(GET, b'{"message_list":[],"x":%b}' % (b"[" * depth + b"]" * depth))
        if depth > MAX_NESTING and isinstance(answer, DecodeError):
            continue
        assert answer == page


@settings(max_examples=examples(200))
@given(
    st.sampled_from(ENDPOINTS),
    st.sampled_from([200, 204, 302, 400, 401, 404, 429, 500]),
    st.binary(max_size=60)
    | st.text('{}[]":,\\u0d8enrtl10.-+ \n<>', max_size=60).map(str.encode)
    | st.dictionaries(
        st.sampled_from(["status", "error", "message", "mid", "message_list", "users_online"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=3)
        | st.lists(
            st.dictionaries(st.sampled_from(["id", "by", "msg"]), st.integers() | st.text())
        ),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_nothing_but_this_librarys_errors(
    endpoint: Endpoint[Any], status: int, body: bytes
) -> None:
    """Any status with any body gives a result or a returned error; nothing is raised."""
    answer = read(endpoint, body, status)
    assert isinstance(answer, PythpeerError) or 200 <= status < 300


# -- fast and lenient parser ----------------------------------------------------------------------

bits = st.sampled_from([0, 1, "0", "1", True, False, "true", "false", "True", "False"])
numbers = st.integers(0, 2**31 - 1)
messages = st.fixed_dictionaries(
    {
        "id": numbers | numbers.map(str) | st.sampled_from([-1, 2**31, 2**40, "9" * 12]),
        "by": st.text(max_size=5),
        "msg": st.text(max_size=5),
    },
    optional={
        "to": st.none() | st.text(max_size=5),
        "date": st.none() | st.sampled_from(["2012-12-12 21:12:21", "0000-00-00 00:00:00", ""]),
        "bot": bits,
        "my": bits,
        "me": bits,
    },
)


@given(st.lists(messages, max_size=5), numbers | numbers.map(str))
def test_the_fast_parser_reads_what_the_lenient_one_reads(
    listed: list[dict[str, object]], online: object
) -> None:
    """A plain page gives the same result as with a byte-order mark before it."""
    body = json.dumps({"status": 1, "users_online": online, "message_list": listed})
    quick, slow = read(GET, body), read(GET, BOM + body)
    assert (quick.messages, quick.users_online) == (slow.messages, slow.users_online)
    assert len(quick.undecodable) == len(slow.undecodable)


@pytest.mark.parametrize("id", [-1, 2**31, 2**40, 2**63, 10**30])
def test_ids_are_int32(id: int) -> None:
    """An id outside the documented range is not a position to poll from."""
    body = PAGE.replace(b'"id":1', f'"id":{id}'.encode())
    page = read(GET, body)
    assert page.messages == ()
    assert len(page.undecodable) == 1


# -- excerpts in errors ---------------------------------------------------------------------------

KEY = 'c4n4ry/K3y+ =&%"é~'

FORMS: dict[str, Callable[[str], str]] = {
    "raw": lambda key: key,
    "encoded": lambda key: quote(key, safe=""),
    "encoded but for slashes": quote,
    "encoded in lower case": lambda key: re.sub(
        "%[0-9A-F]{2}", lambda match: match[0].lower(), quote(key, safe="")
    ),
    "encoded twice": lambda key: quote(quote(key, safe=""), safe=""),
    "encoded twice in lower case": lambda key: quote(quote(key, safe=""), safe="").lower(),
    "as JSON": lambda key: json.dumps(key)[1:-1],
    "as JSON by PHP": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "as JSON unescaped": lambda key: json.dumps(key, ensure_ascii=False)[1:-1],
    "slashes escaped": lambda key: key.replace("/", "\\/"),
}

each_form = pytest.mark.parametrize("form", FORMS)


@each_form
def test_a_key_in_an_excerpt_is_replaced(form: str) -> None:
    """In every form in which a service can echo it."""
    error = read(SET, f"<p>Fatal: no row for {FORMS[form](KEY)} in db", 200, KEY)
    assert type(error) is DecodeError
    assert error.excerpt == "<p>Fatal: no row for *** in db"


@each_form
@pytest.mark.parametrize("status", [200, 400, 401, 429])
def test_a_key_in_an_error_message_is_replaced(form: str, status: int) -> None:
    """Messages are redacted like excerpts."""
    body = json.dumps({"error": f"Invalid {FORMS[form](KEY)}, go away"})
    error = read(USER, body, status, KEY)
    assert isinstance(error, ApiError | RateLimitedError)
    assert "Invalid ***, go away" in str(error)
    if isinstance(error, ApiError):
        assert error.message == "Invalid ***, go away"


@each_form
def test_every_key_is_replaced_everywhere(form: str) -> None:
    """All keys of a request, each occurrence, a longer form before one within it."""
    echo = FORMS[form]
    keys = ("s3cr3t/one", "s3cr3t/one/two")
    error = read(SET, f"{echo(keys[1])} {echo(keys[0])} {echo(keys[1])}", 200, *keys)
    assert "s3cr3t" not in error.excerpt.lower()
    error = read(SET, f"{echo(keys[1])} {echo(keys[0])} {echo(keys[1])}", 200, *reversed(keys))
    assert error.excerpt == "*** *** ***"


def test_keys_that_share_a_part_are_both_replaced() -> None:
    """Where one key ends with what another begins with, no part of either is left."""
    for keys in (("s3cr3t/one", "one/s3cr3t"), ("one/s3cr3t", "s3cr3t/one")):
        assert read(SET, "no s3cr3t/one/s3cr3t/one here", 200, *keys).excerpt == "no *** here"


def test_no_form_is_replaced_within_a_longer_one() -> None:
    """A key that is part of its own encoding leaves no part of that."""
    for echo in ("%25", "%2525", "%252525"):
        assert read(SET, f"no {echo} here", 200, "%25").excerpt == "no *** here"


@each_form
@pytest.mark.parametrize("before", [0, 150, 190, 195, 199, 200, 780, 790, 799, 65_520, 65_530])
def test_cutting_comes_after_replacing(form: str, before: int) -> None:
    """A part of a key at the end of an excerpt would not be found, however long the body."""
    for padding in ("x", " "):
        error = read(SET, f"{padding * before}{FORMS[form](KEY)} tail", 200, KEY)
        assert type(error) is DecodeError
        assert len(error.excerpt) <= 200
        assert "c4n4" not in error.excerpt.lower()


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="*"), min_size=4),
    st.sampled_from(sorted(FORMS)),
    st.integers(0, 220),
)
def test_no_key_is_shown(key: str, form: str, before: int) -> None:
    """For any key, in any form, at any point of a body."""
    echo = FORMS[form](key)
    error = read(SET, f"{'#' * before}{echo}{'#' * 9}", 200, key)
    expected = f"{'#' * before}***{'#' * 9}"
    if "#" not in echo:
        assert error.excerpt == expected[:200]


def test_an_error_holds_nothing_else() -> None:
    """No body, no key, no cause: only its scalars."""
    error = read(SET, f"no row for {KEY}", 200, KEY)
    assert set(vars(error)) == {"endpoint", "excerpt"}
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.__traceback__ is None


class WithCode(msgspec.Struct):
    """A type whose code fails, with a text that repeats what the service has sent."""

    text: str = ""
    roll: int = 0

    def __post_init__(self) -> None:
        raise LookupError(self.text)


class WithProperty(msgspec.Struct):
    """A type that has a property with the name of a field of envelopes."""

    roll: int = 0

    @property
    def status(self) -> int:
        raise LookupError(KEY)


class Named(enum.Enum):
    """An enumeration whose code fails for an unknown value."""

    FIRST = "first"

    @classmethod
    def _missing_(cls, value: object) -> Named:
        raise LookupError(value)


@dataclasses.dataclass
class Data:
    """The same as `WithCode`, but a dataclass."""

    text: str = ""

    def __post_init__(self) -> None:
        raise LookupError(self.text)


@pytest.mark.parametrize("model", [WithCode, Data, list[WithCode]])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "lenient"])
def test_code_of_the_result_type_that_raises_is_a_decode_error(model: Any, mark: str) -> None:
    """With its class, but not with its text, which can hold a key."""
    endpoint = Endpoint("mine", f"{BASE}/code", answer=model)
    document = {"text": KEY}
    body = json.dumps([document] if get_origin(model) is list else document)
    error = read(endpoint, mark + body, 200, KEY)
    assert type(error) is DecodeError
    assert str(error).startswith("mine: the type of the result raised LookupError")
    assert KEY not in f"{error!r} {vars(error)}"
    assert error.__context__ is None


def test_other_code_of_a_result_type_raises_nothing_either() -> None:
    """A property with the name of an envelope's field counts as absent."""
    for mark in ("", "\ufeff"):
        model = read(Endpoint("mine", f"{BASE}/code", answer=WithProperty), mark + '{"status":1}')
        assert model == WithProperty()
    error = read(Endpoint("mine", f"{BASE}/code", answer=Named), json.dumps(KEY), 200, KEY)
    assert type(error) is DecodeError
    assert KEY not in f"{error!r} {vars(error)}"


def test_an_excerpt_is_one_printable_line() -> None:
    """Control characters, line breaks and terminal escapes do not reach a log."""
    error = read(SET, "a\x1b[31mb\r\nc\x00d\u202ee\x9bf", 200)
    assert error.excerpt == "a [31mb  c d e f"
    assert error.excerpt.isprintable()


def test_keys_are_revealed_only_for_an_error() -> None:
    """A result needs no key."""

    def never() -> Iterable[Secret]:
        raise AssertionError

    assert try_parse_response(ROLL, 200, b'{"roll":6}', never) == Roll(6)
    assert try_parse_response(ROLL, 200, b'\xef\xbb\xbf{"roll":6}', never) == Roll(6)
    assert isinstance(try_parse_response(ROLL, 500, b"", never), HttpStatusError)


# -- Retry-After ----------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DATE = format_datetime(NOW, usegmt=True)


def date_in(seconds: float) -> str:
    """Return an HTTP date this much after `NOW`."""
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("0.5", 0.5),
        ("1.25", 1.25),
        ("007", 7.0),
        ("999999999", 999999999.0),
        ("12345678901", MAX_RETRY_AFTER),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
        pytest.param("9" * 5000, MAX_RETRY_AFTER, id="5000 digits"),
        (date_in(30), 30.0),
        (date_in(86400), 86400.0),
        (date_in(0), 0.0),
        (date_in(-30), 0.0),
        ("Sun, 01 Mar 2026 12:00:07 +0000", 7.0),
        ("Sun, 01 Mar 2026 13:00:07 +0100", 7.0),
        ("Sunday, 01-Mar-26 12:00:07 GMT", 7.0),
        ("Sun Mar  1 12:00:07 2026", 7.0),
    ],
)
def test_valid_waits(value: str, seconds: float) -> None:
    """Seconds, fractions of them, and HTTP dates compared with the ``Date`` of the response."""
    assert parse_retry_after({"Retry-After": value, "Date": DATE}) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "-0.5",
        "+5",
        "soon",
        "1e3",
        "1,5",
        "1.",
        ".5",
        "1.2.3",
        "0x10",
        "5s",
        "5 seconds",
        "nan",
        "inf",
        "Infinity",
        "\u0661",
        "\u00b2",
        "Sun, 99 Mar 2026 12:00:00 GMT",
        "Sun, 01 Xyz 2026 12:00:00 GMT",
        "Sun, 01 Mar 2026 25:61:61 GMT",
        "Sun, 01 Mar 99999 12:00:00 GMT",
        "Sun, 01 Mar 2026 12:00:00 +9999",
        "GMT",
        ",",
    ],
    ids=range(26),
)
def test_invalid_waits(value: str) -> None:
    """Negative, not a number, or out of range: treated as a missing header."""
    assert parse_retry_after({"Retry-After": value, "Date": DATE}) is None


def test_without_the_header_there_is_no_wait() -> None:
    """A ``Date`` alone means nothing."""
    assert parse_retry_after({}) is None
    assert parse_retry_after({"Date": DATE}) is None


@pytest.mark.parametrize("headers", [{}, {"Date": ""}, {"Date": "yesterday"}])
def test_without_a_valid_date_the_local_clock_is_used(headers: dict[str, str]) -> None:
    """A date far away is far away by any clock."""
    due = datetime.now(UTC) + timedelta(seconds=3600)
    wait = parse_retry_after({"Retry-After": format_datetime(due, usegmt=True), **headers})
    assert wait is not None
    assert 3500 < wait <= 3600
    assert parse_retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT", **headers}) == 0.0


def test_clocks_need_not_agree() -> None:
    """The service's date is compared with the service's clock."""
    past = {"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT", "Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    assert parse_retry_after(past) == 10.0


@given(
    st.text(st.characters(max_codepoint=255), max_size=30) | st.text("SunMar 0123456789,:+-GMT"),
    st.text("SunMar 0123456789,:+-GMT"),
)
def test_no_header_breaks_anything(value: str, date: str) -> None:
    """Any value is a finite wait of 0 seconds or more, or ``None``."""
    wait = parse_retry_after({"Retry-After": value, "Date": date})
    assert wait is None or 0.0 <= wait < float("inf")


# -- dates ----------------------------------------------------------------------------------------


@given(st.datetimes(min_value=datetime(1000, 1, 1)))
def test_the_services_dates(date: datetime) -> None:
    """``yyyy-MM-dd HH:mm:ss`` is read to the second, without a zone."""
    date = date.replace(microsecond=0)
    assert parse_date(date.isoformat(" ")) == date


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        1355346741,
        True,
        b"2012-12-12 21:12:21",
        "",
        "0000-00-00 00:00:00",
        "2012-12-12",
        "2012-12-12 21:12",
        "2012-12-12T21:12:21",
        "2012-12-12 21:12:21Z",
        "2012-12-12 21:12:21 ",
        " 2012-12-12 21:12:2",
        "2012-12-12  1:12:21",
        "2012-12-12 21:12:60",
        "2012-12-12 24:00:00",
        "2012-02-30 21:12:21",
        "2012-13-01 21:12:21",
        "12-12-2012 21:12:21",
        "2012/12/12 21:12:21",
        "2012-12-12 21.12.21",
        "2012-W50-3 21:12:21",
        "2012-12-12 21:12+01",
        "2012-12-12 21-05:00",
        "2012-12-12 211221.5",
        "2012-12-12 211221,5",
        "\u0662012-12-12 21:12:21",
        "yesterday, at ten p",
    ],
    ids=range(28),
)
def test_any_other_value_is_no_date(value: object) -> None:
    """A zero date, another format, another calendar, a zone: none of them is guessed."""
    assert parse_date(value) is None


@settings(max_examples=examples(300))
@given(st.text("0123456789-:+.,ZTW ", min_size=19, max_size=19) | st.from_regex(
    r"2012-12-12 [0-9:.,+Z-]{8}", fullmatch=True
))  # fmt: skip
def test_every_date_is_naive_and_in_the_format(value: str) -> None:
    """Whatever is accepted as a date has one format, so that any two can be compared."""
    date = parse_date(value)
    if date is not None:
        assert date.tzinfo is None
        assert date.isoformat(" ") == value
