"""Marks change with what decides about packets, and not with what packets do."""

from __future__ import annotations

import subprocess
from dataclasses import fields

import pytest

from podwire.drivers import namespaces
from podwire.drivers.collect import collect
from podwire.drivers.collect_marks import Marks, changed, marks, marks_of
from podwire.model.kernelstate import KernelState, Missing, NamespaceRef
from tests.fakes.awaiting import wait_until
from tests.kernel.trace_network import build, ping, run

CHANGES = {
    "links": "ip -n vms103 link set ens32 mtu 1400",
    "addresses": "ip -n vms103 addr add 10.77.0.1/32 dev lo",
    "routes": "ip -n vms103 route add blackhole 10.66.0.0/24",
    "rules": "ip -n vms103 rule add from 10.66.0.0/24 table 7",
    "neighbours": "ip -n vms103 neigh add proxy 10.66.0.1 dev ens32",
    "fdb": "bridge -n vms103 fdb add 02:00:00:00:00:99 dev vxlan.calico dst 192.168.26.9 self",
    "sysctls": "ip netns exec vms103 sysctl -qw net/ipv4/conf/ens32/proxy_arp=1",
    "nft": "ip netns exec vms103 nft add table inet t",
}


def marked() -> Marks:
    with namespaces.opened("/run/netns/vms103") as descriptor:
        return marks(descriptor)


def settled() -> Marks:
    """Marks once IPv6 has no address left to try and nothing changes by itself."""
    before, now = marked(), marked()
    while changed(before, now) or "tentative" in run("ip -n vms103 addr"):
        before, now = now, marked()
    return now


@pytest.mark.parametrize("section", CHANGES)
def test_a_change_is_seen_in_its_section(section: str) -> None:
    build("vxlan")
    before = settled()
    run(CHANGES[section])
    assert section in changed(before, marked())
    assert changed(before, before) == ()


def test_packets_change_no_mark() -> None:
    build("vxlan")
    # IPv6 goes on making routes of its own for a while after a link has come up.
    run("ip netns exec vms103 sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    before = settled()
    for address in ("10.244.169.66", "192.168.26.105", "192.168.26.103", "192.168.26.9"):
        ping("web-0", address)
    assert changed(before, marked()) == ()


def test_a_collected_state_has_the_marks_of_its_time() -> None:
    build("vxlan")
    run(CHANGES["nft"])
    settled()
    with namespaces.opened("/run/netns/vms103") as descriptor:
        ref = NamespaceRef(inode=namespaces.inode_of(descriptor))
        state = collect(descriptor, ref)
        assert changed(marks_of(state), marks(descriptor)) == ()
        assert None not in [getattr(marks_of(state), each.name) for each in fields(Marks)]
        run(CHANGES["routes"])
        assert changed(marks_of(state), marks(descriptor)) == ("routes",)


def test_what_was_not_read_is_not_called_changed() -> None:
    build("none")
    empty = marks_of(KernelState(namespace=NamespaceRef(inode=1)))
    assert empty == Marks()
    assert changed(empty, marked()) == ()


def test_a_table_that_a_program_owns_is_told_or_missing() -> None:
    """Some versions of nft break off there; then nothing is known, which is not nothing."""
    run("ip netns add owned")
    command = ["ip", "netns", "exec", "owned", "nft", "-i"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as owner,
        namespaces.opened("/run/netns/owned") as descriptor,
    ):
        assert owner.stdin is not None
        owner.stdin.write(b"add table ip mine { flags owner; }\n")
        owner.stdin.flush()
        ref = NamespaceRef(inode=namespaces.inode_of(descriptor))
        wait_until(lambda: marks(descriptor).nft not in {None, 0, 1})
        found = collect(descriptor, ref).nft
        owner.stdin.close()
    if isinstance(found, Missing):
        assert "owns" in found.reason
    else:
        assert "mine" in str(found.value)
