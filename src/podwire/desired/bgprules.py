"""BGPFilter → functions in BIRD's filter language. Pure.

A function ends the whole filter with `accept` or `reject` where a rule matches, and returns where
none does, so that a peer's filters are asked one after the other.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, assert_never

from podwire.desired.bgp import LARGEST_PREFERENCE
from podwire.model.bgpfilter import (
    AddCommunity,
    BGPPeerType,
    Direction,
    FilterAction,
    MatchOperator,
    PrependASPath,
    SetPriority,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.bgp import Community
    from podwire.model.bgpfilter import BGPFilter, FilterRule, Operation, PrefixMatch

LONGEST_SYMBOL = 64
"""Characters BIRD reads in a name (SYM_MAX_LEN in conf/conf.h)."""


def function_name(direction: Direction, name: str) -> str:
    """BIRD's name for one direction of a BGPFilter; long names end in a hash."""
    full = f"{direction}_{name}"
    if len(full) > LONGEST_SYMBOL:
        digest = sha1(full.encode(), usedforsecurity=False).hexdigest()[:11]
        full = f"{full[: LONGEST_SYMBOL - 12]}-{digest}"
    return f"'{full}'"


def functions(filters: BGPFilter) -> Iterator[str]:
    """Lines that define both functions of one BGPFilter (IPv4 only: so are our sessions)."""
    for direction, rules in (
        (Direction.IMPORT, filters.import4),
        (Direction.EXPORT, filters.export4),
    ):
        yield f"function {function_name(direction, filters.name)}(bool outside)"
        yield "{"
        for rule in rules:
            yield from _statement(rule, direction)
        # A body without a statement is a syntax error.
        yield "  return true;"
        yield "}"


def refusals(name: str) -> Iterator[str]:
    """The functions of a BGPFilter that does not exist: nothing passes, rather than everything."""
    for direction in Direction:
        yield f"function {function_name(direction, name)}(bool outside)"
        yield "{"
        yield "  reject;"
        yield "}"


def community(value: Community) -> str:
    """`(65000, 100)`."""
    return f"({', '.join(map(str, value.numbers))})"


def add_community(value: Community) -> str:
    """The statement that adds one community."""
    attribute = _community_attribute(value)
    return f"{attribute}.add({community(value)});"


def _statement(rule: FilterRule, direction: Direction) -> Iterator[str]:
    end = "accept;" if rule.action is FilterAction.ACCEPT else "reject;"
    steps = [*(_operation(each) for each in rule.operations), end]
    conditions = list(_conditions(rule, direction))
    if not conditions:
        yield f"  {' '.join(steps)}"
    elif len(steps) == 1:
        yield f"  if {' && '.join(conditions)} then {end}"
    else:
        yield f"  if {' && '.join(conditions)} then {{ {' '.join(steps)} }}"


def _conditions(rule: FilterRule, direction: Direction) -> Iterator[str]:
    # Evaluated in this order, and only as far as needed: an attribute that a route lacks would end
    # the filter with an error.
    if rule.peer_type is not None:
        yield "outside" if rule.peer_type is BGPPeerType.EXTERNAL else "!outside"
    if rule.prefix is not None:
        yield _prefix(rule.prefix)
    elif direction is Direction.EXPORT:
        # Without a network a rule means the pods' routes, not whatever else this host has.
        yield "(source = RTS_BGP || is_ours())"
    if rule.from_peers:
        yield "source = RTS_BGP"
    if rule.interface is not None:
        yield f'ifname ~ "{rule.interface}"'
    if rule.community is not None:
        yield f"{community(rule.community)} ~ {_community_attribute(rule.community)}"
    if rule.as_path_prefix:
        yield f"bgp_path ~ [= {' '.join(map(str, rule.as_path_prefix))} * =]"
    if rule.priority is not None:
        yield f"bgp_local_pref = {LARGEST_PREFERENCE - rule.priority}"


def _prefix(match: PrefixMatch) -> str:
    cidr = match.cidr
    longest = cidr.max_prefixlen if match.longest is None else match.longest
    shortest = cidr.prefixlen if match.shortest is None else match.shortest
    match match.operator:
        case MatchOperator.EQUAL:
            return f"net = {cidr}"
        case MatchOperator.NOT_EQUAL:
            return f"net != {cidr}"
        case MatchOperator.IN:
            return _in(match.cidr, shortest, longest)
        case MatchOperator.NOT_IN:
            return f"!({_in(match.cidr, shortest, longest)})"
        case unknown:
            assert_never(unknown)


def _in(cidr: object, shortest: int, longest: int) -> str:
    return f"net ~ [{cidr}{{{shortest},{longest}}}]"


def _operation(operation: Operation) -> str:
    match operation:
        case AddCommunity(value):
            return add_community(value)
        case PrependASPath(numbers):
            # Each one goes to the front, so the last comes first.
            return " ".join(f"bgp_path.prepend({number});" for number in reversed(numbers))
        case SetPriority(value):
            return f"bgp_local_pref = {LARGEST_PREFERENCE - value};"
        case unknown:
            assert_never(unknown)


def _community_attribute(value: Community) -> str:
    return "bgp_large_community" if value.large else "bgp_community"
