/* Locks, threads, the clock and the cores. */
#include "include/hr_system.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <pthread/qos.h>
#include <sys/sysctl.h>
#endif

struct hr_gate {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
};

hr_gate *hr_gate_create(void)
{
    hr_gate *gate = malloc(sizeof *gate);
    if (gate == NULL)
        return NULL;
    pthread_mutex_init(&gate->mutex, NULL);
#ifdef __APPLE__
    pthread_cond_init(&gate->condition, NULL);
#else
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&gate->condition, &attributes);
    pthread_condattr_destroy(&attributes);
#endif
    return gate;
}

void hr_gate_destroy(hr_gate *gate)
{
    pthread_cond_destroy(&gate->condition);
    pthread_mutex_destroy(&gate->mutex);
    free(gate);
}

void hr_gate_lock(hr_gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
}

void hr_gate_unlock(hr_gate *gate)
{
    pthread_mutex_unlock(&gate->mutex);
}

void hr_gate_signal(hr_gate *gate)
{
    pthread_cond_signal(&gate->condition);
}

void hr_gate_broadcast(hr_gate *gate)
{
    pthread_cond_broadcast(&gate->condition);
}

void hr_gate_wait(hr_gate *gate, double timeout_ms)
{
    if (timeout_ms < 0) {
        pthread_cond_wait(&gate->condition, &gate->mutex);
        return;
    }
    /* Callers loop, so a longer wait may end early. */
    if (timeout_ms > 1e9)
        timeout_ms = 1e9;
    struct timespec wait = {(time_t)(timeout_ms / 1e3), 0};
    wait.tv_nsec = (long)((timeout_ms - (double)wait.tv_sec * 1e3) * 1e6);
#ifdef __APPLE__
    pthread_cond_timedwait_relative_np(&gate->condition, &gate->mutex, &wait);
#else
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait.tv_sec;
    until.tv_nsec += wait.tv_nsec;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&gate->condition, &gate->mutex, &until);
#endif
}

struct start {
    void (*body)(void *);
    void *context;
    char name[16]; /* Linux takes 15 characters */
};

static void *run_thread(void *argument)
{
    struct start start = *(struct start *)argument;
    free(argument);
#ifdef __APPLE__
    pthread_setname_np(start.name);
    /* Left to itself a thread may be run on an efficiency core, with its I/O throttled. */
    pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0);
#else
    pthread_setname_np(pthread_self(), start.name);
#endif
    start.body(start.context);
    return NULL;
}

int32_t hr_thread_start(void (*body)(void *), void *context, const char *name)
{
    struct start *start = malloc(sizeof *start);
    if (start == NULL)
        return -ENOMEM;
    start->body = body;
    start->context = context;
    size_t i = 0;
    for (; name[i] != 0 && i < sizeof start->name - 1; i++)
        start->name[i] = name[i];
    start->name[i] = 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    int error = pthread_create(&thread, &attributes, run_thread, start);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        free(start);
    return -error;
}

double hr_monotonic_ms(void)
{
    struct timespec now;
#ifdef __APPLE__
    clock_gettime(CLOCK_UPTIME_RAW, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

uint32_t hr_performance_cores(void)
{
#ifdef __APPLE__
    int cores = 0;
    size_t size = sizeof cores;
    /* Machines with one kind of core have no levels. */
    if (sysctlbyname("hw.perflevel0.logicalcpu", &cores, &size, NULL, 0) == 0 && cores > 0)
        return (uint32_t)cores;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (uint32_t)online : 1;
}
