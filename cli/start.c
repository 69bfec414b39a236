/* The context, with the policies and budgets of the common options. */
#include <stdio.h>
#include <string.h>

#include "budget.h"
#include "cli.h"
#include "options.h"
#include "output.h"
#include "signals.h"

static void print_note(void *context, const char *message)
{
    cli_note(context, "%s", message);
}

static int set_policy(struct cli *cli, const char *text)
{
    enum imgtk_reference_policy policy;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_reference_policy_parse(text, &policy, &err))
        return cli_usage_error(cli, "--references %s", err.message);
    imgtk_context_set_references(cli->context, policy);
    return 0;
}

static int set_references(struct cli *cli, const struct cli_common *common)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int failed = common->references ? set_policy(cli, common->references) : 0;
    for (size_t i = 0; i < common->allow_dirs.count && failed == 0; i++)
        if (imgtk_context_allow_dir(cli->context, common->allow_dirs.items[i], &err))
            failed = cli_fail(cli, "--allow-dir", &err);
    return failed;
}

static int set_trust(struct cli *cli, const struct cli_common *common)
{
    static const char *const names[] = { "no", "", "require", "yes" };
    static const enum imgtk_trust trusts[] = { IMGTK_TRUSTED, IMGTK_UNTRUSTED, IMGTK_UNTRUSTED_REQUIRED, IMGTK_UNTRUSTED };
    size_t i = 0, count = sizeof names / sizeof names[0];
    while (common->untrusted && i < count && strcmp(common->untrusted, names[i]) != 0)
        i++;
    if (i == count)
        return cli_usage_error(cli, "--untrusted takes yes, require or no, not '%s'", common->untrusted);
    if (common->untrusted)
        imgtk_context_set_trust(cli->context, trusts[i]);
    bool referring = (common->references && strcmp(common->references, "none") != 0) || common->allow_dirs.count > 0;
    if (referring && imgtk_context_trust(cli->context) != IMGTK_TRUSTED)
        return cli_usage_error(cli, "an untrusted image refers to nothing: --references and --allow-dir cannot be combined "
                               "with --untrusted");
    return 0;
}

int cli_start(struct cli *cli, const struct cli_common *common)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_context_new(&cli->context, &err))
        return cli_fail(cli, NULL, &err);
    imgtk_context_set_note(cli->context, print_note, cli);
    imgtk_context_set_cancel(cli->context, signals_stop()); /* those that the command catches, and --max-time */
    if (common->storage_options &&
        imgtk_context_set_storage_options(cli->context, common->storage_options, &err))
        return cli_fail(cli, NULL, &err);
    int failed = set_trust(cli, common);
    if (failed == 0)
        failed = set_references(cli, common);
    return failed ? failed : budget_set(cli, common);
}
