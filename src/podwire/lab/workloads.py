"""Makes the lab's pods those that manifests ask for: apply, scale, delete."""

from __future__ import annotations

import fcntl
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.errors import BadInput, NotFound, PodwireError
from podwire.lab.control import ask
from podwire.lab.names import replica_name, template_hash
from podwire.lab.podspec import Pod
from podwire.lab.records import PodRecord, state_from_json, to_json
from podwire.lab.sandbox import create_pod, delete_pod
from podwire.lab.schedule import Candidate, Placed, Unplaced, choose_node
from podwire.lab.state import CONTROL, LOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from podwire.lab.manifest import Manifests
    from podwire.lab.podspec import Deployment
    from podwire.lab.records import LabState

AT_ONCE = 8
"""Pods made or deleted at the same time."""


def lab_state() -> LabState:
    """Everything the keeper knows now."""
    return state_from_json(ask(CONTROL, {"do": "state"}))


@contextmanager
def changing() -> Iterator[None]:
    """One command at a time makes or deletes pods; others wait their turn."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Workloads:
    """Carries out commands on pods and deployments, and says what became of each.

    A pod that fails harms only itself: the rest goes on, and `failures` has the reasons.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.failures: list[PodwireError] = []

    def apply(self, manifests: Manifests) -> None:
        """Create or change what the manifests name."""
        for wanted in manifests.objects:
            if isinstance(wanted, Pod):
                self._apply_pod(wanted)
            else:
                self.apply_deployment(wanted)

    def _apply_pod(self, wanted: Pod) -> None:
        state = lab_state()
        title = f"{wanted.namespace}/{wanted.name}"
        old = next((pod.record for pod in state.pods if pod.record.title == title), None)
        if old is not None and (old.spec != wanted.spec or old.labels != wanted.labels):
            raise BadInput(
                f"pod {title} exists and is another one",
                fix=f"podwire lab delete pod/{wanted.name} -n {wanted.namespace}",
            )
        if old is not None and old.ip is not None:
            self._say(f"pod/{wanted.name} unchanged")
            return
        record = old or PodRecord(
            namespace=wanted.namespace,
            name=wanted.name,
            labels=wanted.labels,
            spec=wanted.spec,
            node=_place(state, wanted.namespace, wanted.name, wanted, ()),
        )
        if self._create([record]):
            self._say(f"pod/{wanted.name} created")

    def apply_deployment(self, wanted: Deployment) -> None:
        """Keep a deployment and make its pods so."""
        state = lab_state()
        old = _find(state, wanted.namespace, wanted.name)
        ask(CONTROL, {"do": "keep deployment", "deployment": to_json(wanted)})
        changed = self._reconcile(wanted)
        word = "created" if old is None else "unchanged" if old == wanted else "configured"
        if word == "unchanged" and changed:
            word = "repaired"
        self._say(f"deployment.apps/{wanted.name} {word}")

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Change the number of a deployment's pods."""
        deployment = _get(lab_state(), namespace, name)
        wanted = replace(deployment, replicas=replicas)
        ask(CONTROL, {"do": "keep deployment", "deployment": to_json(wanted)})
        self._reconcile(wanted)
        self._say(f"deployment.apps/{name} scaled")

    def delete_deployment(self, namespace: str, name: str) -> None:
        """Delete a deployment and all its pods."""
        state = lab_state()
        deployment = _get(state, namespace, name)
        self._delete(_pods_of(state, deployment))
        ask(CONTROL, {"do": "forget deployment", "title": f"{namespace}/{name}"})
        self._say(f'deployment.apps "{name}" deleted')

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete a pod; one of a deployment is replaced by another."""
        state = lab_state()
        title = f"{namespace}/{name}"
        record = next((pod.record for pod in state.pods if pod.record.title == title), None)
        if record is None:
            raise NotFound(f"pod {title} does not exist", fix="podwire lab pods -A")
        self._delete([record])
        self._say(f'pod "{name}" deleted')
        owner = _find(state, namespace, record.deployment) if record.deployment else None
        if owner is not None:
            self._reconcile(owner)

    def delete(self, manifests: Manifests) -> None:
        """Delete what the manifests name; what is not there is named and passed over."""
        for named in reversed(manifests.objects):
            try:
                if isinstance(named, Pod):
                    self.delete_pod(named.namespace, named.name)
                else:
                    self.delete_deployment(named.namespace, named.name)
            except NotFound as error:
                self.failures.append(error)

    def _reconcile(self, wanted: Deployment) -> bool:
        """Make the deployment's pods so; whether anything had to be done."""
        state = lab_state()
        template = template_hash(wanted)
        pods = _pods_of(state, wanted)
        current = [record for record in pods if record.template == template]
        outdated = [record for record in pods if record.template != template]
        kept = sorted(current, key=lambda record: (record.ip is None, record.created))
        surplus = kept[wanted.replicas :]
        pending = [record for record in kept[: wanted.replicas] if record.ip is None]
        new = _new_replicas(state, wanted, wanted.replicas - len(kept), gone=outdated + surplus)
        # New ones first: while a template is exchanged the old pods go on serving.
        self._create(pending + new)
        self._delete(outdated + surplus)
        return bool(pending or new or outdated or surplus)

    def _create(self, records: Sequence[PodRecord]) -> bool:
        return self._each(create_pod, records)

    def _delete(self, records: Sequence[PodRecord]) -> bool:
        return self._each(delete_pod, records)

    def _each(self, work: Callable[[PodRecord], object], records: Sequence[PodRecord]) -> bool:
        if not records:
            return True
        before = len(self.failures)
        with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(records))) as pool:
            for future in [pool.submit(work, record) for record in records]:
                try:
                    future.result()
                except PodwireError as error:
                    self.failures.append(error)
        return len(self.failures) == before


def _new_replicas(
    state: LabState, wanted: Deployment, count: int, gone: Sequence[PodRecord]
) -> list[PodRecord]:
    taken = {pod.record.title for pod in state.pods}
    new: list[PodRecord] = []
    while len(new) < count:
        name = replica_name(wanted, secrets.choice)
        title = f"{wanted.namespace}/{name}"
        if title in taken:
            continue
        taken.add(title)
        new.append(
            PodRecord(
                namespace=wanted.namespace,
                name=name,
                labels=wanted.labels,
                spec=wanted.spec,
                deployment=wanted.name,
                template=template_hash(wanted),
                node=_place(state, wanted.namespace, name, wanted, new, gone),
            )
        )
    return new


def _place(
    state: LabState,
    namespace: str,
    name: str,
    wanted: Pod | Deployment,
    also: Sequence[PodRecord],
    gone: Sequence[PodRecord] = (),
) -> str:
    nodes = [Candidate(name=node.name, labels=node.labels) for node in state.topology.nodes]
    leaving = {record.title for record in gone}
    records = [*(pod.record for pod in state.pods), *also]
    placed = [
        Placed(namespace=record.namespace, labels=record.labels, node=record.node)
        for record in records
        if record.title not in leaving
    ]
    pod = Unplaced(
        namespace=namespace,
        name=name,
        labels=wanted.labels,
        spec=wanted.spec,
        owner=f"{wanted.namespace}/{wanted.name}",
    )
    return choose_node(pod, nodes, placed)


def _pods_of(state: LabState, deployment: Deployment) -> list[PodRecord]:
    return [
        pod.record
        for pod in state.pods
        if pod.record.namespace == deployment.namespace and pod.record.deployment == deployment.name
    ]


def _find(state: LabState, namespace: str, name: str) -> Deployment | None:
    return next(
        (one for one in state.deployments if (one.namespace, one.name) == (namespace, name)), None
    )


def _get(state: LabState, namespace: str, name: str) -> Deployment:
    found = _find(state, namespace, name)
    if found is None:
        names = ", ".join(f"{one.namespace}/{one.name}" for one in state.deployments)
        raise NotFound(
            f"deployment {namespace}/{name} does not exist",
            fix=f"there are {names}" if names else "podwire lab apply -f FILE",
        )
    return found
