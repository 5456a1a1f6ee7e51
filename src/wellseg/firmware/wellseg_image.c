/* Model images: their format, their validation, their weights. */
#include <math.h>
#include <string.h>

#include "wellseg_internal.h"

/* An image of a model, all numbers little-endian; what it says of layers stands in struct layer.
 *
 *       0  magic "WSEG", u32 version, u32 size of all, u32 CRC-32 of all that follows
 *      16  u32 columns, u32 scales, u32 layers, u32 null codes
 *      32  f32 center, f32 scale, f32 clip, f32 threshold, f32 null codes [8]
 *      80  u8 layers per stage [14], u8 strides [6][2], u8 0 [2]
 *     108  layers: u16 in, u16 out, u8 kernel rows, u8 kernel columns, u8 bits, u8 format (bit 0: scales are float16,
 *          not float32; bit 1: there are zero points), f32 slope, u32 group, u32 offsets of codes, scales, zero points
 *          and biases
 *   above  what the offsets, multiples of 4, point to: codes, two's complement, the first in the lowest bits; scales;
 *          zero points, i8 or for 16 bits i16; f32 biases
 */
enum { AT_CRC = 12, AT_CRC_START = 16, AT_STAGES = 80, AT_STRIDES = 94, AT_LAYERS = 108, LAYER_BYTES = 32 };
enum { MOST_COLUMNS = 4096, MOST_CHANNELS = 2048, MOST_STRIDE = 16 };

static uint32_t u16_at(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }

static uint32_t u32_at(const uint8_t *p) { return u16_at(p) | u16_at(p + 2) << 16; }

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f32_at(const uint8_t *p) { return float_of(u32_at(p)); }

static float f16_at(const uint8_t *p)
{
    const uint32_t bits = u16_at(p), sign = (bits & 0x8000u) << 16;
    const uint32_t exponent = bits >> 10 & 31u, fraction = bits & 1023u;
    if (exponent == 0) {
        const float value = (float)fraction * (1.0f / 16777216.0f);
        return sign ? -value : value;
    }
    return float_of(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

static int within(float value, float largest) { return isfinite(value) && fabsf(value) <= largest; }

static uint32_t crc32_of(const uint8_t *p, size_t size)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffffu;
    for (; size > 0; --size, ++p) {
        crc = crc >> 4 ^ table[(crc ^ *p) & 15u];
        crc = crc >> 4 ^ table[(crc ^ (uint32_t)*p >> 4) & 15u];
    }
    return ~crc;
}

/* -- opening */

struct layer wseg_layer(const wseg_model *model, uint32_t number)
{
    const uint8_t *image = model->image, *p = image + AT_LAYERS + (size_t)number * LAYER_BYTES;
    struct layer layer;
    layer.in = u16_at(p);
    layer.out = u16_at(p + 2);
    layer.kernel_rows = p[4];
    layer.kernel_columns = p[5];
    layer.bits = p[6];
    layer.half_scales = p[7] & 1u;
    layer.has_zeros = p[7] & 2u;
    layer.slope = f32_at(p + 8);
    layer.group = u32_at(p + 12);
    layer.codes = image + u32_at(p + 16);
    layer.scales = image + u32_at(p + 20);
    layer.zeros = image + u32_at(p + 24);
    layer.biases = image + u32_at(p + 28);
    return layer;
}

/* The zero point over the smallest code. */
static uint32_t zero_at(const struct layer *layer, uint32_t group)
{
    const uint32_t sign = 1u << (layer->bits - 1);
    if (!layer->has_zeros) return sign;
    if (layer->bits == 16) return u16_at(layer->zeros + (size_t)2 * group) ^ sign;
    return (layer->zeros[group] + sign) & 255u;
}

static float scale_at(const struct layer *layer, uint32_t group)
{
    return layer->half_scales ? f16_at(layer->scales + (size_t)2 * group) : f32_at(layer->scales + (size_t)4 * group);
}

/* Whether `bytes` bytes of data, aligned, lie behind the table at what the offset at `field` says. */
static int inside(const wseg_model *model, const uint8_t *field, uint64_t bytes, size_t size)
{
    const uint32_t offset = u32_at(field);
    return offset % 4 == 0 && offset >= AT_LAYERS + model->layers * LAYER_BYTES && offset <= size &&
           bytes <= size - offset;
}

static wseg_status check_layer(const wseg_model *model, uint32_t number, uint32_t in, size_t size)
{
    const uint8_t *entry = model->image + AT_LAYERS + (size_t)number * LAYER_BYTES;
    const uint32_t rows = entry[4], columns = entry[5], bits = entry[6], format = entry[7];
    const uint32_t out = u16_at(entry + 2), group = u32_at(entry + 12);
    const uint64_t weights = (uint64_t)in * out * rows * columns;
    const uint64_t groups = bits == 32 || group == 0 ? 0 : weights / group;
    if (u16_at(entry) != in || in > MOST_CHANNELS || out < 1 || out > MOST_CHANNELS || rows % 2 == 0 ||
        columns % 2 == 0 || rows > MOST_KERNEL || columns > MOST_KERNEL)
        return WSEG_ERROR_LAYER;
    if (!((bits >= 2 && bits <= 8) || bits == 16 || bits == 32) || format > 3 || group < 1 || weights % group != 0)
        return WSEG_ERROR_LAYER;
    if (!inside(model, entry + 16, (weights * bits + 7) / 8, size) ||
        !inside(model, entry + 20, groups * (format & 1u ? 2 : 4), size) ||
        !inside(model, entry + 24, format & 2u ? groups * (bits == 16 ? 2 : 1) : 0, size) ||
        !inside(model, entry + 28, (uint64_t)4 * out, size))
        return WSEG_ERROR_LAYER;

    const struct layer layer = wseg_layer(model, number);
    if (!(layer.slope >= 0.0f && layer.slope <= 1.0f)) return WSEG_ERROR_VALUE;
    for (uint32_t i = 0; i < out; ++i)
        if (!within(f32_at(layer.biases + (size_t)4 * i), LARGEST_VALUE)) return WSEG_ERROR_VALUE;
    for (uint32_t i = 0; i < groups; ++i) {
        const float scale = scale_at(&layer, i);
        if (!(scale > 0.0f && scale <= LARGEST_WEIGHT / (float)(1u << bits)) || zero_at(&layer, i) >> bits)
            return WSEG_ERROR_VALUE;
    }
    for (uint32_t i = 0; bits == 32 && i < weights; ++i)
        if (!within(f32_at(layer.codes + (size_t)4 * i), LARGEST_WEIGHT)) return WSEG_ERROR_VALUE;
    return WSEG_OK;
}

static wseg_status check_layers(const wseg_model *model, size_t size)
{
    uint32_t skips[WSEG_MOST_SCALES], channels = 1, number = 0;
    for (uint32_t stage = 0; stage < 2 * model->scales + 2; ++stage) {
        if (stage > model->scales && stage <= 2 * model->scales) channels += skips[2 * model->scales - stage];
        for (uint32_t i = 0; i < model->stages[stage]; ++i, ++number) {
            const wseg_status status = check_layer(model, number, channels, size);
            if (status != WSEG_OK) return status;
            channels = wseg_layer(model, number).out;
        }
        if (stage < model->scales) skips[stage] = channels;
    }
    return channels == 1 ? WSEG_OK : WSEG_ERROR_LAYER;
}

static wseg_status check_header(const wseg_model *model, size_t size)
{
    uint32_t layers = 0;
    if (model->columns < 1 || model->columns > MOST_COLUMNS || model->scales < 1 || model->scales > WSEG_MOST_SCALES ||
        model->layers < 1 || model->layers > WSEG_MOST_LAYERS || model->null_count > WSEG_MOST_NULLS)
        return WSEG_ERROR_HEADER;
    for (uint32_t i = 0; i < 2 * model->scales + 2; ++i) {
        if (model->stages[i] < 1) return WSEG_ERROR_HEADER;
        layers += model->stages[i];
    }
    for (uint32_t i = 0; i < model->scales; ++i)
        for (uint32_t axis = 0; axis < 2; ++axis)
            if (model->strides[i][axis] < 1 || model->strides[i][axis] > MOST_STRIDE) return WSEG_ERROR_HEADER;
    if (layers != model->layers || AT_LAYERS + (size_t)layers * LAYER_BYTES > size) return WSEG_ERROR_HEADER;
    if (!isfinite(model->center) || !isfinite(model->scale) || !(model->scale > 0.0f) || !(model->clip > 0.0f) ||
        !(model->threshold >= 0.0f && model->threshold <= 1.0f))
        return WSEG_ERROR_HEADER;
    for (uint32_t i = 0; i < model->null_count; ++i)
        if (!isfinite(model->nulls[i])) return WSEG_ERROR_HEADER;
    return WSEG_OK;
}

wseg_status wseg_open(wseg_model *model, const void *image, size_t size)
{
    const uint8_t *p = image;
    wseg_model found;
    if (model == NULL || image == NULL) return WSEG_ERROR_ARGUMENT;
    if (size > WSEG_LARGEST_IMAGE || size < AT_LAYERS) return WSEG_ERROR_SIZE;
    if (memcmp(p, "WSEG", 4) != 0) return WSEG_ERROR_MAGIC;
    if (u32_at(p + 4) != WSEG_VERSION) return WSEG_ERROR_VERSION;
    if (u32_at(p + 8) != size) return WSEG_ERROR_SIZE;
    if (u32_at(p + AT_CRC) != crc32_of(p + AT_CRC_START, size - AT_CRC_START)) return WSEG_ERROR_CRC;

    found.image = p;
    found.columns = u32_at(p + 16);
    found.scales = u32_at(p + 20);
    found.layers = u32_at(p + 24);
    found.null_count = u32_at(p + 28);
    found.center = f32_at(p + 32);
    found.scale = f32_at(p + 36);
    found.clip = f32_at(p + 40);
    found.threshold = f32_at(p + 44);
    for (uint32_t i = 0; i < WSEG_MOST_NULLS; ++i) found.nulls[i] = f32_at(p + 48 + 4 * i);
    memcpy(found.stages, p + AT_STAGES, sizeof found.stages);
    memcpy(found.strides, p + AT_STRIDES, sizeof found.strides);

    wseg_status status = check_header(&found, size);
    if (status == WSEG_OK) status = check_layers(&found, size);
    if (status == WSEG_OK) *model = found;
    return status;
}

/* -- weights */

float wseg_bias(const struct layer *layer, uint32_t output) { return f32_at(layer->biases + (size_t)4 * output); }

void wseg_unpack(const struct layer *layer, uint32_t output, uint32_t lanes, uint32_t input, uint32_t inputs,
                 float *tile)
{
    const uint32_t taps = layer->kernel_rows * layer->kernel_columns, bits = layer->bits;
    const uint32_t sign = 1u << (bits - 1), all = (sign - 1u) << 1 | 1u;
    if (lanes < LANES) memset(tile, 0, (size_t)taps * inputs * LANES * sizeof *tile);
    for (uint32_t lane = 0; lane < lanes; ++lane) {
        const uint32_t at = ((output + lane) * layer->in + input) * taps;
        const uint8_t *code = layer->codes + (size_t)((uint64_t)at * bits / 8);
        uint32_t group = at / layer->group, left = 0, have = 0, bag = 0;
        float scale = 0.0f, zero = 0.0f;
        if (bits < 32 && (uint64_t)at * bits % 8 != 0) {
            const uint32_t skipped = (uint32_t)((uint64_t)at * bits % 8);
            bag = (uint32_t)*code++ >> skipped;
            have = 8 - skipped;
        }
        for (uint32_t i = 0; i < inputs; ++i) {
            float *weight = tile + (size_t)i * LANES + lane;
            for (uint32_t tap = 0; tap < taps; ++tap, weight += (size_t)inputs * LANES) {
                if (bits == 32) {
                    *weight = f32_at(code);
                    code += 4;
                    continue;
                }
                if (left == 0) {
                    left = i + tap == 0 ? layer->group - at % layer->group : layer->group;
                    scale = scale_at(layer, group);
                    zero = (float)zero_at(layer, group);
                    ++group;
                }
                --left;
                for (; have < bits; have += 8) bag |= (uint32_t)*code++ << have;
                *weight = ((float)((bag & all) ^ sign) - zero) * scale;
                bag >>= bits;
                have -= bits;
            }
        }
    }
}
