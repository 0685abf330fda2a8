/*
 * The codecs of the stand-in's compressed files: one chunk at a time, each decodable without the others.
 */
#ifndef HEADRACE_STANDIN_CODECS_H
#define HEADRACE_STANDIN_CODECS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `method` is a raw value of MTLIOCompressionMethod. Returns the encoded length, or 0 where the result would not
 * be shorter than `capacity`, or where the encoder failed: the caller then keeps the bytes as they are. */
size_t standin_encode(uint32_t method, const void *source, size_t length, void *target, size_t capacity);
/* Returns 1 if `source` decoded to exactly `target_length` bytes, else 0. */
int standin_decode(uint32_t method, const void *source, size_t length, void *target, size_t target_length);

#ifdef __cplusplus
}
#endif

#endif
