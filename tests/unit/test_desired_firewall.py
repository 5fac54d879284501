"""Which rules a node's table should hold."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from types import MappingProxyType

from podwire.desired.firewall import Firewall, firewall, render
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot


def pool(name: str, cidr: str, **fields: object) -> IPPool:
    return IPPool(metadata=Metadata(name=name), cidr=ip_network(cidr), **fields)  # type: ignore[arg-type]


def snapshot(*pools: IPPool, nodes: tuple[str, ...] = ("10.0.0.1/24", "10.0.0.2/24")) -> Snapshot:
    named = {
        f"n{n}": Node(metadata=Metadata(name=f"n{n}"), address=ip_interface(address))
        for n, address in enumerate(nodes)
    }
    return Snapshot(
        pools=MappingProxyType({each.name: each for each in pools}), nodes=MappingProxyType(named)
    )


def rules(*pools: IPPool) -> list[str]:
    return [line for line in render(firewall(snapshot(*pools))).splitlines() if "add rule" in line]


def test_without_nat_there_is_no_table() -> None:
    wanted = firewall(snapshot(pool("plain", "10.244.0.0/16")))
    assert not wanted.needed
    assert render(wanted).splitlines()[-1] == "delete table ip podwire"


def test_nat_leads_out_of_all_pools_and_never_between_them() -> None:
    pools = (
        pool("out", "10.244.0.0/16", nat_outgoing=True),
        pool("in", "10.245.0.0/16"),
        pool("off", "10.246.0.0/16", disabled=True),
        pool("six", "fd00::/48", block_size=122, nat_outgoing=True),
    )
    (rule,) = rules(*pools)
    assert "ip saddr @masqueraded ip daddr != @pools" in rule
    text = render(firewall(snapshot(*pools)))
    assert "masqueraded { 10.244.0.0/16 }" in text
    # A disabled pool's pods still live.
    assert "pools { 10.244.0.0/15, 10.246.0.0/16 }" in text


def test_the_order_of_the_cluster_does_not_matter() -> None:
    one, two = pool("a", "10.1.0.0/16", nat_outgoing=True), pool("b", "10.2.0.0/16")
    assert firewall(snapshot(one, two)) == firewall(
        snapshot(two, one, nodes=("10.0.0.2/24", "10.0.0.1/24"))
    )
    assert isinstance(firewall(snapshot()), Firewall)
