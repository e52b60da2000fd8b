"""The extension of griffe that the reference needs: what users call, and nothing internal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent / "tests"))
from public_api import INTERNAL, SAME_FIELDS, is_made_by_users, same_field


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
        is_struct = any(str(base) == "msgspec.Struct" for base in cls.bases)
        if is_struct:
            cls.set_member("__init__", _constructor(cls))
        if not is_made_by_users(is_struct, cls.docstring.value if cls.docstring else ""):
            cls.members.pop("__init__", None)


def _constructor(cls: griffe.Class) -> griffe.Function:
    """Return the constructor of a struct: a parameter for each field, in order."""
    keywords_only = "kw_only" in {getattr(keyword, "name", "") for keyword in cls.keywords}
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
