// The engine and what can be asked of it: what Python loads.
#include "engine.cpp"
#include "inspect.h"

extern "C" {

void hwnas_sizes(const hwnas_program *program, int64_t *image, int64_t *output) {
    *image = program->program.tensors[0].bytes();
    *output = program->program.outputs;
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
