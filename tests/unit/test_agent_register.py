"""This node's own objects in the datastore: made, kept, repaired, and never fought over."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from podwire.agent.hold import Hold
from podwire.agent.register import Registrar
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import DatastoreUnavailable, InUse
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model import keys
from podwire.model.codec import decode_node, encode, key_of
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.model.node import Node

CIDR = ip_network("10.244.0.0/16")
OTHER = ip_interface("10.0.0.9/24")


def pool(**fields: Any) -> IPPool:
    return IPPool(metadata=Metadata(name="default"), cidr=CIDR, **fields)


def cluster(*pools: IPPool) -> SingleObjectStore:
    store = SingleObjectStore()
    ensure_cluster(store)
    for one in pools:
        store.create(key_of(one), encode(one))
    return store


def registrar(
    store: Store, name: str = "a", address: str = "10.0.0.1/24", ipam: IPAM | None = None
) -> Registrar:
    clock, dice = SystemClock(), SystemDice()
    made = Registrar(
        node=name,
        store=store,
        ipam=ipam or IPAM(store, name, clock, dice),
        hold=Hold(clock),
        clock=clock,
        draw=dice.uniform,
    )
    made.look(ip_interface(address))
    return made


def node(store: Store, name: str = "a") -> Node:
    entry = store.get(keys.node_key(name))
    assert entry is not None
    return decode_node(entry.key, entry.value)


def replace_pool(store: Store, new: IPPool) -> None:
    entry = store.get(key_of(new))
    assert entry is not None
    store.update(entry.key, encode(new), entry.revision)


def test_a_new_node_gets_object_block_and_tunnel_address() -> None:
    store = cluster(pool(vxlan_mode=Mode.ALWAYS))
    assert registrar(store).turn()
    own = node(store)
    assert str(own.address) == "10.0.0.1/24"
    assert own.vxlan_tunnel in CIDR
    assert own.ipip_tunnel is None
    assert len(store.list(keys.affinity_prefix("a")).entries) == 1
    assert store.get(keys.handle_key("vxlan-tunnel-addr-a")) is not None


def test_a_second_look_writes_nothing() -> None:
    store = cluster(pool(vxlan_mode=Mode.ALWAYS))
    registrar(store).turn()
    before = store.list("/").entries
    again = registrar(store)
    assert again.turn()
    assert again.writes == 0
    assert store.list("/").entries == before


def test_a_look_for_a_block_leaves_the_rest_alone() -> None:
    store = cluster(pool(block_size=29))
    ipam = IPAM(store, "a", SystemClock(), SystemDice())
    one = registrar(store, ipam=ipam)
    one.turn()
    entry = store.get(keys.node_key("a"))
    assert entry is not None
    elsewhere = replace(node(store), address=ip_interface("10.0.0.9/24"))
    store.update(entry.key, encode(elsewhere), entry.revision)
    for number in range(7):
        ipam.assign(AssignRequest(handle=f"net.c{number}", attributes={"pod": f"web-{number}"}))
    assert one.turn(whole=False)
    assert len(store.list(keys.affinity_prefix("a")).entries) == 2
    assert node(store).address == elsewhere.address
    assert one.turn()
    assert str(node(store).address) == "10.0.0.1/24"


def test_what_another_agent_of_the_node_wrote_is_not_corrected() -> None:
    store = cluster(pool())
    one = registrar(store)
    one.turn()
    entry = store.get(keys.node_key("a"))
    assert entry is not None
    store.update(entry.key, encode(replace(node(store), address=OTHER)), entry.revision)

    def refuse() -> None:
        raise InUse("another agent serves Node a")

    one.refuse_other = refuse
    assert not one.turn()
    assert "another agent" in str(one.problems["node"])
    assert node(store).address == OTHER


def test_other_peoples_fields_stay() -> None:
    store = cluster(pool())
    wire = {
        "kind": "Node",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "a", "labels": {"rack": "7"}},
        "spec": {
            "orchRefs": [{"nodeName": "a", "orchestrator": "k8s"}],
            "bgp": {"asNumber": 64513},
        },
        "status": {"wireguardPublicKey": "k"},
    }
    store.create(keys.node_key("a"), wire)
    assert registrar(store).turn()
    entry = store.get(keys.node_key("a"))
    assert entry is not None
    assert entry.value["spec"]["orchRefs"] == wire["spec"]["orchRefs"]  # type: ignore[index]
    assert entry.value["spec"]["bgp"]["asNumber"] == 64513
    assert entry.value["status"] == wire["status"]
    assert str(node(store).address) == "10.0.0.1/24"


def test_a_second_node_with_the_same_address_is_refused() -> None:
    store = cluster(pool())
    registrar(store, "a").turn()
    second = registrar(store, "b")
    assert not second.turn()
    assert "already has the address 10.0.0.1" in str(second.problems["node"])
    assert store.get(keys.node_key("b")) is None
    store.delete(keys.node_key("a"))
    assert second.turn()


def test_a_node_deleted_under_a_running_agent_stays_deleted() -> None:
    store = cluster(pool())
    running = registrar(store)
    running.turn()
    store.delete(keys.node_key("a"))
    assert not running.turn()
    assert "was deleted" in str(running.problems["node"])
    assert store.get(keys.node_key("a")) is None
    assert registrar(store).turn()


def test_a_node_that_a_restored_datastore_lacks_registers_again_and_takes_nothing_yet() -> None:
    store = cluster(pool(vxlan_mode=Mode.ALWAYS))
    here = registrar(store)
    here.turn()
    for prefix in (keys.NODES, keys.BLOCKS4, keys.AFFINITIES, keys.HANDLES):
        for entry in store.list(prefix).entries:
            store.delete(entry.key)
    here.may_take = lambda: False
    here.begin_anew()
    assert here.turn()
    assert not here.ready  # the others have to hear of it first, as of a new node
    assert node(store).vxlan_tunnel is None
    assert not store.list(keys.AFFINITIES).entries
    here.may_take = lambda: True
    assert here.turn()
    assert node(store).vxlan_tunnel in CIDR


def test_another_encapsulation_means_another_tunnel_address() -> None:
    store = cluster(pool(vxlan_mode=Mode.ALWAYS))
    running = registrar(store)
    running.turn()
    replace_pool(store, pool(ipip_mode=Mode.CROSS_SUBNET))
    assert running.turn()
    own = node(store)
    assert own.vxlan_tunnel is None
    assert own.ipip_tunnel in CIDR
    assert store.get(keys.handle_key("vxlan-tunnel-addr-a")) is None
    replace_pool(store, pool())
    assert running.turn()
    assert node(store).ipip_tunnel is None
    assert store.list(keys.HANDLES).entries == ()


def test_a_pool_out_of_service_keeps_its_tunnels_until_the_last_pod_has_gone() -> None:
    store = cluster(pool(vxlan_mode=Mode.ALWAYS))
    running = registrar(store)
    running.turn()
    own = node(store).vxlan_tunnel
    ipam = IPAM(store, "a", SystemClock(), SystemDice())
    ipam.assign(AssignRequest(handle="net.c1", attributes={"namespace": "demo", "pod": "web-0"}))
    replace_pool(store, pool(vxlan_mode=Mode.ALWAYS, disabled=True))
    assert running.turn()
    assert node(store).vxlan_tunnel == own
    ipam.release_handle("net.c1")
    assert running.turn()
    assert node(store).vxlan_tunnel is None
    assert store.list(keys.HANDLES).entries == ()


def test_a_tunnel_address_ipam_knows_nothing_of_is_replaced() -> None:
    store = cluster(pool(vxlan_mode=Mode.ALWAYS))
    registrar(store).turn()
    right = node(store).vxlan_tunnel
    entry = store.get(keys.node_key("a"))
    assert entry is not None
    spec = {**entry.value["spec"], "ipv4VXLANTunnelAddr": "10.244.200.200"}
    store.update(entry.key, {**entry.value, "spec": spec}, entry.revision)
    assert registrar(store).turn()
    assert node(store).vxlan_tunnel == right


def test_without_a_pool_the_node_is_registered_all_the_same() -> None:
    store = cluster()
    assert registrar(store).turn()
    assert store.list(keys.AFFINITIES).entries == ()


def test_a_node_says_what_its_underlay_carries_and_only_what_is_new() -> None:
    store = cluster(pool())
    running = registrar(store)
    running.look(mtu=9000)
    assert running.turn()
    assert node(store).underlay_mtu == 9000
    written = running.writes
    running.look(ip_interface("10.0.0.1/24"), 9000)
    assert running.turn()
    assert running.writes == written
    running.look(mtu=1400)
    assert running.turn()
    assert node(store).underlay_mtu == 1400
    assert running.writes == written + 1
    # What cannot be found out now stays as it was.
    again = registrar(store)
    assert again.turn()
    assert again.writes == 0
    assert node(store).underlay_mtu == 1400


def test_a_node_moves_to_a_free_address_and_to_no_other() -> None:
    store = cluster(pool())
    registrar(store, "b", "10.0.0.2/24").turn()
    running = registrar(store)
    running.turn()
    running.look(ip_interface("10.0.0.2/24"))
    assert not running.turn()
    assert "Node b already has the address 10.0.0.2" in str(running.problems["node"])
    assert str(node(store).address) == "10.0.0.1/24"
    running.look(ip_interface("10.0.0.3/16"))
    assert running.turn()
    assert str(node(store).address) == "10.0.0.3/16"


class Racing(SingleObjectStore):
    """Between the look at the other nodes and the write, another node takes the address."""

    rival: dict[str, Any] | None = None

    def update(self, key: str, value: Any, revision: str) -> Any:
        written = super().update(key, value, revision)
        if self.rival is not None and key == keys.node_key("a"):
            rival, self.rival = self.rival, None
            self.create(keys.node_key("b"), rival)
        return written


def test_two_nodes_that_take_one_address_at_once_do_not_both_keep_it() -> None:
    store = Racing()
    ensure_cluster(store)
    running = registrar(store)
    running.turn()
    metadata = Metadata(name="b")
    rival = type(node(store))(metadata=metadata, address=ip_interface("10.0.0.9/24"))
    store.rival = dict(encode(rival))
    running.look(ip_interface("10.0.0.9/24"))
    assert not running.turn()
    assert str(node(store).address) == "10.0.0.1/24"
    store.delete(keys.node_key("b"))
    assert running.turn()
    assert str(node(store).address) == "10.0.0.9/24"


def test_a_datastore_that_refuses_writes_keeps_the_node_from_being_ready() -> None:
    store = cluster(pool())
    here = registrar(store)
    assert here.turn()
    store.fail_after(0, DatastoreUnavailable("full"))
    assert here.turn()  # nothing had to be written, so nobody noticed
    here.doubt()
    assert not here.turn()
    assert here.is_refused()
    assert str(here.problems["datastore"]) == "full"
    store.recover()
    before = store.list("/").entries
    assert here.turn()
    assert not here.is_refused()
    assert store.list("/").entries == before
