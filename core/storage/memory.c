/* Bytes in memory: for tests, fuzzers and embedding programs. */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "imgtk/image.h"
#include "storage/storage.h"

/* A wild offset must fail by a message, not by the machine's memory. */
#define MEMORY_LIMIT ((uint64_t)1 << 30)

struct memory {
    pthread_mutex_t lock; /* of all that follows; a leaf */
    unsigned char *data;
    uint64_t size;
    uint64_t capacity;
    bool was_empty;
};

static int memory_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                       struct imgtk_error *err)
{
    (void)flags, (void)opts, (void)handle;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "'%s': memory has no name to open", name);
}

static void memory_close(void *handle)
{
    struct memory *memory = handle;
    pthread_mutex_destroy(&memory->lock);
    free(memory->data);
    free(memory);
}

static uint32_t memory_flags(void *handle)
{
    const struct memory *memory = handle;
    return IMGTK_STORAGE_WRITABLE | (memory->was_empty ? IMGTK_STORAGE_READS_ZERO : 0);
}

static int memory_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    struct memory *memory = handle;
    (void)err;
    pthread_mutex_lock(&memory->lock);
    *out = memory->size;
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

static int memory_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct memory *memory = handle;
    (void)err;
    *done = 0;
    pthread_mutex_lock(&memory->lock);
    if (offset < memory->size) {
        *done = (size_t)imgtk_min_u64(length, memory->size - offset);
        memcpy(buf, memory->data + offset, *done);
    }
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

/* With the lock held. What lies between size and capacity is kept zero. */
static int set_size(struct memory *memory, uint64_t size, struct imgtk_error *err)
{
    if (size > MEMORY_LIMIT)
        return imgtk_fail(err, IMGTK_ELIMIT, "%" PRIu64 " bytes in memory are beyond the limit of %" PRIu64, size,
                          MEMORY_LIMIT);
    if (size > memory->capacity) {
        uint64_t capacity = imgtk_min_u64(size + size / 2, MEMORY_LIMIT);
        unsigned char *data = realloc(memory->data, (size_t)capacity);
        if (!data)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %" PRIu64 " bytes", capacity);
        memset(data + memory->capacity, 0, (size_t)(capacity - memory->capacity));
        memory->data = data;
        memory->capacity = capacity;
    }
    if (size < memory->size)
        memset(memory->data + size, 0, (size_t)(memory->size - size));
    memory->size = size;
    return 0;
}

/* buf NULL: zeroes */
static int put_bytes(struct memory *memory, const void *buf, uint64_t length, uint64_t offset, struct imgtk_error *err)
{
    int status = 0;
    pthread_mutex_lock(&memory->lock);
    if (offset + length > memory->size)
        status = set_size(memory, offset + length, err);
    if (status == 0 && buf)
        memcpy(memory->data + offset, buf, (size_t)length);
    else if (status == 0)
        memset(memory->data + offset, 0, (size_t)length);
    pthread_mutex_unlock(&memory->lock);
    return status;
}

static int memory_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    return put_bytes(handle, buf, length, offset, err);
}

static int memory_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    (void)flags;
    return put_bytes(handle, NULL, length, offset, err);
}

static int memory_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    struct memory *memory = handle;
    pthread_mutex_lock(&memory->lock);
    int status = set_size(memory, size, err);
    pthread_mutex_unlock(&memory->lock);
    return status;
}

static const struct imgtk_storage_ops memory_ops = {
    .struct_size = sizeof(struct imgtk_storage_ops),
    .name = "memory",
    .description = "bytes in memory",
    .version = IMGTK_VERSION,
    .open = memory_open,
    .close = memory_close,
    .size = memory_size,
    .pread = memory_pread,
    .flags = memory_flags,
    .pwrite = memory_pwrite,
    .zero = memory_zero,
    .truncate = memory_truncate,
};

int imgtk_storage_from_memory(const void *data, size_t length, struct imgtk_storage **out, struct imgtk_error *err)
{
    *out = NULL;
    struct memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    pthread_mutex_init(&memory->lock, NULL);
    memory->was_empty = length == 0;
    int status = length ? set_size(memory, length, err) : 0;
    if (status) {
        memory_close(memory);
        return status;
    }
    if (length)
        memcpy(memory->data, data, length);
    return storage_wrap(&memory_ops, memory, "memory", out, err);
}
