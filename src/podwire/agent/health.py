"""Health: is the agent alive, can pods be attached. One list of reasons answers everybody.

`/livez` asks whether starting the agent anew would help; `/readyz` whether an ADD would work now.
`podwire agent status`, `/readyz` and the verb STATUS speak from the same reasons, so they never
contradict each other. STATUS tries besides all that an ADD needs; what it finds wrong stands here
until it is asked again, or for as long as runtimes take between two questions.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.errors import PodwireError
from podwire.model.cni import GREETING

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.attachments import Attachments
    from podwire.agent.hold import Hold
    from podwire.agent.loop import Loop
    from podwire.agent.pace import Pace

GREETING_TIMEOUT_S = 1.0
"""The plugin takes a longer silence for an agent that is away."""
OK, UNAVAILABLE = 200, 503
FROZEN = "ClusterInformation default has datastoreReady: false: the cluster takes no changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question, and why its answer is no; no reasons: it is yes."""

    name: str
    reasons: tuple[str, ...] = ()


class Readiness:
    """Why pods cannot be attached now; may be asked from any thread, and asks nobody itself."""

    def __init__(self, loop: Loop, hold: Hold, attachments: Attachments) -> None:
        self._loop = loop
        self._hold = hold
        self._attachments = attachments

    def checks(self) -> tuple[Check, ...]:
        """Everything that must hold for an ADD."""
        cluster = self._loop.picture.mirror.cluster
        frozen = cluster is not None and not cluster.ready
        return (
            Check(name="loop", reasons=self._loop.pace.why_stuck()),
            Check(name="node", reasons=self._loop.status.reasons),
            Check(name="hold", reasons=_told(self._hold.refuse)),
            Check(name="cluster", reasons=(FROZEN,) if frozen else ()),
            Check(name="add", reasons=self._attachments.why_refused()),
        )

    def reasons(self) -> tuple[str, ...]:
        """The same without the questions; none when the node is ready."""
        return tuple(reason for check in self.checks() for reason in check.reasons)


def liveness(pace: Pace, socket_path: str) -> tuple[Check, ...]:
    """What only a restart can mend."""
    return (
        Check(name="loop", reasons=pace.why_stuck()),
        Check(name="cni-socket", reasons=why_silent(socket_path)),
    )


def why_silent(path: str) -> tuple[str, ...]:
    """Why the plugin would take the agent that serves this socket for away."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
            caller.settimeout(GREETING_TIMEOUT_S)
            caller.connect(path)
            greeting = caller.recv(len(GREETING), socket.MSG_WAITALL)
    except OSError as error:
        return (f"{path} does not answer: {error.strerror or error}",)
    return () if greeting == GREETING else (f"{path} is not served by this agent",)


def page(title: str, checks: tuple[Check, ...], *, verbose: bool) -> tuple[int, str]:
    """Status and text of a health page, as Kubernetes writes it.

    A failure always tells its reasons: whoever may read the page may know them.
    """
    failed = any(check.reasons for check in checks)
    if not failed and not verbose:
        return OK, "ok"
    lines = [
        f"[-]{check.name} failed: {'; '.join(check.reasons)}"
        if check.reasons
        else f"[+]{check.name} ok"
        for check in checks
    ]
    lines.append(f"{title} check {'failed' if failed else 'passed'}")
    return UNAVAILABLE if failed else OK, "".join(f"{line}\n" for line in lines)


def _told(refuse: Callable[[], None]) -> tuple[str, ...]:
    try:
        refuse()
    except PodwireError as error:
        return (str(error),)
    return ()
