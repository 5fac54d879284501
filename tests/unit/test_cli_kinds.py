"""The kinds Calico has: names, tables, and what is kept of those Podwire does not act on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.cli.kinds import KINDS, find_kind
from podwire.model import codec, keys
from podwire.model.kept import KEPT, POLICIES, kept_key, with_policy_types
from podwire.model.validate import build, check_document
from tests.fakes.command_line import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.command_line import CommandLine

V3 = "projectcalico.org/v3"


@pytest.fixture
def podwire(tmp_path: Path) -> Iterator[CommandLine]:
    with command_line(tmp_path / "datastore.db") as line:
        yield line


def document(kind: str, spec: Any, **metadata: Any) -> str:
    whole = {"kind": kind, "apiVersion": V3, "metadata": {"name": "x", **metadata}, "spec": spec}
    return json.dumps(whole)


TABLES = """\
ippool ipp pool ippools      | NAME CIDR SELECTOR | NAME CIDR NAT IPIPMODE VXLANMODE DISABLED \
DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE
node no nodes                | NAME | NAME ASN IPV4 IPV6
bgppeer bgpp bgppeers        | NAME PEERIP NODE ASN | NAME PEERIP NODE ASN NODESELECTOR \
PEERSELECTOR FILTERS
bgpconfig bgpconfiguration   | NAME LOGSEVERITY MESHENABLED ASNUMBER | =
bgpfilter bgpfilters         | NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6 | =
felixconfig fc               | NAME | NAME
workloadendpoint wep weps    | WORKLOAD NODE NETWORKS INTERFACE | NAME WORKLOAD NODE NETWORKS \
INTERFACE PROFILES NATS
hostendpoint hep             | NAME NODE | NAME NODE INTERFACE IPS PROFILES
networkpolicy np pol         | NAME TIER | NAME TIER ORDER SELECTOR
globalnetworkpolicy gnp      | NAME TIER | NAME TIER ORDER SELECTOR
networkset globalnetworkset gnetsets | NAME | NAME NETS
profile pro                  | NAME | NAME LABELS
tier tiers                   | NAME ORDER | =
ipreservation                | NAME | NAME CIDRS
ipamconfig ipamconfiguration | NAME STRICTAFFINITY AUTOALLOCATEBLOCKS MAXBLOCKSPERHOST | =
clusterinfo                  | NAME CLUSTERGUID CLUSTERTYPE CALICOVERSION DATASTOREREADY | =
caliconodestatus             | NAME NODE CLASSES | =
""".splitlines()


@pytest.mark.parametrize("line", TABLES, ids=[line.split()[0] for line in TABLES])
def test_names_and_columns_are_calico_s(line: str) -> None:
    words, plain, wide = line.split("|")
    for word in words.split():
        kind = find_kind(word.upper())
        assert list(kind.header(wide=False)) == plain.split()
        assert list(kind.header(wide=True)) == (plain if wide.strip() == "=" else wide).split()


def test_no_word_names_two_kinds() -> None:
    words = [word for kind in KINDS for word in (kind.name.lower(), *kind.aliases)]
    assert sorted(words) == sorted(set(words))


def test_a_policy_is_kept_whole_and_said_to_be_without_effect(podwire: CommandLine) -> None:
    rules = [{"action": "Deny", "odd": None}]
    spec = {"order": 10.5, "selector": "all()", "ingress": rules, "types": ["Ingress"]}
    policy = document("GlobalNetworkPolicy", spec)
    done = podwire.done("apply", "-f", "-", text=policy)
    assert "Successfully applied 1 'GlobalNetworkPolicy'" in done.out
    assert "Podwire keeps GlobalNetworkPolicy for others and does not act on it yet" in done.err
    assert podwire.done("get", "gnp", "-o", "wide").rows[1] == ["x", "default", "10.5", "all()"]
    shown = json.loads(podwire.done("get", "gnp", "x", "-o", "json", "--export").out)
    assert shown == {**json.loads(policy), "metadata": {"name": "x"}}
    assert podwire.done("apply", "--dry-run", "-f", "-", text=json.dumps(shown)).out == (
        "nothing would change\n"
    )
    podwire.done("patch", "gnp", "x", "-p", '{"spec": {"order": 7}}')
    podwire.done("label", "gnp", "x", "a=b")
    entry = podwire.store.get(keys.resource_key("globalnetworkpolicies", "x"))
    assert entry is not None
    assert entry.value["spec"] == {**spec, "order": 7}
    assert podwire.done("delete", "gnp", "x").out == (
        "Successfully deleted 1 'GlobalNetworkPolicy' resource(s)\n"
    )


def test_kinds_with_namespaces_have_their_column(podwire: CommandLine) -> None:
    for namespace in ("a", "b"):
        text = document("NetworkPolicy", {"tier": "t"}, namespace=namespace)
        podwire.done("create", "-f", "-", text=text)
    one = [["NAMESPACE", "NAME", "TIER"], ["b", "x", "t"]]
    assert podwire.done("get", "np", "-n", "b").rows == one
    assert [row[0] for row in podwire.done("get", "np", "-A").rows] == ["NAMESPACE", "a", "b"]
    assert podwire.done("get", "np").rows == [["NAME", "TIER"]]


RULES = [{"action": "Allow"}]
TYPES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["Ingress"]),
    ({"ingress": RULES}, ["Ingress"]),
    ({"egress": RULES}, ["Egress"]),
    ({"ingress": RULES, "egress": RULES}, ["Ingress", "Egress"]),
    ({"ingress": RULES, "egress": RULES, "types": ["Egress"]}, ["Egress"]),
]


@pytest.mark.parametrize(("spec", "types"), TYPES, ids=[",".join(spec) or "-" for spec, _ in TYPES])
def test_a_policy_says_which_directions_it_governs(
    podwire: CommandLine, spec: dict[str, Any], types: list[str]
) -> None:
    podwire.done("apply", "-f", "-", text=document("GlobalNetworkPolicy", spec))
    shown = json.loads(podwire.done("get", "gnp", "x", "-o", "json").out)
    assert shown["spec"] == {**spec, "types": types}


def test_labels_of_a_profile_are_told_as_calicoctl_does(podwire: CommandLine) -> None:
    spec = {"labelsToApply": {"zone": "a", "kind": "host"}}
    podwire.done("apply", "-f", "-", text=document("Profile", spec))
    assert podwire.done("get", "profile", "-o", "wide").rows[1] == ["x", "kind=host,zone=a"]


def test_tiers_stand_in_their_order(podwire: CommandLine) -> None:
    for name, spec in (("a", {"order": 5000}), ("b", {}), ("c", {"order": 1})):
        podwire.done("create", "-f", "-", text=document("Tier", spec, name=name))
    assert [row[0] for row in podwire.done("get", "tier").rows[1:]] == ["c", "a", "b"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(KEPT)), st.dictionaries(st.text(max_size=3), VALUES), VALUES)
def test_nothing_of_a_kept_resource_is_lost(kind: str, spec: Any, status: Any) -> None:
    """Stored by Calico, read here and written back."""
    wire = {
        "kind": kind,
        "apiVersion": V3,
        "metadata": {"name": "x", "uid": "u", "ownerReferences": [{"a": 1}]},
        "spec": spec,
        "status": status,
    }
    if KEPT[kind].namespaced:
        wire["metadata"] = {"namespace": "ns", "name": "x", "uid": "u"}
    key = kept_key(KEPT[kind], "ns", "x")
    value = codec.decode(key, wire)
    assert codec.encode(value) == wire
    assert codec.key_of(value) == key
    assert check_document(wire) == []
    whole = with_policy_types(spec) if kind in POLICIES else spec
    assert codec.encode(build(wire, wire)) == {**wire, "spec": whole}


def test_a_broken_one_is_named_and_the_others_shown(podwire: CommandLine) -> None:
    podwire.store.create(keys.resource_key("tiers", "a"), {"spec": "odd"})
    podwire.done("create", "-f", "-", text=document("Tier", {"order": 1}))
    said = podwire("get", "tier")
    assert (said.code, said.rows) == (1, [["NAME", "ORDER"], ["x", "1"]])
    assert "tiers/a: spec must be an object, not a string" in said.err


def test_the_ipam_configuration_is_a_resource(podwire: CommandLine) -> None:
    assert podwire("get", "ipamconfig", "default").code == 1
    podwire.store.create(
        keys.IPAM_CONFIG_KEY,
        {"auto_allocate_blocks": True, "ipCooldownSeconds": 60, "unheardOf": [1]},
    )
    shown = json.loads(podwire.done("get", "ipamconfig", "default", "-o", "json").out)
    assert shown["spec"] == {
        "strictAffinity": False,
        "autoAllocateBlocks": True,
        "maxBlocksPerHost": 0,
        "ipCooldownSeconds": 60,
    }
    text = document("IPAMConfiguration", {"strictAffinity": True}, name="default")
    diff = podwire.done("apply", "--dry-run", "-f", "-", text=text).out
    assert "-  strictAffinity: false\n+  strictAffinity: true\n" in diff
    podwire.done("apply", "-f", "-", text=text)
    entry = podwire.store.get(keys.IPAM_CONFIG_KEY)
    assert entry is not None
    assert entry.value == {
        "auto_allocate_blocks": True,
        "ipCooldownSeconds": 60,
        "unheardOf": [1],
        "strict_affinity": True,
        "maxBlocksPerHost": 0,
    }
    podwire.done("patch", "ipamconfig", "default", "-p", "spec: {maxBlocksPerHost: 3}")
    assert podwire.done("get", "ipamconfig").rows[1] == ["default", "true", "true", "3"]
    for spec, problem in (
        ({"maxBlocksPerHost": 3}, "maxBlocksPerHost needs strictAffinity"),
        ({"autoAllocateBlocks": False}, "autoAllocateBlocks may be false only with"),
        ({"ipCooldownSeconds": 5000}, "ipCooldownSeconds is 5000"),
    ):
        said = podwire("apply", "-f", "-", text=document("IPAMConfig", spec, name="default"))
        assert (said.code, problem in said.err) == (64, True), said
    assert "cannot be deleted" in podwire("delete", "ipamconfig", "default").err


def test_nodes_without_an_as_show_the_cluster_s(podwire: CommandLine) -> None:
    podwire.done("create", "-f", "-", text=document("Node", {}))
    assert podwire.done("get", "node", "-o", "wide").rows[1][1] == "(64512)"
    text = document("BGPConfiguration", {"asNumber": 64600}, name="default")
    podwire.done("create", "-f", "-", text=text)
    assert podwire.done("get", "node", "-o", "wide").rows[1][1] == "(64600)"


def test_a_pool_is_stored_with_every_field(podwire: CommandLine) -> None:
    """Calico's tools store them; what others stored without one is left so."""
    pool = document("IPPool", {"cidr": "10.9.0.0/16"})
    podwire.done("create", "-f", "-", text=pool)
    key = keys.pool_key("x")
    entry = podwire.store.get(key)
    assert entry is not None
    assert entry.value["spec"] == {
        "cidr": "10.9.0.0/16",
        "vxlanMode": "Never",
        "ipipMode": "Never",
        "blockSize": 26,
        "nodeSelector": "all()",
        "allowedUses": ["Workload", "Tunnel"],
        "assignmentMode": "Automatic",
    }
    assert podwire.done("apply", "--dry-run", "-f", "-", text=pool).out == "nothing would change\n"
    bare = {**entry.value, "spec": {"cidr": "10.9.0.0/16", "blockSize": 26}}
    podwire.store.update(key, bare, entry.revision)
    assert podwire.done("apply", "--dry-run", "-f", "-", text=pool).out == "nothing would change\n"


def test_what_is_there_is_shown_beside_what_is_not(podwire: CommandLine) -> None:
    podwire.done("create", "-f", "-", text=document("Tier", {"order": 1}))
    said = podwire("get", "tier", "x", "y")
    assert (said.code, said.rows[1:]) == (1, [["x", "1"]])
    assert "Tier y does not exist" in said.err


def test_a_policy_stored_with_its_tier_is_found_by_both_names(podwire: CommandLine) -> None:
    """Until Calico 3.31 tools stored it so, and calicoctl shows it without."""
    key = keys.resource_key("globalnetworkpolicies", "default.x")
    policy = json.loads(document("GlobalNetworkPolicy", {"types": ["Egress"], "order": 1}))
    podwire.store.create(key, {**policy, "metadata": {"name": "default.x"}})
    for name in ("x", "default.x"):
        shown = podwire.done("get", "gnp", name, "-o", "name").out
        assert shown == "globalnetworkpolicy/default.x\n"
    podwire.done("replace", "-f", "-", text=json.dumps({**policy, "spec": {"order": 2}}))
    podwire.done("patch", "gnp", "x", "-p", '{"spec": {"selector": "all()"}}')
    podwire.done("label", "gnp", "x", "a=b")
    entry = podwire.store.get(key)
    assert entry is not None
    assert entry.value["spec"] == {"order": 2, "types": ["Ingress"], "selector": "all()"}
    assert entry.value["metadata"]["labels"] == {"a": "b"}
    assert podwire("create", "-f", "-", text=json.dumps(policy)).code == 1
    other = {**policy, "spec": {"tier": "t"}}
    podwire.done("create", "-f", "-", text=json.dumps(other))
    podwire.done("delete", "gnp", "x")
    assert [row[0] for row in podwire.done("get", "gnp").rows[1:]] == ["default.x"]
    podwire.done("delete", "gnp", "x")
    assert podwire("get", "gnp", "x").code == 1


def test_several_kinds_are_shown_as_a_list_that_can_be_applied(podwire: CommandLine) -> None:
    text = "\n---\n".join(document(kind, {"nets": []}) for kind in ("GlobalNetworkSet", "Tier"))
    podwire.done("create", "-f", "-", text=text)
    shown = podwire.done("get", "-f", "-", "-o", "json", text=text).out
    assert [each["kind"] for each in json.loads(shown)] == ["GlobalNetworkSet", "Tier"]
    said = podwire.done("replace", "--dry-run", "-f", "-", text=shown)
    assert said.out == "nothing would change\n"


def test_reservations_are_shown_as_they_are_written(podwire: CommandLine) -> None:
    for name, spec in (("a", {"reservedCIDRs": ["10.0.0.9/30", "10.0.0.1"]}), ("b", {})):
        wire = json.loads(document("IPReservation", spec, name=name))
        podwire.store.create(keys.reservation_key(name), wire)
    shown = podwire.done("get", "ipreservation", "-o", "wide").rows[1:]
    assert shown == [["a", "10.0.0.9/30,10.0.0.1"], ["b", "<none>"]]
