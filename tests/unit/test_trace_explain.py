"""Predicted beside observed, on drawn networks and drawn sightings: what is said, how surely."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from podwire.trace.counterproof import Question, prove
from podwire.trace.document import document
from podwire.trace.explain import explain
from podwire.trace.flow import Flow, Protocol
from podwire.trace.predict import predict
from podwire.trace.report import Style, render
from podwire.trace.schema import Direction, Disposition, Result, Trace
from podwire.trace.world import World
from tests.fakes.drawn_network import Network, story
from tests.fakes.drawn_observation import Tape
from tests.fakes.json_schema import complaints

if TYPE_CHECKING:
    from collections.abc import Callable

WEB, DB = "demo/web-0", "demo/db-0"


def predicted(network: Network, flow: Flow | None = None) -> Trace:
    return predict(network.states(), WEB, DB, flow or Flow())


def told(network: Network, tape: Tape) -> Trace:
    return explain(World(network.states()), tape.trace, tape.observation())


def first_ids(trace: Trace) -> list[str]:
    return [fault.id for fault in trace.faults]


def test_all_as_predicted_is_certain() -> None:
    network = story()
    trace = told(network, Tape(predicted(network)).all())
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.confidence == "certain"
    assert {hop.result for path in trace.paths for hop in path.hops} == {Result.MATCH}
    observed = trace.paths[0].hops[1].observed
    assert observed is not None
    assert (observed.count, observed.since_ns) == (3, 1000)
    assert trace.probing is not None
    assert (trace.probing.answered, trace.probing.steadiness) == (3, "steady")


def test_another_ttl_is_a_mismatch() -> None:
    network = story()
    tape = Tape(predicted(network), probes=1)
    hops = tape.path(Direction.FORWARD).hops
    tape.way(Direction.FORWARD, upto=4)
    tape.at(hops[4], packet=replace(hops[4].packet, ttl=17))
    for hop in hops[5:]:
        tape.at(hop)
    trace = told(network, tape.way(Direction.RETURN))
    assert trace.disposition is Disposition.MISMATCH
    assert trace.disposition.exit_code == 2
    assert trace.paths[0].hops[4].result is Result.DIFFERS
    assert "ttl 17" in trace.summary


def test_a_frame_for_somebody_else_differs() -> None:
    network = story()
    tape = Tape(predicted(network), probes=1)
    hops = tape.path(Direction.FORWARD).hops
    for hop in hops:
        foreign = hop is hops[-1]
        tape.at(hop, packet_type="otherhost" if foreign else None)
    trace = told(network, tape.way(Direction.RETURN))
    assert trace.paths[0].hops[-1].result is Result.DIFFERS


def test_a_way_nobody_predicted_is_shown() -> None:
    network = story()
    tape = Tape(predicted(network), probes=1).all()
    hop = tape.path(Direction.FORWARD).hops[1]
    beside = replace(hop, where=replace(hop.where, interface="caliweb-1"), side="out")
    tape.at(beside)
    trace = told(network, tape)
    assert trace.disposition is Disposition.MISMATCH
    extra = [hop for hop in trace.paths[0].hops if hop.result is Result.EXTRA]
    assert [hop.where.interface for hop in extra] == ["caliweb-1"]
    assert document(trace)["traces"][0]["hops"][-1]["predicted"] is None


def test_copies_for_others_are_left_out() -> None:
    network = story()
    tape = Tape(predicted(network), probes=1).all()
    hop = tape.path(Direction.FORWARD).hops[1]
    beside = replace(hop, where=replace(hop.where, interface="caliweb-1"), side="in")
    tape.at(beside, packet_type="otherhost")
    assert told(network, tape).confidence == "certain"


def missing_host_route() -> Network:
    network = story()
    network["vms105"].unroute("10.244.169.66/32")
    return network


def test_a_loss_where_the_state_says_so_is_certain() -> None:
    network = missing_host_route()
    trace = told(network, Tape(predicted(network)).all())
    assert trace.disposition is Disposition.NULL_ROUTED
    assert [(each.id, each.confidence) for each in trace.faults] == [
        ("route.missing-host-route", "certain")
    ]
    assert "last seen" in {each.key for each in trace.faults[0].evidence}


def test_a_loss_before_that_place_is_no_certainty() -> None:
    network = missing_host_route()
    tape = Tape(predicted(network)).way(Direction.FORWARD, upto=2)
    trace = told(network, tape)
    assert trace.disposition is Disposition.UNEXPLAINED
    assert trace.disposition.exit_code == 3
    assert {each.confidence for each in trace.faults} == {"possible"}


def test_an_answer_against_the_prediction_names_no_fault() -> None:
    network = missing_host_route()
    good = predicted(story())
    tape = Tape(good).all()
    tape.trace = replace(predicted(network))
    trace = explain(World(network.states()), tape.trace, Tape(good).all().observation())
    assert trace.disposition is Disposition.MISMATCH
    assert trace.faults == ()


def test_lost_between_two_links_in_order() -> None:
    network = story()
    trace = predicted(network)
    hops = trace.paths[0].hops
    out = next(n for n, hop in enumerate(hops) if hop.position == "P4")
    found = told(network, Tape(trace).way(Direction.FORWARD, upto=out + 1))
    assert found.disposition is Disposition.LOST_ON_LINK
    assert first_ids(found) == ["link.lost"]
    assert found.confidence == "likely"


def test_lost_inside_a_namespace_without_a_reason() -> None:
    network = story()
    found = told(network, Tape(predicted(network)).way(Direction.FORWARD, upto=2))
    assert found.disposition is Disposition.UNEXPLAINED
    assert found.faults == ()
    assert found.summary.startswith("lost after vms103 caliweb-0 in")


def test_nobody_answers_what_somebody_should() -> None:
    network = story()
    tape = Tape(predicted(network)).way(Direction.FORWARD, upto=3)
    out = next(hop for hop in tape.path(Direction.FORWARD).hops if hop.position == "P4")
    tape.arp(out, "192.168.26.105", times=3)
    tape.seen = [each for each in tape.seen if each.packet is None or
                 each.sighting.interface != "ens32"]  # fmt: skip
    found = told(network, tape)
    assert first_ids(found) == ["neighbour.silent"]
    assert found.disposition is Disposition.NEIGHBOR_FAILED


def test_what_was_not_watched_is_not_missing() -> None:
    network = story()
    trace = predicted(network)
    node = next(hop.inode for hop in trace.paths[0].hops if hop.where.netns == "vms105")
    tape = Tape(trace).all()
    tape.seen = [each for each in tape.seen if each.sighting.inode != node]
    tape.refused[node] = "no right to enter"
    found = told(network, tape)
    assert found.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert found.confidence == "likely"
    assert [gap.why for gap in found.gaps] == ["no right to enter"]
    lost = Tape(trace).way(Direction.FORWARD, upto=2)
    lost.refused = dict.fromkeys({hop.inode for hop in trace.paths[0].hops[2:]}, "no right")
    assert told(network, lost).disposition is Disposition.INSUFFICIENT_INFO


def test_a_full_tap_makes_nothing_certain() -> None:
    network = missing_host_route()
    tape = Tape(predicted(network)).all()
    tape.dropped = 5
    assert told(network, tape).confidence == "likely"


def test_the_first_packet_only() -> None:
    network = story()
    tape = Tape(predicted(network)).all()
    tape.seen = [each for each in tape.seen if each.probe != 0]
    found = told(network, tape)
    assert found.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert found.probing is not None
    assert found.probing.steadiness == "first-packet"


def test_every_other_packet_is_no_health() -> None:
    network = story()
    tape = Tape(predicted(network)).all()
    tape.seen = [each for each in tape.seen if each.probe != 1]
    found = told(network, tape)
    assert found.disposition is Disposition.MISMATCH
    assert "2 of 3" in found.summary


def test_a_closed_port_refuses() -> None:
    network = story()
    tape = Tape(predicted(network, Flow(protocol=Protocol.TCP, port=80)))
    tape.way(Direction.FORWARD)
    for probe in range(3):
        for hop in tape.path(Direction.RETURN).hops:
            tape.at(hop, Direction.RETURN, probe, reset=True)
    found = told(network, tape)
    assert found.disposition is Disposition.DELIVERED_NO_ANSWER
    assert [(each.id, each.confidence) for each in found.faults] == [("socket.closed", "certain")]
    assert {hop.result for path in found.paths for hop in path.hops} == {Result.MATCH}
    text = render(found, Style())
    assert "nothing listens on tcp/80" in text
    assert "TCP reset from 10.244.169.66, 3 of 3 probes" in text
    assert "probes refused" in text
    assert "lost" not in text


def closed_udp(probes: int = 3) -> tuple[Network, Tape]:
    network = story()
    return network, Tape(predicted(network, Flow(protocol=Protocol.UDP, port=81)), probes=probes)


def test_a_closed_udp_port_refuses_by_icmp() -> None:
    network, tape = closed_udp()
    tape.way(Direction.FORWARD)
    for probe in range(3):
        for hop in tape.path(Direction.RETURN).hops:
            tape.error_at(hop, probe)
    found = told(network, tape)
    assert [(each.id, each.confidence) for each in found.faults] == [("socket.closed", "certain")]
    assert {hop.result for path in found.paths for hop in path.hops} == {Result.MATCH}
    assert found.probing is not None
    assert found.probing.refused == 3
    assert "ICMP 3/3 (port unreachable) from 10.244.169.66" in render(found, Style())


def test_an_icmp_error_that_the_kernel_saves_contradicts_nothing() -> None:
    network, tape = closed_udp()
    found = told(network, tape.way(Direction.FORWARD))
    assert [(each.id, each.confidence) for each in found.faults] == [("socket.closed", "certain")]


def test_a_refusal_though_a_socket_listens_is_told() -> None:
    network = story()
    network["db-0"].sockets.append("tcp 0.0.0.0 80")
    tape = Tape(predicted(network, Flow(protocol=Protocol.TCP, port=80)))
    tape.way(Direction.FORWARD)
    for probe in range(3):
        for hop in tape.path(Direction.RETURN).hops:
            tape.at(hop, Direction.RETURN, probe, reset=True)
    found = told(network, tape)
    assert found.disposition is Disposition.DELIVERED_NO_ANSWER
    assert [(each.id, each.confidence) for each in found.faults] == [("socket.refused", "likely")]


def test_an_error_that_never_came_home_is_not_said_to() -> None:
    network = missing_host_route()
    tape = Tape(predicted(network)).all()
    tape.error("192.168.26.105", 3, 1, inode=network["vms105"].inode)
    keys = {each.key for each in told(network, tape).faults[0].evidence}
    assert "came back" not in keys


def test_refused_by_the_senders_kernel() -> None:
    network = story()
    network["web-0"].unroute("0.0.0.0/0")
    tape = Tape(predicted(network), errno=101)
    found = told(network, tape)
    assert [(each.id, each.confidence) for each in found.faults] == [
        ("route.pod-default-missing", "certain")
    ]


def test_the_error_that_came_home_is_evidence() -> None:
    network = story()
    network["vms103"].unroute("10.244.169.64/26")
    network["vms103"].unroute("0.0.0.0/0")
    network["vms103"].route("169.254.1.1/32", dev="ens32")
    tape = Tape(predicted(network)).all()
    tape.error("192.168.26.103", 3, 0)
    found = told(network, tape)
    assert found.confidence == "certain"
    values = {each.key: each.value for each in found.faults[0].evidence}
    assert values["came back"] == "ICMP 3/0 (net unreachable) from 192.168.26.103"


def both() -> Network:
    network = missing_host_route()
    network["vms105"].switch("vxlan.calico", "forwarding", 0)
    return network


@pytest.mark.parametrize("make", [missing_host_route, both])
def test_the_counter_proof_shows_what_is_behind(make: Callable[[], Network]) -> None:
    network = make()
    asked = Question(states=network.states(), source=WEB, destination=DB, flow=Flow())
    trace = prove(asked.predict(), asked)
    fixes = [each.fix.verified_by for each in trace.faults if each.fix is not None]
    assert fixes == ["counterproof"] * len(trace.faults)
    if make is both:
        assert [(each.id, each.after) for each in trace.faults] == [
            ("forwarding.off-interface", None),
            ("route.missing-host-route", "forwarding.off-interface"),
        ]


SCHEMA = json.loads(files("podwire.trace").joinpath("podwire.trace.v1.json").read_text())


def observed_documents() -> list[Trace]:
    healthy, broken = story(), missing_host_route()
    blind = story()
    del blind.drawn["underlay"]
    early = Tape(predicted(healthy)).way(Direction.FORWARD, upto=2)
    closed = predicted(healthy, Flow(protocol=Protocol.TCP, port=80))
    asked = Question(states=broken.states(), source=WEB, destination=DB, flow=Flow())
    return [
        predicted(healthy),
        predicted(blind),
        closed,
        told(healthy, Tape(predicted(healthy)).all()),
        told(broken, Tape(predicted(broken)).all()),
        told(healthy, early),
        prove(asked.predict(), asked),
    ]


def test_every_document_is_as_the_published_schema_says() -> None:
    for trace in observed_documents():
        assert complaints(json.loads(json.dumps(document(trace))), SCHEMA, SCHEMA) == []


def test_the_schema_names_every_disposition() -> None:
    assert SCHEMA["$defs"]["disposition"]["enum"] == [str(each) for each in Disposition]
    broken = json.loads(json.dumps(document(observed_documents()[0])))
    broken["result"]["disposition"] = "FINE"
    assert complaints(broken, SCHEMA, SCHEMA)


@pytest.mark.parametrize("ascii_only", [False, True])
def test_reports_keep_to_a_hundred_columns(ascii_only: bool) -> None:
    for trace in observed_documents():
        for verbose in (False, True):
            text = render(trace, Style(ascii=ascii_only, verbose=verbose))
            assert max(len(line) for line in text.splitlines()) <= 100
            assert text.isascii() or not ascii_only


def test_the_minimal_form_has_no_times() -> None:
    network = missing_host_route()
    text = render(told(network, Tape(predicted(network)).all()), Style(minimal=True))
    lines = text.splitlines()
    assert lines[0] == "NULL_ROUTED certain"
    assert lines[1] == "fault route.missing-host-route 45 certain vms105 vxlan.calico"
    assert "forward 0 P6 vms105 vxlan.calico in match" in lines
