"""The extension of griffe that the reference needs: what users call, and nothing internal."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import griffe
import msgspec

sys.path.insert(0, str(Path(__file__).parent / "tests"))
from public_api import INTERNAL, MODULES, SAME_FIELDS, is_made_by_users, same_field

for public in MODULES:
    importlib.import_module(public)


class PublicApi(griffe.Extension):
    """Adds the ``__init__`` that `msgspec.Struct` generates, and removes what is not for users.

    Without it, the reference shows a struct without its arguments, and each of them as required;
    and the constructors of classes whose instances the library makes.
    """

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Change one class after its members were read."""
        for name, member in list(cls.members.items()):
            text = member.docstring.value if member.docstring else ""
            if text.startswith("Deprecated name") or f"{cls.name}.{name}" in INTERNAL:
                del cls.members[name]
            elif cls.name in SAME_FIELDS:
                member.docstring = griffe.Docstring(same_field(cls.name, name), parent=member)
            elif isinstance(member, griffe.Function):
                _evaluate_defaults(cls, member)
        is_struct = any(str(base) == "msgspec.Struct" for base in cls.bases)
        if is_struct:
            cls.set_member("__init__", _constructor(cls))
        if not is_made_by_users(is_struct, cls.docstring.value if cls.docstring else ""):
            cls.members.pop("__init__", None)


def _evaluate_defaults(cls: griffe.Class, method: griffe.Function) -> None:
    """Show values, where the source names a constant or calls a class without arguments."""
    module = sys.modules.get(cls.module.path)  # not imported: nothing public is in it
    function = inspect.getattr_static(getattr(module, cls.name, None), method.name, None)
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return
    values = inspect.signature(function).parameters
    for parameter in method.parameters:
        is_literal = isinstance(parameter.default, str | None)
        value = values[parameter.name].default if parameter.name in values else None
        if not is_literal and isinstance(value, str | int | float | tuple | msgspec.Struct):
            parameter.default = repr(value)


def _constructor(cls: griffe.Class) -> griffe.Function:
    """Return the constructor of a struct: a parameter for each field, in order."""
    keywords_only = "kw_only" in cls.keywords
    kind = "keyword-only" if keywords_only else "positional or keyword"
    fields = [
        griffe.Parameter(
            name,
            annotation=member.annotation,
            kind=griffe.ParameterKind(kind),
            default=member.value,
        )
        for name, member in cls.members.items()
        if member.is_attribute and "instance-attribute" in member.labels
    ]
    return griffe.Function("__init__", parameters=griffe.Parameters(*fields), parent=cls)
