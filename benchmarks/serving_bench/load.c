/* SPDX-License-Identifier: Apache-2.0 */
/* A closed-loop load generator that costs a few microseconds a request: prebuilt bytes out, answers compared byte by byte.
 *
 *   load http|grpc tcp:PORT|unix:PATH CONNECTIONS SECONDS REQUEST EXPECTED|- [warm=N] [every=MICROSECONDS] [patience=SECONDS] [dump=FILE]
 *
 * http: REQUEST is the whole request; the body of every answer must equal EXPECTED (with -, only the status is looked at).
 * grpc: REQUEST is u32 length + header block of a connection's first request, u32 length + that of all later ones (HPACK),
 *       then the message with its five bytes of prefix. EXPECTED is the answer's message with its prefix.
 * every: a connection sends at this pace instead of at once; dump: one request, whose answer's body is written to FILE.
 * Latency runs from before the first byte is sent to when the last is received. One JSON object on stdout; exit 0 even when
 * answers were bad: the caller reads `bad` and `problem`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FRAME_LIMIT 16384 /* what every HTTP/2 peer takes without having said so */
#define WINDOW_START 65535
#define WINDOW_MAX 0x7fffffff
#define TOP_UP (1u << 30)
#define WARM_SECONDS 5 /* a slow model is warm after fewer requests */

struct bytes { char *at; size_t size, room; };

struct connection {
    int fd, waiting, writing;   /* waiting: for an answer; writing: the kernel would not take all */
    double begun, due;
    struct bytes in, out, body; /* received and not parsed; to be sent; the answer's body */
    size_t sent;                /* of `out` */
    size_t message;             /* grpc: bytes of the message framed so far */
    uint32_t stream;
    int64_t window, stream_window, first_window;
    uint64_t eaten;
};

static struct bytes request, expected, block_one, block_more, message;
static int is_grpc, only_status, epoll_fd;
static long total, bad, warm = 30;
static double pace, patience = 30;
static const char *dump, *problem = "";
static float *latencies;
static size_t kept, room = 1u << 23;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what) { perror(what); exit(2); }

static void append(struct bytes *to, const void *from, size_t size) {
    if (to->size + size > to->room) {
        to->room = (to->size + size) * 2 + 65536;
        if (!(to->at = realloc(to->at, to->room))) die("realloc");
    }
    if (size) memcpy(to->at + to->size, from, size);
    to->size += size;
}

static struct bytes read_file(const char *path) {
    struct bytes all = {0};
    char chunk[65536];
    size_t size;
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    while ((size = fread(chunk, 1, sizeof chunk, file)) > 0) append(&all, chunk, size);
    fclose(file);
    return all;
}

static int dial(const char *address) {
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    int fd, on = 1, is_tcp = !strncmp(address, "tcp:", 4);
    if ((fd = socket(is_tcp ? AF_INET : AF_UNIX, SOCK_STREAM, 0)) < 0) die("socket");
    if (is_tcp) tcp.sin_port = htons((uint16_t)atoi(address + 4));
    else snprintf(local.sun_path, sizeof local.sun_path, "%s", address + 5);
    if (is_tcp ? connect(fd, (void *)&tcp, sizeof tcp) : connect(fd, (void *)&local, sizeof local)) die("connect");
    if (is_tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* --- HTTP/2 ----------------------------------------------------------------------------------------------------------- */

static void frame(struct connection *c, size_t size, int type, int flags, uint32_t stream) {
    unsigned char head[9] = {(unsigned char)(size >> 16), (unsigned char)(size >> 8), (unsigned char)size, (unsigned char)type,
                             (unsigned char)flags};
    stream = htonl(stream);
    memcpy(head + 5, &stream, 4);
    append(&c->out, head, 9);
}

static void widen(struct connection *c, uint32_t by) {
    uint32_t net = htonl(by);
    frame(c, 4, 8, 0, 0);
    append(&c->out, &net, 4);
}

static void greet(struct connection *c) {
    /* header table 4096 (the default), window per stream as large as it goes */
    static const unsigned char settings[] = {0, 4, 0x7f, 0xff, 0xff, 0xff};
    append(&c->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    frame(c, sizeof settings, 4, 0, 0);
    append(&c->out, settings, sizeof settings);
    widen(c, WINDOW_MAX - WINDOW_START);
    c->window = c->first_window = WINDOW_START;
}

static void frame_message(struct connection *c) { /* as much of it as the peer's windows allow */
    while (c->message < message.size) {
        int64_t size = (int64_t)(message.size - c->message);
        if (size > FRAME_LIMIT) size = FRAME_LIMIT;
        if (size > c->window) size = c->window;
        if (size > c->stream_window) size = c->stream_window;
        if (size <= 0) return;
        frame(c, (size_t)size, 0, c->message + (size_t)size == message.size, c->stream);
        append(&c->out, message.at + c->message, (size_t)size);
        c->message += (size_t)size;
        c->window -= size;
        c->stream_window -= size;
    }
}

static void settings(struct connection *c, const unsigned char *at, uint32_t size) {
    for (uint32_t i = 0; i + 6 <= size; i += 6)
        if (at[i] == 0 && at[i + 1] == 4) {
            int64_t value = (int64_t)at[i + 2] << 24 | at[i + 3] << 16 | at[i + 4] << 8 | at[i + 5];
            c->stream_window += value - c->first_window;
            c->first_window = value;
        }
    frame(c, 0, 4, 1, 0);
}

/* One frame; 1 when the answer is whole, -1 when it never will be. */
static int take_frame(struct connection *c, int type, int flags, uint32_t stream, unsigned char *at, uint32_t size) {
    uint32_t number;
    switch (type) {
    case 0: {
        uint32_t skip = flags & 8 ? 1u : 0u, pad = flags & 8 ? at[0] : 0u;
        if (stream == c->stream && size >= skip + pad) append(&c->body, at + skip, size - skip - pad);
        if ((c->eaten += size) > TOP_UP) { widen(c, (uint32_t)c->eaten); c->eaten = 0; }
        return (flags & 1) && stream == c->stream;
    }
    case 1: return (flags & 1) && stream == c->stream;
    case 3: problem = "stream reset"; return stream == c->stream ? -1 : 0;
    case 4: if (!(flags & 1)) settings(c, at, size); return 0;
    case 6: if (!(flags & 1)) { frame(c, 8, 6, 1, 0); append(&c->out, at, 8); } return 0;
    case 7: problem = "GOAWAY"; return -1;
    case 8:
        memcpy(&number, at, 4);
        if (stream == 0) c->window += ntohl(number) & WINDOW_MAX;
        else if (stream == c->stream) c->stream_window += ntohl(number) & WINDOW_MAX;
        return 0;
    default: return 0;
    }
}

static int take_frames(struct connection *c) {
    size_t at = 0;
    int whole = 0;
    while (!whole && c->in.size - at >= 9) {
        unsigned char *head = (unsigned char *)c->in.at + at;
        uint32_t size = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2], stream;
        if (c->in.size - at < 9 + size) break;
        memcpy(&stream, head + 5, 4);
        whole = take_frame(c, head[3], head[4], ntohl(stream) & WINDOW_MAX, head + 9, size);
        at += 9 + size;
    }
    memmove(c->in.at, c->in.at + at, c->in.size - at);
    c->in.size -= at;
    frame_message(c);
    return whole;
}

/* --- HTTP/1.1 --------------------------------------------------------------------------------------------------------- */

static int take_answer(struct connection *c) {
    char *end, *field, *text = c->in.at;
    size_t head;
    append(&c->in, "", 1);
    c->in.size--;
    if (c->in.size < 12 || !(end = memmem(text, c->in.size, "\r\n\r\n", 4))) return 0;
    head = (size_t)(end - text) + 4;
    if (strncmp(text + 9, "200", 3)) { problem = "status is not 200"; return -1; }
    *end = 0;
    field = strcasestr(text, "\ncontent-length:");
    if (!field && !strcasestr(text, "\ntransfer-encoding: chunked")) { problem = "no length"; return -1; }
    *end = '\r';
    if (field ? c->in.size < head + (size_t)atol(field + 16) : memcmp(text + c->in.size - 5, "0\r\n\r\n", 5)) return 0;
    append(&c->body, text + head, c->in.size - head);
    c->in.size = 0;
    return 1;
}

/* --- the loop --------------------------------------------------------------------------------------------------------- */

static void watch(struct connection *c, int how, int writing) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = c};
    c->writing = writing;
    if (epoll_ctl(epoll_fd, how, c->fd, &event)) die("epoll_ctl");
}

static void push(struct connection *c) {
    while (c->sent < c->out.size) {
        ssize_t size = send(c->fd, c->out.at + c->sent, c->out.size - c->sent, MSG_NOSIGNAL);
        if (size < 0 && errno == EAGAIN) break;
        if (size < 0) { problem = "closed by the server"; bad++; return; }
        c->sent += (size_t)size;
    }
    if (c->sent == c->out.size) c->sent = c->out.size = 0;
    if (c->writing != (c->out.size > 0)) watch(c, EPOLL_CTL_MOD, c->out.size > 0);
}

static void ask(struct connection *c) {
    c->waiting = 1;
    c->body.size = 0;
    c->begun = now();
    if (is_grpc) {
        struct bytes *block = c->stream ? &block_more : &block_one;
        c->stream = c->stream ? c->stream + 2 : 1;
        c->message = 0;
        c->stream_window = c->first_window;
        frame(c, block->size, 1, 4, c->stream);
        append(&c->out, block->at, block->size);
        frame_message(c);
    } else {
        append(&c->out, request.at, request.size);
    }
    push(c);
}

static int right(struct connection *c) {
    if (only_status) return 1;
    return c->body.size == expected.size && !memcmp(c->body.at, expected.at, expected.size);
}

static void answered(struct connection *c, int whole) {
    double at = now();
    c->waiting = 0;
    if (whole < 0 || !right(c)) {
        if (!*problem) problem = "another answer than expected";
        if (!bad++) fprintf(stderr, "bad answer (%s): %.*s\n", problem, (int)(c->in.size + c->body.size > 0 ? 400 : 0),
                            c->body.size ? c->body.at : c->in.at);
    }
    if (++total > warm && kept < room) latencies[kept++] = (float)((at - c->begun) * 1e6);
    if (dump) {
        FILE *file = fopen(dump, "wb");
        if (!file) die(dump);
        fwrite(c->body.at, 1, c->body.size, file);
        fclose(file);
        return;
    }
    c->due = pace > 0 ? c->due + pace : 0;
    if (pace > 0 && c->due < at) c->due = at + pace; /* late: skip, do not catch up */
    if (pace <= 0) ask(c);
}

static void readable(struct connection *c) {
    static char chunk[1 << 18];
    int whole = 0;
    ssize_t size = recv(c->fd, chunk, sizeof chunk, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) { problem = "closed by the server"; bad++; return; }
    append(&c->in, chunk, (size_t)size);
    whole = is_grpc ? take_frames(c) : take_answer(c);
    if (is_grpc && c->out.size) push(c);
    if (c->waiting && whole) answered(c, whole);
}

static double ask_due(struct connection *all, int count) { /* seconds until the next one is due, at most 1 */
    double at = now(), left = 1;
    for (int i = 0; i < count; i++) {
        if (all[i].waiting) continue;
        if (all[i].due <= at) ask(&all[i]);
        else if (all[i].due - at < left) left = all[i].due - at;
    }
    return left;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static double at_share(double share) { return kept ? latencies[(size_t)((double)(kept - 1) * share)] : 0; }

static void report(double seconds) {
    struct rusage use;
    double sum = 0, cpu;
    getrusage(RUSAGE_SELF, &use);
    cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
    qsort(latencies, kept, sizeof *latencies, compare);
    for (size_t i = 0; i < kept; i++) sum += latencies[i];
    printf("{\"requests\":%zu,\"total\":%ld,\"bad\":%ld,\"seconds\":%.6f,\"min\":%.2f,\"p10\":%.2f,\"p50\":%.2f,\"p90\":%.2f,"
           "\"p99\":%.2f,\"mean\":%.2f,\"client_cpu\":%.2f,\"problem\":\"%s\"}\n",
           kept, total, bad, seconds, at_share(0), at_share(.1), at_share(.5), at_share(.9), at_share(.99),
           kept ? sum / (double)kept : 0, cpu * 1e6 / (double)(total ? total : 1), problem);
}

static void options(int count, char **words) {
    for (int i = 0; i < count; i++) {
        if (!strncmp(words[i], "warm=", 5)) warm = atol(words[i] + 5);
        else if (!strncmp(words[i], "every=", 6)) pace = atof(words[i] + 6) * 1e-6;
        else if (!strncmp(words[i], "patience=", 9)) patience = atof(words[i] + 9);
        else if (!strncmp(words[i], "dump=", 5)) { dump = words[i] + 5; only_status = 1; warm = 0; }
        else { fprintf(stderr, "unknown option %s\n", words[i]); exit(2); }
    }
}

static void split_request(void) {
    uint32_t size;
    char *at = request.at;
    memcpy(&size, at, 4);
    block_one = (struct bytes){at + 4, size, size};
    at += 4 + size;
    memcpy(&size, at, 4);
    block_more = (struct bytes){at + 4, size, size};
    at += 4 + size;
    message = (struct bytes){at, request.size - (size_t)(at - request.at), 0};
}

static void run(struct connection *all, int count, double seconds) {
    double start = now(), begun = warm ? 0 : start, last = start, left = 1;
    long before = 0;
    struct epoll_event events[256];
    for (;;) {
        struct pollfd any = {.fd = epoll_fd, .events = POLLIN};
        if (pace > 0) {
            left = ask_due(all, count);
            struct timespec wait = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
            ppoll(&any, 1, &wait, NULL);
        }
        int found = epoll_wait(epoll_fd, events, 256, pace > 0 ? 0 : 200);
        for (int i = 0; i < found; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) push(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
        }
        if (total != before) { before = total; last = now(); }
        if (!begun && total > 0 && (total >= warm || last > start + WARM_SECONDS)) { begun = now(); warm = total; }
        if (*problem || (dump ? total > 0 : begun && now() > begun + seconds)) break;
        if (now() > last + patience) { problem = "no answer in time"; bad++; break; }
    }
    report(now() - begun);
}

int main(int count, char **words) {
    if (count < 7) { fputs("load http|grpc ADDRESS CONNECTIONS SECONDS REQUEST EXPECTED|- [warm=] [every=] [dump=]\n", stderr); return 2; }
    int connections = atoi(words[3]);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    is_grpc = !strcmp(words[1], "grpc");
    request = read_file(words[5]);
    if (is_grpc) split_request();
    if (!(only_status = !strcmp(words[6], "-"))) expected = read_file(words[6]);
    options(count - 7, words + 7);
    latencies = malloc(room * sizeof *latencies);
    epoll_fd = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        all[i].fd = dial(words[2]);
        if (is_grpc) greet(&all[i]);
        watch(&all[i], EPOLL_CTL_ADD, 0);
        if (pace > 0) all[i].due = now() + pace * i / connections;
        else ask(&all[i]);
    }
    run(all, connections, atof(words[4]));
    return 0;
}
