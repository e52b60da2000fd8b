"""Sessions of commands whose requests are never too early, also on a machine under load.

Services in another thread or process may receive a request later than the guard of a rate allows
for, and then the next one seems too early. The rates here have a very long guard: each interval
counts from the last response, as in the sessions that fake services make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pythpeer import Rate, Session
from pythpeer.testing import DEFAULT_RATES

GUARD_SECONDS: Final = 60.0
RATES: Final = {
    name: Rate(rate.interval, rate.burst, GUARD_SECONDS) for name, rate in DEFAULT_RATES.items()
}
"""The default rates with a guard of `GUARD_SECONDS`."""

original_from_env: Final = Session.from_env


Replace = Callable[[object, str, object], None]
"""Sets an attribute, as `setattr` does."""


def make_patient(replace: Replace = setattr) -> None:
    """Make commands open such sessions."""
    set_rates(RATES, replace)


def set_rates(rates: Mapping[str, Rate], replace: Replace) -> None:
    """Make commands open sessions with these *rates*."""

    def from_env(**options: Any) -> Session:
        return original_from_env(**{"rates": rates, **options})

    replace(Session, "from_env", staticmethod(from_env))
