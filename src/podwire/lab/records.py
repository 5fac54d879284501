"""What a lab remembers of its pods, deployments and shape, as values and as JSON."""

from __future__ import annotations

from collections.abc import Mapping  # msgspec reads the annotations at run time
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, TypeVar

import msgspec

from podwire.lab.podspec import Deployment, PodSpec  # as above
from podwire.lab.router import Make
from podwire.lab.topology import Topology
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation, Mode
from podwire.model.resource import no_labels

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """One pod of the lab, from the moment its sandbox is begun."""

    namespace: str
    name: str
    node: str
    spec: PodSpec
    labels: Mapping[str, str] = field(default_factory=no_labels)
    deployment: str | None = None
    """Name of the deployment it belongs to."""
    template: str | None = None
    """Hash of that deployment's template."""
    created: float = 0.0
    """Unix time."""
    uid: str = ""
    container_id: str = ""
    netns: str = ""
    pod_interface: str = "eth0"
    host_interface: str | None = None
    ip: str | None = None
    reason: str | None = None
    """Why it has no network yet."""

    @property
    def title(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one container of a pod is doing."""

    pid: int | None
    """Inside the lab."""
    restarts: int
    exit_code: int | None
    waiting: bool
    """Ended and about to be started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """A pod and its containers."""

    record: PodRecord
    runs: tuple[Run, ...] = ()

    @property
    def phase(self) -> str:
        """Kubernetes' word: Pending, Running, Succeeded or Failed."""
        if self.record.ip is None or not self.runs:
            return "Pending"
        if any(run.pid is not None or run.waiting for run in self.runs):
            return "Running"
        return "Succeeded" if all(run.exit_code == 0 for run in self.runs) else "Failed"

    @property
    def status(self) -> str:
        """What `kubectl get pods` shows: the phase, or what is amiss."""
        if self.phase == "Pending":
            return "ContainerCreating"
        if any(run.waiting for run in self.runs):
            return "CrashLoopBackOff"
        return {"Succeeded": "Completed", "Failed": "Error"}.get(self.phase, self.phase)

    @property
    def ready(self) -> int:
        """How many containers run."""
        return sum(1 for run in self.runs if run.pid is not None)

    @property
    def restarts(self) -> int:
        """How often a container was started again."""
        return sum(run.restarts for run in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonState:
    """The agent or the BIRD of one node, as a process."""

    pid: int | None
    """Inside the lab."""
    wanted: bool
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabState:
    """Everything the keeper knows."""

    topology: Topology
    agents: Mapping[str, DaemonState]
    birds: Mapping[str, DaemonState]
    """Of nodes that have one."""
    pods: tuple[PodState, ...]
    deployments: tuple[Deployment, ...]


def to_json(value: object) -> Any:  # JSON
    """A record as JSON."""
    return msgspec.to_builtins(value, enc_hook=_plain)


def from_json(value: object, kind: type[T]) -> T:
    """JSON back as a record."""
    return msgspec.convert(value, type=kind)


def topology_to_json(topology: Topology) -> dict[str, Any]:
    """A topology as JSON."""
    return {
        "name": topology.name,
        "size": topology.size,
        "encapsulation": topology.encapsulation.value,
        "mode": topology.mode.value,
        "subnets": topology.subnets,
        "pool": str(topology.pool),
        "block_size": topology.block_size,
        "routing": topology.routing.value,
        "tor": None if topology.tor is None else topology.tor.value,
        "reflectors": topology.reflectors,
    }


def topology_from_json(value: dict[str, Any]) -> Topology:
    """JSON back as a topology."""
    return Topology(
        name=value["name"],
        size=value["size"],
        encapsulation=Encapsulation(value["encapsulation"]),
        mode=Mode(value["mode"]),
        subnets=value["subnets"],
        pool=IPv4Network(value["pool"]),
        block_size=value["block_size"],
        routing=Routing(value["routing"]),
        tor=None if value["tor"] is None else Make(value["tor"]),
        reflectors=value["reflectors"],
    )


def state_from_json(value: dict[str, Any]) -> LabState:
    """The keeper's answer to `state`."""
    return LabState(
        topology=topology_from_json(value["topology"]),
        agents={name: from_json(one, DaemonState) for name, one in value["agents"].items()},
        birds={name: from_json(one, DaemonState) for name, one in value["birds"].items()},
        pods=tuple(from_json(pod, PodState) for pod in value["pods"]),
        deployments=tuple(from_json(one, Deployment) for one in value["deployments"]),
    )


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
