"""Programs as users write them, with the type of everything that they touch.

mypy and pyright read them in their strictest modes (``nox -s typing``): an ``assert_type`` fails
where a type is another, or has become ``Any``. `test_typed.py` runs them, and sees that nothing is
left out. What must not be accepted stands in `wrong.py`.
"""
