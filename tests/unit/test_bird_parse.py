"""BIRD's text as values; the text is what BIRD 2.0.12 really printed."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from podwire.bgp.parse import parse_protocols, parse_routes, parse_status, parse_version
from podwire.bgp.reply import Reply, ends, parse_reply
from podwire.bgp.state import BirdVersion, Target, Via

PRINTED = Path(__file__).parents[1] / "golden" / "bird"


def reply(text: str) -> Reply:
    return parse_reply(text.split("\n"))


def printed(name: str) -> Reply:
    return reply((PRINTED / f"{name}.txt").read_text().removesuffix("\n"))


def test_a_reply_ends_with_a_code_and_a_space() -> None:
    assert ends("0000 ")
    assert ends("8003 No protocols match")
    assert not ends("1002-device1    Device")
    assert not ends(" Hostname is 0013 strange")
    assert not ends("0000")


def test_a_line_that_begins_with_a_space_has_the_code_before_it() -> None:
    said = printed("status")
    assert [line.code for line in said.lines] == [1000, *[1011] * 5, 24, 24, 24, 13]
    assert (said.code, said.failed) == (13, False)
    assert reply("9001 syntax error, unexpected CF_SYM_UNDEFINED").failed


def test_the_status_of_the_daemon() -> None:
    daemon = parse_status(printed("status"))
    assert daemon is not None
    assert (daemon.version, daemon.router_id) == (BirdVersion(2, 0, 12), "10.0.0.1")
    assert daemon.started == "2026-11-23 03:08:34.009"
    assert daemon.configured == "2026-11-23 03:08:39.001"
    assert (daemon.message, daemon.recovering) == ("Daemon is up and running", True)
    assert parse_status(reply("8007 Access denied")) is None


def test_versions_compare_as_numbers() -> None:
    assert parse_version("BIRD version 2.0.7") < BirdVersion(2, 0, 12)  # type: ignore[operator]
    assert parse_version("BIRD 3.1") == BirdVersion(3, 1, 0)
    assert parse_version("no number") is None
    assert str(BirdVersion(2, 0, 12)) == "2.0.12"


def test_protocols_and_their_sessions() -> None:
    device, kernel, up, idle = parse_protocols(printed("protocols"))
    assert (device.name, device.kind, device.state, device.info) == ("device1", "Device", "up", "")
    assert (kernel.since, kernel.channels[0].imported) == ("2026-11-22", 1)
    assert kernel.session is None
    assert up.established
    assert (up.since, up.info) == ("2026-11-23 03:08:34.818", "Established")
    session, channel = up.session, up.channels[0]
    assert session is not None
    assert (session.address, session.port) == (ip_address("10.0.0.2"), 1790)
    assert (session.as_number, session.local_as, session.hold_s) == (64513, 64512, 9)
    assert (session.keepalive_s, session.graceful, session.router_id) == (3, True, "10.0.0.2")
    assert (channel.imported, channel.filtered, channel.exported, channel.preferred) == (1, 2, 3, 4)
    assert channel.rejected_imports == 7
    assert idle.session is not None
    assert (idle.session.last_error, idle.info) == (
        "BGP Error: Bad peer AS",
        "Idle BGP Error: Bad peer AS",
    )
    assert (idle.session.graceful, idle.channels[0].limit_hit) == (False, True)


def test_routes_with_their_next_hops_and_attributes() -> None:
    block, onlink, several, lost, own = parse_routes(printed("routes"))
    assert (block.target, block.best, block.attributes["Kernel.source"]) == (
        Target.BLACKHOLE,
        True,
        "80",
    )
    hop = ip_address("10.0.0.2")
    assert onlink.hops == (Via(device="tunl0", gateway=hop, onlink=True),)
    assert onlink.attributes["BGP.community"] == "(64512,100) (64512,200)"
    # The second route to one destination leaves the first column empty.
    assert several.network == onlink.network == ip_network("10.244.2.0/26")
    assert (several.best, several.stale, len(several.hops)) == (False, True, 2)
    assert several.learnt_from == ip_address("10.0.0.3")
    assert (lost.resolvable, lost.target) == (False, Target.UNREACHABLE)
    assert (own.refused, own.preference, own.hops[0].gateway) == (True, 240, None)


@given(st.lists(st.text(max_size=60), max_size=20))
def test_text_of_another_kind_is_passed_over(lines: list[str]) -> None:
    said = parse_reply(lines)
    parse_status(said)
    parse_protocols(said)
    parse_routes(said)
