/* Preloaded into ranks: makes writes below a folder fail, and sets the clock back. The environment says which and when.

   FAULT_FOLDER FAULT_ERRNO FAULT_AT FAULT_COUNT   the writes number AT to AT + COUNT - 1 below the folder fail so
   CLOCK_BACK   CLOCK_AFTER                        the clock is set back by so many seconds after so many seconds

   fault_writes() returns the number of writes below the folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_long writes;

long fault_writes(void) { return writes; }

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int fails(int fd) {
    const char *folder = getenv("FAULT_FOLDER");
    char link[32] = "/proc/self/fd/", path[4096], digits[12];
    if (!folder || fd < 0) return 0;
    int kept = errno, place = 11;
    digits[place] = 0;
    do digits[--place] = '0' + fd % 10; while (fd /= 10);
    strcat(link, digits + place);
    ssize_t size = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (size < 0) return 0;
    path[size] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    long n = atomic_fetch_add(&writes, 1), at = number("FAULT_AT");
    if (n < at || n >= at + number("FAULT_COUNT")) return 0;
    errno = number("FAULT_ERRNO");
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) { return fails(fd) ? -1 : syscall(SYS_write, fd, data, size); }

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails(fd) ? -1 : syscall(SYS_writev, fd, parts, count);
}

ssize_t sendfile64(int out, int in, off_t *at, size_t size) {
    return fails(out) ? -1 : syscall(SYS_sendfile, out, in, at, size);
}

ssize_t sendfile(int out, int in, off_t *at, size_t size) { return sendfile64(out, in, at, size); }

int fsync(int fd) { return fails(fd) ? -1 : syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return fails(fd) ? -1 : syscall(SYS_fdatasync, fd); }

static time_t back(void) {
    static time_t begun;
    struct timespec now;
    if (!getenv("CLOCK_BACK")) return 0;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if (!begun) begun = now.tv_sec;
    return now.tv_sec - begun >= number("CLOCK_AFTER") ? number("CLOCK_BACK") : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec -= back();
    return failed;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
