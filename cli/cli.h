/* What the commands share: the program's state, and how a command is described. */
#ifndef IMGTK_CLI_H
#define IMGTK_CLI_H

#include <imgtk/image.h>

/* Exit codes that several commands use; the others stand with their command. */
enum { CLI_OK = 0, CLI_FAILED = 1 };

#define CLI_JOINED_MAX 16
struct cli {
    const char *program;             /* what messages begin with: basename(argv[0]) */
    bool as_qemu_img;                /* started under that name: its defaults where ours differ */
    bool quiet, verbose;
    int failure;                     /* exit code of what fails; a command whose 1 means something else sets its own */
    struct confinement *confinement; /* see confine.h; NULL until a name is added */
    struct imgtk_context *context;   /* NULL until cli_start() */
    const struct cli_command *command;
    char *joined[CLI_JOINED_MAX];    /* words of the command line that were made; see brackets.h */
    int joined_count;
};

/* The options that every command takes; the first member of each command's values. */
#define CLI_LIST_MAX 64
struct cli_list {
    const char *items[CLI_LIST_MAX];
    size_t count;
};
struct cli_common {
    bool quiet, verbose, help;
    const char *references, *storage_options, *untrusted;
    const char *max_output, *max_metadata, *max_memory, *max_time;
    struct cli_list allow_dirs;
};

struct cli_exit {
    int code;
    const char *meaning;              /* no full stop; NULL: the end of the list */
};

struct cli_option;
/* What --help, the manual and completion tell of a command comes from here. */
struct cli_command {
    const char *name;
    const char *summary;              /* one line, no full stop */
    const char *operands;             /* "[OPTION]... FILE" without the command */
    const struct cli_option *options;
    const char *notes;                /* more for --help alone, which wraps it; may be NULL */
    const char *examples;             /* whole lines; may be NULL */
    const struct cli_exit *exits;     /* NULL: 0 success, 1 failure */
    int (*run)(struct cli *cli, int argc, char **argv);  /* argv[0] is the command's name; returns the exit code */
};

extern const struct cli_command cli_convert_command, cli_create_command, cli_map_command, cli_info_command,
    cli_check_command, cli_checksum_command, cli_compare_command, cli_measure_command, cli_formats_command,
    cli_resize_command, cli_rebase_command, cli_commit_command, cli_snapshot_command, cli_bitmap_command;

/* All commands, NULL-terminated. */
extern const struct cli_command *const cli_commands[];
/* NULL: there is none of that name. */
const struct cli_command *cli_find_command(const char *name);

/* Makes the context with the policies of the common options, which a signal cancels. Not 0: the failure is printed. */
int cli_start(struct cli *cli, const struct cli_common *common);

#endif
