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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credentials_are_not_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
