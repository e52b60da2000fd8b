"""Tests each cell of the fault table: the outcomes of calls and streams, and the page."""

from __future__ import annotations

import asyncio
import gc
import pickle
import re
import threading
import weakref
from contextlib import suppress
from itertools import zip_longest
from typing import Final

import msgspec
import pytest
from fault_cells import (
    NO_FAULT,
    STREAMS,
    expected_call,
    expected_stream,
    reproduce,
    run_call,
    run_stream,
    session_at,
)
from fault_page import PATH, page
from faults import FAULTS, MAX_BODY, REPRODUCTIONS, TABLE, TIMEOUT, FaultRow
from helpers import DEEP
from raw_server import CALLS, StubDnsLoop

from pythpeer import Effect, PythpeerError, Retry, Session

pytestmark = pytest.mark.anyio

each_fault = pytest.mark.parametrize("row", FAULTS.values(), ids=FAULTS.keys())


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """A loop on which look-ups of host names can fail."""
    return ("asyncio", {"loop_factory": StubDnsLoop})


# -- cells ----------------------------------------------------------------------------------------


RESULTS: Final[dict[str, object]] = {}
"""The result of each call without a fault, if `result_without_fault` was called for it."""


async def result_without_fault(name: str) -> object:
    """The result of a call without a fault."""
    if name not in RESULTS:
        RESULTS[name] = (await run_call(name, NO_FAULT))[1]
    return RESULTS[name]


def select_calls(row: FaultRow, reproduction_name: str) -> list[str]:
    """The calls that are tested with a reproduction: all of them if it is the first of its row.

    Unless `DEEP`, other reproductions are tested with two calls of each effect, which alternate
    from one reproduction to the next, and with the calls that have overrides.
    """
    number = list(row.reproductions).index(reproduction_name)
    if DEEP or number == 0:
        return list(CALLS)
    effects = [[name for name, call in CALLS.items() if call.effect is effect] for effect in Effect]
    selected = [names[(number + index) % len(names)] for names in effects for index in (0, 1)]
    return list(dict.fromkeys([*selected, *row.overrides]))


@each_fault
async def test_a_call_has_the_outcome_of_the_contract(row: FaultRow) -> None:
    """Its result or error with all attributes, the number of requests, and the time it takes."""
    is_complete = row.expectation.complete and not row.expectation.read
    for reproduction_name, fault in row.reproductions.items():
        cells = {name: await run_call(name, fault) for name in select_calls(row, reproduction_name)}
        outcomes = {name: outcome for name, (outcome, _) in cells.items()}
        expected = {name: expected_call(name, row, fault) for name in cells}
        assert outcomes == expected, reproduction_name
        for name, (_, result) in cells.items():
            if isinstance(result, PythpeerError):
                check_error(result)
            elif is_complete:
                reference = await result_without_fault(name)
                assert summary(result, reference) == summary(reference, reference), (
                    reproduction_name
                )


@each_fault
async def test_nothing_of_a_caller_is_kept_after_a_fault(row: FaultRow) -> None:
    """No reference cycle has its frame: a stream that is left is freed, with its connection."""

    class Marker:
        """Stands in the frame of the caller."""

    async def call(session: Session) -> weakref.ref[Marker]:
        marker = Marker()
        with suppress(PythpeerError):
            await session.peerbet.messages()
        return weakref.ref(marker)

    for reproduction_name, fault in row.reproductions.items():
        async with (
            reproduce(fault, NO_FAULT) as (url, _),
            session_at(url, Retry(max_delay=2.0)) as session,
        ):
            gc.disable()
            try:
                for _ in range(2):
                    marker = await call(session)
                    await asyncio.sleep(0)  # the loop refers to the future that ended the call
                    for thread in threading.enumerate():
                        if thread.name.startswith("pythpeer-parser"):
                            thread.join()  # it refers to its result
                    assert marker() is None, reproduction_name
            finally:
                gc.enable()


def check_error(error: PythpeerError) -> None:
    """It can be pickled, and contains no URL, key, error page or error of another library."""
    assert error.__cause__ is error.__context__ is None
    text = f"{error} {vars(error)}"
    unpickled = pickle.loads(pickle.dumps(error))
    assert f"{unpickled} {vars(unpickled)}" == text
    assert not re.search(r"://|/api|\?|-key|Sorry", text)


@each_fault
async def test_a_stream_has_the_outcome_of_the_contract(row: FaultRow) -> None:
    """It waits, raises or continues, searches for lost items, and then returns the next item."""
    for reproduction_name, fault in row.reproductions.items():
        outcomes = {name: await run_stream(name, fault) for name in STREAMS}
        expected = {name: expected_stream(name, row, fault) for name in STREAMS}
        assert outcomes == expected, reproduction_name


def summary(result: object, reference: object) -> object:
    """The part of *result* that is in *reference*, without the marks of damage in texts."""
    result, reference = msgspec.to_builtins((result, reference))
    if isinstance(result, dict) and isinstance(reference, dict):
        return {key: summary(result.get(key), value) for key, value in reference.items()}
    if isinstance(result, list | tuple) and isinstance(reference, list | tuple):
        pairs = zip_longest(result, reference)
        return [summary(element, of_reference) for element, of_reference in pairs]
    return re.sub("[\N{REPLACEMENT CHARACTER}\0-\x1f]", "", str(result))


@pytest.mark.parametrize(
    ("reproduction_name", "text"),
    {
        "no address": "the host name HOST cannot be resolved",
        "refused": "no connection to HOST",
        "unknown authority": "the certificate of HOST is not trusted",
        "another name": "the certificate of HOST is for another address",
        "expired": "the certificate of HOST has expired",
        "no TLS": "no TLS connection to HOST",
        "no name server": f"no connection to HOST within the time limit of {TIMEOUT} s (timeout)",
        "black hole": "no connection to HOST within 5 s",
        "silent TLS": "no connection to HOST within 5 s",
        "fin": "the connection to HOST broke before the response",
        "silence": f"no complete response of HOST within the time limit of {TIMEOUT} s (timeout)",
        "body by drips": (
            f"no complete response of HOST within the time limit of {TIMEOUT} s (timeout)"
        ),
        "garbage": "the response of HOST is not HTTP",
        "chunks cut": "the connection to HOST broke within the body",
        "compress": "unexpected Content-Encoding",
        "too large": f"the body is larger than {MAX_BODY} bytes (max_body)",
        "404, page": "HTTP status 404: check the URL of the service",
        "302, redirect": (
            "HTTP status 302: redirects are not followed, check the URL of the service"
        ),
        "429": "too many requests",
        "text": "the response is not JSON",
        "null": "the response is not the documented JSON",
        "error alone": "user not found",
    }.items(),
)
async def test_the_text_of_an_error_names_the_fault(reproduction_name: str, text: str) -> None:
    """The texts of errors distinguish the kinds of faults, and name the host of the network's."""
    _, error = await run_call("user", REPRODUCTIONS[reproduction_name])
    without_host = re.sub(r"\b(localhost|127\.0\.0\.1):\d+", "HOST", str(error))
    assert without_host == f"pythbots.userinfo: {text}"


# -- the table ------------------------------------------------------------------------------------


def test_each_reproduction_has_a_unique_name() -> None:
    """No row, and no reproduction, replaces another one in a mapping."""
    assert len(FAULTS) == sum(map(len, TABLE.values()))
    assert len(REPRODUCTIONS) == sum(len(row.reproductions) for row in FAULTS.values())
    assert all(row.reproductions for row in FAULTS.values())


def test_each_override_differs_from_the_expectation() -> None:
    """An override is for a call, and some call of the row has none."""
    for row in FAULTS.values():
        assert set(row.overrides) <= set(CALLS)
        assert row.expectation not in row.overrides.values()
        assert set(row.overrides) < set(CALLS)


# -- the page -------------------------------------------------------------------------------------


def test_the_page_on_disk_is_up_to_date() -> None:
    """The page of the documentation is made from this table by ``nox -s docs-faults``."""
    assert PATH.read_text(encoding="utf-8") == page()


def test_the_page_has_each_fault_once() -> None:
    """Each fault is a row with a cell for each column, in the order of the table."""
    rows = [line.strip("| ").split(" | ") for line in page().splitlines() if line.startswith("| ")]
    titles = [re.sub(r" \(after .*\)$", "", row[0]) for row in rows if len(row) == 5]
    assert [title for title in titles if title != "fault"] == list(FAULTS)
