"""Deprecated names of `pythpeer.stores`: they work for one version, with a `DeprecationWarning`.

Callers may use the old names of classes, methods, attributes and keyword arguments. Subclasses of
`Store`, `Log` and `Reader` may define methods under their old names. The only exception is the
keyword of ``Reader.ack(place=...)``: it is called for each item, and a translation would cost time.

Type checkers do not see the old names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import msgspec

from ..deprecation import warn_renamed

__all__ = [
    "CLASSES",
    "DeprecatedEndpointSnapshotNames",
    "DeprecatedLogNames",
    "DeprecatedLogSnapshotNames",
    "DeprecatedNewEntryNames",
    "DeprecatedReaderNames",
    "DeprecatedReaderSnapshotNames",
    "DeprecatedStoreNames",
    "DeprecatedTopicNames",
]

CLASSES: Final[Mapping[str, str]] = {
    "Draft": "pythpeer.stores.NewEntry",
    "EndpointSurvey": "pythpeer.stores.EndpointSnapshot",
    "Latest": "pythpeer.stores.LatestItem",
    "LogSurvey": "pythpeer.stores.LogSnapshot",
    "NameSurvey": "pythpeer.stores.ReaderSnapshot",
    "Survey": "pythpeer.stores.StoreSnapshot",
    "from_text": "pythpeer.stores.store_from_url",
}
"""The names of the module that were renamed: old name, new path."""


class _Renamed:
    """A descriptor: an attribute under its old name, which returns the one under the new name."""

    def __init__(self, new: str) -> None:
        self.new: Final = new
        self._old = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._old = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        cls = type(instance) if owner is None else owner
        if instance is None:  # no warning: `pydoc` and others read all attributes of a class
            return getattr(cls, self.new)
        name = cls.__name__
        warn_renamed(f"{name}.{self._old}", f"{name}.{self.new}")
        # Where a subclass defines the old name, only its `super()` reaches this descriptor. It then
        # needs the implementation of the class above it, not its own under the new name.
        overriding = [base for base in cls.__mro__ if vars(base).get(self._old, self) is not self]
        if overriding:
            parent: Any = cast("Any", super(overriding[-1], instance))
            return getattr(parent, self.new)
        return getattr(instance, self.new)


# -- classes with fields --------------------------------------------------------------------------


_OLD_FIELDS: Final = frozenset(
    (
        "consumed",
        "key",
        "copies",
        "history",
        "again",
        "place",
        "led",
        "announced",
        "names",
        "in_hand",
    )
)
"""The old names of all fields, of whichever class."""


class _RenamedFields(msgspec.StructMeta):
    """The metaclass of structs whose constructor accepts the old names of fields as well."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:  # noqa: N805  # ruff knows no StructMeta
        if _OLD_FIELDS.isdisjoint(fields):
            return super().__call__(*args, **fields)
        for old in list(fields):
            renamed = inspect.getattr_static(cls, old, None)
            if isinstance(renamed, _Renamed):
                name = cls.__name__
                warn_renamed(f"{name}({old}=)", f"{name}({renamed.new}=)")
                fields[renamed.new] = fields.pop(old)
        return super().__call__(*args, **fields)


if TYPE_CHECKING:

    class _Fields:
        """Type checkers do not see the old names."""

    DeprecatedTopicNames = _Fields
    DeprecatedNewEntryNames = _Fields
    DeprecatedReaderSnapshotNames = _Fields
    DeprecatedLogSnapshotNames = _Fields
    DeprecatedEndpointSnapshotNames = _Fields
else:

    class DeprecatedTopicNames(msgspec.Struct, metaclass=_RenamedFields):
        """The old names of the fields of `Topic`."""

        consumed = _Renamed("destructive")

    class DeprecatedNewEntryNames(msgspec.Struct, metaclass=_RenamedFields):
        """The old names of the fields of `NewEntry`."""

        key = _Renamed("identity")
        copies = _Renamed("max_copies")
        history = _Renamed("from_history")
        again = _Renamed("as_duplicate")

    class DeprecatedReaderSnapshotNames(msgspec.Struct, metaclass=_RenamedFields):
        """The old names of the fields of `ReaderSnapshot`."""

        place = _Renamed("position")

    class DeprecatedLogSnapshotNames(msgspec.Struct, metaclass=_RenamedFields):
        """The old names of the fields of `LogSnapshot`."""

        led = _Renamed("has_leader")
        announced = _Renamed("pending_fetches")
        names = _Renamed("readers")

    class DeprecatedEndpointSnapshotNames(msgspec.Struct, metaclass=_RenamedFields):
        """The old names of the fields of `EndpointSnapshot`."""

        in_hand = _Renamed("outstanding")


# -- classes that are meant to be subclassed ------------------------------------------------------


class _RenamedMembers:
    """A base class that gives the methods of its subclasses their new names where they lack them.

    Methods with renamed parameters accept the old keywords as well, and are called with those that
    they have.
    """

    _renamed_parameters: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """For each method with renamed parameters: old name, new name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__[1:]:
            for old, renamed in vars(base).items():
                if isinstance(renamed, _Renamed):
                    _adopt(cls, old, renamed.new)
        for name, parameters in cls._renamed_parameters.items():
            method = vars(cls).get(name)
            if inspect.isfunction(method):
                setattr(cls, name, _translate_keywords(method, parameters))


def _adopt(cls: type, old: str, new: str) -> None:
    """Let a class that defines *old*, and not *new*, define *new* in the same way."""
    if old in vars(cls) and new not in vars(cls):
        warn_renamed(f"{cls.__name__}.{old}", f"{cls.__name__}.{new}", stacklevel=4)
        setattr(cls, new, vars(cls)[old])


def _translate_keywords(
    method: Callable[..., Any], renamed: Mapping[str, str]
) -> Callable[..., Any]:
    """Return *method* such that its keyword arguments can have old names, or new names."""
    own = inspect.signature(method).parameters

    @functools.wraps(method)
    def translating(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for old, new in renamed.items():
                if old in kwargs:
                    name = method.__name__
                    warn_renamed(f"{name}({old}=)", f"{name}({new}=)")
                    kwargs[new] = kwargs.pop(old)
                if new in kwargs and new not in own and old in own:
                    kwargs[old] = kwargs.pop(new)
        return method(*args, **kwargs)

    return translating


class DeprecatedReaderNames(_RenamedMembers):
    """The old names of the members of `Reader`."""

    _renamed_parameters: ClassVar = {
        "seek": {"place": "position"},
        "seek_if_new": {"place": "position"},
    }

    if not TYPE_CHECKING:
        place = _Renamed("position")
        passed = _Renamed("group_position")
        join = _Renamed("seek_if_new")


class DeprecatedLogNames(_RenamedMembers):
    """The old names of the members of `Log`."""

    _renamed_parameters: ClassVar = {
        "append": {"drafts": "entries", "settled": "completes"},
        "begin_fetch": {"seconds": "timeout"},
        "cancel_fetch": {"announcement": "fetch"},
        "lose_fetch": {"announcement": "fetch"},
        "wait_for_append": {"seconds": "timeout"},
    }

    if not TYPE_CHECKING:
        acknowledged = _Renamed("max_acknowledged")
        announce = _Renamed("begin_fetch")
        withdraw = _Renamed("cancel_fetch")
        give_up = _Renamed("lose_fetch")
        unsettled = _Renamed("lost_fetches")
        lead = _Renamed("acquire_lease")
        retire = _Renamed("release_lease")
        news = _Renamed("wait_for_append")


class DeprecatedStoreNames(_RenamedMembers):
    """The old names of the members of `Store`."""

    if not TYPE_CHECKING:
        pace = _Renamed("make_limiter")
        survey = _Renamed("snapshot")
