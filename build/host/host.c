/*
 * A small host that loads a Go input plugin exactly as Fluent Bit 5.1 does and shows what it hands over, for tests and for
 * trying things without Fluent Bit. It follows src/flb_plugin_proxy.c, src/proxy/go/go.c, src/flb_input.c, src/flb_engine.c
 * and src/flb_reload.c: which function is called when, in which order and on which thread, what a pause stops (the wrong
 * collector, with several sections) and what an exit is told (nothing).
 *
 *   main thread                               engine thread, one for each generation
 *   dlopen, FLBPluginRegister           ->    FLBPluginInit of each section, FLBPluginInputPreRun
 *   waits for its end, or a reload:           FLBPluginInputCallbackCtx, on a timer, and timers that the plugin has made; from
 *                                             them it calls flb_input_log_append
 *   registers the next generation       ->    pause of all, a grace period, pre-exit and exit of each section
 *   FLBPluginUnregister of the old      <-
 *
 * What Fluent Bit does in silence is an error here: an event that cannot be decoded, an append after the pause that begins
 * a shutdown or outside of a callback, data returned by the callback. The exit status is 0 when nothing of that was seen,
 * 1 for wrong usage or a plugin that does not start, 2 for events that cannot be decoded, 3 for a broken rule.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cmt.h"
#include "decode.h"

static const char usage[] =
    "usage: host [flags] in_defender.so        load the plugin as Fluent Bit does; events go to stdout as JSON, logs to stderr\n"
    "       host -dump DIR                     show the events that -storage DIR holds\n"
    "\n"
    "  -set KEY=VALUE     a setting of the section\n"
    "  -instance          the settings that follow belong to another section\n"
    "\n"
    "  -seconds N         end after N seconds (otherwise at SIGTERM)\n"
    "  -records N         end when N events were taken\n"
    "  -reload-every MS   hot reload again and again (also at SIGHUP)\n"
    "  -grace MS          how long a shutdown or reload waits between the pause and the exits (1000)\n"
    "\n"
    "  -refuse P          refuse an append with this probability, such as 0.3\n"
    "  -refuse-every N    refuse every Nth append\n"
    "  -refuse-between A,B   refuse every append from second A to second B\n"
    "  -pause-every N     every Nth append of a section brings it over its limit: paused inside the append for -pause-ms\n"
    "  -pause-outside MS  pause all sections between two appends, again and again, for -pause-ms each time\n"
    "  -pause-ms MS       how long a pause lasts (500)\n"
    "  -slow MS           an append takes this long, as behind a slow filter\n"
    "  -only N            refusals, -pause-every and -slow concern section N only; the first is 0\n"
    "  -seed N            of -refuse\n"
    "  -threaded          the section is threaded, as by default in Fluent Bit\n"
    "  -old               be a Fluent Bit before 4.1\n"
    "  -missing SYMBOL    be a Fluent Bit without this function\n"
    "  -no-timers         be a Fluent Bit that can make no timer\n"
    "\n"
    "  -storage DIR       append to DIR/SECTION/chunk.flb before an append returns, and recover what is there at the start\n"
    "  -metrics FILE      offer metrics, and write them to FILE once a second as Prometheus reads them\n"
    "  -quiet             do not show events\n"
    "  -log-level LEVEL   error, warn, info or debug (info)\n";

enum { MAX_SECTIONS = 16, FLB_INPUT_PLUGIN = 1, FLB_GOLANG = 11 };

/* ---- the ABI, as Fluent Bit declares it ---- */

struct proxy_def { /* include/fluent-bit/flb_plugin_proxy.h, as far as versions up to 4.0 had it */
    int type, proxy, flags;
    char *name, *description;
    uint64_t canary; /* where later versions went on; a plugin must not write here */
};

union context { /* struct flb_plugin_input_proxy_context, and what it was before 4.1 */
    struct { int coll_fd; void *remote_context; void *proxy; } now;
    struct { int coll_fd; void *proxy; } old;
};

struct api { /* include/fluent-bit/flb_api.h */
    const char *(*output_get_property)(const char *, void *);
    const char *(*input_get_property)(const char *, void *);
    void *(*output_get_cmt_instance)(void *);
    void *(*input_get_cmt_instance)(void *);
    void (*log_print)(int, const char *, int, const char *, ...);
    int (*input_log_check)(void *, int);
    int (*output_log_check)(void *, int);
};

struct go_plugin { /* struct flbgo_input_plugin of src/proxy/go/go.h, as far as plugins read it */
    char *name;
    struct api *api;
    void *instance;
    union context *context;
};

int flb_input_log_append(void *instance, const char *tag, size_t tag_len, const void *data, size_t size);
void *flb_sched_ctx_get(void);
int flb_sched_timer_cb_create(void *sched, int type, int ms, void (*cb)(void *, void *), void *data, void **out_timer);
const char *flb_input_name(void *instance);

/* ---- what is run ---- */

struct setting {
    const char *key, *value;
};

struct section {
    char name[32];
    struct setting *settings;
    size_t settings_len;

    bool live;           /* between init and exit */
    bool collecting;     /* its collector runs */
    bool over_limit;     /* paused by a limit: appends are refused until resume_at */
    double next_tick, resume_at;
    union context context;
    int storage;         /* file descriptor, or -1 */
    unsigned long appends;
};

struct generation {
    void *library;
    struct proxy_def *def;
    struct go_plugin plugin;
    int number;
};

struct timer { /* struct flb_sched_timer */
    void (*cb)(void *, void *);
    void *data;
    struct section *section; /* whose init has made it */
    double every, next;
};

static struct {
    const char *metrics, *library, *storage, *dump, *missing;
    double seconds, reload_every, grace, pause, pause_outside, slow, refuse, refuse_from, refuse_to;
    long records, refuse_every, pause_every;
    int only, log_level;
    uint64_t seed;
    bool threaded, old, quiet, no_timers;
} opt = {.grace = 1, .pause = 0.5, .only = -1, .log_level = 3, .seed = 1};

static struct section sections[MAX_SECTIONS];
static int sections_len = 1;
static struct timer timers[MAX_SECTIONS]; /* of the engine that runs */
static int timers_len;
static const struct section *inside; /* whose callback is being called */
static struct section *last_inited; /* proxy->instance: what pause and resume mean, whichever section they are for */

static struct {
    unsigned long long appends, refused, events, bytes, undecodable, broken;
    double started;
} count;

static volatile sig_atomic_t stop, reload_asked;
static volatile bool reload; /* the next generation is registered: end this one */
static bool shutting_down;
static pthread_t engine;
static volatile bool engine_ended;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_for(double seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

    nanosleep(&t, NULL);
}

__attribute__((format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "host: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* Says which rule of Fluent Bit the plugin has broken. */
__attribute__((format(printf, 1, 2))) static void broken(const char *format, ...)
{
    va_list args;

    count.broken++;
    va_start(args, format);
    fprintf(stderr, "host: BROKEN RULE: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}

static void write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR) {
            die("write: %s", strerror(errno));
        }
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
}

static bool is_section(const void *instance)
{
    return (const struct section *)instance >= sections && (const struct section *)instance < sections + sections_len;
}

/* ---- storage: a file of frames for each section, so that a kill leaves what was taken before it, as mapped chunks do ---- */

struct frame {
    uint32_t tag_len, size;
};

/* Calls see for each whole frame of a file and returns the size of them all. */
static size_t each_frame(const char *path, void (*see)(const char *tag, size_t tag_len, const uint8_t *data, size_t size))
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    size_t at = 0;

    if (fd < 0 || fstat(fd, &st) != 0) {
        die("open %s: %s", path, strerror(errno));
    }
    if (st.st_size > 0) {
        size_t len = (size_t)st.st_size;
        char *m = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
        struct frame f;
        if (m == MAP_FAILED) {
            die("map %s: %s", path, strerror(errno));
        }
        while (len - at >= sizeof f) {
            memcpy(&f, m + at, sizeof f);
            if (len - at - sizeof f < (size_t)f.tag_len + f.size) {
                break;
            }
            see(m + at + sizeof f, f.tag_len, (uint8_t *)m + at + sizeof f + f.tag_len, f.size);
            at += sizeof f + f.tag_len + f.size;
        }
        munmap(m, len);
    }
    close(fd);
    return at;
}

static void show_frame(const char *tag, size_t tag_len, const uint8_t *data, size_t size)
{
    struct text out = {0};

    for (const uint8_t *p = data; p < data + size;) {
        const char *problem = decode_event(&p, data + size, tag, tag_len, &out);
        if (problem != NULL) {
            die("an event that Fluent Bit cannot decode: %s", problem);
        }
    }
    write_all(STDOUT_FILENO, out.data, out.len);
    free(out.data);
}

static void skip_frame(const char *tag, size_t tag_len, const uint8_t *data, size_t size)
{
    (void)tag, (void)tag_len, (void)data, (void)size;
}

static void dump(const char *dir)
{
    char pattern[4096];
    glob_t files;

    snprintf(pattern, sizeof pattern, "%s/*/chunk.flb", dir);
    if (glob(pattern, 0, NULL, &files) != 0) {
        return; /* nothing was ever taken */
    }
    for (size_t i = 0; i < files.gl_pathc; i++) {
        each_frame(files.gl_pathv[i], show_frame);
    }
    globfree(&files);
}

static void open_storage(struct section *s)
{
    char path[4096];

    mkdir(opt.storage, 0700);
    snprintf(path, sizeof path, "%s/%s", opt.storage, s->name);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/chunk.flb", opt.storage, s->name);
    s->storage = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->storage < 0) {
        die("open %s: %s", path, strerror(errno));
    }
    /* What a kill tore apart was never taken. */
    if (ftruncate(s->storage, (off_t)each_frame(path, skip_frame)) != 0) {
        die("truncate %s: %s", path, strerror(errno));
    }
    /* A plugin can tell from its process's maps that its events reach a file. */
    if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, s->storage, 0) == MAP_FAILED) {
        die("map %s: %s", path, strerror(errno));
    }
}

static void store(int fd, const char *tag, size_t tag_len, const void *data, size_t size)
{
    static struct text out;
    struct frame f = {.tag_len = (uint32_t)tag_len, .size = (uint32_t)size};

    out.len = 0;
    text_add(&out, (const char *)&f, sizeof f);
    text_add(&out, tag, tag_len);
    text_add(&out, data, size);
    write_all(fd, out.data, out.len);
}

/* ---- what the plugin may call ---- */

static const char *get_property(const char *key, void *instance)
{
    struct section *s = instance;

    for (size_t i = 0; i < s->settings_len; i++) {
        if (strcasecmp(s->settings[i].key, key) == 0) {
            return s->settings[i].value;
        }
    }
    return NULL;
}

static void *get_cmt_instance(void *instance)
{
    (void)instance;
    return opt.metrics != NULL ? cmt_context() : NULL;
}

static int log_check(void *instance, int level)
{
    (void)instance;
    return level <= opt.log_level;
}

__attribute__((format(printf, 4, 5))) static void log_print(int level, const char *file, int line, const char *format, ...)
{
    static const char *const names[] = {"", "error", " warn", " info", "debug"};
    char text[4096 - 64], stamp[32];
    struct tm tm;
    time_t t = time(NULL);
    va_list args;

    (void)file, (void)line;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args); /* longer lines are cut, as there */
    va_end(args);
    strftime(stamp, sizeof stamp, "%Y/%m/%d %H:%M:%S", localtime_r(&t, &tm));
    fprintf(stderr, "[%s] [%s] %s\n", stamp, level >= 1 && level <= 4 ? names[level] : "?", text);
    if (!pthread_equal(pthread_self(), engine)) {
        broken("a log line from a thread of the plugin's: Fluent Bit writes it past its log");
    }
}

const char *flb_input_name(void *instance)
{
    return ((struct section *)instance)->name;
}

void *flb_sched_ctx_get(void)
{
    /* each thread that runs an event loop has its own */
    return pthread_equal(pthread_self(), engine) ? timers : NULL;
}

int flb_sched_timer_cb_create(void *sched, int type, int ms, void (*cb)(void *, void *), void *data, void **out_timer)
{
    enum { FLB_SCHED_TIMER_CB_PERM = 4 };

    if (sched != timers || type != FLB_SCHED_TIMER_CB_PERM || ms <= 0 || cb == NULL || out_timer != NULL) {
        broken("flb_sched_timer_cb_create with arguments that this host does not know");
        return -1;
    }
    if (opt.no_timers || timers_len == MAX_SECTIONS) {
        return -1;
    }
    timers[timers_len++] = (struct timer){.cb = cb, .data = data, .section = last_inited, .every = ms / 1e3, .next = now() + ms / 1e3};
    return 0;
}

static void start_collector(struct section *s)
{
    if (s->collecting) {
        fprintf(stderr, "host: cannot resume collector %s:0, already running\n", s->name);
    } else if (!shutting_down) {
        s->collecting = true;
        s->next_tick = now() + 1;
    }
}

static double random_number(void) /* xorshift64*, from 0 to below 1 */
{
    opt.seed ^= opt.seed >> 12;
    opt.seed ^= opt.seed << 25;
    opt.seed ^= opt.seed >> 27;
    return (double)(opt.seed * UINT64_C(2685821657736338717) >> 11) / (double)(UINT64_C(1) << 53);
}

static bool refused(const struct section *s)
{
    double t = now() - count.started;

    if (s->over_limit) {
        return true;
    }
    if (opt.only >= 0 && s != sections + opt.only) {
        return false;
    }
    return (opt.refuse > 0 && random_number() < opt.refuse) || (opt.refuse_every > 0 && s->appends % (unsigned long)opt.refuse_every == 0) ||
           (t >= opt.refuse_from && t < opt.refuse_to);
}

/* flb_input_pause: what it does to the collectors is as wrong here as there. */
static void pause_section(struct generation *g)
{
    void (*f)(void) = (void (*)(void))dlsym(g->library, "FLBPluginInputPause");

    if (f != NULL) {
        f();
    }
    if (last_inited != NULL) {
        last_inited->collecting = false;
    }
}

static void resume_section(struct generation *g)
{
    void (*f)(void) = (void (*)(void))dlsym(g->library, "FLBPluginInputResume");

    if (f != NULL) {
        f();
    }
    if (last_inited != NULL) {
        start_collector(last_inited);
    }
}

static struct generation *current; /* the one whose engine runs */

int flb_input_log_append(void *instance, const char *tag, size_t tag_len, const void *data, size_t size)
{
    static struct text out;
    struct section *s = instance;
    unsigned long long events = 0;

    if (!pthread_equal(pthread_self(), engine)) {
        broken("an append from a thread of the plugin's");
        return -1;
    }
    if (!is_section(instance) || !s->live || inside != s) {
        broken("an append outside of the section's callback");
        return -1;
    }
    if (shutting_down) {
        broken("an append after the pause that begins a shutdown: with several sections a reload would never end");
    }
    if (tag == NULL) {
        const char *own = get_property("tag", s);
        tag = own != NULL ? own : s->name;
        tag_len = strlen(tag);
    } else if (strlen(tag) != tag_len) {
        broken("a tag without its final zero: some filters need it");
    }
    count.appends++;
    s->appends++;
    if (size == 0 || refused(s)) {
        count.refused++;
        return -1;
    }
    if (opt.slow > 0 && (opt.only < 0 || s == sections + opt.only)) {
        sleep_for(opt.slow);
    }
    out.len = 0;
    for (const uint8_t *p = data; p < (const uint8_t *)data + size;) {
        const char *problem = decode_event(&p, (const uint8_t *)data + size, tag, tag_len, opt.quiet ? NULL : &out);
        if (problem != NULL) {
            count.undecodable++;
            fprintf(stderr, "host: UNDECODABLE event %llu of an append to %s: %s; Fluent Bit drops the rest of the chunk with it\n", events + 1, tag, problem);
            break;
        }
        events++;
    }
    if (opt.storage != NULL) {
        store(s->storage, tag, tag_len, data, size);
    }
    if (!opt.quiet) {
        write_all(STDOUT_FILENO, out.data, out.len);
    }
    count.events += events;
    count.bytes += size;
    if (opt.records > 0 && count.events >= (unsigned long long)opt.records) {
        stop = 1;
    }
    if (opt.pause_every > 0 && s->appends % (unsigned long)opt.pause_every == 0 && (opt.only < 0 || s == sections + opt.only)) {
        s->over_limit = true;
        s->resume_at = now() + opt.pause;
        pause_section(current);
    }
    return 0;
}

/* ---- the life of a generation ---- */

static void *symbol(struct generation *g, const char *name)
{
    void *f = dlsym(g->library, name);

    if (f == NULL) {
        die("%s does not export %s", opt.library, name);
    }
    return f;
}

static struct generation *register_plugin(int number)
{
    struct generation *g = calloc(1, sizeof *g);

    if (g == NULL || (g->def = calloc(1, sizeof *g->def)) == NULL) {
        die("calloc: %s", strerror(errno));
    }
    g->number = number;
    g->library = dlopen(opt.library, RTLD_LAZY);
    if (g->library == NULL) {
        die("open plugin: %s", dlerror());
    }
    g->def->canary = UINT64_C(0xfeedfacecafebeef);
    int (*reg)(struct proxy_def *) = (int (*)(struct proxy_def *))symbol(g, "FLBPluginRegister");
    if (reg(g->def) == -1 || g->def->type != FLB_INPUT_PLUGIN || g->def->proxy != FLB_GOLANG || g->def->name == NULL) {
        die("FLBPluginRegister did not register a Go input");
    }
    if (g->def->canary != UINT64_C(0xfeedfacecafebeef)) {
        broken("FLBPluginRegister wrote past the end of the definition of Fluent Bit up to 4.0");
    }
    return g;
}

static void unregister_plugin(struct generation *g)
{
    void (*f)(struct proxy_def *) = (void (*)(struct proxy_def *))dlsym(g->library, "FLBPluginUnregister");

    if (f != NULL) {
        f(g->def);
    }
    dlclose(g->library);
    free(g->def);
    free(g);
}

static bool init_sections(struct generation *g)
{
    static struct api api = {
        .input_get_property = get_property,
        .input_get_cmt_instance = get_cmt_instance,
        .log_print = log_print,
        .input_log_check = log_check,
    };
    int (*init)(struct go_plugin *) = (int (*)(struct go_plugin *))symbol(g, "FLBPluginInit");
    int (*pre_run)(int) = (int (*)(int))dlsym(g->library, "FLBPluginInputPreRun");

    for (struct section *s = sections; s < sections + sections_len; s++) {
        memset(&s->context, 0, sizeof s->context);
        if (opt.old) {
            s->context.old.proxy = g;
        } else {
            s->context.now.proxy = g;
        }
        last_inited = s;
        s->live = true;
        s->over_limit = false;
        /* one struct for all sections, overwritten at each init */
        g->plugin = (struct go_plugin){.name = g->def->name, .api = &api, .instance = s, .context = &s->context};
        if (init(&g->plugin) <= 0) {
            fprintf(stderr, "host: section %s does not start\n", s->name);
            return false;
        }
        if (opt.old ? s->context.old.proxy != g : s->context.now.proxy != g) {
            broken("FLBPluginInit wrote over the host's pointer");
        }
        s->context.now.coll_fd = 0; /* set after init: the number of the section's only collector */
        s->collecting = true;
        s->next_tick = now() + 1;
    }
    for (int i = 0; pre_run != NULL && i < sections_len; i++) {
        pre_run(1);
    }
    return true;
}

static void collect(struct generation *g, struct section *s)
{
    int (*f)(void *, void **, size_t *) = (int (*)(void *, void **, size_t *))symbol(g, "FLBPluginInputCallbackCtx");
    void *data = NULL;
    size_t len = 0;

    s->next_tick = now() + 1; /* PROXY_CALLBACK_TIME */
    inside = s;
    f(s->context.now.remote_context, &data, &len);
    inside = NULL;
    if (len != 0) {
        broken("the callback returned data: Fluent Bit ignores whether it could be appended");
    }
}

/* ---- signals ---- */

static const int signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCONT, SIGSEGV, SIGFPE};

static void install_handlers(void);

/*
 * As Fluent Bit's flb_signal_handler: without SA_ONSTACK, so on the stack of whatever thread gets the signal, of which it needs
 * some, and with all handlers installed again at SIGHUP and SIGCONT.
 */
static void on_signal(int number)
{
    char line[2048];
    int length;

    if (number == SIGTERM || number == SIGINT || number == SIGQUIT) {
        stop = 1;
        return;
    }
    memset(line, ' ', sizeof line);
    length = snprintf(line, sizeof line, "host: caught signal %d\n", number);
    if (write(STDERR_FILENO, line, (size_t)length) < 0) {
        abort();
    }
    install_handlers();
    if (number == SIGHUP) {
        reload_asked = 1;
    } else if (number != SIGCONT) {
        abort();
    }
}

static void install_handlers(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        sigaction(signals[i], &action, NULL);
    }
}

/* Looks, after a call of the plugin, whether a fault in Go would end the host instead of becoming a panic. */
static void check_handlers(void)
{
    static int wrong; /* in a row: a signal may just have installed the handlers */
    struct sigaction action;

    sigaction(SIGSEGV, NULL, &action);
    wrong = action.sa_handler == on_signal ? wrong + 1 : 0;
    if (wrong == 10) {
        broken("SIGSEGV is left to the host, and a nil pointer in Go would end it");
    }
}

/* Calls the sections and the timers whose time has come. */
static void turn(struct generation *g)
{
    for (struct section *s = sections; s < sections + sections_len; s++) {
        if (s->over_limit && now() >= s->resume_at && !shutting_down) {
            s->over_limit = false;
            resume_section(g);
        }
        if (s->collecting && now() >= s->next_tick) {
            collect(g, s);
        }
    }
    for (struct timer *t = timers; t < timers + timers_len; t++) {
        if (now() >= t->next) {
            t->next += (double)(1 + (long)((now() - t->next) / t->every)) * t->every; /* what was missed is not made up for */
            inside = t->section;
            t->cb(NULL, t->data);
            inside = NULL;
            check_handlers();
        }
    }
    static double write_at;
    if (opt.metrics != NULL && now() >= write_at) {
        cmt_write(opt.metrics);
        write_at = now() + 1;
    }
    sleep_for(0.001);
}

static void pause_all(struct generation *g)
{
    for (struct section *s = sections; s < sections + sections_len; s++) {
        if (!s->over_limit) {
            pause_section(g);
        }
    }
}

static void shut_down(struct generation *g)
{
    void (*pre_exit)(int) = (void (*)(int))dlsym(g->library, "FLBPluginInputPreExit");
    int (*leave)(void) = (int (*)(void))symbol(g, "FLBPluginExit");

    shutting_down = true;
    pause_all(g);
    for (double until = now() + opt.grace; now() < until;) {
        turn(g);
    }
    pause_all(g); /* flb_engine_shutdown does so once more */
    for (struct section *s = sections; s < sections + sections_len; s++) {
        if (pre_exit != NULL) {
            pre_exit(!stop);
        }
        leave();
        s->live = s->collecting = false;
    }
    if (opt.metrics != NULL) {
        cmt_write(opt.metrics);
        cmt_forget();
    }
    last_inited = NULL;
    timers_len = 0; /* flb_sched_destroy */
    shutting_down = false;
}

static void *run_engine(void *arg)
{
    struct generation *g = arg;
    double next_pause = now() + opt.pause_outside, resume_at = 0;

    /* The name of the thread is how a plugin can tell that its section is threaded: src/flb_input_thread.c */
    pthread_setname_np(pthread_self(), opt.threaded ? "flb-in-defender" : "flb-pipeline");
    engine = pthread_self();
    current = g;
    if (!init_sections(g)) {
        engine_ended = true;
        return "init";
    }
    while (!stop && !reload) {
        turn(g);
        if (opt.seconds > 0 && now() - count.started >= opt.seconds) {
            stop = 1;
        }
        if (opt.pause_outside > 0 && resume_at == 0 && now() >= next_pause) {
            pause_all(g);
            resume_at = now() + opt.pause;
        }
        if (resume_at != 0 && now() >= resume_at) {
            for (int i = 0; i < sections_len; i++) {
                resume_section(g);
            }
            resume_at = 0;
            next_pause = now() + opt.pause_outside;
        }
    }
    shut_down(g);
    engine_ended = true;
    return NULL;
}

/* ---- */

/* Makes one of the functions that we export invisible to dlsym, as in a host that does not have it. */
static void hide(const char *name)
{
    void *f = dlsym(RTLD_DEFAULT, name);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    ElfW(Sym) *sym = NULL;
    Dl_info info;

    if (f == NULL || dladdr1(f, &info, (void **)&sym, RTLD_DL_SYMENT) == 0 || sym == NULL) {
        die("-missing %s: the host exports no such function", name);
    }
    uintptr_t from = (uintptr_t)sym & ~(page - 1);
    if (mprotect((void *)from, (uintptr_t)(sym + 1) - from, PROT_READ | PROT_WRITE) != 0) {
        die("-missing %s: %s", name, strerror(errno));
    }
    sym->st_shndx = SHN_UNDEF;
    sym->st_value = 0;
}

static double parse_number(const char *flag, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*text == '\0' || *end != '\0' || v < 0) {
        die("%s %s: not a number", flag, text);
    }
    return v;
}

static void add_setting(char *text)
{
    struct section *s = sections + sections_len - 1;
    char *equals = strchr(text, '=');

    if (equals == NULL) {
        die("-set %s: write key=value", text);
    }
    *equals = '\0';
    s->settings = realloc(s->settings, (s->settings_len + 1) * sizeof *s->settings);
    if (s->settings == NULL) {
        die("realloc: %s", strerror(errno));
    }
    s->settings[s->settings_len++] = (struct setting){.key = text, .value = equals + 1};
}

static void parse_flags(int argc, char **argv)
{
    static const char *const levels[] = {"", "error", "warn", "info", "debug"};
    const struct { const char *name; double *value, unit; } numbers[] = {
        {"-seconds", &opt.seconds, 1}, {"-reload-every", &opt.reload_every, 1e-3},
        {"-grace", &opt.grace, 1e-3}, {"-pause-ms", &opt.pause, 1e-3}, {"-pause-outside", &opt.pause_outside, 1e-3},
        {"-slow", &opt.slow, 1e-3}, {"-refuse", &opt.refuse, 1},
    };
    const struct { const char *name; long *value; } counts[] = {
        {"-records", &opt.records}, {"-refuse-every", &opt.refuse_every}, {"-pause-every", &opt.pause_every},
    };
    const struct { const char *name; bool *value; } switches[] = {
        {"-threaded", &opt.threaded}, {"-old", &opt.old}, {"-no-timers", &opt.no_timers}, {"-quiet", &opt.quiet},
    };

    for (int i = 1; i < argc; i++) {
        char *flag = argv[i] + (strncmp(argv[i], "--", 2) == 0), *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool known = false;

        if (*flag != '-') {
            if (opt.library != NULL) {
                die("%s: flags come before the library, and there is one library", flag);
            }
            opt.library = flag;
            continue;
        }
        for (size_t k = 0; k < sizeof switches / sizeof *switches; k++) {
            if (strcmp(flag, switches[k].name) == 0) {
                *switches[k].value = known = true;
            }
        }
        if (known) {
            continue;
        }
        if (strcmp(flag, "-instance") == 0) {
            if (sections[sections_len - 1].settings_len > 0 && sections_len++ == MAX_SECTIONS) {
                die("-instance: at most %d sections", MAX_SECTIONS);
            }
            continue;
        }
        if (strcmp(flag, "-h") == 0 || strcmp(flag, "-help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        if (value == NULL) {
            die("%s: there is no such flag, or it lacks its value; -help lists them", flag);
        }
        i++;
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            if (strcmp(flag, numbers[k].name) == 0) {
                *numbers[k].value = parse_number(flag, value) * numbers[k].unit;
                known = true;
            }
        }
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            if (strcmp(flag, counts[k].name) == 0) {
                *counts[k].value = (long)parse_number(flag, value);
                known = true;
            }
        }
        if (known) {
            continue;
        }
        if (strcmp(flag, "-set") == 0) {
            add_setting(value);
        } else if (strcmp(flag, "-storage") == 0) {
            opt.storage = value;
        } else if (strcmp(flag, "-metrics") == 0) {
            opt.metrics = value;
        } else if (strcmp(flag, "-dump") == 0) {
            opt.dump = value;
        } else if (strcmp(flag, "-missing") == 0) {
            hide(value);
        } else if (strcmp(flag, "-only") == 0) {
            opt.only = (int)parse_number(flag, value);
        } else if (strcmp(flag, "-seed") == 0) {
            opt.seed = (uint64_t)parse_number(flag, value) * 2 + 1; /* xorshift needs a seed that is not 0 */
        } else if (strcmp(flag, "-refuse-between") == 0) {
            if (sscanf(value, "%lf,%lf", &opt.refuse_from, &opt.refuse_to) != 2) {
                die("-refuse-between %s: write two seconds, such as 2,5", value);
            }
        } else if (strcmp(flag, "-log-level") == 0) {
            for (opt.log_level = 4; opt.log_level > 0 && strcmp(value, levels[opt.log_level]) != 0;) {
                opt.log_level--;
            }
            if (opt.log_level == 0) {
                die("-log-level %s: write error, warn, info or debug", value);
            }
        } else {
            die("%s: there is no such flag; -help lists them", flag);
        }
    }
    if (opt.library == NULL && opt.dump == NULL) {
        fputs(usage, stderr);
        exit(1);
    }
}

/* The most resident memory so far, in kB. getrusage would show that of the process which has started this one, if it was larger. */
static long peak_memory(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "VmHWM: %ld kB", &kb) == 1) {
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kb;
}

static void summary(int generations)
{
    double seconds = now() - count.started;
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    fprintf(stderr,
            "host: %llu events, %llu bytes in %llu appends (%llu refused), %.1f s, %.1f MB/s, CPU %.2f s, peak memory %ld MB, %d generation%s\n",
            count.events, count.bytes, count.appends, count.refused, seconds, (double)count.bytes / seconds / 1e6,
            (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6, peak_memory() / 1024,
            generations, generations == 1 ? "" : "s");
}

int main(int argc, char **argv)
{
    struct generation *g;
    void *failed = NULL;

    parse_flags(argc, argv);
    if (opt.dump != NULL) {
        dump(opt.dump);
        return 0;
    }
    install_handlers();
    for (int i = 0; i < sections_len; i++) {
        snprintf(sections[i].name, sizeof sections[i].name, "defender.%d", i);
        sections[i].storage = -1;
        if (opt.storage != NULL) {
            open_storage(&sections[i]);
        }
    }

    count.started = now();
    g = register_plugin(1);
    for (;;) {
        double reload_at = now() + opt.reload_every;
        pthread_t thread;

        engine_ended = false;
        if ((errno = pthread_create(&thread, NULL, run_engine, g)) != 0) {
            die("start engine: %s", strerror(errno));
        }
        while (!stop && !reload_asked && !engine_ended) {
            sleep_for(0.002);
            if (opt.reload_every > 0 && now() >= reload_at) {
                break;
            }
        }
        if (stop || engine_ended) {
            pthread_join(thread, &failed);
            break;
        }
        /* A reload registers the new generation before it stops the old one. */
        struct generation *next = register_plugin(g->number + 1);
        reload = true;
        pthread_join(thread, &failed);
        if (stop || failed != NULL) {
            unregister_plugin(next);
            break;
        }
        reload = false;
        reload_asked = 0;
        unregister_plugin(g);
        g = next;
    }
    summary(g->number);
    if (failed == NULL) {
        unregister_plugin(g);
    }
    return failed != NULL ? 1 : count.undecodable > 0 ? 2 : count.broken > 0 ? 3 : 0;
}
