/* The clusters of one write, and the segments that they become. */
#include <stdlib.h>
#include <string.h>

#include "writer.h"

int qcow2_input_init(struct qcow2_input *input, const struct qcow2_geometry *geometry, const struct imgtk_write *write,
                     struct imgtk_error *err)
{
    input->buf = write->buf;
    input->length = write->length;
    input->cluster_size = geometry->cluster_size;
    input->first = write->offset >> geometry->cluster_bits;
    input->count = (size_t)qcow2_clusters(geometry, write->length);
    input->tail = NULL;
    size_t whole = write->length / input->cluster_size * input->cluster_size;
    if (whole == write->length)
        return 0;
    input->tail = calloc(1, input->cluster_size);
    if (!input->tail)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a cluster");
    memcpy(input->tail, input->buf + whole, write->length - whole);
    return 0;
}

void qcow2_input_free(struct qcow2_input *input)
{
    free(input->tail);
}

const uint8_t *qcow2_input_cluster(const struct qcow2_input *input, size_t index)
{
    return input->tail && index == input->count - 1 ? input->tail : input->buf + index * input->cluster_size;
}

size_t qcow2_input_bytes(const struct qcow2_input *input, size_t index)
{
    size_t at = index * input->cluster_size;
    return input->length - at < input->cluster_size ? input->length - at : input->cluster_size;
}

int qcow2_segments_init(struct qcow2_segments *segments, size_t room, struct imgtk_error *err)
{
    segments->count = 0;
    segments->at = malloc(room * sizeof(*segments->at));
    return segments->at ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu segments", room);
}

void qcow2_segments_add(struct qcow2_segments *segments, const uint8_t *from, uint64_t host, size_t length)
{
    struct qcow2_segment *last = segments->count ? &segments->at[segments->count - 1] : NULL;
    if (last && last->from + last->length == from && last->host + last->length == host)
        last->length += length;
    else
        segments->at[segments->count++] = (struct qcow2_segment){ from, host, length };
}

int qcow2_segments_write(const struct qcow2_segments *segments, struct imgtk_storage *file, struct imgtk_error *err)
{
    int status = 0;
    for (size_t i = 0; !status && i < segments->count; i++)
        status = imgtk_storage_pwrite(file, segments->at[i].from, segments->at[i].length, segments->at[i].host, err);
    return status;
}
