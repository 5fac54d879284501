"""Kinds of Calico that Podwire keeps for others and does not act on, such as policies.

An etcd that Calico filled holds them. They are read, changed and written back whole, so that
nothing is lost; what their fields mean is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model import keys
from podwire.model.resource import Stored
from podwire.model.resourcecodec import decode_metadata, encode_resource, wrong_key
from podwire.model.wire import Fields

if TYPE_CHECKING:
    from podwire.model.resource import JSON, Metadata, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptKind:
    """What is known of such a kind."""

    name: str
    plural: str
    """As it stands in keys."""
    namespaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptResource(Stored):
    """One object; its fields are in `wire`."""

    kind: KeptKind
    metadata: Metadata

    @property
    def spec(self) -> Wire:
        """What its owner wrote."""
        found: Wire = self.wire.get("spec") or {}
        return found


KEPT = {
    kind.name: kind
    for kind in (
        KeptKind(name="NetworkPolicy", plural="networkpolicies", namespaced=True),
        KeptKind(name="GlobalNetworkPolicy", plural="globalnetworkpolicies"),
        KeptKind(name="StagedNetworkPolicy", plural="stagednetworkpolicies", namespaced=True),
        KeptKind(name="StagedGlobalNetworkPolicy", plural="stagedglobalnetworkpolicies"),
        KeptKind(
            name="StagedKubernetesNetworkPolicy",
            plural="stagedkubernetesnetworkpolicies",
            namespaced=True,
        ),
        KeptKind(name="NetworkSet", plural="networksets", namespaced=True),
        KeptKind(name="GlobalNetworkSet", plural="globalnetworksets"),
        KeptKind(name="HostEndpoint", plural="hostendpoints"),
        KeptKind(name="Profile", plural="profiles"),
        KeptKind(name="Tier", plural="tiers"),
        KeptKind(name="FelixConfiguration", plural="felixconfigurations"),
        KeptKind(name="KubeControllersConfiguration", plural="kubecontrollersconfigurations"),
        KeptKind(name="CalicoNodeStatus", plural="caliconodestatuses"),
    )
}
"""By name."""
POLICIES = frozenset(
    {"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}
)
"""Those with `types`."""
_BY_PLURAL = {kind.plural: kind for kind in KEPT.values()}


def kept_prefix(kind: KeptKind) -> str:
    """Prefix of the keys of all objects of the kind."""
    return f"{keys.RESOURCES}{kind.plural}/"


def kept_key(kind: KeptKind, namespace: str, name: str) -> str:
    """Key of one object; the namespace counts where the kind has one."""
    return keys.resource_key(kind.plural, name, namespace if kind.namespaced else None)


def with_policy_types(spec: Wire) -> dict[str, JSON]:
    """A policy's spec that says which directions it governs, as Calico's own tools store it.

    Where it is left out they take it from the rules, but Felix takes both: a policy with rules for
    ingress alone would then cut off egress.
    """
    if spec.get("types"):
        return dict(spec)
    ingress, egress = bool(spec.get("ingress")), bool(spec.get("egress"))
    types = [*(["Ingress"] if ingress or not egress else []), *(["Egress"] if egress else [])]
    return {**spec, "types": types}


def decode_kept(key: str, wire: Wire) -> KeptResource:
    """Read one; only its metadata is looked at.

    Raises:
        BadInput: no such kind is stored under the key, or it is no resource.
    """
    plural, namespace, name = keys.parse_resource_key(key) or ("", None, "")
    kind = _BY_PLURAL.get(plural)
    if kind is None or kind.namespaced != (namespace is not None):
        raise wrong_key(key, "kind of resource we know")
    Fields(wire, key).within("spec")
    metadata = decode_metadata(key, wire, name, namespace)
    return KeptResource(wire=wire, kind=kind, metadata=metadata)


def encode_kept(value: KeptResource) -> dict[str, JSON]:
    """The JSON object to store."""
    return encode_resource(value, value.kind.name, value.metadata)
