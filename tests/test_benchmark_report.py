"""Tables of figures keep every figure under the name of its column."""

from __future__ import annotations

import pytest

from benchmarks.report import Table


def test_no_two_columns_have_the_same_name() -> None:
    """A row is stored as an object, in which one of the two would be lost."""
    with pytest.raises(ValueError, match="two columns"):
        Table("a table", ("way", "over plain", "over plain"))


def test_a_row_has_a_cell_for_each_column() -> None:
    """One too few or too many would put figures under the names of others."""
    table = Table("a table", ("way", "us"))
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table.add("plain")
    table.add("plain", 1.5)
    assert table.figures().rows == [{"way": "plain", "us": 1.5}]
