/* The arithmetic: convolution, up-sampling, decimation. Plain loops that compilers turn into vector code. */
#include <string.h>

#include "wellseg_internal.h"

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static const float *pixel_at(const struct map *map, int64_t row, uint32_t column)
{
    return map->data + ((size_t)(row - map->rows.first) * map->width + column) * map->channels;
}

/* sums[pixel][lane] += x[pixel][i] * w[i][lane], over `count` i; in four arrays, which compilers keep in registers. */
static void multiply(const float *w, const float *const x[PIXELS], uint32_t count, float sums[PIXELS][LANES])
{
    const float *a = x[0], *b = x[1], *c = x[2], *d = x[3];
    float s0[LANES], s1[LANES], s2[LANES], s3[LANES];
    memcpy(s0, sums[0], sizeof s0);
    memcpy(s1, sums[1], sizeof s1);
    memcpy(s2, sums[2], sizeof s2);
    memcpy(s3, sums[3], sizeof s3);
    for (uint32_t i = 0; i < count; ++i, w += LANES)
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            s0[lane] += a[i] * w[lane];
            s1[lane] += b[i] * w[lane];
            s2[lane] += c[i] * w[lane];
            s3[lane] += d[i] * w[lane];
        }
    memcpy(sums[0], s0, sizeof s0);
    memcpy(sums[1], s1, sizeof s1);
    memcpy(sums[2], s2, sizeof s2);
    memcpy(sums[3], s3, sizeof s3);
}

/* Where the taps of one output pixel read: the input at rows[kernel row] + columns[kernel column]. */
struct taps {
    const float *rows[MOST_KERNEL];
    size_t columns[MOST_KERNEL];
};

static void find_taps(const struct layer *layer, const struct map *in, int64_t height, int64_t row, uint32_t column,
                      uint32_t from, struct taps *taps)
{
    for (uint32_t k = 0; k < layer->kernel_rows; ++k) {
        int64_t r = row + k - layer->kernel_rows / 2;
        r = r < 0 ? 0 : r >= height ? height - 1 : r;
        taps->rows[k] = pixel_at(in, r, 0) + from;
    }
    for (uint32_t k = 0; k < layer->kernel_columns; ++k) {
        const int32_t width = (int32_t)in->width;
        int32_t c = (int32_t)column + (int32_t)k - (int32_t)(layer->kernel_columns / 2);
        while (c < 0) c += width; /* quicker than a remainder; the pipe may be narrower than the kernel */
        while (c >= width) c -= width;
        taps->columns[k] = (size_t)c * in->channels;
    }
}

/* Add to output channels output..output + lanes - 1 what channels from..from + inputs - 1 of `in` contribute by `tile`.
 * The `first` contribution is added to the biases, the `last` is followed by the activation. */
static void add_tile(const struct layer *layer, const struct map *in, int64_t height, uint32_t from, uint32_t inputs,
                     const float *tile, uint32_t output, uint32_t lanes, int first, int last, const struct map *out)
{
    const size_t pixels = (size_t)(out->rows.last - out->rows.first) * out->width;
    float bias[LANES] = {0}, *to = out->data + output;
    int64_t row = out->rows.first;
    uint32_t column = 0;
    for (uint32_t lane = 0; lane < lanes; ++lane) bias[lane] = wseg_bias(layer, output + lane);
    for (size_t pixel = 0; pixel < pixels; pixel += PIXELS) {
        const uint32_t count = pixels - pixel < PIXELS ? (uint32_t)(pixels - pixel) : PIXELS;
        struct taps taps[PIXELS];
        float sums[PIXELS][LANES];
        for (uint32_t p = 0; p < count; ++p) {
            find_taps(layer, in, height, row, column, from, &taps[p]);
            memcpy(sums[p], bias, sizeof bias);
            if (!first) memcpy(sums[p], to + (size_t)p * out->channels, lanes * sizeof(float));
            if (++column == out->width) {
                column = 0;
                ++row;
            }
        }
        for (uint32_t p = count; p < PIXELS; ++p) { /* computed, not stored */
            taps[p] = taps[0];
            memcpy(sums[p], bias, sizeof bias);
        }
        const float *weights = tile;
        for (uint32_t i = 0; i < layer->kernel_rows; ++i)
            for (uint32_t j = 0; j < layer->kernel_columns; ++j, weights += (size_t)inputs * LANES) {
                const float *x[PIXELS];
                for (uint32_t p = 0; p < PIXELS; ++p) x[p] = taps[p].rows[i] + taps[p].columns[j];
                multiply(weights, x, inputs, sums);
            }
        for (uint32_t p = 0; p < count; ++p, to += out->channels)
            for (uint32_t lane = 0; lane < lanes; ++lane) {
                float y = sums[p][lane];
                if (last) {
                    y = y > 0.0f ? y : y * layer->slope;
                    y = y < -LARGEST_VALUE ? -LARGEST_VALUE : y > LARGEST_VALUE ? LARGEST_VALUE : y;
                }
                to[lane] = y;
            }
    }
}

void wseg_convolve(const struct layer *layer, const struct map *const parts[2], int64_t height, const struct map *out,
                     float *tile)
{
    const uint32_t most = TILE / (layer->kernel_rows * layer->kernel_columns);
    for (uint32_t output = 0; output < layer->out; output += LANES) {
        const uint32_t lanes = least(LANES, layer->out - output);
        uint32_t input = 0;
        for (uint32_t part = 0; part < 2 && parts[part] != NULL; ++part)
            for (uint32_t from = 0; from < parts[part]->channels; from += most) {
                const uint32_t inputs = least(most, parts[part]->channels - from);
                wseg_unpack(layer, output, lanes, input, inputs, tile);
                add_tile(layer, parts[part], height, from, inputs, tile, output, lanes, input == 0,
                         input + inputs == layer->in, out);
                input += inputs;
            }
    }
}

static float between(float a, float b, float share) /* rounded as PyTorch's lerp */
{
    return share < 0.5f ? a + share * (b - a) : b - (b - a) * (1.0f - share);
}

void wseg_upsample(const struct map *in, const uint8_t stride[2], int64_t height, const struct map *out)
{
    float *to = out->data;
    for (int64_t row = out->rows.first; row < out->rows.last; ++row) {
        const int64_t above = row / stride[0], j = row % stride[0];
        const int64_t below = j > 0 && above + 1 < height ? above + 1 : above;
        const float down = (float)j / (float)stride[0];
        for (uint32_t column = 0; column < out->width; ++column, to += out->channels) {
            const uint32_t left = column / stride[1], right = (left + 1) % in->width;
            const float across = (float)(column % stride[1]) / (float)stride[1];
            const float *a = pixel_at(in, above, left), *b = pixel_at(in, above, right);
            const float *c = pixel_at(in, below, left), *d = pixel_at(in, below, right);
            for (uint32_t i = 0; i < out->channels; ++i)
                to[i] = between(between(a[i], b[i], across), between(c[i], d[i], across), down);
        }
    }
}

void wseg_decimate(const struct map *in, const uint8_t stride[2], const struct map *out)
{
    float *to = out->data;
    for (int64_t row = out->rows.first; row < out->rows.last; ++row)
        for (uint32_t column = 0; column < out->width; ++column, to += out->channels)
            memcpy(to, pixel_at(in, row * stride[0], column * stride[1]), out->channels * sizeof *to);
}
