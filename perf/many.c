/* One of the client processes of many.py: thousands of sessions that read little each.
 *
 *     stdin:  "measure SECONDS" or "end"          stdout: a line of JSON when all are synced, and for each measurement
 *
 * Session i (counted over all the processes) has its tier by i % 10: 0 vip, 1 to 3 premium, 4 to 9 basic, and draws its
 * symbols from seed i. Every `--verify`-th vip session checks that n of each symbol increases by one; on the other
 * tiers, that it increases.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define TIERS 3
#define FINE 100000          /* 10 us each */
#define MAX_PER_SESSION 64
#define BUFFER (1 << 20)
#define REST_US 2000
#define IP_NO_PORT 24        /* IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect, for the pair */

enum { CONNECTING, SHAKING, OPEN, SYNCED, CLOSED };

typedef struct {
    int fd;
    unsigned char state, tier, verified;
    unsigned rest_len;
    char *rest;              /* start of an incomplete frame */
    int64_t *last_n;         /* of a verified session, by the order of its symbols */
    int *symbols;
} Session;

static const char *NAMES[TIERS] = {"vip", "premium", "basic"};
static char *host = "127.0.0.1", *source = "127.0.0.2", *prefix = "SY";
static int port, count = 1000, first, per_session = 10, universe = 8000, verify = 20, window = 100;
static Session *sessions;
static int opened, handshaken, synced, closed, measuring, epoll;
static uint64_t late[TIERS][FINE], frames[TIERS], quotes[TIERS], bytes, checked, missing, doubled, notices;
static char buffer[BUFFER];

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int64_t number_after(const char *p, const char *end, const char *key) {
    size_t k = strlen(key);
    const char *at = memmem(p, end - p, key, k);
    if (!at) return -1;
    int64_t v = 0;
    for (at += k; at < end && *at >= '0' && *at <= '9'; at++) v = v * 10 + (*at - '0');
    return v;
}

static double percentile_ms(int tier, double q) {
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < FINE; i++) total += late[tier][i];
    for (int i = 0; i < FINE; i++)
        if (total && (sum += late[tier][i]) >= q * total) return i / 100.0;
    return 0;
}

static void drop(Session *s, const char *why) {
    static int said;
    if (said++ < 3) fprintf(stderr, "many.c: session %d was closed: %s\n", first + (int)(s - sessions), why);
    if (s->state == SYNCED) synced--;
    if (s->state < OPEN) handshaken++;
    close(s->fd);
    s->state = CLOSED;
    closed++;
}

static void send_frame(Session *s, int opcode, const char *text, size_t n) {
    unsigned char wire[2048];
    int h = 0;
    wire[h++] = 0x80 | opcode;
    if (n < 126) wire[h++] = 0x80 | n;
    else { wire[h++] = 0x80 | 126; wire[h++] = n >> 8; wire[h++] = n; }
    memset(wire + h, 0, 4);  /* a mask of zeros */
    memcpy(wire + h + 4, text, n);
    if (write(s->fd, wire, h + 4 + n) != (ssize_t)(h + 4 + n)) drop(s, "write");
}

static void subscribe(Session *s) {
    char text[1900];
    int index = first + (s - sessions), own[MAX_PER_SESSION];
    unsigned state = 100003u + index;
    int o = sprintf(text, "{\"action\":\"subscribe\",\"quotes\":[");
    for (int i = 0; i < per_session;) {
        int v = rand_r(&state) % universe, taken = 0;
        for (int j = 0; j < i; j++) taken |= own[j] == v;
        if (taken) continue;
        own[i] = v;
        o += sprintf(text + o, "%s\"%s%04d\"", i++ ? "," : "", prefix, v);
    }
    o += sprintf(text + o, "],\"tier\":\"%s\"}", NAMES[s->tier]);
    if (s->verified) {
        s->last_n = calloc(per_session, sizeof *s->last_n);
        s->symbols = malloc(per_session * sizeof *s->symbols);
        memcpy(s->symbols, own, per_session * sizeof *own);
    }
    send_frame(s, 1, text, o);
}

/* The n of each quote of a verified session. */
static void check(Session *s, const char *p, const char *end) {
    char key[32];
    int k = sprintf(key, "\"S\":\"%s", prefix);
    for (const char *q = p; (q = memmem(q, end - q, key, k)); q += k) {
        const char *shut = memchr(q, '}', end - q);
        if (!shut) return;
        int symbol = atoi(q + k), i = 0;
        int64_t n = number_after(q, shut, "\"n\":");
        while (i < per_session && s->symbols[i] != symbol) i++;
        if (i == per_session || n < 0) { doubled++; continue; }  /* not subscribed */
        int64_t *last = &s->last_n[i];
        if (*last && !memmem(q, shut - q, "\"snap\"", 6)) {
            checked++;
            if (n <= *last) doubled++;
            else if (s->tier == 0) missing += n - *last - 1;
        }
        *last = n;
    }
}

static void frame(Session *s, const char *p, const char *end, int64_t now) {
    if (s->verified) check(s, p, end);
    if (s->state == OPEN && memmem(p, end - p, "\"synced\"", 8)) { s->state = SYNCED; synced++; }
    if (!measuring) return;
    int64_t r = number_after(p, end, "\"r\":");
    if (r < 0) {
        notices += memmem(p, end - p, "heartbeat", 9) == NULL;
        return;
    }
    int t = s->tier;
    frames[t]++;
    for (const char *q = p; (q = memmem(q, end - q, "\"r\":", 4)); q += 4) quotes[t]++;
    int64_t slot = (now - r) / 10;
    late[t][slot < 0 ? 0 : slot < FINE ? slot : FINE - 1]++;
}

static void readable(Session *s) {
    memcpy(buffer, s->rest, s->rest_len);
    ssize_t r = read(s->fd, buffer + s->rest_len, BUFFER - s->rest_len);
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (r <= 0) { drop(s, r ? strerror(errno) : "end of stream"); return; }
    if (measuring) bytes += r;
    char *p = buffer, *end = buffer + s->rest_len + r;
    int64_t now = now_us();
    if (s->state == SHAKING) {
        char *body = memmem(p, end - p, "\r\n\r\n", 4);
        if (body && !memmem(p, 16 < end - p ? 16 : end - p, " 101", 4)) { drop(s, "handshake refused"); return; }
        if (body) { p = body + 4; s->state = OPEN; handshaken++; subscribe(s); }
    }
    while ((s->state == OPEN || s->state == SYNCED) && end - p >= 2) {
        unsigned char *u = (unsigned char *)p;
        size_t head = 2, n = u[1] & 127;
        if (n == 126) { head = 4; n = end - p >= 4 ? (size_t)(u[2] << 8 | u[3]) : BUFFER; }
        else if (n == 127) { drop(s, "a frame of 64 kB"); return; }
        if ((size_t)(end - p) < head + n) break;
        int opcode = u[0] & 15;
        if (opcode < 3) frame(s, p + head, p + head + n, now);
        else if (opcode == 9) send_frame(s, 10, p + head, n);
        else if (opcode == 8) { drop(s, "close frame"); return; }
        p += head + n;
    }
    if (s->state == CLOSED) return;
    unsigned left = end - p;
    if (left != s->rest_len) s->rest = realloc(s->rest, left ? left : 1);
    if (!left) { free(s->rest); s->rest = NULL; }
    s->rest_len = left;
    if (left) memcpy(s->rest, p, left);
}

static void open_one(const struct sockaddr_in *from, const struct sockaddr_in *to) {
    Session *s = &sessions[opened];
    int one = 1, place = (first + opened) % 10;
    s->tier = place == 0 ? 0 : place < 4 ? 1 : 2;
    s->verified = verify && (first + opened) / 10 % verify == 0;
    opened++;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) { perror("many.c: socket"); exit(1); }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(s->fd, IPPROTO_IP, IP_NO_PORT, &one, sizeof one);
    if (bind(s->fd, (void *)from, sizeof *from)) { perror("many.c: bind"); exit(1); }
    if (connect(s->fd, (void *)to, sizeof *to) && errno != EINPROGRESS) { perror("many.c: connect"); exit(1); }
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = s};
    epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e);
}

static void report(double took, double cpu) {
    printf("{\"seconds\":%.3f,\"synced\":%d,\"closed\":%d,\"bytes\":%lu,\"checked\":%lu,\"missing\":%lu,\"doubled\":%lu,"
           "\"notices\":%lu,\"cpu_s\":%.3f,\"tiers\":{", took, synced, closed, bytes, checked, missing, doubled, notices, cpu);
    for (int t = 0; t < TIERS; t++) {
        printf("%s\"%s\":{\"frames\":%lu,\"quotes\":%lu,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"late\":[", t ? "," : "", NAMES[t],
               frames[t], quotes[t], percentile_ms(t, .5), percentile_ms(t, .99));
        /* By 10 us, those that are not 0: several processes' make one histogram. */
        for (int i = 0, some = 0; i < FINE; i++) if (late[t][i]) printf("%s[%d,%lu]", some++ ? "," : "", i, late[t][i]);
        printf("]}");
    }
    printf("}}\n");
    fflush(stdout);
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    struct { const char *name; int *number; char **text; } options[] = {
        {"--port", &port, 0}, {"--sessions", &count, 0}, {"--first", &first, 0}, {"--symbols", &per_session, 0},
        {"--universe", &universe, 0}, {"--verify", &verify, 0}, {"--window", &window, 0}, {"--source", 0, &source},
        {"--host", 0, &host}, {"--prefix", 0, &prefix},
    };
    for (int i = 1; i + 1 < argc; i += 2) {
        size_t k = 0, known = sizeof options / sizeof *options;
        while (k < known && strcmp(argv[i], options[k].name)) k++;
        if (k == known) { fprintf(stderr, "many.c: unknown option %s\n", argv[i]); return 2; }
        if (options[k].number) *options[k].number = atoi(argv[i + 1]);
        else *options[k].text = argv[i + 1];
    }
    if (per_session > MAX_PER_SESSION || per_session > universe) { fprintf(stderr, "many.c: too many --symbols\n"); return 2; }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    sessions = calloc(count, sizeof *sessions);
    epoll = epoll_create1(0);
    char request[512];
    int request_len = snprintf(request, sizeof request,
        "GET /v1/stream HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: bWFya2V0ZmVlZC1wZXJmLg==\r\nSec-WebSocket-Version: 13\r\n\r\n", host, port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = {.sin_family = AF_INET};
    inet_pton(AF_INET, host, &to.sin_addr);
    inet_pton(AF_INET, source, &from.sin_addr);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    static struct epoll_event events[1024];
    int64_t began = now_us(), until = 0, started = 0;
    int said_ready = 0;
    double cpu = 0;
    for (;;) {
        while (opened < count && opened - handshaken < window) open_one(&from, &to);
        // Once all are connected, poll every REST_US, like a network card that coalesces interrupts: a wake-up
        // per frame costs the server as much as its send on one machine. Latencies include the wait.
        if (said_ready) usleep(REST_US);
        int k = epoll_wait(epoll, events, 1024, said_ready ? 0 : 20);
        for (int i = 0; i < k; i++) {
            Session *s = events[i].data.ptr;
            if (!s) {
                char line[64] = "";
                ssize_t r = read(0, line, sizeof line - 1);
                double seconds;
                if (r <= 0 || sscanf(line, "measure %lf", &seconds) != 1) return 0;
                memset(late, 0, sizeof late);
                memset(frames, 0, sizeof frames);
                memset(quotes, 0, sizeof quotes);
                bytes = checked = notices = 0;
                measuring = 1;
                cpu = cpu_s();
                started = now_us();
                until = started + seconds * 1e6;
            } else if (s->state == CONNECTING) {
                struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
                epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &e);
                s->state = SHAKING;
                if (write(s->fd, request, request_len) != request_len) drop(s, "no connection");
            } else if (s->state < CLOSED) readable(s);
        }
        int64_t now = now_us();
        if (!said_ready && opened == count && synced + closed == count) {
            said_ready = 1;
            printf("{\"synced\":%d,\"closed\":%d,\"connect_s\":%.3f}\n", synced, closed, (now - began) / 1e6);
            fflush(stdout);
        }
        if (measuring && now >= until) {
            measuring = 0;
            report((now - started) / 1e6, cpu_s() - cpu);
        }
    }
}
