// The engine and what can be asked of it: what Python loads.
#include "engine.cpp"
#include "inspect.h"

extern "C" {

void hwnas_sizes(const hwnas_program *program, int64_t *image, int64_t *output, int64_t *steps) {
    *image = program->program.tensors[0].bytes();
    *output = program->program.outputs;
    *steps = static_cast<int64_t>(program->program.steps.size());
}

int hwnas_run_timed(hwnas_program *program, const float *images, float *outputs, int64_t batch, int64_t *times) {
    return hwnas::run(program, images, outputs, batch, 1, times);
}

const char *hwnas_instruction_sets(void) {
    static const std::string names = hwnas::instruction_sets();
    return names.c_str();
}

const uint8_t *hwnas_memory(const hwnas_program *program, int thread, size_t *size) {
    if (thread < 0 || thread >= static_cast<int>(program->memories.size())) return nullptr;
    *size = program->memories[thread].size();
    return program->memories[thread].data();
}

void hwnas_crowd(hwnas_program *program) { program->crowded = true; }

}  // extern "C"
