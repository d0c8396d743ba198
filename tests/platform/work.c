/*
 * The work of the stories in jobs.py and pools.py, and of tests/faults: says that it begins, does something, says that it ends. NONCE
 * tells one process from another, so that a line which is read twice is not taken for two.
 *
 *   work end MS         sleeps MS milliseconds, then ends well
 *   work fail MS CODE   as end, but ends with CODE while the attempt is the first
 *   work some MS CODE  as fail, but of the tasks with an odd index alone
 *   work never CODE     ends with CODE in every attempt
 *   work crash          reads where there is nothing, and ends by SIGSEGV
 *   work eat            takes memory until somebody stops it
 *   work stubborn       ignores SIGTERM and sleeps
 *   work stay           sleeps until somebody stops it; SIGUSR1 ends it with 9
 *   work say            prints its arguments and its environment
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "-";
}

static void give_up(int signal) {
    (void)signal;
    _exit(9);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "end";
    long number = argc > 2 ? atol(argv[2]) : 0;
    unsigned nonce = 0;
    if (getrandom(&nonce, sizeof nonce, 0) < 0)
        return 90;
    const char *index = variable("CLOUD_RUN_TASK_INDEX"), *attempt = variable("CLOUD_RUN_TASK_ATTEMPT");
    setvbuf(stdout, NULL, _IOLBF, 1024);
    printf("begin %s %s %08x\n", index, attempt, nonce);
    if (!strcmp(what, "say")) {
        for (int i = 2; i < argc; i++)
            printf("argument %s\n", argv[i]);
        for (char **e = environ; *e; e++)
            printf("variable %s\n", *e);
    } else if (!strcmp(what, "never")) {
        return (int)number;
    } else if (!strcmp(what, "crash")) {
        /* The first process of a namespace is spared every signal it does not handle but those of its own faults. */
        const volatile int *nowhere = NULL;
        return *nowhere;
    } else if (!strcmp(what, "eat")) {
        for (;;) {
            char *page = malloc(1 << 20);
            if (page)
                memset(page, 1, 1 << 20);
        }
    } else if (!strcmp(what, "stubborn") || !strcmp(what, "stay")) {
        signal(SIGTERM, *what == 's' && what[2] == 'u' ? SIG_IGN : SIG_DFL);
        signal(SIGUSR1, give_up);
        for (;;)
            pause();
    } else {
        struct timespec span = {number / 1000, number % 1000 * 1000000};
        nanosleep(&span, NULL);
        int fails = !strcmp(what, "fail") || (!strcmp(what, "some") && atoi(index) % 2);
        if (fails && !strcmp(attempt, "0"))
            return argc > 3 ? atoi(argv[3]) : 1;
    }
    printf("end %s %s %08x\n", index, attempt, nonce);
    return 0;
}
