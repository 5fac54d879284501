"""A live trace: read, predict, tap, probe, read again, compare, explain, prove the fix."""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.capture.observe import Limits, new_series, observe
from podwire.drivers.collect import NOT_ENTERED, collect_all
from podwire.drivers.collect_marks import collected_again
from podwire.drivers.lookup import ask_kernels
from podwire.errors import BadInput, Forbidden, PodwireError, Unsupported
from podwire.trace.coldarp import forgotten, to_forget
from podwire.trace.controls import concluded, outcome, wanted
from podwire.trace.counterproof import Question, prove
from podwire.trace.deepverdict import told
from podwire.trace.explain import explain
from podwire.trace.flow import Protocol
from podwire.trace.kernelanswer import differences, with_differences
from podwire.trace.marks import changed
from podwire.trace.predict import predict
from podwire.trace.schema import Direction, Disposition, Gap
from podwire.trace.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.model.addressing import IPAddress
    from podwire.model.kernelstate import KernelState
    from podwire.trace.controls import Planned
    from podwire.trace.deep import Heard
    from podwire.trace.flow import Flow
    from podwire.trace.observation import Observation
    from podwire.trace.schema import Control, Trace

ATTEMPTS = 2
"""A state that changes under our hands, or a surprise, is looked at once more."""
STILL = "a still picture"
"""What is missing when the state changed while it was looked at."""
LIMITS = Limits(timeout_s=1.0)
FIRST_PORT, LAST_PORT = 33000, 60000
"""Source ports of probes: within what programs use, never twice in a row the same."""
SURPRISES = frozenset({Disposition.MISMATCH, Disposition.UNEXPLAINED, Disposition.LOST_ON_LINK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What shall be traced, and what may be done for it."""

    source: str
    destination: str
    flow: Flow
    probe: bool | None = None
    """True: always send. False: never. None: where the network is ours."""
    deep: bool = False
    cold_arp: bool = False
    """Forget what ARP has learnt of the neighbours on the way, so that it is asked again."""


def trace_live(wish: Wish) -> Trace:
    """Trace on this host.

    Raises:
        BadInput: an end is unknown, or the flow cannot be made into a packet.
    """
    wish = replace(wish, flow=_with_port(wish.flow))
    trace, states = _attempt(wish)
    for _ in range(ATTEMPTS - 1):
        if not _deserves_another(trace):
            break
        before, (trace, states) = trace, _attempt(wish)
        trace = _after_change(before, trace)
    trace = _controlled(trace, states)
    if wish.deep and trace.probing is None:
        why = "no probe was sent, so there was nothing to listen to"
        trace = replace(trace, gaps=(*trace.gaps, Gap(what="the kernel's own events", why=why)))
    trace = prove(trace, _question(wish, states))
    return _with_bundle(trace, states)


def _deserves_another(trace: Trace) -> bool:
    disagrees = trace.disposition is Disposition.MODEL_DISAGREES
    surprising = trace.probing is not None and trace.disposition in SURPRISES
    return _changed(trace) or surprising or disagrees


def _changed(trace: Trace) -> bool:
    return trace.probing is not None and trace.probing.changed


def _after_change(before: Trace, trace: Trace) -> Trace:
    """A repeated trace says that the first one met a change, though it met none itself."""
    if not _changed(before) or _changed(trace) or trace.probing is None:
        return trace
    gaps = [
        replace(gap, why=f"{gap.why}; traced once more, and then it held still")
        for gap in before.gaps
        if gap.what == STILL
    ]
    return replace(trace, probing=replace(trace.probing, changed=True), gaps=(*trace.gaps, *gaps))


def _with_port(flow: Flow) -> Flow:
    if flow.protocol is Protocol.ICMP:
        return flow
    return replace(flow, source_port=FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT))


def _question(wish: Wish, states: tuple[KernelState, ...]) -> Question:
    return Question(states=states, source=wish.source, destination=wish.destination, flow=wish.flow)


def _foretold(
    wish: Wish,
) -> tuple[tuple[KernelState, ...], Trace, dict[int, frozenset[IPAddress]]]:
    """The states, what they foretell, and which neighbours are to be forgotten first."""
    states = collect_all()
    trace = predict(states, wish.source, wish.destination, wish.flow)
    if not wish.cold_arp or _why_not(World(states), trace, wish.probe) is not None:
        return states, trace, {}
    forget = to_forget(trace)
    states = forgotten(states, forget)
    return states, predict(states, wish.source, wish.destination, wish.flow), forget


def _attempt(wish: Wish) -> tuple[Trace, tuple[KernelState, ...]]:
    states, trace, forget = _foretold(wish)
    world = World(states)
    trace = beside_kernel(trace, world)
    reason = _why_not(world, trace, wish.probe)
    if reason is None and trace.disposition is Disposition.MODEL_DISAGREES:
        reason = "the model does not say what the kernel says, so there is nothing to compare with"
    if reason is not None:
        return _unprobed(trace, reason), states
    try:
        with ExitStack() as open_files:
            spaces = _open(world, trace, open_files)
            send = partial(observe, spaces, limits=LIMITS, forget=forget)
            observation, heard = _observe(world, trace, spaces, send, deep=wish.deep)
            again = list(_changed_again(world, trace, spaces))
    except (Forbidden, Unsupported) as error:
        why = error.message if error.fix is None else f"{error.message}: {error.fix}"
        return _unprobed(trace, f"{why}; the prediction stands alone"), states
    explained = explain(world, trace, observation)
    if heard is not None:
        explained = told(explained, observation, heard)
    version = 4 if trace.destination.ip is None else trace.destination.ip.version
    moved = changed(states, again, version)
    return (_unsteady(explained, moved) if moved else explained), states


def _unsteady(trace: Trace, moved: list[str]) -> Trace:
    """State and packets are not of one time: what they say together is no certainty."""
    if trace.probing is None:
        return trace
    gap = Gap(what=STILL, why=f"changed while tracing: {', '.join(moved[:4])}")
    likely = {"certain": "likely"}
    return replace(
        trace,
        probing=replace(trace.probing, changed=True),
        gaps=(*trace.gaps, gap),
        confidence=likely.get(trace.confidence, trace.confidence),
        faults=tuple(
            replace(each, confidence=likely.get(each.confidence, each.confidence))
            for each in trace.faults
        ),
    )


def beside_kernel(trace: Trace, world: World) -> Trace:
    """Put every routing step to the kernel itself, too."""
    lookups = [lookup for path in trace.paths for lookup in path.lookups]
    known = {inode: space.state.namespace.path for inode, space in world.spaces.items()}
    paths = {inode: path for inode, path in known.items() if path is not None}
    return with_differences(trace, world, differences(world, ask_kernels(lookups, paths)))


def _why_not(world: World, trace: Trace, probe: bool | None) -> str | None:
    """Why nothing may or can be sent; None when it can."""
    start = _start(trace)
    if probe is False:
        return "--predict: nothing was sent"
    if start is None:
        return "there is no packet to send"
    space = world.spaces[start]
    ours = world.pod_in(space) is not None or any(
        pod.host.space is space for pod in world.pods.values()
    )
    if probe is None and not ours:
        return f"{space.title} is no network of Podwire, so nothing was sent: give --probe"
    return None


def _start(trace: Trace) -> int | None:
    """The namespace that sends."""
    for path in trace.paths:
        if path.direction is Direction.FORWARD and path.hops:
            return path.hops[0].inode
    return None


def _unprobed(trace: Trace, why: str) -> Trace:
    gap = Gap(what="where the packet is really seen", why=why)
    return replace(trace, gaps=(*trace.gaps, gap))


def _open(world: World, trace: Trace, open_files: ExitStack) -> dict[int, int]:
    """Descriptors of every namespace that the packet may touch, other pods left alone."""
    passed = {hop.inode for path in trace.paths for hop in path.hops}
    wanted = {inode for inode, space in world.spaces.items() if world.pod_in(space) is None}
    if trace.destination.ip is not None:
        wanted |= {port.space.inode for port in world.owners(trace.destination.ip)}
    found: dict[int, int] = {}
    paths = namespaces.paths()
    for inode in passed | wanted:
        if inode not in paths:
            continue
        try:
            descriptor = namespaces.open_namespace(paths[inode])
        except PodwireError:
            if inode == _start(trace):
                raise
            continue
        open_files.callback(os.close, descriptor)
        found[inode] = descriptor
    return found


def _observe(
    world: World,
    trace: Trace,
    spaces: dict[int, int],
    send: Callable[..., Observation],
    *,
    deep: bool,
) -> tuple[Observation, Heard | None]:
    start = _start(trace)
    assert start is not None
    if start not in spaces:
        raise Forbidden(f"the sender cannot be entered: {NOT_ENTERED}")
    path = next(each for each in trace.paths if each.direction is Direction.FORWARD)
    packet = path.made
    series = new_series(packet.source, packet.destination, trace.flow)
    places = [
        (hop.inode, hop.where.interface, hop.side) for each in trace.paths for hop in each.hops
    ]
    if not deep:
        return send(start, series, path=places), None
    passed = {inode for inode, _, _ in places} & spaces.keys()
    titles = {inode: world.spaces[inode].title for inode in passed}
    from podwire.drivers.capture.listening import Listening

    with Listening.open({inode: spaces[inode] for inode in passed}, titles, series) as listening:
        observation = send(start, series, path=places)
        return observation, listening.heard()


def _controlled(trace: Trace, states: tuple[KernelState, ...]) -> Trace:
    """After a loss that no state explains: send a few packets more, to cut it in two."""
    world = World(states)
    plans = wanted(world, trace)
    if not plans:
        return trace
    with ExitStack() as open_files:
        try:
            spaces = _open(world, trace, open_files)
        except PodwireError:  # the sender has ended meanwhile
            return trace
        with ThreadPoolExecutor(len(plans)) as threads:  # each waits for an answer in vain
            found = list(threads.map(partial(_control, spaces), plans))
    return concluded(trace, [each for each in found if each is not None])


def _control(spaces: dict[int, int], plan: Planned) -> Control | None:
    """Send one; None: what it would have said stays unsaid."""
    try:
        series = new_series(plan.source, plan.destination, plan.flow, count=1)
        return outcome(plan, observe(spaces, plan.inode, series, limits=LIMITS))
    except (BadInput, Forbidden, Unsupported):
        return None


def _changed_again(world: World, trace: Trace, spaces: dict[int, int]) -> Iterable[KernelState]:
    """The namespaces on the way whose marks are not those of the picture, read once more."""
    for inode in {hop.inode for path in trace.paths for hop in path.hops} & spaces.keys():
        try:
            again = collected_again(world.spaces[inode].state, spaces[inode])
        except PodwireError:  # it has ended meanwhile: the probe says what that means
            continue
        if again is not None:
            yield again


def _with_bundle(trace: Trace, states: tuple[KernelState, ...]) -> Trace:
    """Keep the states of a loss that nothing explains."""
    if trace.disposition is not Disposition.UNEXPLAINED:
        return trace
    from podwire.drivers.bundle import facts_here, write_bundle

    facts = facts_here()
    path = Path.cwd() / f"podwire-trace-{facts.time_ns // 1_000_000_000}.tgz"
    try:
        write_bundle(path, states, facts)
    except BadInput as error:
        return replace(trace, gaps=(*trace.gaps, Gap(what="the bundle", why=error.message)))
    return replace(trace, bundle=str(path))
