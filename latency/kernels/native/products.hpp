// Products of codes and weights, and codes of their sums: 1x1 layers, convolutions of any kernel.
//
// Weights of 1x1 layers lie as [vector of outputs][four inputs][output][input]; a tile of sums is ROWS pixels by VECTORS.
// Codes are read four at a time: up to three behind a pixel's are, whatever they are, multiplied by zeros.

// ---- sums of products -------------------------------------------------------------------------------------------

template <int R>
struct Columns {  // of R rows; pixel i is that of row i % R in column i / R
    const uint8_t *rows[R];
    ptrdiff_t pitch;
    INLINE const uint8_t *at(int i) const { return rows[i % R] + i / R * pitch; }
    INLINE Columns moved(ptrdiff_t bytes) const {
        Columns made = *this;
        UNROLL for (int r = 0; r < R; r++) made.rows[r] += bytes;
        return made;
    }
};
using Pixels = Columns<1>;

// Sums of M pixels and N vectors from `first` on; HALF: of the last vector the lower lanes alone.
template <int M, int N, bool HALF, int R>
INLINE void multiply(Columns<R> codes, const Layer &layer, int first, Ints (&sums)[M][N]) {
    const ptrdiff_t vector = layer.fours * 64;
    const int8_t *weight = layer.weight + first * vector;
    UNROLL for (int j = 0; j < N; j++) UNROLL for (int i = 0; i < M; i++)
        sums[i][j] = ints(layer.offset + (first + j) * LANES);
    const int8_t *end = weight + vector;
    for (; weight != end; weight += 64, codes = codes.moved(4)) {
        Weights w[N];
        UNROLL for (int j = 0; j < N; j++)
            w[j] = HALF && j == N - 1 ? weights_low(weight + j * vector) : weights(weight + j * vector);
        UNROLL for (int i = 0; i < M; i++) {
            const Codes four = broadcast(codes.at(i));
            UNROLL for (int j = 0; j < N; j++)
                sums[i][j] = HALF && j == N - 1 ? dot_low(sums[i][j], four, w[j]) : dot(sums[i][j], four, w[j]);
        }
    }
}

// Sums of M pixels and a vector whose weights have zeros in blocks of 16 outputs and 4 inputs: `groups` are the others.
template <int M, bool HALF, int R>
INLINE void multiply_blocks(Columns<R> codes, const Layer &layer, int vector, Ints (&sums)[M][1]) {
    UNROLL for (int i = 0; i < M; i++) sums[i][0] = ints(layer.offset + vector * LANES);
    const int32_t *groups = layer.blocks + layer.vectors() + 1;
    for (int b = layer.blocks[vector]; b < layer.blocks[vector + 1]; b++) {
        const int8_t *weight = layer.weight + ptrdiff_t(b) * 64;
        const Weights w = HALF ? weights_low(weight) : weights(weight);
        const Columns<R> from = codes.moved(ptrdiff_t(groups[b]) * 4);
        UNROLL for (int i = 0; i < M; i++) {
            const Codes four = broadcast(from.at(i));
            sums[i][0] = HALF ? dot_low(sums[i][0], four, w) : dot(sums[i][0], four, w);
        }
    }
}

// ---- from sums to codes -----------------------------------------------------------------------------------------

struct Made {  // where codes go, and what is added before they are rounded
    uint8_t *to;
    ptrdiff_t pitch;
    const uint8_t *added;
};

// Pixels from FIRST on, four at a time, of M whose values are those of `values.at(i)`.
template <int FIRST, int M, class Values>
INLINE void store_pixels(uint8_t *to, ptrdiff_t pitch, int count, const Cut &cut, const Values &values) {
    if constexpr (FIRST < M) {
        constexpr int SOME = M - FIRST < 4 ? M - FIRST : 4;
        Ints some[SOME];
        UNROLL for (int i = 0; i < SOME; i++) some[i] = rounded(values.at(FIRST + i));
        store_cut<SOME>(to + FIRST * pitch, pitch, some, count, cut);
        store_pixels<FIRST + SOME, M>(to, pitch, count, cut, values);
    }
}

INLINE void store_pixel(uint8_t *to, Floats value, int count, const Layer &layer) {
    const Ints values[1] = {rounded(value)};
    store_cut<1>(to, 0, values, count, Cut(layer));
}

// Values of the pixels of a vector: of their sums, and of what is added.
template <int M, int N>
struct Sums {
    const Ints (&sums)[M][N];
    int j;
    Floats scale, bias, residual;
    const uint8_t *added;
    ptrdiff_t pitch;
    int count;

    INLINE Floats at(int i) const {
        const Floats value = fused(converted(sums[i][j]), scale, bias);
        return added ? fused(converted(load_codes(added + i * pitch, count)), residual, value) : value;
    }
};

template <int M, int N>
INLINE void write_codes(const Layer &layer, int vector, Ints (&sums)[M][N], const Made &made) {
    const Cut cut(layer);
    UNROLL for (int j = 0; j < N; j++) {
        const int channel = (vector + j) * LANES, count = layer.channels - channel;
        const Sums<M, N> values{sums,
                                j,
                                floats(layer.scale + channel),
                                floats(layer.bias + channel),
                                splat(layer.residual),
                                made.added ? made.added + channel : nullptr,
                                made.pitch,
                                count};
        store_pixels<0, M>(made.to + channel, made.pitch, count, cut, values);
    }
}

template <int M, int N, bool HALF>
void make_codes(Pixels codes, const Layer &layer, int vector, const Made &made) {
    Ints sums[M][N];
    multiply<M, N, HALF>(codes, layer, vector, sums);
    write_codes<M, N>(layer, vector, sums, made);
}

INLINE Made moved(const Made &made, ptrdiff_t pixels) {
    const ptrdiff_t at = pixels * made.pitch;
    return {made.to + at, made.pitch, made.added ? made.added + at : nullptr};
}

INLINE Pixels moved(Pixels codes, ptrdiff_t pixels) { return codes.moved(pixels * codes.pitch); }

using Tile = void (*)(Pixels, const Layer &, int, const Made &);

template <int N, int M = ROWS>
Tile tile_of(int rows, bool half) {
    if constexpr (M > 1)
        if (rows < M) return tile_of<N, M - 1>(rows, half);
    return half ? make_codes<M, N, true> : make_codes<M, N, false>;
}

template <int N = VECTORS>
Tile tile_with(int vectors, int rows, bool half) {
    if constexpr (N > 1)
        if (vectors < N) return tile_with<N - 1>(vectors, rows, half);
    return tile_of<N>(rows, half);
}

template <int M, bool HALF>
void make_codes_of_blocks(Pixels codes, const Layer &layer, int vector, const Made &made) {
    Ints sums[M][1];
    multiply_blocks<M, HALF>(codes, layer, vector, sums);
    write_codes<M, 1>(layer, vector, sums, made);
}

template <int M = BLOCK_ROWS>
Tile tile_of_blocks(int rows, bool half) {
    if constexpr (M > 1)
        if (rows < M) return tile_of_blocks<M - 1>(rows, half);
    return half ? make_codes_of_blocks<M, true> : make_codes_of_blocks<M, false>;
}

INLINE int parts(int count, int most) { return (count + most - 1) / most; }

// `count` in nearly equal parts of at most `most`: `large` of a size, and behind them `small` of one less.
struct Parts {
    INLINE Parts(int count, int most)
        : size(parts(count, parts(count, most))), large(count - (size - 1) * parts(count, most)),
          small(parts(count, most) - large) {}
    int size, large, small;
};

// Codes of `count` pixels of a 1x1 layer, or of patches of a larger kernel.
void make_pixels(const Layer &layer, Pixels codes, int count, const Made &made) {
    const int vectors = layer.vectors();
    const bool half = (layer.channels - 1) % LANES < LANES / 2;
    const Parts tiles(count, layer.blocks ? BLOCK_ROWS : ROWS), groups(vectors, layer.blocks ? 1 : VECTORS);
    for (int group = 0, vector = 0; group < groups.large + groups.small; group++) {
        const int n = groups.size - (group >= groups.large);
        const bool ends_half = half && vector + n == vectors;
        const auto tile_of = [&](int rows) {
            return layer.blocks ? tile_of_blocks(rows, ends_half) : tile_with(n, rows, ends_half);
        };
        const Tile larger = tile_of(tiles.size), smaller = tile_of(tiles.size - 1);
        for (int tile = 0, pixel = 0; tile < tiles.large + tiles.small; tile++) {
            (tile < tiles.large ? larger : smaller)(moved(codes, pixel), layer, vector, moved(made, pixel));
            pixel += tiles.size - (tile >= tiles.large);
        }
        vector += n;
    }
}

void run_pointwise(const Step &step, const Layer &layer, const Tensor &input, int64_t item, const Work &work) {
    const int64_t first = item * work.chunk, left = step.output->pixels() - first;
    uint8_t *to = work.codes(*step.output) + first * layer.channels;
    const uint8_t *added = step.b ? work.codes(*step.b) + first * layer.channels : nullptr;
    make_pixels(layer, {work.codes(input) + first * layer.inputs, layer.inputs}, int(left < work.chunk ? left : work.chunk),
                {to, layer.channels, added});
}

// ---- convolutions of any kernel: patches, then a product --------------------------------------------------------

INLINE void copy_wide(uint8_t *to, const uint8_t *from, ptrdiff_t count) {  // may touch 15 bytes behind both
    for (ptrdiff_t i = 0; i < count; i += 16) std::memcpy(to + i, from + i, 16);
}

// The row of input `row` with its padding, in `line`.
void pad_row(const Layer &layer, const Tensor &input, const uint8_t *codes, int64_t row, uint8_t *line) {
    const ptrdiff_t channels = layer.inputs, left = layer.left * channels, inner = input.width * channels;
    if (row < 0 || row >= input.height) {
        std::memset(line, layer.zero, left + inner + layer.right * channels);
        return;
    }
    std::memset(line, layer.zero, left);
    std::memcpy(line + left, codes + row * inner, inner);
    std::memset(line + left + inner, layer.zero, layer.right * channels);
}

// An item is a row of the output.
void run_dense(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const Tensor &input = *step.a, &output = *step.output;
    const ptrdiff_t taps = ptrdiff_t(layer.width) * layer.inputs, pitch = layer.fours * 4;
    const ptrdiff_t line = (input.width + layer.left + layer.right) * layer.inputs + SLACK;
    uint8_t *const lines = work.scratch, *const patches = lines + layer.height * line;
    for (int i = 0; i < layer.height; i++)
        pad_row(layer, input, work.codes(input), item * layer.stride - layer.top + i, lines + i * line);
    for (int64_t x = 0; x < output.width; x++)
        for (int i = 0; i < layer.height; i++)
            copy_wide(patches + x * pitch + i * taps, lines + i * line + x * layer.stride * layer.inputs, taps);
    const int64_t first = item * output.width * output.channels;
    make_pixels(layer, {patches, pitch}, int(output.width),
                {work.codes(output) + first, layer.channels, step.b ? work.codes(*step.b) + first : nullptr});
}

// A depthwise kernel of any size; an item is a row of the output.
void run_depthwise(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const Tensor &input = *step.a, &output = *step.output;
    const int channels = layer.channels;
    const Floats residual = splat(layer.residual);
    const Ints zero = splat(layer.zero);
    for (int64_t x = 0; x < output.width; x++)
        for (int channel = 0; channel < channels; channel += LANES) {
            const int count = channels - channel;
            Ints sum = ints(layer.offset + channel);
            const int8_t *weight = layer.weight + ptrdiff_t(channel / LANES) * layer.height * layer.width * 64;
            for (int i = 0; i < layer.height; i++)
                for (int j = 0; j < layer.width; j++, weight += 64) {
                    const int64_t row = item * layer.stride - layer.top + i, column = x * layer.stride - layer.left + j;
                    const bool inside = row >= 0 && row < input.height && column >= 0 && column < input.width;
                    const int64_t at = (row * input.width + column) * channels + channel;
                    const Ints codes = inside ? load_codes(work.codes(input) + at, count) : zero;
                    sum = dot(sum, prepared(codes), weights(weight));
                }
            const ptrdiff_t at = (item * output.width + x) * channels + channel;
            Floats value = fused(converted(sum), floats(layer.scale + channel), floats(layer.bias + channel));
            if (step.b) value = fused(converted(load_codes(work.codes(*step.b) + at, count)), residual, value);
            store_pixel(work.codes(output) + at, value, count, layer);
        }
}

// float32 of a linear layer; an item is a vector of outputs.
void run_logits(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const int channel = int(item) * LANES;
    Ints sums[1][1];
    multiply<1, 1, false>(Pixels{{work.codes(*step.a)}, 0}, layer, int(item), sums);
    store_floats(work.result + channel,
                 fused(converted(sums[0][0]), floats(layer.scale + channel), floats(layer.bias + channel)),
                 layer.channels - channel);
}
