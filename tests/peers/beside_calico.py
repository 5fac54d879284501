"""We and Calico at one etcd: its client library, or its command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from podwire.model import codec
from tests.fakes.command_line import CommandLine
from tests.peers.every_kind import NAMESPACED

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.model.resource import Stored

BUILT_IN = "projectcalico-default-allow"
"""A profile that calicoctl shows though nothing of it is stored."""

Row = dict[str, str]


@dataclass
class Both:
    """One etcd, we and Calico at it."""

    store: Store
    endpoint: str
    program: Path

    def calico(self, *words: str) -> Any:
        command = [str(self.program), self.endpoint, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def write(self, *values: Stored) -> None:
        for value in values:
            self.store.create(codec.key_of(value), codec.encode(value))

    def keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.store.list(prefix).entries]


@dataclass
class TwoCommandLines:
    """calicoctl and podwire at one etcd."""

    store: Store
    endpoint: str
    program: Path

    @property
    def ours(self) -> CommandLine:
        return CommandLine(Path(), url=self.endpoint, store=self.store)

    def try_calicoctl(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.program), *words],
            env={**os.environ, "DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": self.endpoint},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calicoctl(self, *words: str, text: str = "") -> str:
        done = self.try_calicoctl(*words, text=text)
        assert done.returncode == 0, (words, done)
        return done.stdout

    def podwire(self, *words: str, text: str = "") -> str:
        return self.ours.done(*words, text=text).out


def rows(text: str) -> list[Row]:
    """A table's rows by column: its lines are aligned, or it is drawn with bars."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("+--")]
    if lines and lines[0].startswith("|"):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return [dict(zip(cells[0], each, strict=True)) for each in cells[1:]]
    header = [(each[0], each.start()) for each in re.finditer(r"\S+(?: \S+)*", lines[0])]
    ends = [*(start for _, start in header[1:]), None]
    return [
        {name: line[start:end].strip() for (name, start), end in zip(header, ends, strict=True)}
        for line in lines[1:]
    ]


def everywhere(kind: str) -> tuple[str, ...]:
    return ("-A",) if kind in NAMESPACED else ()


def pruned(value: Any) -> Any:
    """JSON without what says nothing, which Go writes and Podwire does not."""
    if isinstance(value, dict):
        kept = {name: pruned(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in (None, {}, [], "")}
    return [pruned(item) for item in value] if isinstance(value, list) else value


def meant(document: dict[str, Any]) -> dict[str, Any]:
    """A resource without what each write changes and without what only one of the two has."""
    told: dict[str, Any] = pruned(document)
    told.pop("status", None)
    told["metadata"].pop("resourceVersion", None)
    told["spec"].pop("assignmentMode", None)
    if told["kind"].endswith("NetworkPolicy"):
        told["metadata"]["name"] = told["metadata"]["name"].removeprefix("default.")
    return told


def items(text: str) -> list[dict[str, Any]]:
    """The resources of a list in JSON or YAML."""
    found = yaml.safe_load(text)["items"]
    return [meant(each) for each in found if each["metadata"]["name"] != BUILT_IN]
