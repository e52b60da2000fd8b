"""Every check of this project, as a nox session: ``nox -l`` lists them, ``nox`` runs `check`.

Needs Python 3.11 or newer and nox, nothing else; with uv at hand (``pip install 'nox[uv]'``) the
environments take seconds. Pythons that this machine lacks are skipped, also under CI, and named in
the last lines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["check"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = nox.project.python_versions(PROJECT)
if RUNNING not in PYTHONS:
    PYTHONS.append(RUNNING)

TESTS = ("coverage", *(f"tests-{version}" for version in PYTHONS if version != RUNNING))
"""What `check` runs: all tests once, with coverage, and on each other Python what may differ."""

BESIDE = ("lint", "typing", "dist")
"""What `check` runs beside the tests."""

QUICK = ("-m", "not processes and not browser and not costly and not once", "-n", "logical")
"""The tests that run on every Python."""

WHOLE = ("-n", "logical")
"""All tests, for the Python that runs nox."""

PACKED = tuple(
    f"tests/test_{part}.py" for part in ("version", "exports", "layers", "readme", "page")
)
"""The tests that fail where the packages lack a file."""


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of one dependency group; pip before 25.1 has no ``--group``."""
    return nox.project.dependency_groups(PROJECT, name)


def reveal_pyenv() -> None:
    """Append to ``PATH`` the Pythons that pyenv has installed.

    Its shims are on ``PATH`` for all of them but run only those that are selected; nox tries each
    candidate and passes over a shim that does not run.
    """
    root = os.environ.get("PYENV_ROOT")
    if root is None:
        pyenv = shutil.which("pyenv")
        if pyenv is None:
            return
        answer = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        root = answer.stdout.strip()
    for version in PYTHONS:
        for directory in sorted(Path(root).glob(f"versions/{version}.*/bin")):
            os.environ["PATH"] += f"{os.pathsep}{directory}"


reveal_pyenv()


class Ended(NamedTuple):
    """How a session ended, and how long it took."""

    name: str
    result: str
    reason: str
    seconds: float


def start_nox(
    sessions: tuple[str, ...], report: Path, output: IO[str] | None = None
) -> subprocess.Popen[str]:
    """Start nox for these sessions, one after the other; *output* takes what it prints."""
    command = [sys.executable, "-m", "nox", "--report", str(report), "-s", *sessions]
    return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, text=True)


def read_report(report: Path) -> Iterator[Ended]:
    """Yield how each session ended; none where nox itself failed."""
    if report.exists():
        for each in json.loads(report.read_text(encoding="utf-8"))["sessions"]:
            name = each["signatures"][0]
            yield Ended(name, each["result"], each["reason"] or "", each["duration"])


@nox.session(python=False)
def check(session: nox.Session) -> None:
    """Run all that a change must pass: lint, types, tests on each Python, coverage, packages.

    What needs one core runs beside the tests; its output is printed when it has ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder, f"{name}.json") for name in ("tests", "beside")]
        with Path(folder, "output").open("w+", encoding="utf-8") as output:
            beside = start_nox(BESIDE, reports[1], output)
            try:
                failed = start_nox(TESTS, reports[0]).wait()
                failed |= beside.wait()
            finally:
                beside.terminate()
                beside.wait()
            output.seek(0)
            shutil.copyfileobj(output, sys.stderr)
        ended = [each for report in reports for each in read_report(report)]
    for each in ended:
        session.log(f"{each.name:12} {each.result:8} {each.seconds:6.0f} s")
    for each in ended:
        if each.result == "skipped":
            session.warn(f"NOT RUN: {each.name}: {each.reason}")
    if failed:
        session.error("at least one session failed: its output is above")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting (ruff)."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=False)
def words(session: nox.Session) -> None:
    """Count rare words, and fail on a word that another replaced; ``-- --report`` prints only."""
    session.run(sys.executable, "tests/words.py", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types, strictly (mypy and pyright), and that nothing public is left to inference."""
    session.install("-e", ".[cli,otel,redis]", *group("typing"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "pythpeer", "--ignoreexternal")


@nox.session(python=PYTHONS, download_python="never")
def tests(session: nox.Session) -> None:
    """Run the tests on each Python that is here; arguments go to pytest.

    On the one that runs nox all of them; on the others those that could come out differently
    there, without processes, a browser and what takes seconds. Arguments replace this choice.
    Where there is no Chromium or Redis, pytest's last lines say so.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    chosen = WHOLE if session.python == RUNNING else QUICK
    session.run("python", "-m", "pytest", *(session.posargs or chosen))


@nox.session
def coverage(session: nox.Session) -> None:
    """Run all tests with coverage, branches included, and report what is not covered.

    On the Python that runs nox. From 3.14 on the interpreter's own monitoring records branches,
    which takes a fraction of the time that tracing takes.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    for stale in ROOT.glob(".coverage*"):
        stale.unlink()
    core: dict[str, str] = {"COVERAGE_CORE": "sysmon"} if sys.version_info >= (3, 14) else {}
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or WHOLE), env=core)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(name="tests-deep")
def tests_deep(session: nox.Session) -> None:
    """Run the tests with many examples for each property and every combination of cases.

    The seed is printed first; ``-- --hypothesis-seed=N`` repeats a run. Takes half an hour.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    chosen = any("hypothesis-seed" in argument for argument in session.posargs)
    seed = () if chosen else (f"--hypothesis-seed={int.from_bytes(os.urandom(4), 'big')}",)
    session.log(" ".join((*seed, *session.posargs)))
    session.run(
        *("python", "-m", "pytest", *WHOLE, *seed, *session.posargs),
        env={"HYPOTHESIS_PROFILE": "deep"},
    )


@nox.session(reuse_venv=True)
def quick(session: nox.Session) -> None:
    """Run ruff and the unit tests of what has changed since the last commit: half a minute.

    Without a change, the unit tests of the last commit's files; arguments name modules instead.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"), *group("lint"))
    changed = session.posargs or changed_files("HEAD") or changed_files("HEAD~1")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    chosen = sorted(set(tests_of(changed)))
    if not chosen:
        session.warn("no unit test names what has changed: " + " ".join(changed))
        return
    marks = "not processes and not browser and not costly"
    session.run("python", "-m", "pytest", "-q", "-m", marks, "-n", "logical", *chosen)


def changed_files(since: str) -> list[str]:
    """List the files that differ from a commit, and those that git does not know yet."""
    commands = (
        ("git", "diff", "--name-only", since),
        ("git", "ls-files", "--others", "--exclude-standard"),
    )
    found: list[str] = []
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found += done.stdout.splitlines()
    return found


def tests_of(changed: list[str]) -> Iterator[str]:
    """Yield the test modules that were changed, or that name or import a changed module."""
    sources = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py")}
    for file in map(Path, changed):
        module = file.parent.name if file.stem == "__init__" else file.stem
        pattern = re.compile(rf"^(from|import) [\w. ]*\b{re.escape(module)}\b", re.MULTILINE)
        for path, source in sources.items():
            named = path.stem in (file.stem, f"test_{module}")
            if named or (file.suffix == ".py" and pattern.search(source)):
                yield str(path.relative_to(ROOT))


@nox.session(name="tests-floor", python=PYTHONS[0], download_python="never")
def tests_floor(session: nox.Session) -> None:
    """Run the tests on the oldest Python with the oldest dependencies that are promised to work."""
    session.install("uv")
    # The package first: what it brings is then old enough for it, and is left alone by the rest.
    uv_install = ("uv", "pip", "install", "--python", session.virtualenv.location)
    session.run(*uv_install, "--resolution", "lowest-direct", "-e", ".[cli,otel,redis]")
    session.run(*uv_install, *group("test"))
    session.run("uv", "pip", "list", "--python", session.virtualenv.location)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(name="tests-next")
def tests_next(session: nox.Session) -> None:
    """Run the tests with the newest aiohttp, anyio, msgspec and redis-py, pre-releases included.

    Not among the defaults: what fails here can be a fault of theirs (docs/contributing/versions.md explains how
    to find out).
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    session.install("--pre", "--upgrade", "aiohttp", "anyio", "msgspec", "redis")
    session.run("python", "-m", "pip", "list", success_codes=[0, 1])
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, without a warning; ``-- serve`` shows it as you write."""
    session.install("-e", ".", *group("docs"))
    if "serve" in session.posargs:
        session.run("zensical", "serve")
    else:
        session.run("zensical", "build", "--clean", "--strict")


@nox.session(name="docs-faults")
def docs_faults(session: nox.Session) -> None:
    """Write docs/faults.md anew from the fault table, to which the tests hold the code."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/fault_page.py")


@nox.session(name="docs-picture")
def docs_picture(session: nox.Session) -> None:
    """Take the picture of the page of `pythpeer serve` anew; it takes Chromium."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/page_picture.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments go to them."""
    session.install(".[redis]", *group("bench"), *group("rivals"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Build sdist and wheel, and run the tests of the sdist that look at all of the wheel."""
    session.install("build[uv]")
    built = ROOT / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(built))
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    session.install(f"{wheel}[cli,otel,redis]", *group("test"))
    with tempfile.TemporaryDirectory() as outside:
        shutil.unpack_archive(sdist, outside, filter="data")
        (source,) = Path(outside).iterdir()
        # From here on only the wheel can provide the package.
        shutil.rmtree(source / "pythpeer")
        session.chdir(source)
        session.run("python", "-m", "pytest", *(session.posargs or PACKED))
