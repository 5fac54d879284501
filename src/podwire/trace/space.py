"""Space: one network namespace as the walk asks it; a question without data raises `Lacking`.

Nothing here touches a kernel: the answers come from a KernelState, read live or from a bundle.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from podwire.model.kernelstate import Missing
from podwire.model.route import LOCAL_TABLE, MAIN_TABLE
from podwire.trace.flow import DEFAULT_TTL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.kernelstate import KernelState, Section
    from podwire.model.link import Address, Link
    from podwire.model.overlay import FDBEntry, Neighbour
    from podwire.model.route import Route, Rule

T = TypeVar("T")
Table = dict[int, dict[int, list["Route"]]]
"""Prefix length → network number → routes in the order the kernel tries them."""

MERGED = -1
"""Key of the table that holds local and main together (see `Space.tables`)."""
DEFAULT_RULES = {(0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, 253)}


class Lacking(Exception):
    """An input that would decide is not there; the walk ends in INSUFFICIENT_INFO."""

    def __init__(self, what: str, why: str, decides: str | None = None) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why
        self.decides = decides


class Space:
    """One network namespace with its tables indexed for lookups."""

    def __init__(self, state: KernelState, title: str | None = None) -> None:
        self.state = state
        self.title = title or state.namespace.title
        self.memory: dict[str, object] = {}
        """What others have made of the state and want to find again."""

    @property
    def inode(self) -> int:
        """Identity of the namespace."""
        return self.state.namespace.inode

    def need(self, section: Section[T], name: str) -> T:
        """The section's value.

        Raises:
            Lacking: the section was not read.
        """
        if isinstance(section, Missing):
            raise Lacking(f"{name} of {self.title}", section.reason)
        return section.value

    @cached_property
    def links(self) -> Mapping[int, Link]:
        """Links by index."""
        return {link.index: link for link in self.need(self.state.links, "links")}

    @cached_property
    def links_by_name(self) -> Mapping[str, Link]:
        """Links by name."""
        return {link.name: link for link in self.links.values()}

    @cached_property
    def addresses(self) -> Mapping[int, list[Address]]:
        """Addresses by index of their link, in the kernel's order."""
        found: dict[int, list[Address]] = defaultdict(list)
        for address in self.need(self.state.addresses, "addresses"):
            found[address.device].append(address)
        return found

    def addresses_of(self, link: Link, version: int = 4) -> list[Address]:
        """The link's addresses of one family."""
        found = self.addresses.get(link.index, [])
        return [address for address in found if address.interface.version == version]

    def link_with(self, address: IPAddress) -> Link | None:
        """The link that carries `address`."""
        for index, addresses in self.addresses.items():
            if any(each.interface.ip == address for each in addresses):
                return self.links.get(index)
        return None

    @cached_property
    def rules(self) -> list[Rule]:
        """Policy rules in order of priority."""
        rules = self.need(self.state.rules, "rules")
        return sorted(rules, key=lambda rule: rule.priority)

    @cached_property
    def tables(self) -> Mapping[tuple[int, int], Table]:
        """(family, table number) → table; `MERGED` is local and main as one.

        As long as no rule was ever added the kernel keeps local and main in one trie, and the
        longest prefix wins over both (net/ipv4/fib_trie.c, fib_trie_unmerge).
        """
        found: dict[tuple[int, int], Table] = {}
        for route in self.need(self.state.routes, "routes"):
            version = route.key.destination.version
            _add_route(found.setdefault((version, route.key.table), {}), route)
            if route.key.table in {LOCAL_TABLE, MAIN_TABLE}:
                _add_route(found.setdefault((version, MERGED), {}), route)
        for table in found.values():
            for networks in table.values():
                for routes in networks.values():
                    routes.sort(key=_precedence)
        return found

    def has_default_rules_only(self, version: int) -> bool:
        """Whether the policy rules are those of a fresh namespace."""
        rules = [rule for rule in self.rules if rule.family == version]
        return {(rule.priority, rule.table) for rule in rules} == DEFAULT_RULES and len(rules) == 3

    @cached_property
    def neighbours(self) -> Mapping[tuple[int, IPAddress], Neighbour]:
        """Neighbour entries by link index and address, proxy entries left out."""
        return {
            (entry.device, entry.address): entry
            for entry in self.need(self.state.neighbours, "neighbours")
            if not entry.proxy
        }

    def is_proxied(self, link: Link, address: IPAddress) -> bool:
        """Whether `ip neigh add proxy ADDRESS dev LINK` was done."""
        return any(
            entry.proxy and entry.device == link.index and entry.address == address
            for entry in self.need(self.state.neighbours, "neighbours")
        )

    @cached_property
    def fdb(self) -> list[FDBEntry]:
        """Forwarding entries of bridges and vxlan devices."""
        entries = self.need(self.state.fdb, "forwarding entries")
        return list(entries)

    def sysctl(self, name: str, default: str | None = None) -> str:
        """A setting, named as in `KernelState.sysctls`.

        Raises:
            Lacking: it was not read, and no default was given.
        """
        values = self.need(self.state.sysctls, "sysctls")
        value = values.get(name, default)
        if value is None:
            raise Lacking(f"sysctl {name} of {self.title}", "not collected")
        return value

    def default_ttl(self, version: int) -> int:
        """What packets made here start with."""
        name = "ipv4.ip_default_ttl" if version == 4 else "ipv6.conf/all/hop_limit"
        return int(self.sysctl(name, str(DEFAULT_TTL)))

    def switch(self, link: Link, name: str, default: str | None = None, *, version: int = 4) -> int:
        """`net.ipv4.conf.<link>.<name>` as a number; with version 6 that of ipv6."""
        return int(self.sysctl(f"ipv{version}.conf/{link.name}/{name}", default))

    def switch_all(self, name: str, default: str | None = None, *, version: int = 4) -> int:
        """`net.ipv4.conf.all.<name>` as a number; with version 6 that of ipv6."""
        return int(self.sysctl(f"ipv{version}.conf/all/{name}", default))

    def highest(
        self, link: Link, name: str, default: str | None = None, *, version: int = 4
    ) -> int:
        """max(all, link): how the kernel reads rp_filter, proxy_arp and arp_ignore."""
        return max(
            self.switch(link, name, default, version=version),
            self.switch_all(name, default, version=version),
        )


def _add_route(table: Table, route: Route) -> None:
    destination = route.key.destination
    networks = table.setdefault(destination.prefixlen, {})
    networks.setdefault(int(destination.network_address), []).append(route)


def _precedence(route: Route) -> tuple[int, int, int]:
    """Order of routes with one prefix: table local first, exact TOS first, then the metric."""
    return (-route.key.table, -route.key.tos, route.key.metric)
