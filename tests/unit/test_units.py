"""BIRD's systemd unit starts it as the lab does, and neither unit drags the other down."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

import podwire.cli
from podwire.drivers.bird.program import start_words

UNITS = Path(podwire.cli.__file__).with_name("host")
PLACES = {
    "bird": "/usr/sbin/bird",
    "birdc": "/usr/sbin/birdc",
    "bird_config": "/var/lib/podwire/bird.conf",
    "bird_path": "/var/lib/podwire/bird.conf",
    "bird_socket": "/run/podwire/bird.ctl",
    "program": "/usr/bin/podwire",
    "config": "/etc/podwire/podwire.yaml",
}


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text().format(**PLACES))
    return parser


def test_bird_is_started_as_the_lab_starts_it_and_outlives_the_agent() -> None:
    bird = unit("podwire-bird.service")
    config, socket = Path(PLACES["bird_config"]), Path(PLACES["bird_socket"])
    wanted = start_words(PLACES["bird"], config=config, socket=socket)
    # The process id file is the lab's need: systemd knows its own.
    place = wanted.index("-P")
    assert set(bird["Service"]["ExecStart"].split()) == {*wanted[:place], *wanted[place + 2 :]}
    assert bird["Service"]["Restart"] == "always"
    assert bird["Service"]["ExecStop"].endswith(f"-s {socket} graceful restart")
    for each in (bird, unit("podwire-agent.service")):
        assert each["Unit"]["StartLimitIntervalSec"] == "0"  # never given up
    ties = {"BindsTo", "PartOf", "Requires", "Requisite"}
    assert ties.isdisjoint(bird["Unit"])
    assert ties.isdisjoint(unit("podwire-agent.service")["Unit"])
