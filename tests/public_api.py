"""The public API: every name, member and parameter, and the text that documents it.

The texts are read from the sources, because a running program keeps those of functions only.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Final, NamedTuple

import msgspec

import pythpeer

MODULES: Final = (
    *("pythpeer", "pythpeer.stores", "pythpeer.testing", "pythpeer.doctor", "pythpeer.otel"),
)
"""The modules whose ``__all__`` is public."""

PACKAGE: Final = Path(pythpeer.__file__).parent

STREAMS: Final = ("Stream", "ChatStream", "MailStream", "_Mergeable")
MERGING: Final = (
    *("is_ready", "has_ended", "in_flight", "fill", "pop", "acknowledge", "busy"),
    "store_acknowledged",
)
"""What a merged stream needs of each stream."""

INTERNAL: Final = {
    *("Peerbet.endpoint_accounts", "Peerbet.read_endpoint", "Peerbet.post_endpoint"),
    "Peerbet.roll_endpoint",
    *("PythBots.endpoint_accounts", "PythBots.key_param", "PythBots.headers"),
    *(f"PythBots.{name}_endpoint" for name in ("user", "staff", "stats", "send", "unread")),
    *("PythBots.history_endpoint", "FakeChat.answer"),
    *("Store.make_limiter", "RedisStore.make_limiter", "RedisStore.log"),
    *("Endpoint.convert", "Endpoint.decode", "Endpoint.segments"),
    *("Endpoint.decode_rejects_errors", "Endpoint.status_means_success"),
    *("Endpoint.any_status_is_error", "Endpoint.denied_hint", "Endpoint.min_timeout"),
    "Endpoint.unknown_outcome",
    *("FakeChat.user_of", "FakeDice.answer", "FakeDice.delay"),
    *("Limiter.acquire", "Limiter.try_acquire", "Limiter.is_held"),
    *("Limiter.permit_postponed",),
    *("Limiter.fail_waiters", "MemoryStore.log", "SqliteStore.log"),
    *("Limiter.permit_answered", "Limiter.permit_released", "Limiter.permit_written"),
    *("Limiter.in_hand", "Limiter.dismiss"),  # old names
    *("MemoryStore.make_limiter", "SqliteStore.make_limiter"),
    *("ApiKeys.check", "ApiKeys.reset", "Faults.next_for"),
    *("Secret.encoded", "Secret.fingerprint", "Secret.wrap"),
    *(f"{stream}.{name}" for stream in STREAMS for name in MERGING),
    "MergedStream.busy",
    *("Actor.react", "FakeMail.opened_by", "FakeMail.read_all", "FakeMail.read_new"),
    *("FakeMail.send", "Mailbox.mark_all_read", "People.schedule", "Secret.try_wrap"),
    # Old names.
    *("FakeChat.listen", "FakeMail.listen", "FakeServices.listen", "FakeServices.adopt"),
    *("FakeServices.habits", "MemoryStore.survey", "SqliteStore.survey"),
}
"""Members with public names that are for internal use."""


SAME_FIELDS: Final = {"QuirkOptions": "Quirks"}
"""Classes whose fields have the same names and meanings as those of another class."""


def same_field(name: str, member: str) -> str:
    """The text of a field of a class in `SAME_FIELDS`."""
    return f"As `{SAME_FIELDS[name]}.{member}`."


class Documented(NamedTuple):
    """A public name or member."""

    path: str
    """Its path, which is also the anchor in the reference: ``pythpeer.Session.call``."""

    text: str
    """The text that documents it; empty if there is none."""

    parameters: Sequence[str]
    """The names of its parameters, without those that are fields with a text of their own."""

    @property
    def unexplained(self) -> list[str]:
        """The parameters that the text does not mention."""
        return [name for name in self.parameters if not _mentions(self.text, name)]


def _mentions(text: str, parameter: str) -> bool:
    name = re.escape(parameter)
    return bool(re.search(rf"^ *\**{name}(:| \()|\*{name}\*|``{name}\b", text, re.MULTILINE))


def documented() -> Iterator[Documented]:
    """Yield every public name and member, each once."""
    seen: set[int] = set()
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if id(thing) not in seen and not name.startswith("__"):
                seen.add(id(thing))
                yield from _documented(f"{module.__name__}.{name}", name, thing)


def _documented(path: str, name: str, thing: object) -> Iterator[Documented]:
    if inspect.isclass(thing) and _is_ours(thing):
        members = dict(_members(thing))
        parameters = [p for p in _class_parameters(thing) if not members.get(p, ("", ()))[0]]
        yield Documented(path, _doc(thing), parameters)
        for member, (text, its_parameters) in members.items():
            if f"{name}.{member}" not in INTERNAL and not text.startswith("Deprecated name"):
                same = same_field(name, member) if name in SAME_FIELDS else text
                yield Documented(f"{path}.{member}", same, its_parameters)
    elif inspect.isfunction(thing):
        yield Documented(path, _doc(thing), _parameters(thing))
    else:
        yield Documented(path, _constants().get(name, ""), ())


def _members(cls: type) -> Iterator[tuple[str, tuple[str, Sequence[str]]]]:
    """Yield the public members of a class, with their texts and parameters."""
    foreign = {name for owner in cls.__mro__ if not _is_ours(owner) for name in vars(owner)}
    for owner in reversed([owner for owner in cls.__mro__ if _is_ours(owner)]):
        if owner.__name__.startswith("Deprecated"):
            continue
        texts = _attribute_texts(owner)
        for name, value in {**texts, **inspect.get_annotations(owner), **vars(owner)}.items():
            if name.startswith("_") or name in foreign:
                continue
            function = getattr(value, "__func__", value)
            if inspect.isfunction(function):
                yield name, (_doc(function), _parameters(function))
            else:
                yield name, (texts.get(name, "") or _doc_of_value(value), ())


def _doc_of_value(value: object) -> str:
    return _doc(value.fget) if isinstance(value, property) else ""


def _is_ours(owner: type) -> bool:
    return owner.__module__.startswith("pythpeer.")


def _doc(thing: object) -> str:
    return inspect.cleandoc(getattr(thing, "__doc__", None) or "")


def _class_parameters(cls: type) -> list[str]:
    """The parameters of a class that users make instances of: a struct, or one with ``Args:``."""
    if is_made_by_users(issubclass(cls, msgspec.Struct), _doc(cls)):
        return _parameters(cls)
    return []


def is_made_by_users(is_struct: bool, doc: str) -> bool:
    """Whether users call a class. Instances of other classes are made by the library."""
    return is_struct or "Args:\n" in doc


def _parameters(thing: FunctionType | type) -> list[str]:
    """The parameters with names that callers use."""
    return [
        name
        for name, parameter in inspect.signature(thing).parameters.items()
        if name not in ("self", "cls") and parameter.kind is not parameter.POSITIONAL_ONLY
    ]


# -- texts in the sources -------------------------------------------------------------------------


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _attribute_texts(cls: type) -> dict[str, str]:
    """The texts of the fields of a class, and of the attributes that its ``__init__`` sets."""
    tree = _tree(importlib.import_module(cls.__module__))
    [node] = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == cls.__name__]
    texts = _texts(node.body)
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            texts |= _texts(function.body, prefix="self.")
    return texts


@cache
def _constants() -> Mapping[str, str]:
    """The texts of the constants and type aliases of all modules."""
    texts: dict[str, str] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.If):
                texts |= {name: text for name, text in _texts(node.body).items() if text}
    return texts


def _texts(body: Sequence[ast.stmt], prefix: str = "") -> dict[str, str]:
    """The text after each assignment to a public name, which is empty if there is none."""
    texts: dict[str, str] = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        name = ast.unparse(targets[0]) if targets[0] is not None else ""
        if name.startswith(prefix) and name.removeprefix(prefix).isidentifier():
            texts[name.removeprefix(prefix)] = _string(following)
    return {name: text for name, text in texts.items() if not name.startswith("_")}


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return inspect.cleandoc(str(node.value.value))
    return ""
