/*
 * The part of cmetrics that the plugin uses: lib/cmetrics/include/cmetrics in fluent-bit 5.1.1. The
 * fluent-bit executable exports it. An instance's own context appears in the host's metrics under
 * /api/v2/metrics.
 */
#ifndef IN_DEFENDER_CMT_H
#define IN_DEFENDER_CMT_H

#include <stdint.h>
#include <time.h>

#include "flb.h"

struct defender_cmt {
    void *context; /* of the instance; NULL when the host offers no metrics */
    void *(*counter_create)(void *, char *, char *, char *, char *, int, char **);
    void (*counter_allow_reset)(void *);
    int (*counter_set)(void *, uint64_t, double, int, char **);
    void *(*gauge_create)(void *, char *, char *, char *, char *, int, char **);
    int (*gauge_set)(void *, uint64_t, double, int, char **);
    void *(*buckets_create)(double *, size_t);
    void *(*histogram_create)(void *, char *, char *, char *, char *, void *, int, char **);
    int (*histogram_set)(void *, uint64_t, uint64_t *, double, uint64_t, int, char **);
};

static inline struct defender_cmt defender_cmt(struct defender_api *api, void *instance)
{
    struct defender_cmt c;

    *(void **)&c.counter_create = dlsym(RTLD_DEFAULT, "cmt_counter_create");
    *(void **)&c.counter_allow_reset = dlsym(RTLD_DEFAULT, "cmt_counter_allow_reset");
    *(void **)&c.counter_set = dlsym(RTLD_DEFAULT, "cmt_counter_set");
    *(void **)&c.gauge_create = dlsym(RTLD_DEFAULT, "cmt_gauge_create");
    *(void **)&c.gauge_set = dlsym(RTLD_DEFAULT, "cmt_gauge_set");
    *(void **)&c.buckets_create = dlsym(RTLD_DEFAULT, "cmt_histogram_buckets_create_size");
    *(void **)&c.histogram_create = dlsym(RTLD_DEFAULT, "cmt_histogram_create");
    *(void **)&c.histogram_set = dlsym(RTLD_DEFAULT, "cmt_histogram_set_default");
    c.context = NULL;
    if (c.counter_create && c.counter_allow_reset && c.counter_set && c.gauge_create && c.gauge_set && c.buckets_create &&
        c.histogram_create && c.histogram_set && api->input_get_cmt_instance) {
        c.context = api->input_get_cmt_instance(instance);
    }
    return c;
}

static inline uint64_t defender_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* cmetrics copies the strings. kind: 0 counter, 1 gauge, 2 histogram. */
static inline void *defender_series(struct defender_cmt c, int kind, char *name, char *help, int labels, char **keys,
                                    double *bounds, size_t bounds_len)
{
    static char ns[] = "fluentbit", subsystem[] = "defender";
    void *s;

    switch (kind) {
    case 0:
        s = c.counter_create(c.context, ns, subsystem, name, help, labels, keys);
        if (s != NULL) {
            c.counter_allow_reset(s); /* a source that starts again counts from zero, as Prometheus expects of a restart */
        }
        return s;
    case 1:
        return c.gauge_create(c.context, ns, subsystem, name, help, labels, keys);
    default:
        return c.histogram_create(c.context, ns, subsystem, name, help, c.buckets_create(bounds, bounds_len), labels, keys);
    }
}

static inline void defender_set(struct defender_cmt c, int kind, void *series, double value, int labels, char **values)
{
    if (kind == 0) {
        c.counter_set(series, defender_now(), value, labels, values);
    } else {
        c.gauge_set(series, defender_now(), value, labels, values);
    }
}

/* buckets are cumulative, the last one that of +Inf. */
static inline void defender_set_histogram(struct defender_cmt c, void *series, uint64_t *buckets, double sum, uint64_t count,
                                          int labels, char **values)
{
    c.histogram_set(series, defender_now(), buckets, sum, count, labels, values);
}

#endif
