/*
 * The part of Fluent Bit's ABI that the plugin uses, from 4.1 on. fluent-bit-go's header for inputs
 * lacks coll_fd and most of the api, so this is our own. Sources, in fluent-bit 5.1.1:
 * src/proxy/go/go.h, include/fluent-bit/flb_plugin_proxy.h, flb_api.h, flb_input_log.h,
 * flb_input.h, flb_scheduler.h.
 */
#ifndef IN_DEFENDER_FLB_H
#define IN_DEFENDER_FLB_H

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>

/* struct flb_api: pointers are only ever added at its end. */
struct defender_api {
    const char *(*output_get_property)(const char *, void *);
    const char *(*input_get_property)(const char *, void *);
    void *(*output_get_cmt_instance)(void *);
    void *(*input_get_cmt_instance)(void *);
    void (*log_print)(int, const char *, int, const char *, ...);
    int (*input_log_check)(void *, int);
};

/*
 * struct flb_plugin_input_proxy_context. Before 4.1 it was {coll_fd, proxy}: proxy was in the place of
 * remote_context. The host never leaves proxy empty, and remote_context is empty until it is set.
 * That tells the versions apart.
 */
struct defender_context {
    int coll_fd; /* set by the host when init has returned */
    uintptr_t remote_context;
    void *proxy;
};

/* struct flbgo_input_plugin: one for all instances, overwritten at each init. */
struct defender_plugin {
    char *name;
    struct defender_api *api;
    void *instance;
    struct defender_context *context;
};

/*
 * The beginning of struct flb_plugin_proxy_def. Up to 4.2 the host does not clear it after malloc.
 * cStrings in main.go has the reason why that matters.
 */
struct defender_def {
    int type, proxy, flags;
    char *name, *description;
};

static inline void defender_clear(void *def)
{
    *(struct defender_def *)def = (struct defender_def){0};
}

/* The exports of the fluent-bit executable. Only name may be missing. */
struct defender_functions {
    int (*append)(void *, const char *, size_t, const void *, size_t);
    void *(*scheduler)(void); /* of the calling thread's engine */
    int (*timer)(void *, int, int, void (*)(void *, void *), void *, void **);
    const char *(*name)(void *);
};

static inline struct defender_functions defender_functions(void)
{
    struct defender_functions f;

    *(void **)&f.append = dlsym(RTLD_DEFAULT, "flb_input_log_append");
    *(void **)&f.scheduler = dlsym(RTLD_DEFAULT, "flb_sched_ctx_get");
    *(void **)&f.timer = dlsym(RTLD_DEFAULT, "flb_sched_timer_cb_create");
    *(void **)&f.name = dlsym(RTLD_DEFAULT, "flb_input_name");
    return f;
}

/* The function that the host lacks, or NULL. */
static inline const char *defender_missing(struct defender_functions f)
{
    return f.append == NULL ? "flb_input_log_append" : f.scheduler == NULL ? "flb_sched_ctx_get" : f.timer == NULL ? "flb_sched_timer_cb_create" : NULL;
}

/* signals.c */
void defender_block_signals(sigset_t *before);
void defender_restore_signals(const sigset_t *before);
void defender_keep_handlers(void); /* called first when Go runs and the host has not reloaded yet */

void defenderTick(uintptr_t id); /* main.go */

static inline void defender_on_timer(void *config, void *id)
{
    sigset_t before;

    (void)config;
    defender_keep_handlers();
    defender_block_signals(&before);
    defenderTick((uintptr_t)id);
    defender_restore_signals(&before);
}

/*
 * Has defenderTick called with id every ms milliseconds, on this thread, until the engine ends. It
 * need not be stopped, and it may be called for an id that is gone. Returns 0 on success.
 */
static inline int defender_start_timer(struct defender_functions f, uintptr_t id, int ms)
{
    enum { FLB_SCHED_TIMER_CB_PERM = 4 };
    void *scheduler = f.scheduler();

    return scheduler == NULL ? -1 : f.timer(scheduler, FLB_SCHED_TIMER_CB_PERM, ms, defender_on_timer, (void *)id, NULL);
}

static inline int defender_append(struct defender_functions f, void *instance, const char *tag, size_t tag_len, const void *data, size_t size)
{
    return f.append(instance, tag, tag_len, data, size);
}

static inline const char *defender_name(struct defender_functions f, void *instance)
{
    return f.name != NULL ? f.name(instance) : "";
}

static inline void defender_log(struct defender_api *api, int level, const char *line)
{
    api->log_print(level, NULL, 0, "%s", line);
}

/* Whether a value is set and empty. Fluent Bit drops empty ones: flb_input_set_property in src/flb_input.c. */
static inline int defender_is_empty(struct defender_api *api, void *instance, const char *key)
{
    const char *value = api->input_get_property(key, instance);

    return value != NULL && *value == '\0';
}

static inline int defender_log_check(struct defender_api *api, void *instance, int level)
{
    return api->input_log_check(instance, level);
}

/* The name of the calling thread, at most 15 characters. */
static inline void defender_thread_name(char name[16])
{
    prctl(PR_GET_NAME, name);
}

#endif
