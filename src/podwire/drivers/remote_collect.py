"""Collect the kernel states of other nodes: one round trip each, side by side, only reading.

What a node tells becomes the same records that `drivers.collect` makes on this host. A node that
does not answer, a namespace that may not be entered and a program that is not installed there are
`Missing` with the reason, each for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from podwire.drivers.agent_socket import AgentSocket
from podwire.drivers.bundle import unpack_bundle
from podwire.drivers.collect import unread, with_pods
from podwire.drivers.node_script import SCRIPT, new_mark, parse_report
from podwire.drivers.rulesets import HARMLESS, hidden_families
from podwire.drivers.transport import in_parallel
from podwire.errors import BadInput, PodwireError, Transient
from podwire.model import iproute_json
from podwire.model.kernelstate import KernelState, Missing, NamespaceRef, Read
from podwire.model.nft_text import lacks_devices, with_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from podwire.drivers.node_script import Output, Report, Told
    from podwire.drivers.transport import Way
    from podwire.model.kernelstate import Section

TIMEOUT_S = 60.0
"""For all of one node; a node with a hundred pods takes a few seconds."""
_SECOND_NS = 1_000_000_000
_INODE_BITS = 32
"""Inodes of namespaces have no more; beyond them stands which kernel it is."""
_ENDED = "No such file or directory"
"""A namespace whose last process ended between the listing and our visit."""
_NOT_SUPPORTED = "not supported"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStates:
    """What one node told."""

    node: str
    boot: str
    """The kernel's boot id: equal for two nodes that are namespaces of one kernel."""
    states: tuple[KernelState, ...]
    left: str | None = None
    """What the way there could not take back."""


def collect_nodes(
    nodes: Mapping[str, Way],
    timeout_s: float = TIMEOUT_S,
    said: Callable[[str], None] = lambda _: None,
) -> tuple[KernelState, ...]:
    """The states of all nodes and of every namespace on them; `said` hears of each node's end.

    Never raises for one node: what did not answer is a state in which everything is Missing.
    """

    def one(name: str, transport: Way) -> NodeStates:
        try:
            found = collect_node(name, transport, timeout_s)
        except PodwireError as error:
            said(f"{name} ({transport.title}): {error}")
            raise
        said(f"{name} ({transport.title}): {len(found.states)} network namespaces")
        if found.left is not None:
            said(f"{name} ({transport.title}): {found.left}")
        return found

    found = in_parallel({name: partial(one, name, way) for name, way in nodes.items()})
    answered = [each for each in found.values() if isinstance(each, NodeStates)]
    states = joined(answered)
    silent = [
        unread(_silent_ref(number, name), f"node {name} ({nodes[name].title}): {error}")
        for number, (name, error) in enumerate(found.items(), start=1)
        if isinstance(error, PodwireError)
    ]
    return (*states, *silent)


def _silent_ref(number: int, name: str) -> NamespaceRef:
    # No kernel has such an inode, so it is nobody else's.
    return NamespaceRef(inode=-number, node=name, name=name, root=True)


def collect_node(name: str, transport: Way, timeout_s: float = TIMEOUT_S) -> NodeStates:
    """Read one node and all namespaces its root can see.

    Raises:
        Transient: no answer in time, or one that broke off.
        PodwireError: the way there does not work.
    """
    if isinstance(transport, AgentSocket):
        return _told_by_agent(name, transport, timeout_s)
    mark = new_mark()
    done = transport.run(["sh", "-s", mark], stdin=SCRIPT, timeout_s=timeout_s)
    report = parse_report(done.stdout, mark)
    if not report.complete:
        complaint = done.stderr.strip().splitlines()
        reason = complaint[-1] if complaint else "its answer broke off"
        raise Transient(f"{reason} (exit code {done.code})")
    found = report.namespaces.values()
    there = [told for told in found if told.outputs or _ENDED not in told.complaint]
    states = [_state(name, told, report) for told in there]
    known = _with_derived_ids(states)
    return NodeStates(
        node=name,
        boot=report.facts.get("boot", name),
        states=with_pods(known),
        left=done.left,
    )


def _told_by_agent(name: str, agent: AgentSocket, timeout_s: float) -> NodeStates:
    """The states as the node's agent read them, the agent's own namespace being the node."""
    found = agent.collect(timeout_s)
    bundle = unpack_bundle(found.bundle, agent.title)
    states = []
    for state in bundle.states:
        ref = state.namespace
        own = ref.inode == found.here
        ref = replace(ref, node=name if own else None, root=own, pod=None)
        states.append(replace(state, namespace=ref))
    return NodeStates(node=name, boot=found.boot, states=with_pods(states))


def joined(nodes: Sequence[NodeStates]) -> tuple[KernelState, ...]:
    """The states of several nodes as one world.

    Inodes are a kernel's own, and every kernel gives its first namespace the same one. Those of
    the second and further kernels are moved apart. Nodes of one kernel may have seen the same
    namespace: it is kept once, as the node told whose own it is.
    """
    kernels = {boot: number for number, boot in enumerate(dict.fromkeys(n.boot for n in nodes))}
    found: dict[int, KernelState] = {}
    for node in nodes:
        for state in node.states:
            moved = _moved(state, kernels[node.boot] << _INODE_BITS)
            before = found.get(moved.namespace.inode)
            if before is None or (moved.namespace.root and not before.namespace.root):
                found[moved.namespace.inode] = moved
    return with_pods(sorted(found.values(), key=_order))


def _order(state: KernelState) -> tuple[bool, str, int]:
    """As `drivers.collect` orders them: nodes first, then what has no name."""
    ref = state.namespace
    return (not ref.root, ref.name or "", ref.inode)


def _moved(state: KernelState, offset: int) -> KernelState:
    ids = state.netns_ids
    if isinstance(ids, Read):
        ids = replace(ids, value={nsid: inode + offset for nsid, inode in ids.value.items()})
    ref = replace(state.namespace, inode=state.namespace.inode + offset)
    return replace(state, namespace=ref, netns_ids=ids)


# --- one namespace ----------------------------------------------------------------------------


def _state(node: str, told: Told, report: Report) -> KernelState:
    root = report.facts.get("here") == str(told.inode)
    ref = NamespaceRef(
        inode=told.inode, node=node if root else None, name=told.name, path=told.path, root=root
    )
    if not told.outputs:
        return unread(ref, told.complaint.strip() or "it could not be entered")
    sections = _Sections(told, int(report.facts.get("time", "0")) * _SECOND_NS)
    links = sections.one("links", iproute_json.parse_links)
    indexes = {} if isinstance(links, Missing) else {link.name: link.index for link in links.value}
    inodes = {each.name: each.inode for each in report.namespaces.values() if each.name}
    with_links = partial(sections.indexed, indexes)
    return KernelState(
        namespace=ref,
        links=links,
        addresses=sections.one("addresses", iproute_json.parse_addresses),
        routes=sections.both(
            ("routes4", lambda text: iproute_json.parse_routes(text, 4, indexes)),
            ("routes6", lambda text: iproute_json.parse_routes(text, 6, indexes)),
        ),
        rules=sections.both(
            ("rules4", lambda text: iproute_json.parse_rules(text, 4)),
            ("rules6", lambda text: iproute_json.parse_rules(text, 6)),
        ),
        neighbours=sections.both(
            ("neighbours", lambda text: iproute_json.parse_neighbours(text, indexes)),
            ("proxies", lambda text: iproute_json.parse_neighbours(text, indexes)),
        ),
        fdb=with_links("fdb", iproute_json.parse_fdb),
        qdiscs=with_links("qdiscs", _harmful),
        netns_ids=sections.one("netns_ids", lambda text: _ids(text, told, inodes)),
        sockets=sections.one("sockets", iproute_json.parse_sockets),
        sysctls=sections.one("sysctls", iproute_json.parse_sysctls),
        conntrack=sections.one("conntrack", iproute_json.parse_connections),
        **_rule_sets(sections),
    )


def _rule_sets(sections: _Sections) -> dict[str, Any]:
    """What filters, each part as far as another one refers to it (`drivers.rulesets`)."""
    nft = _with_devices(sections, sections.one("nft", iproute_json.parse_nft))
    legacy = sections.one("iptables_legacy", lambda text: text)
    compatible: Section[str] = nft if isinstance(nft, Missing) else Read("")
    if isinstance(nft, Read):
        for family in sorted(map(str, hidden_families(nft.value))):
            name = "iptables_nft4" if family == "ip" else "iptables_nft6"
            found = sections.one(name, lambda text: text)
            if isinstance(found, Missing) or isinstance(compatible, Missing):
                compatible = found
                break
            compatible = replace(found, value=compatible.value + found.value)
    ipsets: Section[str] = Read("")
    if any(isinstance(each, Read) and "--match-set" in each.value for each in (legacy, compatible)):
        ipsets = sections.one("ipsets", lambda text: text)
    return {"nft": nft, "iptables_legacy": legacy, "iptables_nft": compatible, "ipsets": ipsets}


def _with_devices(sections: _Sections, nft: Section[Any]) -> Section[Any]:
    """The links of chains that sit beside one, where nft leaves them out of its JSON."""
    if isinstance(nft, Missing) or not lacks_devices(nft.value):
        return nft
    chains = sections.one("nft_chains", lambda text: text)
    if isinstance(chains, Missing):
        return chains
    return replace(nft, value=with_devices(nft.value, chains.value))


class _Sections:
    """What the commands of one namespace printed, as sections."""

    def __init__(self, told: Told, time_ns: int) -> None:
        self._told = told
        self._time_ns = time_ns

    def one(self, name: str, parse: Callable[[str], Any]) -> Section[Any]:
        """The section that one command's output makes."""
        output = self._told.outputs.get(name)
        if output is None:
            return Missing(f"the node's answer has no section {name}")
        if output.code != 0 and not _is_without_family(name, output):
            complaint = output.complaint.splitlines()
            return Missing(f"{name}: {complaint[0] if complaint else f'code {output.code}'}")
        try:
            return Read(parse(output.text), time_ns=self._time_ns)
        except BadInput as error:
            return Missing(error.message)

    def indexed(
        self, indexes: Mapping[str, int], name: str, parse: Callable[[str, Any], Any]
    ) -> Section[Any]:
        """As `one`, for a parser that needs to know the links."""
        return self.one(name, lambda text: parse(text, indexes))

    def both(
        self, first: tuple[str, Callable[[str], Any]], second: tuple[str, Callable[[str], Any]]
    ) -> Section[Any]:
        """Two commands' output as one section; missing when either is."""
        one, two = self.one(*first), self.one(*second)
        if isinstance(one, Missing) or isinstance(two, Missing):
            return one if isinstance(one, Missing) else two
        return replace(one, value=(*one.value, *two.value))


def _is_without_family(name: str, output: Output) -> bool:
    """A kernel without IPv6 has no routes and rules of it."""
    return name.endswith("6") and _NOT_SUPPORTED in output.complaint.lower()


def _harmful(text: str, indexes: Mapping[str, int]) -> tuple[str, ...]:
    found = iproute_json.parse_qdiscs(text, indexes)
    return tuple(sorted({f"{index} {kind}" for index, kind in found if kind not in HARMLESS}))


def _ids(text: str, told: Told, inodes: Mapping[str, int]) -> dict[int, int]:
    """Inode by number, by names and, where lsns is installed, by processes."""
    found = iproute_json.parse_namespace_ids(text)
    ids = {nsid: inodes[name] for nsid, name in found.items() if name in inodes}
    if "processes" in told.outputs:
        for line in told.outputs["processes"].text.splitlines():
            nsid, _, inode = line.partition(" ")
            if nsid.isdigit() and inode.isdigit():
                ids.setdefault(int(nsid), int(inode))
    return ids


# --- numbers of namespaces --------------------------------------------------------------------


def _with_derived_ids(states: Sequence[KernelState]) -> list[KernelState]:
    """Find the namespaces that have no name by the veths that lead into them.

    `ip netns list-id` tells names only, and a node's own namespace mostly has none. A veth and its
    peer name each other's index: where one side knows the other's namespace, the other learns its;
    else, where just one pair fits, it says which namespace the number is.
    """
    ends: dict[tuple[int, int], list[int]] = {}
    known: dict[tuple[int, int, int], int] = {}
    for state in states:
        inode, ids = state.namespace.inode, _known_ids(state)
        for index, peer, nsid in _veths(state):
            ends.setdefault((index, peer), []).append(inode)
            if nsid is not None and nsid in ids:
                known[ids[nsid], peer, index] = inode
    done = []
    for state in states:
        found = dict(_known_ids(state))
        for index, peer, nsid in _veths(state):
            there = known.get((state.namespace.inode, index, peer))
            pair = ends.get((peer, index), [])
            if there is None and len(pair) == len(ends[index, peer]) == 1:
                there = pair[0]
            if nsid is not None and there is not None:
                found.setdefault(nsid, there)
        if isinstance(state.netns_ids, Read):
            done.append(replace(state, netns_ids=replace(state.netns_ids, value=found)))
        else:
            done.append(state)
    return done


def _known_ids(state: KernelState) -> Mapping[int, int]:
    return state.netns_ids.value if isinstance(state.netns_ids, Read) else {}


def _veths(state: KernelState) -> Iterator[tuple[int, int, int | None]]:
    """Index, peer's index and the number of the peer's namespace, of each veth."""
    if isinstance(state.links, Read):
        for link in state.links.value:
            if link.kind == "veth" and link.peer_index is not None:
                yield link.index, link.peer_index, link.peer_netnsid
