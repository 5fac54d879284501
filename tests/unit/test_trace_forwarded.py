"""Whose rules keep pods' packets from being forwarded, and what is to be typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from podwire.model.kernelstate import KernelState, Missing, NamespaceRef, Read
from podwire.trace.forwarded import complaints

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE = Read("")


def rules(
    *entries: Mapping[str, Any], legacy: str = "", extensions: str = "", unread: bool = False
) -> KernelState:
    return KernelState(
        namespace=NamespaceRef(inode=1, name="n1"),
        nft=Missing("nft is not installed") if unread else Read(entries),
        iptables_legacy=Read(legacy),
        iptables_nft=Read(extensions),
        ipsets=NONE,
    )


def chain(family: str, table: str, name: str, policy: str = "drop") -> dict[str, Any]:
    hook = {"type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    return {"chain": {"family": family, "table": table, "name": name, **hook}}


def rule(family: str, table: str, name: str, handle: int, *expr: Mapping[str, Any]) -> Any:
    place = {"family": family, "table": table, "chain": name, "handle": handle}
    return {"rule": {**place, "expr": list(expr)}}


def by(key: str, name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}}


DOCKER = (
    chain("ip", "filter", "FORWARD"),
    rule("ip", "filter", "FORWARD", 4, {"jump": {"target": "DOCKER-USER"}}),
    rule("ip", "filter", "FORWARD", 5, by("oifname", "docker0"), {"accept": None}),
    rule("ip", "filter", "DOCKER-USER", 6, {"return": None}),
)
LEGACY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
ACCEPTS = (
    rule("ip", "filter", "DOCKER-USER", 7, by("iifname", "cali*"), {"accept": None}),
    rule("ip", "filter", "DOCKER-USER", 8, by("oifname", "cali*"), {"accept": None}),
)


BY_DOCKER = (
    "(iptables -I DOCKER-USER -i cali+ -j ACCEPT; iptables -I DOCKER-USER -o cali+ -j ACCEPT)"
)
BY_LEGACY = BY_DOCKER.replace("iptables", "iptables-legacy").replace("DOCKER-USER", "FORWARD")
BY_NFT = (
    '(nft \'insert rule inet mine fwd iifname "cali*" accept;'
    ' insert rule inet mine fwd oifname "cali*" accept\')'
)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (rules(), None),
        (rules(chain("ip", "filter", "FORWARD", "accept")), None),
        (rules(*ACCEPTS, *DOCKER), None),
        (rules(*DOCKER), f"send and get: filter FORWARD (policy) says drop {BY_DOCKER}"),
        (rules(ACCEPTS[0], *DOCKER), f"get: filter FORWARD (policy) says drop {BY_DOCKER}"),
        (
            rules(chain("inet", "mine", "fwd")),
            f"send and get: mine fwd (policy) says drop {BY_NFT}",
        ),
        (rules(legacy=LEGACY), f"send and get: filter FORWARD (policy) says drop {BY_LEGACY}"),
        (
            rules(unread=True),
            "send and get: nobody can say: nftables rules of n1: nft is not installed",
        ),
    ],
)
def test_who_drops_is_named(state: KernelState, said: str | None) -> None:
    wanted = () if said is None else (f"forwarding what pods {said}",)
    assert complaints(state, "vxlan.calico") == wanted
