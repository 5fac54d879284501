"""The conversation with a real BIRD: alive, dead, hanging; with good files and bad ones."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from podwire.bgp.state import OLDEST, Target
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import list_routes, observe
from podwire.drivers.bird.program import check_config, get_version, require_bird
from podwire.errors import BadInput, BirdAway, BirdSilent, Rejected, Unsupported
from tests.kernel import bird_pair
from tests.kernel.bird_pair import Bird

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """
log stderr all;
router id 10.0.0.1;
protocol device { }
protocol static blocks {
  ipv4;
  route 10.244.1.0/26 blackhole;
  route 10.244.2.0/26 unreachable;
}
"""


@pytest.fixture
def bird(tmp_path: Path) -> Iterator[Bird]:
    bird_pair.require_bird()
    bird = Bird(tmp_path, "bird")
    yield bird.start(CONFIG)
    bird.end()


def test_it_tells_of_itself_its_protocols_and_routes(bird: Bird) -> None:
    with Control.open(str(bird.socket)) as control:
        view = observe(control)
        assert control.version == view.daemon.version
        assert view.daemon.version >= OLDEST
        assert (view.daemon.router_id, view.sessions) == ("10.0.0.1", {})
        assert [one.kind for one in view.protocols] == ["Device", "Static"]
        routes = {str(one.network): one.target for one in list_routes(control)}
        assert routes == {
            "10.244.1.0/26": Target.BLACKHOLE,
            "10.244.2.0/26": Target.UNREACHABLE,
        }
        assert len(list_routes(control, "where dest = RTD_BLACKHOLE")) == 1
        assert list_routes(control, "protocol nobody") == ()


def test_a_file_that_does_not_parse_leaves_it_as_it_was(bird: Bird) -> None:
    bird.config.write_text(CONFIG + "protocol nonsense;\n")
    with Control.open(str(bird.socket)) as control:
        before = observe(control).protocols
        with pytest.raises(Rejected, match=r"bird\.conf:10:\d+ syntax error"):
            control.configure()
        assert observe(control).protocols == before
        assert "syntax error" in control.ask("no such command").message
        bird.config.write_text(CONFIG.replace("10.244.2.0/26", "10.244.3.0/26"))
        control.configure()
        assert "10.244.3.0/26" in {str(one.network) for one in list_routes(control)}


def test_a_file_is_checked_without_a_daemon(tmp_path: Path) -> None:
    bird_pair.require_bird()
    program = require_bird()
    good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
    good.write_text(CONFIG)
    bad.write_text(CONFIG + "protocol nonsense;\n")
    check_config(program, good)
    with pytest.raises(BadInput, match=r"bad\.conf: 10:\d+ syntax error"):
        check_config(program, bad)


def test_a_dead_bird_is_told_from_one_that_hangs(bird: Bird) -> None:
    bird.send(signal.SIGSTOP)
    with (
        pytest.raises(BirdSilent, match=r"does not answer within 0\.3 s"),
        Control.open(str(bird.socket), timeout_s=0.3),
    ):
        pass
    bird.send(signal.SIGKILL)
    bird.processes[0].wait()
    # The socket is still there, and nobody behind it.
    assert bird.socket.exists()
    with pytest.raises(BirdAway, match="Connection refused"), Control.open(str(bird.socket)):
        pass
    bird.socket.unlink()
    with pytest.raises(BirdAway, match="No such file"), Control.open(str(bird.socket)):
        pass


def test_a_bird_that_dies_in_the_middle_of_a_conversation(bird: Bird) -> None:
    with Control.open(str(bird.socket)) as control:
        bird.send(signal.SIGKILL)
        bird.processes[0].wait()
        with pytest.raises(BirdAway):
            control.ask("show status")


def test_it_can_be_told_to_end_without_a_farewell(bird: Bird) -> None:
    with Control.open(str(bird.socket)) as control, suppress(BirdAway):
        assert not control.ask("graceful restart").failed
    bird.processes[0].wait(20)


def test_what_is_not_bird_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "other.ctl"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        # Never accepted: the kernel completes the connection all the same.
        with (
            pytest.raises(BirdSilent),
            Control.open(str(path), timeout_s=0.2),
        ):
            pass
    program = tmp_path / "bird"
    program.write_text("#!/bin/sh\necho nothing of the kind\n")
    program.chmod(0o755)
    with pytest.raises(Unsupported, match="nothing of the kind"):
        get_version(str(program))


def test_a_bird_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bird"
    program.write_text("#!/bin/sh\necho BIRD version 2.0.7 >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr("podwire.drivers.bird.program.find_program", lambda: str(program))
    with pytest.raises(Unsupported, match="cannot put a route onto a tunnel") as caught:
        require_bird()
    assert caught.value.fix == f"install BIRD {OLDEST} or newer"
