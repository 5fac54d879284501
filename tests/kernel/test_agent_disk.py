"""A running agent whose datastore lies on a disk that fills up, and has room again."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from podwire.model import keys
from tests.kernel.agent_cluster import AgentNode, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from pathlib import Path

TRIES = 100
"""ADDs until the room inside the datastore's own files is used up."""


def cali(node: AgentNode) -> list[str]:
    return [line for line in node.ip("-o", "link").splitlines() if ": cali" in line]


def test_a_full_disk_refuses_pods_and_keeps_deletes(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    (folder / "n1.log").symlink_to(tmp_path / "n1.log")
    with clusters(folder) as make:
        cluster = make()
        one = cluster.nodes[0]
        spool = tmp_path / "spool"
        one.settings["spoolDir"] = str(spool)
        one.start()
        pods = [PodOnNode(one, "pod-old").add()]
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as full, suppress(OSError):
            while True:
                full.write(b"x" * 4096)
        refused = {}
        for number in range(TRIES):
            pod = PodOnNode(one, f"pod-{number}")
            run("ip", "netns", "add", pod.name)
            told = pod.call("ADD")
            if told["exit"]:
                refused = told
                break
            pods.append(pod)
        assert refused["code"] == 11, (refused, one.log())
        assert refused["msg"]
        assert refused["details"]
        assert len(cali(one)) == len(pods)
        assert run("ip", "-n", pod.name, "-o", "link").count("\n") == 1
        # The kernel is cleaned at once; the datastore when it can be written again.
        assert pods[0].call("DEL")["exit"] == 0
        assert len(cali(one)) == len(pods) - 1
        filler.unlink()
        until("there is room again", lambda: pod.call("ADD")["exit"] == 0, one.log)
        for each in (*pods[1:], pod):
            assert each.call("DEL")["exit"] == 0
        until("the spool is drained", lambda: not list(spool.iterdir()))
        until("no address is left", lambda: not cluster.store.list(keys.HANDLES).entries)
        assert not cluster.store.list(keys.ENDPOINTS).entries
        assert cali(one) == []
