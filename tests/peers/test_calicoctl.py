"""The real calicoctl (v3.28) beside podwire on one etcd: both show the same.

Go and Calico's modules are needed; where they cannot be had the test says so.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from podwire.cli.kinds import find_kind
from podwire.model import keys
from tests.peers import calico_module
from tests.peers.beside_calico import BUILT_IN, everywhere, items, rows
from tests.peers.every_kind import EVERY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.beside_calico import Row, TwoCommandLines

pytestmark = [pytest.mark.peer, pytest.mark.long]

NEWER_COLUMNS = {"TIER", "ASSIGNMENTMODE"}
"""Calico's own since v3.29 and v3.30."""
OUR_COLUMNS = {"NODESELECTOR", "PEERSELECTOR", "FILTERS"}
OF_NOTHING = {"", "<none>", "<nil>", "-"}
EMPTY_FILTER = """
{kind: BGPFilter, apiVersion: projectcalico.org/v3, metadata: {name: cautious}, spec: {}}
"""


def alike(kind: str, row: Row) -> Row:
    """What docs/reference/cli.md names as different, made the same."""
    told = {name: "" if cell in OF_NOTHING else cell for name, cell in row.items()}
    if told.get("ORDER"):
        told["ORDER"] = str(float(told["ORDER"]))
    if kind == "BGPPeer":
        told["PEERIP"] = "" if told["PEERIP"].startswith("has(") else told["PEERIP"]
        told["ASN"] = "" if told["ASN"] == "0" else told["ASN"]
    if kind == "WorkloadEndpoint" and told["WORKLOAD"] == "feed" * 16:
        told["WORKLOAD"] = ""
    if kind.endswith("NetworkPolicy"):
        told["NAME"] = told["NAME"].removeprefix("default.")
    return told


def test_calicoctl_s_words_for_kinds_are_ours(calico_folder: Path) -> None:
    words = calico_module.aliases(calico_folder)
    assert set(words) == {kind.lower() for kind in EVERY}
    for kind, names in words.items():
        for name in names:
            assert find_kind(name).name.lower() == kind, name


@pytest.mark.parametrize("shape", ["ps", "wide"])
def test_tables_are_the_same(filled: TwoCommandLines, shape: str) -> None:
    # At a filter with rules calicoctl panics; without it is in the next test.
    for kind in (each for each in EVERY if each != "BGPFilter"):
        words = ("get", kind, "-o", shape, *everywhere(kind))
        theirs, ours = rows(filled.calicoctl(*words)), rows(filled.podwire(*words))
        theirs = [row for row in theirs if row["NAME" if "NAME" in row else "NODE"] != BUILT_IN]
        assert theirs, kind
        columns = list(theirs[0])
        assert [name for name in ours[0] if name in columns] == columns, kind
        assert set(ours[0]) - set(columns) <= NEWER_COLUMNS | OUR_COLUMNS, kind
        same = [{name: row[name] for name in columns} for row in ours]
        assert [alike(kind, row) for row in same] == [alike(kind, row) for row in theirs], kind


def test_tables_have_the_namespace_where_one_is_named(filled: TwoCommandLines) -> None:
    words = ("get", "wep", "-n", "demo")
    assert rows(filled.podwire(*words)) == rows(filled.calicoctl(*words))
    words = ("get", "ippool", "-o", "custom-columns=CIDR,NAME")
    assert rows(filled.podwire(*words)) == rows(filled.calicoctl(*words))
    filled.podwire("replace", "-f", "-", text=EMPTY_FILTER)
    words = ("get", "bgpfilters", "-o", "wide")
    assert rows(filled.podwire(*words)) == rows(filled.calicoctl(*words))


def test_documents_are_the_same(filled: TwoCommandLines) -> None:
    for kind in EVERY:
        for shape in ("json", "yaml"):
            words = ("get", kind, "-o", shape, *everywhere(kind))
            theirs, ours = items(filled.calicoctl(*words)), items(filled.podwire(*words))
            assert theirs, kind
            assert ours == theirs, kind


def attributes(told: str) -> set[str]:
    """The lines that `ipam show --ip` indents."""
    return {line.strip() for line in told.splitlines() if line.startswith("  ")}


def test_ipam_show_tells_the_same(filled: TwoCommandLines) -> None:
    for words in (("ipam", "show"), ("ipam", "show", "--show-blocks")):
        theirs, ours = rows(filled.calicoctl(*words)), rows(filled.podwire(*words))
        for row in ours:
            # Free of them are the reserved ones, too, before v3.3x.
            reserved, free = (
                int(row.pop(name).split()[0]) for name in ("IPS RESERVED", "IPS FREE")
            )
            row["IPS FREE"] = str(free + reserved)
        for row in theirs:
            row["IPS FREE"] = row["IPS FREE"].split()[0]
        assert ours == theirs
    words = ("ipam", "show", "--show-borrowed")
    assert rows(filled.podwire(*words)) == rows(filled.calicoctl(*words))
    words = ("ipam", "show", "--show-configuration")
    config = {row["PROPERTY"]: row["VALUE"] for row in rows(filled.podwire(*words))}
    assert config.pop("IPCooldownSeconds") == "0"
    assert config == {row["PROPERTY"]: row["VALUE"] for row in rows(filled.calicoctl(*words))}


RESERVATION = """
kind: IPReservation
apiVersion: projectcalico.org/v3
metadata: {name: theirs}
spec: {reservedCIDRs: [10.98.0.9/30]}
"""


def test_what_calicoctl_reserves_is_reserved(filled: TwoCommandLines) -> None:
    filled.calicoctl("create", "-f", "-", text=RESERVATION)
    by_pool = {row["CIDR"]: row["IPS RESERVED"] for row in rows(filled.podwire("ipam", "show"))}
    assert by_pool["10.98.0.0/24"] == "5 (2%)"


def test_ipam_show_tells_the_same_owner(filled: TwoCommandLines) -> None:
    node = json.loads(filled.podwire("get", "node", "n-1", "-o", "json"))["spec"]
    endpoints = rows(filled.podwire("get", "wep", "-A"))
    addresses = [row["NETWORKS"].removesuffix("/32") for row in endpoints]
    for address in (*addresses, node["bgp"]["ipv4IPIPTunnelAddr"], node["ipv4VXLANTunnelAddr"]):
        words = ("ipam", "show", f"--ip={address}")
        theirs, ours = filled.calicoctl(*words), filled.podwire(*words)
        assert ours.splitlines()[0] == theirs.splitlines()[0] == f"IP {address} is in use"
        assert attributes(ours) == attributes(theirs) != set()
    words = ("ipam", "show", "--ip=10.98.0.9")
    assert filled.podwire(*words) == filled.calicoctl(*words)


CLEAN = "Check complete; found 0 problems."


def test_ipam_check_finds_the_same(filled: TwoCommandLines, tmp_path: Path) -> None:
    check = ("ipam", "check", "--show-problem-ips")
    assert filled.calicoctl(*check).splitlines()[-1] == CLEAN
    assert filled.podwire(*check).splitlines()[-1] == CLEAN
    addresses = {
        row["WORKLOAD"]: row["NETWORKS"].removesuffix("/32")
        for row in rows(filled.podwire("get", "wep", "-A"))
    }
    # One pod's endpoint goes, another's address: one leaks, one is used without being allocated.
    for entry in filled.store.list(keys.ENDPOINTS).entries:
        if entry.value["spec"].get("pod") == "web-0":
            filled.store.delete(entry.key, entry.revision)
    filled.calicoctl("ipam", "release", f"--ip={addresses['web-1']}")
    theirs, ours = filled.calicoctl(*check), filled.ours(*check).out
    for told in (theirs, ours):
        assert told.splitlines()[-1] == "Check complete; found 2 problems."
        found = {each for each in addresses.values() if re.search(rf"{each}\b", told)}
        assert found == {addresses["web-0"], addresses["web-1"]}
    # Each has reports of its own, and refuses the other's without releasing anything.
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    filled.ours("ipam", "check", "-o", ours)
    filled.calicoctl("ipam", "check", "-o", theirs)
    assert filled.try_calicoctl("ipam", "release", f"--from-report={ours}").returncode == 1
    assert filled.ours("ipam", "release", f"--from-report={theirs}").code != 0
    assert "found 2 problems." in filled.calicoctl(*check)
    filled.podwire("ipam", "release", f"--ip={addresses['web-0']}")
    assert "found 1 problems." in filled.calicoctl(*check)
