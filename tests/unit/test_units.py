"""The systemd units say what the programs expect."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

from podwire.drivers.bird.program import start_words
from podwire.model.config import DEFAULT_BIRD_CONFIG, DEFAULT_BIRD_SOCKET, DEFAULT_CONFIG

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_bird_is_started_as_the_lab_starts_it_and_outlives_the_agent() -> None:
    bird = unit("podwire-bird.service")
    words = start_words(
        "/usr/sbin/bird", config=Path(DEFAULT_BIRD_CONFIG), socket=Path(DEFAULT_BIRD_SOCKET)
    )
    assert bird["Service"]["ExecStart"].split() == words
    assert bird["Service"]["Restart"] == "always"
    assert bird["Service"]["ExecStop"].endswith(f"-s {DEFAULT_BIRD_SOCKET} graceful restart")
    ties = {"BindsTo", "PartOf", "Requires", "Requisite"}
    assert ties.isdisjoint(bird["Unit"])
    assert ties.isdisjoint(unit("podwire-agent.service")["Unit"])


def test_the_agent_reads_the_configuration_that_the_commands_read() -> None:
    assert unit("podwire-agent.service")["Service"]["ExecStart"].endswith(DEFAULT_CONFIG)
