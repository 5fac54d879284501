"""The agent's configuration file: what is right is read, what is wrong is named with its line."""

from __future__ import annotations

import re
from ipaddress import ip_interface
from pathlib import Path

import pytest

from podwire.drivers.config import (
    DATASTORE_KEYS,
    KEYS,
    datastore_at,
    load_agent_config,
    on_this_host,
    parse_seconds,
    variable_of,
)
from podwire.errors import BadInput
from podwire.model.config import (
    AgentConfig,
    DatastoreConfig,
    EtcdConfig,
    HealthAddress,
    parse_health_address,
)
from podwire.model.detection import Detection, Method


def write(folder: Path, text: str) -> Path:
    path = folder / "podwire.yaml"
    path.write_text(text)
    return path


def test_everything_can_be_said(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "datastore: {type: sqlite, path: /tmp/x.db}\n"
        "agentSocket: /run/x.sock\nspoolDir: /tmp/spool\n"
        "address: 192.168.26.103/24\nresyncPeriod: 5s\nhealthAddress: 10.0.0.1:9091\n",
    )
    assert load_agent_config(path, "vms103") == AgentConfig(
        node="vms103",
        datastore=DatastoreConfig(path="/tmp/x.db"),
        agent_socket="/run/x.sock",
        spool_dir="/tmp/spool",
        address=ip_interface("192.168.26.103/24"),
        health_address=HealthAddress(host="10.0.0.1", port=9091),
        resync_period_s=5.0,
    )


def test_the_environment_counts_more_than_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "datastore: {path: /a}\nspoolDir: /b\nresyncPeriod: 5s\n")
    environment = {
        "PODWIRE_DATASTORE": "https://10.0.0.1",
        "ETCD_CA_CERT_FILE": "ca.pem",
        "PODWIRE_RESYNC_PERIOD": "7s",
        "PODWIRE_HEALTH_ADDRESS": "[::1]:9091",
        "PODWIRE_AGENT_SOCKET": "",
        "PODWIRE_SERVICE_HOST": "a Kubernetes Service called podwire",
    }
    etcd = EtcdConfig(endpoints=("https://10.0.0.1:2379",), ca_file="ca.pem")
    assert load_agent_config(path, "n", environment) == AgentConfig(
        node="n",
        datastore=DatastoreConfig(type="etcd", etcd=etcd),
        spool_dir="/b",
        health_address=HealthAddress(host="::1", port=9091),
        resync_period_s=7.0,
    )


def test_each_key_of_the_datastore_has_its_variable(tmp_path: Path) -> None:
    path = write(tmp_path, "datastore: {type: etcd, endpoints: [http://a], caFile: old.pem}\n")
    environment = {
        "PODWIRE_DATASTORE_ENDPOINTS": "https://b,https://c:1",
        "PODWIRE_DATASTORE_CA_FILE": "ca.pem",
        "PODWIRE_DATASTORE_USERNAME": "u",
        "PODWIRE_DATASTORE_PASSWORD_FILE": "p",
    }
    found = load_agent_config(path, "n", environment).datastore.etcd
    assert found == EtcdConfig(
        endpoints=("https://b:2379", "https://c:1"),
        ca_file="ca.pem",
        username="u",
        password_file="p",
    )
    alone = {"PODWIRE_DATASTORE_TYPE": "sqlite", "PODWIRE_DATASTORE_PATH": "/x.db"}
    assert load_agent_config(None, "n", alone).datastore == DatastoreConfig(path="/x.db")
    wrong = {"PODWIRE_DATASTORE_TYPE": "etdc"}
    with pytest.raises(BadInput, match=r"DATASTORE_TYPE:1: .* 'etdc' is unknown") as bad:
        load_agent_config(None, "n", wrong)
    assert bad.value.fix == "did you mean etcd?"


def test_a_misspelt_variable_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(BadInput, match="PODWIRE_AGENT_SOCKT is not known") as bad:
        load_agent_config(None, "n", {"PODWIRE_AGENT_SOCKT": "x", "HOME": "/"})
    assert bad.value.fix == "did you mean PODWIRE_AGENT_SOCKET?"
    services = {
        "PODWIRE_SERVICE_HOST": "10.0.0.1",
        "PODWIRE_METRICS_SERVICE_PORT_HTTP": "80",
        "PODWIRE_PORT": "tcp://10.0.0.1:80",
        "PODWIRE_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load_agent_config(None, "n", services) == AgentConfig(node="n")


def test_every_key_is_documented_and_nothing_else() -> None:
    """The table of docs/reference/agent.md names exactly what the code knows."""
    text = (Path(__file__).parents[2] / "docs/reference/agent.md").read_text()
    table = text.partition("| Key | Default | Meaning |")[2].partition("\n\n")[0]
    documented = set()
    for row in table.splitlines()[2:]:
        first, *others = re.findall(r"`([^`]+)`", row.split("|")[1])
        section = first.rpartition(".")[0]
        documented |= {first, *(f"{section}.{each}" if section else each for each in others)}
    datastore = {f"datastore.{key}" for keys in DATASTORE_KEYS.values() for key in keys}
    assert documented == (set(KEYS) - {"datastore"}) | datastore


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    environment = {"PODWIRE_RESYNC_PERIOD": "soon"}
    with pytest.raises(BadInput, match=r"^PODWIRE_RESYNC_PERIOD.* a time of at least"):
        load_agent_config(write(tmp_path, ""), "n", environment)


def test_every_key_is_documented_with_its_variable() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/agent.md").read_text()
    for key in KEYS:
        assert f"| `{key}" in text, key
    assert variable_of("birdConfig") == "PODWIRE_BIRD_CONFIG"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("none", None),
        ("/run/x.sock", HealthAddress(path="/run/x.sock")),
        (":9091", HealthAddress(port=9091)),
        ("localhost:9091", HealthAddress(host="localhost", port=9091)),
        ("[fd00::1]:1", HealthAddress(host="fd00::1", port=1)),
    ],
)
def test_a_health_address_is_a_path_or_a_port(text: str, address: HealthAddress | None) -> None:
    assert parse_health_address(text) == address
    if address is not None:
        assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3.4", "9091", "a:0", "a:65536", "::1:9091", "a b:1"]
)
def test_what_is_no_health_address_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is no address"):
        parse_health_address(text)


def test_etcd_is_named_with_all_it_needs(tmp_path: Path) -> None:
    text = """
datastore:
  type: etcd
  endpoints: ["https://10.0.0.1", "https://[fd00::2]:2380"]
  caFile: ca.pem
  certFile: node.pem
  keyFile: node.key
  username: podwire
  passwordFile: password
"""
    config = load_agent_config(write(tmp_path, text), "n").datastore
    assert config.etcd == EtcdConfig(
        endpoints=("https://10.0.0.1:2379", "https://[fd00::2]:2380"),
        ca_file="ca.pem",
        cert_file="node.pem",
        key_file="node.key",
        username="podwire",
        password_file="password",
    )
    assert config.place == "https://10.0.0.1:2379,https://[fd00::2]:2380"


def test_a_command_line_names_a_file_or_urls() -> None:
    assert datastore_at("/var/x.db", {}) == DatastoreConfig(path="/var/x.db")
    named = datastore_at("http://a,unix:///run/e.sock", {"ETCD_CA_CERT_FILE": "ca.pem"})
    assert named.etcd == EtcdConfig(
        endpoints=("http://a:2379", "unix:///run/e.sock"), ca_file="ca.pem"
    )


@pytest.mark.parametrize("name", ["ETCD_CERT_FILE", "ETCD_KEY_FILE"])
def test_a_variable_that_lacks_its_partner_is_refused(name: str) -> None:
    (missing,) = {"ETCD_CERT_FILE", "ETCD_KEY_FILE"} - {name}
    with pytest.raises(BadInput, match=f"{name} needs {missing} beside it"):
        datastore_at("https://a", {name: "x"})
    both = datastore_at("https://a", {name: "x", missing: "y"}).etcd
    assert both is not None
    assert {both.cert_file, both.key_file} == {"x", "y"}


def test_a_user_and_a_password_are_taken_as_calicoctl_takes_them() -> None:
    given = {"ETCD_USERNAME": "u", "ETCD_PASSWORD": "secret"}
    etcd = datastore_at("https://a", given).etcd
    assert etcd is not None
    assert (etcd.username, etcd.password) == ("u", "secret")
    assert "secret" not in repr(etcd)
    for name in given:
        with pytest.raises(BadInput, match=f"{name} needs"):
            datastore_at("https://a", {name: "x"})
    with pytest.raises(BadInput, match="ETCD_PASSWORD and ETCD_PASSWORD_FILE are both set"):
        datastore_at("https://a", {**given, "ETCD_PASSWORD_FILE": "f"})


@pytest.mark.parametrize("place", ["10.0.0.1:2379", "etcd-1:2379,[fd00::1]:2379"])
def test_an_endpoint_without_its_scheme_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    meant = ",".join(f"https://{each}" for each in place.split(","))
    with pytest.raises(BadInput, match="is no file") as bad:
        datastore_at(place, {})
    assert bad.value.fix == f"did you mean {meant}?"
    with pytest.raises(BadInput, match="is no file"):
        load_agent_config(None, "n", {"PODWIRE_DATASTORE": place})
    path = write(tmp_path, f"datastore: {{path: '{place}'}}\n")
    with pytest.raises(BadInput, match=r"podwire\.yaml:1: .*is no file") as bad:
        load_agent_config(path, "n")
    assert meant in str(bad.value.fix)
    (tmp_path / place).touch()
    assert datastore_at(place, {}).path == place
    for file in (f"./{place}x", "data:base", "10.0.0.1"):
        assert datastore_at(file, {}).path == file


def test_how_the_node_finds_its_address_and_mtu(tmp_path: Path) -> None:
    text = "addressDetection: interface=eth.*,bond.*\nmtu: 1400\nmtuFollow: true\n"
    assert load_agent_config(write(tmp_path, text), "n") == AgentConfig(
        node="n",
        detection=Detection(method=Method.INTERFACE, patterns=("eth.*", "bond.*")),
        mtu=1400,
        follow_mtu=True,
    )


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_agent_config(write(tmp_path, "# nothing\n"), "n") == AgentConfig(node="n")


@pytest.mark.parametrize(
    ("text", "place"),
    [("healthAddress: [x]\n", ":1: healthAddress must"),
     ("datastore: {type: etcd, endpoints: [[x]]}\n", ":1: datastore.endpoints[0] must")],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_placed_once(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(BadInput) as error:
        load_agent_config(write(tmp_path, text), "n")
    assert place in error.value.message
    assert error.value.message.count(":1:") == 1


def test_the_search_for_leaks_can_be_turned_off(tmp_path: Path) -> None:
    config = load_agent_config(write(tmp_path, "leakGracePeriod: 0\n"), "n")
    assert (config.leak_grace_period_s, config.leak_scan_period_s) == (0, 60)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\nagentsocket: x\n", 2, "did you mean agentSocket"),
        ("spoolDir: a\nspoolDir: b\n", 2, "given twice"),
        ("spoolDir: [a]\n", 1, "must be a string"),
        ("address: 10.0.0.1\n", 1, "prefix length"),
        ("address: ten/24\n", 1, "not an address"),
        ("resyncPeriod: soon\n", 1, "a time of at least"),
        ("healthAddress: nowhere\n", 1, "is no address"),
        ("resyncPeriod: 10ms\n", 1, "a time of at least"),
        ("leakScanPeriod: 0\n", 1, "a time of at least"),
        ("leakGracePeriod: 1m\n", 1, "shorter than two scans of 60 s"),
        ("leakScanPeriod: 10m\n", 1, "a grace period of 900 s"),
        ("datastore:\n  kind: sqlite\n", 2, "kind is not a known key"),
        ("datastore:\n  type: etc\n", 2, "did you mean etcd?"),
        ("datastore: {type: etcd}\n", 1, "datastore lacks endpoints"),
        ("datastore: {type: etcd, endpoints: [nowhere]}\n", 1, "is no endpoint"),
        ("datastore: {type: etcd, path: /x}\n", 1, "path is not a known key"),
        ("datastore: {type: etcd, certFile: a}\n", 1, "needs keyFile"),
        ("datastore: {type: etcd, username: a}\n", 1, "needs passwordFile"),
        ("datastore: sqlite\n", 1, "a mapping"),
        ("address: 10.0.0.1/24\ninterface: eth0\n", 2, "both"),
        ("addressDetection: first-found\ninterface: eth0\n", 1, "interface are both"),
        ("interface: eth0\naddressDetection: first-found\n", 2, "interface are both"),
        ("addressDetection: first\n", 1, "did you mean first-found"),
        ("addressDetection: kubernetes-internal-ip\n", 1, "Kubernetes API"),
        ("mtu: 100\n", 1, "576 to 65535"),
        ("mtu: auto\n", 1, "leave the key out"),
        ("mtuFollow: perhaps\n", 1, "true or false"),
        ("a: [\n", 2, "is not YAML"),
        ("- a\n", 1, "a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        load_agent_config(path, "n")
    assert caught.value.message.startswith(f"{path}:{line}:")
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file"):
        load_agent_config(tmp_path / "none.yaml", "n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10.0), ("10s", 10.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1s", "inf", "nan", "x", "5 parsecs"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_seconds(text) is None


def test_the_nodes_name_is_given_or_the_hosts_whole_one(tmp_path: Path) -> None:
    named = write(tmp_path, "nodeName: vms103.example.com\n")
    assert load_agent_config(named, "").node == "vms103.example.com"
    assert load_agent_config(named, "", {"PODWIRE_NODE_NAME": "vms104"}).node == "vms104"
    assert load_agent_config(named, "vms105", {"PODWIRE_NODE_NAME": "vms104"}).node == "vms105"
    unnamed = load_agent_config(None, "")
    for host, name, former in (
        ("vms103", "vms103", None),
        ("VMS103.Example.com", "vms103.example.com", "VMS103"),
    ):
        config = on_this_host(unnamed, host)
        assert (config.node, config.former_name) == (name, former)
    given = load_agent_config(named, "")
    assert on_this_host(given, "VMS103.Example.com") == given


@pytest.mark.parametrize("name", ["VMS103", "a_b", "-a", "''"])
def test_a_name_that_no_node_may_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"podwire\.yaml:1.*nodeName.*is no resource name"):
        load_agent_config(write(tmp_path, f"nodeName: {name}\n"), "")


def test_a_hosts_name_that_is_none_asks_for_one() -> None:
    with pytest.raises(BadInput, match=r"the host's name: 'a_b'.*nodeName"):
        on_this_host(load_agent_config(None, ""), "a_b")
