"""From the bytes of a plugin call to a request or a refusal, whatever the bytes are."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import (
    AddressTaken,
    BadInput,
    DatastoreUnavailable,
    KernelError,
    NoPool,
    PoolExhausted,
)
from podwire.model.cni import (
    FRAME_LIMIT,
    NETNS_ERROR,
    NO_DEMAND,
    STDIN_LIMIT,
    VERSIONS,
    Answer,
    Call,
    CallRefused,
    Command,
    Pod,
    Request,
    Result,
    code_of,
    decode_answer,
    decode_call,
    encode_answer,
    encode_call,
    frame,
    frame_length,
)
from podwire.model.cnicall import (
    asked_version,
    parse_arguments,
    parse_call,
    render_error,
    render_result,
    render_versions,
)

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0a1b2c",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
}
CONFIG = {"cniVersion": "1.0.0", "name": "pods", "type": "podwire"}


def call(config: Any = None, **environment: str) -> Call:
    stdin = config if isinstance(config, bytes) else json.dumps(config or CONFIG).encode()
    return Call(environment={**ENVIRONMENT, **environment}, stdin=stdin)


def refused(config: Any = None, **environment: str) -> CallRefused:
    with pytest.raises(CallRefused) as caught:
        parse_call(call(config, **environment))
    return caught.value


def test_a_plain_add_is_understood() -> None:
    request = parse_call(call())
    assert request.command is Command.ADD
    assert request.key.handle == "pods.0a1b2c"
    assert (request.netns, request.pod, request.demand) == ("/run/netns/x", None, NO_DEMAND)


ARGUMENTS = {
    "K8S_POD_NAMESPACE": "demo",
    "K8S_POD_NAME": "web-0",
    "K8S_POD_INFRA_CONTAINER_ID": "0a1b2c",
    "K8S_POD_UID": "1",
    "IgnoreUnknown": "1",
}
unknown_arguments = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True).filter(
        lambda key: key not in {*ARGUMENTS, "IP", "MAC"}
    ),
    st.text(st.characters(codec="ascii", exclude_characters=";\0"), max_size=9),
    max_size=3,
)


@given(unknown_arguments.flatmap(lambda more: st.permutations([*(ARGUMENTS | more).items()])))
def test_the_pod_is_found_in_arguments_of_any_order(parts: list[tuple[str, str]]) -> None:
    text = ";".join(f"{key}={value}" for key, value in parts)
    assert parse_call(call(CNI_ARGS=text)).pod == Pod(namespace="demo", name="web-0")


def test_unknown_arguments_are_refused_unless_they_may_be_ignored() -> None:
    assert parse_arguments("A=1;IgnoreUnknown=true")["A"] == "1"
    error = refused(CNI_ARGS="A=1")
    assert (error.code, "CNI_ARGS" in error.message, "'A'" in error.message) == (4, True, True)


def test_arguments_without_equals_sign_are_refused() -> None:
    assert refused(CNI_ARGS="nonsense;IgnoreUnknown=1").code == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_we_name_is_taken(version: str) -> None:
    assert parse_call(call({**CONFIG, "cniVersion": version})).config.version == version


@pytest.mark.parametrize("version", [None, "0.3.0", "0.2.0", "2.0.0", "", 1, ["1.0.0"], {}])
def test_other_versions_have_code_1(version: object) -> None:
    error = refused({**CONFIG, "cniVersion": version})
    assert error.code == 1
    assert "cniVersion" in error.message


@pytest.mark.parametrize(
    ("command", "version", "fine"),
    [
        ("CHECK", "0.3.1", False),
        ("CHECK", "0.4.0", True),
        ("GC", "1.0.0", False),
        ("GC", "1.1.0", True),
        ("STATUS", "1.0.0", False),
        ("STATUS", "1.1.0", True),
    ],
)
def test_a_command_needs_the_version_that_has_it(command: str, version: str, fine: bool) -> None:
    config = {
        **CONFIG,
        "cniVersion": version,
        "prevResult": {},
        "cni.dev/valid-attachments": [],
    }
    if fine:
        assert parse_call(call(config, CNI_COMMAND=command)).command == command
    else:
        error = refused(config, CNI_COMMAND=command)
        assert (error.code, command in error.message) == (1, True)


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("CHECK", "CNI_NETNS"),
    ],
)
def test_a_missing_variable_is_named(command: str, variable: str) -> None:
    config = {**CONFIG, "prevResult": {}}
    error = refused(config, CNI_COMMAND=command, **{variable: ""})
    assert error.code == 4
    assert error.message.startswith(variable)


def test_delete_needs_no_namespace() -> None:
    gone = {"CNI_COMMAND": "DEL", "CNI_NETNS": "", NETNS_ERROR: "No such file or directory"}
    assert parse_call(call(**gone)).command is Command.DEL


def test_a_namespace_that_cannot_be_opened_has_code_4() -> None:
    error = refused(**{NETNS_ERROR: "No such file or directory"})
    assert error.code == 4
    assert "CNI_NETNS" in error.message
    assert "/run/netns/x" in error.message
    assert "No such file" in error.message


@pytest.mark.parametrize("command", ["", "add", "UPDATE", "A" * 300])
def test_an_unknown_command_has_code_4(command: str) -> None:
    error = refused(CNI_COMMAND=command)
    assert (error.code, "CNI_COMMAND" in error.message) == (4, True)


@pytest.mark.parametrize("container", ["a/b", "..", ".", "-a", "a b", "a" * 300, "ä", "a\nb"])
def test_a_bad_container_id_has_code_4(container: str) -> None:
    error = refused(CNI_CONTAINERID=container)
    assert (error.code, "CNI_CONTAINERID" in error.message) == (4, True)
    assert len(error.message) < 200


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "a b", "a:b", "e" * 16, "e" * 300, "a%d", "ä", "all", "default"]
)
def test_a_bad_interface_name_has_code_4(name: str) -> None:
    error = refused(CNI_IFNAME=name)
    assert (error.code, "CNI_IFNAME" in error.message) == (4, True)


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b"  \n",
        b"{",
        b"nonsense",
        b'{"a": 1',
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b" " * (STDIN_LIMIT + 1),
    ],
    ids=lambda stdin: repr(stdin[:12]),
)
def test_what_is_no_json_object_has_code_6(stdin: bytes) -> None:
    with pytest.raises(CallRefused) as caught:
        parse_call(Call(environment=ENVIRONMENT, stdin=stdin))
    assert caught.value.code == 6


@pytest.mark.parametrize("name", [None, "", "a/b", "n" * 300, 7, "ä", "-a"])
def test_a_bad_network_name_has_code_7(name: object) -> None:
    assert refused({**CONFIG, "name": name}).code == 7


@pytest.mark.parametrize("kind", ["host-local", "calico-ipam", 7, ["a"], {"a": 1}])
def test_another_address_plugin_has_code_7(kind: object) -> None:
    error = refused({**CONFIG, "ipam": {"type": kind}})
    assert (error.code, "ipam" in error.message) == (7, True)


@pytest.mark.parametrize("command", ["DEL", "CHECK"])
def test_what_is_asked_for_keeps_no_pod_from_going(command: str) -> None:
    config = {**CONFIG, "ipam": {"type": "host-local"}, "mtu": "big", "prevResult": {}}
    assert parse_call(call(config, CNI_COMMAND=command, CNI_ARGS="IP=x")).demand == NO_DEMAND


@pytest.mark.parametrize("ipam", [{}, {"type": "podwire"}, {"type": ""}, None])
def test_no_or_our_own_address_plugin_is_fine(ipam: object) -> None:
    assert parse_call(call({**CONFIG, "ipam": ipam})).config.name == "pods"


def test_fields_of_the_runtime_are_accepted() -> None:
    extra = {
        "runtimeConfig": {"portMappings": [{"hostPort": 80}], "bandwidth": {}},
        "args": {"cni": {"labels": []}},
        "capabilities": {"portMappings": True},
        "dns": {},
        "agentSocket": "/run/podwire/agent.sock",
    }
    assert parse_call(call({**CONFIG, **extra})).key.interface == "eth0"


def test_check_without_the_result_of_add_has_code_7() -> None:
    assert refused(CNI_COMMAND="CHECK").code == 7


@pytest.mark.parametrize(
    "previous",
    [[], "x", {"interfaces": {}}, {"ips": [1]}, {"interfaces": [None]}, {"routes": "x"}],
)
def test_a_broken_result_of_add_has_code_7(previous: object) -> None:
    assert refused({**CONFIG, "prevResult": previous}).code == 7


@pytest.mark.parametrize("valid", [None, "x", {}, [1], [{"containerID": "a"}], [{"ifname": 1}]])
def test_collection_without_a_sound_list_has_code_7(valid: object) -> None:
    config = {**CONFIG, "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    assert refused(config, CNI_COMMAND="GC").code == 7


def test_collection_reads_its_list() -> None:
    listed = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]
    config = {**CONFIG, "cniVersion": "1.1.0", "cni.dev/valid-attachments": listed}
    request = parse_call(call(config, CNI_COMMAND="GC"))
    assert request.config.valid == frozenset({("a", "eth0"), ("b", "eth1")})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)
fields = st.sampled_from(
    [
        *("cniVersion", "name", "ipam", "prevResult", "cni.dev/valid-attachments", "args", "type"),
        *("runtimeConfig", "mtu", "container_settings"),
    ]
)
variables = st.sampled_from(
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"]
)


def expect_a_request_or_an_error_object(made: Call) -> None:
    try:
        outcome: Request | CallRefused = parse_call(made)
    except CallRefused as error:
        outcome = error
    if isinstance(outcome, CallRefused):
        answer = render_error(outcome, asked_version(made.stdin))
        told = json.loads(answer.stdout)
        assert answer.code == 1
        assert told["cniVersion"] in VERSIONS
        assert told["code"] == outcome.code
        assert told["msg"]
        assert len(answer.stdout) < 2000


@given(st.dictionaries(variables, st.text(max_size=40)), st.binary(max_size=200))
def test_any_bytes_give_a_request_or_an_error_object(
    environment: dict[str, str], stdin: bytes
) -> None:
    expect_a_request_or_an_error_object(Call(environment=environment, stdin=stdin))


@given(
    st.sampled_from(Command),
    st.dictionaries(fields, json_values, max_size=4),
    st.text(max_size=30),
)
def test_any_json_gives_a_request_or_an_error_object(
    command: Command, changes: dict[str, Any], arguments: str
) -> None:
    config = {**CONFIG, "cniVersion": "1.1.0", **changes}
    stdin = json.dumps(config, allow_nan=True).encode()
    environment = {**ENVIRONMENT, "CNI_COMMAND": command.value, "CNI_ARGS": arguments}
    expect_a_request_or_an_error_object(Call(environment=environment, stdin=stdin))


RESULT = Result(
    host_interface="cali0d7763386da",
    interface="eth0",
    mac="02:00:00:00:00:01",
    mtu=1450,
    sandbox="/run/netns/x",
    addresses=(ip_interface("10.1.0.2/32"),),
)


def test_the_result_has_the_shape_of_version_1() -> None:
    answer = render_result(RESULT, parse_call(call()).config)
    assert json.loads(answer.stdout) == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "cali0d7763386da"},
            {
                "name": "eth0",
                "mac": "02:00:00:00:00:01",
                "mtu": 1450,
                "sandbox": "/run/netns/x",
            },
        ],
        "ips": [{"interface": 1, "address": "10.1.0.2/32"}],
    }


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0"])
def test_older_results_name_the_address_family(version: str) -> None:
    config = parse_call(call({**CONFIG, "cniVersion": version})).config
    told = json.loads(render_result(RESULT, config).stdout)
    assert told["cniVersion"] == version
    assert told["ips"] == [{"interface": 1, "address": "10.1.0.2/32", "version": "4"}]
    assert "mtu" not in told["interfaces"][1]


def test_a_chain_keeps_what_came_before() -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "br0"}, {"name": "net1", "sandbox": "/run/netns/x", "x": 1}],
        "ips": [{"interface": 1, "address": "192.0.2.2/24", "gateway": "192.0.2.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["192.0.2.53"]},
        "unknown": [1],
    }
    config = parse_call(call({**CONFIG, "prevResult": previous})).config
    told = json.loads(render_result(RESULT, config).stdout)
    assert [item["name"] for item in told["interfaces"]] == [
        "br0",
        "net1",
        "cali0d7763386da",
        "eth0",
    ]
    assert told["ips"] == [*previous["ips"], {"interface": 3, "address": "10.1.0.2/32"}]
    assert (told["routes"], told["dns"]) == (previous["routes"], previous["dns"])
    assert (told["unknown"], told["interfaces"][1]["x"]) == ([1], 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PoolExhausted("full"), 101),
        (AddressTaken("taken"), 101),
        (NoPool("none"), 102),
        (DatastoreUnavailable("away"), 11),
        (KernelError("no", errno=1, subject="x"), 5),
    ],
)
def test_every_family_of_errors_has_its_code(error: Any, code: int) -> None:
    assert code_of(error) == code


def test_versions_are_listed() -> None:
    told = json.loads(render_versions("0.4.0").stdout)
    assert told == {"cniVersion": "0.4.0", "supportedVersions": list(VERSIONS)}


names = st.text(st.characters(codec="utf-8", exclude_characters="\0="), max_size=9).filter(bool)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(st.dictionaries(names, values, max_size=5), st.binary(max_size=60))
def test_a_call_survives_the_socket(environment: dict[str, str], stdin: bytes) -> None:
    made = Call(environment=environment, stdin=stdin)
    assert decode_call(encode_call(made)) == made


@given(st.integers(0, 255), st.binary(max_size=60))
def test_an_answer_survives_the_socket(code: int, stdout: bytes) -> None:
    answer = Answer(code=code, stdout=stdout)
    assert decode_answer(encode_answer(answer)) == answer


def test_a_frame_says_its_length_and_is_bounded() -> None:
    assert frame_length(frame(b"abc")[:4]) == 3
    with pytest.raises(Exception, match="longer"):
        frame_length((FRAME_LIMIT + 1).to_bytes(4, "big"))


@given(st.binary(max_size=40))
def test_any_body_is_a_call_or_refused(body: bytes) -> None:
    with suppress(BadInput):
        decode_call(body)
