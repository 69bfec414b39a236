/* From a name to an open storage. */
#include "storages.h"

static void credentials_are_not_shown(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "mod://user:pass@host/x?sig=1", "mod://host/x?" },
        { "mod:///x?socket=/run/a", "mod:///x?socket=/run/a" },
        { "mod://host/a@b:c", "mod://host/a@b:c" },
        { "mod://host:80/x", "mod://host:80/x" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct imgtk_storage *storage = open_storage(cases[i][0], 0);
        assert_string_equal(imgtk_storage_name(storage), cases[i][1]);
        imgtk_storage_close(storage);
    }
}

static int open_nothing(const char *name, uint32_t flags, const struct imgtk_opts *opts,
                        const struct imgtk_cancel *cancel, void **handle, struct imgtk_error *err)
{
    (void)name, (void)flags, (void)opts, (void)cancel, (void)handle;
    return imgtk_fail(err, IMGTK_ENOTFOUND, "there is nothing");
}

static void one_of_two_ways_to_open_is_enough(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_storage_ops complete, ops = mod_ops;
    ops.struct_size = sizeof(ops);
    ops.open = NULL;
    assert_int_equal(storage_ops_complete(&ops, &complete, &err), IMGTK_EINVAL);
    assert_non_null(strstr(err.message, "'open'"));
    ops.open_cancellable = open_nothing;
    assert_int_equal(storage_ops_complete(&ops, &complete, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credentials_are_not_shown),
        cmocka_unit_test(one_of_two_ways_to_open_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
