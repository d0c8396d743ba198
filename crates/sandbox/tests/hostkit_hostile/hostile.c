/*
 * A container that tries to get out. Every attempt prints one line, `name: denied ERRNO` or `name: allowed`.
 * No attempt would do lasting harm if it did succeed: values written are the ones that were read, calls are made with arguments that
 * the kernel refuses only after it has checked the right to make them.
 */
#include "attempts.h"
#include "neighbours.h"
#include "trees.h"

int main(int argc, char **argv) {
	if (argc == 2 && strcmp(argv[1], "has-sys-admin") == 0) return capability(21) == 0 ? 0 : 1;
	if (argc == 2 && strcmp(argv[1], "is-root") == 0) return geteuid() == 0 ? 0 : 1;
	if (argc == 2 && strcmp(argv[1], "ptrace-1") == 0) return take_over_first_process() == 0 ? 0 : 1;
	if (argc == 2 && strcmp(argv[1], "neighbour") == 0) return be_the_neighbour();
	if (argc != 9) return 64;
	/* What is outside: a port and an abstract socket of the host's loopback, a process, two addresses, the port that is meant to be
	   reached (or 0), and another instance. */
	int port = atoi(argv[1]), allowed = atoi(argv[6]);
	const char *abstract = argv[2], *host = argv[4], *gateway = argv[5], *neighbour = argv[7];
	pid_t outside = atoi(argv[3]), other = atoi(argv[8]);

	/* Before anything of our own is open. */
	say("a descriptor left open", left_open());

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
	say("write uid_map", ({ int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC); fd < 0 ? -1 : closing(fd, write(fd, "0 0 1", 5)); }));
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
	say("make and open /dev/port", make_node("/tmp/port", S_IFCHR, 1, 4));
	say("make and open a loop device", make_node("/tmp/loop", S_IFBLK, 7, 0));
	say("make and open the loop control", make_node("/tmp/loop-control", S_IFCHR, 10, 237));
	say("make and open /dev/userfaultfd", make_node("/tmp/userfaultfd", S_IFCHR, 10, 126));
	for (int i = 0; i < 10; i++) {
		static const char *nodes[] = { "/dev/mem", "/dev/kmsg", "/dev/port", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/loop-control", "/dev/loop0",
			"/dev/userfaultfd", "/dev/vhost-net" };
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
	APART("open_tree with a copy", say_right, syscall(428, -100, "/", 1 | O_CLOEXEC));
	APART("fsconfig", say_right, syscall(431, -1, 6, NULL, NULL, 0));
	APART("fsmount", say_right, syscall(432, -1, 0, 0));
	APART("fspick", say_right, syscall(433, -100, "/", 0));
	APART("mount cgroup v1", say, mount("none", "/tmp", "cgroup", 0, "memory"));
	APART("mount cgroup v2", say, mount("none", "/tmp", "cgroup2", 0, NULL));
	APART("mount sysfs", say, mount("none", "/tmp", "sysfs", 0, NULL));
	APART("mount a loop device", say, mount("/dev/loop0", "/tmp", "ext4", MS_RDONLY, NULL));
	APART("move /proc away", say, mount("/proc", "/tmp", NULL, MS_MOVE, NULL));
	APART("make / shared", say, mount("", "/", NULL, MS_SHARED | MS_REC, NULL));
	APART("mount_setattr", say_right, syscall(442, -1, "", 0, NULL, 0));

	/* namespaces */
	APART("unshare user", say, unshare(CLONE_NEWUSER));
	APART("unshare mount", say, unshare(CLONE_NEWNS));
	APART("unshare net", say, unshare(CLONE_NEWNET));
	APART("unshare user and net", say, unshare(CLONE_NEWUSER | CLONE_NEWNET));
	APART("clone new user", say, ({ long r = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); if (r == 0) _exit(0); r; }));
	APART("clone3 new user", say, ({ unsigned long long a[11] = { CLONE_NEWUSER, 0, 0, 0, SIGCHLD }; long r = syscall(435, a, 88); if (r == 0) _exit(0); r; }));
	static const struct { const char *name; int flag; } kinds[] = {
		{ "pid", CLONE_NEWPID }, { "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS }, { "cgroup", 0x02000000 }, { "time", 0x80 },
	};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char name[64];
		sprintf(name, "unshare %s", kinds[i].name);
		APART(name, say, unshare(kinds[i].flag));
	}
	APART("clone3 new user and mount", say, ({ unsigned long long a[11] = { CLONE_NEWUSER | CLONE_NEWNS, 0, 0, 0, SIGCHLD }; long r = syscall(435, a, 88); if (r == 0) _exit(0); r; }));
	APART("clone3 into a cgroup", say, ({ unsigned long long a[11] = { 0x200000000ULL, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 999 }; long r = syscall(435, a, 88); if (r == 0) _exit(0); r; }));
	APART("setns", say_right, setns(-1, CLONE_NEWNET));

	/* processes */
	say("ptrace pid 1", getpid() == 1 ? (errno = EPERM, -1) : ptrace(PTRACE_ATTACH, 1, 0, 0));
	say("ptrace a host process", ptrace(PTRACE_ATTACH, outside, 0, 0));
	say("signal a host process", kill(outside, 0));
	say("read a host process's memory", ({ char b[8]; struct { void *p; size_t n; } l = { b, 8 }, r = { main, 8 }; syscall(310, outside, &l, 1L, &r, 1L, 0L); }));
	say("pidfd of a host process", syscall(434, outside, 0));
	say("no_new_privs is off", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? (errno = EPERM, -1) : 0);
	say("ptrace pid 1 from an executed program", exec_says("/proc/self/exe", "ptrace-1", 0));
	say("ptrace pid 1 as another user", exec_says("/proc/self/exe", "ptrace-1", 1000));
	APART("read pid 1's memory as another user", say, setresuid(1000, 1000, 1000) < 0 ? -1 : can_open("/proc/1/mem", O_RDWR));
	APART("gain by a setuid program", say, gain_by_setuid());
	APART("set a file capability", say, file_capability());
	APART("gain by a file capability", say, gain_by_file_capability());

	/* capabilities, but for those that root in a container needs to be root over its own files and users */
	static const struct { const char *name; int bit; } caps[] = {
		{ "CAP_SYS_ADMIN", 21 }, { "CAP_NET_ADMIN", 12 }, { "CAP_SYS_PTRACE", 19 }, { "CAP_SYS_MODULE", 16 }, { "CAP_DAC_READ_SEARCH", 2 },
		{ "CAP_SYS_RAWIO", 17 }, { "CAP_SYS_BOOT", 22 }, { "CAP_SYS_TIME", 25 }, { "CAP_MKNOD", 27 }, { "CAP_NET_RAW", 13 },
		{ "CAP_SETFCAP", 31 }, { "CAP_SYS_CHROOT", 18 }, { "CAP_AUDIT_CONTROL", 30 }, { "CAP_MAC_ADMIN", 33 }, { "CAP_LINUX_IMMUTABLE", 9 },
		{ "CAP_IPC_OWNER", 15 }, { "CAP_SYS_PACCT", 20 }, { "CAP_SYS_TTY_CONFIG", 26 }, { "CAP_LEASE", 28 }, { "CAP_WAKE_ALARM", 35 },
		{ "CAP_CHECKPOINT_RESTORE", 40 }, { "CAP_NET_BIND_SERVICE", 10 }, { "CAP_AUDIT_WRITE", 29 },
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
	APART("io_uring_enter", say_right, syscall(426, -1, 0, 0, 0, NULL, 0));
	APART("io_uring_register", say_right, syscall(427, -1, 0, NULL, 0));
	APART("bpf map", say_right, ({ unsigned a[32] = { 2, 4, 4, 1 }; syscall(SYS_bpf, 0, a, sizeof a); }));
	APART("bpf program", say_right, ({ unsigned long long i[2] = { 0xb7, 0x95 }; unsigned long long a[16] = { 1ULL | 2ULL << 32, (unsigned long)i, (unsigned long)"GPL" }; syscall(SYS_bpf, 5, a, sizeof a); }));
	APART("count the host's cycles", say_right, ({ unsigned a[32] = { 0, sizeof a }; syscall(SYS_perf_event_open, a, -1, 0, -1, 0); }));
	APART("join a session keyring", say_right, syscall(SYS_keyctl, 1, "hostkit"));
	APART("kexec_file_load", say_right, syscall(SYS_kexec_file_load, -1, -1, 0, "", 0));
	APART("swapoff", say_right, syscall(SYS_swapoff, "/no-such-file"));
	APART("quotactl_fd", say_right, syscall(443, -1, 0, 0, NULL));
	APART("fanotify", say_right, syscall(SYS_fanotify_init, 0, O_RDONLY));
	APART("kcmp", say_right, syscall(SYS_kcmp, getpid(), getpid(), 99, 0, 0));
	APART("pidfd_getfd", say_right, syscall(438, -1, 0, 0));
	APART("move_pages", say_right, syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0));
	APART("mbind", say_right, syscall(SYS_mbind, NULL, 0, 0, NULL, 0, 0));
	APART("set_mempolicy", say_right, syscall(SYS_set_mempolicy, 0, NULL, 0));
	APART("lookup_dcookie", say_right, syscall(SYS_lookup_dcookie, 0, NULL, 0));
	APART("setdomainname", say, setdomainname("escaped", 7));
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
	APART("inject into a terminal of my own", say_right, ({ int p = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC); ioctl(p, TIOCSTI, "x"); }));
	APART("paste into the console", say_right, ioctl(0, 0x541c, "\3"));
	APART("personality", say, syscall(SYS_personality, 0x0040000));

	/* the numbers of files, and ways up from the root */
	APART("open_by_handle_at of what I see", say, by_handle(false));
	APART("open_by_handle_at of the disk's root", say, by_handle(true));
	say("the folders under my root", lower_folders());
	say("/..", leads_out("/.."));
	say("/proc/self/root/..", leads_out("/proc/self/root/../.."));
	say("/proc/1/root/..", leads_out("/proc/1/root/../.."));
	say("/proc/1/cwd/..", leads_out("/proc/1/cwd/../../../.."));
	say("a link to /proc/1/root/..", leads_out_by_link("/proc/1/root/.."));
	say("a link to the host's init", leads_out_by_link("/proc/self/task/1/root/../.."));
	say("set a trusted.overlay attribute", setxattr("/tmp", "trusted.overlay.opaque", "y", 1, 0));

	/* sockets */
	say("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
	say("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
	say("vsock", socket(40, SOCK_STREAM, 0));
	say("AF_ALG", socket(38, SOCK_SEQPACKET, 0));
	say("AF_KEY", socket(15, SOCK_RAW, 2));
	say("AF_XDP", socket(44, SOCK_RAW, 0));
	say("AF_TIPC", socket(30, SOCK_STREAM, 0));
	say("AF_BLUETOOTH", socket(31, SOCK_RAW, 1));
	say("AF_CAN", socket(29, SOCK_RAW, 1));
	say("audit socket", socket(AF_NETLINK, SOCK_RAW, 9));
	say("crypto socket", socket(AF_NETLINK, SOCK_RAW, 21));
	say("change the firewall", netlink_firewall());
	say("change a link", new_link());
	say("the host's abstract socket", abstract_socket(abstract));

	reach_for_neighbours(host, gateway, port, allowed, neighbour, other);
	search_trees();

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
