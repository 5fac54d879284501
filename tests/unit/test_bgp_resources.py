"""BGP resources: Calico's JSON, and what is refused, with its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from podwire.cli.main import podwire
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import BadInput, PodwireError
from podwire.model import codec, keys
from podwire.model.bgp import BGPPeer, NextHopMode, SecretKey
from podwire.model.bgpcodec import parse_peer_address
from podwire.model.resourcecodec import parse_duration
from podwire.model.validate import check_document

if TYPE_CHECKING:
    from pathlib import Path

V3 = "projectcalico.org/v3"


def resource(kind: str, name: str = "default", notes: Any = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name} if notes is None else {"name": name, "annotations": notes}
    return {"kind": kind, "apiVersion": V3, "metadata": metadata, "spec": spec}


CONFIGURATION = resource(
    "BGPConfiguration",
    notes={"podwire.io/hold-time": "30s", "podwire.io/keepalive-time": "10s"},
    logSeverityScreen="Info",
    nodeToNodeMeshEnabled=True,
    asNumber=63400,
    listenPort=178,
    bindMode="NodeIP",
    communities=[{"name": "racks", "value": "63400:300:100"}],
    prefixAdvertisements=[{"cidr": "10.244.0.0/16", "communities": ["racks", "63400:7"]}],
    nodeMeshPassword={"secretKeyRef": {"name": "bgp-secrets", "key": "mesh"}},
    nodeMeshMaxRestartTime="2m0s",
    ignoredInterfaces=["docker0", "br-*"],
    serviceClusterIPs=[{"cidr": "10.96.0.0/12"}],
)
PEER = resource(
    "BGPPeer",
    "tor",
    nodeSelector="rack == 'a'",
    peerIP="192.168.1.1:1790",
    asNumber="64512.1",
    password={"secretKeyRef": {"name": "bgp-secrets", "key": "tor"}},
    sourceAddress="UseNodeIP",
    maxRestartTime="1m30s",
    keepaliveTime="5s",
    keepOriginalNextHop=True,
    numAllowedLocalASNumbers=1,
    ttlSecurity=1,
    reachableBy="10.0.0.254",
    filters=["first", "second"],
    reversePeering="Manual",
)
FILTER = resource(
    "BGPFilter",
    "first",
    exportV4=[
        {
            "cidr": "10.244.0.0/16",
            "matchOperator": "In",
            "prefixLength": {"min": 24},
            "source": "RemotePeers",
            "interface": "eth*",
            "peerType": "eBGP",
            "communities": {"values": ["64512:1"]},
            "asPathPrefix": [64512, "0.64513"],
            "priority": 512,
            "action": "Accept",
            "operations": [
                {"addCommunity": {"value": "64512:2:3"}},
                {"prependASPath": {"prefix": [64512]}},
                {"setPriority": {"value": 7}},
            ],
        },
        {"action": "Reject"},
    ],
    importV6=[{"cidr": "fd00::/8", "matchOperator": "NotIn", "action": "Reject"}],
)
KEYS = {
    "BGPConfiguration": keys.bgp_configuration_key("default"),
    "BGPPeer": keys.bgp_peer_key("tor"),
    "BGPFilter": keys.bgp_filter_key("first"),
}


@pytest.mark.parametrize("wire", [CONFIGURATION, PEER, FILTER], ids=lambda wire: wire["kind"])
def test_what_calico_wrote_is_read_and_written_back_unchanged(wire: dict[str, Any]) -> None:
    key = KEYS[wire["kind"]]
    value = codec.decode(key, wire)
    assert codec.encode(value) == wire
    assert codec.key_of(value) == key
    assert check_document(wire) == []


def test_a_peer_means_what_it_means_there() -> None:
    peer = codec.decode_bgp_peer(KEYS["BGPPeer"], PEER)
    assert isinstance(peer, BGPPeer)
    assert (str(peer.address), peer.port, peer.as_number) == (
        "192.168.1.1",
        1790,
        2**16 * 64512 + 1,
    )
    assert peer.next_hop_mode is NextHopMode.KEEP
    assert (peer.restart_s, peer.keepalive_s, peer.reverse) == (90, 5, False)
    assert peer.password == SecretKey(name="bgp-secrets", key="tor")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:179", ("10.0.0.1", 179)),
        ("fd00::1", ("fd00::1", None)),
        ("[fd00::1]:1790", ("fd00::1", 1790)),
    ],
)
def test_a_peer_has_a_port_or_none(text: str, read: tuple[str, int | None]) -> None:
    address, port = parse_peer_address(text)
    assert (str(address), port) == read


def test_times_are_read_as_go_writes_them() -> None:
    assert [parse_duration(t) for t in ("9s", "1m30s", "2m0s", "1h")] == [9, 90, 120, 3600]


RULE = {"action": "Accept"}
TEN = {"cidr": "10.0.0.0/8"}


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (resource("BGPConfiguration", asNumber=0), "spec.asNumber is 0"),
        (resource("BGPConfiguration", asNumber="big"), "spec.asNumber must be a whole number"),
        (resource("BGPConfiguration", listenPort=0), "spec.listenPort is 0"),
        (resource("BGPConfiguration", "mine"), "metadata.name 'mine' is no BGPConfiguration's"),
        (resource("BGPConfiguration", "node.n1", asNumber=1), "spec.asNumber is the same on all"),
        (
            resource(
                "BGPConfiguration",
                prefixAdvertisements=[{"cidr": "10.0.0.0/8", "communities": ["x"]}],
            ),
            r"spec.prefixAdvertisements\[0\].communities\[0\] 'x' is neither",
        ),
        (
            resource("BGPConfiguration", communities=[{"name": "a", "value": "1:99999"}]),
            r"spec.communities\[0\].value: '1:99999' is no community",
        ),
        (
            resource("BGPConfiguration", notes={"podwire.io/hold-time": "2s"}),
            "podwire.io/hold-time is 2s",
        ),
        (resource("BGPPeer"), "spec.peerIP is missing"),
        (resource("BGPPeer", peerIP="10.0.0.300", asNumber=1), "spec.peerIP: peer '10.0.0.300'"),
        (resource("BGPPeer", peerIP="10.0.0.1:x", asNumber=1), "spec.peerIP: .*has no port"),
        (resource("BGPPeer", peerIP="10.0.0.1", asNumber=2**32 - 1), "spec.asNumber is 4294967295"),
        (resource("BGPPeer", peerIP="10.0.0.1", peerSelector="all()"), "is given beside peerIP"),
        (resource("BGPPeer", peerSelector="rack = 'a'"), "spec.peerSelector: selector"),
        (resource("BGPPeer", nodeSelector="rack ==", peerIP="10.0.0.1"), "spec.nodeSelector: sel"),
        (resource("BGPPeer", node="a", nodeSelector="all()", peerIP="1.1.1.1"), "beside node"),
        (resource("BGPPeer", peerIP="1.1.1.1", keepaliveTime="soon"), "'soon' is no time"),
        (resource("BGPPeer", peerIP="1.1.1.1", keepaliveTime="0s"), "spec.keepaliveTime is 0s"),
        (resource("BGPPeer", peerIP="1.1.1.1", maxRestartTime="2h"), "spec.maxRestartTime is 2h"),
        (resource("BGPPeer", peerIP="1.1.1.1", ttlSecurity=256), "spec.ttlSecurity is 256"),
        (
            resource("BGPPeer", peerIP="1.1.1.1", password={"secretKeyRef": {"name": "../x"}}),
            "secretKeyRef.key is missing",
        ),
        (
            resource(
                "BGPPeer", peerIP="1.1.1.1", password={"secretKeyRef": {"name": "../x", "key": "k"}}
            ),
            "'../x' cannot be part of a file's name",
        ),
        (resource("BGPFilter", importV4=[{}]), r"spec.importV4\[0\].action is missing"),
        (resource("BGPFilter", importV4=[{"action": "Drop"}]), "action 'Drop' is unknown"),
        (resource("BGPFilter", importV4=[{**RULE, "cidr": "fd00::/8"}]), "not an IPv4 network"),
        (resource("BGPFilter", exportV6=[{**RULE, "cidr": "10.0.0.0/8"}]), "not an IPv6 network"),
        (resource("BGPFilter", importV4=[{**RULE, "cidr": "10.0.0.0/8"}]), "matchOperator is miss"),
        (
            resource(
                "BGPFilter",
                importV4=[
                    {
                        **RULE,
                        "cidr": "10.0.0.0/8",
                        "matchOperator": "In",
                        "prefixLength": {"max": 7},
                    }
                ],
            ),
            "prefixLength.max is 7",
        ),
        (resource("BGPFilter", importV4=[{**RULE, "interface": 'a" ; b'}]), "no interface name"),
        (
            resource("BGPFilter", exportV4=[{"action": "Reject", "operations": [{}]}]),
            "operations are given for a route that is rejected",
        ),
        (
            resource("BGPFilter", exportV4=[{**RULE, "operations": [{}]}]),
            r"operations\[0\] must be one operation",
        ),
        (
            resource("BGPFilter", exportV4=[{**RULE, "communities": {"values": []}}]),
            "has 0 members",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(document: Any, fault: str) -> None:
    faults = check_document(document)
    assert faults
    told = "\n".join(str(each) for each in faults)
    assert re.search(fault, told), told
    assert all(each.fix or "must" in each.problem or "missing" in each.problem for each in faults)


NODES = """\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1, labels: {rack: a}}
spec: {bgp: {ipv4Address: 10.0.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 10.0.0.2/24}}
"""


class Shell:
    """The command line, with a datastore and an agent's configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "datastore.db"
        self.secrets = folder / "secrets"
        self.config = folder / "podwire.yaml"
        self.config.write_text(f"datastore: {{path: {self.store}}}\nsecretsDir: {self.secrets}\n")

    def run(self, *words: str, text: str | None = None) -> str:
        environment = {"PODWIRE_CONFIG": str(self.config)}
        result = CliRunner().invoke(podwire, list(words), input=text, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    def apply(self, text: str) -> str:
        return self.run("apply", "-f", "-", text=text)

    def refuses(self, text: str) -> str:
        with pytest.raises(PodwireError) as error:
            self.apply(text)
        return str(error.value)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.apply(NODES)
    return shell


def peer(spec: str) -> str:
    return f"""\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: p
spec:
{spec}"""


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("  peerIP: 10.0.0.9\n", "<stdin>:5: spec.asNumber is missing: .* 10.0.0.9 is unknown"),
        ("  node: n1\n  peerIP: 10.0.0.1\n", "<stdin>:7: spec.peerIP is node n1's own address"),
        ("  nodeSelector: rack == 'a'\n  peerIP: 10.0.0.1\n", "<stdin>:7: .* own address"),
        (
            "  peerIP: 10.0.0.9\n  asNumber: 1\n  filters:\n  - f\n",
            r"<stdin>:9: spec.filters\[0\] names BGPFilter f, which does not exist",
        ),
        (
            "  peerIP: 10.0.0.9\n  asNumber: 1\n  password: {secretKeyRef: {name: bgp, key: t}}\n",
            "<stdin>:8: spec.password.secretKeyRef: password bgp/t: there is no file",
        ),
    ],
)
def test_a_peer_that_cannot_work_is_refused_with_file_line_and_field(
    shell: Shell, spec: str, complaint: str
) -> None:
    told = shell.refuses(peer(spec))
    assert re.search(complaint, told), told
    assert shell.run("get", "bgppeer") == "NAME   PEERIP   NODE   ASN\n"


def test_a_peer_that_is_a_node_needs_no_as_number(shell: Shell) -> None:
    shell.apply(peer("  node: n1\n  peerIP: 10.0.0.2\n"))
    assert "10.0.0.2" in shell.run("get", "bgppeer")


def test_the_filter_may_come_in_the_same_file(shell: Shell) -> None:
    filters = (
        "---\napiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: f}\n"
        "spec: {exportV4: [{action: Accept}]}\n"
    )
    shell.apply(peer("  peerIP: 10.0.0.9\n  asNumber: 1\n  filters: [f]\n") + filters)
    assert shell.run("get", "bgpfilter", "-o", "wide").split() == [
        *("NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"),
        *("f", "1", "0", "0", "0"),
    ]


def test_a_password_is_for_root_alone(shell: Shell) -> None:
    spec = "  peerIP: 10.0.0.9\n  asNumber: 1\n  password: {secretKeyRef: {name: bgp, key: tor}}\n"
    (shell.secrets / "bgp").mkdir(parents=True)
    secret = shell.secrets / "bgp" / "tor"
    secret.write_text("geheim\n")
    secret.chmod(0o644)
    assert "is open to others (mode 0644" in shell.refuses(peer(spec))
    secret.chmod(0o600)
    shell.apply(peer(spec))
    secret.write_text('with "quotes"\n')
    assert "has a quote" in shell.refuses(peer(spec))


def test_two_nodes_with_one_address_are_refused(shell: Shell) -> None:
    twin = NODES.split("---")[1].replace("n2", "n3")
    assert "<stdin>:5: spec.bgp.ipv4Address 10.0.0.2 is the address of node n2" in shell.refuses(
        twin
    )
    moved = NODES.replace("n1", "n4").replace("n2", "n5").replace("10.0.0.1", "10.0.0.9")
    assert "is the address of node n2 already" in shell.refuses(moved)


def test_nothing_of_a_configuration_is_lost_by_showing_and_applying_it(shell: Shell) -> None:
    shell.apply(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n"
        "spec: {asNumber: 63400, nodeToNodeMeshEnabled: false, listenPort: 1179}\n"
    )
    shown = shell.run("get", "bgpconfig", "default", "-o", "yaml")
    shell.apply(shown)
    assert shell.run("get", "bgpconfig").split()[4:] == ["default", "<none>", "false", "63400"]
    store = SQLiteStore(shell.store)
    entry = store.get(KEYS["BGPConfiguration"])
    store.close()
    assert entry is not None
    assert entry.value["spec"] == {
        "asNumber": 63400,
        "nodeToNodeMeshEnabled": False,
        "listenPort": 1179,
    }


@pytest.mark.parametrize("way", ["netns:vms101", "pid:1", "local", "agent:/run/a.sock", "vms101"])
def test_routes_are_asked_of_nodes_with_a_configuration_of_their_own(
    shell: Shell, way: str
) -> None:
    with pytest.raises(BadInput, match="leads to no other host"):
        shell.run("bgp", "routes", "--node", way)
