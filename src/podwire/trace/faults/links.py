"""Faults of links: down, or narrower than their packets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.model.overlay import IPIP_OVERHEAD, VXLAN_OVERHEAD
from podwire.trace.case import Case, plain, warning
from podwire.trace.faults import mending, policies
from podwire.trace.schema import Evidence, Fix, Where

if TYPE_CHECKING:
    from podwire.trace.schema import Fault


def link_down(case: Case) -> Fault:
    """A veth, or its other end, is down."""
    for pod in case.world.pods.values():
        space = case.world.spaces.get(pod.inode or 0)
        inner = None if space is None else space.links_by_name.get(pod.interface)
        names = {(pod.host.space.inode, pod.host.link.name), (pod.inode, pod.interface)}
        if (case.cause.inode, case.cause.where.interface) not in names:
            continue
        if not pod.host.link.up:
            name, where, number = pod.host.link.name, pod.host.space.title, 9
        elif inner is not None and not inner.up:
            name, where, number = inner.name, pod.title, 49
        else:
            break
        sentence = f"{name} of {where} is down (administratively)"
        fix = mending.link_up(case, pod, name, inside=where == pod.title)
        node = case.world.node_of(pod.host.space)
        place = Where(node=node, netns=where, interface=name)
        down = Evidence(kind="link", key=name, value="down", expected="up", ns=where)
        return case.fault("link.down", number, sentence, fix=fix, evidence=(down,), where=place)
    fix = Fix(text="set it up", command=f"ip link set {case.interface} up")
    return case.fault("link.down", None, case.cause.text, fix=fix)


def too_big(case: Case) -> Fault:
    """DF is set and the packet does not fit."""
    mtu, length = case.cause.facts["mtu"], case.cause.facts["length"]
    sentence = (
        f"{length} bytes with DF do not fit: the MTU of {case.interface} on {case.here} is {mtu}"
    )
    muted = _muted(case)
    if muted is not None:
        sentence += (
            ", and the ICMP error that should tell the sender does not reach it, a black hole: "
            f"{muted.sentence}"
        )
        here = muted.where.netns == case.here
        return replace(
            case.fault("mtu.black-hole", 40, sentence, evidence=muted.evidence),
            where=case.cause.where if here else muted.where,
            fix=muted.fix and replace(muted.fix, text="let the sender be told"),
        )
    text = (
        f"send no more than {mtu} bytes: ICMP {case.cause.icmp} tells the sender, which then does"
        if case.path.complaint is not None
        else f"send no more than {mtu} bytes"
    )
    return case.fault("mtu.too-big", 39, sentence, fix=Fix(text=text))


def _muted(case: Case) -> Fault | None:
    """Why the error about the size does not come back to the sender; None when it does."""
    back = case.path.complaint
    if back is None or back.cause is None:
        return None
    loss = Case(world=case.world, path=back, cause=back.cause, destination=None)
    return policies.rule(loss) if back.cause.code.startswith("rule-") else plain(loss)


def peer_mtu(case: Case) -> Fault:
    """The two ends of a veth differ in their MTU: lost without a word."""
    sentence = f"{case.cause.text}: dropped without an ICMP error"
    wide = case.path.hops[-1].mtu
    fix = None
    if wide is not None and case.interface in case.space.links_by_name:
        command = f"ip link set {case.interface} mtu {wide}"
        fix = Fix(text="give both ends the same MTU", command=command)
    return case.fault("mtu.ends-differ", None, sentence, fix=fix)


def outer_fragments(case: Case) -> Fault:
    """Full packets are cut outside the tunnel."""
    mtu, length = case.cause.facts["mtu"], case.cause.facts["length"]
    sentence = (
        f"works, but full packets are cut: {length} bytes with the tunnel's header, "
        f"{case.interface} of {case.here} takes {mtu}"
    )
    fix = _narrower(case, int(mtu))
    return warning(case.fault("mtu.tunnel-too-large", 38, sentence, fix=fix))


def _narrower(case: Case, mtu: int) -> Fix | None:
    """The tunnel device at this place with an MTU that leaves room for its header."""
    tunnel = next(
        (
            case.space.links_by_name[str(hop.where.interface)]
            for hop in case.path.hops
            if hop.inode == case.space.inode and (hop.role, hop.side) == ("tunnel", "out")
        ),
        None,
    )
    if tunnel is None:
        return None
    room = mtu - (VXLAN_OVERHEAD if tunnel.kind == "vxlan" else IPIP_OVERHEAD)
    text = f"give the tunnel an MTU of {room}, and new pods too: or a wire that takes more"
    return Fix(text=text, command=f"ip link set {tunnel.name} mtu {room}")
