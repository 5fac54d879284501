"""The endpoints of this node: what attach and detach write down and the loop makes routes of.

One registry, shared by the threads that serve the plugin and by the loop. It is a copy of what the
datastore says about this node's endpoints, as far as the kernel has been found to carry them.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.model.endpoint import AttachmentKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.model.endpoint import WorkloadEndpoint

NETWORK_ANNOTATION = "podwire.io/network"
"""Annotation of a WorkloadEndpoint that keeps the CNI network's name: DEL and GC ask for it."""
MTU_ANNOTATION = "podwire.io/mtu"
"""Annotation of a WorkloadEndpoint whose network asks for an MTU of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEndpoint:
    """One attachment on this node, with the endpoint it made."""

    key: AttachmentKey
    endpoint: WorkloadEndpoint


def key_of(endpoint: WorkloadEndpoint) -> AttachmentKey | None:
    """The attachment an endpoint belongs to; None for one that our plugin did not make."""
    network = endpoint.metadata.annotations.get(NETWORK_ANNOTATION)
    if not network or not endpoint.container_id:
        return None
    return AttachmentKey(
        network=network, container_id=endpoint.container_id, interface=endpoint.endpoint
    )


def own_mtu(endpoint: WorkloadEndpoint) -> int | None:
    """The MTU its network asked for; None for one that goes with the node's encapsulation."""
    text = endpoint.metadata.annotations.get(MTU_ANNOTATION, "")
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None


def _nobody() -> None:
    """Nobody listens yet."""


class LocalEndpoints:
    """Thread-safe registry of this node's attachments.

    `on_change` is called after each change, in the thread that made it and without any lock held;
    it must be cheap and may not raise (the loop sets a flag there).
    """

    def __init__(self, on_change: Callable[[], None] = _nobody) -> None:
        self.on_change = on_change
        self._lock = threading.Lock()
        self._endpoints: Mapping[AttachmentKey, LocalEndpoint] = MappingProxyType({})

    def put(self, local: LocalEndpoint) -> None:
        """Add the attachment, or replace what is known of it."""
        with self._lock:
            # A new mapping each time: whoever holds the old one goes on reading a still picture.
            self._endpoints = MappingProxyType({**self._endpoints, local.key: local})
        self.on_change()

    def remove(self, key: AttachmentKey) -> None:
        """Forget the attachment; one that is not known is no error."""
        with self._lock:
            if key not in self._endpoints:
                return
            rest = {known: local for known, local in self._endpoints.items() if known != key}
            self._endpoints = MappingProxyType(rest)
        self.on_change()

    def get(self, key: AttachmentKey) -> LocalEndpoint | None:
        """The attachment, or None."""
        return self._endpoints.get(key)

    def resolve(self, key: AttachmentKey) -> AttachmentKey:
        """The key under which the attachment is known.

        A pod that Calico attached is known by its handle's network, and the network of whoever
        deletes it may have got another name since.
        """
        if key in self._endpoints:
            return key
        for known, local in self._endpoints.items():
            same = (known.container_id, known.interface) == (key.container_id, key.interface)
            if same and key_of(local.endpoint) is None:
                return known
        return key

    def all(self) -> Mapping[AttachmentKey, LocalEndpoint]:
        """All attachments at this moment; later changes do not show in the mapping."""
        return self._endpoints
