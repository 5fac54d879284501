"""What a person writes is checked whole: every fault, its place, and the way out."""

from __future__ import annotations

import copy
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.model import codec, keys
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.pool import IPPool, Use
from podwire.model.resource import Metadata
from podwire.model.shapes import SHAPES
from podwire.model.validate import (
    build,
    check_change,
    check_document,
    check_overlap,
    document_key,
)

V3 = "projectcalico.org/v3"


def pool(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": V3,
        "kind": "IPPool",
        "metadata": {"name": "p"},
        "spec": {"cidr": "10.244.0.0/16", **spec},
    }


def resource(kind: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": V3,
        "kind": kind,
        "metadata": {"name": "default", **metadata},
        "spec": spec,
    }


ENDPOINT = {"node": "node-1", "orchestrator": "k8s", "ipNetworks": ["10.244.0.5/32"]}

GOOD = [
    pool(),
    pool(blockSize=20, ipipMode="CrossSubnet", nodeSelector="zone == 'a'"),
    pool(blockSize=32, vxlanMode="Always"),
    pool(cidr="10.0.0.0/30", disabled=True),
    pool(cidr="fd00::/64", vxlanMode="Always"),
    pool(cidr="fd00::/120", blockSize=128),
    pool(allowedUses=["LoadBalancer"]),
    pool(allowedUses=["Workload"], namespaceSelector="team == 'x'"),
    pool(namespaceSelector="team == 'x'"),
    pool(assignmentMode="Manual", disableBGPExport=True, natOutgoing=None),
    resource("Node", {}),
    resource("Node", {"bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": "64512"}}),
    resource("Node", {"bgp": {"asNumber": 64512}, "orchRefs": [{"nodeName": "n"}]}),
    resource("WorkloadEndpoint", ENDPOINT, namespace="demo"),
    resource("IPReservation", {"reservedCIDRs": ["10.244.0.0/28", "10.244.1.7/32"]}),
    resource("ClusterInformation", {"datastoreReady": False}),
]


@pytest.mark.parametrize("document", GOOD)
def test_what_is_right_has_no_faults_and_can_be_stored(document: dict[str, Any]) -> None:
    assert check_document(document) == []
    before = copy.deepcopy(document)
    value = build(document, None)
    assert codec.key_of(value) == document_key(document)
    assert codec.decode(codec.key_of(value), codec.encode(value)) == value
    assert document == before


@pytest.mark.parametrize(
    ("document", "fault", "fix"),
    [
        (pool(cidr="10.244.1.0/16"), "spec.cidr: .*bits set behind its prefix", "10.244.0.0/16"),
        (pool(cidr="banana"), "spec.cidr: .*'banana' is not a network", "10.244.0.0/16"),
        (pool(cidr=None), "spec.cidr is missing", None),
        (pool(cidr=""), "spec.cidr must not be empty", None),
        (pool(cidr=10), "spec.cidr must be a string, not a number", 'write "10"'),
        (pool(blockSize=19), "spec.blockSize is 19", "20 to 128"),
        (pool(blockSize=33), "spec.blockSize is 33", "20 to 32 for IPv4"),
        (pool(cidr="fd00::/64", blockSize=64), "spec.blockSize is 64", "116 to 128 for IPv6"),
        (pool(blockSize="26"), "spec.blockSize must be a whole number, not a string", None),
        (pool(blockSize=True), "spec.blockSize must be a whole number, not a boolean", None),
        (pool(cidr="10.0.0.0/28"), "/26 is larger than the pool .*default", "write 28 or more"),
        (pool(cidr="10.0.0.0/27", blockSize=26), "larger than the pool itself", "27 or more"),
        (pool(ipipMode="always"), "spec.ipipMode 'always' is unknown", "did you mean Always"),
        (pool(ipipMode="Always", vxlanMode="Always"), "one encapsulation", "Never"),
        (pool(cidr="fd00::/64", ipipMode="Always"), "IPIP carries IPv4 only", "vxlanMode"),
        (pool(cidr="169.254.0.0/20"), "overlaps the link-local network", "another CIDR"),
        (pool(cidr="127.0.0.0/20"), "overlaps the loopback network", "another CIDR"),
        (pool(cidr="224.1.0.0/16"), "overlaps the multicast and reserved", "another CIDR"),
        (pool(blocksize=26), "spec.blocksize is unknown", "did you mean blockSize"),
        (pool(quark=26), "spec.quark is unknown", "write one of: cidr, blockSize"),
        (pool(natOutgoing="yes"), "spec.natOutgoing must be true or false, not a string", None),
        (pool(nodeSelector="zone = 'a'"), "spec.nodeSelector: selector", None),
        (pool(nodeSelector="global()"), "global.. is not allowed", "all()"),
        (pool(allowedUses=["Play"]), r"spec.allowedUses\[0\] 'Play' is unknown", "Workload"),
        (pool(allowedUses="Workload"), "spec.allowedUses must be a list, not a string", None),
        (pool(allowedUses=["LoadBalancer", "Tunnel"]), "cannot be mixed", None),
        (pool(allowedUses=["LoadBalancer"], ipipMode="Always"), "excludes encapsulation", None),
        (pool(allowedUses=["LoadBalancer"], disableBGPExport=True), "disableBGPExport", None),
        (pool(allowedUses=["LoadBalancer"], nodeSelector="has(a)"), "needs nodeSelector", None),
        (
            pool(allowedUses=["Tunnel"], namespaceSelector="has(a)"),
            "Tunnel excludes namespaceSelector",
            "Workload",
        ),
        ({**pool(), "apiVersion": "v1"}, "apiVersion 'v1' is unknown", V3),
        ({**pool(), "apiVersion": None}, "apiVersion is missing", None),
        ({**pool(), "spec": None}, "spec is missing", None),
        ({**pool(), "metadata": {}}, "metadata.name is missing", None),
        ({**pool(), "metadata": {"name": "Big"}}, "'Big' is no resource name", "lower-case"),
        ({**pool(), "metadata": {"name": "a..b"}}, "no resource name", "lower-case"),
        ({**pool(), "metadata": {"name": "a" * 254}}, "no resource name", "253"),
        (
            {**pool(), "metadata": {"name": "p", "labels": {"a": 1}}},
            "metadata.labels.a must be a string, not a number",
            'write "1"',
        ),
        ({"kind": "IPPol"}, "kind 'IPPol' is unknown", "did you mean IPPool"),
        ({"kind": "Quux"}, "kind 'Quux' is unknown", "IPPool, Node"),
        ({}, "kind is missing", "IPPool, Node"),
        ([], "the document must be a mapping, not a list", None),
        (resource("Node", {"bgp": {"ipv4Address": "fd00::1/64"}}), "not an IPv4 address", None),
        (resource("Node", {"bgp": {"ipv6Address": "10.0.0.1"}}), "not an IPv6 address", None),
        (resource("Node", {"bgp": {"asNumber": True}}), "asNumber must be a whole number", None),
        (resource("Node", {"bgp": {"asNumber": -1}}), "asNumber is -1", None),
        (resource("Node", {"vxlanTunnelMACAddr": "66:b3"}), "is no MAC address", "66:b3:68"),
        (
            resource("WorkloadEndpoint", {**ENDPOINT, "ipNetworks": ["10.244.0.0/26"]}),
            r"spec.ipNetworks\[0\]: 10.244.0.0/26 is more than one address",
            "10.244.0.0/32",
        ),
        (
            resource("WorkloadEndpoint", {**ENDPOINT, "interfaceName": "much-too-long-name"}),
            "is no interface name",
            "15",
        ),
        (resource("WorkloadEndpoint", {**ENDPOINT, "containerID": "a/b"}), "container ID", None),
        (resource("WorkloadEndpoint", {"node": "n"}), "spec.orchestrator is missing", None),
        (
            resource("IPReservation", {"reservedCIDRs": ["10.0.0.1/24"]}),
            r"spec.reservedCIDRs\[0\]: .*bits set",
            "10.0.0.0/24",
        ),
        (
            resource("ClusterInformation", {}, name="other"),
            "metadata.name of the ClusterInformation must be default",
            "default",
        ),
        (
            resource("ClusterInformation", {}, annotations={"podwire.io/routing": "ospf"}),
            "'ospf' is unknown",
            "agent, bird",
        ),
    ],
)
def test_a_fault_is_named_with_its_way_out(document: Any, fault: str, fix: str | None) -> None:
    import re

    faults = check_document(document)
    assert len(faults) == 1, [str(each) for each in faults]
    assert re.search(fault, str(faults[0])), str(faults[0])
    if fix is not None:
        assert fix in (faults[0].fix or "")


def test_every_fault_of_a_document_is_found() -> None:
    document = pool(blockSize="26", natOutgoing="yes", quark=1)
    document["metadata"]["nam"] = "x"
    assert len(check_document(document)) == 4


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "cidr", "bgp", "labels", "ipipMode", "blockSize", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from([*SHAPES, "Other"]), JSON_VALUES, JSON_VALUES, st.sampled_from(GOOD))
def test_any_document_is_refused_with_words_or_can_be_built(
    kind: str, spec: Any, metadata: Any, good: dict[str, Any]
) -> None:
    documents = [
        {"kind": kind, "apiVersion": V3, "metadata": metadata, "spec": spec},
        {**good, "spec": spec},
        {**good, "spec": {**good["spec"], **(spec if isinstance(spec, dict) else {})}},
    ]
    for document in documents:
        faults = check_document(document)
        assert all(str(fault) for fault in faults)
        if not faults:
            value = build(document, None)
            assert codec.decode(codec.key_of(value), codec.encode(value)) == value


def test_applying_keeps_what_agents_and_other_versions_wrote() -> None:
    stored = {
        "kind": "Node",
        "apiVersion": V3,
        "metadata": {"name": "n", "uid": "u", "labels": {"old": "1"}, "fromTheFuture": 1},
        "spec": {
            "bgp": {
                "ipv4Address": "10.0.0.1/24",
                "ipv4IPIPTunnelAddr": "10.244.0.0",
                "routeReflectorClusterID": "1.0.0.1",
                "unheardOf": True,
            },
            "orchRefs": [{"nodeName": "n"}],
            "quark": {"spin": 1},
        },
        "status": {"podCIDRs": []},
    }
    document = resource("Node", {"bgp": {"ipv4Address": "10.0.0.2/24"}}, name="n")
    wire = codec.encode(build(document, stored))
    assert wire["spec"] == {
        "bgp": {
            "ipv4Address": "10.0.0.2/24",
            "ipv4IPIPTunnelAddr": "10.244.0.0",
            "unheardOf": True,
        },
        "orchRefs": [{"nodeName": "n"}],
        "quark": {"spin": 1},
    }
    assert wire["status"] == {"podCIDRs": []}
    assert wire["metadata"] == {"name": "n", "uid": "u", "fromTheFuture": 1}


def test_applying_the_cluster_keeps_how_it_routes() -> None:
    stored = codec.encode(
        ClusterInformation(metadata=Metadata(name="default"), guid="g", routing=Routing.BIRD)
    )
    after = build(resource("ClusterInformation", {"datastoreReady": False}), stored)
    assert isinstance(after, ClusterInformation)
    assert (after.routing, after.guid, after.ready) == (Routing.BIRD, "g", False)
    changed = resource("ClusterInformation", {}, annotations={"podwire.io/routing": "agent"})
    before = codec.decode(keys.cluster_key(), stored)
    (fault,) = check_change(before, build(changed, stored))
    assert str(fault).endswith("cannot be changed from bird to agent by applying")
    assert check_change(before, after) == []


def test_the_first_word_on_who_writes_the_routes_is_not_applied_either() -> None:
    cluster = ClusterInformation(metadata=Metadata(name="default"), guid="g", version="v3.30.3")
    before = replace(cluster, undecided=True)
    (fault,) = check_change(before, replace(cluster, routing=Routing.BIRD))
    assert str(fault).endswith("cannot be set to bird by applying")
    assert fault.fix == "leave it out, and use: podwire bgp switch bird"


def test_a_pool_for_some_namespaces_holds_no_tunnels_by_default() -> None:
    value = build(pool(namespaceSelector="has(a)"), None)
    assert isinstance(value, IPPool)
    assert value.allowed_uses == (Use.WORKLOAD,)


def a_pool(name: str, cidr: str, block_size: int = 26) -> IPPool:
    return IPPool(metadata=Metadata(name=name), cidr=ip_network(cidr), block_size=block_size)


def test_cidr_and_block_size_stay_as_they_were_made() -> None:
    before = a_pool("p", "10.244.0.0/16")
    assert check_change(before, replace(before, nat_outgoing=True)) == []
    faults = check_change(before, a_pool("p", "10.245.0.0/16", 28))
    assert [fault.where for fault in faults] == ["spec.cidr", "spec.blockSize"]
    node = Node(metadata=Metadata(name="n"))
    assert check_change(node, node) == []


@pytest.mark.parametrize("other", ["10.244.0.0/16", "10.0.0.0/8", "10.244.7.0/24"])
def test_overlapping_pools_are_both_named(other: str) -> None:
    (fault,) = check_overlap(a_pool("new", "10.244.0.0/16"), [a_pool("old", other)])
    assert "IPPool new overlaps" in str(fault)
    assert f"{other} of IPPool old" in str(fault)


def test_pools_side_by_side_are_fine() -> None:
    others = [a_pool("a", "10.245.0.0/16"), a_pool("b", "fd00::/64", 122)]
    assert check_overlap(a_pool("new", "10.244.0.0/16"), others) == []


def test_blocks_of_another_size_left_in_the_cidr_are_named() -> None:
    blocks = [ip_network("10.244.0.0/28"), ip_network("10.9.0.0/28")]
    (fault,) = check_overlap(a_pool("new", "10.244.0.0/16"), [], blocks)
    assert str(fault).startswith("spec.blockSize is 26, but blocks of another size")
    assert check_overlap(a_pool("new", "10.244.0.0/16", 28), [], blocks) == []
