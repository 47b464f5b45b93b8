/* Events as Fluent Bit decodes them, and as JSON. */
#ifndef DECODE_H
#define DECODE_H

#include <stddef.h>
#include <stdint.h>

/* Text that grows. */
struct text {
    char *data;
    size_t len, cap;
};

void text_add(struct text *t, const char *data, size_t len);

/*
 * Reads one event at *p, moves *p behind it and, when out is not NULL, appends it to out as a line of JSON. Returns NULL,
 * or what makes the event one that Fluent Bit cannot decode: it would silently drop the rest of the chunk with it.
 */
const char *decode_event(const uint8_t **p, const uint8_t *end, const char *tag, size_t tag_len, struct text *out);

/* The shortest text that is d when it is read again, such as 4.65; or NaN, +Inf, -Inf. Written into out where it is no constant. */
const char *shortest(double d, char out[40]);

#endif
