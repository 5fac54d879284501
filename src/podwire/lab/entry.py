"""Going into a lab from outside, and into a node or a pod from anywhere in the lab."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from podwire.drivers import namespaces as ns
from podwire.errors import BadInput, Forbidden, NotFound, PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.lab.world import Keeper

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
OWN_FAILURE = 125
"""Exit code when the lab itself failed, not the program run in it (as docker and podman do)."""

_ORDER = ("user", "mnt", "net", "uts", "ipc", "pid")
"""The user namespace first: it brings the right to enter the others."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter_place(netns: str | Path, hostname: str, *, keep_names: bool) -> None:
    """Move this process into a node or pod: its network, its own /sys, its host name.

    /sys shows the network devices of the namespace in which it was mounted, so every process needs
    a mount of its own. `keep_names`: whether names below /run/netns stay visible and shared with
    the rest of the lab; for a pod they do not.

    Raises:
        BadInput: there is no such namespace.
    """
    with ns.opened(netns) as descriptor:
        ns.setns(descriptor, ns.CLONE_NEWNET)
    ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWUTS)
    with suppress(OSError):
        socket.sethostname(hostname)
    if not keep_names:
        # First private: taking shared mounts away would take them away from everybody.
        ns.mount("none", ns.NAMED_DIR, "none", ns.MS_REC | ns.MS_PRIVATE)
        ns.unmount(ns.NAMED_DIR)
        # What lies below are files without namespaces, over which `ip` would stumble.
        ns.mount("tmpfs", ns.NAMED_DIR, "tmpfs")
    ns.unmount("/sys")
    ns.mount("sysfs", "/sys", "sysfs")


def rename_process(name: str) -> None:
    """What `ps` and `top` call this process (15 bytes)."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def execute(argv: list[str], environment: dict[str, str]) -> int:
    """Become another program; returns only when that fails, with the code a shell would give."""
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606  # no shell: the words are the words
    except FileNotFoundError:
        sys.stderr.write(f"error: {argv[0]}: not found\n")
        return 127
    except OSError as error:
        sys.stderr.write(f"error: {argv[0]}: {error.strerror}\n")
        return 126
    except ValueError as error:
        sys.stderr.write(f"error: {argv[0]}: {error}\n")
        return 126


def run_inside(keeper: Keeper, function: Callable[[], int]) -> int:
    """Run a function in a child process inside the world; returns its exit code.

    The caller itself moves into the world as well, except for the process namespace: use it once
    per process. Signals sent to the caller go on to the child. 128 + n when signal n ended it.
    """
    _enter(keeper)
    return _Relay().run(function)


def run_apart(keeper: Keeper, function: Callable[[], int]) -> int:
    """`run_inside`, from a process of its own: the caller stays outside."""
    return _Relay().run(lambda: run_inside(keeper, function))


def run_child(function: Callable[[], int]) -> NoReturn:
    """Run a function and end this process with the code it returns; for use after a fork."""
    code = OWN_FAILURE
    try:
        code = function()
    except PodwireError as error:
        sys.stderr.write(f"error: {error.message}\n")
        if error.fix is not None:
            sys.stderr.write(f"  fix: {error.fix}\n")
        code = 64 if isinstance(error, BadInput) else 1
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    except BaseException:  # noqa: BLE001  # a mistake of ours, at the top of a process
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


class _Relay:
    """A parent that passes signals on, reports its child's end, and does nothing else."""

    passed = frozenset(
        {
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGINT,
            signal.SIGQUIT,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGWINCH,
            signal.SIGCONT,
        }
    )

    def run(self, function: Callable[[], int]) -> int:
        # What is buffered would otherwise be written by both.
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.passed | {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            run_child(function)
        try:
            return self._wait(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _wait(self, pid: int) -> int:
        while True:
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            arrived = signal.sigwaitinfo(self.passed | {signal.SIGCHLD})
            # A key pressed on the terminal (si_code > 0: the kernel's) reaches the child anyway:
            # it is in the same foreground group. Passing it on would deliver it twice.
            if arrived.si_signo != signal.SIGCHLD and arrived.si_code <= 0:
                os.kill(pid, arrived.si_signo)


def _enter(keeper: Keeper) -> None:
    """Move this process into the world; its children are in the process namespace too."""
    here = _directory()
    opened: dict[str, int] = {}
    own_user = Path("/proc/self/ns/user").stat().st_ino
    try:
        for kind in _ORDER:
            opened[kind] = os.open(f"/proc/{keeper.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        if not keeper.alive:
            raise ProcessLookupError  # noqa: TRY301  # the pid is another process's by now
        for kind, descriptor in opened.items():
            # Entering the user namespace one is in already is refused.
            if kind != "user" or own_user != os.fstat(descriptor).st_ino:
                ns.setns(descriptor, 0)
    except (ProcessLookupError, FileNotFoundError):
        raise NotFound("the lab has just ended", fix="podwire lab up") from None
    except PermissionError:
        raise Forbidden(
            "the lab's namespaces may not be entered", fix="be the user that made the lab"
        ) from None
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
    # Entering a mount namespace moves to its root.
    for directory in (here, "/"):
        with suppress(OSError):
            os.chdir(directory)
            break


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "/"
