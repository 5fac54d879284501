"""Every kind of problem that `podwire ipam check` finds: made, found, mended as its fix says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from podwire.drivers.clock import SystemClock
from podwire.drivers.store.jsontext import Opaque
from podwire.ipam.check import check
from podwire.ipam.problem import REPAIR, Trouble
from podwire.ipam.request import AssignRequest
from podwire.model import codec, keys
from podwire.model.block import Affinity
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.checked_store import (
    block_of,
    change,
    endpoint_key,
    ipam,
    leak,
    open_checked,
    owner,
    pod,
    problems,
    put,
    run,
)
from tests.fakes.ipam_world import pod_endpoint, pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podwire.boundary import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = open_checked(file)
    yield store
    store.close()


# --- every kind: made, found, mended by the fix it names ------------------------------------------


def empty_handle(store: Store) -> str:
    store.create(keys.handle_key("net.x"), {"block": {"10.0.0.0/30": 1}, "deleted": False})
    return "net.x"


def missing_handle(store: Store) -> str:
    pod(store, "x")
    store.delete(keys.handle_key("net.x"))
    return "net.x"


def uncounted(store: Store) -> str:
    pod(store, "x")
    change(store, keys.handle_key("net.x"), block={"10.0.0.64/30": 1})
    return "net.x"


def unreadable_handle(store: Store) -> str:
    pod(store, "x")
    change(store, keys.handle_key("net.x"), block=7)
    return keys.handle_key("net.x")


def unreadable_affinity(store: Store) -> str:
    address = pod(store, "x")
    cidr = keys.parse_block_key(block_of(store, address))
    assert cidr is not None
    change(store, keys.affinity_key("a", cidr), state="strange")
    return keys.affinity_key("a", cidr)


def with_block(**fields: Any) -> Callable[[Store], str]:
    def damage(store: Store) -> str:
        key = block_of(store, pod(store, "x"))
        change(store, key, **fields)
        return str(keys.parse_block_key(key))

    return damage


def released_tomorrow(store: Store) -> str:
    config = {"strict_affinity": True, "auto_allocate_blocks": True, "ipCooldownSeconds": 60}
    change(store, keys.IPAM_CONFIG_KEY, **config)
    address = pod(store, "x")
    store.delete(endpoint_key("x"))
    ipam(store).release_handle("net.x")
    key = block_of(store, address)
    entry = store.get(key)
    assert entry is not None
    attributes = [
        {**each, "releasedAt": "2999-01-01T00:00:00Z"} if "releasedAt" in each else each
        for each in entry.value["attributes"]
    ]
    change(store, key, attributes=attributes)
    return str(keys.parse_block_key(key))


def no_affinity(store: Store) -> str:
    cidr = keys.parse_block_key(block_of(store, pod(store, "x")))
    assert cidr is not None
    store.delete(keys.affinity_key("a", cidr))
    return str(cidr)


def no_block(store: Store) -> str:
    put(store, Affinity(node="a", block=ip_network("10.0.0.252/30")))
    return "10.0.0.252/30"


def others_block(store: Store) -> str:
    """Nobody holds the block any more, and an affinity says that a does."""
    key = block_of(store, pod(store, "x"))
    change(store, key, affinity=None)
    return str(keys.parse_block_key(key))


def two_owners(store: Store) -> str:
    put(store, Node(metadata=Metadata(name="b")))
    cidr = keys.parse_block_key(block_of(store, pod(store, "x")))
    assert cidr is not None
    put(store, Affinity(node="b", block=cidr))
    return str(cidr)


def stray_block(store: Store) -> str:
    cidr = ip_network("10.9.0.0/30")
    put(store, pool("old", "10.9.0.0/24"))
    ipam(store).claim(cidr)
    store.delete(keys.pool_key("old"))
    return str(cidr)


BY_REPORT: dict[Trouble, list[Callable[[Store], str]]] = {
    Trouble.LEAKED: [leak],
    Trouble.EMPTY_HANDLE: [empty_handle],
    Trouble.MISSING_HANDLE: [missing_handle],
    Trouble.UNCOUNTED: [uncounted],
    Trouble.UNREADABLE: [unreadable_handle, unreadable_affinity],
    Trouble.BROKEN_BLOCK: [
        with_block(unallocated=[0, 3]),
        with_block(unallocated=[1, 1, 2, 3]),
        with_block(unallocated=[1, 2, 3, 9]),
        with_block(unallocated=[0, 1, 2, 3]),
        with_block(allocations=[0, 1, 4, None], unallocated=[3]),
        with_block(allocations=[0, 1, None, None, None, 0]),
        released_tomorrow,
    ],
    Trouble.STRAY_BLOCK: [stray_block],
    Trouble.UNCLAIMED_BLOCK: [no_affinity],
    Trouble.EMPTY_CLAIM: [no_block],
    Trouble.WRONG_CLAIM: [others_block],
    Trouble.TWO_OWNERS: [two_owners],
}
CASES = [(trouble, damage) for trouble, cases in BY_REPORT.items() for damage in cases]


@pytest.mark.parametrize(
    ("trouble", "damage"), CASES, ids=[f"{n}-{kind.value}" for n, (kind, _) in enumerate(CASES)]
)
def test_what_a_report_names_is_mended(
    store: Store, file: Path, trouble: Trouble, damage: Callable[[Store], str]
) -> None:
    pod(store, "kept")
    subject = damage(store)
    assert problems(store) == [(trouble.value, subject)]
    report = file.parent / "report.json"
    done = run(file, "ipam", "check", "-o", str(report))
    assert done.exit_code == 1
    assert f"{trouble.value}: 1" in done.stdout
    assert f"fix: {REPAIR}" in done.stdout
    assert done.stdout.endswith("Check complete; found 1 problems.\n")
    done = run(file, "ipam", "release", "--from-report", str(report))
    released = int(trouble is Trouble.LEAKED)
    assert done.stdout == f"{released} addresses released, {1 - released} records mended\n"
    assert problems(store) == []
    # A second time it is no longer true, and said so.
    done = run(file, "ipam", "release", "--from-report", str(report))
    assert "the datastore has changed since the report" in str(done.exception)


def anew(store: Store, file: Path) -> None:
    """The pod is deleted, as its DEL does, and comes back."""
    store.delete(endpoint_key("x"))
    ipam(store).release_handle("net.x")
    pod(store, "x")


def outside(store: Store) -> None:
    pod(store, "x")
    there = store.get(keys.pool_key("pods"))
    assert there is not None
    put(store, replace(codec.decode_pool(there.key, there.value), disabled=True))


def enable(store: Store, file: Path) -> None:
    done = run(file, "patch", "ippool", "pods", "-p", '{"spec": {"disabled": false}}')
    assert done.exit_code == 0, done.exception


def unallocated(store: Store) -> None:
    pod(store, "x")
    ipam(store).release_handle("net.x")


def anothers(store: Store) -> None:
    address = pod(store, "x")
    ipam(store).release_handle("net.x")
    again = AssignRequest(handle="net.y", attributes=owner("y"), address=ip_address(address))
    ipam(store).assign(again)


def anew_and_release(store: Store, file: Path) -> None:
    anew(store, file)
    report = file.parent / "report.json"
    run(file, "ipam", "check", "-o", str(report))
    run(file, "ipam", "release", "--from-report", str(report))


def shared(store: Store) -> None:
    """By two pods, and the allocation does not say whose it is."""
    address = pod(store, "x")
    put(store, pod_endpoint("twin", address))
    change(store, block_of(store, address), attributes=[{"handle_id": "net.x", "secondary": {}}])


def delete_twin(store: Store, file: Path) -> None:
    store.delete(endpoint_key("twin"))


def lost_node(store: Store) -> None:
    pod(store, "x", "far")
    store.create(f"{keys.AFFINITIES}far", {})


def release_node(store: Store, file: Path) -> None:
    done = run(file, "ipam", "release", "--node", "far")
    assert done.stdout == ("Successfully released 1 addresses, 1 blocks and 1 endpoints of far\n")
    assert not [entry for entry in store.list("/").entries if "far" in f"{entry}"]


def pools_overlap(store: Store) -> None:
    put(store, pool("more", "10.0.0.128/25"))


def delete_pool(store: Store, file: Path) -> None:
    assert run(file, "delete", "ippool", "more").exit_code == 0


def unreadable(store: Store) -> None:
    store.create(keys.pool_key("more"), {"spec": {"cidr": 7}})


def nameless(store: Store) -> None:
    ipam(store).assign(AssignRequest(handle="tool", attributes={"note": "mine"}))


def release_it(store: Store, file: Path) -> None:
    address = dict(problems(store))["leaked"]
    assert run(file, "ipam", "release", "--ip", address).exit_code == 0


Damage: TypeAlias = "Callable[[Store], None]"
Mend: TypeAlias = "Callable[[Store, Path], None]"

BY_HAND: list[tuple[Trouble, Damage, str, Mend]] = [
    (Trouble.OUTSIDE, outside, "enable IPPool pods", enable),
    (Trouble.UNALLOCATED, unallocated, "make the pod anew", anew),
    (Trouble.ANOTHERS, anothers, "make the pod anew", anew_and_release),
    (Trouble.SHARED, shared, "make all but one of them anew", delete_twin),
    (Trouble.LOST_NODE, lost_node, "podwire ipam release --node far", release_node),
    (Trouble.POOLS_OVERLAP, pools_overlap, "podwire delete ippool more", delete_pool),
    (Trouble.UNREADABLE, unreadable, "delete it", delete_pool),
    (Trouble.LEAKED, nameless, "podwire ipam release --ip", release_it),
]


@pytest.mark.parametrize(
    ("trouble", "damage", "fix", "mend"), BY_HAND, ids=[each[1].__name__ for each in BY_HAND]
)
def test_what_needs_a_decision_is_mended_as_the_fix_says(
    store: Store, file: Path, trouble: Trouble, damage: Damage, fix: str, mend: Mend
) -> None:
    damage(store)
    (found,) = check(store.list("/").entries, SystemClock().now()).problems
    assert found.trouble is trouble
    assert fix in found.fix
    assert not found.repairable
    mend(store, file)
    assert problems(store) == []


def test_every_kind_of_problem_has_a_test() -> None:
    tested = {trouble for trouble, *_ in (*CASES, *BY_HAND)} | {Trouble.BLOCKS_OVERLAP}
    assert tested == set(Trouble)


def test_blocks_of_two_sizes_are_cleared_up_as_they_become_empty(store: Store, file: Path) -> None:
    put(store, pool("pods", "10.0.0.0/24", block_size=29))
    address = ip_address(pod(store, "x"))
    put(store, pool("pods", "10.0.0.0/24", block_size=30))
    wide = ip_network(f"{address}/29", strict=False)
    narrow = next(each for each in wide.subnets(new_prefix=30) if address not in each)
    assert ipam(store).claim(narrow)
    report = file.parent / "report.json"
    in_use = [("blockOutsidePools", str(wide))]
    assert problems(store) == [*in_use, ("blocksOverlap", str(narrow))]
    run(file, "ipam", "check", "-o", str(report))
    run(file, "ipam", "release", "--from-report", str(report))
    assert problems(store) == in_use
    assert "move its pods elsewhere" in run(file, "ipam", "check").stdout
    store.delete(endpoint_key("x"))
    ipam(store).release_handle("net.x")
    run(file, "ipam", "check", "-o", str(report))
    run(file, "ipam", "release", "--from-report", str(report))
    assert problems(store) == []


def test_an_address_in_use_whose_owner_is_lost_is_not_made_free(store: Store, file: Path) -> None:
    key = block_of(store, address := pod(store, "x"))
    change(store, key, allocations=[4, None, None, None])
    report = file.parent / "report.json"
    done = run(file, "ipam", "check", "-o", str(report))
    assert "ordinal 0 points to no attribute" in done.stdout
    done = run(file, "ipam", "release", "--from-report", str(report))
    assert f"has lost whose {address} is" in str(done.exception)
    store.delete(endpoint_key("x"))
    for _ in range(2):  # the block, and then the handle that has nothing in it
        run(file, "ipam", "check", "-o", str(report))
        run(file, "ipam", "release", "--from-report", str(report))
    assert problems(store) == []


def test_a_block_beyond_mending_is_left_alone(store: Store, file: Path) -> None:
    key = block_of(store, pod(store, "x"))
    change(store, key, allocations="none")
    (found, *_) = check(store.list("/").entries, SystemClock().now()).problems
    by_hand = [each for each in (found, *_) if each.trouble is Trouble.BROKEN_BLOCK]
    assert [each.repairable for each in by_hand] == [False]


def test_values_that_are_no_json_objects_harm_only_themselves(store: Store, file: Path) -> None:
    key = block_of(store, pod(store, "x"))
    for each in (key, keys.objection_key("far"), keys.handle_key("net.y")):
        store.delete(each)
        store.create(each, Opaque(each, "junk"))
    assert [kind for kind, _ in problems(store)] == ["invalidBlock", "unreadable"]
    assert "fix: set datastoreReady: false" in run(file, "ipam", "check").stdout
    done = run(file, "ipam", "release", "--node", "far")
    assert "the agent of far runs" in str(done.exception)


def test_while_an_endpoint_cannot_be_read_nothing_is_called_a_leak(store: Store) -> None:
    leak(store)
    broken = keys.endpoint_key("demo", "broken")
    store.create(broken, {"spec": 7})
    assert problems(store) == [("unreadable", broken)]


def test_no_block_is_mended_while_a_user_of_it_may_be_unknown(store: Store, file: Path) -> None:
    with_block(allocations=[0, 4, None, None], unallocated=[2, 3])(store)
    store.create(keys.endpoint_key("demo", "broken"), {"spec": 7})
    found = check(store.list("/").entries, SystemClock().now()).problems
    told = {each.trouble: each.fix for each in found}
    assert "that cannot be read" in told[Trouble.BROKEN_BLOCK]


def test_a_node_that_cannot_be_read_is_not_gone(store: Store) -> None:
    pod(store, "x")
    change(store, keys.node_key("a"), spec=7)
    assert problems(store) == [("unreadable", keys.node_key("a"))]


def test_the_agent_of_a_deleted_node_may_object(store: Store, file: Path) -> None:
    pod(store, "x", "far")
    store.create(keys.objection_key("far"), {"pods": 1})
    done = run(file, "ipam", "check")
    assert "its agent runs, with 1 of its pods" in done.stdout
    done = run(file, "ipam", "release", "--node", "far")
    assert "the agent of far runs" in str(done.exception)
    assert run(file, "ipam", "release", "--node", "far", "--force").exit_code == 0
    assert problems(store) == []
    done = run(file, "ipam", "release", "--node", "a")
    assert "Node a exists" in str(done.exception)
