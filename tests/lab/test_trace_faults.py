"""Every fault in every network in which it can be: named, the same offline, mended by its fix.

One process makes each network's lab and goes through all that is to be tried there, all networks
at the same time: a trace of a broken network mostly waits. The tests look at what it answered.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import fault_matrix
from tests.lab.conftest import require_worlds, wait_until
from tests.lab.fault_matrix import BY_NAME, BY_TITLE, LOOK_ALIKES, NETWORKS, TWO_AT_ONCE, VXLAN
from tests.lab.fault_verdicts import check_both, check_mended, check_named, check_offline, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.fault_matrix import Network

    Ask = Callable[[str, str], dict[str, Any]]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 110.0
"""A little less than a test may take."""


class Session:
    """One lab's process, and its answers as they come."""

    def __init__(self, title: str, requests: list[str], folder: Path) -> None:
        self.title = title
        self._answers, self._errors = folder / f"{title}.answers", folder / f"{title}.errors"
        self._known: dict[str, dict[str, Any]] = {}
        with self._answers.open("w") as answers, self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.fault_session", title, *requests],
                stdin=subprocess.DEVNULL,
                stdout=answers,
                stderr=errors,
                cwd=ROOT,
            )

    def answer(self, request: str) -> dict[str, Any]:
        wait_until(lambda: self._has(request), f"{self.title}: {request}", PATIENCE_S)
        return self._known[request]

    def _has(self, request: str) -> bool:
        if request in self._known:
            return True
        ended = self._process.poll() is not None
        # An answer is there when its line has ended.
        lines = self._answers.read_text().split("\n")[:-1]
        self._known |= {said["request"]: said for said in map(json.loads, lines)}
        assert request in self._known or not ended, self._errors.read_text()
        return request in self._known

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What a network's session answers to a request; asks only for what is tested here and now."""
    require_worlds()
    folder = tmp_path_factory.mktemp("faults")
    wanted: dict[str, dict[str, None]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            if "title" in params:
                wanted.setdefault(str(params["title"]), {})[str(params["wish"])] = None
    sessions = {title: Session(title, list(wishes), folder) for title, wishes in wanted.items()}
    yield lambda title, wish: sessions[title].answer(wish)
    for session in sessions.values():
        session.end()


def cells() -> Iterator[Any]:
    """Every fault twice, once of it as a normal user, too; with --long everywhere."""
    once, twice = (fault_matrix.covering(NETWORKS, times) for times in (1, 2))
    for network in NETWORKS:
        for wish in fault_matrix.cells(network):
            cell = (network.name, wish)
            marks = [pytest.mark.without_root] if cell in once else []
            marks += [] if cell in twice else [pytest.mark.long]
            yield pytest.param(network.name, wish, marks=marks, id=f"{network.name}-{wish}")


CELLS = list(cells())
every_cell = pytest.mark.parametrize(("title", "wish"), CELLS)


def asked(ask: Ask, title: str, wish: str) -> tuple[Network, dict[str, Any]]:
    said = ask(title, wish)
    if said["refused"] is not None and "is not installed" in said["refused"]:
        pytest.skip(said["refused"])
    assert said["refused"] is None
    return BY_TITLE[title], said


@every_cell
def test_a_fault_is_named(ask: Ask, title: str, wish: str, request: pytest.FixtureRequest) -> None:
    network, said = asked(ask, title, wish)
    request.node.user_properties.append(("fault score", (title, score(network, wish, said), wish)))
    check_named(network, wish, said)


@every_cell
def test_a_bundle_says_the_same(ask: Ask, title: str, wish: str) -> None:
    _, said = asked(ask, title, wish)
    check_offline(said)


@every_cell
def test_the_printed_fix_makes_it_green(ask: Ask, title: str, wish: str) -> None:
    network, said = asked(ask, title, wish)
    check_mended(network, wish, said)


@pytest.mark.parametrize("title", [VXLAN.name])
@pytest.mark.parametrize("wish", ["+".join(pair) for pair in TWO_AT_ONCE])
def test_the_counter_proof_shows_the_second_fault(ask: Ask, title: str, wish: str) -> None:
    network, said = asked(ask, title, wish)
    check_both(network, wish, said)
    check_offline(said)


@pytest.mark.parametrize("names", LOOK_ALIKES, ids=" ".join)
def test_look_alikes_have_names_of_their_own(names: tuple[str, ...]) -> None:
    """That they are named so is what the tests above are about."""
    assert len({(BY_NAME[name].id, BY_NAME[name].number) for name in names}) == len(names)
