/*
 * Faults, configuration and counts. One lock for faults and configuration, which are met at most once a call;
 * the counts are atomics.
 */
#include "standin.h"
#include "standin_counts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define MAX_FAULTS 64u
#define PRETENDED_PAGE 16384u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static standin_fault faults[MAX_FAULTS];
static uint32_t fault_count;
static uint64_t calls[STANDIN_NUM_CALLS];
static standin_config config;
static _Atomic int64_t live[STANDIN_NUM_COUNTS];

_Static_assert(sizeof(standin_counts) == STANDIN_NUM_COUNTS * sizeof(uint64_t), "a count for each field");

void standin_set_faults(const standin_fault *wanted, uint32_t count) {
    pthread_mutex_lock(&lock);
    fault_count = count < MAX_FAULTS ? count : MAX_FAULTS;
    if (fault_count > 0) {
        memcpy(faults, wanted, fault_count * sizeof(standin_fault));
    }
    memset(calls, 0, sizeof(calls));
    pthread_mutex_unlock(&lock);
}

uint64_t standin_calls(uint32_t call) {
    if (call >= STANDIN_NUM_CALLS) {
        return 0;
    }
    pthread_mutex_lock(&lock);
    uint64_t made = calls[call];
    pthread_mutex_unlock(&lock);
    return made;
}

standin_outcome standin_meet(uint32_t call) {
    standin_outcome outcome = {.code = 0, .limit = -1, .delay_us = 0, .met = 0};
    if (call >= STANDIN_NUM_CALLS) {
        return outcome;
    }
    pthread_mutex_lock(&lock);
    uint64_t number = ++calls[call];
    for (uint32_t i = 0; i < fault_count; i++) {
        const standin_fault *fault = &faults[i];
        /* The first fault that names this call decides. */
        if (fault->call == call && number >= fault->nth && number - fault->nth < fault->times) {
            outcome.code = fault->code;
            outcome.limit = fault->limit;
            outcome.delay_us = fault->delay_us;
            outcome.met = 1;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return outcome;
}

void standin_configure(const standin_config *wanted) {
    pthread_mutex_lock(&lock);
    config = *wanted;
    pthread_mutex_unlock(&lock);
}

standin_config standin_current_config(void) {
    pthread_mutex_lock(&lock);
    standin_config now = config;
    pthread_mutex_unlock(&lock);
    if (now.max_buffer_length == 0) {
        now.max_buffer_length = 16ull << 30;
    }
    if (now.working_set == 0) {
        now.working_set = 19112604467ull; /* 17.8 GiB */
    }
    if (now.num_devices == 0) {
        now.num_devices = 1;
    }
    return now;
}

void standin_count(uint32_t field, int64_t change) {
    if (field < STANDIN_NUM_COUNTS) {
        atomic_fetch_add_explicit(&live[field], change, memory_order_relaxed);
    }
}

void standin_live(standin_counts *counts) {
    uint64_t now[STANDIN_NUM_COUNTS];
    for (uint32_t i = 0; i < STANDIN_NUM_COUNTS; i++) {
        int64_t value = atomic_load_explicit(&live[i], memory_order_relaxed);
        now[i] = value > 0 ? (uint64_t)value : 0;
    }
    memcpy(counts, now, sizeof(now));
}

int standin_in_one_mapping(const void *pointer, uint64_t length) {
    uint64_t start = (uint64_t)(uintptr_t)pointer, end = start + length;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL || end < start) {
        if (maps != NULL) {
            fclose(maps);
        }
        return 0;
    }
    char line[512], rights[8];
    unsigned long long from, to;
    uint64_t covered = start;
    int line_starts = 1;
    while (covered < end && fgets(line, sizeof(line), maps) != NULL) {
        int starts_now = line_starts;
        line_starts = strchr(line, '\n') != NULL; /* a long path goes on in the next part */
        if (!starts_now || sscanf(line, "%llx-%llx %7s", &from, &to, rights) != 3 || to <= covered) {
            continue;
        }
        int is_first = covered == start, is_tail = end - covered < PRETENDED_PAGE;
        if (from > covered || rights[0] != 'r' || !(is_first || is_tail)) {
            break;
        }
        covered = to;
    }
    fclose(maps);
    return covered >= end;
}
