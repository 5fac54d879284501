"""A datastore with all that Podwire writes: nodes and pods as agents make them, kinds by apply."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from podwire.agent.attach import attributes_of, new_endpoint
from podwire.agent.hold import Hold
from podwire.agent.register import Registrar
from podwire.boundary import Verb, Write
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import codec
from podwire.model.cni import Command, NetworkConfig, Pod, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.boundary import Store
    from podwire.model.addressing import IPAddress

POOLS = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 10.244.0.0/22, blockSize: 28, vxlanMode: CrossSubnet, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: small, labels: {rack: r1}}
spec:
  {cidr: 10.99.0.0/26, ipipMode: Always, nodeSelector: rack == 'r1', disableBGPExport: true,
   allowedUses: [Workload, Tunnel]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: closed}
spec: {cidr: 10.98.0.0/24, disabled: true, nodeSelector: all()}
"""
BGP_OF_NODE = """
spec:
  bgp: {asNumber: 64700, routeReflectorClusterID: 1.0.0.1, ipv6Address: "2001:db8::12/64"}
"""
KINDS = """
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: gateways}
spec: {reservedCIDRs: [10.244.0.0/30, 10.98.0.1]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 64600
  logSeverityScreen: Warning
  nodeToNodeMeshEnabled: true
  listenPort: 1179
  communities: [{name: own, value: "64600:100"}]
  prefixAdvertisements: [{cidr: 10.244.0.0/22, communities: [own]}]
  serviceClusterIPs: [{cidr: 10.96.0.0/16}]
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: node.n-2}
spec: {logSeverityScreen: Debug}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: cautious}
spec:
  exportV4:
  - {action: Accept, matchOperator: In, cidr: 10.244.0.0/16}
  - {action: Reject}
  importV4: [{action: Reject, matchOperator: NotIn, cidr: 10.0.0.0/8, source: RemotePeers}]
  importV6: [{action: Accept, interface: "eth*"}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: "192.0.2.1:1179", asNumber: 65000, nodeSelector: rack == 'r1', filters: [cautious]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: one-node}
spec: {node: n-2, peerIP: 192.0.2.2, asNumber: 4200000001, maxRestartTime: 2m0s}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec: {nodeSelector: all(), peerSelector: has(reflector)}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: world}
spec: {peerIP: "2001:db8::1", asNumber: 65001}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {logSeverityScreen: Info, vxlanVNI: 4096, bpfEnabled: false, reportingInterval: 0s}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: default.no-smtp}
spec:
  order: 10.5
  selector: app == 'web'
  types: [Egress]
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: [25, "465:587"]}}
  - {action: Allow}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: default.plain}
spec: {types: [Ingress]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: default.from-web, namespace: demo}
spec:
  order: 1000000
  selector: role == 'db'
  ingress: [{action: Allow, source: {selector: app == 'web'}}]
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: partners, namespace: demo, labels: {trust: low}}
spec: {nets: [198.51.100.0/24, 203.0.113.7/32]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bogons}
spec: {nets: [192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n-1-eth0}
spec: {node: n-1, interfaceName: eth0, expectedIPs: [192.0.2.11], profiles: [hosts]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: hosts}
spec: {labelsToApply: {kind: host, zone: a}, ingress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: KubeControllersConfiguration
metadata: {name: default}
spec: {controllers: {node: {syncLabels: Enabled, leakGracePeriod: 15m0s}}}
"""
NAMESPACED = {"WorkloadEndpoint", "NetworkPolicy", "NetworkSet"}
EVERY = (
    *("IPPool", "Node", "WorkloadEndpoint", "IPReservation", "ClusterInformation"),
    *("BGPConfiguration", "BGPPeer", "BGPFilter", "FelixConfiguration", "GlobalNetworkPolicy"),
    *("NetworkPolicy", "NetworkSet", "GlobalNetworkSet", "HostEndpoint", "Profile"),
    "KubeControllersConfiguration",
)
"""All kinds that calicoctl of v3.28 has."""


class Agent:
    """What the agent of one node writes, without its kernel."""

    def __init__(self, store: Store, node: str, address: str) -> None:
        clock, dice = SystemClock(), SystemDice()
        self.ipam = IPAM(store, node, clock, dice)
        self.registrar = Registrar(
            node=node, store=store, ipam=self.ipam, hold=Hold(clock), clock=clock, draw=dice.uniform
        )
        self.registrar.look(ip_interface(address))
        self.world: Any = SimpleNamespace(
            node=node, clock=clock, endpoints=SimpleNamespace(all=dict), boot="0123456789ab"
        )

    def turn(self) -> None:
        """Node, block and tunnel addresses are as they should be."""
        assert self.registrar.turn(), self.registrar.problems

    def attach(
        self, container: str, pod: Pod | None = None, address: IPAddress | None = None
    ) -> IPAddress:
        """Allocate for a container and write its endpoint, as an ADD does."""
        config = NetworkConfig(version="1.0.0", name="k8s-pod-network")
        request = Request(
            command=Command.ADD, config=config, container_id=container, interface="eth0", pod=pod
        )
        endpoint = new_endpoint(self.world, request)

        def also(given: IPAddress) -> Sequence[Write]:
            whole = replace(endpoint, addresses=(ip_interface(given),))
            return [Write(verb=Verb.CREATE, key=codec.key_of(whole), value=codec.encode(whole))]

        asked = AssignRequest(
            handle=request.key.handle,
            attributes=attributes_of(self.world, endpoint),
            address=address,
            also=also,
        )
        return self.ipam.assign(asked).address


def fill(store: Store, podwire: Callable[..., object]) -> dict[str, str]:
    """Two nodes with tunnels, pods of Kubernetes and of plain CNI, one address borrowed.

    Returns:
        Address by pod or container.
    """
    ensure_cluster(store)
    podwire("apply", "-f", "-", text=POOLS)
    one, two = Agent(store, "n-1", "192.0.2.11/24"), Agent(store, "n-2", "192.0.2.12/24")
    for agent in (one, two):
        agent.turn()
    podwire("label", "node", "n-1", "rack=r1")
    podwire("patch", "node", "n-2", "-p", BGP_OF_NODE)
    for agent in (one, two):
        agent.turn()
    podwire("apply", "-f", "-", text=KINDS)
    given = {
        f"demo/web-{n}": one.attach(f"c{n}" * 8, Pod(namespace="demo", name=f"web-{n}"))
        for n in range(3)
    }
    given["feed"] = two.attach("feed" * 16)
    given["default/db-0"] = two.attach("d" * 12, Pod(namespace="default", name="db-0"))
    podwire("ipam", "configure", "--strictaffinity=false")
    block = next(ip_network(cidr) for cidr in one.ipam.blocks() if "10.244" in str(cidr))
    given["demo/guest"] = two.attach("e" * 12, Pod(namespace="demo", name="guest"), block[10])
    return {whose: str(address) for whose, address in given.items()}
