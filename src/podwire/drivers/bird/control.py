"""Control: one conversation with a BIRD over its control socket.

A BIRD that is dead refuses the connection or has left no socket. One that is wedged still has it:
the kernel accepts for it, and no word ever comes. The two need different help, so they are told
apart.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Self

from podwire.bgp.parse import parse_version
from podwire.bgp.reply import CONFIGURED, WELCOME, ends, parse_reply
from podwire.errors import BirdAway, BirdSilent, Forbidden, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.bgp.reply import Reply
    from podwire.bgp.state import BirdVersion

GREETING_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 10.0
"""A table of a million routes is printed in a few seconds."""
LONGEST_LINE = 1 << 16


class Control:
    """An open conversation. One command at a time; not for several threads."""

    def __init__(self, door: socket.socket, path: str, timeout_s: float) -> None:
        self._door = door
        self._path = path
        self._timeout_s = timeout_s
        self._rest = b""
        self.version: BirdVersion | None = None
        """What BIRD greeted with."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Iterator[Self]:
        """Connect and take the greeting.

        Raises:
            BirdAway: nobody listens on the socket.
            BirdSilent: somebody does, and says nothing.
            Forbidden: the socket belongs to somebody else.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            control = cls(door, path, min(GREETING_TIMEOUT_S, timeout_s))
            control._connect()
            greeting = control._receive()
            if greeting.code != WELCOME:
                raise BirdAway(f"{path}: what listens there is not BIRD: {greeting.message!r}")
            control.version = parse_version(greeting.message)
            control._timeout_s = timeout_s
            yield control

    def ask(self, command: str) -> Reply:
        """Send one command and return the whole reply, also when BIRD refuses it.

        Raises:
            BirdAway: BIRD ended meanwhile.
            BirdSilent: the reply does not come, or stops.
        """
        try:
            self._door.sendall(command.encode() + b"\n")
        except OSError as error:
            raise self._away(error) from None
        return self._receive()

    def do(self, command: str) -> Reply:
        """The same for a command that must succeed.

        Raises:
            Rejected: BIRD refuses it; says why in BIRD's words.
            BirdAway, BirdSilent: as `ask`.
        """
        reply = self.ask(command)
        if reply.failed:
            raise Rejected(f"BIRD refuses `{command}`: {reply.message}")
        return reply

    def configure(self, path: str | None = None) -> Reply:
        """Let BIRD read its file again; sessions that did not change go on undisturbed.

        Raises:
            Rejected: the file does not parse: BIRD goes on with what it has; names file and line.
            BirdAway, BirdSilent: as `ask`.
        """
        command = "configure" if path is None else f'configure "{path}"'
        reply = self.do(command)
        if reply.code not in CONFIGURED:
            raise Rejected(f"BIRD answers {reply.code} to `{command}`: {reply.message}")
        return reply

    def _connect(self) -> None:
        try:
            self._door.settimeout(self._timeout_s)
            self._door.connect(self._path)
        except TimeoutError:
            raise self._silent() from None
        except BlockingIOError:
            # As many callers wait in the queue as it holds: nobody has been served for long.
            raise self._silent() from None
        except PermissionError:
            raise Forbidden(
                f"BIRD's socket {self._path} may not be used by this user", fix="run this as root"
            ) from None
        except OSError as error:
            raise self._away(error) from None

    def _receive(self) -> Reply:
        deadline = time.monotonic() + self._timeout_s
        lines: list[str] = []
        while not lines or not ends(lines[-1]):
            lines.append(self._line(deadline))
        return parse_reply(lines)

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._rest) > LONGEST_LINE:
                raise self._silent()
            self._door.settimeout(left)
            try:
                part = self._door.recv(1 << 16)
            except TimeoutError:
                raise self._silent() from None
            except OSError as error:
                raise self._away(error) from None
            if not part:
                raise BirdAway(f"BIRD on {self._path} has just ended", fix="look into its log")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace")

    def _silent(self) -> BirdSilent:
        return BirdSilent(
            f"BIRD on {self._path} does not answer within {self._timeout_s:g} s",
            fix="it hangs: kill -ABRT its process and let its unit start it again",
        )

    def _away(self, error: OSError) -> BirdAway:
        return BirdAway(
            f"no BIRD runs on {self._path}: {error.strerror or error}",
            fix="start its unit: systemctl start podwire-bird",
        )
