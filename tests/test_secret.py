"""`Secret`: a key whose text is shown only by an explicit call."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import logging
import pickle
import pprint
import traceback
import weakref
from collections.abc import Callable
from io import StringIO
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import rich
from helpers import warns_renamed
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pythpeer import InvalidRequestError, Secret
from pythpeer.secret import account_of

CANARY = "c4n4ry/K3y+%=&"

keys = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


# -- contents -------------------------------------------------------------------------------------


@given(keys)
def test_reveals_what_it_was_given(text: str) -> None:
    """Nothing is stripped, changed in case or normalised."""
    assert Secret(text).reveal() == text


@given(keys, keys)
def test_equality_is_that_of_the_texts(first: str, second: str) -> None:
    """Two secrets are equal when their texts are, and equal ones hash alike."""
    assert (Secret(first) == Secret(second)) is (first == second)
    assert (Secret(first) != Secret(second)) is (first != second)
    assert Secret(first) == Secret(first)
    assert hash(Secret(first)) == hash(Secret(first))


def test_a_secret_is_not_equal_to_its_text() -> None:
    """A secret equals no text, so it cannot be found by trying texts in a set of them."""
    assert Secret(CANARY) != CANARY
    assert CANARY.__eq__(Secret(CANARY)) is NotImplemented
    assert hash(Secret(CANARY)) != hash(CANARY)


def test_serves_as_a_key_of_a_mapping() -> None:
    """Equal secrets are one entry."""
    assert {Secret("a"): 1, Secret("b"): 2, Secret("a"): 3} == {Secret("a"): 3, Secret("b"): 2}


def test_can_be_referenced_weakly() -> None:
    """Caches need not keep a key alive."""
    secret = Secret(CANARY)
    reference = weakref.ref(secret)
    assert reference() is secret
    del secret
    gc.collect()
    assert reference() is None


# -- representations ------------------------------------------------------------------------------


@given(keys)
def test_every_secret_looks_the_same(text: str) -> None:
    """Neither the key nor its length is visible."""
    secret, other = Secret(text), Secret("other")
    assert repr(secret) == repr(other) == "Secret('***')"
    assert str(secret) == str(other) == "***"


@pytest.mark.parametrize(
    "shown",
    [
        f"{Secret(CANARY)}",
        f"{Secret(CANARY)!r}",
        f"{Secret(CANARY)!s}",
        f"{Secret(CANARY)!a}",
        f"{Secret(CANARY):>20}",
        f"{Secret(CANARY):s}",
        "%s %r" % (Secret(CANARY), Secret(CANARY)),  # noqa: UP031  # one of the ways to show it
        "{}".format(Secret(CANARY)),  # noqa: UP032  # another
        str([Secret(CANARY)]),
        str({"key": Secret(CANARY)}),
        pprint.pformat({"key": Secret(CANARY)}),
        json.dumps({"key": Secret(CANARY)}, default=str),
    ],
)
def test_no_way_of_formatting_shows_it(shown: str) -> None:
    """``repr``, ``str``, ``format`` with any specification, and everything built on them."""
    assert "***" in shown
    assert CANARY not in shown


def test_logging_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    """A secret in a log call is safe, too."""
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("key %s, %r", Secret(CANARY), Secret(CANARY))
    assert caplog.messages == ["key ***, Secret('***')"]


def test_has_no_dictionary() -> None:
    """There is no ``__dict__`` to read, and nothing can be added."""
    secret = Secret(CANARY)
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(AttributeError):
        secret.note = "x"  # type: ignore[attr-defined]


def test_cannot_be_derived_from_at_type_checking_time() -> None:
    """It is final: no subclass can bring its text back into a repr."""
    assert getattr(Secret, "__final__", False) is True


@pytest.mark.parametrize(
    "look",
    [
        dir,
        inspect.getmembers,
        inspect.getmembers_static,
        object.__getstate__,
        lambda secret: [getattr(secret, f"_Secret{name}") for name in ("__value", "__encoded")],
    ],
    ids=["dir", "getmembers", "getmembers_static", "state", "slots"],
)
def test_its_attributes_do_not_show_the_text(look: Callable[[Secret], object]) -> None:
    """Debuggers, and libraries that encode any object, read them."""
    shown = repr(look(Secret(CANARY)))
    assert shown
    for part in (CANARY, quote(CANARY, safe=""), "c4n4ry"):
        assert part not in shown


def test_no_private_attribute_is_listed() -> None:
    """`dir` names what programs may use."""
    assert {"reveal", "encoded", "fingerprint"} <= set(dir(Secret(CANARY)))
    assert not [name for name in dir(Secret(CANARY)) if name.startswith("_Secret")]


@pytest.mark.parametrize("options", [{"all": True}, {"private": True, "methods": True}])
def test_rich_does_not_show_the_text(options: dict[str, Any]) -> None:
    """With every attribute."""
    output = StringIO()
    rich.inspect(Secret(CANARY), console=Console(file=output), **options)
    assert "Secret" in output.getvalue()
    assert "c4n4ry" not in output.getvalue()


def test_its_state_cannot_be_read() -> None:
    """Libraries that encode any object, as jsonpickle does, ask for it."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        Secret(CANARY).__getstate__()


# -- copies and pickles ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_raises(protocol: int) -> None:
    """Neither alone nor inside another object."""
    for value in (Secret(CANARY), [Secret(CANARY)], {"key": Secret(CANARY)}):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            pickle.dumps(value, protocol)
        assert CANARY not in str(caught.value)


def test_encoding_as_json_raises() -> None:
    """No encoder writes it by accident."""
    with pytest.raises(TypeError) as caught:
        msgspec.json.encode({"key": Secret(CANARY)})
    assert CANARY not in str(caught.value)
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))


def test_copies_are_the_same_object() -> None:
    """Copying a structure that holds a key makes no second key."""
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


# -- the fingerprint ------------------------------------------------------------------------------


@given(keys, keys)
def test_fingerprints_distinguish_keys(first: str, second: str) -> None:
    """Equal keys have equal fingerprints, different keys different ones."""
    assert (Secret(first).fingerprint() == Secret(second).fingerprint()) is (first == second)


def test_a_fingerprint_is_no_key() -> None:
    """It is short, hexadecimal, stable, and contains no part of the key."""
    fingerprint = Secret(CANARY).fingerprint()
    assert fingerprint == Secret(CANARY).fingerprint()
    assert len(fingerprint) == 16
    assert set(fingerprint) <= set("0123456789abcdef")
    assert CANARY[:4] not in fingerprint


# -- bad values -----------------------------------------------------------------------------------

BAD: list[tuple[object, str]] = [
    ("", "must not be empty"),
    (None, "not NoneType"),
    (b"c4n4ry", "not bytes"),
    (bytearray(b"c4n4ry"), "not bytearray"),
    (4242424242, "not int"),
    (["c4n4ry"], "not list"),
    ("c4n4ry\n", "line breaks"),
    ("c4n4ry\r\nX-Evil: 1", "line breaks"),
    ("\tc4n4ry", "control characters"),
    ("c4n4ry\0", "control characters"),
    ("c4n4ry\x7f", "control characters"),
    ("c4n4ry\x85", "control characters"),
    ("c4n4ry\ud800", "lone surrogate"),
    ("\udfffc4n4ry", "lone surrogate"),
]


def everything_a_report_shows(error: BaseException) -> str:
    """Return the traceback with the variables of every frame, as error reporters show it."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize(("value", "fault"), BAD)
def test_bad_keys_raise_with_a_reason(value: object, fault: str) -> None:
    """A key is non-empty text without control characters and lone surrogates."""
    with pytest.raises(InvalidRequestError, match=fault):
        Secret(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_keys_do_not_leak(index: int) -> None:
    """Not even with the variables of every frame of the traceback, causes and context included."""
    values = [value for value, _ in BAD][index : index + 1]
    error: InvalidRequestError | None = None
    try:
        Secret(values.pop())  # type: ignore[arg-type]
    except InvalidRequestError as caught:
        error = caught
    assert error is not None
    shown = everything_a_report_shows(error)
    assert "Secret" in shown
    assert "c4n4ry" not in shown
    assert "4242424242" not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


def test_good_keys_do_not_leak_from_another_error() -> None:
    """A secret among the variables of a failing frame is shown as ``***``."""

    def work(secret: Secret) -> None:
        raise RuntimeError(f"with {secret}")

    texts = [CANARY]
    error: RuntimeError | None = None
    try:
        work(Secret(texts.pop()))
    except RuntimeError as caught:
        error = caught
    assert error is not None
    shown = everything_a_report_shows(error)
    assert "secret = Secret('***')" in shown
    assert CANARY not in shown


# -- wrapping -------------------------------------------------------------------------------------


def test_wrap_accepts_text_secrets_and_none() -> None:
    """Text becomes a secret, a secret is returned unchanged, and ``None`` stays ``None``."""
    secret = Secret(CANARY)
    assert Secret.try_wrap(secret) is secret
    assert Secret.try_wrap(CANARY) == secret
    assert Secret.try_wrap(None) is None


@pytest.mark.parametrize(("value", "fault"), [bad for bad in BAD if bad[0] is not None])
def test_wrap_returns_its_error(value: object, fault: str) -> None:
    """The error is returned as a value, without a traceback of a frame that held the key."""
    error = Secret.try_wrap(value)
    assert isinstance(error, InvalidRequestError)
    assert fault in str(error)
    assert error.__traceback__ is None
    assert "c4n4ry" not in repr(error)


def test_the_old_name_of_try_wrap_still_works() -> None:
    """`Secret.wrap` does the same as `Secret.try_wrap`, with a ``DeprecationWarning``."""
    with warns_renamed("Secret.wrap()", "Secret.try_wrap()"):
        assert Secret.wrap(CANARY) == Secret(CANARY)
    with warns_renamed("Secret.wrap()", "Secret.try_wrap()"):
        assert isinstance(Secret.wrap(""), InvalidRequestError)


def test_the_account_of_a_key_is_the_one_that_stores_have() -> None:
    """Another name would make the positions and logs of an existing store unreachable."""
    key = Secret("x")
    assert account_of(key) == key.fingerprint() == "57a901a378659f51"
    assert account_of(None) == "nobody"
