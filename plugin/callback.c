/*
 * The callback that the host demands of a Go input. It does nothing.
 *
 * The host calls it once a second, and not at all after it has stopped the timer of the wrong
 * section. It stores the returned data and does not report the outcome. Our own timer does better
 * (flb.h), so no Go runs here.
 */
#include "flb.h"

int FLBPluginInputCallbackCtx(uintptr_t id, void **data, size_t *size)
{
    (void)id;
    *data = NULL;
    *size = 0;
    return 1; /* FLB_OK */
}
