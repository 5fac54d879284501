"""A real Prometheus of Debian's, unpacked into the checkout."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.http_client import get

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".cache/debs/prometheus/usr/bin"
HERE = (PROGRAMS / "promtool").exists()
MISSING = "needs the program prometheus (scripts/setup test brings it)"
RULES = ROOT / "contrib/prometheus/podwire.rules.yaml"
PLACE = ("127.0.0.1", 9090)


def promtool(*words: str, text: str = "") -> None:
    """Run it; fails with what it says."""
    command = [str(PROGRAMS / "promtool"), *words]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@dataclass
class Prometheus:
    """One that scrapes each second, started by `command` in front of its own."""

    folder: Path
    targets: Sequence[str]

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "podwire", "static_configs": [{"targets": list(self.targets)}]}
            ],
        }
        self.folder.mkdir()
        (self.folder / "prometheus.yml").write_text(json.dumps(config))
        words = [
            str(PROGRAMS / "prometheus"),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={PLACE[0]}:{PLACE[1]}",
        ]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*command, *words], stdout=log, stderr=log)


def ask(path: str, **fields: str) -> Any:
    """One question to the API, from the namespace the caller is in; None while it is not up."""
    try:
        got = get(PLACE, f"/api/v1/{path}?{urllib.parse.urlencode(fields)}")
    except OSError:
        return None
    answer = json.loads(got.text) if got.type.startswith("application/json") else {}
    return answer.get("data") if answer.get("status") == "success" else answer.get("error")
