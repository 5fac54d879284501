"""Which control probes a loss deserves, and what their fate says of it."""

from __future__ import annotations

from ipaddress import ip_address

from podwire.trace.controls import Planned, concluded, wanted
from podwire.trace.explain import explain
from podwire.trace.flow import Flow, Protocol
from podwire.trace.predict import predict
from podwire.trace.schema import Control, ControlKind, Direction, Disposition, Trace
from podwire.trace.world import World
from tests.fakes.drawn_network import story
from tests.fakes.drawn_observation import Tape

ONE, TWO = ip_address("192.168.26.103"), ip_address("192.168.26.105")
NETWORK = story()


def lost_on_the_wire() -> Trace:
    trace = predict(NETWORK.states(), "demo/web-0", "demo/db-0", Flow())
    hops = trace.paths[0].hops
    out = next(number for number, hop in enumerate(hops) if hop.position == "P4")
    tape = Tape(trace).way(Direction.FORWARD, upto=out + 1)
    return explain(World(NETWORK.states()), tape.trace, tape.observation())


def plans(trace: Trace) -> dict[ControlKind, Planned]:
    return {each.kind: each for each in wanted(World(NETWORK.states()), trace)}


def control(plan: Planned, *, answered: bool = False, arrived: bool | None = False) -> Control:
    return Control(
        kind=plan.kind,
        source=plan.source,
        destination=plan.destination,
        flow=plan.flow,
        answered=answered,
        arrived=arrived,
    )


def test_a_loss_between_nodes_is_cut_at_the_wire() -> None:
    found = plans(lost_on_the_wire())
    assert set(found) == {ControlKind.OTHER, ControlKind.NODES, ControlKind.TUNNEL}
    for kind in (ControlKind.NODES, ControlKind.TUNNEL):
        assert (found[kind].source, found[kind].destination) == (ONE, TWO)
        assert found[kind].place is not None
    assert found[ControlKind.TUNNEL].flow.title == "udp/4789"
    assert found[ControlKind.OTHER].flow.protocol is Protocol.TCP


def test_a_wire_that_takes_only_the_tunnel_away_is_certain() -> None:
    trace = lost_on_the_wire()
    assert (trace.disposition, trace.confidence) == (Disposition.LOST_ON_LINK, "likely")
    found = plans(trace)
    told = concluded(
        trace,
        [
            control(found[ControlKind.NODES], answered=True, arrived=True),
            control(found[ControlKind.TUNNEL]),
        ],
    )
    assert told.confidence == told.faults[0].confidence == "certain"
    assert "something between them takes it away" in told.faults[0].sentence
    assert [each.value for each in told.faults[0].evidence[-2:]] == ["answered", "did not arrive"]


def test_neither_a_dead_wire_nor_a_packet_that_was_not_sent_is_certain() -> None:
    trace = lost_on_the_wire()
    found = plans(trace)
    dead = [control(found[ControlKind.NODES]), control(found[ControlKind.TUNNEL])]
    assert concluded(trace, dead).confidence == "likely"
    unsent = [
        control(found[ControlKind.NODES], answered=True, arrived=True),
        control(found[ControlKind.TUNNEL], arrived=None),
    ]
    assert concluded(trace, unsent).confidence == "likely"
    assert "takes it away" not in concluded(trace, unsent).summary


def test_without_controls_nothing_is_said() -> None:
    trace = lost_on_the_wire()
    assert concluded(trace, []) is trace
    good = predict(NETWORK.states(), "demo/web-0", "demo/db-0", Flow())
    assert plans(good) == {}
