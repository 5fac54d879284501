"""A pod is there and the datastore has forgotten its address: entered again, never taken away."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.boundary import Verb, Write
from podwire.errors import AddressTaken, NoPool
from podwire.ipam.service import AssignRequest
from podwire.model import keys
from tests.fakes.ipam_world import World, asked, pool

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.model.block import Allocation

P = pool("p", "10.0.0.0/28")
HERE = ip_address("10.0.0.2")


def request(address: IPAddress = HERE) -> AssignRequest:
    attributes = {"node": "a", "namespace": "demo", "pod": "here"}
    endpoint = Write(verb=Verb.CREATE, key="/endpoint", value={})
    return AssignRequest(
        handle="here", address=address, attributes=attributes, also=lambda _: [endpoint]
    )


def never(_: Allocation) -> bool:
    return False


@pytest.fixture(params=[True, False], ids=["batch", "single"])
def world(request: pytest.FixtureRequest) -> World:
    return World(P, batches=request.param)


def test_block_handle_address_and_endpoint_are_written_again(world: World) -> None:
    ipam = world.node("a")
    regained = ipam.regain(request(), never)
    assert (regained.entered, regained.stranded_at) == (True, None)
    assert world.users() == {HERE: "here"}
    assert set(world.handles()) == {"here"}
    assert world.store.get("/endpoint") is not None
    assert [ip_network("10.0.0.0/30")] == list(ipam.blocks())
    world.check()


def test_what_is_there_is_left_alone(world: World) -> None:
    ipam = world.node("a")
    ipam.regain(request(), never)
    before = [(each.key, each.revision) for each in world.store.list(keys.IPAM).entries]
    again = AssignRequest(handle="here", address=HERE)
    assert not ipam.regain(again, never).entered
    assert [(each.key, each.revision) for each in world.store.list(keys.IPAM).entries] == before


def test_rest_and_disabled_pools_do_not_count(world: World) -> None:
    ipam = world.node("a")
    ipam.assign(AssignRequest(handle="before", address=HERE))
    ipam.release_handle("before")
    world.put(pool("p", "10.0.0.0/28", disabled=True))
    ipam.regain(request(), never)
    assert world.users() == {HERE: "here"}
    world.check()


def test_somebody_else_keeps_it(world: World) -> None:
    ipam = world.node("a")
    ipam.assign(AssignRequest(handle="other", address=HERE))
    with pytest.raises(AddressTaken, match=r"10\.0\.0\.2 has become the address of handle other"):
        ipam.regain(request(), never)
    assert world.users() == {HERE: "other"}
    assert world.store.get("/endpoint") is None
    world.check()


def test_a_pod_that_has_gone_gives_way(world: World) -> None:
    ipam = world.node("a")
    ipam.assign(AssignRequest(handle="gone", address=HERE))
    ipam.regain(request(), lambda taken: taken.handle == "gone")
    assert world.users() == {HERE: "here"}
    assert set(world.handles()) == {"here"}
    world.check()


def test_in_a_block_that_has_become_another_nodes(world: World) -> None:
    world.configure(strict_affinity=True)
    other = world.node("b")
    assert other.claim(ip_network("10.0.0.0/30"))
    regained = world.node("a").regain(request(), never)
    assert regained.stranded_at == "b"
    given = [other.assign(asked(f"b{n}")).address for n in range(3)]
    assert HERE not in given


def test_no_pool_is_said() -> None:
    with pytest.raises(NoPool, match=r"no IPPool has the address 192\.0\.2\.9"):
        World(P).node("a").regain(request(ip_address("192.0.2.9")), never)
