"""Every check of this project, as a nox session: ``nox -l`` lists them, ``nox`` runs the defaults.

Needs Python 3.11 or newer and nox, nothing else; with uv at hand the environments come quicker.
Pythons that this machine lacks are skipped, also under CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests", "coverage", "dist"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = nox.project.python_versions(PROJECT)
if RUNNING not in PYTHONS:
    PYTHONS.append(RUNNING)

QUICK = ("-m", "not processes and not browser and not costly", "-n", "logical")
"""What is run on every Python."""

SHARING = ("-m", "not processes and not browser", "-n", "logical")
"""What can share the machine with other tests: on the Python that runs nox, all of it."""

SLOW = ("-m", "processes or browser")
"""What is run after that on the same Python, by itself."""

PACKED = tuple(
    f"tests/test_{part}.py"
    for part in (
        "version",
        "exports",
        "layers",
        "readme",
        "cli",
        "pytest_plugin",
        "fake_services",
        "page",
    )
)
"""What would show that something was left out of the packages."""


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


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting (ruff)."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


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

    On the one that runs nox coverage is recorded, which doubles the time; on the others those that
    take long, processes of their own or a browser are left out, unless there are arguments. Where
    there is no Chromium, pytest's last lines say so.
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    if session.python != RUNNING:
        session.run("python", "-m", "pytest", *(session.posargs or QUICK))
        return
    runs = [session.posargs] if session.posargs else [SHARING, SLOW]
    data = ROOT / f".coverage.{session.name}"
    for stale in ROOT.glob(f"{data.name}.*"):
        stale.unlink()
    for run in runs:
        session.run("coverage", "run", "-m", "pytest", *run, env={"COVERAGE_FILE": str(data)})


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

    Not among the defaults: what fails here can be a fault of theirs (CONTRIBUTING.md says how to
    find out).
    """
    session.install("-e", ".[cli,otel,redis]", *group("test"))
    session.install("--pre", "--upgrade", "aiohttp", "anyio", "msgspec", "redis")
    session.run("python", "-m", "pip", "list", success_codes=[0, 1])
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Report what the tests session recorded, branches included: it has to be all."""
    session.install("coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")


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
    """Build sdist and wheel, and run against the wheel what looks at all of it."""
    session.install("build")
    built = ROOT / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(built))
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    with tempfile.TemporaryDirectory() as outside:
        shutil.unpack_archive(sdist, outside, filter="data")
        (source,) = Path(outside).iterdir()
        # From here on only the wheel can provide the package.
        shutil.rmtree(source / "pythpeer")
        environment = Path(outside, "environment")
        session.run("python", "-m", "venv", str(environment))
        python = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
        session.run(
            *(python, "-m", "pip", "install", "-q", f"{wheel}[cli,otel,redis]", *group("test")),
            external=True,
        )
        session.chdir(source)
        session.run(python, "-m", "pytest", *(session.posargs or PACKED), external=True)
