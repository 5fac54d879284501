"""Questions that never reach who could answer, and a sender whose own kernel keeps its packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.trace.flow import Flow, Protocol
from podwire.trace.report import Style, render
from podwire.trace.schema import Disposition
from tests.kernel import test_trace_bridges as bridges
from tests.kernel import test_trace_ipv6 as six
from tests.kernel.trace_network import build, ping, run

if TYPE_CHECKING:
    from pathlib import Path

FLOODING = {
    "broadcast": ("bcast_flood off", "bridge.flooding-off"),
    "unknown": ("flood off learning off", "bridge.flooding-off"),
}


@pytest.mark.parametrize("name", FLOODING)
def test_a_port_that_is_not_flooded_is_named(name: str) -> None:
    how, identity = FLOODING[name]
    bridges.run(bridges.NETWORK)
    bridges.run(bridges.filtering(0))
    bridges.run(f"ip -n {bridges.HOST} link set vtwo type bridge_slave {how}")
    run(f"ip -n {bridges.HOST} link set vtwo type bridge_slave fdb_flush")
    trace = bridges.traced(bridges.ONE, bridges.TWO)
    text = render(trace, Style())
    first = trace.faults[0]
    assert (first.id, first.where.interface) == (identity, "vtwo"), text
    assert first.fix is not None
    assert first.fix.command is not None
    assert first.fix.verified_by == "counterproof", text
    bridges.run(bridges.on_host(f"sh -ec {first.fix.command!r}"))
    healed = bridges.traced(bridges.ONE, bridges.TWO)
    assert healed.disposition is Disposition.DELIVERED_AND_ANSWERED, render(healed, Style())


DISCOVERY = {
    "question": ("input", "icmpv6 type nd-neighbor-solicit drop"),
    "answer": ("output", "icmpv6 type nd-neighbor-advert drop"),
}


@pytest.mark.parametrize("name", DISCOVERY)
def test_rules_meet_neighbour_discovery(name: str) -> None:
    hook, rule = DISCOVERY[name]
    six.build6()
    run("ip -n web-0 -6 neigh flush dev eth0")
    head = f"{{ type filter hook {hook} priority 0; }}"
    run("ip netns exec vms103 nft add table ip6 wall")
    run(f"ip netns exec vms103 nft add chain ip6 wall c {head}")
    run(f"ip netns exec vms103 nft add rule ip6 wall c {rule}")
    address = six.ADDRESSES["db-0"]
    trace = six.traced("web-0", address)
    assert not ping("web-0", address)
    assert trace.disposition is Disposition.NEIGHBOR_FAILED, trace.summary
    assert trace.faults[0].where.netns == "vms103", trace.summary
    assert trace.faults[0].id == "arp.denied"


def test_a_sender_hears_why_its_kernel_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the states of what is unexplained are kept
    build("none")
    # Packets that wait for ARP are not refused.
    run("ip -n web-0 neigh add 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee nud permanent")
    run("tc -n web-0 qdisc add dev eth0 root bfifo limit 1")
    for flow in (Flow(), Flow(protocol=Protocol.TCP, port=80)):
        trace = bridges.traced("demo/web-0", "demo/db-0", flow)
        # UDP and TCP: that nothing listens is no reason to be silent about what happened.
        assert trace.disposition is Disposition.UNEXPLAINED, trace.summary
        assert "could not send: No buffer space available" in trace.summary
        assert trace.confidence == "possible"
