"""Old import paths keep working for one version, and warn."""

from __future__ import annotations

from importlib import import_module

import pytest
from helpers import warns_renamed

import pythpeer
from pythpeer.deprecation import REMOVED_IN, warn_renamed

OLD = {
    "pythpeer.wire": ["Effect", "Endpoint", "FLAG", "Json", "JsonObject", "Param", "Rate"],
    "pythpeer.streams": ["MergedStream", "Stream", "merge"],
    "pythpeer.limiter": ["Limiter"],
    "pythpeer.polling": ["Gap"],
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in OLD.items() for name in names]
)
def test_an_old_path_leads_to_the_same_object(module: str, name: str) -> None:
    """The warning names the path to use, and points at the line that uses the old one."""
    with warns_renamed(f"{module}.{name}", f"pythpeer.{name}") as caught:
        value = getattr(import_module(module), name)
    assert value is getattr(pythpeer, name)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("module", OLD)
def test_an_unknown_name_is_no_attribute(module: str) -> None:
    """As of any other module."""
    with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute 'Reader'"):
        _ = import_module(module).Reader


def test_the_warning_names_both_names_and_the_version_without_the_old_one() -> None:
    """The tests of all old names build the text from the same constant; this one does not."""
    text = r"^A\.old\(\) is now A\.new\(\); the old name will be removed in version 0\.3$"
    with pytest.warns(DeprecationWarning, match=text):
        warn_renamed("A.old()", "A.new()")


def test_the_version_without_old_names_is_in_the_future() -> None:
    """When it is the present one, the old names must be removed."""
    versions = (pythpeer.__version__, REMOVED_IN)
    numbers = [tuple(map(int, text.split(".")[:2])) for text in versions]
    assert numbers[0] < numbers[1]
