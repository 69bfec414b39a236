#include "sparse.h"

#include "imgtk/bytes.h"

#define SKIP_MIN 16384u /* a shorter run of zeroes costs less to write than to leave out */

static size_t piece_at(size_t at, size_t length)
{
    return length - at < SPARSE_PIECE ? length - at : SPARSE_PIECE;
}

/*
 * The next stretch worth writing from *from on: up to a long run of zeroes, which it neither begins nor ends with; 0:
 * there is none. Of each piece it is found out once whether it is zero, since that may change meanwhile.
 */
static size_t next_stretch(const uint8_t *bytes, size_t length, size_t *from)
{
    while (*from < length && imgtk_is_zero(bytes + *from, piece_at(*from, length)))
        *from += piece_at(*from, length);
    size_t end = *from + piece_at(*from, length);
    for (size_t at = end; at < length && at - end < SKIP_MIN; at += piece_at(at, length))
        if (!imgtk_is_zero(bytes + at, piece_at(at, length)))
            end = at + piece_at(at, length);
    return end - *from;
}

int sparse_pwrite(struct imgtk_storage *file, const uint8_t *bytes, size_t length, uint64_t offset,
                  struct imgtk_error *err)
{
    size_t from = 0, stretch;
    while ((stretch = next_stretch(bytes, length, &from)) > 0) {
        int status = imgtk_storage_pwrite(file, bytes + from, stretch, offset + from, err);
        if (status)
            return status;
        from += stretch;
    }
    return 0;
}
