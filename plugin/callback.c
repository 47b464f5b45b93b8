/*
 * The callback that the host demands of a Go input, and that does nothing.
 *
 * The host calls it once a second, not at all after it has stopped the timer of the wrong section, and stores what it
 * returns without a word about the outcome. Our own timer does better (flb.h), so no Go runs here.
 */
#include "flb.h"

int FLBPluginInputCallbackCtx(uintptr_t id, void **data, size_t *size)
{
    (void)id;
    *data = NULL;
    *size = 0;
    return 1; /* FLB_OK */
}
