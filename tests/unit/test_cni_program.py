"""The plugin program, in C and in Python: one suite, and both must say the same."""

from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podwire.agent.spool import Spool, read_key
from podwire.cni.install import PROGRAM, install_plugin, is_installed
from podwire.model.cni import RECEIVED, VERSIONS, Answer
from podwire.model.endpoint import AttachmentKey
from tests.fakes.cni_programs import StandInAgent, programs, run

if TYPE_CHECKING:
    import subprocess

PROGRAMS = programs()
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_ARGS": "IgnoreUnknown=1",
    "HOME": "/nowhere",
}


@pytest.fixture(params=["python", "c"])
def program(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param not in PROGRAMS:
        pytest.skip("needs a C compiler (cc)")
    return PROGRAMS[request.param]


def config(folder: Path, **fields: Any) -> bytes:
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "pods",
            "agentSocket": str(folder / "agent.sock"),
            "spoolDir": str(folder / "deep" / "spool"),
            **fields,
        }
    ).encode()


def outcome(done: subprocess.CompletedProcess[bytes]) -> tuple[int, Any]:
    assert done.stderr == b""
    told = json.loads(done.stdout) if done.stdout else None
    assert done.returncode == (1 if told and "code" in told else 0)
    return (told or {}).get("code", 0), told


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_are_told_without_an_agent(program: tuple[str, ...], version: str) -> None:
    stdin = json.dumps({"cniVersion": version}).encode()
    done = run(program, {"CNI_COMMAND": "VERSION"}, stdin)
    assert outcome(done) == (0, {"cniVersion": version, "supportedVersions": list(VERSIONS)})


@pytest.mark.parametrize(
    ("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50), ("DEL", 0)]
)
def test_every_command_has_its_code_without_an_agent(
    program: tuple[str, ...], tmp_path: Path, command: str, code: int
) -> None:
    done = run(program, {**ENVIRONMENT, "CNI_COMMAND": command}, config(tmp_path))
    found, told = outcome(done)
    assert found == code
    if code:
        assert told["cniVersion"] == "1.0.0"
        assert str(tmp_path / "agent.sock") in told["msg"]
        assert "podwire agent" in told["details"]


@pytest.mark.parametrize("command", ["", "add", "UPDATE", "X" * 300, 'a"b\\c\n\t\x01ä'])
def test_an_unknown_command_has_code_4(
    program: tuple[str, ...], tmp_path: Path, command: str
) -> None:
    done = run(program, {**ENVIRONMENT, "CNI_COMMAND": command}, config(tmp_path))
    assert outcome(done)[0] == 4


@pytest.mark.parametrize("name", ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"])
def test_a_missing_variable_is_named(program: tuple[str, ...], tmp_path: Path, name: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != name}
    code, told = outcome(run(program, environment, config(tmp_path)))
    assert (code, told["msg"].startswith(name)) == (4, True)


@pytest.mark.parametrize(
    "stdin",
    [b"", b" ", b"{", b"}", b"[1]", b'{"a', b'{"a\\', b"{}}", b'{"a":1}x', b"nonsense", b"\xff\0"],
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_broken_json_has_code_6(
    program: tuple[str, ...], tmp_path: Path, command: str, stdin: bytes
) -> None:
    # Without a readable agentSocket the program asks at the default path.
    if Path("/run/podwire/agent.sock").exists():
        pytest.skip("an agent runs on this machine")
    assert outcome(run(program, {**ENVIRONMENT, "CNI_COMMAND": command}, stdin))[0] == 6
    assert not list(tmp_path.iterdir())


def test_five_megabytes_have_code_6(program: tuple[str, ...]) -> None:
    assert outcome(run(program, ENVIRONMENT, b'{"a":"' + b"x" * (5 << 20) + b'"}'))[0] == 6


def test_a_delete_is_kept_while_the_agent_is_away(program: tuple[str, ...], tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "CNI_COMMAND": "DEL", "CNI_NETNS": "/gone"}
    for _ in range(2):
        assert outcome(run(program, environment, config(tmp_path))) == (0, None)
    spool = Spool(tmp_path / "deep" / "spool")
    files = spool.pending()
    assert len(files) == 2
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    key = AttachmentKey(network="pods", container_id="c1", interface="eth0")
    assert [read_key(path) for path in files] == [key, key]
    done: list[AttachmentKey] = []
    assert spool.drain(done.append) == 2
    assert done == [key, key]
    assert not list(spool.directory.iterdir())


def test_a_delete_that_cannot_be_kept_fails(program: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("in the way")
    environment = {**ENVIRONMENT, "CNI_COMMAND": "DEL"}
    assert outcome(run(program, environment, config(tmp_path)))[0] == 11


def test_a_delete_without_a_network_name_is_not_kept(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {**ENVIRONMENT, "CNI_COMMAND": "DEL"}
    assert outcome(run(program, environment, config(tmp_path, name="")))[0] == 7
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [0, 1])
def test_the_agents_answer_is_passed_on(
    program: tuple[str, ...], tmp_path: Path, code: int
) -> None:
    answer = Answer(code=code, stdout=b'{"x": "' + b"y" * 100_000 + b'"}\n')
    agent = StandInAgent(tmp_path / "agent.sock", answer)
    stdin = config(tmp_path)
    done = run(program, ENVIRONMENT, stdin)
    agent.close()
    assert (done.returncode, done.stdout) == (code, answer.stdout)
    assert agent.confirmed == RECEIVED
    assert agent.call is not None
    assert agent.call.stdin == stdin
    assert agent.call.environment == {
        name: value for name, value in ENVIRONMENT.items() if name.startswith("CNI_")
    }
    assert agent.inode == Path("/proc/self/ns/net").stat().st_ino


def test_three_megabytes_reach_the_agent(program: tuple[str, ...], tmp_path: Path) -> None:
    agent = StandInAgent(tmp_path / "agent.sock", Answer())
    stdin = config(tmp_path, big="x" * (3 << 20))
    assert run(program, ENVIRONMENT, stdin).returncode == 0
    agent.close()
    assert agent.call is not None
    assert agent.call.stdin == stdin


def test_a_namespace_that_cannot_be_opened_is_said(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    agent = StandInAgent(tmp_path / "agent.sock", Answer())
    run(program, {**ENVIRONMENT, "CNI_NETNS": "/gone"}, config(tmp_path))
    agent.close()
    assert agent.call is not None
    assert agent.call.environment["PODWIRE_NETNS_ERROR"] == "No such file or directory"
    assert agent.inode is None


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 0), ("STATUS", 50)])
@pytest.mark.parametrize("greeting", [b"somebody\n!", b""], ids=["other", "silent"])
def test_who_does_not_greet_is_away(
    program: tuple[str, ...], tmp_path: Path, command: str, code: int, greeting: bytes
) -> None:
    agent = StandInAgent(tmp_path / "agent.sock", Answer(), greeting)
    done = run(program, {**ENVIRONMENT, "CNI_COMMAND": command}, config(tmp_path))
    assert outcome(done)[0] == code
    agent.close()


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 0), ("CHECK", 11)])
def test_an_agent_that_dies_at_work_is_away(
    program: tuple[str, ...], tmp_path: Path, command: str, code: int
) -> None:
    agent = StandInAgent(tmp_path / "agent.sock", answer=None)
    done = run(program, {**ENVIRONMENT, "CNI_COMMAND": command}, config(tmp_path))
    agent.close()
    assert outcome(done)[0] == code
    assert len(Spool(tmp_path / "deep" / "spool").pending()) == (command == "DEL")


def test_only_the_outermost_object_names_the_socket(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(tmp_path / "trap"))
        inner = json.dumps({"agentSocket": str(tmp_path / "trap")})
        stdin = (
            f'{{"a":{inner},"b":[{inner}],"c":{json.dumps(inner)},"name":"pods",'
            f'"agentSocket" : "{str(tmp_path / "agent.sock").replace("/", chr(92) + "/")}",'
            f'"d":{inner}}}'
        ).encode()
        agent = StandInAgent(tmp_path / "agent.sock", Answer())
        assert run(program, ENVIRONMENT, stdin).returncode == 0
        agent.close()
    assert agent.call is not None


def test_a_socket_path_of_any_length_is_survived(program: tuple[str, ...], tmp_path: Path) -> None:
    for length in (107, 108, 4000, 5000, 100_000):
        stdin = config(tmp_path, agentSocket="/" + "x" * length)
        assert outcome(run(program, ENVIRONMENT, stdin))[0] == 11


commands = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", 'x"\\\x7f'])
pieces = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"\n", b"1", b"null", b'"name"'),
        *(b'"cniVersion":"1.1.0"', b'"name":"n"', b'"cniVersion":"1\\n"', b"\xff", b"\0"),
    ]
)


@pytest.mark.skipif(len(PROGRAMS) < 2, reason="needs a C compiler (cc)")
@settings(suppress_health_check=list(HealthCheck))
@given(commands, st.lists(pieces, max_size=12), st.booleans())
def test_both_programs_say_the_same(
    tmp_path: Path, command: str, parts: list[bytes], whole: bool
) -> None:
    inner = b"".join(parts)
    wrapped = b'{"agentSocket":"%s","spoolDir":"%s",%s}'
    paths = (bytes(tmp_path / "none"), bytes(tmp_path / "spool"))
    stdin = wrapped % (*paths, inner) if whole else wrapped % (*paths, b'"a":' + inner)
    environment = {**ENVIRONMENT, "CNI_COMMAND": command}
    said = [run(program, environment, stdin) for program in PROGRAMS.values()]
    assert said[0].stdout == said[1].stdout
    assert said[0].returncode == said[1].returncode
    if said[0].stdout:
        json.loads(said[0].stdout)


def test_the_program_is_installed(tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    assert not is_installed(directory)
    target = install_plugin(directory)
    assert target == directory / PROGRAM
    assert is_installed(directory)
    assert [path.name for path in directory.iterdir()] == [PROGRAM]
    assert outcome(run((str(target),), {"CNI_COMMAND": "VERSION"}, b""))[0] == 0


def test_without_a_compiler_a_script_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = install_plugin(tmp_path / "bin")
    first = target.read_text().splitlines()[0]
    assert first.startswith("#!/")
    assert first.endswith(" -ISE")
    assert outcome(run((str(target),), {"CNI_COMMAND": "VERSION"}, b""))[0] == 0


def test_the_python_program_imports_almost_nothing() -> None:
    source = "import sys; before = set(sys.modules); import runpy; "
    code = (
        f"{source}sys.modules.pop('runpy'); before = set(sys.modules); "
        f"compile(open({PROGRAMS['python'][-1]!r}).read(), 'shim', 'exec'); "
        "import _socket, errno, posix, time; print(*sorted(set(sys.modules) - before))"
    )
    done = run((sys.executable, "-I", "-S", "-E", "-c", code), {}, b"")
    assert set(done.stdout.decode().split()) <= {"_socket", "errno"}
