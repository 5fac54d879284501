"""World: all namespaces we have a state of, and how they hang together.

Pods are known from the kernel alone: the IFALIAS of a host-side veth names the pod, and its
link-netnsid says in which namespace the other end is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from podwire.model.endpoint import parse_link_alias
from podwire.model.kernelstate import Missing
from podwire.trace.space import Lacking, Space

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.kernelstate import KernelState
    from podwire.model.link import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A link in its namespace."""

    space: Space
    link: Link

    @property
    def key(self) -> tuple[int, int]:
        """Identity: inode and link index."""
        return (self.space.inode, self.link.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as its host-side veth tells it."""

    title: str
    """`namespace/pod`."""
    interface: str
    """Name inside the pod."""
    host: Port
    inode: int | None
    """None: the host does not say in which namespace the other end is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Something the packet would go to and of which we have no state."""

    what: str
    why: str


class World:
    """Every namespace on the way, as values."""

    def __init__(self, states: Iterable[KernelState]) -> None:
        self.spaces = {state.namespace.inode: Space(state) for state in states}
        for pod in self.pods.values():
            if pod.inode in self.spaces:
                self.spaces[pod.inode].title = pod.title

    @cached_property
    def pods(self) -> Mapping[tuple[int, int], Pod]:
        """Pods by their host-side veth: its namespace and index.

        Titles are no keys: two clusters on one host can have pods of the same name.
        """
        found: dict[tuple[int, int], Pod] = {}
        for space in self.spaces.values():
            for link in _links(space):
                owner = parse_link_alias(link.alias)
                if owner is not None and link.kind == "veth":
                    pod = Pod(
                        title=owner.title,
                        interface=owner.interface,
                        host=Port(space=space, link=link),
                        inode=self._inode_behind(space, link),
                    )
                    found[pod.host.key] = pod
        return found

    @cached_property
    def _pods_by_inode(self) -> Mapping[int, Pod]:
        found: dict[int, Pod] = {}
        for pod in self.pods.values():
            if pod.inode is not None:
                found.setdefault(pod.inode, pod)
        return found

    def pod_in(self, space: Space) -> Pod | None:
        """The pod that lives in a namespace."""
        return self._pods_by_inode.get(space.inode)

    def node_of(self, space: Space) -> str | None:
        """Name of the node a namespace belongs to; None when nothing tells."""
        pod = self.pod_in(space)
        if pod is not None:
            return self.node_of(pod.host.space)
        ref = space.state.namespace
        if ref.node is not None:
            return ref.node
        if ref.name is not None and self.is_node(space):
            return ref.name
        return next(
            (
                each.state.namespace.node
                for each in self.spaces.values()
                if each.state.namespace.root
            ),
            None,
        )

    def is_node(self, space: Space) -> bool:
        """Whether a namespace plays a node: the root one, or a named one that routes for others."""
        ref = space.state.namespace
        if ref.root:
            return True
        if ref.name is None or self.pod_in(space) is not None:
            return False
        if any(pod.host.space is space for pod in self.pods.values()):
            return True
        sysctls = space.state.sysctls
        return not isinstance(sysctls, Missing) and sysctls.value.get("ipv4.ip_forward") == "1"

    def owners(self, address: IPAddress) -> list[Port]:
        """The links that carry an address, in all namespaces."""
        found = []
        for space in self.spaces.values():
            if isinstance(space.state.addresses, Missing) or isinstance(space.state.links, Missing):
                continue
            link = space.link_with(address)
            if link is not None:
                found.append(Port(space=space, link=link))
        return found

    def _inode_behind(self, space: Space, link: Link) -> int | None:
        if link.peer_index is None:
            return None
        if link.peer_netnsid is None:
            return space.inode
        ids = space.state.netns_ids
        if isinstance(ids, Missing):
            return None
        return ids.value.get(link.peer_netnsid)

    def peer(self, space: Space, link: Link) -> Port | Unseen:
        """The other end of a veth."""
        inode = self._inode_behind(space, link)
        index = link.peer_index
        if inode is None or index is None:
            return self._peer_by_search(space, link)
        if inode not in self.spaces:
            what = f"the namespace behind {link.name} of {space.title}"
            return Unseen(what=what, why=f"no state of netns:[{inode}] was read")
        there = self.spaces[inode]
        if index not in there.links:
            what = f"the other end of {link.name} of {space.title}"
            return Unseen(what=what, why=f"{there.title} has no link with index {index}")
        return Port(space=there, link=there.links[index])

    def _peer_by_search(self, space: Space, link: Link) -> Port | Unseen:
        """Find the veth whose own pointer leads back here."""
        for there in self.spaces.values():
            for candidate in _links(there):
                if candidate.kind != "veth" or candidate.peer_index != link.index:
                    continue
                if self._inode_behind(there, candidate) == space.inode and candidate != link:
                    return Port(space=there, link=candidate)
        what = f"the other end of {link.name} of {space.title}"
        return Unseen(what=what, why="its namespace is not among those read")


def _links(space: Space) -> Iterable[Link]:
    try:
        return space.links.values()
    except Lacking:
        return ()
