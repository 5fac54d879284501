# One test suite beside the others. Read by scripts/test after suites.sh.
# shellcheck disable=SC2034,SC2046,SC2154 # code, title: read by record, in suites.sh

beside=$(mktemp -d)
beside_session=

# start_beside COMMAND… : run one suite while others run; its output waits for collect_beside.
# In a session of its own, so that all of it can be ended, the kernel it boots included.
start_beside() {
    beside_began=$(date +%s)
    setsid "$@" >"$beside/output" 2>&1 &
    beside_session=$!
}

# collect_beside TITLE : wait for it, show what it printed, note how it ended.
collect_beside() {
    title=$1
    code=0
    wait "$beside_session" || code=$?
    beside_session=
    printf '\n=== %s\n' "$title"
    cat "$beside/output"
    record $(($(date +%s) - beside_began))
}

end_beside() {
    rm -rf "$beside"
    [ -z "$beside_session" ] || kill $(ps -o pid= --sid "$beside_session") 2>/dev/null || :
}
