"""The plugin as libcni runs it: the code by which containerd, CRI-O and Podman call plugins."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from podwire.cni.install import SCRIPT
from tests.fakes.cni_programs import CACHE, c_program
from tests.fakes.iptables import offer_iptables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIBRARIES = ("older", "newer")
"""That of Debian's containerd and Podman (1.1), and one that knows STATUS and GC (1.3)."""
PLUGINS = CACHE / "debs" / "containernetworking-plugins" / "usr" / "lib" / "cni"


def program(library: str) -> str:
    """The test program made with it; skips, with the reason, where it could not be made."""
    made = CACHE / "libcni" / library
    if not made.exists():
        missing = made.with_suffix(".missing")
        why = missing.read_text().strip() if missing.exists() else "run scripts/setup test"
        pytest.skip(f"no program with the {library} libcni: {why}")
    return str(made)


@dataclass
class Told:
    """What the library handed to its user."""

    result: Any = None
    error: str = ""
    code: int = 0
    """Of the plugin's error; 0 for an error of the library's own."""


@dataclass
class Runtime:
    """A container runtime: a library, its folder of plugins and its cache of results."""

    library: str
    folder: Path
    plugins: Sequence[str] = ()
    """Chained ones, of Debian's package."""

    def __post_init__(self) -> None:
        self.program = program(self.library)
        # A plugin finds there what it needs, and nothing else.
        self.path = self.folder / "path"
        self.has_iptables = offer_iptables(self.path) is not None
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        compiled = c_program()
        (self.bin / "podwire").symlink_to(SCRIPT if compiled is None else compiled[0])
        for name in self.plugins:
            (self.bin / name).symlink_to(PLUGINS / name)

    def call(
        self,
        verb: str,
        network: Mapping[str, Any],
        container: str = "c1",
        **fields: Any,
    ) -> Told:
        """Have the library do something with a network list, or a network of one plugin."""
        form = "List" if "plugins" in network else "Conf"
        asked = {
            "Verb": verb,
            form: network,
            "Path": [str(self.bin)],
            "Cache": str(self.folder / "cache"),
            "ContainerID": container,
            "NetNS": f"/run/netns/{container}",
            "IfName": "eth0",
            **fields,
        }
        done = subprocess.run(
            [self.program],
            input=json.dumps(asked).encode(),
            env={"PATH": str(self.path)},
            capture_output=True,
            check=True,
        )
        return Told(**json.loads(done.stdout))
