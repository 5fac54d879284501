"""Names and tables of the kinds that Podwire keeps and does not act on, as calicoctl shows them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from podwire.cli.kind import Kind, joined
from podwire.model.kept import KEPT, KeptResource, kept_key, kept_prefix

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.cli.kind import Cells

CALICO_DEFAULT_ORDER = 1_000_000
"""Of a tier that says none."""


def _field(name: str, default: object = None) -> Callable[[KeptResource], object]:
    def cell(value: KeptResource) -> object:
        found = value.spec.get(name)
        return default if found is None or found == "" else found

    return cell


def _list(name: str) -> Callable[[KeptResource], object]:
    return lambda value: joined(value.spec.get(name))


def _tier_order(value: KeptResource) -> float:
    order = value.spec.get("order")
    return order if isinstance(order, int | float) else CALICO_DEFAULT_ORDER


_POLICY: Cells = {
    "TIER": _field("tier", "default"),
    "ORDER": _field("order"),
    "SELECTOR": _field("selector"),
}
_NETS: Cells = {"NETS": _list("nets")}
_FACES: dict[str, tuple[tuple[str, ...], Cells, tuple[str, ...]]] = {
    "NetworkPolicy": (
        ("networkpolicies", "networkpolicys", "np", "nps", "policy", "policies", "pol", "pols"),
        _POLICY,
        ("TIER",),
    ),
    "GlobalNetworkPolicy": (("globalnetworkpolicies", "gnp", "gnps"), _POLICY, ("TIER",)),
    "StagedNetworkPolicy": (("stagednetworkpolicies", "snp", "snps"), _POLICY, ("TIER",)),
    "StagedGlobalNetworkPolicy": (
        ("stagedglobalnetworkpolicies", "sgnp", "sgnps"),
        _POLICY,
        ("TIER",),
    ),
    "StagedKubernetesNetworkPolicy": (
        ("stagedkubernetesnetworkpolicies", "sknp", "sknps"),
        {"PODSELECTOR": _field("podSelector")},
        (),
    ),
    "NetworkSet": (("networksets", "netset", "netsets"), _NETS, ()),
    "GlobalNetworkSet": (("globalnetworksets", "gnetsets", "gns"), _NETS, ()),
    "HostEndpoint": (
        ("hostendpoints", "hep", "heps"),
        {
            "NODE": _field("node"),
            "INTERFACE": _field("interfaceName"),
            "IPS": _list("expectedIPs"),
            "PROFILES": _list("profiles"),
        },
        ("NODE",),
    ),
    "Profile": (("profiles", "pro", "pros"), {"LABELS": _list("labelsToApply")}, ()),
    "Tier": (("tiers",), {"ORDER": _field("order")}, ("ORDER",)),
    "FelixConfiguration": (
        ("felixconfigurations", "felixconfig", "felixconfigs", "fc", "fcs"),
        {},
        (),
    ),
    "KubeControllersConfiguration": (
        ("kubecontrollersconfigurations", "kubecontrollersconfig", "kubecontrollersconfigs"),
        {},
        (),
    ),
    "CalicoNodeStatus": (
        ("caliconodestatuses", "nodestatus", "nodestatuses"),
        {"NODE": _field("node"), "CLASSES": _list("classes")},
        ("NODE", "CLASSES"),
    ),
}
"""Kind → aliases, the cells of `wide`, and which of them the plain table has."""


def _kept(name: str) -> Kind:
    kind = KEPT[name]
    aliases, cells, columns = _FACES[name]
    return Kind(
        name=name,
        aliases=aliases,
        prefix=kept_prefix(kind),
        key=partial(kept_key, kind),
        cells={
            "NAMESPACE": lambda value: value.metadata.namespace,
            "NAME": lambda value: value.metadata.name,
            **cells,
        },
        columns=("NAME", *columns),
        wide=("NAME", *cells),
        namespaced=kind.namespaced,
        kept=True,
        order=_tier_order if name == "Tier" else None,
    )


KEPT_KINDS = tuple(map(_kept, KEPT))
