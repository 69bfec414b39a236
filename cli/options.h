/* Options as tables, from which parsing, --help, the manual's option lists and completion come. */
#ifndef IMGTK_CLI_OPTIONS_H
#define IMGTK_CLI_OPTIONS_H

#include <stddef.h>

#include "cli.h"

enum cli_option_kind {
    CLI_FLAG,     /* bool */
    CLI_TEXT,     /* const char *; the last one given counts */
    CLI_OPTIONAL, /* const char *; "" when it is given without an argument, which has to be attached */
    CLI_LIST,     /* struct cli_list; all that were given */
    CLI_ACCEPTED  /* taken for the sake of scripts, without effect; with an argument when `argument` is set */
};

/* One row; a table ends with a row whose letter and name are both unset. */
struct cli_option {
    char letter;           /* '\0': none */
    const char *name;      /* NULL: none */
    enum cli_option_kind kind;
    size_t field;          /* offset in the command's values */
    const char *argument;  /* how help names it; NULL: takes none */
    const char *help;      /* NULL: another spelling of the row before it */
};

static inline bool option_is_end(const struct cli_option *option)
{
    return option->letter == '\0' && !option->name;
}

#define CLI_COMMON_OPTIONS \
    { 'q', "quiet", CLI_FLAG, offsetof(struct cli_common, quiet), NULL, "print errors only" }, \
    { 'v', "verbose", CLI_FLAG, offsetof(struct cli_common, verbose), NULL, \
      "tell what is done: formats, modules, choices made" }, \
    { '\0', "references", CLI_TEXT, offsetof(struct cli_common, references), "beneath|any|none", \
      "which files an image may name: those beneath its own folder (the default), any, or none" }, \
    { '\0', "allow-dir", CLI_LIST, offsetof(struct cli_common, allow_dirs), "DIR", \
      "images may also name files beneath DIR; may be given several times" }, \
    { '\0', "untrusted", CLI_OPTIONAL, offsetof(struct cli_common, untrusted), "require", \
      "the images come from strangers: no references, the format that is named must be the detected one, budgets, and " \
      "the process confines itself; 'require' refuses to run where the kernel cannot do that" }, \
    { '\0', "max-output", CLI_TEXT, offsetof(struct cli_common, max_output), "SIZE", \
      "bytes of all files that are written, holes included (with --untrusted 256G)" }, \
    { '\0', "max-memory", CLI_TEXT, offsetof(struct cli_common, max_memory), "SIZE", \
      "memory that may be used (with --untrusted 2G)" }, \
    { '\0', "max-time", CLI_TEXT, offsetof(struct cli_common, max_time), "SECONDS", \
      "time that it may take (with --untrusted 3600)" }, \
    { '\0', "max-metadata", CLI_TEXT, offsetof(struct cli_common, max_metadata), "SIZE", \
      "bytes of tables that opening an image may read (with --untrusted 64M)" }, \
    { '\0', "storage-opts", CLI_TEXT, offsetof(struct cli_common, storage_options), "OPTIONS", \
      "options for network storages, name=value,...: connections, requests, request-size, timeout and others" }, \
    { 'h', "help", CLI_FLAG, offsetof(struct cli_common, help), NULL, "print this help and exit" }, \
    { '\0', NULL, CLI_FLAG, 0, NULL, NULL }

/*
 * Fills `values` (zeroed, its first member a struct cli_common) from argv and
 * moves the operands behind the options: argv[result..argc) are they. -1: the
 * mistake is printed, or help was asked for and printed; *exit_code is then
 * what the command returns.
 */
int cli_parse(struct cli *cli, const struct cli_command *command, int argc, char **argv, void *values, int *exit_code);

/* "program: message" and where to find help; returns CLI_FAILED. */
int cli_usage_error(struct cli *cli, const char *format, ...) IMGTK_PRINTF(2, 3);

#endif
