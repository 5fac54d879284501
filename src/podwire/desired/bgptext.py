"""BirdConfig → the text BIRD reads. Pure; from the top of the file to its end, as BIRD has it.

Why it says what it says: docs/adr/0012-bgp-by-bird.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.desired.bgp import KERNEL_METRIC, LARGEST_PREFERENCE, NORMAL_PRIORITY
from podwire.desired.bgprules import add_community, function_name, functions, refusals
from podwire.errors import BadInput
from podwire.model.bgp import LogSeverity, NextHopMode
from podwire.model.bgpfilter import BGPPeerType, Direction
from podwire.model.link import INTERFACE_PREFIX
from podwire.model.pool import Mode
from podwire.model.route import PROTOCOL_PODWIRE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from podwire.desired.bgp import BirdConfig, BirdPeer, BirdPool
    from podwire.model.addressing import IPNetwork
    from podwire.model.bgp import SecretKey

NODE_NOTE = "  # node "
"""Begins the remark that says which node of ours the peer is, and its cluster."""
KERNEL = "kernel1"
"""BIRD's name for the protocol that writes the kernel's routes."""
PASSWORD_LIMIT = 80
"""Bytes of a TCP-MD5 key (TCP_MD5SIG_MAXKEYLEN in include/uapi/linux/tcp.h)."""

_CLASSES = {
    LogSeverity.DEBUG: "all",
    LogSeverity.INFO: "{ info, remote, warning, error, auth, fatal, bug }",
    LogSeverity.WARNING: "{ warning, error, auth, fatal, bug }",
    LogSeverity.ERROR: "{ error, auth, fatal, bug }",
}


def render(config: BirdConfig, passwords: Mapping[SecretKey, str]) -> str:
    """The configuration file of BIRD 2.0.12 and later.

    Raises:
        KeyError: a peer's password is not among `passwords`.
        BadInput: a password cannot be written in BIRD's language.
    """
    known = {each.name for each in config.filters}
    named = {name for peer in config.peers for name in peer.filters}
    sections = (
        _head(config),
        _functions(config),
        *(functions(each) for each in config.filters),
        *(refusals(name) for name in sorted(named - known)),
        _tables(config),
        _to_kernel(config),
        _peers(config, passwords),
    )
    return "\n".join("\n".join([*section, ""]) for section in sections)


def check_password(secret: SecretKey, password: str) -> None:
    """Refuse a password that BIRD or the kernel cannot take.

    Raises:
        BadInput: it is empty, too long, or has a quote or a line break in it.
    """
    if not password or '"' in password or "\n" in password or "\0" in password:
        raise BadInput(
            f"password {secret} is empty, or has a quote or a line break in it",
            fix="choose one of letters, digits and other signs, in one line",
        )
    if len(password.encode()) > PASSWORD_LIMIT:
        raise BadInput(
            f"password {secret} is longer than {PASSWORD_LIMIT} bytes",
            fix="choose a shorter one: TCP-MD5 has no place for more",
        )


def _head(config: BirdConfig) -> Iterator[str]:
    severity = config.log_severity
    yield f"# BIRD of node {config.node}. The agent writes this file: what is changed here is lost."
    yield f"log stderr {_CLASSES.get(severity, '{ fatal, bug }')};"
    if severity is LogSeverity.DEBUG:
        yield "debug protocols all;"
    elif severity is LogSeverity.INFO:
        yield "debug protocols { states };"
    yield f"router id {config.router_id};"
    yield f"graceful restart wait {config.recovery_s};"


def _functions(config: BirdConfig) -> Iterator[str]:
    """What several filters ask."""
    yield "# Whether the route is one this node announces of its own: a block (the agent's"
    yield "# blackhole, there once the claim is confirmed) or an address borrowed from another's"
    yield "# or that is a block by itself."
    yield "function is_ours()"
    yield "{"
    if (exported := _within(pool.cidr for pool in config.pools if pool.exported)) is not None:
        if config.addresses:
            single = ", ".join(map(str, config.addresses))
            yield f"  if {exported} && net ~ [{single}] then"
            yield f"    return source = RTS_DEVICE || krt_source = {PROTOCOL_PODWIRE};"
        yield f"  if {exported} && dest = RTD_BLACKHOLE then"
        yield f"    return krt_source = {PROTOCOL_PODWIRE};"
    yield "  return false;"
    yield "}"
    yield ""
    yield "# What every route is given on its way out, before any filter sees it."
    yield "function prepare()"
    yield "{"
    yield "  if source != RTS_BGP then"
    yield f"    bgp_local_pref = {LARGEST_PREFERENCE - NORMAL_PRIORITY};"
    for advertisement in config.advertisements:
        inside = _within([advertisement.cidr])
        added = " ".join(add_community(each) for each in advertisement.communities)
        if inside is not None and added:
            yield f"  if {inside} then {{ {added} }}"
    yield "}"


def _tables(config: BirdConfig) -> Iterator[str]:
    """Where BIRD has its routes from, peers apart."""
    yield "protocol device device1 { scan time 2; }"
    yield ""
    yield "# The subnets of this host, so that next hops resolve to neighbours in them."
    ignored = (f"{INTERFACE_PREFIX}*", "vxlan*", *config.ignored_interfaces)
    patterns = [*(f'-"{name}"' for name in ignored), '"*"']
    yield "protocol direct direct1 {"
    yield "  ipv4;"
    yield f"  interface {', '.join(patterns)};"
    yield "}"
    gateways = {peer.address: peer.reachable_by for peer in config.peers if peer.reachable_by}
    if gateways:
        yield ""
        yield "# The ways to peers that ask for one."
        yield "protocol static static1 {"
        yield "  ipv4;"
        for address, gateway in gateways.items():
            yield f"  route {address}/{address.max_prefixlen} via {gateway};"
        yield "}"


def _to_kernel(config: BirdConfig) -> Iterator[str]:
    yield "# What BIRD writes: routes learnt from peers. In a tunnel the next hop is the other"
    yield "# node, on the link though no address there says so. In this order: the device clears"
    yield "# the gateway."
    yield "filter to_kernel"
    yield "{"
    yield "  if source = RTS_STATIC then accept;"
    yield "  if source != RTS_BGP then reject;"
    for pool in config.pools:
        yield from _of_pool(pool, config)
    for address, mtu in config.narrow:
        yield f"  if bgp_next_hop = {address} then krt_mtu = {mtu};"
    yield "  accept;"
    yield "}"
    yield ""
    yield "# The agent's routes come in with it. What it says of our own blocks and pods wins over"
    yield "# what a peer may say of them; its ways to other nodes, where it writes some, do not."
    yield f"protocol kernel {KERNEL} {{"
    yield f"  learn; persist; scan time 2; metric {KERNEL_METRIC}; graceful restart;"
    yield "  merge paths on limit 16; netlink rx buffer 4194304;"
    yield "  ipv4 {"
    yield "    import filter {"
    local = f'(dest = RTD_BLACKHOLE || ifname ~ "{INTERFACE_PREFIX}*")'
    yield f"      if krt_source = {PROTOCOL_PODWIRE} && {local} then preference = 200;"
    yield "      accept;"
    yield "    };"
    yield "    export filter to_kernel;"
    yield "  };"
    yield "}"


def _of_pool(pool: BirdPool, config: BirdConfig) -> Iterator[str]:
    inside = _within([pool.cidr])
    if inside is None:
        return
    if pool.by_agent:
        yield f"  if {inside} then reject; # the agent writes these"
        return
    if pool.mode is Mode.NEVER:
        return
    if pool.mode is Mode.CROSS_SUBNET:
        inside = f"{inside} && !(bgp_next_hop ~ {config.address.network})"
    if pool.device is None:
        yield f"  if {inside} then reject; # until the tunnel is there"
        return
    yield f"  if {inside} then {{"
    yield f'    ifname = "{pool.device}"; onlink = true; gw = bgp_next_hop; accept;'
    yield "  }"


def _peers(config: BirdConfig, passwords: Mapping[SecretKey, str]) -> Iterator[str]:
    for filters, external in sorted({_policy(peer) for peer in config.peers}):
        yield from _import_filter(filters, external, config)
        yield from _export_filter(filters, external, config)
    yield "template bgp session {"
    yield "  multihop; connect delay time 1; connect retry time 5; error wait time 1, 10;"
    yield "  graceful restart on;"
    yield f"  default bgp_local_pref {LARGEST_PREFERENCE - NORMAL_PRIORITY};"
    yield f"  strict bind {'on' if config.strict_bind else 'off'};"
    yield "}"
    for peer in config.peers:
        yield ""
        yield from _peer(peer, config, passwords)


def _peer(peer: BirdPeer, config: BirdConfig, passwords: Mapping[SecretKey, str]) -> Iterator[str]:
    filters, external = _policy(peer)
    source = "" if peer.source is None else f"{peer.source} "
    yield f"protocol bgp {peer.protocol} from session {{"
    yield f'  description "{peer.type.value}: {peer.name}";'
    if peer.node is not None:
        cluster = "" if peer.cluster is None else f", cluster {peer.cluster}"
        yield f"{NODE_NOTE}{peer.node}{cluster}"
    if peer.filters:
        yield f"  # BGPFilter {', '.join(peer.filters)}"
    yield f"  local {source}port {config.listen_port} as {peer.local_as};"
    if config.strict_bind and not source:
        yield "  strict bind off;  # it needs an address to listen on"
    yield f"  neighbor {peer.address} port {peer.port} as {peer.as_number};"
    yield f"  hold time {peer.hold_s}; keepalive time {peer.keepalive_s};"
    yield f"  graceful restart time {peer.restart_s};"
    if peer.passive:
        yield "  passive on;"
    if peer.ttl_security is not None:
        yield f"  ttl security on; multihop {peer.ttl_security};"
    if peer.password is not None:
        password = passwords[peer.password]
        check_password(peer.password, password)
        yield f'  password "{password}"; # secret {peer.password}'
    if peer.allowed_local_as is not None:
        yield f"  allow local as {peer.allowed_local_as};"
    if peer.client and config.cluster_id is not None:
        yield f"  rr client; rr cluster id {config.cluster_id};"
    yield "  ipv4 {"
    if peer.next_hop_mode is not NextHopMode.AUTO:
        yield f"    next hop {peer.next_hop_mode.value.lower()};"
    elif external and config.cluster_id is not None:
        # A reflector tells of other nodes' blocks, too: they lead to those nodes, not to it. A
        # router that is also our gateway would else send packets round in a circle.
        yield "    next hop keep ibgp;"
    yield "    gateway recursive; import keep filtered;"
    yield f"    import filter {_filter_name(Direction.IMPORT, filters, external)};"
    yield f"    export filter {_filter_name(Direction.EXPORT, filters, external)};"
    yield "  };"
    yield "}"


def _import_filter(filters: tuple[str, ...], external: bool, config: BirdConfig) -> Iterator[str]:
    yield f"filter {_filter_name(Direction.IMPORT, filters, external)}"
    yield "{"
    yield f"  if bgp_next_hop = {config.address.ip} then reject; # our own, come back"
    for name in filters:
        yield f"  {function_name(Direction.IMPORT, name)}({_lower(external)});"
    yield "  accept;"
    yield "}"
    yield ""


def _export_filter(filters: tuple[str, ...], external: bool, config: BirdConfig) -> Iterator[str]:
    yield f"filter {_filter_name(Direction.EXPORT, filters, external)}"
    yield "{"
    yield "  # Routes to single pods, and what else the agent writes for this host alone."
    yield f"  if defined(krt_source) && krt_source = {PROTOCOL_PODWIRE} && !is_ours() then reject;"
    yield "  prepare();"
    for name in filters:
        yield f"  {function_name(Direction.EXPORT, name)}({_lower(external)});"
    if config.cluster_id is not None:
        exported = _within(pool.cidr for pool in config.pools if pool.exported)
        if exported is not None:
            yield f"  if source = RTS_BGP && {exported} then accept;"
    yield "  if is_ours() then accept;"
    yield "  reject;"
    yield "}"
    yield ""


def _policy(peer: BirdPeer) -> tuple[tuple[str, ...], bool]:
    return peer.filters, peer.bgp_type is BGPPeerType.EXTERNAL


def _filter_name(direction: Direction, filters: tuple[str, ...], external: bool) -> str:
    side = "external" if external else "internal"
    return function_name(direction, "-".join((side, *filters)).replace("'", ""))


def _within(cidrs: Iterable[IPNetwork]) -> str | None:
    """The condition that a destination lies in one of the IPv4 networks; None without any."""
    sets = ", ".join(f"{cidr}+" for cidr in cidrs if cidr.version == 4)
    return f"net ~ [{sets}]" if sets else None


def _lower(value: bool) -> str:
    return "true" if value else "false"
