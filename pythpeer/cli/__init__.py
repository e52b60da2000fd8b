"""The command ``pythpeer``, which comes with the extra ``cli``.

This is only its door. What stands behind it is imported once signals are minded, for that takes
time; and nothing else in the package imports any of it, or cyclopts, or rich.
"""

from __future__ import annotations

import sys

from . import signals

TYPE_CHECKING = False  # as type checkers take it; `typing` would take time

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* ask for, by default ``sys.argv``'s; return its exit code."""
    signals.install()
    from . import ending

    ending.setup()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (Exception, signals.Interrupted) as error:  # noqa: BLE001  # each has its exit code
        code = ending.report_error(error)
    ending.teardown()
    return code


def _run(arguments: Sequence[str]) -> int:
    from . import ending

    try:
        from .app import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        ending.print_error("the command line needs an extra: pip install 'pythpeer[cli]'")
        return ending.USAGE
    return run(arguments)
