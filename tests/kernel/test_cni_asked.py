"""What pods ask for by annotation, configuration and arguments, on a real kernel and datastore."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from podwire.agent import sandbox
from podwire.agent.endpoints import own_mtu
from podwire.drivers import sysctl
from podwire.drivers.netlink.session import Session
from podwire.errors import KernelError
from podwire.model import codec, keys
from podwire.model.cnidemand import POD_ANNOTATIONS
from tests.kernel.cni_node import (
    CNINode,
    inside,
    links_inside,
    of,
    pings,
    running_node,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.cni_node import Outcome

FIXED = "10.244.7.9"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    with running_node(tmp_path) as made:
        yield made


def add(
    node: CNINode,
    container: str = "c1",
    pod: str = "web-0",
    config: dict[str, Any] | None = None,
    **annotations: Any,
) -> Outcome:
    """ADD of a pod with Calico's annotations; what is no text becomes JSON."""
    told = {
        f"cni.projectcalico.org/{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in annotations.items()
    }
    runtime = {POD_ANNOTATIONS: {"kubernetes.io/config.source": "api", **told}}
    return node.call(
        "ADD", node.config(runtimeConfig=runtime, **(config or {})), **of(container, pod)
    )


def delete(node: CNINode, container: str = "c1", pod: str = "web-0") -> Outcome:
    return node.call("DEL", **of(container, pod))


def test_a_pod_gets_the_address_and_mac_it_asks_for(node: CNINode) -> None:
    outcome = add(node, ipAddrs=[FIXED], hwAddr="02:00:00:AA:bb:01")
    assert outcome.address == FIXED
    assert links_inside("c1")["eth0"].mac == "02:00:00:aa:bb:01"
    assert outcome.told["interfaces"][1]["mac"] == "02:00:00:aa:bb:01"
    assert pings("c1", "192.0.2.1")
    checked = node.call("CHECK", node.config(prevResult=outcome.told), **of("c1", "web-0"))
    assert checked.exit == 0, checked.stdout
    assert delete(node).exit == 0
    assert node.leftovers() == {}


def test_what_it_may_send_with_is_written_down_for_the_firewall(node: CNINode) -> None:
    assert add(node, allowedSourcePrefixes=["198.51.100.0/24"]).exit == 0
    (endpoint,) = node.stored(keys.ENDPOINTS).values()
    assert endpoint["spec"]["allowSpoofedSourcePrefixes"] == ["198.51.100.0/24"]


def test_an_address_in_use_is_refused_with_its_owner(node: CNINode) -> None:
    assert add(node, "c1", "web-0", ipAddrs=[FIXED]).exit == 0
    refused = add(node, "c2", "web-1", ipAddrs=[FIXED])
    assert refused.code == 101
    assert f"{FIXED} is in use by demo/web-0 on node node-1" in refused.told["msg"]
    assert node.allocations() == [FIXED]
    assert add(node, "c2", "web-1").exit == 0


def test_a_fixed_address_moves_to_the_pods_new_sandbox_before_the_late_end_of_the_old(
    node: CNINode,
) -> None:
    assert add(node, "c1", ipAddrs=[FIXED]).address == FIXED
    new = add(node, "c2", ipAddrs=[FIXED])
    assert new.address == FIXED, new.stdout
    assert pings("c2", "192.0.2.1")
    assert set(links_inside("c1")) == {"lo"}
    assert delete(node, "c1").exit == 0
    assert node.allocations() == [FIXED]
    assert pings("c2", "192.0.2.1")
    assert delete(node, "c2").exit == 0
    assert node.leftovers() == {}


def test_a_fixed_address_comes_back_from_a_sandbox_that_was_displaced_before(
    node: CNINode,
) -> None:
    first = add(node, "c1").address
    assert add(node, "c2").exit == 0
    last = add(node, "c3", ipAddrs=[first])
    assert last.address == first, last.stdout
    assert set(links_inside("c1")) == {"lo"}
    for container in ("c1", "c2"):
        assert delete(node, container).exit == 0
    assert node.allocations() == [first]
    assert pings("c3", "192.0.2.1")


def test_a_fixed_address_does_not_rest_before_it_returns_to_its_pod(node: CNINode) -> None:
    entry = node.store.get(keys.IPAM_CONFIG_KEY)
    config = replace(codec.decode_ipam_config(entry.key, entry.value), cooldown_s=600)
    node.store.update(entry.key, codec.encode(config), entry.revision)
    assert add(node, "c1", ipAddrs=[FIXED]).exit == 0
    assert delete(node, "c1").exit == 0
    other = add(node, "c2", "web-1", ipAddrs=[FIXED])
    assert (other.code, "demo/web-0" in other.told["msg"]) == (101, True), other.stdout
    assert add(node, "c2", "web-0", ipAddrs=[FIXED]).address == FIXED


def test_the_pods_second_network_does_not_take_the_address_of_its_first(node: CNINode) -> None:
    assert add(node, ipAddrs=[FIXED]).exit == 0
    runtime = {POD_ANNOTATIONS: {"cni.projectcalico.org/ipAddrs": json.dumps([FIXED])}}
    config = node.config(name="more", runtimeConfig=runtime)
    second = node.call("ADD", config, **of("c1", "web-0", IFNAME="eth1"))
    assert second.code == 101
    assert "eth0" in links_inside("c1")


def test_pools_are_tried_in_the_order_asked_for(node: CNINode) -> None:
    node.add_pool("10.1.0.0/31", block_size=31, node_selector="none == 'such'")
    node.add_pool("10.2.0.0/26", automatic=False)
    asked = ["10.1.0.0/31", "10-2-0-0-26"]
    found = [
        add(node, name, name, ipv4pools=asked).address.rpartition(".")[0]
        for name in ("c1", "c2", "c3")
    ]
    assert found == ["10.1.0", "10.1.0", "10.2.0"]


def test_a_pool_that_cannot_be_used_is_named(node: CNINode) -> None:
    node.add_pool("10.3.0.0/26", disabled=True)
    for pool, word in (("none", "does not exist"), ("10.3.0.0/26", "is disabled")):
        refused = add(node, ipv4pools=[pool])
        assert (refused.code, word in refused.told["msg"]) == (102, True), refused.stdout
        assert pool in refused.told["msg"]
    node.add_pool("10.4.0.0/32", block_size=32)
    assert add(node, "c1", "web-0", ipv4pools=["10.4.0.0/32"]).exit == 0
    full = add(node, "c2", "web-1", ipv4pools=["10.4.0.0/32"])
    assert (full.code, "10-4-0-0-32" in full.told["msg"]) == (101, True)
    outside = add(node, "c2", "web-1", ipv4pools=["10.4.0.0/32"], ipAddrs=[FIXED])
    assert outside.code == 102


def test_the_networks_own_pools_mtu_and_forwarding(node: CNINode) -> None:
    node.add_pool("10.5.0.0/26", automatic=False)
    config = {
        "mtu": 1280,
        "ipam": {"type": "podwire", "ipv4_pools": ["10.5.0.0/26"]},
        "container_settings": {"allow_ip_forwarding": True},
    }
    outcome = add(node, config=config)
    assert outcome.address.startswith("10.5.0.")
    assert (outcome.told["interfaces"][1]["mtu"], links_inside("c1")["eth0"].mtu) == (1280, 1280)
    assert inside("c1", lambda: sysctl.read("net/ipv4/ip_forward")) == "1"
    (local,) = node.world.endpoints.all().values()
    assert own_mtu(local.endpoint) == 1280  # which no change of the cluster's MTU overrides
    assert add(node, "c2", "web-1", config, ipv4pools=["10.244.0.0/16"]).address.startswith(
        "10.244."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ipAddrs", "10.244.7.9"),
        ("ipAddrs", ["fd00::9"]),
        ("ipv4pools", "{"),
        ("hwAddr", "02:00"),
        ("ipAddrsNoIpam", ["10.9.9.9"]),
        ("floatingIPs", ["203.0.113.9"]),
    ],
)
def test_a_bad_annotation_is_named_and_leaves_nothing(node: CNINode, name: str, value: Any) -> None:
    refused = add(node, **{name: value})
    assert refused.code == 7
    assert refused.told["msg"].startswith(
        f"pod demo/web-0: annotation cni.projectcalico.org/{name} "
    )
    assert refused.told["details"]
    assert delete(node).exit == 0
    assert node.leftovers() == {}
    assert set(links_inside("c1")) == {"lo"}


def test_the_end_of_a_sandbox_never_heard_of_harms_nobody(node: CNINode) -> None:
    """The kubelet ends sandboxes of earlier lives of a pod, whose containers are long forgotten."""
    kept = add(node, "c1")
    for stale in ("c0", "c2"):
        assert delete(node, stale).exit == 0
    assert node.allocations() == [kept.address]
    assert pings("c1", "192.0.2.1")
    assert delete(node, "c1").exit == 0
    assert node.leftovers() == {}


def test_a_failed_move_of_a_fixed_address_leaves_nothing_half_made(
    node: CNINode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add(node, "c1", ipAddrs=[FIXED]).exit == 0

    def refuse(*_: object) -> None:
        raise KernelError("the kernel refuses", errno=1, subject="veth")

    with monkeypatch.context() as patched:
        patched.setattr(sandbox, "wait_until_running", refuse)
        assert add(node, "c2", ipAddrs=[FIXED]).code == 5
    assert node.leftovers() == {}
    with Session.open() as host:
        assert not [link for link in host.links().values() if link.alias]
    assert add(node, "c3", ipAddrs=[FIXED]).address == FIXED
