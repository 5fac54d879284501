"""What `podwire agent status` says of MTUs, for people."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.cli.agent import mtu_lines
from podwire.cli.main import run

ALIKE: dict[str, Any] = {
    "pod": 1450,
    "underlay": 1500,
    "cluster": 1500,
    "narrowest": None,
    "livePods": {},
}
NARROW = {**ALIKE, "pod": 1350, "cluster": 1400, "narrowest": "vms105"}


@pytest.mark.parametrize(
    ("mtu", "lines"),
    [
        (None, []),
        ({**ALIKE, "cluster": None}, []),
        (ALIKE, ["MTU: pods 1450, underlay 1500, cluster 1500"]),
        (
            {**NARROW, "livePods": {"demo/web-1": 1450, "demo/web-0": 1400}},
            [
                "MTU: pods 1350, underlay 1500, cluster 1400 (node vms105)",
                "MTU of live pods: demo/web-0 1400, demo/web-1 1450",
            ],
        ),
    ],
    ids=["unheard of", "not known yet", "alike", "narrow"],
)
def test_the_mtu_in_use_and_why(mtu: dict[str, Any] | None, lines: list[str]) -> None:
    assert mtu_lines(mtu) == lines


def test_of_many_pods_only_the_number_is_told() -> None:
    pods = {f"demo/web-{number:02}": 1450 for number in range(12)}
    (_, line) = mtu_lines({**NARROW, "livePods": pods})
    assert line.endswith("demo/web-09 1450 and 2 more")


@pytest.mark.parametrize("name", ["VMS103", "a_b", "x/y", ""])
def test_a_name_that_no_node_may_have_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agent", "--node", name]) == 64
    assert "--node" in capsys.readouterr().err
