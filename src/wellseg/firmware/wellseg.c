/* The network: which rows a band depends on, where its maps lie in the buffer, and the interface. */
#include "wellseg.h"

#include <math.h>

#include "wellseg_internal.h"

#ifdef __FAST_MATH__
#error "NaN means no data: compile without -ffast-math"
#endif

/* Rows of every map that a band of the output depends on. */
struct plan {
    struct span input, outputs[WSEG_MOST_LAYERS], downs[WSEG_MOST_SCALES], ups[WSEG_MOST_SCALES];
    int64_t heights[WSEG_MOST_SCALES + 1];
    uint32_t widths[WSEG_MOST_SCALES + 1];
};

/* Memory used from both ends: a layer reads at one and writes at the other. base = NULL only measures. */
struct arena {
    float *base;
    uint64_t size, peak;
    uint64_t kept[2]; /* floats at either end that encoders left for decoders */
};

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* -- which rows a band depends on */

/* The rows that the layers of `stage` read for those that are wanted of it; `number` goes back to its first layer. */
static struct span backwards(const wseg_model *model, uint32_t stage, struct span rows, int64_t height,
                             uint32_t *number, struct plan *plan)
{
    for (uint32_t i = 0; i < model->stages[stage]; ++i) {
        plan->outputs[--*number] = rows;
        const int64_t reach = wseg_layer(model, *number).kernel_rows / 2;
        rows.first = rows.first > reach ? rows.first - reach : 0;
        rows.last = rows.last < height - reach ? rows.last + reach : height;
    }
    return rows;
}

/* Every map's rows for `rows` of the output of an image of `height` rows. */
static void plan_rows(const wseg_model *model, struct span rows, int64_t height, struct plan *plan)
{
    const uint32_t scales = model->scales;
    uint32_t number = model->layers;
    plan->heights[0] = height;
    plan->widths[0] = model->columns;
    for (uint32_t s = 0; s < scales; ++s) {
        plan->heights[s + 1] = (plan->heights[s] + model->strides[s][0] - 1) / model->strides[s][0];
        plan->widths[s + 1] = (plan->widths[s] + model->strides[s][1] - 1) / model->strides[s][1];
    }
    rows = backwards(model, 2 * scales + 1, rows, height, &number, plan);
    for (uint32_t s = 0; s < scales; ++s) {
        const int64_t stride = model->strides[s][0], below = plan->heights[s + 1];
        rows = backwards(model, 2 * scales - s, rows, plan->heights[s], &number, plan);
        plan->ups[s] = rows;
        rows.first /= stride;
        rows.last = (rows.last + stride - 2) / stride + 1; /* the last row lies on a sample or before the next one */
        if (rows.last > below) rows.last = below;
    }
    rows = backwards(model, scales, rows, plan->heights[scales], &number, plan);
    for (uint32_t s = scales; s-- > 0;) {
        plan->downs[s] = rows;
        rows.first *= model->strides[s][0];
        rows.last = (rows.last - 1) * model->strides[s][0] + 1;
        if (plan->ups[s].first < rows.first) rows.first = plan->ups[s].first;
        if (plan->ups[s].last > rows.last) rows.last = plan->ups[s].last;
        rows = backwards(model, s, rows, plan->heights[s], &number, plan);
    }
    plan->input = rows;
}

/* -- the network */

/* Room for `rows` of a map next to what is kept at the end `side` of the arena. `beside`: the map at the other end that
 * lives on, or NULL. */
static struct map place(struct arena *arena, uint32_t side, struct span rows, uint32_t width, uint32_t channels,
                        const struct map *beside)
{
    struct map map;
    uint64_t other = arena->kept[1 - side];
    map.data = NULL;
    map.rows = rows;
    map.width = width;
    map.channels = channels;
    map.side = side;
    map.floats = (uint64_t)(rows.last - rows.first) * width * channels;
    map.end = arena->kept[side] + map.floats;
    if (beside != NULL && beside->end > other) other = beside->end;
    if (map.end + other > arena->peak) arena->peak = map.end + other;
    if (arena->base != NULL) map.data = arena->base + (size_t)(side ? arena->size - map.end : map.end - map.floats);
    return map;
}

static void load(const wseg_model *model, const float *values, const struct map *map)
{
    const float *value = values + (size_t)map->rows.first * model->columns;
    const float clip = model->clip < LARGEST_VALUE ? model->clip : LARGEST_VALUE;
    for (size_t i = 0; i < (size_t)map->floats; ++i) {
        float x = 0.0f;
        if (isfinite(value[i])) {
            x = (value[i] - model->center) / model->scale;
            x = x < -clip ? -clip : x > clip ? clip : x;
        }
        for (uint32_t n = 0; n < model->null_count; ++n)
            if (value[i] == model->nulls[n]) x = 0.0f;
        map->data[i] = x;
    }
}

/* `map`, followed by `skip` if that is not NULL, through the layers of a stage. */
static struct map through(const wseg_model *model, uint32_t stage, uint32_t scale, struct map map,
                          const struct map *skip, const struct plan *plan, uint32_t *number, struct arena *arena,
                          float *tile)
{
    for (uint32_t i = 0; i < model->stages[stage]; ++i, ++*number) {
        const struct layer layer = wseg_layer(model, *number);
        const struct map *const parts[2] = {&map, i == 0 ? skip : NULL};
        const struct map out = place(arena, 1 - map.side, plan->outputs[*number], plan->widths[scale], layer.out, &map);
        if (arena->base != NULL) wseg_convolve(&layer, parts, plan->heights[scale], &out, tile);
        map = out;
    }
    return map;
}

/* The logits of the rows that `plan` is made for; only measures the arena if that has no memory. */
static struct map infer(const wseg_model *model, const struct plan *plan, const float *values, struct arena *arena,
                        float *tile)
{
    const uint32_t scales = model->scales;
    struct map skips[WSEG_MOST_SCALES], map = place(arena, 0, plan->input, plan->widths[0], 1, NULL);
    uint32_t number = 0;
    if (arena->base != NULL) load(model, values, &map);
    for (uint32_t s = 0; s < scales; ++s) {
        skips[s] = map = through(model, s, s, map, NULL, plan, &number, arena, tile);
        arena->kept[map.side] = map.end;
        map = place(arena, 1 - map.side, plan->downs[s], plan->widths[s + 1], map.channels, NULL);
        if (arena->base != NULL) wseg_decimate(&skips[s], model->strides[s], &map);
    }
    map = through(model, scales, scales, map, NULL, plan, &number, arena, tile);
    for (uint32_t s = scales; s-- > 0;) {
        struct map up = place(arena, 1 - map.side, plan->ups[s], plan->widths[s], map.channels, &map);
        if (arena->base != NULL) wseg_upsample(&map, model->strides[s], plan->heights[s + 1], &up);
        map = through(model, 2 * scales - s, s, up, &skips[s], plan, &number, arena, tile);
        arena->kept[skips[s].side] -= skips[s].floats;
    }
    return through(model, 2 * scales + 1, 0, map, NULL, plan, &number, arena, tile);
}

/* -- the interface */

static uint32_t total_stride(const wseg_model *model)
{
    uint32_t stride = 1;
    for (uint32_t s = 0; s < model->scales; ++s) stride *= model->strides[s][0];
    return stride;
}

/* Bytes for rows first..last - 1 of an image of `height` rows. */
static uint64_t bytes_for(const wseg_model *model, int64_t first, int64_t last, int64_t height)
{
    const struct span rows = {first, last};
    struct arena arena = {NULL, 0, 0, {0, 0}};
    struct plan plan;
    plan_rows(model, rows, height, &plan);
    infer(model, &plan, NULL, &arena, NULL);
    return (arena.peak + (uint64_t)TILE * LANES) * sizeof(float);
}

/* Bytes for a band of `rows` rows, a multiple of the total stride, wherever it lies: far from both ends of an image it
 * needs the most, and no receptive field is anywhere near 2^20 strides. */
static uint64_t bytes_of_band(const wseg_model *model, uint32_t rows)
{
    const int64_t middle = (int64_t)total_stride(model) << 20;
    return bytes_for(model, middle, middle + rows, 2 * middle);
}

static int shape_fits(const wseg_model *model, uint32_t rows)
{
    return rows >= 1 && rows <= WSEG_MOST_ROWS && rows <= SIZE_MAX / sizeof(float) / model->columns;
}

wseg_status wseg_buffer_size(const wseg_model *model, uint32_t rows, uint32_t band, size_t *size)
{
    if (model == NULL || size == NULL) return WSEG_ERROR_ARGUMENT;
    if (!shape_fits(model, rows)) return WSEG_ERROR_SHAPE;
    const uint32_t stride = total_stride(model);
    uint64_t bytes = bytes_for(model, 0, rows, rows);
    if (band > 0 && band < rows) {
        const uint64_t banded = bytes_of_band(model, (band - 1) / stride * stride + stride);
        if (banded < bytes) bytes = banded;
    }
    if (bytes > SIZE_MAX) return WSEG_ERROR_SHAPE;
    *size = (size_t)bytes;
    return WSEG_OK;
}

/* The largest band that `size` bytes allow, 0 if none. */
static uint32_t largest_band(const wseg_model *model, uint32_t rows, size_t size)
{
    const uint32_t stride = total_stride(model);
    uint32_t fits = 0, fails = (rows - 1) / stride + 2; /* in strides */
    if (bytes_for(model, 0, rows, rows) <= size) return rows;
    while (fails - fits > 1) {
        const uint32_t middle = fits + (fails - fits) / 2;
        if (bytes_of_band(model, middle * stride) <= size) {
            fits = middle;
        } else {
            fails = middle;
        }
    }
    return fits * stride;
}

static int is_null(const wseg_model *model, float value)
{
    int null = !isfinite(value);
    for (uint32_t n = 0; n < model->null_count; ++n) null |= value == model->nulls[n];
    return null;
}

wseg_status wseg_forward(const wseg_model *model, const float *values, uint32_t rows, uint32_t columns,
                         float *probability, uint8_t *mask, void *buffer, size_t buffer_size)
{
    if (model == NULL || values == NULL || buffer == NULL || (probability == NULL && mask == NULL))
        return WSEG_ERROR_ARGUMENT;
    if (columns != model->columns || !shape_fits(model, rows)) return WSEG_ERROR_SHAPE;
    if ((uintptr_t)buffer % sizeof(float) != 0) return WSEG_ERROR_ALIGNMENT;
    const uint32_t band = largest_band(model, rows, buffer_size);
    if (band == 0) return WSEG_ERROR_BUFFER;

    float *const tile = buffer;
    for (uint32_t row = 0; row < rows; row += band) {
        const struct span wanted = {row, least(band, rows - row) + (int64_t)row};
        struct arena arena = {tile + TILE * LANES, buffer_size / sizeof(float) - TILE * LANES, 0, {0, 0}};
        struct plan plan;
        plan_rows(model, wanted, rows, &plan);
        const struct map logits = infer(model, &plan, values, &arena, tile);
        const size_t at = (size_t)row * columns;
        for (size_t i = 0; i < (size_t)logits.floats; ++i) {
            const int null = is_null(model, values[at + i]);
            const float p = 1.0f / (1.0f + expf(-logits.data[i]));
            if (probability != NULL) probability[at + i] = null ? NAN : p;
            if (mask != NULL) mask[at + i] = (uint8_t)(null ? WSEG_NO_DATA : p >= model->threshold);
        }
    }
    return WSEG_OK;
}

const char *wseg_strerror(wseg_status status)
{
    static const char *const lines[] = {
        "no error",
        "a pointer is NULL, or neither probability nor mask is asked for",
        "the model image is cut short, too long, or larger than 550,000 bytes",
        "this is no model image",
        "the model image has another version",
        "the model image is damaged: its CRC-32 differs",
        "numbers in the header of the model image are out of range",
        "the layers of the model image do not fit one another or lie outside of it",
        "a scale, zero point, weight or bias of the model image is out of range",
        "the image has no rows, too many, or another number of columns than the model",
        "the buffer is not aligned for float",
        "the buffer is too small: see wseg_buffer_size",
    };
    const unsigned number = (unsigned)status;
    return number < sizeof lines / sizeof lines[0] ? lines[number] : "unknown error";
}
