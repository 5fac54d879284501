"""What must hold of a session's answer: the right name and place, the same offline, green again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from podwire.model.pool import Encapsulation
from tests.lab.fault_matrix import (
    BY_NAME,
    FIRST,
    HEALTHY,
    LEFT_OVER,
    SEVERAL_FIXES,
    WITHOUT_COMMAND,
    Ends,
    expected_place,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault import Fault
    from tests.lab.fault_matrix import Network

JSON = dict[str, Any]
GOOD = "DELIVERED_AND_ANSWERED"
HOP_KEYS = ("netns", "interface", "side", "position", "predicted")


def score(network: Network, request: str, said: JSON) -> str:
    """named, wrong, silent (nothing to name) or false alarm."""
    faults = said["rounds"][0]["live"]["faults"]
    if request == HEALTHY or BY_NAME[request].is_trap:
        return "false alarm" if faults else "silent"
    return "named" if not _wrong(BY_NAME[request], network, said) else "wrong"


def check_named(network: Network, request: str, said: JSON) -> None:
    first = said["rounds"][0]["live"]
    if request == HEALTHY or BY_NAME[request].is_trap:
        assert first["faults"] == [], said["rounds"][0]["text"]
        assert first["result"]["disposition"] == GOOD
        return
    fault = BY_NAME[request]
    assert _wrong(fault, network, said) == [], said["rounds"][0]["text"]
    accepted = {fault.disposition}
    if fault.id == "rpf.failed" and network.encapsulation is Encapsulation.IPIP:
        # That kernel may lack nftables: then no door stands before the kernel's own check.
        accepted.add("RPF_FAILED")
    assert first["result"]["disposition"] in accepted
    assert (first["result"]["exitCode"] == 0) is (fault.disposition == GOOD)


def _wrong(fault: Fault, network: Network, said: JSON) -> list[str]:
    """What is not as it should be of the first fault named."""
    faults = said["rounds"][0]["live"]["faults"]
    if not faults:
        return ["nothing is named"]
    first, hosts = faults[0], said["hosts"]
    ends = Ends(source=hosts[FIRST], destination=hosts[network.destination])
    node, netns, interface = expected_place(fault, network, ends)
    where = {"node": node, "netns": netns, "interface": interface}
    pairs = {
        "id": (first["id"], fault.id),
        "number": (first["number"], fault.number),
        "where": (first["where"], where),
        "certain": ([each["id"] for each in faults if each["confidence"] == "certain"], [fault.id]),
    }
    return [f"{what}: {found}, not {wanted}" for what, (found, wanted) in pairs.items()
            if found != wanted]  # fmt: skip


def check_offline(said: JSON) -> None:
    """The bundle says what the live state said, or which input it lacks."""
    for each in said["rounds"]:
        live, offline = prediction(each["live"]), prediction(each["offline"])
        if offline["disposition"] == "INSUFFICIENT_INFO" != live["disposition"]:
            assert each["offline"]["coverage"]["missing"], each["offline"]["result"]
            continue
        assert list(differences(offline, live)) == []


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two documents are not the same: the whole of them would fill pages."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{place}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        for number, (mine, yours) in enumerate(itertools.zip_longest(one, other)):
            yield from differences(mine, yours, f"{place}/{number}")
    elif one != other:
        yield f"{place}: {one!r}, not {other!r}"


def prediction(document: JSON) -> JSON:
    """What of a document is predicted, not seen. Every live probe has a source port of its own."""
    return {
        "disposition": document["result"]["disposition"],
        "pathMtu": document["result"]["pathMtu"],
        "faults": [
            {key: each[key] for key in ("id", "number", "where", "sentence", "fix", "after")}
            for each in document["faults"]
        ],
        "traces": [
            (path["direction"], path["disposition"], [
                {key: without_ports(hop[key]) for key in HOP_KEYS}
                for hop in path["hops"] if hop["predicted"] is not None
            ])
            for path in document["traces"]
        ],
    }  # fmt: skip


def without_ports(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_ports(each)
            for key, each in value.items()
            if key not in {"sport", "dport", "port"}
        }
    return [without_ports(each) for each in value] if isinstance(value, list) else value


def check_mended(network: Network, request: str, said: JSON) -> None:
    """The printed fix, run as it is, makes the next trace green."""
    rounds = said["rounds"]
    if request in WITHOUT_COMMAND:
        assert rounds[0]["live"]["faults"][0]["fix"] is None or (
            rounds[0]["live"]["faults"][0]["fix"]["command"] is None
        ), "a command is printed: let it be tested"
        return
    for each in rounds[:-1]:
        fix = each["live"]["faults"][0]["fix"]
        assert each["mended"] == "", fix["command"]
        for command in fix["command"].split(" && "):
            assert squeezed(command) in squeezed(each["text"]), each["text"]
        assert fix["verifiedBy"] == "counterproof" or request in LEFT_OVER, each["text"]
    left = [each["id"] for each in rounds[-1]["live"]["faults"]]
    assert left == ([LEFT_OVER[request]] if request in LEFT_OVER else []), rounds[-1]["text"]
    if not left:
        assert rounds[-1]["live"]["result"]["disposition"] == GOOD
    if request != HEALTHY and not BY_NAME[request].is_trap:
        fixes = 2 if (request, network.name) in SEVERAL_FIXES else 1
        assert len(rounds) == fixes + 1, [each["text"] for each in rounds]


def check_both(network: Network, request: str, said: JSON) -> None:
    """The first of two faults is certain, the counter-proof shows the second, both are mended."""
    one, other = (BY_NAME[name] for name in request.split("+"))
    rounds = said["rounds"]
    named = [(each["id"], each["number"]) for each in rounds[0]["live"]["faults"]]
    assert named == [(one.id, one.number), (other.id, other.number)], rounds[0]["text"]
    first, second = rounds[0]["live"]["faults"]
    assert (first["confidence"], first["after"]) == ("certain", None)
    assert (second["confidence"] == "certain", second["after"]) == (False, one.id)
    assert len(rounds) == 3, [each["text"] for each in rounds]
    then = rounds[1]["live"]["faults"]
    assert [(each["id"], each["confidence"]) for each in then] == [(other.id, "certain")]
    assert rounds[2]["live"]["faults"] == []
    assert rounds[2]["live"]["result"]["disposition"] == GOOD


def squeezed(text: str) -> str:
    """Without the breaks that the report makes in long lines."""
    return "".join(text.replace("\\\n", "").split())
