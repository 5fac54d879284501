"""A fix as it is typed: on a node, in a pod, from outside of a lab; long lines can be pasted."""

from __future__ import annotations

import shlex

from podwire.trace.commands import commands
from podwire.trace.schema import Fix, Where

NODE = Where(node="vms100", netns="vms100", interface="ens32")
POD = Where(node="vms100", netns="demo/client", interface="eth0")
LONG = "ip route replace 10.244.198.0/26 via 10.244.198.0 dev vxlan.calico onlink metric 1024"


def test_the_agents_own_things_are_given_back_to_it_first() -> None:
    fix = Fix(text="", command="ip route add default", agent=True)
    assert commands(fix, NODE, None) == [
        "on vms100:  podwire agent release", "or by hand:", "on vms100:  ip route add default",
    ]  # fmt: skip
    assert commands(fix, NODE, "lab") == [
        "podwire lab release vms100",
        "or by hand:",
        "podwire lab node vms100 -- ip route add default",
    ]
    assert commands(fix, NODE, "blue")[0] == "podwire lab release --name blue vms100"


def test_a_pods_commands_are_run_in_it() -> None:
    fix = Fix(text="", command="ip link set eth0 up && ip route add default dev eth0")
    assert commands(fix, POD, "lab") == [
        "podwire lab exec demo/client -- ip link set eth0 up",
        "podwire lab exec demo/client -- ip route add default dev eth0",
    ]
    assert commands(fix, POD, None)[0] == "in demo/client:  ip link set eth0 up"


def test_a_long_command_can_be_pasted() -> None:
    lines = commands(Fix(text="", command=LONG), NODE, "lab")
    assert len(lines) == 2
    assert all(len(line) <= 90 for line in lines)
    pasted = "\n".join(lines).replace("\\\n", "")
    assert shlex.split(pasted) == shlex.split(f"podwire lab node vms100 -- {LONG}")


def test_what_is_quoted_stays_in_one_line() -> None:
    chain = "nft add chain inet a-table-with-a-rather-long-name FORWARD '{ policy accept ; }'"
    lines = commands(Fix(text="", command=chain), NODE, "lab")
    assert any("'{ policy accept ; }'" in line for line in lines)
