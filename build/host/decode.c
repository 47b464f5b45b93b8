/*
 * msgpack to JSON, with Fluent Bit's limits. Their sources, in fluent-bit 5.1.1:
 *   depth    cmake/msgpack.cmake: MSGPACK_EMBED_STACK_SIZE 64 open containers, the event's own array included
 *   event    src/flb_log_event_decoder.c: an array of two, [time, map] or [[time, map], map]
 *   time     include/fluent-bit/flb_time.h: ext type 0 of 8 bytes, nanoseconds below 10^9; versions 3.2 to 5.0 take
 *            seconds above 2^31 for group markers, so they are refused here
 */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

enum { MAX_DEPTH = 64 };

struct reader {
    const uint8_t *p, *end;
    struct text *out; /* NULL to check only */
    const char *problem;
};

void text_add(struct text *t, const char *data, size_t len)
{
    if (t->len + len > t->cap) {
        t->cap = 2 * (t->len + len);
        t->data = realloc(t->data, t->cap);
        if (t->data == NULL) {
            perror("host: realloc");
            exit(1);
        }
    }
    memcpy(t->data + t->len, data, len);
    t->len += len;
}

static void put(struct reader *r, const char *s)
{
    if (r->out != NULL) {
        text_add(r->out, s, strlen(s));
    }
}

static void fail(struct reader *r, const char *problem)
{
    if (r->problem == NULL) {
        r->problem = problem;
    }
    r->p = r->end;
}

/* Takes n bytes, or fails and returns NULL. */
static const uint8_t *take(struct reader *r, size_t n)
{
    if ((size_t)(r->end - r->p) < n) {
        fail(r, "it is cut short");
        return NULL;
    }
    r->p += n;
    return r->p - n;
}

/* Takes a big-endian number of n bytes. */
static uint64_t number(struct reader *r, size_t n)
{
    const uint8_t *b = take(r, n);
    uint64_t v = 0;

    for (size_t i = 0; b != NULL && i < n; i++) {
        v = v << 8 | b[i];
    }
    return v;
}

/* The length of the UTF-8 sequence at s, or 0 when it is none. */
static size_t utf8_len(const uint8_t *s, size_t n)
{
    size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

    if (len == 0 || len > n) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) {
        return 0;
    }
    return len;
}

static void put_string(struct text *out, const uint8_t *s, size_t n)
{
    text_add(out, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t plain = i;
        while (plain < n && s[plain] >= 0x20 && s[plain] < 0x80 && s[plain] != '"' && s[plain] != '\\') {
            plain++;
        }
        text_add(out, (const char *)s + i, plain - i);
        if ((i = plain) == n) {
            break;
        }
        size_t len = utf8_len(s + i, n - i);
        if (len > 1) {
            text_add(out, (const char *)s + i, len);
        } else if (len == 0) {
            text_add(out, "\\ufffd", 6); /* not UTF-8: shown as what it is, as Fluent Bit's outputs do */
            len = 1;
        } else if (s[i] == '"' || s[i] == '\\') {
            text_add(out, s[i] == '"' ? "\\\"" : "\\\\", 2);
        } else {
            char esc[8];
            text_add(out, esc, (size_t)snprintf(esc, sizeof esc, "\\u%04x", s[i]));
        }
        i += len;
    }
    text_add(out, "\"", 1);
}

static void string(struct reader *r, size_t n)
{
    const uint8_t *s = take(r, n);

    if (s != NULL && r->out != NULL) {
        put_string(r->out, s, n);
    }
}

const char *shortest(double d, char out[40])
{
    if (!isfinite(d)) {
        return isnan(d) ? "NaN" : d > 0 ? "+Inf" : "-Inf";
    }
    if (d == floor(d) && fabs(d) < 1e15) {
        snprintf(out, 40, "%.0f", d); /* not 1e+03 */
        return out;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 40, "%.*g", digits, d);
        if (strtod(out, NULL) == d) {
            break;
        }
    }
    return out;
}

static void put_double(struct reader *r, double d)
{
    char s[40];

    put(r, isfinite(d) ? shortest(d, s) : "null");
}

static void put_int(struct reader *r, int64_t v)
{
    char s[24];

    snprintf(s, sizeof s, "%" PRId64, v);
    put(r, s);
}

static void put_uint(struct reader *r, uint64_t v)
{
    char s[24];

    snprintf(s, sizeof s, "%" PRIu64, v);
    put(r, s);
}

static void value(struct reader *r, int depth);

static bool is_string(uint8_t tag)
{
    return (tag & 0xe0) == 0xa0 || (tag >= 0xd9 && tag <= 0xdb);
}

/* The items of an array, or the pairs of a map, that lies inside depth containers. */
static void container(struct reader *r, uint64_t n, bool map, int depth)
{
    if (depth >= MAX_DEPTH) {
        fail(r, "it is nested too deeply: 62 levels arrive");
        return;
    }
    put(r, map ? "{" : "[");
    for (uint64_t i = 0; i < n && r->problem == NULL; i++) {
        if (i > 0) {
            put(r, ",");
        }
        if (map) {
            if (r->p < r->end && !is_string(*r->p)) {
                fail(r, "a key is not a string"); /* Fluent Bit decodes it, and then writes JSON that nobody can read */
                return;
            }
            value(r, depth + 1);
            put(r, ":");
        }
        value(r, depth + 1);
    }
    put(r, map ? "}" : "]");
}

static void value(struct reader *r, int depth)
{
    const uint8_t *tag = take(r, 1);
    union { uint32_t u; float f; } f32;
    union { uint64_t u; double d; } f64;

    if (tag == NULL) {
        return;
    }
    switch (*tag) {
    case 0xc0: put(r, "null"); return;
    case 0xc2: put(r, "false"); return;
    case 0xc3: put(r, "true"); return;
    case 0xc4: case 0xd9: string(r, number(r, 1)); return;
    case 0xc5: case 0xda: string(r, number(r, 2)); return;
    case 0xc6: case 0xdb: string(r, number(r, 4)); return;
    case 0xca: f32.u = (uint32_t)number(r, 4); put_double(r, (double)f32.f); return;
    case 0xcb: f64.u = number(r, 8); put_double(r, f64.d); return;
    case 0xcc: put_uint(r, number(r, 1)); return;
    case 0xcd: put_uint(r, number(r, 2)); return;
    case 0xce: put_uint(r, number(r, 4)); return;
    case 0xcf: put_uint(r, number(r, 8)); return;
    case 0xd0: put_int(r, (int8_t)number(r, 1)); return;
    case 0xd1: put_int(r, (int16_t)number(r, 2)); return;
    case 0xd2: put_int(r, (int32_t)number(r, 4)); return;
    case 0xd3: put_int(r, (int64_t)number(r, 8)); return;
    case 0xdc: container(r, number(r, 2), false, depth); return;
    case 0xdd: container(r, number(r, 4), false, depth); return;
    case 0xde: container(r, number(r, 2), true, depth); return;
    case 0xdf: container(r, number(r, 4), true, depth); return;
    case 0xc1: case 0xc7: case 0xc8: case 0xc9: case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
        fail(r, "a value is of a type that JSON does not have");
        return;
    }
    if (*tag < 0x80) {
        put_uint(r, *tag);
    } else if (*tag < 0x90) {
        container(r, *tag & 0x0f, true, depth);
    } else if (*tag < 0xa0) {
        container(r, *tag & 0x0f, false, depth);
    } else if (*tag < 0xc0) {
        string(r, *tag & 0x1f);
    } else {
        put_int(r, (int8_t)*tag);
    }
}

static bool is_map(const struct reader *r)
{
    return r->p < r->end && ((*r->p & 0xf0) == 0x80 || *r->p == 0xde || *r->p == 0xdf);
}

/* Takes EventTime: seconds and nanoseconds. */
static void event_time(struct reader *r)
{
    const uint8_t *head = take(r, 2);
    char s[32];

    if (head != NULL && head[0] == 0xc7 && head[1] == 8) {
        head = take(r, 1);
        head = head != NULL ? head - 1 : NULL; /* the type is now head[1], as in a fixext */
    } else if (head != NULL && head[0] != 0xd7) {
        fail(r, "the time is not an EventTime");
        return;
    }
    if (head != NULL && head[1] != 0) {
        fail(r, "the time is an ext of another type than 0");
        return;
    }
    uint64_t seconds = number(r, 4), nanoseconds = number(r, 4);
    if (seconds > INT32_MAX) {
        fail(r, "the time is after 2038-01-19: Fluent Bit before 5.1 drops the chunk at it");
    } else if (nanoseconds >= 1000000000) {
        fail(r, "the time has 10^9 nanoseconds or more");
    }
    snprintf(s, sizeof s, "%" PRIu64 ".%09" PRIu64, seconds, nanoseconds);
    put(r, s);
}

const char *decode_event(const uint8_t **p, const uint8_t *end, const char *tag, size_t tag_len, struct text *out)
{
    struct reader r = {.p = *p, .end = end, .out = out};
    size_t before = out != NULL ? out->len : 0;
    const uint8_t *head = take(&r, 1);
    bool metadata = false;

    if (head != NULL && *head != 0x92) {
        fail(&r, "it is not an array of two");
    }
    if (r.p < r.end && *r.p == 0x92) {
        metadata = true;
        r.p++;
    }
    put(&r, "{\"tag\":");
    if (out != NULL) {
        put_string(out, (const uint8_t *)tag, tag_len);
    }
    put(&r, ",\"time\":");
    event_time(&r);
    if (metadata) {
        put(&r, ",\"metadata\":");
        if (r.problem == NULL && !is_map(&r)) {
            fail(&r, "the metadata is not a map");
        }
        value(&r, 2);
    }
    put(&r, ",\"record\":");
    if (r.problem == NULL && !is_map(&r)) {
        fail(&r, "the record is not a map");
    }
    value(&r, 1);
    put(&r, "}\n");
    *p = r.p;
    if (r.problem != NULL && out != NULL) {
        out->len = before;
    }
    return r.problem;
}
