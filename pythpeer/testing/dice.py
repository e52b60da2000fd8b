"""The dice of Peerbet, v1.0: balances, seeds and rolls.

Documented: the parameters and the fields of the response, the smallest bet, and that small bets are
answered late. A payout is the bet times 99, divided by the number of hundredths that win: for low,
that is the target. Undocumented and decided here: the texts of API errors, and how a roll follows
from the two seeds. It is the SHA-256 of both, so equal seeds give equal rolls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from hashlib import sha256
from random import Random
from typing import Final, Literal

import msgspec

from .requests import IncomingRequest
from .responses import RejectedError

__all__ = ["DiceBet", "FakeDice"]

UNIT: Final = Decimal("0.00000001")
"""The smallest amount."""

MAX_SEED: Final = 999_999_999

START_BALANCE: Final = Decimal(1)
"""What a user has in each currency at first."""

BITCOIN: Final = 10

MIN_BETS: Final[Mapping[int, Decimal]] = {BITCOIN: Decimal("0.00000010")}
"""The smallest bet, by the code of the currency."""

MIN_BET: Final = Decimal("0.0001")
"""The smallest bet in every other currency."""

DELAYS: Final = (
    (Decimal("0.00001"), 2.5),
    (Decimal("0.0001"), 1.5),
    (Decimal("0.001"), 1.0),
)
"""Seconds by which a bet in bitcoins below each amount is answered late."""


class DiceBet(msgspec.Struct, frozen=True, kw_only=True):
    """One roll, which a client requested."""

    user: str
    """The username."""

    currency: int
    """The code of the currency."""

    bet: Decimal
    """The bet."""

    side: Literal["low", "high"]
    """Which rolls win."""

    target: Decimal
    """The target."""

    roll: Decimal
    """The number that was rolled, from 0 to 99.9999."""

    payout: Decimal
    """The payout, 0 if it was lost."""

    balance: Decimal
    """The user's balance after it."""

    date: str
    """The services' date."""


class FakeDice:
    """The dice. *user_of* returns the name of the user who has a key.

    The attribute ``rolls`` has the rolls so far.
    """

    def __init__(
        self, *, user_of: Callable[[str], str | None], date: Callable[[], str], rng: Random
    ) -> None:
        self.rolls: list[DiceBet] = []
        """All rolls in order."""
        self._user_of = user_of
        self._date = date
        self._rng = rng
        self._balances: dict[tuple[str, int], Decimal] = {}
        """The balance of each user in lower case and currency; a roll changes it."""
        self._server_seeds: dict[str, str] = {}
        """The server's seed of each user's next roll; a roll replaces it."""

    def balance(self, username: str, currency: int = BITCOIN) -> Decimal:
        """Return what the user *username* has in *currency*."""
        return self._balances.get((username.casefold(), currency), START_BALANCE)

    def set_balance(self, username: str, amount: Decimal | int, currency: int = BITCOIN) -> None:
        """Give the user *username* exactly *amount* in *currency*."""
        self._balances[username.casefold(), currency] = Decimal(amount)

    def delay(self, call: IncomingRequest) -> float:
        """Return the seconds by which the response to a bet is late."""
        if call.params.get("cur") != str(BITCOIN):
            return 0.0
        bet = _number(call, "bet")
        return next((seconds for amount, seconds in DELAYS if bet < amount), 0.0)

    def answer(self, call: IncomingRequest) -> dict[str, object]:
        """Roll, and return the JSON document. Raises `RejectedError`."""
        if call.endpoint != "peerbet.dice.roll":
            raise _rejected("Unknown action")
        user = self._user_of(call.params.get("key", ""))
        if user is None:
            raise _rejected("Invalid key")
        bet = self._roll(user, call)
        self.rolls.append(bet)
        return self._as_json(bet, statistics=call.params.get("stat") == "on")

    def _roll(self, user: str, call: IncomingRequest) -> DiceBet:
        currency, seed = _integer(call, "cur", 99), _integer(call, "seed", MAX_SEED)
        bet, target = _number(call, "bet"), _number(call, "target")
        low = _side(call) == "low"
        chance = target if low else Decimal("99.9999") - target
        balance = self.balance(user, currency)
        if not 0 < chance < 99:
            raise _rejected("Invalid target")
        if bet < MIN_BETS.get(currency, MIN_BET):
            raise _rejected("Bet is too small")
        if bet > balance:
            raise _rejected("Insufficient funds")
        roll = self._number_rolled(user, seed)
        won = roll < target if low else roll > target
        payout = (bet * 99 / chance).quantize(UNIT, ROUND_DOWN) if won else Decimal(0)
        balance += payout - bet
        self.set_balance(user, balance, currency)
        return DiceBet(
            user=user,
            currency=currency,
            bet=bet,
            side="low" if low else "high",
            target=target,
            roll=roll,
            payout=payout,
            balance=balance,
            date=self._date(),
        )

    def _number_rolled(self, user: str, client_seed: int) -> Decimal:
        """Return the number that both seeds make, and replace the server's."""
        server_seed = self._server_seed(user)
        digest = sha256(f"{server_seed}:{client_seed}".encode()).hexdigest()
        self._server_seeds[user.casefold()] = self._new_seed()
        return Decimal(int(digest, 16) % 1_000_000).scaleb(-4)

    def _server_seed(self, user: str) -> str:
        return self._server_seeds.setdefault(user.casefold(), self._new_seed())

    def _new_seed(self) -> str:
        return f"{self._rng.getrandbits(256):064x}"

    def _as_json(self, bet: DiceBet, *, statistics: bool) -> dict[str, object]:
        """Return the fields in the types of the documented example: numbers and strings."""
        sign = "<" if bet.side == "low" else ">"
        net_win = max(bet.payout - bet.bet, Decimal(0))
        document: dict[str, object] = {
            "status": 1,
            "game_cur": bet.currency,
            "game_bet": _amount(bet.bet),
            "game_pay": _amount(net_win),
            "game_won": _amount(bet.payout),
            "dice_roll": float(bet.roll),
            "dice_target": f"{sign} {bet.target:.4f}",
            "user_balance": _amount(bet.balance),
            "server_seed": sha256(self._server_seed(bet.user).encode()).hexdigest(),
            "client_seed": str(self._rng.randint(1, MAX_SEED)),
        }
        return document | (self._statistics(bet) if statistics else {})

    def _statistics(self, bet: DiceBet) -> dict[str, object]:
        rolls = [roll for roll in self.rolls if roll.currency == bet.currency]
        own = [roll for roll in rolls if roll.user == bet.user]
        return {
            "stat_myrolls": len(own),
            "stat_mybets": float(sum(roll.bet for roll in own)),
            "stat_mywins": float(sum(roll.payout for roll in own)),
            "stat_totrolls": len(rolls),
            "stat_totwager": _amount(sum((roll.bet for roll in rolls), Decimal(0))),
        }


def _amount(amount: Decimal) -> str:
    return f"{amount:.8f}"


def _rejected(message: str) -> RejectedError:
    return RejectedError({"status": 0, "message": message})


def _number(call: IncomingRequest, name: str) -> Decimal:
    text = call.params.get(name, "")
    if not re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,8})?", text, re.ASCII):
        raise _rejected(f"Invalid {name}")
    return Decimal(text)


def _integer(call: IncomingRequest, name: str, highest: int) -> int:
    text = call.params.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= highest:
        raise _rejected(f"Invalid {name}")
    return int(text)


def _side(call: IncomingRequest) -> Literal["low", "high"]:
    match call.params.get("roll"):
        case "0":
            return "low"
        case "1":
            return "high"
        case _:
            raise _rejected("Invalid roll")
