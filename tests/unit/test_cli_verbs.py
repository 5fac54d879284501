"""What the verbs take, refuse and say: files, patches, labels, deletions."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from podwire import __version__
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import keys
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.command_line import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.command_line import CommandLine

V3 = "projectcalico.org/v3"


@pytest.fixture
def podwire(tmp_path: Path) -> Iterator[CommandLine]:
    with command_line(tmp_path / "datastore.db") as line:
        yield line


def pool(name: str = "pods", cidr: str = "10.244.0.0/16", **spec: Any) -> str:
    metadata = {"name": name, "labels": {"zone": "a"}}
    whole = {"cidr": cidr, **spec}
    return json.dumps(
        {"kind": "IPPool", "apiVersion": V3, "metadata": metadata, "spec": whole}
    )  # fmt: skip


def node(name: str, address: str) -> str:
    spec = {"bgp": {"ipv4Address": address}}
    return json.dumps({"kind": "Node", "apiVersion": V3, "metadata": {"name": name}, "spec": spec})


def spec_of(podwire: CommandLine, name: str = "pods") -> dict[str, Any]:
    entry = podwire.store.get(keys.pool_key(name))
    assert entry is not None
    return dict(entry.value["spec"])


def test_all_faults_of_all_files_are_told_at_once(podwire: CommandLine, tmp_path: Path) -> None:
    for name, text in {
        "a.yaml": pool(cidr="10.0.0.0/33", blockSize="x", ipipMode="Always", vxlanMode="Always"),
        "b.yaml": "kind: IPPool\nkind: Node\nmetadata: [\n",
        "c.yaml": "kind: Quark\napiVersion: projectcalico.org/v3\n---\n" + node("n", "banana"),
    }.items():
        (tmp_path / name).write_text(text)
    for verb in ("validate", "apply"):
        said = podwire(verb, "-f", str(tmp_path), "-f", str(tmp_path / "gone"))
        assert said.code == 64
        for part, line in zip(
            (
                "a.yaml:1: spec.cidr: ",
                "a.yaml:1: spec.blockSize must be a whole number",
                "b.yaml:4:1: is not YAML",
                "c.yaml:1: kind 'Quark' is unknown",
                "c.yaml:4: spec.bgp.ipv4Address: ",
                "gone: there is no such file",
                "6 faults; nothing was written",
            ),
            said.err.splitlines(),
            strict=True,
        ):
            assert part in line, said.err
    assert podwire.store.list("/").entries == ()


def test_a_faulty_field_does_not_hide_what_else_does_not_go_together(podwire: CommandLine) -> None:
    text = pool(natOutgoing="yes", ipipMode="Always", vxlanMode="Always")
    said = podwire("validate", "-f", "-", text=text)
    assert "natOutgoing must be true or false" in said.err
    assert "a pool has one encapsulation" in said.err
    # A default in the place of a faulty value proves nothing.
    assert (
        "larger than the pool"
        not in podwire("validate", "-f", "-", text=pool(cidr="10.0.0.0/28", blockSize="28")).err
    )


def test_validate_needs_no_datastore(podwire: CommandLine) -> None:
    said = podwire.done("validate", "-f", "-", text=pool())
    assert said.out == "1 resource(s) in 1 file(s) are valid\n"
    assert podwire.store.list("/").entries == ()


def test_directories_stdin_and_several_files_go_together(
    podwire: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.yml").write_text(pool("a", "10.1.0.0/16"))
    (tmp_path / "in" / "deep" / "b.json").write_text(pool("b", "10.2.0.0/16"))
    (tmp_path / "empty").mkdir()
    words = ("-R", "-f", str(tmp_path / "in"), "-f", "-")
    done = podwire.done("create", *words, text=pool("c", "10.3.0.0/16"))
    assert done.out == "Successfully created 3 'IPPool' resource(s)\n"
    named = podwire.done("get", "-f", str(tmp_path / "in"), "-o", "name").out
    assert named == "ippool/a\n"
    assert podwire("apply", "-f", str(tmp_path / "empty")).code == 64
    done = podwire.done("apply", "-f", str(tmp_path / "empty"), "--skip-empty")
    assert done.out == "No file holds a resource; nothing to do\n"
    done = podwire.done("delete", *words, text=pool("c", "10.3.0.0/16"))
    assert done.out == "Successfully deleted 3 'IPPool' resource(s)\n"


def test_create_names_all_that_exists_or_leaves_it(podwire: CommandLine) -> None:
    both = f"{pool('a', '10.1.0.0/16')}\n---\n{pool('b', '10.2.0.0/16')}"
    podwire.done("create", "-f", "-", text=both)
    said = podwire("create", "-f", "-", text=both)
    assert said.code == 1
    assert "<stdin>:1: IPPool a exists already\n<stdin>:3: IPPool b exists already" in said.err
    more = f"{both}\n---\n{pool('c', '10.3.0.0/16')}"
    done = podwire.done("create", "-f", "-", "--skip-exists", text=more)
    assert "Successfully created 1 'IPPool'" in done.out
    assert "2 resource(s) exist already and were left as they are" in done.out
    said = podwire("replace", "-f", "-", text=pool("d", "10.4.0.0/16"))
    assert (said.code, "IPPool d does not exist" in said.err) == (1, True)


def test_a_json_patch_is_carried_out_whole_or_refused(podwire: CommandLine) -> None:
    podwire.done("create", "-f", "-", text=pool())
    add = [{"op": "add", "path": "/spec/natOutgoing", "value": True}]
    words = ("patch", "ippool", "pods", "-t", "json", "-p")
    assert "patched 1" in podwire.done(*words, json.dumps(add)).out
    assert spec_of(podwire)["natOutgoing"] is True
    for patch, problem in (
        ([{"op": "remove", "path": "/spec/nothing"}], "cannot be carried out"),
        ([{"op": "test", "path": "/spec/natOutgoing", "value": False}], "cannot be carried out"),
        ([{"op": "fly", "path": "/spec"}], "cannot be carried out"),
        ([{"path": 3}], "--patch"),
        ([7], "--patch"),
        ({"spec": {}}, "must be a list of operations"),
        ([{"op": "replace", "path": "", "value": 1}], "cannot get another name"),
        ([{"op": "replace", "path": "/metadata/name", "value": "x"}], "cannot get another name"),
        ([{"op": "replace", "path": "/spec/natOutgoing", "value": 1}], "must be true or false"),
    ):
        said = podwire(*words, json.dumps(patch))
        assert (said.code, problem in said.err) == (64, True), said
    assert spec_of(podwire)["natOutgoing"] is True


def test_labels_are_taken_away_in_both_ways(podwire: CommandLine) -> None:
    podwire.done("create", "-f", "-", text=pool())
    podwire.done("label", "ippool", "pods", "rack=1", "row=2")
    shown = podwire.done("label", "ippool", "pods", "rack", "--remove", "--dry-run").out
    assert "-    rack: '1'" in shown
    podwire.done("label", "ippool", "pods", "rack", "row-", "--remove")
    assert podwire.read(keys.pool_key("pods")).metadata.labels == {"zone": "a"}
    for words, problem in (
        (("rack", "--remove"), "has no label rack (it has zone=a)"),
        (("a=b", "--remove"), "write KEY alone"),
        (("=b",), "is no label"),
    ):
        said = podwire("label", "ippool", "pods", *words)
        assert said.code == 64
        assert problem.partition(" (")[0] in said.err


REFUSED = [
    (pool("two", "10.244.7.0/24"), "10.244.7.0/24 of IPPool two overlaps 10.244.0.0/16 of"),
    (pool(cidr="10.9.0.0/16"), "spec.cidr of IPPool pods cannot be changed from 10.244.0.0/16"),
    (pool(blockSize=28), "spec.blockSize of IPPool pods cannot be changed from 26 to 28"),
    (pool("two", "10.9.0.0/28"), "/26 is larger than the pool itself, 10.9.0.0/28"),
    (pool("two", "fd00::/64", ipipMode="Always"), "IPIP carries IPv4 only"),
    (node("two", "192.168.26.1/24"), "192.168.26.1"),
]


@pytest.mark.parametrize("verb", ["apply", "create"])
@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(
    podwire: CommandLine, verb: str, text: str, reason: str
) -> None:
    podwire.done("apply", "-f", "-", text=f"{pool()}\n---\n{node('one', '192.168.26.1/24')}")
    before = podwire.store.list("/")
    said = podwire(verb, "-f", "-", text=text)
    exists = verb == "create" and json.loads(text)["metadata"]["name"] == "pods"
    assert ("exists already" if exists else reason) in said.err
    assert "fix: " in said.err
    own = ("is larger than", "IPIP carries")
    assert said.code == (64 if not exists and any(map(reason.__contains__, own)) else 1)
    assert podwire.store.list("/") == before


@pytest.fixture
def busy(podwire: CommandLine) -> CommandLine:
    """A node with a pod."""
    podwire.done("apply", "-f", "-", text=pool())
    podwire.put(Node(metadata=Metadata(name="n1"), address=ip_interface("192.168.26.1/24")))
    attributes = {"node": "n1", "namespace": "demo", "pod": "web"}
    ipam = IPAM(podwire.store, "n1", SystemClock(), SystemDice(), node_labels={})
    taken = ipam.assign(AssignRequest(handle="net.c1", attributes=attributes))
    endpoint = WorkloadEndpoint(
        metadata=Metadata(name="n1-k8s-web-eth0", namespace="demo"),
        orchestrator="k8s",
        node="n1",
        container_id="c1",
        pod="web",
        endpoint="eth0",
        interface="cali1",
        mac="02:00:00:00:00:01",
        addresses=(ip_interface(f"{taken.address}/32"),),
    )
    podwire.put(endpoint)
    other = replace(endpoint, metadata=Metadata(name="other", namespace="demo"), node="n2")
    podwire.put(other)
    return podwire


def test_a_node_with_pods_is_deleted_only_when_it_is_gone_for_good(busy: CommandLine) -> None:
    before = busy.store.list("/")
    for words in ((), ("--dry-run",)):
        said = busy("delete", "node", "n1", *words)
        assert (said.code, "Node n1 is in use: 1 pod runs there (demo/web)" in said.err) == (
            1,
            True,
        )
        assert "--force" in said.err
    assert busy.done("delete", "node", "n1", "--force", "--dry-run").out == (
        "Node n1 would be deleted\n"
    )
    assert busy.store.list("/") == before
    busy.done("delete", "node", "n1", "--force")
    left = {entry.key for entry in busy.store.list("/calico/resources").entries}
    assert keys.node_key("n1") not in left
    assert keys.endpoint_key("demo", "n1-k8s-web-eth0") not in left
    assert keys.endpoint_key("demo", "other") in left
    assert busy.store.list(keys.HANDLES).entries == ()


def test_a_node_whose_agent_reports_is_alive(busy: CommandLine) -> None:
    now = datetime.now(UTC)
    key = keys.node_status_key("n1")
    report = {"uptime": 5.0, "first_update": True}
    entry = busy.store.create(key, {"time": now.isoformat(), **report})
    said = busy("delete", "node", "n1", "--force")
    assert (said.code, "Node n1 is alive" in said.err) == (1, True)
    assert "stop its agent first" in said.err
    old = (now - timedelta(seconds=91)).isoformat()
    busy.store.update(key, {"time": old, **report}, entry.revision)
    busy.done("delete", "node", "n1", "--force")


def test_deleting_goes_on_behind_what_is_refused(busy: CommandLine) -> None:
    busy.done("create", "-f", "-", text=pool("spare", "10.9.0.0/16"))
    said = busy("delete", "ippool", "pods", "nothing", "spare")
    assert said.code == 1
    assert "IPPool pods is in use: 1 address" in said.err
    assert "IPPool nothing does not exist" in said.err
    assert said.out == "Successfully deleted 1 'IPPool' resource(s)\n"


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("pods", "did you mean WorkloadEndpoint?"),
        ("nosuch", "write one of: IPPool, Node"),
        ("ippol", "did you mean IPPool?"),
        ("nodez", "did you mean Node?"),
        ("workload", "did you mean WorkloadEndpoint?"),
    ],
)
def test_only_a_kind_that_is_near_is_proposed(podwire: CommandLine, word: str, fix: str) -> None:
    assert f"fix: {fix}" in podwire("get", word).err


def test_several_kinds_are_shown_one_after_the_other(podwire: CommandLine) -> None:
    podwire.done("apply", "-f", "-", text=f"{pool()}\n---\n{node('n1', '192.168.26.1/24')}")
    assert podwire.done("get", "nodes,ippools", "-o", "name").out == "node/n1\nippool/pods\n"
    assert "names need one KIND" in podwire("get", "nodes,ippools", "n1").err


def test_a_test_of_a_json_patch_is_told_as_json(podwire: CommandLine) -> None:
    podwire.done("apply", "-f", "-", text=pool(natOutgoing=True))
    for path, what in (("/spec/natOutgoing", "it is true"), ("/spec/other", "there is nothing")):
        change = json.dumps([{"op": "test", "path": path, "value": 1}])
        said = podwire("patch", "ippool", "pods", "-t", "json", "-p", change)
        assert (said.code, f"{path} is to be 1, and {what}" in said.err) == (64, True)


def test_a_boolean_for_a_text_is_told_as_it_is_written(podwire: CommandLine) -> None:
    said = podwire("validate", "-f", "-", text=pool().replace('"a"', "true"))
    assert 'fix: write "true"' in said.err


def test_a_command_that_is_misspelt_is_told_the_nearest(podwire: CommandLine) -> None:
    assert "No such command 'gett'. Did you mean 'get'?" in podwire("gett").err
    assert "Did you mean 'show'?" in podwire("node", "shwo").err
    assert podwire("xyzzy").err.rstrip().endswith("No such command 'xyzzy'.")


def test_the_version_is_shown_with_the_cluster_s(podwire: CommandLine) -> None:
    assert podwire.done("version", "--client").out == f"Client Version:    {__version__}\n"
    podwire.done("apply", "-f", "-", text=pool())
    lines = podwire.done("version").out.splitlines()
    assert lines[1].startswith("Cluster Version:")
    assert lines[-1] == "Cluster Routing:   agent"
