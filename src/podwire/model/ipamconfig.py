"""The IPAM configuration as people write it: Calico's v3 kind IPAMConfiguration.

It is stored as the record that address allocation reads (`/calico/ipam/v2/config`), whose fields
have other names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.model import codec, keys
from podwire.model.resourcecodec import API_VERSION
from podwire.model.shape import Fault
from podwire.model.wire import thaw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.block import IPAMConfig
    from podwire.model.resource import JSON, Wire

IPAM_CONFIG_KINDS = frozenset({"IPAMConfiguration", "IPAMConfig"})
"""Calico has used both names."""
_DEFAULTS: Mapping[str, JSON] = {
    "strictAffinity": False,
    "autoAllocateBlocks": True,
    "maxBlocksPerHost": 0,
}
_STORED_AS = {
    "strictAffinity": "strict_affinity",
    "autoAllocateBlocks": "auto_allocate_blocks",
    "maxBlocksPerHost": "maxBlocksPerHost",
    "ipCooldownSeconds": "ipCooldownSeconds",
    "kubeVirtVMAddressPersistence": "kubeVirtVMAddressPersistence",
}


def ipam_config_resource(wire: Wire) -> dict[str, JSON]:
    """The stored record as a v3 resource."""
    config = codec.decode_ipam_config(keys.IPAM_CONFIG_KEY, wire)
    spec: dict[str, JSON] = {
        "strictAffinity": config.strict_affinity,
        "autoAllocateBlocks": config.auto_allocate_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
    }
    for name, stored in _STORED_AS.items():
        if name not in spec and wire.get(stored):
            spec[name] = thaw(wire[stored])
    return {
        "kind": "IPAMConfiguration",
        "apiVersion": API_VERSION,
        "metadata": {"name": "default"},
        "spec": spec,
    }


def build_ipam_config(spec: Mapping[str, Any], stored: Wire | None) -> IPAMConfig:
    """The record of a document without faults.

    What it does not mention gets Calico's default; the newer fields, which other versions' tools
    leave out, stay as they are.
    """
    wire: dict[str, JSON] = {} if stored is None else thaw(stored)
    for name, value in {**_DEFAULTS, **spec}.items():
        wire[_STORED_AS[name]] = value
    return codec.decode_ipam_config(keys.IPAM_CONFIG_KEY, wire)


def ipam_config_faults(document: Mapping[str, Any]) -> list[Fault]:
    """What does not go together, as Calico sees it."""
    spec = {**_DEFAULTS, **{k: v for k, v in document["spec"].items() if v is not None}}
    faults = []
    if document["metadata"]["name"] != "default":
        problem = "of the IPAMConfiguration must be default"
        faults.append(Fault(("metadata", "name"), problem, "write default"))
    if spec["maxBlocksPerHost"] and not spec["strictAffinity"]:
        problem = "needs strictAffinity: without it, addresses are borrowed beyond the limit"
        faults.append(Fault(("spec", "maxBlocksPerHost"), problem, "set strictAffinity: true"))
    if not spec["strictAffinity"] and not spec["autoAllocateBlocks"]:
        problem = "may be false only with strictAffinity: nobody would claim a block"
        faults.append(Fault(("spec", "autoAllocateBlocks"), problem, "set strictAffinity: true"))
    return faults
