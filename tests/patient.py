"""Sessions of commands that a busy machine cannot make too fast.

Services in another thread or process may see a request later than a guard for a network allows,
and then the next one as too early. As in the sessions that fake services make, each interval counts
from the last answer here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pythpeer import Rate, Session
from pythpeer.testing import DEFAULT_RATES

PATIENCE: Final = 60.0
RATES: Final = {
    name: Rate(law.interval, law.burst, PATIENCE) for name, law in DEFAULT_RATES.items()
}

original_from_env: Final = Session.from_env


def from_env(**options: Any) -> Session:
    """A session as the environment says, that is patient."""
    return original_from_env(**{"rates": RATES, **options})


def make_patient(replace: Callable[[object, str, object], None] = setattr) -> None:
    """Have commands open such sessions from now on."""
    replace(Session, "from_env", staticmethod(from_env))
