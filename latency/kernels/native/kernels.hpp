// The kernels, written once in vectors of 16 channels; included for each instruction set after its vectors.
//
// A step has phases, a phase has items that threads take in any order (`engine.cpp` counts them).  Codes are NHWC.

#include "products.hpp"

#include "blocks.hpp"
#include "maps.hpp"

void run(const Step &step, int phase, int64_t item, const Work &work) {
    switch (step.kind) {
        case Kind::quantize: return run_quantize(step, item, work);
        case Kind::pointwise: return run_pointwise(step, step.project, *step.a, item, work);
        case Kind::dense: return run_dense(step, item, work);
        case Kind::depthwise: return run_depthwise(step, item, work);
        case Kind::block:
            return phase == 0 ? run_block(step, item, work)
                              : run_pointwise(step, step.project, *step.between, item, work);
        case Kind::add: return run_add(step, item, work);
        case Kind::pool: return run_pool(step, item, work);
        case Kind::maximum:
        case Kind::average: return run_windows(step, item, work);
        case Kind::copy: return run_copy(step, item, work);
        case Kind::logits: return run_logits(step, item, work);
        case Kind::dequantize: return run_dequantize(step, item, work);
        default: return run_pixelwise(step, item, work);
    }
}
