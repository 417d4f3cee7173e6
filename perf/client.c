/* The load client of client.py in C, for rates that Python cannot read; same arguments, same line of JSON.
 *
 *     server ──► N sockets ──► epoll ──► whole frames ──► count, first and last receipt time ──► histogram
 *                                                    └──► every tick of each `--verify`-th session parsed
 *
 * Reads append to the incomplete frame of the session, so frames are always parsed whole. Synthetic quotes do not
 * contain the letter "l": one memchr shows whether a frame may hold a "lag" or "gap" message.
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

#define MAX_SYMBOLS 65536
#define BUFFER (16 << 20)
#define FINE 100000          /* 1 us each */
#define COARSE 60000         /* then 1 ms each */

typedef struct {
    int fd, state;           /* 0 connecting, 1 handshake, 2 open, 3 closed */
    char *rest;              /* start of an incomplete frame */
    size_t rest_len, rest_room;
    char *tail;              /* verified sessions: a tick split by the end of a frame */
    size_t tail_len, tail_room;
    int64_t *last_n;         /* verified sessions: by symbol, 0 = none seen */
    int64_t missing, told;
    int lagging, verified;
} Session;

static char buffer[BUFFER];
static uint64_t fine[FINE + COARSE];
static Session *sessions;
static int measuring, open_now, closed;
static uint64_t frames, ticks, bytes, lags, gaps, conflated, lost;
static uint64_t checked, doubled;
static int64_t top_g, top_r, from_g, from_r;

static char *host = "127.0.0.1", *path = "/v1/stream", *transport = "websocket", *dialect = "marketfeed", *tier = "", *watch = "", *prefix = "SY";
static int sse, binary, port, count = 500, per_session = 20, universe = 1000, verify = 25, seed = 1;
static double seconds = 3, warm = 1;

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void record(int64_t us, uint64_t weight) {
    if (us < 0) us = 0;
    int64_t slot = us < FINE ? us : FINE + (us - FINE) / 1000;
    fine[slot < FINE + COARSE ? slot : FINE + COARSE - 1] += weight;
}

static double percentile_ms(double q) {
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < FINE + COARSE; i++) total += fine[i];
    for (int i = 0; i < FINE + COARSE; i++)
        if (total && (sum += fine[i]) >= q * total) return i < FINE ? i / 1000.0 : FINE / 1000.0 + (i - FINE);
    return 0;
}

/* CPU seconds that the watched processes have used. */
static double watched_cpu(void) {
    double total = 0;
    char list[1024], *save, name[64], line[2048];
    snprintf(list, sizeof list, "%s", watch);
    for (char *pid = strtok_r(list, ",", &save); pid; pid = strtok_r(NULL, ",", &save)) {
        snprintf(name, sizeof name, "/proc/%s/stat", pid);
        FILE *f = fopen(name, "r");
        if (!f) continue;
        if (fgets(line, sizeof line, f)) {
            unsigned long user, system;
            char *after = strrchr(line, ')');
            if (after && sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
                total += (double)(user + system) / sysconf(_SC_CLK_TCK);
        }
        fclose(f);
    }
    return total;
}

static int64_t number_after(const char *p, const char *end, const char *key) {
    size_t k = strlen(key);
    const char *at = memmem(p, end - p, key, k);
    if (!at) return -1;
    int64_t v = 0;
    for (at += k; at < end && *at >= '0' && *at <= '9'; at++) v = v * 10 + (*at - '0');
    return at < end ? v : -1;
}

static const char *last_stamp(const char *p, const char *end) {
    for (const char *q = end; (q = memrchr(p, 'r', q - p));)
        if (q > p && q + 3 < end && q[-1] == '"' && q[1] == '"' && q[2] == ':') return q - 1;
    return NULL;
}

/* A verified session: n must increase by one per quote; announced and actual holes are counted. */
static void check_object(Session *s, const char *p, const char *end) {
    if (end - p < 12) return;
    if (!memcmp(p, "{\"T\":\"q\"", 8)) {
        const char *name = memmem(p, end - p, "\"S\":\"", 5);
        if (!name) return;
        name += 5 + strlen(prefix);
        int symbol = atoi(name);
        int64_t n = number_after(p, end, "\"n\":"), g = number_after(p, end, "\"g\":");
        if (symbol < 0 || symbol >= universe || n < 0) return;
        if (g > top_g) { top_g = g; top_r = number_after(p, end, "\"r\":"); }
        int64_t *last = &s->last_n[symbol];
        if (memmem(p, end - p, "\"snap\"", 6) || !*last) { *last = n; return; }
        checked++;
        if (n <= *last) { doubled++; return; }
        s->missing += n - *last - 1;
        *last = n;
    } else if (!memcmp(p, "{\"T\":\"lag\"", 10)) {
        s->lagging = memmem(p, end - p, "\"on\":true", 9) != NULL;
        if (!s->lagging) s->told += number_after(p, end, "\"conflated\":");
    } else if (!memcmp(p, "{\"T\":\"gap\"", 10)) s->told += number_after(p, end, "\"lost\":");
}

static void check(Session *s, const char *p, size_t n) {
    if (s->tail_len + n > s->tail_room) s->tail = realloc(s->tail, s->tail_room = 2 * (s->tail_len + n));
    memcpy(s->tail + s->tail_len, p, n);
    char *at = s->tail, *end = s->tail + s->tail_len + n, *open, *shut;
    while ((open = memchr(at, '{', end - at)) && (shut = memchr(open, '}', end - open))) {
        check_object(s, open, shut + 1);
        at = shut + 1;
    }
    s->tail_len = open ? end - open : 0;
    memmove(s->tail, open, s->tail_len);
}

static void notices(const char *p, const char *end) {
    for (const char *q = p; (q = memmem(q, end - q, "\"T\":\"lag\",\"on\":true", 19)); q += 19) lags++;
    for (const char *q = p; (q = memmem(q, end - q, "\"conflated\":", 12)); q += 12) conflated += number_after(q, end, "\"conflated\":");
    for (const char *q = p; (q = memmem(q, end - q, "\"T\":\"gap\"", 9)); q += 9) { gaps++; lost += number_after(q, end, "\"lost\":"); }
}

static void frame(Session *s, const char *p, size_t n, int64_t now) {
    if (s->verified) check(s, p, n);
    if (!measuring) return;
    uint64_t c = 0;
    for (size_t i = 0; i < n; i++) c += p[i] == '{';
    frames++;
    ticks += c;
    if (memchr(p, 'l', n)) notices(p, p + n);
    int64_t first = number_after(p, p + n, "\"r\":");
    if (first < 0) return;
    const char *z = last_stamp(p, p + n);
    int64_t last = z ? number_after(z, p + n, "\"r\":") : -1;
    record(now - first, last < 0 ? c : (c + 1) / 2);
    if (last >= 0) record(now - last, c / 2);
}

/* One 64-byte quote of a verified session; marketfeed/core/records.py has the layout. */
static void check_record(Session *s, const char *p) {
    int64_t g = *(const int64_t *)(p + 16), n = *(const uint32_t *)(p + 56), *last = &s->last_n[*(const uint16_t *)(p + 60)];
    if (g > top_g) { top_g = g; top_r = *(const int64_t *)(p + 8) / 1000; }
    if (p[63] & 1 || !*last) { *last = n; return; }
    checked++;
    if (n <= *last) { doubled++; return; }
    s->missing += n - *last - 1;
    *last = n;
}

/* A binary message: frames of a 16-byte header and a payload (marketfeed/core/binary.py). */
static void message(Session *s, const char *p, size_t size, int64_t now) {
    const char *end = p + size;
    for (size_t length; end - p >= 16; p += 16 + length) {
        length = *(const uint32_t *)(p + 4);
        const char *at = p + 16, *stop = at + length;
        if (p[1] == 4 && s->verified) check(s, at, length);
        if (p[1] == 4 && measuring) notices(at, stop);
        if (p[1] != 2 || !length) continue;
        if (s->verified) for (const char *r = at; r < stop; r += 64) check_record(s, r);
        if (!measuring) continue;
        uint64_t c = length / 64;
        ticks += c;
        record(now - *(const int64_t *)(at + 8) / 1000, c - c / 2);
        record(now - *(const int64_t *)(stop - 56) / 1000, c / 2);
    }
    if (measuring) frames++;
}

static void send_frame(Session *s, int opcode, const char *text, size_t n) {
    static unsigned char wire[(1 << 20) + 14];
    int h = 0;
    wire[h++] = 0x80 | opcode;
    if (n < 126) wire[h++] = 0x80 | n;
    else if (n < 65536) { wire[h++] = 0x80 | 126; wire[h++] = n >> 8; wire[h++] = n; }
    else { wire[h++] = 0x80 | 127; for (int i = 7; i >= 0; i--) wire[h++] = (uint64_t)n >> (8 * i); }
    memset(wire + h, 0, 4);  /* a mask of zeros */
    memcpy(wire + h + 4, text, n);
    if (write(s->fd, wire, h + 4 + n) < 0) perror("client.c: write");
}

static void subscribe(Session *s, int index) {
    static char text[1 << 20], taken[MAX_SYMBOLS];
    int nats = !strcmp(dialect, "nats");
    unsigned state = seed * 100003u + index;
    memset(taken, 0, sizeof taken);
    int o = sprintf(text, "%s", nats ? "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n" : "{\"action\":\"subscribe\",\"quotes\":[");
    for (int i = 0; i < per_session;) {
        int v = rand_r(&state) % universe;
        if (taken[v]) continue;
        taken[v] = 1;
        o += nats ? sprintf(text + o, "SUB %s%04d %d\r\n", prefix, v, ++i) : sprintf(text + o, "%s\"%s%04d\"", i++ ? "," : "", prefix, v);
    }
    if (!nats) {
        o += *tier ? sprintf(text + o, "],\"tier\":\"%s\"", tier) : sprintf(text + o, "]");
        o += sprintf(text + o, binary ? ",\"encoding\":\"binary\"}" : "}");
    }
    send_frame(s, nats ? 2 : 1, text, o);
}

/* An event stream: the names are in the request, and there is nothing to send afterwards. */
static int open_events(char *text, size_t room, int index) {
    static char taken[MAX_SYMBOLS];
    unsigned state = seed * 100003u + index;
    memset(taken, 0, sizeof taken);
    int o = snprintf(text, room, "GET /v1/events?quotes=");
    for (int i = 0; i < per_session;) {
        int v = rand_r(&state) % universe;
        if (taken[v]) continue;
        taken[v] = 1;
        o += snprintf(text + o, room - o, "%s%s%04d", i++ ? "," : "", prefix, v);
    }
    o += *tier ? snprintf(text + o, room - o, "&tier=%s", tier) : 0;
    return o + snprintf(text + o, room - o, " HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host, port);
}

static void drop(Session *s, const char *why) {
    static int said;
    if (!said++) fprintf(stderr, "client.c: a session was closed: %s\n", why);
    if (s->state == 2) open_now--;
    close(s->fd);
    s->state = 3;
    closed++;
}

static void readable(Session *s) {
    memcpy(buffer, s->rest, s->rest_len);
    ssize_t r = read(s->fd, buffer + s->rest_len, BUFFER - s->rest_len < 1 << 18 ? BUFFER - s->rest_len : 1 << 18);
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (r <= 0) { drop(s, r ? strerror(errno) : "end of stream"); return; }
    if (measuring) bytes += r;
    char *p = buffer, *end = buffer + s->rest_len + r;
    int64_t now = now_us();
    if (s->state == 1) {
        char *body = memmem(p, end - p, "\r\n\r\n", 4);
        if (body && !memmem(p, 16 < end - p ? 16 : end - p, sse ? " 200" : " 101", 4)) { drop(s, "handshake refused"); return; }
        if (body) { p = body + 4; s->state = 2; open_now++; if (!sse) subscribe(s, s - sessions); }
    }
    for (char *stop; s->state == 2 && sse && (stop = memmem(p, end - p, "\n\n", 2)); p = stop + 2)
        if (*p != ':') frame(s, p, stop + 2 - p, now);  /* an SSE comment */
    while (s->state == 2 && !sse && end - p >= 2) {
        unsigned char *u = (unsigned char *)p;
        size_t head = 2, n = u[1] & 127;
        if (n == 126) { head = 4; n = end - p >= 4 ? u[2] << 8 | u[3] : BUFFER; }
        else if (n == 127) { head = 10; n = BUFFER; if (end - p >= 10) { n = 0; for (int i = 2; i < 10; i++) n = n << 8 | u[i]; } }
        if ((size_t)(end - p) < head + n) break;
        int opcode = u[0] & 15;
        if (opcode == 2 && binary) message(s, p + head, n, now);
        else if (opcode < 3) frame(s, p + head, n, now);
        else if (opcode == 9) send_frame(s, 10, p + head, n);
        else if (opcode == 8) { drop(s, "close frame"); return; }
        p += head + n;
    }
    s->rest_len = end - p;
    if (s->rest_len > s->rest_room) s->rest = realloc(s->rest, s->rest_room = 2 * s->rest_len);
    memcpy(s->rest, p, s->rest_len);
}

static void arguments(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        char *k = argv[i] + 2, *v = argv[i + 1];
        if (!strcmp(k, "host")) host = v; else if (!strcmp(k, "path")) path = v;
        else if (!strcmp(k, "transport")) transport = v; else if (!strcmp(k, "dialect")) dialect = v; else if (!strcmp(k, "tier")) tier = v;
        else if (!strcmp(k, "watch")) watch = v; else if (!strcmp(k, "prefix")) prefix = v;
        else if (!strcmp(k, "port")) port = atoi(v); else if (!strcmp(k, "sessions")) count = atoi(v);
        else if (!strcmp(k, "symbols")) per_session = atoi(v); else if (!strcmp(k, "universe")) universe = atoi(v);
        else if (!strcmp(k, "verify")) verify = atoi(v); else if (!strcmp(k, "seed")) seed = atoi(v);
        else if (!strcmp(k, "seconds")) seconds = atof(v); else if (!strcmp(k, "warm")) warm = atof(v);
        else { fprintf(stderr, "client.c: unknown argument --%s\n", k); exit(2); }
    }
}

int main(int argc, char **argv) {
    arguments(argc, argv);
    sse = !strcmp(transport, "sse");
    binary = !strcmp(transport, "binary");
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    sessions = calloc(count, sizeof *sessions);
    int epoll = epoll_create1(0), opened = 0;
    static char request[1 << 20];
    int request_len = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: bWFya2V0ZmVlZC1wZXJmLg==\r\nSec-WebSocket-Version: 13\r\n\r\n", path, host, port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    static struct epoll_event events[1024];
    int64_t began = now_us(), ready = 0, from = 0, t = began;
    double server_cpu = 0;
    struct rusage at_start, at_end;
    for (;;) {
        for (; opened < count && opened - open_now - closed < 100; opened++) {
            Session *s = &sessions[opened];
            int one = 1;
            s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            if (s->fd < 0) { perror("client.c: socket"); return 1; }
            setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (connect(s->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) { perror("client.c: connect"); return 1; }
            s->verified = verify && opened % verify == 0;
            if (s->verified) s->last_n = calloc(MAX_SYMBOLS, sizeof *s->last_n);
            struct epoll_event e = {.events = EPOLLOUT, .data.ptr = s};
            epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e);
        }
        int k = epoll_wait(epoll, events, 1024, 20);
        for (int i = 0; i < k; i++) {
            Session *s = events[i].data.ptr;
            if (s->state == 0) {
                struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
                epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &e);
                s->state = 1;
                if (sse) request_len = open_events(request, sizeof request, s - sessions);
                if (write(s->fd, request, request_len) != request_len) drop(s, "no connection");
            } else if (s->state < 3) readable(s);
        }
        t = now_us();
        if (!ready && open_now + closed == count) ready = t;
        if (!ready && t - began > 15000000) { fprintf(stderr, "client.c: %d of %d sessions after 15 s\n", open_now, count); return 1; }
        if (ready && !from && t - ready >= warm * 1e6) {
            from = t; measuring = 1; from_g = top_g; from_r = top_r;
            server_cpu = watched_cpu();
            getrusage(RUSAGE_SELF, &at_start);
        }
        if (from && t - from >= seconds * 1e6) break;
    }
    double took = (t - from) / 1e6;
    server_cpu = watched_cpu() - server_cpu;
    getrusage(RUSAGE_SELF, &at_end);
    double cpu = at_end.ru_utime.tv_sec + at_end.ru_stime.tv_sec - at_start.ru_utime.tv_sec - at_start.ru_stime.tv_sec
        + (at_end.ru_utime.tv_usec + at_end.ru_stime.tv_usec - at_start.ru_utime.tv_usec - at_start.ru_stime.tv_usec) / 1e6;
    int64_t missing = 0, untold = 0, lagging = 0;
    for (int i = 0; i < count; i++) {
        missing += sessions[i].missing;
        if (sessions[i].lagging) lagging++; else untold += sessions[i].missing - sessions[i].told;
    }
    double feed_rate = top_r > from_r && from_r ? (top_g - from_g) * 1e6 / (top_r - from_r) : 0;
    printf("{\"client\":\"c\",\"sessions\":%d,\"closed\":%d,\"seconds\":%.4f,\"connect_s\":%.3f,\"frames\":%lu,\"ticks\":%lu,\"bytes\":%lu,"
           "\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,"
           "\"lags\":%lu,\"conflated\":%lu,\"gaps\":%lu,\"lost\":%lu,\"feed_rate\":%.2f,"
           "\"checked\":%lu,\"missing\":%ld,\"untold\":%ld,\"doubled\":%lu,\"lagging\":%ld,\"server_cpu_s\":%.3f,\"client_cpu_s\":%.3f}\n",
           open_now, closed, took, (ready - began) / 1e6, frames, ticks, bytes, percentile_ms(.5), percentile_ms(.9), percentile_ms(.99),
           percentile_ms(.999), percentile_ms(1), lags, conflated, gaps, lost, feed_rate, checked, missing, untold, doubled, lagging,
           server_cpu, cpu);
    return 0;
}
