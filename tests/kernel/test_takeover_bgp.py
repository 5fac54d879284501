"""A mesh of three nodes that Calico and its BIRD served becomes ours, one node after the other.

node-1 [web]   node-2 [db]   node-3 [cache]   on one bridge; pods ping each other all the time
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from podwire.model import codec, keys
from tests.fakes.calico_etcd import values, without_tunnels, write
from tests.kernel.agent_cluster import PodOnNode, run, until
from tests.kernel.bird_pair import Bird, require_bird
from tests.kernel.bridged_cluster import BridgedCluster, bridged_cluster
from tests.kernel.calico_bird import confd
from tests.kernel.calico_node import POD_NETWORK, CalicoPod, changed, veths
from tests.lab.conftest import require_ipip
from tests.lab.watched_ping import watched_ping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.model.resource import Wire
    from tests.kernel.agent_cluster import AgentNode

DECIDE = "podwire bgp switch bird"


@dataclass
class Mesh:
    """The cluster as Calico left it, and the BIRD that runs on each node now."""

    cluster: BridgedCluster
    before: dict[str, Wire]
    pods: list[CalicoPod] = field(default_factory=list)
    birds: dict[str, Bird] = field(default_factory=dict)

    @property
    def nodes(self) -> list[AgentNode]:
        return self.cluster.nodes

    def serve(self, node: AgentNode) -> None:
        """As Felix, BIRD and the plugin of Calico do."""
        run(*node.inside("sysctl", "-qw", "net.ipv4.ip_forward=1"))
        stored = codec.decode_node(keys.node_key(node.name), self.before[keys.node_key(node.name)])
        if stored.ipip_tunnel is not None:
            node.ip("addr", "add", f"{stored.ipip_tunnel}/32", "dev", "tunl0")
            node.ip("link", "set", "tunl0", "mtu", "1480", "up")
        bird = Bird(self.cluster.folder, f"calico-{node.netns}", netns=node.netns)
        self.birds[node.name] = bird.start(confd(node.name, self.before))
        for key, wire in self.before.items():
            if keys.parse_endpoint_key(key) and wire["spec"]["node"] == node.name:
                self.pods.append(CalicoPod(node, wire["spec"]["pod"]).build(wire))

    def hand_over(self, node: AgentNode) -> None:
        """End Calico there as its container ends, all at once, and begin with ours."""
        self.birds.pop(node.name).end()
        node.begin()
        bird = Bird(self.cluster.folder, f"{node.netns}.bird", netns=node.netns)
        # As podwire-bird.path does.
        until("the agent's configuration", bird.config.exists, node.log)
        self.birds[node.name] = bird.start(bird.config.read_text())
        node.wait_ready()
        until("both sessions", lambda: node.ask("status")["bird"]["established"] == 2, bird.log)
        until("BIRD's routes alone", lambda: metrics(node) == ["32", "32"], bird.log)

    def give_back(self, node: AgentNode) -> None:
        """The way back: end ours, and begin with Calico's BIRD where Felix would, too."""
        self.birds.pop(node.name).end()
        node.end()
        for family in ("ip", "ip6", "arp"):
            run(*node.inside("nft", "delete", "table", family, "podwire"), check=False)
        bird = Bird(self.cluster.folder, f"calico-{node.netns}-again", netns=node.netns)
        self.birds[node.name] = bird.start(confd(node.name, self.before))
        until("Calico's routes", lambda: sorted(metrics(node)) == ["", "", "32", "32"], bird.log)
        node.ip("route", "flush", "proto", "bird", "metric", "32")

    def close(self) -> None:
        for bird in self.birds.values():
            bird.end()


def metrics(node: AgentNode) -> list[str]:
    """Of the routes that any BIRD wrote to other nodes; one without has none."""
    lines = node.ip("route", "show", "proto", "bird").splitlines()
    return [line.split(" metric ")[1].split()[0] if " metric " in line else "" for line in lines]


def routes(node: AgentNode) -> list[str]:
    return sorted(node.ip("route").splitlines())


@pytest.fixture(params=["plain", pytest.param("ipip", marks=pytest.mark.long)])
def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mesh]:
    require_bird()
    before = values("bgp")
    if request.param == "ipip":
        require_ipip()
    else:
        before = without_tunnels(before)
    with bridged_cluster(tmp_path, (), 3, fill=lambda store: write(store, before)) as cluster:
        made = Mesh(cluster, before)
        try:
            for node in made.nodes:
                made.serve(node)
            until("Calico's routes", lambda: all(metrics(node) == [""] * 3 for node in made.nodes))
            yield made
        finally:
            made.close()


def test_no_packet_is_lost_while_nodes_change_hands_one_by_one(mesh: Mesh) -> None:
    nodes, pods = mesh.nodes, mesh.pods
    calicos = {node.name: routes(node) for node in nodes}
    addresses = {pod.name: pod.address for pod in pods}
    with watched_ping({pod: f"/run/netns/{pod}" for pod in addresses}, addresses) as told:
        refuses_to_guess(mesh, nodes[0])
        decides(mesh)
        for number, node in enumerate(nodes):
            mesh.hand_over(node)
            for other in nodes[number + 1 :]:
                assert routes(other) == calicos[other.name]
        is_ours(mesh)
        mesh.give_back(nodes[-1])
    assert told["lost"] == {}
    assert told["rounds"] > 100


def is_ours(mesh: Mesh) -> None:
    """All of it is, and nothing that Calico wrote into the datastore is changed."""
    for node in mesh.nodes:
        status = node.settled()
        assert status["ready"], status
        assert not [each for each in status["concerns"] if "route" in each], status
        assert status["endpoints"] == 1
        own = node.ip("route", "show", "type", "blackhole")
        assert own.endswith("/26 proto 80 \n")
        assert [each["ifalias"].split()[0] for each in veths(node).values()] == ["podwire"]
    assert set(changed(mesh.cluster.store, mesh.before)) == {keys.cluster_key()}
    new = PodOnNode(mesh.nodes[0], "new", network=POD_NETWORK).add()
    for pod in mesh.pods:
        assert "1 received" in new.ping(pod.address, "-c", "1")


def refuses_to_guess(mesh: Mesh, node: AgentNode) -> None:
    """An agent that comes too early says what to do, and touches nothing."""
    before = routes(node), veths(node)
    node.begin()
    until("the reason", lambda: DECIDE in " ".join((node.status() or {}).get("reasons", [])))
    answer = PodOnNode(node, "early").call("STATUS", "1.1.0")
    assert DECIDE in answer["msg"] + answer.get("details", ""), answer
    node.end()
    assert (routes(node), veths(node)) == before
    assert changed(mesh.cluster.store, mesh.before) == {}
    assert not list(mesh.cluster.store.list("/podwire/").entries)


def decides(mesh: Mesh) -> None:
    """The first step of the way, at once, though no node of Calico's gives its word."""
    agents = mesh.cluster.podwire("bgp", "switch", "agent")
    assert agents.returncode == 1
    assert DECIDE in agents.stderr
    done = mesh.cluster.podwire("bgp", "switch", "bird")
    assert done.returncode == 0, done.stderr
    assert "no route has changed" in done.stdout
    assert "node-1, node-2, node-3" in done.stdout
    cluster = changed(mesh.cluster.store, mesh.before).pop(keys.cluster_key())
    assert cluster is not None
    assert cluster["metadata"].pop("annotations") == {codec.ROUTING_ANNOTATION: "bird"}
    assert cluster == mesh.before[keys.cluster_key()]
