"""Transport: run a program on a node, wherever that is, and wait no longer than asked.

Nothing is installed or left there. Programs and arguments go as words; only ssh hands a line to a
shell, and there every word is quoted.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from podwire.drivers import namespaces
from podwire.drivers.agent_socket import AgentSocket
from podwire.errors import BadInput, PodwireError, Transient, Unsupported
from podwire.model.config import DEFAULT_SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

TIMEOUT_S = 20.0
AT_ONCE = 64
"""Nodes that are asked at the same time."""
_GRACE_S = 1.0
"""How long a killed program's pipes may take to close."""
_DELETE_S = 10.0
"""How long the deletion of a debugging pod may take to be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What became of a program."""

    code: int
    """Exit code; negative: the signal that ended it."""
    stdout: str
    stderr: str
    left: str | None = None
    """What could not be taken back, and how to do it by hand."""


class Transport(Protocol):
    """A way to a node."""

    @property
    def title(self) -> str:
        """How a user would write it: `ssh:vms103`."""

    def run(
        self, argv: Sequence[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Finished:
        """Run a program there, in the node's network namespace, and wait for its end.

        Raises:
            Transient: no end within `timeout_s`; the program was killed, as far as we reach.
            Unsupported: the program that leads there (ssh, kubectl) is not installed here.
        """


@dataclass(frozen=True, slots=True)
class Local:
    """The network namespace this process is in."""

    @property
    def title(self) -> str:
        """`local`."""
        return "local"

    def run(
        self, argv: Sequence[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Finished:
        """As `Transport.run`; a program that is not there is Unsupported as well."""
        return execute(list(argv), stdin, timeout_s)


@dataclass(frozen=True, slots=True)
class LocalNamespace:
    """A network namespace of this kernel, by path; programs and files are this host's."""

    path: str

    @property
    def title(self) -> str:
        """`netns:PATH`."""
        return f"netns:{self.path}"

    def run(
        self, argv: Sequence[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Finished:
        """As `Transport.run`.

        Raises:
            BadInput: there is no network namespace at the path.
            Forbidden: it may not be entered.
        """
        with namespaces.opened(self.path) as descriptor:
            return namespaces.call_in(descriptor, execute, list(argv), stdin, timeout_s)


@dataclass(frozen=True, slots=True)
class SSH:
    """A node that lets us in by ssh without asking a question."""

    host: str
    """As ssh(1) takes it: HOST, USER@HOST, or a name of its configuration."""

    @property
    def title(self) -> str:
        """`ssh:HOST`."""
        return f"ssh:{self.host}"

    def run(
        self, argv: Sequence[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Finished:
        """As `Transport.run`; ssh's own failures have exit code 255."""
        connect_s = max(1, min(10, int(timeout_s / 2)))
        options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={connect_s}"]
        # The far side's shell takes the line apart again: it has to find the same words.
        line = shlex.join(argv)
        return execute(["ssh", *options, "--", self.host, line], stdin, timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class KubectlExec:
    """A pod that shares its node's network (hostNetwork), such as a network plug-in's own."""

    pod: str
    namespace: str
    container: str | None = None

    @property
    def title(self) -> str:
        """`exec:NAMESPACE/POD[/CONTAINER]`."""
        container = f"/{self.container}" if self.container else ""
        return f"exec:{self.namespace}/{self.pod}{container}"

    def run(
        self, argv: Sequence[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Finished:
        """As `Transport.run`."""
        words = ["kubectl", "exec", self.pod, "-n", self.namespace]
        words += [] if self.container is None else ["-c", self.container]
        words += [] if stdin is None else ["-i"]
        return execute([*words, "--", *argv], stdin, timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class KubectlDebug:
    """A node by a debugging pod that Kubernetes makes on it for us; the pod is deleted after use.

    The only transport that creates something: one pod with the node's namespaces.
    """

    node: str
    image: str = "busybox"
    """Only its chroot is used; programs are the node's."""

    @property
    def title(self) -> str:
        """`debug:NODE`."""
        return f"debug:{self.node}"

    def run(
        self, argv: Sequence[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Finished:
        """As `Transport.run`."""
        words = ["kubectl", "debug", f"node/{self.node}", f"--image={self.image}"]
        words += ["--profile=sysadmin", "-i", "--", "chroot", "/host"]
        left: list[str] = []
        # However it ends, in time or not: the pod's name comes before the node says anything.
        done = execute(
            [*words, *argv], stdin or "", timeout_s, lambda heard: left.extend(self._delete(heard))
        )
        return replace(done, left=left[0]) if left else done

    def _delete(self, heard: str) -> list[str]:
        """Delete the pod that kubectl says it made; what to do by hand where that fails."""
        made = self._made(heard)
        if made is None:
            return []
        delete = ["kubectl", "delete", "pod", made, "--wait=false", "--ignore-not-found"]
        try:
            done = execute(delete, None, _DELETE_S)
            reason = done.stderr.strip() if done.code else ""
        except PodwireError as error:
            reason = error.message
        return [f"pod {made} was not deleted ({reason}): {shlex.join(delete)}"] if reason else []

    def _made(self, heard: str) -> str | None:
        """The pod's name, from the first line; only one for this node."""
        name = rf"(node-debugger-{re.escape(self.node)}-[a-z0-9]+)"
        found = re.match(rf"Creating debugging pod {name} ", heard)
        return None if found is None else found[1]


WAYS = (
    "local, agent:SOCKET, netns:NAME, pid:N, ssh:HOST, exec:NAMESPACE/POD[/CONTAINER] or debug:NODE"
)
Way: TypeAlias = Transport | AgentSocket
"""What leads to a node: something that runs programs there, or its agent, which only tells."""


def parse_way(text: str) -> Way:
    """Read a way: agent or agent:PATH, or one that `parse_transport` knows.

    Raises:
        BadInput: it is none of these.
    """
    kind, separator, path = text.partition(":")
    if kind == "agent" and (not separator or path.startswith("/")):
        return AgentSocket(path or DEFAULT_SOCKET)
    return parse_transport(text)


def parse_transport(text: str) -> Transport:
    """Read local, netns:NAME or PATH, pid:N, ssh:HOST, exec:NS/POD[/CONTAINER] or debug:NODE.

    Raises:
        BadInput: it is none of these.
    """
    kind, _, rest = text.partition(":")
    if text == "local":
        return Local()
    # A word that begins with a dash would be taken for an option by ssh and kubectl.
    if rest and not rest.startswith("-") and not re.search(r"\s", rest):
        if kind == "netns":
            return LocalNamespace(rest if "/" in rest else str(namespaces.named_path(rest)))
        if kind == "pid" and rest.isdigit():
            return LocalNamespace(f"/proc/{rest}/ns/net")
        if kind == "ssh":
            return SSH(rest)
        if kind == "debug":
            return KubectlDebug(node=rest)
        parts = rest.split("/")
        if kind == "exec" and len(parts) in {2, 3} and all(parts):
            return KubectlExec(
                namespace=parts[0], pod=parts[1], container=parts[2] if parts[2:] else None
            )
    raise BadInput(
        f"{text!r} is no way to a node",
        fix=f"write {WAYS}",
    )


def in_parallel(work: Mapping[str, Callable[[], T]]) -> dict[str, T | PodwireError]:
    """Do one thing for each of many nodes, side by side; one's failure is that one's result.

    Each has to end by itself in bounded time, as `Transport.run` does.
    """

    def careful(task: Callable[[], T]) -> T | PodwireError:
        try:
            return task()
        except PodwireError as error:
            return error
        except OSError as error:
            return Transient(error.strerror or str(error))

    if not work:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(work)), "node") as pool:
        return dict(zip(work, pool.map(careful, work.values()), strict=True))


def execute(
    argv: list[str],
    stdin: str | None,
    timeout_s: float,
    at_the_end: Callable[[str], object] = lambda _: None,
) -> Finished:
    """Run a program here, in the calling thread's namespaces.

    `at_the_end` gets what it printed until then, whether it ended by itself, was too slow, or the
    caller was interrupted.

    Raises:
        Transient: it did not end in time, or said too much; it and what it started are killed.
        Unsupported: it is not installed, or may not be run.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a group of its own, which can be killed as one
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unsupported(f"{argv[0]} cannot be run: {reason}", fix=f"install {argv[0]}") from None
    out = err = b""
    try:
        out, err = process.communicate(None if stdin is None else stdin.encode(), timeout_s)
    except subprocess.TimeoutExpired:
        raise Transient(f"no answer within {timeout_s:g} s") from None
    finally:
        out = _end(process) or out
        at_the_end(out.decode(errors="replace"))
    return Finished(
        code=process.returncode,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
    )


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """Kill what is left of a program's group; what it had printed when it had to be killed.

    Never waits long for pipes that somebody else holds.
    """
    heard = b""
    # Until it is waited for, its number, and so its group's, belongs to nobody else.
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            heard, _ = process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired as late:
            heard = late.output or b""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    return heard
