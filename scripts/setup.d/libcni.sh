# The test program that drives the plugin through libcni (tests/peers/libcni), built once for each
# of two versions: Debian's, which its containerd and Podman are made of, from Debian's source and
# without a network; and a newer one, which knows STATUS and GC, from Go's module proxy, pinned in
# go.sum. What cannot be had is a reason to skip, kept in .cache/libcni/NAME.missing.
# Read by scripts/setup.
# shellcheck disable=SC2154 # root: set there

libcni=.cache/libcni
libcni_source=tests/peers/libcni

# find_go : set $go to a Go compiler, that of PATH or else of an unpacked package; empty when there
# is none to be had.
find_go() {
    go=$(command -v go) && return 0
    number=$(apt-cache depends golang-go 2>/dev/null |
        sed -n 's/.*Depends: golang-\([0-9.]*\)-go$/\1/p')
    [ -n "$number" ] || return 0
    unpack "golang-$number-go" "usr/lib/go-$number/bin/go" "golang-$number-src"
    go=$root/.cache/debs/golang-$number-go/usr/lib/go-$number/bin/go
    [ -x "$go" ] || go=
}

# build_libcni NAME TAGS VARIABLE… : build it as .cache/libcni/NAME.
build_libcni() {
    name=$1 tags=$2
    shift 2
    [ -n "$go" ] || { echo "there is no Go compiler (golang-go)" >"$libcni/$name.missing"; return; }
    say "building the libcni of tests ($name)"
    logged env -C $libcni_source CGO_ENABLED=0 GOTOOLCHAIN=local GOCACHE="$root/.cache/go/build" \
        GOMODCACHE="$root/.cache/go/mod" GOFLAGS="-buildvcs=false -modcacherw" "$@" \
        timeout 300 "$go" build -tags "$tags" -o "$root/$libcni/$name" . && return
    echo "it could not be built (.cache/setup.log); the newer one needs Go 1.21 and its module proxy" \
        >"$libcni/$name.missing"
    say "it cannot be built here: going on, what needs it is skipped and says so"
}

make_libcni() {
    sources=$(cat $libcni_source/* | cksum)
    [ "$(cat $libcni/sources 2>/dev/null)" = "$sources" ] && return
    rm -rf $libcni
    mkdir -p $libcni
    find_go
    unpack golang-github-appc-cni-dev usr/share/gocode/src/github.com/containernetworking/cni/go.mod
    build_libcni older older GO111MODULE=off \
        GOPATH="$root/.cache/debs/golang-github-appc-cni-dev/usr/share/gocode"
    build_libcni newer newer GO111MODULE=on
    echo "$sources" >$libcni/sources
}
