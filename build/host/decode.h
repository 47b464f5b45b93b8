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

#endif
