/* The minimal server: accepts N WebSockets, then sends each the same frame as fast as the socket accepts it.
 *
 *     limit SESSIONS TICKS_PER_FRAME        picks a port, prints it in a ready line; ends on SIGTERM
 *
 * One thread; a socket whose send would block is skipped until epoll reports it writable. No parsing beyond the end
 * of the handshake, no encoding, no accounting: the cost is that of the kernel's send.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The answer to the one key that client.c and client.py send. */
static const char ACCEPTED[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: not-checked-by-the-load-client\r\n\r\n";

typedef struct { int fd, full; size_t sent; } Peer;

static size_t make_frame(unsigned char *out, int ticks) {
    static char text[1 << 20];
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    long long us = t.tv_sec * 1000000LL + t.tv_nsec / 1000;
    size_t n = 0, h = 0;
    text[n++] = '[';
    for (int i = 0; i < ticks; i++)
        n += sprintf(text + n, "%s{\"T\":\"q\",\"S\":\"SY%04d\",\"bp\":101.25,\"bs\":100.0,\"ap\":101.27,\"as\":200.0,"
                     "\"t\":%lld,\"r\":%lld,\"n\":%d,\"g\":%d}", i ? "," : "", i, us, us, 1000 + i, 100000 + i);
    text[n++] = ']';
    out[h++] = 0x81;
    if (n < 126) out[h++] = n;
    else if (n < 65536) { out[h++] = 126; out[h++] = n >> 8; out[h++] = n; }
    else { out[h++] = 127; for (int i = 7; i >= 0; i--) out[h++] = (unsigned long long)n >> (8 * i); }
    memcpy(out + h, text, n);
    return h + n;
}

int main(int argc, char **argv) {
    if (argc != 3) { fprintf(stderr, "usage: limit SESSIONS TICKS_PER_FRAME\n"); return 2; }
    int count = atoi(argv[1]), ticks = atoi(argv[2]), one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    if (bind(listener, (void *)&here, size) || listen(listener, 1024)) { perror("limit.c: listen"); return 1; }
    getsockname(listener, (void *)&here, &size);
    printf("ready http://127.0.0.1:%d ticks=%d\n", ntohs(here.sin_port), ticks);
    fflush(stdout);

    Peer *peers = calloc(count, sizeof *peers);
    int epoll = epoll_create1(0);
    static char request[65536];
    for (int i = 0; i < count; i++) {
        size_t got = 0;
        peers[i].fd = accept4(listener, NULL, NULL, 0);
        setsockopt(peers[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while (!memmem(request, got, "\r\n\r\n", 4)) {
            ssize_t r = read(peers[i].fd, request + got, sizeof request - got);
            if (r <= 0) { fprintf(stderr, "limit.c: no handshake\n"); return 1; }
            got += r;
        }
        if (write(peers[i].fd, ACCEPTED, sizeof ACCEPTED - 1) < 0) perror("limit.c: handshake");
        struct epoll_event e = {.events = EPOLLOUT | EPOLLET, .data.ptr = &peers[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, peers[i].fd, &e);
    }

    static unsigned char frame[1 << 20];
    static struct epoll_event events[1024];
    size_t whole = make_frame(frame, ticks);
    for (int ready = count;;) {
        int k = epoll_wait(epoll, events, 1024, ready ? 0 : 1000);
        for (int i = 0; i < k; i++) ready += ((Peer *)events[i].data.ptr)->full, ((Peer *)events[i].data.ptr)->full = 0;
        for (int i = 0; i < count; i++) {
            Peer *p = &peers[i];
            if (p->full) continue;
            ssize_t n = send(p->fd, frame + p->sent, whole - p->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) return 0;  /* the client has closed */
            if (n > 0) p->sent = (p->sent + n) % whole;
            if (n < 0 || p->sent) { p->full = 1; ready--; }
        }
    }
}
