"""What a response repeats of its request: keys are masked, other texts do not decide the error."""

from __future__ import annotations

import html
import json
import re
import shutil
import string
import subprocess
import traceback
from collections.abc import Callable, Iterable
from html.entities import codepoint2name
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from pythpeer import AccessDeniedError, ApiError, RateLimitedError, Secret
from pythpeer.pythbots import userinfo_endpoint
from pythpeer.wire.echoes import MIN_BEGINNING, MIN_PART, MIN_WORD, mask_keys, without_texts
from pythpeer.wire.responses import try_parse_response

USER: Final = userinfo_endpoint("https://pythbots.com")

KEYS: Final = (
    "9f86d081884c7d659a2feaa0c55ad015",
    "a'b\"c<d>e&f/g\\h~i+j k=l?m#n%o",
    "clé-à-molette-ñandú-ÿ",
)


def entities(text: str) -> str:
    """Escape as PHP's ``htmlentities``."""
    names = {**codepoint2name, ord("'"): "#039"}
    return "".join(
        f"&{names[ord(character)]};" if ord(character) in names else character for character in text
    )


def json_hex(text: str) -> str:
    """Escape as PHP's ``json_encode`` with every ``JSON_HEX_`` option."""
    escaped = json.dumps(text)[1:-1].replace("/", "\\/")
    for character in "<>&'":
        escaped = escaped.replace(character, f"\\u{ord(character):04X}")
    return escaped.replace('\\"', "\\u0022")


PHP_FORMS: Final[dict[str, Callable[[str], str]]] = {
    "htmlspecialchars": lambda key: html.escape(key).replace("&#x27;", "&#039;"),
    "htmlentities": entities,
    "urlencode": lambda key: quote_plus(key).replace("~", "%7E"),
    "urlencode of Latin-1": lambda key: quote_plus(key, encoding="latin-1"),
    "rawurlencode": lambda key: quote(key, safe=""),
    "addslashes": lambda key: re.sub(r"(['\"\\])", r"\\\1", key),
    "json_encode": json_hex,
    "addslashes, then htmlspecialchars": lambda key: html.escape(
        re.sub(r"(['\"\\])", r"\\\1", key)
    ).replace("&#x27;", "&#039;"),
    "htmlspecialchars twice": lambda key: html.escape(html.escape(key)),
    "urlencode, then json_encode": lambda key: json_hex(quote_plus(key)),
    "chunk_split": lambda key: "\r\n".join(re.findall(".{1,7}", key)),
    "strtoupper": lambda key: "".join(
        character.upper() if character.isascii() else character for character in key
    ),
    "hexadecimal escapes": lambda key: "".join(
        f"\\x{ord(character):02x}" if ord(character) < 256 else character for character in key
    ),
}


def masked(text: str, *keys: str) -> str:
    return mask_keys(text, lambda: map(Secret, keys), 200)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", PHP_FORMS)
def test_a_key_is_masked_in_each_form_that_php_makes(form: str, key: str) -> None:
    """Wholly, and nothing else is."""
    assert masked(f"no row for [{PHP_FORMS[form](key)}] in db", key) == "no row for [***] in db"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", ["", *PHP_FORMS])
def test_a_part_of_a_key_is_masked(form: str, key: str) -> None:
    """Its beginning, its end and its middle; a service may show the half of it on purpose."""
    escape = PHP_FORMS.get(form, str)
    for part in (key[:16], key[-8:], key[3:12]):
        if form != "urlencode of Latin-1" or part.isascii():
            assert masked(f"for [{escape(part)}...]", key) == "for [***...]"


def test_a_few_characters_in_common_are_no_part() -> None:
    """A message may have some characters of a key by chance."""
    key = KEYS[0]
    for start in range(len(key) - MIN_PART):
        text = f"<{key[start : start + MIN_PART - 1]}>"
        assert masked(text, key) == text


def test_a_word_of_the_message_is_no_part() -> None:
    """The keys of the fake services consist of words; they are masked in a longer part."""
    key = "fake-personal-key"
    assert masked("Invalid personal key", key) == "Invalid personal key"
    for part in (key, key[:12], key[5:], "-personal", "e-personal-k"):
        assert masked(f"Invalid <{part}>", key) == "Invalid <***>"


def test_a_key_of_letters_is_masked() -> None:
    """The whole of it, and each part that is longer than most words."""
    for key in ("k", "secret", "password", "abcdefghijklmnopqrstuvwx"):
        assert masked(f"1 <{key.upper()}>", key) == "1 <***>"
        for part in range(MIN_WORD, len(key)):
            assert masked(f"1 <{key[-part:]}>", key) == "1 <***>"


@pytest.mark.skipif(not shutil.which("php"), reason="there is no PHP on this machine")
@pytest.mark.parametrize("key", KEYS)
def test_php_itself_makes_no_form_that_shows_a_key(key: str) -> None:
    """The functions with which PHP programs escape, and some of them twice."""
    functions = [
        "htmlspecialchars",
        "htmlentities",
        "urlencode",
        "rawurlencode",
        "addslashes",
        "json_encode",
        "var_export",
    ]
    program = """
        [$key, $names] = json_decode(stream_get_contents(STDIN));
        $apply = fn($f, $t) => $f === 'var_export' ? var_export($t, true) : $f($t);
        $out = [];
        foreach ($names as $a) {
            $out[$a] = $apply($a, $key);
            foreach ($names as $b) $out["$a, $b"] = $apply($b, $apply($a, $key));
        }
        echo json_encode($out);
    """
    run = subprocess.run(
        ["php", "-r", program],
        input=json.dumps([key, functions]).encode(),
        capture_output=True,
        check=True,
    )
    forms = json.loads(run.stdout)
    assert len(forms) == len(functions) * (len(functions) + 1)
    for name, form in forms.items():
        shown = masked(f"for [{form}] in db", key)
        # Quotes of `var_export` and `json_encode`, in any form, may be left.
        assert re.fullmatch(r"for \[.{0,16}\*\*\*.{0,16}\] in db", shown), name
        assert not any(key[at : at + MIN_PART] in shown for at in range(len(key) - MIN_PART + 1))


@settings(max_examples=examples(200))
@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=MIN_PART, max_size=60),
    st.lists(st.sampled_from(sorted(set(PHP_FORMS) - {"urlencode of Latin-1"})), max_size=2),
    st.integers(0, 400),
)
def test_no_part_of_a_key_is_left_at_the_end(key: str, forms: list[str], before: int) -> None:
    """The text that is searched ends somewhere, also within an escaped key."""
    echo = key
    for form in forms:
        echo = PHP_FORMS[form](echo)
    shown = masked("\0" * before + echo + "\0" * 5000, key)
    assert len(shown) <= 200
    assert key.casefold() not in html.unescape(shown).casefold()


def test_no_part_of_a_key_is_left_where_the_search_ends() -> None:
    """Not the first letters of one that is cut there, which could be a word elsewhere."""
    for length in range(MIN_WORD, 60):
        key = (string.ascii_lowercase * 3)[:length]
        assert set(masked(f"{key} " * 200, key)) <= {"*", " "}


def test_an_interrupt_shows_no_key() -> None:
    """No frame of its traceback holds one, wherever it comes."""
    key = "my-own-key-1234"

    def interrupt() -> Iterable[Secret]:
        yield Secret(key)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        mask_keys("text", interrupt, 200)
    shown = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert "mask_keys" in shown
    assert key not in shown.replace("key = 'my-own-key-1234'", "")  # the test's own variable


# -- texts ----------------------------------------------------------------------------------------


def read(message: str, *texts: str, status: int = 200) -> Any:
    body = json.dumps({"error": message}).encode()
    return try_parse_response(USER, status, body, list, lambda: texts)


STRANGERS: Final = (
    "key",
    "slow down",
    "Slow Down",
    "access denied",
    "rate limit",
    "too many requests",
    "a <b>key</b> & 'token'",
    "forbidden",
)


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize(
    "write",
    [
        str,
        str.lower,
        html.escape,
        quote_plus,
        lambda name: json.dumps(f'"{name}"')[1:-1],
        lambda name: f" {name} ",
    ],
    ids=["as sent", "lower", "HTML", "URL", "JSON", "spaces"],
)
def test_a_repeated_name_does_not_decide_the_error(name: str, write: Callable[[str], str]) -> None:
    """The name of a user could otherwise stop a bot, or slow it down."""
    for message in ("No user named {}", "{}", "{} does not exist: {}"):
        text = message.format(*(write(name),) * 2)
        error = read(text, name)
        assert type(error) is ApiError
        assert error.message == text.strip()


@pytest.mark.parametrize("cut", [MIN_BEGINNING, 60, 110])
def test_a_long_text_may_be_cut_off(cut: int) -> None:
    """As services do with what they repeat."""
    text = "please tell me your api key, " * 4
    assert type(read(f"Rejected: {text[:cut]}...", text)) is ApiError


@pytest.mark.parametrize(
    ("message", "text", "kind"),
    [
        ("Access denied", "cess", AccessDeniedError),
        ("Access denied", "a", AccessDeniedError),
        ("Invalid key for 'bob'", "bob", AccessDeniedError),
        ("Invalid key for 'access'", "access", AccessDeniedError),
        ("Slow down, bob", "bob", RateLimitedError),
        ("Slow down, slow", "down, slo", RateLimitedError),
        ("Forbidden", "", AccessDeniedError),
        ("Forbidden", " ", AccessDeniedError),
    ],
)
def test_what_the_service_itself_writes_decides(
    message: str, text: str, kind: type[ApiError]
) -> None:
    """A part of a word is no repetition."""
    assert type(read(message, text)) is kind


def test_the_status_decides_whatever_is_repeated() -> None:
    """It is not the text of a user."""
    assert type(read("No user 'key'", "key", status=403)) is AccessDeniedError
    assert type(read("No user 'key'", "key", status=429)) is RateLimitedError


@settings(max_examples=examples(100))
@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_texts_can_be_taken_out(message: str, texts: list[str]) -> None:
    """Nothing raises, and a text that the message does not have changes nothing."""
    without_texts(message, texts)
    assert without_texts("no such user", [f"\0{text}" for text in texts]) == "no such user"
