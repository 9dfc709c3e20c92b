/* Runs quantized networks: programs that hwnas writes, from float32 images to float32 outputs. */
#ifndef HWNAS_H
#define HWNAS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hwnas_program hwnas_program;

/* Opens a program of `size` bytes, which are copied.  `instruction_set` is "avx512", "avx-vnni", "avx2", "portable", or
   NULL for the best that this processor has.  Returns NULL where it cannot be opened; `message`, of `message_size` bytes,
   then says why. */
hwnas_program *hwnas_open(const void *bytes, size_t size, const char *instruction_set, char *message,
                          size_t message_size);

/* Runs `batch` images (batch, channels, height, width) to outputs (batch, outputs) in at most `threads` threads, the
   caller among them.  On Linux there are no more than cores that the caller may use, and the others leave the core
   that it is on.  Returns 0, or -1 where memory or threads cannot be had or a number is below 1.  Calls of several
   threads wait for each other. */
int hwnas_run(hwnas_program *program, const float *images, float *outputs, int64_t batch, int threads);

void hwnas_close(hwnas_program *program);

#ifdef __cplusplus
}
#endif

#endif
