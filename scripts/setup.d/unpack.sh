# Debian packages that are unpacked into the checkout instead of being installed: those whose
# installation would start a service, and big ones. Read by scripts/setup.

# libraries PACKAGE : those it needs and this system lacks.
libraries() {
    apt-get -s --no-install-recommends install "$1" 2>/dev/null |
        sed -n "/^Inst libjs-/!s/^Inst \\(lib[^ ]*\\) (.*/\\1/p"
}

# download FOLDER PACKAGE… : them and the first one's libraries; reading the lists needs no root,
# fetching does.
download() {
    # shellcheck disable=SC2046 # a list of words
    (cd "$1" && shift && apt-get -q -o APT::Sandbox::User=root download "$@" $(libraries "$1")) \
        >>.cache/setup.log 2>&1
}

# unpack PACKAGE FILE [PACKAGE…] : have the files of these packages below .cache/debs/PACKAGE
# without installing them; FILE tells that they are there.
unpack() {
    place=.cache/debs/$1 package=$1 file=$2
    shift 2
    [ -e "$place/$file" ] || [ -e "$place.unknown" ] && return 0
    command -v apt-get >/dev/null 2>&1 || { say "no apt-get: going on without $package"; return 0; }
    say "unpacking $package into $place (not installed)"
    rm -rf "$place" "$place.part"
    mkdir -p "$place.part"
    set -- "$place.part" "$package" "$@"
    download "$@" || { (update_lists) && download "$@"; } || {
        rm -rf "$place.part"
        # A system that does not have it at all is not asked again (until scripts/clean).
        [ -n "$(apt-cache show "$package" 2>/dev/null)" ] || : >"$place.unknown"
        say "$package cannot be had here: going on, what needs it is skipped and says so"
        return 0
    }
    for archive in "$place.part"/*.deb; do dpkg -x "$archive" "$place.part"; done
    rm -f "$place.part"/*.deb
    mv "$place.part" "$place"
}

# offer NAME PACKAGE FILE : have .venv/bin/NAME start a program of an unpacked package.
offer() {
    place=$root/.cache/debs/$2 start=.venv/bin/$1
    [ -x "$place/$3" ] || { rm -f "$start"; return 0; }
    folders=
    for folder in "$place"/usr/lib/*-linux-gnu "$place"/usr/lib/*-linux-gnu/*; do
        [ ! -d "$folder" ] || folders=$folders${folders:+:}$folder
    done
    line="LD_LIBRARY_PATH=\"$folders\" exec \"$place/$3\" \"\$@\""
    [ "$(tail -n 1 "$start" 2>/dev/null)" = "$line" ] && return 0
    printf '#!/bin/sh\n%s\n' "$line" >"$start.new"
    chmod +x "$start.new" && mv "$start.new" "$start"
}
