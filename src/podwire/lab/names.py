"""Names of replicas, as Kubernetes makes them: deployment-<hash of the template>-<five letters>."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.lab.podspec import Deployment

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' letters for made-up names: no vowels, no digits that look like letters."""

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def template_hash(deployment: Deployment) -> str:
    """Short hash of what the pods are made from: FNV-1a of 32 bits in Kubernetes' letters.

    The number of replicas is no part of it, so scaling keeps the pods there are.
    """
    template = {"labels": deployment.labels, "spec": deployment.spec}
    text = json.dumps(template, sort_keys=True, default=_plain)
    value = _FNV_OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in str(value))


def replica_name(deployment: Deployment, choose: Callable[[str], str]) -> str:
    """A new name for one replica; `choose` draws one letter of the alphabet."""
    suffix = "".join(choose(ALPHABET) for _ in range(5))
    return f"{deployment.name}-{template_hash(deployment)}-{suffix}"


def _plain(value: object) -> dict[str, object]:
    if isinstance(value, Mapping):
        return dict(value)
    assert is_dataclass(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}
