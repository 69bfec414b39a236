#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "context/config.h"

static int parse_onto(struct config *config, const char *text, struct imgtk_error *err)
{
    *err = (struct imgtk_error)IMGTK_ERROR_INIT;
    return config_parse("c.yaml", text, strlen(text), config, err);
}

static void parses(struct config *config, const char *text)
{
    struct imgtk_error err;
    if (parse_onto(config, text, &err) != 0) {
        fail_msg("%s", err.message);
    }
}

static void fails(const char *text, const char *message)
{
    struct config config = { 0 };
    struct imgtk_error err;
    assert_int_equal(parse_onto(&config, text, &err), IMGTK_EINVAL);
    assert_string_equal(err.message, message);
    config_free(&config);
}

static void fails_with(const char *text, const char *part)
{
    struct config config = { 0 };
    struct imgtk_error err;
    assert_int_equal(parse_onto(&config, text, &err), IMGTK_EINVAL);
    if (strstr(err.message, part) == NULL) {
        fail_msg("no \"%s\" in \"%s\"", part, err.message);
    }
    config_free(&config);
}

static void reads_every_key(void **state)
{
    (void)state;
    struct config config = { 0 };
    parses(&config, "# a comment\n"
                    "module_dirs: [/opt/imgtk, \"/usr/lib/more\"]\n"
                    "disabled_modules:\n  - vmdk\n  - nbd\n"
                    "workers: 3\n"
                    "references: none\n"
                    "allow_dirs:\n  - /srv/images\n"
                    "format_options:\n"
                    "  qcow2: {cluster_size: 128k, compression_type: zstd}\n"
                    "  vmdk:\n    subformat: 'a,b'\n"
                    "untrusted: require\n"
                    "max_output: 20G\nmax_metadata: 1M\nmax_memory: 512M\nmax_time: 60\n");
    assert_int_equal(config.module_dir_count, 2);
    assert_string_equal(config.module_dirs[0], "/opt/imgtk");
    assert_string_equal(config.module_dirs[1], "/usr/lib/more");
    assert_int_equal(config.disabled_module_count, 2);
    assert_string_equal(config.disabled_modules[1], "nbd");
    assert_int_equal(config.workers, 3);
    assert_int_equal(config.references, IMGTK_REFERENCES_NONE);
    assert_int_equal(config.allow_dir_count, 1);
    assert_string_equal(config.allow_dirs[0], "/srv/images");
    assert_int_equal(config.format_option_count, 2);
    assert_string_equal(config.format_options[0].format, "qcow2");
    assert_string_equal(config.format_options[0].options, "cluster_size=128k,compression_type=zstd");
    assert_string_equal(config.format_options[1].options, "subformat=a,,b");
    assert_int_equal(config.trust, IMGTK_UNTRUSTED_REQUIRED);
    assert_int_equal(config.budget.output, 20ull << 30);
    assert_int_equal(config.budget.metadata, 1 << 20);
    assert_int_equal(config.budget.memory, 512 << 20);
    assert_int_equal(config.budget.seconds, 60);
    config_free(&config);
    assert_null(config.module_dirs);
    assert_int_equal(config.format_option_count, 0);
    config_free(&config);
}

static void nothing_is_a_configuration(void **state)
{
    (void)state;
    static const char *const texts[] = { "", "# nothing\n", "---\n", "---\n...\n", "{}", "\n\n", "\xef\xbb\xbf# mark" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct config config = { 0 };
        parses(&config, texts[i]);
        assert_int_equal(config.workers, 0);
        assert_int_equal(config.references, IMGTK_REFERENCES_BENEATH);
        config_free(&config);
    }
}

static void empty_lists_and_mappings(void **state)
{
    (void)state;
    struct config config = { 0 };
    parses(&config, "module_dirs: [/a, /b]\nformat_options: {qcow2: {cluster_size: 64k}}");
    parses(&config, "module_dirs: []\nformat_options: {qcow2: {}}");
    assert_int_equal(config.module_dir_count, 0);
    assert_string_equal(config.format_options[0].options, "");
    config_free(&config);
}

static void later_files_win(void **state)
{
    (void)state;
    struct config config = { 0 };
    parses(&config, "module_dirs: [/a, /b]\nworkers: 4\nreferences: none\n"
                    "format_options: {qcow2: {cluster_size: 1M, preallocation: full}, vdi: {static: on}}");
    parses(&config, "module_dirs: [/c]\nreferences: any\nformat_options: {qcow2: {cluster_size: 4k}}");
    assert_int_equal(config.module_dir_count, 1);
    assert_string_equal(config.module_dirs[0], "/c");
    assert_int_equal(config.workers, 4);
    assert_int_equal(config.references, IMGTK_REFERENCES_ANY);
    assert_int_equal(config.format_option_count, 2);
    assert_string_equal(config.format_options[0].options, "cluster_size=4k");
    assert_string_equal(config.format_options[1].options, "static=on");
    config_free(&config);
}

static void folders_may_begin_at_home(void **state)
{
    (void)state;
    struct config config = { 0 };
    setenv("HOME", "/home/me", 1);
    parses(&config, "allow_dirs: [~/images]");
    assert_string_equal(config.allow_dirs[0], "/home/me/images");
    config_free(&config);
    fails("allow_dirs: [images]", "c.yaml:1: allow_dirs: 'images' is not an absolute folder");
    fails("allow_dirs: [\"~other/images\"]", "c.yaml:1: allow_dirs: '~other/images' is not an absolute folder");
    unsetenv("HOME");
    fails("allow_dirs: [~/images]", "c.yaml:1: allow_dirs: '~/images' is not an absolute folder");
}

static void names_file_line_and_key(void **state)
{
    (void)state;
    fails("workers: 2\n\nwrokers: 3\n",
          "c.yaml:3: wrokers: unknown key; the known ones are module_dirs, disabled_modules, workers, references, "
          "allow_dirs, format_options, untrusted, max_output, max_metadata, max_memory, max_time");
    fails("workers: 2\nreferences: any\nworkers: 3\n", "c.yaml:3: workers: this key is there twice");
    fails("\nworkers: [1]\n", "c.yaml:2: workers: must be a number, not a list");
    fails("format_options:\n  qcow2:\n    cluster_size: {a: 1}\n",
          "c.yaml:3: cluster_size: must be a single value, not a mapping");
    fails("format_options:\n  qcow2:\n    a: 1\n    a: 2\n", "c.yaml:4: a: this key is there twice");
    fails("format_options:\n  qcow2: {}\n  qcow2: {}\n", "c.yaml:3: qcow2: this key is there twice");
}

static void wrong_types(void **state)
{
    (void)state;
    fails("[]", "c.yaml:1: the configuration: must be a mapping of names to values, not a list");
    fails("text", "c.yaml:1: the configuration: must be a mapping of names to values, not a single value");
    fails("module_dirs: /opt", "c.yaml:1: module_dirs: must be a list, not a single value");
    fails("module_dirs:\n", "c.yaml:1: module_dirs: must be a list, not nothing");
    fails("module_dirs: [[/opt]]", "c.yaml:1: module_dirs: must be a list of folders, not a list");
    fails("module_dirs: ['']", "c.yaml:1: module_dirs: must be a list of folders, not nothing");
    fails("disabled_modules: ['../vmdk']",
          "c.yaml:1: disabled_modules: '../vmdk' is not a module's name (\"qcow2\")");
    fails("format_options: {qcow2: cluster_size=4k}",
          "c.yaml:1: qcow2: must be a mapping of names to values, not a single value");
    fails("format_options: {qcow2: {'a,b': 1}}", "c.yaml:1: a,b: not an option's name");
    fails("untrusted: maybe", "c.yaml:1: untrusted: 'maybe' is not no, yes or require");
    fails("max_time: 1h", "c.yaml:1: max_time: '1h' is not a number of seconds");
    fails_with("max_output: much", "c.yaml:1: max_output: ");
    fails("references: sometimes", "c.yaml:1: references: 'sometimes' is not beneath, any or none");
    fails("? [a]\n: 1\n", "c.yaml:1: the configuration: must be a mapping of names to values, not a list");
    fails("module_dirs: [\"/a\\0b\"]", "c.yaml:1: module_dirs: the text holds a NUL");
}

static void workers_are_a_small_number(void **state)
{
    (void)state;
    static const char *const bad[] = { "0", "65", "-1", "+2", "2.0", "0x2", "two", "\"2\"", "99999999999999999999", "~" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[64];
        snprintf(text, sizeof(text), "workers: %s", bad[i]);
        fails_with(text, "c.yaml:1: workers: '");
    }
    struct config config = { 0 };
    parses(&config, "workers: 64");
    assert_int_equal(config.workers, 64);
    config_free(&config);
}

static void hostile_text(void **state)
{
    (void)state;
    fails_with("workers: *a", "c.yaml:1: workers: must be a number, not an alias");
    fails_with("a: [", "c.yaml:");
    fails_with("workers: 1\n\tb: 2\n", "not valid YAML");
    fails_with("workers: 1\n# \xff\n", "not valid YAML");
    fails_with("workers: 1\n---\nworkers: 2\n", "c.yaml:2: ---: a second document");
    char text[20000];
    memset(text, '[', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    fails_with(text, "must be a mapping");
    memcpy(text, "module_dirs: ", 13);
    fails_with(text, "module_dirs: must be a list of folders, not a list");
}

static void lists_have_a_limit(void **state)
{
    (void)state;
    char text[4096] = "disabled_modules: [a";
    for (int i = 1; i < CONFIG_MAX_ENTRIES; i++) {
        strcat(text, ",a");
    }
    size_t length = strlen(text);
    strcpy(text + length, "]");
    struct config config = { 0 };
    parses(&config, text);
    assert_int_equal(config.disabled_module_count, CONFIG_MAX_ENTRIES);
    config_free(&config);
    strcpy(text + length, ",a]");
    fails(text, "c.yaml:1: disabled_modules: more than 256 entries");
}

/* ---- Which files are read ------------------------------------------------- */

static char folder[] = "/tmp/imgtk-config-XXXXXX";

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || chdir(folder) != 0 || mkdir("x", 0700) != 0 || mkdir("x/imgtk", 0700) != 0 ||
           mkdir(".config", 0700) != 0 || mkdir(".config/imgtk", 0700) != 0;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = { "only.yaml", "fifo", "x/imgtk/imgtk.yaml", "x/imgtk", "x",
                                         ".config/imgtk/imgtk.yaml", ".config/imgtk", ".config" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        remove(names[i]);
    }
    return chdir("/") != 0 || rmdir(folder) != 0;
}

static void loads(struct config *config)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (config_load(config, &err) != 0) {
        fail_msg("%s", err.message);
    }
}

static void load_fails(int status, const char *part)
{
    struct config config;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(config_load(&config, &err), status);
    if (strstr(err.message, part) == NULL) {
        fail_msg("no \"%s\" in \"%s\"", part, err.message);
    }
    assert_int_equal(config.workers, 0);
    assert_null(config.module_dirs);
}

static void the_environment_names_one_file(void **state)
{
    (void)state;
    struct config config;
    setenv("IMGTK_CONFIG", "only.yaml", 1);
    load_fails(IMGTK_ENOTFOUND, "only.yaml: cannot open the configuration");
    write_file("only.yaml", "workers: 7\n");
    write_file("x/imgtk/imgtk.yaml", "workers: 8\nreferences: any\n");
    setenv("XDG_CONFIG_HOME", folder, 1);
    loads(&config);
    assert_int_equal(config.workers, 7);
    assert_int_equal(config.references, IMGTK_REFERENCES_BENEATH);
    config_free(&config);
    write_file("only.yaml", "workers: 7\nmodule_dirs: [/a]\nbad: 1\n");
    load_fails(IMGTK_EINVAL, "only.yaml:3: bad: unknown key");
    setenv("IMGTK_CONFIG", folder, 1);
    load_fails(IMGTK_EIO, "cannot read the configuration: Is a directory");
    setenv("IMGTK_CONFIG", "/dev/zero", 1);
    load_fails(IMGTK_ELIMIT, "/dev/zero: the configuration is larger than 1048576 bytes");
    setenv("IMGTK_CONFIG", "/dev/null", 1);
    loads(&config);
    config_free(&config);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    setenv("IMGTK_CONFIG", "fifo", 1);
    loads(&config);
    config_free(&config);
}

static void users_file_by_xdg_or_home(void **state)
{
    (void)state;
    struct config config;
    char path[64];
    unsetenv("IMGTK_CONFIG");
    write_file("x/imgtk/imgtk.yaml", "workers: 8\n");
    write_file(".config/imgtk/imgtk.yaml", "workers: 9\n");
    snprintf(path, sizeof(path), "%s/x", folder);
    setenv("HOME", folder, 1);
    setenv("XDG_CONFIG_HOME", path, 1);
    loads(&config);
    assert_int_equal(config.workers, 8);
    config_free(&config);
    setenv("XDG_CONFIG_HOME", "x", 1); /* relative: not taken */
    loads(&config);
    assert_int_equal(config.workers, 9);
    config_free(&config);
    unsetenv("XDG_CONFIG_HOME");
    setenv("IMGTK_CONFIG", "", 1);
    loads(&config);
    assert_int_equal(config.workers, 9);
    config_free(&config);
    setenv("HOME", "/nowhere", 1);
    loads(&config);
    config_free(&config);
}

/* The file that is installed: as it is, and with its examples ("#key: ...") in force. */
static void the_shipped_file_is_valid(void **state)
{
    (void)state;
    char line[256], text[8192] = "";
    FILE *file = fopen(IMGTK_SOURCE_DIR "/conf/imgtk.yaml", "r");
    assert_non_null(file);
    struct config config = { 0 };
    while (fgets(line, sizeof(line), file) != NULL) {
        parses(&config, line);
        assert_true(strlen(text) + strlen(line) < sizeof(text));
        strcat(text, line[0] == '#' && line[1] != ' ' ? line + 1 : line);
    }
    fclose(file);
    assert_int_equal(config.workers, 0);
    parses(&config, text);
    assert_int_equal(config.workers, 4);
    config_free(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_key),
        cmocka_unit_test(nothing_is_a_configuration),
        cmocka_unit_test(empty_lists_and_mappings),
        cmocka_unit_test(later_files_win),
        cmocka_unit_test(folders_may_begin_at_home),
        cmocka_unit_test(names_file_line_and_key),
        cmocka_unit_test(wrong_types),
        cmocka_unit_test(workers_are_a_small_number),
        cmocka_unit_test(hostile_text),
        cmocka_unit_test(lists_have_a_limit),
        cmocka_unit_test(the_shipped_file_is_valid),
        cmocka_unit_test(the_environment_names_one_file),
        cmocka_unit_test(users_file_by_xdg_or_home),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
