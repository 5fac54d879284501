"""Faults in networks with IPIP; runs where the kernel has it (scripts/with-ipip-kernel).

That kernel has no nftables but for bridges, and every command takes long: some faults are tried
there always, the others with --long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.conftest import require_ipip
from tests.lab.fault_answers import sessions
from tests.lab.fault_matrix import IPIP, IPIP_NETWORKS, NEED_RULES, QUICK, cells
from tests.lab.fault_verdicts import check_mended, check_named, check_offline, score

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.fault_answers import Ask

PATIENCE_S = 400.0


@pytest.fixture(scope="module")
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    require_ipip()
    with sessions(request, tmp_path_factory.mktemp("faults"), PATIENCE_S) as answers:
        yield answers


def chosen() -> Iterator[Any]:
    for network in IPIP_NETWORKS:
        for wish in cells(network):
            if wish in NEED_RULES:
                continue
            marks = [] if network is IPIP and wish in QUICK else [pytest.mark.long]
            yield pytest.param(network.name, wish, marks=marks, id=f"{network.name}-{wish}")


@pytest.mark.parametrize(("title", "wish"), list(chosen()))
def test_a_fault_is_named_and_mended(
    ask: Ask, title: str, wish: str, request: pytest.FixtureRequest
) -> None:
    network, said = ask(title, wish)
    request.node.user_properties.append(("fault score", (title, score(network, wish, said), wish)))
    check_named(network, wish, said)
    check_offline(said)
    check_mended(network, wish, said)
