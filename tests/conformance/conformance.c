/*
 * The same cases for every format: what docs/writing-a-format.md promises to
 * core. Uses the public library alone, so a driver that is built elsewhere can
 * be tested with it too:
 *
 *   IMGTK_MODULE_PATH=DIR conformance FORMAT IMAGE CONTENT [-s SIZE] [-o OPTIONS] [-t CASE] [-x CASE]
 *
 * IMAGE is a FORMAT image whose disk holds the bytes of the file CONTENT, and
 * zeroes after them up to SIZE (default: CONTENT's size). Damaged copies and
 * new images are made in the folder ".", which should be an empty one, beside
 * files that IMAGE refers to. OPTIONS are the -o for writing one that make it
 * reproducible. CASE, with * and ?, picks cases by name (-t) or leaves them out (-x).
 */
#include "conformance.h"

#include <stdio.h>

static int usage(void)
{
    fprintf(stderr, "usage: conformance FORMAT IMAGE CONTENT [-s SIZE] [-o OPTIONS] [-t CASE] [-x CASE]\n");
    return 2;
}

static int parse(int count, char **words)
{
    if (count < 4)
        return usage();
    subject = (struct subject){ .format = words[1], .path = words[2], .content_path = words[3] };
    for (int i = 4; i < count; i += 2) {
        const char *value = i + 1 < count ? words[i + 1] : NULL;
        if (value && strcmp(words[i], "-s") == 0)
            subject.size = strtoull(value, NULL, 10);
        else if (value && strcmp(words[i], "-o") == 0)
            subject.options = value;
        else if (value && strcmp(words[i], "-t") == 0)
            cmocka_set_test_filter(value);
        else if (value && strcmp(words[i], "-x") == 0)
            cmocka_set_skip_filter(value);
        else
            return usage();
    }
    return 0;
}

int main(int count, char **words)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_recognises_it_and_nobody_else_does),
        cmocka_unit_test(probe_looks_at_what_is_there_alone),
        cmocka_unit_test(size_is_the_disks),
        cmocka_unit_test(reads_the_whole_disk),
        cmocka_unit_test(reads_of_every_alignment_and_length),
        cmocka_unit_test(reads_to_the_end),
        cmocka_unit_test(reads_across_every_boundary),
        cmocka_unit_test(requests_past_the_end_are_errors),
        cmocka_unit_test(extents_cover_the_disk_and_tell_the_truth),
        cmocka_unit_test(extents_agree_wherever_they_are_asked),
        cmocka_unit_test(the_map_covers_the_disk_once),
        cmocka_unit_test(threads_read_and_walk_at_once),
        cmocka_unit_test(info_is_told),
        cmocka_unit_test(check_is_clean),
        cmocka_unit_test(truncation_is_an_error_or_harmless),
        cmocka_unit_test(flipped_bytes_never_crash),
        cmocka_unit_test(threads_write_the_same_file_as_one),
    };
    int failed = parse(count, words);
    return failed ? failed : cmocka_run_group_tests_name("conformance", tests, set_up, tear_down);
}
