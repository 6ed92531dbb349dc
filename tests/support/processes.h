/* The processes of this machine as /proc shows them. */
#ifndef TD_TEST_PROCESSES_H
#define TD_TEST_PROCESSES_H

/* How many processes, zombies apart, have `word` on their command line, whose arguments a blank parts. */
int processes_with(const char *word);

#endif
