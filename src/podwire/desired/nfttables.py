"""Our tables in nft's words: how they are written, and what a listing says of them. Pure.

A table is made of blocks (counters, sets, chains), each in the very words in which `nft -s -p list`
shows it, so that a fresh agent sees at once whether anything is to be done. A set keeps its name
only while it keeps its type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.desired.firewall import ALLOWED_SOURCES, FROM_POD, NODES, PODS, SENDERS
from podwire.model.nftelement import TABLE
from podwire.model.overlay import VXLAN_PORT
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.desired.firewall import Firewall
    from podwire.model.nftelement import Element

NAT_OUTGOING = "nat-outgoing"
SPOOFED_SOURCE = "spoofed-source"
SPOOFED_ARP = "spoofed-arp"
POD_INTO_TUNNEL = "pod-into-tunnel"
STRANGER = {
    Encapsulation.IPIP: "stranger-into-ipip",
    Encapsulation.VXLAN: "stranger-into-vxlan",
}
COUNTERS = {
    NAT_OUTGOING: "natOutgoing",
    SPOOFED_SOURCE: "spoofedSource",
    SPOOFED_ARP: "spoofedARP",
    POD_INTO_TUNNEL: "podIntoTunnel",
    STRANGER[Encapsulation.IPIP]: "strangerIntoIPIP",
    STRANGER[Encapsulation.VXLAN]: "strangerIntoVXLAN",
}
"""Every counter, and what status and metrics call it."""
PACKETS = {Encapsulation.IPIP: "ip protocol 4", Encapsulation.VXLAN: f"udp dport {VXLAN_PORT}"}
"""What each tunnel's packets are known by."""
_BLOCK = re.compile(r"^\t(\w+) (\S+) \{\n(.*?)^\t\}\n", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"^\t\telements = \{(.*?)\}\n", re.MULTILINE | re.DOTALL)
_HOLDING = frozenset({"set", "map"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table, as it should be or as it was found."""

    blocks: Mapping[str, str]
    """`set nodes` → its lines, the elements apart."""
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Name of a set that holds any → its elements."""
    odd: bool = False
    """Something is said of the table as a whole, which we never do."""


def tables(wanted: Firewall) -> Mapping[str, Table]:
    """Family → the table, its nodes' and pods' elements left out."""
    return {"ip": _ip(wanted), "ip6": _ip6(), "arp": _arp()}


def with_elements(table: Table, elements: Iterable[Element]) -> Table:
    """The table with these elements besides."""
    found = {name: set(known) for name, known in table.elements.items()}
    for element in elements:
        found.setdefault(element.set, set()).add(element.text)
    return Table(
        blocks=table.blocks, elements={name: frozenset(known) for name, known in found.items()}
    )


def _ip(wanted: Firewall) -> Table:
    networks = {
        "external-nodes": wanted.external_nodes,
        "masqueraded": wanted.masqueraded,
        "pools": wanted.pools,
    }
    blocks = {
        **_counters(NAT_OUTGOING, POD_INTO_TUNNEL, SPOOFED_SOURCE, *STRANGER.values()),
        f"set {ALLOWED_SOURCES}": _lines("type ifname . ipv4_addr", "flags interval"),
        f"set {NODES}": _lines("type ipv4_addr"),
        **{f"set {name}": _lines("type ipv4_addr", "flags interval") for name in networks},
        f"chain {FROM_POD}": _lines(
            _drop(
                f"fib saddr . iif oif missing iifname . ip saddr != @{ALLOWED_SOURCES}",
                SPOOFED_SOURCE,
                "no address of this pod",
            ),
            *(
                f"{PACKETS[kind]} jump into-tunnel"
                for kind in STRANGER
                if kind not in wanted.tunnels_from_pods
            ),
        ),
        "chain into-tunnel": _lines(
            'ip daddr @pools fib daddr type != local return comment "to another pod"',
            _drop("", POD_INTO_TUNNEL, "no pod is a tunnel's end"),
        ),
        "chain prerouting": _lines(
            "type filter hook prerouting priority raw; policy accept;",
            f'iifname "cali*" jump {FROM_POD}',
            *(
                _drop(
                    f"{PACKETS[kind]} ip saddr != @{NODES} ip saddr != @external-nodes"
                    " fib daddr type local",
                    counter,
                    "no node of the datastore",
                )
                for kind, counter in STRANGER.items()
                if kind in wanted.tunnels
            ),
        ),
    }
    if wanted.masqueraded:
        # Without it no chain of NAT: one has the kernel track every connection.
        blocks["chain postrouting"] = _lines(
            "type nat hook postrouting priority srcnat; policy accept;",
            "ip saddr @masqueraded ip daddr != @pools"
            f' counter name "{NAT_OUTGOING}" masquerade comment "natOutgoing"',
        )
    listed = {name: frozenset(map(_range, found)) for name, found in networks.items() if found}
    return Table(blocks=blocks, elements=listed)


def _ip6() -> Table:
    blocks = {
        **_counters(SPOOFED_SOURCE),
        f"set {ALLOWED_SOURCES}": _lines("type ifname . ipv6_addr", "flags interval"),
        f"chain {FROM_POD}": _lines(
            'ip6 saddr { ::, fe80::/10 } return comment "never leaves the link"',
            _drop(
                f"fib saddr . iif oif missing iifname . ip6 saddr != @{ALLOWED_SOURCES}",
                SPOOFED_SOURCE,
                "no address of this pod",
            ),
        ),
        "chain prerouting": _lines(
            "type filter hook prerouting priority raw; policy accept;",
            f'iifname "cali*" jump {FROM_POD}',
        ),
    }
    return Table(blocks=blocks)


def _arp() -> Table:
    """Here the FIB cannot be asked: each pod's address and MAC are elements."""
    blocks = {
        **_counters(SPOOFED_ARP),
        f"map {PODS}": _lines("type ifname : verdict"),
        f"set {SENDERS}": _lines("type ifname . ipv4_addr . ether_addr", "flags interval"),
        "chain input": _lines(
            "type filter hook input priority filter; policy accept;", f"iifname vmap @{PODS}"
        ),
        f"chain {FROM_POD}": _lines(
            f"iifname . arp saddr ip . arp saddr ether @{SENDERS} accept",
            'arp saddr ip 0.0.0.0 accept comment "asks whether an address is free"',
            _drop("", SPOOFED_ARP, "no address and MAC of this pod"),
        ),
    }
    return Table(blocks=blocks)


def _counters(*names: str) -> dict[str, str]:
    return {f"counter {name}": "" for name in names}


def _lines(*lines: str) -> str:
    return "".join(f"\t\t{line}\n" for line in lines)


def _drop(condition: str, counter: str, why: str) -> str:
    return f'{condition} counter name "{counter}" drop comment "{why}"'.lstrip()


def _range(network: object) -> str:
    return str(network).removesuffix("/32")


def parse(listing: str) -> Table:
    """What `nft -s -p list table` told."""
    blocks: dict[str, str] = {}
    elements: dict[str, frozenset[str]] = {}
    body = listing.partition("{\n")[2].removesuffix("}\n")
    for kind, name, lines in _BLOCK.findall(body):
        found = _ELEMENTS.search(lines)
        if found is not None:
            elements[name] = frozenset(" ".join(each.split()) for each in found[1].split(","))
        # Counters may be told with what they count, whatever was asked.
        blocks[f"{kind} {name}"] = "" if kind == "counter" else _ELEMENTS.sub("", lines)
    odd = bool(_BLOCK.sub("", body).strip())
    return Table(blocks=blocks, elements=elements, odd=odd)


def script(family: str, wanted: Table, found: Table | None) -> str:
    """The transaction after which the table is the wanted one; counters go on.

    Chains are made anew: of one that stays nft cannot change where it hangs.
    """
    ours = f"{family} {TABLE}"
    lines = [f"table {ours}"]
    if found is not None and found.odd:
        lines += [f"delete table {ours}", f"table {ours}"]
        found = None
    lines.append(f"flush table {ours}")
    for block, held in found.blocks.items() if found is not None else ():
        kind, _, name = block.partition(" ")
        if kind == "chain" or wanted.blocks.get(block) != held:
            lines.append(f"delete {kind} {ours} {name}")
        elif kind in _HOLDING:
            lines.append(f"flush {kind} {ours} {name}")
    return "\n".join((*lines, text(family, wanted)))


def text(family: str, table: Table) -> str:
    """The table as `nft -s -p list` shows it, but for the order of its blocks and elements."""
    blocks = []
    for block, lines in table.blocks.items():
        kind, _, name = block.partition(" ")
        held = table.elements.get(name) if kind in _HOLDING else None
        elements = f"\t\telements = {{ {', '.join(sorted(held))} }}\n" if held else ""
        blocks.append(f"\t{block} {{\n{lines}{elements}\t}}\n")
    return f"table {family} {TABLE} {{\n" + "\n".join(blocks) + "}\n"
