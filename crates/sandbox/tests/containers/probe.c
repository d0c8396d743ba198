// What runs inside the test containers: one static program with a word for each thing to try.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void eat(long megabytes) {
    for (long i = 0; i < megabytes; i++) {
        char *p = malloc(1 << 20);
        if (!p) _exit(3);
        memset(p, 1, 1 << 20);
    }
}

static void on_term(int s) { (void)s; (void)!write(1, "got term\n", 9); _exit(7); }

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "hello";
    long n = argc > 2 ? atol(argv[2]) : 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(word, "hello")) { printf("hello\n"); fprintf(stderr, "problem\n"); return 0; }
    if (!strcmp(word, "exit")) return (int)n;
    if (!strcmp(word, "signal")) { signal(n, SIG_DFL); kill(getpid(), n); abort(); }
    if (!strcmp(word, "crash")) { *(volatile int *)0 = 1; }
    if (!strcmp(word, "sleep")) { pause(); return 0; }
    if (!strcmp(word, "handle-term")) { signal(SIGTERM, on_term); printf("ready\n"); for (;;) pause(); }
    if (!strcmp(word, "ignore-term")) { signal(SIGTERM, SIG_IGN); printf("ready\n"); for (;;) pause(); }
    if (!strcmp(word, "eat")) { eat(n); printf("ate\n"); return 0; }
    if (!strcmp(word, "eat-and-stay")) { eat(n); printf("ate\n"); for (;;) pause(); }
    if (!strcmp(word, "child-eats")) {
        pid_t c = fork();
        if (!c) { eat(n); _exit(0); }
        int st; waitpid(c, &st, 0);
        printf("child %s\n", WIFSIGNALED(st) ? "killed" : "lived");
        pause();
    }
    if (!strcmp(word, "forks")) {
        int made = 0;
        for (int i = 0; i < 1000; i++) { pid_t c = fork(); if (c == 0) { pause(); _exit(0); } if (c < 0) break; made++; }
        printf("made %d\n", made);
        pause();
    }
    if (!strcmp(word, "bomb")) { for (;;) fork(); }
    if (!strcmp(word, "write-file")) {
        char *block = calloc(1, 1 << 20);
        int fd = open("/big", O_CREAT | O_WRONLY, 0644);
        for (long i = 0; i < n; i++) if (write(fd, block, 1 << 20) != 1 << 20) { printf("stopped: %s\n", strerror(errno)); return 0; }
        printf("wrote all\n");
        return 0;
    }
    if (!strcmp(word, "spam")) {
        char *block = malloc(1 << 16);
        memset(block, 'x', 1 << 16);
        for (long i = 0; i < n * 16; i++) { char *p = block; long left = 1 << 16; while (left) { long w = write(1, p, left); if (w < 0) return 9; p += w; left -= w; } }
        return 0;
    }
    if (!strcmp(word, "partial")) { (void)!write(1, "no newline", 10); return 0; }
    if (!strcmp(word, "count")) { for (long i = 0; i < n; i++) printf("line %ld\n", i); return 0; }
    if (!strcmp(word, "tick")) { for (long i = 0;; i++) { printf("tick %ld\n", i); usleep(2000); } }
    if (!strcmp(word, "serve")) {
        int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(n)};
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(s, (void *)&a, sizeof a) || listen(s, 64)) { perror("listen"); return 1; }
        printf("listening\n");
        for (;;) { int c = accept(s, 0, 0); char b[1000]; if (read(c, b, sizeof b) > 0) (void)!write(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 40); close(c); }
    }
    if (!strcmp(word, "cwd")) { char b[500]; printf("%s\n", getcwd(b, sizeof b)); return 0; }
    if (!strcmp(word, "id")) { printf("%d:%d home=%s\n", getuid(), getgid(), getenv("HOME")); return 0; }
    printf("unknown word %s\n", word);
    return 2;
}
