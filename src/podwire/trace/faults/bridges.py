"""Faults of bridges: ports that take no frames, and forwarding entries that lead astray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.case import plain
from podwire.trace.crossing import bridge_of
from podwire.trace.schema import Evidence, Fix, Where
from podwire.trace.segment import entry_of, is_local
from podwire.trace.world import Port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.trace.case import Case
    from podwire.trace.schema import Fault

SETTINGS = {
    "port-isolated": ("bridge.port-isolated", "isolated off"),
    "no-hairpin": ("bridge.hairpin-off", "hairpin on"),
    "port-silent": ("bridge.flooding-off", "flood on bcast_flood on"),
}
"""By the code of the loss: the fault's name, and the setting that would let the frame pass."""


def port_setting(case: Case) -> Fault:
    """A setting of a bridge's port keeps frames from it."""
    name, setting = SETTINGS[case.cause.code]
    command = f"bridge link set dev {case.interface} {setting}"
    fix = Fix(text="if these ports should talk", command=command)
    return case.fault(name, None, case.cause.text, fix=fix)


def port_blocked(case: Case) -> Fault:
    """Spanning tree keeps a port, for a while or for good."""
    fix = Fix(text="spanning tree opens it after its forward delay, unless there is a loop")
    return case.fault("bridge.port-blocked", None, case.cause.text, fix=fix)


def wrong_port(case: Case) -> Fault:
    """The frame came to somebody else: by a forwarding entry, or by an old neighbour entry."""
    mac = case.cause.facts["mac"]
    for port in _bridge_ports(case):
        bridge = bridge_of(port)
        entry = entry_of(bridge, mac)
        if entry is None or entry.device != port.link.index:
            continue
        space, name = port.space, port.link.name
        what = "hands them to its own namespace" if is_local(entry) else f"sends them out of {name}"
        sentence = (
            f"{bridge.link.name} of {space.title} {what}: a forwarding entry says that {mac} is "
            f"there, and {case.cause.where.netns} is somebody else"
        )
        command = f"bridge fdb del {mac} dev {name} master"
        fix = Fix(text="delete the entry: the bridge learns the right port", command=command)
        evidence = (
            Evidence(kind="fdb", key=mac, value=f"dev {name} master {bridge.link.name}",
                     ns=space.title),
        )  # fmt: skip
        where = Where(node=case.world.node_of(space), netns=space.title, interface=name)
        return case.fault("bridge.wrong-port", None, sentence, fix=fix, evidence=evidence,
                          where=where)  # fmt: skip
    return plain(case)


def _bridge_ports(case: Case) -> Iterator[Port]:
    """The bridge ports that may have chosen the way, the last one passed first."""
    for hop in reversed(case.path.hops):
        space = case.world.spaces[hop.inode]
        link = space.links_by_name.get(hop.where.interface or "")
        if link is None:
            continue
        if link.kind == "bridge":
            # It went up: the entry may name any port.
            for port in space.links.values():
                if port.master == link.index:
                    yield Port(space=space, link=port)
        elif hop.role == "port":
            yield Port(space=space, link=link)
