// podwire-cni: hands one run of the plugin to the node's agent and prints what the agent answers.
//
// The frames of the socket are described in model/cni.py; shim.py is the same program in Python,
// and one test suite runs both. Without an agent it knows only: VERSION is answered, DEL goes
// into the spool and succeeds, everything else is refused with the right code.
// It depends on nothing in the environment but CNI_*.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define STDIN_LIMIT (4u << 20)
#define DRAIN_LIMIT (64u << 20)
#define ANSWER_LIMIT (8u << 20)
#define GREETING "podwire/1\n"
#define LATEST "1.1.0"

extern char **environ;
static char input[STDIN_LIMIT + 1], version[16] = LATEST;
static size_t input_length;

static void put_json(const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c == '"' || *c == '\\') printf("\\%c", *c);
        else putchar(*c < 0x20 || *c > 0x7e ? '?' : *c);
}

static int leave(int code) { exit(fflush(stdout) == 0 ? code : 1); }

static int fail(int code, const char *message, const char *object, const char *fix) {
    printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"", version, code);
    put_json(message), put_json(object);
    printf("\",\"details\":\""), put_json(fix), printf("\"}\n");
    return leave(1);
}

// The text value of a key of the outermost object: nested keys (pod annotations) must not be able
// to name our socket. Returns whether the braces, brackets and quotes of the input match at all.
static int find_text(const char *key, char *value, size_t size) {
    size_t i = 0, start, length, depth = 0, ended = 0;
    while (i < input_length) {
        char c = input[i++];
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
        if (ended || (depth == 0 && c != '{')) return 0;
        if (c == '{' || c == '[') depth++;
        else if (c == '}' || c == ']') ended = --depth == 0;
        else if (c == '"') {
            for (start = i; i < input_length && input[i] != '"'; i++) i += input[i] == '\\';
            if (i >= input_length) return 0;
            length = i++ - start;
            if (depth != 1 || length != strlen(key) || memcmp(input + start, key, length)) continue;
            size_t at = i;
            while (at < input_length && memchr(" \t\r\n", input[at], 4)) at++;
            if (at >= input_length || input[at++] != ':') continue;
            while (at < input_length && memchr(" \t\r\n", input[at], 4)) at++;
            if (at >= input_length || input[at++] != '"') continue;
            char text[4096];
            size_t n = 0;
            for (; at < input_length && input[at] != '"' && n < sizeof text - 1; at++) {
                if (input[at] == '\\' && (++at >= input_length || !memchr("/\\\"", input[at], 3))) break;
                text[n++] = input[at];
            }
            if (at < input_length && input[at] == '"' && n > 0 && n < size) {
                memcpy(value, text, n);
                value[n] = 0;
            }
        }
    }
    return (int)ended;
}

static int write_all(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        data += n, length -= (size_t)n;
    }
    return 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int read_all(int fd, char *data, size_t length, double deadline) {
    while (length > 0) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        double left = deadline - now();
        int ready = left <= 0 ? 0 : poll(&wait, 1, (int)(left * 1000) + 1);
        if (ready < 0 && errno == EINTR) continue;
        ssize_t n = ready > 0 ? read(fd, data, length) : 0;
        if (n <= 0) return -1;
        data += n, length -= (size_t)n;
    }
    return 0;
}

// The call as the agent takes it and as the spool keeps it: length, CNI_* variables, input.
static char *call(const char *netns_error, size_t *length) {
    size_t size = 4 + sizeof "PODWIRE_NETNS_ERROR=" + 256 + 1 + input_length, at = 4;
    for (char **e = environ; *e; e++) size += strlen(*e) + 1;
    char *frame = malloc(size);
    if (!frame) fail(5, "out of memory", "", "free some memory");
    for (char **e = environ; *e; e++)
        if (!strncmp(*e, "CNI_", 4)) at += strlen(strcpy(frame + at, *e)) + 1;
    if (netns_error) at += (size_t)snprintf(frame + at, 256, "PODWIRE_NETNS_ERROR=%s", netns_error) + 1;
    frame[at++] = 0;
    memcpy(frame + at, input, input_length);
    *length = at + input_length;
    for (int i = 0; i < 4; i++) frame[i] = (char)((*length - 4) >> (24 - 8 * i));
    return frame;
}

// A connected socket whose agent has greeted within a second, or -1.
static int greet(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char greeting[sizeof GREETING - 1];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // With a send timeout a full backlog ends connect with EAGAIN; a stuck agent cannot hold us.
    struct timeval second = {.tv_sec = 1};
    if (fd < 0 || strlen(path) >= sizeof address.sun_path) return -1;
    strcpy(address.sun_path, path);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        read_all(fd, greeting, sizeof greeting, now() + 1) < 0 ||
        memcmp(greeting, GREETING, sizeof greeting) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int send_call(int fd, const char *frame, size_t length, int netns) {
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)frame, .iov_len = 4};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (netns >= 0) {
        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof netns);
        memcpy(CMSG_DATA(header), &netns, sizeof netns);
    }
    return sendmsg(fd, &message, 0) == 4 ? write_all(fd, frame + 4, length - 4) : -1;
}

// Asks the agent and ends the program with its answer; returns when there is none.
static void ask(const char *path, const char *frame, size_t length, int netns, double patience) {
    unsigned char head[4];
    int fd = greet(path);
    double deadline = now() + patience;
    struct timeval limit = {.tv_sec = (time_t)patience};
    if (fd < 0) return;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (send_call(fd, frame, length, netns) == 0 && read_all(fd, (char *)head, 4, deadline) == 0) {
        size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        char *answer = size >= 1 && size <= ANSWER_LIMIT ? malloc(size) : NULL;
        // The agent undoes an ADD that nobody confirms, so confirm first and print then.
        if (answer && read_all(fd, answer, size, deadline) == 0 && write(fd, "+", 1) == 1)
            leave(write_all(1, answer + 1, size - 1) < 0 ? 1 : answer[0]);
        free(answer);
    }
    close(fd);
}

static int spool(char *directory, const char *frame, size_t length) {
    char wanted[64], hidden[64];
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    for (char *slash = strchr(directory + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0, mkdir(directory, 0755), *slash = '/';
    }
    if (mkdir(directory, 0700) < 0 && errno != EEXIST) return -1;
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(wanted, sizeof wanted, "%lld%09ld-%d.del", (long long)t.tv_sec, t.tv_nsec, (int)getpid());
    snprintf(hidden, sizeof hidden, ".%.60s", wanted);
    int fd = folder < 0 ? -1 : openat(folder, hidden, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    // Contents, then the name, then the folder: a power cut leaves a whole file or none.
    if (write_all(fd, frame + 4, length - 4) == 0 && fsync(fd) == 0 &&
        renameat(folder, hidden, folder, wanted) == 0 && fsync(folder) == 0)
        return 0;
    int reason = errno;
    unlinkat(folder, hidden, 0);
    errno = reason;
    return -1;
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void read_input(void) {
    static char rest[65536];
    ssize_t n;
    while (input_length < sizeof input) {
        n = read(0, input + input_length, sizeof input - input_length);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(5, "standard input cannot be read: ", strerror(errno), "pass the network configuration");
        if (n == 0) return;
        input_length += (size_t)n;
    }
    // Let the writer finish, or it dies of a broken pipe before it reads the answer.
    for (size_t more = 0; more < DRAIN_LIMIT && (n = read(0, rest, sizeof rest)) > 0;) more += (size_t)n;
    fail(6, "the network configuration on standard input is longer than 4194304 bytes", "", "pass a smaller configuration");
}

static void without_agent(const char *command, int sound, const char *name, const char *path) {
    int is_add = !strcmp(command, "ADD"), is_check = !strcmp(command, "CHECK");
    int is_del = !strcmp(command, "DEL"), is_status = !strcmp(command, "STATUS");
    if (!*command) fail(4, "CNI_COMMAND is not set", "", "set one of ADD, DEL, CHECK, GC, STATUS, VERSION");
    if (!is_add && !is_check && !is_del && !is_status && strcmp(command, "GC"))
        fail(4, "CNI_COMMAND is not a command: ", command, "set one of ADD, DEL, CHECK, GC, STATUS, VERSION");
    if (!sound) fail(6, "the network configuration on standard input is not a JSON object", "", "correct the JSON");
    if ((is_add || is_check || is_del) && !*variable("CNI_CONTAINERID"))
        fail(4, "CNI_CONTAINERID is not set", "", "set it");
    if ((is_add || is_check || is_del) && !*variable("CNI_IFNAME"))
        fail(4, "CNI_IFNAME is not set", "", "set it");
    if ((is_add || is_check) && !*variable("CNI_NETNS")) fail(4, "CNI_NETNS is not set", "", "set it");
    if (is_del && !*name) fail(7, "the network's name is missing", "", "name the network");
    if (!is_del)
        fail(is_status ? 50 : 11, "the podwire agent does not answer on ", path,
             "start the node's agent: podwire agent --node NAME (in a lab: podwire lab agent start NODE)");
}

int main(void) {
    char path[4096] = "/run/podwire/agent.sock", directory[4096] = "/var/lib/podwire/cni-spool";
    char name[256] = "", asked[sizeof version] = "";
    const char *command = variable("CNI_COMMAND"), *netns_path = variable("CNI_NETNS"), *netns_error = NULL;
    signal(SIGPIPE, SIG_IGN);
    read_input();
    int sound = find_text("cniVersion", asked, sizeof asked);
    if (*asked && strspn(asked, "0123456789.") == strlen(asked)) strcpy(version, asked);
    if (!strcmp(command, "VERSION")) {
        printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", version);
        return leave(0);
    }
    find_text("agentSocket", path, sizeof path);
    find_text("spoolDir", directory, sizeof directory);
    find_text("name", name, sizeof name);
    // O_NONBLOCK: a path that is a pipe must not hold us. The agent checks that it is a namespace.
    int netns = *netns_path ? open(netns_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (*netns_path && netns < 0) netns_error = strerror(errno);
    int is_del = !strcmp(command, "DEL");
    size_t length;
    char *frame = call(netns_error, &length);
    ask(path, frame, length, netns, is_del ? 10 : 60);
    without_agent(command, sound, name, path);
    if (spool(directory, frame, length) < 0)
        fail(11, "the agent is away and DEL cannot be kept in the spool: ", strerror(errno), directory);
    return leave(0);
}
