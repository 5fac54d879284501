"""get, apply, delete and datastore, from the command line down to the file."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from podwire.cli.main import podwire
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import PodwireError
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model import codec, keys
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: one
spec:
  cidr: 10.244.0.0/16
  ipipMode: Always
  natOutgoing: true
"""
ENDPOINT = WorkloadEndpoint(
    metadata=Metadata(name="vms101-k8s-web-eth0", namespace="demo"),
    orchestrator="k8s",
    node="vms101",
    container_id="c1",
    pod="web",
    endpoint="eth0",
    interface="cali12345678901",
    mac="02:00:00:00:00:01",
    addresses=(ip_interface("10.244.0.5/32"),),
)


class Shell:
    """The command line, with a datastore of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SQLiteStore(path)

    def run(self, *arguments: str, text: str | None = None) -> str:
        """Standard output of a command that must succeed."""
        result = CliRunner().invoke(
            podwire, list(arguments), input=text, env={"PODWIRE_DATASTORE": str(self.path)}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    def fails(self, *arguments: str, text: str | None = None) -> str:
        """The message of a command that must fail."""
        with pytest.raises(PodwireError) as error:
            self.run(*arguments, text=text)
        return str(error.value)

    def put(self, value: Any) -> None:
        self.store.create(codec.key_of(value), codec.encode(value))

    def read(self, key: str) -> Any:
        entry = self.store.get(key)
        return None if entry is None else codec.decode(key, entry.value)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "datastore.db")
    yield shell
    shell.store.close()


def applied(shell: Shell, text: str = POOL) -> str:
    return shell.run("apply", "-f", "-", text=text)


def test_a_pool_is_applied_with_defaults_and_shown(shell: Shell) -> None:
    assert applied(shell) == "Successfully applied 1 'IPPool' resource(s)\n"
    pool = shell.read(keys.pool_key("one"))
    assert replace(pool, metadata=Metadata(name="one")) == IPPool(
        metadata=Metadata(name="one"),
        cidr=ip_network("10.244.0.0/16"),
        ipip_mode=pool.ipip_mode,
        nat_outgoing=True,
    )
    assert pool.metadata.uid
    assert pool.metadata.created
    assert shell.run("get", "ippool") == (
        "NAME   CIDR            SELECTOR\none    10.244.0.0/16   all()\n"
    )
    wide = shell.run("get", "IPPools", "one", "-o", "wide").splitlines()
    assert wide[0].split() == [
        *("NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT"),
        *("SELECTOR", "ASSIGNMENTMODE"),
    ]
    assert wide[1].split() == [
        *("one", "10.244.0.0/16", "true", "Always", "Never", "false", "false", "all()"),
        "Automatic",
    ]


def test_what_get_prints_can_be_applied_again(shell: Shell) -> None:
    applied(shell)
    before = shell.read(keys.pool_key("one"))
    for arguments in (("ipp", "one"), ("ipp",)):
        for language in ("yaml", "json"):
            applied(shell, shell.run("get", *arguments, "-o", language))
            assert shell.read(keys.pool_key("one")) == before


def test_json_of_one_is_an_object_and_of_all_a_list(shell: Shell) -> None:
    applied(shell)
    one = json.loads(shell.run("get", "ipp", "one", "-o", "json"))
    assert one["kind"] == "IPPool"
    assert one["metadata"]["resourceVersion"] == "3"
    every = yaml.safe_load(shell.run("get", "ipp", "-o", "yaml"))
    assert every == {
        "kind": "IPPoolList",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {},
        "items": [one],
    }


def test_applying_again_changes_what_may_change(shell: Shell) -> None:
    applied(shell)
    before = shell.read(keys.pool_key("one"))
    applied(shell, POOL.replace("natOutgoing: true", "disabled: true"))
    after = shell.read(keys.pool_key("one"))
    assert (after.disabled, after.nat_outgoing) == (True, False)
    assert (after.metadata.uid, after.metadata.created) == (
        before.metadata.uid,
        before.metadata.created,
    )
    message = shell.fails("apply", "-f", "-", text=POOL.replace("10.244.0.0/16", "10.9.0.0/16"))
    assert message.startswith("<stdin>:6: spec.cidr of IPPool one cannot be changed from 10.244")


def test_an_old_resource_version_is_refused(shell: Shell) -> None:
    applied(shell)
    text = shell.run("get", "ipp", "one", "-o", "yaml")
    applied(shell, POOL.replace("true", "false"))
    message = shell.fails("apply", "-f", "-", text=text)
    assert "IPPool one was changed since it was read (resourceVersion 3)" in message
    assert "get it again" in message


def test_a_file_with_a_fault_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(POOL)
    bad.write_text(
        POOL.replace("one", "two").replace("10.244.0.0/16", "10.244.4.0/24")
        + "---\nkind: Node\napiVersion: projectcalico.org/v3\n"
        "metadata: {name: n}\nspec: {bpg: {}}\n"
    )
    message = shell.fails("apply", "-f", str(good), "-f", str(bad))
    assert message == f"{bad}:13: spec.bpg is unknown (did you mean bgp?)"
    assert shell.store.list("/").entries == ()
    bad.write_text(bad.read_text().replace("bpg", "bgp"))
    message = shell.fails("apply", "-f", str(good), "-f", str(bad))
    assert "10.244.4.0/24 of IPPool two overlaps 10.244.0.0/16 of IPPool one" in message
    assert shell.store.list(keys.RESOURCES + "ippools").entries == ()


def test_a_resource_given_twice_is_refused(shell: Shell) -> None:
    message = shell.fails("apply", "-f", "-", text=f"{POOL}---\n{POOL}")
    assert message == (
        "<stdin>:13: metadata.name one was given before, at <stdin>:4 (keep one of them)"
    )


def test_several_kinds_are_counted_together(shell: Shell) -> None:
    text = f"""{POOL}---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {{name: r}}
spec: {{reservedCIDRs: [10.244.0.0/28]}}
"""
    assert applied(shell, text) == "Successfully applied 2 resource(s)\n"
    assert shell.run("get", "ipreservation", "-o", "wide").split()[-2:] == ["r", "10.244.0.0/28"]


def test_what_agents_wrote_survives_an_apply(shell: Shell) -> None:
    node = Node(
        metadata=Metadata(name="vms101"),
        address=ip_interface("192.168.26.101/24"),
        ipip_tunnel=ip_address("10.244.0.0"),
    )
    shell.put(node)
    applied(
        shell,
        "{kind: Node, apiVersion: projectcalico.org/v3, metadata: {name: vms101,"
        " labels: {zone: a}}, spec: {bgp: {ipv4Address: 192.168.26.101/24}}}",
    )
    assert shell.read(keys.node_key("vms101")) == replace(
        node, metadata=Metadata(name="vms101", labels={"zone": "a"})
    )
    assert shell.run("get", "nodes", "-o", "wide").splitlines()[1].split() == [
        *("vms101", "(64512)", "192.168.26.101/24", "<none>")
    ]


def test_endpoints_are_shown_by_namespace(shell: Shell) -> None:
    shell.put(ENDPOINT)
    other = replace(ENDPOINT, metadata=Metadata(name="x", namespace="default"), pod="")
    shell.put(other)
    assert shell.run("get", "wep").splitlines()[1].split() == [
        *("c1", "vms101", "10.244.0.5/32", "cali12345678901")
    ]
    assert shell.run("get", "wep", "-n", "demo").splitlines()[1].split()[:2] == ["demo", "web"]
    everywhere = shell.run("get", "wep", "-A", "-o", "wide").splitlines()
    assert everywhere[0].split()[:3] == ["NAMESPACE", "NAME", "WORKLOAD"]
    assert [line.split()[0] for line in everywhere[1:]] == ["default", "demo"]
    assert "needs one namespace" in shell.fails("get", "wep", "x", "-A")
    message = shell.fails("get", "wep", ENDPOINT.metadata.name)
    assert "does not exist in namespace default" in message
    assert shell.run("delete", "wep", "x").endswith("1 'WorkloadEndpoint' resource(s)\n")


def test_the_cluster_is_made_by_the_first_apply_and_stays(shell: Shell) -> None:
    applied(shell)
    (row,) = shell.run("get", "clusterinfo").splitlines()[1:]
    assert row.split()[0] == "default"
    assert row.split()[-1] == "true"
    assert shell.read(keys.IPAM_CONFIG_KEY).strict_affinity
    assert "cannot be deleted" in shell.fails("delete", "clusterinfo", "default")


def ipam(shell: Shell, node: str) -> IPAM:
    return IPAM(shell.store, node, SystemClock(), SystemDice(), node_labels={})


def test_a_pool_in_use_is_not_deleted(shell: Shell) -> None:
    applied(shell)
    service = ipam(shell, "vms101")
    for number in range(5):
        service.assign(
            AssignRequest(
                handle=f"net.{number}",
                attributes={"node": "vms101", "namespace": "demo", "pod": f"web-{number}"},
            )
        )
    before = shell.store.list("/")
    message = shell.fails("delete", "ippool", "one")
    assert message.startswith("IPPool one is in use: 5 addresses of 10.244.0.0/16 (demo/web-0, ")
    assert "and 2 more" in message
    assert "disabled: true" in message
    assert shell.store.list("/") == before


def test_an_unused_pool_goes_with_its_empty_blocks(shell: Shell) -> None:
    applied(shell)
    service = ipam(shell, "vms101")
    service.assign(AssignRequest(handle="net.1", attributes={"node": "vms101"}))
    service.release_handle("net.1")
    assert "vms101" in shell.run("get", "blockaffinity")
    assert shell.run("delete", "ippool", "one") == "Successfully deleted 1 'IPPool' resource(s)\n"
    left = [entry.key for entry in shell.store.list("/").entries]
    assert left == [keys.IPAM_CONFIG_KEY, keys.cluster_key(), keys.guard_key("ippools")]


def test_a_pool_taken_into_use_at_the_last_moment_stays_as_it_was(shell: Shell) -> None:
    applied(shell)
    service = ipam(shell, "vms101")
    service.claim_ahead()
    watch = shell.store.watch(keys.POOLS, shell.store.list(keys.POOLS).revision)

    def take_one() -> None:
        watch.wait(30)  # the pool has just been disabled
        entry = shell.store.get(shell.store.list(keys.BLOCKS4).entries[0].key)
        assert entry is not None
        block = codec.decode_block(entry.key, entry.value)
        from podwire.model.block import Allocation

        taken = replace(
            block,
            allocations={0: Allocation(handle="net.1", attributes={"pod": "late"})},
            unallocated=block.unallocated[1:],
        )
        shell.store.update(entry.key, codec.encode(taken), entry.revision)

    thread = threading.Thread(target=take_one)
    thread.start()
    message = shell.fails("delete", "ippool", "one")
    thread.join()
    watch.close()
    assert "in use: 1 address of 10.244.0.0/16 (default/late)" in message
    assert not shell.read(keys.pool_key("one")).disabled
    assert shell.store.list(keys.AFFINITIES).entries != ()


def test_deleting_what_is_not_there(shell: Shell) -> None:
    applied(shell)
    message = shell.fails("delete", "ippool", "two")
    assert message.startswith("IPPool two does not exist (see what there is: podwire get ippool")
    assert "No resource was there" in shell.run("delete", "ippool", "two", "-s")
    assert shell.run("delete", "-f", "-", text=POOL).endswith("1 'IPPool' resource(s)\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("get", "ipool"), "there is no kind 'ipool' (did you mean IPPool?)"),
        (("get", "quark"), "there is no kind 'quark' (write one of: IPPool, Node"),
        (("delete", "ippool"), "no resource was named"),
        (("delete", "ippool", "one", "-f", "-"), "give either KIND and NAME, or -f FILE"),
        (("delete", "blockaffinity", "x"), "cannot be deleted: the agents claim blocks"),
        (("apply",), "no file was given"),
        (("apply", "-f", "/nowhere.yaml"), "/nowhere.yaml: there is no such file"),
        (("delete", "-f", "-"), "<stdin>: there is no document in it"),
        (("datastore", "get", "/calico/nothing"), "there is nothing under /calico/nothing"),
    ],
)
def test_what_makes_no_sense_is_said_with_a_way_out(
    shell: Shell, arguments: tuple[str, ...], complaint: str
) -> None:
    applied(shell)
    assert complaint in shell.fails(*arguments)


def test_a_broken_object_harms_only_its_own_line(shell: Shell) -> None:
    applied(shell)
    shell.store.create(keys.pool_key("broken"), {"spec": {"cidr": "banana"}})
    result = CliRunner().invoke(
        podwire, ["get", "ippool"], env={"PODWIRE_DATASTORE": str(shell.path)}
    )
    assert result.exit_code == 1
    assert "one" in result.stdout
    assert "'banana' is not a network" in result.stderr


def test_a_broken_object_can_be_applied_over_and_deleted(shell: Shell) -> None:
    for name in ("one", "two"):
        shell.store.create(keys.pool_key(name), {"spec": {"cidr": "banana"}})
    assert applied(shell).startswith("Successfully applied 1")
    assert shell.read(keys.pool_key("one")).cidr == ip_network("10.244.0.0/16")
    assert shell.run("delete", "ippool", "two").startswith("Successfully deleted 1")


def test_the_datastore_is_listed_with_values_and_revisions(shell: Shell) -> None:
    applied(shell)
    shell.put(ENDPOINT)
    listed = json.loads(shell.run("datastore", "list", "/calico/", "-o", "json"))
    assert [item["key"] for item in listed] == [e.key for e in shell.store.list("/calico/").entries]
    assert all(type(item["modRevision"]) is int for item in listed)
    assert listed[-1]["value"] == codec.encode(ENDPOINT)
    plain = shell.run("datastore", "list", keys.POOLS)
    assert plain.splitlines()[1].split()[:2] == [keys.pool_key("one"), "3"]
    value = json.loads(shell.run("datastore", "get", keys.pool_key("one")))
    assert value["spec"]["cidr"] == "10.244.0.0/16"
    assert json.loads(shell.run("datastore", "list", "/nothing/", "-o", "json")) == []


def test_looking_at_a_datastore_that_is_not_there_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    result = CliRunner().invoke(podwire, ["get", "ippool", "--datastore", str(path)])
    assert f"there is no datastore {path}" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_agent_s_configuration_names_the_datastore(shell: Shell, tmp_path: Path) -> None:
    applied(shell)
    config = tmp_path / "podwire.yaml"
    config.write_text(f"datastore:\n  type: sqlite\n  path: {shell.path}\n")
    result = CliRunner().invoke(podwire, ["get", "ippool"], env={"PODWIRE_CONFIG": str(config)})
    assert "10.244.0.0/16" in result.stdout
