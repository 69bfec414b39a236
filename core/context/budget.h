/* Counting what a job uses up of its budget. Internal to core. */
#ifndef IMGTK_CORE_CONTEXT_BUDGET_H
#define IMGTK_CORE_CONTEXT_BUDGET_H

#include <stdatomic.h>
#include <stdint.h>

#include "imgtk/error.h"

/* How far all files together that a context writes have grown. */
struct output_meter {
    uint64_t limit; /* 0: none */
    atomic_uint_least64_t used;
};
/* One file of them. */
struct output_share {
    struct output_meter *meter; /* NULL: not counted */
    atomic_uint_least64_t reached;
};
/* Before something is written up to `end`. */
int output_charge(struct output_share *share, uint64_t end, struct imgtk_error *err);

/* What is read while a driver opens a layer. One thread's business. */
struct metadata_meter {
    uint64_t limit; /* 0: none, and after the layer is open */
    uint64_t used;
};
int metadata_charge(struct metadata_meter *meter, uint64_t length, struct imgtk_error *err);

#endif
