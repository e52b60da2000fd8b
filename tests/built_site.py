"""Checks the built documentation: ``built_site.py SITE``, as `nox -s docs` does after building.

It needs the package with all extras, but no tool of the documentation.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from public_api import INTERNAL, documented

TEXT: Final = re.compile(r"<p>\s*(<\w[^>]*>)*\w")
"""The beginning of a paragraph with a text."""

UNEVALUATED: Final = re.compile(r": [^=\n]+ = ([A-Z][A-Z_]+|\w+\(\)|msgspec\.field\(.*?\))(?=[,)])")
"""A default in a signature that names a constant, is a call without arguments, or describes a
field."""

MARKUP: Final = re.compile(r"!!! \w+|--8&lt;--|\]\([^)\s]*\)")
"""Markup of Markdown, anywhere in a line."""

FENCE: Final = re.compile(r"```\w*|<code>(?:python|console|ini|text)\n")
"""The beginning of a block of code that was not recognised, or treated as code within a line."""

PARAGRAPH: Final = re.compile(r"<p>(.*?)</p>", re.DOTALL)
"""The text of a paragraph."""

BLOCK_MARKUP: Final = re.compile(r"^[ \t]*((?:[-*+]|\d+[.)]|#+)[ \t]+.+|\|.*\|)$", re.MULTILINE)
"""A line of a paragraph that was meant as an item of a list, a heading, or a row of a table."""

MAX_SIGNATURE_LINE: Final = 90
"""Characters of a line of a signature. One that is not valid Python is not wrapped at all."""

LOADING: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""The attributes by which each element loads something; ``a`` only links to it."""

PASSIVE: Final = {"canonical", "alternate", "prev", "next"}
"""Relations of ``link`` elements that load nothing."""


# -- the reference --------------------------------------------------------------------------------


def missing_names(site: Path) -> Iterator[str]:
    """What the pages of the reference lack, and what they should not show."""
    sections: dict[str, str] = {}
    for page in (site / "reference").glob("*.html"):
        _, *parts = re.split(r'id="(pythpeer[\w.]*)"', page.read_text(encoding="utf-8"))
        sections |= dict(zip(parts[::2], parts[1::2], strict=True))
    for path, _, parameters in documented():
        section = sections.get(path, "")
        if not TEXT.search(section.partition("doc-contents")[2]):
            yield f"{path} has no text in the reference"
        for name in parameters:
            if not re.search(rf"<(code|em)>\**{name}</(code|em)>", section):
                yield f"the parameter {name} of {path} has no text in the reference"
    for path, section in sections.items():
        signature = unescape(re.sub("<[^>]*>", "", section.partition("doc-contents")[0]))
        for default in UNEVALUATED.findall(signature):
            yield f"{path} shows the default {default}, and not its value"
        if any(len(line) > MAX_SIGNATURE_LINE for line in signature.splitlines()):
            yield f"the signature of {path} is not wrapped"
        if ".".join(path.split(".")[-2:]) in INTERNAL:
            yield f"{path} is internal, but in the reference"


# -- links and what pages load --------------------------------------------------------------------


class Page(HTMLParser):
    """The anchors of a page, its links, and the addresses from which it loads something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        """The ids of its elements."""
        self.links: list[str] = []
        """The targets of its links."""
        self.loaded: list[str] = []
        """What it loads."""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADING and values.get("rel") not in PASSIVE and LOADING[tag] in values:
            self.loaded.append(values[LOADING[tag]])


def broken_links(site: Path) -> Iterator[str]:
    """The links to pages or headings of the site that do not exist, and foreign addresses."""
    pages: Mapping[Path, Page] = {
        path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for target in page.loaded:
            if urlsplit(target).netloc:
                yield f"{name} loads {target}"
        for target in (*page.loaded, *page.links):
            if target.startswith("/"):
                yield f"{name} refers to {target}, which is wrong where the site is in a folder"
        for target in page.links:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            other = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not other.exists():
                yield f"{name} links to {target}, which does not exist"
            elif other in pages and unquote(url.fragment) not in pages[other].anchors:
                yield f"{name} links to {target}, a heading that does not exist"


def unrendered(site: Path) -> Iterator[str]:
    """What pages show of the markup of Markdown.

    An extension is missing, or something in a list is indented by fewer than four spaces: it ends
    the list, and the next items become lines of its paragraph.
    """
    for path in site.rglob("*.html"):
        page = re.sub(r"<pre\b.*?</pre>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"<code\b.*?</code>", "code", page, flags=re.DOTALL)
        lines = "\n".join(PARAGRAPH.findall(text))
        for markup in (*FENCE.findall(page), *MARKUP.findall(text), *BLOCK_MARKUP.findall(lines)):
            yield f"{path.relative_to(site)} shows {markup}"


# -- the search -----------------------------------------------------------------------------------


def searched_sources(site: Path) -> Iterator[str]:
    """Entries of the search's index with source code, which would be found before the texts."""
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    assert any(entry["location"].startswith("reference/") for entry in index["items"])
    for entry in index["items"]:
        if entry["location"].startswith("reference/") and "Source code in" in entry["text"]:
            yield f"the search finds the source code of {entry['location']}"


def main(site: str) -> None:
    """Print what is wrong, and fail if there is anything."""
    checks = (missing_names, broken_links, unrendered, searched_sources)
    problems = [problem for check in checks for problem in check(Path(site))]
    print(f"{len(list(documented()))} public names and members; {len(problems)} problems")
    for problem in problems:
        print(f"  {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
