#include "common/env/gl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The few declarations of EGL/egl.h, EGL/eglext.h and GL/osmesa.h that are used: the headers are no
 * part of the set-up, as the libraries are opened only where somebody draws.
 */
#define EGL_TRUE                1
#define EGL_NONE                0x3038
#define EGL_SURFACE_TYPE        0x3033
#define EGL_PBUFFER_BIT         0x0001
#define EGL_RENDERABLE_TYPE     0x3040
#define EGL_OPENGL_BIT          0x0008
#define EGL_RED_SIZE            0x3024
#define EGL_GREEN_SIZE          0x3023
#define EGL_BLUE_SIZE           0x3022
#define EGL_ALPHA_SIZE          0x3021
#define EGL_DEPTH_SIZE          0x3025
#define EGL_STENCIL_SIZE        0x3026
#define EGL_WIDTH               0x3057
#define EGL_HEIGHT              0x3056
#define EGL_EXTENSIONS          0x3055
#define EGL_OPENGL_API          0x30A2
#define EGL_PLATFORM_DEVICE_EXT 0x313F
#define GL_RGBA                 0x1908
#define GL_UNSIGNED_BYTE        0x1401
#define GL_RENDERER             0x1F01
#define GL_VERSION              0x1F02

#define RECORDED_BY "Mesa 22.3.6" /* Debian 12 */

#define DEVICES_MAX 32
#define SIDE        64 /* of the buffer a context is born with; MuJoCo draws into one of its own */

struct osmesa {
    void *(*OSMesaCreateContextExt)(unsigned format, int depth, int stencil, int accum, void *share);
    unsigned char (*OSMesaMakeCurrent)(void *context, void *buffer, unsigned type, int width, int height);
    void (*OSMesaDestroyContext)(void *context);
    void *(*OSMesaGetProcAddress)(const char *name);
};

struct egl {
    unsigned (*eglBindAPI)(unsigned api);
    unsigned (*eglInitialize)(void *display, int *major, int *minor);
    unsigned (*eglTerminate)(void *display);
    unsigned (*eglChooseConfig)(void *display, const int *wanted, void **configs, int size, int *count);
    void *(*eglCreatePbufferSurface)(void *display, void *config, const int *attributes);
    void *(*eglCreateContext)(void *display, void *config, void *share, const int *attributes);
    unsigned (*eglMakeCurrent)(void *display, void *draw, void *read, void *context);
    unsigned (*eglDestroyContext)(void *display, void *context);
    unsigned (*eglDestroySurface)(void *display, void *surface);
    void *(*eglGetProcAddress)(const char *name);
    /* extensions, found through eglGetProcAddress */
    unsigned (*query_devices)(int size, void **devices, int *count);
    const char *(*query_device_string)(void *device, int name);
    void *(*get_platform_display)(unsigned platform, void *device, const int *attributes);
    void *display, *config; /* of the chosen device, initialised once */
};

struct gl {
    void *context;
    void *surface; /* EGL */
    void *buffer;  /* OSMesa: [SIDE][SIDE][4] */
};

enum platform { NOT_CHOSEN, OSMESA, EGL };

static struct {
    pthread_mutex_t lock; /* creating and destroying, too: not all drivers can do it in two threads */
    enum platform platform;
    char driver[200];
    struct osmesa osmesa;
    struct egl egl;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- libraries ----------------------------------------------------------------------------- */

struct symbol {
    const char *name;
    void *place; /* of the function pointer */
};

static bool resolve(void *library, const struct symbol *symbols, size_t count, const char **missing)
{
    for (size_t i = 0; i < count; i++) {
        void *function = dlsym(library, symbols[i].name);

        *missing = symbols[i].name;
        if (function == NULL)
            return false;
        memcpy(symbols[i].place, &function, sizeof(function));
    }
    return true;
}

/* Global, for MuJoCo looks for OSMesaGetProcAddress and eglGetProcAddress in the whole process. */
static int open_osmesa(struct osmesa *mesa, struct error *err)
{
    static const char *const names[] = {"libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"};
    const struct symbol symbols[] = {
        {"OSMesaCreateContextExt", &mesa->OSMesaCreateContextExt},
        {"OSMesaMakeCurrent", &mesa->OSMesaMakeCurrent},
        {"OSMesaDestroyContext", &mesa->OSMesaDestroyContext},
        {"OSMesaGetProcAddress", &mesa->OSMesaGetProcAddress},
    };
    const char *missing;
    void *library = NULL;

    for (size_t i = 0; i < TD_LEN(names) && library == NULL; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL)
        return error_set(err, TD_ESETUP, "libOSMesa is not installed");
    if (!resolve(library, symbols, TD_LEN(symbols), &missing)) {
        dlclose(library);
        return error_set(err, TD_ESETUP, "libOSMesa has no function %s", missing);
    }
    return TD_OK;
}

static int resolve_egl(struct egl *egl, void *library, struct error *err)
{
    const struct symbol symbols[] = {
        {"eglBindAPI", &egl->eglBindAPI},
        {"eglInitialize", &egl->eglInitialize},
        {"eglTerminate", &egl->eglTerminate},
        {"eglChooseConfig", &egl->eglChooseConfig},
        {"eglCreatePbufferSurface", &egl->eglCreatePbufferSurface},
        {"eglCreateContext", &egl->eglCreateContext},
        {"eglMakeCurrent", &egl->eglMakeCurrent},
        {"eglDestroyContext", &egl->eglDestroyContext},
        {"eglDestroySurface", &egl->eglDestroySurface},
        {"eglGetProcAddress", &egl->eglGetProcAddress},
    };
    const char *missing;

    if (!resolve(library, symbols, TD_LEN(symbols), &missing))
        return error_set(err, TD_ESETUP, "libEGL has no function %s", missing);
#define EXTENSION(field, name) egl->field = (__typeof__(egl->field))egl->eglGetProcAddress(name)
    EXTENSION(query_devices, "eglQueryDevicesEXT");
    EXTENSION(query_device_string, "eglQueryDeviceStringEXT");
    EXTENSION(get_platform_display, "eglGetPlatformDisplayEXT");
#undef EXTENSION
    if (egl->query_devices == NULL || egl->query_device_string == NULL ||
        egl->get_platform_display == NULL)
        return error_set(err, TD_ESETUP, "libEGL cannot enumerate devices");
    return TD_OK;
}

/* --- EGL: the first device that can draw --------------------------------------------------- */

/* Mesa counts its software rasteriser among the devices. */
static bool in_software(const struct egl *egl, void *device)
{
    const char *extensions = egl->query_device_string(device, EGL_EXTENSIONS);

    return extensions != NULL && strstr(extensions, "EGL_MESA_device_software") != NULL;
}

static bool open_device(struct egl *egl, void *device)
{
    static const int wanted[] = {
        EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT,
        EGL_RED_SIZE, 8, EGL_GREEN_SIZE, 8, EGL_BLUE_SIZE, 8, EGL_ALPHA_SIZE, 8,
        EGL_DEPTH_SIZE, 24, EGL_STENCIL_SIZE, 8, EGL_NONE,
    };
    int count = 0;

    egl->display = egl->get_platform_display(EGL_PLATFORM_DEVICE_EXT, device, NULL);
    if (egl->display == NULL || egl->eglInitialize(egl->display, NULL, NULL) != EGL_TRUE)
        return false;
    if (egl->eglBindAPI(EGL_OPENGL_API) == EGL_TRUE &&
        egl->eglChooseConfig(egl->display, wanted, &egl->config, 1, &count) == EGL_TRUE && count > 0)
        return true;
    egl->eglTerminate(egl->display);
    return false;
}

/* Hardware first; software only when EGL was asked for by name. */
static int choose_device(struct egl *egl, bool software_too, struct error *err)
{
    void *devices[DEVICES_MAX];
    int count = 0;

    if (egl->query_devices(DEVICES_MAX, devices, &count) != EGL_TRUE)
        count = 0;
    for (int software = 0; software <= software_too; software++)
        for (int i = 0; i < count; i++)
            if (in_software(egl, devices[i]) == (software == 1) && open_device(egl, devices[i]))
                return TD_OK;
    return error_set(err, TD_ESETUP, "EGL offers %s", software_too ? "no device that draws" : "no GPU");
}

static int open_egl(struct egl *egl, bool software_too, struct error *err)
{
    static const char name[] = "libEGL.so.1";
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    int rc;

    if (library == NULL)
        return error_set(err, TD_ESETUP, "libEGL is not installed");
    if ((rc = resolve_egl(egl, library, err)) != TD_OK ||
        (rc = choose_device(egl, software_too, err)) != TD_OK) {
        dlclose(library);
        return rc;
    }
    dlopen(name, RTLD_NOW | RTLD_GLOBAL); /* the same, now seen by MuJoCo */
    return TD_OK;
}

/* --- the choice ---------------------------------------------------------------------------- */

static int choose_platform(struct error *err)
{
    const char *asked = getenv("MUJOCO_GL");
    struct error egl = {0}, osmesa = {0};
    bool any = asked == NULL || asked[0] == '\0';

    if (!any && strcmp(asked, "osmesa") != 0 && strcmp(asked, "egl") != 0)
        return error_set(err, TD_EINVAL, "MUJOCO_GL is '%.32s': egl and osmesa are possible, or unset it",
                         asked);
    if (any || strcmp(asked, "egl") == 0) {
        if (open_egl(&state.egl, !any, &egl) == TD_OK) {
            state.platform = EGL;
            return TD_OK;
        }
        if (!any)
            return error_set(err, TD_ESETUP,
                             "this machine cannot draw with MUJOCO_GL=egl: %s; install the GPU's driver "
                             "and libegl1, or unset MUJOCO_GL and run `apt-get install libosmesa6`",
                             egl.text);
    }
    if (open_osmesa(&state.osmesa, &osmesa) != TD_OK)
        return error_set(err, TD_ESETUP,
                         "this machine cannot draw (%s%s%s): run `apt-get install libosmesa6` for "
                         "software rendering",
                         any ? egl.text : "", any ? ", " : "", osmesa.text);
    state.platform = OSMESA;
    return TD_OK;
}

const char *gl_driver(void)
{
    return state.driver; /* written once, before the first context is handed out */
}

bool gl_drew_recordings(void)
{
    return strncmp(state.driver, "OSMesa, ", 8) == 0 && strstr(state.driver, RECORDED_BY) != NULL;
}

/* --- contexts ------------------------------------------------------------------------------ */

static bool create_osmesa(struct gl *gl)
{
    gl->buffer = aligned_alloc(64, SIDE * SIDE * 4);
    gl->context = state.osmesa.OSMesaCreateContextExt(GL_RGBA, 24, 8, 0, NULL);
    return gl->buffer != NULL && gl->context != NULL;
}

static bool create_egl(struct gl *gl)
{
    static const int size[] = {EGL_WIDTH, SIDE, EGL_HEIGHT, SIDE, EGL_NONE};
    const struct egl *egl = &state.egl;

    egl->eglBindAPI(EGL_OPENGL_API); /* a setting of the thread */
    gl->surface = egl->eglCreatePbufferSurface(egl->display, egl->config, size);
    gl->context = egl->eglCreateContext(egl->display, egl->config, NULL, NULL);
    return gl->surface != NULL && gl->context != NULL;
}

int gl_bind(gl_t *gl, struct error *err)
{
    bool bound;

    if (state.platform == EGL) {
        state.egl.eglBindAPI(EGL_OPENGL_API);
        bound = state.egl.eglMakeCurrent(state.egl.display, gl->surface, gl->surface, gl->context) == EGL_TRUE;
    } else {
        bound = state.osmesa.OSMesaMakeCurrent(gl->context, gl->buffer, GL_UNSIGNED_BYTE, SIDE, SIDE);
    }
    return bound ? TD_OK : error_set(err, TD_EIO, "the OpenGL context cannot be bound to this thread");
}

void gl_unbind(gl_t *gl)
{
    (void)gl;
    if (state.platform == EGL)
        state.egl.eglMakeCurrent(state.egl.display, NULL, NULL, NULL);
    else
        state.osmesa.OSMesaMakeCurrent(NULL, NULL, 0, 0, 0);
}

static void *find_function(const char *name)
{
    return state.platform == EGL ? state.egl.eglGetProcAddress(name) : state.osmesa.OSMesaGetProcAddress(name);
}

void *gl_function(const char *name)
{
    void *function = find_function(name);

    TD_ASSERT(function != NULL, "OpenGL has no %s", name);
    return function;
}

/* Ask the first context, bound to this thread for that. A library that cannot answer draws nothing either. */
static int describe(struct gl *gl, struct error *err)
{
    const unsigned char *(*get_string)(unsigned name);
    const unsigned char *version = NULL;
    int rc = gl_bind(gl, err);

    if (rc != TD_OK)
        return rc;
    get_string = (__typeof__(get_string))find_function("glGetString");
    if (get_string != NULL)
        version = get_string(GL_VERSION);
    if (version != NULL)
        snprintf(state.driver, sizeof(state.driver), "%s, %s, %s", state.platform == EGL ? "EGL" : "OSMesa",
                 (const char *)version, (const char *)get_string(GL_RENDERER));
    gl_unbind(gl);
    return version != NULL ? TD_OK
                           : error_set(err, TD_ESETUP, "the %s library that was found does not draw: install another "
                                                       "(Debian: libosmesa6), or choose with MUJOCO_GL=egl or osmesa",
                                       state.platform == EGL ? "EGL" : "OSMesa");
}

int gl_open(gl_t **out, struct error *err)
{
    struct gl *gl = calloc(1, sizeof(*gl));
    int rc = TD_OK;

    *out = NULL;
    if (gl == NULL)
        return error_set(err, TD_ENOMEM, "no memory to draw with");
    pthread_mutex_lock(&state.lock);
    if (state.platform == NOT_CHOSEN)
        rc = choose_platform(err);
    if (rc == TD_OK && !(state.platform == EGL ? create_egl(gl) : create_osmesa(gl)))
        rc = error_set(err, TD_ENOMEM, "%s gives no further OpenGL context",
                       state.platform == EGL ? "EGL" : "OSMesa");
    if (rc == TD_OK && state.driver[0] == '\0')
        rc = describe(gl, err);
    pthread_mutex_unlock(&state.lock);
    if (rc != TD_OK)
        gl_close(&gl); /* takes the lock */
    *out = gl;
    return rc;
}

void gl_close(gl_t **gl)
{
    if (*gl == NULL)
        return;
    pthread_mutex_lock(&state.lock);
    if (state.platform == EGL && (*gl)->context != NULL)
        state.egl.eglDestroyContext(state.egl.display, (*gl)->context);
    if (state.platform == EGL && (*gl)->surface != NULL)
        state.egl.eglDestroySurface(state.egl.display, (*gl)->surface);
    if (state.platform == OSMESA && (*gl)->context != NULL)
        state.osmesa.OSMesaDestroyContext((*gl)->context);
    pthread_mutex_unlock(&state.lock);
    free((*gl)->buffer);
    free(*gl);
    *gl = NULL;
}
