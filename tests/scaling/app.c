/* A server that can be slow, busy or endless, as it is asked. One thread a connection, one request a connection.
 *
 *   /wait?MS    answers after so many milliseconds, doing nothing
 *   /burn?MS    answers after so many milliseconds of CPU time
 *   /stream     sends a line every 50 ms until the client goes
 *   anything    answers at once
 *
 * Every answer names the process: when it started, and its revision. START_MS: listens only after so long. */
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct timespec start;

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void sleep_ms(long ms) {
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void burn_ms(long ms) {
    struct timespec begin, now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    do
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < ms);
}

static void stream(int fd) {
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    static const char chunk[] = "5\r\ntick\n\r\n";
    if (write(fd, head, sizeof head - 1) < 0)
        return;
    while (write(fd, chunk, sizeof chunk - 1) > 0)
        sleep_ms(50);
}

static void answer(int fd) {
    char body[256], text[512];
    int length = snprintf(body, sizeof body, "{\"id\":\"%ld.%09ld\",\"revision\":\"%s\"}", (long)start.tv_sec, start.tv_nsec,
                          variable("K_REVISION"));
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
                     length, body);
    if (write(fd, text, n) < 0)
        perror("write");
}

static void *serve(void *argument) {
    int fd = (int)(long)argument;
    char head[8192];
    size_t filled = 0;
    head[0] = 0;
    while (!strstr(head, "\r\n\r\n") && filled < sizeof head - 1) {
        ssize_t n = read(fd, head + filled, sizeof head - 1 - filled);
        if (n <= 0)
            goto done;
        filled += n;
        head[filled] = 0;
    }
    if (strncmp(head, "GET /wait?", 10) == 0)
        sleep_ms(atol(head + 10));
    else if (strncmp(head, "GET /burn?", 10) == 0)
        burn_ms(atol(head + 10));
    if (strncmp(head, "GET /stream", 11) == 0)
        stream(fd);
    else
        answer(fd);
done:
    close(fd);
    return NULL;
}

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    clock_gettime(CLOCK_REALTIME, &start);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    sleep_ms(atol(variable("START_MS")));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(*variable("PORT") ? variable("PORT") : "8080"))};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 512)) {
        perror("listen");
        return 1;
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 128 * 1024);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd >= 0 && pthread_create(&thread, &small, serve, (void *)(long)fd))
            close(fd);
    }
}
