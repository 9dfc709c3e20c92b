// A program as its file has it, checked: header, tensors, steps, and constants that steps point at.
//
// All numbers are little-endian int32.  A file is a header of 16 numbers, `tensors` records of 4, `steps` records of 92,
// and constants at multiples of 64 bytes from its start.  Whatever follows relies on what `Program` has checked here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace hwnas {

constexpr int LANES = 16;  // channels of a vector
constexpr int GROUP = 3;   // vectors of expanded channels that go through a block together
constexpr int CHUNK = 28;  // pixels of an item of a 1x1 convolution
constexpr int SLACK = 64;  // bytes that may be touched behind a line of scratch memory

enum class Kind {
    quantize, pointwise, dense, depthwise, block, pool, add, multiply, table, maximum, average, copy, logits, dequantize,
    count
};

struct Tensor {
    int64_t height, width, channels, offset;
    int64_t pixels() const { return height * width; }
    int64_t bytes() const { return height * width * channels; }
};

// A convolution, or what else makes codes of sums.
struct Layer {
    int present, channels, inputs, height, width, stride, top, left, bottom, right, zero, low, high, output_zero;
    float residual;
    const int8_t *weight;
    const int8_t *earlier;  // of a depthwise layer of a block with a stride of 1: weights for the row before
    const int32_t *blocks;  // of block-sparse weights: where those of each vector begin, and their groups of inputs
    const int32_t *offset;  // added to sums
    const float *scale, *bias;
    const uint8_t *table;
    int64_t fours;  // how many fours of inputs, of all taps, are multiplied
    bool uniform;  // whether scale and bias are the same for all channels, and behind them

    int vectors() const { return (channels + LANES - 1) / LANES; }
};

// Lines of words that a depthwise kernel keeps: of the newest row, or of four rows before it as well.
inline int lines_of(const Layer &depthwise) { return depthwise.height < 4 ? 1 : 5; }

// Bytes of a line of four for each of so many pixels, in whole vectors.
inline int64_t line_of(int64_t width) { return (width + LANES - 1) / LANES * LANES * 4; }

// What pixels of a resized image are made of: the one before and that behind it, with a weight each.
struct Places {
    const int32_t *before;
    const float *of_before, *of_behind;
};

struct Step {
    Kind kind;
    const Tensor *a, *b, *output, *between;  // b: what is added or multiplied; between: depthwise codes of a block
    int zero_a, zero_b;
    float scale_a;
    Places columns, rows;  // of a resized image
    int channel;           // the first of those that are copied to
    bool counted;          // whether padding counts in a mean
    bool far;              // whether values may be too large for integers before they are cut
    Layer expand, depthwise, project;  // one layer stands in `project`
};

class Bytes {  // memory that begins at a multiple of 64
  public:
    explicit Bytes(size_t size = 0) : size_(size), memory_(static_cast<char *>(std::calloc(size + 64, 1))) {
        if (!memory_) throw std::bad_alloc();
    }
    uint8_t *data() const {
        const auto address = reinterpret_cast<uintptr_t>(memory_.get());
        return reinterpret_cast<uint8_t *>(memory_.get()) + ((64 - address % 64) % 64);
    }
    size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(char *memory) const { std::free(memory); }
    };
    size_t size_;
    std::unique_ptr<char, Free> memory_;
};

class Program {
  public:
    Program(const void *bytes, size_t size) : file_(size) {
        std::memcpy(file_.data(), bytes, size);
        read_header();
        for (int64_t i = 0; i < tensor_count_; i++) read_tensor(i);
        for (int64_t i = 0; i < step_count_; i++) read_step(i);
        const Kind last = steps.back().kind;
        require(last == Kind::logits || last == Kind::dequantize, "its last step makes no output");
        require(outputs == outputs_of(steps.back()), "its outputs are miscounted");
    }

    std::vector<Tensor> tensors;  // the first is the image
    std::vector<Step> steps;
    int64_t memory, outputs;  // bytes of all tensors; float32 numbers that an image gives

    static int64_t outputs_of(const Step &step) {
        return step.kind == Kind::logits ? step.project.channels : step.a->bytes();
    }

  private:
    static constexpr int64_t HEADER = 16, TENSOR = 4, STEP = 92, LAYER = 24, LARGEST = 1 << 24;
    static constexpr int32_t VERSION = 1;

    static void require(bool right, const char *fault) {
        if (!right) throw std::runtime_error(std::string("the program is damaged: ") + fault);
    }

    int32_t number(int64_t index) const {
        int32_t value;
        std::memcpy(&value, file_.data() + 4 * index, 4);
        return value;
    }

    float real(int64_t index) const {
        float value;
        std::memcpy(&value, file_.data() + 4 * index, 4);
        return value;
    }

    void read_header() {
        require(file_.size() >= 4 * HEADER && std::memcmp(file_.data(), "HWNASNET", 8) == 0, "it has no header");
        if (number(2) != VERSION) throw std::runtime_error("the program is of another version; write it anew");
        require(number(3) >= 0 && static_cast<size_t>(number(3)) == file_.size(), "it is cut short or too long");
        tensor_count_ = number(4), step_count_ = number(5), memory = number(6), outputs = number(7);
        require(tensor_count_ > 0 && step_count_ > 0 && memory >= 0, "it is empty");
        const int64_t numbers = HEADER + TENSOR * tensor_count_ + STEP * step_count_;
        require(4 * numbers <= static_cast<int64_t>(file_.size()), "its tables are cut short");
        tensors.reserve(tensor_count_);
        steps.reserve(step_count_);
    }

    void read_tensor(int64_t index) {
        const int64_t at = HEADER + TENSOR * index;
        const Tensor tensor{number(at), number(at + 1), number(at + 2), number(at + 3)};
        for (const int64_t size : {tensor.height, tensor.width, tensor.channels})
            require(size > 0 && size <= LARGEST, "a tensor has no size");
        require(tensor.pixels() <= (int64_t(1) << 31) / tensor.channels, "a tensor is too large");
        require(tensor.offset >= 0 && (index == 0 || tensor.offset + tensor.bytes() <= memory), "a tensor is outside");
        tensors.push_back(tensor);
    }

    const Tensor *tensor(int64_t at, bool needed) const {
        const int32_t index = number(at);
        require(index >= -1 && index < tensor_count_ && (index >= 0 || !needed), "a step has no such tensor");
        return index < 0 ? nullptr : &tensors[index];
    }

    template <class T>
    const T *constant(int64_t at, int64_t count, bool needed = true) const {
        const int64_t offset = number(at);
        if (offset == 0 && !needed) return nullptr;
        require(offset > 0 && offset % 64 == 0, "a constant is misplaced");
        require(count >= 0 && offset + count * static_cast<int64_t>(sizeof(T)) <= static_cast<int64_t>(file_.size()),
                "a constant is cut short");
        return reinterpret_cast<const T *>(file_.data() + offset);
    }

    static bool same(const float *values, int64_t count) {
        return std::all_of(values, values + count, [&](float value) { return value == values[0]; });
    }

    // The numbers of a layer; `read_weights` and `read_rounding` then look at what it points to.
    Layer read_layer(int64_t at) const {
        Layer layer{};
        layer.present = number(at);
        if (!layer.present) return layer;
        int *const fields[] = {&layer.channels, &layer.inputs, &layer.height, &layer.width, &layer.stride,
                               &layer.top,      &layer.left,   &layer.bottom, &layer.right, &layer.zero,
                               &layer.low,      &layer.high,   &layer.output_zero};
        for (int i = 0; i < 13; i++) {
            *fields[i] = number(at + 1 + i);
            require(*fields[i] >= 0 && *fields[i] <= LARGEST, "a layer's number is out of range");
        }
        require(layer.channels > 0 && layer.inputs > 0 && layer.stride > 0, "a layer has no size");
        require(layer.height > 0 && layer.width > 0 && layer.height <= 1024 && layer.width <= 1024,
                "a kernel has no size");
        require(layer.zero <= 255 && layer.output_zero <= 255 && layer.low <= layer.high && layer.high <= 255,
                "a layer's codes are out of range");
        require(layer.top <= 4096 && layer.left <= 4096 && layer.bottom <= 4096 && layer.right <= 4096,
                "a padding is out of range");
        layer.residual = real(at + 14);
        const int64_t padded = int64_t(layer.vectors()) * LANES;
        layer.offset = constant<int32_t>(at + 15, padded);
        layer.scale = constant<float>(at + 16, padded);
        layer.bias = constant<float>(at + 17, padded);
        layer.table = constant<uint8_t>(at + 18, 256, false);
        layer.uniform = same(layer.scale, padded) && same(layer.bias, padded);
        return layer;
    }

    // Weights of all inputs, four to a lane.
    void read_weights(Layer &layer, int64_t at) const {
        const int64_t depth = int64_t(layer.inputs) * layer.height * layer.width, groups = (depth + 3) / 4;
        require(depth <= LARGEST, "a kernel is too large");
        const int vectors = layer.vectors();
        layer.fours = groups;
        layer.blocks = number(at + 20) == 0 ? nullptr : constant<int32_t>(at + 20, vectors + 1);
        if (!layer.blocks) {
            layer.weight = constant<int8_t>(at + 19, vectors * groups * 64);
            return;
        }
        require(layer.blocks[0] == 0, "blocks of weights are misplaced");
        for (int i = 0; i < vectors; i++)
            require(layer.blocks[i] <= layer.blocks[i + 1] && layer.blocks[i + 1] - layer.blocks[i] <= groups,
                    "blocks of weights are misplaced");
        const int64_t count = layer.blocks[vectors];
        constant<int32_t>(at + 20, vectors + 1 + count);
        for (int64_t i = 0; i < count; i++) {
            const int32_t group = layer.blocks[vectors + 1 + i];
            require(group >= 0 && group < groups, "blocks of weights are misplaced");
        }
        layer.weight = constant<int8_t>(at + 19, count * 64);
    }

    Places read_places(int64_t at, int64_t size, int64_t new_size) const {
        if (number(at) == 0) {
            require(size == new_size, "codes do not fit the image");
            return {};
        }
        const Places places{constant<int32_t>(at, new_size), constant<float>(at + 1, new_size),
                            constant<float>(at + 2, new_size)};
        for (int64_t i = 0; i < new_size; i++)
            require(places.before[i] >= 0 && places.before[i] < size, "a resized image is outside");
        return places;
    }

    // Weights of a depthwise layer: the rows of a kernel in lanes of four where it is shifted through, else a lane each.
    void read_depthwise(Layer &layer, int64_t at, bool shifted) const {
        const int64_t taps = shifted ? int64_t(layer.width) * (layer.height / 4 + 1) : layer.height * layer.width;
        layer.weight = constant<int8_t>(at + 19, layer.vectors() * taps * 64);
        require(layer.inputs == layer.channels, "a depthwise layer changes channels");
    }

    // Weights that find in the words of a row what is made of the rows up to the one before: all are a byte earlier.
    void make_earlier(Layer &layer) {
        const int64_t words = layer.height / 4 + 1, lanes = layer.width * 64, size = words * lanes;
        earlier_.emplace_back(static_cast<size_t>(layer.vectors() * size));
        int8_t *const made = reinterpret_cast<int8_t *>(earlier_.back().data());
        for (int64_t vector = 0; vector < layer.vectors(); vector++)
            for (int64_t lane = 0; lane < lanes; lane += 4)
                for (int64_t row = 0; row < 4 * words; row++) {
                    const int64_t at = vector * size + row / 4 * lanes + lane + row % 4;
                    require(row > 0 || layer.weight[at] == 0, "a kernel has too many rows");
                    if (row > 0) made[vector * size + (row - 1) / 4 * lanes + lane + (row - 1) % 4] = layer.weight[at];
                }
        layer.earlier = made;
    }

    static void check_layer(const Layer &layer, const Tensor &input, const Tensor &output) {
        require(layer.present && layer.inputs == input.channels && layer.channels == output.channels,
                "a layer does not fit its channels");
        const int64_t rows = input.height + layer.top + layer.bottom - layer.height;
        const int64_t columns = input.width + layer.left + layer.right - layer.width;
        require(rows >= 0 && columns >= 0 && output.height == rows / layer.stride + 1 &&
                    output.width == columns / layer.stride + 1,
                "a layer does not fit its image");
    }

    static void check_pointwise(const Layer &layer) {
        require(layer.height == 1 && layer.width == 1 && layer.stride == 1 && !layer.top && !layer.left &&
                    !layer.bottom && !layer.right,
                "a 1x1 layer has another shape");
    }

    static bool same(const Tensor &a, const Tensor &b) {
        return a.height == b.height && a.width == b.width && a.channels == b.channels;
    }

    void read_step(int64_t index) {
        const int64_t at = HEADER + TENSOR * tensor_count_ + STEP * index, layers = at + 20;
        require(number(at) >= 0 && number(at) < static_cast<int>(Kind::count), "a step is of no kind");
        Step step{};
        step.kind = static_cast<Kind>(number(at));
        const bool ends = step.kind == Kind::logits || step.kind == Kind::dequantize;
        step.a = tensor(at + 1, true), step.b = tensor(at + 2, false);
        step.output = tensor(at + 3, !ends), step.between = tensor(at + 4, false);
        step.zero_a = number(at + 5), step.zero_b = number(at + 6), step.scale_a = real(at + 7);
        require(step.zero_a >= 0 && step.zero_a <= 255 && step.zero_b >= 0 && step.zero_b <= 255,
                "a zero is out of range");
        step.counted = number(at + 15) != 0, step.far = number(at + 16) != 0;
        require((step.kind == Kind::quantize) == (step.a == &tensors[0]), "a step reads the image");
        require(step.b != &tensors[0], "a step reads the image");
        require((ends || step.output != &tensors[0]) && step.between != &tensors[0], "a step writes to the image");
        require(!ends || index == step_count_ - 1, "an output is not the last step");
        step.expand = read_layer(layers), step.depthwise = read_layer(layers + LAYER);
        step.project = read_layer(layers + 2 * LAYER);
        check_step(step, layers);
        steps.push_back(step);
    }

    void check_step(Step &step, int64_t layers) {
        Layer &layer = step.project;
        const int64_t weights = layers + 2 * LAYER;
        const Tensor &a = *step.a;
        switch (step.kind) {
            case Kind::quantize:
                require(a.channels == step.output->channels, "codes do not fit the image");
                step.columns = read_places(layers - 12, a.width, step.output->width);
                step.rows = read_places(layers - 9, a.height, step.output->height);
                require(!step.columns.before == !step.rows.before, "an image is resized in one direction");
                break;
            case Kind::pointwise:
                check_layer(layer, a, *step.output);
                check_pointwise(layer);
                read_weights(layer, weights);
                break;
            case Kind::dense:
                check_layer(layer, a, *step.output);
                read_weights(layer, weights);
                break;
            case Kind::depthwise:
                check_layer(layer, a, *step.output);
                read_depthwise(layer, weights, false);
                break;
            case Kind::block:
                check_block(step, layers);
                break;
            case Kind::pool:
                require(layer.present && layer.channels == a.channels && step.output->pixels() == 1 &&
                            step.output->channels == a.channels,
                        "a mean does not fit");
                break;
            case Kind::add:
            case Kind::multiply:
                require(layer.present && layer.channels == a.channels && same(a, *step.output), "a step does not fit");
                require(step.b && step.b->channels == a.channels &&
                            step.b->pixels() == (step.kind == Kind::add ? a.pixels() : 1),
                        "a step does not fit");
                break;
            case Kind::maximum:
            case Kind::average:
                check_layer(layer, a, *step.output);
                require(layer.inputs == layer.channels, "a window changes channels");
                break;
            case Kind::copy:
                step.channel = number(layers - 6);
                require(step.output->height == a.height && step.output->width == a.width && step.channel >= 0 &&
                            step.channel + a.channels <= step.output->channels,
                        "a copy does not fit");
                break;
            case Kind::table:
                require(layer.present && layer.table && same(a, *step.output), "a table does not fit");
                break;
            case Kind::logits:
                require(layer.present && layer.inputs == a.bytes(), "a linear layer does not fit");
                check_pointwise(layer);
                read_weights(layer, weights);
                require(!layer.blocks, "a linear layer is in blocks");
                break;
            default:
                break;
        }
        const bool adds = step.kind == Kind::pointwise || step.kind == Kind::dense || step.kind == Kind::depthwise ||
                          (step.kind == Kind::block && step.project.present);
        require(!step.b || !adds || same(*step.b, *step.output), "what is added does not fit");
    }

    void check_block(Step &step, int64_t layers) {
        Layer &expand = step.expand, &depthwise = step.depthwise, &project = step.project;
        Tensor wide = *step.a;
        require(expand.present || depthwise.channels == wide.channels, "a block does not fit");
        wide.channels = depthwise.channels;
        if (expand.present) {
            check_layer(expand, *step.a, wide);
            check_pointwise(expand);
            read_weights(expand, layers);
        }
        const Tensor &made = project.present ? *step.between : *step.output;
        require(!project.present || step.between, "a block has no place for its codes");
        check_layer(depthwise, wide, made);
        read_depthwise(depthwise, layers + LAYER, true);
        require(depthwise.height == depthwise.width && depthwise.stride <= 2 &&
                    (depthwise.height == 3 || depthwise.height == 5 || depthwise.height == 7),
                "a block has another kernel");
        if (depthwise.stride == 1) make_earlier(depthwise);
        if (project.present) {
            check_layer(project, made, *step.output);
            check_pointwise(project);
            read_weights(project, layers + 2 * LAYER);
        }
    }

    Bytes file_;
    std::vector<Bytes> earlier_;
    int64_t tensor_count_, step_count_;
};

}  // namespace hwnas
