// Runs programs: kernels for the processor's instruction set, memory of tensors, threads.
//
// Images of a batch go to threads whole, each with memory of its own; those that are left over, or a single image, are
// shared: threads take items of a step until there are none, and wait until all are done before the next.

// A product and a sum are rounded once only where the source says so, whatever the compiler's flags.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "hwnas.h"
#include "program.hpp"
#include "threads.hpp"

#define INLINE __attribute__((always_inline)) inline
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#define HWNAS_PLAIN 1  // no assembly: the sanitizer does not see into it, Clang has no need of it
#endif

namespace hwnas {

struct Work {
    uint8_t *memory, *scratch;  // of tensors, and of this thread
    const float *image;
    float *result;
    int bands;      // of rows of a block
    int64_t chunk;  // pixels of an item of a 1x1 layer

    uint8_t *codes(const Tensor &tensor) const { return memory + tensor.offset; }
};

// The first `some` bytes of each of `count` pixels, at most LANES.
INLINE void scatter(uint8_t *to, ptrdiff_t pitch, const uint8_t (&bytes)[LANES][4], int some, int count) {
    count = count < LANES ? count : LANES;
    if (some == 4)
        for (int i = 0; i < count; i++) std::memcpy(to + i * pitch, bytes[i], 4);
    else
        for (int i = 0; i < count; i++)
            for (int j = 0; j < some; j++) to[i * pitch + j] = bytes[i][j];
}

struct Kernels {
    const char *name;
    void (*run)(const Step &, int phase, int64_t item, const Work &);
    bool (*supported)();
};

}  // namespace hwnas

#define TEXT(...) #__VA_ARGS__
#if defined(__clang__)
#define FOR_TARGET(name) _Pragma(TEXT(clang attribute push(__attribute__((target(name))), apply_to = function)))
#define END_TARGET _Pragma("clang attribute pop")
#else
#define FOR_TARGET(name) _Pragma("GCC push_options") _Pragma(TEXT(GCC target(name)))
#define END_TARGET _Pragma("GCC pop_options")
#endif

#if defined(__x86_64__)
#include <immintrin.h>

FOR_TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx512vbmi2")
namespace hwnas::avx512 {
namespace {
#include "avx512.hpp"
#include "kernels.hpp"
}  // namespace
}  // namespace hwnas::avx512
END_TARGET

FOR_TARGET("avx2,fma")
namespace hwnas::avx2 {
namespace {
#include "avx2.hpp"
#include "kernels.hpp"
}  // namespace
}  // namespace hwnas::avx2
END_TARGET

#define HWNAS_AVX_VNNI 1
FOR_TARGET("avx2,fma,avxvnni")
namespace hwnas::avx_vnni {
namespace {
#include "avx2.hpp"
#include "kernels.hpp"
}  // namespace
}  // namespace hwnas::avx_vnni
END_TARGET
#endif

#undef UNROLL
#define UNROLL  // the compiler makes vectors of the 16 channels

namespace hwnas::portable {
namespace {
#include "portable.hpp"
#include "kernels.hpp"
}  // namespace
}  // namespace hwnas::portable

namespace hwnas {
namespace {

const Kernels KERNELS[] = {  // best first
#if defined(__x86_64__)
    {"avx512", avx512::run,
     [] {
         return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
                __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
     }},
    {"avx-vnni", avx_vnni::run,
     [] { return __builtin_cpu_supports("avxvnni") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {"avx2", avx2::run, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {"portable", portable::run, [] { return true; }},
};

std::string instruction_sets() {
    std::string found;
    for (const Kernels &kernels : KERNELS)
        if (kernels.supported()) found += (found.empty() ? "" : " ") + std::string(kernels.name);
    return found;
}

const Kernels &kernels_named(const char *name) {
    for (const Kernels &kernels : KERNELS)
        if ((!name || kernels.name == std::string(name)) && kernels.supported()) return kernels;
    throw std::runtime_error("this processor has no instruction set '" + std::string(name) + "'; it has " +
                             instruction_sets());
}

int64_t parts(int64_t count, int64_t most) { return (count + most - 1) / most; }

// Bytes of scratch memory that a thread needs for a step.
int64_t scratch_of(const Step &step) {
    const Layer &layer = step.kind == Kind::block ? step.depthwise : step.project;
    const int64_t columns = step.a->width + layer.left + layer.right;
    if (step.kind == Kind::quantize) return 8 * line_of(step.output->width);
    if (step.kind == Kind::block) return columns * GROUP * lines_of(layer) * 64;
    if (step.kind != Kind::dense) return 0;
    const int64_t lines = layer.height * (columns * layer.inputs + SLACK);
    return lines + step.output->width * layer.fours * 4 + SLACK;
}

int phases_of(const Step &step) { return step.kind == Kind::block && step.project.present ? 2 : 1; }

int64_t items_of(const Step &step, int phase, const Work &work) {
    switch (step.kind) {
        case Kind::pointwise: return parts(step.output->pixels(), work.chunk);
        case Kind::block:
            return phase == 1 ? parts(step.output->pixels(), work.chunk)
                              : parts(step.depthwise.vectors(), GROUP) * work.bands;
        case Kind::pool: return step.project.vectors();
        case Kind::logits: return step.project.vectors();
        case Kind::dequantize: return step.a->height;
        default: return step.output->height;
    }
}

// Pixels of an item of a 1x1 layer, of which threads get as many items each.
int64_t chunk_of(const Step &step, int threads) {
    if (threads == 1 || !step.output) return CHUNK;
    const int64_t pixels = step.output->pixels();
    return parts(pixels, parts(parts(pixels, CHUNK), threads) * threads);
}

// What a band of rows of a group of channels costs, about in dot products: rows that are expanded, and those made.
int64_t cost_of(const Step &step, int64_t band, int bands) {
    const Layer &layer = step.depthwise;
    const Tensor &output = *(step.project.present ? step.between : step.output);
    const int64_t begin = band * output.height / bands, rows = (band + 1) * output.height / bands - begin;
    const int64_t first = std::max<int64_t>(0, begin * layer.stride - layer.top);
    const int64_t behind = (begin + rows - 1) * layer.stride - layer.top + layer.height;
    const int64_t last = std::max(first, std::min<int64_t>(behind, step.a->height));
    const int64_t expanded = (step.expand.present ? step.expand.fours : 0) + 2;
    const int64_t made = layer.width * (layer.height / 4 + 1) + 2;
    return (last - first) * step.a->width * expanded + rows * output.width * made;
}

// How many bands of rows a block is cut into: as many as threads, since each then reads what it wrote itself, unless
// fewer leave the thread with most to do an eighth less, for each band repeats rows of the expansion.
int bands_of(const Step &step, int threads) {
    if (step.kind != Kind::block || threads == 1) return 1;
    const int64_t groups = parts(step.depthwise.vectors(), GROUP);
    const int64_t rows = (step.project.present ? step.between : step.output)->height;
    int best = 1;
    int64_t least = 0;
    for (int bands = static_cast<int>(std::min<int64_t>(threads, rows)); bands >= 1; bands--) {
        const int64_t cost = parts(groups * bands, threads) * cost_of(step, bands / 2, bands);
        if (least == 0 || 8 * cost < 7 * least) least = cost, best = bands;
    }
    return best;
}

#if defined(__SANITIZE_ADDRESS__)
// Forbids all memory but that of the step's own tensors, and three bytes behind that products may read.
void allow(const Program &program, const Step &step, uint8_t *memory) {
    __asan_poison_memory_region(memory, program.memory);
    for (const Tensor *tensor : {step.a, step.b, step.output, step.between})
        if (tensor && tensor != &program.tensors[0])
            __asan_unpoison_memory_region(memory + tensor->offset, tensor->bytes() + 3);
}
void allow_all(const Program &program, uint8_t *memory) { __asan_unpoison_memory_region(memory, program.memory); }
#else
void allow(const Program &, const Step &, uint8_t *) {}
void allow_all(const Program &, uint8_t *) {}
#endif

// What each step takes: nanoseconds that are added to `times`, if there are any.
class Watch {
  public:
    explicit Watch(int64_t *times) : times_(times), before_(times ? now() : 0) {}

    void passed(size_t step) {
        if (!times_) return;
        const int64_t after = now();
        times_[step] += after - before_;
        before_ = after;
    }

  private:
    static int64_t now() {
        return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    int64_t *times_, before_;
};

// How far threads are that share an image.  Each has as many items of a phase, which follow each other, so that cores
// seldom write to the same lines of memory or read what others wrote; who has none left takes those of others.
class Shared {
  public:
    Shared(int64_t phases, int threads) : threads_(threads), counts_(phases * (threads + 1)) {}

    // Takes items until there are none, and waits for those that others have taken.
    template <class Run>
    void phase(int64_t number, int64_t items, int thread, Run run) {
        Count *const taken = &counts_[number * (threads_ + 1)];
        std::atomic<int64_t> &done = taken[threads_].value;
        for (int i = 0; i < threads_ && done.load(std::memory_order_acquire) < items; i++) {
            const int owner = (thread + i) % threads_;
            const int64_t begin = owner * items / threads_, end = (owner + 1) * items / threads_;
            if (const int64_t made = take(taken[owner].value, begin, end, run)) done.fetch_add(made);
        }
        Threads::until([&] { return done.load(std::memory_order_acquire) == items; });
    }

  private:
    struct alignas(64) Count {
        std::atomic<int64_t> value{0};
    };

    template <class Run>
    static int64_t take(std::atomic<int64_t> &taken, int64_t begin, int64_t end, Run run) {
        int64_t made = 0;
        while (taken.load(std::memory_order_relaxed) < end - begin) {
            const int64_t item = begin + taken.fetch_add(1);
            if (item < end) run(item), made++;
        }
        return made;
    }

    int threads_;
    std::vector<Count> counts_;  // of each phase: items taken of each thread, and items done
};

}  // namespace
}  // namespace hwnas

struct hwnas_program {
    hwnas_program(const void *bytes, size_t size, const char *instruction_set)
        : program(bytes, size), kernels(hwnas::kernels_named(instruction_set)) {
        for (const hwnas::Step &step : program.steps) {
            scratch_bytes = std::max(scratch_bytes, hwnas::scratch_of(step));
            phases += hwnas::phases_of(step);
        }
    }

    // The vectors' kernels convert values to integers before they are cut; the portable ones bring them near before.
    void run_item(const hwnas::Step &step, int phase, int64_t item, const hwnas::Work &work) const {
        (step.far ? hwnas::portable::run : kernels.run)(step, phase, item, work);
    }

    // `times` of all steps are for one thread.
    void run(const float *images, float *outputs, int64_t batch, int count, int64_t *times) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (count > 1) {
            const hwnas::Cores cores;
            if (!crowded) count = std::min(count, cores.count());
            threads.grow(count, cores);
        }
        while (static_cast<int>(memories.size()) < count) {
            memories.emplace_back(static_cast<size_t>(program.memory));
            scratches.emplace_back(static_cast<size_t>(scratch_bytes));
        }
        const int64_t whole = count == 1 ? batch : batch / count * count;
        if (whole) run_whole(images, outputs, whole, count, times);
        for (int64_t i = whole; i < batch; i++) run_shared(image(images, i), output(outputs, i), count);
    }

    const float *image(const float *images, int64_t index) const { return images + index * program.tensors[0].bytes(); }
    float *output(float *outputs, int64_t index) const { return outputs + index * program.outputs; }

    void run_whole(const float *images, float *outputs, int64_t batch, int count, int64_t *times) {
        std::atomic<int64_t> next{0};
        auto job = [&](int number) {
            for (int64_t i; (i = next.fetch_add(1)) < batch;) {
                const hwnas::Work work{memories[number].data(), scratches[number].data(), image(images, i),
                                       output(outputs, i), 1, hwnas::CHUNK};
                hwnas::Watch watch(times);
                for (size_t s = 0; s < program.steps.size(); s++) {
                    const hwnas::Step &step = program.steps[s];
                    hwnas::allow(program, step, work.memory);
                    for (int phase = 0; phase < hwnas::phases_of(step); phase++) {
                        const int64_t items = hwnas::items_of(step, phase, work);
                        for (int64_t item = 0; item < items; item++) run_item(step, phase, item, work);
                    }
                    watch.passed(s);
                }
                hwnas::allow_all(program, work.memory);
            }
        };
        threads.run(count, job, crowded);
    }

    void run_shared(const float *image, float *output, int count) {
        hwnas::Shared shared(phases, count);
        auto job = [&](int number) {
            hwnas::Work work{memories[0].data(), scratches[number].data(), image, output, 1, hwnas::CHUNK};
            int64_t at = 0;
            for (const hwnas::Step &step : program.steps) {
                work.bands = hwnas::bands_of(step, count), work.chunk = hwnas::chunk_of(step, count);
                for (int phase = 0; phase < hwnas::phases_of(step); phase++)
                    shared.phase(at++, hwnas::items_of(step, phase, work), number,
                                 [&](int64_t item) { run_item(step, phase, item, work); });
            }
        };
        threads.run(count, job, crowded);
    }

    hwnas::Program program;
    const hwnas::Kernels &kernels;
    int64_t scratch_bytes = 0, phases = 0;
    bool crowded = false;  // whether there may be more threads than cores, all of which have a part
    std::vector<hwnas::Bytes> memories, scratches;  // of each thread
    std::mutex mutex;
    hwnas::Threads threads;
};

namespace hwnas {
namespace {

int run(hwnas_program *program, const float *images, float *outputs, int64_t batch, int threads, int64_t *times) {
    if (!program || !images || !outputs || batch < 1 || threads < 1) return -1;
    try {
        program->run(images, outputs, batch, threads, times);
        return 0;
    } catch (const std::exception &) {
        return -1;
    }
}

}  // namespace
}  // namespace hwnas

extern "C" {

hwnas_program *hwnas_open(const void *bytes, size_t size, const char *instruction_set, char *message,
                          size_t message_size) {
    try {
        return new hwnas_program(bytes, size, instruction_set);
    } catch (const std::exception &error) {
        if (message_size) std::snprintf(message, message_size, "%s", error.what());
        return nullptr;
    }
}

int hwnas_run(hwnas_program *program, const float *images, float *outputs, int64_t batch, int threads) {
    return hwnas::run(program, images, outputs, batch, threads, nullptr);
}

void hwnas_close(hwnas_program *program) { delete program; }

}  // extern "C"
