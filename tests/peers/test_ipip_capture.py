"""Taps on tunl0, on the kernel that has it."""

from __future__ import annotations

import os
import sys

import pytest

from tests.peers.test_ipip_kernel import under_ipip_kernel

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]


@pytest.mark.skipif("PODWIRE_KERNEL" in os.environ, reason="this is that kernel already")
def test_taps_see_packets_in_ipip() -> None:
    words = "-m pytest -p no:cacheprovider -o timeout=400 -v tests/kernel/test_capture_ipip.py"
    shown = under_ipip_kernel(sys.executable, *words.split(), seconds=420)
    assert "4 passed" in shown
