/*
 * The part of Fluent Bit's ABI that the plugin uses, from 4.1 on. fluent-bit-go's header for inputs lacks coll_fd and most of
 * the api, so this is our own. Sources, in fluent-bit 5.1.1: src/proxy/go/go.h, include/fluent-bit/flb_plugin_proxy.h,
 * flb_api.h, flb_input_log.h, flb_input.h.
 */
#ifndef IN_DEFENDER_FLB_H
#define IN_DEFENDER_FLB_H

#include <dlfcn.h>
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
 * struct flb_plugin_input_proxy_context. Before 4.1 it was {remote_context, proxy}: its second pointer, which the host never
 * leaves empty, lay where remote_context lies now, which is empty until somebody sets it. That tells the versions apart.
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

/* What the fluent-bit executable exports. Only append is indispensable. */
struct defender_functions {
    int (*append)(void *, const char *, size_t, const void *, size_t);
    int (*collector_running)(int, void *);
    int (*collector_resume)(int, void *);
    const char *(*name)(void *);
};

static inline struct defender_functions defender_functions(void)
{
    struct defender_functions f;

    *(void **)&f.append = dlsym(RTLD_DEFAULT, "flb_input_log_append");
    *(void **)&f.collector_running = dlsym(RTLD_DEFAULT, "flb_input_collector_running");
    *(void **)&f.collector_resume = dlsym(RTLD_DEFAULT, "flb_input_collector_resume");
    *(void **)&f.name = dlsym(RTLD_DEFAULT, "flb_input_name");
    return f;
}

static inline int defender_append(struct defender_functions f, void *instance, const char *tag, size_t tag_len, const void *data, size_t size)
{
    return f.append(instance, tag, tag_len, data, size);
}

static inline const char *defender_name(struct defender_functions f, void *instance)
{
    return f.name != NULL ? f.name(instance) : "";
}

/* Starts the instance's collector again if it is stopped, and tells whether it was. */
static inline int defender_wake(struct defender_functions f, struct defender_context *context, void *instance)
{
    if (f.collector_running == NULL || f.collector_resume == NULL || f.collector_running(context->coll_fd, instance)) {
        return 0;
    }
    return f.collector_resume(context->coll_fd, instance) == 0;
}

static inline void defender_log(struct defender_api *api, int level, const char *line)
{
    api->log_print(level, NULL, 0, "%s", line);
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
