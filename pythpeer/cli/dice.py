"""``pythpeer dice``: roll the dice of Peerbet, which spends money."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from .. import DiceRoll, InvalidRequestError
from ..dice import BITCOIN, NAME, Side, roll_params
from .connect import ROLL_KEY, connected
from .input import confirm
from .options import Flag, Json, StorePath
from .output.console import as_json, write_json
from .output.progress import Progress
from .output.tables import table
from .unsure import warn_if_interrupted

__all__ = ["dice"]

dice: Final = App(name="dice", help="Roll the dice of Peerbet. THIS SPENDS MONEY.")


@dice.command
async def roll(
    bet: Annotated[str, Parameter(help="The bet, in the currency, such as 0.0001.")],
    /,
    *,
    target: Annotated[str, Parameter(help="The number to roll below or above, such as 49.5.")],
    low: Annotated[bool, Flag, Parameter(help="Win below the target.")] = False,
    high: Annotated[bool, Flag, Parameter(help="Win above the target.")] = False,
    currency: Annotated[int, Parameter(help="10 is bitcoin, 11 litecoin.")] = BITCOIN,
    seed: Annotated[
        int | None, Parameter(help="Your seed, 1 to 999999999; by default a random one.")
    ] = None,
    yes: Annotated[bool, Flag, Parameter(help="Do not ask before the money is spent.")] = False,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Roll once, after a confirmation. THIS SPENDS MONEY, and is never repeated.

    If the outcome is unknown, the exit code is 3: there is no way to find it out.
    If the roll is won, or lost, it is 0.
    """
    if low == high:
        raise InvalidRequestError("give either --low or --high")
    side: Side = "low" if low else "high"
    # Checked before the question.
    sent = roll_params(
        bet=bet, target=target, side=side, seed=1 if seed is None else seed, currency=currency
    )
    sign = "<" if low else ">"
    question = f"Bet {sent['bet']} of currency {currency} on a roll {sign} {sent['target']}?"
    async with connected(store, ROLL_KEY) as session:
        if not yes:
            await confirm(f"{question} This spends money. [y/N] ", "--yes")
        with warn_if_interrupted("the roll", "made"), Progress(session.limiters[NAME], "rolling"):
            result = await session.peerbet.roll(
                bet, target=target, side=side, seed=seed, currency=currency
            )
    if json:
        write_json("roll", as_json(result))
    else:
        _print_roll(result)


def _print_roll(result: DiceRoll) -> None:
    rows = [
        ("result", "won" if result.won else "lost"),
        ("roll", f"{result.roll:.4f} (target {result.target})"),
        ("bet", f"{result.bet:.8f}"),
        ("payout", f"{result.payout:.8f}"),
        ("balance", f"{result.balance:.8f}"),
        ("next client seed", result.client_seed),
        ("next server seed", result.server_seed),
    ]
    table((), rows, bold=[0] if result.won else [])
