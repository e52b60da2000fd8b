"""Runs pytest on a suite within a test, in this process: what a run costs is mostly imports."""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

DISABLED_PLUGINS: Final = (
    *("randomly", "hypothesispytest", "cacheprovider"),
    *("xdist", "faulthandler"),  # they would disturb the run that this test belongs to
)


class Outcome(NamedTuple):
    """How a run ended: numbers by kind, and all that was printed."""

    counts: dict[str, int]
    text: str


def run_pytest(pytester: pytest.Pytester, *options: str) -> Outcome:
    """Run the suite in the folder of *pytester*, with warnings as errors.

    Plugins and modules that were not imported before are imported anew each time.
    """
    plugins = [part for name in DISABLED_PLUGINS for part in ("-p", f"no:{name}")]
    result = pytester.runpytest_inprocess("-W", "error", "--strict-markers", *plugins, *options)
    text = f"{result.stdout}\n{result.stderr}"
    try:
        numbers = result.parseoutcomes()
    except ValueError:  # no tests were to be run
        numbers = {}
    return Outcome({kind.removesuffix("s"): many for kind, many in numbers.items()}, text)
