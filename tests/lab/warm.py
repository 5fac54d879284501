"""Podwire's command line from a process that has imported it: forked, not started anew.

In user-mode Linux a program of Python takes seconds to start and a fork a tenth of one. Beyond the
start it is the same: main() with the words, the streams and the exit code of a process of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from podwire.cli import lab_agent, lab_exec, lab_pods, lab_status, lab_trace, lab_up, trace_live
from podwire.cli.main import main
from podwire.lab.entry import enter_place, run_inside
from podwire.lab.registry import get_keeper
from podwire.lab.state import NodePaths
from tests.lab import pinger
from tests.lab.conftest import FIRST_NODE, Lab, require_worlds

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

IMPORTED = (lab_agent, lab_exec, lab_pods, lab_status, lab_trace, lab_up, trace_live)
_numbers = itertools.count()


class WarmLab(Lab):
    """A lab that is driven by forks of this process."""

    def try_run(
        self, *words: str, stdin: str = "", timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        def work() -> None:
            sys.argv = ["podwire", "lab", words[0], "--name", self.name, *words[1:]]
            main()

        return run_forked(work, stdin)

    def ping(self, sources: dict[str, str], targets: dict[str, str]) -> dict[str, dict[str, int]]:
        asked = json.dumps({"sources": sources, "targets": targets})

        def inside() -> int:
            enter_place(NodePaths(FIRST_NODE).netns, FIRST_NODE, keep_names=True)
            pinger.main()
            return 0

        done = run_forked(lambda: sys.exit(run_inside(get_keeper(self.name), inside)), asked)
        assert done.returncode == 0, done.stderr
        found: dict[str, dict[str, int]] = json.loads(done.stdout)
        return found


def make_warm_lab(*options: str) -> Lab:
    """A running lab; the caller ends it."""
    require_worlds()
    lab = WarmLab(f"w{os.getpid()}-{next(_numbers)}")
    lab.run("up", *options)
    return lab


def run_forked(work: Callable[[], object], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Do something in a fork as a program of its own would. Its output goes through files: a pipe
    could fill up, and the first process of a lab lives on with what it was given."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _become(work, given, out, err)
        code = os.waitstatus_to_exitcode(_wait(child))
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([], code, out.read(), err.read())


def _wait(child: int) -> int:
    try:
        return os.waitpid(child, 0)[1]
    except BaseException:  # the test's time limit is raised here
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _become(work: Callable[[], object], *streams: TextIO) -> NoReturn:
    """Be a program: its own streams, no alarm of the test's, no tidying up of pytest's."""
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
        )
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
