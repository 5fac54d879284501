"""Which attachment, and which veth, stands behind an endpoint that Calico made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podwire.agent.endpoints import NETWORK_ANNOTATION, LocalEndpoint, LocalEndpoints
from podwire.agent.takeover import NO_NETWORK, attachment_of, unmarked_link
from podwire.model import codec, keys
from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
from podwire.model.link import HOST_MAC, Link
from tests.fakes.calico_etcd import values

NAME = "node--1-k8s-web--0-eth0"
KEY = keys.endpoint_key("default", NAME)
WEB = codec.decode_endpoint(KEY, values("vxlan")[KEY])
ID = WEB.container_id
VETH = Link(
    index=7, name="cali0d7763386da", kind="veth", mac=HOST_MAC, mtu=1450, up=True, carrier=True
)


@pytest.mark.parametrize(
    ("handle", "network"),
    [
        (f"k8s-pod-network.{ID}", "k8s-pod-network"),
        (f"a.network.with.dots.{ID}", "a.network.with.dots"),
        (ID, NO_NETWORK),
        ("default.web-0", NO_NETWORK),
        (f".{ID}", NO_NETWORK),
        (None, NO_NETWORK),
    ],
)
def test_the_handle_tells_the_network(handle: str | None, network: str) -> None:
    assert attachment_of(WEB, handle) == AttachmentKey(
        network=network, container_id=ID, interface="eth0"
    )


def test_what_no_cni_plugin_attached_is_left_alone() -> None:
    assert attachment_of(replace(WEB, orchestrator="libnetwork"), None) is None
    assert attachment_of(replace(WEB, container_id=""), None) is None


@pytest.mark.parametrize(
    ("link", "is_it"),
    [
        (VETH, True),
        (replace(VETH, name="cali00000000000"), False),
        (replace(VETH, kind="dummy"), False),
        (replace(VETH, mac="02:00:00:00:00:01"), False),
        (replace(VETH, alias="podwire other default/web-0 eth0"), False),
        (replace(VETH, alias="a note of somebody's"), False),
    ],
)
def test_only_a_veth_of_that_name_without_a_mark_is_calicos(link: Link, is_it: bool) -> None:
    found = unmarked_link(WEB, (replace(VETH, index=1, name="eth0"), link))
    assert found == (link if is_it else None)


def local(endpoint: WorkloadEndpoint, network: str) -> LocalEndpoint:
    key = AttachmentKey(network=network, container_id=ID, interface="eth0")
    return LocalEndpoint(key=key, endpoint=endpoint)


def test_a_pod_of_calico_is_known_whatever_its_network_is_called_now() -> None:
    asked = AttachmentKey(network="renamed", container_id=ID, interface="eth0")
    theirs = LocalEndpoints()
    theirs.put(local(WEB, "k8s-pod-network"))
    assert theirs.resolve(asked).network == "k8s-pod-network"
    assert theirs.resolve(replace(asked, interface="net1")).network == "renamed"
    assert theirs.resolve(replace(asked, container_id="x")).network == "renamed"
    # One of ours says its network itself, and may have a second one of another name.
    metadata = replace(WEB.metadata, annotations={NETWORK_ANNOTATION: "k8s-pod-network"})
    ours = LocalEndpoints()
    ours.put(local(replace(WEB, metadata=metadata), "k8s-pod-network"))
    assert ours.resolve(asked) == asked
