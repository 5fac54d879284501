"""Faults of links: down, or narrower than their packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.case import warning
from podwire.trace.faults import mending
from podwire.trace.schema import Evidence, Fix, Where

if TYPE_CHECKING:
    from podwire.trace.case import Case
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
        return case.fault("link.down", number, sentence, fix=fix, where=place)
    fix = Fix(text="set it up", command=f"ip link set {case.interface} up")
    return case.fault("link.down", None, case.cause.text, fix=fix)


def too_big(case: Case) -> Fault:
    """DF is set and the packet does not fit."""
    mtu, length = case.cause.facts["mtu"], case.cause.facts["length"]
    sentence = (
        f"{length} bytes with DF do not fit: the MTU of {case.interface} on {case.here} is {mtu}"
    )
    muted = mending.muting_rule(case.space) if case.cause.icmp is not None else None
    if muted is not None:
        rule, fix = muted
        sentence += f", and {rule} drops the ICMP error that should tell the sender: a black hole"
        evidence = (Evidence(kind="rule", key="drops ICMP 3/4", value=rule, ns=case.here),)
        return case.fault("mtu.black-hole", 40, sentence, fix=fix, evidence=evidence)
    return case.fault("mtu.too-big", 39, sentence, fix=Fix(text=f"send no more than {mtu} bytes"))


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
    return warning(case.fault("mtu.tunnel-too-large", 38, sentence))
