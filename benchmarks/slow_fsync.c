/* Preloaded, it makes every fsync and fdatasync of a process SLOW_FSYNC_MS milliseconds slower. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static struct timespec delay;

__attribute__((constructor)) static void prepare(void)
{
    const char *text = getenv("SLOW_FSYNC_MS");
    double seconds = text ? atof(text) / 1000 : 0;
    delay.tv_sec = (time_t)seconds;
    delay.tv_nsec = (long)((seconds - (double)delay.tv_sec) * 1e9);
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
}

static void wait_a_while(void)
{
    struct timespec left = delay;
    while (nanosleep(&left, &left) == -1 && errno == EINTR)
        ;
}

int fsync(int fd)
{
    wait_a_while();
    return real_fsync(fd);
}

int fdatasync(int fd)
{
    wait_a_while();
    return real_fdatasync(fd);
}
