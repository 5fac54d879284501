"""Every reason for which a session can be down, provoked between real BIRDs, all at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from podwire.bgp.reason import Reason, Why
from podwire.desired.bgp import BirdConfig, BirdPeer, BirdPool, PeerType
from podwire.desired.bgptext import render
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.diagnosis import diagnose
from podwire.drivers.bird.observe import observe
from podwire.model.bgp import SecretKey
from podwire.model.bgpfilter import BGPFilter, FilterAction, FilterRule
from podwire.model.pool import Mode
from podwire.model.resource import Metadata
from tests.fakes.awaiting import wait_until
from tests.kernel.agent_cluster import run, until
from tests.kernel.bird_pair import HERE, WEDGED, Bird, source, wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)

OURS, WRONG = SecretKey(name="bgp", key="ours"), SecretKey(name="bgp", key="wrong")
PASSWORDS = {OURS: "correct horse", WRONG: "battery staple"}
PATIENCE_S = 120.0
DENY = FilterRule(action=FilterAction.REJECT)
FILTERS = (
    BGPFilter(metadata=Metadata(name="deny-in"), import4=(DENY,)),
    BGPFilter(metadata=Metadata(name="deny-out"), export4=(DENY,)),
)


def peer(last: int, **fields: object) -> BirdPeer:
    number = f"10.0.0.{last}"
    given = {
        "protocol": f"peer{last}",
        "type": PeerType.GLOBAL,
        "name": f"router-{last}",
        "address": ip_address(number),
        "as_number": 64512,
        "local_as": 64512,
        "source": ip_address(source(last)),
        "hold_s": 3,
        "keepalive_s": 1,
    }
    return BirdPeer(**{**given, **fields})  # type: ignore[arg-type]


HEALTHY, SIGNED = peer(11), peer(12, password=OURS)
AILMENTS: dict[BirdPeer, Why] = {
    peer(13): Why.REFUSED,
    peer(14): Why.NO_ANSWER,
    peer(15, as_number=64999): Why.AS_MISMATCH,
    peer(16, local_as=64998): Why.AS_MISMATCH,
    peer(17, password=WRONG): Why.PASSWORD,
    peer(18, password=OURS): Why.PASSWORD,
    peer(19): Why.PASSWORD,
    peer(20): Why.ROUTER_ID,
    peer(21, filters=("deny-in",)): Why.IMPORT_FILTER,
    peer(22, filters=("deny-out",)): Why.EXPORT_FILTER,
    peer(23): Why.NEXT_HOP,
    peer(24): Why.CLOSED,
    peer(25): Why.DISABLED,
    peer(26): Why.ENDED_BY_PEER,
    peer(WEDGED): Why.HOLD_TIMER,
    peer(50, source=ip_address("10.9.9.9")): Why.SOURCE_MISSING,
    peer(51, address=ip_address("203.0.113.9"), source=ip_address(HERE)): Why.NO_ROUTE,
    peer(52, address=ip_address("10.0.0.252"), source=ip_address(HERE)): Why.NO_ROUTE,
}
FORGOTTEN = peer(53)
"""One that BIRD was never told of."""
ELSEWHERE = {Why.BIRD_AWAY, Why.BIRD_SILENT, Why.BIRD_TOO_OLD, Why.CONNECTING, Why.OTHER}
"""Provoked in test_lab_bird.py and tests/unit/test_bgp_reason.py."""
HANGING = f"peer{WEDGED}"
NOWHERE = (13, 14, 50, 51, 52)
"""Peers for which the other BIRD has no session."""

HEAD = """
log stderr all;
router id {router_id};
protocol device {{ scan time 2; }}
protocol static blocks {{
  ipv4;
  route 10.244.{third}.0/26 blackhole;
}}
"""
SESSION = """
protocol bgp s{last} {{
  local 10.0.0.{last} as {local_as}; neighbor {neighbour} as {as_number};
  multihop; strict bind on; passive {passive}; {more}
  hold time 3; keepalive time 1; error wait time 1, 2;
  ipv4 {{ {channel} import all; export all; }};
}}
"""


def other_side() -> str:
    """The configuration of the BIRD there: a session for each of its addresses."""
    text = HEAD.format(router_id="10.0.0.11", third=2)
    for each in (HEALTHY, SIGNED, *AILMENTS):
        last = int(each.name.removeprefix("router-"))
        if last in NOWHERE or last == WEDGED:
            continue
        more, channel = "", "next hop self;"
        if last in {12, 17}:
            more = f'password "{PASSWORDS[OURS]}";'
        elif last == 19:
            more = 'password "nobody told us";'
        elif last == 20:
            more = f"router id {HERE};"
        elif last == 23:
            channel = "next hop address 203.0.113.7;"
        elif last == 26:
            channel = "import limit 0 action restart;"
        text += SESSION.format(
            last=last,
            local_as=64512,
            as_number=64512,
            neighbour="10.0.0.99" if last == 24 else source(last),
            passive="on" if last in {15, 16, 20} else "off",
            more=more,
            channel=channel,
        )
    return text


def wedged_side() -> str:
    head = HEAD.format(router_id=f"10.0.0.{WEDGED}", third=3)
    return head + SESSION.format(
        last=WEDGED,
        local_as=64512,
        as_number=64512,
        neighbour=source(WEDGED),
        passive="on",
        more="",
        channel="next hop self;",
    )


CONFIG = BirdConfig(
    node="here",
    router_id=IPv4Address(HERE),
    address=IPv4Interface(f"{HERE}/24"),
    as_number=64512,
    pools=(BirdPool(cidr=ip_network("10.244.0.0/16"), mode=Mode.NEVER),),
    filters=FILTERS,
    peers=(HEALTHY, SIGNED, *AILMENTS),
)

DROP = """
table inet t {
  chain in { type filter hook input priority 0; ip daddr 10.0.0.14 tcp dport 179 drop; }
}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Bird]:
    wire(*range(11, 27))
    (tmp_path / "drop.nft").write_text(DROP)
    run("ip", "netns", "exec", "there", "nft", "-f", str(tmp_path / "drop.nft"))
    # One block of our own, as the agent marks it.
    run("ip", "route", "add", "blackhole", "10.244.1.0/26", "proto", "80")
    with ExitStack() as stack:
        there = Bird(tmp_path, "there", "there")
        wedged = Bird(tmp_path, "wedged", "wedged")
        ours = Bird(tmp_path, "here")
        for bird in (there, wedged, ours):
            stack.callback(bird.end)
        there.start(other_side())
        wedged.start(wedged_side())
        ours.start(render(CONFIG, PASSWORDS))
        until("the session that will hang", lambda: HANGING in established(ours), ours.log)
        wedged.send(signal.SIGSTOP)
        until("settled sessions", lambda: settled(ours), ours.log)
        yield ours


def established(bird: Bird) -> set[str]:
    with Control.open(str(bird.socket)) as control:
        return {one.name for one in observe(control).protocols if one.established}


def settled(bird: Bird) -> bool:
    """Whether every session that gets as far as a word with its peer has got there."""
    with Control.open(str(bird.socket)) as control:
        sessions = observe(control).sessions
    told = {name for name, one in sessions.items() if one.session and one.session.last_error}
    return {"peer11", "peer12", "peer21", "peer22", "peer23"} <= established(bird) and {
        *("peer15", "peer16", "peer20", "peer24", "peer26", HANGING)
    } <= told


def reasons(bird: Bird) -> dict[str, Reason]:
    with Control.open(str(bird.socket)) as control:
        return diagnose(control, observe(control), (*CONFIG.peers, FORGOTTEN), PASSWORDS)


def test_each_ailment_has_its_reason_and_a_healthy_session_none(here: Bird) -> None:
    with Control.open(str(here.socket)) as control:
        control.do("disable peer25")
    wanted = {each.protocol: why for each, why in AILMENTS.items()}
    wanted[FORGOTTEN.protocol] = Why.NOT_CONFIGURED
    assert {*wanted.values(), *ELSEWHERE} == set(Why)
    found: dict[str, Reason] = {}
    """The right ones; not all are told at every look: a session that flaps is up for a moment, the
    queue of the host that hangs is full after some attempts, and who signs may call rarely."""
    latest: dict[str, Reason] = {}

    def agrees() -> bool:
        latest.clear()
        latest.update(reasons(here))
        assert latest.keys() <= wanted.keys(), latest  # nothing is wrong with a healthy session
        found.update({n: r for n, r in latest.items() if r.why is wanted[n]})
        return found.keys() == wanted.keys()

    try:
        wait_until(agrees, PATIENCE_S)
    except AssertionError:
        absent = wanted.keys() - found.keys()
        pytest.fail("\n".join([*(f"{n}: {latest.get(n)}" for n in absent), here.log()]))
    assert all(reason.sentence and reason.fix for reason in found.values())
    said = {name: reason.describe() for name, reason in found.items()}
    assert "has another password" in said["peer17"]
    assert "has no password for this session" in said["peer18"]
    assert "this session has none" in said["peer19"]
    assert "not in AS 64999" in said["peer15"]
    assert "BGPFilter deny-in" in said["peer21"]
    assert "203.0.113.7" in said["peer23"]
    assert "10.9.9.9" in said["peer50"]
    assert "Maximum number of prefixes reached" in said["peer26"]
    show(here)


def show(bird: Bird) -> None:
    """The same through the command line, and the routes with what became of them."""
    config = bird.folder / "podwire.yaml"
    config.write_text(f"birdConfig: {bird.config}\nbirdSocket: {bird.socket}\n")
    routes = {line["prefix"]: line for line in podwire(0, "bgp", "routes", config)}
    ours, theirs = routes["10.244.1.0/26"], routes["10.244.2.0/26"]
    assert (ours["from"], ours["kernel"]) == (["this node"], ["blackhole proto podwire"])
    told = [peer for peer in ours["announcedTo"] if peer != "10.0.0.26"]  # up for moments only
    assert told == ["10.0.0.11", "10.0.0.12", "10.0.0.21", "10.0.0.23"]
    refused = {one["peer"]: one["reason"] for one in ours["refused"]}
    assert "BGPFilter deny-out" in refused["10.0.0.22"]
    assert "the session is down" in refused["10.0.0.13"]
    assert {"10.0.0.11", "10.0.0.12"} <= set(theirs["from"])
    assert "10.0.0.21" not in theirs["from"]
    assert {one["peer"]: one["reason"] for one in theirs["refused"]}["10.0.0.21"] == (
        "not imported: a rule of BGPFilter deny-in rejects it"
    )
    status = podwire(1, "node", "status", config)
    assert status["bird"]["version"].startswith("2.")
    peers = {peer["address"]: peer for peer in status["peers"]}
    assert (peers["10.0.0.11"]["info"], peers["10.0.0.11"]["reason"]) == ("Established", None)
    assert peers["10.0.0.17"]["reason"]["why"] == "password"


def podwire(code: int, *words: object) -> Any:
    """What a command says; it has to end with that code."""
    *command, config = map(str, words)
    argv = [sys.executable, "-m", "podwire", *command, "--config", config, "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    return json.loads(done.stdout)
