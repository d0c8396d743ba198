/*
 * A small web server for the stories in run.py. One thread, one poll loop, no library but libc, so that it can be linked statically and be
 * the only file of an image. MODE in the environment chooses what is wrong with it; without MODE it is a good citizen:
 *
 *   /        200 with the value of TEXT
 *   /info    200 with {"id", "revision", "round", "served", "uptime_ms"}; id is new with each process
 *   /eat     takes memory until somebody stops it
 *   /live    200, or 503 after SIGUSR2
 *   /ready   200, or 503 after SIGUSR1, until the next one
 *   /started 503 to the first REFUSALS requests, then 200
 *
 * SIGHUP makes it deaf: it listens no more.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 512, HEAD = 16384 };

static struct pollfd sockets[CONNECTIONS + 1];
static char heads[CONNECTIONS + 1][HEAD];
static int filled[CONNECTIONS + 1];
static long served;
static struct timespec start;
static volatile sig_atomic_t sick, unready, deaf;

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void eat(void) {
    for (;;) {
        char *page = malloc(1 << 20);
        if (page)
            memset(page, 1, 1 << 20);
    }
}

static void fork_without_bound(void) {
    for (;;)
        fork();
}

static void flood(void) {
    static char block[1 << 16];
    memset(block, 'x', sizeof block);
    for (long sent = 0; sent < 200L << 20;) {
        ssize_t n = write(1, block, sizeof block);
        if (n <= 0 && errno != EINTR)
            break;
        if (n > 0)
            sent += n;
    }
}

/* Answers one request; false when the connection must be closed. */
static int answer(int fd, const char *head) {
    char body[1024], text[2048];
    struct timespec now;
    const char *status = "200 OK";
    static long refused;
    if ((strncmp(head, "GET /live", 9) == 0 && sick) || (strncmp(head, "GET /ready", 10) == 0 && unready) ||
        (strncmp(head, "GET /started", 12) == 0 && refused++ < atol(variable("REFUSALS"))))
        status = "503 Service Unavailable";
    clock_gettime(CLOCK_MONOTONIC, &now);
    long uptime = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
    served++;
    if (strncmp(head, "GET /eat", 8) == 0)
        eat();
    if (strncmp(head, "GET /info", 9) == 0)
        snprintf(body, sizeof body, "{\"id\":\"%ld.%09ld\",\"revision\":\"%s\",\"round\":\"%s\",\"served\":%ld,\"uptime_ms\":%ld}",
                 (long)start.tv_sec, start.tv_nsec, variable("K_REVISION"), variable("ROUND"), served, uptime);
    else
        snprintf(body, sizeof body, "%s", variable("TEXT"));
    /* A body is not read here, so what follows it cannot be told from it. */
    int close_after = strncmp(head, "GET ", 4) != 0;
    int n = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
                     status, strlen(body), close_after ? "Connection: close\r\n" : "", body);
    return write(fd, text, n) == n && !close_after;
}

static void serve(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, open = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 512)) {
        perror("listen");
        exit(1);
    }
    printf("listening on %d\n", port);
    fflush(stdout);
    sockets[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    /* The signal is let in only while it waits, so that none is missed between the look and the wait. */
    sigset_t hangup, none;
    sigemptyset(&none);
    sigemptyset(&hangup);
    sigaddset(&hangup, SIGHUP);
    sigprocmask(SIG_BLOCK, &hangup, NULL);
    for (;;) {
        if (deaf && sockets[0].fd >= 0) {
            close(sockets[0].fd);
            sockets[0].fd = -1;
        }
        if (ppoll(sockets, open, NULL, &none) < 0)
            continue;
        for (int i = 1; i < open; i++) {
            if (!sockets[i].revents)
                continue;
            ssize_t n = read(sockets[i].fd, heads[i] + filled[i], HEAD - 1 - filled[i]);
            int keep = n > 0;
            if (keep) {
                filled[i] += n;
                heads[i][filled[i]] = 0;
                if (strstr(heads[i], "\r\n\r\n")) {
                    keep = answer(sockets[i].fd, heads[i]);
                    filled[i] = 0;
                }
            }
            if (!keep) {
                close(sockets[i].fd);
                open--;
                sockets[i] = sockets[open];
                memcpy(heads[i], heads[open], HEAD);
                filled[i] = filled[open];
                i--;
            }
        }
        if (sockets[0].fd >= 0 && sockets[0].revents && open <= CONNECTIONS) {
            int fd = accept(listener, NULL, NULL);
            if (fd >= 0) {
                sockets[open] = (struct pollfd){.fd = fd, .events = POLLIN};
                filled[open++] = 0;
            }
        }
    }
}

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

static void turn(int signal) {
    switch (signal) {
    case SIGHUP:
        deaf = 1;
        break;
    case SIGUSR1:
        unready = !unready;
        break;
    case SIGUSR2:
        sick = 1;
        break;
    }
}

int main(void) {
    const char *mode = variable("MODE");
    clock_gettime(CLOCK_MONOTONIC, &start);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, strcmp(mode, "ignores-term") == 0 ? SIG_IGN : stop);
    signal(SIGHUP, turn);
    signal(SIGUSR1, turn);
    signal(SIGUSR2, turn);
    if (strcmp(mode, "exits") == 0) {
        puts("cannot find my settings");
        return 3;
    }
    if (strcmp(mode, "never-listens") == 0)
        for (;;)
            pause();
    if (strcmp(mode, "wrong-port") == 0)
        serve(9999);
    if (strcmp(mode, "eats") == 0)
        eat();
    if (strcmp(mode, "forks") == 0)
        fork_without_bound();
    if (strcmp(mode, "floods") == 0)
        flood();
    serve(atoi(*variable("PORT") ? variable("PORT") : "8080"));
}
