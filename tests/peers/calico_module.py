"""Calico's own programs, built at test time from the module that Go's proxy serves (v3.28).

Nothing of Calico's lies in this repository. The published module of its API is older than the one
its programs were written for: calico_client/api/missing.go has what lacks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "calico_client"
CALICO = "github.com/projectcalico/calico@v1.11.0-cni-plugin.0.20250813170300-a0db560f0520"
API = "github.com/projectcalico/api@v0.0.0-20220722155641-439a754a988b"
GO = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
VERSION = "v3.28.5"
CTL = "github.com/projectcalico/calico/calicoctl/calicoctl"


def go(folder: Path, *words: str) -> str:
    """What a command of Go prints; a test is skipped where it cannot be run to its end."""
    command = ["go", *words]
    done = subprocess.run(command, cwd=folder, env=GO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join((done.stderr or done.stdout).split())
        pytest.skip(f"needs the Go modules of Calico: go {words[0]}: {told[-300:]}")
    return done.stdout


def module(folder: Path, name: str) -> Path:
    """Where the source of a module lies."""
    return Path(json.loads(go(folder, "mod", "download", "-json", name))["Dir"])


def prepare(folder: Path) -> None:
    """Make the folder a module in which Calico's packages can be built."""
    found = re.search(r"go1\.(\d+)", go_version())
    if found is None or int(found[1]) < 23:
        pytest.skip("needs Go 1.23 or later")
    (folder / "go.mod").write_text("module podwire.io/calico-client\n\ngo 1.23\n")
    calico, api = module(folder, CALICO), module(folder, API)
    # A module's replacements count only where it is built itself: they are taken from there.
    required = CALICO.replace("@", " ")
    wanted = (calico / "go.mod").read_text().partition("\n")[2]
    wanted = wanted.replace("require (", f"require (\n\t{required}", 1)
    (folder / "go.mod").write_text(f"module podwire.io/calico-client\n{wanted}")
    shutil.copy(calico / "go.sum", folder)
    shutil.copytree(api, folder / "api", copy_function=shutil.copyfile)
    for place in (folder / "api", *(folder / "api").rglob("*")):
        place.chmod(0o755)
    _complete(folder / "api" / "pkg" / "apis" / "projectcalico" / "v3")
    shutil.copy(HERE / "main.go", folder)


def _complete(kinds: Path) -> None:
    """Add the names that lack, and to each spec the fields of the struct Later… with its name."""
    missing = (HERE / "api" / "missing.go").read_text()
    later = re.findall(r"^type Later(\w+) struct", missing, re.MULTILINE)
    opening = re.compile(rf"^type ({'|'.join(later)}) struct {{$", re.MULTILINE)
    for path in kinds.glob("*.go"):
        path.write_text(opening.sub(r'\g<0>\n\tLater\1 `json:",inline"`', path.read_text()))
    (kinds / "missing.go").write_text(missing)


def go_version() -> str:
    """As `go version` tells it; empty where there is no Go."""
    if shutil.which("go") is None:
        return ""
    return subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout


def build_client(folder: Path) -> Path:
    """Our program around Calico's client library."""
    go(folder, "build", "-o", "calico-client", ".")
    return folder / "calico-client"


def build_calicoctl(folder: Path) -> Path:
    """Calico's command line."""
    names = (f"{CTL}/commands", f"{CTL}/commands/common")
    flags = " ".join(f"-X {name}.VERSION={VERSION}" for name in names)
    go(folder, "build", "-ldflags", flags, "-o", "calicoctl", CTL)
    return folder / "calicoctl"


def aliases(folder: Path) -> dict[str, list[str]]:
    """Kind in lower case → the words by which calicoctl knows it."""
    source = module(folder, CALICO) / "calicoctl" / "calicoctl" / "resourcemgr"
    lists = (
        re.search(r"\b(?:true|false),\s*\[\]string{([^}]*)}", path.read_text())
        for path in source.glob("*.go")
        if not path.stem.endswith("_test")
    )
    words = [re.findall(r'"([^"]+)"', found[1]) for found in lists if found is not None]
    return {kind: [kind, *others] for kind, *others in words}
