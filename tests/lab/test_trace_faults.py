"""What a trace says of every fault of the catalogue; ends with the score as a table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from podwire.lab.fault import Place
from podwire.lab.fault_catalogue import FAULTS
from podwire.model.pool import Encapsulation
from tests.lab.conftest import make_lab, pods_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault import Fault
    from tests.lab.conftest import Lab

HERE = [fault for fault in FAULTS if Encapsulation.VXLAN in fault.encapsulations]
NOT_YET: dict[str, str] = {
    "wire-drops-tunnel": "rules of bridges are not modelled",
}
"""What today's trace does not name so yet."""


@dataclass
class Score:
    """How each fault fared."""

    words: dict[str, str] = field(default_factory=dict)

    def table(self) -> list[str]:
        counts = Counter(self.words.values())
        total = "  ".join(f"{word} {counts[word]}" for word in ("named", "wrong", "false alarm"))
        missed = [f"  {word:12} {name}" for name, word in self.words.items() if word != "named"]
        return [f"faults by name: {total}", *missed]


@pytest.fixture(scope="module")
def score(request: pytest.FixtureRequest) -> Iterator[Score]:
    found = Score()
    yield found
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    assert reporter is not None
    reporter.ensure_newline()
    for line in found.table():
        reporter.write_line(line)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = make_lab("--nodes", "2", "--encapsulation", "vxlan")
    lab.apply(pods_manifest(["vms100", "vms101"], 1, "demo"))
    yield lab
    lab.run("down")


def trace(lab: Lab, made: dict[str, Any]) -> dict[str, Any]:
    words = (made["source"], made["destination"], *made["probe"], "-o", "json")
    done = lab.try_run("trace", *words)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def expected_place(fault: Fault, made: dict[str, Any]) -> set[str]:
    """Namespaces that may be named as the place."""
    if fault.name == "duplicate-address":
        return {"fault-twin", made["node"]}
    return {
        Place.SOURCE_POD: {made["source"]},
        Place.DESTINATION_POD: {made["destination"]},
        Place.BOTH_NODES: set(made["held"]),
        Place.WIRE: {"underlay"},
    }.get(fault.place, {made["node"]})


def judge(fault: Fault, made: dict[str, Any], found: dict[str, Any]) -> str:
    if fault.is_trap:
        return "false alarm" if found["faults"] else "named"
    if not found["faults"]:
        return "wrong"
    first = found["faults"][0]
    right = (first["id"], first["number"]) == (fault.id, fault.number)
    return "named" if right and first["where"]["netns"] in expected_place(fault, made) else "wrong"


@pytest.mark.parametrize("fault", HERE, ids=lambda fault: fault.name)
def test_a_fault_is_named(
    lab: Lab, score: Score, fault: Fault, request: pytest.FixtureRequest
) -> None:
    done = lab.try_run("fault", "inject", fault.name, "-o", "json")
    if done.returncode != 0 and "is not installed" in done.stderr:
        pytest.skip(done.stderr.strip())
    made = json.loads(done.stdout)
    try:
        found = trace(lab, made)
    finally:
        lab.run("fault", "heal", fault.name)
    score.words[fault.name] = judge(fault, made, found)
    if fault.name in NOT_YET:
        request.applymarker(pytest.mark.xfail(reason=NOT_YET[fault.name], strict=False))
    assert score.words[fault.name] == "named", found["faults"] or found["result"]
    assert found["result"]["disposition"] == fault.disposition


def test_a_healed_lab_is_healthy(lab: Lab, score: Score) -> None:
    pods = [f"{pod['namespace']}/{pod['name']}" for pod in lab.pods()]
    made = {"source": pods[0], "destination": pods[1], "probe": []}
    found = trace(lab, made)
    if found["faults"]:
        score.words["healthy"] = "false alarm"
    assert found["faults"] == []
    assert found["result"]["disposition"] == "DELIVERED_AND_ANSWERED"
