"""What many test modules use: waiting on the loop's clock, taking items, numbers of examples."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

DEEP: Final = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
"""Whether ``nox -s tests-deep`` runs the tests: each property then takes many examples."""


def examples(many: int) -> int:
    """How many examples a property takes: a quarter of *many*, and ten times *many* if `DEEP`.

    A quarter is at least ten, so that each run sees more than the simplest examples.
    """
    return 10 * many if DEEP else max(10, many // 4)


@contextmanager
def little_to_collect() -> Iterator[None]:
    """Let the garbage collector look only at what is made from now on: what was there is not seen.

    A collection of all that a run of the tests has made takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
