"""Home: whether this network namespace is the one of the node.

An agent started elsewhere under the node's name would find none of its pods, and take them all for
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model import codec, keys

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.drivers.netlink.session import Session
    from podwire.model.addressing import IPAddress


def is_at_home(host: Session, address: IPAddress | None) -> bool:
    """Whether the namespace has the address that the datastore knows the node by."""
    return any(each.interface.ip == address for each in host.addresses())


def node_address(store: Store, node: str) -> IPAddress | None:
    """That address; None where there is no Node, or none in it.

    Raises:
        DatastoreUnavailable: away.
        BadInput: the Node cannot be read.
    """
    entry = store.get(keys.node_key(node))
    address = None if entry is None else codec.decode_node(entry.key, entry.value).address
    return None if address is None else address.ip
