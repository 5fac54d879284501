"""Unlisted: pods that run here and whose WorkloadEndpoint somebody has deleted.

Nothing is written back: who deletes an endpoint by force says that its pod is gone. It is told
where the pod still runs, for its addresses look leaked to everybody else.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import structlog

from podwire.model import codec, keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.agent.attachments import Attachments
    from podwire.agent.endpoints import LocalEndpoint
    from podwire.model.endpoint import AttachmentKey

log = structlog.get_logger(__name__)


class Unlisted:
    """Compares the attached pods with the endpoints in the datastore.

    Attributes:
        found: what each of them is to be told as; replaced as a whole.
    """

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._world = attachments.world
        self.found: Mapping[AttachmentKey, str] = {}

    def look(self) -> None:
        """Look at all of them once.

        Raises:
            DatastoreUnavailable: away; what was found before stays.
        """
        world = self._world
        local: defaultdict[str, list[LocalEndpoint]] = defaultdict(list)
        for each in world.endpoints.all().values():
            local[each.endpoint.metadata.namespace or "default"].append(each)
        missing: dict[AttachmentKey, str] = {}
        for namespace, known in local.items():
            prefix = keys.node_endpoint_prefix(namespace, world.node)
            stored = {entry.key for entry in world.store.list(prefix).entries}
            for each in known:
                key = codec.key_of(each.endpoint)
                if key not in stored and world.store.get(key) is None:
                    missing[each.key] = each.endpoint.title
        # A DEL deletes the endpoint before we forget the attachment.
        under_way = {*self._attachments.busy(), *world.spool.keys(), *tuple(world.owed)}
        there = world.endpoints.all()
        found = {
            key: f"pod {title} runs, and its WorkloadEndpoint was deleted: its addresses may be"
            " given to other pods (delete the pod: it is made anew)"
            for key, title in missing.items()
            if key in there and key not in under_way
        }
        for new in found.keys() - self.found.keys():
            log.warning("endpoint was deleted while its pod runs", pod=missing[new])
        self.found = found

    def concerns(self) -> tuple[str, ...]:
        """Pods found that are still attached."""
        there = self._world.endpoints.all()
        return tuple(text for key, text in self.found.items() if key in there)
