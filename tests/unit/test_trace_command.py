"""What `podwire trace` refuses, with which words and exit code, before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.cli import trace as command
from podwire.cli.main import run
from podwire.drivers.bundle import facts_here, write_bundle
from tests.fakes.drawn_network import story

if TYPE_CHECKING:
    from pathlib import Path

WEB, DB = "demo/web-0", "demo/db-0"


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    path = tmp_path / "bundle.tgz"
    write_bundle(path, story().states(), facts_here())
    return str(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--predict", "--probe"], "--predict sends nothing, and --probe needs probes"),
        (["--predict", "--deep"], "--predict sends nothing, and --deep needs probes"),
        (["--predict", "--cold-arp"], "--predict sends nothing, and --cold-arp needs probes"),
        (["--from", "BUNDLE", "--deep"], "--from sends nothing, and --deep needs probes"),
        (["--from", "BUNDLE", "--probe"], "--from sends nothing, and --probe needs probes"),
        (["--node", "a=local", "--deep"], "--node sends nothing, and --deep needs probes"),
        (["--from", "BUNDLE", "--node", "a=local"], "--from and --node contradict each other"),
        (["--icmp", "--udp", "53"], "choose one of --icmp, --tcp and --udp"),
        (["--tcp", "0"], "0 is not in the range"),
        (["--udp", "65536"], "65536 is not in the range"),
        (["--size", "27"], "27 is not in the range"),
        (["--size", "65536"], "65536 is not in the range"),
        (["--from", "/nowhere.tgz"], "/nowhere.tgz cannot be read"),
        (["--from", "BUNDLE", "--sideways"], "No such option"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    bundle: str,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    words = [bundle if word == "BUNDLE" else word for word in options]
    assert run(["trace", WEB, DB, *words]) == 64
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((WEB, "demo/db-1"), "did you mean demo/db-0"),
        (("vms104", DB), "no pod, node or network namespace 'vms104'"),
        ((WEB, "2001:db8::1"), "demo/web-0 has no IPv6 address"),
        (("192.168.26.103", "2001:db8::1"), "192.168.26.103 has no IPv6 address"),
        ((WEB, "224.0.0.5"), "224.0.0.5 is not one receiver's address"),
        ((WEB, "0.0.0.0"), "0.0.0.0 is not one receiver's address"),
        ((WEB, "127.0.0.1"), "127.0.0.1 is an address of every namespace"),
        (("10.244.7.7", DB), "no namespace that is visible here carries 10.244.7.7"),
    ],
)
def test_ends_that_are_none_are_refused(
    bundle: str,
    capsys: pytest.CaptureFixture[str],
    ends: tuple[str, str],
    said: str,
) -> None:
    assert run(["trace", *ends, "--from", bundle]) == 64
    assert said in capsys.readouterr().err


def test_a_mistake_of_ours_is_no_verdict_about_the_packet(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(*_: object) -> None:
        raise KeyError("eth0")

    monkeypatch.setattr(command, "find_trace", mistaken)
    assert run(["trace", WEB, DB, "--from", bundle]) == 70
    said = capsys.readouterr().err
    assert "KeyError('eth0')" in said
    assert "Traceback" not in said


def test_a_lab_that_does_not_run_is_no_verdict_about_the_packet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["lab", "trace", "--name", "no-such-lab", WEB, DB]) == 64
    assert "lab 'no-such-lab' does not run" in capsys.readouterr().err
