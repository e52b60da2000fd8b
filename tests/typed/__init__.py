"""Typical user programs, with an ``assert_type`` for everything that they use.

mypy and pyright check them in their strictest modes (``nox -s typing``): an ``assert_type`` fails
if a type differs, or is ``Any``. `test_typed.py` runs them, and checks that they use each public
name. `wrong.py` contains programs that the type checkers must reject.
"""
