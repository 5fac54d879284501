"""etcd in trouble: members that die or hang, certificates, users, a full disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from podwire.boundary import Verb, Write
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.drivers.store.etcd import client
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.errors import BadInput, Compacted, DatastoreUnavailable, Restored, Unsupported
from podwire.model.config import EtcdConfig
from tests.fakes.awaiting import wait_until
from tests.fakes.etcd_certificates import client_config, make_certificates, server_words
from tests.fakes.etcd_server import PROGRAMS, WHEEL, EtcdServer, cluster_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _loopback() -> None:
    with Session.open() as session:
        session.run(requests.set_link("lo", up=True))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[EtcdServer]]:
    members = cluster_of(tmp_path, 3)
    for member in members:
        member.start()
    for member in members:
        member.wait_ready()
    yield members
    for member in members:
        member.kill()


def store_of(*servers: EtcdServer) -> EtcdStore:
    return EtcdStore(EtcdConfig(endpoints=tuple(each.endpoint for each in servers)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_another_member_answers_for_one_that_does_not(
    three: list[EtcdServer], how: signal.Signals
) -> None:
    store = store_of(*three)
    made = store.create("/a/1", {"n": 1})
    watch = store.watch("/a/", made.revision)
    process = three[0].process
    assert process is not None
    process.send_signal(how)

    def wrote() -> bool:
        try:
            store.update("/a/1", {"n": 2}, made.revision)
        except DatastoreUnavailable:  # the leader is being elected
            return False
        return True

    wait_until(wrote)
    if how == signal.SIGKILL:
        # The stream was to the dead one; from the last change seen a new one misses nothing.
        with pytest.raises(DatastoreUnavailable):
            watch.wait(30)
        again = store.watch("/a/", made.revision)
        (change,) = again.wait(30)
        assert change.entry is not None
        assert change.entry.value == {"n": 2}
        again.close()
    watch.close()
    store.close()


def test_a_write_whose_answer_was_lost_is_known_as_ours(three: list[EtcdServer]) -> None:
    """A member that hangs may have passed the write on; the same one elsewhere then finds it."""
    store, other = store_of(*three), store_of(*reversed(three))
    first = store.create("/a", {"n": 0})
    hangs = three[0].process
    assert hangs is not None
    hangs.send_signal(signal.SIGSTOP)
    # What the hanging member would have done: carried out, and the answer never came.
    wait_until(
        lambda: _writes(
            other, Write(verb=Verb.UPDATE, key="/a", value={"n": 1}, revision=first.revision)
        )
    )
    second = store.update("/a", {"n": 1}, first.revision)
    assert second == other.get("/a")
    for each in (store, other):
        each.close()
    hangs.send_signal(signal.SIGCONT)


def _writes(store: EtcdStore, write: Write) -> bool:
    try:
        store.batch((write,))
    except DatastoreUnavailable:
        return False
    return True


def test_nobody_there_is_said_with_the_systems_word(tmp_path: Path) -> None:
    store = store_of(*cluster_of(tmp_path, 2))
    with pytest.raises(DatastoreUnavailable, match="Connection refused") as caught:
        store.get("/a")
    assert "http://127.0.0.1:2300,http://127.0.0.1:2301" in caught.value.message
    store.close()


def test_it_goes_on_when_the_server_is_back(tmp_path: Path) -> None:
    server = (
        EtcdServer(
            tmp_path / "e", client_url="http://127.0.0.1:2379", peer_url="http://127.0.0.1:2380"
        )
        .start()
        .wait_ready()
    )
    store = store_of(server)
    made = store.create("/a", {})
    watch = store.watch("/a", made.revision)
    server.kill()
    with pytest.raises(DatastoreUnavailable):
        watch.wait(30)
    with pytest.raises(DatastoreUnavailable):
        store.get("/a")
    server.start().wait_ready()
    wait_until(lambda: _answers(store))
    assert store.get("/a") == made
    watch.close()
    store.close()
    server.kill()


def test_a_lease_outlives_a_lost_connection_and_is_granted_anew(tmp_path: Path) -> None:
    (server,) = cluster_of(tmp_path, 1)
    server.start().wait_ready()
    store = store_of(server)
    store.keep("/status", {"n": 1}, 60, {})
    server.kill()
    with pytest.raises(DatastoreUnavailable):
        store.keep("/status", {"n": 2}, 60, {})
    server.start().wait_ready()
    wait_until(lambda: _keeps(store, 3))
    store.let_go("/status")
    assert store.get("/status") is None
    # A cluster made anew knows nothing of the lease that this program still counts on.
    store.keep("/status", {"n": 4}, 60, {})
    server.kill()
    shutil.rmtree(server.folder / "data")
    server.start().wait_ready()
    wait_until(lambda: _keeps(store, 5))
    entry = store.get("/status")
    assert entry is not None
    assert entry.value == {"n": 5}
    store.close()
    server.kill()


def one_server(folder: Path, *words: str, program: Path = WHEEL / "etcd") -> EtcdServer:
    (server,) = cluster_of(folder, 1)
    server.words, server.program = (*server.words, *words), program
    return server.start().wait_ready()


def test_a_watch_of_what_never_changes_keeps_up_with_what_is_forgotten(tmp_path: Path) -> None:
    server = one_server(tmp_path, "--experimental-watch-progress-notify-interval=100ms")
    store = store_of(server)
    start = store.list("/quiet/").revision
    watch = store.watch("/quiet/", start)
    made = store.create("/busy", {})

    def has_moved() -> bool:
        assert list(watch.wait(0.05)) == []
        return int(watch.position) >= int(made.revision)

    wait_until(has_moved)
    store.compact()
    # Where it began nothing is known any more; where it stands, all.
    with pytest.raises(Compacted):
        store.watch("/quiet/", start)
    store.create("/quiet/1", {})
    watch.close()
    again = store.watch("/quiet/", watch.position)
    assert [change.key for change in again.wait(30)] == ["/quiet/1"]
    again.close()
    store.close()
    server.kill()


def test_a_listing_goes_on_when_its_beginning_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podwire.drivers.store.etcd.store.PAGE", 2)
    server = one_server(tmp_path)
    store, other = store_of(server), store_of(server)
    for number in range(5):
        store.create(f"/a/{number}", {"n": number})
    call, left = store._client.call, 2

    def forgetful(method: Any, request: Any) -> Any:
        nonlocal left
        answer = call(method, request)
        if answer.more and left:
            left -= 1
            other.create(f"/b/{left}", {})
            other.compact()
        return answer

    monkeypatch.setattr(store._client, "call", forgetful)
    assert [entry.value["n"] for entry in store.list("/a/").entries] == [0, 1, 2, 3, 4]
    assert left == 0
    left = 50
    with pytest.raises(DatastoreUnavailable, match="faster than it can be read"):
        store.list("/a/")
    for each in (store, other):
        each.close()
    server.kill()


def test_a_value_that_is_too_large_says_what_to_do(tmp_path: Path) -> None:
    server = one_server(tmp_path)
    store = store_of(server)
    for size in (1_600_000, 3_000_000):
        with pytest.raises(Unsupported, match=f"/large has {size + 8} bytes") as caught:
            store.create("/large", {"x": "x" * size})
        assert "--max-request-bytes" in str(caught.value.fix), caught.value
    assert store.get("/large") is None
    assert len(store.list("/").entries) == 0
    store.close()
    server.kill()


PINGS = ("keepalive_time", "keepalive_timeout", "http2.ping_timeout")


@pytest.mark.long
def test_a_watch_that_was_quiet_notices_that_its_server_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dict.fromkeys((f"grpc.{name}_ms" for name in PINGS), 1_000)
    options = tuple((name, quick.get(name, value)) for name, value in client.OPTIONS)
    monkeypatch.setattr(client, "OPTIONS", options)
    server = one_server(tmp_path, "--grpc-keepalive-min-time=500ms")
    store = store_of(server)
    watch = store.watch("/a/", store.list("/a/").revision)
    # Longer than a few pings, with nothing else on the line.
    assert list(watch.wait(8)) == []
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(DatastoreUnavailable):
        watch.wait(20)
    store.close()
    server.kill()


def _keeps(store: EtcdStore, number: int) -> bool:
    try:
        store.keep("/status", {"n": number}, 60, {})
    except DatastoreUnavailable:
        return False
    return True


def _answers(store: EtcdStore) -> bool:
    try:
        store.get("/")
    except DatastoreUnavailable:
        return False
    return True


def test_a_revision_of_another_cluster_is_not_waited_for(three: list[EtcdServer]) -> None:
    store = store_of(*three)
    with pytest.raises(Compacted):
        store.watch("/a", "4711")
    writes = [Write(verb=Verb.CREATE, key=f"/{n}", value={}) for n in range(129)]
    with pytest.raises(Unsupported, match="at most 128"):
        store.batch(writes)
    store.close()


def test_a_full_disk_says_so_and_writes_nothing(tmp_path: Path) -> None:
    server = (
        EtcdServer(
            tmp_path / "e",
            client_url="http://127.0.0.1:2379",
            peer_url="http://127.0.0.1:2380",
            words=("--quota-backend-bytes=1000000", "--unsafe-no-fsync"),
        )
        .start()
        .wait_ready()
    )
    store = store_of(server)

    def fill() -> None:
        for number in range(1000):
            store.create(f"/{number}", {"x": "x" * 20_000})

    with pytest.raises(DatastoreUnavailable, match="space exceeded") as caught:
        fill()
    assert caught.value.fix is not None
    assert "alarm disarm" in caught.value.fix
    there = len(store.list("/").entries)
    with pytest.raises(DatastoreUnavailable):
        store.create("/more", {})
    with pytest.raises(DatastoreUnavailable, match="space exceeded"):
        store.check_writable()
    assert len(store.list("/").entries) == there
    store.close()
    server.kill()


def say_what_is_amiss(other: Path, full: EtcdConfig) -> None:
    """Each way in which the two sides do not trust each other has its words and its fix."""
    nobody = {"cert_file": None, "key_file": None}
    foreign = {"cert_file": f"{other}/client.pem", "key_file": f"{other}/client.key"}
    port = full.endpoints[0].rpartition(":")[2]
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"ca_file": f"{other}/ca.pem"}, f"nobody in caFile .* {other}/ca.pem", "caFile"),
        ({"ca_file": None}, "nobody in the system's authorities", "caFile"),
        (nobody, "wants to see a client certificate, and none was given", "ETCD_CERT_FILE"),
        (foreign, f"not accept the client certificate {other}/client.pem", "trusted-ca-file"),
        ({"endpoints": (f"https://localhost:{port}",)}, "not for localhost", "certificate has"),
        ({"endpoints": (f"http://127.0.0.1:{port}",)}, "closes each connection", "https://"),
    ]
    for change, words, fix in cases:
        store = EtcdStore(replace(full, **change))
        with pytest.raises(DatastoreUnavailable, match=words) as caught:
            store.get("/a")
        assert fix in str(caught.value.fix)
        store.close()


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_both_sides_show_certificates(tmp_path: Path, program: Path) -> None:
    if not program.exists():
        pytest.skip(f"no {program}: run scripts/setup test")
    keys = tmp_path / "keys"
    make_certificates(keys)
    make_certificates(tmp_path / "other")
    url, peer = "https://127.0.0.1:2379", "http://127.0.0.1:2380"
    full, words = client_config(keys, url), server_words(keys)
    server = EtcdServer(tmp_path / "e", program, client_url=url, peer_url=peer, words=words)
    server.start().wait_ready(full)
    store = EtcdStore(full)
    store.create("/a", {})
    say_what_is_amiss(tmp_path / "other", full)
    # Just being written anew: what was read before stays in use.
    for name in ("client.pem", "client.key", "ca.pem"):
        (keys / name).write_bytes(b"")
        assert store.get("/a") is not None
    # Renewed by another authority while we run: the next call shows the new ones.
    server.kill()
    make_certificates(keys)
    server.start().wait_ready(full)
    wait_until(lambda: _answers(store))
    assert store.get("/a") is not None
    store.close()
    server.kill()


def test_a_user_logs_in_and_again_when_the_server_has_forgotten(tmp_path: Path) -> None:
    server = (
        EtcdServer(
            tmp_path / "e", client_url="http://127.0.0.1:2379", peer_url="http://127.0.0.1:2380"
        )
        .start()
        .wait_ready()
    )

    def etcdctl(*words: str) -> None:
        command = [str(WHEEL / "etcdctl"), f"--endpoints={server.endpoint}", *words]
        subprocess.run(command, check=True, capture_output=True, input=b"secret\n")

    etcdctl("user", "add", "root:secret")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("auth", "enable")
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    config = EtcdConfig(endpoints=(server.endpoint,), username="root", password_file=str(password))
    store = EtcdStore(config)
    made = store.create("/a", {})
    watch = store.watch("/a", made.revision)
    changed = store.update("/a", {"n": 1}, made.revision)
    assert [change.entry for change in watch.wait(30)] == [changed]
    watch.close()
    server.kill()
    server.start().wait_ready(config)
    # Who was let in before this has to log in again. The file is as when it is just being written
    # anew: the old password stays in use.
    etcdctl("--user=root:secret", "user", "passwd", "root", "--interactive=false")
    password.write_bytes(b"")
    wait_until(lambda: _answers(store))
    assert store.get("/a") == changed
    nobody = store_of(server)
    with pytest.raises(DatastoreUnavailable, match="user name is empty"):
        nobody.get("/a")
    password.write_text("wrong")
    wrong = EtcdStore(config)
    with pytest.raises(DatastoreUnavailable, match="authentication failed") as caught:
        wrong.get("/a")
    assert "passwordFile" in str(caught.value.fix)
    said = EtcdStore(EtcdConfig(endpoints=(server.endpoint,), username="root", password="secret"))
    assert said.get("/a") == changed
    password.chmod(0o640)
    loose = EtcdStore(config)
    with pytest.raises(
        BadInput, match=r"password of etcd's user root: .* open to others \(mode 06"
    ):
        loose.get("/a")
    password.chmod(0o600)
    password.write_bytes(b"\xff")
    with pytest.raises(BadInput, match=r"/password is not UTF-8 text"):
        loose.get("/a")
    for each in (store, nobody, wrong, said, loose):
        each.close()
    server.kill()


@pytest.mark.parametrize("writes", [0, 9], ids=["behind", "overtaken"])
def test_what_a_restored_etcd_gave_out_before_is_refused(tmp_path: Path, writes: int) -> None:
    """Also when its revisions have come as far again, with the same cluster ID and term."""
    (server,) = cluster_of(tmp_path, 1)
    server.start().wait_ready()
    store, other = store_of(server), store_of(server)
    for number in range(20):
        store.create(f"/a/{number}", {})
    server.save(tmp_path / "snapshot")
    for number in range(5):
        store.create(f"/b/{number}", {})
    watch = store.watch("/b/", store.list("/b/").revision)
    server.restore(tmp_path / "snapshot")
    server.start().wait_ready()
    for number in range(writes):
        other.create(f"/b/other-{number}", {})
    with pytest.raises(DatastoreUnavailable):
        watch.wait(30)
    for _ in range(2):
        with pytest.raises(Restored, match="was restored from a backup"):
            store.watch("/b/", watch.position)
    listing = store.list("/b/")
    assert len(listing.entries) == writes
    again = store.watch("/b/", listing.revision)
    made = store.create("/b/new", {})
    (change,) = again.wait(30)
    assert change.entry == made
    again.close()
    store.watch("/b/", again.position).close()
    watch.close()
    for each in (store, other):
        each.close()
    server.kill()
