"""Health server: `/livez`, `/readyz` and `/metrics` by HTTP, on a unix socket or a TCP port.

Nobody who is slow or means ill holds up another: each caller has a thread, a few seconds and a few
kilobytes; when there are too many, the one who has been there longest is sent away.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from podwire.agent.server import listen
from podwire.errors import BadInput, InUse, PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.model.config import HealthAddress

CALLERS = 16
"""At once; Prometheus, a kubelet and a person make three."""
TIME_S = 5.0
"""For a request and its answer together."""
LARGEST = 8192
"""Bytes of a request."""
PAUSE_S = 0.1
"""After a caller that could not be taken."""
RETRY_S = 3.0
"""When to try again an address that could not be had."""
SOCKET_MODE = 0o660
"""Root and the socket's group: a person may hand it to a group of scrapers."""
BACKLOG = 1024
THREADS = 64
"""Above this a caller is turned away at once: those sent away are still leaving."""
FAILED = (
    b"HTTP/1.0 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n"
    b"the agent met an unexpected error: see its log\n"
)
KEY = "healthAddress"
"""The key of the configuration, for messages."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The part of a request that matters."""

    path: str
    verbose: bool = False
    accept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered."""

    status: int
    body: bytes
    type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is served at one path; called from several threads."""

    about: str
    answer: Callable[[Query], Reply]


class HealthServer:
    """Serves the pages until `stop`.

    An address that cannot be had is no reason to end: it is told as `problem`, and tried again.
    """

    def __init__(self, address: HealthAddress, pages: Mapping[str, Page]) -> None:
        self.address = address
        self.pages = pages
        self.problem: PodwireError | None = None
        self._listener: socket.socket | None = None
        self._stopped = threading.Event()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._callers: dict[socket.socket, float] = {}
        """When each came (monotonic), the first one first."""
        self._threads = 0
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to serve, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._stopped.set()
        os.write(self._waker, b"x")
        self._thread.join()
        if self._listener is not None:
            self._listener.close()
            if self.address.path is not None:
                with suppress(OSError):
                    Path(self.address.path).unlink()
        os.close(self._wake)
        os.close(self._waker)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listener = open_listener(self.address)
            except PodwireError as error:
                if str(error) != str(self.problem):
                    log.warning("health endpoint not served", reason=str(error))
                self.problem = error
                self._stopped.wait(RETRY_S)
            else:
                self.problem = None
                log.info("health endpoint served", address=str(self.address))
                self._accept_all(self._listener)

    def _accept_all(self, listener: socket.socket) -> None:
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        waiting.register(self._wake, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in waiting.poll(self._patience_ms())]
            if self._wake in ready:
                return
            self._send_away(time.monotonic() - TIME_S)
            if listener.fileno() in ready:
                try:
                    caller, _ = listener.accept()
                    self._admit(caller)
                except OSError as error:
                    # One that vanished, or no descriptor left: the next may fare better.
                    log.warning("health request not accepted", reason=str(error))
                    self._stopped.wait(PAUSE_S)

    def _patience_ms(self) -> float | None:
        with self._lock:
            oldest = next(iter(self._callers.values()), None)
        return None if oldest is None else max(0.0, oldest + TIME_S - time.monotonic()) * 1000 + 1

    def _send_away(self, came_before: float) -> None:
        """End the conversations that began before; their threads notice and leave."""
        with self._lock:
            late = [caller for caller, came in self._callers.items() if came <= came_before]
        for caller in late:
            self._end(caller)

    def _admit(self, caller: socket.socket) -> None:
        with self._lock:
            if self._threads >= THREADS:
                caller.close()
                return
            first = next(iter(self._callers), None) if len(self._callers) >= CALLERS else None
            self._callers[caller] = time.monotonic()
            self._threads += 1
        if first is not None:
            self._end(first)
        try:
            threading.Thread(
                target=self._serve, args=(caller,), name="health call", daemon=True
            ).start()
        except RuntimeError:  # no thread to be had
            self._leave(caller)

    def _end(self, caller: socket.socket) -> None:
        with self._lock:
            self._callers.pop(caller, None)
            # Under the lock: afterwards its thread may have closed it, and the number be another's.
            with suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)

    def _serve(self, caller: socket.socket) -> None:
        try:
            Conversation(caller, self.pages)
        except OSError:
            pass  # the caller left, or was sent away
        except Exception:
            # Nothing was sent yet: a page is finished before its first line goes out.
            log.exception("health request failed")
            with suppress(OSError):
                caller.sendall(FAILED)
        finally:
            self._leave(caller)

    def _leave(self, caller: socket.socket) -> None:
        with self._lock:
            self._callers.pop(caller, None)
            self._threads -= 1
            caller.close()


class Conversation(BaseHTTPRequestHandler):
    """One request and its reply."""

    server_version = "podwire"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def __init__(self, caller: socket.socket, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        super().__init__(caller, ("", 0), None)  # type: ignore[arg-type]  # no server behind it

    def setup(self) -> None:
        """Read the whole request first: so it can be as large as it likes to no avail."""
        super().setup()
        self.rfile.close()
        self.rfile = BytesIO(receive_head(self.connection))

    def do_GET(self) -> None:
        """Answer with a page."""
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without it."""
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        path, _, words = self.path.partition("?")
        query = Query(
            path=path,
            verbose="verbose" in {word.partition("=")[0] for word in words.split("&")},
            accept=self.headers.get("Accept", ""),
        )
        page = self._pages.get(query.path)
        reply = index(self._pages, query.path) if page is None else page.answer(query)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: nothing is logged."""


def index(pages: Mapping[str, Page], path: str) -> Reply:
    """What there is; with 404 when something else was asked for."""
    lines = "".join(f"{path} {page.about}\n" for path, page in pages.items())
    return Reply(status=200 if path == "/" else 404, body=lines.encode())


def receive_head(caller: socket.socket) -> bytes:
    """A request up to its empty line, the end of the stream, or the most that is read of one."""
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < LARGEST:
        part = caller.recv(LARGEST - len(head))
        if not part:
            break
        head += part
    return bytes(head)


def open_listener(address: HealthAddress) -> socket.socket:
    """A listening socket.

    Raises:
        InUse: somebody else listens there.
        BadInput: it cannot be had.
    """
    if address.path is not None:
        return listen(Path(address.path), key=KEY, mode=SOCKET_MODE, backlog=BACKLOG)
    try:
        return open_port(address.host, address.port)
    except OSError as error:
        kind = InUse if error.errno == errno.EADDRINUSE else BadInput
        raise kind(
            f"{KEY} {address}: {error.strerror}",
            fix="choose an address of this host and a free port",
        ) from None
    except UnicodeError:
        raise BadInput(f"{KEY} {address}: no name of a host", fix="write an address") from None


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket; without a host, for every address of both families."""
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
        )
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return socket.create_server(place, family=family, backlog=BACKLOG)
