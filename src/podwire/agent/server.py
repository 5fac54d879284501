"""The agent's socket: plugin calls and control requests (frames as in model/cni.py).

One thread accepts and greets, a bounded pool of threads works. The greeting never waits for a
free worker: a plugin takes silence for an agent that is away.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from podwire.errors import BadInput, InUse, PodwireError
from podwire.model.cni import (
    FRAME_HEAD,
    GREETING,
    RECEIVED,
    decode_call,
    encode_answer,
    frame,
    frame_length,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from podwire.agent.gate import Calls
    from podwire.model.cni import Answer
    from podwire.model.resource import JSON

    Control = Callable[[Mapping[str, JSON]], Mapping[str, JSON]]

WORKERS = 16
"""Calls worked on at once; more wait in line. They mostly wait for kernel and datastore."""
BACKLOG = 4096
REQUEST_TIMEOUT_S = 5.0
"""A caller that does not send its whole request in this time is dropped."""
CONFIRM_TIMEOUT_S = 20.0
"""A plugin that does not take its answer in this time is treated as gone."""
PAUSE_MS = 100
"""After a caller that could not be accepted: without a descriptor left the next one cannot be
either, and stays waiting."""
_CREDENTIALS = struct.Struct("3i")
_POLLRDHUP = 0x2000

log = structlog.get_logger(__name__)


class LeftAtOnce(BadInput):
    """The caller said nothing: it only wanted to see whether somebody greets."""


class CNIServer:
    """Serves the agent's unix socket until `stop`.

    `calls` answers the plugin; `control` answers control requests, a JSON object each, and
    may raise errors of ours. Both are called from several threads.
    """

    def __init__(self, path: Path, calls: Calls, control: Control) -> None:
        self.path = path
        self._calls = calls
        self._control = control
        self._pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="call")
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind the socket and accept calls in a thread.

        Raises:
            InUse: another agent serves this path.
            BadInput: the path is too long, or its folder cannot be written.
        """
        self._listener = listen(self.path)
        self._thread = threading.Thread(target=self._accept_all, name="accept", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more, finish the calls at work, remove the socket."""
        os.write(self._waker, b"x")
        if self._thread is not None:
            self._thread.join()
            with suppress(OSError):
                self.path.unlink()
        if self._listener is not None:
            self._listener.close()
        self._pool.shutdown(wait=True)
        os.close(self._wake)
        os.close(self._waker)

    def _accept_all(self) -> None:
        assert self._listener is not None
        waiting, end = select.poll(), select.poll()
        waiting.register(self._listener, select.POLLIN)
        for each in (waiting, end):
            each.register(self._wake, select.POLLIN)
        while True:
            if any(descriptor == self._wake for descriptor, _ in waiting.poll()):
                return
            try:
                caller, _ = self._listener.accept()
                self._admit(caller)
            except OSError as error:
                # One caller that vanished, or no descriptor left: the next one may fare better.
                log.warning("call not accepted", reason=str(error))
                end.poll(PAUSE_MS)

    def _admit(self, caller: socket.socket) -> None:
        _, uid, _ = _CREDENTIALS.unpack(
            caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in {0, os.geteuid()}:
            log.warning("caller refused", uid=uid)
            caller.close()
            return
        caller.settimeout(REQUEST_TIMEOUT_S)
        caller.send(GREETING)
        self._pool.submit(self._serve, caller)

    def _serve(self, caller: socket.socket) -> None:
        with ExitStack() as stack:
            stack.enter_context(caller)
            try:
                body, descriptors = receive(caller)
                for descriptor in descriptors:
                    stack.callback(os.close, descriptor)
                if body.startswith(b"{"):
                    caller.sendall(frame(self._answer_control(body)))
                else:
                    self._answer_plugin(caller, body, descriptors)
            except LeftAtOnce:
                pass
            except (OSError, BadInput) as error:
                log.info("caller dropped", reason=str(error))

    def _answer_control(self, body: bytes) -> bytes:
        try:
            asked: JSON = msgspec.json.decode(body)
            told = self._control(asked)
        except msgspec.DecodeError as error:
            told = {"error": f"the control request is not JSON: {error}"}
        except PodwireError as error:
            told = {"error": error.message, "fix": error.fix}
        except Exception:
            log.exception("control request failed")
            told = {"error": "the agent met an unexpected error; see its log"}
        return msgspec.json.encode(told)

    def _answer_plugin(self, caller: socket.socket, body: bytes, descriptors: list[int]) -> None:
        netns = descriptors[0] if descriptors else None

        def confirm(answer: Answer) -> bool:
            return deliver(caller, answer)

        self._calls.serve(decode_call(body), netns, gone=lambda: has_left(caller), confirm=confirm)


def listen(
    path: Path, *, key: str = "agentSocket", mode: int = 0o600, backlog: int = BACKLOG
) -> socket.socket:
    """A listening socket at the path, with that mode; `key` is what the configuration calls it.

    Raises:
        InUse: somebody answers there, or it is no socket.
        BadInput: no socket can be made there.
    """
    made = path.with_name(f".{path.name}.{os.getpid()}")
    if len(os.fsencode(made)) > 107:
        raise BadInput(f"{key} {path} is too long", fix="use a path of at most 90 bytes")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and not path.is_socket():
            raise InUse(f"{key} {path} is there and is no socket", fix="name another path")
        if answers(path):
            raise InUse(f"another agent serves {path}", fix=f"stop it, or use another {key}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with suppress(FileNotFoundError):
            made.unlink()
        listener.bind(str(made))
        # The right mode before the right name: nobody else can connect in between.
        made.chmod(mode)
        listener.listen(backlog)
        made.replace(path)
    except OSError as error:
        raise BadInput(f"{key} {path}: {error.strerror}", fix="check its folder") from error
    return listener


def answers(path: Path) -> bool:
    """Whether a process listens there; a socket file that a dead agent left does not count."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def receive(caller: socket.socket) -> tuple[bytes, list[int]]:
    """One frame's body, and the descriptors that came with its first byte; the caller closes them.

    Raises:
        LeftAtOnce: nothing came.
        BadInput: the frame is too long or incomplete.
        OSError: the caller is gone or too slow.
    """
    descriptors = array.array("i")
    head, control, _, _ = caller.recvmsg(
        FRAME_HEAD, socket.CMSG_SPACE(4 * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    if not head:
        raise LeftAtOnce("the caller left without a word")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    try:
        head += receive_exactly(caller, FRAME_HEAD - len(head))
        return receive_exactly(caller, frame_length(head)), list(descriptors)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def receive_exactly(caller: socket.socket, size: int) -> bytes:
    """That many bytes.

    Raises:
        BadInput: the stream ends before.
    """
    parts = bytearray()
    while len(parts) < size:
        part = caller.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise BadInput(f"the caller left after {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)


def has_left(caller: socket.socket) -> bool:
    """Whether the other side has closed or died."""
    waiting = select.poll()
    waiting.register(caller, _POLLRDHUP)
    return bool(waiting.poll(0))


def deliver(caller: socket.socket, answer: Answer) -> bool:
    """Send the answer; whether the plugin has confirmed that it has it.

    False is certain: the plugin confirms before it prints, and where its confirmation cannot be
    sent any more it prints a failure.
    """
    caller.settimeout(CONFIRM_TIMEOUT_S)
    try:
        caller.sendall(frame(encode_answer(answer)))
        return caller.recv(1) == RECEIVED
    except OSError:
        # From here on a confirmation fails in the plugin. One that is already on the way is
        # still in the queue and counts.
        with suppress(OSError):
            caller.shutdown(socket.SHUT_RD)
            return caller.recv(1, socket.MSG_DONTWAIT) == RECEIVED
        return False
