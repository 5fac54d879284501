"""Which labs there are: one small file each, outside of the labs, in the user's runtime directory.

A file whose keeper is gone is stale and cleaned away by whoever sees it.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from podwire.errors import Forbidden, InUse, NotFound
from podwire.lab.topology import check_name
from podwire.lab.world import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SUFFIX = ".json"
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the machine's own process namespace (include/linux/proc_ns.h)."""


def registry_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The directory, which exists while labs do; only its owner can look into it.

    Raises:
        Forbidden: somebody else holds the path.
    """
    user, suffix = os.geteuid(), _world_suffix()
    # With sudo the variable may still name the directory of the user who called.
    places = (
        Path(environment.get("XDG_RUNTIME_DIR") or "/run/user/none"),
        Path(f"/run/user/{user}"),
    )
    for base in places:
        with suppress(OSError):
            if base.is_dir() and base.stat().st_uid == user:
                return _ours(base / f"podwire{suffix}", user)
    shared = Path(f"/tmp/podwire-{_outer(user)}{suffix}")  # noqa: S108  # checked to be ours
    return _ours(shared, user)


def _world_suffix() -> str:
    """Tells apart who sees other processes: a pid from elsewhere would look like a lab's end."""
    world = Path("/proc/self/ns/pid").stat().st_ino
    return "" if world == _FIRST_PID_NAMESPACE else f"-{world}"


def _outer(user: int) -> int:
    """The user's id outside of the user namespace: 0 inside is not everybody's root."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = (int(field) for field in line.split())
        if inside <= user < inside + count:
            return outside + user - inside
    return user


def _ours(path: Path, user: int) -> Path:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return path
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o022:
        raise Forbidden(f"{path} belongs to somebody else", fix=f"remove {path}")
    return path


def find_keeper(name: str) -> Keeper | None:
    """The keeper of a running lab; None when there is none."""
    check_name(name)
    path = registry_directory() / f"{name}{_SUFFIX}"
    keeper = _read(path)
    if keeper is not None and not keeper.alive:
        path.unlink(missing_ok=True)
        return None
    return keeper


def get_keeper(name: str) -> Keeper:
    """The keeper of a running lab.

    Raises:
        NotFound: it does not run.
    """
    keeper = find_keeper(name)
    if keeper is None:
        others = [other for other, _ in list_labs()]
        option = "" if name == "lab" else f" --name {name}"
        fix = f"podwire lab up{option}"
        if others:
            fix += f", or --name {others[0]}: running are {', '.join(others)}"
        raise NotFound(f"lab {name!r} does not run", fix=fix)
    return keeper


def list_labs() -> list[tuple[str, Keeper]]:
    """All running labs of this user, by name."""
    found = []
    for path in sorted(registry_directory().glob(f"*{_SUFFIX}")):
        keeper = _read(path)
        if keeper is None:
            continue
        if keeper.alive:
            found.append((path.stem, keeper))
        else:
            path.unlink(missing_ok=True)
    return found


@contextmanager
def reserved(name: str) -> Iterator[Callable[[Keeper], None]]:
    """Hold a name while a lab is being made; the block calls what it gets with the keeper.

    Raises:
        InUse: a lab of that name runs, or is being made right now.
    """
    check_name(name)
    with _opened(name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUse(f"lab {name!r} is being made right now", fix="wait for it") from None
        keeper = _read(Path(file.name))
        if keeper is not None and keeper.alive:
            option = "" if name == "lab" else f" --name {name}"
            raise InUse(
                f"lab {name!r} runs already",
                fix=f"podwire lab down{option}, or choose another --name",
            )

        def register(made: Keeper) -> None:
            file.seek(0)
            file.truncate()
            json.dump({"pid": made.pid, "start": made.start}, file)
            file.flush()

        try:
            yield register
        except BaseException:
            forget(name)
            raise


def _opened(name: str) -> IO[str]:
    while True:
        directory = registry_directory()
        directory.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # the last lab went, and the directory with it
            return (registry_directory() / f"{name}{_SUFFIX}").open("a+")


def forget(name: str) -> None:
    """Remove the entry of a lab that has ended, and the directory with the last one."""
    directory = registry_directory()
    (directory / f"{name}{_SUFFIX}").unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()


def _read(path: Path) -> Keeper | None:
    """None: no such file, or one whose lab is not made yet."""
    try:
        entry = json.loads(path.read_text())
        return Keeper(pid=entry["pid"], start=entry["start"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
