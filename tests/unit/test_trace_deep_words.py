"""What kernels tell of probes: read from their words, tied to probes, set against the model."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from struct import pack

import pytest

from podwire.drivers.capture.dropreasons import parse
from podwire.drivers.capture.nftrace import matches
from podwire.drivers.netlink import nftables, wire
from podwire.trace.deep import (
    DROPPED,
    QUEUED,
    RECEIVED,
    BufferEvent,
    Heard,
    Ruling,
    loose_drops,
    tied_drops,
)
from podwire.trace.deepverdict import told
from podwire.trace.document import document
from podwire.trace.explain import explain
from podwire.trace.flow import Flow, Protocol
from podwire.trace.observation import Observation, Role
from podwire.trace.predict import predict
from podwire.trace.probe import Series
from podwire.trace.report import Style, render
from podwire.trace.schema import Cause, Direction, Disposition, Gap, Hop, Trace
from podwire.trace.world import World
from tests.fakes.drawn_network import Network, story
from tests.fakes.drawn_observation import Tape

WEB, DB = "demo/web-0", "demo/db-0"

LINE = (
    "          <idle>-0       [001] ..s1. 12740.562468: kfree_skb: skbaddr=0000000092c87dc8 "
    "rx_sk=0000000000000000 protocol=2048 location=ping_rcv+0xab/0xd0 reason: NO_SOCKET"
)


def test_a_drop_is_read_from_its_line() -> None:
    assert parse(LINE, 5_000) == BufferEvent(
        kind=DROPPED,
        time_ns=12_740_562_473_000,
        buffer="0000000092c87dc8",
        reason="NO_SOCKET",
        function="ping_rcv",
        protocol=0x0800,
    )


def test_a_passage_is_read_from_its_line() -> None:
    line = " a: b-1 [000] b.... 1.000002: net_dev_queue: dev=cali1 skbaddr=00000000ab len=98"
    event = parse(line, 0)
    assert event == BufferEvent(
        kind=QUEUED, time_ns=1_000_002_000, buffer="00000000ab", device="cali1", length=98
    )


@pytest.mark.parametrize("line", ["", "CPU:1 [LOST 12 EVENTS]", "# tracer: nop", LINE[:70]])
def test_other_lines_are_no_events(line: str) -> None:
    assert parse(line, 0) is None


def series(protocol: Protocol) -> Series:
    return Series(
        protocol=protocol,
        source=IPv4Address("10.1.0.1"),
        destination=IPv4Address("10.2.0.2"),
        length=84,
        mark=b"podwir",
        seed=0x01020304,
        source_port=0 if protocol is Protocol.ICMP else 40000,
        port=0 if protocol is Protocol.ICMP else 80,
    )


def hit(packet: bytes, protocol: int, probes: Series) -> bool:
    """Whether a rule would have a packet traced; `packet` is what is behind the IP header."""
    return any(
        match.protocol == protocol
        and all(packet[at : at + len(value)] == value for at, value in match.fields)
        for match in matches(probes)
    )


def inside(protocol: int, body: bytes) -> bytes:
    """An IP packet around it, as far as rules look."""
    return bytes(9) + bytes((protocol,)) + bytes(10) + body


@pytest.mark.parametrize("protocol", [Protocol.ICMP, Protocol.UDP, Protocol.TCP])
def test_probes_are_traced_plain_and_in_tunnels(protocol: Protocol) -> None:
    probes, number = series(protocol), {"icmp": 1, "udp": 17, "tcp": 6}[protocol]
    body = probes.segment(1)
    assert hit(body, number, probes)
    assert hit(bytes(30) + inside(number, body), 17, probes)
    assert hit(inside(number, body), 4, probes)
    error = bytes(8) + inside(number, body[:8])
    assert hit(error, 1, probes)
    foreign = replace(probes, mark=b"others", seed=99, source_port=probes.source_port and 40001)
    assert not hit(foreign.segment(1), number, probes)
    assert not hit(body, 47, probes)


def test_the_answers_of_tcp_are_traced_by_what_they_acknowledge() -> None:
    probes = series(Protocol.TCP)
    for acknowledged in probes.acknowledgements(2):
        answer = pack("!HHIIHHHH", 80, 40000, 7, acknowledged, 0x5012, 0, 0, 0)
        assert hit(answer, 6, probes)
        assert not hit(pack("!HHIIHHHH", 80, 40000, 7, 8, 0x5012, 0, 0, 0), 6, probes)


def be32(kind: int, value: int) -> bytes:
    return wire.attribute(kind, pack("!I", value & 0xFFFFFFFF))


def test_a_word_of_the_kernel_is_decoded() -> None:
    verdict = be32(1, -3) + wire.text(2, "inner")
    data = nftables.HEAD.pack(1, 0, 0) + b"".join(
        [
            wire.text(1, "t"), wire.text(2, "c"), wire.attribute(3, pack("!Q", 6)), be32(4, 3),
            wire.attribute(5, verdict), be32(6, 77), be32(10, 4), wire.attribute(8, b"ip"),
        ]
    )  # fmt: skip
    found = nftables.decode_trace(data, 0, len(data))
    assert (found.family, found.table, found.chain, found.handle) == (1, "t", "c", 6)
    assert (found.kind, found.verdict, found.target) == ("rule", "jump", "inner")
    assert (found.id, found.iif, found.oif, found.network) == (77, 4, None, b"ip")
    policy = nftables.HEAD.pack(2, 0, 0) + be32(4, 1) + be32(16, 0)
    found = nftables.decode_trace(policy, 0, len(policy))
    assert (found.kind, found.verdict, found.handle) == ("policy", "drop", None)


# --- probes and what became of them ---------------------------------------------------------------


def tape(network: Network, upto: int | None = None) -> Tape:
    drawn = Tape(predict(network.states(), WEB, DB, Flow()))
    return drawn.way(Direction.FORWARD, upto=upto) if upto else drawn.all()


def explained(network: Network, drawn: Tape) -> tuple[Trace, Observation]:
    observation = drawn.observation()
    return explain(World(network.states()), drawn.trace, observation), observation


def passages(observation: Observation, probe: int, buffer: str) -> list[BufferEvent]:
    """What tracefs would tell of one probe's buffer, 2 µs before the taps."""
    found = []
    for seen in observation.of(Role.REQUEST, probe):
        sighting = seen.sighting
        out = sighting.side == "out"
        found.append(
            BufferEvent(
                kind=QUEUED if out else RECEIVED,
                time_ns=sighting.timestamp_ns - 2_000,
                buffer=buffer,
                device=sighting.interface,
                length=sighting.length if out else sighting.length - 14,
            )
        )
    return found


def drop(after: BufferEvent, reason: str = "IP_RPFILTER", buffer: str | None = None) -> BufferEvent:
    return BufferEvent(
        kind=DROPPED,
        time_ns=after.time_ns + 5_000,
        buffer=buffer or after.buffer,
        reason=reason,
        function="ip_rcv_finish_core",
        protocol=0x0800,
    )


def all_dropped(observation: Observation, reason: str) -> tuple[BufferEvent, ...]:
    events = []
    for probe in range(3):
        passed = passages(observation, probe, f"buffer{probe}")
        events += [*passed, drop(passed[-1], reason)]
    return tuple(sorted(events, key=lambda each: each.time_ns))


LOST_AT = 2
"""Of the places on the way there, so many are passed: it is lost in the node of the sender."""


def test_a_drop_is_tied_to_the_probe_whose_buffer_it_was() -> None:
    _, observation = explained(story(), tape(story(), LOST_AT))
    events = all_dropped(observation, "IP_RPFILTER")
    found = list(tied_drops(observation, events))
    assert [each.last.probe for each in found] == [0, 1, 2]
    assert {each.last.sighting.interface for each in found} == {"caliweb-0"}


def test_a_buffer_that_carried_something_else_since_is_not_tied() -> None:
    _, observation = explained(story(), tape(story(), LOST_AT))
    passed = passages(observation, 0, "one")
    other = replace(passed[-1], time_ns=passed[-1].time_ns + 1_000, device="docker0", length=1500)
    assert list(tied_drops(observation, [*passed, other, drop(other)])) == []
    assert list(tied_drops(observation, [*passed, drop(passed[-1], buffer="two")])) == []
    late = replace(drop(passed[-1]), time_ns=passed[-1].time_ns + 50_000_000)
    assert list(tied_drops(observation, [*passed, late])) == []
    waited = replace(late, reason="NEIGH_FAILED")
    assert len(list(tied_drops(observation, [*passed, waited]))) == 1
    foreign = replace(drop(passed[-1]), protocol=0x0806)
    assert list(tied_drops(observation, [*passed, foreign])) == []


def test_what_befell_one_of_three_probes_is_chance() -> None:
    trace, observation = explained(story(), tape(story(), LOST_AT))
    passed = passages(observation, 1, "one")
    trace = told(trace, observation, Heard(tracefs=True, events=(*passed, drop(passed[-1]))))
    assert all(hop.dropped == () for path in trace.paths for hop in path.hops)
    assert "kernel.dropped" not in {fault.id for fault in trace.faults}


def test_a_reason_names_a_loss_that_nothing_explains_and_makes_nothing_certain() -> None:
    trace, observation = explained(story(), tape(story(), LOST_AT))
    assert trace.disposition is Disposition.UNEXPLAINED
    heard = Heard(tracefs=True, nft=True, events=all_dropped(observation, "IP_RPFILTER"))
    trace = told(trace, observation, heard)
    assert trace.disposition is Disposition.UNEXPLAINED
    assert [(each.id, each.confidence) for each in trace.faults] == [("kernel.dropped", "likely")]
    assert "source validation" in trace.summary
    assert trace.confidence != "certain"
    hop = document(trace)["traces"][0]["hops"][LOST_AT - 1]
    assert hop["kernel"]["drops"] == [
        {"reason": "IP_RPFILTER", "function": "ip_rcv_finish_core", "count": 3}
    ]
    assert document(trace)["level"] == 3
    assert "IP_RPFILTER in ip_rcv_finish_core" in render(trace, Style())


def test_a_drop_that_cannot_be_tied_only_happened_meanwhile() -> None:
    trace, observation = explained(story(), tape(story(), LOST_AT))
    events = tuple(
        drop(passages(observation, probe, "x")[-1], "NEIGH_FAILED", f"other{probe}")
        for probe in range(3)
    )
    assert loose_drops(observation, events, (0, 1, 2)) == {
        ("NEIGH_FAILED", "ip_rcv_finish_core"): 3
    }
    trace = told(trace, observation, Heard(tracefs=True, events=events))
    fault = trace.faults[-1]
    assert (fault.id, fault.confidence) == ("kernel.dropped-meanwhile", "possible")
    assert all(hop.dropped == () for path in trace.paths for hop in path.hops)


def test_what_is_dropped_of_answered_probes_says_nothing() -> None:
    trace, observation = explained(story(), tape(story()))
    assert trace.confidence == "certain"
    heard = Heard(tracefs=True, events=all_dropped(observation, "NO_SOCKET"))
    after = told(trace, observation, heard)
    assert (after.disposition, after.faults) == (trace.disposition, ())
    assert all(hop.dropped == () for path in after.paths for hop in path.hops)


def rulings(hop: Hop, verdict: str, *, ours: bool = False) -> tuple[Ruling, ...]:
    return tuple(
        Ruling(
            inode=hop.inode,
            id=7,
            family="ip",
            table="t",
            chain="c",
            kind="rule",
            handle=6,
            verdict=verdict,
            iif=hop.where.interface,
            role=Role.REQUEST,
            probe=probe,
            source=hop.packet.source,
            destination=hop.packet.destination,
            ours=ours,
        )
        for probe in range(3)
    )


def heard_of(rules: tuple[Ruling, ...]) -> Heard:
    return Heard(nft=True, rulings=rules, listened=frozenset(each.inode for each in rules))


def test_a_rule_that_the_model_does_not_see_is_a_disagreement() -> None:
    trace, observation = explained(story(), tape(story(), LOST_AT))
    hop = trace.paths[0].hops[LOST_AT - 1]
    trace = told(trace, observation, heard_of(rulings(hop, "drop")))
    assert trace.disposition is Disposition.MODEL_DISAGREES
    assert trace.disposition.exit_code == 3
    assert "ip t c (rule handle 6)" in trace.summary
    fault = trace.faults[0]
    assert (fault.id, fault.confidence, fault.fix) == ("policy.denied", "likely", None)
    assert trace.paths[0].hops[LOST_AT - 1].ruled[0].count == 3
    assert "ip t c (rule handle 6): drop" in render(trace, Style())


def test_a_rule_that_the_model_sees_and_the_kernel_spares_is_a_disagreement() -> None:
    trace, observation = explained(story(), tape(story(), LOST_AT))
    hop = trace.paths[0].hops[LOST_AT - 1]
    facts = {"table": "t", "chain": "c", "handle": "6"}
    cause = Cause(
        code="rule-drop", where=hop.where, inode=hop.inode, text="t c says drop", facts=facts
    )
    path = replace(trace.paths[0], cause=cause)
    trace = replace(trace, disposition=Disposition.DENIED, paths=(path, *trace.paths[1:]))
    same = told(trace, observation, heard_of(rulings(hop, "drop")))
    assert same.disposition is Disposition.DENIED
    spared = told(trace, observation, heard_of(rulings(hop, "accept")))
    assert spared.disposition is Disposition.MODEL_DISAGREES
    unheard = replace(heard_of(rulings(hop, "accept")), listened=frozenset())
    assert told(trace, observation, unheard).disposition is Disposition.DENIED


def test_where_the_model_cannot_say_the_kernel_does() -> None:
    trace, observation = explained(story(), tape(story(), LOST_AT))
    hop = trace.paths[0].hops[LOST_AT - 1]
    unsure = replace(trace.paths[0], gap=Gap(what="a rule", why="not modelled"))
    trace = replace(
        trace, disposition=Disposition.INSUFFICIENT_INFO, paths=(unsure, *trace.paths[1:])
    )
    trace = told(trace, observation, heard_of(rulings(hop, "drop")))
    assert trace.disposition is Disposition.DENIED
    assert trace.faults[0].fix is not None
    assert trace.faults[0].fix.command == "nft delete rule ip t c handle 6"


def test_rules_that_let_it_pass_are_shown_when_asked_for() -> None:
    trace, observation = explained(story(), tape(story()))
    hop = trace.paths[0].hops[1]
    trace = told(trace, observation, heard_of(rulings(hop, "accept")))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert "rule handle 6" in render(trace, Style(verbose=True))
    assert "rule handle 6" not in render(trace, Style())


def test_our_own_table_is_not_shown() -> None:
    trace, observation = explained(story(), tape(story()))
    hop = trace.paths[0].hops[1]
    trace = told(trace, observation, heard_of(rulings(hop, "accept", ours=True)))
    assert all(each.ruled == () for path in trace.paths for each in path.hops)
