"""Old import paths keep working for one version, and warn."""

from __future__ import annotations

from importlib import import_module

import pytest

import pythpeer

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
    text = rf"^{module}\.{name} is deprecated, use pythpeer\.{name}$"
    with pytest.warns(DeprecationWarning, match=text) as caught:
        value = getattr(import_module(module), name)
    assert value is getattr(pythpeer, name)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("module", OLD)
def test_an_unknown_name_is_no_attribute(module: str) -> None:
    """As of any other module."""
    with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute 'Reader'"):
        _ = import_module(module).Reader
