"""Health: what the pages say, and an endpoint that nobody slow or ill-meaning holds up."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.agent import healthserver
from podwire.agent.health import Check, Readiness, liveness, page
from podwire.agent.healthserver import Conversation, HealthServer, Page, Query, Reply
from podwire.agent.hold import Hold
from podwire.agent.pace import LONGEST_TURN_S, Pace
from podwire.agent.server import CNIServer
from podwire.errors import PodwireError
from podwire.model.cni import GREETING
from podwire.model.config import HealthAddress
from tests.fakes.awaiting import wait_until
from tests.fakes.http_client import get
from tests.fakes.ipam_world import HandClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.agent.attachments import Attachments
    from podwire.agent.loop import Loop


# --- pages ----------------------------------------------------------------------------------------


def test_a_page_that_is_right_is_one_word_unless_asked() -> None:
    checks = (Check(name="loop"), Check(name="node"))
    assert page("readyz", checks, verbose=False) == (200, "ok")
    assert page("readyz", checks, verbose=True) == (
        200,
        "[+]loop ok\n[+]node ok\nreadyz check passed\n",
    )


@pytest.mark.parametrize("verbose", [True, False])
def test_a_failure_always_tells_its_reason(verbose: bool) -> None:
    checks = (Check(name="loop"), Check(name="node", reasons=("one", "two")))
    assert page("readyz", checks, verbose=verbose) == (
        503,
        "[+]loop ok\n[-]node failed: one; two\nreadyz check failed\n",
    )


def test_a_loop_that_waits_is_alive_and_one_that_is_stuck_is_not() -> None:
    clock = HandClock()
    pace = Pace(clock)
    pace.rest(3600)
    clock.sleep(3600 + LONGEST_TURN_S - 1)
    assert pace.why_stuck() == ()
    pace.begin()
    clock.sleep(LONGEST_TURN_S - 1)
    assert pace.why_stuck() == ()
    clock.sleep(30)
    assert pace.why_stuck() == ("the loop has not turned for 119 s",)
    pace.end(changed=False, busy=False)
    pace.rest(1)
    assert pace.why_stuck() == ()


def test_a_repair_lasts_from_the_first_turn_with_work_to_the_last() -> None:
    clock = HandClock()
    pace = Pace(clock)
    for changed, busy in ((False, False), (False, True), (True, True), (True, False)):
        pace.begin()
        clock.sleep(1)
        pace.end(changed=changed, busy=busy)
    assert pace.turns.read().buckets[-1] == ("+Inf", 4)
    assert pace.repairs.read().buckets[-1] == ("+Inf", 1)
    assert round(pace.repairs.read().sum_s) == 3


class LoopDouble:
    """The loop as far as readiness looks at it."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.reasons: tuple[str, ...] = ()
        self.frozen = False

    @property
    def status(self) -> LoopDouble:
        return self

    picture = mirror = cluster = status

    @property
    def ready(self) -> bool:
        return not self.frozen


class AttachmentsDouble:
    """What STATUS said last."""

    def __init__(self) -> None:
        self.found: tuple[str, ...] = ()

    def why_refused(self) -> tuple[str, ...]:
        return self.found


def test_whatever_stops_an_add_is_a_reason() -> None:
    clock = HandClock()
    loop, hold, attachments = LoopDouble(Pace(clock)), Hold(clock), AttachmentsDouble()
    readiness = Readiness(cast("Loop", loop), hold, cast("Attachments", attachments))
    assert readiness.reasons() == ()
    loop.reasons = ("one", "two")
    loop.frozen = True
    attachments.found = ("pool default is full",)
    hold.start()
    clock.sleep(1000)
    told = readiness.reasons()
    assert told[1:3] == ("one", "two")
    for word, reason in zip(
        ("not turned", "held", "datastoreReady", "full"), (told[0], *told[3:]), strict=True
    ):
        assert word in reason
    status, text = page("readyz", readiness.checks(), verbose=False)
    assert status == 503
    assert all(reason in text for reason in told)


def test_an_agent_that_does_not_greet_is_not_alive(tmp_path: Path) -> None:
    clock = HandClock()
    pace, path = Pace(clock), tmp_path / "agent.sock"
    (_, silent) = liveness(pace, str(path))
    assert silent.name == "cni-socket"
    assert "No such file" in silent.reasons[0]

    server = CNIServer(path, NoCalls(), dict)
    server.start()
    try:
        assert page("livez", liveness(pace, str(path)), verbose=False) == (200, "ok")
        clock.sleep(LONGEST_TURN_S + 10)
        status, text = page("livez", liveness(pace, str(path)), verbose=False)
        assert (status, text.splitlines()[0]) == (
            503,
            "[-]loop failed: the loop has not turned for 100 s",
        )
    finally:
        server.stop()


class NoCalls:
    """Nobody calls here."""

    def serve(self, *_: object, **__: object) -> None:
        raise AssertionError


def test_something_else_at_the_socket_is_found_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()

        def answer() -> None:
            caller, _ = listener.accept()
            caller.sendall(b"x" * len(GREETING))
            caller.close()

        threading.Thread(target=answer).start()
        checks = liveness(Pace(HandClock()), str(tmp_path / "agent.sock"))
    assert "is not served by this agent" in checks[1].reasons[0]


# --- the endpoint ---------------------------------------------------------------------------------


class Endpoint:
    """A real one, with a page that answers and one that hangs until `let_go`."""

    def __init__(self, address: HealthAddress) -> None:
        self.let_go = threading.Event()
        self.stuck = threading.Event()

        def hang(_: Query) -> Reply:
            self.stuck.set()
            assert self.let_go.wait(60)
            return Reply(status=200, body=b"late")

        def fail(_: Query) -> Reply:
            raise LookupError("nobody expected this")

        def answer(query: Query) -> Reply:
            return Reply(status=200, body=f"{query.verbose} {query.accept}".encode())

        pages = {
            "/livez": Page(about="is it alive", answer=answer),
            "/hang": Page(about="hangs", answer=hang),
            "/broken": Page(about="fails", answer=fail),
        }
        self.server = HealthServer(address, pages)
        self.server.start()

    def close(self) -> None:
        self.let_go.set()
        self.server.stop()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "health.sock")


@pytest.fixture
def endpoint(path: str) -> Iterator[Endpoint]:
    made = Endpoint(HealthAddress(path=path))
    wait_until(lambda: served(path))
    yield made
    made.close()


def served(address: str | tuple[str, int]) -> bool:
    try:
        return get(address, "/").status == 200
    except OSError:
        return False


def silent_caller(path: str) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(60)
    caller.connect(path)
    return caller


@pytest.mark.usefixtures("endpoint")
def test_pages_are_found_and_all_else_is_not(path: str) -> None:
    assert get(path, "/").text == "/livez is it alive\n/hang hangs\n/broken fails\n"
    assert get(path, "/livez?verbose", accept="text/x").text == "True text/x"
    assert get(path, "/livez?verbose=0&x").text == "True "
    assert get(path, "/livez").text == "False "
    assert (get(path, "/livez", "HEAD").status, get(path, "/livez", "HEAD").text) == (200, "")
    assert get(path, "/nothing").status == 404
    assert get(path, "/livez", "POST").status == 501


@pytest.mark.usefixtures("endpoint")
def test_a_page_that_fails_says_so_and_no_more(path: str) -> None:
    got = get(path, "/broken")
    assert (got.status, got.text) == (500, "the agent met an unexpected error: see its log\n")
    assert get(path, "/livez").status == 200


@pytest.mark.usefixtures("endpoint")
def test_who_says_nothing_gives_way_to_who_asks(path: str) -> None:
    silent = [silent_caller(path) for _ in range(3 * healthserver.CALLERS)]
    assert get(path, "/livez").status == 200
    # The first of them were sent away: they read the end of the stream.
    assert silent[0].recv(1) == b""
    for caller in silent:
        caller.close()


@pytest.mark.usefixtures("endpoint")
def test_who_is_slow_is_sent_away(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthserver, "TIME_S", 0.05)
    slow = silent_caller(path)
    slow.sendall(b"GET /livez HT")
    # The half request is answered as what it is, or not at all; then the stream ends.
    while slow.recv(4096):
        pass
    slow.close()


@pytest.mark.usefixtures("endpoint")
def test_a_request_without_end_is_refused(path: str) -> None:
    caller = silent_caller(path)
    with suppress(OSError):  # it hangs up in the middle
        caller.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * (1 << 20))
    caller.close()
    assert get(path, "/livez").status == 200


def request(target: str, accept: str) -> bytes:
    return f"GET /{target} HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode()


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\v\f"), max_size=40)


@given(st.binary(max_size=200) | st.builds(request, WORDS, WORDS))
def test_no_request_upsets_the_server(asked: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(asked)
        here.shutdown(socket.SHUT_WR)
        Conversation(
            there, {"/livez": Page(about="x", answer=lambda _: Reply(status=200, body=b"yes"))}
        )


def test_a_page_that_hangs_holds_up_no_other(path: str, endpoint: Endpoint) -> None:
    waiting = silent_caller(path)
    waiting.sendall(b"GET /hang HTTP/1.0\r\n\r\n")
    assert endpoint.stuck.wait(60)
    assert get(path, "/livez").status == 200
    endpoint.let_go.set()
    assert waiting.recv(4096).startswith(b"HTTP/1.0 200")
    waiting.close()


def test_threads_do_not_pile_up_behind_a_page_that_hangs(path: str, endpoint: Endpoint) -> None:
    before = threading.active_count()
    callers = [silent_caller(path) for _ in range(3 * healthserver.THREADS)]
    for caller in callers:
        with suppress(OSError):  # turned away
            caller.sendall(b"GET /hang HTTP/1.0\r\n\r\n")
    assert endpoint.stuck.wait(60)
    assert threading.active_count() <= before + healthserver.THREADS
    endpoint.let_go.set()
    for caller in callers:
        caller.close()
    wait_until(lambda: served(path))


def test_a_socket_that_a_dead_agent_left_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    endpoint = Endpoint(HealthAddress(path=path))
    wait_until(lambda: served(path))
    endpoint.close()
    with pytest.raises(FileNotFoundError):
        get(path, "/")


def problem_of(address: HealthAddress) -> str:
    endpoint = Endpoint(address)
    try:
        wait_until(lambda: endpoint.server.problem is not None)
        return str(endpoint.server.problem)
    finally:
        endpoint.close()


@pytest.mark.usefixtures("endpoint")
def test_a_place_that_cannot_be_had_is_named(path: str, tmp_path: Path) -> None:
    assert "another agent serves" in problem_of(HealthAddress(path=path))
    assert served(path)
    precious = tmp_path / "precious"
    precious.write_text("kept")
    told = problem_of(HealthAddress(path=str(precious)))
    assert f"healthAddress {precious} is there and is no socket" in told
    assert precious.read_text() == "kept"
    assert "File exists" in problem_of(HealthAddress(path=f"{precious}/x.sock"))
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        told = problem_of(HealthAddress(host="127.0.0.1", port=port))
    assert f"healthAddress 127.0.0.1:{port}: Address already in use" in told
    assert "no name of a host" in problem_of(HealthAddress(host="a..b", port=1))
    assert "healthAddress 192.0.2.1:1" in problem_of(HealthAddress(host="192.0.2.1", port=1))


def test_a_port_is_had_as_soon_as_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthserver, "RETRY_S", 0.01)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as busy:
        port = busy.getsockname()[1]
        endpoint = Endpoint(HealthAddress(host="::1", port=port))
        wait_until(lambda: endpoint.server.problem is not None)
    try:
        wait_until(lambda: served(("::1", port)))
        assert endpoint.server.problem is None
    finally:
        endpoint.close()


def test_a_port_without_a_host_is_every_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    endpoint = Endpoint(HealthAddress(port=port))
    try:
        for host in ("127.0.0.1", "::1"):
            wait_until(lambda: served((host, port)))  # noqa: B023
    finally:
        endpoint.close()


def test_stopping_waits_for_no_problem() -> None:
    endpoint = Endpoint(HealthAddress(host="192.0.2.1", port=1))
    wait_until(lambda: endpoint.server.problem is not None)
    endpoint.close()
    assert isinstance(endpoint.server.problem, PodwireError)
