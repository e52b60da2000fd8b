"""``pythpeer dice roll``: it asks before it spends, once, and prints what happened."""

from __future__ import annotations

from decimal import Decimal

import pytest
from cli_runner import OnTerminal, Run, needs_signals, one_line, unstyled

from pythpeer.testing import FakeServices, Fault

pytest_plugins = ("cli_runner",)

ROLL = ("dice", "roll", "0.01", "--target", "49.5", "--low")
QUESTION = "Bet 0.01000000 of currency 10 on a roll < 49.5000? This spends money. [y/N] "


def test_a_roll_is_printed(configured: FakeServices, run: Run) -> None:
    """One line each for the result, the numbers, and the seeds of the next roll."""
    result = run(*ROLL, "--yes")
    assert (result.code, result.err) == (0, "")
    (bet,) = configured.dice.rolls
    lines = dict(line.split("\t") for line in result.out.splitlines())
    assert lines["result"] == ("won" if bet.payout else "lost")
    assert lines["roll"] == f"{bet.roll:.4f} (target < 49.5000)"
    assert (lines["bet"], lines["payout"]) == ("0.01000000", f"{bet.payout:.8f}")
    assert lines["balance"] == f"{bet.balance:.8f}"
    assert {"next client seed", "next server seed"} <= lines.keys()


def test_a_roll_as_json(configured: FakeServices, run: Run) -> None:
    """Amounts are text, so that no digit is lost; options are passed on."""
    configured.dice.set_balance(configured.username, 5, currency=11)
    options = ("--json", "--currency", "11", "--seed", "7")
    (row,) = run("dice", "roll", "2", "--target", "50", "--high", "--yes", *options).rows
    assert row["kind"] == "roll"
    (request,) = configured.requests
    assert request.target == (
        "/api/dice/?action=roll&key=***&roll=1&target=50.0000&cur=11&bet=2.00000000&seed=7"
    )


def test_json_has_exact_amounts(configured: FakeServices, run: Run) -> None:
    """They are written as the service wrote them."""
    (row,) = run(*ROLL, "--yes", "--json").rows
    (bet,) = configured.dice.rolls
    assert row["won"] is bool(bet.payout)
    assert (row["bet"], Decimal(row["balance"])) == ("0.01000000", bet.balance)
    assert row["raw"]["game_bet"] == "0.01000000"


def test_without_a_terminal_it_must_be_confirmed_by_an_option(
    configured: FakeServices, run: Run
) -> None:
    """It does not ask there, and sends nothing."""
    result = run(*ROLL)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)
    assert "--yes" in result.err
    assert configured.requests == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("dice", "roll", "0.01", "--target", "49.5"), "either --low or --high"),
        ((*ROLL, "--high"), "either --low or --high"),
        (("dice", "roll", "1e-7", "--target", "49.5", "--low"), "bet must be digits"),
        (("dice", "roll", "0.01", "--target", "100", "--low"), "target must be from"),
        ((*ROLL, "--seed", "0"), "seed must be from"),
        (("dice", "roll", "--target", "49.5", "--low"), "BET"),
    ],
)
def test_invalid_usage_asks_nothing_and_sends_nothing(
    configured: FakeServices, run: Run, arguments: tuple[str, ...], text: str
) -> None:
    """With ``--yes`` as without it."""
    for option in ((), ("--yes",)):
        result = run(*arguments, *option)
        assert (result.code, result.out) == (2, "")
        assert one_line(result.err)
        assert text in result.err
    assert configured.requests == []


@pytest.mark.parametrize("fault", [Fault.drop(), Fault.http(502, effect=True)])
def test_an_unknown_outcome_has_its_exit_code(
    configured: FakeServices, run: Run, fault: Fault
) -> None:
    """One line says that there is no way to find out; the service has rolled once."""
    configured.faults.add("peerbet.dice.roll", fault)
    result = run(*ROLL, "--yes")
    assert (result.code, result.out) == (3, "")
    assert one_line(result.err)
    assert "there is no way to find out" in result.err
    assert len(configured.dice.rolls) == 1


@needs_signals
@pytest.mark.parametrize(("reply", "code"), [("y\n", 0), ("Yes\n", 0), ("n\n", 2), ("\n", 2)])
@pytest.mark.parametrize("columns", [60, 100])
def test_it_asks_at_a_terminal(
    configured: FakeServices, on_terminal: OnTerminal, reply: str, code: int, columns: int
) -> None:
    """Nothing is sent before the answer, and only yes is yes."""
    process = on_terminal(*ROLL, columns=columns)
    process.read_until(QUESTION)
    assert configured.requests == []
    process.type(reply)
    assert process.finish() == code
    shown = unstyled(process.shown)
    assert ("balance" in shown, "not confirmed: nothing was sent" in shown) == (
        not code,
        bool(code),
    )
    assert len(configured.dice.rolls) == (0 if code else 1)


@needs_signals
def test_ctrl_c_at_the_question_sends_nothing(
    configured: FakeServices, on_terminal: OnTerminal
) -> None:
    """The command ends immediately."""
    process = on_terminal(*ROLL, columns=80)
    process.read_until(QUESTION)
    process.type("\x03")
    assert process.finish() == 130
    assert configured.requests == []
