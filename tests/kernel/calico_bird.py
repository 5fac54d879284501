"""BIRD as Calico's confd configures it on a node of a mesh, in the language of BIRD 2.

Calico's own BIRD is a fork of 1.6, whose routes have no metric, and which sets the tunnel by an
attribute of its own (`krt_tunnel`). What it leaves in the kernel is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model import codec, keys
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.resource import Wire

AS_NUMBER = 64512

FRAME = """\
router id {address};
filter calico_kernel_programming {{
  if source = RTS_DEVICE then reject;  # 1.6 does so by itself
{programming}  accept;
}}
protocol kernel {{
  learn; persist; scan time 2; metric 0; graceful restart; merge paths on;
  ipv4 {{ import all; export filter calico_kernel_programming; }};
}}
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; interface -"cali*", -"kube-ipvs*", "*"; }}
protocol static {{ ipv4; {blackholes} }}
filter calico_export_to_bgp_peers {{
{aggregation}  if {inside} then accept;
  reject;
}}
template bgp bgp_template {{
  description "Connection to BGP peer";
  local {address} as {number};
  multihop; graceful restart; connect delay time 2; connect retry time 5; error wait time 5, 30;
  ipv4 {{
    gateway recursive; add paths on; import all; export filter calico_export_to_bgp_peers;
  }};
}}
{sessions}
"""

SESSION = """\
protocol bgp Mesh_{name} from bgp_template {{ neighbor {peer} as {number};{passive} }}
"""


def confd(node: str, wires: Mapping[str, Wire]) -> str:
    """What confd of that node makes of the datastore."""
    nodes = [codec.decode_node(key, wires[key]) for key in wires if keys.parse_node_key(key)]
    addresses = {each.name: str(each.address.ip) for each in nodes if each.address is not None}
    own = addresses.pop(node)
    pools = [codec.decode_pool(key, wires[key]) for key in wires if keys.parse_pool_key(key)]
    claims = [claim for key in wires if (claim := keys.parse_affinity_key(key))]
    blocks = [str(block) for holder, block in claims if holder == node]
    return FRAME.format(
        address=own,
        number=AS_NUMBER,
        programming="".join(
            f"  if source = RTS_BGP && net ~ [{each.cidr}+] then {{"
            ' ifname = "tunl0"; onlink = true; gw = bgp_next_hop; accept; }\n'
            for each in pools
            if each.encapsulation is Encapsulation.IPIP
        ),
        blackholes=" ".join(f"route {block} blackhole;" for block in blocks),
        aggregation=_aggregation(blocks),
        inside=" || ".join(f"net ~ [{each.cidr}+]" for each in pools),
        sessions="".join(
            SESSION.format(
                name=peer.replace(".", "_"),
                peer=peer,
                number=AS_NUMBER,
                passive=" passive on;" if peer > own else "",
            )
            for peer in addresses.values()
        ),
    )


def _aggregation(blocks: Iterable[str]) -> str:
    return "".join(
        f"  if net = {block} then accept;\n  if net ~ [{block}+] then reject;\n" for block in blocks
    )
