/* A piece of a conversion's work. Internal to core. */
#ifndef IMGTK_CORE_CONVERT_ITEM_H
#define IMGTK_CORE_CONVERT_ITEM_H

#include "imgtk/storage.h"

enum item_kind {
    ITEM_DATA,
    ITEM_COPY,
    ITEM_ZERO,
    ITEM_SKIP, /* zeroes of which only the digest has to hear */
    ITEM_READ  /* data that are in the target's backing file already: only the digest needs them */
};

/* One piece of work: a range of the disk, in whole units of the target. */
struct item {
    enum item_kind kind;
    uint64_t number; /* counts from 0; the order of turns */
    uint64_t offset, length;
    struct imgtk_storage *from; /* of COPY; of DATA, where all of it lies plainly in one file, else NULL */
    uint64_t from_offset;
};

#endif
