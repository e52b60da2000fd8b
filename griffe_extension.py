"""The extension of griffe that the reference needs: constructors of structs, without old names."""

from __future__ import annotations

from typing import Any

import griffe


class StructsAndOldNames(griffe.Extension):
    """Adds the ``__init__`` that `msgspec.Struct` generates, and removes deprecated members.

    Without it, the reference shows a struct without its arguments, and each of them as required.
    """

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Change one class after its members were read."""
        for name, member in list(cls.members.items()):
            if member.docstring and member.docstring.value.startswith("Deprecated name"):
                del cls.members[name]
        if any(str(base) == "msgspec.Struct" for base in cls.bases):
            cls.set_member("__init__", _constructor(cls))


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
