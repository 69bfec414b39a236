#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <imgtk/storage.h>
#include <imgtk/version.h>

#include "brackets.h"
#include "cli.h"
#include "complete.h"
#include "confine.h"
#include "help.h"
#include "options.h"
#include "output.h"
#include "roff.h"

#define MANY_FILES 65536u

/* The qemu-img whose command line and output imgtk follows; told only to who asks under that name. */
#define QEMU_IMG_VERSION "10.0.2"

const struct cli_command *const cli_commands[] = {
    &cli_convert_command, &cli_create_command, &cli_map_command, &cli_info_command, &cli_check_command,
    &cli_compare_command, &cli_checksum_command, &cli_measure_command, &cli_resize_command, &cli_rebase_command,
    &cli_commit_command, &cli_snapshot_command, &cli_bitmap_command, &cli_formats_command, NULL
};

const struct cli_command *cli_find_command(const char *name)
{
    for (const struct cli_command *const *command = cli_commands; *command; command++)
        if (strcmp((*command)->name, name) == 0)
            return *command;
    return NULL;
}

static int unknown_command(struct cli *cli, const char *name)
{
    const char *names[sizeof cli_commands / sizeof cli_commands[0] + 1];
    size_t count = 0;
    for (const struct cli_command *const *command = cli_commands; *command; command++)
        names[count++] = (*command)->name;
    names[count++] = "help";
    names[count] = NULL;
    const char *near = imgtk_nearest_word(name, names);
    if (near)
        return cli_usage_error(cli, "Command not found: %s; did you mean '%s'?", name, near);
    return cli_usage_error(cli, "Command not found: %s", name);
}

static int unknown_option(struct cli *cli, const char *option)
{
    static const char *const names[] = { "help", "version", NULL };
    const char *near = strncmp(option, "--", 2) == 0 ? imgtk_nearest_word(option + 2, names) : NULL;
    if (near)
        return cli_usage_error(cli, "unrecognized option '%s'; did you mean '--%s'?", option, near);
    return cli_usage_error(cli, "unrecognized option '%s'; those of a command stand behind it", option);
}

/* ---- The program itself --------------------------------------------------- */

static int print_usage(const struct cli *cli)
{
    help_print_program(cli);
    return CLI_OK;
}

/* By their files: loading them would take longer than all the rest. */
static void print_module_name(void *context, const char *name)
{
    (void)context;
    fputs(", ", stdout);
    cli_print_text(name);
}

static int print_version(struct cli *cli)
{
    if (cli->as_qemu_img)
        printf("qemu-img version %s (imgtk %s)\n", QEMU_IMG_VERSION, imgtk_version());
    else
        printf("imgtk %s\n", imgtk_version());
    const char *name, *version;
    for (size_t i = 0; imgtk_library(i, &name, &version); i++)
        printf("%s%s %s", i ? ", " : "libraries: ", name, version);
    fputs("\nmodules: raw", stdout);
    struct cli_common common = { .quiet = true };
    int code = cli_start(cli, &common);
    if (code == CLI_OK)
        imgtk_module_names(cli->context, print_module_name, NULL);
    putchar('\n');
    return code;
}

static int help(struct cli *cli, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return print_usage(cli);
    const struct cli_command *command = cli_find_command(name);
    if (!command)
        return unknown_command(cli, name);
    help_print_command(cli, command);
    return CLI_OK;
}

static bool asks_for(int argc, char **argv, const char *what)
{
    return argc > 2 && strcmp(argv[1], "help") == 0 && strcmp(argv[2], what) == 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
    if (asks_for(argc, argv, "--complete")) /* of a line that may not be whole yet */
        return complete_print(cli, argc - 3, argv + 3);
    if (asks_for(argc, argv, "--roff"))
        return roff_print(cli, argc - 3, argv + 3);
    int failed = brackets_join(cli, &argc, argv);
    if (failed)
        return failed;
    if (argc < 2)
        return cli_usage_error(cli, "Not enough arguments");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_usage(cli);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return print_version(cli);
    if (strcmp(argv[1], "help") == 0)
        return help(cli, argc - 1, argv + 1);
    if (argv[1][0] == '-')
        return unknown_option(cli, argv[1]);
    const struct cli_command *command = cli_find_command(argv[1]);
    if (!command)
        return unknown_command(cli, argv[1]);
    cli->command = command;
    return command->run(cli, argc - 1, argv + 1);
}

/* ---- The process ---------------------------------------------------------- */

/*
 * A standard descriptor that the parent closed would be given to the first file that is opened, and messages would be
 * written into an image. The stand-ins are open the wrong way round, so that using them is an error.
 */
static int occupy_standard_descriptors(void)
{
    static const int modes[] = { O_WRONLY, O_RDONLY, O_RDONLY };
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            return -1;
    return 0;
}

/* A large VMDK image has a file for each 2 GiB, and they are open together; the limit that may be raised is lower. */
static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= MANY_FILES || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max < MANY_FILES ? limit.rlim_max : MANY_FILES;
    setrlimit(RLIMIT_NOFILE, &limit); /* if it cannot be, opening says which file was too many */
}

int main(int argc, char **argv)
{
    if (occupy_standard_descriptors())
        return CLI_FAILED;
    allow_many_files();
    imgtk_allow_mapping(); /* before there are threads */
    signal(SIGXFSZ, SIG_IGN); /* beyond the limit of a shell, writing fails with a reason, as on a full disk */
    const char *name = argc > 0 ? argv[0] : "imgtk";
    const char *slash = strrchr(name, '/');
    struct cli cli = { .program = slash ? slash + 1 : name, .failure = CLI_FAILED };
    cli.as_qemu_img = strcmp(cli.program, "qemu-img") == 0;
    int code = cli_finish_output(&cli, run(&cli, argc, argv));
    confine_free(&cli);
    imgtk_context_free(cli.context);
    brackets_free(&cli);
    return code;
}
