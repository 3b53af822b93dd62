/* Preloaded into a process, it stands between it and the files of one folder: it writes down what is done to them, and
 * does to them what it is told. disk.py reads what it wrote, and tells.
 *
 * DISK_FOLDER   the folder, without symbolic links
 * DISK_CONTROL  a file with a `struct control`, which all processes map
 * DISK_JOURNAL  a folder in which every process keeps a journal
 *
 * A record is in the journal before its operation begins, with what is to be written, and marked when it has ended: of
 * a process that is killed the last may have happened, or a part of it, and what is marked has happened. A sync that is
 * not marked was none. Nothing is remembered about descriptors: each call asks the kernel whose file it has, so that
 * dup, fork, exec and descriptors that were handed over need no care.
 *
 * For Linux on 64 bits. What is mapped, copied by the kernel (sendfile, copy_file_range) or allocated ahead is not seen:
 * SQLite does so with its -shm file only, which means nothing after a power cut.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WHERE_IT_STANDS (-1)
#define NANOSECONDS 1000000000

enum kind { WRITE = 1, TRUNCATE, SYNC, SYNC_FOLDER, CREATE, MAKE_FOLDER, REMOVE, RENAME };

struct control {
    int64_t write_error; /* errno of every write; 0: none */
    int64_t sync_error;  /* errno of syncs */
    int64_t sync_errors; /* how many of them are yet to fail; -1: all */
    int64_t write_delay; /* nanoseconds */
    int64_t sync_delay;
    int64_t lying;  /* a sync does nothing, and says that it has */
    int64_t die_in; /* operations until the process is killed; 0: never */
    int64_t writes, syncs, bytes; /* that went well */
};

/* In the journal the name follows, then what was written, or the new name. */
struct record {
    int64_t kind, begun, ended, result; /* nanoseconds of CLOCK_MONOTONIC, 0 before; bytes written, or 0, or -errno */
    int64_t inode, born;                /* which file: a number is used again, but not with the same time */
    int64_t offset, length, name_length;
};

struct place {
    char path[PATH_MAX];
    const char *name; /* below the folder */
    int64_t inode, born;
    int is_folder;
};

static char folder[PATH_MAX], journals[PATH_MAX];
static struct control nothing_wrong;
static struct control *control = &nothing_wrong;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static off_t journal_end;

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * (int64_t)NANOSECONDS + time.tv_nsec;
}

static void wait_for(int64_t nanoseconds)
{
    struct timespec left = {nanoseconds / NANOSECONDS, nanoseconds % NANOSECONDS};
    while (nanoseconds > 0 && nanosleep(&left, &left) == -1 && errno == EINTR)
        ;
}

static void give_up(const char *why)
{
    dprintf(2, "disk: %s: %s\n", why, strerror(errno));
    abort();
}

/* --- the journal --- */

static void open_journal(void)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%d-%lld", journals, (int)getpid(), (long long)now());
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (journal == -1)
        give_up(path);
    journal_end = 0;
}

static void append(const struct iovec *parts, int count)
{
    ssize_t length = 0;
    for (int i = 0; i < count; i++)
        length += (ssize_t)parts[i].iov_len;
    if (syscall(SYS_pwritev, journal, parts, count, journal_end, 0) != length)
        give_up("the journal cannot be written");
    journal_end += length;
}

/* The n-th operation from when it was said is not begun any more. */
static void die_if_told(void)
{
    if (__atomic_load_n(&control->die_in, __ATOMIC_SEQ_CST) > 0 &&
        __atomic_sub_fetch(&control->die_in, 1, __ATOMIC_SEQ_CST) == 0)
        kill(getpid(), SIGKILL);
}

/* Write down what is about to be done; where that stands. */
static off_t begin(struct record *record, const char *name, const struct iovec *parts, int count)
{
    struct iovec all[2 + IOV_MAX] = {{record, sizeof *record}, {(void *)name, strlen(name)}};
    die_if_told();
    record->begun = now();
    record->name_length = (int64_t)strlen(name);
    memcpy(all + 2, parts, (size_t)count * sizeof *parts);
    pthread_mutex_lock(&turn);
    if (journal == -1)
        open_journal();
    off_t at = journal_end;
    append(all, 2 + count);
    pthread_mutex_unlock(&turn);
    return at;
}

/* Mark what is done; `result` as the caller is to have it. */
static int64_t end(off_t at, struct record *record, int64_t result)
{
    int error = errno;
    record->result = result == -1 ? -error : result;
    record->ended = now();
    if (syscall(SYS_pwrite64, journal, record, sizeof *record, at) != sizeof *record)
        give_up("the journal cannot be written");
    errno = error;
    return result;
}

static int64_t fail(int64_t error)
{
    errno = (int)error;
    return -1;
}

static void count(int64_t *counter, int64_t more)
{
    __atomic_add_fetch(counter, more, __ATOMIC_SEQ_CST);
}

/* --- which files --- */

static const char *name_in_folder(const char *path)
{
    size_t length = strlen(folder);
    if (length == 0 || strncmp(path, folder, length) != 0)
        return NULL;
    if (path[length] == '\0')
        return path + length;
    return path[length] == '/' ? path + length + 1 : NULL;
}

static int is_ours(int fd, struct place *place)
{
    char link[32];
    struct statx about;
    int error = errno, found = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = *folder ? readlink(link, place->path, PATH_MAX - 1) : 0;
    if (length > 0) {
        place->path[length] = '\0';
        place->name = name_in_folder(place->path);
        found = place->name && statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &about) == 0 &&
                about.stx_nlink > 0; /* else it has no name any more: nobody finds it after a power cut */
    }
    if (found) {
        place->inode = (int64_t)about.stx_ino;
        place->born = about.stx_btime.tv_sec * (int64_t)NANOSECONDS + about.stx_btime.tv_nsec;
        place->is_folder = S_ISDIR(about.stx_mode);
    }
    errno = error;
    return found;
}

/* The same for a path, of which the last part need not exist. */
static int is_our_path(int around, const char *path, struct place *place)
{
    char whole[2 * PATH_MAX], link[32];
    int error = errno;
    place->name = NULL;
    if (*folder) {
        snprintf(link, sizeof link, around == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", around);
        ssize_t length = *path == '/' ? 0 : readlink(link, whole, PATH_MAX - 1);
        snprintf(whole + (length > 0 ? length : 0), PATH_MAX, "/%s", path);
        char *last = strrchr(whole, '/');
        *last = '\0';
        if (realpath(*whole ? whole : "/", place->path)) {
            strncat(place->path, "/", PATH_MAX - strlen(place->path) - 1);
            strncat(place->path, last + 1, PATH_MAX - strlen(place->path) - 1);
            place->name = name_in_folder(place->path);
        }
    }
    errno = error;
    return place->name != NULL;
}

static struct record about(enum kind kind, const struct place *place)
{
    return (struct record){.kind = kind, .inode = place->inode, .born = place->born};
}

/* --- what is done to a file --- */

static ssize_t put(int fd, const struct place *place, const struct iovec *parts, int parts_count, off_t offset)
{
    struct record record = about(WRITE, place);
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    record.offset = offset != WHERE_IT_STANDS ? offset : lseek(fd, 0, appends ? SEEK_END : SEEK_CUR);
    for (int i = 0; i < parts_count; i++)
        record.length += (int64_t)parts[i].iov_len;
    off_t at = begin(&record, place->name, parts, parts_count);
    wait_for(control->write_delay);
    if (control->write_error)
        return end(at, &record, fail(control->write_error));
    ssize_t written = offset == WHERE_IT_STANDS ? syscall(SYS_writev, fd, parts, parts_count)
                                                : syscall(SYS_pwritev, fd, parts, parts_count, offset, 0);
    if (written >= 0) {
        count(&control->writes, 1);
        count(&control->bytes, written);
    }
    return end(at, &record, written);
}

static int cut_off(int fd, const struct place *place, off_t size)
{
    struct record record = about(TRUNCATE, place);
    record.offset = size;
    off_t at = begin(&record, place->name, NULL, 0);
    if (control->write_error)
        return (int)end(at, &record, fail(control->write_error));
    return (int)end(at, &record, syscall(SYS_ftruncate, fd, size));
}

static int sync_fails(void)
{
    int64_t left = __atomic_load_n(&control->sync_errors, __ATOMIC_SEQ_CST);
    while (left > 0 && !__atomic_compare_exchange_n(&control->sync_errors, &left, left - 1, 0, __ATOMIC_SEQ_CST,
                                                    __ATOMIC_SEQ_CST))
        ;
    return left != 0;
}

static int sync_to_disk(int fd, long number)
{
    struct place place;
    if (!is_ours(fd, &place))
        return (int)syscall(number, fd);
    if (control->lying)
        return 0;
    struct record record = about(place.is_folder ? SYNC_FOLDER : SYNC, &place);
    off_t at = begin(&record, place.name, NULL, 0);
    wait_for(control->sync_delay);
    if (sync_fails())
        return (int)end(at, &record, fail(control->sync_error));
    int64_t result = syscall(number, fd);
    count(&control->syncs, result == 0);
    return (int)end(at, &record, result);
}

static int open_file(int around, const char *path, int flags, mode_t mode)
{
    int error = errno, is_new = flags & O_CREAT && syscall(SYS_faccessat, around, path, F_OK) == -1;
    errno = error;
    int fd = (int)syscall(SYS_openat, around, path, flags, mode);
    struct place place;
    if (fd == -1 || !(is_new || flags & O_TRUNC) || !is_ours(fd, &place))
        return fd;
    struct record record = about(is_new ? CREATE : TRUNCATE, &place);
    end(begin(&record, place.name, NULL, 0), &record, 0);
    return fd;
}

static int remove_name(int around, const char *path, int flags)
{
    struct place place = {.inode = 0};
    if (!is_our_path(around, path, &place))
        return (int)syscall(SYS_unlinkat, around, path, flags);
    struct record record = about(REMOVE, &place);
    off_t at = begin(&record, place.name, NULL, 0);
    return (int)end(at, &record, syscall(SYS_unlinkat, around, path, flags));
}

static int make_folder(int around, const char *path, mode_t mode)
{
    struct place place = {.inode = 0};
    if (!is_our_path(around, path, &place))
        return (int)syscall(SYS_mkdirat, around, path, mode);
    struct record record = about(MAKE_FOLDER, &place);
    off_t at = begin(&record, place.name, NULL, 0);
    return (int)end(at, &record, syscall(SYS_mkdirat, around, path, mode));
}

static int change_name(int around, const char *path, int new_around, const char *new_path, unsigned flags)
{
    struct place old = {.inode = 0}, new = {.inode = 0};
    int from = is_our_path(around, path, &old), to = is_our_path(new_around, new_path, &new);
    if (from != to || flags) {
        if (from || to)
            return (int)fail(EXDEV); /* the folder is a disk of its own, and not of the newest */
        from = 0;
    }
    if (!from)
        return (int)syscall(SYS_renameat2, around, path, new_around, new_path, flags);
    struct record record = about(RENAME, &old);
    struct iovec name = {(void *)new.name, strlen(new.name)};
    record.length = (int64_t)name.iov_len;
    off_t at = begin(&record, old.name, &name, 1);
    return (int)end(at, &record, syscall(SYS_renameat2, around, path, new_around, new_path, 0));
}

/* --- what a process calls --- */

ssize_t write(int fd, const void *data, size_t length)
{
    struct place place;
    struct iovec part = {(void *)data, length};
    return is_ours(fd, &place) ? put(fd, &place, &part, 1, WHERE_IT_STANDS) : syscall(SYS_write, fd, data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    struct place place;
    struct iovec part = {(void *)data, length};
    return is_ours(fd, &place) ? put(fd, &place, &part, 1, offset) : syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite64(fd, data, length, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int parts_count)
{
    struct place place;
    return is_ours(fd, &place) ? put(fd, &place, parts, parts_count, WHERE_IT_STANDS)
                               : syscall(SYS_writev, fd, parts, parts_count);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int parts_count, off64_t offset)
{
    struct place place;
    return is_ours(fd, &place) ? put(fd, &place, parts, parts_count, offset)
                               : syscall(SYS_pwritev, fd, parts, parts_count, offset, 0);
}

ssize_t pwritev(int fd, const struct iovec *parts, int parts_count, off_t offset)
{
    return pwritev64(fd, parts, parts_count, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int parts_count, off64_t offset, int flags)
{
    struct place place;
    if (!is_ours(fd, &place))
        return syscall(SYS_pwritev2, fd, parts, parts_count, offset, 0, flags);
    return flags ? fail(EOPNOTSUPP) : put(fd, &place, parts, parts_count, offset);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int parts_count, off_t offset, int flags)
{
    return pwritev64v2(fd, parts, parts_count, offset, flags);
}

int ftruncate64(int fd, off64_t size)
{
    struct place place;
    return is_ours(fd, &place) ? cut_off(fd, &place, size) : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int fsync(int fd)
{
    return sync_to_disk(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_to_disk(fd, SYS_fdatasync);
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_file(AT_FDCWD, path, flags, mode);
}

int openat(int around, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_file(around, path, flags, mode);
}

int openat64(int around, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_file(around, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
    return open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return creat(path, mode);
}

int unlink(const char *path)
{
    return remove_name(AT_FDCWD, path, 0);
}

int unlinkat(int around, const char *path, int flags)
{
    return remove_name(around, path, flags);
}

int rmdir(const char *path)
{
    return remove_name(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdir(const char *path, mode_t mode)
{
    return make_folder(AT_FDCWD, path, mode);
}

int mkdirat(int around, const char *path, mode_t mode)
{
    return make_folder(around, path, mode);
}

int rename(const char *path, const char *new_path)
{
    return change_name(AT_FDCWD, path, AT_FDCWD, new_path, 0);
}

int renameat(int around, const char *path, int new_around, const char *new_path)
{
    return change_name(around, path, new_around, new_path, 0);
}

int renameat2(int around, const char *path, int new_around, const char *new_path, unsigned flags)
{
    return change_name(around, path, new_around, new_path, flags);
}

/* --- the beginning of a process --- */

static void begin_anew(void)
{
    pthread_mutex_init(&turn, NULL);
    if (journal != -1)
        close(journal);
    journal = -1;
}

__attribute__((constructor)) static void prepare(void)
{
    const char *wanted = getenv("DISK_FOLDER"), *path = getenv("DISK_CONTROL"), *notes = getenv("DISK_JOURNAL");
    if (!wanted || !path || !notes)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd == -1 || control == MAP_FAILED)
        give_up(path);
    close(fd);
    pthread_atfork(NULL, NULL, begin_anew);
    snprintf(journals, sizeof journals, "%s", notes);
    snprintf(folder, sizeof folder, "%s", wanted);
}
