"""Which two pods a fault is about: those asked for, or sensible ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.lab.fault_facts import Impossible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.lab.fault import Fault
    from podwire.lab.fault_facts import End

TWO_PODS = "podwire lab apply -f examples/demo-deployment.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the caller named."""

    node: str | None = None
    """The node to be broken."""
    pods: tuple[str, ...] = ()
    """One: the pod whose side is broken (or, of another node than `node`, the other end). Two:
    source and destination."""


def choose_ends(fault: Fault, ends: Sequence[End], wish: Wish) -> tuple[End, End]:
    """Source and destination. By default the first pod, and the first on another node.

    Raises:
        BadInput: a pod that does not exist, or that contradicts the node.
        Impossible: there are not enough pods.
    """
    named = [find_end(ends, pod) for pod in wish.pods]
    near = [end for end in ends if wish.node in {None, end.node}]
    if not near:
        place = "the lab" if wish.node is None else f"node {wish.node}"
        raise Impossible(f"{place} has no pod with a network", fix=TWO_PODS)
    if len(named) == 2:
        source, destination = named
        broken = destination if fault.place.at_destination else source
        if wish.node not in {None, broken.node}:
            side = "destination" if fault.place.at_destination else "source"
            raise BadInput(
                f"{fault.name} breaks the {side}'s node, which is {broken.node}, not {wish.node}",
                fix="leave out --node, or name the pods the other way round",
            )
        return source, destination
    if named and named[0] in near:
        anchor, other = named[0], _other(fault, ends, named[0])
    elif named:
        anchor, other = near[0], named[0]
    else:
        anchor = next((end for end in near if _partners(fault, ends, end)), near[0])
        other = _other(fault, ends, anchor)
        if wish.node is None:
            return anchor, other
    return (other, anchor) if fault.place.at_destination else (anchor, other)


def find_end(ends: Sequence[End], name: str) -> End:
    """The pod called NAMESPACE/NAME, or NAME where there is one of that name.

    Raises:
        BadInput: there is none, or there are several.
    """
    found = [end for end in ends if name in {end.pod, end.pod.partition("/")[2]}]
    if len(found) == 1:
        return found[0]
    if found:
        titles = ", ".join(end.pod for end in found)
        raise BadInput(f"several pods are called {name}", fix=f"write one of {titles}")
    titles = ", ".join(end.pod for end in ends[:5])
    raise BadInput(f"pod {name} does not exist", fix=f"there is {titles}" if titles else TWO_PODS)


def _partners(fault: Fault, ends: Sequence[End], anchor: End) -> list[End]:
    """Who can be at the other end, the best first."""
    away = [end for end in ends if end.node != anchor.node]
    here = [end for end in ends if end.node == anchor.node and end != anchor]
    return away if fault.between_nodes else away + here


def _other(fault: Fault, ends: Sequence[End], anchor: End) -> End:
    partners = _partners(fault, ends, anchor)
    if not partners:
        where = "two pods on different nodes" if fault.between_nodes else "two pods"
        raise Impossible(f"{fault.name} needs {where}", fix=TWO_PODS)
    return partners[0]
