"""The house rules a formatter does not know: sizes, words, links, scripts, locks."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from podwire.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 6
NEVER_A_MODULE = frozenset(
    {"util", "utils", "common", "helper", "helpers", "base", "manager", "misc"}
)
SCRIPT_LINES = 70
"""One screen."""
OUR_OWN_FOLDERS = (".venv", ".tools", ".cache", ".git", "results", "build", "dist")


def tracked() -> list[Path]:
    """Every file of the project; by git where there is one, else all that is not made here."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [ROOT / name for name in listed.stdout.split("\0") if name]
        return [path for path in names if path.is_file()]
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(
            part in OUR_OWN_FOLDERS or part.endswith("_cache") or part == "__pycache__"
            for part in path.relative_to(ROOT).parts
        )
    ]


TRACKED = sorted(tracked())
SCRIPTS = [path for path in TRACKED if path.parent.name in {"scripts", "setup.d", ".ci"}]
PYTHON = [path for path in TRACKED if path.suffix == ".py"]
DOCUMENTS = [path for path in TRACKED if path.suffix == ".md"]


def length(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_a_file_stays_within_its_budget() -> None:
    assert [
        path for path in TRACKED if path.suffix in {".py", ".c"} and length(path) > FILE_LINES
    ] == []


def test_a_script_parses_and_fits_one_screen() -> None:
    for path in SCRIPTS:
        assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0, path
        assert length(path) <= SCRIPT_LINES, path


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_a_function_stays_within_its_budget() -> None:
    too_long = {
        f"{path}: {function.name}": lines
        for path in PYTHON
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    }
    assert too_long == {}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names, without self and cls."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in {"self", "cls"}]


def test_a_function_takes_few_parameters_or_a_record() -> None:
    """What has many because the kernel or a framework wants so says `noqa: PLR0913`."""
    too_many = [
        f"{path}: {function.name}"
        for path in PYTHON
        if ROOT / "src" in path.parents
        for function in functions(path)
        if len(parameters(function)) > PARAMETERS
        and "PLR0913" not in path.read_text().splitlines()[function.lineno - 1]
    ]
    assert too_many == []


def test_every_module_has_a_name_of_the_domain() -> None:
    assert [path for path in PYTHON if path.stem in NEVER_A_MODULE] == []


def test_test_modules_have_names_of_their_own() -> None:
    names = [path.stem for path in PYTHON if path.stem.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_values_of_the_model_are_frozen() -> None:
    for path in PYTHON:
        if "model" not in path.parts:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                for decorator in map(ast.unparse, node.decorator_list):
                    if decorator.startswith("dataclass"):
                        assert "frozen=True" in decorator, f"{path.name}: {node.name}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_table_exists(name: str) -> None:
    module = importlib.import_module(COMMANDS[name][0])
    assert isinstance(getattr(module, name.replace("-", "_")), click.Command)


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as Git hosts make them."""
    headings = HEADING.findall(FENCED.sub("", document.read_text()))
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def broken_links(path: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCED.sub("", path.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target)
        ):
            broken.append(link)
    return broken


def test_the_links_of_the_documents_resolve() -> None:
    assert {path: broken for path in DOCUMENTS if (broken := broken_links(path))} == {}


# Written in two halves, so that this file does not find itself.
OF_ONE_MACHINE = [
    "/" + "work/",
    "/" + "root/",
    "/" + "home/",
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "deb." + "debian.org",
]


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    found = [
        f"{path}: {words}"
        for path in TRACKED
        for words in OF_ONE_MACHINE
        if words in path.read_text(errors="replace")
    ]
    assert found == []


PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    """Package → version of a lock file."""
    text = (ROOT / name).read_text()
    assert text.count("==") <= text.count("--hash="), f"{name}: a package without a hash"
    return {canonicalize_name(package): version for package, version in PINNED.findall(text)}


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    wanted = [(text, runtime) for text in project["project"]["dependencies"]]
    wanted += [(text, dev) for text in project["dependency-groups"]["dev"]]
    extras = project["project"]["optional-dependencies"].values()
    wanted += [(text, dev) for texts in extras for text in texts]
    for requirement, lock in ((Requirement(text), lock) for text, lock in wanted):
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)])
    assert runtime.items() <= dev.items()
