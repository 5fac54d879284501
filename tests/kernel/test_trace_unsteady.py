"""A network that changes while it is traced: it is said, and everything is done once more."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from podwire.cli import trace_live
from podwire.cli.trace_live import Wish
from podwire.drivers.capture.observe import observe
from podwire.trace.document import document
from podwire.trace.flow import Flow
from podwire.trace.schema import Disposition, Trace
from tests.fakes.awaiting import wait_until
from tests.kernel.trace_network import build, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.trace.observation import Observation

WISH = Wish(source="demo/web-0", destination="demo/db-0", flow=Flow())
RULES = "add table inet t; add chain inet t c { type filter hook forward priority 0; }"


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[str]], list[str]]:
    """Lets the next command of a series run when the packets of an attempt have passed."""
    done: list[str] = []

    def install(commands: Iterator[str]) -> list[str]:
        def then(*arguments: Any, **named: Any) -> Observation:
            seen = observe(*arguments, **named)
            command = next(commands, None)
            if command is not None:
                subprocess.run(["sh", "-ec", command], check=True)
                done.append(command)
            return seen

        monkeypatch.setattr(trace_live, "observe", then)
        return done

    return install


def traced() -> Trace:
    # Until the link watch has run, a new bridge does not say that it is up.
    wait_until(lambda: "state UP" in run("ip -n underlay link show br0"))
    return trace_live.trace_live(WISH)


def said(trace: Trace) -> str:
    return " ".join(gap.why for gap in trace.gaps if gap.what == trace_live.STILL)


@pytest.mark.parametrize(
    ("command", "section"),
    [
        ("ip -n vms103 route add blackhole 10.66.0.0/24", "routes of vms103"),
        ("ip netns exec vms105 sysctl -qw net/ipv4/conf/ens32/rp_filter=2", "sysctls of vms105"),
        (f"ip netns exec vms103 nft '{RULES}'", "rule sets of vms103"),
        ("ip -n db-0 link set eth0 mtu 1400", "links of demo/db-0"),
    ],
)
def test_one_change_is_said_and_all_is_done_once_more(
    between: Callable[[Iterator[str]], list[str]], command: str, section: str
) -> None:
    build("vxlan")
    between(iter([command]))
    trace = traced()
    assert section in said(trace)
    assert said(trace).endswith("traced once more, and then it held still")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.confidence == "certain"
    assert document(trace)["state"] == {"changedDuringTrace": True}


def test_the_repeated_trace_is_of_the_changed_network(
    between: Callable[[Iterator[str]], list[str]],
) -> None:
    build("vxlan")
    between(iter(["ip -n vms105 route del 10.244.169.66"]))
    trace = traced()
    assert "routes of vms105" in said(trace)
    assert [(each.id, each.confidence) for each in trace.faults] == [
        ("route.missing-host-route", "certain")
    ]


def test_what_never_holds_still_is_never_certain(
    between: Callable[[Iterator[str]], list[str]],
) -> None:
    build("vxlan")
    commands = (f"ip -n vms103 route add blackhole 10.66.{number}.0/24" for number in range(9))
    done = between(commands)
    trace = traced()
    assert len(done) == trace_live.ATTEMPTS == 2
    assert "routes of vms103" in said(trace)
    assert "held still" not in said(trace)
    assert trace.confidence == "likely"
    assert document(trace)["state"] == {"changedDuringTrace": True}


def test_what_comes_and_goes_is_no_change(
    between: Callable[[Iterator[str]], list[str]],
) -> None:
    """A rule set's generation has moved, and the rules are what they were."""
    build("vxlan")
    done = between(iter([f"ip netns exec vms103 nft '{RULES}; delete table inet t'"]))
    trace = traced()
    assert len(done) == 1
    assert said(trace) == ""
    assert document(trace)["state"] == {"changedDuringTrace": False}
