"""The fields of BGPConfiguration, BGPPeer and BGPFilter, as Calico has them."""

from __future__ import annotations

import re

from podwire.errors import BadInput
from podwire.model.addressing import parse_address, parse_network
from podwire.model.bgp import BindMode, LogSeverity, NextHopMode
from podwire.model.bgpcodec import parse_peer_address
from podwire.model.bgpfilter import (
    HIGHEST_PRIORITY,
    BGPPeerType,
    FilterAction,
    MatchOperator,
)
from podwire.model.bgprulecodec import FROM_PEERS, parse_community
from podwire.model.resourcecodec import parse_as_number, parse_duration
from podwire.model.selector import parse_selector
from podwire.model.shape import Anything, Boolean, Integer, ListOf, Object, OneOf, Text

HIGHEST_AS_NUMBER = 2**32 - 1

_GLOB = re.compile(r"[a-zA-Z0-9_.*?-]{1,15}")
_FILE_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9._]*")


def check_as_number(text: str) -> None:
    """An AS number in a string, in any notation.

    Raises:
        BadInput: it is none, or one that must not be used (RFC 7607, RFC 7300).
    """
    number = parse_as_number(text)
    if number is None or not 1 <= number < HIGHEST_AS_NUMBER:
        raise BadInput(
            f"{text!r} is no AS number",
            fix=f"write 1 to {HIGHEST_AS_NUMBER - 1}, or two numbers with a dot between",
        )


def _check_glob(text: str) -> None:
    if not _GLOB.fullmatch(text):
        raise BadInput(
            f"{text!r} is no interface name or pattern",
            fix="use at most 15 letters, digits, '_', '.', '-', '*' and '?'",
        )


def _check_file_name(text: str) -> None:
    if not _FILE_NAME.fullmatch(text):
        raise BadInput(
            f"{text!r} cannot be part of a file's name",
            fix="use letters, digits, '-', '_' and '.'",
        )


def _check_network4(text: str) -> None:
    if parse_network(text).version != 4:
        raise BadInput(f"{text} is not an IPv4 network", fix="use the rules for IPv6 for it")


def _check_network6(text: str) -> None:
    if parse_network(text).version != 6:
        raise BadInput(f"{text} is not an IPv6 network", fix="use the rules for IPv4 for it")


def _check_selector(text: str) -> None:
    parse_selector(text)


TEXT, ANYTHING, BOOLEAN = Text(), Anything(), Boolean()
AS_NUMBER = OneOf((Integer(1, HIGHEST_AS_NUMBER - 1), Text(check_as_number)))
DURATION = Text(parse_duration)
COMMUNITY = Text(parse_community, empty=False)
SELECTOR = Text(_check_selector)
ADDRESS = Text(parse_address)
PRIORITY = Integer(1, HIGHEST_PRIORITY)

SECRET = Object(
    {
        "secretKeyRef": Object(
            {
                "name": Text(_check_file_name, empty=False),
                "key": Text(_check_file_name, empty=False),
                "optional": ANYTHING,
            },
            needed=("name", "key"),
        )
    },
    needed=("secretKeyRef",),
)

CONFIGURATION_SPEC = Object(
    {
        "logSeverityScreen": Text(choices=tuple(LogSeverity)),
        "nodeToNodeMeshEnabled": BOOLEAN,
        "asNumber": AS_NUMBER,
        "listenPort": Integer(1, 65535),
        "bindMode": Text(choices=tuple(BindMode)),
        "communities": ListOf(
            Object(
                {"name": Text(empty=False), "value": COMMUNITY},
                needed=("name", "value"),
            )
        ),
        "prefixAdvertisements": ListOf(
            Object(
                {"cidr": Text(parse_network, empty=False), "communities": ListOf(TEXT)},
                needed=("cidr", "communities"),
            )
        ),
        "nodeMeshPassword": SECRET,
        "nodeMeshMaxRestartTime": DURATION,
        "ignoredInterfaces": ListOf(Text(_check_glob, empty=False)),
        # Calico's, kept, and without effect here: services are not announced, pods do not peer,
        # and who writes routes is ClusterInformation's to say.
        "serviceClusterIPs": ANYTHING,
        "serviceExternalIPs": ANYTHING,
        "serviceLoadBalancerIPs": ANYTHING,
        "serviceLoadBalancerAggregation": ANYTHING,
        "localWorkloadPeeringIPV4": ANYTHING,
        "localWorkloadPeeringIPV6": ANYTHING,
        "programClusterRoutes": ANYTHING,
        "ipv4NormalRoutePriority": ANYTHING,
        "ipv6NormalRoutePriority": ANYTHING,
    }
)

PEER_SPEC = Object(
    {
        "node": TEXT,
        "nodeSelector": SELECTOR,
        "peerIP": Text(parse_peer_address),
        "asNumber": AS_NUMBER,
        "peerSelector": SELECTOR,
        "localWorkloadSelector": SELECTOR,
        "localASNumber": AS_NUMBER,
        "nextHopMode": Text(choices=tuple(NextHopMode)),
        "keepOriginalNextHop": BOOLEAN,
        "password": SECRET,
        "sourceAddress": Text(choices=("UseNodeIP", "None")),
        "maxRestartTime": DURATION,
        "keepaliveTime": DURATION,
        "numAllowedLocalASNumbers": Integer(0, 255),
        "ttlSecurity": Integer(1, 255),
        "reachableBy": ADDRESS,
        "filters": ListOf(Text(empty=False)),
        "reversePeering": Text(choices=("Auto", "Manual")),
    }
)


def _rule(network: Text, longest: int) -> Object:
    length = Integer(0, longest)
    operation = Object(
        {
            "addCommunity": Object({"value": COMMUNITY}, needed=("value",)),
            "prependASPath": Object({"prefix": ListOf(AS_NUMBER)}, needed=("prefix",)),
            "setPriority": Object({"value": PRIORITY}, needed=("value",)),
        }
    )
    return Object(
        {
            "cidr": network,
            "matchOperator": Text(choices=tuple(MatchOperator)),
            "prefixLength": Object({"min": length, "max": length}),
            "source": Text(choices=(FROM_PEERS,)),
            "interface": Text(_check_glob),
            "peerType": Text(choices=tuple(BGPPeerType)),
            "communities": Object({"values": ListOf(COMMUNITY)}, needed=("values",)),
            "asPathPrefix": ListOf(AS_NUMBER),
            "priority": PRIORITY,
            "action": Text(choices=tuple(FilterAction), empty=False),
            "operations": ListOf(operation),
        },
        needed=("action",),
    )


RULES4 = ListOf(_rule(Text(_check_network4), 32))
RULES6 = ListOf(_rule(Text(_check_network6), 128))

FILTER_SPEC = Object(
    {"importV4": RULES4, "exportV4": RULES4, "importV6": RULES6, "exportV6": RULES6}
)
