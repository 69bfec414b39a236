/* Files that are made beside an image. */
#include "references.h"

static void created_files_appear_together(void **state)
{
    (void)state;
    for (int commit = 0; commit < 2; commit++) {
        struct imgtk_references *refs;
        struct imgtk_storage *first, *second;
        assert_int_equal(references_new(&context, absolute("images/new.vmdk"), false, &refs, NULL), 0);
        assert_string_equal(imgtk_references_image_name(refs), "new.vmdk");
        assert_int_equal(imgtk_reference_create(refs, "new-f001.vmdk", &first, NULL), 0);
        assert_int_equal(imgtk_reference_create(refs, absolute("secret"), &second, NULL), 0); /* the user's word */
        assert_int_equal(imgtk_storage_pwrite(first, "one", 3, 0, NULL), 0);
        assert_int_equal(imgtk_storage_pwrite(second, "two", 3, 0, NULL), 0);
        if (commit)
            assert_int_equal(references_commit(refs, false, NULL), 0);
        references_free(refs);
        const char *text = scratch_read(&scratch, "images/new-f001.vmdk");
        assert_true(commit ? text && strcmp(text, "one") == 0 : text == NULL);
        assert_string_equal(scratch_read(&scratch, "secret"), commit ? "two" : "secret");
        assert_int_equal(scratch_entries(&scratch, "images"), commit ? 4 : 3);
    }
}

static void nothing_is_made_beside_a_stream(void **state)
{
    (void)state;
    struct imgtk_references *refs;
    struct imgtk_storage *storage;
    assert_int_equal(references_new(&context, "-", false, &refs, NULL), 0);
    assert_string_equal(imgtk_references_image_name(refs), "disk");
    assert_int_equal(imgtk_reference_create(refs, "extent", &storage, NULL), IMGTK_EUNSUPPORTED);
    assert_int_equal(references_commit(refs, false, NULL), 0);
    references_free(refs);
    references_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(created_files_appear_together),
        WITH_SCRATCH(nothing_is_made_beside_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
