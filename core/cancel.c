#include "imgtk/cancel.h"

#include <stdatomic.h>
#include <stddef.h>

/*
 * A plain int for the header's sake, which C++ includes too: C's atomic types are not C++'s. The compiler's own
 * operations work on any int.
 */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler may take no lock");

void imgtk_cancel_request(struct imgtk_cancel *cancel, int reason)
{
    __atomic_store_n(&cancel->reason, reason, __ATOMIC_RELEASE);
}

int imgtk_cancel_reason(const struct imgtk_cancel *cancel)
{
    return cancel ? __atomic_load_n(&cancel->reason, __ATOMIC_ACQUIRE) : 0;
}
