"""Observing real packets: every place, both directions, in order; errors matched; nothing left."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers import namespaces
from podwire.drivers.capture.observe import Limits
from podwire.drivers.collect import collect_all
from podwire.model.link import HOST_MAC
from podwire.trace.flow import Flow, Protocol
from podwire.trace.observation import OTHERHOST, Observation, Role
from podwire.trace.predict import predict
from podwire.trace.questions import questions
from tests.fakes.awaiting import wait_until
from tests.kernel.capture_network import WAY, OpenNetwork, back, network
from tests.kernel.trace_network import MACS, PODS, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 8080
NOBODY = "02:00:00:00:77:77"
SMALL = [Flow(), Flow(protocol=Protocol.UDP, port=PORT), Flow(protocol=Protocol.TCP, port=PORT)]
TINY = [
    Flow(size=28),
    Flow(protocol=Protocol.UDP, port=PORT, size=28),
    Flow(protocol=Protocol.TCP, port=PORT, size=40),
]
PATIENT = Limits(interval_s=5, timeout_s=5)


def full(flow: Flow, mtu: int) -> Flow:
    return Flow(protocol=flow.protocol, port=flow.port, size=mtu, df=True)


@contextmanager
def serving(namespace: int) -> Iterator[None]:
    """Somebody who accepts TCP and sends back what comes by UDP."""

    def listen() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", PORT))
        return socket.create_server(("0.0.0.0", PORT)), udp

    tcp, udp = namespaces.call_in(namespace, listen)
    with tcp, udp:
        child = os.fork()
        if child == 0:
            while True:
                data, peer = udp.recvfrom(65536)
                udp.sendto(data, peer)
        try:
            yield
        finally:
            end(child)


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def assert_whole(net: OpenNetwork, seen: Observation, way: str) -> None:
    assert net.ways(seen, Role.REQUEST) == [way] * 3
    assert net.ways(seen, Role.REPLY) == [back(way)] * 3
    assert seen.of(Role.ERROR) == ()
    assert seen.trustworthy
    assert seen.unordered == 0
    assert net.strays(seen) == set()
    assert all(seen.answered(number) for number in range(3))


@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
def test_every_place_is_seen_in_both_directions(encapsulation: str) -> None:
    mtu = 1450 if encapsulation == "vxlan" else 1500
    with network(encapsulation) as net, serving(net.of("db-0")), serving(net.of("web-1")):
        for flow in (*SMALL, *TINY, *(full(flow, mtu) for flow in SMALL)):
            assert_whole(net, net.observe(flow=flow, limits=PATIENT), WAY[encapsulation])
            local = net.observe(destination="web-1", flow=flow, limits=PATIENT)
            assert_whole(net, local, WAY["local"])


@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
@pytest.mark.parametrize("flow", [Flow(), Flow(size=1450, df=True)])
def test_what_is_predicted_is_seen(encapsulation: str, flow: Flow) -> None:
    with network(encapsulation) as net:
        seen = net.observe(flow=flow, limits=PATIENT)
        trace = predict(collect_all(), "demo/web-0", "demo/db-0", flow)
    there, home = trace.paths
    for path, role in ((there, Role.REQUEST), (home, Role.REPLY)):
        spots = seen.spots(role, 0)
        assert [(hop.inode, hop.where.interface, hop.side) for hop in path.hops] == [
            (spot.inode, spot.interface, spot.side) for spot in spots
        ]
        for hop, spot in zip(path.hops, spots, strict=True):
            packet = spot.first.packet
            assert packet is not None
            fields = ("source", "destination", "protocol", "ttl", "length", "vni", "inner_mac")
            for name in fields:
                assert getattr(packet, name) == getattr(hop.packet, name), (name, hop)


def test_closed_ports_answer_as_they_do() -> None:
    with network("vxlan") as net:
        tcp = net.observe(flow=SMALL[2], limits=PATIENT)
        assert_whole(net, tcp, WAY["vxlan"])
        (first, *_) = tcp.of(Role.REPLY, 0)
        assert "rst=True" in repr(first.frame)
        udp = net.observe(flow=SMALL[1], limits=PATIENT)
    assert net.ways(udp, Role.REQUEST) == [WAY["vxlan"]] * 3
    assert net.ways(udp, Role.ERROR) == [back(WAY["vxlan"])] * 3
    assert {(each.error.type, each.error.code) for each in udp.of(Role.ERROR) if each.error} == {
        (3, 3)
    }
    assert not any(each.about_reply for each in udp.of(Role.ERROR))


@pytest.mark.parametrize("flow", SMALL, ids=lambda flow: flow.protocol)
def test_the_error_about_a_big_packet_is_matched(flow: Flow) -> None:
    with network("vxlan") as net:
        run("ip -n web-0 link set eth0 mtu 1500")
        run("ip -n vms103 link set caliweb-0 mtu 1500")
        seen = net.observe(flow=full(flow, 1480), limits=PATIENT)
    stops = " ".join(WAY["vxlan"].split()[:2])
    assert net.ways(seen, Role.REQUEST) == [stops] * 3
    assert net.ways(seen, Role.ERROR) == [back(stops)] * 3
    assert {each.error.mtu for each in seen.of(Role.ERROR) if each.error} == {1450}


def test_a_probe_too_big_for_its_own_link_is_refused_at_once() -> None:
    with network("vxlan") as net:
        seen = net.observe(flow=Flow(size=1451, df=True))
    assert [each.errno for each in seen.sent] == [errno.EMSGSIZE] * 3
    assert seen.of(Role.REQUEST) == ()


def test_a_pod_without_a_route_sends_nothing() -> None:
    with network("vxlan") as net:
        run("ip -n web-0 route del default")
        for flow in SMALL:
            seen = net.observe(flow=flow)
            assert [each.errno for each in seen.sent] == [errno.ENETUNREACH] * 3
            assert seen.seen == ()
        run("ip -n web-0 addr flush dev eth0")
        for flow in SMALL:
            seen = net.observe(flow=flow)
            assert [each.errno for each in seen.sent] == [errno.EADDRNOTAVAIL] * 3


@pytest.mark.parametrize("flow", [SMALL[0], SMALL[1]], ids=["icmp", "udp"])
def test_fragments_are_counted_at_every_place(flow: Flow) -> None:
    with network("vxlan") as net, serving(net.of("db-0")):
        big = Flow(protocol=flow.protocol, port=flow.port, size=4000)
        seen = net.observe(flow=big, limits=PATIENT)
    assert_whole(net, seen, WAY["vxlan"])
    for role in (Role.REQUEST, Role.REPLY):
        assert {len(spot.seen) for spot in seen.spots(role, 1)} == {3}


def test_the_biggest_packet_is_seen_in_all_its_pieces() -> None:
    with network("vxlan") as net:
        seen = net.observe(flow=Flow(size=65535), limits=PATIENT)
    assert_whole(net, seen, WAY["vxlan"])
    for role in (Role.REQUEST, Role.REPLY):
        assert {len(spot.seen) for spot in seen.spots(role, 2)} == {47}


def test_a_tunnel_wider_than_its_wire_shows_fragments_outside() -> None:
    with network("vxlan") as net:
        for node in ("vms103", "vms105"):
            run(f"ip -n {node} link set ens32 mtu 1400")
            run(f"ip -n underlay link set {node} mtu 1400")
            run(f"ip -n {node} link set vxlan.calico mtu 1450")
        seen = net.observe(flow=Flow(size=1450), limits=PATIENT)
    assert_whole(net, seen, WAY["vxlan"])
    counts = {
        f"{spot.interface}:{spot.side}": len(spot.seen) for spot in seen.spots(Role.REQUEST, 0)
    }
    assert counts["vxlan.calico:out"] == 1
    assert counts["ens32:out"] == counts["ens32:in"] == 2


def test_a_wrong_mac_shows_as_otherhost() -> None:
    with network("vxlan") as net:
        address = PODS["db-0"][1]
        run(f"ip -n vms105 neigh replace {address} dev calidb-0 lladdr {NOBODY} nud permanent")
        seen = net.observe()
    assert net.ways(seen, Role.REQUEST) == [WAY["vxlan"]] * 3
    assert net.strays(seen) == {"db-0/eth0:in"}
    assert seen.spots(Role.REQUEST, 0)[-1].first.sighting.packet_type == OTHERHOST
    assert seen.of(Role.REPLY) == ()
    assert not seen.answered(0)


def test_arp_is_seen_when_it_is_cold() -> None:
    with network("vxlan") as net:
        net.observe(limits=PATIENT)
        warm = net.observe(limits=PATIENT)
        cold = net.observe(limits=PATIENT, forget="169.254.1.1")
    target = ip_address("169.254.1.1")
    asked = [each for each in questions(cold) if each.target == target]
    places = [(each.interface, each.side) for each in asked]
    assert places == [("eth0", "out"), ("caliweb-0", "in")]
    for each in asked:
        assert (str(each.asker), each.macs) == (PODS["web-0"][1], (HOST_MAC,))
        assert each.delay_ns is not None
        assert each.delay_ns > 0
    assert target not in {each.target for each in questions(warm)}
    assert_whole(net, cold, WAY["vxlan"])


def test_a_question_nobody_answers_is_waited_for() -> None:
    with network("vxlan") as net:
        run("ip netns exec vms103 sysctl -qw net.ipv4.conf.caliweb-0.proxy_arp=0")
        seen = net.observe(forget="169.254.1.1")
    assert seen.of(Role.REQUEST) == ()
    asked = {(each.interface, each.side): each for each in questions(seen)}
    assert set(asked) == {("eth0", "out"), ("caliweb-0", "in")}
    for each in asked.values():
        assert len(each.asked_ns) == 3
        assert (each.macs, each.delay_ns) == ((), None)
    # The pod's own kernel gives up at last and tells the sender: host unreachable.
    errors = {(each.error.type, each.error.code) for each in seen.of(Role.ERROR) if each.error}
    assert errors == {(3, 1)}


def test_the_order_holds_on_a_busy_machine() -> None:
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        with network("vxlan") as net:
            for _ in range(30):
                assert_whole(net, net.observe(limits=PATIENT), WAY["vxlan"])
    finally:
        for process in busy:
            process.kill()
            process.wait()


def half_open(namespace: int) -> list[str]:
    """TCP connections that have begun and not been refused."""
    text = namespaces.call_in(namespace, Path("/proc/thread-self/net/tcp").read_text)
    return [line for line in text.splitlines()[1:] if line.split()[3] in {"02", "03"}]


def test_no_connection_is_left_half_open() -> None:
    with network("vxlan") as net, serving(net.of("db-0")):
        # The answers get lost, so nobody but us can end what was begun.
        run(f"bridge -n vms105 fdb del {MACS['vms103']} dev vxlan.calico self")
        seen = net.observe(flow=SMALL[2])
        assert not seen.answered(0)
        assert net.ways(seen, Role.REQUEST) == [WAY["vxlan"]] * 3
        wait_until(lambda: half_open(net.of("db-0")) == [])


def packet_sockets(namespace: int) -> int:
    text = namespaces.call_in(namespace, Path("/proc/thread-self/net/packet").read_text)
    return len(text.splitlines()) - 1


def test_a_sudden_death_leaves_nothing() -> None:
    with network("vxlan") as net:
        run("ip -n vms103 route replace blackhole 10.244.169.64/26")
        child = os.fork()
        if child == 0:
            net.observe(limits=Limits(interval_s=60))
            os._exit(1)
        try:
            wait_until(lambda: all(packet_sockets(each) for each in net.descriptors.values()))
        finally:
            end(child)
        wait_until(lambda: not any(packet_sockets(each) for each in net.descriptors.values()))


def test_no_descriptor_is_left_open() -> None:
    with network("vxlan") as net:
        before = sorted(Path("/proc/self/fd").iterdir())
        for flow in SMALL:
            net.observe(flow=flow, limits=PATIENT)
        run("ip -n web-0 addr flush dev eth0")
        for flow in SMALL:
            net.observe(flow=flow)
        assert sorted(Path("/proc/self/fd").iterdir()) == before


NAT = """add table ip nat
add chain ip nat post { type nat hook postrouting priority 100; }
add rule ip nat post oifname ens32 ip saddr 10.244.0.0/16 masquerade random
add chain ip nat pre { type nat hook prerouting priority -100; }
add rule ip nat pre ip daddr 10.96.0.1 dnat to 10.244.169.66
"""


@pytest.mark.parametrize("flow", SMALL, ids=lambda flow: flow.protocol)
def test_translated_packets_are_known_again(flow: Flow, tmp_path: Path) -> None:
    rules = tmp_path / "nat.nft"
    rules.write_text(NAT)
    with network("vxlan") as net, serving(net.of("db-0")):
        run(f"ip netns exec vms103 nft -f {rules}")
        service = net.observe(destination="10.96.0.1", flow=flow, limits=PATIENT)
        outside = net.observe(destination="192.168.26.2", flow=flow, limits=PATIENT)
    assert_whole(net, service, WAY["vxlan"])
    place = "web-0/eth0:out vms103/caliweb-0:in vms103/ens32:out underlay/vms103:in underlay/br0:in"
    assert net.ways(outside, Role.REQUEST) == [place] * 3
    answer = Role.ERROR if flow.protocol is Protocol.UDP else Role.REPLY
    assert net.ways(outside, answer) == [back(place)] * 3
    sources = [
        spot.first.packet.source for spot in outside.spots(Role.REQUEST, 0) if spot.first.packet
    ]
    assert [str(each) for each in sources] == [PODS["web-0"][1]] * 2 + ["192.168.26.103"] * 3
