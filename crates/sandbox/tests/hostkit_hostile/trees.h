/* Searches: whatever in a tree can be written to, whatever leads out of the root, whatever was left open. */
#include <dirent.h>
#include <stdbool.h>

/* No more lines than this for one tree. */
#define MOST_FOUND 300

struct walk {
	int files, found;
	/* What to do with a file; the path is as the program sees it. */
	bool (*finds)(const char *path, const struct stat *file);
};

static void walk(struct walk *w, const char *path, int depth) {
	DIR *dir = opendir(path);
	if (!dir || depth > 24) { if (dir) closedir(dir); return; }
	for (struct dirent *entry; (entry = readdir(dir));) {
		char below[1024];
		struct stat s;
		bool process = strcmp(path, "/proc") == 0 && entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || process) continue;
		if (snprintf(below, sizeof below, "%s/%s", path, entry->d_name) >= (int)sizeof below || lstat(below, &s) < 0) continue;
		w->files++;
		if (S_ISDIR(s.st_mode)) walk(w, below, depth + 1);
		if (w->found < MOST_FOUND && w->finds(below, &s)) {
			w->found++;
			printf("found: %s: allowed\n", below);
			fflush(stdout);
		}
	}
	closedir(dir);
}

/* Opened and not written: that the right is there is enough to know. */
static bool writable(const char *path, const struct stat *file) {
	if (!S_ISREG(file->st_mode)) return false;
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0) close(fd);
	return fd >= 0;
}

/* A group is a folder; a new one below would have limits of its own. */
static bool can_grow(const char *path, const struct stat *file) {
	char below[1100];
	if (!S_ISDIR(file->st_mode)) return writable(path, file);
	snprintf(below, sizeof below, "%s/escape", path);
	if (mkdir(below, 0755) < 0) return false;
	rmdir(below);
	return true;
}

/* A device that not every container has. */
static bool strange_device(const char *path, const struct stat *file) {
	unsigned major_ = major(file->st_rdev), minor_ = minor(file->st_rdev);
	if (!S_ISBLK(file->st_mode) && !S_ISCHR(file->st_mode)) return false;
	if (S_ISCHR(file->st_mode) && ((major_ == 1 && minor_ >= 3 && minor_ <= 9) || (major_ == 5 && minor_ <= 2) || major_ == 136)) return false;
	return can_open(path, O_RDONLY) >= 0;
}

static void search_trees(void) {
	static const struct { const char *path; bool (*finds)(const char *, const struct stat *); int least; } trees[] = {
		{ "/proc", writable, 500 }, { "/sys", writable, 500 }, { "/sys/fs/cgroup", can_grow, 0 }, { "/dev", strange_device, 5 },
	};
	for (size_t i = 0; i < sizeof trees / sizeof *trees; i++) {
		char name[64];
		struct walk w = { .finds = trees[i].finds };
		walk(&w, trees[i].path, 0);
		sprintf(name, "control: walked %s", trees[i].path);
		errno = ENODATA;
		say(name, w.files >= trees[i].least ? 0 : -1);
	}
}

/* === ways out of the root === */

/* Whether a path leads to something above our own root: the parent of the root is the root. */
static long leads_out(const char *path) {
	struct stat root, there;
	if (stat("/", &root) < 0 || stat(path, &there) < 0) return -1;
	errno = EXDEV;
	return root.st_dev == there.st_dev && root.st_ino == there.st_ino ? -1 : 0;
}

static long leads_out_by_link(const char *target) {
	unlink("/tmp/door");
	if (symlink(target, "/tmp/door") < 0) return -1;
	long r = leads_out("/tmp/door");
	int e = errno;
	unlink("/tmp/door");
	errno = e;
	return r;
}

/* The folders that the root is laid over, which the kernel names to whoever asks. */
static long lower_folders(void) {
	static char line[1 << 16];
	long r = -1;
	FILE *file = fopen("/proc/self/mountinfo", "re");
	int e = ENODATA;
	while (file && fgets(line, sizeof line, file)) {
		static const char *options[] = { "lowerdir=", "upperdir=", "workdir=", "lowerdir+=" };
		for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
			char *at = strstr(line, options[i]);
			if (!at) continue;
			char *list = strndup(at + strlen(options[i]), strcspn(at + strlen(options[i]), ", \n"));
			for (char *rest = list, *one; (one = strsep(&rest, ":"));) {
				e = ENOENT;
				if (*one == '/' && access(one, F_OK) == 0) r = 0;
			}
			free(list);
		}
	}
	if (file) fclose(file);
	errno = e;
	return r;
}

/* A descriptor that whoever started us forgot: a folder of the host among them would be a way out. */
static long left_open(void) {
	for (int fd = 3; fd < 4096; fd++) if (fcntl(fd, F_GETFD) >= 0) return fd;
	errno = EBADF;
	return -1;
}

struct handle { struct file_handle head; unsigned char bytes[128]; };

/* A file by its number instead of its name, past every mount: the way out that became known as "shocker". */
static long by_handle(bool guessed) {
	struct handle h = { .head = { .handle_bytes = sizeof h.bytes } };
	int mount;
	if (guessed) {
		h.head.handle_type = 1; /* inode and generation; the root of most file systems is inode 2 */
		h.head.handle_bytes = 8;
		h.head.f_handle[0] = 2;
	} else if (name_to_handle_at(AT_FDCWD, "/dev", &h.head, &mount, 0) < 0) {
		return -1;
	}
	int at = open(guessed ? "/" : "/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long fd = open_by_handle_at(at, &h.head, O_RDONLY | O_CLOEXEC);
	int e = errno;
	close(at);
	if (fd >= 0) close(fd);
	errno = e;
	return fd;
}
