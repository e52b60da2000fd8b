"""Runs pytest on a test suite within a test, in the same process, which saves the imports."""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

DISABLED_PLUGINS: Final = (
    *("randomly", "hypothesispytest", "cacheprovider"),
    *("xdist", "faulthandler"),  # they would change the state of the outer run
)


class Outcome(NamedTuple):
    """The result of a run: the number of tests by outcome, and the output."""

    counts: dict[str, int]
    text: str


def run_pytest(pytester: pytest.Pytester, *options: str) -> Outcome:
    """Run the test suite in the folder of *pytester*, with warnings as errors.

    Plugins and modules that were not imported before are imported again in each run.
    """
    plugins = [part for name in DISABLED_PLUGINS for part in ("-p", f"no:{name}")]
    result = pytester.runpytest_inprocess("-W", "error", "--strict-markers", *plugins, *options)
    text = f"{result.stdout}\n{result.stderr}"
    try:
        counts = result.parseoutcomes()
    except ValueError:  # no test was selected
        counts = {}
    return Outcome({kind.removesuffix("s"): count for kind, count in counts.items()}, text)
