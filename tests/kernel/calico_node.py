"""A node as Calico leaves it: its pods in the kernel, and what its keys were."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podwire.drivers.store.jsontext import to_text
from podwire.model import codec, keys
from tests.fakes.calico_etcd import contents
from tests.kernel.agent_cluster import PodOnNode, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.boundary import Store
    from podwire.model.resource import Wire
    from tests.kernel.agent_cluster import AgentNode

POD_NETWORK = "k8s-pod-network"
MEMORY = ("/podwire/", keys.FELIX)
"""What agents say of themselves; all other keys are Calico's."""


@dataclass
class CalicoPod(PodOnNode):
    """A pod as Calico's plugin and Felix leave it in the kernel."""

    container: str = ""
    args: str = ""
    network: str = POD_NETWORK

    def build(self, endpoint: Wire) -> CalicoPod:
        spec = endpoint["spec"]
        host, address = spec["interfaceName"], spec["ipNetworks"][0]
        self.container, self.address = spec["containerID"], address.partition("/")[0]
        if spec.get("pod"):
            namespace = endpoint["metadata"]["namespace"]
            self.args = f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={spec['pod']}"
        run("ip", "netns", "add", self.name)
        peer = ("peer", "name", "eth0", "netns", self.name)
        self.node.ip("link", "add", host, "type", "veth", *peer)
        self.node.ip("link", "set", host, "address", "ee:ee:ee:ee:ee:ee")
        inside = ("ip", "-n", self.name)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "set", "eth0", "address", spec["mac"], "up")
        run(*inside, "addr", "add", address, "dev", "eth0")
        run(*inside, "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        run(*inside, "route", "add", "default", "via", "169.254.1.1")
        for switch in ("proxy_arp", "forwarding", "route_localnet"):
            run(*self.node.inside("sysctl", "-qw", f"net.ipv4.conf.{host}.{switch}=1"))
        run(*self.node.inside("sysctl", "-qw", f"net.ipv4.neigh.{host}.proxy_delay=0"))
        self.node.ip("link", "set", host, "up")
        self.node.ip("route", "add", address, "dev", host, "scope", "link")
        return self

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "CNI_CONTAINERID": self.container, "CNI_ARGS": self.args}


def without_our_word(value: Wire) -> Wire:
    """A Node without what its own agent says there of the underlay."""
    notes = value.get("metadata", {}).get("annotations") or {}
    if value.get("kind") != "Node" or codec.UNDERLAY_MTU_ANNOTATION not in notes:
        return value
    rest = {k: text for k, text in notes.items() if k != codec.UNDERLAY_MTU_ANNOTATION}
    return {**value, "metadata": {**value["metadata"], "annotations": rest}}


def changed(store: Store, before: Mapping[str, Wire]) -> dict[str, Wire | None]:
    """Calico's keys that are not as they were, with what is there now."""
    now = {
        key: without_our_word(value)
        for key, value in contents(store).items()
        if not key.startswith(MEMORY)
    }
    old = {key: value for key, value in before.items() if not key.startswith(MEMORY)}
    return {
        key: now.get(key)
        for key in now.keys() | old.keys()
        if key not in now or key not in old or to_text(now[key]) != to_text(old[key])
    }


def veths(node: AgentNode) -> dict[str, dict[str, Any]]:
    links = json.loads(node.ip("-j", "-d", "link", "show", "type", "veth"))
    return {link["ifname"]: link for link in links if link["ifname"].startswith("cali")}
