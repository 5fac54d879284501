"""Translation: what snat, dnat, masquerade and redirect make of a connection (nf_nat_core.c)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from podwire.trace import intake
from podwire.trace.connection import DESTINATION, SOURCE
from podwire.trace.elements import HIDDEN, Doubtful
from podwire.trace.expressions import evaluate
from podwire.trace.fields import ABSENT

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.connection import Track
    from podwire.trace.expressions import Scene
    from podwire.trace.flow import Packet
    from podwire.trace.passage import Passage

KINDS = frozenset({"snat", "dnat", "masquerade", "redirect"})
MAX_WAYS = 8
"""Addresses of a range that are followed; the kernel takes one by a hash."""
LOOPBACKS = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


def manipulation(hook: str) -> str:
    """Which end a hook translates (HOOK2MANIP)."""
    return SOURCE if hook in {"postrouting", "input"} else DESTINATION


def translate(kind: str, value: dict[str, Any], scene: Scene) -> Packet | None:
    """The packet with its connection's new ends; None when the rule does not apply after all.

    Raises:
        Doubtful: nobody can say which address or port it gets.
    """
    packet, track = scene.packet, scene.packet.track
    if track is None:
        return None
    address, port = _wanted(kind, value, scene)
    if address is ABSENT:
        return None
    if kind in {"snat", "masquerade"}:
        return packet.with_track(_with_source(track, value, address, port))
    was = track.reply
    to = was.source if address is None else address
    return packet.with_track(track.to(to, was.source_port if port is None else port))


def _with_source(track: Track, value: dict[str, Any], address: Any, port: int | None) -> Track:
    was = track.reply
    to = was.destination if address is None else address
    if _flags(value):
        # random, fully-random: some port, and nobody knows which.
        return track.come_from(to, None)
    if port is None or was.destination_port is None:
        return track.come_from(to, was.destination_port)
    return track.come_from(to, port)


def _flags(value: dict[str, Any]) -> list[str]:
    flags = value.get("flags", [])
    listed = [flags] if isinstance(flags, str) else list(flags)
    return [each for each in listed if each != "persistent"]


def _wanted(kind: str, value: dict[str, Any], scene: Scene) -> tuple[Any, int | None]:
    passage, packet = scene.passage, scene.packet
    if kind == "masquerade":
        return _masquerade(passage, scene), _port(value.get("port"), scene)
    if kind == "redirect":
        return _redirect(passage, scene), _port(value.get("port"), scene)
    address = _address(value.get("addr"), scene)
    if isinstance(address, tuple):
        found, port = address[0], address[1]
        return found, int(port)
    if address is not None and address is not ABSENT and address.version != packet.source.version:
        return ABSENT, None
    return address, _port(value.get("port"), scene)


def _address(expression: Any, scene: Scene) -> Any:
    match expression:
        case None:
            return None
        case {"range": [str(low), str(high)]}:
            first, last = ip_address(low), ip_address(high)
            count = int(last) - int(first) + 1
            if count > MAX_WAYS:
                raise Doubtful(f"takes one of the {count} addresses {low}-{high}")
            return first + scene.pick(count)
        case {"prefix": _}:
            raise Doubtful("translates a whole prefix, which is not modelled")
    found, _ = evaluate(expression, scene)
    if found is ABSENT or isinstance(found, IPv4Address | IPv6Address | tuple):
        return found
    raise Doubtful(f"translates to {expression}, which is not modelled")


def _port(expression: Any, scene: Scene) -> int | None:
    match expression:
        case None:
            return None
        case {"range": [int(low), int(high)]} if low == high:
            return low
        case {"range": _}:
            raise Doubtful("gives the packet one port of several")
    found, _ = evaluate(expression, scene)
    if found is HIDDEN or not isinstance(found, int):
        raise Doubtful(f"gives the packet the port {expression}, which is not modelled")
    return found


def _masquerade(passage: Passage, scene: Scene) -> IPAddress:
    link = scene.space.links_by_name.get(passage.oif or "")
    if link is None:
        raise Doubtful("masquerades at a hook without an outgoing link")
    towards = passage.next_hop or scene.packet.destination
    found = intake.address_for(scene.space, link, towards, 0)
    if found is None:
        raise Doubtful(f"masquerades, and {link.name} has no address")
    return found


def _redirect(passage: Passage, scene: Scene) -> IPAddress:
    version = scene.packet.source.version
    if passage.hook == "output":
        return LOOPBACKS[version]
    link = scene.space.links_by_name.get(passage.iif or "")
    addresses = [] if link is None else scene.space.addresses_of(link, version)
    found = next((each.interface.ip for each in addresses if each.scope == 0), None)
    if found is None:
        raise Doubtful("redirects, and the link the packet came by has no address")
    return found
