"""Every verb, version and error through libcni: what a runtime's user gets to see, and that its DEL
leaves nothing."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from podwire.model.cni import VERSIONS
from podwire.model.cnidemand import CAPABILITIES, POD_ANNOTATIONS
from tests.fakes.libcni import LIBRARIES, PLUGINS, Runtime
from tests.kernel.cni_node import (
    CNINode,
    ip,
    links_inside,
    running_node,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.libcni import Told

pytestmark = pytest.mark.peer

POD = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "demo"], ["K8S_POD_NAME", "web-0"]]
CHAINED = {
    "portmap": {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    "bandwidth": {"type": "bandwidth", "capabilities": {"bandwidth": True}},
}
ASKED: dict[str, Any] = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 8_000_000,
                  "egressRate": 8_000_000, "egressBurst": 8_000_000},
}  # fmt: skip


@pytest.fixture(params=LIBRARIES)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Runtime:
    return Runtime(request.param, tmp_path, [name for name in CHAINED if (PLUGINS / name).exists()])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    with running_node(tmp_path) as made:
        yield made


def network(node: CNINode, version: str, *chained: str, **fields: Any) -> dict[str, Any]:
    own = node.config(capabilities=dict.fromkeys(CAPABILITIES, True), **fields)
    del own["cniVersion"], own["name"]
    plugins = [own, *(CHAINED[name] for name in chained)]
    return {"cniVersion": version, "name": "pods", "plugins": plugins}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_life_of_an_attachment(runtime: Runtime, node: CNINode, version: str) -> None:
    listed = network(node, version)
    assert runtime.call("VERSION", listed).result == list(VERSIONS)
    if runtime.library == "older" and version == "1.1.0":
        # It does not know the version: nothing is made, and its own words say why.
        refused = runtime.call("ADD", listed, Args=POD)
        assert "1.1.0" in refused.error
        assert runtime.call("DEL", listed, Args=POD).error == ""
        assert node.leftovers() == {}
        return
    assert runtime.call("validate", listed).error == ""
    added = runtime.call("ADD", listed, Args=POD)
    assert added.error == ""
    assert added.result["cniVersion"] == version
    assert [each["name"] for each in added.result["interfaces"]] == [*node.veths(), "eth0"]
    (address,) = added.result["ips"]
    assert node.allocations() == [address["address"].partition("/")[0]]
    assert runtime.call("cached", listed).result == added.result
    assert runtime.call("ADD", listed, Args=POD).result == added.result
    checked = runtime.call("CHECK", listed, Args=POD)
    assert ("0.3.1" in checked.error) == (version == "0.3.1"), checked
    if version != "0.3.1":
        ip("address", "flush", "dev", "eth0", pod="c1")
        assert runtime.call("CHECK", listed, Args=POD).code == 103
    for _ in range(2):
        assert runtime.call("DEL", listed, Args=POD).error == ""
    assert node.leftovers() == {}
    assert set(links_inside("c1")) == {"lo"}


def test_a_network_of_one_plugin_in_the_older_form(runtime: Runtime, node: CNINode) -> None:
    conf = node.config("0.4.0")
    added = runtime.call("ADD", conf)
    assert added.result["cniVersion"] == "0.4.0"
    assert runtime.call("CHECK", conf).error == ""
    assert runtime.call("DEL", conf).error == ""
    assert node.leftovers() == {}


def expect_refused(told: Told, code: int, *words: str) -> None:
    """The code, the sentence and the fix are all in what the runtime's user reads."""
    assert told.code == code, told
    assert all(word in told.error for word in words), told
    assert "; " in told.error


def exhaust(node: CNINode) -> None:
    node.add_pool("10.9.0.0/32", block_size=32)
    assert node.add("c2", ARGS="IP=10.9.0.0").exit == 0


def occupy(_: CNINode) -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other", pod="c1")


def annotated(**annotations: str) -> dict[str, Any]:
    told = {f"cni.projectcalico.org/{name}": value for name, value in annotations.items()}
    return {"Capabilities": {POD_ANNOTATIONS: told}}


REFUSALS: dict[str, tuple[Callable[[CNINode], None] | None, dict[str, Any], dict[str, Any], Any]]
REFUSALS = {
    "foreign ipam": (None, {"ipam": {"type": "host-local"}}, {}, (7, "host-local", "remove ipam")),
    "bad mtu": (None, {"mtu": 9}, {}, (7, "mtu")),
    "no such pool": (None, {"ipam": {"ipv4_pools": ["x"]}}, {}, (102, "'x'", "does not exist")),
    "a full pool": (exhaust, {"ipam": {"ipv4_pools": ["10.9.0.0/32"]}}, {}, (101, "10-9-0-0-32")),
    "an address in use": (exhaust, {}, annotated(ipAddrs='["10.9.0.0"]'), (101, "default/c2")),
    "a bad annotation": (None, {}, annotated(ipAddrs="10.9.0.0"), (7, "pod demo/web-0", "ipAddrs")),
    "an interface there": (occupy, {}, {}, (100, "eth0 exists")),
    "bad arguments": (None, {}, {"Args": [["K8S_POD_NAME", "a b"], ["K8S_POD_NAMESPACE", "c"]]},
                      (4, "K8S_POD_NAME")),
    "no namespace": (None, {}, {"NetNS": "/run/netns/none"}, (4, "CNI_NETNS", "/run/netns/none")),
    "held": (lambda node: setattr(node, "is_held", True), {}, {}, (11, "held")),
    "away": (lambda node: node.server.stop(), {}, {}, (11, "agent")),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_an_add_is_refused_for(runtime: Runtime, node: CNINode, kind: str) -> None:
    before, fields, how, (code, *words) = REFUSALS[kind]
    if before is not None:
        before(node)
    there = node.leftovers()
    listed = network(node, "1.0.0", **fields)
    asked: dict[str, Any] = {"Args": POD, **how}
    expect_refused(runtime.call("ADD", listed, **asked), code, *words)
    ended = runtime.call("DEL", listed, **{**asked, "Args": POD})
    assert ended.error == ""
    node.is_held = False
    if kind == "away":
        assert node.world.spool.pending()
        node.server = type(node.server)(node.socket, node.attachments, dict)
        node.server.start()
    wait_for(lambda: not node.attachments.drain(), "the spool is drained")
    assert node.leftovers() == there
    assert set(links_inside("c1")) - {"eth0", "other"} == {"lo"}


def test_a_list_the_library_itself_refuses(runtime: Runtime, node: CNINode) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"cniVersion": "9.0.0"},
        {"name": ""},
        {"plugins": []},
    )
    for change in changes:
        told = runtime.call("ADD", {**network(node, "1.0.0"), **change})
        assert told.error
    told = runtime.call("ADD", {**network(node, "1.0.0"), "plugins": [{"type": "none-such"}]})
    assert "none-such" in told.error
    assert node.leftovers() == {}


def test_annotations_arrive_only_where_the_list_declares_them(
    runtime: Runtime, node: CNINode
) -> None:
    asked = annotated(ipAddrs='["10.244.7.9"]')
    listed = network(node, "1.0.0")
    told = runtime.call("ADD", listed, Args=POD, **asked)
    assert told.result["ips"][0]["address"] == "10.244.7.9/32"
    del listed["plugins"][0]["capabilities"]
    told = runtime.call("ADD", listed, "c2", **asked)
    assert told.result["ips"][0]["address"] != "10.244.7.9/32"


# --- chains ---------------------------------------------------------------------------------------


def run(runtime: Runtime, command: str) -> subprocess.CompletedProcess[str]:
    path = f"{runtime.path}:{os.environ['PATH']}"
    return subprocess.run(
        ["env", f"PATH={path}", *command.split()], capture_output=True, text=True, check=False
    )


def require_chain(runtime: Runtime, name: str) -> None:
    """Skip where the kernel or the machine lacks what a chained plugin works with."""
    if not (PLUGINS / name).exists():
        pytest.skip("no Debian package containernetworking-plugins: run scripts/setup test")
    wanted = {
        "portmap": ("iptables -t nat -S",),
        "bandwidth": (
            "ip link add try type ifb",
            "tc qdisc add dev try root tbf rate 1mbit burst 10kb latency 10ms",
            "ip link delete try",
        ),
    }
    if name == "portmap" and not runtime.has_iptables:
        pytest.skip("the plugin portmap needs iptables: run scripts/setup test")
    for command in wanted[name]:
        done = run(runtime, command)
        if done.returncode != 0:
            pytest.skip(f"the plugin {name} needs `{command}`: {done.stderr.strip()}")


@pytest.mark.parametrize("version", VERSIONS[:3])  # Debian's chained plugins end with 1.0.0
@pytest.mark.parametrize("chained", CHAINED)
def test_a_chain(runtime: Runtime, node: CNINode, version: str, chained: str) -> None:
    require_chain(runtime, chained)
    listed = network(node, version, chained)
    asked: dict[str, Any] = {"Args": POD, "Capabilities": ASKED}
    assert runtime.call("validate", listed).error == ""
    added = runtime.call("ADD", listed, **asked)
    assert added.error == ""
    assert added.result["cniVersion"] == version
    names = [each["name"] for each in added.result["interfaces"]]
    assert names[:2] == [*node.veths(), "eth0"]
    assert len(added.result["ips"]) == 1
    look, mark = {
        "portmap": ("iptables -t nat -S", "--dport 8080"),
        "bandwidth": ("tc qdisc show", "tbf"),
    }[chained]
    assert mark in run(runtime, look).stdout
    if version != "0.3.1":
        checked = runtime.call("CHECK", listed, **asked)
        assert checked.error == ""
    assert runtime.call("DEL", listed, **asked).error == ""
    assert mark not in run(runtime, look).stdout
    assert node.leftovers() == {}
    assert "ifb" not in ip("-d", "link")


# --- STATUS and GC --------------------------------------------------------------------------------


@pytest.fixture
def newer(tmp_path: Path) -> Runtime:
    return Runtime("newer", tmp_path)


def test_status(newer: Runtime, node: CNINode) -> None:
    listed = network(node, "1.1.0")
    assert newer.call("STATUS", listed).error == ""
    node.is_held = True
    told = newer.call("STATUS", listed)
    assert (told.code, "held" in told.error) == (50, True)
    node.server.stop()
    assert newer.call("STATUS", listed).code == 50
    node.server = type(node.server)(node.socket, node.attachments, dict)
    node.server.start()


def test_garbage_is_collected(newer: Runtime, node: CNINode) -> None:
    listed = network(node, "1.1.0")
    for container in ("c1", "c2", "c3"):
        assert newer.call("ADD", listed, container).error == ""
    kept = {"containerID": "c2", "ifname": "eth0"}
    assert newer.call("GC", listed, Valid=[kept]).error == ""
    assert len(node.allocations()) == 1
    assert newer.call("CHECK", listed, "c2").error == ""
    assert newer.call("GC", listed, Valid=[]).error == ""
    assert node.leftovers() == {}


def test_older_versions_have_neither(newer: Runtime, node: CNINode) -> None:
    """The library asks no plugin then, so that nothing can be removed by mistake."""
    listed = network(node, "1.0.0")
    assert newer.call("ADD", listed).error == ""
    assert newer.call("STATUS", listed).error == ""
    newer.call("GC", listed, Valid=[{"containerID": "c1", "ifname": "eth0"}])
    assert len(node.allocations()) == 1
