"""What plain commands print, parsed, is what netlink says, section by section."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import fields, replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from podwire.cli.trace import trace
from podwire.drivers import namespaces
from podwire.drivers.capture.nftrace import RuleTrace
from podwire.drivers.capture.observe import new_series
from podwire.drivers.collect import collect_all
from podwire.drivers.node_script import SCRIPT
from podwire.drivers.remote_collect import NodeStates, collect_node, collect_nodes, joined
from podwire.drivers.transport import SSH, KubectlDebug, KubectlExec, Local, LocalNamespace
from podwire.errors import PodwireError
from podwire.model.iproute_json import strongest_state
from podwire.model.kernelstate import NOT_READ, KernelState, Missing, Read
from podwire.trace.flow import Flow
from podwire.trace.predict import predict
from tests.fakes.remote_programs import install
from tests.kernel.trace_network import NODES, PODS, build, run

if TYPE_CHECKING:
    from podwire.drivers.transport import Transport
    from podwire.model.route import Route

OURS = {*NODES, *PODS, "underlay"}
RICH = r"""
ip -n vms103 link add br1 type bridge
ip -n vms103 link add port0 type veth peer name port1
ip -n vms103 link set port0 master br1 up
ip -n vms103 link set port1 up alias 'a "quoted" alias'
ip -n vms103 addr add 10.3.0.1 peer 10.3.0.2/32 dev port1
ip -n vms103 addr add 2001:db8:1::1/64 dev ens32 nodad
ip -n vms103 route add 10.9.0.0/16 proto 80 metric 5 nexthop via 192.168.26.7 weight 3 \
  nexthop via 192.168.26.8
ip -n vms103 route add blackhole 10.8.0.0/24 proto bird
ip -n vms103 route add unreachable 10.8.1.0/24
ip -n vms103 route add prohibit 10.8.2.0/24 table 77
ip -n vms103 route add throw 10.8.3.0/24 table 77
ip -n vms103 route add 10.7.0.0/24 via 10.99.0.1 dev vxlan.calico onlink mtu 1400
ip -n vms103 route add 10.6.0.0/24 via inet6 fe80::1 dev ens32
ip -n vms103 route add 10.5.0.0/24 dev ens32 tos 0x10 src 192.168.26.103
ip -n vms103 route add 10.4.0.0/24 via 192.168.26.9 realm 5
ip -n vms103 nexthop add id 5 via 192.168.26.9 dev ens32
ip -n vms103 nexthop add id 6 via 192.168.26.10 dev ens32
ip -n vms103 nexthop add id 7 group 5/6
ip -n vms103 route add 10.2.0.0/24 nhid 5
ip -n vms103 route add 10.2.1.0/24 nhid 7
ip -n vms103 -6 route add 2001:db8:2::/64 via fe80::9 dev ens32 metric 7
ip -n vms103 -6 route add blackhole 2001:db8:3::/64
ip -n vms103 rule add from 10.0.0.0/8 fwmark 0x10/0xf0 iif ens32 table 100 \
  pref 100 suppress_prefixlength 0
ip -n vms103 rule add not to 10.0.0.7 goto 32766 pref 200
ip -n vms103 rule add blackhole fwmark 3 pref 300
ip -n vms103 rule add tos 0x10 prohibit pref 400
ip -n vms103 rule add ipproto tcp dport 80-90 sport 7 table 9 pref 450
ip -n vms103 rule add ipproto udp table 9 pref 451
ip -n vms103 rule add oif ens32 unreachable pref 500 protocol bird
ip -n vms103 -6 rule add from 2001:db8::/32 to 2001:db8:1::5 lookup 77 pref 100
ip -n vms103 neigh add 192.168.26.55 dev ens32 lladdr 02:00:00:00:00:55 nud noarp
ip -n vms103 neigh add 192.168.26.56 dev ens32 lladdr 02:00:00:00:00:56 nud stale
ip -n vms103 neigh add 192.168.26.57 dev ens32 nud failed
ip -n vms103 neigh add proxy 192.168.26.77 dev ens32
ip -n vms103 neigh add 2001:db8:1::7 dev ens32 lladdr 02:00:00:00:00:07 nud permanent
bridge -n vms103 fdb add 02:00:00:00:00:99 dev vxlan.calico dst 192.168.26.99 vni 7 port 99 self
bridge -n vms103 fdb add 02:00:00:00:00:98 dev port0 master static
bridge -n vms103 fdb add 02:00:00:00:00:97 dev port0 master sticky static
ip -n vms103 link set port0 type bridge_slave isolated on hairpin on learning off flood off
ip -n underlay link set br0 type bridge nf_call_iptables 1
tc -n vms103 qdisc add dev ens32 clsact
ip netns exec underlay nft add table netdev t
ip netns exec underlay nft add chain netdev t in \
  '{ type filter hook ingress device vms103 priority 0; }'
ip netns exec underlay nft add chain netdev t out \
  '{ type filter hook egress devices = { vms103, vms105 } priority 0; policy drop; }'
ip netns exec vms103 nft add table inet t
ip netns exec vms103 nft add chain inet t c '{ type filter hook forward priority 0; policy drop; }'
ip netns exec vms103 nft add rule inet t c ip saddr { 10.0.0.1, 10.0.0.9-10.0.0.12 } \
  counter accept comment '"why not"'
ip netns exec web-0 nft add table ip6 t
ip netns exec web-0 nft add chain ip6 t c '{ type filter hook output priority 0; }'
ip netns exec web-0 nft add rule ip6 t c ct state new accept
ip netns exec web-1 nft add table ip t
ip netns exec web-1 nft add chain ip t c '{ type filter hook output priority 0; }'
ip netns exec web-1 nft add rule ip t c ct state new accept
ip netns exec web-1 ping -c 1 -W 1 10.244.38.174 || :
"""


@cache
def sections() -> list[str]:
    return [each.name for each in fields(KernelState) if each.name != "namespace"]


def normal(name: str, state: KernelState) -> object:
    """A section's value without what the two ways may tell differently."""
    section = getattr(state, name)
    if isinstance(section, Missing):
        return section
    value = section.value
    if name == "fdb":  # `bridge` prints one of an entry's states
        value = [replace(each, state=strongest_state(each.state)) for each in value]
    if name == "netns_ids":  # those that a link leads to
        assert isinstance(state.links, Read)
        wanted = {link.peer_netnsid for link in state.links.value}
        value = {nsid: inode for nsid, inode in value.items() if nsid in wanted}
    if isinstance(value, dict | str):
        return value
    return sorted(map(repr, value))


def ours(states: tuple[KernelState, ...]) -> dict[str | None, KernelState]:
    return {each.namespace.name: each for each in states if each.namespace.name in OURS}


def assert_both_tell_the_same() -> None:
    read = ours(collect_all())
    while True:  # until nothing changed meanwhile by itself, as IPv6 addresses and neighbours do
        told = ours(collect_node("here", Local()).states)
        before, read = read, ours(collect_all())
        if all(normal(name, before[each]) == normal(name, read[each])
               for each in OURS for name in sections()):  # fmt: skip
            break
    assert told.keys() == read.keys() == OURS
    for title, state in read.items():
        there = told[title]
        assert there.namespace.inode == state.namespace.inode
        assert there.namespace.pod == state.namespace.pod
        for name in sections():
            if getattr(state, name) != NOT_READ:
                assert normal(name, there) == normal(name, state), (title, name)


@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
def test_both_collectors_tell_the_same(encapsulation: str) -> None:
    build(encapsulation)
    assert_both_tell_the_same()


def test_they_do_so_for_all_that_a_node_may_hold() -> None:
    build("vxlan")
    subprocess.run(["sh", "-ec", RICH], check=True)
    assert_both_tell_the_same()
    routes = ours(collect_all())["vms103"].routes
    assert isinstance(routes, Read)
    assert any(route.not_modelled for route in routes.value)


def test_an_encapsulating_route_keeps_its_destination() -> None:
    run("ip netns add odd")
    run("ip -n odd link set lo up")
    run("ip -n odd route add 10.4.0.0/24 dev lo table 100 encap ip id 5 dst 10.0.0.4")

    def routes(states: tuple[KernelState, ...]) -> set[Route]:
        [state] = [each for each in states if each.namespace.name == "odd"]
        assert isinstance(state.routes, Read)
        return set(state.routes.value)

    assert routes(collect_node("here", Local()).states) == routes(collect_all())


def test_a_trace_that_listens_meanwhile_hides_no_rules() -> None:
    build("none")
    for table in ("inet one", "ip two"):
        run(f"ip netns exec vms105 nft add table {table}")
        run(f"ip netns exec vms105 nft add chain {table} c")
        run(f"ip netns exec vms105 nft add rule {table} c counter drop")
    before = ours(collect_node("here", Local()).states)["vms105"]
    series = new_series(ip_address("10.244.38.174"), ip_address("10.244.169.66"), Flow())
    with (
        namespaces.opened("/run/netns/vms105") as vms105,
        RuleTrace.open({before.namespace.inode: vms105}, series) as listening,
    ):
        assert listening.refused == {}
        assert "podwire-trace-" in run("ip netns exec vms105 nft list tables")
        during = ours(collect_node("here", Local()).states)["vms105"]
    assert normal("nft", during) == normal("nft", before)
    assert sum("drop" in each for each in map(str, normal("nft", during))) == 2  # type: ignore[call-overload]


def test_the_trace_is_the_same_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", monkeypatch)
    build("vxlan")
    for breaking in ("ip -n vms103 link show", "ip -n vms105 route del 10.244.169.66"):
        run(breaking)
        done = CliRunner().invoke(
            trace, ["demo/web-0", "demo/db-0", "--node", "h=ssh:vms103", "-o", "json"]
        )
        local = CliRunner().invoke(trace, ["demo/web-0", "demo/db-0", "--predict", "-o", "json"])
        assert done.exit_code == local.exit_code, done.output
        assert json.loads(done.stdout)["result"] == json.loads(local.stdout)["result"]


def test_a_node_that_does_not_answer_is_missing_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", monkeypatch)
    build("vxlan")
    said: list[str] = []
    answering: dict[str, Transport] = {"good": Local(), "gone": SSH("dead")}
    hanging: dict[str, Transport] = {
        "mute": SSH("silent"),
        "pod": KubectlExec(namespace="kube-system", pod="silent"),
        "image": KubectlDebug(node="silent"),
    }
    states = (
        *collect_nodes(answering, said=said.append),
        *collect_nodes(hanging, timeout_s=1, said=said.append),
    )
    assert ours(states).keys() == OURS
    reasons = {
        each.namespace.name: each.links.reason for each in states if isinstance(each.links, Missing)
    }
    assert "No route to host" in reasons["gone"]
    for name, way in hanging.items():
        assert f"node {name} ({way.title}): no answer within 1 s" in reasons[name]
    assert len(said) == 5
    for name in ("gone", *hanging):
        found = predict(states, name, "demo/db-0")
        assert found.disposition.exit_code == 4
        assert name in json.dumps(str(found))


def test_a_program_that_is_not_installed_is_one_missing_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("none")
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("sh", "cat", "stat", "date", "xargs", "grep", "ip", "nsenter", "nft"):
        place = shutil.which(name)
        assert place is not None
        (folder / name).symlink_to(Path(place).resolve() if name != "sh" else "/bin/sh")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(
        "podwire.drivers.remote_collect.SCRIPT",
        __import__("podwire.drivers.node_script", fromlist=["SCRIPT"]).SCRIPT.replace(
            "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", "PATH=$PATH"
        ),
    )
    state = ours(collect_node("here", Local()).states)["vms103"]
    assert isinstance(state.links, Read)
    assert state.fdb == Missing("fdb: bridge is not installed")
    assert state.qdiscs == Missing("qdiscs: tc is not installed")
    assert state.sockets == Missing("sockets: ss is not installed")


IPTABLES = r"""
for family in ip ip6; do
  for flavour in legacy nft; do
    ip netns exec vms103 ${family}tables-$flavour -A FORWARD -p tcp --dport 80 \
      -m statistic --mode random --probability 0.5 -m comment --comment $family-$flavour -j DROP
  done
done
"""


def needs_iptables() -> None:
    if any(shutil.which(f"{name}tables-{flavour}-save", path="/usr/sbin:/sbin") is None
           for name in ("ip", "ip6") for flavour in ("legacy", "nft")):  # fmt: skip
        pytest.skip("iptables and ip6tables of both kinds are not installed")


def test_rules_of_both_families_and_both_iptables_are_told() -> None:
    needs_iptables()
    build("none")
    subprocess.run(["sh", "-ec", IPTABLES], check=True)
    for states in (collect_node("here", Local()).states, collect_all()):
        state = ours(states)["vms103"]
        for flavour, section in (("legacy", state.iptables_legacy), ("nft", state.iptables_nft)):
            assert isinstance(section, Read), section
            for family in ("ip", "ip6"):
                assert f"--comment {family}-{flavour} -j DROP" in section.value


@pytest.mark.parametrize("flavour", ["legacy", "nft"])
def test_an_iptables_save_without_a_kind_in_its_name_is_found(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_iptables()
    build("none")
    subprocess.run(["sh", "-ec", IPTABLES], check=True)
    folder = tmp_path / "old"
    folder.mkdir()
    for name in ("sh", "cat", "stat", "date", "xargs", "grep", "ip", "nsenter", "nft"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for family in ("ip", "ip6"):
        multi = Path(str(shutil.which(f"{family}tables-{flavour}"))).resolve()
        for name in (f"{family}tables", f"{family}tables-save"):
            (folder / name).symlink_to(multi)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(
        "podwire.drivers.remote_collect.SCRIPT",
        SCRIPT.replace("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", "PATH=$PATH"),
    )
    state = ours(collect_node("here", Local()).states)["vms103"]
    found = {"legacy": state.iptables_legacy, "nft": state.iptables_nft}
    told = found.pop(flavour)
    assert isinstance(told, Read), told
    for family in ("ip", "ip6"):
        assert f"--comment {family}-{flavour} -j DROP" in told.value
    assert all(isinstance(each, Missing) for each in found.values())


def test_nodes_of_one_kernel_are_one_world() -> None:
    build("vxlan")
    nodes = {name: LocalNamespace(f"/run/netns/{name}") for name in NODES}
    states = collect_nodes(nodes)
    inodes = [each.namespace.inode for each in states]
    assert len(inodes) == len(set(inodes))
    roots = {each.namespace.node for each in states if each.namespace.root}
    assert roots == set(NODES)
    states = tuple(ours(states).values())
    assert predict(states, "demo/web-0", "demo/db-0").disposition.exit_code == 0


def test_two_kernels_do_not_share_inodes() -> None:
    build("none")
    one = collect_node("a", Local())
    two = NodeStates(node="b", boot="another", states=one.states)
    both = joined([one, two])
    assert len(both) == 2 * len(one.states)
    assert len({each.namespace.inode for each in both}) == len(both)
    for state in both:
        if isinstance(state.netns_ids, Missing):
            continue
        kernels = {inode >> 32 for inode in state.netns_ids.value.values()}
        assert kernels <= {state.namespace.inode >> 32}


def test_a_way_that_leads_nowhere_is_an_error_of_that_node() -> None:
    with pytest.raises(PodwireError, match="nowhere"):
        collect_node("x", LocalNamespace("/run/netns/nowhere"))
