"""Managers of a host's network are named by the files they leave, each with advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.cli.host_neighbours import SIGNS, Sign, advice

if TYPE_CHECKING:
    from pathlib import Path


def said(etc: Path) -> list[str]:
    """The advice that files give; rules of the machine the test runs on are left aside."""
    return [each for each in advice(etc) if not each.startswith("forwarding what pods")]


def test_a_bare_host_needs_no_advice(tmp_path: Path) -> None:
    assert said(tmp_path) == []


@pytest.mark.parametrize("sign", SIGNS, ids=[sign.path for sign in SIGNS])
def test_each_manager_is_named_until_it_is_settled(tmp_path: Path, sign: Sign) -> None:
    path = tmp_path / sign.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sign.says)
    assert said(tmp_path) == [sign.advice]
    if sign.says:
        path.write_text("nothing of it")
        assert said(tmp_path) == []
    if sign.settled:
        path.write_text(f"{sign.settled}* tunl0")
        assert said(tmp_path) == []
