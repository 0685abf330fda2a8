/*
 * Runs grids of threads. Threads that never wait for one another run in a loop. Others are fibers of one system
 * thread: each runs until it waits, for its threadgroup at a barrier or for its simdgroup at an exchange.
 */
#include "standin_kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fibers.h"

/* Sanitizers know nothing of the fibers' stacks. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((disable_sanitizer_instrumentation)), apply_to = function)
#endif

enum { SLOT_BYTES = 16 };
typedef enum { READY, AT_BARRIER, AT_EXCHANGE, ENDED } lane_state;

typedef struct {
    fiber fiber;
    standin_thread place;
    lane_state state;
    uint32_t site;
    uint32_t mask;                          /* who took part in the exchange */
    unsigned char given[SLOT_BYTES];
    unsigned char taken[STANDIN_SIMD_WIDTH * SLOT_BYTES];
} lane;

/* What it takes to run groups, one after another. As many are made as kernels run at the same time, and kept. */
typedef struct crew {
    _Alignas(256) unsigned char memory[STANDIN_MAX_GROUP_MEMORY + 256 * STANDIN_MAX_BUFFERS];
    fiber_stacks stacks;
    fiber home;
    lane lanes[STANDIN_MAX_GROUP];
    lane *current;
    uint32_t count;
    const standin_kernel *kernel;
    const standin_launch *launch;
    struct crew *next;
} crew;

static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static crew *idle_crews;
/* Of the kernel that this system thread runs. */
static _Thread_local crew *local_crew;

static void give_way(crew *all, lane *mine, lane_state state) {
    mine->state = state;
    headrace_fiber_switch(&mine->fiber, &all->home);
}

static void lane_main(void) {
    crew *all = local_crew;
    lane *mine = all->current;
    all->kernel->run_thread(all->launch, &mine->place);
    give_way(all, mine, ENDED);
    abort(); /* an ended lane is never resumed */
}

void standin_barrier(void) { give_way(local_crew, local_crew->current, AT_BARRIER); }

uint32_t standin_exchange(const void *value, uint32_t size, void *taken, uint32_t site) {
    crew *all = local_crew;
    lane *mine = all->current;
    memcpy(mine->given, value, size);
    mine->site = site;
    give_way(all, mine, AT_EXCHANGE);
    memcpy(taken, mine->taken, sizeof mine->taken);
    return mine->mask;
}

uint32_t standin_lane(void) { return local_crew->current->place.index % STANDIN_SIMD_WIDTH; }

/* Lets go of the lanes of a simdgroup that are at the earliest exchange. */
static int release_exchange(crew *all, uint32_t first) {
    uint32_t end = first + STANDIN_SIMD_WIDTH < all->count ? first + STANDIN_SIMD_WIDTH : all->count;
    uint32_t site = UINT32_MAX, mask = 0;
    unsigned char given[STANDIN_SIMD_WIDTH * SLOT_BYTES] = {0};
    for (uint32_t i = first; i < end; i++)
        if (all->lanes[i].state == AT_EXCHANGE && all->lanes[i].site < site) site = all->lanes[i].site;
    for (uint32_t i = first; i < end; i++) {
        const lane *one = &all->lanes[i];
        if (one->state != AT_EXCHANGE || one->site != site) continue;
        mask |= 1u << (i - first);
        memcpy(given + (i - first) * SLOT_BYTES, one->given, SLOT_BYTES);
    }
    for (uint32_t i = first; i < end; i++) {
        if ((mask >> (i - first) & 1) == 0) continue;
        lane *one = &all->lanes[i];
        memcpy(one->taken, given, sizeof given);
        one->mask = mask;
        one->state = READY;
    }
    return mask != 0;
}

/* Runs what is ready, then lets go of who waits, until all have ended. */
static int run_lanes(crew *all, char error[256]) {
    for (;;) {
        uint32_t waiting = 0, ended = 0, released = 0;
        for (uint32_t i = 0; i < all->count; i++) {
            if (all->lanes[i].state != READY) continue;
            all->current = &all->lanes[i];
            headrace_fiber_switch(&all->home, &all->lanes[i].fiber);
        }
        for (uint32_t i = 0; i < all->count; i++) {
            waiting += all->lanes[i].state == AT_BARRIER;
            ended += all->lanes[i].state == ENDED;
        }
        if (ended == all->count) return 0;
        for (uint32_t first = 0; first < all->count; first += STANDIN_SIMD_WIDTH)
            released += (uint32_t)release_exchange(all, first);
        if (released > 0) continue;
        if (waiting < all->count) {
            snprintf(error, 256, "%u of %u threads of a threadgroup wait at a barrier that %u others never reach",
                waiting, all->count, ended);
            return -1;
        }
        for (uint32_t i = 0; i < all->count; i++) all->lanes[i].state = READY;
    }
}

static int run_group(crew *all, const standin_thread *first, char error[256]) {
    all->count = first->group_threads;
    for (uint32_t i = 0; i < all->count; i++) {
        lane *one = &all->lanes[i];
        uint32_t width = first->group_size[0], height = first->group_size[1];
        uint32_t at[3] = {i % width, i / width % height, i / (width * height)};
        one->place = *first;
        one->place.index = i;
        for (int axis = 0; axis < 3; axis++) {
            one->place.in_group[axis] = at[axis];
            one->place.in_grid[axis] = first->in_grid[axis] + at[axis];
        }
        one->state = READY;
        fiber_prepare(&one->fiber, &all->stacks, i, lane_main);
    }
    return run_lanes(all, error);
}

static crew *take_crew(void) {
    pthread_mutex_lock(&idle_lock);
    crew *taken = idle_crews;
    if (taken != NULL) idle_crews = taken->next;
    pthread_mutex_unlock(&idle_lock);
    if (taken != NULL) return taken;
    void *made = NULL;
    if (posix_memalign(&made, _Alignof(crew), sizeof(crew)) != 0) return NULL;
    memset(made, 0, sizeof(crew));
    return made;
}

static void give_crew(crew *given) {
    pthread_mutex_lock(&idle_lock);
    given->next = idle_crews;
    idle_crews = given;
    pthread_mutex_unlock(&idle_lock);
}

/* The place of thread 0 of group number `index`. */
static standin_thread first_of(const standin_launch *launch, uint64_t index) {
    standin_thread first = {.group_threads = 1};
    uint64_t at[3] = {index % launch->groups[0], index / launch->groups[0] % launch->groups[1],
        index / ((uint64_t)launch->groups[0] * launch->groups[1])};
    for (int axis = 0; axis < 3; axis++) {
        uint32_t start = (uint32_t)at[axis] * launch->group[axis], left = launch->grid[axis] - start;
        first.group_at[axis] = (uint32_t)at[axis];
        first.in_grid[axis] = start;
        first.group_size[axis] = left < launch->group[axis] ? left : launch->group[axis];
        first.group_threads *= first.group_size[axis];
    }
    return first;
}

static int run_groups(crew *all, const standin_kernel *kernel, standin_launch *launch, char error[256]) {
    /* On a GPU it is at no known place, and full of what the group before left there. */
    size_t used = 0;
    for (int i = 0; i < STANDIN_MAX_BUFFERS; i++) {
        launch->group_memory[i] = kernel->group_memory[i] == 0 ? NULL : all->memory + used;
        used += (kernel->group_memory[i] + 255u) & ~(size_t)255;
    }
    uint32_t widest = launch->group[0] * launch->group[1] * launch->group[2];
    if (kernel->cooperates && !fiber_reserve(&all->stacks, widest)) {
        snprintf(error, 256, "no memory for the stacks of a threadgroup of %u threads", widest);
        return -1;
    }
    all->kernel = kernel;
    all->launch = launch;
    /* From the last to the first: who relies on the order of threadgroups shall see it fail. */
    uint64_t groups = (uint64_t)launch->groups[0] * launch->groups[1] * launch->groups[2];
    for (uint64_t index = groups; index-- > 0;) {
        standin_thread first = first_of(launch, index);
        memset(all->memory, 0xa5, used);
        if (!kernel->cooperates) kernel->run_group(launch, &first);
        else if (run_group(all, &first, error) != 0) return -1;
    }
    return 0;
}

int standin_run(const standin_kernel *kernel, standin_launch *launch, char error[256]) {
    crew *all = take_crew();
    if (all == NULL) {
        snprintf(error, 256, "no memory to run a kernel");
        return -1;
    }
    local_crew = all;
    int status = run_groups(all, kernel, launch, error);
    local_crew = NULL;
    give_crew(all);
    return status;
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
