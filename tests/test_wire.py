"""Parameters, queries, URLs, endpoints, and the checks of arguments."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
import pytest
from helpers import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import defstruct
from yarl import URL

from pythpeer import FLAG, Effect, Endpoint, InvalidRequestError, Param, Rate, Secret, Session
from pythpeer.validation import INT32_MAX, check_integer, check_text, check_url
from pythpeer.wire.endpoints import ParsedEndpoint
from pythpeer.wire.query import render_query
from pythpeer.wire.request import Request

BASE = "https://example.com/api/"
CANARY = "c4n4ry/K3y+%=& é"
QUERY_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~%=&]*")

encodable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
names = encodable.filter(bool)
plain = st.none() | st.just(FLAG) | st.booleans() | encodable | st.integers(-(2**62), 2**62)


HERE = Endpoint("here", BASE)


def encode(params: Mapping[str, Param]) -> str:
    """Return the query of these parameters as it is written, with its keys."""
    return render_query(Request(HERE, params).segments)


def query(**params: Param) -> str:
    """Do the same as `encode`, for names that are Python's too."""
    return encode(params)


# -- encoding by RFC 3986 -------------------------------------------------------------------------


@given(encodable)
def test_any_text_round_trips(text: str) -> None:
    """The service decodes exactly the text that was meant."""
    name, _, value = query(msg=text).partition("=")
    assert name == "msg"
    assert unquote(value, errors="strict") == text


@given(st.dictionaries(names, plain, max_size=6))
def test_only_unreserved_characters_go_out(params: dict[str, Param]) -> None:
    """Names and values consist of RFC 3986's unreserved characters and percent-encoding alone."""
    encoded = encode(params)
    assert QUERY_CHARACTERS.fullmatch(encoded)
    assert re.sub("%[0-9A-F]{2}", "", encoded).count("%") == 0


@given(st.dictionaries(names, encodable, max_size=6))
def test_a_query_can_be_decoded_again(params: dict[str, str]) -> None:
    """No value can add, end or rename a parameter; the order is kept."""
    encoded = encode(params)
    assert parse_qsl(encoded, keep_blank_values=True, strict_parsing=bool(params)) == list(
        params.items()
    )


@given(encodable)
def test_the_url_library_does_not_change_a_query(text: str) -> None:
    """The encoded query is written unchanged: nothing is encoded twice or half decoded."""
    encoded = query(msg=text)
    assert URL(f"{BASE}?{encoded}", encoded=True).raw_query_string == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (" ", "%20"),
        ("+", "%2B"),
        ("a b+c", "a%20b%2Bc"),
        ("&=?#/", "%26%3D%3F%23%2F"),
        ("%20", "%2520"),
        ("-._~", "-._~"),
        ("!*'();:@$,[]", "%21%2A%27%28%29%3B%3A%40%24%2C%5B%5D"),
        ("é", "%C3%A9"),
        ("e\u0301", "e%CC%81"),
        ("\U0001f600", "%F0%9F%98%80"),
        ("\r\n", "%0D%0A"),
        ("\x7f", "%7F"),
        ("", ""),
        (True, "1"),
        (False, "0"),
        (0, "0"),
        (-1, "-1"),
        (2**63 - 1, "9223372036854775807"),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        (1e22, "1e%2B22"),
    ],
)
def test_encoded_values(value: Param, encoded: str) -> None:
    """A space is ``%20`` and never ``+``; UTF-8; upper-case hexadecimal; bits as 1 and 0."""
    assert query(x=value) == f"x={encoded}"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_lose_nothing(value: float) -> None:
    """A float is sent in the shortest form that reads as the same float."""
    assert float(unquote(query(x=value).removeprefix("x="))) == value


def test_none_is_left_out() -> None:
    """An optional parameter that was not given is omitted."""
    assert query(a=None) == ""
    assert query(a=1, b=None, c=2) == "a=1&c=2"
    assert query(a=None, b=1) == "b=1"


def test_a_flag_is_a_bare_name() -> None:
    """``readnew`` has no equals sign, which is not the same as an empty value."""
    assert query(readnew=FLAG) == "readnew"
    assert query(a=1, readnew=FLAG, b="") == "a=1&readnew&b="
    assert query(readnew=FLAG, a=1) == "readnew&a=1"
    assert query(key=Secret("k"), readnew=FLAG) == "key=k&readnew"


def test_a_flag_reads_as_one() -> None:
    """Its repr names it."""
    assert "FLAG" in repr(FLAG)


@pytest.mark.parametrize(
    "value",
    [
        "a\0b",
        "\0",
        "a\ud800",
        "\udc00b",
        math.nan,
        math.inf,
        -math.inf,
        2**63,
        -(2**63),
        10**4000,
        b"bytes",
        [1],
        {"a": 1},
        Decimal(1),
        object(),
        Effect.READ,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_an_error(value: Any) -> None:
    """NUL, lone surrogates, infinities, and other types, with the endpoint's name."""
    with pytest.raises(InvalidRequestError, match=r"^here: msg must ") as caught:
        encode({"msg": value})
    assert caught.value.endpoint == "here"


@pytest.mark.parametrize("name", ["a\0", "\ud800", 5])
def test_names_that_cannot_be_sent_are_an_error(name: Any) -> None:
    """A parameter's name must be encodable text as well."""
    with pytest.raises(InvalidRequestError, match="name must "):
        Endpoint("here", BASE, query={name: "x"})


@pytest.mark.parametrize("name", ["own\r\nERROR:root:forged", "\x1b[31m", "a\u2028b", "a\u202eb"])
def test_the_name_of_an_endpoint_is_one_line(name: str) -> None:
    """Errors and logs show it."""
    with pytest.raises(InvalidRequestError, match="line breaks or control characters") as caught:
        Endpoint(name, BASE)
    assert str(caught.value).isprintable()
    with pytest.raises(InvalidRequestError, match="line breaks or control characters"):
        Session(rates={name: Rate(1.0)})


def test_names_are_encoded() -> None:
    """A name cannot add a parameter either."""
    assert encode({"a&b=c d": "x"}) == "a%26b%3Dc%20d=x"


def test_text_with_a_meaning_in_python_is_text() -> None:
    """A subclass of ``str`` is sent as its text."""

    class Word(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "shown"

    assert query(x=Word("sent")) == "x=sent"


# -- keys -----------------------------------------------------------------------------------------


def test_keys_stay_secret_in_the_segments() -> None:
    """A query is joined with its keys only where it is written."""
    pieces = Request(HERE, {"action": "get", "key": Secret(CANARY), "mid": 5}).segments
    assert Secret(CANARY) in pieces
    assert "c4n4ry" not in repr(pieces)
    assert render_query(pieces) == "action=get&key=c4n4ry%2FK3y%2B%25%3D%26%20%C3%A9&mid=5"


def test_two_keys_in_a_row() -> None:
    """Separators are between keys as between other values."""
    assert query(a=Secret("1"), b=Secret("2"), c=None, d=FLAG) == "a=1&b=2&d"


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
    st.dictionaries(names, plain, max_size=3),
    st.dictionaries(names, plain, max_size=3),
)
def test_a_key_is_encoded_like_any_text(
    key: str, before: dict[str, Param], after: dict[str, Param]
) -> None:
    """On the wire a `Secret` is its text, at any position."""
    covered = {**before, "key": Secret(key), **after, "key2": Secret(key)}
    open_ = {**before, "key": key, **after, "key2": key}
    if "key" in before or "key" in after:
        return
    assert encode(covered) == encode(open_)


def test_a_request_shows_no_key() -> None:
    """Its repr, which logs may show, has stars instead of keys."""
    endpoint = Endpoint("mine", BASE, query={"action": "get"})
    request = Request(endpoint, {"key": Secret(CANARY), "mid": 5}, {"X-API-Key": Secret("header")})
    assert "mine" in repr(request)
    assert "action=get&key=***&mid=5" in repr(request)
    assert "c4n4ry" not in repr(request)
    assert "header" not in repr(request)
    assert request.secrets() == [Secret(CANARY), Secret("header")]
    assert Request(endpoint, {}).secrets() == []


def test_an_endpoint_shows_no_key() -> None:
    """A key in an endpoint's fixed query is not in its repr."""
    endpoint = Endpoint("mine", BASE, query={"key": Secret(CANARY)})
    assert "c4n4ry" not in repr(endpoint)
    assert "mine" in repr(endpoint)
    assert Request(endpoint, {}).secrets() == [Secret(CANARY)]


# -- requests -------------------------------------------------------------------------------------


def test_fixed_parameters_go_first() -> None:
    """A request is the endpoint's fixed query and then the call's parameters, in their order."""
    endpoint = Endpoint("mine", BASE, query={"action": "roll", "v": 1})
    assert render_query(Request(endpoint, {"b": 2, "a": 1}).segments) == "action=roll&v=1&b=2&a=1"
    assert render_query(Request(endpoint, {}).segments) == "action=roll&v=1"


@pytest.mark.parametrize("value", ["get", None, FLAG])
def test_a_fixed_parameter_cannot_be_given_again(value: Param) -> None:
    """Neither replaced nor removed: the fixed query is part of the endpoint."""
    endpoint = Endpoint("mine", BASE, query={"action": "roll"})
    with pytest.raises(
        InvalidRequestError, match="must not contain a name of the endpoint's query"
    ) as caught:
        Request(endpoint, {"action": value})
    assert caught.value.endpoint == "mine"


def test_a_bad_parameter_names_the_endpoint() -> None:
    """An error of encoding names the endpoint."""
    with pytest.raises(InvalidRequestError) as caught:
        Request(Endpoint("mine", BASE), {"msg": "\ud800"})
    assert caught.value.endpoint == "mine"


def test_a_parameter_has_a_name() -> None:
    """An empty one would be sent as ``=1``, which PHP ignores."""
    for value in (1, "text", None, FLAG):
        with pytest.raises(InvalidRequestError, match="name must not be empty") as caught:
            Request(Endpoint("mine", BASE), {"": value})
        assert caught.value.endpoint == "mine"


# -- URLs -----------------------------------------------------------------------------------------

GOOD_URLS = [
    "https://pythbots.com",
    "https://www.peerbet.org",
    "https://www.peerbet.org/",
    "https://example.com/a/b.php",
    "https://example.com:8443",
    "https://example.com:8443/a/",
    "https://EXAMPLE.com",
    "HTTPS://example.com",
    "https://example.com.",
    "https://xn--bcher-kva.example",
    "https://a-b.example.com/~user/%20x/(a);b=c@d:e!$&'*+,",
    "https://example.com/a//b",
    "https://example.com/...",
    "https://example.com/.hidden",
    "https://10.0.0.1",
    "https://[2001:db8::1]",
    "https://[2001:db8::1]:8443/x",
    "https://localhost",
    "http://localhost",
    "http://LOCALHOST",
    "http://LocalHost:8080/",
    "http://localhost.",
    "http://localhost.:8080",
    "http://localhost:1",
    "http://localhost:65535/api",
    "HTTP://localhost",
    "http://127.0.0.1",
    "http://127.0.0.1:8080/a",
    "http://127.0.0.2",
    "http://127.255.255.254",
    "http://[::1]",
    "http://[::1]:8080/a",
    "http://[0:0:0:0:0:0:0:1]",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:80",
]

BAD_URLS = [
    # not a URL
    "",
    " ",
    "example.com",
    "//example.com",
    "https:",
    "https:/",
    "https://",
    "https:///path",
    "https:example.com",
    "https:/example.com",
    "https:\\\\example.com",
    "://example.com",
    # schemes that carry no keys
    "http://example.com",
    "http://www.peerbet.org",
    "ftp://localhost",
    "ftp://example.com",
    "file:///etc/passwd",
    "ws://localhost",
    "wss://example.com",
    "unix://localhost",
    "javascript://localhost",
    "http+unix://localhost",
    "xhttps://example.com",
    "httpss://example.com",
    "http\u017f://localhost",
    # names that only look like this machine
    "http://127.0.0.1.evil.com",
    "http://localhost.evil.com",
    "http://localhost@evil.com",
    "http://127.0.0.1@evil.com",
    "http://evil.com#@localhost",
    "http://evil.com?@localhost",
    "http://evil.com\\@localhost",
    "http://evil.com/@localhost/../..",
    "http://evil.com:80@localhost",
    "http://user:pass@localhost",
    "http://@localhost",
    "http://xlocalhost",
    "http://localhostx",
    "http://sub.localhost",
    "http://localhost.localdomain",
    "http://localhost..",
    "http://.localhost",
    "http://local%68ost",
    "http://localho\u017ft",
    "http://loca\u2113host",
    # addresses that are this machine only to lenient parsers
    "http://127.1",
    "http://127.0.1",
    "http://2130706433",
    "http://0x7f.1",
    "http://0x7f000001",
    "http://0177.0.0.1",
    "http://0127.0.0.1",
    "http://127.0.0.01",
    "http://127.0.0.1.",
    "http://127.0.0.256",
    "http://0",
    "http://0.0.0.0",
    "http://[::]",
    "http://[::ffff:127.0.0.1]",
    "http://[::ffff:7f00:1]",
    "http://[::ffff:10.0.0.1]",
    "http://[::127.0.0.1]",
    "http://[fe80::1]",
    "http://[::1%25eth0]",
    "http://[::1",
    "http://::1",
    "http://[127.0.0.1]",
    "http://[localhost]",
    "http://128.0.0.1",
    "http://126.255.255.255",
    "http://10.0.0.1",
    "http://192.168.0.1",
    "http://169.254.169.254",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "http://\uff11\uff12\uff17.0.0.1",
    "http://127\u30020.0.1",
    "http://127.0.0.\u0661",
    # invalid hosts
    "https://[1:2]",
    "https://[:::]",
    "https://[.]",
    "https://[]",
    "https://-example.com",
    "https://example.com-",
    "https://.example.com",
    "https://exa mple.com",
    "https://ex%61mple.com",
    "https://b\u00fccher.example",
    "https://pythbot\u017f.com",
    "https://pythbots.\u212aom",
    "https://example.com\u200b",
    # invalid ports
    "https://example.com:",
    "https://example.com:/",
    "https://example.com:0",
    "https://example.com:00000",
    "https://example.com:65536",
    "https://example.com:99999",
    "https://example.com:123456",
    "https://example.com:-1",
    "https://example.com:+80",
    "https://example.com:8o",
    "https://example.com:\u0661",
    "https://example.com:80:80",
    # more than an address
    "https://user@example.com",
    "https://user:pass@example.com",
    "https://:pass@example.com",
    "https://example.com?",
    "https://example.com?a=b",
    "https://example.com/?key=K",
    "https://example.com/a?b",
    "https://example.com#",
    "https://example.com/#top",
    # paths that are rewritten before sending, or that split the request
    "https://example.com/.",
    "https://example.com/..",
    "https://example.com/a/../b",
    "https://example.com/a/./b",
    "https://example.com\\a",
    "https://example.com/a\\b",
    "https://example.com/a b",
    "https://example.com/\u00e9",
    "https://example.com/<a>",
    'https://example.com/"',
    "https://example.com/a\r\nX: 1",
    "https://example.com\n",
    "https://example.com/\n",
    "https://example.com/\t",
    "https://example.com/\0",
    " https://example.com",
    "https://example.com ",
    "\nhttps://example.com",
    "\ufeffhttps://example.com",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_keys_may_be_sent_here(url: str) -> None:
    """Over https to any host, plain http to this machine; returned unchanged."""
    assert check_url("url", url) == url


@pytest.mark.parametrize("url", BAD_URLS, ids=ascii)
def test_keys_may_not_be_sent_here(url: str) -> None:
    """Any other URL is an error when it is configured."""
    with pytest.raises(InvalidRequestError, match=r"^peerbet_url must "):
        check_url("peerbet_url", url)


@pytest.mark.parametrize("path", ["?key=c4n4ry", "#c4n4ry", "c4n4ry@", "/c4n4ry/../", "/c4n4ry é"])
@pytest.mark.parametrize("start", ["https://example.com", "http://example.com", "https://"])
def test_an_error_does_not_repeat_the_url(start: str, path: str) -> None:
    """A user may have pasted a key into it."""
    with pytest.raises(InvalidRequestError) as caught:
        check_url("peerbet_url", start + path)
    assert "c4n4ry" not in str(caught.value)
    assert "c4n4ry" not in repr(vars(caught.value))


@pytest.mark.parametrize("url", [None, 5, b"https://example.com", ["https://example.com"]])
def test_a_url_is_text(url: object) -> None:
    """Not bytes, and not another library's URL object."""
    with pytest.raises(InvalidRequestError):
        check_url("url", url)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_the_checked_host_is_the_one_that_is_connected_to(url: str) -> None:
    """The library that connects reads the same scheme, host and path from an accepted URL."""
    parsed_url = URL(f"{url}?a=b", encoded=True)
    assert parsed_url.scheme in ("http", "https")
    host = parsed_url.raw_host or ""
    assert host.lower() in url.lower()
    assert parsed_url.user is None
    assert parsed_url.password is None
    assert parsed_url.raw_query_string == "a=b"
    assert parsed_url.raw_fragment == ""


@settings(max_examples=examples(300))
@example("http://", "[0::1]")
@given(
    st.sampled_from(["http://", "https://", "HTTP://"]),
    st.text("alocht127.0:[]@/\\?#%x -\u017f\u212a", max_size=24),
)
def test_no_accepted_url_reaches_another_machine_in_the_clear(scheme: str, rest: str) -> None:
    """Any accepted plain http URL connects to loopback; all of it is ASCII."""
    try:
        url = check_url("url", scheme + rest)
    except InvalidRequestError:
        return
    assert url.isascii()
    parsed_url = URL(url, encoded=True)
    if parsed_url.scheme != "https":
        host = (parsed_url.raw_host or "").lower()
        assert host in ("localhost", "localhost.") or ip_address(host).is_loopback


# -- integers and text ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 50, INT32_MAX])
def test_integers_within_bounds(value: int) -> None:
    """Ids are Int32 by documentation, so that is the default upper bound."""
    assert check_integer("n", value, 0) == value


@pytest.mark.parametrize("value", [-1, INT32_MAX + 1, 2**64, -(2**64), 10**4000])
def test_integers_out_of_range(value: int) -> None:
    """The error names the range."""
    with pytest.raises(InvalidRequestError, match=f"^n must be from 0 to {INT32_MAX}$"):
        check_integer("n", value, 0)


def test_bounds_are_inclusive() -> None:
    """Both ends belong to the range, and what is next to them does not."""
    assert [check_integer("n", value, 1, 300) for value in (1, 300)] == [1, 300]
    for value in (0, 301):
        with pytest.raises(InvalidRequestError, match="from 1 to 300"):
            check_integer("n", value, 1, 300)


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, b"1", [1], Decimal(1)])
def test_what_is_not_an_integer(value: object) -> None:
    """A boolean is a mistake here, and so is any value that would have to be converted."""
    with pytest.raises(InvalidRequestError, match=r"^n must be an integer, not "):
        check_integer("n", value, 0)


def test_an_integer_of_another_class_is_one() -> None:
    """An ``IntEnum`` is an integer."""

    class Chat(enum.IntEnum):
        HELP = 220531305

    assert check_integer("n", Chat.HELP, 1) == 220531305
    assert query(chatid=Chat.HELP) == "chatid=220531305"


@pytest.mark.parametrize("text", ["a", " ", "é", "\n", "x" * 250, "\U0001f600" * 250])
def test_texts_that_can_be_sent(text: str) -> None:
    """Length is counted in characters, not in bytes."""
    assert check_text("text", text, 250) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must not be empty"),
        ("x" * 251, "must have at most 250 characters, not 251 \\(1 too many\\)"),
        ("a\ud83d", "lone surrogate"),
        ("a\0b", "NUL"),
        (None, "must be a str, not NoneType"),
        (5, "must be a str, not int"),
        (b"a", "must be a str, not bytes"),
        (Secret("k"), "must be a str, not Secret"),
    ],
)
def test_texts_that_cannot_be_sent(text: object, fault: str) -> None:
    """Empty, too long, not encodable, or not text."""
    with pytest.raises(InvalidRequestError, match=f"^text .*{fault}"):
        check_text("text", text, 250)


def test_without_a_limit_any_length_is_accepted() -> None:
    """Mail has no documented limit."""
    assert len(check_text("text", "x" * 100_000)) == 100_000


# -- rates ----------------------------------------------------------------------------------------

NO_SECONDS: list[object] = [
    -1,
    -0.001,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    True,
    False,
    "1",
    None,
    [1],
]


def test_a_rate_has_defaults() -> None:
    """One stored token at most, and 50 ms for varying delay."""
    assert Rate(1.0) == Rate(interval=1.0, burst=1, guard=0.05)


@pytest.mark.parametrize("rate", [Rate(0), Rate(0.0, 1, 0.0), Rate(1, 3, 2), Rate(1e9, INT32_MAX)])
def test_valid_rates(rate: Rate) -> None:
    """Zero is a number of seconds too, and an integer is accepted like a float."""
    assert rate.interval >= 0
    assert rate == Rate(rate.interval, rate.burst, rate.guard)


@pytest.mark.parametrize("value", NO_SECONDS, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("field", ["interval", "guard"])
def test_rates_take_numbers_of_seconds(field: str, value: Any) -> None:
    """Finite, not negative, and not a boolean."""
    given_: dict[str, Any] = {"interval": 1.0, field: value}
    with pytest.raises(InvalidRequestError, match=f"^{field} must be a "):
        Rate(**given_)


@pytest.mark.parametrize("burst", [0, -1, True, 1.0, "1", None, INT32_MAX + 1])
def test_a_burst_is_a_whole_number_of_tokens(burst: Any) -> None:
    """At least one, because nothing could ever be sent otherwise."""
    with pytest.raises(InvalidRequestError, match=r"^burst must be "):
        Rate(1.0, burst)


def test_a_rate_is_a_value() -> None:
    """It can be compared and hashed, and cannot be changed while a limiter uses it."""
    rate = Rate(1.0)
    assert {rate: 1}[Rate(1.0)] == 1
    with pytest.raises(AttributeError):
        rate.interval = 0.0  # type: ignore[misc]


# -- endpoints ------------------------------------------------------------------------------------


class Roll(msgspec.Struct):
    """The response of a custom endpoint."""

    roll: int


def test_an_endpoint_has_defaults() -> None:
    """A read once a second whose result is any object."""
    endpoint = Endpoint("mine", BASE)
    assert (endpoint.name, endpoint.url) == ("mine", BASE)
    assert endpoint.query == {}
    assert endpoint.effect is Effect.READ
    assert endpoint.rate == Rate(1.0)
    assert endpoint.decode(b'{"a":[1]}') == {"a": [1]}


def test_an_endpoint_accepts_any_type_that_msgspec_decodes() -> None:
    """A struct, a list of them, a dictionary; numbers can be sent as text."""
    assert Endpoint("mine", BASE, answer=Roll).decode(b'{"roll":"6"}') == Roll(6)
    assert Endpoint("mine", BASE, answer=list[Roll]).decode(b'[{"roll":6}]') == [Roll(6)]
    assert Endpoint("mine", BASE, answer=dict[str, int]).decode(b'{"a":1}') == {"a": 1}
    assert Endpoint("mine", BASE, answer=Roll).convert({"roll": "6"}) == Roll(6)
    with pytest.raises(ValueError, match="roll"):
        Endpoint("mine", BASE, answer=Roll).decode(b"{}")


def test_an_endpoint_copies_its_query() -> None:
    """Changing the mapping that it was made from changes nothing."""
    params: dict[str, Param] = {"action": "roll"}
    endpoint = Endpoint("mine", BASE, query=params)
    params["action"] = "steal"
    assert endpoint.query == {"action": "roll"}


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"name": ""}, "name must not be empty"),
        ({"name": 5}, "name must be a str, not int"),
        ({"url": "http://example.com"}, "url must be https"),
        ({"url": f"{BASE}?a=b"}, "url must be an https URL"),
        ({"url": None}, "url must be an https URL"),
        ({"effect": "read"}, "effect must be an Effect, not str"),
        ({"effect": None}, "effect must be an Effect, not NoneType"),
        ({"rate": 1.0}, "rate must be a Rate, not float"),
        ({"query": {"a": object()}}, "a must be a str"),
        ({"query": {"a\0": "a"}}, "name must not contain a NUL"),
        ({"answer": 5}, "answer must be a type that msgspec decodes"),
        ({"answer": list[Roll] | list[int]}, "answer must be a type that msgspec decodes"),
        ({"answer": defstruct("X", [("a", "1 / 0")])}, "answer must .* decodes: division by zero"),
    ],
)
def test_a_wrong_endpoint_is_an_error_immediately(wrong: Mapping[str, Any], fault: str) -> None:
    """Not at the first call, when a token would already be spent."""
    with pytest.raises(InvalidRequestError, match=fault) as caught:
        Endpoint(**{"name": "mine", "url": BASE, **wrong})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_effect_is_one_of_three() -> None:
    """Read, destructive read, write: they decide what may be repeated."""
    assert [effect.value for effect in Effect] == ["read", "consume", "write"]


def test_a_parsed_endpoint_uses_functions() -> None:
    """Plain JSON goes through `parse_fast` where there is one, any document through `parse`."""
    slow = ParsedEndpoint("mine", BASE, parse=repr)
    assert slow.decode(b"[1]") == slow.convert([1]) == "[1]"
    quick = ParsedEndpoint("mine", BASE, parse=repr, parse_fast=lambda body: f"fast {len(body)}")
    assert quick.decode(b"[1]") == "fast 3"
    assert quick.convert([1]) == "[1]"
    assert quick.status_means_success
    assert not ParsedEndpoint(
        "mine", BASE, parse=repr, status_means_success=False
    ).status_means_success
