"""The terminal reports, whole: PODWIRE_TEST_GOLDEN=write writes them anew."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.trace.counterproof import Question, prove
from podwire.trace.explain import explain
from podwire.trace.flow import Flow, Protocol
from podwire.trace.predict import predict
from podwire.trace.report import Style, render
from podwire.trace.schema import Direction, Trace
from podwire.trace.table import WIDTH
from podwire.trace.world import World
from tests.fakes.drawn_network import Network, story
from tests.fakes.drawn_observation import Tape

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
WEB, DB = "demo/web-0", "demo/db-0"


def healthy() -> Network:
    return story()


def healthy_ipip() -> Network:
    return story("ipip")


def missing_host_route() -> Network:
    network = story()
    network["vms105"].unroute("10.244.169.66/32")
    return network


def missing_block_route() -> Network:
    network = story()
    network["vms103"].unroute("10.244.169.64/26")
    return network


def proxy_arp_off() -> Network:
    network = story()
    network["vms103"].switch("caliweb-0", "proxy_arp", 0)
    return network


def out_of_sight() -> Network:
    network = story()
    del network.drawn["underlay"]
    return network


CASES = [
    healthy, healthy_ipip, missing_host_route, missing_block_route, proxy_arp_off, out_of_sight,
]  # fmt: skip


def kept(name: str, text: str) -> None:
    """The text is as in its file, which PODWIRE_TEST_GOLDEN=write writes."""
    path = HERE / f"trace_{name}.txt"
    if os.environ.get("PODWIRE_TEST_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_report_is_as_kept(case: Callable[[], Network]) -> None:
    trace = predict(case().states(), WEB, DB, Flow())
    text = render(trace, Style())
    kept(case.__name__, text)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text


def seen(network: Network, tape: Tape) -> Trace:
    return explain(World(network.states()), tape.trace, tape.observation())


def seen_healthy() -> Trace:
    network = story()
    return seen(network, Tape(predict(network.states(), WEB, DB)).all())


def seen_lost() -> Trace:
    network = missing_host_route()
    asked = Question(states=network.states(), source=WEB, destination=DB, flow=Flow())
    return prove(seen(network, Tape(asked.predict()).all()), asked)


def seen_refused() -> Trace:
    """A closed port."""
    network = story()
    network["db-0"].sockets.append("tcp 0.0.0.0 5432")
    tape = Tape(predict(network.states(), WEB, DB, Flow(protocol=Protocol.TCP, port=8080)))
    tape.way(Direction.FORWARD)
    for probe in range(tape.probes):
        for hop in tape.path(Direction.RETURN).hops:
            tape.at(hop, Direction.RETURN, probe, reset=True)
    return seen(network, tape)


def seen_astray() -> Trace:
    """Answered, once with another TTL and once at a place that nobody predicted."""
    network = story()
    tape = Tape(predict(network.states(), WEB, DB), probes=1)
    hops = tape.path(Direction.FORWARD).hops
    tape.way(Direction.FORWARD, upto=4)
    tape.at(hops[4], packet=replace(hops[4].packet, ttl=17))
    for hop in hops[5:]:
        tape.at(hop)
    tape.at(replace(hops[1], where=replace(hops[1].where, interface="caliweb-1"), side="out"))
    return seen(network, tape.way(Direction.RETURN))


def seen_nowhere_after_the_wire() -> Trace:
    network = story()
    tape = Tape(predict(network.states(), WEB, DB))
    hops = tape.path(Direction.FORWARD).hops
    out = next(n for n, hop in enumerate(hops) if hop.where.interface == "ens32")
    return seen(network, tape.way(Direction.FORWARD, upto=out + 1))


SEEN = [seen_healthy, seen_lost, seen_refused, seen_astray, seen_nowhere_after_the_wire]


@pytest.mark.parametrize("case", SEEN, ids=lambda case: case.__name__)
def test_what_was_seen_is_printed_as_kept(case: Callable[[], Trace]) -> None:
    text = render(case(), Style())
    kept(case.__name__, text)
    assert max(len(line) for line in text.splitlines()) <= WIDTH


STYLES = {
    "minimal": Style(minimal=True),
    "verbose": Style(verbose=True),
    "quiet": Style(quiet=True),
    "ascii": Style(ascii=True),
    "lab": Style(lab="blue"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_loss_is_printed_in_every_style_as_kept(style: str) -> None:
    text = render(seen_lost(), STYLES[style])
    kept(f"{style}_lost", text)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert style != "ascii" or text.isascii()


def test_the_stable_form_does_not_change_with_time() -> None:
    network = story()
    trace = predict(network.states(), WEB, DB)
    slow = Tape(trace, probes=2).all()
    stable = Style(minimal=True)
    assert render(seen(network, slow), stable) == render(seen_healthy(), stable)
    kept("minimal_healthy", render(seen_healthy(), stable))


def test_verdict_only() -> None:
    trace = predict(healthy().states(), "demo/web-0", "demo/db-0")
    assert render(trace, Style(quiet=True)).splitlines() == [
        "✔ demo/web-0 → demo/db-0 icmp  REACHABLE  predicted there and back, ttl 62, path MTU 1450"
    ]


@pytest.mark.parametrize("verbose", [False, True])
def test_ascii_has_no_other_characters(verbose: bool) -> None:
    trace = predict(missing_host_route().states(), "demo/web-0", "demo/db-0")
    text = render(trace, Style(ascii=True, verbose=verbose))
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_colour_is_only_in_the_verdict() -> None:
    trace = predict(healthy().states(), "demo/web-0", "demo/db-0")
    text = render(trace, Style(color=True))
    assert text.count("\x1b") == 2
