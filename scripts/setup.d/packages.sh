# Debian packages: which are missing, and installing them.
# Read by scripts/setup.

wanted=

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

want_packages() { wanted="$wanted $*"; }

# want PROGRAM|/FILE PACKAGE : want the package of a program that is not in PATH, or of a file.
want() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *)  command -v "$1" >/dev/null 2>&1 ;;
    esac || want_packages "$2"
}

# as_root COMMAND… : run it as root, by sudo when we are not.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# logged COMMAND… : run it with its output in .cache/setup.log only.
logged() { mkdir -p .cache && "$@" >>.cache/setup.log 2>&1 </dev/null; }

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y "$@"; }

update_lists() {
    say "fetching Debian's package lists"
    logged apt_get update || say "apt-get update had errors (see .cache/setup.log)"
}

install_wanted() {
    [ -n "$wanted" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        fail "missing, and there is no apt-get here: install the likes of Debian's$wanted"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || fail "missing:$wanted; there is no sudo here, so as root:
    apt-get install --no-install-recommends$wanted"
        say "root is needed to install$wanted: asking sudo"
        sudo -v || fail "sudo was refused"
    fi
    say "installing$wanted (none of them starts a service)"
    # shellcheck disable=SC2086 # a list of words
    logged apt_get install --no-install-recommends $wanted && return 0
    # Package lists that are absent (a fresh container) or old (404) are the usual reason.
    update_lists
    # shellcheck disable=SC2086
    logged apt_get install --no-install-recommends $wanted && return 0
    tail -n 15 .cache/setup.log >&2
    fail "could not install$wanted (all of it: .cache/setup.log)"
}
