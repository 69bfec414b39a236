#include "walks.h"

#include <stdlib.h>

void walks_init(struct walks *walks, struct imgtk_image *image)
{
    walks->image = image;
    walks->idle = NULL;
    pthread_mutex_init(&walks->lock, NULL);
}

void walks_free(struct walks *walks)
{
    for (struct walk *walk = walks->idle, *next; walk; walk = next) {
        next = walk->next;
        imgtk_walk_free(walk->walk);
        free(walk);
    }
    pthread_mutex_destroy(&walks->lock);
}

static int make(struct walks *walks, struct walk **out, struct imgtk_error *err)
{
    struct walk *walk = calloc(1, sizeof(*walk));
    if (!walk)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = imgtk_walk_new(walks->image, &walk->walk, err);
    if (status) {
        free(walk);
        return status;
    }
    imgtk_walk_ask_storage(walk->walk, true);
    *out = walk;
    return 0;
}

int walks_take(struct walks *walks, struct walk **out, struct imgtk_error *err)
{
    pthread_mutex_lock(&walks->lock);
    *out = walks->idle;
    if (*out)
        walks->idle = (*out)->next;
    pthread_mutex_unlock(&walks->lock);
    return *out ? 0 : make(walks, out, err);
}

void walks_give_back(struct walks *walks, struct walk *walk)
{
    pthread_mutex_lock(&walks->lock);
    walk->next = walks->idle;
    walks->idle = walk;
    pthread_mutex_unlock(&walks->lock);
}
