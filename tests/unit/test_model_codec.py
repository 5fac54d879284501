"""Calico's JSON is read, written, and given back with every field we do not know."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import BadInput
from podwire.model import codec, keys
from podwire.model.block import Affinity, AffinityState, Allocation, Block, Handle, IPAMConfig
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from tests.fakes.model_values import STORED, blocks

if TYPE_CHECKING:
    from podwire.model.resource import Stored

V3 = "projectcalico.org/v3"
RESOURCES = "/calico/resources/v3/projectcalico.org"
BLOCK = "/calico/ipam/v2/assignment/ipv4/block/192.168.221.64-26"
NANOSECONDS = 1766400000000000000

GOLDEN: dict[str, dict[str, Any]] = {
    f"{RESOURCES}/clusterinformations/default": {
        "kind": "ClusterInformation",
        "apiVersion": V3,
        "metadata": {
            "name": "default",
            "uid": "5d1f",
            "creationTimestamp": "2026-08-22T13:00:00Z",
        },
        "spec": {
            "clusterGUID": "77aa",
            "clusterType": "k8s,bgp",
            "calicoVersion": "v3.33.0",
            "datastoreReady": True,
        },
    },
    f"{RESOURCES}/ippools/default-ipv4-ippool": {
        "kind": "IPPool",
        "apiVersion": V3,
        "metadata": {"name": "default-ipv4-ippool"},
        "spec": {
            "cidr": "192.168.0.0/16",
            "vxlanMode": "Never",
            "ipipMode": "Always",
            "natOutgoing": True,
            "blockSize": 26,
            "nodeSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"],
            "assignmentMode": "Automatic",
        },
    },
    f"{RESOURCES}/nodes/node-1": {
        "kind": "Node",
        "apiVersion": V3,
        "metadata": {"name": "node-1"},
        "spec": {
            "bgp": {"ipv4Address": "10.0.0.1/24", "ipv4IPIPTunnelAddr": "192.168.221.64"},
            "orchRefs": [{"nodeName": "node-1", "orchestrator": "k8s"}],
            "addresses": [{"address": "10.0.0.1/24", "type": "CalicoNodeIP"}],
        },
        "status": {},
    },
    f"{RESOURCES}/workloadendpoints/default/node--1-k8s-web--0-eth0": {
        "kind": "WorkloadEndpoint",
        "apiVersion": V3,
        "metadata": {
            "name": "node--1-k8s-web--0-eth0",
            "namespace": "default",
            "labels": {
                "projectcalico.org/namespace": "default",
                "projectcalico.org/orchestrator": "k8s",
                "projectcalico.org/serviceaccount": "default",
                "app": "web",
            },
        },
        "spec": {
            "orchestrator": "k8s",
            "node": "node-1",
            "containerID": "0a1b2c",
            "pod": "web-0",
            "endpoint": "eth0",
            "serviceAccountName": "default",
            "ipNetworks": ["192.168.221.65/32"],
            "profiles": ["kns.default", "ksa.default.default"],
            "interfaceName": "cali0d7763386da",
            "mac": "02:00:00:00:00:01",
            "allowSpoofedSourcePrefixes": ["198.51.100.0/24"],
        },
    },
    "/calico/ipam/v2/host/node-1/ipv4/block/192.168.221.64-26": {
        "state": "confirmed",
        "deleted": False,
    },
    BLOCK: {
        "cidr": "192.168.221.64/26",
        "affinity": "host:node-1",
        "allocations": [0, 1, *[None] * 62],
        "unallocated": list(range(2, 64)),
        "attributes": [
            {
                "handle_id": "ipip-tunnel-addr-node-1",
                "secondary": {"node": "node-1", "type": "ipipTunnelAddress"},
            },
            {
                "handle_id": "k8s-pod-network.0a1b2c",
                "secondary": {
                    "namespace": "default",
                    "node": "node-1",
                    "pod": "web-0",
                    "timestamp": "2026-08-22 13:00:00.1 +0000 UTC",
                },
            },
        ],
        "sequenceNumber": NANOSECONDS + 2,
        "sequenceNumberForAllocation": {"0": NANOSECONDS, "1": NANOSECONDS + 1},
        "deleted": False,
    },
    "/calico/ipam/v2/handle/ipip-tunnel-addr-node-1": {
        "block": {"192.168.221.64/26": 1},
        "deleted": False,
    },
    "/calico/ipam/v2/config": {"strict_affinity": True, "auto_allocate_blocks": True},
}


@pytest.mark.parametrize("key", GOLDEN)
def test_what_calico_wrote_is_written_back_unchanged(key: str) -> None:
    value = codec.decode(key, GOLDEN[key])
    assert codec.encode(value) == GOLDEN[key]
    assert codec.key_of(value) == key


def test_what_calico_wrote_means_what_it_means_there() -> None:
    cluster, pool, node, endpoint, affinity, block, handle, config = (
        codec.decode(key, wire) for key, wire in GOLDEN.items()
    )
    assert cluster == ClusterInformation(
        metadata=Metadata(name="default", uid="5d1f", created="2026-08-22T13:00:00Z"),
        guid="77aa",
        cluster_type="k8s,bgp",
        version="v3.33.0",
        undecided=True,
    )
    assert pool == IPPool(
        metadata=Metadata(name="default-ipv4-ippool"),
        cidr=ip_network("192.168.0.0/16"),
        ipip_mode=Mode.ALWAYS,
        nat_outgoing=True,
    )
    assert node == Node(
        metadata=Metadata(name="node-1"),
        address=ip_interface("10.0.0.1/24"),
        ipip_tunnel=ip_address("192.168.221.64"),
    )
    assert isinstance(endpoint, WorkloadEndpoint)
    assert endpoint.title == "default/web-0"
    assert endpoint.addresses == (ip_interface("192.168.221.65/32"),)
    assert endpoint.allowed_source_prefixes == (ip_network("198.51.100.0/24"),)
    assert affinity == Affinity(
        node="node-1", block=ip_network("192.168.221.64/26"), state=AffinityState.CONFIRMED
    )
    assert isinstance(block, Block)
    assert block.node == "node-1"
    assert block.allocations[1].handle == "k8s-pod-network.0a1b2c"
    assert block.allocations[1].sequence == NANOSECONDS + 1
    assert handle == Handle(
        id="ipip-tunnel-addr-node-1", blocks={ip_network("192.168.221.64/26"): 1}
    )
    assert config == IPAMConfig()


@given(STORED)
def test_every_value_survives_the_datastore(value: Stored) -> None:
    wire = json.loads(json.dumps(codec.encode(value)))
    key = codec.key_of(value)
    read = codec.decode(key, wire)
    if isinstance(value, ClusterInformation | Node):
        assert isinstance(read, ClusterInformation | Node)
        # Routing choice and MTU lie among the annotations, where the wire shows them.
        annotations = dict(read.metadata.annotations)
        for name in (codec.ROUTING_ANNOTATION, codec.UNDERLAY_MTU_ANNOTATION):
            annotations.pop(name, None)
        read = replace(read, metadata=replace(read.metadata, annotations=annotations))
    assert read == value
    assert codec.encode(read) == wire


def sprinkle(value: Any, path: tuple[str, ...] = ()) -> Any:
    """The same JSON with an unknown field in every object whose fields have fixed names."""
    free = {"labels", "annotations", "secondary", "alternateOwnerAttrs", "block"}
    if isinstance(value, list):
        return [sprinkle(item, path) for item in value]
    if not isinstance(value, dict) or (path and path[-1] in {*free, "sequenceNumberForAllocation"}):
        return value
    return {
        **{name: sprinkle(item, (*path, name)) for name, item in value.items()},
        "fromTheFuture": {"deep": [1, {"er": None}]},
    }


@given(STORED)
def test_unknown_fields_survive_at_every_level(value: Stored) -> None:
    wire = sprinkle(json.loads(json.dumps(codec.encode(value))))
    before = copy.deepcopy(wire)
    assert codec.encode(codec.decode(codec.key_of(value), wire)) == before
    assert wire == before  # and the value read is not changed by writing


def test_the_addresses_calico_reads_follow_the_node() -> None:
    key = f"{RESOURCES}/nodes/node-1"
    node = codec.decode_node(key, {})
    assert codec.encode(node)["spec"] == {}
    first = codec.encode(replace(node, address=ip_interface("10.0.0.1/24")))
    assert first["spec"]["addresses"] == [{"address": "10.0.0.1/24", "type": "CalicoNodeIP"}]
    other = {"address": "10.0.0.1", "type": "InternalIP"}
    first["spec"]["addresses"].append(other)
    moved = replace(codec.decode_node(key, first), address=ip_interface("10.0.0.7/24"))
    assert codec.encode(moved)["spec"]["addresses"] == [
        {"address": "10.0.0.7/24", "type": "CalicoNodeIP"},
        other,
    ]


@given(STORED, st.sampled_from([None, "", [], {}, False, 0]))
def test_what_says_nothing_stays_as_it_stands(value: Stored, nothing: Any) -> None:
    """Null, empty and absent mean the same, and a write of something else changes none of them."""
    wire = json.loads(json.dumps(codec.encode(value)))
    holder = wire.get("spec", wire)
    read = codec.decode(codec.key_of(value), wire)
    for name in tuple(holder):
        before = holder[name]
        holder[name] = nothing
        with contextlib.suppress(BadInput):
            blank = codec.decode(codec.key_of(value), wire)
            if blank == read:  # it already said nothing
                assert codec.encode(blank) == wire
        holder[name] = before


def test_a_change_keeps_the_unknown_fields_beside_it() -> None:
    key = f"{RESOURCES}/nodes/node-1"
    node = codec.decode_node(key, sprinkle(GOLDEN[key]))
    wire = codec.encode(replace(node, ipip_tunnel=None, vxlan_tunnel=ip_address("10.244.0.0")))
    expected = sprinkle(GOLDEN[key])
    del expected["spec"]["bgp"]["ipv4IPIPTunnelAddr"]
    expected["spec"]["ipv4VXLANTunnelAddr"] = "10.244.0.0"
    assert wire == expected


def test_two_addresses_of_one_owner_share_an_attribute_and_indexes_close_up() -> None:
    block = codec.decode_block(BLOCK, sprinkle(GOLDEN[BLOCK]))
    pod = block.allocations[1]
    changed = replace(block, allocations={1: pod, 5: replace(pod, sequence=NANOSECONDS + 3)})
    wire = codec.encode(changed)
    # Ordinal 5 is new: it shares the attribute only if it equals it in every known field, and the
    # unknown ones of another allocation are not its own.
    assert wire["allocations"][:6] == [None, 0, None, None, None, 1]
    plain = replace(changed, wire=GOLDEN[BLOCK])
    wire = codec.encode(plain)
    assert wire["allocations"][:6] == [None, 0, None, None, None, 0]
    assert wire["attributes"] == [GOLDEN[BLOCK]["attributes"][1]]
    assert wire["sequenceNumberForAllocation"] == {"1": NANOSECONDS + 1, "5": NANOSECONDS + 3}


def test_a_released_address_keeps_its_owner_beside_the_time_of_release() -> None:
    block = codec.decode_block(BLOCK, GOLDEN[BLOCK])
    resting = replace(block.allocations[1], released_at="2026-08-22T14:00:00Z")
    wire = codec.encode(replace(block, allocations={**block.allocations, 1: resting}))
    assert wire["attributes"][1] == {
        **GOLDEN[BLOCK]["attributes"][1],
        "releasedAt": "2026-08-22T14:00:00Z",
    }


@given(blocks())
def test_every_index_points_to_an_attribute_and_every_attribute_is_used(block: Block) -> None:
    wire = codec.encode(block)
    used = {index for index in wire["allocations"] if index is not None}
    assert used == set(range(len(wire["attributes"])))
    assert len(wire["allocations"]) == block.size
    distinct = {json.dumps(item, sort_keys=True) for item in wire["attributes"]}
    assert len(distinct) == len(wire["attributes"])


def test_the_oldest_spelling_of_an_affinity_is_read() -> None:
    wire = {**GOLDEN[BLOCK], "hostAffinity": "node-9"}
    del wire["affinity"]
    assert codec.decode_block(BLOCK, wire).node == "node-9"


def test_a_load_balancer_s_block_keeps_its_affinity() -> None:
    wire = {**GOLDEN[BLOCK], "affinity": "virtual:load-balancer"}
    block = codec.decode_block(BLOCK, wire)
    assert block.node is None
    assert codec.encode(block)["affinity"] == "virtual:load-balancer"
    assert codec.encode(replace(block, foreign_affinity=None))["affinity"] is None


def test_what_an_existing_ipam_configuration_leaves_out_is_false() -> None:
    assert codec.decode_ipam_config(keys.IPAM_CONFIG_KEY, {}) == IPAMConfig(
        strict_affinity=False, auto_allocate_blocks=False
    )
    assert codec.encode(IPAMConfig()) == {"strict_affinity": True, "auto_allocate_blocks": True}


def test_an_empty_affinity_is_confirmed() -> None:
    key = "/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-26"
    assert codec.decode_affinity(key, {}).state is AffinityState.CONFIRMED


def test_the_routing_choice_is_an_annotation() -> None:
    cluster = ClusterInformation(metadata=Metadata(name="default"), guid="1", routing=Routing.BIRD)
    wire = codec.encode(cluster)
    assert wire["metadata"]["annotations"] == {"podwire.io/routing": "bird"}
    assert codec.decode_cluster(keys.cluster_key(), wire).routing is Routing.BIRD


@pytest.mark.parametrize("text", ["", "wide", "100", "-1500", "1e3", "99999", "१५००"])
def test_an_annotation_that_is_no_mtu_is_nothing_and_stays(text: str) -> None:
    key = keys.node_key("n")
    wire = {"metadata": {"name": "n", "annotations": {"podwire.io/underlay-mtu": text}}}
    value = codec.decode_node(key, wire)
    assert value.underlay_mtu is None
    kept = codec.encode(replace(value, address=ip_interface("10.0.0.1/24")))
    assert kept["metadata"]["annotations"] == wire["metadata"]["annotations"]
    written = codec.encode(replace(value, underlay_mtu=1500))
    assert written["metadata"]["annotations"] == {"podwire.io/underlay-mtu": "1500"}
    taken_back = codec.encode(replace(codec.decode_node(key, written), underlay_mtu=None))
    assert "annotations" not in taken_back["metadata"]


@pytest.mark.parametrize("written", [64512, "64512", "0.64512"])
def test_an_as_number_is_read_in_every_notation_and_kept_in_it(written: Any) -> None:
    key = keys.node_key("n")
    wire = {"spec": {"bgp": {"asNumber": written}}}
    node = codec.decode_node(key, wire)
    assert node.as_number == 64512
    assert codec.encode(node)["spec"]["bgp"]["asNumber"] == written
    assert codec.encode(replace(node, as_number=65000))["spec"]["bgp"]["asNumber"] == 65000


def test_allocations_without_a_sequence_number_are_read() -> None:
    wire = {**GOLDEN[BLOCK]}
    del wire["sequenceNumberForAllocation"]
    block = codec.decode_block(BLOCK, wire)
    assert block.allocations[0] == Allocation(
        handle="ipip-tunnel-addr-node-1",
        attributes={"node": "node-1", "type": "ipipTunnelAddress"},
    )


POOL = keys.pool_key("p")


@pytest.mark.parametrize(
    ("key", "wire", "complaint"),
    [
        (POOL, {}, "spec.cidr is missing"),
        (POOL, {"spec": []}, "spec must be an object, not a list"),
        (POOL, {"spec": {"cidr": 7}}, "spec.cidr must be a string, not a number"),
        (POOL, {"spec": {"cidr": "10.0.0.1/16"}}, "spec.cidr: .* has bits set"),
        (POOL, {"spec": {"cidr": "10.0.0.0/16", "blockSize": True}}, "spec.blockSize must be an"),
        (POOL, {"spec": {"cidr": "10.0.0.0/16", "ipipMode": "Some"}}, "spec.ipipMode 'Some' is"),
        (
            POOL,
            {"spec": {"cidr": "10.0.0.0/16", "allowedUses": ["Workload", "Play"]}},
            r"spec.allowedUses\[1\] 'Play' is none of Workload, Tunnel, LoadBalancer",
        ),
        (
            POOL,
            {"spec": {"cidr": "10.0.0.0/16"}, "metadata": {"labels": {"a": 1}}},
            "metadata.labels.a must be a string, not a number",
        ),
        (BLOCK, {**GOLDEN[BLOCK], "allocations": [9]}, r"allocations\[0\] points to attribute 9"),
        (BLOCK, {**GOLDEN[BLOCK], "allocations": ["x"]}, r"allocations\[0\] must be an index"),
        (BLOCK, {**GOLDEN[BLOCK], "allocations": [None] * 65}, "has 65 entries for 64 addresses"),
        (BLOCK, {**GOLDEN[BLOCK], "unallocated": [64]}, r"unallocated\[0\] must be an ordinal"),
        (BLOCK, {**GOLDEN[BLOCK], "attributes": [1]}, r"attributes\[0\] must be an object"),
        (keys.node_key("n"), {"spec": {"bgp": {"asNumber": []}}}, "spec.bgp.asNumber must be"),
        ("/calico/other", {}, "no kind of ours"),
        (keys.POOLS, {}, "no IPPool is stored under such a key"),
    ],
)
def test_a_wrong_field_is_named_by_key_and_path(
    key: str, wire: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint) as bad:
        codec.decode(key, wire)
    assert bad.value.message.startswith(key)


@given(
    st.sampled_from(list(GOLDEN)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["spec", "metadata", "cidr", "bgp", "labels", "block", "attributes"]
                ),
                inner,
                max_size=4,
            )
        ),
    ),
)
def test_any_json_is_read_or_refused(key: str, wire: Any) -> None:
    with contextlib.suppress(BadInput):
        codec.decode(key, {"spec": wire, "metadata": wire, **(wire if type(wire) is dict else {})})


def test_a_reservation_with_bits_behind_its_prefix_reserves_the_network() -> None:
    """Calico's tools store one as it was written."""
    key = keys.reservation_key("r")
    wire = {
        "kind": "IPReservation",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "r"},
        "spec": {"reservedCIDRs": ["10.0.0.9/30", "10.0.0.1"]},
    }
    value = codec.decode_reservation(key, wire)
    assert [str(cidr) for cidr in value.reserved] == ["10.0.0.8/30", "10.0.0.1/32"]
    assert codec.encode(value) == wire
