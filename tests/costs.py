"""A pytest plugin that prints what the tests cost: CPU time by file, and each expensive test.

It counts CPU time because wall-clock time also depends on other programs. A child process counts
for the test that waits for its end. What fork servers and other processes shared by tests use in
addition has a separate line (see `cpu_time`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Final

import pytest
from cpu_time import CPU_TIME

MAX_SECONDS: Final = 2.0
"""Seconds of CPU; the docstring of a test that takes more must give the reason."""

LISTED_FILES: Final = 12
"""How many files have a line; the others are added up in one line."""

TEST_KEY: Final = "cpu"
"""The name of the property in which a worker reports the CPU time of a test."""

SHARED_KEY: Final = "shared cpu"
"""The name of the property for shared processes that ended in the teardown of a test."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Store the CPU time at the start of a test, before its fixtures."""
    item.stash[_started] = (CPU_TIME.tests, CPU_TIME.shared)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the CPU time to the last report of a test; xdist sends it to the main process."""
    report = yield
    if call.when == "teardown":
        tests, shared = item.stash[_started]
        report.user_properties.append((TEST_KEY, CPU_TIME.tests - tests))
        report.user_properties.append((SHARED_KEY, CPU_TIME.shared - shared))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the files that cost most, and each test over `MAX_SECONDS`."""
    tests: dict[str, float] = {}
    shared = 0.0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "teardown":
                continue
            for name, value in report.user_properties:
                if name == TEST_KEY:
                    tests[report.nodeid] = value
                elif name == SHARED_KEY:
                    shared += value
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
    if others := ranked[LISTED_FILES:]:
        total = sum(seconds for _, seconds in others)
        count = sum(counts[file] for file, _ in others)
        terminalreporter.line(f"{total:7.1f} s  {count:5} tests  in {len(others)} other files")
    if shared:
        terminalreporter.line(f"{shared:7.1f} s               in processes shared by tests")
    total = sum(tests.values()) + shared
    terminalreporter.line(f"{total:7.1f} s  {len(tests):5} tests  in total")
    for test, seconds in sorted(tests.items(), key=lambda pair: -pair[1]):
        if seconds > MAX_SECONDS:
            terminalreporter.line(f"{seconds:7.1f} s of CPU, over {MAX_SECONDS:g} s: {test}")


_started: Final = pytest.StashKey[tuple[float, float]]()
"""`CpuTime.tests` and `CpuTime.shared` at the start of the test."""
