"""The terminal reports, whole: PODWIRE_GOLDEN=write writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwire.trace.flow import Flow
from podwire.trace.predict import predict
from podwire.trace.report import Style, render
from podwire.trace.table import WIDTH
from tests.fakes.drawn_network import Network, story

HERE = Path(__file__).parent


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_report_is_as_kept(case: object) -> None:
    assert callable(case)
    name = getattr(case, "__name__", "")
    trace = predict(case().states(), "demo/web-0", "demo/db-0", Flow())
    text = render(trace, Style())
    path = HERE / f"trace_{name}.txt"
    if os.environ.get("PODWIRE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text


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
