"""What the kernel itself tells of probes, on real kernels, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.cli.states import Sources
from podwire.cli.trace import TraceOptions, find_trace
from podwire.cli.trace_live import Wish, trace_live
from podwire.drivers import namespaces
from podwire.drivers.bundle import facts_here, write_bundle
from podwire.drivers.capture import tracefs
from podwire.drivers.capture.nftrace import RuleTrace
from podwire.drivers.capture.observe import new_series
from podwire.drivers.capture.tracefs import PREFIX, Instance
from podwire.drivers.collect import collect_all
from podwire.drivers.rulesets import read_nft
from podwire.errors import PodwireError
from podwire.model.kernelstate import Read
from podwire.trace.document import document
from podwire.trace.flow import Flow, Protocol
from podwire.trace.report import Style, render
from podwire.trace.schema import Disposition
from tests.fakes.awaiting import wait_until
from tests.fakes.json_schema import complaints
from tests.kernel.trace_network import build, run

if TYPE_CHECKING:
    from podwire.trace.probe import Series
    from podwire.trace.schema import Hop, Trace

WEB, DB = "demo/web-0", "demo/db-0"
ROOT = Path(__file__).resolve().parents[2]


def traced(flow: Flow | None = None) -> Trace:
    return trace_live(Wish(source=WEB, destination=DB, flow=flow or Flow(), deep=True))


def inside(node: str, command: str) -> str:
    words = ["ip", "netns", "exec", node, "sh", "-ec", command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def hop_at(trace: Trace, netns: str, interface: str) -> Hop:
    return next(
        hop
        for path in trace.paths
        for hop in path.hops
        if (hop.where.netns, hop.where.interface, hop.side) == (netns, interface, "in")
    )


def why_no_tracefs() -> str | None:
    try:
        Instance.make().close()
    except PodwireError as error:
        return str(error)
    return None


def needs_tracefs() -> None:
    missing = why_no_tracefs()
    if missing is not None:
        pytest.skip(missing)


def instances(process: int | str = "") -> list[str]:
    """Instances of one process; others are of tests that run at the same time."""
    descriptor = tracefs._open_instances()
    try:
        names = os.listdir(descriptor)  # noqa: PTH208  # no path leads there
    finally:
        os.close(descriptor)
    return [name for name in names if name.startswith(f"{PREFIX}{process}-" if process else PREFIX)]


def none_left(process: int) -> bool:
    """Whether no process of that number has one; tests beside this one may have such, too."""
    return instances(process) == []


def left_behind() -> list[str]:
    """Tables of ours and packet sockets in all namespaces of the test."""
    found = []
    for path in sorted(namespaces.NAMED_DIR.iterdir()):
        text = inside(
            path.name, "nft list tables | grep podwire-trace- || :; tail -n +2 /proc/net/packet"
        )
        found += [f"{path.name}: {line}" for line in text.splitlines()]
    return found


RULES = """
nft add table inet gate
nft 'add chain inet gate inner'
nft 'add chain inet gate forward {type filter hook forward priority 0; policy accept;}'
nft 'add rule inet gate forward oifname "cali*" jump inner'
nft 'add rule inet gate inner ip protocol icmp drop'
"""


def handle_of_drop(node: str) -> int:
    listed = json.loads(inside(node, "nft -j -a list ruleset"))["nftables"]
    return next(
        int(each["rule"]["handle"])
        for each in listed
        if "rule" in each and {"drop": None} in each["rule"]["expr"]
    )


def test_a_rule_is_named_by_the_kernel_on_both_ways_and_where_the_model_cannot() -> None:
    build("vxlan")
    for node, interface in (("vms105", "vxlan.calico"), ("vms103", "vxlan.calico")):
        inside(node, RULES)
        trace = traced()
        text = render(trace, Style())
        assert trace.disposition is Disposition.DENIED, text
        handle = handle_of_drop(node)
        met = hop_at(trace, node, interface).ruled
        assert [(each.chain, each.verdict, each.count) for each in met] == [
            ("forward", "jump", 3),
            ("inner", "drop", 3),
        ], text
        assert (met[0].target, met[1].handle) == ("inner", handle)
        expected = f"inet gate inner (rule handle {handle}) ends it, 3 of 3 probes"
        assert expected in [each.value for each in trace.faults[0].evidence], text
        assert trace.probing is not None
        assert trace.probing.nft_trace is True
        whole = document(trace)
        assert whole["level"] == 3
        schema = json.loads((files("podwire.trace") / "podwire.trace.v1.json").read_text())
        assert complaints(whole, schema, schema) == []
        inside(node, "nft flush ruleset")
    inside("vms105", RULES.replace("drop", "limit rate over 1/hour burst 1 packets drop"))
    trace = traced()
    text = render(trace, Style())
    assert (trace.disposition, trace.confidence) == (Disposition.DENIED, "likely"), text
    assert [each.id for each in trace.faults] == ["policy.denied"], text
    inside("vms105", "nft flush ruleset")
    healed = traced()
    assert healed.disposition is Disposition.DELIVERED_AND_ANSWERED, render(healed, Style())
    assert healed.faults == ()
    assert healed.probing is not None
    assert not healed.probing.changed
    assert left_behind() == []


def test_the_kernels_reason_stands_beside_what_the_state_says() -> None:
    needs_tracefs()
    build("vxlan")
    closed = traced(Flow(protocol=Protocol.UDP, port=7007))
    drops = hop_at(closed, DB, "eth0").dropped
    assert [each.reason for each in drops] == ["NO_SOCKET"]
    assert closed.probing is not None
    assert closed.probing.tracefs is True

    run("ip -n vms105 route del 10.244.169.66")
    blackhole = traced()
    assert blackhole.disposition is Disposition.NULL_ROUTED
    drops = hop_at(blackhole, "vms105", "vxlan.calico").dropped
    assert [each.function for each in drops] == ["ip_error"]
    run("ip -n vms105 route add 10.244.169.66 dev calidb-0 scope link proto 80")

    inside("vms105", "echo 1 > /proc/sys/net/ipv4/conf/vxlan.calico/rp_filter")
    run("ip -n vms105 route del 10.244.38.128/26")
    strict = traced()
    text = render(strict, Style())
    assert strict.disposition is Disposition.RPF_FAILED, text
    drops = hop_at(strict, "vms105", "vxlan.calico").dropped
    assert [each.reason for each in drops] == ["IP_RPFILTER"], text
    assert "the kernel's reason" in {each.key for each in strict.faults[0].evidence}
    wait_until(partial(none_left, os.getpid()))


def test_a_forgotten_instance_is_removed_and_a_held_one_stays() -> None:
    needs_tracefs()
    descriptor = tracefs._open_instances()
    try:
        os.mkdir(f"{PREFIX}forgotten-1", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    with Instance.make() as first, Instance.make() as second:
        assert instances("forgotten") == []
        assert {first.name, second.name} <= set(instances())
    assert not {first.name, second.name} & set(instances())


def test_in_a_user_namespace_rules_are_told_and_reasons_are_missing() -> None:
    user, group = os.geteuid(), os.getegid()
    fresh = namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS
    try:
        namespaces.unshare(fresh)
    except PodwireError:
        pytest.skip("needs user namespaces (unshare --user is denied)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    namespaces.mount("tmpfs", "/run", kind="tmpfs")
    namespaces.mount("sysfs", "/sys", kind="sysfs")
    build("none")
    inside("vms105", RULES)
    trace = traced()
    assert trace.disposition is Disposition.DENIED
    coverage = document(trace)["coverage"]
    assert (coverage["nftTrace"], coverage["tracefs"]) == (True, False)
    why = [each["why"] for each in coverage["missing"] if "reasons of drops" in each["what"]]
    assert len(why) == 1
    assert "CAP_SYS_ADMIN on the machine itself" in why[0]


def test_the_table_of_a_trace_is_no_part_of_the_state() -> None:
    build("none")
    inside("vms105", RULES)
    with namespaces.opened("/run/netns/vms105") as vms105:
        inode = namespaces.inode_of(vms105)
        before = namespaces.call_in(vms105, read_nft)
        with RuleTrace.open({inode: vms105}, a_series()) as trace:
            assert trace.refused == {}
            assert len(left_behind()) == 1
            during = namespaces.call_in(vms105, read_nft)
    assert isinstance(before, Read)
    assert isinstance(during, Read)
    tables = [
        [each["table"] for each in state.value if "table" in each] for state in (before, during)
    ]
    assert tables[0] == tables[1]
    rules = [[each["rule"] for each in state.value if "rule" in each] for state in (before, during)]
    assert len(rules[0]) == 2
    assert rules[0] == rules[1]
    assert left_behind() == []


def a_series() -> Series:
    return new_series(IPv4Address("10.244.38.174"), IPv4Address("10.244.169.66"), Flow())


def test_without_a_probe_there_is_nothing_to_listen_to() -> None:
    build("none")
    trace = trace_live(Wish(source=WEB, destination=DB, flow=Flow(), probe=False, deep=True))
    assert "the kernel's own events" in {gap.what for gap in trace.gaps}
    assert (document(trace)["level"], document(trace)["coverage"]["nftTrace"]) == (1, None)


def test_a_bundle_has_no_kernel_to_listen_to(tmp_path: Path) -> None:
    build("none")
    bundle = tmp_path / "bundle.tgz"
    write_bundle(bundle, collect_all(), facts_here())
    trace = find_trace(WEB, DB, TraceOptions(sources=Sources(bundle=bundle), deep=True))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert "the kernel's own events" in {gap.what for gap in trace.gaps}


MOMENTS = {
    "guard started": ("podwire.drivers.capture.tracefs", "_start_guard"),
    "instance made": ("os", "mkdir"),
    "events armed": ("podwire.drivers.capture.dropreasons", "_arm"),
    "tables made": ("podwire.drivers.capture.nftrace", "RuleTrace.open"),
    "probe sent": ("podwire.drivers.capture.probe", "Prober.send"),
    "events read": ("podwire.drivers.capture.listening", "Listening.heard"),
    "table given up": ("podwire.drivers.capture.nftrace", "RuleTrace.close"),
}
"""After which call the program is killed."""
OF_TRACEFS = frozenset({"guard started", "instance made", "events armed"})
KILLED = """
import importlib, os, signal, sys
module, _, name = sys.argv[1].partition(":")
owner = importlib.import_module(module)
*path, last = name.split(".")
for each in path:
    owner = getattr(owner, each)
original = getattr(owner, last)
def deadly(*args, **kwargs):
    original(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, last, deadly)
from podwire.cli.trace_live import Wish, trace_live
from podwire.trace.flow import Flow
trace_live(Wish(source="demo/web-0", destination="demo/db-0", flow=Flow(), deep=True))
"""


def nobody_guards(process: int) -> bool:
    """Whether no guard looks after an instance of a process any more."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            if any(word.startswith(f"{PREFIX}{process}-".encode()) for word in words):
                return False
    return True


def test_killed_at_any_moment_it_leaves_nothing() -> None:
    build("none")
    missing = why_no_tracefs()
    for moment, (module, name) in MOMENTS.items():
        if missing is not None and moment in OF_TRACEFS:
            continue
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, f"{module}:{name}"], cwd=ROOT, stderr=subprocess.PIPE
        )
        _, complaint = child.communicate()
        assert child.returncode == -signal.SIGKILL, f"{moment}: {complaint.decode()}"
        wait_until(partial(nobody_guards, child.pid))
        assert left_behind() == [], moment
        if missing is None:
            wait_until(partial(none_left, child.pid))
