"""Whatever is typed or piped in: an answer or an error in words, never a stack trace."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.cli.kinds import KINDS
from podwire.cli.main import INTERRUPTED, OWN_FAILURE, USAGE_ERROR
from podwire.model.shapes import SHAPES
from tests.fakes.command_line import CommandLine, command_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)  # with --long a thousand examples each

V3 = "projectcalico.org/v3"
POOL = {
    "kind": "IPPool",
    "apiVersion": V3,
    "metadata": {"name": "pods", "labels": {"a": "b"}},
    "spec": {"cidr": "10.244.0.0/16", "allowedUses": ["Workload"], "nodeSelector": "all()"},
}
COMMANDS = [
    *(["get"], ["apply"], ["create"], ["replace"], ["delete"], ["patch"], ["label"], ["validate"]),
    *(["ipam", "show"], ["ipam", "split"], ["ipam", "configure"], ["ipam", "release"]),
    *(["datastore", "list"], ["datastore", "get"], ["datastore", "migrate"], ["node", "list"]),
    *(["node", "show"], ["completion"], ["nonsense"], []),
]
WORDS = st.sampled_from(
    [
        *("ippool", "node", "wep", "np", "pods", "-n", "-A", "-o", "json", "wide", "yaml", "name"),
        *("custom-columns=NAME", "custom-columns=", "-l", "a == 'b'", "a ==", "-f", "-", "-R"),
        *("--dry-run", "--skip-empty", "--skip-exists", "-s", "--force", "--export", "--help"),
        *("-p", '{"spec": {"natOutgoing": true}}', "[]", "{", "-t", "merge", "strategic"),
        *("a=b", "a-", "=", "--overwrite", "--remove", "--name", "--cidr", "10.244.0.0/16", "4"),
        *("--ip", "10.244.0.1", "--show-blocks", "--show-borrowed", "--strictaffinity", "true"),
        *("/nonexistent", "/dev/null", "default", "lock", "--", "", "é", "\udcff", "a" * 5000),
        *(kind.name for kind in KINDS),
    ]
)
CODES = {0, 1, USAGE_ERROR}


@pytest.fixture(scope="module")
def podwire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    folder = tmp_path_factory.mktemp("fuzz")
    with contextlib.chdir(folder), command_line(folder / "datastore.db") as line:
        line.done("apply", "-f", "-", text=json.dumps(POOL))
        yield line


def in_words(podwire: CommandLine, *words: str, text: str | bytes = b"") -> None:
    said = podwire(*words, text=text)
    assert said.code in CODES, said
    assert "fault of podwire's own" not in said.err
    assert said.code == 0 or said.err or said.out, words


@given(st.sampled_from(COMMANDS), st.lists(WORDS | st.text(max_size=4), max_size=6))
def test_any_arguments_are_answered_in_words(
    podwire: CommandLine, command: list[str], words: list[str]
) -> None:
    in_words(podwire, *command, *words)


@given(st.binary(max_size=60) | st.text(alphabet="{}[]:,-&*!|>'\"# \na1?%@`~", max_size=40))
def test_any_bytes_are_answered_in_words(podwire: CommandLine, text: str | bytes) -> None:
    in_words(podwire, "apply", "-f", "-", text=text if isinstance(text, bytes) else text.encode())
    in_words(podwire, "datastore", "import", "-", text=text)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "10.0.0.0/8", "Always", "all()", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
PATHS = st.lists(
    st.sampled_from(["kind", "metadata", "name", "labels", "spec", "cidr", "bgp", "peerIP", "a"]),
    max_size=3,
)


@given(st.sampled_from(sorted(SHAPES)), PATHS, ODD)
def test_any_change_of_a_document_is_answered_in_words(
    podwire: CommandLine, kind: str, path: list[str], odd: Any
) -> None:
    document: Any = {**json.loads(json.dumps(POOL)), "kind": kind}
    place = document
    for step in path[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else {}
    if path and isinstance(place, dict):
        place[path[-1]] = odd
    in_words(podwire, "apply", "--dry-run", "-f", "-", text=json.dumps(document))
    in_words(podwire, "delete", "--dry-run", "-f", "-", text=json.dumps(document))
    patch = ["patch", "ippool", "pods", "--dry-run", "-p"]
    in_words(podwire, *patch, json.dumps({"spec": odd}))
    in_words(
        podwire, *patch, json.dumps([{"op": "add", "path": "/spec", "value": odd}]), "-t", "json"
    )


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000,
        "{a: " * 10_000,
        "a: &a [*a]",
        "- &a [x]\n- &b [*a, *a]\n" + "- [*b, *b]\n" * 9,
        "\0",
        "kind: IPPool\n\tmetadata:",
        "%YAML 9.9\n---\na: 1",
        "? [a]\n: b",
        "!!python/object/apply:os.system [ls]",
        "9" * 5000,
        "\ufeff{}",
    ],
)
def test_what_breaks_parsers_is_answered_in_words(podwire: CommandLine, text: str) -> None:
    in_words(podwire, "apply", "-f", "-", text=text)
    in_words(podwire, "patch", "ippool", "pods", "-p", text)


def process(path: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PODWIRE_DATASTORE": str(path)}
    command = [sys.executable, "-m", "podwire", *words]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, env=environment, text=True, check=False, **options)


def test_an_output_that_fails_ends_in_words(podwire: CommandLine) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        done = process(podwire.path, "get", "ippool", stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "error: standard input or output failed: No space left on device\n",
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = process(podwire.path, "get", "ippool", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    shell = f"{sys.executable} -m podwire get ippool >&- 2>&-; exit $?"
    environment = {**os.environ, "PODWIRE_DATASTORE": str(podwire.path)}
    assert subprocess.run(["sh", "-c", shell], env=environment, check=False).returncode in {0, 1}


def test_an_interrupt_is_no_fault(podwire: CommandLine) -> None:
    # Whoever is started in the background by a shell inherits that interrupts are ignored.
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"import signal; {heed}; from podwire.cli.main import main; main()"
    command = [sys.executable, "-c", program, "apply", "-f", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as running:  # type: ignore[call-overload]  # pipes
        assert running.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            # More than a pipe holds: when it is taken, the command is reading.
            running.stdin.write("#" * (1 << 20))
            running.stdin.flush()
        running.send_signal(signal.SIGINT)
        _, complaint = running.communicate()
    assert running.returncode == INTERRUPTED
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/datastore.db", "datastore"),
        ("/nonexistent/datastore.db", "the directory /nonexistent does not exist"),
        ("/tmp", "is a directory"),
        ("/etc/passwd", "is not an SQLite database"),
        ("http://127.0.0.1:1", "does not answer"),
        ("ftp://x", "is no endpoint of etcd"),
    ],
)
def test_a_datastore_that_is_none_is_named(podwire: CommandLine, place: str, reason: str) -> None:
    for words in (("get", "node"), ("ipam", "show"), ("node", "list")):
        said = podwire(*words, "--datastore", place)
        assert said.code in {1, USAGE_ERROR}
        assert reason in said.err
        assert "  fix: " in said.err


def test_a_misspelt_variable_is_refused(
    podwire: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODWIRE_DATASTOR", "x")
    said = podwire("get", "node")
    assert said.code == USAGE_ERROR
    assert "PODWIRE_DATASTOR is not known" in said.err
    assert "did you mean PODWIRE_DATASTORE?" in said.err


def test_a_fault_of_our_own_is_told_in_one_line(
    podwire: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podwire.cli.resources.find_kind", lambda _: 1 / 0)
    said = podwire("get", "node")
    assert said.code == OWN_FAILURE
    assert said.err.startswith("error: this is a fault of podwire's own: ZeroDivisionError")
    assert len(said.err.splitlines()) == 2
    monkeypatch.setenv("PODWIRE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        podwire("get", "node")
