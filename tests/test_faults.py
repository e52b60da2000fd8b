"""The fault table, cell by cell: what callers get, what streams do, and the page that says so."""

from __future__ import annotations

import pickle
import re
from itertools import zip_longest
from typing import Final

import msgspec
import pytest
from fault_cells import NO_FAULT, STREAMS, run_call, expected_call, expected_stream, run_stream
from fault_page import PATH, page
from faults import FAULTS, MAX_BODY, TABLE, TIMEOUT, REPRODUCTIONS, FaultRow
from helpers import DEEP
from raw_server import CALLS, StubDnsLoop

from pythpeer import Effect, PythpeerError

pytestmark = pytest.mark.anyio

each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """A loop that can be without a name server."""
    return ("asyncio", {"loop_factory": StubDnsLoop})


# -- cells ----------------------------------------------------------------------------------------


PLAIN: Final[dict[str, object]] = {}
"""What each call gets where nothing is wrong, once it has been asked for."""


async def plain(name: str) -> object:
    """What a call gets where nothing is wrong."""
    if name not in PLAIN:
        PLAIN[name] = (await run_call(name, NO_FAULT))[1]
    return PLAIN[name]


def asked_in(fault: FaultRow, way_name: str) -> list[str]:
    """The calls that meet this way: all of them, unless it is a fault's second or later one.

    In the small run such a way meets two calls of each effect, which change from way to way, and
    those for which the fault is something else.
    """
    number = list(fault.reproductions).index(way_name)
    if DEEP or number == 0:
        return list(CALLS)
    effects = [[name for name, call in CALLS.items() if call.effect is effect] for effect in Effect]
    turns = [names[(number + at) % len(names)] for names in effects for at in (0, 1)]
    return list(dict.fromkeys([*turns, *fault.overrides]))


@each_fault
async def test_a_call_gets_what_the_contract_says(fault: FaultRow) -> None:
    """Its error and what that tells, or the answer; how often it was asked; how long it took."""
    whole = fault.expectation.complete and not fault.expectation.read
    for way_name, way in fault.reproductions.items():
        cells = {name: await run_call(name, way) for name in asked_in(fault, way_name)}
        got = {name: cell for name, (cell, _) in cells.items()}
        assert got == {name: expected_call(name, fault, way) for name in cells}, way_name
        for name, (_, result) in cells.items():
            if isinstance(result, PythpeerError):
                examine(result)
            elif whole:
                like = await plain(name)
                assert essence(result, like) == essence(like, like), way_name


def examine(error: PythpeerError) -> None:
    """An error pickles, and has neither an address nor a key nor an error page in it."""
    shown = f"{error} {vars(error)}"
    again = pickle.loads(pickle.dumps(error))
    assert f"{again} {vars(again)}" == shown
    assert not re.search(r"127\.0|localhost|-key|Sorry", shown)


@each_fault
async def test_a_stream_does_what_the_contract_says(fault: FaultRow) -> None:
    """It waits, raises or goes on, looks for what may be lost, and then the next item comes."""
    for way_name, way in fault.reproductions.items():
        seen = {name: await run_stream(name, way) for name in STREAMS}
        assert seen == {name: expected_stream(name, fault, way) for name in STREAMS}, way_name


def essence(found: object, plain: object) -> object:
    """What there is in *found* of all that is in *plain*, but for marks of damage in texts."""
    found, plain = msgspec.to_builtins((found, plain))
    if isinstance(found, dict) and isinstance(plain, dict):
        return {key: essence(found.get(key), value) for key, value in plain.items()}
    if isinstance(found, list | tuple) and isinstance(plain, list | tuple):
        return [essence(each, like) for each, like in zip_longest(found, plain)]
    return re.sub("[\N{REPLACEMENT CHARACTER}\0-\x1f]", "", str(found))


@pytest.mark.parametrize(
    ("way", "text"),
    {
        "no address": "the host name cannot be resolved",
        "refused": "no connection",
        "unknown authority": "the certificate is not trusted",
        "another name": "the certificate is for another address",
        "expired": "the certificate has expired",
        "no TLS": "no TLS connection",
        "no name server": f"no connection within the time limit of {TIMEOUT} s (timeout)",
        "black hole": "no connection within 5 s",
        "silent TLS": "no connection within 5 s",
        "fin": "the connection broke before the answer",
        "silence": f"no whole answer within the time limit of {TIMEOUT} s (timeout)",
        "body by drips": f"no whole answer within the time limit of {TIMEOUT} s (timeout)",
        "garbage": "the answer is not HTTP",
        "chunks cut": "the connection broke within the body",
        "compress": "the body has an encoding nobody asked for",
        "too large": f"the body is over {MAX_BODY} bytes",
        "404, page": "HTTP status 404",
        "429": "too many requests",
        "text": "the answer is not JSON",
        "null": "the answer is not the documented JSON",
        "error alone": "user not found",
    }.items(),
)
async def test_an_error_says_what_broke_in_words_of_its_own(way: str, text: str) -> None:
    """The texts of errors tell the kinds of failure apart."""
    _, error = await run_call("user", REPRODUCTIONS[way])
    assert str(error) == f"pythbots.userinfo: {text}"


# -- the table ------------------------------------------------------------------------------------


def test_every_way_has_a_name_of_its_own() -> None:
    """No fault, and no way to bring one about, stands in the shadow of another."""
    assert len(FAULTS) == sum(map(len, TABLE.values()))
    assert len(REPRODUCTIONS) == sum(len(fault.reproductions) for fault in FAULTS.values())
    assert all(fault.reproductions for fault in FAULTS.values())


def test_every_exception_is_one() -> None:
    """What is said to be otherwise is a call's, and is otherwise."""
    for fault in FAULTS.values():
        assert set(fault.overrides) <= set(CALLS)
        assert fault.expectation not in fault.overrides.values()
        assert set(fault.overrides) < set(CALLS)


# -- the page -------------------------------------------------------------------------------------


def test_the_page_says_what_the_tests_say() -> None:
    """The page of the documentation is made of this table; ``nox -s docs-faults`` writes it."""
    assert PATH.read_text(encoding="utf-8") == page()


def test_the_page_has_every_fault_once() -> None:
    """Each fault is a row with a cell for each column, in the order of the table."""
    rows = [line.strip("| ").split(" | ") for line in page().splitlines() if line.startswith("| ")]
    words = [re.sub(r" \(after .*\)$", "", row[0]) for row in rows if len(row) == 5]
    assert [each for each in words if each != "what happens"] == list(FAULTS)
