"""BIRD's side of the agent: write what it is told, have it read, see whether it lives.

A thread of its own, because BIRD may hang. BIRD is not our child and goes on without us; all we
share with it is a file and a socket. A file that BIRD does not take never replaces one it took.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from podwire.bgp.parse import parse_protocols, parse_status
from podwire.bgp.reason import why_old
from podwire.bgp.state import ESTABLISHED, STATES
from podwire.desired.bgpchange import interrupts
from podwire.desired.bgptext import render
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.program import check_config, require_bird
from podwire.drivers.secrets import read_secret
from podwire.errors import BadInput, PodwireError, Rejected, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.boundary import Clock
    from podwire.desired.bgp import BirdConfig
    from podwire.model.bgp import SecretKey
    from podwire.model.config import AgentConfig

LOOK_EVERY_S = 1.0
"""How often BIRD is asked whether it lives."""
PATIENCE_S = 3.0
"""How long BIRD may be away before the node is not ready: its unit starts it again in a second."""
ANSWER_S = 2.0
SETTLE_S = 1.0
"""Between our own routes standing in and sessions ending: the time other nodes get to do so too."""
STAND_IN_WAIT_S = 10.0
"""How long to wait for the stand-in; then the change is made without."""
IDLE = """\
# The agents write the routes: BIRD of this node has nothing to do.
log stderr { warning, error, auth, fatal, bug };
protocol device device1 { }
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What BIRD should be told, and the nodes there are."""

    config: BirdConfig | None
    """None: nothing; the agents write the routes."""
    nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class BirdReport:
    """How BIRD fares, as last seen."""

    version: str | None = None
    """None: it does not answer."""
    established: int = 0
    sessions: int = 0
    states: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many sessions are in each of BGP's states; BIRD's word, `Down` where it has none."""
    told: Wish | None = None
    """What it has read last."""
    away: PodwireError | None = None
    """Why it does not answer, once that has lasted."""
    refused: PodwireError | None = None
    """Why the wanted configuration is not in use; the last good one is."""
    left_out: tuple[str, ...] = ()
    """Sessions that are not configured, and why."""


class BirdWriter:
    """Tells BIRD what is wished; thread-safe.

    Attributes:
        report: replaced as a whole; any thread may read it.
        wants_stand_in: set while a change waits that ends sessions; whoever owns the kernel's
            routes then puts its own in place and calls `on_standing_in`.
    """

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        *,
        held: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._path = Path(config.bird_config)
        self._socket = config.bird_socket
        self._secrets = config.secrets_dir
        self._clock = clock
        self._held = held
        self._wish: Wish | None = None
        self._bell = threading.Event()
        self._standing_in = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._away_since: float | None = None
        self._unread = True
        """Whether BIRD may not have read the file yet: true at start, as nobody knows."""
        self._passwords: dict[SecretKey, str] = {}
        self._rendered: Wish | None = None
        self._text = ""
        self._pending = True
        """Whether the text may not be in the file yet."""
        self._refused_text: str | None = None
        self._seen: tuple[int, int, int] | None = None
        """What the file was when it was last found right: nobody has touched it since."""
        self.report = BirdReport()
        self.wants_stand_in = False
        self.changed_at: float | None = None
        """When sessions were last ended by a change of ours (monotonic)."""
        self.on_change = on_change

    @property
    def has_file(self) -> bool:
        """Whether BIRD was ever told anything here."""
        return self._path.exists()

    @property
    def wish(self) -> Wish | None:
        """What was wished last."""
        return self._wish

    def offer(self, wish: Wish) -> None:
        """From now on this is wished."""
        self._wish = wish
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="bird", daemon=True)
            self._thread.start()
        self._bell.set()

    def on_standing_in(self) -> None:
        """Our own routes lead to every node: sessions may end."""
        self._standing_in.set()

    def stop(self) -> None:
        """End the thread soon; BIRD goes on."""
        self._stopped.set()
        self._bell.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            before = self.report
            try:
                self._turn()
            except PodwireError as error:
                self._note(refused=error)
            except OSError as error:
                self._note(refused=BadInput(f"{self._path}: {error.strerror}"))
            if self.report != before:
                self._tell(before)
                self.on_change()
            self._bell.wait(LOOK_EVERY_S)
            self._bell.clear()

    def _turn(self) -> None:
        wish = self._wish
        assert wish is not None
        if not self._held():
            self._write(wish)
        self._look()

    # --- write ----------------------------------------------------------------------------------

    def _write(self, wish: Wish) -> None:
        self._pending |= self._render(wish)
        text = self._text
        if not self._pending and self._seen == self._stamp():
            return
        current = self._current()
        if text == current:
            self._refused_text, self._seen, self._pending = None, self._stamp(), False
            self._note(refused=None)
            return
        if text == self._refused_text:
            return
        try:
            fresh = self._prepare(text)
        except BadInput as error:
            self._refused_text, self._pending = text, False
            self._note(refused=error)
            return
        ends_sessions = interrupts(current, text, wish.nodes)
        if ends_sessions:
            self._await_stand_in()
        if self._wish is not wish:
            fresh.unlink(missing_ok=True)
            self._end_stand_in()
            self._bell.set()
            return
        fresh.replace(self._path)
        _sync(self._path.parent)
        self._unread, self._pending = True, False
        self._seen = self._stamp()
        self._configure(current)
        if ends_sessions:
            self._end_stand_in()

    def _render(self, wish: Wish) -> bool:
        """Bring the text up to date; whether it may have changed.

        Sessions whose password is missing are left out, and told. Passwords are read every time:
        nobody announces that a file has changed.
        """
        config = wish.config
        passwords: dict[SecretKey, str] = {}
        missing: dict[SecretKey, PodwireError] = {}
        for secret in () if config is None else sorted(_secrets_of(config), key=str):
            try:
                passwords[secret] = read_secret(self._secrets, secret)
            except PodwireError as error:
                missing[secret] = error
        if wish is self._rendered and passwords == self._passwords:
            return False
        self._rendered, self._passwords = wish, passwords
        if config is None:
            self._text = IDLE
            self._note(left_out=())
            return True
        served = tuple(peer for peer in config.peers if peer.password not in missing)
        self._text = render(replace(config, peers=served), passwords)
        left_out = [
            f"session with {peer.address} ({peer.name}) is left out: {missing[peer.password]}"
            for peer in config.peers
            if peer.password in missing
        ]
        self._note(left_out=(*config.unserved, *left_out))
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _current(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""

    def _prepare(self, text: str) -> Path:
        """Put the text beside the file, for root's eyes only, and let BIRD parse it.

        Raises:
            BadInput: BIRD does not take it.
            Unsupported: there is no BIRD, or it is too old.
        """
        program = require_bird()
        fresh = self._path.with_name(f"{self._path.name}.new")
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write_new(fresh, text)
        try:
            check_config(program, fresh)
        except BadInput:
            fresh.rename(self._path.with_name(f"{self._path.name}.refused"))
            raise
        return fresh

    def _await_stand_in(self) -> None:
        self._standing_in.clear()
        self.wants_stand_in = True
        self.on_change()
        self._standing_in.wait(STAND_IN_WAIT_S)
        self._stopped.wait(SETTLE_S)

    def _end_stand_in(self) -> None:
        self.changed_at = self._clock.monotonic()
        self.wants_stand_in = False
        self.on_change()

    def _configure(self, last_good: str = "") -> None:
        """Let BIRD read the file; what it refuses after all gives way to what it had."""
        try:
            with Control.open(self._socket, timeout_s=ANSWER_S) as control:
                control.configure()
        except Rejected as error:
            self._note(refused=error)
            if last_good:
                self._refused_text = self._text
                fresh = self._path.with_name(f"{self._path.name}.new")
                _write_new(fresh, last_good)
                fresh.replace(self._path)
                self._seen = self._stamp()
            self._unread = False
        except PodwireError:
            pass  # not there: it reads the file when it starts, and the look below tells
        else:
            self._unread = False
            self._note(refused=None)
            log.info("bird configured")

    # --- look -----------------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            with Control.open(self._socket, timeout_s=ANSWER_S) as control:
                daemon = parse_status(control.do("show status"))
                found = parse_protocols(control.do("show protocols"))
        except PodwireError as error:
            self._on_away(error)
            return
        self._away_since = None
        sessions = [each for each in found if each.kind == "BGP"]
        version = None if daemon is None else daemon.version
        old = None if version is None else why_old(version)
        self._note(
            version=None if version is None else str(version),
            away=None if old is None else Unsupported(old.sentence, fix=old.fix),
            sessions=len(sessions),
            established=sum(each.info == ESTABLISHED for each in sessions),
            states=Counter(state_word(each.info) for each in sessions),
        )
        if self._unread and not self._held():
            self._configure()
        if not (self._unread or self._pending) and self.report.refused is None:
            self._note(told=self._rendered)

    def _on_away(self, error: PodwireError) -> None:
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
        first_time = self.report.version is None
        lasting = first_time or now - self._away_since >= PATIENCE_S
        # Until it has lasted the last figures stand: its unit is starting it again.
        if lasting:
            self._note(version=None, away=error, sessions=0, established=0, states={})

    def _note(self, **fields: object) -> None:
        self.report = replace(self.report, **fields)  # type: ignore[arg-type]

    def _tell(self, before: BirdReport) -> None:
        after = self.report
        if after.away is not None and before.away is None:
            log.warning("bird away", reason=str(after.away))
        elif after.away is None and before.away is not None:
            log.info("bird answers", version=after.version)
        if after.refused is not None and str(after.refused) != str(before.refused):
            log.warning("bird keeps its last configuration", reason=str(after.refused))


def state_word(info: str) -> str:
    """The state in what BIRD says of a session: `Active  Socket: Connection refused` is Active."""
    word = info.partition(" ")[0]
    return word if word in STATES else "Down"


def _secrets_of(config: BirdConfig) -> set[SecretKey]:
    return {peer.password for peer in config.peers if peer.password is not None}


def _write_new(path: Path, text: str) -> None:
    """A file with passwords in it: never readable by others, not even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
