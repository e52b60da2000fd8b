"""Figures of the benchmark of calls: speeds relative to bare aiohttp, and the parts of a call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.calls import HERE, PACKAGE, part, parts, speeds
from benchmarks.competitors.calling import BARE
from benchmarks.competitors.installed import OURS
from benchmarks.measure import Times

WIRE = str(PACKAGE / "wire.py")


def times(wall: list[float], cpu: list[float]) -> Times:
    result = Times()
    result.wall, result.cpu = wall, cpu
    return result


def test_a_speed_is_the_median_of_the_rounds_ratios_to_bare() -> None:
    bare = times([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    results = speeds({OURS: times([2.0, 2.0, 8.0], [2.0, 4.0, 4.0]), BARE: bare}, 100, 1.2)
    assert results[OURS] == (
        pytest.approx(20_000),
        pytest.approx(40_000),
        0.5,
        0.25,
        "both >= 1.2",
        False,
    )
    assert results[BARE][2:] == (1.0, 1.0, None, None)


@pytest.mark.parametrize(
    ("wall", "cpu", "is_met"),
    [(0.5, 0.5, True), (0.8, 0.8, True), (0.81, 0.5, False), (0.5, 0.81, False)],
)
def test_the_target_is_met_by_wall_clock_and_cpu_time(
    wall: float, cpu: float, is_met: bool
) -> None:
    results = speeds({OURS: times([wall], [cpu]), BARE: times([1.0], [1.0])}, 1, 1.25)
    assert results[OURS][-1] is is_met


def test_without_bare_there_is_no_target() -> None:
    assert speeds({OURS: times([1.0], [1.0])}, 1, 1.0)[OURS][2:] == (None, None, None, None)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (str(PACKAGE / "calls.py"), "pythpeer.calls"),
        (str(PACKAGE / "stores" / "memory.py"), "pythpeer.memory"),
        (str(HERE / "competitors" / "httpx.py"), "benchmark"),
        ("/a/pythpeer/lib/site-packages/aiohttp/client.py", "aiohttp"),
        ("/a/site-packages/yarl/_url.py", "yarl"),
        ("/usr/lib/python3.11/asyncio/events.py", "standard library"),
        ("~", "C"),
    ],
)
def test_a_part_is_a_module_of_ours_or_a_package(file: str, name: str) -> None:
    assert part(file) == name


def test_parts_have_their_own_time_per_call_without_waiting() -> None:
    stats: dict[tuple[str, int, str], Any] = {
        (WIRE, 1, "a"): (1, 1, 0.001, 9.0, {}),
        (WIRE, 9, "b"): (1, 1, 0.002, 9.0, {}),
        ("~", 0, "<method 'send' of '_socket.socket' objects>"): (1, 1, 0.004, 0.004, {}),
        ("~", 0, "<method 'poll' of 'select.epoll' objects>"): (1, 1, 7.0, 7.0, {}),
        ("~", 0, "<method 'control' of 'select.kqueue' objects>"): (1, 1, 7.0, 7.0, {}),
    }
    assert parts(SimpleNamespace(stats=stats), 1000) == pytest.approx(
        {"pythpeer.wire": 3.0, "C": 4.0}
    )
