"""The dice of Peerbet v1.0: models, checks of arguments, the endpoint and its responses.

Documented (https://www.peerbet.org/developers/peerbet_v1/?type=dice): ``GET
/api/dice/?action=roll&key=K&roll=R&target=T&cur=C&bet=B&seed=S[&stat=on]``. ``roll`` is 0 for low
and 1 for high, ``target`` has 4 decimals and ``bet`` 8, both in fixed point, ``seed`` is from 1 to
999,999,999. Small bets are answered up to 2.5 s late. A response mixes numbers and strings, and has
the seeds of the next roll. The page says 1 s between two rolls, a client of 2013 quotes 2 s.

A roll spends money. No id of a roll and no history is documented, so a roll whose response is lost
can neither be found nor repeated.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Final, Literal

import msgspec

from .errors import InvalidRequestError, OutcomeUnknownError
from .pacing.bucket import Rate
from .validation import check_integer
from .wire.endpoints import Effect, Endpoint, ParsedEndpoint
from .wire.fields import to_decimal, to_int, to_text
from .wire.lenient_json import nests_too_deeply
from .wire.query import Json, JsonObject, Param

__all__ = ["DiceRoll", "DiceStats", "Side", "make_roll_endpoint", "roll_params", "unknown_roll"]

Side = Literal["low", "high"]
"""Which rolls win: those below the target, or those above it."""

NAME: Final = "peerbet.dice.roll"
"""The name of the endpoint."""

ROLL_RATE: Final = Rate(2.0)
"""One roll in 2 s, which keeps both intervals that are known: 1 s and 2 s."""

MIN_TIMEOUT: Final = 10.0
"""Seconds that a roll may take at least, because small bets are answered 2.5 s late."""

MAX_SEED: Final = 999_999_999
"""The largest seed."""

BITCOIN: Final = 10
"""The code of the default currency."""

MIN_BITCOIN_BET: Final = Decimal("0.0000001")
"""The smallest bet in bitcoins."""

MIN_BET: Final = Decimal("0.0001")
"""The smallest bet in every other currency."""

BET_STEP: Final = Decimal("0.00000001")
"""The steps in which a bet is sent: 8 decimals."""

TARGET_STEP: Final = Decimal("0.0001")
"""The steps in which a target is sent: 4 decimals. It is also the smallest target."""

MAX_TARGET: Final = Decimal("99.9999")
"""The largest target: rolls have four decimals, and are below 100."""


class DiceStats(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics in a response with ``stats=True``. A field is ``None`` if it is missing."""

    my_rolls: int | None = None
    """The number of rolls of the key's owner."""
    my_bets: Decimal | None = None
    """The total of the owner's bets."""
    my_wins: Decimal | None = None
    """The total of the owner's wins."""
    total_rolls: int | None = None
    """The number of rolls of all users."""
    total_wagered: Decimal | None = None
    """The total of all users' bets."""


class DiceRoll(msgspec.Struct, frozen=True, kw_only=True):
    """One roll of the dice. Amounts are exact: no number is a ``float``."""

    won: bool
    """Whether the roll was won, which is whether there was a payout."""
    bet: Decimal
    """The bet, in the currency."""
    payout: Decimal
    """The total payout, 0 if the roll was lost. It includes the bet."""
    balance: Decimal
    """The user's balance after the roll."""
    roll: Decimal
    """The number that was rolled, from 0 to 99.9999."""
    target: str
    """The target with its sign as the service returns it, such as ``"< 49.5000"``."""
    currency: int
    """The code of the currency."""
    server_seed: str
    """The SHA-256 of the server's seed for the next roll."""
    client_seed: int
    """The client's seed for the next roll, unless that has another one."""
    stats: DiceStats | None = None
    """The statistics, ``None`` if the response has none."""
    raw: JsonObject
    """The whole object as the service sent it. Its ``game_pay`` is documented as a multiplier, but
    the documented example shows the net win."""


# -- the request ----------------------------------------------------------------------------------


def make_roll_endpoint(url: str, denied_hint: str) -> Endpoint[DiceRoll]:
    """Make the endpoint of ``action=roll``. https://www.peerbet.org/developers/peerbet_v1/?type=dice."""
    return ParsedEndpoint(
        NAME,
        f"{url}/api/dice/",
        query={"action": "roll"},
        effect=Effect.WRITE,
        rate=ROLL_RATE,
        parse=_parse_roll,
        parse_fast=_parse_roll_exactly,
        any_status_is_error=True,
        denied_hint=denied_hint,
        min_timeout=MIN_TIMEOUT,
        unknown_outcome="the roll may or may not have happened",
    )


def roll_params(
    *,
    bet: Decimal | int | str,
    target: Decimal | int | str,
    side: Side,
    seed: int,
    currency: int = BITCOIN,
    stats: bool = False,
) -> dict[str, Param]:
    """Return the parameters of a roll, without the key. Raises `InvalidRequestError`."""
    check_integer("currency", currency, 1, endpoint=NAME)
    min_bet = MIN_BITCOIN_BET if currency == BITCOIN else MIN_BET
    sent_bet = fixed_point("bet", bet, BET_STEP, min_bet)
    sent_target = fixed_point("target", target, TARGET_STEP, TARGET_STEP, MAX_TARGET)
    if side not in ("low", "high"):
        raise InvalidRequestError('side must be "low" or "high"', endpoint=NAME)
    check_integer("seed", seed, 1, MAX_SEED, endpoint=NAME)
    if not isinstance(stats, bool):
        type_name = type(stats).__name__
        raise InvalidRequestError(f"stats must be a bool, not {type_name}", endpoint=NAME)
    return {
        "roll": 0 if side == "low" else 1,
        "target": sent_target,
        "cur": currency,
        "bet": sent_bet,
        "seed": seed,
        "stat": "on" if stats else None,
    }


_EXACT: Final = Context(prec=20, traps=[InvalidOperation, Inexact])
"""Raises an error where a number would be rounded, or has more than 20 digits."""

_PLAIN_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)


def fixed_point(
    name: str,
    value: object,
    step: Decimal,
    low: Decimal,
    high: Decimal | None = None,
) -> str:
    """Return *value* with exactly the decimals of *step*, and without an exponent.

    It must be from *low* to *high* (``None`` for no limit). Raises `InvalidRequestError`; never
    rounds.
    """
    number = _exact_number(name, value)
    problem = None
    try:
        fitted = number.quantize(step, context=_EXACT)
    except Inexact:
        problem = f"must not have more than {len(f'{step:f}') - 2} decimals"
    except InvalidOperation:
        problem = "must be a number of fewer digits"
    else:
        if fitted >= low and (high is None or fitted <= high):
            return f"{fitted:f}"
        upper = "or more" if high is None else f"to {high:f}"
        problem = f"must be {'from ' if high is not None else ''}{low:f} {upper}"
    raise InvalidRequestError(f"{name} {problem}", endpoint=NAME)


def _exact_number(name: str, value: object) -> Decimal:
    if isinstance(value, float):
        problem = (
            "must not be a float, which is not the number that it is written as: "
            'use text, such as "0.1", or a Decimal'
        )
    elif isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        problem = f"must be a Decimal, an integer or text, not {type(value).__name__}"
    elif isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value):
        problem = "must be digits, with a point before the decimals, and nothing else"
    elif isinstance(value, Decimal) and not value.is_finite():
        problem = "must be a finite number"
    else:
        return Decimal(value)
    raise InvalidRequestError(f"{name} {problem}", endpoint=NAME)


def unknown_roll(error: OutcomeUnknownError) -> OutcomeUnknownError:
    """Return *error* with a text that says that the outcome cannot be found out."""
    reason = error.args[0] if error.args else ""
    error.args = (
        f"{reason}; there is no way to find out, because the service shows no past rolls",
    )
    return error


# -- the response ---------------------------------------------------------------------------------

_decode_exactly: Final = msgspec.json.Decoder(float_hook=Decimal).decode


def _parse_roll_exactly(body: bytes) -> DiceRoll:
    """Parse a plain response, without a loss of digits. Raises ``ValueError`` for any other."""
    if nests_too_deeply(body):  # it would be kept in `raw`
        raise ValueError("nested too deeply")
    roll = _parse_roll(_decode_exactly(body))
    return msgspec.structs.replace(roll, raw=msgspec.json.decode(body))


def _parse_roll(document: Json) -> DiceRoll:
    """Parse a response, whichever of its numbers are strings. Raises ``ValueError``."""
    if not isinstance(document, dict) or to_int(document.get("status")) != 1:
        raise ValueError("not a success")
    payout = _amount(document, "game_won")
    return DiceRoll(
        won=payout > 0,
        bet=_amount(document, "game_bet"),
        payout=payout,
        balance=_amount(document, "user_balance"),
        roll=_amount(document, "dice_roll"),
        target=_text(document, "dice_target"),
        currency=_integer(document, "game_cur"),
        server_seed=_text(document, "server_seed"),
        client_seed=_integer(document, "client_seed"),
        stats=_parse_stats(document),
        raw=document,
    )


def _parse_stats(document: JsonObject) -> DiceStats | None:
    stats = DiceStats(
        my_rolls=to_int(document.get("stat_myrolls")),
        my_bets=to_decimal(document.get("stat_mybets")),
        my_wins=to_decimal(document.get("stat_mywins")),
        total_rolls=to_int(document.get("stat_totrolls")),
        total_wagered=to_decimal(document.get("stat_totwager")),
    )
    return None if stats == DiceStats() else stats


def _amount(document: JsonObject, name: str) -> Decimal:
    amount = to_decimal(document.get(name))
    if amount is None or amount < 0:
        raise ValueError(f"no {name}")
    return amount


def _integer(document: JsonObject, name: str) -> int:
    number = to_int(document.get(name))
    if number is None:
        raise ValueError(f"no {name}")
    return number


def _text(document: JsonObject, name: str) -> str:
    text = to_text(document.get(name))
    if text is None:
        raise ValueError(f"no {name}")
    return text
