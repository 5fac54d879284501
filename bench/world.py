"""Places to measure in: network namespaces of our own as hosts, an agent on one of them.

`python -m bench` runs each benchmark inside fresh network, mount and PID namespaces, so nothing
here can touch the machine's own network, and nothing is left when it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from podwire.drivers import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
PODWIRE = (str(BIN / "python"), "-m", "podwire")
DEBIAN_PLUGINS = ROOT / ".cache/debs/containernetworking-plugins/usr/lib/cni"
UNDERLAY = "172.20.0.1/16"
GATEWAY = "172.20.255.254"
READY_S = 60
WITHOUT = {"PYTHONDONTWRITEBYTECODE"}


def inside(name: str, folder: Path) -> list[str]:
    """The command that runs one benchmark in namespaces of its own."""
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    alone = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    python = [sys.executable, "-m", "bench", "--inside", name, str(folder)]
    return ["unshare", *as_user, *alone, "--", *python]


def furnish() -> None:
    """Inside: a /run and a /sys of our own."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    run("ip", "link", "set", "lo", "up")


def run(*argv: str, text: str | None = None) -> str:
    """Run a program; its words are in the error when it fails."""
    ended = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {ended.stderr.strip() or ended.stdout.strip()}")
    return ended.stdout


class Host:
    """A network namespace that plays a machine: forwarding on, an underlay, a default route."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.descriptor = -1

    def __enter__(self) -> Self:
        for name in (self.name, f"{self.name}-wire"):
            namespaces.create_named(name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self.ip(
            "link", "add", "ens32", "type", "veth", "peer", "wire", "netns", f"{self.name}-wire"
        )
        self.ip("address", "add", UNDERLAY, "dev", "ens32")
        self.ip("link", "set", "ens32", "up")
        run("ip", "-n", f"{self.name}-wire", "link", "set", "wire", "up")
        self.ip("route", "add", "default", "via", GATEWAY)
        self.descriptor = namespaces.open_namespace(namespaces.named_path(self.name))
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        for name in (self.name, f"{self.name}-wire"):
            namespaces.delete_named(name)

    def ip(self, *argv: str, text: str | None = None) -> str:
        return run("ip", "-n", self.name, *argv, text=text)

    def enter(self) -> None:
        """From here on the calling thread, and what it starts, is on this host."""
        namespaces.setns(self.descriptor)


class Agent:
    """An agent process on a host, with files in a folder of its own."""

    def __init__(self, host: Host, folder: Path, *, resync: str = "1h") -> None:
        self.host = host
        self.datastore = folder / "datastore.db"
        self.socket = Path("/run") / f"{host.name}.sock"
        self.health = Path("/run") / f"{host.name}.health"
        self.spool = folder / "spool"
        self.bird_config = folder / "bird.conf"
        self.bird_socket = Path("/run") / f"{host.name}.ctl"
        self._config = folder / "podwire.yaml"
        self._config.write_text(
            f"datastore: {{type: sqlite, path: {self.datastore}}}\n"
            f"agentSocket: {self.socket}\nspoolDir: {self.spool}\nresyncPeriod: {resync}\n"
            f"healthAddress: {self.health}\n"
            f"birdConfig: {self.bird_config}\nbirdSocket: {self.bird_socket}\n"
        )
        self._log = folder / "agent.log"

    @contextmanager
    def running(self) -> Iterator[int]:
        """The process id; ready when this returns."""
        self.host.enter()
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [*PODWIRE, "agent", "--node", "bench", "--config", str(self._config)],
                env=_installed(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"the agent ended: {self._log.read_text()[-2000:]}")
            yield process.pid
        finally:
            process.terminate()
            process.wait(READY_S)


def _installed() -> dict[str, str]:
    """The environment of an installed program, whose byte code is kept: ours may forbid that."""
    return {name: value for name, value in os.environ.items() if name not in WITHOUT}


def missing(programs: Sequence[Path]) -> str | None:
    """Which of some programs is not here."""
    return next((str(path) for path in programs if not path.exists()), None)
