"""Traces of broken networks: predicted and live the same fault by name, and a fix that works."""

from __future__ import annotations

import subprocess

import pytest

from podwire.cli.trace_live import Wish, trace_live
from podwire.drivers.collect import collect_all
from podwire.trace.flow import Flow
from podwire.trace.predict import predict
from podwire.trace.report import Style, render
from podwire.trace.schema import Disposition, Fault, Trace
from tests.kernel.trace_faults import DB, FAULTS, WEB, inject
from tests.kernel.trace_network import PODS, build, ping


def traced() -> Trace:
    return trace_live(Wish(source=WEB, destination=DB, flow=Flow()))


def repair(fault: Fault) -> None:
    """Run the printed fix where the report says."""
    assert fault.fix is not None
    assert fault.fix.command is not None, fault
    place = str(fault.where.netns).rpartition("/")[2]
    subprocess.run(["ip", "netns", "exec", place, "sh", "-ec", fault.fix.command], check=True)


@pytest.mark.parametrize("number", FAULTS)
def test_an_injected_fault_is_named_for_certain_and_its_fix_works(
    number: int, request: pytest.FixtureRequest
) -> None:
    build("vxlan")
    inject(FAULTS[number])
    predicted = predict(collect_all(), WEB, DB, Flow())
    trace = traced()
    text = render(trace, Style())
    wanted = [(FAULTS[number].identity, number, FAULTS[number].place)]
    named = [
        (each.id, each.number, each.where.netns)
        for each in trace.faults
        if each.confidence == "certain"
    ]
    word = "named" if named == wanted else "wrong"
    request.node.user_properties.append(("fault score", ("made by hand", word, str(number))))
    assert named == wanted, text
    assert trace.disposition.exit_code == 1, text
    assert trace.disposition is predicted.disposition, text
    assert [(each.id, each.number, each.where.netns) for each in predicted.faults] == named
    assert not ping("web-0", PODS["db-0"][1])
    for fault in trace.faults:
        repair(fault)
        assert fault.fix is not None
        assert fault.fix.verified_by == "counterproof", text
    healed = traced()
    assert healed.disposition is Disposition.DELIVERED_AND_ANSWERED, render(healed, Style())
    assert not [each for each in healed.faults if each.severity == "error"]
