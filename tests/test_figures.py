"""The figures of the documentation are those of the results of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import NAMES
from benchmarks.docs_page import DOCS, RESULTS, page_text
from benchmarks.figures import README, SNIPPETS, promises, sentences, speed, summary
from benchmarks.report import Report, read

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """The last results."""
    paths = [RESULTS / f"{name}.json" for name in NAMES]
    return {path.stem: read(path) for path in paths if path.exists()}


def test_the_page_is_made_from_the_results(reports: dict[str, Report]) -> None:
    """``python -m benchmarks.docs_page`` makes it again."""
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == page_text([*reports.values()])


def test_the_paragraphs_are_made_from_the_results(reports: dict[str, Report]) -> None:
    """And each is included by a page."""
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    for name, paragraph in sentences(reports):
        assert (SNIPPETS / f"{name}.txt").read_text(encoding="utf-8") == f"{paragraph}\n"
        assert f"--8<--\ndocs/snippets/{name}.txt\n--8<--" in pages


def test_the_readme_states_the_measured_speed(reports: dict[str, Report]) -> None:
    """``python -m benchmarks.docs_page`` writes it."""
    assert f"\n{speed(reports)}\n\n" in README.read_text(encoding="utf-8")


def test_the_readme_states_the_measured_pacing_and_loss(reports: dict[str, Report]) -> None:
    """In sentences of its own, whose figures are those of the results."""
    readme = " ".join(README.read_text(encoding="utf-8").split())
    assert [promise for promise in promises(reports) if promise not in readme] == []
    assert len([*promises(reports)]) == 2


def test_the_page_begins_with_the_table_of_the_targets(reports: dict[str, Report]) -> None:
    """Ten rows, each with figures, and no target that is not met is left out."""
    rows = list(summary(reports))
    assert len(rows) == 10
    assert all(any(map(str.isdigit, row[1])) for row in rows)
    assert {row[3] for row in rows} == {"yes", "NO"}
