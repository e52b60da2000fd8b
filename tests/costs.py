"""A pytest plugin that prints at the end what the tests cost: CPU time by file, and dear tests.

CPU time, because the clock says as much about other programs as about the tests. Child processes
are counted where a test waits for them.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Final

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MAX_SECONDS: Final = 2.0
"""Seconds of CPU; a test over this must give the reason in its docstring."""

LISTED_FILES: Final = 12
"""How many files are listed; the rest is one line."""

KEY: Final = "cpu"
"""The name of the property by which a worker reports the CPU time of a test."""


def cpu_time() -> float:
    """Seconds of CPU that this process and its ended children have used."""
    used = time.process_time()
    if resource is not None:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        used += children.ru_utime + children.ru_stime
    return used


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note when a test begins: its fixtures count."""
    item.stash[_started] = cpu_time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the CPU time to the last report of a test: xdist carries it to the terminal."""
    report = yield
    if call.when == "teardown":
        report.user_properties.append((KEY, cpu_time() - item.stash[_started]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the files that cost most, and every test over the limit."""
    tests: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == KEY and report.when == "teardown":
                    tests[report.nodeid] = value
    files: dict[str, float] = defaultdict(float)
    counts = Counter[str]()
    for test, seconds in tests.items():
        file = test.partition("::")[0]
        files[file] += seconds
        counts[file] += 1
    if len(files) < 2:
        return
    terminalreporter.section("CPU time of the tests")
    ranked = sorted(files.items(), key=lambda pair: -pair[1])
    for file, seconds in ranked[:LISTED_FILES]:
        terminalreporter.line(f"{seconds:7.1f} s  {counts[file]:5} tests  {file}")
    if rest := ranked[LISTED_FILES:]:
        total = sum(seconds for _, seconds in rest)
        many = sum(counts[file] for file, _ in rest)
        terminalreporter.line(f"{total:7.1f} s  {many:5} tests  in {len(rest)} other files")
    terminalreporter.line(f"{sum(tests.values()):7.1f} s  {len(tests):5} tests  in all")
    for test, seconds in sorted(tests.items(), key=lambda pair: -pair[1]):
        if seconds > MAX_SECONDS:
            terminalreporter.line(f"{seconds:7.1f} s of CPU, over {MAX_SECONDS:g} s: {test}")


_started: Final = pytest.StashKey[float]()
