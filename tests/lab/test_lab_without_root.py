"""A lab made by whoever runs the tests; the test runner also runs this file as an ordinary user."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.conftest import make_lab, pods_manifest


def test_a_lab_without_root() -> None:
    lab = make_lab("--nodes", "2")
    try:
        lab.apply(pods_manifest(["vms100", "vms101"], 2))
        assert lab.ping_all() == []
        pid = lab.node("vms100")["agent"]["pid"]
        assert Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    finally:
        lab.run("down")
