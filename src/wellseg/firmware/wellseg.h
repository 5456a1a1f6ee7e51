/* wellseg: finds corrosion grooves in ultrasonic images of well casing, on a controller.
 *
 * C99 with <stdint.h>, <stddef.h>, <string.h> and <math.h>. Nothing is allocated, nothing static changes and nothing
 * calls itself: memory is the buffer that the caller gives, and calls with different buffers may run at the same time.
 * Weights stay packed in the image and are unpacked a few kilobytes at a time. Compile with -O2, without -ffast-math.
 *
 *     wseg_model model;
 *     size_t size;
 *     wseg_status status = wseg_open(&model, wellseg_model, wellseg_model_size);
 *     if (status == WSEG_OK) status = wseg_buffer_size(&model, rows, 64, &size);
 *     if (status == WSEG_OK) status = wseg_forward(&model, values, rows, 36, NULL, mask, buffer, size);
 */
#ifndef WELLSEG_H
#define WELLSEG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WSEG_VERSION 1u            /* of the image's format */
#define WSEG_LARGEST_IMAGE 550000u /* bytes */
#define WSEG_MOST_ROWS 268435456u  /* of an image of a well */
#define WSEG_MOST_SCALES 6u
#define WSEG_MOST_LAYERS 64u
#define WSEG_MOST_NULLS 8u
#define WSEG_NO_DATA 255u /* in a mask: neither groove nor intact */

typedef enum wseg_status {
    WSEG_OK = 0,
    WSEG_ERROR_ARGUMENT,  /* a pointer is NULL, or neither a probability nor a mask is asked for */
    WSEG_ERROR_SIZE,      /* the image is cut short, too long, or above WSEG_LARGEST_IMAGE */
    WSEG_ERROR_MAGIC,     /* it is no model image */
    WSEG_ERROR_VERSION,   /* it is one of another version */
    WSEG_ERROR_CRC,       /* it is damaged */
    WSEG_ERROR_HEADER,    /* numbers in its header are out of range */
    WSEG_ERROR_LAYER,     /* its layers do not fit one another, or lie outside of it or off their alignment */
    WSEG_ERROR_VALUE,     /* a scale, zero point, weight or bias is not finite or out of range */
    WSEG_ERROR_SHAPE,     /* no rows, too many, or not as many columns as the model has */
    WSEG_ERROR_ALIGNMENT, /* the buffer is not aligned for float */
    WSEG_ERROR_BUFFER     /* the buffer is too small */
} wseg_status;

/* An opened image. To be read only; the image stays the caller's, unchanged, for as long as the model is used. */
typedef struct wseg_model {
    const uint8_t *image;
    uint32_t columns, scales, layers, null_count;
    float center, scale, clip;      /* x = clip((value - center) / scale, -clip, clip) */
    float threshold;                /* a groove is where the probability is at least that */
    float nulls[WSEG_MOST_NULLS];   /* values that mean "no data", as do NaN and infinities */
    uint8_t stages[2 * WSEG_MOST_SCALES + 2]; /* layers of: encoders, bottleneck, decoders deepest first, refinement */
    uint8_t strides[WSEG_MOST_SCALES][2];     /* rows, columns */
} wseg_model;

/* Check the `size` bytes at `image` (any alignment), all of them, and describe them in `model`. On an error `model` is
 * as it was. */
wseg_status wseg_open(wseg_model *model, const void *image, size_t size);

/* The bytes that wseg_forward needs for an image of `rows` rows in bands of `band` rows (rounded up to a multiple of
 * the network's total stride); band = 0: in one piece. */
wseg_status wseg_buffer_size(const wseg_model *model, uint32_t rows, uint32_t band, size_t *size);

/* Segment `values`, (rows, columns) row after row as recorded; column 0 neighbours the last one.
 *
 * probability  NULL or (rows, columns): of a groove; NaN where there is no data
 * mask         NULL or (rows, columns): 1 groove, 0 intact, WSEG_NO_DATA where there is no data
 * buffer       aligned for float. Rows are worked on in bands as large as `buffer_size` allows, each with the rows that
 *              its answer depends on: the results are the same bits whatever the bands; larger ones repeat less work
 *
 * The arrays must not overlap. On an error probability and mask are as they were. */
wseg_status wseg_forward(const wseg_model *model, const float *values, uint32_t rows, uint32_t columns,
                         float *probability, uint8_t *mask, void *buffer, size_t buffer_size);

/* One line of English, never NULL, for any number. */
const char *wseg_strerror(wseg_status status);

#ifdef __cplusplus
}
#endif

#endif
