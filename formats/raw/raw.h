/* raw's parts: reading (raw.c), writing a new image (write.c) and changing one (edit.c). */
#ifndef IMGTK_FORMATS_RAW_H
#define IMGTK_FORMATS_RAW_H

#include "imgtk/driver.h"

#define RAW_SECTOR 512u

/* An open image. */
struct raw {
    struct imgtk_storage *file;
    uint64_t base;     /* where the disk begins in the file */
    uint64_t present;  /* bytes of it that the file holds */
    uint64_t size;     /* virtual: present, rounded up to a sector as every hypervisor does */
    bool to_the_end;   /* the disk ends with the file */
    uint64_t new_size; /* while it is edited: the size to come */
};

extern const struct imgtk_opt raw_create_opts[];

int raw_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);
int raw_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);
int raw_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int raw_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err);
int raw_finish(void *writer, struct imgtk_error *err);
void raw_writer_close(void *writer);
int raw_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);

int raw_edit_begin(void *handle, struct imgtk_edit *edit, struct imgtk_error *err);
int raw_edit_write(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int raw_edit_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err);
int raw_edit_resize(void *handle, uint64_t size, struct imgtk_error *err);
int raw_edit_commit(void *handle, struct imgtk_error *err);
int raw_edit_allocate(void *handle, uint64_t offset, enum imgtk_allocation how, struct imgtk_error *err);

#endif
