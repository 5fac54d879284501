# The Python environment .venv, and the plugin program in it. Read by scripts/setup.
# shellcheck disable=SC2154 # root: set there

python=

# find_python : set $python to a Python >= 3.11 that can make environments; fails when there is none.
# Debian's own comes first: wrappers in PATH (pyenv) cost 100 ms at every start.
find_python() {
    for candidate in /usr/bin/python3 python3; do
        "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null && python=$candidate && return 0
    done
    return 1
}

# stamp LOCK : what .venv must have been made from; another checkout folder, another lock or
# another Python (after an upgrade of the system) mean that it is made anew.
stamp() { printf '%s\n' "$root $(readlink -f .venv/bin/python) $(cksum <"$1")"; }

environment_is_current() {
    [ -x .venv/bin/python ] && [ "$(cat ".venv/$1.stamp" 2>/dev/null)" = "$(stamp "$1")" ]
}

make_environment() {
    [ -n "$python" ] || find_python || fail "Python 3.11 or newer with its venv module is needed"
    say "installing $1 into .venv"
    if [ "$(readlink -f .venv/bin/python)" = "$(readlink -f "$(command -v "$python")")" ]; then
        logged "$python" -m venv .venv # keeps what is installed; sees to pip
    else
        logged "$python" -m venv --clear .venv
    fi
    rm -f .venv/*.stamp
    # pip, and not uv, because it obeys the machine's own pip.conf (mirrors, certificates).
    logged .venv/bin/python -m pip --disable-pip-version-check install --no-deps \
        --require-hashes -r "$1" || {
        tail -n 15 .cache/setup.log >&2
        fail "could not install $1 (all of it: .cache/setup.log)"
    }
    # A path file instead of an editable install: nothing is built, so nothing has to be fetched.
    for site in .venv/lib/python3*/site-packages; do
        printf '%s\n' "$root/src" >"$site/podwire.pth"
    done
    printf '#!/bin/sh\nexec "%s" -m podwire "$@"\n' "$root/.venv/bin/python" >.venv/bin/podwire
    chmod +x .venv/bin/podwire
    # The runtime set is part of every other one.
    stamp requirements.lock >.venv/requirements.lock.stamp
    stamp "$1" >".venv/$1.stamp"
}

# Byte code saves 0.2 s at every start where PYTHONDONTWRITEBYTECODE is set.
compile_sources() {
    [ -e .venv/sources.stamp ] &&
        [ -z "$(find src -name '*.py' -newer .venv/sources.stamp -print | head -n 1)" ] && return 0
    .venv/bin/python -m compileall -q src >&2 && : >.venv/sources.stamp
}

# podwire-cni is compiled where there is a C compiler, else it is a Python script.
make_plugin() {
    kind=script
    command -v cc >/dev/null 2>&1 && kind=compiled
    [ "$(cat .venv/plugin.stamp 2>/dev/null)" = "$kind" ] && [ -e .venv/bin/podwire-cni ] &&
        [ -z "$(find src/podwire/cni -newer .venv/plugin.stamp -name 'shim.*' -print)" ] &&
        return 0
    .venv/bin/python -m podwire.cni.install .venv/bin >/dev/null ||
        fail "could not make .venv/bin/podwire-cni"
    echo "$kind" >.venv/plugin.stamp
}
