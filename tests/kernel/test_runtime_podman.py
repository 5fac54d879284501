"""Podman's CNI backend with the plugin on two hosts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from podwire.model import keys
from podwire.model.pool import Mode
from tests.kernel.agent_cluster import clusters
from tests.kernel.runtime_host import hosts, require, write_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peer


def test_containers_of_two_hosts_talk(tmp_path: Path) -> None:
    require(
        "podman/usr/bin/podman",
        "crun/usr/bin/crun",
        "conmon/usr/bin/conmon",
        "busybox-static/bin/busybox",
        "containernetworking-plugins/usr/lib/cni/loopback",
    )
    image = write_image(tmp_path / "box.tar")
    with clusters(tmp_path / "c") as make, ExitStack() as stack:
        cluster = make(Mode.ALWAYS)
        pair = list(hosts(stack, cluster.start()))
        addresses = []
        for host in pair:
            host.require_cni_backend()
            host.podman("load", "-i", str(image))
            host.podman(
                "run",
                "-d",
                "--name",
                f"box-{host.name}",
                "--network",
                "k8s-pod-network",
                "--hostname",
                host.name,
                "box:1",
                "/bin/sleep",
                "1000",
            )
            shown = host.podman("exec", f"box-{host.name}", "/bin/ip", "-4", "addr", "show", "eth0")
            addresses.append(shown.split("inet ")[1].split("/")[0])
        assert addresses[0] in pair[0].node.routes()
        for host, address in zip(pair, reversed(addresses), strict=True):
            shown = host.podman("exec", f"box-{host.name}", "/bin/ping", "-c", "2", address)
            assert " 0% packet loss" in shown
        for host in pair:
            host.podman("rm", "-f", "-t", "0", f"box-{host.name}")
        assert not cluster.store.list(keys.ENDPOINTS).entries
