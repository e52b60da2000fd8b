"""The figures that the documentation states, each read from the files in ``benchmarks/results``.

`summary` is the table at the top of the page of benchmarks, `sentences` are paragraphs of other
pages, which include them. So no page states a figure that was not measured.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from .report import Cell, Report, text

__all__ = ["README", "SNIPPETS", "promises", "sentences", "speed", "summary", "write_sentences"]

README: Final = Path(__file__).parent.parent / "README.md"

SNIPPETS: Final = Path(__file__).parent.parent / "docs" / "snippets"
"""The folder of the paragraphs that pages include."""

OURS: Final = "pythpeer"

OWN_CODE: Final = ("pyrate-limiter buffer 0", "asynciolimiter strict", "lock + request + sleep")
"""Rows of the limiters that are a setting of another row, or no library."""

Reports = Mapping[str, Report]
Row = Mapping[str, Cell]


def _rows(reports: Reports, name: str, table: int, **where: Cell) -> list[Row]:
    """The rows of a table of a benchmark, counted from 1, that have these values."""
    rows = reports[name].tables[table - 1].rows
    return [row for row in rows if all(row[column] == value for column, value in where.items())]


def _row(reports: Reports, name: str, table: int, **where: Cell) -> Row:
    [row] = _rows(reports, name, table, **where)
    return row


def _number(value: Cell) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"not a number: {value!r}")
    return value


def summary(reports: Reports) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of the table of the targets: question, pythpeer, compared with, target met."""
    early = _row(reports, "pacing", 3, limiter=OURS)
    others = [row for row in _libraries(reports) if _number(row["too early"])]
    yield (
        "requests too early at the server, interval 1 s, six scenarios",
        f"{early['too early']} of {early['gaps']}",
        f"{len(others)} of {len(_libraries(reports))} other libraries send some too early",
        _met(early),
    )
    yield (
        "rate, relative to the ideal",
        text(early["rate"]),
        f"{_best_other(reports)}, the best other that sends none too early",
        _met(early),
    )
    for number, question, ours, other in (
        (1, "mails lost, responses cut off", "pythpeer, mail_stream()", "aiohttp, readnew"),
        (3, "posts sent twice, connections dropped", "pythpeer, post()", "aiohttp"),
    ):
        first = reports["loss"].tables[number - 1].rows[0]["experiment"]
        row = _row(reports, "loss", number, experiment=first, program=ours)
        theirs = _rows(reports, "loss", number, experiment=first)
        worst = max((r for r in theirs if str(r["program"]).startswith(other)), key=_harm)
        column = "lost" if number == 1 else "duplicated"
        yield (
            question,
            f"{row[column]} of {row['of']}",
            f"{worst[column]} ({worst['program']})",
            _met(row),
        )
    killed = reports["loss"].tables[3].rows
    yield (
        "messages lost by a program that is killed 10 times",
        f"{killed[0]['lost']} of {killed[0]['of']}",
        f"{max(_number(row['lost']) for row in killed):.0f} at most with plain aiohttp",
        _met(killed[0]),
    )
    call = _row(reports, "calls", 1, response="small, sequential", client=OURS)
    yield "speed of a small call", text(call["speed"]), "1 is aiohttp + msgspec", _met(call)
    token = _row(reports, "limiter", 1, limiter=OURS)
    fastest = min(reports["limiter"].tables[0].rows, key=lambda row: _number(row["us"]))
    yield (
        "time of an available token",
        f"{text(token['us'])} µs",
        f"{text(fastest['us'])} µs ({fastest['limiter']})",
        _met(token),
    )
    delay = _row(reports, "streams", 1, implementation=OURS)
    yield (
        "median delay of a message, in intervals",
        text(delay["median"]),
        "0.5 is the ideal of polling",
        _met(delay),
    )
    shared = reports["redis"].tables[0].rows[1]
    yield (
        "time of a token shared in Redis",
        f"{text(shared['relative to PING'])} times a PING",
        str(shared["target"]),
        _met(shared),
    )
    imported = reports["imports"].tables[0].rows[0]
    yield (
        "import, relative to that of the dependencies",
        text(imported["ratio"]),
        str(imported["target"]),
        _met(imported),
    )


def _met(row: Row) -> str:
    return text(row["met"])


def _harm(row: Row) -> float:
    return _number(row["lost"]) + _number(row["duplicated"])


def _libraries(reports: Reports, scenario: str | None = None) -> list[Row]:
    """The other libraries at an interval of 1 s: in one scenario, or over all."""
    where: dict[str, Cell] = {} if scenario is None else {"scenario": scenario}
    rows = _rows(reports, "pacing", 3 if scenario is None else 4, **where)
    return [row for row in rows if row["limiter"] not in (OURS, *OWN_CODE)]


def _best_other(reports: Reports) -> str:
    rows = _rows(reports, "pacing", 3)
    fair = [row for row in rows if row["limiter"] != OURS and not row["too early"]]
    best = max(fair, key=lambda row: _number(row["rate"]))
    return f"{text(best['rate'])} ({best['limiter']})"


def sentences(reports: Reports) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each paragraph that pages include."""
    uneven, many = _libraries(reports, "jitter"), _early_shares(reports)
    few = [row for row in uneven if _number(row["share too early"]) < OFTEN]
    yield (
        "pacing-others",
        (
            f"Under uneven delay and an interval of 1 s, {len(many)} of {len(uneven)} common "
            f"libraries sent {_percent(many)} of their requests too early for "
            f"the server, and the others {' and '.join(_count(row) for row in few)}."
        ),
    )
    ours = _rows(reports, "pacing", 4, limiter=OURS)
    rates = [_number(row["rate"]) for row in ours]
    both = [*ours, *_rows(reports, "pacing", 2, limiter=OURS)]
    early = sum(_number(row["too early"]) for row in both)
    gaps = sum(_number(row["gaps"]) for row in both)
    yield (
        "pacing-figures",
        (
            f"Raw servers in a separate process measure the time between requests in {len(ours)} "
            f"scenarios ({', '.join(str(row['scenario']) for row in ours)}), each at intervals of "
            f"0.05 s and 1 s: {early:.0f} of {gaps:,.0f} intervals were "
            f"too short, at {min(rates):.3f} to {max(rates):.3f} of the ideal rate at 1 s."
        ),
    )
    yield ("redis-figures", redis_table(reports))


def promises(reports: Reports) -> Iterator[str]:
    """Yield the parts of the README's sentences about pacing and loss that have figures."""
    rates = [_number(row["rate"]) for row in _rows(reports, "pacing", 4, limiter=OURS)]
    used = f"{100 * min(rates):.0f} to {100 * max(rates):.1f} %"
    yield f"at 1 s {used} of the allowed rate was used"
    mail = _row(reports, "loss", 1, experiment="responses cut off", program="aiohttp, readnew")
    dropped = "disconnected after the post was accepted"
    post = _row(reports, "loss", 3, experiment=dropped, program="aiohttp, get()")
    lost = f"lost {mail['lost']} of {mail['of']} mails"
    yield f"plain aiohttp {lost} and duplicated {post['duplicated']} of {post['of']} posts"


OFTEN: Final = 0.1
"""The share of requests from which on a library counts as one that sends too early."""


def _early_shares(reports: Reports) -> list[float]:
    """The shares of requests too early, under uneven delay, of the libraries with many."""
    shares = [_number(row["share too early"]) for row in _libraries(reports, "jitter")]
    return [share for share in shares if share >= OFTEN]


def _percent(shares: list[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"


SPEED_TITLE: Final = "- **Faster than bare aiohttp.**"
"""How the README's item about speed begins."""


def speed(reports: Reports) -> str:
    """The README's item about speed. Raises ``ValueError`` where its title is not true."""
    calls = {
        response: _row(reports, "calls", 1, response=response, client=OURS)
        for response in (
            *("small, sequential", "small, 16 concurrent"),
            *("page, sequential", "page, 16 concurrent"),
        )
    }
    cpu, wall = (
        [round(_number(row[column]), 2) for row in calls.values()]
        for column in ("CPU speed", "speed")
    )
    if min(*cpu, *wall) <= 1:
        raise ValueError("a call is not faster than with bare aiohttp: change the README")
    token = _row(reports, "limiter", 1, limiter=OURS)
    paragraph = (
        f"{SPEED_TITLE} By CPU time, a small call runs at {cpu[0]:.2f} times the speed of "
        f"`aiohttp.ClientSession` + msgspec, a page of 300 messages at {cpu[2]:.2f} (by wall clock "
        f"{wall[0]:.2f} and {wall[2]:.2f}; with 16 concurrent calls {cpu[1]:.2f} and "
        f"{cpu[3]:.2f}), with all of the above. A token takes {_number(token['us']):.1f} µs. All "
        "figures, with those of other libraries: [benchmarks](docs/benchmarks.md)."
    )
    return textwrap.fill(
        paragraph, 110, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )


def redis_table(reports: Reports) -> str:
    """The table of what was measured for the store in Redis."""
    token, fan_out, pace, killed = reports["redis"].tables
    shared, throughput, rate = token.rows[1], fan_out.rows[0], pace.rows[0]
    rows = [
        ("what", "measured", "target"),
        ("---", "---", "---"),
        (
            "a token, compared with a bare `PING` of redis-py",
            f"{_number(shared['relative to PING']):.2f} times as long",
            str(shared["target"]),
        ),
        (
            "fan-out, compared with bare `XADD`, `XREADGROUP`, `XACK`",
            (
                f"{_number(throughput['ratio']):.2f} times the throughput "
                f"({_number(throughput['ours/s']):,.0f} messages per second)"
            ),
            str(throughput["target"]),
        ),
        (
            "four programs, 1 s, 30 ms of uneven delay each way",
            (
                f"{rate['too early']} of {rate['gaps']} requests too early, at "
                f"{_number(rate['rate']):.3f} of the ideal rate"
            ),
            str(rate["target"]),
        ),
        *(
            (
                f"from the kill -9 of a worker until another has {what}",
                f"{_number(row['median s']):.2f} s (worst of 10: {_number(row['worst s']):.2f} s)",
                f"{row['target']} s",
            )
            for what, row in zip(("its items", "its lease, and polls"), killed.rows, strict=True)
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _count(row: Row) -> str:
    return f"{row['too early']} of {row['gaps']} ({row['limiter']})"


def write_sentences(reports: Reports) -> None:
    """Write the paragraphs that pages include, and the README's item about speed."""
    item = re.compile(re.escape(SPEED_TITLE) + r".*?(?=\n\n)", re.DOTALL)
    readme = README.read_text(encoding="utf-8")
    README.write_text(item.sub(lambda _: speed(reports), readme), encoding="utf-8")
    for name, paragraph in sentences(reports):
        (SNIPPETS / f"{name}.txt").write_text(f"{paragraph}\n", encoding="utf-8")
