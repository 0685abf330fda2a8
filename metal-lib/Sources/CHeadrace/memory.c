/* Mappings of files and of memory. */
#include "include/hr_system.h"
#include "meet.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE ((size_t)2 << 20)

size_t hr_page_size(void)
{
#ifdef HR_STAND_IN
    /* That of the machine that the stand-in plays. */
    return 16384;
#else
    return (size_t)sysconf(_SC_PAGESIZE);
#endif
}

/* Reserves addresses whose start is a multiple of `alignment`, which is one of the page size. */
static int32_t reserve(size_t byte_length, size_t alignment, void **address)
{
    size_t slack = alignment - (size_t)sysconf(_SC_PAGESIZE);
    size_t wanted;
    if (__builtin_add_overflow(byte_length, slack, &wanted))
        return -ENOMEM;
    char *start = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (start == MAP_FAILED)
        return -errno;
    size_t before = (alignment - (uintptr_t)start % alignment) % alignment;
    if (before > 0)
        munmap(start, before);
    if (slack > before)
        munmap(start + before + byte_length, slack - before);
    *address = start + before;
    return 0;
}

/* Maps at a multiple of `alignment`. */
static int32_t map_aligned(size_t byte_length, size_t alignment, int protection, int flags, int32_t descriptor, int64_t offset, void **address)
{
    void *start = NULL;
    if (alignment > (size_t)sysconf(_SC_PAGESIZE)) {
        int32_t result = reserve(byte_length, alignment, &start);
        if (result != 0)
            return result;
        flags |= MAP_FIXED;
    }
    void *mapped = mmap(start, byte_length, protection, flags, descriptor, offset);
    if (mapped == MAP_FAILED) {
        int error = errno;
        if (start != NULL)
            munmap(start, byte_length);
        return -error;
    }
    *address = mapped;
    return 0;
}

int32_t hr_map_file(int32_t descriptor, int64_t offset, size_t byte_length, void **address)
{
    int32_t code = HR_MEET(MMAP, NULL);
    if (code != 0)
        return -code;
    return map_aligned(byte_length, hr_page_size(), PROT_READ, MAP_SHARED, descriptor, offset, address);
}

int32_t hr_map_memory(size_t byte_length, void **address)
{
    int32_t code = HR_MEET(MMAP, NULL);
    if (code != 0)
        return -code;
    size_t alignment = byte_length >= LARGE ? LARGE : hr_page_size();
    return map_aligned(byte_length, alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0, address);
}

int32_t hr_unmap(void *address, size_t byte_length)
{
    return munmap(address, byte_length) == 0 ? 0 : -errno;
}

int32_t hr_advise(void *address, size_t byte_length, int32_t advice)
{
    int native = advice == HR_MEMORY_SEQUENTIAL  ? MADV_SEQUENTIAL
                 : advice == HR_MEMORY_RANDOM    ? MADV_RANDOM
                 : advice == HR_MEMORY_WILL_NEED ? MADV_WILLNEED
                                                 : MADV_DONTNEED;
    return madvise(address, byte_length, native) == 0 ? 0 : -errno;
}

int32_t hr_is_resident(void *address, size_t byte_length)
{
    enum { PAGES = 4096 };
#ifdef __APPLE__
    char pages[PAGES];
#else
    unsigned char pages[PAGES];
#endif
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t step = PAGES * page;
    for (size_t done = 0; done < byte_length; done += step) {
        size_t length = byte_length - done < step ? byte_length - done : step;
        if (mincore((char *)address + done, length, pages) != 0)
            return -errno;
        for (size_t i = 0; i < (length + page - 1) / page; i++)
            if ((pages[i] & 1) == 0)
                return 0;
    }
    return 1;
}

int32_t hr_populate(void *address, size_t byte_length)
{
#ifdef MADV_POPULATE_READ
    if (madvise(address, byte_length, MADV_POPULATE_READ) == 0)
        return 0;
    return errno == EINVAL ? -ENOSYS : -errno;
#else
    (void)address;
    (void)byte_length;
    return -ENOSYS;
#endif
}
