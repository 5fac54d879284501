"""Pods and Deployments as values: what a manifest asks for, as far as a lab can carry it out."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # lab.records reads the annotations at run time
from dataclasses import dataclass, field

from podwire.model.resource import no_labels

MOST_REPLICAS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One program of a pod."""

    name: str
    argv: tuple[str, ...] = ()
    """command and args; empty: a pause."""
    environment: Mapping[str, str] = field(default_factory=no_labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A topologySpreadConstraint over nodes."""

    max_skew: int = 1
    hard: bool = True
    """whenUnsatisfiable DoNotSchedule; False is ScheduleAnyway: a wish."""
    selector: Mapping[str, str] = field(default_factory=no_labels)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels is counted; an empty selector counts none."""
        return bool(self.selector) and self.selector.items() <= labels.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What a pod runs, and what it asks of its node."""

    containers: tuple[Container, ...]
    node_name: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=no_labels)
    spread: tuple[Spread, ...] = ()
    restart: bool = True
    """restartPolicy Always or OnFailure; False is Never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod, as written."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    spec: PodSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A number of pods made from one template."""

    namespace: str
    name: str
    replicas: int
    selector: Mapping[str, str]
    labels: Mapping[str, str]
    """Of the template: every pod gets them."""
    spec: PodSpec
