"""Every fault in every network in which it can be: named, the same offline, mended by its fix.

One process makes each network's lab and goes through all that is to be tried there, all networks
at the same time: a trace of a broken network mostly waits. The tests look at what it answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import fault_matrix
from tests.lab.conftest import require_worlds
from tests.lab.fault_answers import sessions
from tests.lab.fault_matrix import BY_NAME, LOOK_ALIKES, NETWORKS, TWO_AT_ONCE, VXLAN
from tests.lab.fault_verdicts import check_both, check_mended, check_named, check_offline, score

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.fault_answers import Ask

PATIENCE_S = 110.0
"""A little less than a test may take."""


@pytest.fixture(scope="module")
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    require_worlds()
    with sessions(request, tmp_path_factory.mktemp("faults"), PATIENCE_S) as answers:
        yield answers


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


@every_cell
def test_a_fault_is_named(ask: Ask, title: str, wish: str, request: pytest.FixtureRequest) -> None:
    network, said = ask(title, wish)
    request.node.user_properties.append(("fault score", (title, score(network, wish, said), wish)))
    check_named(network, wish, said)


@every_cell
def test_a_bundle_says_the_same(ask: Ask, title: str, wish: str) -> None:
    _, said = ask(title, wish)
    check_offline(said)


@every_cell
def test_the_printed_fix_makes_it_green(ask: Ask, title: str, wish: str) -> None:
    network, said = ask(title, wish)
    check_mended(network, wish, said)


@pytest.mark.parametrize("title", [VXLAN.name])
@pytest.mark.parametrize("wish", ["+".join(pair) for pair in TWO_AT_ONCE])
def test_the_counter_proof_shows_the_second_fault(ask: Ask, title: str, wish: str) -> None:
    network, said = ask(title, wish)
    check_both(network, wish, said)
    check_offline(said)


@pytest.mark.parametrize("names", LOOK_ALIKES, ids=" ".join)
def test_look_alikes_have_names_of_their_own(names: tuple[str, ...]) -> None:
    """That they are named so is what the tests above are about."""
    assert len({(BY_NAME[name].id, BY_NAME[name].number) for name in names}) == len(names)
