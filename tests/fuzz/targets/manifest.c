/* manifest.json of a checkpoint: what is taken prints, and reads back the same; its progress is checked. */
#include "common/ckpt/manifest.h"
#include "learner/progress.h"
#include "tests/fuzz/targets/ranges.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(110000, 16384);

static void back_again(const struct manifest *manifest)
{
    char *text = manifest_print(manifest), *twice;
    struct manifest again;
    struct error err = {0};

    TD_ASSERT(text != NULL);
    TD_ASSERT(manifest_parse(&again, text, strlen(text), "print", &err) == TD_OK, "%s", err.text);
    twice = manifest_print(&again);
    TD_ASSERT(twice != NULL && strcmp(text, twice) == 0, "it changes when it is printed twice");
    TD_ASSERT(again.step == manifest->step && again.updates == manifest->updates && again.run_id == manifest->run_id);
    manifest_release(&again);
    free(twice);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct progress progress;
    struct manifest manifest;
    struct error err = {0};

    if (manifest_parse(&manifest, (const char *)data, size, "the file", &err) == TD_OK) {
        TD_ASSERT(manifest.file_count <= MANIFEST_FILES_MAX);
        for (int i = 0; i < manifest.file_count; i++)
            TD_ASSERT(manifest_name_valid(manifest.files[i].name));
        fuzz_in_range(&manifest.config);
        back_again(&manifest);
        if (progress_from_json(&progress, manifest.progress, &err) == TD_OK)
            TD_ASSERT(progress.stores <= PROGRESS_STORES && progress.kept <= PROGRESS_KEPT);
    } else {
        TD_ASSERT(err.text[0] != '\0');
    }
    manifest_release(&manifest);
    return 0;
}
