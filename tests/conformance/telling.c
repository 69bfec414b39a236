/* What is told of an image, and what a check finds. */
#include "conformance.h"

void info_is_told(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_layer_info info = { 0 };
    (void)state;
    assert_ok(imgtk_layer_describe(top(subject.image), &info, &err));
    assert_ok(imgtk_info_status(info.specific, &err));
    assert_ok(imgtk_info_status(info.snapshots, &err));
    char *json = imgtk_info_json(info.specific);
    assert_non_null(json);
    assert_true(json[0] == '{');
    assert_false(info.encrypted);
    if (info.cluster_size)
        assert_true(info.cluster_size <= INT64_MAX);
    free(json);
    imgtk_info_free(info.specific);
    imgtk_info_free(info.snapshots);
}

static void print_finding(void *context, const char *message)
{
    (void)context;
    print_error("check: %s\n", message);
}

void check_is_clean(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_check check = { .workers = 2, .report = print_finding };
    struct imgtk_image_request request = { .format = subject.format, .single_layer = true, .check = true };
    struct imgtk_image *image;
    (void)state;
    if (!imgtk_driver_can_check(top(subject.image)->driver))
        skip();
    assert_ok(imgtk_image_open(subject.context, subject.path, &request, &image, &err));
    int status = imgtk_image_check(image, &check, &err);
    if (status == IMGTK_EREFUSED) { /* the data lie in other files, and a check follows no reference */
        imgtk_image_close(image);
        print_message("%s\n", err.message);
        skip();
    }
    assert_ok(status);
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks, 0);
    assert_int_equal(check.check_errors, 0);
    assert_true(check.allocated_clusters <= check.total_clusters);
    imgtk_image_close(image);
}
