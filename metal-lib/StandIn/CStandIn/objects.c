/* The compiler as a child process, and the shared objects that it makes. */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "standin_kernels.h"

extern char **environ;
void standin_barrier(void);
uint32_t standin_exchange(const void *value, uint32_t size, void *taken, uint32_t site);
uint32_t standin_lane(void);

int standin_spawn(const char *const *arguments, const char *folder, const char *log) {
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) return -ENOMEM;
    int status = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (status == 0) status = posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (status == 0) status = posix_spawn_file_actions_adddup2(&actions, 1, 2);
    if (status == 0) status = posix_spawn_file_actions_addchdir_np(&actions, folder);
    pid_t child = 0;
    if (status == 0) status = posix_spawnp(&child, arguments[0], &actions, NULL, (char *const *)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (status != 0) return -status;
    int ended = 0;
    while (waitpid(child, &ended, 0) < 0)
        if (errno != EINTR) return -errno;
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : 128;
}

void *standin_open_object(const char *path, char error[256]) {
    static const standin_cooperation cooperation = {standin_barrier, standin_exchange, standin_lane};
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) {
        const char *text = dlerror();
        snprintf(error, 256, "%s", text == NULL ? path : text);
        return NULL;
    }
    const standin_cooperation **slot = dlsym(object, "headrace_cooperation");
    if (slot == NULL) {
        snprintf(error, 256, "%s is no compiled kernel", path);
        dlclose(object);
        return NULL;
    }
    *slot = &cooperation;
    return object;
}

void *standin_symbol(void *object, const char *name) { return dlsym(object, name); }

/* Sizes of the thread-local symbols whose mangled names say that they lie in `function`. */
static uint64_t sum_symbols(const char *bytes, size_t length, const char *function) {
    const ElfW(Ehdr) *head = (const void *)bytes;
    if (length < sizeof *head || memcmp(bytes, ELFMAG, SELFMAG) != 0) return 0;
    if (head->e_shoff > length || (length - head->e_shoff) / sizeof(ElfW(Shdr)) < head->e_shnum) return 0;
    const ElfW(Shdr) *sections = (const void *)(bytes + head->e_shoff);
    char prefix[256];
    int prefix_length = snprintf(prefix, sizeof prefix, "_ZZL%zu%s", strlen(function), function);
    uint64_t sum = 0;
    for (unsigned s = 0; s < head->e_shnum; s++) {
        if (sections[s].sh_type != SHT_SYMTAB || sections[s].sh_link >= head->e_shnum) continue;
        const ElfW(Shdr) *names = &sections[sections[s].sh_link];
        if (sections[s].sh_offset + sections[s].sh_size > length || names->sh_offset + names->sh_size > length) return 0;
        const ElfW(Sym) *symbols = (const void *)(bytes + sections[s].sh_offset);
        for (size_t i = 0; i < sections[s].sh_size / sizeof *symbols; i++) {
            if (ELF64_ST_TYPE(symbols[i].st_info) != STT_TLS || symbols[i].st_name >= names->sh_size) continue;
            const char *name = bytes + names->sh_offset + symbols[i].st_name;
            if (strncmp(name, prefix, (size_t)prefix_length) == 0) sum += symbols[i].st_size;
        }
    }
    return sum;
}

uint64_t standin_static_memory(const char *path, const char *function) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    struct stat about;
    uint64_t sum = 0;
    if (fstat(fd, &about) == 0 && about.st_size > 0) {
        size_t length = (size_t)about.st_size;
        void *bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes != MAP_FAILED) {
            sum = sum_symbols(bytes, length, function);
            munmap(bytes, length);
        }
    }
    close(fd);
    return sum;
}
