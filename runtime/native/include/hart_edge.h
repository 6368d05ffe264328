/* hart_edge.h - prompt to picture from a hart-edge bundle, for any language that can call C.
 *
 *     #include "hart_edge.h"
 *
 *     hart_edge_handle *handle;
 *     hart_edge_params params;
 *     hart_edge_image *image;
 *
 *     if (hart_edge_open("bundles/hart-emoji-int8", NULL, &handle) != HART_EDGE_OK) {
 *         fprintf(stderr, "%s\n", hart_edge_last_error(handle));
 *         hart_edge_close(handle);
 *         return 1;
 *     }
 *     hart_edge_default_params(&params, sizeof params);
 *     params.prompt = "a red heart";
 *     params.seed = 7;
 *     if (hart_edge_generate(handle, &params, &image) == HART_EDGE_OK) {
 *         write_png("heart.png", image->pixels, image->width, image->height);
 *         hart_edge_image_free(image);
 *     }
 *     hart_edge_close(handle);
 *
 * Same bundle, prompt, seed and settings: same pixels, and those of the Python runtime over the same engine library
 * with the same number of threads. docs/embedding.md has examples, and a page on memory, threads and errors.
 *
 * Ownership  What the library gives out belongs to it; the one thing that a caller frees is an image. What a caller
 *            passes in is read during the call only and may be freed after it (onnxruntime_library and folder too).
 * Threads    Handles are independent of each other. On one handle one thread at a time may generate; every function
 *            says below what else may run beside it. There is no global state; where the environment does not have
 *            ORT_DISABLE_TELEMETRY, hart_edge_open puts it there before it loads ONNX Runtime.
 * Processes  In a child that was forked a handle may be closed, and the first hart_edge_generate opens the bundle anew, or
 *            fails with HART_EDGE_ENGINE_ERROR: on a GPU, and where graphs were being loaded at the fork (wait_for_all).
 * Errors     Functions that can fail return a status; hart_edge_last_error(handle) says what was expected, what was
 *            found and what to do. No function prints, exits or throws, and no image comes out of a failed call.
 * ABI        Structures only grow at their ends and carry their size, so a program built with an older header runs
 *            with a newer library; HART_EDGE_ABI_VERSION changes when that is no longer so.
 */
#ifndef HART_EDGE_H
#define HART_EDGE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HART_EDGE_API __attribute__((visibility("default")))
#else
#define HART_EDGE_API
#endif

#define HART_EDGE_ABI_VERSION 1

/* What a function returns. */
typedef int32_t hart_edge_status;
enum {
    HART_EDGE_OK = 0,
    HART_EDGE_INVALID_ARGUMENT = 1, /* the call itself is wrong: a NULL, a struct_size, an unknown constant */
    HART_EDGE_INPUT_ERROR = 2,      /* a prompt, seed or sampling setting that cannot be used */
    HART_EDGE_BUNDLE_ERROR = 3,     /* a bundle that is missing, altered, of an unknown format, or not to be trusted */
    HART_EDGE_ENGINE_ERROR = 4,     /* an engine library that is missing, refuses a graph, or fails while running */
    HART_EDGE_GENERATION_ERROR = 5, /* the numbers hold NaN or infinity, of which no picture may be made */
    HART_EDGE_CANCELLED = 6,        /* hart_edge_cancel, or a callback that returned something else than 0 */
    HART_EDGE_BUSY = 7,             /* another thread is generating with this handle */
    HART_EDGE_OUT_OF_MEMORY = 8,    /* an allocation failed, or memory_limit does not suffice */
    HART_EDGE_INTERNAL_ERROR = 9    /* a fault of this library; please report it with the message */
};

/* An opened bundle. Opaque. */
typedef struct hart_edge_handle hart_edge_handle;

/* hart_edge_options.engine */
typedef int32_t hart_edge_engine;
enum {
    HART_EDGE_ENGINE_AUTO = 0,        /* the one that runs the bundle's target */
    HART_EDGE_ENGINE_ONNXRUNTIME = 1, /* targets cpu and cuda */
    HART_EDGE_ENGINE_TENSORRT = 2     /* target tensorrt; where the library was built with it */
};

/* How to open a bundle. Fill it with hart_edge_default_options, then change what you want. */
typedef struct hart_edge_options {
    uint32_t struct_size;            /* set by hart_edge_default_options */
    hart_edge_engine engine;         /* HART_EDGE_ENGINE_AUTO */
    int32_t threads;                 /* threads inside an operator, 1 to 1024; 0: one a core */
    int32_t device;                  /* which CUDA device, for a bundle built for cuda or tensorrt; 0 */
    uint64_t memory_limit;           /* bytes; 0: none. See hart_edge_info.memory for what is counted */
    const char *onnxruntime_library; /* path of libonnxruntime.so; NULL: the environment's HART_EDGE_ONNXRUNTIME, or
                                        else libonnxruntime.so.1 where the system finds it */
    const char *tensorrt_library;    /* path of libnvinfer.so; NULL: the environment's HART_EDGE_TENSORRT, or else
                                        libnvinfer.so.10 (the major version it was built for) where the system finds it */
    int32_t wait_for_all; /* 1: return when every graph is loaded; 0: when the first scale can run, the others
                             load meanwhile on a thread of the library's own */
} hart_edge_options;

/* A scale is done. Everything in it belongs to the library and is valid until the callback returns. */
typedef struct hart_edge_progress {
    uint32_t struct_size;
    uint32_t picture;         /* which picture of the call, from 0 */
    uint32_t pictures;        /* how many the call makes */
    uint32_t scale;           /* which scale is done, from 0 */
    uint32_t scales;          /* how many there are; the last one's callback comes when the picture is finished */
    uint32_t tokens;          /* how many token ids there are: 0 where the bundle does not name them */
    const int64_t *token_ids; /* codes that were chosen at this scale, in raster order; where a speed computes fewer
                                 tokens, theirs, from the place that changed most to the one that changed least */
    const uint8_t *preview;   /* the picture so far: rows of RGB, width * height * 3 bytes; NULL unless asked for */
    uint32_t width;           /* of the preview */
    uint32_t height;
} hart_edge_progress;

/* Called on the thread that called hart_edge_generate, while the handle is busy. Return 0 to go on; anything else
 * cancels, and hart_edge_generate returns HART_EDGE_CANCELLED. It must return, not throw or longjmp, and may call
 * hart_edge_cancel and hart_edge_get_info with this handle and everything with another. */
typedef int32_t (*hart_edge_scale_callback)(void *user_data, const hart_edge_progress *progress);

/* hart_edge_params.speed: how much of a picture's arithmetic is done. With less of it another picture is drawn
 * (docs/dial.md). */
typedef int32_t hart_edge_speed;
enum {
    HART_EDGE_SPEED_OF_BUNDLE = 0,
    HART_EDGE_SPEED_EXACT = 1,
    HART_EDGE_SPEED_BALANCED = 2,
    HART_EDGE_SPEED_FAST = 3
};

/* What to draw. Fill it with hart_edge_default_params, then change what you want. */
typedef struct hart_edge_params {
    uint32_t struct_size; /* set by hart_edge_default_params */
    uint32_t count;       /* how many pictures; 1. Each equals the same one made alone */

    /* For a bundle that takes prompts: UTF-8, ended by NUL. */
    const char *prompt;         /* when count is 1 */
    const char *const *prompts; /* `count` of them; NULL: prompt */

    /* For a bundle without a text model, instead of prompts: your text model's output. */
    const float *contexts;        /* count * context_tokens * context_dim, finite */
    const uint8_t *context_masks; /* count * context_tokens, 1 for words and 0 for padding, at least one word each */

    uint64_t seed;         /* of every picture; 0 */
    const uint64_t *seeds; /* `count` of them; NULL: seed */

    /* The bundle's own settings unless changed. */
    double cfg_scale; /* guidance, 0 (off) to 100; HART_EDGE_CFG_SCALE_OF_BUNDLE */
    double top_p;     /* above 0, at most 1 (every candidate); HART_EDGE_TOP_P_OF_BUNDLE */
    int32_t top_k;    /* 1 (the likeliest code) to hart_edge_info.top_k; HART_EDGE_TOP_K_OF_BUNDLE */
    int32_t smooth;   /* 1: latents are mixtures of codes, 0: one code each; HART_EDGE_SMOOTH_OF_BUNDLE */

    hart_edge_scale_callback on_scale; /* called after every scale; NULL: not */
    void *user_data;                   /* handed to on_scale */
    int32_t previews; /* 1: decode the picture so far for every callback, which costs one run of the decoder; 0 */
    int32_t reserved; /* 0 */

    hart_edge_speed speed; /* HART_EDGE_SPEED_OF_BUNDLE */
} hart_edge_params;

#define HART_EDGE_CFG_SCALE_OF_BUNDLE (-1.0)
#define HART_EDGE_TOP_P_OF_BUNDLE (-1.0)
#define HART_EDGE_TOP_K_OF_BUNDLE (-1)
#define HART_EDGE_SMOOTH_OF_BUNDLE (-1)

/* A finished picture. It belongs to the caller, who gives it to hart_edge_image_free; it outlives its handle. */
typedef struct hart_edge_image {
    uint32_t width; /* in pixels */
    uint32_t height;
    uint8_t *pixels;        /* rows from the top, RGB, width * height * 3 bytes without padding */
    uint64_t seed;          /* that it was made with */
    uint32_t prompt_tokens; /* that the prompt had: above hart_edge_info.context_tokens its end was cut off; 0 for a
                               context */
} hart_edge_image;

/* What an opened bundle is. The strings belong to the handle. */
typedef struct hart_edge_info {
    uint32_t struct_size;    /* set it to sizeof(hart_edge_info) before the call */
    uint32_t image_size;     /* pixels of a side */
    uint32_t scales;         /* callbacks per picture */
    uint32_t takes_prompt;   /* 1: prompts, 0: contexts */
    uint32_t context_tokens; /* T, tokens of a prompt that the model reads; rows of a context */
    uint32_t context_dim;    /* D, columns of a context */
    double cfg_scale;        /* the bundle's own settings */
    double top_p;
    int32_t top_k; /* the largest that hart_edge_params.top_k may be */
    int32_t smooth;
    const char *name;      /* "hart-emoji"; ends in "-random" where the weights are random and pictures show noise */
    const char *precision; /* "fp32", "fp16" or "int8" */
    const char *target;    /* "cpu", "cuda", "tensorrt" */
    const char *engine;    /* "ONNX Runtime 1.21.0" */
    uint64_t memory;       /* bytes that this handle needs at least: weights as they lie in the bundle, and the plan's
                              buffers; an engine's own copies and scratch memory come on top, and what is kept for
                              another picture of an earlier prompt: contexts of 16, and with ONNX Runtime first scales
                              of up to 64 MiB, or one prompt's, and less where memory_limit leaves less */
    hart_edge_speed speed; /* the bundle's own */
    uint32_t speeds;       /* those that it has: bit 1 << HART_EDGE_SPEED_EXACT, and so on */
} hart_edge_info;

/* The version of the library, "0.1.0". Belongs to the library; any thread. */
HART_EDGE_API const char *hart_edge_version(void);

/* HART_EDGE_ABI_VERSION of the library, to compare with the header's. Any thread. */
HART_EDGE_API uint32_t hart_edge_abi_version(void);

/* A status in a few words, "out of memory"; for a number that is none, "unknown status". Belongs to the library; any
 * thread. */
HART_EDGE_API const char *hart_edge_status_text(hart_edge_status status);

/* Fill `options` with the defaults; pass sizeof(hart_edge_options). The caller owns it; any thread. Fails with
 * HART_EDGE_INVALID_ARGUMENT for NULL or a size that no version of this header had. */
HART_EDGE_API hart_edge_status hart_edge_default_options(hart_edge_options *options, uint32_t struct_size);

/* Fill `params` with the defaults; pass sizeof(hart_edge_params). The caller owns it; any thread. Fails like
 * hart_edge_default_options. */
HART_EDGE_API hart_edge_status hart_edge_default_params(hart_edge_params *params, uint32_t struct_size);

/* Open the bundle in `folder`: verify every byte of it, load the engine library and the graphs, allocate all buffers. A
 * graph that the engine refuses after the return (see wait_for_all) fails the hart_edge_generate that comes to it.
 *
 * options: NULL for the defaults. *handle: set also when the call fails (unless memory is out: NULL then), good for
 * hart_edge_last_error and hart_edge_close alone. The caller owns the handle and gives it to hart_edge_close. A
 * file that is opened later must be the one that was verified, else the call that comes to it fails with
 * HART_EDGE_BUNDLE_ERROR; none may be written in place while the bundle is open. Any thread, also several at a time. */
HART_EDGE_API hart_edge_status hart_edge_open(const char *folder, const hart_edge_options *options,
                                              hart_edge_handle **handle);

/* Describe an opened bundle. The caller owns `info`, its strings are the handle's. Any thread, also during
 * hart_edge_generate. */
HART_EDGE_API hart_edge_status hart_edge_get_info(const hart_edge_handle *handle, hart_edge_info *info);

/* Make params->count pictures. images: room for that many pointers; the caller owns every image that comes back.
 *
 * Everything is checked before the first picture is begun. All pictures come back or none: a call that fails leaves NULL
 * in every place (unless params cannot be read). Any thread; while another one is generating with this handle the call
 * returns HART_EDGE_BUSY at once, touches nothing, and leaves the other alone. */
HART_EDGE_API hart_edge_status hart_edge_generate(hart_edge_handle *handle, const hart_edge_params *params,
                                                  hart_edge_image **images);

/* Make the running hart_edge_generate of this handle return HART_EDGE_CANCELLED soon: an engine is stopped between two
 * operators. Does nothing when none is running. Owns nothing; any thread, and a signal handler too. */
HART_EDGE_API void hart_edge_cancel(hart_edge_handle *handle);

/* Free an image. NULL is allowed. Any thread, once per image. */
HART_EDGE_API void hart_edge_image_free(hart_edge_image *image);

/* The message of the last call that failed with this handle, one line of UTF-8; "" when none did. NULL is allowed and
 * gives the message for a handle that could not be made. Belongs to the handle, until its next call that can fail. Call
 * it on the thread whose call failed, before another thread uses the handle; HART_EDGE_BUSY leaves no message. */
HART_EDGE_API const char *hart_edge_last_error(const hart_edge_handle *handle);

/* Close a bundle and free everything but its images. NULL is allowed. Any thread, once per handle, and not while
 * another function runs with the handle: cancel, wait for hart_edge_generate to return, then close. */
HART_EDGE_API void hart_edge_close(hart_edge_handle *handle);

#ifdef __cplusplus
}
#endif

#endif /* HART_EDGE_H */
