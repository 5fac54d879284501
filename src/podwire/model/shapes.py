"""The fields of every kind a person may write, as Calico's v3 resources have them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface

from podwire.errors import BadInput
from podwire.model.addressing import parse_address, parse_interface, parse_network
from podwire.model.bgpshapes import AS_NUMBER, CONFIGURATION_SPEC, FILTER_SPEC, PEER_SPEC
from podwire.model.codec import API_VERSION
from podwire.model.ipamconfig import IPAM_CONFIG_KINDS
from podwire.model.kept import KEPT
from podwire.model.pool import Mode, Use
from podwire.model.selector import parse_selector
from podwire.model.shape import Anything, Boolean, Integer, ListOf, MapOf, Object, Text

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_CONTAINER_ID = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?")
_INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def _matches(pattern: re.Pattern[str], what: str, fix: str) -> Text:
    def check(text: str) -> None:
        if not pattern.fullmatch(text):
            raise BadInput(f"{text!r} is no {what}", fix=fix)

    return Text(check)


def check_name(text: str) -> None:
    """A resource's name: a DNS-1123 subdomain.

    Raises:
        BadInput: it is not.
    """
    if len(text) > 253 or not _NAME.fullmatch(text) or ".." in text:
        raise BadInput(
            f"{text!r} is no resource name",
            fix="use lower-case letters, digits, '-' and '.', at most 253 of them",
        )


def _check_selector(text: str) -> None:
    parse_selector(text)
    if re.search(r"\bglobal\s*\(", text):
        raise BadInput("global() is not allowed in a selector here", fix="write all()")


def _check_address4(text: str) -> None:
    if not isinstance(parse_address(text), IPv4Address):
        raise BadInput(f"{text} is not an IPv4 address")


def _check_interface4(text: str) -> None:
    if not isinstance(parse_interface(text), IPv4Interface):
        raise BadInput(f"{text} is not an IPv4 address")


def _check_interface6(text: str) -> None:
    if isinstance(parse_interface(text), IPv4Interface):
        raise BadInput(f"{text} is not an IPv6 address")


def _check_host_network(text: str) -> None:
    interface = parse_interface(text)
    if interface.network.prefixlen != interface.max_prefixlen:
        raise BadInput(
            f"{text} is more than one address",
            fix=f"write {interface.ip}/{interface.max_prefixlen}",
        )


TEXT, ANYTHING, BOOLEAN = Text(), Anything(), Boolean()
TEXTS = ListOf(TEXT)
NAME = Text(check_name, empty=False)
NETWORK = Text(parse_network, empty=False)
ADDRESS4 = Text(_check_address4)
MAC = _matches(_MAC, "MAC address", "write it like 66:b3:68:28:39:8e")
MODE = Text(choices=tuple(Mode))
SELECTOR = Text(_check_selector)

METADATA = Object(
    {
        "name": NAME,
        "namespace": NAME,
        "labels": MapOf(TEXT),
        "annotations": MapOf(TEXT),
        "uid": TEXT,
        "creationTimestamp": TEXT,
        "resourceVersion": TEXT,
        "generation": ANYTHING,
        "generateName": TEXT,
        "finalizers": ANYTHING,
        "managedFields": ANYTHING,
        "ownerReferences": ANYTHING,
        "selfLink": TEXT,
    },
    needed=("name",),
    kept=frozenset({"uid", "creationTimestamp"}),
)

POOL_SPEC = Object(
    {
        "cidr": NETWORK,
        "blockSize": Integer(20, 128),
        "ipipMode": MODE,
        "vxlanMode": MODE,
        "natOutgoing": BOOLEAN,
        "disabled": BOOLEAN,
        "disableBGPExport": BOOLEAN,
        "nodeSelector": SELECTOR,
        "namespaceSelector": SELECTOR,
        "allowedUses": ListOf(Text(choices=tuple(Use), empty=False)),
        "assignmentMode": Text(choices=("Automatic", "Manual")),
    },
    needed=("cidr",),
)

NODE_SPEC = Object(
    {
        "bgp": Object(
            {
                "asNumber": AS_NUMBER,
                "ipv4Address": Text(_check_interface4),
                "ipv6Address": Text(_check_interface6),
                "ipv4IPIPTunnelAddr": ADDRESS4,
                "routeReflectorClusterID": ADDRESS4,
            },
            kept=frozenset({"ipv4IPIPTunnelAddr"}),
        ),
        "ipv4VXLANTunnelAddr": ADDRESS4,
        "vxlanTunnelMACAddr": MAC,
        "ipv6VXLANTunnelAddr": Text(parse_address),
        "vxlanTunnelMACAddrV6": MAC,
        "orchRefs": ANYTHING,
        "wireguard": ANYTHING,
        "addresses": ANYTHING,
        "interfaces": ANYTHING,
    },
    kept=frozenset({"ipv4VXLANTunnelAddr", "vxlanTunnelMACAddr", "orchRefs", "addresses"}),
)

ENDPOINT_SPEC = Object(
    {
        "orchestrator": TEXT,
        "workload": TEXT,
        "node": Text(empty=False),
        "containerID": _matches(
            _CONTAINER_ID, "container ID", "use letters, digits and '-' between them"
        ),
        "pod": TEXT,
        "endpoint": TEXT,
        "serviceAccountName": TEXT,
        "ipNetworks": ListOf(Text(_check_host_network, empty=False)),
        "ipNATs": ANYTHING,
        "ipv4Gateway": TEXT,
        "ipv6Gateway": TEXT,
        "profiles": TEXTS,
        "interfaceName": _matches(
            _INTERFACE, "interface name", "use at most 15 letters, digits, '_', '.' and '-'"
        ),
        "mac": MAC,
        "ports": ANYTHING,
        "allowSpoofedSourcePrefixes": ListOf(Text(parse_interface, empty=False)),
        "qosControls": ANYTHING,
    },
    needed=("node", "orchestrator"),
)

RESERVATION_SPEC = Object({"reservedCIDRs": ListOf(NETWORK)}, needed=("reservedCIDRs",))

CLUSTER_SPEC = Object(
    {
        "clusterGUID": TEXT,
        "clusterType": TEXT,
        "calicoVersion": TEXT,
        "datastoreReady": BOOLEAN,
        "variant": TEXT,
    },
    kept=frozenset({"clusterGUID", "clusterType", "calicoVersion", "datastoreReady"}),
)


IPAM_CONFIG_SPEC = Object(
    {
        "strictAffinity": BOOLEAN,
        "autoAllocateBlocks": BOOLEAN,
        "maxBlocksPerHost": Integer(0, 1_000_000),
        "ipCooldownSeconds": Integer(0, 1200),
        "kubeVirtVMAddressPersistence": Text(choices=("Enabled", "Disabled")),
    }
)


def _kind(kind: str, spec: Object | MapOf, *, needed: bool = True) -> Object:
    return Object(
        {
            "kind": Text(choices=(kind,)),
            "apiVersion": Text(choices=(API_VERSION,)),
            "metadata": METADATA,
            "spec": spec,
            "status": ANYTHING,
        },
        needed=("kind", "apiVersion", "metadata", *(("spec",) if needed else ())),
        kept=frozenset({"status"}),
    )


SHAPES = {
    "IPPool": _kind("IPPool", POOL_SPEC),
    "Node": _kind("Node", NODE_SPEC),
    "WorkloadEndpoint": _kind("WorkloadEndpoint", ENDPOINT_SPEC),
    "IPReservation": _kind("IPReservation", RESERVATION_SPEC),
    "ClusterInformation": _kind("ClusterInformation", CLUSTER_SPEC),
    "BGPConfiguration": _kind("BGPConfiguration", CONFIGURATION_SPEC),
    "BGPPeer": _kind("BGPPeer", PEER_SPEC),
    "BGPFilter": _kind("BGPFilter", FILTER_SPEC),
    **{kind: _kind(kind, IPAM_CONFIG_SPEC) for kind in sorted(IPAM_CONFIG_KINDS, reverse=True)},
    # What these mean is not looked at: they are kept for others.
    **{kind: _kind(kind, MapOf(ANYTHING), needed=False) for kind in KEPT},
}
