/* Another instance on the same host, what it leaves open, and the ways one might get at it or at the host over the network. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#define NEIGHBOUR_PORT 7777
#define NEIGHBOUR_KEY 0x6c617566
#define NEIGHBOUR_NAME "hostkit-neighbour"

/* === the neighbour === */

static int ear(int kind) {
	int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(NEIGHBOUR_PORT) };
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); exit(1); }
	if (kind == SOCK_STREAM && listen(fd, 16) < 0) { perror("listen"); exit(1); }
	return fd;
}

/* Takes connections and sends datagrams back, until it is killed. */
static void answer(int tcp, int udp) {
	struct pollfd ears[2] = { { tcp, POLLIN, 0 }, { udp, POLLIN, 0 } };
	while (poll(ears, 2, -1) > 0) {
		char buffer[64];
		struct sockaddr_in from;
		socklen_t size = sizeof from;
		if (ears[0].revents) close(accept(tcp, NULL, NULL));
		if (ears[1].revents) {
			long n = recvfrom(udp, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size);
			if (n >= 0) sendto(udp, buffer, n, 0, (struct sockaddr *)&from, size);
		}
	}
}

/* Leaves a thing of each kind behind and answers on its port. */
static int be_the_neighbour(void) {
	int tcp = ear(SOCK_STREAM), udp = ear(SOCK_DGRAM), local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strcpy(a.sun_path + 1, NEIGHBOUR_NAME);
	bind(local, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(NEIGHBOUR_NAME));
	listen(local, 16);
	shmget(NEIGHBOUR_KEY, 4096, IPC_CREAT | 0666);
	mq_open("/" NEIGHBOUR_NAME, O_CREAT | O_RDWR, 0666, NULL);
	close(open("/dev/shm/" NEIGHBOUR_NAME, O_CREAT | O_RDWR | O_CLOEXEC, 0666));
	close(open("/tmp/" NEIGHBOUR_NAME, O_CREAT | O_RDWR | O_CLOEXEC, 0666));
	printf("ready\n");
	fflush(stdout);
	answer(tcp, udp);
	return 0;
}

/* === getting at it === */

/* How long an answer is waited for that should never come. */
#define PATIENCE_MS 400

static long wait_for(int fd, short what) {
	struct pollfd p = { fd, what, 0 };
	if (poll(&p, 1, PATIENCE_MS) != 1) { errno = ETIMEDOUT; return -1; }
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	errno = error;
	return error ? -1 : 0;
}

static long closing(int fd, long result) {
	int e = errno;
	close(fd);
	errno = e;
	return result;
}

static struct sockaddr_in address(const char *ip, int port) {
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, ip, &a.sin_addr);
	return a;
}

static long tcp(const char *ip, int port) {
	struct sockaddr_in a = address(ip, port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return -1;
	long r = connect(fd, (struct sockaddr *)&a, sizeof a);
	if (r < 0 && errno == EINPROGRESS) r = wait_for(fd, POLLOUT);
	return closing(fd, r);
}

/* Whoever listens sends back what it gets. */
static long udp(const char *ip, int port) {
	struct sockaddr_in a = address(ip, port);
	char answer[8];
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return -1;
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
	long r = sendto(fd, "hello", 5, 0, (struct sockaddr *)&a, sizeof a);
	if (r >= 0) r = wait_for(fd, POLLIN);
	if (r >= 0) r = recv(fd, answer, sizeof answer, 0);
	return closing(fd, r);
}

static long ping(const char *ip) {
	struct sockaddr_in a = address(ip, 0);
	struct icmphdr echo = { .type = ICMP_ECHO, .un.echo.sequence = htons(1) };
	char answer[128];
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP);
	if (fd < 0) return -1;
	long r = sendto(fd, &echo, sizeof echo, 0, (struct sockaddr *)&a, sizeof a);
	if (r >= 0) r = wait_for(fd, POLLIN);
	if (r >= 0) r = recv(fd, answer, sizeof answer, 0);
	if (r >= 0 && ((struct icmphdr *)answer)->type != ICMP_ECHOREPLY) { errno = EHOSTUNREACH; r = -1; }
	return closing(fd, r);
}

static bool is_my_own(const struct in6_addr *ip) {
	struct ifaddrs *all = NULL;
	bool mine = false;
	getifaddrs(&all);
	for (struct ifaddrs *i = all; i; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET6) mine |= memcmp(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, ip, sizeof *ip) == 0;
	freeifaddrs(all);
	return mine;
}

/* All nodes on the link: a neighbour's kernel would answer, and so does our own. */
static long ping_all_nodes(void) {
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 }, from;
	struct if_nameindex *all = if_nameindex();
	for (struct if_nameindex *i = all; i && i->if_index; i++) if (strcmp(i->if_name, "lo") != 0) a.sin6_scope_id = i->if_index;
	if_freenameindex(all);
	if (!a.sin6_scope_id) { errno = ENODEV; return -1; }
	inet_pton(AF_INET6, "ff02::1", &a.sin6_addr);
	unsigned char echo[8] = { 128, 0, 0, 0, 0, 0, 0, 1 }, answer[128];
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6);
	if (fd < 0) return -1;
	long r = sendto(fd, echo, sizeof echo, 0, (struct sockaddr *)&a, sizeof a);
	while (r >= 0 && (r = wait_for(fd, POLLIN)) >= 0) {
		socklen_t size = sizeof from;
		r = recvfrom(fd, answer, sizeof answer, 0, (struct sockaddr *)&from, &size);
		if (r > 0 && !is_my_own(&from.sin6_addr)) break;
	}
	return closing(fd, r);
}

/* Beside what the namespace should have: its loopback, its own way out, and what kernels put into every namespace. */
static long foreign_links(void) {
	struct if_nameindex *all = if_nameindex();
	int strange = 0;
	for (struct if_nameindex *i = all; i && i->if_index; i++) {
		static const char *ours[] = { "lo", "eth0", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0" };
		int known = 0;
		for (size_t k = 0; k < sizeof ours / sizeof *ours; k++) known |= strcmp(i->if_name, ours[k]) == 0;
		strange += !known;
	}
	errno = ENODEV;
	return strange ? 0 : -1;
}

static void reach_for_neighbours(const char *host, const char *gateway, int port, int allowed, const char *ip, pid_t pid) {
	char name[64];
	/* None of these is a breach; they show that a refusal below is one. */
	int ears[2] = { ear(SOCK_STREAM), ear(SOCK_DGRAM) };
	pid_t self = fork();
	if (self == 0) answer(ears[0], ears[1]);
	say("control: a port of my own", tcp("127.0.0.1", NEIGHBOUR_PORT));
	say("control: a datagram to myself", udp("127.0.0.1", NEIGHBOUR_PORT));
	kill(self, SIGKILL);
	waitpid(self, NULL, 0);
	close(ears[0]);
	close(ears[1]);
	if (allowed) say("control: the open port of the host", tcp(gateway, allowed));

	say("the host's loopback port", tcp("127.0.0.1", port));
	say("a closed port of the host's gateway address", tcp(gateway, port));
	say("a closed UDP port of the host's gateway address", udp(gateway, port));
	say("a port of the host's own address", tcp(host, port));
	say("a UDP port of the host's own address", udp(host, port));
	say("the open port at the host's own address", allowed ? tcp(host, allowed) : (errno = ENETUNREACH, -1));
	say("a cloud's metadata address", tcp("169.254.169.254", 80));
	say("a neighbour by TCP", tcp(ip, NEIGHBOUR_PORT));
	say("a neighbour by UDP", udp(ip, NEIGHBOUR_PORT));
	say("a neighbour by ICMP", ping(ip));
	say("a neighbour by broadcast", udp("255.255.255.255", NEIGHBOUR_PORT));
	say("a neighbour by multicast", udp("224.0.0.1", NEIGHBOUR_PORT));
	say("a neighbour by IPv6", ping_all_nodes());
	say("somebody else's link", foreign_links());

	say("a neighbour's abstract socket", abstract_socket(NEIGHBOUR_NAME));
	say("a neighbour's shared memory", shmget(NEIGHBOUR_KEY, 0, 0));
	say("a neighbour's message queue", mq_open("/" NEIGHBOUR_NAME, O_RDWR));
	say("a neighbour's /dev/shm", can_open("/dev/shm/" NEIGHBOUR_NAME, O_RDWR));
	say("a neighbour's /tmp", can_open("/tmp/" NEIGHBOUR_NAME, O_RDWR));
	say("signal a neighbour", kill(pid, 0));
	say("ptrace a neighbour", ptrace(PTRACE_ATTACH, pid, 0, 0));
	say("pidfd of a neighbour", syscall(434, pid, 0));
	sprintf(name, "/proc/%d/root/tmp/" NEIGHBOUR_NAME, pid);
	say("a neighbour's files by its process", can_open(name, O_RDWR));
	sprintf(name, "/proc/%d/fd", pid);
	say("a neighbour's descriptors", can_list(name));
	sprintf(name, "/proc/%d/ns/net", pid);
	say("a neighbour's namespace", can_open(name, O_RDONLY));
	sprintf(name, "/proc/%d/mem", pid);
	say("a neighbour's memory", can_open(name, O_RDONLY));
}
