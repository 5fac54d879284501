"""The kernel's own answer beside the model's: does RTM_GETROUTE say what the FIB model says?

One errno is never a diagnosis: an incoming packet that is refused for its source, by a blackhole
or by a link that is down all give EINVAL. So an errno is only compared with the set of reasons it
can stand for, and a route with the route.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace import fib
from podwire.trace.intake import Refusal
from podwire.trace.schema import Cause, Disposition, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.route import Route
    from podwire.trace.fib import Decision
    from podwire.trace.schema import Lookup, Path, Trace
    from podwire.trace.space import Space
    from podwire.trace.world import World

ERRORS: Mapping[str, frozenset[int]] = {
    "no-route": frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH}),
    "blackhole": frozenset({errno.EINVAL}),
    "unreachable": frozenset({errno.EHOSTUNREACH}),
    "prohibit": frozenset({errno.EACCES}),
    "forwarding-off": frozenset({errno.EHOSTUNREACH}),
    "rpf": frozenset({errno.EINVAL, errno.EXDEV}),
    "own-source": frozenset({errno.EINVAL, errno.EXDEV}),
    "martian": frozenset({errno.EINVAL, errno.EXDEV, errno.EADDRNOTAVAIL}),
}
"""What RTM_GETROUTE answers where the model has this reason (measured on Linux 6.18)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelAnswer:
    """What one kernel said to one question."""

    route: Route | None = None
    """The FIB entry that matched."""
    errno: int | None = None
    unasked: str | None = None
    """Why it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A routing step for which model and kernel differ."""

    lookup: Lookup
    model: str
    kernel: str


def differences(
    world: World, asked: Iterable[tuple[Lookup, KernelAnswer]]
) -> tuple[Disagreement, ...]:
    """The questions that model and kernel answer differently."""
    found = []
    for lookup, answer in asked:
        if answer.unasked is not None or lookup.inode not in world.spaces:
            continue
        space = world.spaces[lookup.inode]
        if not agrees(lookup.answer, answer, space.has_default_rules_only(4)):
            found.append(
                Disagreement(
                    lookup=lookup,
                    model=_model_words(space, lookup.answer),
                    kernel=_kernel_words(space, answer),
                )
            )
    return tuple(found)


def agrees(model: Decision | Refusal, kernel: KernelAnswer, merged: bool) -> bool:
    """Whether both mean the same; `merged`: tables local and main are one trie, named main."""
    if isinstance(model, Refusal):
        if kernel.errno is not None:
            return kernel.errno in ERRORS.get(model.code, frozenset())
        return _is_v6_verdict(model, kernel)
    if model.kind is None or model.kind in fib.END_OF_LOOKUP:
        code = "no-route" if model.kind is None else model.kind.name.lower()
        if kernel.errno is not None:
            return kernel.errno in ERRORS[code]
        return kernel.route is not None and kernel.route.kind is model.kind
    if kernel.route is None or model.route is None:
        return False
    ours, theirs = model.route.key, kernel.route.key
    same_table = ours.table == theirs.table or merged
    return (
        model.kind is kernel.route.kind
        and ours.destination == theirs.destination
        and ours.metric == theirs.metric
        and same_table
    )


def _is_v6_verdict(model: Refusal, kernel: KernelAnswer) -> bool:
    """IPv6 tells the route and leaves the forwarding switch to the moment a packet comes."""
    route = kernel.route
    if route is None or model.decision is None:
        return False
    if model.code == "forwarding-off":
        wanted = model.decision.route
        return wanted is not None and wanted.key.destination == route.key.destination
    return route.kind is model.decision.kind


def _model_words(space: Space, answer: Decision | Refusal) -> str:
    if isinstance(answer, Refusal):
        return answer.code
    if answer.route is None:
        return "no route" if answer.kind is None else answer.kind.name.lower()
    return f"{fib.describe(space, answer.route)} (table {answer.route.key.table})"


def _kernel_words(space: Space, answer: KernelAnswer) -> str:
    if answer.route is not None:
        return f"{fib.describe(space, answer.route)} (table {answer.route.key.table})"
    return errno.errorcode.get(answer.errno or 0, str(answer.errno))


def with_differences(trace: Trace, world: World, found: tuple[Disagreement, ...]) -> Trace:
    """The trace as one that nobody should believe yet; unchanged when all agree."""
    if not found:
        return trace
    first = found[0]
    space = world.spaces[first.lookup.inode]
    query = first.lookup.query
    summary = (
        f"model and kernel disagree on {space.title} about {query.destination} "
        f"(in by {query.iif}): the model says {first.model}, the kernel says {first.kernel}"
    )
    paths = tuple(_remarked(path, world, found) for path in trace.paths)
    return replace(
        trace,
        disposition=Disposition.MODEL_DISAGREES,
        summary=summary,
        confidence="possible",
        paths=paths,
    )


def _remarked(path: Path, world: World, found: tuple[Disagreement, ...]) -> Path:
    remarks = [
        Cause(
            code="model-disagrees",
            where=Where(
                node=world.node_of(world.spaces[each.lookup.inode]),
                netns=world.spaces[each.lookup.inode].title,
                interface=each.lookup.query.iif,
            ),
            inode=each.lookup.inode,
            text=f"model: {each.model}; kernel: {each.kernel}",
            facts={"model": each.model, "kernel": each.kernel},
        )
        for each in found
        if each.lookup in path.lookups
    ]
    return replace(path, remarks=(*path.remarks, *remarks))
