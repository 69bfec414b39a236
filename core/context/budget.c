#include "budget.h"

#include <inttypes.h>

int output_charge(struct output_share *share, uint64_t end, struct imgtk_error *err)
{
    struct output_meter *meter = share->meter;
    if (!meter || meter->limit == 0)
        return 0;
    uint64_t reached = atomic_load(&share->reached);
    do {
        if (end <= reached)
            return 0;
    } while (!atomic_compare_exchange_weak(&share->reached, &reached, end));
    uint64_t before = atomic_fetch_add(&meter->used, end - reached);
    if (before <= meter->limit && end - reached <= meter->limit - before)
        return 0;
    return imgtk_fail(err, IMGTK_ELIMIT, "more than %" PRIu64 " bytes would be written, the limit of --max-output",
                      meter->limit);
}

int metadata_charge(struct metadata_meter *meter, uint64_t length, struct imgtk_error *err)
{
    if (!meter || meter->limit == 0)
        return 0;
    if (length <= meter->limit - meter->used) {
        meter->used += length;
        return 0;
    }
    return imgtk_fail(err, IMGTK_ELIMIT, "the image needs more than %" PRIu64 " bytes of tables to be opened, the limit "
                      "of --max-metadata", meter->limit);
}
