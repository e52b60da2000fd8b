"""No program of the README, the pages and the examples prints text of other users as it is.

A terminal would execute the control characters in it. `test_docs.py`, `test_readme.py` and
`test_examples.py` run the programs with such texts; here is what they print in other cases, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
BLOCK: Final = re.compile(r"^```python[^\n]*\n(?!--8<--)(.*?)^```", re.DOTALL | re.MULTILINE)

FOREIGN: Final = frozenset(
    {"avatar", "last", "nickname", "rank", "recipient", "sender", "target", "text", "username"}
)
"""The names of fields and variables that have text from a service."""

SAFE_OBJECTS: Final = frozenset({"finding"})
"""The variables whose texts are made of words that the library knows."""

SAFE_CALLS: Final = frozenset({"bool", "len", "repr"})
"""The functions whose results have no control characters."""


def program_texts() -> Iterator[tuple[str, str]]:
    """Return the place and the source of every program, and of every part of one."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            yield f"{page.relative_to(ROOT)} {number}", block
    for file in sorted((ROOT / "docs" / "examples").glob("*.py")):
        yield file.name, file.read_text(encoding="utf-8")


def raw_texts(program: str) -> list[str]:
    """Return what a program passes to ``print`` or to a logger without ``repr``."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree: ast.Module = compile(program, "program", "exec", flags)
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    found = chain.from_iterable(map(_raw_in_all, map(_shown, calls)))
    return [ast.unparse(expression) for expression in found]


def _shown(call: ast.Call) -> list[ast.expr]:
    """Return the arguments that a call of ``print``, or of a logger, shows as they are."""
    match call.func:
        case ast.Name("print"):
            return call.args
        case ast.Attribute(ast.Name("logger" | "logging")):
            pass
        case _:
            return []
    formats = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    conversions = re.findall(r"%[-0-9.]*([a-z])", str(formats[0])) if formats else []
    values = call.args[len(call.args) - len(conversions) :]
    kept = [value for value, kind in zip(values, conversions, strict=True) if kind == "s"]
    return [*call.args[: len(call.args) - len(conversions)], *kept]


def _raw_in_all(expressions: Iterable[ast.AST]) -> Iterator[ast.expr]:
    return chain.from_iterable(map(_raw_in, expressions))


def _raw_in(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions in *node* that are foreign text, and that no ``repr`` is applied to."""
    match node:
        case ast.FormattedValue(conversion=conversion) if conversion == ord("r"):
            return
        case ast.Call(ast.Name(name)) if name in SAFE_CALLS:
            return
        case ast.Attribute(ast.Name(name)) if name in SAFE_OBJECTS:
            return
        case ast.Compare():
            return
        case ast.IfExp(_, body, orelse):
            yield from _raw_in_all((body, orelse))
        case ast.Attribute(attr=name) | ast.Name(name) if name in FOREIGN:
            yield node
        case _:
            yield from _raw_in_all(ast.iter_child_nodes(node))


@pytest.mark.parametrize(
    ("program", "raw"),
    [
        ("print(message.sender)", ["message.sender"]),
        ("print(f'{message.sender}: {message.text!r}')", ["message.sender"]),
        ("print('x', 'a' if text == 'b' else sender)", ["sender"]),
        (
            "print(f'{rank:10}', repr(text), len(text), (await call()).username)",
            ["rank", "(await call()).username"],
        ),
        ("print(str(text))", ["text"]),
        ("logger.warning('%d %r %s', text, sender, message.text)", ["message.text"]),
        ("logger.log(level, '%s', error)", []),
        ("logging.info(f'{mail.text}')", ["mail.text"]),
        ("logger.info(text)", ["text"]),
        ("print(message, finding.text); post(text)", []),
    ],
)
def test_a_program_that_prints_foreign_text_is_found(program: str, raw: list[str]) -> None:
    """And ``repr`` in each of its forms is accepted."""
    assert raw_texts(program) == raw


def test_no_program_prints_foreign_text() -> None:
    """Nor logs it, whatever happens: also the lines that no test executes."""
    programs = dict(program_texts())
    assert {name: raw for name, text in programs.items() if (raw := raw_texts(text))} == {}
    assert sum("print(" in text for text in programs.values()) > 20
