"""More than etcd takes at once: moved, applied and released all the same, in pieces."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from podwire.boundary import Verb, Write
from podwire.cli.main import podwire
from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.drivers.store.pieces import pieces
from podwire.drivers.store.transfer import export_lines, import_objects, parse_lines
from podwire.errors import Unsupported
from podwire.model.config import EtcdConfig
from tests.fakes.etcd_server import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.resource import Wire

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    # A socket's path may have 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="podwire-etcd-") as folder:
        server = EtcdServer(Path(folder), words=("--unsafe-no-fsync",)).start()
        try:
            yield server.wait_ready()
        finally:
            server.kill()


@pytest.fixture
def store(server: EtcdServer) -> Iterator[EtcdStore]:
    store = EtcdStore(EtcdConfig(endpoints=(server.endpoint,)))
    entries = store.list("").entries
    for piece in pieces(Write(verb=Verb.DELETE, key=entry.key) for entry in entries):
        store.batch(piece)
    yield store
    store.close()


def run(server: EtcdServer, *words: str, text: str = "") -> str:
    command = [*words, "--datastore", server.endpoint]
    done = CliRunner().invoke(podwire, command, input=text, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def full_block(number: int) -> Wire:
    """As large as a block of 64 pods."""
    attributes = [{"handle_id": f"{n}", "secondary": {"pod": "x" * 290}} for n in range(64)]
    return {"cidr": f"10.{number}.0.0/26", "attributes": attributes}


def test_a_normal_cluster_is_moved_and_comes_back_the_same(store: EtcdStore) -> None:
    objects: dict[str, Wire] = {
        f"/calico/ipam/v2/assignment/ipv4/block/10.{number}.0.0-26": full_block(number)
        for number in range(150)
    }
    small: dict[str, Wire] = {
        f"/calico/resources/v3/projectcalico.org/nodes/{n}": {"n": n} for n in range(300)
    }
    everything = {**objects, **small}
    assert import_objects(store, everything) == len(everything)
    assert parse_lines(export_lines(store), "all") == everything
    assert import_objects(store, everything) == 0


def test_an_object_that_alone_is_too_large_is_named(store: EtcdStore) -> None:
    large: dict[str, Wire] = {"/calico/large": {"x": "x" * 2_000_000}, "/calico/small": {"y": "y"}}
    with pytest.raises(Unsupported, match="/calico/large has 2000008 bytes") as caught:
        import_objects(store, large)
    assert "make that object smaller" in str(caught.value.fix)


def test_many_resources_are_applied_and_changed(server: EtcdServer, store: EtcdStore) -> None:
    ensure_cluster(store)
    labels = "{podwire.io/route-reflector: 'true'}"
    text = "".join(
        "---\napiVersion: projectcalico.org/v3\nkind: Node\n"
        f"metadata: {{name: n{number}, labels: {labels}}}\n"
        f"spec: {{bgp: {{ipv4Address: 10.0.0.{number}/24}}}}\n"
        for number in range(1, 201)
    )
    assert "200" in run(server, "apply", "-f", "-", text=text)
    assert run(server, "get", "nodes", "-o", "name").count("\n") == 200
    run(server, "bgp", "reflectors", "auto", "--count", "150")
    assert run(server, "bgp", "reflectors", "off") == "the mesh is back\n"
