"""The shell script that tells a node's network state, and how its output is cut into sections.

One script is one round trip: plain commands, nothing written anywhere, nothing installed. It runs
the same commands in the node's own network namespace and, entered from the node, in every other
one it finds. Each line of ours begins with `@` and a word that nobody on the node can foresee, so
no name or alias can pass for one.
"""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass, field

from podwire.drivers.conntable import MAX_ENTRIES
from podwire.drivers.nft_listing import TRACE
from podwire.drivers.procfiles import PATTERNS
from podwire.errors import BadInput

_SAY = r"""
mark=$1
say() { printf '\n@%s %s\n' "$mark" "$*"; }
"""
# A command's output goes straight out (descriptor 3); its complaint and exit code are kept apart.
_BODY = (
    (
        _SAY
        + r"""
run() {
  name=$1; shift
  say begin "$name"
  if command -v "$1" >/dev/null 2>&1; then
    exec 3>&1
    told=$( { "$@" >&3 3>&-; echo "@$?"; } 2>&1 )
    exec 3>&-
    say end "$name" "${told##*@}"
    printf '%s' "${told%@*}"
  else
    say end "$name" 127
    printf '%s is not installed\n' "$1"
  fi
}
settings() {
  cd /proc/sys/net || return
  for pattern in PATTERNS; do grep -Hs '' $pattern; done
  :
}
saver() {
  command -v "$1-$2-save" && return
  kind=legacy
  case $("$1" -V 2>/dev/null) in *nf_tables*) kind=nft ;; esac
  [ "$kind" != "$2" ] || command -v "$1-save"
}
compatible() {
  program=$(saver "$1" nft) || { echo "$1-nft-save is not installed" >&2; return 127; }
  "$program"
}
legacy() {
  for family in ip ip6; do
    [ -e /proc/net/${family}_tables_names ] || continue
    tables=$(cat /proc/net/${family}_tables_names) || return
    [ -n "$tables" ] || continue
    if program=$(saver "${family}tables" legacy); then
      "$program" || return
    else
      echo "it has the tables" $tables"; ${family}tables-legacy-save is not installed" >&2
      return 127
    fi
  done
}
# A trace's own tables are left out: nft 1.0.6 cannot print them as JSON (drivers.nft_listing).
rules() {
  command -v nft >/dev/null 2>&1 || { echo "nft is not installed" >&2; return 127; }
  tables=$(nft list tables) || return
  printf '%s\n' "$tables" | while read -r _ family table; do
    case $table in ''|TRACE*) continue ;; esac
    nft -j list table "$family" "$table" || exit
  done
}
connections() {
  count=$(cat /proc/sys/net/netfilter/nf_conntrack_count 2>/dev/null)
  [ "$count" != 0 ] || return 0
  if [ "${count:-0}" -gt MOST ]; then
    echo "conntrack holds $count entries, more than the MOST that are read" >&2; return 1
  fi
  if ! command -v conntrack >/dev/null; then
    echo "conntrack is not installed" >&2; return 127
  fi
  conntrack -L -f ipv4 && conntrack -L -f ipv6
}
run links ip -j -d link show
run addresses ip -j -N addr show
run routes4 ip -4 -j -d -N route show table all
run routes6 ip -6 -j -d -N route show table all
run rules4 ip -4 -j -d -N rule show
run rules6 ip -6 -j -d -N rule show
run neighbours ip -j neigh show nud all
run proxies ip -j neigh show proxy
run fdb bridge -j fdb show
run netns_ids ip -j netns list-id
[ "$2" != own ] || run processes lsns -t net -n -r -o NETNSID,NS
run qdiscs tc -j qdisc show
run sockets ss -H -tuln
run sysctls settings
run nft rules
run nft_chains nft list chains
run iptables_legacy legacy
run iptables_nft4 compatible iptables
run iptables_nft6 compatible ip6tables
run ipsets ipset save
run conntrack connections
"""
    )
    .replace("PATTERNS", " ".join(shlex.quote(pattern) for pattern in PATTERNS))
    .replace("MOST", str(MAX_ENTRIES))
    .replace("TRACE", TRACE)
)

# In a function, so that the shell has read it all before a command could read from its input.
_WHOLE = r"""
main() {
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
SAY
body=BODY
here=$(stat -Lc %i /proc/self/ns/net)
kind=$(stat -Lc %d /proc/self/ns/net)
say fact boot "$(cat /proc/sys/kernel/random/boot_id)"
say fact time "$(date +%s)"
say fact here "$here"
seen=
for path in /run/netns/* /run/docker/netns/* /proc/self/ns/net /proc/[0-9]*/ns/net; do
  printf '%s\0' "$path"
done | xargs -0 stat -Lc '%d %i %n' 2>/dev/null | while read -r device inode path; do
  [ "$device" = "$kind" ] || continue
  case $path in /run/netns/*) say name "$inode" "${path#/run/netns/}" ;; esac
  case " $seen " in *" $inode "*) continue ;; esac
  seen="$seen $inode"
  say netns "$inode" "$path"
  if [ "$inode" = "$here" ]; then
    sh -c "$body" sh "$mark" own 2>&1
  elif command -v nsenter >/dev/null 2>&1; then
    nsenter --net="$path" sh -c "$body" sh "$mark" 2>&1
  else
    echo "nsenter is not installed on this node"
  fi
done
say done
}
main "$@" </dev/null
"""
SCRIPT = _WHOLE.replace("SAY", _SAY.strip()).replace("BODY", shlex.quote(_BODY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What one command printed."""

    code: int
    text: str
    complaint: str


@dataclass(slots=True, kw_only=True)
class Told:
    """What the script told of one network namespace."""

    inode: int
    path: str
    name: str | None = None
    outputs: dict[str, Output] = field(default_factory=dict)
    complaint: str = ""
    """Why nothing was run there."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What the script told of one node."""

    facts: dict[str, str] = field(default_factory=dict)
    namespaces: dict[int, Told] = field(default_factory=dict)
    complete: bool = False
    """Whether the script came to its end."""


def new_mark() -> str:
    """A word that no output contains by chance or on purpose."""
    return secrets.token_hex(12)


def parse_report(text: str, mark: str) -> Report:
    """Cut what the script printed into sections; what came before its first line is noise.

    Raises:
        BadInput: a line of ours is not understood.
    """
    report = Report()
    names: dict[int, str] = {}
    reader = _Reader(report, names)
    for piece in ("\n" + text).split(f"\n@{mark} ")[1:]:
        head, _, content = piece.partition("\n")
        try:
            reader.take(head.split(" "), content)
        except (ValueError, IndexError):
            raise BadInput(f"the node's answer has a line that is not ours: {head!r}") from None
    for inode, name in names.items():
        if inode in report.namespaces:
            report.namespaces[inode].name = name
    return report


class _Reader:
    def __init__(self, report: Report, names: dict[int, str]) -> None:
        self._report = report
        self._names = names
        self._space: Told | None = None
        self._begun: tuple[str, str] | None = None

    def take(self, words: list[str], content: str) -> None:
        """One line of ours and what was printed after it."""
        kind, rest = words[0], words[1:]
        if kind == "fact":
            self._report.facts[rest[0]] = rest[1]
        elif kind == "name":
            self._names[int(rest[0])] = " ".join(rest[1:])
        elif kind == "netns":
            self._space = Told(inode=int(rest[0]), path=" ".join(rest[1:]), complaint=content)
            self._report.namespaces[self._space.inode] = self._space
        elif kind == "begin":
            self._begun = (rest[0], content)
        elif kind == "end":
            self._end(rest[0], int(rest[1]), content)
        elif kind == "done":
            self._report.complete = True
        else:
            raise ValueError(kind)

    def _end(self, name: str, code: int, complaint: str) -> None:
        if self._space is None or self._begun is None or self._begun[0] != name:
            raise ValueError(name)
        self._space.outputs[name] = Output(
            code=code, text=self._begun[1], complaint=complaint.strip()
        )
        self._begun = None
