"""Certificates for etcd: half a file is told of, and never given to gRPC."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.etcd.certificates import PAUSE_S, Identity, read_certificates
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.errors import BadInput
from podwire.model.config import EtcdConfig
from tests.fakes.etcd_certificates import client_config, make_certificates

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://127.0.0.1:1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_certificates(folder)
    return folder


@pytest.fixture
def files(made: Path, tmp_path: Path) -> Path:
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_whole_files_are_used_as_they_are(files: Path) -> None:
    found = read_certificates(client_config(files, URL))
    assert found.chain == (files / "client.pem").read_bytes()
    assert found.key == (files / "client.key").read_bytes()
    both = files / "both.pem"
    both.write_bytes(b"the node's\n" + (found.key or b"") + (found.chain or b""))
    one = replace(client_config(files, URL), cert_file=str(both), key_file=str(both))
    assert read_certificates(one).chain == both.read_bytes()
    assert read_certificates(EtcdConfig(endpoints=(URL,))).authorities is None


@pytest.mark.parametrize(
    ("name", "role"), [("ca.pem", "caFile"), ("client.pem", "certFile"), ("client.key", "keyFile")]
)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"soon\n", "has no (certificate|private key) in it"),
        (None, "is cut off"),
        (b"twice", "is cut off"),
        (b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n", "cannot be read: "),
    ],
)
def test_a_file_that_is_no_good_is_named_with_its_fault(
    files: Path, name: str, role: str, content: bytes | None, words: str
) -> None:
    path = files / name
    whole = path.read_bytes()
    if content is None:
        content = whole[: len(whole) // 2]
    elif content == b"twice":
        content = whole + whole[:40]
    path.write_bytes(content.replace(b"%s", whole.partition(b"BEGIN ")[2].partition(b"-")[0]))
    with pytest.raises(BadInput, match=f"{role} .*{name} .*{words}"):
        read_certificates(client_config(files, URL))


def test_a_key_of_another_certificate_is_refused(files: Path) -> None:
    (files / "client.key").write_bytes((files / "server.key").read_bytes())
    with pytest.raises(BadInput, match=r"client\.pem and .*client\.key do not belong together"):
        read_certificates(client_config(files, URL))


def test_a_missing_file_or_partner_is_named(files: Path) -> None:
    full = client_config(files, URL)
    with pytest.raises(BadInput, match=r"certFile .* needs keyFile"):
        read_certificates(replace(full, key_file=None))
    with pytest.raises(BadInput, match=r"keyFile .* needs certFile"):
        read_certificates(replace(full, cert_file=None))
    (files / "ca.pem").unlink()
    with pytest.raises(BadInput, match=r"ca\.pem cannot be read: No such file"):
        read_certificates(full)


def test_the_first_call_says_what_is_wrong(files: Path) -> None:
    (files / "client.pem").write_bytes(b"")
    store = EtcdStore(client_config(files, URL))
    with pytest.raises(BadInput, match=r"certFile .* is empty"):
        store.get("/")
    store.close()


def test_half_renewed_files_leave_the_old_ones_in_use(
    files: Path, made: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    identity = Identity(client_config(files, URL), lambda: now[0])
    assert identity.look()
    before = identity.credentials
    assert not identity.look()
    for half in (b"", b"-----BEGIN CERT"):
        (files / "client.pem").write_bytes(half)
        now[0] += PAUSE_S
        assert not identity.look()
        assert identity.credentials is before
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.count("renewed certificates not used yet") == 1
    assert "client.pem is empty" in told.err
    (files / "client.pem").write_bytes((made / "client.pem").read_bytes() + b"\n")
    assert not identity.look(), "not before the pause is over"
    now[0] += PAUSE_S
    assert identity.look()
    assert identity.credentials is not before
    assert not identity.look()


def test_grpc_itself_is_silent() -> None:
    """What there is to say is in our error; else lines of gRPC's stand before it."""
    script = (
        "from podwire.drivers.store.etcd.certificates import *\n"
        "channel = grpc.secure_channel('127.0.0.1:1', grpc.ssl_channel_credentials(b'no pem'))\n"
        "try: channel.unary_unary('/x')(b'', timeout=1)\n"
        "except grpc.RpcError: pass\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
