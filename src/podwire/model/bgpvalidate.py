"""What must go together in BGP resources, in one document and across several. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.errors import BadInput
from podwire.model.addressing import parse_network
from podwire.model.bgpcodec import HOLD_ANNOTATION, KEEPALIVE_ANNOTATION
from podwire.model.bgpfilter import MOST_OPERATIONS
from podwire.model.bgprulecodec import parse_community
from podwire.model.resourcecodec import parse_duration
from podwire.model.selector import parse_selector
from podwire.model.shape import Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from podwire.model.bgp import BGPPeer
    from podwire.model.node import Node
    from podwire.model.shape import Path

    Spec = Mapping[str, Any]

OF_ALL = "default"
OF_NODE = "node."
SHORTEST_HOLD_S = 3
"""RFC 4271, 4.2."""
LONGEST_HOLD_S = 2**16 - 1
LONGEST_RESTART_S = 2**12 - 1
"""RFC 4724, 3: the field has twelve bits."""
_ONE_FOR_ALL = (
    *("nodeToNodeMeshEnabled", "asNumber", "communities", "prefixAdvertisements"),
    *("nodeMeshPassword", "nodeMeshMaxRestartTime"),
)
"""Fields that cannot differ from node to node."""


def configuration_faults(document: Spec) -> list[Fault]:
    """What is wrong with a BGPConfiguration whose fields are right one by one."""
    name, spec = document["metadata"]["name"], document["spec"]
    faults = _time_faults(document, KEEPALIVE_ANNOTATION)
    if name != OF_ALL and not name.startswith(OF_NODE):
        problem = f"{name!r} is no BGPConfiguration's"
        fix = "write default, or node.NAME for what is different on one node"
        faults.append(Fault(("metadata", "name"), problem, fix))
    if name != OF_ALL:
        faults += [
            Fault(("spec", field), "is the same on all nodes", "write it into default")
            for field in _ONE_FOR_ALL
            if spec.get(field) is not None
        ]
    for field in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
        if spec.get(field) is not None and spec.get("nodeToNodeMeshEnabled") is False:
            fix = "leave it out, or enable the mesh"
            faults.append(Fault(("spec", field), "is given for a mesh that is disabled", fix))
    return faults + _restart_faults(spec, "nodeMeshMaxRestartTime") + _community_faults(spec)


def peer_faults(document: Spec) -> list[Fault]:
    """What is wrong with a BGPPeer whose fields are right one by one."""
    spec = document["spec"]
    faults = _time_faults(document)
    if spec.get("node") and spec.get("nodeSelector"):
        fix = "keep one of them; neither means every node"
        faults.append(Fault(("spec", "nodeSelector"), "is given beside node", fix))
    ends = [n for n in ("peerIP", "peerSelector", "localWorkloadSelector") if spec.get(n)]
    if not ends:
        fix = "name the peer by peerIP and asNumber, or nodes of ours by peerSelector"
        faults.append(Fault(("spec", "peerIP"), "is missing", fix))
    faults += [
        Fault(("spec", name), f"is given beside {ends[0]}", "keep one of them") for name in ends[1:]
    ]
    if spec.get("peerSelector") and spec.get("asNumber"):
        problem = "is given beside peerSelector: a node's AS number is its own"
        faults.append(Fault(("spec", "asNumber"), problem, "leave it out"))
    if spec.get("localWorkloadSelector"):
        problem = "asks for peering with pods, which is not served"
        faults.append(Fault(("spec", "localWorkloadSelector"), problem, "peer by peerIP"))
    if spec.get("reachableBy") and not spec.get("peerIP"):
        faults.append(Fault(("spec", "reachableBy"), "needs peerIP", "leave it out"))
    if spec.get("nextHopMode") and spec.get("keepOriginalNextHop"):
        fix = "leave keepOriginalNextHop out: it is the older word for nextHopMode Keep"
        faults.append(Fault(("spec", "keepOriginalNextHop"), "is given beside nextHopMode", fix))
    keepalive = spec.get("keepaliveTime")
    if keepalive and not 1 <= parse_duration(keepalive) <= LONGEST_HOLD_S // 3:
        fix = f"write 1s to {LONGEST_HOLD_S // 3}s: the hold time is three times that"
        faults.append(Fault(("spec", "keepaliveTime"), f"is {keepalive}", fix))
    return faults + _restart_faults(spec, "maxRestartTime")


def filter_faults(document: Spec) -> list[Fault]:
    """What is wrong with a BGPFilter whose fields are right one by one."""
    spec = document["spec"]
    return [
        fault
        for name in ("importV4", "exportV4", "importV6", "exportV6")
        for number, rule in enumerate(spec.get(name) or ())
        for fault in _rule_faults(rule, ("spec", name, number))
    ]


def check_peer(peer: BGPPeer, nodes: Iterable[Node], filters: Collection[str]) -> list[Fault]:
    """What of a BGPPeer does not go together with the other resources.

    `filters`: the names of all BGPFilters.
    """
    nodes = list(nodes)
    faults = [
        Fault(
            ("spec", "filters", number),
            f"names BGPFilter {name}, which does not exist",
            "apply the filter first, or in the same file",
        )
        for number, name in enumerate(peer.filters)
        if name not in filters
    ]
    if peer.address is None:
        return faults
    there = [node for node in nodes if node.address and node.address.ip == peer.address]
    if peer.as_number is None and not there:
        problem = f"is missing: the AS of {peer.address} is unknown, it is none of our nodes"
        faults.append(Fault(("spec", "asNumber"), problem, "write the peer's AS number"))
    here = [node.name for node in nodes if _is_of(peer, node)]
    if there and here == [there[0].name]:
        problem = f"is node {here[0]}'s own address: it would be its own peer"
        faults.append(Fault(("spec", "peerIP"), problem, "write the other side's address"))
    return faults


def check_node_address(node: Node, others: Iterable[Node]) -> list[Fault]:
    """What of a Node collides with the other nodes: an address is one node's."""
    faults = []
    for other in others:
        if other.name == node.name:
            continue
        for field, ours, theirs in (
            ("ipv4Address", node.address, other.address),
            ("ipv6Address", node.address6, other.address6),
        ):
            if ours is not None and theirs is not None and ours.ip == theirs.ip:
                problem = f"{ours.ip} is the address of node {other.name} already"
                fix = "give each node an address of its own"
                faults.append(Fault(("spec", "bgp", field), problem, fix))
    return faults


def _is_of(peer: BGPPeer, node: Node) -> bool:
    if peer.node is not None:
        return peer.node == node.name
    if peer.node_selector is None:
        return True
    return parse_selector(peer.node_selector).matches(node.metadata.labels)


def _time_faults(document: Spec, *more: str) -> list[Fault]:
    """The times among the annotations: there is no field for them."""
    annotations = document["metadata"].get("annotations") or {}
    faults: list[Fault] = []
    seconds: dict[str, int] = {}
    for name in (HOLD_ANNOTATION, *more):
        if name not in annotations:
            continue
        path = ("metadata", "annotations", name)
        try:
            seconds[name] = parse_duration(annotations[name])
        except BadInput as error:
            faults.append(Fault(path, f": {error.message}", error.fix))
    hold = seconds.get(HOLD_ANNOTATION)
    if hold is not None and not SHORTEST_HOLD_S <= hold <= LONGEST_HOLD_S:
        fix = f"write {SHORTEST_HOLD_S}s to {LONGEST_HOLD_S}s"
        faults.append(Fault(("metadata", "annotations", HOLD_ANNOTATION), f"is {hold}s", fix))
    keepalive = seconds.get(KEEPALIVE_ANNOTATION)
    if keepalive is not None and not 1 <= keepalive < (hold or LONGEST_HOLD_S):
        path = ("metadata", "annotations", KEEPALIVE_ANNOTATION)
        faults.append(Fault(path, f"is {keepalive}s", "write less than the hold time, at least 1s"))
    return faults


def _restart_faults(spec: Spec, field: str) -> list[Fault]:
    text = spec.get(field)
    if not text or 1 <= parse_duration(text) <= LONGEST_RESTART_S:
        return []
    return [Fault(("spec", field), f"is {text}", f"write 1s to {LONGEST_RESTART_S}s")]


def _community_faults(spec: Spec) -> list[Fault]:
    names = [each["name"] for each in spec.get("communities") or ()]
    faults = [
        Fault(("spec", "communities", number, "name"), f"{name!r} stands here twice", "keep one")
        for number, name in enumerate(names)
        if name in names[:number]
    ]
    for number, each in enumerate(spec.get("prefixAdvertisements") or ()):
        for position, text in enumerate(each.get("communities") or ()):
            if text in names:
                continue
            try:
                parse_community(text)
            except BadInput:
                path: Path = ("spec", "prefixAdvertisements", number, "communities", position)
                problem = f"{text!r} is neither a community nor the name of one"
                fix = "write 64512:100, or name one of spec.communities"
                faults.append(Fault(path, problem, fix))
    return faults


def _rule_faults(rule: Spec, path: Path) -> list[Fault]:
    faults = []
    if rule.get("cidr") and not rule.get("matchOperator"):
        fix = "write Equal, NotEqual, In or NotIn"
        faults.append(Fault((*path, "matchOperator"), "is missing beside cidr", fix))
    if rule.get("matchOperator") and not rule.get("cidr"):
        faults.append(Fault((*path, "cidr"), "is missing beside matchOperator", "write a network"))
    faults += _length_faults(rule, path)
    values = (rule.get("communities") or {}).get("values")
    if values is not None and len(values) != 1:
        fix = "write one; for several write several rules"
        faults.append(Fault((*path, "communities", "values"), f"has {len(values)} members", fix))
    operations = rule.get("operations") or ()
    if operations and rule["action"] != "Accept":
        fix = "leave them out, or accept"
        faults.append(Fault((*path, "operations"), "are given for a route that is rejected", fix))
    if len(operations) > MOST_OPERATIONS:
        faults.append(Fault((*path, "operations"), f"has more than {MOST_OPERATIONS} members"))
    for number, operation in enumerate(operations):
        if len([name for name in operation if operation[name] is not None]) != 1:
            fix = "write one of addCommunity, prependASPath and setPriority; of several a list"
            faults.append(Fault((*path, "operations", number), "must be one operation", fix))
        prefix = (operation.get("prependASPath") or {}).get("prefix")
        if prefix is not None and not 1 <= len(prefix) <= MOST_OPERATIONS:
            place = (*path, "operations", number, "prependASPath", "prefix")
            faults.append(Fault(place, f"must have 1 to {MOST_OPERATIONS} members"))
    return faults


def _length_faults(rule: Spec, path: Path) -> list[Fault]:
    lengths = rule.get("prefixLength")
    if not lengths:
        return []
    if not rule.get("cidr"):
        fix = "write a network, or leave prefixLength out"
        return [Fault((*path, "prefixLength"), "needs cidr", fix)]
    own = parse_network(rule["cidr"]).prefixlen
    low, high = lengths.get("min"), lengths.get("max")
    if low is not None and low < own:
        fix = f"write {own} or more: shorter prefixes do not lie in {rule['cidr']}"
        return [Fault((*path, "prefixLength", "min"), f"is {low}", fix)]
    if high is not None and high < (own if low is None else low):
        fix = f"write {own if low is None else low} or more"
        return [Fault((*path, "prefixLength", "max"), f"is {high}", fix)]
    return []
