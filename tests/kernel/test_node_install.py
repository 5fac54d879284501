"""Installing on a host: all or nothing, the network list last, and nothing foreign is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from podwire.model.pool import Mode
from tests.kernel.agent_cluster import clusters, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.agent_cluster import AgentNode


@dataclass
class Host:
    node: AgentNode
    folder: Path

    def podwire(self, *words: str) -> subprocess.CompletedProcess[str]:
        places = [f"--cni-bin-dir={self.folder}/bin", f"--cni-conf-dir={self.folder}/net.d",
                  f"--etc={self.folder}/etc"]  # fmt: skip
        command = (sys.executable, "-m", "podwire", "node", *words, *places)
        return subprocess.run(
            self.node.inside(*command), capture_output=True, text=True, check=False
        )

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.podwire("install", "--config", str(self.node.config()), *words)

    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    folder = tmp_path / "host"
    for name in ("etc/systemd/system", "etc/NetworkManager", "bin"):
        (folder / name).mkdir(parents=True)
    with clusters(tmp_path / "c") as make:
        yield Host(make(Mode.NEVER).nodes[0], folder)


PUT = {
    "bin/podwire",
    "etc/systemd/system/podwire-agent.service",
    "etc/systemd/system/podwire-bird.service",
    "etc/systemd/system/podwire-bird.path",
    "etc/systemd/networkd.conf.d/podwire.conf",
    "etc/systemd/network/10-podwire.network",
    "etc/NetworkManager/conf.d/podwire.conf",
    "net.d/10-podwire.conflist",
    "etc/podwire/installed",
}


def test_all_is_put_there_and_taken_back(host: Host) -> None:
    host.node.start()
    (host.folder / "bin" / "portmap").write_text("")
    done = host.install()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {host.folder}/net.d/10-podwire.conflist"
    assert host.files() == PUT | {"bin/portmap"}
    network = json.loads((host.folder / "net.d/10-podwire.conflist").read_text())
    assert [plugin["type"] for plugin in network["plugins"]] == ["podwire", "portmap"]
    assert network["plugins"][0]["agentSocket"] == host.node.socket
    assert network["plugins"][0]["capabilities"]["io.kubernetes.cri.pod-annotations"] is True
    unit = (host.folder / "etc/systemd/system/podwire-agent.service").read_text()
    assert f"agent --config {host.node.config()}" in unit
    again = host.install()
    assert again.stdout.count("kept ") == len(PUT) - 2
    gone = host.podwire("uninstall")
    assert gone.returncode == 0, gone.stderr
    assert gone.stdout.splitlines()[0].endswith("10-podwire.conflist")
    assert host.files() == {"bin/portmap"}
    folders = {str(p.relative_to(host.folder)) for p in host.folder.rglob("*") if p.is_dir()}
    assert folders == {"etc", "etc/systemd", "etc/systemd/system", "etc/NetworkManager", "bin"}


def test_what_an_older_version_put_goes_and_what_is_not_ours_stays(host: Host) -> None:
    host.node.start()
    etc = host.folder / "etc"
    (etc / "bash_completion.d").mkdir()
    assert host.install("--completion").returncode == 0
    completion = etc / "bash_completion.d/podwire"
    assert "_PODWIRE_COMPLETE=bash_complete" in completion.read_text()
    old = etc / "systemd/network/05-older.network"
    for name in ("05-older.network", "06-mine.network"):
        with (etc / "podwire/installed").open("a") as journal:
            journal.write(f"{etc}/systemd/network/{name}\n")
    old.write_text("# Written by podwire node install\n")
    old.with_name("06-mine.network").write_text("mine\n")
    (etc / "systemd/system/podwire-agent.service").write_text("edited, no longer ours\n")
    (etc / "systemd/system/multi-user.target.wants").mkdir()
    (etc / "systemd/system/multi-user.target.wants/podwire-agent.service").symlink_to("x")
    gone = host.podwire("uninstall")
    assert host.files() == {
        "etc/systemd/network/06-mine.network",
        "etc/systemd/system/podwire-agent.service",
    }
    assert gone.stdout.splitlines()[0].endswith("10-podwire.conflist")
    assert "podwire-agent.service: it was not written by podwire" in gone.stdout
    assert "systemctl disable --now podwire-agent.service" in gone.stderr


def test_who_must_read_and_what_stays_is_said(host: Host) -> None:
    host.node.start()
    done = host.install()
    for shipped, reader in (
        ("networkd.conf.d/podwire.conf", "systemctl restart systemd-networkd"),
        ("NetworkManager/conf.d/podwire.conf", "systemctl reload NetworkManager"),
    ):
        assert any(shipped in line and reader in line for line in done.stderr.splitlines())
    assert "counts after" not in host.install().stderr
    gone = host.podwire("uninstall")
    assert "systemctl restart systemd-networkd" in gone.stderr
    assert "net.ipv4.ip_forward=1" in gone.stderr
    assert "nothing of podwire's is installed here" in host.podwire("uninstall").stderr


def test_the_variables_of_the_unit_count_here_too(host: Host) -> None:
    host.node.start()
    (host.folder / "etc/default").mkdir()
    file = host.folder / "etc/default/podwire"
    file.write_text(f"# ours\nPODWIRE_AGENT_SOCKET='{host.node.socket}'\n")
    config = host.folder / "my config 100%.yaml"
    config.write_text("agentSocket: /nowhere.sock\n")
    assert host.podwire("install", "--config", str(config)).returncode == 0
    network = json.loads((host.folder / "net.d/10-podwire.conflist").read_text())
    assert network["plugins"][0]["agentSocket"] == host.node.socket
    unit = (host.folder / "etc/systemd/system/podwire-agent.service").read_text()
    assert f'agent --config "{host.folder}/my config 100%%.yaml"\n' in unit
    file.write_text("PODWIRE_AGENT_SOCKET='/half\n")
    refused = host.podwire("install")
    assert refused.returncode == 64
    assert f"{file}:1: " in refused.stderr


def test_the_chain_is_as_asked_and_what_is_there(host: Host) -> None:
    host.node.start()

    def plugins() -> list[str]:
        network = json.loads((host.folder / "net.d/10-podwire.conflist").read_text())
        return [plugin["type"] for plugin in network["plugins"]]

    done = host.install("--chain", "bandwidth")
    assert done.returncode == 64
    assert f"the plugin bandwidth is not in {host.folder}/bin" in done.stderr
    for name in ("portmap", "bandwidth"):
        (host.folder / "bin" / name).write_text("")
    chain = "{ type filter hook forward priority 0; policy drop; }"
    run(*host.node.inside("nft", "add", "table", "ip", "filter"))
    run(*host.node.inside("nft", "add", "chain", "ip", "filter", "FORWARD", chain))
    (host.folder / "net.d").mkdir()
    (host.folder / "net.d/05-other.conf").write_text("{}")
    done = host.install("--chain", "portmap", "--chain", "bandwidth", "--name", "pods")
    assert done.returncode == 0, done.stderr
    assert plugins() == ["podwire", "portmap", "bandwidth"]
    assert "05-other.conf comes before ours by name" in done.stderr
    assert "note: forwarding what pods send and get: " in done.stderr
    assert "iptables -I FORWARD -i cali+ -j ACCEPT" in done.stderr
    host.install("--chain", "none")
    assert plugins() == ["podwire"]


def test_a_foreign_plugin_of_the_name_stays(host: Host) -> None:
    (host.folder / "bin/podwire").write_text("somebody else's")
    done = host.install()
    assert done.returncode == 1
    assert "is not podwire's plugin" in done.stderr
    host.podwire("uninstall")
    assert (host.folder / "bin/podwire").read_text() == "somebody else's"


def test_where_the_agents_write_routes_status_shows_the_agent(host: Host) -> None:
    command = [sys.executable, "-m", "podwire", "node", "status", "--config"]
    inside = host.node.inside(*command, str(host.node.config()))
    away = subprocess.run(inside, capture_output=True, text=True, check=False)
    assert away.returncode == 1
    assert "this node speaks no BGP" in away.stderr
    host.node.start()
    host.install()  # waits until the agent is ready
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The agents write the routes to other nodes (routing: agent)" in done.stdout
    assert f"node {host.node.name}: ready" in done.stdout


def test_the_runtime_sees_no_network_before_the_agent_is_ready(host: Host) -> None:
    done = host.install("--wait", "1s")
    assert done.returncode == 1
    assert "the agent is not ready" in done.stderr
    assert "net.d/10-podwire.conflist" not in host.files()


def test_a_foreign_file_stays(host: Host) -> None:
    foreign = host.folder / "etc/NetworkManager/conf.d/podwire.conf"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    done = host.install()
    assert done.returncode == 1
    assert f"{foreign} is there and was not written by podwire" in done.stderr
    assert "net.d/10-podwire.conflist" not in host.files()
    host.podwire("uninstall")
    assert foreign.read_text() == "mine"
    assert host.files() == {str(foreign.relative_to(host.folder))}


def test_rules_of_calico_are_in_the_way(host: Host) -> None:
    run(*host.node.inside("nft", "add", "table", "ip", "calico"))
    done = host.install()
    assert done.returncode == 1
    assert "rules of Calico are left here" in done.stderr
    assert "nft delete table ip calico" in done.stderr
    assert host.files() == set()
