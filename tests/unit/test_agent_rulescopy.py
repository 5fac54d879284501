"""IPAM's rules out of the agent's copy: the same as the datastore's, or none."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.agent.mirror import Mirror
from podwire.agent.rulescopy import BACKLOG_S, PREFIXES, RulesCopy
from podwire.boundary import Change, Entry
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import NoPool, PoolExhausted
from podwire.ipam.records import Records
from podwire.ipam.service import IPAM
from podwire.model import keys
from podwire.model.block import IPAMConfig
from podwire.model.codec import encode, key_of
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.ipam_world import HandClock, MiddleDice, WatchedStore, asked, pool, reservation

if TYPE_CHECKING:
    from podwire.ipam.pools import Rules
    from podwire.model.resource import Stored, Wire

P, Q = pool("p", "10.0.0.0/28"), pool("q", "10.0.1.0/28", block_size=28)


class Followed:
    """A datastore, and a copy that hears of it when it is told to."""

    def __init__(self, *values: Stored) -> None:
        self.clock = HandClock()
        self.store = WatchedStore(SingleObjectStore(batches=True))
        self.put(IPAMConfig(strict_affinity=True), *values)
        self.mirror, self.copy = Mirror(), RulesCopy("a", self.clock)
        self.ipam = IPAM(self.store, "a", self.clock, MiddleDice())
        self.ipam.follow(self.copy.read)

    def put(self, *values: Stored) -> None:
        for value in values:
            self.write(key_of(value), encode(value))

    def write(self, key: str, value: Wire) -> None:
        self.store.inner.delete(key)
        self.store.inner.create(key, value)

    def hear(self, *prefixes: str) -> Rules | None:
        """Listings of these prefixes come in, of all when none is named."""
        for prefix in prefixes or sorted(PREFIXES):
            self.mirror.on_listing(prefix, self.store.inner.list(prefix).entries)
            self.copy.look(self.mirror, prefix)
        return self.copy.read()

    def hear_in_time(self) -> Rules | None:
        """All of it, and long enough ago to be believed."""
        self.hear()
        self.clock.sleep(BACKLOG_S)
        return self.copy.read()

    def lose(self, prefix: str) -> None:
        self.mirror.on_away(prefix, "no answer")
        self.copy.look(self.mirror, prefix)

    def read(self) -> Rules:
        return Records(self.store.inner).rules("a")


def labelled(**labels: str) -> Node:
    return Node(metadata=Metadata(name="a", labels=labels))


def test_it_says_what_the_datastore_says() -> None:
    followed = Followed(Q, P, labelled(rack="1"), reservation("r", "10.0.0.0/30", "10.0.0.4/30"))
    assert followed.hear_in_time() == followed.read()
    followed.put(pool("p", "10.0.0.0/28", disabled=True), labelled(rack="2"))
    followed.put(reservation("s", "10.0.1.1/32"), IPAMConfig(strict_affinity=False))
    assert followed.hear() == followed.read()
    for key in (keys.IPAM_CONFIG_KEY, keys.node_key("a"), keys.pool_key("q")):
        followed.store.inner.delete(key)
    assert followed.hear() == followed.read()


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_it_says_nothing_before_all_is_listed(prefix: str) -> None:
    followed = Followed(P)
    followed.hear(*PREFIXES - {prefix})
    followed.clock.sleep(BACKLOG_S)
    assert followed.copy.read() is None
    followed.hear(prefix)
    followed.clock.sleep(BACKLOG_S)
    assert followed.copy.read() == followed.read()


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_it_says_nothing_while_a_prefix_is_away_and_a_moment_longer(prefix: str) -> None:
    followed = Followed(P)
    assert followed.hear_in_time() is not None
    followed.lose(prefix)
    assert followed.copy.read() is None
    # A watch that goes on says so before it tells what it missed.
    followed.mirror.on_changes(prefix, ())
    followed.copy.look(followed.mirror, prefix)
    assert followed.copy.read() is None
    followed.clock.sleep(BACKLOG_S)
    assert followed.copy.read() == followed.read()


def test_what_cannot_be_read_makes_it_silent_until_it_can() -> None:
    followed = Followed(P, Q, Node(metadata=Metadata(name="b")))
    followed.hear_in_time()
    followed.write(keys.node_key("b"), {"spec": {"bgp": {"ipv4Address": "x"}}})
    assert followed.hear() is not None, "another node decides nothing here"
    followed.write(keys.pool_key("q"), {"spec": {"cidr": "x"}})
    assert followed.hear() is None
    followed.put(Q)
    assert followed.hear() == followed.read()


def test_changes_of_other_prefixes_cost_nothing() -> None:
    followed = Followed(P)
    rules = followed.hear_in_time()
    followed.mirror.on_changes(keys.AFFINITIES, ())
    followed.copy.look(followed.mirror, keys.AFFINITIES)
    assert followed.copy.read() is rules
    followed.put(Node(metadata=Metadata(name="b", labels={"rack": "2"})))
    assert followed.hear(keys.NODES) is rules


def test_with_it_an_address_costs_no_read() -> None:
    followed = Followed(P)
    followed.hear_in_time()
    followed.ipam.assign(asked("h1"))
    followed.clock.sleep(60)
    before = followed.store.reads
    followed.ipam.assign(asked("h2"))
    assert followed.ipam.claim_ahead() is None
    assert followed.store.reads == before


def test_without_it_the_rules_are_read_as_ever() -> None:
    followed = Followed(P)
    followed.ipam.assign(asked("h1"))
    followed.put(pool("p", "10.0.0.0/28", disabled=True))
    followed.clock.sleep(1)
    with pytest.raises(NoPool):
        followed.ipam.assign(asked("h2"))


def test_a_pool_that_was_disabled_and_a_reservation_count_once_they_are_heard_of() -> None:
    followed = Followed(P, Q)
    followed.hear_in_time()
    assert followed.ipam.assign(asked("h1")).address in P.cidr
    followed.put(reservation("r", "10.0.0.0/29", "10.0.0.8/30"))
    followed.hear(keys.RESERVATIONS)
    assert followed.ipam.assign(asked("h2")).address in ip_network("10.0.0.12/30")
    disabled = pool("p", "10.0.0.0/28", disabled=True)
    change = Entry(key=key_of(disabled), value=encode(disabled), revision="99")
    followed.put(disabled)
    followed.mirror.on_changes(
        keys.POOLS, [Change(key=change.key, entry=change, revision=change.revision)]
    )
    followed.copy.look(followed.mirror, keys.POOLS)
    assert followed.ipam.assign(asked("h3")).address in Q.cidr


def test_no_request_fails_for_a_copy_that_lags() -> None:
    followed = Followed(pool("p", "10.0.0.0/30"))
    followed.hear_in_time()
    for number in range(4):
        followed.ipam.assign(asked(f"h{number}"))
    followed.put(Q)
    assert followed.ipam.assign(asked("h4")).address in Q.cidr
    followed.store.inner.delete(keys.pool_key("q"))
    followed.put(reservation("r", "10.0.1.0/28"))
    with pytest.raises((PoolExhausted, NoPool)):
        followed.ipam.assign(asked("h5", address=ip_address("10.0.2.1")))
