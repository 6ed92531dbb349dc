/* top.c - `tdmpc2 top`: a run on one screen, refreshed every second; lines of text where there is no terminal. */
#include "tools/top.h"

#include <curses.h>
#include <langinfo.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tools/commands.h"

#define DEADLINE_MS 800
#define REFRESH_MS  1000
#define KEY_WAIT_MS 100
#define EVERY_MAX   3600

/* --- asking ------------------------------------------------------------------- */

struct request {
    const char *where, *keys;
    bool insecure, once;
    double every_s;
};

/* A thread asks, so that keys and a new size of the window never wait for a part that is gone. */
struct watch {
    const struct request *request;
    struct stats_run run;
    struct top_files files;
    bool local;           /* there is a run directory: logs and curves */
    char where[FS_PATH_MAX]; /* as it was found: the newest run stays the one that is shown */
    pthread_mutex_t lock; /* of what stands below */
    struct top top;
    struct error trouble; /* of asking, the last one; code TD_OK: none */
    atomic_bool stop;
};

static void take(struct watch *watch, uint64_t now_ms)
{
    pthread_mutex_lock(&watch->lock);
    top_take(&watch->top, &watch->run, now_ms);
    if (watch->local)
        top_files_poll(&watch->files, &watch->top);
    pthread_mutex_unlock(&watch->lock);
}

/* One round: find the parts anew, for they come, go and change their addresses, and ask them. */
static int ask(struct watch *watch, struct error *err)
{
    int rc = stats_find(&watch->run, watch->where, err);

    if (rc == TD_OK)
        rc = stats_ask(&watch->run, watch->request->insecure, watch->request->keys, DEADLINE_MS, err);
    if (rc < 0 && rc != TD_ENOTFOUND)
        return rc;
    take(watch, clock_ms());
    stats_forget(&watch->run);
    return rc;
}

static void *ask_always(void *context)
{
    struct watch *watch = context;

    while (!atomic_load(&watch->stop)) {
        uint64_t start = clock_ms();
        struct error err = {0};
        int rc = ask(watch, &err);

        pthread_mutex_lock(&watch->lock);
        watch->trouble = rc < 0 && rc != TD_ENOTFOUND ? err : (struct error){0};
        pthread_mutex_unlock(&watch->lock);
        while (!atomic_load(&watch->stop) && clock_ms() < start + REFRESH_MS)
            usleep(20000);
    }
    return NULL;
}

/* The first round, in the command's own thread: what is wrong with the words is said at once. */
static int begin(struct watch *watch, const struct request *request, struct error *err)
{
    int rc;

    watch->request = request;
    pthread_mutex_init(&watch->lock, NULL);
    rc = stats_find(&watch->run, request->where, err);
    if (rc != TD_OK)
        return rc;
    memcpy(watch->where, watch->run.name, sizeof(watch->where));
    watch->local = strstr(watch->where, "://") == NULL;
    top_init(&watch->top, watch->where);
    watch->top.no_logs = !watch->local;
    if (watch->local)
        top_files_init(&watch->files, watch->where);
    rc = ask(watch, err);
    return rc < 0 ? rc : TD_OK;
}

/* --- the screen ----------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
    interrupted = signum;
}

/* Before curses is there: what it finds handled it leaves alone. SIGWINCH is its own. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static int attributes[TOP_TONES];

static void choose_attributes(void)
{
    const char *no_colour = getenv("NO_COLOR");

    attributes[TOP_TITLE] = A_BOLD;
    attributes[TOP_HEAD] = A_REVERSE;
    attributes[TOP_BAD] = A_BOLD;
    if ((no_colour != NULL && no_colour[0] != '\0') || !has_colors() || start_color() == ERR)
        return;
    use_default_colors();
    init_pair(1, COLOR_GREEN, -1);
    init_pair(2, COLOR_YELLOW, -1);
    init_pair(3, COLOR_RED, -1);
    init_pair(4, COLOR_CYAN, -1);
    attributes[TOP_GOOD] = (int)COLOR_PAIR(1);
    attributes[TOP_WARN] = (int)COLOR_PAIR(2);
    attributes[TOP_BAD] = (int)(A_BOLD | COLOR_PAIR(3));
    attributes[TOP_DIM] = (int)COLOR_PAIR(4);
}

/* False: this terminal cannot move its cursor, or is not known here; the reason is said. */
static bool open_screen(SCREEN **screen)
{
    const char *term = getenv("TERM"), *cup = NULL;

    *screen = newterm(NULL, stdout, stdin);
    if (*screen != NULL && ((cup = tigetstr("cup")) == NULL || cup == (const char *)-1)) {
        endwin();
        delscreen(*screen);
        *screen = NULL;
    }
    if (*screen == NULL) {
        fprintf(stderr, "tdmpc2 top: the terminal TERM=%.40s is not known here, or cannot move its cursor: lines of "
                        "text instead\n", term != NULL ? term : "");
        return false;
    }
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    set_escdelay(50);
    timeout(KEY_WAIT_MS);
    choose_attributes();
    return true;
}

static void draw(struct watch *watch, struct top_view *view, struct top_screen *screen)
{
    getmaxyx(stdscr, view->height, view->width);
    pthread_mutex_lock(&watch->lock);
    top_layout(&watch->top, view, clock_ms(), screen);
    if (watch->trouble.code != TD_OK && screen->count > 1) {
        struct top_line *foot = &screen->lines[screen->count - 1];

        snprintf(foot->text, sizeof(foot->text), "%.*s", view->width < TOP_WIDTH_MAX ? view->width : TOP_WIDTH_MAX,
                 watch->trouble.text);
        stats_printable(foot->text);
        foot->tone = TOP_BAD;
    }
    pthread_mutex_unlock(&watch->lock);
    if (view->scroll > screen->hidden)
        view->scroll = screen->hidden;
    erase();
    for (int i = 0; i < screen->count; i++) {
        attrset((attr_t)attributes[screen->lines[i].tone]);
        mvaddstr(i, 0, screen->lines[i].text);
    }
    attrset(A_NORMAL);
    refresh();
}

static bool handle_key(int key, struct top_view *view, const struct top_screen *screen)
{
    switch (key) {
    case 'q':
    case 'Q':
        return false;
    case KEY_UP:
    case 'k':
        view->scroll -= view->scroll > 0;
        break;
    case KEY_DOWN:
    case 'j':
        view->scroll += view->scroll < screen->hidden;
        break;
    case KEY_PPAGE:
        view->scroll = view->scroll > 10 ? view->scroll - 10 : 0;
        break;
    case KEY_NPAGE:
        view->scroll = view->scroll + 10 < screen->hidden ? view->scroll + 10 : screen->hidden;
        break;
    case 'L' - '@': /* what another program wrote over it */
        clearok(stdscr, TRUE);
        break;
    default: /* KEY_RESIZE among them: drawn anew at the size that is now */
        break;
    }
    return true;
}

static void show(struct watch *watch, bool unicode)
{
    struct top_view view = {.unicode = unicode};
    struct top_screen *screen = calloc(1, sizeof(*screen));
    uint64_t drawn = 0;
    int key = ERR;

    while (screen != NULL && !interrupted) {
        if (key != ERR || clock_ms() >= drawn + REFRESH_MS / 2) {
            draw(watch, &view, screen);
            drawn = clock_ms();
        }
        key = getch();
        if (key == ERR && !isatty(STDIN_FILENO))
            break; /* the terminal is gone */
        if (!handle_key(key, &view, screen))
            break;
    }
    free(screen);
}

static int run_screen(struct watch *watch, SCREEN *screen, bool unicode)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, ask_always, watch) != 0) {
        endwin();
        delscreen(screen);
        fprintf(stderr, "tdmpc2 top: no thread could be started\n");
        return TD_EXIT_GAVE_UP;
    }
    show(watch, unicode);
    endwin();
    delscreen(screen);
    atomic_store(&watch->stop, true);
    pthread_join(thread, NULL);
    return TD_EXIT_OK;
}

/* --- lines -------------------------------------------------------------------- */

static int run_lines(struct watch *watch)
{
    uint64_t every_ms = (uint64_t)(watch->request->every_s * 1000), start = clock_ms();

    for (;;) {
        struct error err = {0};
        int rc;

        top_plain(&watch->top, clock_ms(), stdout);
        if (watch->request->once || ferror(stdout))
            return TD_EXIT_OK;
        while (!interrupted && clock_ms() < start + every_ms)
            usleep(20000);
        if (interrupted)
            return TD_EXIT_OK;
        start = clock_ms();
        if ((rc = ask(watch, &err)) < 0 && rc != TD_ENOTFOUND)
            fprintf(stderr, "tdmpc2 top: %s\n", err.text);
    }
}

/* --- the command ------------------------------------------------------------------ */

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 top [RUN_DIR|ADDRESS] [--once] [every=SECONDS] [keys=DIR|insecure=true]\n\n"
          "Watches a run on one screen: its progress, every part with its state, rate, lag and what it waits\n"
          "for, the returns so far and the last lines of the logs. Without RUN_DIR: the newest run under logs/.\n"
          "An ADDRESS (ipc:///..., tcp://HOST:PORT) asks that part alone, without curves of before and logs.\n\n"
          "  q           quits, as Ctrl-C does\n"
          "  up, down    shows the parts that do not fit\n\n"
          "Whoever does not answer keeps its last values, and is asked again every second. Without a terminal,\n"
          "and on one that cannot move its cursor, it prints lines of text every=5 seconds; --once prints them\n"
          "once and ends. keys=DIR and insecure=true: as `tdmpc2 stats`. NO_COLOR=1 leaves colours out.\n",
          out);
}

static int complain(const char *word, const char *what)
{
    fprintf(stderr, "tdmpc2 top: '%.60s' %s; tdmpc2 top --help tells more\n", word, what);
    return TD_EXIT_BAD_INPUT;
}

/* TD_EXIT_OK, TD_EXIT_BAD_INPUT, or -1: help was printed. */
static int parse(struct request *request, int argc, char **argv)
{
    *request = (struct request){.where = "", .keys = "", .every_s = 5};
    for (int i = 1; i < argc; i++) {
        char *end = NULL;

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(stdout);
            return -1;
        } else if (strcmp(argv[i], "--once") == 0) {
            request->once = true;
        } else if (strcmp(argv[i], "insecure=true") == 0) {
            request->insecure = true;
        } else if (strncmp(argv[i], "keys=", 5) == 0) {
            request->keys = argv[i] + 5;
        } else if (strncmp(argv[i], "every=", 6) == 0) {
            request->every_s = strtod(argv[i] + 6, &end);
            if (end == argv[i] + 6 || *end != '\0' || !(request->every_s >= 0.1 && request->every_s <= EVERY_MAX))
                return complain(argv[i], "is not 0.1 to 3600 seconds");
        } else if (argv[i][0] == '-' || request->where[0] != '\0') {
            return complain(argv[i], "is not known");
        } else {
            request->where = argv[i];
        }
    }
    return TD_EXIT_OK;
}

int cmd_top(int argc, char **argv)
{
    struct request request;
    struct watch *watch;
    struct error err = {0};
    SCREEN *screen = NULL;
    bool unicode;
    int rc = parse(&request, argc, argv);

    if (rc != TD_EXIT_OK)
        return rc < 0 ? TD_EXIT_OK : rc;
    if ((watch = calloc(1, sizeof(*watch))) == NULL) {
        fprintf(stderr, "tdmpc2 top: out of memory\n");
        return TD_EXIT_GAVE_UP;
    }
    catch_signals();
    rc = begin(watch, &request, &err);
    if (rc != TD_OK) {
        fprintf(stderr, "tdmpc2 top: %s\n", err.text);
        rc = error_exit_code(err.code);
    } else {
        unicode = setlocale(LC_ALL, "") != NULL && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
        setlocale(LC_NUMERIC, "C"); /* numbers are read and written with a point */
        if (!request.once && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO) && open_screen(&screen))
            rc = run_screen(watch, screen, unicode);
        else
            rc = run_lines(watch);
    }
    channel_shutdown();
    pthread_mutex_destroy(&watch->lock);
    free(watch);
    return rc;
}
