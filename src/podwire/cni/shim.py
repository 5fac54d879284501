"""podwire-cni where no C compiler was at hand: the same program as shim.c, line for line.

It is installed as one file with an absolute interpreter and `-I -S -E`, so it imports nothing
but modules that are built into the interpreter: json, socket and asyncio would each cost more
than the whole call. The frames of the socket are described in model/cni.py.
"""

import _socket
import errno
import posix
import sys
import time

STDIN_LIMIT = 4 << 20
DRAIN_LIMIT = 64 << 20
ANSWER_LIMIT = 8 << 20
GREETING = b"podwire/1\n"
COMMANDS = (b"ADD", b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION")


class Failure(Exception):  # it ends the program with an error object, as CNI names it
    """The program ends with this error object and exit code 1."""

    def __init__(self, code: int, message: bytes, fix: bytes) -> None:
        super().__init__(code, message, fix)
        self.code, self.message, self.fix = code, message, fix


class Away(Exception):  # a fact about the agent
    """The agent does not answer."""


def json_text(text: bytes) -> bytes:
    """The inside of a JSON string; what is not printable ASCII becomes a question mark."""
    shown = bytes(c if 0x20 <= c <= 0x7E else 0x3F for c in text)
    return shown.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def read_input() -> bytes:
    """Standard input, up to the limit."""
    data = bytearray()
    while len(data) <= STDIN_LIMIT:
        try:
            part = posix.read(0, STDIN_LIMIT + 1 - len(data))
        except OSError as error:
            reason = posix.strerror(error.errno or 0).encode()
            raise Failure(
                5, b"standard input cannot be read: " + reason, b"pass the network configuration"
            ) from None
        if not part:
            return bytes(data)
        data += part
    drained = 0
    # Let the writer finish, or it dies of a broken pipe before it reads the answer.
    while drained < DRAIN_LIMIT and (part := posix.read(0, 65536)):
        drained += len(part)
    raise Failure(
        6,
        b"the network configuration on standard input is longer than 4194304 bytes",
        b"pass a smaller configuration",
    )


def find_texts(data: bytes, keys: tuple[bytes, ...]) -> tuple[bool, dict[bytes, bytes]]:
    """Text values of the outermost object, and whether braces, brackets and quotes match.

    Only the outermost object counts: nested keys (pod annotations) must not name our socket.
    """
    found: dict[bytes, bytes] = {}
    i, depth, ended, size = 0, 0, False, len(data)
    while i < size:
        c = data[i : i + 1]
        i += 1
        if c in b" \t\r\n":
            continue
        if ended or (depth == 0 and c != b"{"):
            return False, found
        if c in b"{[":
            depth += 1
        elif c in b"}]":
            depth -= 1
            ended = depth == 0
        elif c == b'"':
            start, i = i, end_of_text(data, i)
            if i > size:
                return False, found
            if depth == 1 and data[start : i - 1] in keys:
                value = text_after_colon(data[i : i + 8192])
                if value:
                    found[data[start : i - 1]] = value
    return ended, found


def end_of_text(data: bytes, i: int) -> int:
    """Position behind the quote that ends the string whose inside begins at `i`."""
    while True:
        end = data.find(b'"', i)
        if end < 0:
            return len(data) + 1
        slashes = 0
        while end - slashes > i and data[end - slashes - 1] == 0x5C:
            slashes += 1
        i = end + 1
        if slashes % 2 == 0:
            return i


def text_after_colon(data: bytes) -> bytes:
    """The string value behind a key; empty when there is none or it has escapes of letters."""
    data = data.lstrip(b" \t\r\n")
    if data[:1] != b":":
        return b""
    data = data[1:].lstrip(b" \t\r\n")
    if data[:1] != b'"':
        return b""
    text, i = bytearray(), 1
    while i < len(data) and len(text) < 4095:
        c = data[i]
        if c == 0x22:
            return bytes(text)
        if c == 0x5C:
            i += 1
            if data[i : i + 1] not in (b"/", b"\\", b'"'):
                return b""
            c = data[i]
        text.append(c)
        i += 1
    return b""


def receive(sock: _socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes before the deadline (of the monotonic clock)."""
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Away
        sock.settimeout(left)
        part = sock.recv(min(size - len(data), 1 << 20))
        if not part:
            raise Away
        data += part
    return data


def ask(path: bytes, body: bytes, netns: int, patience: float) -> bytes:
    """The agent's answer, confirmed."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(1)
        sock.connect(path)
        if receive(sock, len(GREETING), time.monotonic() + 1) != GREETING:
            raise Away
        deadline = time.monotonic() + patience
        sock.settimeout(patience)
        rights = []
        if netns >= 0:
            fd = netns.to_bytes(4, sys.byteorder)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd)]
        sock.sendmsg([len(body).to_bytes(4, "big")], rights)
        sock.sendall(body)
        size = int.from_bytes(receive(sock, 4, deadline), "big")
        if not 1 <= size <= ANSWER_LIMIT:
            raise Away
        answer = receive(sock, size, deadline)
        # The agent undoes an ADD that nobody confirms, so confirm first and print then.
        sock.sendall(b"+")
    except OSError:
        raise Away from None
    else:
        return answer
    finally:
        sock.close()


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def make_directory(path: bytes, mode: int) -> None:
    """Create one directory; that it is there already is fine."""
    try:  # noqa: SIM105  # contextlib costs more than this whole program
        posix.mkdir(path, mode)
    except FileExistsError:
        pass


def spool(directory: bytes, body: bytes) -> None:
    """Keep a DEL until the agent is back."""
    slash = directory.find(b"/", 1)
    while slash > 0:
        make_directory(directory[:slash], 0o755)
        slash = directory.find(b"/", slash + 1)
    make_directory(directory, 0o700)
    flags = posix.O_CLOEXEC
    folder = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | flags)
    wanted = b"%d-%d.del" % (time.time_ns(), posix.getpid())
    hidden = b"." + wanted
    flags |= posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL
    fd = posix.open(hidden, flags, 0o600, dir_fd=folder)
    try:
        # Contents, then the name, then the folder: a power cut leaves a whole file or none.
        write_all(fd, body)
        posix.fsync(fd)
        posix.rename(hidden, wanted, src_dir_fd=folder, dst_dir_fd=folder)
        posix.fsync(folder)
    except OSError:
        try:  # noqa: SIM105
            posix.unlink(hidden, dir_fd=folder)
        except OSError:
            pass
        raise


def refuse_without_agent(
    environment: dict[bytes, bytes], sound: bool, name: bytes, path: bytes
) -> None:
    """Everything but a DEL that can be kept fails, with the code the caller should see."""
    command = environment.get(b"CNI_COMMAND", b"")
    if command not in COMMANDS:
        words = b"is not a command: " + command if command else b"is not set"
        raise Failure(
            4, b"CNI_COMMAND " + words, b"set one of ADD, DEL, CHECK, GC, STATUS, VERSION"
        )
    if not sound:
        raise Failure(
            6,
            b"the network configuration on standard input is not a JSON object",
            b"correct the JSON",
        )
    needed: tuple[bytes, ...] = ()
    if command in (b"ADD", b"DEL", b"CHECK"):
        needed = (b"CNI_CONTAINERID", b"CNI_IFNAME")
    if command in (b"ADD", b"CHECK"):
        needed += (b"CNI_NETNS",)
    for variable in needed:
        if not environment.get(variable):
            raise Failure(4, variable + b" is not set", b"set it")
    if command == b"DEL" and not name:
        raise Failure(7, b"the network's name is missing", b"name the network")
    if command != b"DEL":
        raise Failure(
            50 if command == b"STATUS" else 11,
            b"the podwire agent does not answer on " + path,
            b"start the node's agent: podwire agent --node NAME"
            b" (in a lab: podwire lab agent start NODE)",
        )


def open_netns(path: bytes) -> tuple[int, bytes]:
    """The descriptor of CNI_NETNS, or -1 and why not."""
    if not path:
        return -1, b""
    try:
        # O_NONBLOCK: a path that is a pipe must not hold us. The agent checks what it is.
        flags = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY
        return posix.open(path, flags), b""
    except OSError as error:
        return -1, posix.strerror(error.errno or errno.EIO).encode()


def run(environment: dict[bytes, bytes], data: bytes, texts: dict[bytes, bytes]) -> bytes:
    """Exit code (one byte) and what to print."""
    command = environment.get(b"CNI_COMMAND", b"")
    sound, found = find_texts(data, (b"cniVersion", b"agentSocket", b"spoolDir", b"name"))
    texts.update({key: value for key, value in found.items() if key != b"cniVersion"})
    version = found.get(b"cniVersion", b"")
    if version and len(version) < 16 and not version.strip(b"0123456789."):
        texts[b"cniVersion"] = version
    if command == b"VERSION":
        return (
            b'\0{"cniVersion":"' + texts[b"cniVersion"] + b'","supportedVersions":'
            b'["0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
        )
    netns, reason = open_netns(environment.get(b"CNI_NETNS", b""))
    names = [b"%s=%s\0" % item for item in environment.items() if item[0].startswith(b"CNI_")]
    if reason:
        names.append(b"PODWIRE_NETNS_ERROR=" + reason + b"\0")
    body = b"".join(names) + b"\0" + data
    path, directory = texts[b"agentSocket"], texts[b"spoolDir"]
    try:
        return ask(path, body, netns, 10 if command == b"DEL" else 60)
    except Away:
        refuse_without_agent(environment, sound, texts.get(b"name", b"")[:255], path)
    try:
        spool(directory, body)
    except OSError as error:
        why = posix.strerror(error.errno or errno.EIO).encode()
        raise Failure(
            11, b"the agent is away and DEL cannot be kept in the spool: " + why, directory
        ) from None
    return b"\0"


def main() -> int:
    """Hand one run of the plugin to the agent and print what it answers."""
    texts = {
        b"cniVersion": b"1.1.0",
        b"agentSocket": b"/run/podwire/agent.sock",
        b"spoolDir": b"/var/lib/podwire/cni-spool",
    }
    try:
        answer = run(dict(posix.environ), read_input(), texts)
    except Failure as failure:
        answer = b'\1{"cniVersion":"%s","code":%d,"msg":"%s","details":"%s"}\n' % (
            texts[b"cniVersion"],
            failure.code,
            json_text(failure.message),
            json_text(failure.fix),
        )
    try:
        write_all(1, answer[1:])
    except OSError:
        return 1
    return answer[0]


if __name__ == "__main__":
    sys.exit(main())
