"""FRR from outside: a command over a daemon's vty socket, and the users it insists on.

vtysh speaks this protocol (FRR: vtysh/vtysh.c, lib/vty.c): a command and a zero byte there; text,
three zero bytes and the command's result back.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from podwire.drivers import namespaces
from podwire.errors import Rejected, Transient

TIMEOUT_S = 5.0
BUFFERS = Path("/var/tmp")  # noqa: S108  # compiled in
_END = b"\0\0\0"
_USERS = {
    "passwd": "frr:x:0:0::/:/bin/false\n",
    "group": "frr:x:0:\nfrrvty:x:0:\n",
}


def ask_frr(socket_path: Path, command: str) -> str:
    """Let a daemon of FRR carry out a command; what it prints.

    Raises:
        Transient: the daemon does not answer.
        Rejected: it does not know the command.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(TIMEOUT_S)
            door.connect(str(socket_path))
            _say(door, "enable")
            text, result = _say(door, command)
    except OSError as error:
        raise Transient(f"FRR on {socket_path} does not answer: {error}") from None
    if result != 0:
        raise Rejected(f"FRR refuses `{command}`: {text.strip() or result}")
    return text


def add_users(folder: Path) -> None:
    """Let this process see the users FRR was built for, as other names of root.

    It looks them up before it reads its options, and its package is not installed here. Only for a
    process with a mount namespace of its own: the two files are covered, not changed, and so is the
    folder in which it would leave its log buffers.
    """
    if not any(path.is_relative_to(BUFFERS) for path in (folder, Path(sys.executable))):
        namespaces.mount("tmpfs", str(BUFFERS), kind="tmpfs")
    for name, lines in _USERS.items():
        there = Path("/etc") / name
        ours = folder / name
        ours.write_text(there.read_text() + lines)
        namespaces.mount(str(ours), str(there), flags=namespaces.MS_BIND)


def _say(door: socket.socket, command: str) -> tuple[str, int]:
    door.sendall(command.encode() + b"\0")
    heard = b""
    while len(heard) < len(_END) + 1 or heard[-len(_END) - 1 : -1] != _END:
        part = door.recv(1 << 16)
        if not part:
            raise ConnectionResetError("it hung up")
        heard += part
    return heard[: -len(_END) - 1].decode(errors="replace"), heard[-1]
