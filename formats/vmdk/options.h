/* The options of -O vmdk, read and checked. */
#ifndef VMDK_OPTIONS_H
#define VMDK_OPTIONS_H

#include "imgtk/driver.h"

enum vmdk_subformat {
    VMDK_MONOLITHIC_SPARSE,
    VMDK_MONOLITHIC_FLAT,
    VMDK_SPLIT_SPARSE,
    VMDK_SPLIT_FLAT,
    VMDK_STREAM
};

extern const struct imgtk_opt vmdk_create_opts[];

/* Strings belong to the options they came from: valid during create() and measure(). */
struct vmdk_options {
    enum vmdk_subformat subformat;
    const char *subformat_name; /* createType */
    const char *adapter, *hardware_version, *tools_version;
    const char *parent_name;    /* NULL: none */
    uint32_t cid, parent_cid;
    bool zeroed_grain;
    unsigned level;             /* 0: the codec's own choice */
};

/* Reads and checks everything but parent_cid and cid. */
int vmdk_options_read(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err);
/* Sets parent_cid from the opened parent, and cid: as given, from SOURCE_DATE_EPOCH, or random. */
int vmdk_options_identify(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err);

#endif
