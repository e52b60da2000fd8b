"""The command ``pythpeer``, which requires the extra ``cli``.

This is only its entry point. The rest is imported after the signal handlers are installed, because
importing takes time. Nothing else in the package may import any of it, or cyclopts, or rich.
"""

from __future__ import annotations

import sys

from ..version import __version__
from . import signals

TYPE_CHECKING = False  # known to type checkers; importing `typing` takes time

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VERSION", "main"]

VERSION = f"pythpeer {__version__}"
"""What ``pythpeer --version`` prints."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in *arguments*, by default those of ``sys.argv``; return its exit code."""
    signals.install()
    from . import runtime

    runtime.setup()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (Exception, signals.Interrupted) as error:  # noqa: BLE001  # each has an exit code
        code = runtime.report_error(error)
    runtime.teardown()
    return code


def _run(arguments: Sequence[str]) -> int:
    from . import runtime

    if list(arguments) == ["--version"]:
        print(VERSION)
        return 0
    if list(arguments) in ([], ["--help"], ["-h"]):
        from .overview import print_overview

        print_overview()
        return 0
    try:
        from .app import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        from ..extras import install_advice

        runtime.print_error(f"the command line needs cyclopts and rich; {install_advice('cli')}")
        return runtime.USAGE
    return run(arguments)
