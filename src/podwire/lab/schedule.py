"""Which node a pod goes to: node name, node selector, spread constraints. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.lab.podspec import PodSpec, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node pods can go to."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A pod that already has its node."""

    namespace: str
    labels: Mapping[str, str]
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """A pod that looks for a node."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    spec: PodSpec
    owner: str | None = None
    """The deployment it belongs to, as `namespace/name`."""

    @property
    def title(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


def choose_node(pod: Unplaced, nodes: Sequence[Candidate], placed: Sequence[Placed]) -> str:
    """The node for one pod.

    Hard constraints filter; the soft ones, then the number of pods on a node, order what is left.
    Ties are broken by a hash of deployment (or pod) and node: the same question always has the
    same answer, and different deployments prefer different nodes.

    Raises:
        BadInput: no node satisfies the pod; says which condition left none.
    """
    fitting = _fitting(pod, nodes)
    for spread in pod.spec.spread:
        if spread.hard:
            fitting = _within_skew(pod, spread, fitting, placed)

    def rank(node: Candidate) -> tuple[int, int, bytes]:
        near = sum(_matching(spread, pod, node.name, placed) for spread in pod.spec.spread)
        crowd = sum(1 for other in placed if other.node == node.name)
        return near, crowd, _lot(pod, node.name)

    return min(fitting, key=rank).name


def _fitting(pod: Unplaced, nodes: Sequence[Candidate]) -> list[Candidate]:
    wanted = pod.spec.node_name
    fitting = [node for node in nodes if wanted is None or node.name == wanted]
    if not fitting:
        names = ", ".join(node.name for node in nodes)
        raise BadInput(
            f"pod {pod.title}: nodeName {wanted!r} is not a node of this lab",
            fix=f"its nodes are {names}",
        )
    selector = pod.spec.node_selector
    fitting = [node for node in fitting if selector.items() <= node.labels.items()]
    if not fitting:
        text = ",".join(f"{key}={value}" for key, value in selector.items())
        raise BadInput(
            f"pod {pod.title}: no node has the labels of nodeSelector {text}",
            fix="nodes have kubernetes.io/hostname, kubernetes.io/os, topology.kubernetes.io/zone",
        )
    return fitting


def _within_skew(
    pod: Unplaced, spread: Spread, nodes: Sequence[Candidate], placed: Sequence[Placed]
) -> list[Candidate]:
    counts = {node.name: _matching(spread, pod, node.name, placed) for node in nodes}
    fewest = min(counts.values())
    own = 1 if spread.matches(pod.labels) else 0
    within = [node for node in nodes if counts[node.name] + own - fewest <= spread.max_skew]
    if not within:
        raise BadInput(
            f"pod {pod.title}: every node would exceed maxSkew {spread.max_skew}",
            fix="add nodes, or write whenUnsatisfiable: ScheduleAnyway",
        )
    return within


def _matching(spread: Spread, pod: Unplaced, node: str, placed: Sequence[Placed]) -> int:
    return sum(
        1
        for other in placed
        if other.node == node and other.namespace == pod.namespace and spread.matches(other.labels)
    )


def _lot(pod: Unplaced, node: str) -> bytes:
    return hashlib.sha256(f"{pod.owner or pod.title}:{node}".encode()).digest()
