"""Put the plugin program `podwire-cni` into a directory, for example /opt/cni/bin.

A C compiler makes the quickest program (2 ms a run); without one the same program in Python is
installed as a script (13 ms). `python -m podwire.cni.install DIRECTORY` does it by hand.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = "podwire-cni"
SOURCE = Path(__file__).with_name("shim.c")
SCRIPT = Path(__file__).with_name("shim.py")


def install_plugin(directory: Path, name: str = PROGRAM) -> Path:
    """Install the plugin and say where it is; a program that is there already is replaced.

    The new program takes the old one's place by rename: a runtime that calls it at that moment
    runs the old or the new one, never half of one.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = directory / name
    with tempfile.TemporaryDirectory(prefix=f".{PROGRAM}.", dir=directory) as work:
        program = Path(work) / PROGRAM
        if not compile_program(program):
            write_script(program)
        program.chmod(0o755)
        program.replace(target)
    return target


def compile_program(program: Path) -> bool:
    """Compile the C program; False where there is no working C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return False
    # A static program starts quicker and does not care about the host's libraries, but a machine
    # may have the compiler without the static C library.
    return any(
        subprocess.run(
            [compiler, "-O2", *extra, "-o", str(program), str(SOURCE)],
            check=False,
            capture_output=True,
            timeout=60,
        ).returncode
        == 0
        for extra in (["-static"], [])
    )


def write_script(program: Path) -> None:
    """Write the Python program with an absolute interpreter: runtimes pass any environment."""
    text = SCRIPT.read_text()
    program.write_text(f"#!{_interpreter()} -ISE\n{text}")


def _interpreter() -> Path:
    """The base interpreter, not the one of a virtual environment that may be removed."""
    candidates = [Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"]
    candidates += [Path(sys.base_prefix) / "bin" / "python3", Path(sys.executable)]
    for path in candidates:
        # Linux cuts a script's first line at 255 bytes.
        if path.is_file() and os.access(path, os.X_OK) and len(str(path)) < 200:
            return path.absolute()
    return Path(sys.executable).absolute()


def is_installed(directory: Path) -> bool:
    """Whether the program is there and may be run."""
    try:
        mode = (directory / PROGRAM).stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m podwire.cni.install DIRECTORY")
    sys.stdout.write(f"{install_plugin(Path(sys.argv[1]))}\n")
