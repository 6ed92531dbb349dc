#include "learner/task_line.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

size_t task_line(char *out, size_t size, const struct task_set *set, const struct coordinator_task *tasks,
                 const double *returns, int count)
{
    char phrase[TASK_NAME_MAX + 128], late[32];
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < count && i < set->count; i++) {
        size_t length, rest = i + 1 < count ? sizeof("; and 255 more tasks") : 1;

        late[0] = '\0';
        if (!isnan(returns[i]))
            snprintf(late, sizeof(late), " R %.6g", returns[i]);
        length = (size_t)snprintf(phrase, sizeof(phrase), "%s%s %llu rows %llu episodes %u playing%s", i > 0 ? "; " : "",
                                  set->task[i].name, (unsigned long long)tasks[i].rows,
                                  (unsigned long long)tasks[i].episodes, tasks[i].playing, late);
        if (used + length + rest > size)
            return used + (size_t)snprintf(out + used, size - used, i > 0 ? "; and %d more tasks" : "%d tasks", count - i);
        memcpy(out + used, phrase, length + 1);
        used += length;
    }
    return used;
}
