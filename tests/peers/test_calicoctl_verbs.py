"""What the real calicoctl (v3.28) and podwire write, the other reads and changes without loss.

Go and Calico's modules are needed; where they cannot be had the test says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.peers.beside_calico import BUILT_IN, everywhere, items, meant
from tests.peers.every_kind import EVERY

if TYPE_CHECKING:
    from tests.peers.beside_calico import TwoCommandLines

pytestmark = [pytest.mark.peer, pytest.mark.long]

Wire = dict[str, Any]

FILLED_IN = {"FelixConfiguration", "KubeControllersConfiguration"}
"""Kinds whose defaults calicoctl writes for Calico's own agents, which have the same ones."""


def everything(two: TwoCommandLines, kind: str) -> list[Wire]:
    """All of a kind that a person may write, as podwire shows them."""
    found = json.loads(two.podwire("get", kind, "-A", "-o", "json"))["items"]
    return [without_revision(each) for each in found]


def without_revision(wire: Wire) -> Wire:
    metadata = {name: item for name, item in wire["metadata"].items() if name != "resourceVersion"}
    # Of v3.30: calicoctl of v3.28 refuses a file that has it.
    spec = {name: item for name, item in wire["spec"].items() if name != "assignmentMode"}
    return {**wire, "metadata": metadata, "spec": spec}


def holds(whole: Any, part: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and holds(whole[name], item) for name, item in part.items())
    return bool(whole == part)


def test_what_podwire_shows_calicoctl_writes_back(filled: TwoCommandLines) -> None:
    for kind in (each for each in EVERY if each != "ClusterInformation"):
        before = everything(filled, kind)
        for each in before:
            if kind.endswith("NetworkPolicy"):
                each["metadata"]["name"] = each["metadata"]["name"].removeprefix("default.")
            filled.calicoctl("replace", "-f", "-", text=json.dumps(each))
        after = list(map(meant, everything(filled, kind)))
        for old, new in zip(map(meant, before), after, strict=True):
            assert holds(new, old) if kind in FILLED_IN else new == old, kind


def test_what_calicoctl_shows_podwire_writes_back(filled: TwoCommandLines) -> None:
    for kind in (each for each in EVERY if each != "ClusterInformation"):
        words = ("get", kind, "-o", "yaml", *everywhere(kind))
        shown = filled.calicoctl(*words)
        filled.podwire("replace", "-f", "-", text=for_podwire(shown))
        assert items(filled.calicoctl(*words)) == items(shown), kind


def test_several_kinds_at_once_are_read_by_the_other(filled: TwoCommandLines) -> None:
    named = "".join(
        f"---\nkind: {kind}\napiVersion: projectcalico.org/v3\nmetadata: {{name: {name}}}\n"
        for kind, name in (
            ("BGPPeer", "tor"),
            ("BGPFilter", "cautious"),
            ("IPReservation", "gateways"),
        )
    )
    words = ("-f", "-", "-o", "yaml")
    theirs, ours = (
        filled.calicoctl("get", *words, text=named),
        filled.podwire("get", *words, text=named),
    )
    assert list(map(meant, yaml.safe_load(ours))) == list(map(meant, yaml.safe_load(theirs)))
    filled.podwire("replace", "-f", "-", text=theirs)
    shown = filled.podwire("get", *words, text=named)
    filled.calicoctl("replace", "-f", "-", text=shown)
    assert list(map(meant, yaml.safe_load(shown))) == list(map(meant, yaml.safe_load(ours)))


def for_podwire(shown: str) -> str:
    """Of calicoctl's list what is stored."""
    found = yaml.safe_load(shown)
    found["items"] = [each for each in found["items"] if each["metadata"]["name"] != BUILT_IN]
    return yaml.safe_dump(found)


def test_each_creates_and_deletes_for_the_other(filled: TwoCommandLines) -> None:
    policies = {"GlobalNetworkPolicy", "NetworkPolicy"}
    for kind in ("IPPool", "IPReservation", "BGPPeer", "BGPFilter", "HostEndpoint", *policies):
        (first, *_) = everything(filled, kind)
        place = ("-n", first["metadata"]["namespace"]) if "namespace" in first["metadata"] else ()
        stored = first["metadata"]["name"]
        known = stored.removeprefix("default.")
        for name in ("uid", "creationTimestamp"):
            del first["metadata"][name]
        if kind == "BGPFilter":
            filled.podwire("patch", "bgppeer", "tor", "-p", '{"spec": {"filters": []}}')
        filled.calicoctl("delete", kind, known, *place)
        filled.podwire("create", "-f", "-", text=json.dumps(first))
        made = one_of(filled.calicoctl("get", kind, known, "-o", "json", *place))
        assert holds(made, meant(first)), kind
        filled.podwire("delete", kind, stored, *place)
        text = json.dumps({**first, "metadata": {**first["metadata"], "name": known}})
        filled.calicoctl("create", "-f", "-", text=text)
        again = one_of(filled.podwire("get", kind, known, "-o", "json", *place))
        del made["metadata"]["uid"], made["metadata"]["creationTimestamp"]
        assert holds(again, made), kind
        filled.podwire("delete", kind, known, *place)
        assert filled.try_calicoctl("get", kind, known, *place).returncode == 1, kind


def one_of(text: str) -> Wire:
    return meant(json.loads(text))


def test_patches_and_labels_of_one_are_the_other_s(filled: TwoCommandLines) -> None:
    def pool() -> Wire:
        theirs = one_of(filled.calicoctl("get", "ippool", "small", "-o", "json"))
        assert theirs == one_of(filled.podwire("get", "ippool", "small", "-o", "json"))
        return theirs

    filled.calicoctl("patch", "ippool", "small", "-p", '{"spec": {"natOutgoing": true}}')
    assert pool()["spec"]["natOutgoing"] is True
    filled.podwire("patch", "ippool", "small", "-p", '{"spec": {"disabled": true}}')
    assert pool()["spec"]["disabled"] is True
    filled.calicoctl("label", "ippool", "small", "floor=2")
    filled.podwire("label", "ippool", "small", "room=7")
    assert pool()["metadata"]["labels"] == {"rack": "r1", "floor": "2", "room": "7"}
    for line in (filled.try_calicoctl, filled.ours):
        assert code(line("label", "ippool", "small", "floor=3")) != 0
        assert code(line("label", "ippool", "small", "door", "--remove")) != 0
    filled.calicoctl("label", "ippool", "small", "room=8", "--overwrite")
    filled.podwire("label", "ippool", "small", "floor=4", "--overwrite")
    assert pool()["metadata"]["labels"] == {"rack": "r1", "floor": "4", "room": "8"}
    filled.calicoctl("label", "ippool", "small", "floor", "--remove")
    filled.podwire("label", "ippool", "small", "room", "--remove")
    assert pool()["metadata"]["labels"] == {"rack": "r1"}


def code(said: Any) -> int:
    found: int = said.returncode if hasattr(said, "returncode") else said.code
    return found


NEW = """
{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: new}, spec: {cidr: 10.90.0.0/24}}
"""
OVERLAP = NEW.replace("new", "over").replace("10.90.0.0/24", "10.244.1.0/24")
ODD = NEW.replace("cidr:", "colour: red, cidr:")


def test_both_refuse_the_same(filled: TwoCommandLines) -> None:
    for line in (filled.try_calicoctl, filled.ours):
        assert code(line("replace", "-f", "-", text=NEW)) == 1
        assert code(line("create", "-f", "-", text=NEW)) == 0
        assert code(line("create", "-f", "-", text=NEW)) == 1
        assert code(line("create", "-f", "-", "--skip-exists", text=NEW)) == 0
        assert code(line("apply", "-f", "-", text=NEW)) == 0
        assert code(line("create", "-f", "-", text=OVERLAP)) != 0
        assert code(line("create", "-f", "-", text=ODD)) != 0
        assert code(line("get", "ippool", "new", "nope")) == 1
        assert code(line("delete", "ippool", "new")) == 0
        assert code(line("delete", "ippool", "new")) == 1
        assert code(line("delete", "ippool", "new", "--skip-not-exists")) == 0
        assert code(line("patch", "ippool", "new", "-p", "{}")) == 1
        assert code(line("get", "colour")) != 0


def test_each_sees_the_other_s_lock(filled: TwoCommandLines) -> None:
    def ready() -> str:
        words = ("get", "clusterinfo", "-o", "custom-columns=DATASTOREREADY")
        theirs = filled.calicoctl(*words).split()
        assert theirs == filled.podwire(*words).split()
        return theirs[1]

    for locks, unlocks in (
        (filled.calicoctl, filled.podwire),
        (filled.podwire, filled.calicoctl),
    ):
        locks("datastore", "migrate", "lock")
        assert ready() == "false"
        unlocks("datastore", "migrate", "unlock")
        assert ready() == "true"
