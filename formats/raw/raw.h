/* raw's two halves: reading (raw.c) and writing (write.c). */
#ifndef IMGTK_FORMATS_RAW_H
#define IMGTK_FORMATS_RAW_H

#include "imgtk/driver.h"

#define RAW_SECTOR 512u

extern const struct imgtk_opt raw_create_opts[];

int raw_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);
int raw_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);
int raw_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int raw_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err);
int raw_finish(void *writer, struct imgtk_error *err);
void raw_writer_close(void *writer);
int raw_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);

#endif
