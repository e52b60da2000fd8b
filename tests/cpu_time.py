"""CPU time of the tests: this process, its ended children, and servers that tests share.

A server that forks processes for many tests ends after the last test. Without a correction, all
its CPU time would count for that test. So a test's share is the time of the forked processes whose
end it waited for, and the rest of the server is counted separately.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class CpuTime:
    """Seconds of CPU in this process and its children since it began.

    A second counts either for `tests` or for `shared`, never for both.
    """

    def __init__(self) -> None:
        self.shared = 0.0
        """Seconds that ended shared processes used and no test did; `ending_shared` adds them."""
        self._forked = 0.0
        """Seconds of processes that a shared server forked and a test has waited for."""
        self._ended = 0.0
        """Seconds of all ended shared processes: what the system counts for the last test."""

    @property
    def tests(self) -> float:
        """Seconds that tests used: all but what shared processes used for no test."""
        return time.process_time() + _of_children() - self._ended + self._forked

    def add_forked(self, seconds: float) -> None:
        """Count a forked process for the running test, which has waited for its end."""
        self._forked += seconds

    @contextmanager
    def ending_shared(self, forked: float = 0.0) -> Iterator[None]:
        """Count processes that end within the block as shared by tests.

        *forked* are the seconds of theirs that tests have already counted by `add_forked`.
        """
        before = _of_children()
        try:
            yield
        finally:
            used = _of_children() - before
            self._ended += used
            self.shared += max(0.0, used - forked)


def _of_children() -> float:
    """Seconds of CPU of the ended children of this process, and of their ended children."""
    if resource is None:
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


CPU_TIME: Final = CpuTime()
"""The CPU time of this process: of all tests in it."""
