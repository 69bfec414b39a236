/* Walks over the image, which belong to one request at a time and keep what they remember of the chain for the next. */
#ifndef IMGTK_NBDKIT_WALKS_H
#define IMGTK_NBDKIT_WALKS_H

#include <imgtk/image.h>
#include <pthread.h>

struct walk {
    struct imgtk_walk *walk;
    struct walk *next;
};

/* As many as there have been requests at once. */
struct walks {
    struct imgtk_image *image;
    pthread_mutex_t lock; /* of `idle`; a leaf */
    struct walk *idle;
};

void walks_init(struct walks *walks, struct imgtk_image *image);
void walks_free(struct walks *walks);
int walks_take(struct walks *walks, struct walk **out, struct imgtk_error *err);
void walks_give_back(struct walks *walks, struct walk *walk);

#endif
