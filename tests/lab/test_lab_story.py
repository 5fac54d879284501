"""The story comes true: names, blocks, both sides of the cable, the routes of both nodes."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.lab.topology import STORY_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.conftest import Lab

EXAMPLES = Path(__file__).parents[2] / "examples"
SENDER, RECEIVER = "demo-deployment-6cbdbd86d5-nm467", "demo-deployment-6cbdbd86d5-fbt9d"
HOST = {SENDER: "cali7a4b00317e6", RECEIVER: "cali39888f400bd"}
NODE = {SENDER: "vms103", RECEIVER: "vms105"}


@pytest.fixture(scope="module")
def story(new_lab: Callable[..., Lab]) -> Lab:
    lab = new_lab()
    lab.run("apply", "-f", str(EXAMPLES / "story-pods.yaml"))
    return lab


def pod(lab: Lab, name: str) -> dict[str, Any]:
    return next(one for one in lab.pods() if one["name"] == name)


def test_each_node_holds_its_block(story: Lab) -> None:
    blocks = {node["name"]: node["blocks"] for node in story.status()["nodes"]}
    assert blocks == {name: [str(block)] for name, block in STORY_BLOCKS.items()}


@pytest.mark.parametrize("name", [SENDER, RECEIVER])
def test_the_pods_have_the_storys_names(story: Lab, name: str) -> None:
    found = pod(story, name)
    assert (found["node"], found["hostInterface"]) == (NODE[name], HOST[name])
    assert found["labels"] == {"app": "os"}
    assert ip_address(found["ip"]) in STORY_BLOCKS[NODE[name]]


@pytest.mark.parametrize("name", [SENDER, RECEIVER])
def test_inside_a_pod(story: Lab, name: str) -> None:
    (eth0,) = json.loads(story.inside(f"demo/{name}", "ip -j addr show eth0"))
    (address,) = [one for one in eth0["addr_info"] if one["family"] == "inet"]
    assert (address["local"], address["prefixlen"]) == (pod(story, name)["ip"], 32)
    routes = story.inside(f"demo/{name}", "ip route").split("\n")
    assert [line.strip() for line in routes if line] == [
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1 dev eth0 scope link",
    ]


@pytest.mark.parametrize("name", [SENDER, RECEIVER])
def test_the_host_side_of_the_cable(story: Lab, name: str) -> None:
    interface = HOST[name]
    (link,) = json.loads(story.on(NODE[name], f"ip -j addr show {interface}"))
    assert link["address"] == "ee:ee:ee:ee:ee:ee"
    assert [one for one in link["addr_info"] if one["family"] == "inet"] == []
    proxy = story.on(NODE[name], f"cat /proc/sys/net/ipv4/conf/{interface}/proxy_arp")
    assert proxy.strip() == "1"
    here = story.on(NODE[name], f"cat /sys/class/net/{interface}/ifindex")
    there = story.inside(f"demo/{name}", "cat /sys/class/net/eth0/iflink")
    assert here == there


@pytest.mark.parametrize("name", [SENDER, RECEIVER])
def test_the_routes_of_a_node(story: Lab, name: str) -> None:
    node = NODE[name]
    status = story.status()
    device = {"vxlan": "vxlan.calico", "ipip": "tunl0"}[status["encapsulation"]]
    routes = {route["dst"]: route for route in json.loads(story.on(node, "ip -j route"))}
    assert routes["default"]["gateway"] == "192.168.26.2"
    assert routes["192.168.26.0/24"]["dev"] == "ens32"
    assert routes[str(STORY_BLOCKS[node])]["type"] == "blackhole"
    assert routes[pod(story, name)["ip"]]["dev"] == HOST[name]
    assert routes[pod(story, name)["ip"]]["scope"] == "link"
    for other, block in STORY_BLOCKS.items():
        if other != node:
            assert routes[str(block)]["dev"] == device
            assert "onlink" in routes[str(block)]["flags"]
    ours = {text for text in routes if text != "default" and "/" in text}
    assert ours == {"192.168.26.0/24"} | {str(block) for block in STORY_BLOCKS.values()}


def test_the_ping(story: Lab) -> None:
    target = pod(story, RECEIVER)["ip"]
    said = story.inside(f"demo/{SENDER}", f"ping -c 3 -i 0.2 {target}")
    assert said.count("ttl=62") == 3
    assert " 0% packet loss" in said


def test_everybody_reaches_everybody(story: Lab) -> None:
    assert story.ping_all() == []


def test_podwire_inside_the_lab_uses_its_datastore(story: Lab) -> None:
    said = story.on("vms103", "podwire get workloadendpoints -A -o json")
    assert SENDER in said
    listed = json.loads(story.on("vms103", "podwire datastore list /calico -o json"))
    assert any("ippools" in one["key"] for one in listed)


def test_a_manual_call_of_the_plugin(story: Lab) -> None:
    node = story.node("vms106")
    call = f"""
        set -e
        ip netns add by-hand
        export CNI_CONTAINERID=byhand CNI_NETNS=/run/netns/by-hand CNI_IFNAME=eth0
        export CNI_PATH={node["cniBinDir"]}
        conf=$({EXTRACT} {node["cniConfig"]})
        echo "$conf" | CNI_COMMAND=ADD {node["cniBinDir"]}/podwire-cni
        ip -n by-hand -j addr show eth0 >&2
        echo "$conf" | CNI_COMMAND=DEL {node["cniBinDir"]}/podwire-cni
        ip netns del by-hand
    """
    result = json.loads(story.on("vms106", call))
    address = result["ips"][0]["address"]
    assert ip_interface(address).ip in STORY_BLOCKS["vms106"]


EXTRACT = (
    "python3 -c 'import json,sys; c=json.load(open(sys.argv[1])); "
    'print(json.dumps({**c["plugins"][0], "cniVersion": c["cniVersion"], "name": c["name"]}))\''
)
