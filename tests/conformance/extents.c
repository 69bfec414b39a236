/* What a driver tells of where the bytes of a disk are. */
#include "conformance.h"

static void check_plain(const struct imgtk_extent *extent, uint64_t offset, uint64_t length)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    size_t room = (size_t)imgtk_min_u64(length, MAX_READ), got;
    uint8_t *buf = allocate(room);
    assert_non_null(extent->file);
    for (uint64_t done = 0; done < length; done += room) {
        size_t piece = (size_t)imgtk_min_u64(length - done, room);
        assert_ok(imgtk_storage_pread_some(extent->file, buf, piece, extent->host_offset + done, &got, &err));
        memset(buf + got, 0, piece - got); /* a file that ends early reads as zeroes */
        check_bytes(buf, offset + done, piece);
    }
    free(buf);
}

/* most: how many of its bytes are compared */
static void check_extent(const struct imgtk_extent *extent, uint64_t offset, uint64_t most)
{
    const uint32_t known = IMGTK_EXTENT_COMPRESSED | IMGTK_EXTENT_PLAIN | IMGTK_EXTENT_ASK_STORAGE |
                           IMGTK_EXTENT_UNALLOCATED | IMGTK_EXTENT_STORAGE_HOLE;
    uint64_t length = imgtk_min_u64(imgtk_min_u64(extent->length, subject.size - offset), most);
    bool data = extent->kind == IMGTK_EXTENT_DATA;
    assert_true(extent->length > 0);
    assert_true(data || extent->kind == IMGTK_EXTENT_ZERO || extent->kind == IMGTK_EXTENT_BACKING);
    assert_int_equal(extent->flags & ~known, 0);
    assert_false((extent->flags & IMGTK_EXTENT_COMPRESSED) && (extent->flags & IMGTK_EXTENT_PLAIN));
    assert_false((extent->flags & IMGTK_EXTENT_COMPRESSED) && !data);
    assert_false((extent->flags & IMGTK_EXTENT_UNALLOCATED) && data);
    if (!data && imgtk_image_depth(subject.image) == 1)
        assert_true(is_zero(offset, length));
    if (data && (extent->flags & IMGTK_EXTENT_PLAIN))
        check_plain(extent, offset, length);
}

void extents_cover_the_disk_and_tell_the_truth(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_extent extent;
    (void)state;
    for (uint64_t offset = 0; offset < subject.size; offset += extent.length) {
        assert_ok(ask_layer(subject.image, offset, subject.size - offset, &extent, &err));
        check_extent(&extent, offset, UINT64_MAX);
        assert_true(extent.length <= INT64_MAX);
    }
}

/* The hint of how far the caller cares, and where in an extent it begins, change no answer. */
void extents_agree_wherever_they_are_asked(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_extent extent, again;
    uint64_t random = 7;
    (void)state;
    for (unsigned i = 0; subject.size > 0 && i < 1000; i++) {
        uint64_t offset = next_random(&random) % subject.size;
        uint64_t length = next_random(&random) % (subject.size - offset) + 1;
        assert_ok(ask_layer(subject.image, offset, length, &extent, &err));
        check_extent(&extent, offset, 64u << 10);
        uint64_t inside = offset + next_random(&random) % imgtk_min_u64(extent.length, subject.size - offset);
        assert_ok(ask_layer(subject.image, inside, 1, &again, &err));
        assert_int_equal(again.kind, extent.kind);
        assert_int_equal(again.flags & IMGTK_EXTENT_PLAIN, extent.flags & IMGTK_EXTENT_PLAIN);
        if ((extent.flags & IMGTK_EXTENT_PLAIN) && extent.kind == IMGTK_EXTENT_DATA) {
            assert_ptr_equal(again.file, extent.file);
            assert_int_equal(again.host_offset, extent.host_offset + (inside - offset));
        }
    }
}

struct map_state {
    uint64_t next;
    unsigned rows;
};

static int map_row(void *context, const struct imgtk_chain_extent *row)
{
    struct map_state *map = context;
    assert_int_equal(row->start, map->next);
    assert_true(row->extent.length > 0);
    assert_true(imgtk_range_fits(row->start, row->extent.length, subject.size));
    assert_int_not_equal(row->extent.kind, IMGTK_EXTENT_BACKING);
    if (row->extent.kind == IMGTK_EXTENT_ZERO)
        assert_true(is_zero(row->start, row->extent.length));
    else if (row->extent.flags & IMGTK_EXTENT_PLAIN)
        check_plain(&row->extent, row->start, row->extent.length);
    map->next = row->start + row->extent.length;
    map->rows++;
    return 0;
}

void the_map_covers_the_disk_once(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct map_state whole = { 0 }, part = { .next = subject.size / 3 };
    struct imgtk_map job = { .image = subject.image, .length = UINT64_MAX, .row = map_row, .context = &whole };
    (void)state;
    assert_ok(imgtk_map(&job, &err));
    assert_int_equal(whole.next, subject.size);
    job.start = part.next;
    job.length = subject.size / 3;
    job.context = &part;
    assert_ok(imgtk_map(&job, &err));
    assert_int_equal(part.next, subject.size / 3 * 2);
}
