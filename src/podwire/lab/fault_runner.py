"""Injects and heals faults in a running lab, and remembers what is broken until it is healed.

Everything that must be undone is written down before the first change: whoever dies in between
leaves a record with which any later process heals.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from podwire.errors import InUse, NotFound, PodwireError, Rejected
from podwire.lab import faults
from podwire.lab.fault_ends import choose_ends
from podwire.lab.fault_facts import Impossible
from podwire.lab.fault_operations import Operation, touched
from podwire.lab.fault_reading import find_ends, find_places, read_facts, run
from podwire.lab.records import from_json, to_json
from podwire.lab.state import STATE
from podwire.lab.topology import UNDERLAY
from podwire.lab.workloads import changing, lab_state

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from podwire.lab.fault import Fault
    from podwire.lab.fault_ends import Wish
    from podwire.lab.fault_facts import Facts
    from podwire.lab.records import LabState

RECORDS = STATE / "faults"
GONE = (
    "Cannot find device",
    "No such file or directory",
    "No such process",
    "File exists",
    "Cannot assign requested address",
    "does a matching rule exist",
)
"""What programs say when there is nothing left to undo."""


class Agents(Protocol):
    """The agents of a lab's nodes, as far as they must keep still."""

    def held(self, node: str) -> bool:
        """Whether somebody holds it already, with no end in sight."""
        ...

    def hold(self, node: str) -> None:
        """Stop its changes."""
        ...

    def release(self, node: str) -> None:
        """Let it go on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """One injected fault, as it is kept until it is healed."""

    name: str
    order: int
    """Later ones have larger numbers."""
    node: str
    pod: str
    source: str
    destination: str
    probe: tuple[str, ...] = ()
    """Options of `trace` that show it."""
    operations: tuple[Operation, ...] = ()
    nodes: tuple[str, ...] = ()
    """Those that must be held."""
    ours: tuple[str, ...] = field(default=())
    """Those of them that nobody held before: to be released in the end."""


def injected() -> tuple[Injected, ...]:
    """What is broken now, in the order it was done."""
    records = (from_json(json.loads(path.read_text()), Injected) for path in RECORDS.glob("*.json"))
    return tuple(sorted(records, key=lambda record: record.order))


def inject(fault: Fault, wish: Wish, agents: Agents) -> Injected:
    """Break the lab; a step that fails undoes those before it.

    Raises:
        InUse: it is injected already.
        Impossible: not here; says why.
        Rejected: a command failed; nothing is left of the others.
    """
    with changing():
        state = lab_state()
        if wish.node is not None:
            state.topology.node(wish.node)
        before = injected()
        if any(record.name == fault.name for record in before):
            raise InUse(
                f"{fault.name} is injected already", fix=f"podwire lab fault heal {fault.name}"
            )
        source, destination = choose_ends(fault, find_ends(state), wish)
        facts = read_facts(state, source, destination)
        record = _record(fault, facts, state, before)
        record = replace(record, ours=_hold(record.nodes, before, agents, state))
        _keep(record)
        try:
            _do(record, state)
        except BaseException:
            _undo(record, state)
            _forget(record, agents, state)
            raise
    return record


def heal(name: str, agents: Agents) -> Injected:
    """Undo a fault and let the agents go on.

    Raises:
        NotFound: it is not injected.
        InUse: a later one changed the same things; names it.
        Rejected: something could not be undone; the rest was, and the agents go on.
    """
    with changing():
        state = lab_state()
        records = injected()
        record = next((one for one in records if one.name == name), None)
        if record is None:
            others = ", ".join(one.name for one in records)
            raise NotFound(
                f"nothing to heal: {name} is not injected",
                fix=f"injected are {others}" if others else "podwire lab fault inject NAME",
            )
        for later in records:
            if later.order > record.order and _objects(later) & _objects(record):
                raise InUse(
                    f"{later.name} was injected after {name} and changed the same things",
                    fix=f"first podwire lab fault heal {later.name}",
                )
        failures = _undo(record, state)
        _forget(record, agents, state)
    if failures:
        raise Rejected(f"{name}: not all could be undone: {'; '.join(failures)}")
    return record


def _record(fault: Fault, facts: Facts, state: LabState, before: Iterable[Injected]) -> Injected:
    operations = faults.operations(fault, facts)
    anchor = facts.destination if fault.place.at_destination else facts.source
    homes = {end.pod: end.node for end in (facts.source, facts.destination)}
    nodes = {homes.get(operation.place, operation.place) for operation in operations}
    if UNDERLAY in nodes:
        nodes |= set(homes.values())
    known = {node.name for node in state.topology.nodes}
    return Injected(
        name=fault.name,
        order=max((record.order for record in before), default=0) + 1,
        node=anchor.node,
        pod=anchor.pod,
        source=facts.source.pod,
        destination=facts.destination.pod,
        probe=faults.probe(fault, facts),
        operations=operations,
        nodes=tuple(sorted((nodes | {anchor.node}) & known)),
    )


def _hold(
    nodes: Iterable[str], before: Iterable[Injected], agents: Agents, state: LabState
) -> tuple[str, ...]:
    """Hold nodes; returns those that nobody but other faults held."""
    by_faults = {node for record in before for node in record.ours}
    ours: list[str] = []
    try:
        for node in nodes:
            if not state.agents[node].wanted:
                continue  # Stopped on purpose: it changes nothing.
            if node in by_faults or not agents.held(node):
                ours.append(node)
            agents.hold(node)
    except PodwireError:
        for node in set(ours) - by_faults:
            agents.release(node)
        raise
    return tuple(ours)


def _do(record: Injected, state: LabState) -> None:
    places = find_places(state)
    for operation in record.operations:
        done = run(places[operation.place], operation.do)
        if done.returncode != 0:
            raise Impossible(
                f"{record.name} cannot be injected: on {operation.place} "
                f"`{' '.join(operation.do)}` says: {done.stderr.strip() or done.stdout.strip()}"
            )


def _undo(record: Injected, state: LabState) -> list[str]:
    """Undo everything, whatever fails; returns what did."""
    places = find_places(state)
    failures: list[str] = []
    for operation in reversed(record.operations):
        place = places.get(operation.place)
        if place is None or not place.exists():
            continue  # The pod is gone, and all that was wrong with it.
        for command in operation.undo:
            done = run(place, command)
            if done.returncode != 0 and not any(word in done.stderr for word in GONE):
                failures.append(f"{operation.place}: {' '.join(command)}: {done.stderr.strip()}")
    return failures


def _objects(record: Injected) -> frozenset[tuple[str, ...]]:
    return frozenset().union(*map(touched, record.operations))


def _path(record: Injected) -> Path:
    return RECORDS / f"{record.name}.json"


def _keep(record: Injected) -> None:
    RECORDS.mkdir(exist_ok=True)
    new = _path(record).with_suffix(".new")
    new.write_text(json.dumps(to_json(record)))
    new.replace(_path(record))


def _forget(record: Injected, agents: Agents, state: LabState) -> None:
    """Strike a fault off, and release the nodes that no other one needs."""
    _path(record).unlink(missing_ok=True)
    needed = {node for other in injected() for node in other.nodes}
    for node in record.ours:
        if node not in needed and state.agents[node].wanted:
            agents.release(node)
