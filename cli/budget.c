#include "budget.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "options.h"
#include "output.h"
#include "signals.h"

/* Of --untrusted, where nothing else is said. A cloud image must pass, and 64 threads that compress. */
#define UNTRUSTED_OUTPUT (256ull << 30)
#define UNTRUSTED_METADATA (64ull << 20)
#define UNTRUSTED_MEMORY (2ull << 30)
#define UNTRUSTED_SECONDS 3600u

#define MAX_SECONDS 999999999u

/* The sanitizers take terabytes of address space, which a limit of memory would count. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS_MEMORY false
#else
#define LIMITS_MEMORY true
#endif

/* ---- Choosing ------------------------------------------------------------- */

static int choose_size(struct cli *cli, const char *option, const char *text, uint64_t otherwise, uint64_t *out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (text && imgtk_parse_size(text, out, &err))
        return cli_fail(cli, option, &err);
    if (!text && *out == 0 && imgtk_context_trust(cli->context) != IMGTK_TRUSTED)
        *out = otherwise;
    return 0;
}

static int choose_time(struct cli *cli, const char *text, uint64_t *out)
{
    if (!text && *out == 0 && imgtk_context_trust(cli->context) != IMGTK_TRUSTED)
        *out = UNTRUSTED_SECONDS;
    if (!text)
        return 0;
    if (!*text || text[strspn(text, "0123456789")] || strlen(text) > 9)
        return cli_error(cli, "--max-time: '%s' is not a number of seconds up to %u", text, MAX_SECONDS);
    *out = strtoul(text, NULL, 10);
    return 0;
}

/* ---- Limits of the process ------------------------------------------------ */

static int limit(struct cli *cli, int resource, const char *option, uint64_t bytes)
{
    struct rlimit old;
    if (bytes == 0 || getrlimit((__rlimit_resource_t)resource, &old) != 0)
        return 0;
    struct rlimit new_limit = { .rlim_cur = bytes, .rlim_max = bytes };
    if (old.rlim_cur <= bytes)
        return 0; /* the user's own is closer */
    if (setrlimit((__rlimit_resource_t)resource, &new_limit) == 0)
        return 0;
    return cli_error(cli, "%s: the limit cannot be set: %s", option, strerror(errno));
}

int budget_set(struct cli *cli, const struct cli_common *common)
{
    struct imgtk_budget budget = *imgtk_context_budget(cli->context);
    int failed = choose_size(cli, "--max-output", common->max_output, UNTRUSTED_OUTPUT, &budget.output);
    if (failed == 0)
        failed = choose_size(cli, "--max-metadata", common->max_metadata, UNTRUSTED_METADATA, &budget.metadata);
    if (failed == 0)
        failed = choose_size(cli, "--max-memory", common->max_memory, UNTRUSTED_MEMORY, &budget.memory);
    if (failed == 0)
        failed = choose_time(cli, common->max_time, &budget.seconds);
    if (failed)
        return failed;
    imgtk_context_set_budget(cli->context, &budget);
    signals_limit_time(cli->program, (unsigned)budget.seconds, cli->failure);
    /* Behind the counting, which knows nothing of temporary files. */
    failed = limit(cli, RLIMIT_FSIZE, "--max-output", budget.output);
    if (failed == 0 && LIMITS_MEMORY)
        failed = limit(cli, RLIMIT_DATA, "--max-memory", budget.memory);
    return failed;
}

/* ---- Telling -------------------------------------------------------------- */

static void describe(uint64_t bytes, char out[CLI_SIZE_TEXT])
{
    if (bytes)
        cli_format_size(bytes, out);
    else
        strcpy(out, "no limit");
}

void budget_note(const struct cli *cli)
{
    const struct imgtk_budget *budget = imgtk_context_budget(cli->context);
    char output[CLI_SIZE_TEXT], metadata[CLI_SIZE_TEXT], memory[CLI_SIZE_TEXT], seconds[CLI_SIZE_TEXT] = "no limit";
    describe(budget->output, output);
    describe(budget->metadata, metadata);
    describe(budget->memory, memory);
    if (budget->seconds)
        snprintf(seconds, sizeof seconds, "%u s", (unsigned)budget->seconds);
    cli_note(cli, "budgets: output %s, memory %s, time %s, metadata %s", output, memory, seconds, metadata);
}
