"""Kernel switches the pod network relies on; names in the slash form of /proc/sys.

Source: Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.addressing import IPAddress

OF_NODE: Mapping[str, str] = MappingProxyType({"net/ipv4/ip_forward": "1"})
"""Without forwarding no packet crosses a node, and nobody answers proxy ARP."""

_OF_WORKLOAD4 = {
    "conf/{}/route_localnet": "1",
    "conf/{}/proxy_arp": "1",
    "conf/{}/forwarding": "1",
    # A pod may not send with another's address. The stricter of this and conf/all counts.
    "conf/{}/rp_filter": "1",
    # The kernel delays proxied answers by up to 0.8 s unless told not to.
    "neigh/{}/proxy_delay": "0",
}
_OF_WORKLOAD6 = {
    "conf/{}/disable_ipv6": "0",
    # Every host side carries the same MAC, so all have one link-local address: never a duplicate.
    "conf/{}/accept_dad": "0",
    "conf/{}/accept_ra": "0",
    "conf/{}/proxy_ndp": "1",
}


def of_workload(
    interface: str, addresses: Iterable[IPAddress], *, spoofs: bool = False
) -> Mapping[str, str]:
    """Switches of the host side of a pod with these addresses; without IPv6 half of them lack.

    `spoofs`: it may send from other addresses, too; which, only our rules can say.

    IPv6 is forwarded only for a pod that has it: a device that does also answers for the subnet's
    anycast address, and that one more reference makes the kernel wait about 15 ms longer, for
    another RCU barrier, when the device is deleted (netdev_wait_allrefs_any in net/core/dev.c).
    """
    switches = {f"net/ipv4/{name}": value for name, value in _OF_WORKLOAD4.items()}
    if spoofs:
        switches["net/ipv4/conf/{}/rp_filter"] = "0"
    switches |= {f"net/ipv6/{name}": value for name, value in _OF_WORKLOAD6.items()}
    if any(address.version == 6 for address in addresses):
        switches["net/ipv6/conf/{}/forwarding"] = "1"
    return {name.format(interface): value for name, value in switches.items()}


def of_tunnel(device: str) -> Mapping[str, str]:
    """Switches of a tunnel device.

    Loose reverse-path check: another node answers a pod from its own underlay address, and that
    answer comes out of the tunnel though the route to its sender does not lead there.
    """
    return {f"net/ipv4/conf/{device}/rp_filter": "2"}
