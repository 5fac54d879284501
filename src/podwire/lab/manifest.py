"""Manifests: Kubernetes' Pod and Deployment, as far as a lab can carry them out. Pure.

What the lab understands becomes a value. What Kubernetes knows and the lab leaves out is a warning
that names the field; what nobody knows is an error that names the nearest right word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.drivers.yamltree import Spot, read_documents
from podwire.lab.podspec import MOST_REPLICAS, Container, Deployment, Pod, PodSpec, Spread
from podwire.model.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTNAME = "kubernetes.io/hostname"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_DOCUMENT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_METADATA_IGNORED = frozenset(
    {"annotations", "creationTimestamp", "generation", "resourceVersion", "uid", "managedFields"}
)
_QUIETLY_IGNORED = frozenset({"image", "imagePullPolicy", "terminationGracePeriodSeconds"})
"""Every manifest has these, and a lab has no images: a warning each time would teach nothing."""
_POD_IGNORED = frozenset(
    {
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostUsers",
        "hostname",
        "imagePullSecrets",
        "initContainers",
        "os",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "readinessGates",
        "runtimeClassName",
        "schedulerName",
        "securityContext",
        "serviceAccount",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "tolerations",
        "volumes",
    }
)
_CONTAINER_IGNORED = frozenset(
    {
        "lifecycle",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "resources",
        "securityContext",
        "startupProbe",
        "stdin",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeMounts",
    }
)
_DEPLOYMENT_IGNORED = frozenset(
    {"minReadySeconds", "paused", "progressDeadlineSeconds", "revisionHistoryLimit", "strategy"}
)
_SPREAD_IGNORED = frozenset(
    {"matchLabelKeys", "minDomains", "nodeAffinityPolicy", "nodeTaintsPolicy"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What a file asks for, and what of it is left out."""

    objects: tuple[Pod | Deployment, ...]
    warnings: tuple[str, ...]


def parse_manifests(text: str, source: str, namespace: str = "default") -> Manifests:
    """Read Pods and Deployments; `namespace` is for those that name none.

    Raises:
        BadInput: with file, line and field.
    """
    reader = _Reader(source, namespace)
    for document in read_documents(text, source):
        reader.read(document)
    return Manifests(objects=tuple(reader.objects), warnings=tuple(reader.warnings))


class _Reader:
    """Walks the documents of one file; collects objects and warnings."""

    def __init__(self, source: str, namespace: str) -> None:
        self.source = source
        self.namespace = namespace
        self.objects: list[Pod | Deployment] = []
        self.warnings: list[str] = []

    def read(self, document: Spot) -> None:
        fields = document.mapping()
        kind_spot = _required(document, fields, "kind")
        kind = kind_spot.text()
        if kind in ("List", "PodList", "DeploymentList"):
            for member in _required(document, fields, "items").sequence():
                self.read(member)
            return
        if kind == "Namespace":
            self.warnings.append(f"{kind_spot.place}: Namespace is not needed: labs have them all")
            return
        versions = {"Pod": "v1", "Deployment": "apps/v1"}
        if kind not in versions:
            raise kind_spot.refuse(
                f"{kind!r} is not understood by a lab",
                fix=suggestion(kind, versions, "write a Pod or a Deployment"),
            )
        version = _required(document, fields, "apiVersion")
        if version.text() != versions[kind]:
            raise version.refuse(
                f"{version.text()!r} does not go with {kind}", fix=f"write {versions[kind]}"
            )
        self._only(fields, _DOCUMENT)
        self.objects.append(self._pod(document) if kind == "Pod" else self._deployment(document))

    def _pod(self, document: Spot) -> Pod:
        fields = document.mapping()
        namespace, name, labels = self._metadata(_required(document, fields, "metadata"))
        spec = self._pod_spec(_required(document, fields, "spec"))
        return Pod(namespace=namespace, name=name, labels=labels, spec=spec)

    def _deployment(self, document: Spot) -> Deployment:
        fields = document.mapping()
        namespace, name, _ = self._metadata(_required(document, fields, "metadata"))
        spec_spot = _required(document, fields, "spec")
        spec = spec_spot.mapping()
        self._only(spec, frozenset({"replicas", "selector", "template"}), _DEPLOYMENT_IGNORED)
        template = _required(spec_spot, spec, "template")
        parts = template.mapping()
        self._only(parts, frozenset({"metadata", "spec"}))
        metadata = _required(template, parts, "metadata").mapping()
        self._only(metadata, frozenset({"labels", "name", "namespace"}), _METADATA_IGNORED)
        labels = metadata["labels"].strings() if "labels" in metadata else {}
        selector_spot = _required(spec_spot, spec, "selector")
        selector = self._selector(selector_spot)
        if not selector or not selector.items() <= labels.items():
            raise selector_spot.refuse(
                "does not match the labels of the template",
                fix="repeat matchLabels in template.metadata.labels",
            )
        return Deployment(
            namespace=namespace,
            name=name,
            replicas=spec["replicas"].integer(0, MOST_REPLICAS) if "replicas" in spec else 1,
            selector=selector,
            labels=labels,
            spec=self._pod_spec(_required(template, parts, "spec")),
        )

    def _metadata(self, spot: Spot) -> tuple[str, str, dict[str, str]]:
        fields = spot.mapping()
        self._only(fields, frozenset({"name", "namespace", "labels"}), _METADATA_IGNORED)
        name_spot = _required(spot, fields, "name")
        name = _checked(name_spot, _NAME, "demo-deployment")
        namespace = self.namespace
        if "namespace" in fields:
            namespace = _checked(fields["namespace"], _LABEL, "demo")
        labels = fields["labels"].strings() if "labels" in fields else {}
        return namespace, name, labels

    def _pod_spec(self, spot: Spot) -> PodSpec:
        fields = spot.mapping()
        known = {
            "containers",
            "nodeName",
            "nodeSelector",
            "restartPolicy",
            "topologySpreadConstraints",
        }
        self._only(fields, frozenset(known), _POD_IGNORED)
        containers = _required(spot, fields, "containers")
        members = containers.sequence()
        if not members:
            raise containers.refuse("is empty", fix="give the pod a container")
        spread = fields.get("topologySpreadConstraints")
        return PodSpec(
            containers=tuple(self._container(member) for member in members),
            node_name=fields["nodeName"].text() if "nodeName" in fields else None,
            node_selector=fields["nodeSelector"].strings() if "nodeSelector" in fields else {},
            spread=tuple(self._spread(member) for member in spread.sequence()) if spread else (),
            restart=_one_of(fields, "restartPolicy", ("Always", "OnFailure", "Never")) != "Never",
        )

    def _container(self, spot: Spot) -> Container:
        fields = spot.mapping()
        self._only(fields, frozenset({"name", "command", "args", "env"}), _CONTAINER_IGNORED)
        command = fields["command"].texts() if "command" in fields else ()
        arguments = fields["args"].texts() if "args" in fields else ()
        environment: dict[str, str] = {}
        for member in fields["env"].sequence() if "env" in fields else []:
            pair = member.mapping()
            self._only(pair, frozenset({"name", "value"}), frozenset({"valueFrom"}))
            name = _required(member, pair, "name").text()
            environment[name] = pair["value"].text() if "value" in pair else ""
        return Container(
            name=_checked(_required(spot, fields, "name"), _LABEL, "main"),
            argv=command + arguments,
            environment=environment,
        )

    def _spread(self, spot: Spot) -> Spread:
        fields = spot.mapping()
        known = {"maxSkew", "topologyKey", "whenUnsatisfiable", "labelSelector"}
        self._only(fields, frozenset(known), _SPREAD_IGNORED)
        key = _required(spot, fields, "topologyKey")
        if key.text() != HOSTNAME:
            raise key.refuse(f"{key.text()!r} is not understood by a lab", fix=f"write {HOSTNAME}")
        choices = ("DoNotSchedule", "ScheduleAnyway")
        return Spread(
            max_skew=_required(spot, fields, "maxSkew").integer(1, MOST_REPLICAS),
            hard=_one_of(fields, "whenUnsatisfiable", choices) == "DoNotSchedule",
            selector=self._selector(fields["labelSelector"]) if "labelSelector" in fields else {},
        )

    def _selector(self, spot: Spot) -> dict[str, str]:
        fields = spot.mapping()
        if "matchExpressions" in fields:
            raise fields["matchExpressions"].refuse(
                "is not understood by a lab", fix="use matchLabels"
            )
        self._only(fields, frozenset({"matchLabels"}))
        return fields["matchLabels"].strings() if "matchLabels" in fields else {}

    def _only(
        self,
        fields: Mapping[str, Spot],
        known: frozenset[str],
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        """Warn of fields a lab leaves out; refuse those nobody knows."""
        for name, spot in fields.items():
            if name in known or name in _QUIETLY_IGNORED:
                continue
            if name not in ignored:
                fix = suggestion(name, sorted(known | ignored), "leave it out")
                raise spot.refuse("is not a known field", fix=fix)
            if spot.path.rpartition(".")[0].endswith("metadata"):
                continue  # annotations and what a server adds change nothing here
            self.warnings.append(f"{spot.place}: {spot.path} is left out: a lab has none of it")


def _required(parent: Spot, fields: Mapping[str, Spot], name: str) -> Spot:
    if name not in fields or fields[name].absent:
        raise parent.refuse(f"lacks {name}", fix=f"add {name}")
    return fields[name]


def _checked(spot: Spot, pattern: re.Pattern[str], example: str) -> str:
    text = spot.text()
    if pattern.fullmatch(text) is None:
        raise spot.refuse(
            f"{text!r} is not a valid name",
            fix=f"use small letters, digits and dashes, like {example}",
        )
    return text


def _one_of(fields: Mapping[str, Spot], name: str, choices: tuple[str, ...]) -> str:
    """The field's value; the first choice when it is not given."""
    if name not in fields:
        return choices[0]
    text = fields[name].text()
    if text not in choices:
        raise fields[name].refuse(
            f"is {text!r}", fix=suggestion(text, choices, f"choose {', '.join(choices)}")
        )
    return text
