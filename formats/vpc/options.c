/* What the user may choose, and what follows from it. */
#include <string.h>
#include <time.h>

#include "vpc.h"

#define MIB (UINT64_C(1) << 20)

static const char *const size_rules[] = { "current_size", "chs", NULL };

const struct imgtk_opt vpc_open_opts[] = {
    { .name = "force_size_calc", .type = IMGTK_OPT_CHOICE, .choices = size_rules,
      .help = "take the size from the size field or from the geometry, whatever program made the image" },
    { .name = NULL },
};

static const char *const subformats[] = { "dynamic", "fixed", NULL };
static const char *const profiles[] = { "azure", NULL };

const struct imgtk_opt vpc_create_opts[] = {
    { .name = "subformat", .type = IMGTK_OPT_CHOICE, .choices = subformats,
      .help = "dynamic (default) or fixed" },
    { .name = "force_size", .type = IMGTK_OPT_BOOL,
      .help = "keep the exact size instead of rounding it up to a geometry" },
    { .name = "profile", .type = IMGTK_OPT_CHOICE, .choices = profiles,
      .help = "azure: fixed, exact size in whole MiB, as Azure demands" },
    { .name = "uuid", .type = IMGTK_OPT_STRING,
      .help = "the image's UUID (default: random, or from SOURCE_DATE_EPOCH and the size)" },
    { .name = "timestamp", .type = IMGTK_OPT_UINT, .min = VPC_EPOCH, .max = VPC_EPOCH + (uint64_t)UINT32_MAX,
      .help = "time of creation, seconds since 1970 (default: SOURCE_DATE_EPOCH, else now)" },
    { .name = NULL },
};

enum vpc_size_rule vpc_options_size_rule(const struct imgtk_opts *opts)
{
    const char *text = opts ? imgtk_opts_text(opts, "force_size_calc") : NULL;
    if (!text)
        return VPC_SIZE_BY_CREATOR;
    return strcmp(text, "chs") == 0 ? VPC_SIZE_CHS : VPC_SIZE_CURRENT;
}

/* ---- Creating ------------------------------------------------------------- */

/* Seconds since 2000; earlier times become the earliest, since SOURCE_DATE_EPOCH is 0 or 1 in some builds. */
static uint32_t since_epoch(uint64_t unix_time)
{
    uint64_t since = unix_time < VPC_EPOCH ? 0 : unix_time - VPC_EPOCH;
    return (uint32_t)imgtk_min_u64(since, UINT32_MAX);
}

static int choose_timestamp(const struct imgtk_opts *opts, uint32_t *out, struct imgtk_error *err)
{
    bool set;
    uint64_t seconds;
    if (opts && imgtk_opts_given(opts, "timestamp")) {
        *out = since_epoch(imgtk_opts_number(opts, "timestamp"));
        return 0;
    }
    int status = uuid_source_date(&set, &seconds, err);
    *out = since_epoch(set && !status ? seconds : (uint64_t)time(NULL));
    return status;
}

static int apply_profile(struct vpc_create_options *out, const char *subformat, struct imgtk_error *err)
{
    if (subformat && strcmp(subformat, "fixed") != 0)
        return imgtk_fail(err, IMGTK_EINVAL, "profile=azure is a fixed disk; subformat=%s contradicts it", subformat);
    out->type = VPC_FIXED;
    out->exact = true;
    if (out->size > VPC_MAX_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "size %llu exceeds the largest VHD, %llu bytes (2040 GiB)",
                          (unsigned long long)out->size, (unsigned long long)VPC_MAX_SIZE);
    out->size = imgtk_round_up(out->size, MIB);
    return 0;
}

int vpc_options_parse(const struct imgtk_create *args, struct vpc_create_options *out, struct imgtk_error *err)
{
    const struct imgtk_opts *opts = args->opts;
    const char *subformat = opts ? imgtk_opts_text(opts, "subformat") : NULL;
    *out = (struct vpc_create_options){
        .type = subformat && strcmp(subformat, "fixed") == 0 ? VPC_FIXED : VPC_DYNAMIC,
        .exact = opts && imgtk_opts_bool(opts, "force_size"),
        .size = args->size,
    };
    int status = opts && imgtk_opts_text(opts, "profile") ? apply_profile(out, subformat, err) : 0;
    if (!status)
        status = uuid_choose(opts ? imgtk_opts_text(opts, "uuid") : NULL, out->size, 0, out->uuid, err);
    if (!status)
        status = choose_timestamp(opts, &out->timestamp, err);
    return status;
}
