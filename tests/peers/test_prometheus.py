"""Prometheus' own tool takes what we ship."""

from __future__ import annotations

import pytest

from tests.fakes.prometheus import HERE, MISSING, RULES, promtool
from tests.unit.test_metrics import text_of

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not HERE, reason=MISSING)]


def test_the_alerts_are_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_every_metric_is_named_and_described_as_it_should_be() -> None:
    promtool("check", "metrics", text=text_of())
