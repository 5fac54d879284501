"""Containers on a bridge with NAT to the world: predicted beside observed; faults by name."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from podwire.cli.trace_live import Wish, trace_live
from podwire.trace.flow import Flow, Protocol
from podwire.trace.report import Style, render
from podwire.trace.schema import Direction, Disposition, Result, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST, ONE, TWO, THREE, WORLD = "bt-host", "bt-one", "bt-two", "bt-three", "bt-world"
ADDRESSES = {ONE: "172.17.0.2", TWO: "172.17.0.3", THREE: "172.17.0.4"}
GATEWAY, OUTSIDE, FAR = "172.17.0.1", "192.0.2.1", "192.0.2.9"
OPEN, PUBLISHED = 7007, 8080
"""TWO serves the one; the host publishes it as the other."""
NETWORK = """
for n in bt-host bt-one bt-two bt-three bt-world; do
  ip netns add $n; ip -n $n link set lo up
done
ip -n bt-host link add docker0 type bridge
ip -n bt-host addr add 172.17.0.1/16 dev docker0
ip -n bt-host link set docker0 up
number=2
for box in one two three; do
  ip -n bt-host link add v$box type veth \
    peer name eth0 address 02:00:00:00:17:0$number netns bt-$box
  ip -n bt-host link set v$box master docker0 up
  ip -n bt-$box addr add 172.17.0.$number/16 dev eth0
  ip -n bt-$box link set eth0 up
  ip -n bt-$box route add default via 172.17.0.1
  number=$((number + 1))
done
ip -n bt-host link add eth0 type veth peer name eth0 netns bt-world
ip -n bt-host addr add 192.0.2.1/24 dev eth0
ip -n bt-host link set eth0 up
ip -n bt-world addr add 192.0.2.9/24 dev eth0
ip -n bt-world link set eth0 up
ip netns exec bt-host sysctl -qw net/ipv4/ip_forward=1
ip netns exec bt-host nft -f - <<'RULES'
table ip nat {
  chain DOCKER { iifname != "docker0x" tcp dport 8080 dnat to 172.17.0.3:7007; }
  chain PREROUTING {
    type nat hook prerouting priority -100
    fib daddr type local jump DOCKER
  }
  chain POSTROUTING {
    type nat hook postrouting priority 100
    oifname != "docker0" ip saddr 172.17.0.0/16 masquerade
    ip saddr 172.17.0.3 ip daddr 172.17.0.3 tcp dport 7007 masquerade
  }
}
table ip filter {
  chain FORWARD {
    type filter hook forward priority 0; policy drop;
    oifname "docker0" ct state established,related accept
    oifname "docker0" iifname != "docker0" ip daddr 172.17.0.3 tcp dport 7007 accept
    iifname "docker0" oifname != "docker0" accept
    iifname "docker0" oifname "docker0" accept
  }
}
RULES
"""
ECHO = f"""
import socket
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
tcp.bind(("", {OPEN})); tcp.listen(); udp.bind(("", {OPEN}))
print("ready", flush=True)
while True:
    data, who = udp.recvfrom(65535)
    udp.sendto(data, who)
"""


def run(text: str) -> None:
    subprocess.run(["sh", "-ec", text], check=True)


def on_host(text: str) -> str:
    return f"ip netns exec {HOST} {text}"


def filtering(value: int) -> str:
    """Whether br_netfilter shows bridged packets to the rules of IP."""
    return on_host(f"sysctl -qw net.bridge.bridge-nf-call-iptables={value}")


@contextmanager
def served(*names: str) -> Iterator[None]:
    running = []
    try:
        for name in names:
            command = ["ip", "netns", "exec", name, sys.executable, "-c", ECHO]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            running.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
        yield
    finally:
        for server in running:
            server.kill()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()


def traced(source: str, destination: str, flow: Flow | None = None) -> Trace:
    wish = Wish(source=source, destination=destination, flow=flow or Flow(), probe=True)
    return trace_live(wish)


def tcp(port: int) -> Flow:
    return Flow(protocol=Protocol.TCP, port=port)


FLOWS = (Flow(), tcp(OPEN), Flow(protocol=Protocol.UDP, port=OPEN), Flow(size=1500, df=True))
WAYS = [
    *((ONE, TWO, flow) for flow in FLOWS),
    (ONE, GATEWAY, Flow()),
    (HOST, TWO, tcp(OPEN)),
    (ONE, FAR, Flow()),
    (ONE, FAR, tcp(OPEN)),
    (WORLD, OUTSIDE, tcp(PUBLISHED)),
    (TWO, OUTSIDE, tcp(PUBLISHED)),
]
"""Bridged; to the host and from it; masqueraded; by a published port, from its receiver too."""


def as_predicted(trace: Trace) -> str:
    text = render(trace, Style())
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, text
    assert trace.confidence == "certain", text
    assert trace.faults == (), text
    results = {hop.result for path in trace.paths for hop in path.hops}
    assert results == {Result.MATCH}, text
    assert {path.direction for path in trace.paths} == set(Direction), text
    return text


@pytest.mark.parametrize("filtered", [0, 1], ids=["bridged", "br_netfilter"])
def test_a_bridge_network_is_seen_as_predicted(filtered: int) -> None:
    run(NETWORK)
    run(filtering(filtered))
    if filtered:  # what is translated on the bridge itself goes back where it came from
        run(f"ip -n {HOST} link set vtwo type bridge_slave hairpin on")
    with served(TWO, WORLD):
        for source, destination, flow in WAYS:
            as_predicted(traced(source, destination, flow))


def test_a_published_port_of_a_neighbour_needs_br_netfilter() -> None:
    """Else the answer goes straight back, and nobody translates it."""
    run(NETWORK)
    run(filtering(1))
    with served(TWO):
        as_predicted(traced(ONE, OUTSIDE, tcp(PUBLISHED)))
        run(filtering(0))
        trace = traced(ONE, OUTSIDE, tcp(PUBLISHED))
    assert trace.disposition is Disposition.ANSWERED_BY_OTHER, render(trace, Style())
    assert f"the answer comes from {ADDRESSES[TWO]}:{OPEN}" in trace.summary


def chain(family: str, head: str, rule: str) -> str:
    made = f"table {family} wall {{ chain c {{ type filter hook {head}; {rule}; }}; }}"
    return f"echo '{made}' | {on_host('nft -f -')}"


def nobody_forwards(policy: str = "drop") -> str:
    """As an engine leaves it that lets containers of one network not talk to each other."""
    return on_host(
        f"nft 'flush chain ip filter FORWARD; chain ip filter FORWARD {{ policy {policy}; }}'"
    )


MAC = "02:00:00:00:17:03"
FAULTS = {
    "isolated": (
        "; ".join(f"ip -n {HOST} link set {each} type bridge_slave isolated on"
                  for each in ("vone", "vtwo")),
        (TWO, Flow()), ("bridge.port-isolated", "vtwo"),
    ),
    "port-down": (f"ip -n {HOST} link set vtwo down", (TWO, Flow()), ("link.down", "vtwo")),
    "wrong-port": (
        f"bridge -n {HOST} fdb replace {MAC} dev vthree master sticky static",
        (TWO, Flow()), ("bridge.wrong-port", "vthree"),
    ),
    "into-the-host": (
        f"bridge -n {HOST} fdb replace {MAC} dev vtwo master permanent",
        (TWO, Flow()), ("bridge.wrong-port", "vtwo"),
    ),
    "br_netfilter": (
        f"{filtering(1)}\n{nobody_forwards()}", (TWO, Flow()), ("policy.denied", "docker0"),
    ),
    "no-hairpin": (
        f"{filtering(1)}\nip -n {HOST} link set vtwo type bridge_slave hairpin off",
        (OUTSIDE, tcp(PUBLISHED)), ("bridge.hairpin-off", "vtwo"),
    ),
    "forward": (
        chain("bridge", "forward priority 0", "ip daddr 172.17.0.3 tcp dport 7007 drop"),
        (TWO, tcp(OPEN)), ("policy.denied", "vone"),
    ),
    "answer": (
        chain("bridge", "postrouting priority 0", "icmp type echo-reply drop"),
        (TWO, Flow()), ("policy.denied", "vone"),
    ),
    "ingress": (
        chain("netdev", "ingress device vone priority 0", "ip protocol icmp drop"),
        (FAR, Flow()), ("policy.denied", "vone"),
    ),
    "egress": (
        chain("netdev", "egress device eth0 priority 0", "ip saddr 192.0.2.1 drop"),
        (FAR, Flow()), ("policy.denied", "eth0"),
    ),
    "only-ip": (
        chain("bridge", "forward priority 0; policy drop", "ether type ip accept"),
        (TWO, Flow()), ("arp.denied", "vone"),
    ),
}  # fmt: skip
"""How it is broken, what is asked of it, the name and the interface of what is said."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_bridge_is_named_for_certain_and_its_fix_works(name: str) -> None:
    how, (destination, flow), (identity, interface) = FAULTS[name]
    run(NETWORK)
    run(filtering(0))
    run(how)
    source = TWO if name == "no-hairpin" else ONE
    with served(TWO, WORLD):
        trace = traced(source, destination, flow)
        text = render(trace, Style())
        first = trace.faults[0]
        assert (first.id, first.where.netns, first.where.interface) == (
            identity,
            HOST,
            interface,
        ), text
        assert first.confidence == "certain", text
        assert trace.disposition.exit_code == 1, text
        assert first.fix is not None
        assert first.fix.command is not None
        assert first.fix.verified_by == "counterproof", text
        run(on_host(f"sh -ec {first.fix.command!r}"))
        healed = traced(source, destination, flow)
    assert healed.disposition is Disposition.DELIVERED_AND_ANSWERED, render(healed, Style())
    assert not [each for each in healed.faults if each.severity == "error"]


def test_spanning_tree_holds_a_port_back() -> None:
    """No command opens it: it does so by itself, half a minute later."""
    run(NETWORK)
    run(f"ip -n {HOST} link set docker0 type bridge stp_state 1")
    run(f"ip -n {HOST} link set vtwo down")
    run(f"ip -n {HOST} link set vtwo up")
    trace = traced(ONE, TWO)
    text = render(trace, Style())
    first = trace.faults[0]
    assert (first.id, first.where.interface) == ("bridge.port-blocked", "vtwo"), text
    assert first.confidence == "certain", text
