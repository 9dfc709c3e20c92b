/* What else can be asked of programs: for those who run them from Python, and for tests. */
#ifndef HWNAS_INSPECT_H
#define HWNAS_INSPECT_H

#include "hwnas.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The sizes of an image and of its output, in numbers of float32, and the number of steps. */
void hwnas_sizes(const hwnas_program *program, int64_t *image, int64_t *output, int64_t *steps);

/* As hwnas_run in one thread; the nanoseconds that each step takes, over all images, are added to `times` (steps). */
int hwnas_run_timed(hwnas_program *program, const float *images, float *outputs, int64_t batch, int64_t *times);

/* The instruction sets of this processor, best first, separated by spaces. */
const char *hwnas_instruction_sets(void);

/* The memory of a thread's tensors, NULL before it ran. */
const uint8_t *hwnas_memory(const hwnas_program *program, int thread, size_t *size);

/* Lets more threads run it from now on than there are cores, each of which has a part, however late it comes. */
void hwnas_crowd(hwnas_program *program);

#ifdef __cplusplus
}
#endif

#endif
