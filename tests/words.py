"""The word counter: ``python tests/words.py [--report]``, or ``nox -s words``.

Splits the identifiers of the project, and its prose, into words. Prints how many words of the
identifiers are rare, that is, in none of two lists: the words that identifiers of well-known
libraries use (``field_words.txt``, written by ``field_words.py``), and those of this project's
subject (``own_words.txt``). Prints how often the prose uses words of certain kinds. Fails where a
word or a phrase occurs that `RETIRED` replaces by another; with ``--report`` it prints them only.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
FIELD_WORDS: Final = Path(__file__).with_name("field_words.txt")
OWN_WORDS: Final = Path(__file__).with_name("own_words.txt")

SHORTEST: Final = 3
"""Letters of a word that is counted; shorter ones are abbreviations and loop variables."""

SHOWN: Final = 60
"""Rare words in the report."""

SHOWN_LOCATIONS: Final = 3
"""Locations of each rare word in the report."""

AREAS: Final = {
    "package": ("pythpeer/**/*.py", "pythpeer/**/*.lua", "pythpeer/**/*.js"),
    "tests": ("tests/**/*.py",),
    "benchmarks": ("benchmarks/**/*.py",),
    "tools": ("noxfile.py", "griffe_extension.py", "pyproject.toml", "zensical.toml"),
    "documents": (
        "*.md",
        "docs/**/*.md",
        "docs/*.svg",
        "pythpeer/**/*.html",
        "docs_theme/**/*.html",
    ),
}
"""Which files belong to which part of the project."""


# -- what the charter retired ---------------------------------------------------------------------


class Retired(NamedTuple):
    """A word or phrase that is not used any more, and what takes its place."""

    pattern: str
    """A regular expression for whole words in any case; a blank is any white space, or ``_``."""

    instead: str
    names: bool = True
    """Whether identifiers are searched, after they were split into words."""

    prose: bool = True
    """Whether docstrings, comments, documents and the package's texts are searched."""


RETIRED: Final = (
    # Persons.
    Retired(r"whom?(so)?ever", "the noun: the caller, a waiter, another process, the user"),
    Retired(r"nobody", "no caller, no process, anonymous; or the passive"),
    Retired(r"somebody", "the noun: a caller, a user, another process"),
    Retired(r"those who|one who", "the noun: callers, waiters, users"),
    Retired(r"look(s|ed|ing)? on|onlookers?", "hooks, observers"),
    Retired(r"askers?", "owner, client, caller"),
    # Speech.
    Retired(r"(is|are|was|were|be|been|being|gets?) told(?! apart)", "is notified; receives"),
    Retired(r"told", "listener, future, reported, notified", prose=False),
    Retired(r"untold|unsaid", "outbox, pending, unreported"),
    Retired(r"hear(s|d|ing)? of|ears?", "is notified, receives the event; log handler, probe"),
    Retired(r"without a (word|murmur)", "silently"),
    Retired(r"(say|says|said|saying) no|clear no", "returns an error, rejects"),
    Retired(r"in (its|their) own words", "with an error message"),
    Retired(r"the news|no news|(has|have|had) news", "new entries, an append; nothing changed"),
    Retired(r"news", "notifier, append, events", prose=False),
    Retired(r"stir(s|red|ring)?", "wake up, notify"),
    # Parts of a building.
    Retired(r"houses?", "package"),
    Retired(r"rooms?(?! for)", "module; in tests: source, service"),
    Retired(r"floors|(on|of|from|which|its) floor|floor (table|number)", "layer; oldest versions"),
    Retired(r"shelf|shelves", "log state"),
    Retired(r"gates?", "pacing backend"),
    Retired(r"knock(s|ed|ing)?", "connectivity check"),
    Retired(r"hold on a log", "handle"),
    # Courts.
    Retired(r"laws?|lawful", "invariant, rule; default rates"),
    Retired(r"verdicts?|guilty", "result, status, analysis"),
    Retired(r"judge(s|d)?|judging", "check, request checker; analyse, classify"),
    # Life and death: alive and dead stay.
    Retired(r"pulses?", "heartbeat"),
    Retired(r"signs? of life", "heartbeat"),
    Retired(r"bury|buries|buried|burying", "report dead"),
    Retired(r"punish(es|ed|ing|ment)?", "throttled"),
    Retired(r"praise(s|d)?|praising", "success"),
    Retired(r"poison(s|ed|ing)?", "undecodable"),
    # Hands.
    Retired(r"in hand", "outstanding (permit, token), pending, unacknowledged"),
    Retired(r"(put|puts|putting|written|wrote|write|writes) down", "stored, appended, recorded"),
    Retired(r"noted", "stored, recorded"),
    Retired(r"let(s|ting)? go", "release, cancel, close"),
    Retired(r"(give|gives|gave|given|giving) back", "release"),
    Retired(r"steps? back", "release the lease"),
    Retired(r"owed", "undelivered"),
    # Travel and waiting.
    Retired(r"adrift", "may be incomplete"),
    Retired(r"homeless", "without a position"),
    Retired(r"needy", "needs a poll"),
    Retired(r"sent elsewhere", "moved by seek"),
    Retired(r"the way of an?", "request lifecycle, message flow"),
    Retired(r"places?", "position; or the thing: file, URL, offset", prose=False),
    Retired(r"latecomers?", "out of order"),
    Retired(r"(sit|sits|sitting|sat) out", "back off"),
    Retired(r"patience", "..._TIMEOUT, MAX_...", prose=False),
    # One word for one concept.
    Retired(r"drafts?", "new entry"),
    Retired(r"holes?|strays?", "undecodable (entry); without id; stray: unexpected"),
    Retired(r"surveys?", "snapshot"),
    Retired(r"habits?", "quirk"),
    Retired(r"folds?|folded|folding", "checkpoint"),
    Retired(r"announce(s|d|ments?)?|announcing", "fetch intent, begin a fetch, pending fetch"),
    Retired(r"withdraw(s|n|ing|al)?|withdrew", "cancel a fetch"),
    Retired(r"settle(s|d|ment)?|settling|unsettled", "complete, lost; recover; allocate; flush"),
    Retired(r"in doubt", "lost, outcome unknown"),
    Retired(r"consuming reads?", "destructive read"),
    Retired(r"the lead", "the lease"),
    Retired(r"retires?|retiring", "release the lease"),
    Retired(r"at will", "unlimited, without a rate limit"),
    # Phrases.
    Retired(r"(go|goes|going|went|gone) on", "continue, resume, keep"),
    Retired(r"at once", "immediately; or: at the same time"),
    Retired(r"beside", "next to, in addition to, compared with"),
    Retired(r"as (it|they) (was|were|came)", "unchanged, raw"),
    Retired(r"what (becomes?|became|comes?|came|has become) of", "the result of, the outcome of"),
    Retired(r"for ever", "indefinitely"),
    Retired(r"for good(?! reason)", "permanently"),
    Retired(r"all the same", "still, nevertheless"),
    Retired(r"in turn|(take|takes|took|taking) turns", "alternately, one at a time"),
    Retired(r"documented nowhere|no document says", "undocumented"),
    Retired(r"meanwhile", "concurrently, in the meantime"),
    Retired(r"(that|which) (is|are|was|were) (?-i:none)", "not a valid ...", names=False),
    Retired(r"taken for", "treated as"),
    Retired(r"of account|makes? no odds", "counts; does not matter"),
    Retired(r"look(s|ed|ing)? past", "ignore"),
    Retired(r"mined for", "extracted"),
    Retired(r"may turn out", "both variants are supported"),
    Retired(r"to be had", "available"),
    Retired(r"(who|which) is early", "an early request"),
    Retired(r"(come|comes|came) (late|again|twice)", "out of order; redelivered; duplicated"),
    Retired(r"(grew|grow|grows|grown) from", "the cause and the context"),
)
"""What the naming charter replaces, by family."""

VAGUE_CONSTANT: Final = re.compile(
    r"_?(MOST|LONGEST|LARGEST|OLDEST|DEEPEST|PATIENCE|MOMENTS?|GLANCE|LOOK|BEAT|FEW|FAR|NEAR|SOON"
    r"|HOLD|LATE)"
)
"""Names of constants that say neither which limit nor of what."""

VAGUE_INSTEAD: Final = "MAX_..., ..._TIMEOUT, ..._INTERVAL, ..._SIZE"


VAGUE_NAME: Final = re.compile(r"each|one|found|known|many|more|what|where|who|whose")
"""Names of variables that do not name the thing; they are counted only."""


class Allowed(NamedTuple):
    """Where a retired word stays."""

    pattern: str
    """One of `RETIRED`'s."""

    file: str
    """A path below the project, or a pattern of paths."""

    text: str
    """A regular expression that the identifier, or the line, must match; empty: all in the file."""

    reason: str


ALLOWED: Final = (
    Allowed(
        r"announce(s|d|ments?)?|announcing",
        "pythpeer/stores/sqlite/*.py",
        r"(FROM|INTO|TABLE|UPDATE) announcement\b",
        "the name of a table is stored",
    ),
    Allowed(
        r"settle(s|d|ment)?|settling|unsettled",
        "pythpeer/stores/sqlite/*.py",
        r"\bsettled (=|INTEGER|FROM)",
        "the name of a column is stored",
    ),
    Allowed(
        r"latecomers?",
        "pythpeer/stores/sqlite/*.py",
        r"\blatecomers? (=|INTEGER|FROM|ON|LIMIT)|, latecomers?\)",
        "the names of columns and of an index are stored",
    ),
    Allowed(
        r"nobody",
        "pythpeer/testing/scenes.py",
        "",
        "what the people of the demo say in the chat is data",
    ),
    Allowed(
        r"rooms?(?! for)",
        "pythpeer/doctor/redact.py",
        r"\brole room rooms\b",
        "names of fields that a service may use are data",
    ),
    Allowed(
        r"floors|(on|of|from|which|its) floor|floor (table|number)",
        "pyproject.toml",
        r"Low floors",
        "the oldest versions of dependencies",
    ),
    *(
        Allowed(pattern, file, text, "the old name of a public one, kept for one version")
        for file, texts in {
            "*stores*deprecated.py": {
                r"in hand": r"^in_hand$",
                r"drafts?": r"^drafts$",
                r"surveys?": r"^survey$",
                r"announce(s|d|ments?)?|announcing": r"^(announced?|announcement)$",
                r"places?": r"^place$",
                r"withdraw(s|n|ing|al)?|withdrew": r"^withdraw$",
                r"settle(s|d|ment)?|settling|unsettled": r"^(un)?settled$",
                r"retires?|retiring": r"^retire$",
                r"news": r"^news$",
            },
            "pythpeer/testing/__init__.py": {
                r"habits?": r"^Habit(s|Options)$",
                r"laws?|lawful": r"^LAW$",
            },
            "pythpeer/testing/fake.py": {r"habits?": r"^habits$"},
            "tests/test_deprecated_names.py": {r"habits?": r"`habits` is `quirks`"},
            "CHANGELOG.md": {
                r"in hand": r"`Limiter.in_hand`",
                r"drafts?": r"`Draft` is `NewEntry`",
                r"surveys?": r"`Survey` is `StoreSnapshot`",
                r"announce(s|d|ments?)?|announcing": r"`Log.announce\(\)` is `begin_fetch\(\)`",
                r"habits?": r"`Habits` is `Quirks`",
                r"laws?|lawful": r"`LAW` is `DEFAULT_RATES`",
            },
        }.items()
        for pattern, text in texts.items()
    ),
    Allowed(
        r"patience",
        "pythpeer/stores/redis/store.py",
        r"^patience$",
        "a public argument of the constructor",
    ),
    Allowed(
        r"patience",
        "pythpeer/testing/virtual.py",
        r"^patience$",
        "a public argument of the constructor",
    ),
    Allowed(
        r"surveys?",
        "pythpeer/cli/top/command.py",
        r'"survey"',
        "the kind of a JSON row, which programs read: a row cannot have two kinds",
    ),
    Allowed(
        r"surveys?",
        "docs/command-line.md",
        r"`survey`",
        "the kind of a JSON row, which programs read: a row cannot have two kinds",
    ),
    Allowed(
        r"announce(s|d|ments?)?|announcing",
        "pythpeer/stores/redis/lua/_common.lua",
        r"^FETCHES +announced:",
        "the name of a Redis key is stored",
    ),
    Allowed(
        r"nobody",
        "docs/how-to/workers.md",
        r"^\{pythpeer:main\}:log:\S+ \S+ nobody$",
        "the name of the service's account without a key is stored in Redis keys",
    ),
    Allowed(
        r"in hand",
        "*limiter.py",
        r"\bin_hand\b",
        "the old name of a public property, kept for one version",
    ),
)
"""The exceptions; one that excuses nothing is reported, so that none outlives its reason."""


# -- reading --------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A text of a file, and the line on which it starts."""

    text: str
    line: int


class Source(NamedTuple):
    """One file, read."""

    file: str
    area: str
    names: tuple[Piece, ...]
    """Every identifier that the file defines, and its module's name, once for each definition."""

    prose: tuple[Piece, ...]
    """Docstrings and comments, or the whole of a document."""

    texts: tuple[Piece, ...] = ()
    """String literals."""


WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
CODE_BLOCK: Final = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
CODE: Final = re.compile(r"(`+)[^`]+\1|https?://\S+|<[^<>\n]+>")
PROSE_WORD: Final = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
DIRECTIVE: Final = re.compile(r"#!|# ?(noqa|type:|pyright:|mypy:|fmt:|ruff:|pragma)")


def split_name(name: str) -> list[str]:
    """Return the words of an identifier, in lower case: ``_readAll_HTTPError2`` has four."""
    return [word.lower() for word in WORD.findall(name)]


def split_prose(text: str) -> list[str]:
    """Return the words of a text, in lower case, without code and addresses."""
    return [word.lower() for word in PROSE_WORD.findall(CODE.sub(" ", CODE_BLOCK.sub(" ", text)))]


def defined_names(tree: ast.AST) -> Iterator[Piece]:
    """Yield every name that Python code defines: what it only uses is named by others."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield Piece(name, line)
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield Piece(name, line)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield Piece(name, line)
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield Piece(name, line)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield Piece(name, line)
            case _:
                pass


def comments(text: str) -> Iterator[Piece]:
    """Yield the comments of Python code; those on adjacent lines are one."""
    block, start_line, last = "", 0, -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        comment, line = token.string.lstrip("#"), token.start[0]
        if line == last + 1:
            block += "\n" + comment
        else:
            if block:
                yield Piece(block, start_line)
            block, start_line = comment, line
        last = line
    if block:
        yield Piece(block, start_line)


def read_python(file: str, area: str, text: str) -> Source:
    """Read a Python module: definitions, docstrings of all kinds, comments, literals."""
    tree = ast.parse(text)
    docstrings: dict[int, Piece] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(words)) as value):
                docstrings[id(value)] = Piece(words, value.lineno)
            case _:
                pass
    literals = (
        Piece(node.value, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    )
    return Source(
        file,
        area,
        (module_name(file), *sorted(defined_names(tree), key=attrgetter("line"))),
        (*docstrings.values(), *comments(text)),
        tuple(literals),
    )


def module_name(file: str) -> Piece:
    """The name of a module; of a package's ``__init__`` that of its directory."""
    path = Path(file)
    return Piece(path.parent.name if path.stem == "__init__" else path.stem, 1)


LUA_NAMES: Final = re.compile(
    r"\blocal\s+(?!function\b)([\w, \t]+)|\bfunction\b\s*([\w.:]*)\s*\(([\w, ]*)\)"
    r"|\bfor\s+([\w, ]+?)\s+in\b|\bfor\s+(\w+)\s*="
)
LUA_COMMENT: Final = re.compile(r"(?:^[ \t]*--.*\n?)+|--.*", re.MULTILINE)
LUA_LITERAL: Final = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")

JS_NAMES: Final = re.compile(
    r"\b(?:class|const|let|var)\s+(\w+)|\bfunction\b\s*(\w*)\s*\(([\w, ]*)\)"
    r"|\(([\w, ]*)\)\s*=>|\b(\w+)\s*=>"
)
JS_COMMENT: Final = re.compile(r"(?:^[ \t]*//.*\n?)+|(?<!:)//.*|/\*[\s\S]*?\*/", re.MULTILINE)
JS_LITERAL: Final = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`]*`")

TOML_COMMENT: Final = re.compile(r"(?:^[ \t]*#.*\n?)+|(?<= )# .*", re.MULTILINE)


MARKUP: Final = re.compile(r"<style.*?</style>|<script.*?</script>|<[^<>]*>", re.DOTALL)


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return a text with what a pattern finds made blank, line by line: no line moves."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def line_of(text: str, offset: int) -> int:
    """Return the number of the line on which an offset lies, from 0."""
    return text.count("\n", 0, offset)


def read_script(
    file: str, area: str, text: str, patterns: tuple[re.Pattern[str], re.Pattern[str], str]
) -> Source:
    """Read a Lua or JavaScript file; patterns find names and comments, a string marks those."""
    names_pattern, comment_pattern, mark = patterns
    prose = tuple(
        Piece(match.group().replace(mark, " " * len(mark)), line_of(text, match.start()) + 1)
        for match in comment_pattern.finditer(text)
    )
    literal_pattern = LUA_LITERAL if mark == "--" else JS_LITERAL
    code = blanked(literal_pattern, blanked(comment_pattern, text))
    names = tuple(
        Piece(name, line_of(code, match.start()) + 1)
        for match in names_pattern.finditer(code)
        for group in match.groups()
        if group is not None
        for name in re.findall(r"\w+", group)
    )
    return Source(file, area, (module_name(file), *names), prose)


def read_toml(file: str, area: str, text: str) -> Source:
    """Read the comments of a TOML file."""
    prose = (
        Piece(match.group().replace("#", " "), line_of(text, match.start()) + 1)
        for match in TOML_COMMENT.finditer(text)
    )
    return Source(file, area, (), tuple(prose))


def read_source(file: str, area: str, text: str) -> Source:
    """Read one file, by its kind."""
    match Path(file).suffix:
        case ".py":
            return read_python(file, area, text)
        case ".lua":
            return read_script(file, area, text, (LUA_NAMES, LUA_COMMENT, "--"))
        case ".js":
            return read_script(file, area, text, (JS_NAMES, JS_COMMENT, "//"))
        case ".toml":
            return read_toml(file, area, text)
        case ".html" | ".svg":
            return Source(file, area, (), (Piece(blanked(MARKUP, text), 1),))
        case _:
            return Source(file, area, (), (Piece(text, 1),))


def read_project(root: Path) -> list[Source]:
    """Read every file of the project that has identifiers or prose."""
    return [
        read_source(path.relative_to(root).as_posix(), area, path.read_text(encoding="utf-8"))
        for area, patterns in AREAS.items()
        for pattern in patterns
        for path in sorted(root.glob(pattern))
        if "__pycache__" not in path.parts
    ]


# -- counting -------------------------------------------------------------------------------------

KINDS: Final = {
    "person words (whoever, nobody, somebody, those who, ...)": re.compile(
        r"\b(whoever|whomever|nobody|somebody|someone|anybody|those who|one who|who looks? on)\b"
    ),
    "tell, told, say, said": re.compile(r"\b(tell|tells|told|say|says|said)\b"),
    "must, should": re.compile(r"\b(must|should)\b"),
    "return, returns": re.compile(r"\breturns?\b"),
    "because, since": re.compile(r"\b(because|since)\b"),
}
"""Kinds of words whose share tells how plain the prose is."""


def read_words(path: Path) -> frozenset[str]:
    """Return the words of a list, without the lines that begin with ``#``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def count_words(sources: Iterable[Source]) -> Counter[str]:
    """Count the words in the identifiers that are defined."""
    return Counter(
        word
        for source in sources
        for name in source.names
        for word in split_name(name.text)
        if len(word) >= SHORTEST
    )


def forms(word: str) -> Iterator[str]:
    """Yield a word, and what it may be an inflection of: ``rates`` of ``rate``."""
    yield word
    yield word + "s"
    for ending in ("s", "es", "ed", "ing"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= SHORTEST:
            yield stem
            yield stem + "e"
            if stem[-1] == stem[-2]:
                yield stem[:-1]
    for ending in ("ies", "ied"):
        if word.endswith(ending):
            yield word.removesuffix(ending) + "y"


def rare_words(counted: Counter[str], known: frozenset[str]) -> Counter[str]:
    """Return those words, with their counts, that are not known in any form."""
    return Counter(
        {word: count for word, count in counted.items() if known.isdisjoint(forms(word))}
    )


def is_test(name: Piece) -> bool:
    """Whether this names a test: a sentence and not a term."""
    return name.text.startswith("test_")


def without_tests(source: Source) -> Source:
    """Return a source without the names of its tests."""
    return source._replace(names=tuple(name for name in source.names if not is_test(name)))


def per_ten_thousand(pattern: re.Pattern[str], sources: Iterable[Source]) -> float:
    """Return how often a pattern occurs in 10,000 words of docstrings, comments and documents."""
    words = [split_prose(piece.text) for source in sources for piece in source.prose]
    count = sum(len(pattern.findall(" ".join(piece))) for piece in words)
    return 10_000 * count / (sum(map(len, words)) or 1)


def locations_of(word: str, sources: Iterable[Source]) -> Iterator[str]:
    """Yield where identifiers with this word are defined: ``file:line name``."""
    for source in sources:
        for name in source.names:
            if word in split_name(name.text):
                yield f"{source.file}:{name.line} {name.text}"


# -- searching ------------------------------------------------------------------------------------


class Hit(NamedTuple):
    """A retired word that occurs."""

    file: str
    line: int
    text: str
    retired: str
    """The pattern."""

    instead: str


def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of `RETIRED`: for whole words, also next to an underscore."""
    blanks = pattern.replace(" ", r"[\s_]+")
    return re.compile(rf"(?<![^\W_])(?:{blanks})(?![^\W_])", re.IGNORECASE)


PATTERNS: Final = tuple((retired, compiled(retired.pattern)) for retired in RETIRED)


def find_in_names(source: Source) -> Iterator[tuple[Hit, str]]:
    """Yield the retired words in identifiers, with the identifier."""
    for text, line in source.names:
        spaced = " ".join(split_name(text))
        for retired, pattern in PATTERNS:
            if retired.names and pattern.search(spaced):
                yield Hit(source.file, line, text, retired.pattern, retired.instead), text
        if VAGUE_CONSTANT.fullmatch(text):
            yield Hit(source.file, line, text, VAGUE_CONSTANT.pattern, VAGUE_INSTEAD), text


def find_in_prose(source: Source) -> Iterator[tuple[Hit, str]]:
    """Yield the retired words in prose, with the lines around; in the package's texts as well.

    Of texts, those of more than one word: others are names. Texts of tests and benchmarks are data,
    or follow those of the package.
    """
    texts = (text for text in source.texts if source.area == "package" and " " in text.text)
    for text, line in (*source.prose, *texts):
        for retired, pattern in PATTERNS:
            for match in pattern.finditer(text) if retired.prose else ():
                start = text.rfind("\n", 0, match.start()) + 1
                end = text.find("\n", match.end())
                around = text[start : None if end < 0 else end].strip()
                at = line + line_of(text, match.start())
                shown = " ".join(match.group().split())
                yield Hit(source.file, at, shown, retired.pattern, retired.instead), around


def find_retired(
    sources: Iterable[Source], allowed: Sequence[Allowed] = ALLOWED
) -> tuple[list[Hit], list[Allowed]]:
    """Return what occurs although it is retired, and the exceptions that excuse nothing."""
    hits: list[Hit] = []
    used: set[Allowed] = set()
    for source in sources:
        here = [exception for exception in allowed if fnmatch(source.file, exception.file)]
        for hit, around in (*find_in_names(source), *find_in_prose(source)):
            exceptions = [e for e in here if e.pattern == hit.retired and re.search(e.text, around)]
            used.update(exceptions)
            if not exceptions:
                hits.append(hit)
    hits.sort()
    return hits, [exception for exception in allowed if exception not in used]


# -- the report -----------------------------------------------------------------------------------


def share_lines(
    sources: Sequence[Source], field: frozenset[str], own: frozenset[str]
) -> Iterator[str]:
    """Yield a table of the share of rare words, by area."""
    areas = {area: [source for source in sources if source.area == area] for area in AREAS}
    parts = {
        "package": areas["package"],
        "tests": areas["tests"],
        "tests, their own names apart": [without_tests(source) for source in areas["tests"]],
        "benchmarks": areas["benchmarks"],
        "all": sources,
        "all, names of tests apart": [without_tests(source) for source in sources],
    }
    yield "share: of the distinct words; uses: of all words; field: share without own_words.txt"
    head = ("words in identifiers", "distinct", "rare", "share", "uses", "field")
    yield "{:30}{:>9}{:>6}{:>8}{:>8}{:>8}".format(*head)
    for part, chosen in parts.items():
        counted = count_words(chosen)
        rare = rare_words(counted, field | own)
        share = len(rare) / (len(counted) or 1)
        uses = rare.total() / (counted.total() or 1)
        outside = len(rare_words(counted, field)) / (len(counted) or 1)
        yield f"{part:30}{len(counted):9}{len(rare):6}{share:8.1%}{uses:8.1%}{outside:8.1%}"


def rate_lines(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a table of how often the kinds of words occur in prose."""
    code = [source for source in sources if source.area != "documents"]
    package = [source for source in code if source.area == "package"]
    documents = [source for source in sources if source.area == "documents"]
    yield f"{'in 10,000 words of prose':58}{'package':>9}{'code':>8}{'documents':>11}"
    for kind, pattern in KINDS.items():
        rates = (per_ten_thousand(pattern, part) for part in (package, code, documents))
        yield "{:58}{:9.1f}{:8.1f}{:11.1f}".format(kind, *rates)
    vague = sum(
        VAGUE_NAME.fullmatch(name.text) is not None for source in code for name in source.names
    )
    yield f"{vague} definitions are called {VAGUE_NAME.pattern.replace('|', ', ')}"


def rare_lines(sources: Sequence[Source], known: frozenset[str]) -> Iterator[str]:
    """Yield the most frequent rare words with locations; names of tests come last."""
    terms = [without_tests(source) for source in sources]
    rare = rare_words(count_words(terms), known)
    yield f"the most frequent of {len(rare)} rare words in identifiers, names of tests apart"
    for word, count in sorted(rare.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]:
        locations = list(dict.fromkeys(locations_of(word, terms)))[:SHOWN_LOCATIONS]
        yield f"{word:16}{count:5}  {'; '.join(locations)}"


def retired_lines(hits: Iterable[Hit], unused: Iterable[Allowed]) -> Iterator[str]:
    """Yield every retired word that occurs, after a table of how often each does."""
    by_pattern: defaultdict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        by_pattern[hit.retired].append(hit)
    yield f"{sum(map(len, by_pattern.values()))} uses of retired words"
    for pattern, uses in sorted(by_pattern.items(), key=lambda item: -len(item[1])):
        yield f"{len(uses):6}  {pattern}  ->  {uses[0].instead}"
    for uses in by_pattern.values():
        for hit in uses:
            yield f"{hit.file}:{hit.line}: {hit.text!r}: write {hit.instead}"
    for exception in unused:
        described = f"{exception.pattern!r} in {exception.file}"
        yield f"tests/words.py: the exception {described} excuses nothing"


def main(arguments: Sequence[str]) -> int:
    """Print the report and return the exit code: 1 where a retired word occurs."""
    sources = read_project(ROOT)
    field, own = read_words(FIELD_WORDS), read_words(OWN_WORDS)
    hits, unused = find_retired(sources)
    sections = (
        share_lines(sources, field, own),
        rate_lines(sources),
        rare_lines(sources, field | own),
        retired_lines(hits, unused),
    )
    for section in sections:
        sys.stdout.write("\n".join(section) + "\n\n")
    return int(bool(hits or unused) and "--report" not in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
