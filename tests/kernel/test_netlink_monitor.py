"""What changes is announced; what is lost is told."""

from __future__ import annotations

import os
import select
import subprocess
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.monitor import OVERRUN, Monitor
from podwire.drivers.netlink.session import Session
from podwire.model.link import Address, Link
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import Route, RouteKey, RouteKind, Rule

if TYPE_CHECKING:
    from collections.abc import Callable


def blackhole(network: str) -> Route:
    return Route(key=RouteKey(destination=ip_network(network)), kind=RouteKind.BLACKHOLE)


def test_every_kind_of_change_is_announced_with_its_value(session: Session) -> None:
    with Monitor() as monitor:
        assert monitor.read() == ()
        session.run(
            requests.create_veth("a", peer_name="b", up=True), requests.set_link("b", up=True)
        )
        link = session.link("a")
        assert link is not None
        route, rule = blackhole("10.1.0.0/26"), Rule(family=4, priority=5, table=100)
        address = Address(device=link.index, interface=ip_interface("10.0.0.1/24"))
        neighbour = Neighbour(
            device=link.index, address=ip_address("10.0.0.9"), mac="02:00:00:00:00:09"
        )
        session.run(
            requests.replace_address(address),
            requests.replace_route(route),
            requests.replace_neighbour(neighbour),
            requests.add_rule(rule),
        )
        mine = {(event.kind, event.value) for event in monitor.read() if event.port == session.port}
        assert {("address", address), ("route", route), ("neighbour", neighbour)} < mine
        assert ("rule", rule) in mine

        session.run(
            requests.delete_route(route),
            requests.delete_rule(rule),
            requests.delete_neighbour(neighbour),
            requests.delete_link("a"),
        )
        events = monitor.read()
        gone = {(event.kind, event.value) for event in events if event.deleted}
        assert {("route", route), ("rule", rule)} < gone
        names = {
            event.value.name
            for event in events
            if event.kind == "link" and event.deleted and isinstance(event.value, Link)
        }
        assert names == {"a", "b"}


def test_foreign_writes_carry_another_port(session: Session) -> None:
    with Monitor("route") as monitor:
        subprocess.run(["ip", "route", "add", "blackhole", "10.1.0.0/26"], check=True)
        session.run(requests.replace_route(blackhole("10.2.0.0/26")))
        ports = {
            event.value.key.destination: event.port
            for event in monitor.read()
            if isinstance(event.value, Route)
        }
    assert ports[ip_network("10.2.0.0/26")] == session.port
    assert ports[ip_network("10.1.0.0/26")] != session.port


def test_leaving_a_bridge_deletes_no_link(session: Session) -> None:
    session.run(
        requests.create_veth("a", peer_name="b", up=True), requests.create_bridge("br0", up=True)
    )
    bridge = session.link("br0")
    assert bridge is not None
    with Monitor("link", "fdb") as monitor:
        session.run(requests.set_link("a", master=bridge.index), requests.set_link("a", master=0))
        events = monitor.read()
    assert not [event for event in events if event.kind == "link" and event.deleted]
    assert [event for event in events if isinstance(event.value, FDBEntry)]


def test_only_the_kinds_asked_for_arrive(session: Session) -> None:
    with Monitor("route") as monitor:
        session.run(
            requests.create_bridge("br0", up=True), requests.replace_route(blackhole("10.1.0.0/26"))
        )
        assert {event.kind for event in monitor.read()} == {"route"}


def test_a_monitor_listens_in_the_namespace_it_was_given(
    session: Session, make_namespace: Callable[[str], int], session_in: Callable[[int], Session]
) -> None:
    pod = make_namespace("pod")
    with Monitor("route", namespace_fd=pod) as monitor:
        session.run(requests.replace_route(blackhole("10.1.0.0/26")))
        assert monitor.read() == ()
        session_in(pod).run(requests.replace_route(blackhole("10.1.0.0/26")))
        ready, _, _ = select.select([monitor], [], [], 10)
        assert ready == [monitor]
        assert [event.value for event in monitor.read()] == [blackhole("10.1.0.0/26")]


def test_an_overrun_is_told_and_survived(session: Session) -> None:
    routes = [
        Route(
            key=RouteKey(destination=IPv4Network((0x0B000000 + 64 * number, 26))),
            kind=RouteKind.BLACKHOLE,
        )
        for number in range(3000)
    ]
    with Monitor("route", buffer_size=4096) as monitor:
        assert session.apply([requests.replace_route(one) for one in routes]) == [None] * 3000
        events = monitor.read()
        assert OVERRUN in events
        assert len(events) < 3000
        session.run(requests.replace_route(blackhole("10.1.0.0/26")))
        assert [event.value for event in monitor.read()] == [blackhole("10.1.0.0/26")]
    assert len(session.routes(family=4)) == 3001


def test_nothing_stays_open(make_namespace: Callable[[str], int]) -> None:
    pod = make_namespace("pod")

    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def work() -> None:
        with Session.open(pod) as session, Monitor(namespace_fd=pod) as monitor:
            session.links()
            session.namespace_ids()
            monitor.read()
        namespaces.call_in(pod, os.getpid)
        with namespaces.opened(Path("/run/netns/pod")):
            os.close(namespaces.current_namespace())

    work()
    before = count()
    for _ in range(50):
        work()
    assert count() == before
