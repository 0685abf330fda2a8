/* Files and wake-ups. */
#include "include/hr_system.h"
#include "meet.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/mount.h>
#include <sys/param.h>
#endif

static int32_t type_of(mode_t mode)
{
    if (S_ISREG(mode))
        return HR_TYPE_FILE;
    if (S_ISDIR(mode))
        return HR_TYPE_DIRECTORY;
    if (S_ISFIFO(mode))
        return HR_TYPE_PIPE;
    if (S_ISSOCK(mode))
        return HR_TYPE_SOCKET;
    return HR_TYPE_DEVICE;
}

int32_t hr_path_type(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0)
        return type_of(status.st_mode);
    return errno == ENOENT ? HR_TYPE_MISSING : -errno;
}

int32_t hr_open(const char *path, bool writable)
{
    int flags = O_CLOEXEC | O_NONBLOCK | (writable ? O_RDWR | O_CREAT : O_RDONLY);
    int descriptor;
    do
        descriptor = open(path, flags, 0666);
    while (descriptor < 0 && errno == EINTR);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t hr_close_descriptor(int32_t descriptor)
{
    return close(descriptor) == 0 ? 0 : -errno;
}

int32_t hr_file_stat(int32_t descriptor, int64_t *byte_length)
{
    int32_t code = HR_MEET(FSTAT, NULL);
    if (code != 0)
        return -code;
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return -errno;
    *byte_length = status.st_size;
    return type_of(status.st_mode);
}

int64_t hr_pread(int32_t descriptor, void *bytes, size_t byte_length, int64_t offset)
{
    int32_t code = HR_MEET(PREAD, &byte_length);
    if (code != 0)
        return -code;
    ssize_t count = pread(descriptor, bytes, byte_length, offset);
    return count < 0 ? -errno : count;
}

int64_t hr_pwrite(int32_t descriptor, const void *bytes, size_t byte_length, int64_t offset)
{
    int32_t code = HR_MEET(PWRITE, &byte_length);
    if (code != 0)
        return -code;
    ssize_t count = pwrite(descriptor, bytes, byte_length, offset);
    return count < 0 ? -errno : count;
}

static int32_t sync_once(int32_t descriptor, int32_t how)
{
#ifdef __APPLE__
    if (how == HR_SYNC_FULL)
        return fcntl(descriptor, F_FULLFSYNC) == -1 ? -errno : 0;
    if (how == HR_SYNC_BARRIER)
        return fcntl(descriptor, F_BARRIERFSYNC) == -1 ? -errno : 0;
    return fsync(descriptor) == 0 ? 0 : -errno;
#else
    return (how == HR_SYNC_BARRIER ? fdatasync(descriptor) : fsync(descriptor)) == 0 ? 0 : -errno;
#endif
}

int32_t hr_sync_file(int32_t descriptor, int32_t how)
{
    int32_t code = HR_MEET(SYNC, NULL);
    if (code != 0)
        return -code;
    int32_t result = sync_once(descriptor, how);
    /* Volumes that know nothing stronger have fsync. */
    if (how != HR_SYNC_PLAIN && (result == -ENOTSUP || result == -ENOTTY || result == -EINVAL))
        result = sync_once(descriptor, HR_SYNC_PLAIN);
    return result;
}

int32_t hr_no_cache(int32_t descriptor)
{
#ifdef __APPLE__
    return fcntl(descriptor, F_NOCACHE, 1) == -1 ? -errno : 0;
#else
    /* O_DIRECT would ask for aligned memory, and advice to drop pages would drop those of others. */
    (void)descriptor;
    return 0;
#endif
}

int32_t hr_preallocate(int32_t descriptor, int64_t byte_length)
{
#ifdef __APPLE__
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return -errno;
    int64_t more = byte_length - (int64_t)status.st_blocks * 512;
    if (more <= 0)
        return 0;
    fstore_t store = {.fst_flags = F_ALLOCATECONTIG, .fst_posmode = F_PEOFPOSMODE, .fst_offset = 0, .fst_length = more};
    if (fcntl(descriptor, F_PREALLOCATE, &store) != -1)
        return 0;
    store.fst_flags = F_ALLOCATEALL;
    return fcntl(descriptor, F_PREALLOCATE, &store) == -1 ? -errno : 0;
#else
    int result;
    do
        result = fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, byte_length);
    while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : -errno;
#endif
}

int32_t hr_is_local(int32_t descriptor)
{
#ifdef __APPLE__
    struct statfs volume;
    if (fstatfs(descriptor, &volume) != 0)
        return -errno;
    return (volume.f_flags & MNT_LOCAL) != 0;
#else
    (void)descriptor;
    return 1;
#endif
}

int32_t hr_socket_pair(int32_t *ends)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        int flags = fcntl(pair[i], F_GETFL);
        if (flags == -1 || fcntl(pair[i], F_SETFL, flags | O_NONBLOCK) == -1 || fcntl(pair[i], F_SETFD, FD_CLOEXEC) == -1) {
            int error = errno;
            close(pair[0]);
            close(pair[1]);
            return -error;
        }
#ifdef __APPLE__
        int on = 1;
        setsockopt(pair[i], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
        ends[i] = pair[i];
    }
    return 0;
}

int32_t hr_write_wake(int32_t descriptor)
{
    const char byte = 1;
    ssize_t count;
    do
#ifdef __APPLE__
        count = send(descriptor, &byte, 1, 0);
#else
        count = send(descriptor, &byte, 1, MSG_NOSIGNAL);
#endif
    while (count < 0 && errno == EINTR);
    return count == 1 || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}
