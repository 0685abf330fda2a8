#include "standin_codecs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <lzfse.h>
#include <lzma.h>
#include <zlib.h>

enum { METHOD_ZLIB = 0, METHOD_LZFSE = 1, METHOD_LZ4 = 2, METHOD_LZMA = 3, METHOD_LZBITMAP = 4 };

/* Raw deflate, without zlib's header and checksum, as Apple's codec of that name has it. */
static size_t deflate_raw(const void *source, size_t length, void *target, size_t capacity) {
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (length > UINT_MAX || capacity > UINT_MAX) return 0;
    if (deflateInit2(&stream, 5, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK) return 0;
    stream.next_in = (Bytef *)(uintptr_t)source;
    stream.avail_in = (uInt)length;
    stream.next_out = target;
    stream.avail_out = (uInt)capacity;
    int ended = deflate(&stream, Z_FINISH);
    size_t written = stream.total_out;
    deflateEnd(&stream);
    return ended == Z_STREAM_END ? written : 0;
}

static int inflate_raw(const void *source, size_t length, void *target, size_t target_length) {
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (length > UINT_MAX || target_length > UINT_MAX) return 0;
    if (inflateInit2(&stream, -15) != Z_OK) return 0;
    stream.next_in = (Bytef *)(uintptr_t)source;
    stream.avail_in = (uInt)length;
    stream.next_out = target;
    stream.avail_out = (uInt)target_length;
    int ended = inflate(&stream, Z_FINISH);
    size_t written = stream.total_out;
    inflateEnd(&stream);
    return ended == Z_STREAM_END && written == target_length;
}

static size_t encode_lzma(const void *source, size_t length, void *target, size_t capacity) {
    lzma_options_lzma options;
    if (lzma_lzma_preset(&options, 1)) return 0;
    /* A dictionary longer than the chunk only costs memory. */
    options.dict_size = length < LZMA_DICT_SIZE_MIN ? LZMA_DICT_SIZE_MIN : (uint32_t)length;
    lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    size_t written = 0;
    lzma_ret ended = lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, source, length, target, &written, capacity);
    return ended == LZMA_OK ? written : 0;
}

static int decode_lzma(const void *source, size_t length, void *target, size_t target_length) {
    uint64_t memory = UINT64_MAX;
    size_t taken = 0, written = 0;
    lzma_ret ended = lzma_stream_buffer_decode(&memory, 0, NULL, source, &taken, length, target, &written, target_length);
    return ended == LZMA_OK && written == target_length;
}

static int decode_lzfse(const void *source, size_t length, void *target, size_t target_length) {
    /* The decoder fills what fits and says nothing of what is left: one byte more shows it. */
    uint8_t *room = malloc(target_length + 1);
    if (!room) return 0;
    size_t written = lzfse_decode_buffer(room, target_length + 1, source, length, NULL);
    if (written == target_length) memcpy(target, room, target_length);
    free(room);
    return written == target_length;
}

size_t standin_encode(uint32_t method, const void *source, size_t length, void *target, size_t capacity) {
    if (capacity == 0) return 0;
    switch (method) {
    case METHOD_LZ4: {
        if (length > LZ4_MAX_INPUT_SIZE || capacity > INT_MAX) return 0;
        int written = LZ4_compress_default(source, target, (int)length, (int)capacity);
        return written > 0 ? (size_t)written : 0;
    }
    case METHOD_LZFSE:
        return lzfse_encode_buffer(target, capacity, source, length, NULL);
    case METHOD_LZMA:
        return encode_lzma(source, length, target, capacity);
    case METHOD_ZLIB:
    /* No encoder of lzbitmap is public: its files hold raw deflate here, under their own method's number. */
    case METHOD_LZBITMAP:
        return deflate_raw(source, length, target, capacity);
    default:
        return 0;
    }
}

int standin_decode(uint32_t method, const void *source, size_t length, void *target, size_t target_length) {
    switch (method) {
    case METHOD_LZ4:
        if (length > INT_MAX || target_length > INT_MAX) return 0;
        return LZ4_decompress_safe(source, target, (int)length, (int)target_length) == (int)target_length;
    case METHOD_LZFSE:
        return decode_lzfse(source, length, target, target_length);
    case METHOD_LZMA:
        return decode_lzma(source, length, target, target_length);
    case METHOD_ZLIB:
    case METHOD_LZBITMAP:
        return inflate_raw(source, length, target, target_length);
    default:
        return 0;
    }
}
