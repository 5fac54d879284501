"""One private world: its own network, mounts, processes and host name; without root if need be.

The first process inside is the keeper. When it ends, however it ends, the kernel ends every other
process in there and then takes away all namespaces, devices and mounts: nothing can be left behind.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from podwire.drivers import namespaces as ns
from podwire.errors import Forbidden, KernelError, PodwireError, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWPID | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """The first process of a world, as the outside sees it."""

    pid: int
    start: int
    """Start time in clock ticks since boot: a later process with the same pid is another one."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.start


class Progress:
    """The keeper's line to whoever called it into being; the other end may go away."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, text: str) -> None:
        """One line for the user."""
        self._send({"say": text})

    def fail(self, error: PodwireError) -> None:
        """Why the world could not be made."""
        self._send({"error": error.message, "fix": error.fix})

    def done(self) -> None:
        """The world is built; nothing more will be said."""
        self._send({"done": True})
        os.close(self._descriptor)

    def _send(self, message: dict[str, Any]) -> None:
        # EPIPE (whoever wanted this world is gone) ends the keeper, and so the world.
        os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def create_world(
    keep: Callable[[Progress], NoReturn],
    say: Callable[[str], None],
    register: Callable[[Keeper], None],
) -> Keeper:
    """Make a world whose first process runs `keep`; returns when that said it is done.

    `keep` must not return. What it says on the way is handed to `say`. `register` is called as
    soon as there is a keeper, so that nobody's death can leave a world nobody knows of.

    Raises:
        Forbidden: this system does not let the caller make one.
        PodwireError: what `keep` failed with.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    middle = os.fork()
    if middle == 0:
        os.close(reading)
        _become_middle(writing, keep)
    os.close(writing)
    keeper: Keeper | None = None
    failure: PodwireError | None = None
    done = False
    try:
        with os.fdopen(reading) as lines:
            # Middle and first write to one pipe, in any order; it ends when both have closed it.
            for line in lines:
                message = json.loads(line)
                if "pid" in message:
                    keeper = Keeper(pid=message["pid"], start=start_time(message["pid"]) or 0)
                    register(keeper)
                elif "say" in message:
                    say(message["say"])
                elif "error" in message:
                    failure = Rejected(message["error"], fix=message["fix"])
                else:
                    done = True
    except BaseException:
        if keeper is not None:
            end_world(keeper)
        raise
    finally:
        os.waitpid(middle, 0)
    if done and keeper is not None:
        return keeper
    raise failure or Rejected("the lab ended while it was being built", fix="see dmesg")


def end_world(keeper: Keeper) -> None:
    """End a world and wait until its last process is gone."""
    try:
        descriptor = os.pidfd_open(keeper.pid)
    except ProcessLookupError:
        return
    try:
        if not keeper.alive:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        # The kernel reports the first process's end only after that of all others.
        _wait_readable(descriptor)
    finally:
        os.close(descriptor)


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the name, may itself hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _become_middle(writing: int, keep: Callable[[Progress], NoReturn]) -> NoReturn:
    """Make the namespaces, then the process that is first in them, and go."""
    progress = Progress(writing)
    try:
        _leave_the_system()
        # unshare(CLONE_NEWPID) does not move its caller: only a child is first in there.
        first = os.fork()
        if first == 0:
            _become_first(progress, keep, writing)
        os.write(writing, json.dumps({"pid": first}).encode() + b"\n")
    except PodwireError as error:
        progress.fail(error)
    finally:
        os._exit(0)


def _become_first(
    progress: Progress, keep: Callable[[Progress], NoReturn], writing: int
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.closerange(3, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        mount_world()
        keep(progress)
    except PodwireError as error:
        progress.fail(error)
    except BaseException as error:  # noqa: BLE001  # the top of this process; the caller is told
        with suppress(OSError):
            progress.fail(Rejected(f"the lab could not be built: {error!r}"))
    finally:
        os._exit(code)


def _leave_the_system() -> None:
    """Make all namespaces; where the right to is missing, with a user namespace around them.

    It is found out by trying: no setting tells reliably what a system allows.
    """
    with suppress(Forbidden):
        ns.unshare(KINDS)
        return
    user, group = os.geteuid(), os.getegid()
    try:
        ns.unshare(ns.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        ns.unshare(KINDS)
    except (OSError, Forbidden, KernelError):
        raise Forbidden(
            "this system does not let an ordinary user make namespaces, which a lab consists of",
            fix="run it as root: sudo podwire lab up",
        ) from None


def mount_world() -> None:
    """Give the new world its own /proc, /sys and an empty /run.

    Raises:
        Forbidden: the mounts are refused (an AppArmor profile, or a container's masked /proc).
    """
    try:
        ns.mount("none", "/", "none", ns.MS_REC | ns.MS_PRIVATE)
        ns.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        ns.mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        ns.mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV)
        Path("/run").chmod(0o755)
    except Forbidden:
        raise Forbidden(
            "this system lets ordinary users make namespaces, but not mount in them",
            fix="run it as root: sudo podwire lab up",
        ) from None


def _wait_readable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
