#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "storage/mapping_guard.h"
#include "storage/view.h"
#include "storages.h"

#define PAGE 4096u
#define SIZE (9u << 20)
#define WINDOW (32u << 20)
#define LOOKED_AT (4u << 20) /* what may stay behind a view */
#define LARGE_FOLIO (2u << 20) /* what Linux may map for a single page, from 6.18 on */
#define LONG_SIZE (WINDOW + SIZE)

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 12));
}

static const char *make_file(uint64_t size)
{
    static uint8_t bytes[LONG_SIZE];
    const char *path = scratch_path(&scratch, "file");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    for (uint64_t at = 0; at < size; at++)
        bytes[at] = pattern(at);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
    return path;
}

/* cmocka has a handler of its own while a test runs; blocking is what a parent may have done. */
static void allow_mapping(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGBUS, SIG_DFL);
    assert_true(imgtk_allow_mapping());
}

/* Some file systems do not tell what is in the page cache, nor does an emulator: nothing is mapped then. */
static bool mapping_works(void)
{
    struct views views;
    struct view view;
    struct imgtk_storage *file = open_storage(make_file(PAGE), 0);
    views_init(&views, true);
    bool works = views_take(&views, file, 0, PAGE, &view);
    views_give_back(&views, &view, false, NULL);
    views_destroy(&views);
    imgtk_storage_close(file);
    return works;
}

static void need_mapping(void)
{
    allow_mapping();
    if (mapping_works())
        return;
    print_message("this system does not tell what is in the page cache\n");
    skip();
}

static void check_bytes(const struct view *view)
{
    for (size_t i = 0; i < view->length; i++)
        if (view->bytes[i] != pattern(view->offset + i))
            fail_msg("byte %llu", (unsigned long long)(view->offset + i));
}

static void views_show_the_files_bytes(void **state)
{
    static const struct { uint64_t offset; size_t length; } cases[] = {
        { 0, 1 }, { 0, PAGE }, { 1, PAGE }, { 512, 1u << 20 }, { WINDOW - 512, 1024 }, { LONG_SIZE - 700, 700 },
        { 3 * PAGE, 1u << 19 } };
    struct views views;
    (void)state;
    need_mapping();
    struct imgtk_storage *file = open_storage(make_file(LONG_SIZE), 0);
    views_init(&views, true);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct view view;
        assert_true(views_take(&views, file, cases[i].offset, cases[i].length, &view));
        view_warm(&view);
        check_bytes(&view);
        assert_int_equal(views_give_back(&views, &view, false, NULL), 0);
        assert_null(view.bytes);
    }
    views_destroy(&views);
    imgtk_storage_close(file);
}

static void neighbours_share_a_window(void **state)
{
    struct views views;
    struct view first, second;
    (void)state;
    need_mapping();
    struct imgtk_storage *file = open_storage(make_file(SIZE), 0);
    views_init(&views, true);
    assert_true(views_take(&views, file, 0, 1u << 19, &first));
    assert_true(views_take(&views, file, 1u << 19, 1u << 19, &second));
    assert_ptr_equal(first.window, second.window);
    assert_int_equal(first.window->views, 2);
    views_give_back(&views, &first, false, NULL);
    check_bytes(&second);
    views_give_back(&views, &second, false, NULL);
    views_destroy(&views);
    imgtk_storage_close(file);
}

/* How many pages of a window this process's tables hold. */
static size_t mapped_pages(const struct view_window *window)
{
    static uint64_t entries[WINDOW / PAGE];
    size_t count = window->length / PAGE, mapped = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, entries, count * 8, (off_t)((uintptr_t)window->bytes / PAGE * 8)), count * 8);
    close(fd);
    for (size_t i = 0; i < count; i++)
        mapped += entries[i] >> 63;
    return mapped;
}

/* Else whole windows would count as this process's memory. */
static void what_was_looked_at_takes_little_memory(void **state)
{
    struct views views;
    struct view view, slow;
    size_t piece = 512u << 10, seen = 0;
    (void)state;
    need_mapping();
    struct imgtk_storage *file = open_storage(make_file(WINDOW), 0);
    views_init(&views, true);
    assert_true(views_take(&views, file, 5 * PAGE, 2 * PAGE, &slow));
    for (uint64_t at = 7 * PAGE; at + piece <= WINDOW - 5 * PAGE; at += piece) {
        if (!views_take(&views, file, at, piece, &view))
            continue; /* the kernel may drop or lock a page of it at any time */
        seen++;
        assert_ptr_equal(view.window, slow.window);
        check_bytes(&view);
        size_t mapped = mapped_pages(view.window);
        assert_in_range(mapped, piece / PAGE, (2 * LOOKED_AT + piece + LARGE_FOLIO) / PAGE);
        views_give_back(&views, &view, false, NULL);
    }
    assert_in_range(seen, WINDOW / piece / 2, WINDOW / piece);
    check_bytes(&slow); /* it comes back */
    views_give_back(&views, &slow, false, NULL);
    assert_int_equal(mapped_pages(&views.windows[0]), 0);
    views_destroy(&views);
    imgtk_storage_close(file);
}

static void there_are_only_so_many_windows(void **state)
{
    struct views views;
    struct view held[VIEW_WINDOWS], more;
    struct imgtk_storage *files[VIEW_WINDOWS + 1];
    (void)state;
    need_mapping();
    for (unsigned i = 0; i <= VIEW_WINDOWS; i++)
        files[i] = open_storage(make_file(2 * PAGE), 0);
    views_init(&views, true);
    for (unsigned i = 0; i < VIEW_WINDOWS; i++)
        assert_true(views_take(&views, files[i], 0, PAGE, &held[i]));
    assert_false(views_take(&views, files[VIEW_WINDOWS], 0, PAGE, &more));
    views_give_back(&views, &held[2], false, NULL);
    assert_true(views_take(&views, files[VIEW_WINDOWS], 0, PAGE, &more));
    check_bytes(&more);
    check_bytes(&held[3]);
    views_destroy(&views); /* with what is held, as after a failure */
    for (unsigned i = 0; i <= VIEW_WINDOWS; i++)
        imgtk_storage_close(files[i]);
}

static void what_cannot_be_seen_is_read(void **state)
{
    struct views views, unwanted;
    struct view view;
    (void)state;
    need_mapping();
    struct imgtk_storage *file = open_storage(make_file(PAGE + 100), 0);
    struct imgtk_storage *nothing = open_storage("null:1M", 0);
    views_init(&views, true);
    views_init(&unwanted, false);
    assert_false(views_take(&views, file, 0, PAGE + 101, &view)); /* past the end */
    assert_null(view.bytes);
    assert_false(views_take(&views, file, 2 * PAGE, 1, &view));
    assert_false(views_take(&views, file, UINT64_MAX - 1, 1, &view));
    assert_false(views_take(&views, nothing, 0, PAGE, &view)); /* no file */
    assert_false(views_take(&unwanted, file, 0, PAGE, &view));
    assert_int_equal(views_give_back(&views, &view, false, NULL), 0); /* none */
    views_destroy(&unwanted);
    views_destroy(&views);
    imgtk_storage_close(nothing);
    imgtk_storage_close(file);
}

/* Looks at two pages of a file that is cut to `rest` bytes meanwhile. */
static void cut_while_looking(uint64_t rest, bool whole)
{
    struct views views;
    struct view view;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_storage *file = open_storage(make_file(SIZE), 0);
    views_init(&views, true);
    assert_true(views_take(&views, file, PAGE, 2 * PAGE, &view));
    assert_int_equal(truncate(scratch_path(&scratch, "file"), (off_t)rest), 0);
    for (size_t at = 0; at < view.length; at++)
        assert_int_equal(view.bytes[at], view.offset + at < rest ? pattern(view.offset + at) : 0);
    assert_int_equal(views_give_back(&views, &view, false, &err), whole ? 0 : IMGTK_ECORRUPT);
    if (!whole)
        assert_non_null(strstr(err.message, "/file: the file was made shorter"));
    views_destroy(&views);
    imgtk_storage_close(file);
}

static void a_file_that_is_cut_is_told(void **state)
{
    (void)state;
    need_mapping();
    cut_while_looking(0, false);
    cut_while_looking(2 * PAGE, false);
    cut_while_looking(3 * PAGE - 10, false); /* within a page: no signal comes */
    cut_while_looking(3 * PAGE, true);
}

/* By the kernel, which gets no signal when it reads for a write. */
static void what_others_found_gone_is_told(void **state)
{
    struct views views;
    struct view view;
    (void)state;
    need_mapping();
    struct imgtk_storage *file = open_storage(make_file(PAGE), 0);
    views_init(&views, true);
    assert_true(views_take(&views, file, 0, PAGE, &view));
    assert_int_equal(views_give_back(&views, &view, true, NULL), IMGTK_ECORRUPT);
    assert_int_equal(views_give_back(&views, &view, true, NULL), 0); /* none any more */
    views_destroy(&views);
    imgtk_storage_close(file);
}

/* Cut and grown again, it looks as long as ever. */
static void a_file_that_was_cut_is_remembered(void **state)
{
    struct views views;
    struct view view;
    (void)state;
    need_mapping();
    struct imgtk_storage *file = open_storage(make_file(4 * PAGE), 0);
    const char *path = scratch_path(&scratch, "file");
    views_init(&views, true);
    assert_true(views_take(&views, file, 0, 4 * PAGE, &view));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(*(const volatile uint8_t *)(view.bytes + 2 * PAGE), 0);
    assert_int_equal(truncate(path, 4 * PAGE), 0);
    assert_int_equal(views_give_back(&views, &view, false, NULL), IMGTK_ECORRUPT);
    views_destroy(&views);
    imgtk_storage_close(file);
}

/* ---- In processes of their own ---------------------------------------------------- */

static int exit_status(void (*what)(void))
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void touch_unguarded(void)
{
    int fd = open(make_file(PAGE), O_RDWR | O_CLOEXEC);
    const volatile uint8_t *bytes = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (ftruncate(fd, 0) == 0)
        (void)*bytes;
}

static void send_signal(void)
{
    raise(SIGBUS);
}

static void other_bus_errors_are_deadly(void **state)
{
    (void)state;
    allow_mapping();
    assert_int_equal(WTERMSIG(exit_status(touch_unguarded)), SIGBUS);
    assert_int_equal(WTERMSIG(exit_status(send_signal)), SIGBUS);
}

/* cmocka's, here. */
static void a_handler_of_the_process_stays(void **state)
{
    struct views views;
    struct view view;
    struct sigaction before, after;
    (void)state;
    sigaction(SIGBUS, NULL, &before);
    assert_false(imgtk_allow_mapping());
    assert_false(mapping_guard_stands());
    sigaction(SIGBUS, NULL, &after);
    assert_ptr_equal(before.sa_handler, after.sa_handler);
    struct imgtk_storage *file = open_storage(make_file(PAGE), 0);
    views_init(&views, true);
    assert_false(views_take(&views, file, 0, PAGE, &view));
    views_destroy(&views);
    imgtk_storage_close(file);
    signal(SIGBUS, SIG_IGN);
    assert_false(imgtk_allow_mapping());
    allow_mapping();
    assert_true(imgtk_allow_mapping()); /* again */
    sigset_t bus;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    sigprocmask(SIG_BLOCK, &bus, NULL);
    assert_false(mapping_guard_stands());
    sigprocmask(SIG_UNBLOCK, &bus, NULL);
    assert_true(mapping_guard_stands());
    signal(SIGBUS, SIG_DFL); /* somebody else's, later */
    assert_false(mapping_guard_stands());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_handler_of_the_process_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(views_show_the_files_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(neighbours_share_a_window, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_looked_at_takes_little_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(there_are_only_so_many_windows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_seen_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_cut_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_others_found_gone_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_was_cut_is_remembered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_bus_errors_are_deadly, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
