/*
 * A container that tries to get out. Every attempt prints one line, `name: denied ERRNO` or `name: allowed`.
 * No attempt would do lasting harm if it did succeed: values written are the ones that were read, calls are made with arguments that
 * the kernel refuses only after it has checked the right to make them.
 */
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

static long host_tcp(int port) {
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) return -1;
	long r = connect(fd, (struct sockaddr *)&a, sizeof a);
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

static long setuid_program(void) {
	/* A program that belongs to root with the setuid bit must not make root of somebody else: no_new_privs. */
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? (errno = EPERM, -1) : 0;
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

/* What matters: whether a program with a file capability gets it. It is this program, which then tells by its exit status. */
static long gain_by_file_capability(void) {
	unsigned data[5] = { 0x02000001, 1u << 21, 0, 0, 0 };
	const char *path = "/tmp/gain";
	char buffer[65536];
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	for (long n; (n = read(from, buffer, sizeof buffer)) > 0;) if (write(to, buffer, n) != n) return -1;
	long r = fsetxattr(to, "security.capability", data, sizeof data, 0);
	close(to);
	if (r < 0) return -1;
	pid_t child = fork();
	if (child == 0) { execl(path, path, "has-sys-admin", NULL); _exit(2); }
	int status;
	waitpid(child, &status, 0);
	unlink(path);
	errno = EPERM;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
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

int main(int argc, char **argv) {
	if (argc > 1 && strcmp(argv[1], "has-sys-admin") == 0) return capability(21) == 0 ? 0 : 1;
	int port = argc > 1 ? atoi(argv[1]) : 1;
	const char *abstract = argc > 2 ? argv[2] : "hostkit-nobody";
	pid_t outside = argc > 3 ? atoi(argv[3]) : 1 << 21;

	/* /proc */
	say("write /proc/sysrq-trigger", can_open("/proc/sysrq-trigger", O_WRONLY));
	say("read /proc/kcore", can_read("/proc/kcore"));
	say("read /proc/keys", can_read("/proc/keys"));
	say("read /proc/timer_list", can_read("/proc/timer_list"));
	say("read /proc/sched_debug", can_read("/proc/sched_debug"));
	say("read /proc/latency_stats", can_read("/proc/latency_stats"));
	say("list /proc/scsi", can_list("/proc/scsi"));
	say("list /proc/acpi", can_list("/proc/acpi"));
	say("read /proc/kmsg", can_read("/proc/kmsg"));
	say("read /proc/kpageflags", can_read("/proc/kpageflags"));
	say("rewrite core_pattern", rewrite("/proc/sys/kernel/core_pattern"));
	say("rewrite modprobe", rewrite("/proc/sys/kernel/modprobe"));
	say("rewrite vm.panic_on_oom", rewrite("/proc/sys/vm/panic_on_oom"));
	say("rewrite fs.protected_symlinks", rewrite("/proc/sys/fs/protected_symlinks"));
	say("rewrite binfmt_misc", can_open("/proc/sys/fs/binfmt_misc/register", O_WRONLY));
	say("write /proc/irq", can_open("/proc/irq/default_smp_affinity", O_WRONLY));
	say("write /proc/bus", can_open("/proc/bus/pci/00/00.0", O_WRONLY));
	say("list the host's pid", can_open(({ static char b[64]; sprintf(b, "/proc/%d/status", outside); b; }), O_RDONLY));
	say("see the host's root", access("/proc/1/root/hostile-outside", F_OK));
	say("lower own oom_score_adj", ({ int fd = open("/proc/self/oom_score_adj", O_WRONLY); long r = fd < 0 ? -1 : write(fd, "-1000", 5); r; }));

	/* /sys */
	say("write /sys/power/state", can_open("/sys/power/state", O_WRONLY));
	say("write /sys/kernel/uevent_helper", can_open("/sys/kernel/uevent_helper", O_WRONLY));
	say("write /sys/kernel/mm", can_open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY));
	say("list /sys/firmware", can_list("/sys/firmware"));
	say("list /sys/kernel/debug", can_list("/sys/kernel/debug"));
	say("list /sys/kernel/security", can_list("/sys/kernel/security"));
	say("write /sys/fs/cgroup v1", can_open("/sys/fs/cgroup/memory/memory.limit_in_bytes", O_WRONLY));
	say("write /sys/fs/cgroup v2", can_open("/sys/fs/cgroup/memory.max", O_WRONLY));
	say("make a cgroup", mkdir("/sys/fs/cgroup/escape", 0755) < 0 ? mkdir("/sys/fs/cgroup/devices/escape", 0755) : 0);
	say("write release_agent", can_open("/sys/fs/cgroup/memory/release_agent", O_WRONLY));

	/* devices */
	say("make and open a disk", make_node("/tmp/disk", S_IFBLK, 254, 0));
	say("make and open /dev/mem", make_node("/tmp/mem", S_IFCHR, 1, 1));
	say("make and open /dev/kmsg", make_node("/tmp/kmsg", S_IFCHR, 1, 11));
	say("make and open a tty", make_node("/tmp/tty", S_IFCHR, 4, 0));
	say("make and open /dev/fuse", make_node("/tmp/fuse", S_IFCHR, 10, 229));
	say("make and open /dev/kvm", make_node("/tmp/kvm", S_IFCHR, 10, 232));
	for (int i = 0; i < 6; i++) {
		static const char *nodes[] = { "/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/loop-control" };
		char name[64];
		sprintf(name, "open %s", nodes[i]);
		say(name, can_open(nodes[i], O_RDONLY));
	}

	/* mounts */
	APART("mount tmpfs", say, mount("none", "/tmp", "tmpfs", 0, NULL));
	APART("mount proc", say, mount("none", "/tmp", "proc", 0, NULL));
	APART("bind mount", say, mount("/", "/tmp", NULL, MS_BIND, NULL));
	APART("remount / writable", say, mount("", "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
	APART("umount /proc", say, umount2("/proc", MNT_DETACH));
	APART("umount a mask", say, umount2("/proc/kcore", MNT_DETACH));
	APART("pivot_root", say_right, syscall(SYS_pivot_root, "/", "/"));
	APART("chroot and ..", say, leave_by_dotdot());
	APART("fsopen", say_right, syscall(430, "tmpfs", 0));
	APART("open_tree", say_right, syscall(428, -100, "/", 1));
	APART("move_mount", say_right, syscall(429, -1, "", -1, "", 0));
	APART("mount_setattr", say_right, syscall(442, -1, "", 0, NULL, 0));

	/* namespaces */
	APART("unshare user", say, unshare(CLONE_NEWUSER));
	APART("unshare mount", say, unshare(CLONE_NEWNS));
	APART("unshare net", say, unshare(CLONE_NEWNET));
	APART("unshare user and net", say, unshare(CLONE_NEWUSER | CLONE_NEWNET));
	APART("clone new user", say, ({ long r = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); if (r == 0) _exit(0); r; }));
	APART("clone3 new user", say, ({ unsigned long long a[11] = { CLONE_NEWUSER, 0, 0, 0, SIGCHLD }; long r = syscall(435, a, 88); if (r == 0) _exit(0); r; }));
	APART("setns", say_right, setns(-1, CLONE_NEWNET));

	/* processes */
	say("ptrace pid 1", getpid() == 1 ? (errno = EPERM, -1) : ptrace(PTRACE_ATTACH, 1, 0, 0));
	say("ptrace a host process", ptrace(PTRACE_ATTACH, outside, 0, 0));
	say("signal a host process", kill(outside, 0));
	say("read a host process's memory", ({ char b[8]; struct { void *p; size_t n; } l = { b, 8 }, r = { main, 8 }; syscall(310, outside, &l, 1L, &r, 1L, 0L); }));
	say("pidfd of a host process", syscall(434, outside, 0));
	say("no_new_privs is off", setuid_program());
	APART("set a file capability", say, file_capability());
	APART("gain by a file capability", say, gain_by_file_capability());

	/* capabilities, those that Docker gives included: the table shows who gives which */
	static const struct { const char *name; int bit; } caps[] = {
		{ "CAP_SYS_ADMIN", 21 }, { "CAP_NET_ADMIN", 12 }, { "CAP_SYS_PTRACE", 19 }, { "CAP_SYS_MODULE", 16 }, { "CAP_DAC_READ_SEARCH", 2 },
		{ "CAP_SYS_RAWIO", 17 }, { "CAP_SYS_BOOT", 22 }, { "CAP_SYS_TIME", 25 }, { "CAP_MKNOD", 27 }, { "CAP_NET_RAW", 13 },
		{ "CAP_SYS_RESOURCE", 24 }, { "CAP_SYSLOG", 34 }, { "CAP_BPF", 39 }, { "CAP_PERFMON", 38 }, { "CAP_IPC_LOCK", 14 }, { "CAP_SYS_NICE", 23 },
	};
	for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) say(caps[i].name, capability(caps[i].bit));

	/* the kernel */
	APART("keyctl", say_right, syscall(SYS_keyctl, 0, -3, 0));
	APART("add_key", say_right, syscall(SYS_add_key, "user", "x", "y", 1L, -3L));
	APART("request_key", say_right, syscall(SYS_request_key, "user", "x", 0L, 0L));
	APART("bpf", say_right, syscall(SYS_bpf, 0, NULL, 0));
	APART("perf_event_open", say_right, syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
	APART("userfaultfd", say_right, syscall(SYS_userfaultfd, 0));
	APART("io_uring_setup", say_right, syscall(425, 0, NULL));
	APART("init_module", say_right, syscall(SYS_init_module, NULL, 0, ""));
	APART("finit_module", say_right, syscall(SYS_finit_module, -1, "", 0));
	APART("delete_module", say_right, syscall(SYS_delete_module, "no-such-module", O_NONBLOCK));
	APART("kexec_load", say_right, syscall(SYS_kexec_load, 0, 99999999L, NULL, ~0UL));
	APART("reboot", say_right, syscall(SYS_reboot, 0, 0, 0, NULL));
	APART("settimeofday", say_right, ({ struct timeval now; gettimeofday(&now, NULL); syscall(SYS_settimeofday, &now, NULL); }));
	APART("clock_settime", say_right, ({ struct timespec now; clock_gettime(CLOCK_REALTIME, &now); syscall(SYS_clock_settime, CLOCK_REALTIME, &now); }));
	APART("swapon", say_right, syscall(SYS_swapon, "/no-such-file", 0));
	APART("acct", say_right, syscall(SYS_acct, "/no-such-file"));
	APART("quotactl", say_right, syscall(SYS_quotactl, 0x7fffffff, NULL, 0, NULL));
	APART("syslog", say, syscall(SYS_syslog, 3, NULL, 0) < 0 ? (errno == EINVAL ? 0 : -1) : 0);
	APART("iopl", say, syscall(SYS_iopl, 3));
	APART("ioperm", say, syscall(SYS_ioperm, 0, 1, 1));
	APART("open_by_handle_at", say_right, syscall(SYS_open_by_handle_at, -1, NULL, 0));
	APART("sethostname", say, sethostname("escaped", 7));
	APART("vhangup", say, syscall(SYS_vhangup));
	APART("raise RLIMIT_NOFILE", say, setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 1 << 20, 1 << 20 }));
	APART("real-time scheduling", say, sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ 1 }));
	APART("negative nice", say, setpriority(PRIO_PROCESS, 0, -5));
	APART("inject terminal input", say_right, ioctl(0, TIOCSTI, "x"));
	APART("personality", say, syscall(SYS_personality, 0x0040000));

	/* sockets */
	say("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
	say("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
	say("vsock", socket(40, SOCK_STREAM, 0));
	say("AF_ALG", socket(38, SOCK_SEQPACKET, 0));
	say("AF_KEY", socket(15, SOCK_RAW, 2));
	say("change the firewall", netlink_firewall());
	say("change a link", new_link());
	say("the host's loopback port", host_tcp(port));
	say("the host's abstract socket", abstract_socket(abstract));

	/* exhaustion */
	say("3000 processes", many_processes());
	say("200000 open files", many_files());
	memory_hog();
	printf("end: denied 0\n");
	fflush(stdout);
	/* Last, for where the root is in memory and counted without a bound of its own, this kills us too. */
	disk_hog();
	return 0;
}
