"""Every public name, member and parameter is documented; `nox -s docs` checks the pages."""

from __future__ import annotations

import json
import pydoc
import re
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import is_typeddict

import pytest
from built_site import broken_links, missing_names, searched_sources, unrendered
from public_api import MODULES, documented

import pythpeer

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
SHOWN = {
    path
    for page in REFERENCE.glob("*.md")
    for path in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_every_public_name_is_on_a_page() -> None:
    """Each name of ``__all__``, under the first module that has it."""
    prefixes = tuple(f"{module}." for module in MODULES)
    names = {d.path for d in documented() if d.path.rpartition(".")[0] + "." in prefixes}
    assert len(names) > 100
    assert names - SHOWN == set()


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=attrgetter("stem"))
def test_each_page_shows_how_to_read_it_without_the_site(page: Path) -> None:
    """The page names two commands, and the name that pydoc prints is on the page."""
    beginning = page.read_text(encoding="utf-8").partition(":::")[0]
    assert "`nox -s docs`" in beginning
    [name] = re.findall(r"`python -m pydoc ([\w.]+)`", beginning)
    assert name in SHOWN
    assert pydoc.locate(name) is not None


def test_every_name_member_and_parameter_has_a_text() -> None:
    """In the source, from which the pages are made."""
    entries = list(documented())
    assert [entry.path for entry in entries if not entry.text] == []
    assert [(entry.path, entry.unexplained) for entry in entries if entry.unexplained] == []


def test_the_help_of_a_class_names_its_attributes() -> None:
    """``help`` shows no attribute that only instances have, unless the class or a base names it."""
    unnamed: list[str] = []
    checked = 0
    for entry in documented():
        path, _, name = entry.path.rpartition(".")
        owner = pydoc.locate(path)
        if not isinstance(owner, type) or hasattr(owner, name) or is_typeddict(owner):
            continue
        checked += 1
        texts = [base.__doc__ or "" for base in owner.__mro__ if base.__module__ != "builtins"]
        if not any(f"``{name}``" in text for text in texts):
            unnamed.append(entry.path)
    assert unnamed == []
    assert checked > 30


def test_a_missing_text_is_found() -> None:
    """A parameter that no text mentions."""
    entry = next(entry for entry in documented() if entry.path == "pythpeer.Session")
    assert "timeout" in entry.parameters
    without = entry._replace(text=re.sub(r"^ +timeout:.*", "", entry.text, flags=re.MULTILINE))
    assert (entry.unexplained, without.unexplained) == ([], ["timeout"])


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A page or a heading that does not exist, and anything that is loaded from another host."""
    (tmp_path / "a.html").write_text(
        '<h1 id="top"><a href="b.html#end"><a href="c.html"><a href="#none"><a href="https://x.y">'
        '<img src="a.html"><link rel="stylesheet" href="https://fonts.example/x">'
    )
    (tmp_path / "b.html").write_text('<p id="end"><a href="a.html#top">')
    assert list(broken_links(tmp_path)) == [
        "a.html loads https://fonts.example/x",
        "a.html links to c.html, which does not exist",
        "a.html links to #none, a heading that does not exist",
    ]


def test_an_address_from_the_root_of_the_server_is_found(tmp_path: Path) -> None:
    """It is wrong where the site is in a folder of the server."""
    (tmp_path / "404.html").write_text('<link rel="icon" href="/icon.png"><a href="/404.html">')
    problems = list(broken_links(tmp_path))
    for target in ("/icon.png", "/404.html"):
        assert (
            f"404.html refers to {target}, which is wrong where the site is in a folder" in problems
        )


def test_source_code_in_the_search_is_found(tmp_path: Path) -> None:
    """Only in the reference: a page may contain the same words."""
    texts = {
        "reference/a.html#b": "Text Source code in <code>b.py</code> <pre>",
        "reference/a.html#c": "Text",
        "faq.html": "Source code in",
    }
    items = [{"location": location, "text": text} for location, text in texts.items()]
    (tmp_path / "search.json").write_text(json.dumps({"items": items}), encoding="utf-8")
    assert list(searched_sources(tmp_path)) == [
        "the search finds the source code of reference/a.html#b"
    ]


def test_what_a_page_lacks_is_found(tmp_path: Path) -> None:
    """A text of a member or a parameter, the value of a default; and an internal member."""
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "page.html").write_text(
        '<h2 id="pythpeer.merge"><div class="doc-contents"><p>Merge <em>streams</em></p>'
        '<h2 id="pythpeer.split_text"><div class="doc-contents"><p>Split <em>text</em></p>'
        '<h2 id="pythpeer.Gap.after"><div class="doc-contents">'
        '<h2 id="pythpeer.Stream.pop">'
        '<h2 id="pythpeer.Session">Session(*, <b>a</b>: str = KEY, b: Retry = Retry(),\n'
        " c: int = 1,"
        ' d: str = msgspec.field(name="by"))'
        f'<h2 id="pythpeer.Mail">Mail({"id: <b>int</b>, " * 12})'
        '<h2 id="pythpeer.User">User(\n    id: <b>int</b> = 0,\n    username: str,\n    raw: dict)'
    )
    problems = list(missing_names(tmp_path))
    for path in ("pythpeer.merge", "pythpeer.split_text"):
        assert f"{path} has no text in the reference" not in problems
    assert "pythpeer.Gap.after has no text in the reference" in problems
    assert "the parameter limit of pythpeer.split_text has no text in the reference" in problems
    assert "the parameter text of pythpeer.split_text has no text in the reference" not in problems
    assert "pythpeer.Stream.pop is internal, but in the reference" in problems
    assert [problem for problem in problems if "default" in problem] == [
        "pythpeer.Session shows the default KEY, and not its value",
        "pythpeer.Session shows the default Retry(), and not its value",
        'pythpeer.Session shows the default msgspec.field(name="by"), and not its value',
    ]
    assert [problem for problem in problems if "not wrapped" in problem] == [
        "the signature of pythpeer.Mail is not wrapped"
    ]


def test_markup_that_is_not_rendered_is_found(tmp_path: Path) -> None:
    """In paragraphs; in a program or a command it is text."""
    page = "<p>!!! danger and [a](b.md)</p><pre>!!! c</pre><p><code>--8&lt;--</code> a] (b)</p>"
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    found = ["page.html shows !!! danger", "page.html shows ](b.md)"]
    assert list(unrendered(tmp_path)) == found


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("<p>avoid both.\n- <code>a</code> turns\n- b</p>", ["- code turns", "- b"]),
        ("<p>first\n2. second</p>", ["2. second"]),
        ("<p>| a | b |\n|---|---|</p>", ["| a | b |", "|---|---|"]),
        ("<li>b:\n<code>python\nimport a</code></li>", ["<code>python\n"]),
        ("<p>b:\n```python\nimport a</p>", ["```python"]),
        ("<p>a - b\n-c 3.5\n#4</p><pre>\n- a</pre><nav>\n1. A</nav><code>python a</code>", []),
    ],
)
def test_a_list_that_ends_early_is_found(page: str, shown: list[str], tmp_path: Path) -> None:
    """Its further items are lines of a paragraph, and its blocks of code are in one."""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert list(unrendered(tmp_path)) == [f"page.html shows {markup}" for markup in shown]


def test_the_repository_has_one_address() -> None:
    """That of the package and that of the pages, where there is one."""
    root = REFERENCE.parent.parent
    site = tomllib.loads((root / "zensical.toml").read_text(encoding="utf-8"))["project"]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert site.get("repo_url") == project.get("urls", {}).get("Repository")


def test_the_pages_show_the_version() -> None:
    """At their foot: that of the project."""
    root = REFERENCE.parent.parent
    site = tomllib.loads((root / "zensical.toml").read_text(encoding="utf-8"))["project"]
    assert site["copyright"] == f"pythpeer {pythpeer.__version__}, MIT licence"
    assert site["theme"]["font"] is False
