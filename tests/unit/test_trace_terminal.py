"""Colours where there is a terminal, and only there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.bundle import facts_here, write_bundle
from tests.fakes.drawn_network import story

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.tgz"
    write_bundle(path, story().states(), facts_here())
    return path


def command(bundle: Path, *options: str) -> list[str]:
    ends = ["demo/web-0", "demo/db-0"]
    return [sys.executable, "-m", "podwire", "trace", "--from", str(bundle), *ends, *options]


@pytest.mark.parametrize(("no_color", "escapes"), [(None, 2), ("1", 0)])
def test_a_terminal_gets_colour_unless_it_is_unwanted(
    bundle: Path, no_color: str | None, escapes: int
) -> None:
    main, terminal = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    if no_color is not None:
        env["NO_COLOR"] = no_color
    done = subprocess.run(command(bundle, "-q"), stdout=terminal, env=env, check=False)
    os.close(terminal)
    try:
        said = os.read(main, 65536).decode()
    finally:
        os.close(main)
    assert done.returncode == 0
    assert said.count("\x1b") == escapes
    assert "REACHABLE" in said


def test_a_pipe_gets_none(bundle: Path) -> None:
    done = subprocess.run(command(bundle), capture_output=True, text=True, check=True)
    assert "REACHABLE" in done.stdout
    assert "\x1b" not in done.stdout
