#include "confine.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "budget.h"
#include "landlock.h"
#include "output.h"
#include "seccomp.h"

struct place {
    enum confine_use use;
    char *name;
    enum imgtk_name_kind kind;
    const char *path; /* of kind PATH: within the name */
};

struct confinement {
    struct place *places;
    size_t count;
    bool entered;
};

/* ---- The names ------------------------------------------------------------ */

void confine_free(struct cli *cli)
{
    struct confinement *confinement = cli->confinement;
    for (size_t i = 0; confinement && i < confinement->count; i++)
        free(confinement->places[i].name);
    if (confinement)
        free(confinement->places);
    free(confinement);
    cli->confinement = NULL;
}

/* NULL: out of memory, which is printed. */
static struct confinement *begin(struct cli *cli)
{
    if (!cli->confinement)
        cli->confinement = calloc(1, sizeof *cli->confinement);
    if (!cli->confinement)
        cli_error(cli, "out of memory");
    return cli->confinement;
}

static struct place *add_place(struct confinement *confinement)
{
    struct place *places = realloc(confinement->places, (confinement->count + 1) * sizeof *places);
    if (!places)
        return NULL;
    confinement->places = places;
    places[confinement->count] = (struct place){ .use = CONFINE_READ };
    return &places[confinement->count++];
}

int confine_add(struct cli *cli, enum confine_use use, const char *name)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct confinement *confinement = begin(cli);
    if (!confinement)
        return CLI_FAILED;
    if (!name)
        return 0;
    struct place *place = add_place(confinement);
    if (!place || !(place->name = strdup(name)))
        return cli_error(cli, "out of memory");
    place->use = use;
    if (imgtk_name_parse(cli->context, place->name, &place->kind, &place->path, &err))
        return cli_fail(cli, NULL, &err);
    return 0;
}

/* Whether it is read or written through a temporary file: all that is neither a file nor a block device. */
static bool is_stream(const struct place *place)
{
    struct stat st;
    if (place->kind != IMGTK_NAME_PATH)
        return place->kind == IMGTK_NAME_DESCRIPTOR || place->kind == IMGTK_NAME_MODULE;
    return stat(place->path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode);
}

static unsigned count_streams(const struct confinement *confinement)
{
    unsigned count = 0;
    for (size_t i = 0; i < confinement->count; i++)
        count += is_stream(&confinement->places[i]);
    return count;
}

/* ---- Rules of Landlock ---------------------------------------------------- */

/* The folder where a file would be made: links at the end of the path are followed, though nothing is there yet. */
static bool folder_of(const char *path, char out[PATH_MAX])
{
    if (!realpath(path, out) && errno != ENOENT) /* then the buffer has the path up to what is not there */
        return false;
    char *slash = strrchr(out, '/');
    if (!slash)
        return false;
    slash[slash == out] = '\0';
    return true;
}

static int allow_created(const struct landlock *landlock, const char *path)
{
    char folder[PATH_MAX];
    struct stat st;
    bool there = stat(path, &st) == 0;
    if ((there && !S_ISREG(st.st_mode)) || !folder_of(path, folder))
        return landlock_allow(landlock, path, LANDLOCK_READ | LANDLOCK_WRITE);
    int result = there ? landlock_allow(landlock, path, LANDLOCK_READ | LANDLOCK_WRITE) : 0;
    return result ? result : landlock_allow(landlock, folder, LANDLOCK_MAKE);
}

/* A change may reach the backing file or a data file. */
static int allow_edited(const struct cli *cli, const struct landlock *landlock, const char *path)
{
    char folder[PATH_MAX];
    int result = landlock_allow(landlock, path, LANDLOCK_READ | LANDLOCK_WRITE);
    if (result || imgtk_context_references(cli->context) == IMGTK_REFERENCES_NONE)
        return result;
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    result = landlock_allow(landlock, folder, LANDLOCK_WRITE);
    const char *allowed;
    for (size_t i = 0; result == 0 && (allowed = imgtk_context_allowed_dir(cli->context, i)) != NULL; i++)
        result = landlock_allow(landlock, allowed, LANDLOCK_WRITE);
    return result;
}

static int allow_place(const struct cli *cli, const struct landlock *landlock, const struct place *place)
{
    if (place->kind != IMGTK_NAME_PATH)
        return 0;
    switch (place->use) {
    case CONFINE_READ:
        return landlock_allow(landlock, place->path, LANDLOCK_READ);
    case CONFINE_EDIT:
        return allow_edited(cli, landlock, place->path);
    default:
        return allow_created(landlock, place->path);
    }
}

/* ---- Entering ------------------------------------------------------------- */

/* What the confinement cannot let be: a server of the user's, and a change of whatever an image names. NULL: nothing. */
static const char *find_obstacle(const struct cli *cli, int abi)
{
#ifdef IMGTK_COVERAGE
    return "this build writes its coverage where it was built";
#endif
    for (size_t i = 0; i < cli->confinement->count; i++) {
        const struct place *place = &cli->confinement->places[i];
        if (place->kind == IMGTK_NAME_MODULE && place->name[0] == '[')
            return "the command that is started may write";
        if (place->use == CONFINE_EDIT && imgtk_context_references(cli->context) == IMGTK_REFERENCES_ANY)
            return "an image is changed that may refer to any file";
    }
    return abi ? NULL : "the kernel has no Landlock, or does not let it be used";
}

static bool enter_landlock(const struct cli *cli, bool untrusted)
{
    const struct confinement *confinement = cli->confinement;
    struct landlock landlock;
    if (landlock_begin(untrusted, &landlock) != 0)
        return false;
    int result = 0;
    for (size_t i = 0; result == 0 && i < confinement->count; i++)
        result = allow_place(cli, &landlock, &confinement->places[i]);
    if (result == 0 && !untrusted && count_streams(confinement) > 0)
        result = landlock_allow(&landlock, imgtk_spool_folder(), LANDLOCK_MAKE);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    if (result == 0) /* a sanitizer's report looks there */
        result = landlock_allow(&landlock, "/proc", LANDLOCK_READ);
#endif
    return landlock_enter(&landlock) == 0 && result == 0;
}

/* What needs files that will be out of reach is done first. */
static int prepare_untrusted(struct cli *cli)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    for (size_t i = 0; i < cli->confinement->count; i++)
        if (cli->confinement->places[i].kind == IMGTK_NAME_MODULE)
            return cli_error(cli, "%s: --untrusted has no network: copy the image to a file first, or pipe it in",
                             cli->confinement->places[i].name);
    imgtk_load_formats(cli->context);
    if (imgtk_context_reserve_spools(cli->context, count_streams(cli->confinement), &err))
        return cli_fail(cli, NULL, &err);
    return 0;
}

/* What has become of it. */
struct force {
    int abi;              /* of Landlock; asked before the filter forbids to */
    bool untrusted, landlock, seccomp;
    const char *obstacle; /* why there is no Landlock */
};

static void note_policy(const struct cli *cli)
{
    static const char *const policies[] = { [IMGTK_REFERENCES_BENEATH] = "beneath the image's own folder",
                                            [IMGTK_REFERENCES_ANY] = "to any file", [IMGTK_REFERENCES_NONE] = "none" };
    cli_note(cli, "references: %s", policies[imgtk_context_references(cli->context)]);
    const char *folder;
    for (size_t i = 0; (folder = imgtk_context_allowed_dir(cli->context, i)) != NULL; i++)
        cli_note(cli, "references: also beneath '%s'", folder);
    for (size_t i = 0; (folder = imgtk_module_folder(cli->context, i)) != NULL; i++)
        cli_note(cli, "modules: from '%s'", folder);
}

static void note_force(const struct cli *cli, const struct force *force)
{
    if (force->landlock)
        cli_note(cli, "Landlock (version %d): %swrites to no file but those that the command changes", force->abi,
                 force->untrusted ? "reads the sources, " : "");
    else
        cli_note(cli, "Landlock (version %d): not used: %s", force->abi, force->obstacle);
    if (force->seccomp)
        cli_note(cli, "seccomp: no network, no other program");
    else
        cli_note(cli, "seccomp: not used: %s", force->untrusted ? "this kernel, or this build, has no filter"
                                                                : "it comes with --untrusted");
    note_policy(cli);
    budget_note(cli);
}

static void enter(struct cli *cli, struct force *force)
{
    force->abi = landlock_abi();
    force->obstacle = find_obstacle(cli, force->abi);
    if (!force->obstacle) {
        force->landlock = enter_landlock(cli, force->untrusted);
        force->obstacle = strerror(errno);
    }
    force->seccomp = force->untrusted && seccomp_enter(cli->program, cli->failure) == 0;
    cli->confinement->entered = true;
}

int confine_enter(struct cli *cli)
{
    struct force force = { .untrusted = imgtk_context_trust(cli->context) != IMGTK_TRUSTED };
    if (!begin(cli))
        return CLI_FAILED;
    int failed = force.untrusted ? prepare_untrusted(cli) : 0;
    if (failed)
        return failed;
    enter(cli, &force);
    note_force(cli, &force);
    if (imgtk_context_trust(cli->context) != IMGTK_UNTRUSTED_REQUIRED)
        return 0;
    if (!force.landlock)
        return cli_error(cli, "--untrusted=require: Landlock is not used: %s", force.obstacle);
    if (!force.seccomp)
        return cli_error(cli, "--untrusted=require: this kernel, or this build, has no filter of system calls");
    return 0;
}

bool confine_is_ready(const struct cli *cli)
{
    return imgtk_context_trust(cli->context) == IMGTK_TRUSTED || (cli->confinement && cli->confinement->entered);
}
