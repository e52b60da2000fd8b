"""The old names of `pythpeer.stores` work for one version, with a warning."""

from __future__ import annotations

import importlib
import pydoc
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from helpers import warns_renamed

import pythpeer.stores
from pythpeer import Rate
from pythpeer.pacing.limiter import Limiter
from pythpeer.stores import (
    EndpointSnapshot,
    Entry,
    Log,
    LogSnapshot,
    MemoryStore,
    NewEntry,
    Reader,
    ReaderSnapshot,
    Store,
    StoreSnapshot,
    Topic,
)

pytestmark = pytest.mark.anyio

STORES: Any = pythpeer.stores
"""The module, as code without types sees it."""

NOTES: Topic[str] = Topic("notes", str)


def warns(text: str) -> Any:
    """Expect warnings whose texts match *text*, and no others."""
    return pytest.warns(DeprecationWarning, match=text)


@pytest.fixture
def log() -> Any:
    return MemoryStore().log(NOTES)


# -- names of the module --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Draft", "NewEntry"),
        ("EndpointSurvey", "EndpointSnapshot"),
        ("Latest", "LatestItem"),
        ("LogSurvey", "LogSnapshot"),
        ("NameSurvey", "ReaderSnapshot"),
        ("Survey", "StoreSnapshot"),
        ("from_text", "store_from_url"),
    ],
)
def test_an_old_name_of_the_module_is_the_new_one(old: str, new: str) -> None:
    """The warning names both, and the line that uses the old one."""
    with warns_renamed(f"pythpeer.stores.{old}", f"pythpeer.stores.{new}") as caught:
        assert getattr(STORES, old) is getattr(STORES, new)
    assert [warning.filename for warning in caught] == [__file__]


def test_old_names_can_be_imported() -> None:
    """As by a store that was written for the version before."""
    with warns("Draft"):
        exec("from pythpeer.stores import Draft", {})


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match=r"'pythpeer\.stores' has no attribute 'Shelf'"):
        _ = STORES.Shelf


def test_an_import_of_the_module_does_not_warn() -> None:
    """Nor does the use of a store with the new names."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.import_module("pythpeer.stores")


# -- fields ---------------------------------------------------------------------------------------


def test_a_topic_accepts_and_has_its_old_field() -> None:
    """``consumed`` is ``destructive`` now."""
    make: Any = Topic
    with warns_renamed("Topic(consumed=)", "Topic(destructive=)") as caught:
        topic = make("mail", str, consumed=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert topic == Topic("mail", str, destructive=True)
    with warns_renamed("Topic.consumed", "Topic.destructive"):
        assert topic.consumed is True


def test_a_new_entry_accepts_and_has_its_old_fields() -> None:
    """All four of them, together with those that keep their names."""
    make: Any = NewEntry
    with warns("NewEntry") as caught:
        entry = make("a", after=1, key="k", copies=2, history=True, again="b")
    assert len(caught) == 4
    assert entry == NewEntry(
        "a", after=1, identity="k", max_copies=2, from_history=True, as_duplicate="b"
    )
    with warns("NewEntry"):
        assert (entry.key, entry.copies, entry.history, entry.again) == ("k", 2, True, "b")


def test_snapshots_accept_and_have_their_old_fields() -> None:
    """A store outside of this package may still create them so."""
    make_reader: Any = ReaderSnapshot
    make_log: Any = LogSnapshot
    make_endpoint: Any = EndpointSnapshot
    with warns("Snapshot"):
        reader = make_reader(name="me", place=3, lag=1)
        log = make_log("notes", 4, 2, led=True, announced=1, names=(reader,), latest=())
        endpoint = make_endpoint("k", 5, in_hand=2, waiting=0, paused_for=0.0)
    assert reader == ReaderSnapshot("me", 3, 1)
    assert log == LogSnapshot("notes", 4, 2, True, 1, (reader,), ())
    assert endpoint == EndpointSnapshot("k", 5, 2, 0, 0.0)
    with warns("Snapshot"):
        assert reader.place == 3
        assert (log.led, log.announced, log.names) == (True, 1, (reader,))
        assert endpoint.in_hand == 2


@pytest.mark.parametrize("field", ["nonsense", "place"])
def test_a_field_that_never_was_is_a_type_error(field: str) -> None:
    """Also one that another class had."""
    make: Any = Topic
    with pytest.raises(TypeError, match=field):
        make("mail", str, **{field: 1})


def test_new_names_do_not_warn() -> None:
    """Neither fields nor the field that keeps a name which another class has given up."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert NewEntry("a", identity="k", max_copies=2).identity == "k"
        assert (
            EndpointSnapshot(key="k", requests=1, outstanding=0, waiting=0, paused_for=0.0).key
            == "k"
        )


# -- methods, for callers -------------------------------------------------------------------------


async def test_a_log_has_its_old_methods(log: Any) -> None:
    """With their old keywords."""
    with warns("is now") as caught:
        assert list(await log.append(drafts=[NewEntry("a", id=1)], settled=[])) != []
        assert await log.acknowledged() == 0
        number = await log.announce(seconds=20.0)
        await log.give_up(announcement=number)
        assert list(await log.unsettled()) == [number]
        await log.append([], settled=[number])
        await log.withdraw(await log.announce(20.0))
        assert await log.lead(seconds=2.0)
        log.retire()
        await log.news(seconds=0.01)
    assert {warning.filename for warning in caught} == {__file__}
    assert not await log.lost_fetches()


async def test_a_reader_has_its_old_members(log: Any) -> None:
    """Methods, a property, and the keyword of a method that keeps its name."""
    await log.append([NewEntry("a", id=1), NewEntry("b", id=2, after=1)])
    reader = log.reader("me")
    with warns("_MemoryReader"):
        await reader.join(1)
        assert await reader.place() == 1
        assert reader.passed is None
    with warns_renamed("seek(place=)", "seek(position=)"):
        await reader.seek(place=2)
    assert await reader.position() == 2


async def test_a_store_has_its_old_methods() -> None:
    """Pacing and the snapshot."""
    store: Any = MemoryStore()
    with warns_renamed("MemoryStore.pace", "MemoryStore.make_limiter"):
        assert store.pace("key", "chat", Rate(1.0)).name == "chat"
    with warns_renamed("MemoryStore.survey", "MemoryStore.snapshot"):
        assert await store.survey(latest=3) == StoreSnapshot((), ())


# -- methods, for subclasses ----------------------------------------------------------------------


@pytest.fixture
def old_classes() -> tuple[type[Store], type[Log[Any]], type[Reader[Any]]]:
    """A store that was written for the version before: with old names only."""
    with warns_renamed("OldLog.lead", "OldLog.acquire_lease") as caught:

        class OldReader(Reader[Any]):
            def __init__(self) -> None:
                self.at = 0

            async def place(self) -> int | None:
                return self.at

            async def seek(self, place: int) -> None:
                self.at = place

            async def join(self, place: int) -> None:
                await super().join(place + 10)  # type: ignore[misc]

            async def read(self, after: int, limit: int) -> Sequence[Entry[Any]]:
                return ()

            def ack(self, place: int) -> None:
                self.at = place

            async def flush(self) -> None:
                pass

            @property
            def passed(self) -> int | None:
                return 7

        class OldLog(Log[Any]):
            def __init__(self) -> None:
                self.calls: list[tuple[Any, ...]] = []

            def reader(self, name: str | None) -> Reader[Any]:
                return OldReader()  # type: ignore[abstract]

            async def append(  # type: ignore[override]
                self, drafts: Sequence[NewEntry[Any]], *, settled: Collection[int] = ()
            ) -> Sequence[NewEntry[Any]]:
                self.calls.append(("append", drafts, settled))
                return drafts

            async def acknowledged(self) -> int:
                return 3

            async def announce(self, seconds: float) -> int:
                self.calls.append(("announce", seconds))
                return 1

            async def withdraw(self, announcement: int) -> None:
                self.calls.append(("withdraw", announcement))

            async def give_up(self, announcement: int) -> None:
                self.calls.append(("give_up", announcement))

            async def unsettled(self) -> Collection[int]:
                return [4]

            async def lead(self, seconds: float) -> bool:
                return True

            def retire(self) -> None:
                super().retire()  # type: ignore[misc]
                self.calls.append(("retire",))

            async def news(self, seconds: float) -> None:
                self.calls.append(("news", seconds))

        class OldStore(Store):
            async def open(self) -> None:
                pass

            async def aclose(self) -> None:
                pass

            def log(self, topic: Topic[Any]) -> Log[Any]:
                return OldLog()  # type: ignore[abstract]

            def pace(self, key: str, name: str, rate: Rate) -> Limiter:
                return super().pace(key, f"old {name}", rate)  # type: ignore[misc, no-any-return]

            async def survey(self, latest: int = 10) -> StoreSnapshot:
                return StoreSnapshot((), ())

    assert {warning.filename for warning in caught} == {__file__}
    return OldStore, OldLog, OldReader


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_store_with_old_names_is_called_by_the_new_ones(old_classes: Any) -> None:
    """It can be made, as nothing abstract is left, and its methods are those that are called."""
    store: Store = old_classes[0]()
    assert store.limiter("key", "chat", Rate(1.0)).name == "old chat"
    assert await store.snapshot() == StoreSnapshot((), ())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_log_with_old_names_is_called_by_the_new_ones(old_classes: Any) -> None:
    """With new keywords also where its own are the old ones."""
    log: Any = old_classes[1]()
    entries = [NewEntry("a")]
    assert await log.append(entries, completes=[9]) == entries
    assert await log.append(entries, settled=[8]) == entries
    assert await log.max_acknowledged() == 3
    assert await log.begin_fetch(2.0) == 1
    await log.cancel_fetch(1)
    await log.lose_fetch(fetch=2)
    assert await log.lost_fetches() == [4]
    assert await log.acquire_lease(1.0)
    log.release_lease()
    await log.wait_for_append(timeout=0.5)
    assert log.calls == [
        ("append", entries, [9]),
        ("append", entries, [8]),
        ("announce", 2.0),
        ("withdraw", 1),
        ("give_up", 2),
        ("retire",),
        ("news", 0.5),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_reader_with_old_names_is_called_by_the_new_ones(old_classes: Any) -> None:
    """Its own `join` calls that of the base class, which calls its `seek`."""
    reader: Reader[Any] = old_classes[2]()
    assert reader.group_position == 7
    await reader.seek_if_new(5)
    assert await reader.position() == 15
    reader.ack(16)
    assert await reader.position() == 16


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_subclass_of_a_store_of_ours_may_override_an_old_name() -> None:
    """Its ``super()`` reaches the method of that store, over several classes."""

    class First(MemoryStore):
        def pace(self, key: str, name: str, rate: Rate) -> Limiter:
            return super().pace(key, f"first {name}", rate)  # type: ignore[misc, no-any-return]

    class Second(First):
        def pace(self, key: str, name: str, rate: Rate) -> Limiter:
            return super().pace(key, f"second {name}", rate)

    assert Second().limiter("key", "chat", Rate(1.0)).name == "first second chat"


def test_a_subclass_with_new_names_does_not_warn() -> None:
    """Nor does one that has both, for two versions of pythpeer: the new one is called."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Both(MemoryStore):
            def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
                return super().make_limiter(key, f"new {name}", rate)

            def pace(self, key: str, name: str, rate: Rate) -> Limiter:
                raise AssertionError

        assert Both().limiter("key", "chat", Rate(1.0)).name == "new chat"


def test_an_abstract_method_is_missing_under_both_names() -> None:
    """A class that defines neither cannot be made."""

    class Half(Store):
        async def open(self) -> None: ...

    with pytest.raises(TypeError, match="snapshot"):
        Half()  # type: ignore[abstract]


@pytest.mark.parametrize("cls", [MemoryStore, Store, Log, Reader, LogSnapshot, NewEntry])
def test_the_help_of_a_class_warns_of_nothing(cls: type) -> None:
    """It reads each attribute of the class, and ignores exceptions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pydoc.render_doc(cls)
    assert caught == []
