/*
 * As much of cmetrics (lib/cmetrics in fluent-bit 5.1) as input plugins use: families of counters, gauges and histograms with
 * labels, exported under the same names and checked more strictly. Of the engine's thread only.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmt.h"
#include "decode.h"

enum { MAX_LABELS = 8, MAX_BUCKETS = 32 };

struct series {
    struct series *next;
    char *labels[MAX_LABELS];
    double value;
    uint64_t buckets[MAX_BUCKETS + 1], count;
};

struct buckets {
    size_t count;
    double bounds[MAX_BUCKETS];
};

struct family {
    struct family *next;
    const char *type;
    char *name, *help, *keys[MAX_LABELS];
    int labels;
    bool may_reset;
    struct buckets *buckets;
    struct series *series;
};

static struct family *families;
static char context; /* its address is all that matters */

void *cmt_counter_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int labels, char **keys);
void cmt_counter_allow_reset(void *family);
int cmt_counter_set(void *family, uint64_t timestamp, double value, int labels, char **values);
void *cmt_gauge_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int labels, char **keys);
int cmt_gauge_set(void *family, uint64_t timestamp, double value, int labels, char **values);
void *cmt_histogram_buckets_create_size(double *bounds, size_t count);
void *cmt_histogram_create(void *cmt, char *ns, char *subsystem, char *name, char *help, void *buckets, int labels, char **keys);
int cmt_histogram_set_default(void *family, uint64_t timestamp, uint64_t *buckets, double sum, uint64_t count, int labels, char **values);

static void refuse(const char *what, const char *name)
{
    fprintf(stderr, "host: metrics: %s: %s\n", name, what);
    exit(3);
}

void *cmt_context(void)
{
    return &context;
}

static void *create(const char *type, void *cmt, const char *ns, const char *subsystem, const char *name, const char *help, int labels, char **keys)
{
    char full[256];
    struct family *f = NULL;

    snprintf(full, sizeof full, "%s_%s_%s", ns, subsystem, name);
    if (cmt != &context || labels < 0 || labels > MAX_LABELS || help == NULL || *help == '\0') {
        refuse("created with wrong arguments", full);
    }
    for (f = families; f != NULL; f = f->next) { /* each section makes its own; here they share one */
        if (strcmp(f->name, full) == 0) {
            return f;
        }
    }
    if ((f = calloc(1, sizeof *f)) == NULL) {
        abort();
    }
    f->type = type;
    f->name = strdup(full);
    f->help = strdup(help);
    f->labels = labels;
    for (int i = 0; i < labels; i++) {
        f->keys[i] = strdup(keys[i]);
    }
    f->next = families;
    families = f;
    return f;
}

static struct series *find(struct family *f, uint64_t timestamp, int labels, char **values)
{
    if (labels != f->labels || timestamp < 1600000000000000000u) {
        refuse("set with another number of labels, or without a time", f->name);
    }
    for (struct series *s = f->series; s != NULL; s = s->next) {
        int same = 0;
        while (same < labels && strcmp(s->labels[same], values[same]) == 0) {
            same++;
        }
        if (same == labels) {
            return s;
        }
    }
    struct series *s = calloc(1, sizeof *s);
    if (s == NULL) {
        abort();
    }
    for (int i = 0; i < labels; i++) {
        s->labels[i] = strdup(values[i]);
    }
    s->next = f->series;
    return f->series = s;
}

void *cmt_counter_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int labels, char **keys)
{
    return create("counter", cmt, ns, subsystem, name, help, labels, keys);
}

void cmt_counter_allow_reset(void *family)
{
    ((struct family *)family)->may_reset = true;
}

int cmt_counter_set(void *family, uint64_t timestamp, double value, int labels, char **values)
{
    struct family *f = family;
    struct series *s = find(f, timestamp, labels, values);

    if (value < s->value && !f->may_reset) {
        return -1;
    }
    s->value = value;
    return 0;
}

void *cmt_gauge_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int labels, char **keys)
{
    return create("gauge", cmt, ns, subsystem, name, help, labels, keys);
}

int cmt_gauge_set(void *family, uint64_t timestamp, double value, int labels, char **values)
{
    find(family, timestamp, labels, values)->value = value;
    return 0;
}

void *cmt_histogram_buckets_create_size(double *bounds, size_t count)
{
    struct buckets *b = calloc(1, sizeof *b);

    if (b == NULL || count > MAX_BUCKETS) {
        abort();
    }
    b->count = count;
    memcpy(b->bounds, bounds, count * sizeof *bounds);
    return b;
}

void *cmt_histogram_create(void *cmt, char *ns, char *subsystem, char *name, char *help, void *buckets, int labels, char **keys)
{
    struct family *f = create("histogram", cmt, ns, subsystem, name, help, labels, keys);

    if (f->buckets == NULL) {
        f->buckets = buckets;
    } else {
        free(buckets);
    }
    return f;
}

int cmt_histogram_set_default(void *family, uint64_t timestamp, uint64_t *buckets, double sum, uint64_t count, int labels, char **values)
{
    struct family *f = family;
    struct series *s = find(f, timestamp, labels, values);

    for (size_t i = 0; i <= f->buckets->count; i++) {
        if (i > 0 && buckets[i] < buckets[i - 1]) {
            refuse("its buckets are not cumulative", f->name);
        }
        s->buckets[i] = buckets[i];
    }
    s->value = sum;
    s->count = count;
    return 0;
}

static void show(FILE *out, const struct family *f, const struct series *s, const char *suffix, const char *le, double value)
{
    char number[40];
    fprintf(out, "%s%s", f->name, suffix);
    for (int i = 0; i < f->labels; i++) {
        fprintf(out, "%c%s=\"", i == 0 ? '{' : ',', f->keys[i]);
        for (const char *c = s->labels[i]; *c != '\0'; c++) {
            if (*c == '\n') {
                fputs("\\n", out);
                continue;
            }
            if (*c == '"' || *c == '\\') {
                fputc('\\', out);
            }
            fputc(*c, out);
        }
        fputc('"', out);
    }
    if (le != NULL) {
        fprintf(out, "%cle=\"%s\"", f->labels == 0 ? '{' : ',', le);
    }
    fprintf(out, "%s %s\n", f->labels > 0 || le != NULL ? "}" : "", shortest(value, number));
}

void cmt_write(const char *path)
{
    char temporary[4096], le[32];
    FILE *out;

    snprintf(temporary, sizeof temporary, "%s.new", path);
    if ((out = fopen(temporary, "w")) == NULL) {
        refuse("cannot be written", path);
    }
    for (struct family *f = families; f != NULL; f = f->next) {
        fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, f->type);
        for (struct series *s = f->series; s != NULL; s = s->next) {
            if (f->buckets == NULL) {
                show(out, f, s, "", NULL, s->value);
                continue;
            }
            for (size_t i = 0; i < f->buckets->count; i++) {
                snprintf(le, sizeof le, "%g", f->buckets->bounds[i]);
                show(out, f, s, "_bucket", le, (double)s->buckets[i]);
            }
            show(out, f, s, "_bucket", "+Inf", (double)s->buckets[f->buckets->count]);
            show(out, f, s, "_sum", NULL, s->value);
            show(out, f, s, "_count", NULL, (double)s->count);
        }
    }
    if (fclose(out) != 0 || rename(temporary, path) != 0) {
        refuse("cannot be written", path);
    }
}

void cmt_forget(void)
{
    while (families != NULL) {
        struct family *f = families;
        families = f->next;
        while (f->series != NULL) {
            struct series *s = f->series;
            f->series = s->next;
            for (int i = 0; i < f->labels; i++) {
                free(s->labels[i]);
            }
            free(s);
        }
        for (int i = 0; i < f->labels; i++) {
            free(f->keys[i]);
        }
        free(f->name);
        free(f->help);
        free(f->buckets);
        free(f);
    }
}
