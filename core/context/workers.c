#include "imgtk/driver.h"

#include <pthread.h>

struct task {
    void (*work)(void *context);
    void *context;
};

static void *run_task(void *context)
{
    const struct task *task = context;
    task->work(task->context);
    return NULL;
}

void imgtk_workers_run(unsigned count, void (*work)(void *context), void *context)
{
    pthread_t threads[IMGTK_MAX_WORKERS];
    struct task task = { work, context };
    unsigned started = 0;
    while (started + 1 < count && started + 1 < IMGTK_MAX_WORKERS &&
           pthread_create(&threads[started], NULL, run_task, &task) == 0)
        started++;
    work(context);
    while (started > 0)
        pthread_join(threads[--started], NULL);
}
