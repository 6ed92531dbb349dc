#include "common/ckpt/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/clock.h"

#define TEMPORARY ".new-" /* before a checkpoint's name: being written */
#define UNREAD_STEP 1000000u /* more checkpoints than stand beside each other */
#define REPLACED  ".old-" /* its predecessor of the same name, where two names cannot be exchanged */

struct checkpoint {
    char path[FS_PATH_MAX];
    struct manifest manifest;
};

/* --- reading --- */

/* Is manifest.json what manifest.sha256 says? */
static int check_manifest_hash(const char *path, const char *text, size_t length, struct error *err)
{
    char sums[FS_PATH_MAX], hex[FS_SHA256_HEX], *line;
    size_t line_length;
    int rc;

    if ((rc = fs_join(sums, path, "manifest.sha256", err)) != TD_OK ||
        (rc = fs_read_file(sums, 4096, &line, &line_length, err)) != TD_OK)
        return rc;
    fs_sha256(text, length, hex);
    if (line_length < FS_SHA256_HEX - 1 || memcmp(line, hex, FS_SHA256_HEX - 1) != 0)
        rc = error_set(err, TD_ECORRUPT, "%s/manifest.json does not have the hash in manifest.sha256", path);
    free(line);
    return rc;
}

static int read_manifest(struct manifest *manifest, const char *path, struct error *err)
{
    char name[FS_PATH_MAX], *text = NULL;
    size_t length;
    int rc;

    memset(manifest, 0, sizeof(*manifest));
    if ((rc = fs_join(name, path, "manifest.json", err)) != TD_OK)
        return rc;
    rc = fs_read_file(name, MANIFEST_BYTES_MAX, &text, &length, err);
    if (rc == TD_ENOTFOUND)
        return error_set(err, rc, "%s is no checkpoint: it holds no manifest.json", path);
    if (rc != TD_OK)
        return rc;
    rc = check_manifest_hash(path, text, length, err);
    if (rc == TD_OK)
        rc = manifest_parse(manifest, text, length, name, err);
    free(text);
    return rc;
}

static int check_size(const char *path, const struct manifest_file *file, struct error *err)
{
    char name[FS_PATH_MAX];
    struct stat info;
    int rc = fs_join(name, path, file->name, err);

    if (rc != TD_OK)
        return rc;
    if (lstat(name, &info) != 0)
        return error_set_errno(err, errno == ENOENT ? TD_ECORRUPT : TD_EIO, errno, "cannot look at %s", name);
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != file->bytes)
        return error_set(err, TD_ECORRUPT, "%s has %lld bytes instead of %llu", name,
                         (long long)info.st_size, (unsigned long long)file->bytes);
    return TD_OK;
}

static int check_hash(const char *path, const struct manifest_file *file, struct error *err)
{
    char name[FS_PATH_MAX], hex[FS_SHA256_HEX];
    int rc;

    if ((rc = check_size(path, file, err)) != TD_OK || (rc = fs_join(name, path, file->name, err)) != TD_OK ||
        (rc = fs_sha256_file(name, hex, err)) != TD_OK)
        return rc;
    if (strcmp(hex, file->sha256) != 0)
        return error_set(err, TD_ECORRUPT, "%s is damaged: its hash is not the manifest's", name);
    return TD_OK;
}

int checkpoint_open(checkpoint_t **out, const char *path, struct error *err)
{
    checkpoint_t *checkpoint = calloc(1, sizeof(*checkpoint));
    int rc;

    *out = NULL;
    if (checkpoint == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (strlen(path) >= sizeof(checkpoint->path)) {
        rc = error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 1, path);
        goto fail;
    }
    memcpy(checkpoint->path, path, strlen(path) + 1);
    if ((rc = read_manifest(&checkpoint->manifest, path, err)) != TD_OK)
        goto fail;
    for (int i = 0; i < checkpoint->manifest.file_count; i++)
        if ((rc = check_hash(path, &checkpoint->manifest.files[i], err)) != TD_OK)
            goto fail;
    *out = checkpoint;
    return TD_OK;

fail:
    checkpoint_close(&checkpoint);
    return rc;
}

int checkpoint_open_in(checkpoint_t **out, const char *path,
                       void (*passed_over)(void *context, const char *name, const char *why), void *context,
                       struct error *err)
{
    char inside[FS_PATH_MAX];
    int rc;

    *out = NULL;
    if (access(path, F_OK) != 0)
        return error_set(err, TD_ENOTFOUND, "no checkpoint at %s", path);
    if (fs_has(path, "manifest.json"))
        return checkpoint_open(out, path, err);
    if (!fs_has(path, "checkpoints"))
        return checkpoint_open_newest(out, path, CHECKPOINT_ANY, passed_over, context, err);
    if ((rc = fs_join(inside, path, "checkpoints", err)) != TD_OK)
        return rc;
    return checkpoint_open_newest(out, inside, CHECKPOINT_ANY, passed_over, context, err);
}

void checkpoint_close(checkpoint_t **checkpoint)
{
    if (*checkpoint == NULL)
        return;
    manifest_release(&(*checkpoint)->manifest);
    free(*checkpoint);
    *checkpoint = NULL;
}

const struct manifest *checkpoint_manifest(const checkpoint_t *checkpoint)
{
    return &checkpoint->manifest;
}

const char *checkpoint_path(const checkpoint_t *checkpoint)
{
    return checkpoint->path;
}

/* The path of a file that the manifest names. */
static int find_file(const checkpoint_t *checkpoint, const char *name, char out[FS_PATH_MAX],
                     struct error *err)
{
    for (int i = 0; i < checkpoint->manifest.file_count; i++)
        if (strcmp(checkpoint->manifest.files[i].name, name) == 0)
            return fs_join(out, checkpoint->path, name, err);
    return error_set(err, TD_ENOTFOUND, "checkpoint %s has no %s", checkpoint->path, name);
}

int checkpoint_open_tensors(const checkpoint_t *checkpoint, const char *name, safetensors_t **out,
                            struct error *err)
{
    char path[FS_PATH_MAX];
    int rc = find_file(checkpoint, name, path, err);

    *out = NULL;
    return rc != TD_OK ? rc : safetensors_open(out, path, err);
}

int checkpoint_read_blob(const checkpoint_t *checkpoint, const char *name, size_t limit, char **bytes,
                         size_t *length, struct error *err)
{
    char path[FS_PATH_MAX];
    int rc = find_file(checkpoint, name, path, err);

    *bytes = NULL;
    return rc != TD_OK ? rc : fs_read_file(path, limit, bytes, length, err);
}

/* --- listing --- */

static void fill_entry(struct checkpoint_entry *entry, const char *folder)
{
    char path[FS_PATH_MAX];
    struct manifest manifest = {0};
    struct error err = {0};

    entry->code = fs_join(path, folder, entry->name, &err);
    if (entry->code == TD_OK)
        entry->code = read_manifest(&manifest, path, &err);
    for (int i = 0; entry->code == TD_OK && i < manifest.file_count; i++)
        entry->code = check_size(path, &manifest.files[i], &err);
    for (int i = 0; entry->code == TD_OK && i < manifest.file_count; i++)
        entry->bytes += manifest.files[i].bytes;
    /* a readable manifest gives its place even to one that lost a file */
    entry->kind = manifest.kind;
    entry->sequence = manifest.sequence;
    entry->created_ms = manifest.created_ms;
    entry->step = manifest.step;
    entry->updates = manifest.updates;
    if (entry->code != TD_OK)
        snprintf(entry->why, sizeof(entry->why), "%.255s", err.text);
    manifest_release(&manifest);
}

static int newer_first(const void *left, const void *right)
{
    const struct checkpoint_entry *a = left, *b = right;

    if (a->sequence != b->sequence)
        return a->sequence > b->sequence ? -1 : 1;
    return strcmp(b->name, a->name);
}

/* Not hidden, or the predecessor that an interrupted replacement left. */
static bool is_candidate(const char *name)
{
    if (strncmp(name, REPLACED, strlen(REPLACED)) == 0)
        return strlen(name) < MANIFEST_NAME_MAX;
    return manifest_name_valid(name);
}

/* A folder that shows no trace of a manifest is something else. */
static bool has_manifest(int folder, const char *name)
{
    static const char *const traces[] = {"manifest.json", "manifest.sha256"};
    char path[MANIFEST_NAME_MAX + 32];

    for (size_t i = 0; i < TD_LEN(traces); i++) {
        snprintf(path, sizeof(path), "%s/%s", name, traces[i]);
        if (faccessat(folder, path, F_OK, 0) == 0)
            return true;
    }
    return false;
}

int checkpoint_list(const char *folder, struct checkpoint_entry **entries, int *count, struct error *err)
{
    DIR *list = opendir(folder);
    struct dirent *found;

    *entries = NULL;
    *count = 0;
    if (list == NULL && errno == ENOENT)
        return TD_OK;
    if (list == NULL)
        return error_set_errno(err, TD_EIO, errno, "cannot list %s", folder);
    while ((found = readdir(list)) != NULL) {
        struct checkpoint_entry *grown;
        struct stat info;

        if (!is_candidate(found->d_name) || fstatat(dirfd(list), found->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISDIR(info.st_mode) || !has_manifest(dirfd(list), found->d_name))
            continue;
        grown = realloc(*entries, (size_t)(*count + 1) * sizeof(*grown));
        if (grown == NULL) {
            closedir(list);
            free(*entries);
            *entries = NULL;
            *count = 0;
            return error_set(err, TD_ENOMEM, "out of memory");
        }
        *entries = grown;
        memset(&grown[*count], 0, sizeof(*grown));
        memcpy(grown[*count].name, found->d_name, strlen(found->d_name) + 1);
        fill_entry(&grown[(*count)++], folder);
    }
    closedir(list);
    if (*count > 0)
        qsort(*entries, (size_t)*count, sizeof(**entries), newer_first);
    return TD_OK;
}

/* What is damaged is passed over; anything else is not for us to decide. */
static bool passes_over(int code)
{
    return code == TD_ECORRUPT || code == TD_ENOTFOUND || code == TD_EIO || code == TD_EINVAL;
}

int checkpoint_open_newest(checkpoint_t **out, const char *folder, unsigned kinds,
                           void (*passed_over)(void *context, const char *name, const char *why),
                           void *context, struct error *err)
{
    struct checkpoint_entry *entries;
    int count, damaged = 0, rc = checkpoint_list(folder, &entries, &count, err);

    *out = NULL;
    if (rc != TD_OK)
        return rc;
    rc = TD_ENOTFOUND;
    /* a sequence of 0 is a manifest that could not be read: whether it is newer is not known */
    for (int i = 0; i < count; i++) {
        if (entries[i].sequence != 0 || passes_over(entries[i].code))
            continue;
        rc = error_set(err, entries[i].code, "%s", entries[i].why);
        goto done;
    }
    for (int i = 0; i < count; i++) {
        if (entries[i].sequence == 0) {
            damaged++;
            if (passed_over != NULL)
                passed_over(context, entries[i].name, entries[i].why);
        }
    }
    for (int i = 0; i < count && rc == TD_ENOTFOUND; i++) {
        char path[FS_PATH_MAX];
        struct error why = {0};

        if (entries[i].sequence == 0 || (entries[i].kind & kinds) == 0)
            continue;
        rc = fs_join(path, folder, entries[i].name, &why);
        if (rc == TD_OK)
            rc = checkpoint_open(out, path, &why);
        if (rc != TD_OK && !passes_over(rc)) {
            error_set(err, rc, "%s", why.text);
        } else if (rc != TD_OK) {
            damaged++;
            if (passed_over != NULL)
                passed_over(context, entries[i].name, why.text);
            rc = TD_ENOTFOUND;
        }
    }
    if (rc == TD_ENOTFOUND)
        rc = damaged == 0 ? error_set(err, TD_ENOTFOUND, "no checkpoint in %s", folder)
                          : error_set(err, TD_ECORRUPT, "every checkpoint in %s is damaged (%d)", folder, damaged);
done:
    free(entries);
    return rc;
}

/* --- writing --- */

/* Note a finished file in the manifest. */
static int note_file(struct manifest *manifest, const char *path, const char *name, struct error *err)
{
    struct manifest_file *file = &manifest->files[manifest->file_count];
    struct stat info;
    int rc;

    TD_ASSERT(manifest->file_count < MANIFEST_FILES_MAX, "%d files", manifest->file_count);
    TD_ASSERT(manifest_name_valid(name), "file name '%s'", name);
    if ((rc = fs_sha256_file(path, file->sha256, err)) != TD_OK)
        return rc;
    if (stat(path, &info) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot look at %s", path);
    memcpy(file->name, name, strlen(name) + 1);
    file->bytes = (uint64_t)info.st_size;
    manifest->file_count++;
    return TD_OK;
}

static int write_parts(const char *folder, struct manifest *manifest, const struct checkpoint_parts *parts,
                       struct error *err)
{
    char path[FS_PATH_MAX];
    int rc;

    for (int i = 0; i < parts->group_count; i++) {
        const struct checkpoint_group *group = &parts->groups[i];

        if ((rc = fs_join(path, folder, group->name, err)) != TD_OK || (rc = fs_fail("create", path, err)) != TD_OK ||
            (rc = safetensors_write(path, group->tensors, group->count, NULL, 0, parts->progress, parts->context,
                                    err)) != TD_OK ||
            (rc = note_file(manifest, path, group->name, err)) != TD_OK)
            return rc;
    }
    for (int i = 0; i < parts->blob_count; i++) {
        const struct checkpoint_blob *blob = &parts->blobs[i];

        if ((rc = fs_join(path, folder, blob->name, err)) != TD_OK ||
            (rc = fs_write_file(path, blob->bytes, blob->length, err)) != TD_OK ||
            (rc = note_file(manifest, path, blob->name, err)) != TD_OK)
            return rc;
    }
    return TD_OK;
}

static int write_manifest(const char *folder, const struct manifest *manifest, struct error *err)
{
    char path[FS_PATH_MAX], sums[128], hex[FS_SHA256_HEX];
    char *text = manifest_print(manifest);
    int rc;

    if (text == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (strlen(text) > MANIFEST_BYTES_MAX) {
        free(text);
        return error_set(err, TD_EFULL, "the manifest would have more than %u bytes", MANIFEST_BYTES_MAX);
    }
    fs_sha256(text, strlen(text), hex);
    snprintf(sums, sizeof(sums), "%s  manifest.json\n", hex);
    rc = fs_join(path, folder, "manifest.json", err);
    if (rc == TD_OK)
        rc = fs_write_file(path, text, strlen(text), err);
    if (rc == TD_OK)
        rc = fs_join(path, folder, "manifest.sha256", err);
    if (rc == TD_OK)
        rc = fs_write_file(path, sums, strlen(sums), err);
    free(text);
    return rc;
}

/* Put the finished folder in its place; an older one of that name leaves afterwards. */
static int publish(const char *written, const char *place, const char *old, struct error *err)
{
    struct stat info;
    int rc;

    if (lstat(place, &info) != 0)
        return fs_rename(written, place, err);
    rc = fs_exchange(written, place, err);
    if (rc == TD_OK)
        fs_remove_tree(written, NULL); /* what cannot be removed now is a leftover for the next write */
    if (rc != TD_EINVAL)
        return rc;
    /* no exchange on this file system: the older one stays a candidate under its other name */
    if ((rc = fs_remove_tree(old, err)) != TD_OK || (rc = fs_rename(place, old, err)) != TD_OK ||
        (rc = fs_rename(written, place, err)) != TD_OK)
        return rc;
    fs_remove_tree(old, NULL);
    return TD_OK;
}

/*
 * Above all that are there. One whose manifest can't be read now, for want of a descriptor or by a disk's
 * mood, may be the newest, and readable again when it matters: the next one keeps well clear of it.
 */
static int next_sequence(const char *folder, uint64_t *sequence, struct error *err)
{
    struct checkpoint_entry *entries;
    int count, rc = checkpoint_list(folder, &entries, &count, err);

    if (rc != TD_OK)
        return rc;
    *sequence = count > 0 ? entries[0].sequence + 1 : 1;
    if (count > 0 && entries[count - 1].sequence == 0)
        *sequence += UNREAD_STEP;
    free(entries);
    return TD_OK;
}

int checkpoint_write(const char *folder, const char *name, struct manifest *manifest,
                     const struct checkpoint_parts *parts, struct error *err)
{
    char beside[FS_PATH_MAX], place[FS_PATH_MAX], old[FS_PATH_MAX], hidden[MANIFEST_NAME_MAX + 8];
    int rc;

    TD_ASSERT(manifest_name_valid(name), "checkpoint name '%s'", name);
    snprintf(hidden, sizeof(hidden), TEMPORARY "%s", name);
    if ((rc = fs_join(beside, folder, hidden, err)) != TD_OK)
        return rc;
    snprintf(hidden, sizeof(hidden), REPLACED "%s", name);
    if ((rc = fs_join(old, folder, hidden, err)) != TD_OK || (rc = fs_join(place, folder, name, err)) != TD_OK ||
        (rc = fs_mkdirs(folder, 0755, err)) != TD_OK || (rc = fs_remove_tree(beside, err)) != TD_OK ||
        (rc = next_sequence(folder, &manifest->sequence, err)) != TD_OK ||
        (rc = fs_mkdirs(beside, 0755, err)) != TD_OK)
        return rc;
    manifest->created_ms = clock_wall_ms();
    manifest->file_count = 0;
    rc = write_parts(beside, manifest, parts, err);
    if (rc == TD_OK)
        rc = write_manifest(beside, manifest, err);
    if (rc == TD_OK)
        rc = fs_sync(beside, err);
    if (rc == TD_OK)
        return publish(beside, place, old, err);
    fs_remove_tree(beside, NULL);
    return rc;
}

/* Folders of writes that never finished, and predecessors whose successor stands. */
static int remove_leftovers(const char *folder, struct error *err)
{
    DIR *list = opendir(folder);
    struct dirent *found;
    int rc = TD_OK;

    if (list == NULL)
        return error_set_errno(err, TD_EIO, errno, "cannot list %s", folder);
    while (rc == TD_OK && (found = readdir(list)) != NULL) {
        char path[FS_PATH_MAX], place[FS_PATH_MAX];
        struct manifest manifest;
        bool leftover = strncmp(found->d_name, TEMPORARY, strlen(TEMPORARY)) == 0;

        if (strncmp(found->d_name, REPLACED, strlen(REPLACED)) == 0 &&
            fs_join(place, folder, found->d_name + strlen(REPLACED), NULL) == TD_OK) {
            leftover = read_manifest(&manifest, place, NULL) == TD_OK;
            manifest_release(&manifest);
        }
        if (leftover && (rc = fs_join(path, folder, found->d_name, err)) == TD_OK)
            rc = fs_remove_tree(path, err);
    }
    closedir(list);
    return rc;
}

/* Out of sight by one rename first, so that a kill leaves no half-deleted checkpoint. */
static int remove_checkpoint(const char *folder, const char *name, struct error *err)
{
    char path[FS_PATH_MAX], hidden[FS_PATH_MAX], hidden_name[MANIFEST_NAME_MAX + 8];
    int rc;

    snprintf(hidden_name, sizeof(hidden_name), TEMPORARY "%s", name);
    if ((rc = fs_join(path, folder, name, err)) != TD_OK || (rc = fs_join(hidden, folder, hidden_name, err)) != TD_OK ||
        (rc = fs_remove_tree(hidden, err)) != TD_OK || (rc = fs_rename(path, hidden, err)) != TD_OK)
        return rc;
    return fs_remove_tree(hidden, err);
}

int checkpoint_prune(const char *folder, int keep, unsigned kinds, struct error *err)
{
    struct checkpoint_entry *entries;
    int count, kept = 0, rc = checkpoint_list(folder, &entries, &count, err);

    TD_ASSERT(keep >= 1, "keep %d", keep);
    for (int i = 0; i < count && rc == TD_OK; i++)
        if (entries[i].code == TD_OK && (entries[i].kind & kinds) != 0 && ++kept > keep)
            rc = remove_checkpoint(folder, entries[i].name, err);
    if (rc == TD_OK && count > 0)
        rc = remove_leftovers(folder, err);
    free(entries);
    return rc;
}
