"""The checks of this project, as nox sessions: ``nox -l`` lists them, ``nox`` runs `check`.

Needs only Python 3.11 or newer and nox; if uv is installed (``pip install 'nox[uv]'``), the
environments are made in seconds. Pythons that are not installed are skipped, also under CI, and
listed in the last lines.
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

PARALLEL = ("lint", "words", "typing", "dist")
"""Sessions that `check` runs at the same time as the tests."""

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

UNITS = "not processes and not browser and not costly"
"""Expression of pytest's marks for the tests that neither wait nor take seconds."""

QUICK = ("-m", f"{UNITS} and not once", "-n", "logical")
"""Arguments of pytest for the tests that run on every Python."""

MEASURED = (
    *("-m", UNITS, "-n", str(CORES + 1)),
    "--ignore=tests/test_interrupts.py",
)
"""Arguments of pytest for the tests whose coverage is measured.

Those of interrupts are left out, too: they trace by themselves, and nothing is measured after them.
"""

WHOLE = ("-n", str(CORES + 2))
"""Arguments of pytest for all tests, on the Python that runs nox.

Tests of processes and of a browser wait for them half of the time: two more workers use it.
"""

COMPILED = {"UV_COMPILE_BYTECODE": "1"}
"""Variables for uv: it compiles once what otherwise each worker would compile at its start."""

PACKED = tuple(f"tests/test_{part}.py" for part in ("exports", "layers", "readme", "page"))
"""The tests that fail if a file is missing in the packages."""


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of one dependency group; pip before 25.1 has no ``--group``."""
    return nox.project.dependency_groups(PROJECT, name)


def reveal_pyenv() -> None:
    """Append the Pythons that pyenv has installed to ``PATH``.

    pyenv's shims are on ``PATH`` for all of them, but run only the selected ones; nox tries each
    candidate and skips a shim that does not run.
    """
    root = os.environ.get("PYENV_ROOT")
    if root is None:
        pyenv = shutil.which("pyenv")
        if pyenv is None:
            return
        output = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        root = output.stdout.strip()
    for version in PYTHONS:
        for directory in sorted(Path(root).glob(f"versions/{version}.*/bin")):
            os.environ["PATH"] += f"{os.pathsep}{directory}"


reveal_pyenv()

# Containers set it to stay small. Without the files each process compiles all modules again, and
# the tests start hundreds of processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

OTHERS = [version for version in PYTHONS if version != RUNNING]
"""The Pythons on which only the tests run whose result may differ."""

COVERED = next((v for v in reversed(OTHERS) if shutil.which(f"python{v}")), RUNNING)
"""The Python on which coverage is measured: the newest one that does not run all tests."""

TESTS = (
    f"tests-{RUNNING}",
    "coverage",
    *(f"tests-{version}" for version in OTHERS if version != COVERED),
)
"""Test sessions of `check`, one after the other."""

SUMMARY_LINES = 15
"""The last lines of a session that failed without a summary of pytest, which `check` repeats."""


class SessionResult(NamedTuple):
    """The result of a session, and its duration."""

    name: str
    result: str
    reason: str
    seconds: float


def start_nox(
    sessions: tuple[str, ...], report: Path, output: IO[str] | int
) -> subprocess.Popen[str]:
    """Start nox for these sessions, one after the other; their output is written to *output*."""
    command = [sys.executable, "-m", "nox", "--report", str(report), "-s", *sessions]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def print_lines(process: subprocess.Popen[str]) -> str:
    """Print what a process writes, line by line, until it ends, and return it."""
    lines: list[str] = []
    for line in process.stdout or ():
        sys.stderr.write(line)
        lines.append(line)
    return "".join(lines)


def failure_lines(name: str, output: str) -> list[str]:
    """Return the lines that pytest lists in a failed session; without any, its last lines."""
    _, _, started = output.partition(f"Running session {name}\n")
    lines = started.partition(f"Session {name} ")[0].splitlines()
    listed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return listed or lines[-SUMMARY_LINES:]


def read_report(report: Path) -> Iterator[SessionResult]:
    """Yield the result of each session; nothing if nox itself failed."""
    if report.exists():
        for entry in json.loads(report.read_text(encoding="utf-8"))["sessions"]:
            name, reason = entry["signatures"][0], entry["reason"] or ""
            yield SessionResult(name, entry["result"], reason, entry["duration"])


@nox.session(python=False)
def check(session: nox.Session) -> None:
    """Run the checks that a change must pass: style, words, types, tests, packages.

    The sessions that need one core run at the same time as the tests; their output is printed at
    the end. The last lines repeat what failed, because the output is long.
    """
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder, f"{name}.json") for name in ("tests", "parallel")]
        with Path(folder, "output").open("w+", encoding="utf-8") as file:
            parallel = start_nox(PARALLEL, reports[1], file)
            try:
                tests = start_nox(TESTS, reports[0], subprocess.PIPE)
                output = print_lines(tests)
                failed = tests.wait() | parallel.wait()
            finally:
                parallel.terminate()
                parallel.wait()
            file.seek(0)
            parallel_output = file.read()
        sys.stderr.write(parallel_output)
        results = [result for report in reports for result in read_report(report)]
    for name, result, _, seconds in results:
        session.log(f"{name:12} {result:8} {seconds:6.0f} s")
    for name, result, reason, _ in results:
        if result == "skipped":
            session.warn(f"NOT RUN: {name}: {reason}")
        elif result != "success":
            lines = failure_lines(name, output + parallel_output)
            session.warn("\n".join((f"FAILED: {name}", *lines)))
    if failed:
        session.error("at least one session failed")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting (ruff)."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=False)
def words(session: nox.Session) -> None:
    """Count rare words, and fail on a retired word; ``-- --report`` only prints."""
    session.run(sys.executable, "tests/words.py", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types strictly (mypy and pyright), and that all public types are annotated.

    Also of the programs of the pages, with the settings of a user: ``mypy --strict``.
    """
    session.install("-e", ".[cli,otel,redis]", *group("typing"))
    session.run("mypy")
    folder = session.create_tmp()
    session.run("python", "tests/page_programs.py", folder)
    session.run("mypy", "--strict", "--config-file=", folder)
    session.run("pyright")
    session.run("pyright", "--verifytypes", "pythpeer", "--ignoreexternal")


@nox.session(python=PYTHONS, download_python="never")
def tests(session: nox.Session) -> None:
    """Run the tests on each installed Python; arguments go to pytest.

    The Python that runs nox runs all tests; the others run those whose result may differ, without
    processes, a browser and tests that take seconds. Arguments replace this choice. If Chromium
    or Redis is missing, pytest's last lines report it.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"), env=COMPILED)
    chosen = WHOLE if session.python == RUNNING else QUICK
    session.run("python", "-m", "pytest", *(session.posargs or chosen))


@nox.session(python=COVERED, download_python="never")
def coverage(session: nox.Session) -> None:
    """Run tests with coverage, branches included, and report the lines that are not covered.

    `MEASURED` is most of the tests. From 3.14 on, the monitoring of the interpreter records
    branches, which takes a fraction of the time of tracing.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"), env=COMPILED)
    for stale in ROOT.glob(".coverage*"):
        stale.unlink()
    monitored = int(COVERED.removeprefix("3.")) >= 14
    core: dict[str, str] = {"COVERAGE_CORE": "sysmon"} if monitored else {}
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or MEASURED), env=core)
    session.run("coverage", "combine")
    session.run("coverage", "report")
    if not session.posargs:
        session.run("python", "-m", "pytest", "-n", "logical", "tests/test_interrupts.py")


@nox.session(name="tests-deep")
def tests_deep(session: nox.Session) -> None:
    """Run the tests with many examples for each property and every combination of cases.

    The seed is printed first; ``-- --hypothesis-seed=N`` repeats a run. Takes 15 to 60 minutes.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    chosen = any("hypothesis-seed" in argument for argument in session.posargs)
    seed = () if chosen else (f"--hypothesis-seed={int.from_bytes(os.urandom(4), 'big')}",)
    session.log(" ".join((*seed, *session.posargs)))
    session.run(
        *("python", "-m", "pytest", *WHOLE, *seed, *session.posargs),
        env={"HYPOTHESIS_PROFILE": "deep"},
    )


@nox.session
def chaos(session: nox.Session) -> None:
    """Run workers with random trouble for an hour; ``-- --minutes 3 --seed 7`` repeats a short run.

    Not part of `check`, because it takes that long. The seed is printed first.
    """
    session.install("-e", ".[redis]", *group("test"))
    session.run("python", "tests/chaos.py", *session.posargs)


@nox.session(reuse_venv=True)
def quick(session: nox.Session) -> None:
    """Run ruff and the unit tests of the files changed since the last commit: half a minute.

    Without a change, runs the unit tests of the last commit's files; arguments name modules.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"), *group("lint"))
    changed = session.posargs or changed_files("HEAD") or changed_files("HEAD~1")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    chosen = sorted(set(tests_of(changed)))
    if not chosen:
        session.warn("no unit test imports a changed module: " + " ".join(changed))
        return
    session.run("python", "-m", "pytest", "-q", "-m", UNITS, "-n", "logical", *chosen)


def changed_files(since: str) -> list[str]:
    """List the files that differ from a commit, and the untracked files."""
    commands = (
        ("git", "diff", "--name-only", since),
        ("git", "ls-files", "--others", "--exclude-standard"),
    )
    files: list[str] = []
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        files += done.stdout.splitlines()
    return files


def tests_of(changed: list[str]) -> Iterator[str]:
    """Yield the changed test modules, and those that import or are named like a changed module."""
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
    """Run the tests on the oldest supported Python with the oldest supported dependencies."""
    session.install("uv")
    # The package first, so that its oldest dependencies are not upgraded by the test group.
    uv_install = ("uv", "pip", "install", "--python", session.virtualenv.location)
    session.run(*uv_install, "--resolution", "lowest-direct", "-e", ".[cli,otel,redis]")
    session.run(*uv_install, *group("test"))
    session.run("uv", "pip", "list", "--python", session.virtualenv.location)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(name="tests-next")
def tests_next(session: nox.Session) -> None:
    """Run the tests with the newest aiohttp, anyio, msgspec and redis-py, pre-releases included.

    Not part of `check`, because a failure can be caused by one of them
    (docs/contributing/versions.md explains how to find the cause).
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    session.install("--pre", "--upgrade", "aiohttp", "anyio", "msgspec", "redis")
    session.run("python", "-m", "pip", "list", success_codes=[0, 1])
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, without a warning, and check it; ``-- serve`` serves it.

    The check: the reference has every public name, member and parameter with a text; and no page
    loads anything from another host, nor links to a page or a heading that does not exist.
    """
    session.install("-e", ".[otel,redis]", *group("docs"))
    if "serve" in session.posargs:
        session.run("zensical", "serve")
    else:
        session.run("zensical", "build", "--clean", "--strict")
        session.run("python", "tests/built_site.py", "site")


@nox.session(name="docs-faults")
def docs_faults(session: nox.Session) -> None:
    """Rewrite docs/faults.md from the fault table, which the tests check."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/fault_page.py")


@nox.session(name="docs-picture")
def docs_picture(session: nox.Session) -> None:
    """Take a new picture of the page of `pythpeer serve`; requires Chromium."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/page_picture.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments go to them."""
    session.install(".[cli,redis]", *group("bench"), *group("competitors"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Build sdist and wheel, and run the sdist's tests of the wheel's contents."""
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
        # Without the source folder only the wheel can provide the package.
        shutil.rmtree(source / "pythpeer")
        session.chdir(source)
        session.run("python", "-m", "pytest", *(session.posargs or PACKED))
