/*
 * Which reads go through the file in order.
 *
 * Several workers read side by side, each its own piece, so the reads of a job that goes through a file arrive in any
 * order around a front that moves on. Tables far away are read in between: therefore there is more than one front.
 */
#include <string.h>

#include "http.h"
#include "imgtk/bytes.h"

#define LONGEST_STEP (UINT64_C(2) << 20) /* from a front to the next read: over a piece that was read at once */
#define LONGEST_LAG (UINT64_C(16) << 20) /* of a worker behind the front */
#define PROOF (UINT64_C(512) << 10)      /* what is passed before anything is read ahead; longer than any single read */
#define MEMORY (UINT64_C(32) << 20)      /* what it passed earlier is forgotten */

static bool belongs(const struct http_front *front, uint64_t offset)
{
    return front->used > 0 && offset <= front->end + LONGEST_STEP && offset + LONGEST_LAG >= front->end;
}

/* The front that the read belongs to, else a new one in the place of that which was used least recently. */
static struct http_front *find(struct http_fronts *fronts, uint64_t offset)
{
    struct http_front *oldest = &fronts->list[0];
    for (size_t i = 0; i < HTTP_FRONTS; i++) {
        struct http_front *front = &fronts->list[i];
        if (belongs(front, offset))
            return front;
        if (front->used < oldest->used)
            oldest = front;
    }
    *oldest = (struct http_front){ .begin = offset, .end = offset };
    return oldest;
}

static void move(struct http_front *front, uint64_t offset, uint64_t end)
{
    if (end > front->end)
        front->end = end;
    if (end > front->begin)
        front->read += end - (offset > front->begin ? offset : front->begin);
    uint64_t passed = http_front_passed(front);
    front->read = imgtk_min_u64(front->read, passed); /* the same bytes may be read twice */
    if (passed > MEMORY) {
        front->begin += passed / 2;
        front->read -= front->read / 2;
    }
}

struct http_front *http_fronts_note(struct http_fronts *fronts, uint64_t offset, uint64_t length)
{
    struct http_front *front = find(fronts, offset);
    front->used = ++fronts->reads;
    move(front, offset, offset + length);
    uint64_t passed = http_front_passed(front);
    return passed > PROOF && front->read >= passed / 2 ? front : NULL;
}

uint64_t http_front_passed(const struct http_front *front)
{
    return front->end - front->begin;
}

void http_fronts_forget(struct http_fronts *fronts)
{
    memset(fronts->list, 0, sizeof(fronts->list));
}
