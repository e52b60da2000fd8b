"""The dice: exact bytes, exact numbers, one request, and an outcome that cannot be found out."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from decimal import Decimal, localcontext
from typing import Any

import msgspec
import pytest
from helpers import examples, now
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import RawServer, answer, drop, open_session, send

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DiceRoll,
    DiceStats,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    RateLimitedError,
    Session,
)
from pythpeer.dice import fixed_point
from pythpeer.testing import BOM, PHP_WARNING, FakeServices, Fault
from pythpeer.wire.fields import to_decimal

pytestmark = pytest.mark.anyio

DOCUMENTED = (
    b'{"status":1,"game_cur":10,"game_bet":"0.10000000","game_pay":"0.10000000",'
    b'"game_won":"0.20000000","dice_roll":17.7777,"dice_target":"< 49.5000",'
    b'"user_balance":"7.00000000","server_seed":'
    b'"c288c0677466650578089c92f5135afb6cacb4488b0f41701ba24b9ef265c4ca",'
    b'"client_seed":"777777777","stat_myrolls":777,"stat_mybets":7.77,"stat_mywins":7.77,'
    b'"stat_totrolls":777,"stat_totwager":"7.777"}'
)
TARGET = "/api/dice/?action=roll&key=peerbet-key"
BET: dict[str, Any] = {"bet": "0.1", "target": "49.5", "side": "low", "seed": 7}


@pytest.fixture
async def fake() -> AsyncIterator[FakeServices]:
    async with FakeServices() as services:
        yield services


@pytest.fixture
async def session(fake: FakeServices) -> AsyncIterator[Session]:
    async with fake.session() as opened:
        yield opened


async def roll(session: Session, **changes: Any) -> DiceRoll:
    arguments = BET | changes
    return await session.peerbet.roll(arguments.pop("bet"), **arguments)


# -- what is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({}, "&roll=0&target=49.5000&cur=10&bet=0.10000000&seed=7"),
        ({"side": "high"}, "&roll=1&target=49.5000&cur=10&bet=0.10000000&seed=7"),
        ({"stats": True}, "&roll=0&target=49.5000&cur=10&bet=0.10000000&seed=7&stat=on"),
        (
            {"bet": Decimal("1e-7"), "target": Decimal("1E+1"), "seed": 999_999_999},
            "&roll=0&target=10.0000&cur=10&bet=0.00000010&seed=999999999",
        ),
        (
            {"bet": 12, "target": 5, "currency": 11},
            "&roll=0&target=5.0000&cur=11&bet=12.00000000&seed=7",
        ),
        (
            {"bet": "0.100000000000", "target": "099.9999"},
            "&roll=0&target=99.9999&cur=10&bet=0.10000000&seed=7",
        ),
    ],
)
async def test_the_request_is_exact(changes: dict[str, Any], sent: str) -> None:
    """Fixed point with all decimals, the parameters in the documented order."""
    async with RawServer(answer(DOCUMENTED)) as server, open_session(server.url) as session:
        await roll(session, **changes)
        assert server.targets == [TARGET + sent]


@settings(max_examples=examples(100))
@given(
    st.decimals("0.00000010", "999999999999", places=8),
    st.integers(1, 50),
)
def test_amounts_never_have_an_exponent(amount: Decimal, precision: int) -> None:
    """They are sent without rounding, whatever the decimal context of the program."""
    with localcontext() as context:
        context.prec = precision
        for value in (amount, amount.normalize() if precision > 30 else amount, f"{amount:f}"):
            text = fixed_point("bet", value, Decimal("0.00000001"), Decimal("0.0000001"))
            whole, _, decimals = text.partition(".")
            assert whole.isdigit()
            assert len(decimals) == 8
            assert Decimal(text) == amount


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bet": 0.1}, "must not be a float"),
        ({"target": 49.5}, "must not be a float"),
        ({"bet": math.nan}, "must not be a float"),
        ({"bet": True}, "not bool"),
        ({"bet": None}, "not NoneType"),
        ({"bet": ""}, "must be digits"),
        ({"bet": "1e-7"}, "must be digits"),
        ({"bet": " 1"}, "must be digits"),
        ({"bet": "-1"}, "must be digits"),
        ({"bet": "1_0"}, "must be digits"),
        ({"bet": "1,5"}, "must be digits"),
        ({"bet": "٣"}, "must be digits"),
        ({"bet": ".5"}, "must be digits"),
        ({"bet": Decimal("NaN")}, "finite"),
        ({"bet": Decimal("sNaN")}, "finite"),
        ({"bet": Decimal("Infinity")}, "finite"),
        ({"bet": Decimal("0.000000001")}, "must not have more than 8 decimals"),
        ({"bet": "0.123456789"}, "must not have more than 8 decimals"),
        ({"bet": "0.00000009"}, "0.0000001 or more"),
        ({"bet": 0}, "0.0000001 or more"),
        ({"bet": Decimal(-1)}, "0.0000001 or more"),
        ({"bet": "0.00009999", "currency": 11}, "0.0001 or more"),
        ({"bet": 10**30}, "fewer digits"),
        ({"bet": 10**5000}, "fewer digits"),
        ({"bet": Decimal("1e999999")}, "fewer digits"),
        ({"target": "49.50001"}, "must not have more than 4 decimals"),
        ({"target": 0}, "from 0.0001 to 99.9999"),
        ({"target": 100}, "from 0.0001 to 99.9999"),
        ({"side": "LOW"}, "side must be"),
        ({"side": 0}, "side must be"),
        ({"seed": 0}, "seed must be from 1"),
        ({"seed": 1_000_000_000}, "seed must be from 1"),
        ({"seed": "7"}, "seed must be an integer"),
        ({"seed": True}, "seed must be an integer"),
        ({"currency": 0}, "currency must be from 1"),
        ({"currency": "BTC"}, "currency must be an integer"),
        ({"stats": 1}, "stats must be a bool"),
    ],
)
async def test_invalid_arguments_send_nothing(
    fake: FakeServices, session: Session, changes: dict[str, Any], text: str
) -> None:
    """Everything is checked before a token is taken, and the error says what is wrong."""
    with pytest.raises(InvalidRequestError, match=text) as raised:
        await roll(session, **changes)
    assert raised.value.endpoint == "peerbet.dice.roll"
    assert fake.requests == []
    assert session.limiters["peerbet.dice.roll"].available == 1


async def test_a_roll_needs_a_key(fake: FakeServices) -> None:
    """The error names the option and the variable."""
    async with fake.session(peerbet_key=None) as session:
        with pytest.raises(MissingKeyError, match="PYTHPEER_PEERBET_KEY"):
            await roll(session)
    assert fake.requests == []


async def test_the_seed_is_that_of_the_last_response() -> None:
    """The first is random and valid; later ones are the service's, as long as they are valid."""
    other = DOCUMENTED.replace(b'"777777777"', b"0")
    server = RawServer(answer(DOCUMENTED), answer(other), answer(DOCUMENTED))
    async with server, open_session(server.url) as session:
        for _ in range(3):
            await roll(session, seed=None)
        seeds = [int(target.rpartition("=")[2]) for target in server.targets]
    assert all(1 <= seed <= 999_999_999 for seed in seeds)
    assert seeds[1] == 777777777
    assert seeds[0] != seeds[2] != 0


# -- what is returned -----------------------------------------------------------------------------


async def test_the_documented_response_is_read_exactly() -> None:
    """Amounts are decimals with all digits; ``game_pay`` is only in ``raw``."""
    async with RawServer(answer(DOCUMENTED)) as server, open_session(server.url) as session:
        result = await roll(session, stats=True)
    assert result == DiceRoll(
        won=True,
        bet=Decimal("0.1"),
        payout=Decimal("0.2"),
        balance=Decimal(7),
        roll=Decimal("17.7777"),
        target="< 49.5000",
        currency=10,
        server_seed="c288c0677466650578089c92f5135afb6cacb4488b0f41701ba24b9ef265c4ca",
        client_seed=777777777,
        stats=DiceStats(
            my_rolls=777,
            my_bets=Decimal("7.77"),
            my_wins=Decimal("7.77"),
            total_rolls=777,
            total_wagered=Decimal("7.777"),
        ),
        raw=msgspec.json.decode(DOCUMENTED),
    )
    assert result.raw["game_pay"] == "0.10000000"
    assert str(result.balance) == "7.00000000"


@pytest.mark.parametrize("prefix", ["", BOM, BOM + PHP_WARNING])
async def test_numbers_may_be_strings_and_strings_numbers(prefix: str) -> None:
    """Each field in the other type, lost, without statistics, after a byte-order mark."""
    body = prefix.encode() + (
        b'{"status":"1","game_cur":"10","game_bet":0.12345678,"game_won":0,"dice_roll":"99.9999",'
        b'"dice_target":"< 49.5000","user_balance":20999999.12345678,"server_seed":"c2",'
        b'"client_seed":777777777}'
    )
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        result = await roll(session)
    assert (result.won, result.payout, result.stats) == (False, Decimal(0), None)
    assert (result.bet, result.balance) == (Decimal("0.12345678"), Decimal("20999999.12345678"))
    assert (result.roll, result.currency) == (Decimal("99.9999"), 10)
    assert isinstance(result.raw["game_bet"], float)


async def test_numbers_keep_more_digits_than_a_float_has() -> None:
    """The fast path reads their text."""
    body = DOCUMENTED.replace(b'"7.00000000"', b"123456789012.12345678")
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        assert (await roll(session)).balance == Decimal("123456789012.12345678")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1.0E-7", Decimal("1E-7")),
        (1e-07, Decimal("1E-7")),
        ("-3", Decimal(-3)),
        (0, Decimal(0)),
        (Decimal("0.10"), Decimal("0.10")),
        ("", None),
        ("NaN", None),
        (math.inf, None),
        ("1e999", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_decimals_are_read_from_numbers_and_text(value: object, number: Decimal | None) -> None:
    """Nothing else is a number, and nothing raises."""
    assert to_decimal(value) == number


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b'{"status":0,"message":"Insufficient funds"}', ApiError, "Insufficient funds"),
        (b'{"status":"0","message":"Insufficient funds"}', ApiError, "Insufficient funds"),
        (b'{"status":2,"message":"Insufficient funds"}', ApiError, "Insufficient funds"),
        (b'{"status":-1,"message":"Bet too big","x":1}', ApiError, "Bet too big"),
        (b'{"status":0,"message":"Invalid key"}', AccessDeniedError, "PYTHPEER_PEERBET_KEY"),
        (b'{"status":0,"message":"Too fast, slow down"}', RateLimitedError, "slow down"),
    ],
)
async def test_a_rejected_roll_has_the_words_of_the_service(
    body: bytes, kind: type[Exception], text: str
) -> None:
    """Every status but 1 that comes with a message is an API error: nothing was rolled."""
    async with RawServer(answer(body)) as server, open_session(server.url) as session:
        with pytest.raises(kind, match=text) as raised:
            await roll(session)
        assert type(raised.value) is kind
        assert len(server.targets) == 1


@pytest.mark.parametrize(
    "step",
    [
        drop(),
        answer(b"", status=502),
        answer(b"{}"),
        answer(b'{"status":1}'),
        answer(b'{"status":2}'),
        answer(b"null"),
        answer(DOCUMENTED.replace(b'"game_won":"0.20000000"', b'"game_won":"many"')),
        answer(DOCUMENTED.replace(b'"game_won":"0.20000000"', b'"game_won":-1')),
        answer(DOCUMENTED.replace(b'"user_balance":"7.00000000",', b"")),
        answer(DOCUMENTED[:200]),
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
    ],
    ids=range(11),
)
async def test_an_unknown_outcome_says_that_it_stays_unknown(step: Any) -> None:
    """One request, whatever is wrong with the response; the seed is not that of it."""
    async with RawServer(step) as server, open_session(server.url) as session:
        with pytest.raises(OutcomeUnknownError, match="there is no way to find out") as raised:
            await roll(session)
        assert raised.value.endpoint == "peerbet.dice.roll"
        assert "the roll may or may not have happened" in str(raised.value)
        assert len(server.targets) == 1


@pytest.mark.parametrize(
    "fault", [Fault.drop(), Fault.reset(), Fault.cut(), Fault.hang(), Fault.http(500, effect=True)]
)
async def test_a_roll_leaves_once_whatever_fails(
    fake: FakeServices, session: Session, fault: Fault
) -> None:
    """The service has rolled once, and the session never repeats it."""
    fake.faults.add("peerbet.dice.roll", fault)
    with pytest.raises(OutcomeUnknownError):
        await roll(session)
    assert (len(fake.dice.rolls), len(fake.requests)) == (1, 1)


# -- pacing and time ------------------------------------------------------------------------------


async def test_rolls_keep_two_seconds(fake: FakeServices, session: Session) -> None:
    """The interval is that of the stricter of the two sources."""
    for _ in range(3):
        await roll(session, bet="0.01")
    first, second, third = (request.at for request in fake.requests)
    assert (second - first, third - second) >= (2.0, 2.0)
    assert fake.violations == []


@pytest.mark.parametrize(("timeout", "limit"), [(1.0, 10.0), (20.0, 20.0), (math.inf, math.inf)])
async def test_the_time_limit_is_ten_seconds_at_least(
    fake: FakeServices, timeout: float, limit: float
) -> None:
    """Also in a session whose calls may take a second; the error has the limit that passed."""
    async with fake.session(timeout=timeout) as session:
        fake.faults.add("peerbet.dice.roll", Fault.slow(9.9))
        await roll(session)
        if math.isinf(limit):
            return
        fake.faults.add("peerbet.dice.roll", Fault.hang())
        started = now()
        with pytest.raises(OutcomeUnknownError, match=rf"time limit of {limit:g} s") as raised:
            await roll(session)
        assert raised.value.sent
        assert now() - started == pytest.approx(limit, abs=0.01)


@pytest.mark.parametrize(
    ("bet", "seconds"),
    [("0.000001", 2.5), ("0.00005", 1.5), ("0.0005", 1.0), ("0.001", 0.0)],
)
async def test_small_bets_are_answered_late(
    fake: FakeServices, session: Session, bet: str, seconds: float
) -> None:
    """That is no failure, also not where the session's time limit is shorter."""
    async with fake.session(timeout=0.5) as hasty:
        started = now()
        await roll(hasty, bet=bet)
        assert seconds <= now() - started < seconds + 0.5


async def test_health_knows_the_endpoint(fake: FakeServices, session: Session) -> None:
    """A success is recorded, and so is a failure."""
    await roll(session)
    assert session.health().endpoints["peerbet.dice.roll"].last_success is not None
    fake.faults.add("peerbet.dice.roll", Fault.drop())
    with pytest.raises(OutcomeUnknownError):
        await roll(session)
    assert session.health().endpoints["peerbet.dice.roll"].failures == 1


# -- the fake -------------------------------------------------------------------------------------


async def test_the_fake_pays_by_the_documented_arithmetic(
    fake: FakeServices, session: Session
) -> None:
    """A win pays the bet times 99, divided by the chance; the balance follows."""
    balance, sides = Decimal(1), set()
    for number in range(12):
        side = "low" if number % 2 else "high"
        target = Decimal("49.5") if side == "low" else Decimal("50.4999")
        result = await roll(session, bet="0.01", side=side, target=target, seed=None)
        won = result.roll < target if side == "low" else result.roll > target
        assert result.won == won
        assert result.payout == (Decimal("0.02") if won else 0)
        balance += result.payout - Decimal("0.01")
        assert result.balance == balance == fake.dice.balance(fake.username.upper())
        assert result.target == f"{'<' if side == 'low' else '>'} {target:.4f}"
        sides.add(won)
    assert sides == {True, False}
    assert fake.violations == []


async def test_the_fake_is_the_same_for_the_same_seed() -> None:
    """Equal seeds of the fake and equal arguments give equal rolls, others do not."""
    seen: list[list[DiceRoll]] = []
    for seed in (1, 1, 2):
        async with FakeServices(seed=seed) as fake, fake.session() as session:
            seen.append([await roll(session, stats=True) for _ in range(3)])
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][2].stats == DiceStats(
        my_rolls=3,
        my_bets=Decimal("0.3"),
        my_wins=sum((result.payout for result in seen[0]), Decimal(0)),
        total_rolls=3,
        total_wagered=Decimal("0.3"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bet": 2}, "Insufficient funds"),
        ({"currency": 100}, "Invalid cur"),
        ({"target": "99.5"}, "Invalid target"),
        ({"target": "99.9999", "side": "high"}, "Invalid target"),
    ],
)
async def test_the_fake_rejects_what_it_cannot_roll(
    fake: FakeServices, session: Session, changes: dict[str, Any], message: str
) -> None:
    """With ``status`` 0 and a ``message``; nothing is rolled, and no money is spent."""
    with pytest.raises(ApiError, match=message):
        await roll(session, **changes)
    assert fake.dice.rolls == []
    assert fake.dice.balance(fake.username) == 1


async def test_balances_are_kept_by_user_and_currency(fake: FakeServices) -> None:
    """They can be set."""
    fake.dice.set_balance("Alice", 5, currency=11)
    async with fake.session("alice") as session:
        result = await roll(session, bet=2, currency=11)
    assert result.balance in (Decimal(3), Decimal(7))
    assert fake.dice.balance("alice") == 1
