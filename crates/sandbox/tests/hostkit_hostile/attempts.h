/* How each thing is tried, and how the answer is said. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static void say(const char *name, long result) {
	if (result < 0)
		printf("%s: denied %d\n", name, errno);
	else
		printf("%s: allowed\n", name);
	fflush(stdout);
}

/* For calls with deliberately bad arguments: EPERM, ENOSYS and EACCES are a refusal, any other error means it got to the arguments. */
static void say_right(const char *name, long result) {
	if (result < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES))
		printf("%s: denied %d\n", name, errno);
	else
		printf("%s: allowed\n", name);
	fflush(stdout);
}

/* In a child, for what changes the process. */
#define APART(name, how, call) do { \
	pid_t child_ = fork(); \
	if (child_ == 0) { errno = 0; long r_ = (call); how(name, r_); _exit(0); } \
	waitpid(child_, NULL, 0); } while (0)

static long can_open(const char *path, int flags) {
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) close(fd);
	return fd;
}

static long can_read(const char *path) {
	char buffer[64];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) return -1;
	long n = read(fd, buffer, sizeof buffer);
	int e = errno;
	close(fd);
	errno = e;
	if (n == 0) { errno = ENODATA; return -1; } /* masked with something empty */
	return n;
}

static long can_list(const char *path) {
	/* A masked folder can be listed and is empty. */
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return -1;
	char buffer[4096];
	long n = syscall(SYS_getdents64, fd, buffer, sizeof buffer), more = n;
	int count = 0;
	for (long at = 0; at < more;) { unsigned short len; memcpy(&len, buffer + at + 16, 2); at += len; count++; }
	close(fd);
	if (count <= 2) { errno = ENODATA; return -1; }
	return 0;
}

static long make_node(const char *path, mode_t kind, unsigned major_, unsigned minor_) {
	unlink(path);
	if (mknod(path, kind | 0666, makedev(major_, minor_)) < 0) return -1;
	long r = can_open(path, O_RDONLY);
	int e = errno;
	unlink(path);
	errno = e;
	return r;
}

static long abstract_socket(const char *name) {
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) return -1;
	strcpy(a.sun_path + 1, name);
	long r = connect(fd, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	int e = errno;
	close(fd);
	errno = e;
	return r;
}

static long netlink_firewall(void) {
	struct { unsigned len; unsigned short type, flags; unsigned seq, pid; unsigned char family, version; unsigned short res; } m =
		{ 20, (10 << 8) | 3, 1 | 4, 1, 0, 1, 0, 0 }; /* NFT_MSG_NEWCHAIN, without what it needs */
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 12);
	if (fd < 0) return -1;
	if (send(fd, &m, sizeof m, 0) < 0) return -1;
	int answer[16] = { 0 };
	if (recv(fd, answer, sizeof answer, MSG_DONTWAIT) < 0) return -1;
	errno = -answer[4];
	return errno ? -1 : 0;
}

static long new_link(void) {
	struct { unsigned len; unsigned short type, flags; unsigned seq, pid; unsigned char family, pad; unsigned short kind; int index; unsigned f, c; } m =
		{ 32, 16, 1 | 4, 1, 0, 0, 0, 0, 1, 0, 1 }; /* lower loopback */
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0 || send(fd, &m, sizeof m, 0) < 0) return -1;
	int answer[16] = { 0 };
	if (recv(fd, answer, sizeof answer, 0) < 0) return -1;
	errno = -answer[4];
	return errno ? -1 : 0;
}

static long file_capability(void) {
	/* struct vfs_cap_data, version 2: CAP_SYS_ADMIN permitted and effective */
	unsigned data[5] = { 0x02000001, 1u << 21, 0, 0, 0 };
	const char *path = "/tmp/with-capability";
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0755);
	if (fd < 0) return -1;
	long r = fsetxattr(fd, "security.capability", data, sizeof data, 0);
	int e = errno;
	close(fd);
	unlink(path);
	errno = e;
	return r;
}

static long capability(int bit) {
	/* musl comes without the kernel's headers */
	struct { unsigned version; int pid; } h = { 0x20080522, 0 };
	struct { unsigned effective, permitted, inheritable; } d[2];
	if (syscall(SYS_capget, &h, d) < 0) return -1;
	int has = d[bit / 32].effective >> (bit % 32) & 1;
	if (!has) errno = EPERM;
	return has ? 0 : -1;
}

/* This program under another name, with a mode. */
static long copy_self(const char *path, mode_t mode) {
	char buffer[65536];
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	for (long n; (n = read(from, buffer, sizeof buffer)) > 0;) if (write(to, buffer, n) != n) return -1;
	close(from);
	long r = fchmod(to, mode);
	close(to);
	return r;
}

/* Runs a program of ours with one word, as another user unless it is 0; it answers by its exit status. */
static long exec_says(const char *path, const char *word, uid_t uid) {
	pid_t child = fork();
	if (child == 0) {
		if (uid && (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)) _exit(2);
		execl(path, path, word, NULL);
		_exit(2);
	}
	int status;
	waitpid(child, &status, 0);
	errno = EPERM;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* What matters: whether a program with a file capability gets it. */
static long gain_by_file_capability(void) {
	unsigned data[5] = { 0x02000001, 1u << 21, 0, 0, 0 };
	if (copy_self("/tmp/gain", 0755) < 0) return -1;
	long r = setxattr("/tmp/gain", "security.capability", data, sizeof data, 0);
	if (r == 0) r = exec_says("/tmp/gain", "has-sys-admin", 0);
	unlink("/tmp/gain");
	return r;
}

/* A program that belongs to root and has the setuid bit, run by somebody else. */
static long gain_by_setuid(void) {
	if (copy_self("/tmp/setuid", 04755) < 0) return -1;
	long r = exec_says("/tmp/setuid", "is-root", 1000);
	unlink("/tmp/setuid");
	return r;
}

static long take_over_first_process(void) {
	if (ptrace(PTRACE_ATTACH, 1, 0, 0) < 0) return -1;
	waitpid(1, NULL, __WALL);
	return ptrace(PTRACE_DETACH, 1, 0, 0);
}

static void disk_hog(void) {
	pid_t p = fork();
	if (p == 0) {
		static char block[1 << 20];
		int fd = open("/tmp/fill", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		for (int i = 0; i < 400; i++) if (write(fd, block, sizeof block) != sizeof block) _exit(1);
		_exit(0);
	}
	int status;
	waitpid(p, &status, 0);
	unlink("/tmp/fill");
	errno = ENOSPC;
	say("write three times the memory limit", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1);
}

static long many_files(void) {
	int n = 0, fd;
	while (n < 200000 && (fd = open("/", O_PATH | O_CLOEXEC)) >= 0) n++;
	int e = errno;
	for (int i = 3; i < n + 3; i++) close(i);
	errno = e;
	return n == 200000 ? 0 : -1;
}

static long many_processes(void) {
	int n = 0;
	pid_t pids[3000];
	while (n < 3000) {
		pid_t p = fork();
		if (p == 0) { pause(); _exit(0); }
		if (p < 0) break;
		pids[n++] = p;
	}
	int e = errno;
	for (int i = 0; i < n; i++) kill(pids[i], SIGKILL);
	for (int i = 0; i < n; i++) waitpid(pids[i], NULL, 0);
	errno = e;
	return n == 3000 ? 0 : -1;
}

static void memory_hog(void) {
	pid_t p = fork();
	if (p == 0) {
		for (size_t i = 0; i < 512; i++) {
			char *m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (m == MAP_FAILED) _exit(1);
			memset(m, 1, 1 << 20);
		}
		_exit(0);
	}
	int status;
	waitpid(p, &status, 0);
	errno = ENOMEM;
	say("exhaust memory", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1);
}

static long rewrite(const char *path) {
	char buffer[4096];
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) return -1;
	long n = read(fd, buffer, sizeof buffer);
	if (n > 0) n = pwrite(fd, buffer, n, 0);
	int e = errno;
	close(fd);
	errno = e;
	return n;
}

static long leave_by_dotdot(void) {
	/* The classic way out of a chroot. */
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mkdir("/tmp/jail", 0755);
	if (chroot("/tmp/jail") < 0) return -1;
	if (fchdir(root) < 0) return -1;
	for (int i = 0; i < 64; i++) if (chdir("..") < 0) return -1;
	if (chroot(".") < 0) return -1;
	return access("/hostile-marker", F_OK) == 0 ? (errno = EPERM, -1) : 0; /* still in our own root: held */
}
