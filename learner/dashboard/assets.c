#include "learner/dashboard/assets.h"

#include <string.h>

#include "common/util/error.h"

/* The Makefile knows that this file is made again when one of them changes. */
#define EMBED(name, file)                                                                       \
    __asm__(".section .rodata\n.global asset_" #name "_begin\nasset_" #name "_begin:\n"         \
            ".incbin \"learner/dashboard/" file "\"\n.global asset_" #name "_end\n"             \
            "asset_" #name "_end:\n.byte 0\n.previous\n");                                      \
    extern const char asset_##name##_begin[], asset_##name##_end[];

EMBED(page, "page.html")
EMBED(style, "page.css")
EMBED(script, "page.js")
EMBED(published, "published.csv")
EMBED(uplot, "uplot/uPlot.iife.min.js")
EMBED(uplot_style, "uplot/uPlot.min.css")

const struct asset *asset_find(const char *path)
{
    static const struct asset assets[] = {
        {"/", "text/html; charset=utf-8", asset_page_begin, asset_page_end},
        {"/page.css", "text/css; charset=utf-8", asset_style_begin, asset_style_end},
        {"/page.js", "text/javascript; charset=utf-8", asset_script_begin, asset_script_end},
        {"/published.csv", "text/csv; charset=utf-8", asset_published_begin, asset_published_end},
        {"/uPlot.js", "text/javascript; charset=utf-8", asset_uplot_begin, asset_uplot_end},
        {"/uPlot.css", "text/css; charset=utf-8", asset_uplot_style_begin, asset_uplot_style_end},
    };

    for (size_t i = 0; i < TD_LEN(assets); i++)
        if (strcmp(path, assets[i].path) == 0)
            return &assets[i];
    return NULL;
}
