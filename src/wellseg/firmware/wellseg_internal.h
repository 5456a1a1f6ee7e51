/* What the parts of the runtime share; no part of its interface. */
#ifndef WELLSEG_INTERNAL_H
#define WELLSEG_INTERNAL_H

#include "wellseg.h"

/* No sum of products of such numbers overflows, so that neither infinity nor NaN ever arises. */
#define LARGEST_WEIGHT 1e6f
#define LARGEST_VALUE 1e15f

/* A tile of weights is unpacked for LANES output channels, and multiplied with PIXELS pixels at a time: as many sums as
 * registers hold on most processors. TILE is its weights per channel, 18 KiB in all: they stay in the nearest cache. */
enum { LANES = 8, PIXELS = 4, TILE = 576, MOST_KERNEL = 15 };

struct layer {
    uint32_t in, out, kernel_rows, kernel_columns;
    uint32_t bits;  /* of a code: 2..8, 16, or 32, which is float32 itself, without scales */
    uint32_t group; /* consecutive weights of (out, in, kernel_rows, kernel_columns) that share a scale */
    uint32_t half_scales, has_zeros;
    float slope; /* of the activation below 0: 1 is none */
    const uint8_t *codes, *scales, *zeros, *biases; /* weight = (code - zero) * scale; see wellseg_image.c */
};

/* A layer of an opened model. */
struct layer wseg_layer(const wseg_model *model, uint32_t number);

float wseg_bias(const struct layer *layer, uint32_t output);

/* Weights of output channels output..output + lanes - 1 and input channels input..input + inputs - 1, as
 * tile[tap][input][lane]; 0 for lanes that are not there. */
void wseg_unpack(const struct layer *layer, uint32_t output, uint32_t lanes, uint32_t input, uint32_t inputs,
                 float *tile);

/* Rows first..last - 1. */
struct span {
    int64_t first, last;
};

/* Rows of a feature map: `end` floats from one end of the arena (`side`: 0 its first, 1 its last float) to its own far
 * end. */
struct map {
    float *data;
    struct span rows;
    uint32_t width, channels, side;
    uint64_t floats, end;
};

/* A layer over the channels of one or two maps (NULL: no second) whose image has `height` rows. `tile`: TILE * LANES
 * floats. Every sum is made in the same order whatever rows the maps hold, so that bands give the same bits. */
void wseg_convolve(const struct layer *layer, const struct map *const parts[2], int64_t height, const struct map *out,
                   float *tile);

/* Bilinear by stride[0] rows and stride[1] columns: sample k lies on pixel stride * k. The last of `height` rows is
 * repeated; after the last column comes the first. */
void wseg_upsample(const struct map *in, const uint8_t stride[2], int64_t height, const struct map *out);

/* Every stride[0]-th row and stride[1]-th column. */
void wseg_decimate(const struct map *in, const uint8_t stride[2], const struct map *out);

#endif
