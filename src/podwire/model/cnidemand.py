"""What one attachment is to get beyond what every pod gets: its address, pools, MAC, MTU, sources.

Asked for in four places: the network configuration (for every pod of the network), CNI_ARGS, the
runtime's capability arguments, and the pod's annotations, which containerd and CRI-O hand over as
one more capability argument, so that no API has to be asked. A pod's own pools come before the
network's; all else may be asked for in several places only if they agree. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec

from podwire.errors import BadInput
from podwire.model.addressing import parse_address, parse_interface
from podwire.model.cni import CallRefused, Code, Demand
from podwire.model.link import HOST_MAC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.resource import JSON, Wire

    T = TypeVar("T")
    Told: TypeAlias = Mapping[str, tuple["Place", str]]
    """Annotations by name without prefix, with the place for messages."""

POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
"""Capability under which containerd and CRI-O hand over all annotations of a pod."""
CAPABILITIES: Final = (POD_ANNOTATIONS, "ips", "mac")
"""Capability arguments we read; a network list has to declare them to get them."""
PREFIX = "cni.projectcalico.org/"
OWN_TYPE = "podwire"

MTU_LEAST, MTU_MOST = 68, 65535
"""What Linux takes for a veth (include/uapi/linux/if_ether.h, drivers/net/veth.c)."""
TEXT_LIMIT = 253
"""Letters of a name; so a message that shows one stays short."""
_MAC: Final = re.compile(
    r"[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}",
    re.IGNORECASE,
)
_IPAM_KEYS: Final = ("type", "assign_ipv4", "assign_ipv6", "ipv4_pools", "ipv6_pools")
_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "ipAddrsNoIpam": (
        "asks for an address past IPAM, which nothing would keep another pod from getting",
        "ask for an address of an IPPool with ipAddrs (assignmentMode Manual keeps others out)",
    ),
    "floatingIPs": (
        "asks for floating addresses, which podwire does not translate",
        "remove it; publish ports with hostPort, or route the address to the pod with ipAddrs",
    ),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is asked for, and the code for what is wrong there."""

    name: str
    code: Code = Code.CONFIG

    def refused(self, why: str, fix: str) -> CallRefused:
        """The error for this place."""
        return CallRefused(self.code, f"{self.name} {why}", fix=fix)

    def shown(self, value: object) -> str:
        """A value in a message: short, whatever was written."""
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def parse_demand(document: Wire, arguments: Mapping[str, str], title: str) -> Demand:
    """Everything asked for one attachment.

    Args:
        document: the network configuration.
        arguments: CNI_ARGS.
        title: `pod NAMESPACE/NAME` or `container ID`, for messages.

    Raises:
        CallRefused: code 7 (4 for CNI_ARGS); names the place and the way out.
    """
    runtime = section(document, "runtimeConfig")
    told = read_annotations(runtime, title)
    network_pools = parse_ipam(document)
    refuse_ranges(runtime)
    return Demand(
        address=_agreed("address", _addresses(document, runtime, arguments, told)),
        pools=_pools(told) or network_pools,
        mac=_agreed("MAC", _macs(runtime, arguments, told)),
        mtu=parse_mtu(document),
        sources=_sources(told),
        forwarding=parse_forwarding(document),
    )


def section(document: Wire, name: str) -> Wire:
    """An object of the configuration; an empty one when it is not there.

    Raises:
        CallRefused: code 7; it is something else.
    """
    found = document.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        place = Place(f"the network configuration's {name}")
        raise place.refused(f"is {place.shown(found)}, not an object", "write {…}")
    return found


# --- the network configuration --------------------------------------------------------------------


def parse_ipam(document: Wire) -> tuple[str, ...] | None:
    """The pools the network takes addresses from; None leaves it to the pools' own selectors.

    Raises:
        CallRefused: code 7; another address plugin, an unknown key, or what is not done here.
    """
    found = document.get("ipam")
    ipam: Wire = found if isinstance(found, dict) else {"type": found}
    kind = ipam.get("type")
    place = Place("the network configuration's ipam")
    if kind not in (None, "", OWN_TYPE):
        raise CallRefused(
            Code.CONFIG,
            f"ipam type {place.shown(kind)} is another address plugin",
            fix="remove ipam: podwire assigns the addresses itself",
        )
    unknown = [key for key in ipam if key not in _IPAM_KEYS]
    if unknown:
        raise place.refused(
            f"has unknown keys: {place.shown(', '.join(unknown))}",
            f"use {', '.join(_IPAM_KEYS)}; ranges are IPPools here",
        )
    if str(ipam.get("assign_ipv4", "true")).lower() != "true":
        raise place.refused("has assign_ipv4 off", "remove it: every pod gets an IPv4 address")
    if str(ipam.get("assign_ipv6", "false")).lower() != "false" or ipam.get("ipv6_pools"):
        raise place.refused("asks for IPv6", "remove it: there are no IPv6 pools yet")
    return texts(ipam.get("ipv4_pools"), Place(f"{place.name}.ipv4_pools")) or None


def parse_mtu(document: Wire) -> int | None:
    """The MTU of the network's pods; None (or 0) is what fits the node's encapsulation.

    Raises:
        CallRefused: code 7; no MTU a veth can have.
    """
    mtu = document.get("mtu")
    if mtu is None or (mtu == 0 and not isinstance(mtu, bool)):
        return None
    if isinstance(mtu, bool) or not isinstance(mtu, int) or not MTU_LEAST <= mtu <= MTU_MOST:
        place = Place("the network configuration's mtu")
        raise place.refused(
            f"is {place.shown(mtu)}",
            f"write {MTU_LEAST} to {MTU_MOST}, or 0 for what fits the encapsulation",
        )
    return mtu


def parse_forwarding(document: Wire) -> bool:
    """Whether pods may forward packets (`container_settings.allow_ip_forwarding`).

    Raises:
        CallRefused: code 7; neither true nor false.
    """
    allowed = section(document, "container_settings").get("allow_ip_forwarding", False)
    if not isinstance(allowed, bool):
        place = Place("container_settings.allow_ip_forwarding")
        raise place.refused(f"is {place.shown(allowed)}", "write true or false")
    return allowed


def refuse_ranges(runtime: Wire) -> None:
    """Ranges of the runtime's own would be addresses that no datastore knows of.

    Raises:
        CallRefused: code 7.
    """
    if runtime.get("ipRanges"):
        raise Place("runtimeConfig.ipRanges").refused(
            "asks for address ranges", "remove that capability; ranges are IPPools here"
        )


# --- the pod's annotations ------------------------------------------------------------------------


def read_annotations(runtime: Wire, title: str) -> Told:
    """Calico's annotations of the pod, by name without prefix; all others are left out.

    Raises:
        CallRefused: code 7; they are no texts, or one asks for what is not done here.
    """
    found = runtime.get(POD_ANNOTATIONS)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        whole = Place(f"runtimeConfig[{POD_ANNOTATIONS!r}]")
        raise whole.refused("is no object of texts", "have the runtime pass the pod's annotations")
    told = {
        name.removeprefix(PREFIX): (Place(f"{title}: annotation {name}"), text)
        for name, text in found.items()
        if name.startswith(PREFIX)
    }
    for key, words in _REFUSED.items():
        if key in told and told[key][1].strip() not in {"", "[]"}:
            raise told[key][0].refused(*words)
    _check_families(told)
    return told


def _listed(told: Told, key: str) -> tuple[Place, tuple[str, ...]] | None:
    """An annotation whose value is a JSON list of texts."""
    if key not in told:
        return None
    place, text = told[key]
    try:
        value: JSON = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise place.refused(
            f"is not JSON: {place.shown(text)} ({error})", 'write a list: ["…", "…"]'
        ) from None
    return place, texts(value, place)


def texts(value: JSON, place: Place) -> tuple[str, ...]:
    """A JSON list of texts; none at all for null.

    Raises:
        CallRefused: it is something else.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise place.refused(f"is {place.shown(value)}, no list of texts", 'write ["…", "…"]')
    for item in value:
        if len(item) > TEXT_LIMIT:
            raise place.refused(f"has {place.shown(item)}", f"write at most {TEXT_LIMIT} letters")
    return tuple(value)


def _check_families(told: Told) -> None:
    pools = _listed(told, "ipv6pools")
    if pools is not None and pools[1]:
        raise pools[0].refused("names pools", "remove it: there are no IPv6 pools yet")
    families = _listed(told, "ipFamilies")
    if families is not None and set(families[1]) != {"IPv4"}:
        place, words = families
        raise place.refused(
            f"is {place.shown(list(words))}", 'write ["IPv4"]: there are no IPv6 pools yet'
        )


def _pools(told: Told) -> tuple[str, ...] | None:
    found = _listed(told, "ipv4pools")
    return None if found is None else found[1]


def _sources(told: Told) -> tuple[IPNetwork, ...]:
    found = _listed(told, "allowedSourcePrefixes")
    if found is None:
        return ()
    place, words = found
    try:
        return tuple(parse_interface(word).network for word in words)
    except BadInput as error:
        raise place.refused(f"has a bad entry: {error.message}", error.fix or "") from None


# --- asked for in several places ------------------------------------------------------------------


def _agreed(what: str, found: list[tuple[Place, T]]) -> T | None:
    """The value all places agree on.

    Raises:
        CallRefused: two of them differ.
    """
    if not found:
        return None
    first, value = found[0]
    for place, other in found[1:]:
        if other != value:
            raise place.refused(
                f"asks for {what} {other}, but {first.name} for {value}", "ask in one place only"
            )
    return value


def _addresses(
    document: Wire, runtime: Wire, arguments: Mapping[str, str], told: Told
) -> list[tuple[Place, IPAddress]]:
    asked: list[tuple[Place, tuple[str, ...]]] = []
    if (annotated := _listed(told, "ipAddrs")) is not None:
        asked.append(annotated)
    place = Place("runtimeConfig.ips")
    asked.append((place, texts(runtime.get("ips"), place)))
    place = Place("the network configuration's args.cni.ips")
    asked.append((place, texts(section(section(document, "args"), "cni").get("ips"), place)))
    place = Place("CNI_ARGS IP", Code.ENVIRONMENT)
    asked.append((place, texts(list(filter(None, arguments.get("IP", "").split(","))), place)))
    return [(place, _address(place, words)) for place, words in asked if words]


def _address(place: Place, words: tuple[str, ...]) -> IPAddress:
    try:
        found = [parse_address(word.partition("/")[0].strip()) for word in words]
    except BadInput as error:
        raise place.refused(f"is wrong: {error.message}", error.fix or "") from None
    for address in found:
        if address.version != 4:
            raise place.refused(
                f"asks for {address}", "ask for an IPv4 address: there are no IPv6 pools yet"
            )
    if len(found) > 1:
        raise place.refused(f"asks for {len(found)} addresses", "ask for one: a pod has one")
    return found[0]


def _macs(runtime: Wire, arguments: Mapping[str, str], told: Told) -> list[tuple[Place, str]]:
    asked: list[tuple[Place, JSON]] = [
        (Place("runtimeConfig.mac"), runtime.get("mac")),
        (Place("CNI_ARGS MAC", Code.ENVIRONMENT), arguments.get("MAC")),
    ]
    if "hwAddr" in told:
        asked.insert(0, told["hwAddr"])
    return [(place, parse_mac(place, word)) for place, word in asked if word not in (None, "")]


def parse_mac(place: Place, word: JSON) -> str:
    """A MAC for a pod's side, as `02:00:00:00:00:01`.

    Raises:
        CallRefused: no MAC, or one that a pod's interface cannot have.
    """
    if not isinstance(word, str) or _MAC.fullmatch(word.strip()) is None:
        raise place.refused(
            f"is {place.shown(word)}, not a MAC", "write six bytes: 02:00:00:00:00:01"
        )
    octets = bytes.fromhex(re.sub("[:.-]", "", word.strip()))
    mac = octets.hex(":")
    if octets[0] & 1 or not any(octets):
        raise place.refused(f"is {mac}, which is no single device's", "use a unicast MAC")
    if mac == HOST_MAC:
        raise place.refused(f"is {mac}, the MAC of every pod's gateway", "use another MAC")
    return mac
