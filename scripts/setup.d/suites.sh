# Running several test suites and summing them up. Read by scripts/test.
# shellcheck disable=SC2086,SC2154 # marks, effort: set there; effort is a list of words

results=
failed=
# The fault tests write their scores here (tests/conftest.py), as whoever they run.
PODWIRE_TEST_SCORES=$(mktemp)
chmod 666 "$PODWIRE_TEST_SCORES"
export PODWIRE_TEST_SCORES
trap 'end_beside; rm -f "$PODWIRE_TEST_SCORES"' EXIT
trap 'exit 130' INT TERM
NOTHING_CHOSEN=5 # pytest's exit code when -k leaves no test

# suite TITLE COMMAND… : run it, remember how it ended and how long it took.
suite() {
    title=$1
    shift
    printf '\n=== %s\n' "$title"
    began=$(date +%s)
    code=0
    "$@" || code=$?
    record $(($(date +%s) - began))
}

# record SECONDS : note how the suite $title ended, with $code.
record() {
    case $code in
    0) verdict=passed ;;
    "$NOTHING_CHOSEN") verdict='nothing chosen' ;;
    *) verdict="FAILED ($code)" failed=yes ;;
    esac
    results="$results$(printf '  %-28s %-14s %4s s' "$title" "$verdict" "$1")
"
}

# tests ARGUMENT… : pytest with the marks and the effort this run wants.
tests() { .venv/bin/python -m pytest -m "$marks" $effort "$@"; }

nobody='setpriv --reuid=65534 --regid=65534 --clear-groups'

# A normal user can be tried when we are root and that user may read this folder.
can_be_nobody() { [ "$(id -u)" = 0 ] && $nobody test -r .venv/bin/podwire 2>/dev/null; }

# tests_as_nobody ARGUMENT… : the same as a normal user, who writes nothing into the checkout.
# Its temporary folder has a short name: an agent's socket below it has to fit into 90 bytes.
tests_as_nobody() {
    home=$(mktemp -d)
    chown 65534:65534 "$home"
    HOME=$home TMPDIR=$home HYPOTHESIS_STORAGE_DIRECTORY=$home PYTHONDONTWRITEBYTECODE=1 \
        $nobody .venv/bin/python -m pytest -p no:cacheprovider --basetemp="$home/t" \
        -m "${marks:+$marks and }not any_user" $effort "$@" || code=$?
    rm -rf "$home"
    return "${code:-0}"
}

summary() {
    [ ! -s "$PODWIRE_TEST_SCORES" ] || { printf '\n=== scores\n' && cat "$PODWIRE_TEST_SCORES"; }
    printf '\n=== summary\n%s' "$results"
    [ -z "$failed" ] || { echo 'test: failed'; exit 1; }
    echo 'test: everything passed'
}
