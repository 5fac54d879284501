"""Container runtimes of Debian on the hosts of a test, with images made on the spot.

Nothing is started on or written to the machine: each test has a network, a mount tree and a /run of
its own, and what a runtime writes below /etc, /opt and /var lands in memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from podwire.cni.install import SCRIPT
from podwire.model.cnidemand import CAPABILITIES
from tests.fakes.cni_programs import c_program
from tests.fakes.cri.client import CRI
from tests.fakes.iptables import offer_iptables
from tests.kernel.agent_cluster import run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.agent_cluster import AgentNode

DEBS = Path(__file__).resolve().parents[2] / ".cache" / "debs"
PLUGINS = DEBS / "containernetworking-plugins" / "usr" / "lib" / "cni"
IMAGE = "docker.io/library/box:1"
APPLETS = ("sh", "sleep", "ping", "ip", "nc", "cat", "wget", "httpd")


def require(*files: str) -> None:
    """Skip where a package could not be had, or the user may not do what runtimes do."""
    if not os.access("/var/lib", os.W_OK):
        pytest.skip("container runtimes need root: they write below /var/lib")
    missing = [name for name in files if not (DEBS / name).exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: run scripts/setup test")


def libraries() -> str:
    return ":".join(str(folder) for folder in sorted(DEBS.glob("*/usr/lib/*-linux-gnu")))


def private_disk() -> Path:
    """Have writes below /etc, /opt and /var land in memory; a folder there for more."""
    memory = Path("/run/memory")
    memory.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", str(memory))
    for name in ("etc", "opt", "var"):
        upper, work = memory / name, memory / f"{name}.work"
        upper.mkdir()
        work.mkdir()
        options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", options, f"/{name}")
    for folder in ("/etc/cni/net.d", "/etc/containers", "/opt/cni/bin", "/var/lib/cni"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    # An /etc/cni/net.d of the machine has to be out of sight.
    run("mount", "-t", "tmpfs", "tmpfs", "/etc/cni/net.d")
    program = c_program()
    shutil.copy(SCRIPT if program is None else program[0], "/opt/cni/bin/podwire")
    for plugin in ("loopback", "portmap", "bandwidth"):
        shutil.copy(PLUGINS / plugin, "/opt/cni/bin/")
    offer_iptables(memory / "iptables")
    return memory


def write_image(path: Path) -> Path:
    """An archive with one image of one layer: a busybox."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(DEBS / "busybox-static" / "bin" / "busybox", "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "1000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, content in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


CONTAINERD = """
version = 2
root = "{memory}/{name}/root"
state = "/run/{name}/state"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true
disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{crun}"
"""


PODMAN = """
[containers]
cgroups = "disabled"
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
seccomp_profile = "unconfined"
apparmor_profile = "unconfined"
[engine]
events_logger = "file"
conmon_path = ["{conmon}"]
runtime = "crun"
[engine.runtimes]
crun = ["{crun}"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
"""


@dataclass
class RuntimeHost:
    """A node of the test with a container runtime on it."""

    node: AgentNode
    memory: Path
    chained: tuple[dict[str, object], ...] = ()
    """Further plugins of the list."""
    stack: ExitStack = field(default_factory=ExitStack)
    anchor: int = 0

    @property
    def name(self) -> str:
        return self.node.netns

    @property
    def folder(self) -> Path:
        return self.memory / self.name

    @property
    def socket(self) -> Path:
        return Path("/run") / self.name / "containerd.sock"

    @property
    def crun(self) -> Path:
        return self.folder / "crun"

    @property
    def conmon(self) -> Path:
        return self.folder / "conmon"

    def prepare(self) -> RuntimeHost:
        """Its network list, and a crun that does without cgroups, which may not be ours."""
        self.folder.mkdir()
        (self.folder / "net.d").mkdir()
        self.write_network("10-podwire")
        crun, conmon = (DEBS / name / "usr" / "bin" / name for name in ("crun", "conmon"))
        # Runtimes start these with an environment of their own.
        for path, words in (
            (self.crun, f"{crun} --cgroup-manager=disabled"),
            (self.conmon, conmon),
        ):
            path.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries()} exec {words} "$@"\n')
            path.chmod(0o755)
        self.anchor = self._begin()
        return self

    def write_network(self, file: str, **fields: object) -> None:
        """Have a network list in the host's folder; `fields`: of our plugin, or of the list."""
        names = {"cniVersion", "name"} & fields.keys()
        of_list: dict[str, object] = {name: fields.pop(name) for name in names}
        plugin = {
            "type": "podwire",
            "agentSocket": self.node.socket,
            "spoolDir": str(self.node.folder / f"{self.name}.spool"),
            "capabilities": dict.fromkeys(CAPABILITIES, True),
            **fields,
        }
        network: dict[str, object] = {
            "cniVersion": "1.0.0",
            "name": "k8s-pod-network",
            **of_list,
            "plugins": [plugin, *self.chained],
        }
        path = self.folder / "net.d" / f"{file}.conflist"
        path.with_suffix(".new").write_text(json.dumps(network))
        path.with_suffix(".new").replace(path)

    def command(self, *words: str) -> list[str]:
        """A command on this host, without the right that a machine in a container often lacks."""
        less = ("setpriv", "--bounding-set=-sys_resource")
        return ["nsenter", "--net", "--mount", f"--target={self.anchor}", *less, *words]

    def _begin(self) -> int:
        """A process that holds the host's network and mounts; its number.

        Runtimes mount their containers' namespaces, which has to last from command to command.
        """
        setup = (
            "mount -t tmpfs tmpfs /sys/fs/cgroup"
            f" && mount --bind {self.folder}/net.d /etc/cni/net.d && echo && exec sleep 1000"
        )
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "sh", "-c", setup], stdout=subprocess.PIPE
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        process.stdout.close()
        return process.pid

    @property
    def environment(self) -> dict[str, str]:
        folders = (DEBS / f"{name}/usr/bin" for name in ("containerd", "podman", "conmon"))
        path = ":".join([*map(str, folders), os.environ["PATH"], str(self.memory / "iptables")])
        return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries()}

    def attempt(
        self, *words: str, more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command on this host, however it ends."""
        return subprocess.run(
            self.command(*words),
            env={**self.environment, **(more or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *words: str, more: dict[str, str] | None = None) -> str:
        """What a command printed on this host; it has to end with 0."""
        done = self.attempt(*words, more=more)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return done.stdout

    def log(self) -> str:
        path = self.folder / "containerd.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def start_containerd(self, image: Path) -> CRI:
        """Start it, give it the image; its runtime interface."""
        config = self.folder / "containerd.toml"
        config.write_text(
            CONTAINERD.format(
                memory=self.memory, name=self.name, socket=self.socket, image=IMAGE, crun=self.crun
            )
        )
        with (self.folder / "containerd.log").open("w") as log:
            process = subprocess.Popen(
                self.command("containerd", "-c", str(config)),
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        cri = CRI(self.socket)
        self.stack.callback(cri.close)

        def ready() -> bool:
            try:
                return cri.conditions()["NetworkReady"]
            except grpc.RpcError:  # not listening yet
                return False

        until("containerd", ready, self.log)
        self.ctr("-n", "k8s.io", "images", "import", str(image))
        return cri

    def podman(self, *words: str) -> str:
        """What Podman printed; it has to end with 0."""
        done = self.attempt_podman(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def attempt_podman(
        self, *words: str, more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Podman with everything of its own, and its CNI backend."""
        folder = self.folder / "podman"
        if not folder.exists():
            folder.mkdir()
            (folder / "containers.conf").write_text(
                PODMAN.format(crun=self.crun, conmon=self.conmon, at=folder)
            )
            (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
            run("cp", str(folder / "policy.json"), "/etc/containers/policy.json")
        more = {"CONTAINERS_CONF": str(folder / "containers.conf"), **(more or {})}
        places = [f"--root={folder}/root", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
        fixed = [*places, "--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
        return self.attempt("podman", *fixed, *words, more=more)

    def require_cni_backend(self) -> None:
        """Skip where Podman has none."""
        version = self.podman("version", "--format", "{{.Client.Version}}").strip()
        if int(version.partition(".")[0]) >= 5:
            pytest.skip(f"Podman {version} has no CNI backend: 5.0 dropped it")

    def ctr(self, *words: str) -> str:
        return self.run("ctr", "--address", str(self.socket), *words)


def has_own_processes() -> bool:
    """Whether this test sees no processes but its own (tests/kernel/conftest.py)."""
    return Path("/proc/1/exe").samefile(sys.executable)


def processes() -> dict[int, str]:
    """Runtimes and etcd at work, by number; none where those of others are in sight, too."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/comm") if has_own_processes() else ():
        with suppress(OSError):  # it has just ended
            found[int(path.parent.name)] = path.read_text().strip()
    ours = ("containerd", "podman", "conmon", "crun", "etcd")
    return {number: name for number, name in found.items() if name.startswith(ours)}


def running() -> list[str]:
    """Their names."""
    return sorted(processes().values())


def enabled() -> list[str]:
    """What this system starts by itself, where it has systemd."""
    return sorted(str(path) for path in Path("/etc/systemd/system").glob("*.wants/*"))


def hosts(stack: ExitStack, nodes: tuple[AgentNode, ...], **more: object) -> Iterator[RuntimeHost]:
    """A host for each node, prepared; their runtimes end with the stack."""
    memory = private_disk()
    for node in nodes:
        host = RuntimeHost(node=node, memory=memory, **more).prepare()  # type: ignore[arg-type]
        stack.push(host.stack.__exit__)
        yield host
