/* System calls that tests can make fail: what a test has arranged for this call, and nothing outside of tests. */
#ifndef HEADRACE_MEET_H
#define HEADRACE_MEET_H

#include <stddef.h>
#include <stdint.h>

#ifdef HR_STAND_IN
#include <standin.h>
#include <time.h>

/* 0, or the errno to fail with; `limit`, where there is one, bounds the bytes. Sleeps where the call is to be late. */
static inline int32_t hr_meet(uint32_t call, size_t *limit)
{
    standin_outcome outcome = standin_meet(call);
    if (!outcome.met)
        return 0;
    if (outcome.delay_us > 0) {
        struct timespec delay = {outcome.delay_us / 1000000, (long)(outcome.delay_us % 1000000) * 1000};
        nanosleep(&delay, NULL);
    }
    if (limit != NULL && outcome.limit >= 0 && (size_t)outcome.limit < *limit)
        *limit = (size_t)outcome.limit;
    return outcome.code;
}
#define HR_MEET(call, limit) hr_meet(STANDIN_##call, limit)
#else
#define HR_MEET(call, limit) 0
#endif

#endif
