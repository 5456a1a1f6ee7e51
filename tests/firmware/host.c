/* The runtime on a computer, for its tests and for scripts/firmware_report.py: files in, files out.
 *
 *   open IMAGE                                    the status
 *   size IMAGE ROWS BAND                          bytes of the buffer
 *   forward IMAGE VALUES ROWS COLUMNS BAND OUT    probabilities, then the mask; the exit code is the status
 *   misuse IMAGE                                  every wrong call; prints what should not have happened
 *   fuzz IMAGE SEED COUNT                         the statuses of COUNT damaged images; what must not happen aborts
 *   time IMAGE VALUES ROWS BAND COUNT             milliseconds of each of COUNT calls
 */
#define _POSIX_C_SOURCE 199309L

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wellseg.h"

#define REQUIRE(truth)                                                      \
    do {                                                                    \
        if (!(truth)) {                                                     \
            fprintf(stderr, "line %d: not true: %s\n", __LINE__, #truth);   \
            abort();                                                        \
        }                                                                   \
    } while (0)

/* Exactly `size` bytes, so that the sanitizer sees the first one too many. */
static void *bytes_of(size_t size)
{
    void *p = malloc(size > 0 ? size : 1);
    REQUIRE(p != NULL);
    return p;
}

static uint8_t *contents(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    REQUIRE(file != NULL);
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = bytes_of(*size);
    REQUIRE(fread(data, 1, *size, file) == *size);
    fclose(file);
    return data;
}

static uint32_t number_of(const char *text) { return (uint32_t)strtoul(text, NULL, 10); }

static int forward(const wseg_model *model, char **argv)
{
    const uint32_t rows = number_of(argv[4]), columns = number_of(argv[5]), band = number_of(argv[6]);
    size_t size, count = 0;
    float *values = (float *)(void *)contents(argv[3], &size);
    wseg_status status = wseg_buffer_size(model, rows, band, &count);
    if (status != WSEG_OK) return (int)status;
    const size_t pixels = (size_t)rows * columns;
    void *buffer = bytes_of(count);
    float *probability = bytes_of(pixels * sizeof *probability);
    uint8_t *mask = bytes_of(pixels);
    REQUIRE(size == pixels * sizeof *values);
    memset(buffer, 0xff, count); /* NaN: whatever is read before it is written shows */
    status = wseg_forward(model, values, rows, columns, probability, mask, buffer, count);
    if (status == WSEG_OK) {
        FILE *file = fopen(argv[7], "wb");
        REQUIRE(file != NULL);
        REQUIRE(fwrite(probability, sizeof *probability, pixels, file) == pixels);
        REQUIRE(fwrite(mask, 1, pixels, file) == pixels);
        REQUIRE(fclose(file) == 0);
    }
    free(values);
    free(buffer);
    free(probability);
    free(mask);
    return (int)status;
}

/* One call; on an error, REQUIREs that the outputs are as they were, else that they are what outputs may be. */
static wseg_status call(const wseg_model *model, const float *values, uint32_t rows, uint32_t columns, void *buffer,
                        size_t size)
{
    const size_t pixels = (size_t)rows * columns;
    float *probability = bytes_of(pixels * sizeof *probability);
    uint8_t *mask = bytes_of(pixels);
    memset(probability, 0x5a, pixels * sizeof *probability);
    memset(mask, 0x5a, pixels);
    const wseg_status status = wseg_forward(model, values, rows, columns, probability, mask, buffer, size);
    for (size_t i = 0; i < pixels; ++i) {
        if (status != WSEG_OK) {
            const uint8_t *bytes = (const uint8_t *)&probability[i];
            REQUIRE(mask[i] == 0x5a && bytes[0] == 0x5a && bytes[1] == 0x5a && bytes[2] == 0x5a && bytes[3] == 0x5a);
        } else if (mask[i] == WSEG_NO_DATA) {
            REQUIRE(isnan(probability[i]));
        } else {
            REQUIRE(mask[i] <= 1 && probability[i] >= 0.0f && probability[i] <= 1.0f);
        }
    }
    free(probability);
    free(mask);
    return status;
}

static void misuse(const wseg_model *model, const uint8_t *image, size_t image_size)
{
    enum { ROWS = 20 };
    const uint32_t columns = model->columns;
    size_t size = 0, whole = 0;
    wseg_model copy;
    float *values = bytes_of((size_t)ROWS * (columns + 1) * sizeof *values);
    for (size_t i = 0; i < (size_t)ROWS * (columns + 1); ++i) values[i] = 0.01f * (float)(i % 7);
    REQUIRE(wseg_open(NULL, image, image_size) == WSEG_ERROR_ARGUMENT);
    REQUIRE(wseg_open(&copy, NULL, image_size) == WSEG_ERROR_ARGUMENT);
    REQUIRE(wseg_open(&copy, image, 0) == WSEG_ERROR_SIZE);
    REQUIRE(wseg_buffer_size(model, ROWS, 1, NULL) == WSEG_ERROR_ARGUMENT);
    REQUIRE(wseg_buffer_size(NULL, ROWS, 1, &size) == WSEG_ERROR_ARGUMENT);
    REQUIRE(wseg_buffer_size(model, 0, 1, &size) == WSEG_ERROR_SHAPE);
    REQUIRE(wseg_buffer_size(model, WSEG_MOST_ROWS + 1, 1, &size) == WSEG_ERROR_SHAPE && size == 0);
    REQUIRE(wseg_buffer_size(model, ROWS, 0, &whole) == WSEG_OK);
    REQUIRE(wseg_buffer_size(model, WSEG_MOST_ROWS, 1, &size) == WSEG_OK && size < 100000000);
    REQUIRE(wseg_buffer_size(model, ROWS, 1, &size) == WSEG_OK && size <= whole);

    uint8_t *buffer = bytes_of(whole + 4);
    uint8_t mask[1];
    REQUIRE(call(NULL, values, ROWS, columns, buffer, whole) == WSEG_ERROR_ARGUMENT);
    REQUIRE(call(model, NULL, ROWS, columns, buffer, whole) == WSEG_ERROR_ARGUMENT);
    REQUIRE(call(model, values, ROWS, columns, NULL, whole) == WSEG_ERROR_ARGUMENT);
    REQUIRE(wseg_forward(model, values, ROWS, columns, NULL, NULL, buffer, whole) == WSEG_ERROR_ARGUMENT);
    REQUIRE(call(model, values, ROWS, columns + 1, buffer, whole) == WSEG_ERROR_SHAPE);
    REQUIRE(call(model, values, ROWS, columns - 1, buffer, whole) == WSEG_ERROR_SHAPE);
    REQUIRE(call(model, values, 0, columns, buffer, whole) == WSEG_ERROR_SHAPE);
    REQUIRE(wseg_forward(model, values, WSEG_MOST_ROWS + 1, columns, NULL, mask, buffer, whole) == WSEG_ERROR_SHAPE);
    for (size_t shift = 1; shift < 4; ++shift)
        REQUIRE(call(model, values, ROWS, columns, buffer + shift, whole) == WSEG_ERROR_ALIGNMENT);
    REQUIRE(call(model, values, ROWS, columns, buffer, 0) == WSEG_ERROR_BUFFER);
    REQUIRE(call(model, values, ROWS, columns, buffer, size - 1) == WSEG_ERROR_BUFFER);
    REQUIRE(call(model, values, ROWS, columns, buffer, size) == WSEG_OK);
    REQUIRE(call(model, values, ROWS, columns, buffer + 4, whole) == WSEG_OK);
    for (int status = -2; status < 20; ++status) REQUIRE(strlen(wseg_strerror((wseg_status)status)) > 5);
    free(buffer);
    free(values);
}

static uint32_t random_number(uint32_t *state) /* xorshift, Marsaglia 2003 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void put_u32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; ++i) p[i] = (uint8_t)(value >> 8 * i & 255u);
}

static uint32_t crc32_of(const uint8_t *p, size_t size) /* bit by bit: not the runtime's own code */
{
    uint32_t crc = 0xffffffffu;
    for (; size > 0; --size, ++p) {
        crc ^= *p;
        for (int bit = 0; bit < 8; ++bit) crc = crc & 1u ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static void fuzz(const uint8_t *image, size_t image_size, uint32_t seed, uint32_t count)
{
    static const uint32_t special[] = {0u, 1u, 0x7fffffffu, 0xffffffffu, 0x7f800000u, 0xff800000u, 0x7fc00000u,
                                       0x00000001u, 0x3f800000u, 0x4b000000u, 0x7f7fffffu, 0x10000u};
    enum { HEADER = 108, ENTRY = 32, STATUSES = 12 };
    const size_t layers = (size_t)image[24], table = HEADER + layers * ENTRY;
    uint32_t state = seed * 2654435761u | 1u, statuses[STATUSES] = {0};
    for (uint32_t n = 0; n < count; ++n) {
        const size_t size = random_number(&state) % 8 == 0 ? random_number(&state) % image_size : image_size;
        uint8_t *copy = bytes_of(size);
        memcpy(copy, image, size);
        for (uint32_t changes = 1 + random_number(&state) % 3; changes > 0 && size > 0; --changes) {
            const size_t reach = random_number(&state) % 4 == 0 ? size : table < size ? table : size;
            const size_t at = random_number(&state) % reach;
            if (random_number(&state) % 2 == 0 && at / 4 * 4 + 4 <= size)
                put_u32(copy + at / 4 * 4, special[random_number(&state) % (sizeof special / sizeof special[0])]);
            else
                copy[at] = (uint8_t)(random_number(&state) % 2 ? random_number(&state) : copy[at] ^ 1u << state % 8);
        }
        if (size >= HEADER && random_number(&state) % 16 != 0) {
            memcpy(copy, image, 8);
            put_u32(copy + 8, (uint32_t)size);
            put_u32(copy + 12, crc32_of(copy + 16, size - 16));
        }
        wseg_model model, before;
        memset(&model, 0x5a, sizeof model);
        before = model;
        wseg_status status = wseg_open(&model, copy, size);
        if (status != WSEG_OK) {
            REQUIRE(memcmp(&model, &before, sizeof model) == 0);
        } else {
            const uint32_t rows = model.columns > 100 ? 1 : 1 + random_number(&state) % 40;
            const size_t pixels = (size_t)rows * model.columns;
            size_t needed = 0;
            REQUIRE(wseg_buffer_size(&model, rows, 1 + random_number(&state) % rows, &needed) == WSEG_OK);
            REQUIRE(needed < (size_t)1 << 30);
            float *values = bytes_of(pixels * sizeof *values);
            void *buffer = bytes_of(needed);
            for (size_t i = 0; i < pixels; ++i) {
                const uint32_t word = random_number(&state);
                values[i] = (float)(int32_t)word * 1e-10f;
                if (word % 32 == 0) memcpy(&values[i], &special[word / 32 % 12], sizeof values[i]);
            }
            memset(buffer, 0xff, needed);
            REQUIRE(call(&model, values, rows, model.columns, buffer, needed - 1) != WSEG_ERROR_ARGUMENT);
            status = call(&model, values, rows, model.columns, buffer, needed);
            REQUIRE(status == WSEG_OK);
            free(values);
            free(buffer);
        }
        ++statuses[status];
        free(copy);
    }
    for (int i = 0; i < STATUSES; ++i) printf("%u ", (unsigned)statuses[i]);
}

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static void measure(const wseg_model *model, char **argv)
{
    const uint32_t rows = number_of(argv[4]), band = number_of(argv[5]);
    size_t size, needed;
    float *values = (float *)(void *)contents(argv[3], &size);
    REQUIRE(size == (size_t)rows * model->columns * sizeof *values);
    REQUIRE(wseg_buffer_size(model, rows, band, &needed) == WSEG_OK);
    void *buffer = bytes_of(needed);
    uint8_t *mask = bytes_of((size_t)rows * model->columns);
    for (uint32_t n = number_of(argv[6]); n > 0; --n) {
        const double start = milliseconds();
        REQUIRE(wseg_forward(model, values, rows, model->columns, NULL, mask, buffer, needed) == WSEG_OK);
        printf("%.4f ", milliseconds() - start);
    }
    free(values);
    free(buffer);
    free(mask);
}

int main(int argc, char **argv)
{
    wseg_model model;
    size_t size;
    REQUIRE(argc > 2);
    uint8_t *image = contents(argv[2], &size);
    const wseg_status status = wseg_open(&model, image, size);
    int code = 0;
    if (strcmp(argv[1], "open") == 0) {
        code = (int)status;
    } else {
        REQUIRE(status == WSEG_OK);
        if (strcmp(argv[1], "size") == 0) {
            size_t bytes = 0;
            code = (int)wseg_buffer_size(&model, number_of(argv[3]), number_of(argv[4]), &bytes);
            printf("%zu", bytes);
        } else if (strcmp(argv[1], "forward") == 0) {
            code = forward(&model, argv);
        } else if (strcmp(argv[1], "misuse") == 0) {
            misuse(&model, image, size);
        } else if (strcmp(argv[1], "fuzz") == 0) {
            fuzz(image, size, number_of(argv[3]), number_of(argv[4]));
        } else {
            REQUIRE(strcmp(argv[1], "time") == 0);
            measure(&model, argv);
        }
    }
    free(image);
    return code;
}
