/* Which images a driver takes for its own. */
#include "conformance.h"

static void probe_one(const struct imgtk_module *module, const struct imgtk_probe *probe)
{
    enum imgtk_probe_result answer = module->driver->probe(probe);
    bool mine = strcmp(module->driver->name, subject.format) == 0;
    if (mine ? answer == IMGTK_PROBE_NO : answer != IMGTK_PROBE_NO)
        fail_msg("%s answers %d to an image of %s", module->driver->name, answer, subject.format);
}

void probe_recognises_it_and_nobody_else_does(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_module *modules;
    size_t count;
    uint64_t size;
    (void)state;
    if (strcmp(subject.format, "raw") == 0)
        skip(); /* raw is what nobody recognises */
    uint8_t *bytes = read_whole_file(subject.path, &size);
    size_t part = (size_t)imgtk_min_u64(size, IMGTK_PROBE_SIZE);
    struct imgtk_probe probe = { .head = bytes, .head_length = part, .tail = bytes + size - part, .tail_length = part,
                                 .size = size };
    assert_ok(imgtk_modules(subject.context, &modules, &count, &err));
    for (size_t i = 0; i < count; i++)
        if (modules[i].driver && strcmp(modules[i].driver->name, "raw") != 0)
            probe_one(&modules[i], &probe);
    free(bytes);

    struct imgtk_image *image;
    assert_ok(open_image(subject.path, NULL, &image, &err));
    assert_string_equal(top(image)->driver->name, subject.format);
    assert_false(top(image)->format_guessed);
    imgtk_image_close(image);
}

/* Whatever the length of the file, and with no tail as from a pipe: no byte beyond what is there is looked at. */
void probe_looks_at_what_is_there_alone(void **state)
{
    uint64_t size;
    (void)state;
    uint8_t *bytes = read_whole_file(subject.path, &size);
    for (size_t length = 0; length <= imgtk_min_u64(size, IMGTK_PROBE_SIZE); length += length < 1100 ? 1 : 97) {
        uint8_t *head = allocate(length + 1), *tail = allocate(length + 1);
        memmove(head + 1, bytes, length); /* the sanitizers know where these end */
        memmove(tail + 1, bytes + size - length, length);
        struct imgtk_probe probe = { .head = head + 1, .head_length = length, .tail = tail + 1, .tail_length = length,
                                     .size = length };
        top(subject.image)->driver->probe(&probe);
        probe.tail = NULL;
        probe.tail_length = 0;
        probe.size = 0;
        top(subject.image)->driver->probe(&probe);
        free(head);
        free(tail);
    }
    free(bytes);
}
