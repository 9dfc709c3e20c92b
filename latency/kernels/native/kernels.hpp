// The kernels, written once in vectors of 16 channels; included for each instruction set after its vectors.
//
// A step has phases, a phase has items that threads take in any order (`engine.cpp` counts them).  Codes are NHWC.
// Weights of 1x1 layers lie as [vector of outputs][four inputs][output][input]; a tile of sums is ROWS pixels by VECTORS.

// ---- sums of products -------------------------------------------------------------------------------------------

struct Pixels {  // of some columns
    const uint8_t *at;
    ptrdiff_t pitch;
};

// Sums of M pixels and N vectors from `first` on; HALF: of the last vector the lower lanes alone.
template <int M, int N, bool HALF>
INLINE void multiply(Pixels codes, const Layer &layer, int first, Ints (&sums)[M][N]) {
    const int depth = layer.inputs * layer.height * layer.width;
    const ptrdiff_t vector = ptrdiff_t((depth + 3) / 4) * 64;
    const int8_t *weight = layer.weight + first * vector;
    UNROLL for (int j = 0; j < N; j++) UNROLL for (int i = 0; i < M; i++)
        sums[i][j] = ints(layer.offset + (first + j) * LANES);
    const uint8_t *from = codes.at;
    const int8_t *end = weight + ptrdiff_t(depth / 4) * 64;
    for (; weight != end; weight += 64, from += 4) {
        Weights w[N];
        UNROLL for (int j = 0; j < N; j++)
            w[j] = HALF && j == N - 1 ? weights_low(weight + j * vector) : weights(weight + j * vector);
        UNROLL for (int i = 0; i < M; i++) {
            const Codes four = broadcast(from + i * codes.pitch);
            UNROLL for (int j = 0; j < N; j++)
                sums[i][j] = HALF && j == N - 1 ? dot_low(sums[i][j], four, w[j]) : dot(sums[i][j], four, w[j]);
        }
    }
    if (depth % 4 == 0) return;
    UNROLL for (int i = 0; i < M; i++) {
        const Codes some = broadcast_some(from + i * codes.pitch, depth % 4);
        UNROLL for (int j = 0; j < N; j++) sums[i][j] = dot(sums[i][j], some, weights(weight + j * vector));
    }
}

// Sums of M pixels and a vector whose weights have zeros in blocks of 16 outputs and 4 inputs: `groups` are the others.
template <int M>
INLINE void multiply_blocks(Pixels codes, const Layer &layer, int vector, Ints (&sums)[M][1]) {
    UNROLL for (int i = 0; i < M; i++) sums[i][0] = ints(layer.offset + vector * LANES);
    const int32_t *groups = layer.blocks + layer.vectors() + 1;
    const int whole = layer.inputs / 4;
    for (int b = layer.blocks[vector]; b < layer.blocks[vector + 1]; b++) {
        const Weights w = weights(layer.weight + ptrdiff_t(b) * 64);
        const uint8_t *from = codes.at + ptrdiff_t(groups[b]) * 4;
        if (groups[b] < whole) {
            UNROLL for (int i = 0; i < M; i++) sums[i][0] = dot(sums[i][0], broadcast(from + i * codes.pitch), w);
        } else {
            UNROLL for (int i = 0; i < M; i++)
                sums[i][0] = dot(sums[i][0], broadcast_some(from + i * codes.pitch, layer.inputs % 4), w);
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

INLINE Pixels moved(Pixels codes, ptrdiff_t pixels) { return {codes.at + pixels * codes.pitch, codes.pitch}; }

// Pixels from `pixel` on while there are M of them, of a vector of block-sparse weights; returns the next.
template <int M>
int make_codes_of_blocks(Pixels codes, const Layer &layer, int vector, int pixel, int count, const Made &made) {
    for (; pixel + M <= count; pixel += M) {
        Ints sums[M][1];
        multiply_blocks<M>(moved(codes, pixel), layer, vector, sums);
        write_codes<M, 1>(layer, vector, sums, moved(made, pixel));
    }
    return pixel;
}

void make_pixels_of_blocks(const Layer &layer, Pixels codes, int count, const Made &made) {
    for (int vector = 0; vector < layer.vectors(); vector++) {
        int pixel = make_codes_of_blocks<BLOCK_ROWS>(codes, layer, vector, 0, count, made);
        if (BLOCK_ROWS > 7) pixel = make_codes_of_blocks<7>(codes, layer, vector, pixel, count, made);
        if (BLOCK_ROWS > 2) pixel = make_codes_of_blocks<2>(codes, layer, vector, pixel, count, made);
        make_codes_of_blocks<1>(codes, layer, vector, pixel, count, made);
    }
}

using Tile = void (*)(Pixels, const Layer &, int, const Made &);

template <int M, int N>
constexpr Tile tile_of(bool half) {
    return half ? make_codes<M, N, true> : make_codes<M, N, false>;
}

template <int N>
Tile tile_of(int rows, bool half) {
    switch (rows) {
        case 1: return tile_of<1, N>(half);
        case 2: return tile_of<2, N>(half);
        case 3: return tile_of<(ROWS > 2 ? 3 : 1), N>(half);
        case 4: return tile_of<(ROWS > 3 ? 4 : 1), N>(half);
        case 5: return tile_of<(ROWS > 4 ? 5 : 1), N>(half);
        case 6: return tile_of<(ROWS > 5 ? 6 : 1), N>(half);
        case 7: return tile_of<(ROWS > 6 ? 7 : 1), N>(half);
        default: return tile_of<ROWS, N>(half);
    }
}

Tile tile_of(int rows, int vectors, bool half) {
    switch (vectors) {
        case 1: return tile_of<1>(rows, half);
        case 2: return tile_of<(VECTORS > 1 ? 2 : 1)>(rows, half);
        default: return tile_of<VECTORS>(rows, half);
    }
}

// `count` in nearly equal parts of at most `most`: the size of the part that begins with `left` parts to go.
INLINE int part(int count, int left) { return (count + left - 1) / left; }
INLINE int parts(int count, int most) { return (count + most - 1) / most; }

// Codes of `count` pixels of a 1x1 layer, or of patches of a larger kernel.
void make_pixels(const Layer &layer, Pixels codes, int count, const Made &made) {
    if (layer.blocks) return make_pixels_of_blocks(layer, codes, count, made);
    const int vectors = layer.vectors();
    const bool half = (layer.channels - 1) % LANES < LANES / 2;
    for (int vector = 0, groups = parts(vectors, VECTORS); groups > 0; groups--) {
        const int n = part(vectors - vector, groups);
        for (int pixel = 0, tiles = parts(count, ROWS); tiles > 0; tiles--) {
            const int m = part(count - pixel, tiles);
            tile_of(m, n, half && vector + n == vectors)(moved(codes, pixel), layer, vector, moved(made, pixel));
            pixel += m;
        }
        vector += n;
    }
}

void run_pointwise(const Step &step, const Layer &layer, const Tensor &input, int64_t item, const Work &work) {
    const int64_t first = item * CHUNK, left = step.output->pixels() - first;
    uint8_t *to = work.codes(*step.output) + first * layer.channels;
    const uint8_t *added = step.b ? work.codes(*step.b) + first * layer.channels : nullptr;
    make_pixels(layer, {work.codes(input) + first * layer.inputs, layer.inputs}, int(left < CHUNK ? left : CHUNK),
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
    const ptrdiff_t taps = ptrdiff_t(layer.width) * layer.inputs, depth = layer.height * taps;
    const ptrdiff_t line = (input.width + layer.left + layer.right) * layer.inputs + SLACK;
    uint8_t *const lines = work.scratch, *const patches = lines + layer.height * line;
    for (int i = 0; i < layer.height; i++)
        pad_row(layer, input, work.codes(input), item * layer.stride - layer.top + i, lines + i * line);
    for (int64_t x = 0; x < output.width; x++)
        for (int i = 0; i < layer.height; i++)
            copy_wide(patches + x * depth + i * taps, lines + i * line + x * layer.stride * layer.inputs, taps);
    const int64_t first = item * output.width * output.channels;
    make_pixels(layer, {patches, depth}, int(output.width),
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
                    const uint8_t *from = work.codes(input) + (row * input.width + column) * channels + channel;
                    sum = dot(sum, prepared(inside ? load_codes(from, count) : zero), weights(weight));
                }
            const ptrdiff_t at = (item * output.width + x) * channels + channel;
            Floats value = fused(converted(sum), floats(layer.scale + channel), floats(layer.bias + channel));
            if (step.b) value = fused(converted(load_codes(work.codes(*step.b) + at, count)), residual, value);
            store_pixel(work.codes(output) + at, value, count, layer);
        }
}

// ---- blocks: expansion and depthwise convolution without the expanded image ---------------------------------------
//
// Each pixel and channel of a row has a word in which its code and those of the three rows before stand, the newest at the
// top: a dot product is then four vertical taps of the kernel.

// The words of a row, of `vectors` vectors of channels from `vector` on.  Those of rows before are kept as long as kernels
// need them: four rows before `newest` stand the words of the four rows before those that are in its words.
struct Line {
    uint8_t *memory;
    int vector, vectors, kept, left, width, right, newest;
    uint8_t *words, *before, *former;  // of the newest row, of the row before, and of that four rows before

    ptrdiff_t pitch() const { return ptrdiff_t(vectors) * 64; }
    ptrdiff_t bytes() const { return (left + width + right) * pitch(); }
    uint8_t *row(int past) const { return memory + (newest + kept - past) % kept * bytes(); }
    void advance() {
        newest = (newest + 1) % kept;
        words = row(0), before = row(1), former = row(4 % kept);
    }
};

// Pixels from FIRST on, four at a time, of M of a vector.
template <int FIRST, int M, class Values>
INLINE void push_pixels(uint8_t *to, const uint8_t *before, ptrdiff_t pitch, const Cut &cut, const Values &values) {
    if constexpr (FIRST < M) {
        constexpr int SOME = M - FIRST < 4 ? M - FIRST : 4;
        Ints some[SOME];
        UNROLL for (int i = 0; i < SOME; i++) some[i] = rounded(values.at(FIRST + i));
        push_cut<SOME>(to + FIRST * pitch, before + FIRST * pitch, pitch, some, cut);
        push_pixels<FIRST + SOME, M>(to, before, pitch, cut, values);
    }
}

template <int M, int N>
INLINE void push_codes(const Layer &layer, const Line &line, int j, Ints (&sums)[M][N], ptrdiff_t column) {
    const Cut cut(layer);
    const ptrdiff_t pitch = line.pitch(), at = column * pitch + j * 64;
    UNROLL for (int n = 0; n < N; n++) {
        const int channel = (line.vector + j + n) * LANES;
        const Sums<M, N> values{
            sums, n, floats(layer.scale + channel), floats(layer.bias + channel), splat(0.0f), nullptr, 0, 0};
        push_pixels<0, M>(line.words + at + n * 64, line.before + at + n * 64, pitch, cut, values);
    }
}

template <int M, int N>
void push_tile(Pixels codes, const Layer &layer, const Line &line, int j, ptrdiff_t column) {
    Ints sums[M][N];
    multiply<M, N, false>(codes, layer, line.vector + j, sums);
    push_codes<M, N>(layer, line, j, sums, column);
}

template <int N>
void push_tiles(Pixels codes, const Layer &layer, const Line &line, int j) {
    for (int x = 0, tiles = parts(line.width, ROWS); tiles > 0; tiles--) {
        const int m = part(line.width - x, tiles);
        const Pixels from{codes.at + x * codes.pitch, codes.pitch};
        const ptrdiff_t column = line.left + x;
        switch (m) {
            case 1: push_tile<1, N>(from, layer, line, j, column); break;
            case 2: push_tile<2, N>(from, layer, line, j, column); break;
            case 3: push_tile<(ROWS > 2 ? 3 : 1), N>(from, layer, line, j, column); break;
            case 4: push_tile<(ROWS > 3 ? 4 : 1), N>(from, layer, line, j, column); break;
            case 5: push_tile<(ROWS > 4 ? 5 : 1), N>(from, layer, line, j, column); break;
            case 6: push_tile<(ROWS > 5 ? 6 : 1), N>(from, layer, line, j, column); break;
            case 7: push_tile<(ROWS > 6 ? 7 : 1), N>(from, layer, line, j, column); break;
            default: push_tile<ROWS, N>(from, layer, line, j, column); break;
        }
        x += m;
    }
}

// Pushes expanded codes of a row.
void push_expanded(const Layer &layer, const uint8_t *row, const Line &line) {
    const Pixels codes{row, layer.inputs};
    for (int j = 0; j < line.vectors;) {
        if (layer.blocks) {
            for (int x = 0; x < line.width; x++) {
                Ints sums[1][1];
                multiply_blocks<1>({row + ptrdiff_t(x) * layer.inputs, 0}, layer, line.vector + j, sums);
                push_codes<1, 1>(layer, line, j, sums, line.left + x);
            }
            j++;
            continue;
        }
        const int n = VECTORS < line.vectors - j ? VECTORS : line.vectors - j;
        if (n == 1)
            push_tiles<1>(codes, layer, line, j);
        else if (n == 2)
            push_tiles<(VECTORS > 1 ? 2 : 1)>(codes, layer, line, j);
        else
            push_tiles<VECTORS>(codes, layer, line, j);
        j += n;
    }
}

// Pushes a row of `channels` codes as it stands, or of zeros where there is none.
void push_row(const uint8_t *row, int channels, int zero, const Line &line) {
    for (int x = 0; x < line.width; x++)
        for (int j = 0; j < line.vectors; j++) {
            const int channel = (line.vector + j) * LANES;
            const ptrdiff_t at = (line.left + x) * line.pitch() + j * 64;
            const uint8_t *from = row + ptrdiff_t(x) * channels + channel;
            push(line.words + at, line.before + at, row ? load_codes(from, channels - channel) : splat(zero));
        }
}

// What a vector of channels is sifted with.
template <int K>
struct Sieve {
    static constexpr int WORDS = K / 4 + 1;
    INLINE Sieve(const Layer &layer, int vector)
        : offset(ints(layer.offset + vector * LANES)), scale(floats(layer.scale + vector * LANES)),
          bias(floats(layer.bias + vector * LANES)), cut(layer), channels(layer.channels),
          count(layer.channels - vector * LANES) {
        const int8_t *weight = layer.weight + ptrdiff_t(vector) * WORDS * K * 64;
        UNROLL for (int r = 0; r < WORDS; r++) UNROLL for (int i = 0; i < K; i++)
            taps[r][i] = weights(weight + (r * K + i) * 64);
    }
    Weights taps[WORDS][K];
    Ints offset;
    Floats scale, bias;
    Cut cut;
    int channels, count;
};

template <int M>
struct Sifted {  // values of M pixels
    const Ints (&sums)[M];
    Floats scale, bias;
    INLINE Floats at(int i) const { return fused(converted(sums[i]), scale, bias); }
};

// M pixels of a vector.
template <int K, int STRIDE, int M>
INLINE void sift(const Sieve<K> &sieve, const uint8_t *words_at, const uint8_t *former, ptrdiff_t pitch, uint8_t *to) {
    Ints sums[M];
    UNROLL for (int i = 0; i < M; i++) sums[i] = sieve.offset;
    UNROLL for (int c = 0; c < (M - 1) * STRIDE + K; c++) UNROLL for (int r = 0; r < Sieve<K>::WORDS; r++) {
        const Codes four = prepared(words((r == Sieve<K>::WORDS - 1 ? words_at : former) + c * pitch));
        UNROLL for (int i = 0; i < M; i++) {
            const int tap = c - i * STRIDE;
            if (tap >= 0 && tap < K) sums[i] = dot(sums[i], four, sieve.taps[r][tap]);
        }
    }
    const Sifted<M> values{sums, sieve.scale, sieve.bias};
    store_pixels<0, M>(to, sieve.channels, sieve.count, sieve.cut, values);
}

// All pixels of a row and a vector in nearly equal tiles.
template <int K, int STRIDE>
INLINE void sift_tiles(const Sieve<K> &sieve, const Line &line, int j, int width, uint8_t *to) {
    const ptrdiff_t pitch = line.pitch(), step = STRIDE * pitch;
    const uint8_t *newest = line.words + j * 64, *former = line.former + j * 64;
    for (int x = 0, tiles = parts(width, PIXELS); tiles > 0; tiles--) {
        const int m = part(width - x, tiles);
        uint8_t *const at = to + ptrdiff_t(x) * sieve.channels;
        switch (m) {
            case 1: sift<K, STRIDE, 1>(sieve, newest, former, pitch, at); break;
            case 2: sift<K, STRIDE, 2>(sieve, newest, former, pitch, at); break;
            case 3: sift<K, STRIDE, (PIXELS > 2 ? 3 : 1)>(sieve, newest, former, pitch, at); break;
            case 4: sift<K, STRIDE, (PIXELS > 3 ? 4 : 1)>(sieve, newest, former, pitch, at); break;
            case 5: sift<K, STRIDE, (PIXELS > 4 ? 5 : 1)>(sieve, newest, former, pitch, at); break;
            case 6: sift<K, STRIDE, (PIXELS > 5 ? 6 : 1)>(sieve, newest, former, pitch, at); break;
            default: sift<K, STRIDE, PIXELS>(sieve, newest, former, pitch, at); break;
        }
        x += m, newest += m * step, former += m * step;
    }
}

template <int K, int STRIDE>
void sift_row(const Layer &layer, const Line &line, int64_t width, uint8_t *to) {
    for (int j = 0; j < line.vectors; j++) {
        const Sieve<K> sieve(layer, line.vector + j);
        sift_tiles<K, STRIDE>(sieve, line, j, int(width), to + (line.vector + j) * LANES);
    }
}

void sift_row(const Layer &layer, const Line &line, int64_t width, uint8_t *to) {
    switch (layer.height * 2 + layer.stride) {
        case 7: return sift_row<3, 1>(layer, line, width, to);
        case 8: return sift_row<3, 2>(layer, line, width, to);
        case 11: return sift_row<5, 1>(layer, line, width, to);
        case 12: return sift_row<5, 2>(layer, line, width, to);
        case 15: return sift_row<7, 1>(layer, line, width, to);
        default: return sift_row<7, 2>(layer, line, width, to);
    }
}

// Depthwise codes of a block; an item is some rows of a group of channels.
void run_block(const Step &step, int64_t item, const Work &work) {
    const Layer &expand = step.expand, &layer = step.depthwise;
    const Tensor &input = *step.a, &output = step.project.present ? *step.between : *step.output;
    const int vectors = layer.vectors(), groups = parts(vectors, GROUP);
    const int group = int(item % groups);
    const int first = group * vectors / groups, last = (group + 1) * vectors / groups;
    const int kept = lines_of(layer);
    Line line{work.scratch, first, last - first, kept, layer.left, int(input.width), layer.right, 0, nullptr, nullptr, nullptr};
    const int64_t band = item / groups;
    const int64_t begin = band * output.height / work.bands, end = (band + 1) * output.height / work.bands;
    std::memset(line.memory, layer.zero, line.bytes() * kept);
    const uint8_t *const codes = work.codes(input);
    int64_t next = begin * layer.stride - layer.top;
    for (int64_t y = begin; y < end; y++) {
        for (const int64_t stop = y * layer.stride - layer.top + layer.height; next < stop; next++) {
            const bool inside = next >= 0 && next < input.height;
            const uint8_t *row = inside ? codes + next * input.width * input.channels : nullptr;
            line.advance();
            if (row && expand.present)
                push_expanded(expand, row, line);
            else
                push_row(row, layer.channels, layer.zero, line);
        }
        sift_row(layer, line, output.width, work.codes(output) + y * output.width * layer.channels);
    }
}

// ---- the rest -----------------------------------------------------------------------------------------------------

// A row of a channel of the image; of a resized one, in the scratch memory of line `line`.
const float *image_row(const Step &step, int64_t channel, int64_t row, int line, const Work &work) {
    const Tensor &image = *step.a;
    const float *pixels = work.image + channel * image.pixels();
    if (!step.rows.before) return pixels + row * image.width;
    const int64_t last = image.height - 1, top = step.rows.before[row], bottom = top < last ? top + 1 : last;
    const float *const above = pixels + top * image.width, *const below = pixels + bottom * image.width;
    const float t = step.rows.of_before[row], d = step.rows.of_behind[row];
    float *const made = reinterpret_cast<float *>(work.scratch) + line * step.output->width;
    for (int64_t x = 0; x < step.output->width; x++) {
        const int64_t left = step.columns.before[x], right = left < image.width - 1 ? left + 1 : left;
        const float w = step.columns.of_before[x], e = step.columns.of_behind[x];
        made[x] = above[left] * (w * t) + above[right] * (e * t) + below[left] * (w * d) + below[right] * (e * d);
    }
    return made;
}

// float32 (c, h, w) to codes (h, w, c), four channels of 16 pixels at once; an item is a row.
void run_quantize(const Step &step, int64_t item, const Work &work) {
    const Tensor &tensor = *step.output;
    const int64_t width = tensor.width, channels = tensor.channels;
    const Floats scale = splat(step.scale_a), zero = splat(float(step.zero_a));
    uint8_t *const to = work.codes(tensor) + item * width * channels;
    for (int64_t c = 0; c < channels; c += 4) {
        const int some = int(channels - c < 4 ? channels - c : 4);
        const float *rows[4];
        for (int i = 0; i < some; i++) rows[i] = image_row(step, c + i, item, i, work);
        for (int64_t x = 0; x < width; x += LANES) {
            const int count = int(width - x < LANES ? width - x : LANES);
            Ints word = zeros();
            for (int i = 0; i < 4; i++)
                word = pushed(word, i < some ? quantized(rows[i] + x, count, scale, zero) : zeros());
            alignas(64) uint8_t bytes[LANES][4];
            store_words(bytes, word);
            uint8_t *const first = to + x * channels + c;
            if (some == 4)
                for (int i = 0; i < count; i++) std::memcpy(first + i * channels, bytes[i], 4);
            else if (some == 3)
                for (int i = 0; i < count; i++) std::memcpy(first + i * channels, bytes[i], 3);
            else
                for (int i = 0; i < count; i++) std::memcpy(first + i * channels, bytes[i], some);
        }
    }
}

// Means of all pixels; an item is a vector of channels.
void run_pool(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const int channel = int(item) * LANES, count = layer.channels - channel;
    const uint8_t *from = work.codes(*step.a) + channel;
    Ints sum = ints(layer.offset + channel);
    for (int64_t i = 0; i < step.a->pixels(); i++) sum = plus(sum, load_codes(from + i * layer.channels, count));
    const Floats value = fused(converted(sum), floats(layer.scale + channel), floats(layer.bias + channel));
    store_pixel(work.codes(*step.output) + channel, value, count, layer);
}

// The largest code, or the mean, of each window; an item is a row of the output.
void run_windows(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const Tensor &input = *step.a, &output = *step.output;
    const Floats scale = splat(step.scale_a), zero = splat(float(layer.zero));
    for (int64_t x = 0; x < output.width; x++)
        for (int channel = 0; channel < layer.channels; channel += LANES) {
            const int count = layer.channels - channel;
            uint8_t *const to = work.codes(output) + (item * output.width + x) * layer.channels + channel;
            Ints most = zeros();
            Floats total = splat(0.0f);
            int pixels = 0;
            for (int i = 0; i < layer.height; i++)
                for (int j = 0; j < layer.width; j++) {
                    const int64_t row = item * layer.stride - layer.top + i, column = x * layer.stride - layer.left + j;
                    const bool inside = row >= 0 && row < input.height && column >= 0 && column < input.width;
                    pixels += inside || step.counted;
                    if (!inside) continue;
                    const int64_t at = (row * input.width + column) * layer.channels + channel;
                    const Ints codes = load_codes(work.codes(input) + at, count);
                    most = larger(most, codes);
                    total = plus(total, times(minus(converted(codes), zero), scale));
                }
            if (step.kind == Kind::average) {
                const Floats mean = over(over(total, splat(float(pixels))), floats(layer.scale + channel));
                store_pixel(to, plus(mean, floats(layer.bias + channel)), count, layer);
            } else {
                store_codes(to, most, count);
            }
        }
}

// Codes to some of the channels of another tensor; an item is a row.
void run_copy(const Step &step, int64_t item, const Work &work) {
    const Tensor &input = *step.a, &output = *step.output;
    for (int64_t pixel = item * input.width; pixel < (item + 1) * input.width; pixel++)
        std::memcpy(work.codes(output) + pixel * output.channels + step.channel,
                    work.codes(input) + pixel * input.channels, input.channels);
}

// What a pixel's codes make with another tensor's, or alone; an item is a row.
void run_pixelwise(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const ptrdiff_t channels = step.output->channels, begin = item * step.output->width * channels;
    const uint8_t *const a = work.codes(*step.a) + begin;
    const uint8_t *const b = step.b ? work.codes(*step.b) + (step.kind == Kind::add ? begin : 0) : nullptr;
    uint8_t *const to = work.codes(*step.output) + begin;
    const Floats scale_a = splat(step.scale_a);
    const Floats zero_a = splat(float(step.zero_a)), zero_b = splat(float(step.zero_b));
    for (ptrdiff_t x = 0; x < step.output->width; x++)
        for (ptrdiff_t channel = 0; channel < channels; channel += LANES) {
            const int count = int(channels - channel);
            const ptrdiff_t at = x * channels + channel;
            const Ints codes = load_codes(a + at, count);
            if (step.kind == Kind::table) {
                store_codes(to + at, looked_up(codes, layer.table), count);
                continue;
            }
            const Floats scale = floats(layer.scale + channel), bias = floats(layer.bias + channel);
            Floats value = converted(codes);
            if (step.kind == Kind::add) {
                value = fused(value, scale_a, fused(converted(load_codes(b + at, count)), scale, bias));
            } else {
                const Floats other = minus(converted(load_codes(b + channel, count)), zero_b);
                value = plus(times(times(minus(value, zero_a), other), scale), bias);  // the first product is exact
            }
            store_pixel(to + at, value, count, layer);
        }
}

// float32 of a linear layer; an item is a vector of outputs.
void run_logits(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const int channel = int(item) * LANES;
    Ints sums[1][1];
    multiply<1, 1, false>({work.codes(*step.a), 0}, layer, int(item), sums);
    store_floats(work.result + channel,
                 fused(converted(sums[0][0]), floats(layer.scale + channel), floats(layer.bias + channel)),
                 layer.channels - channel);
}

void run_dequantize(const Step &step, const Work &work) {
    const uint8_t *const codes = work.codes(*step.a);
    const int64_t size = step.a->bytes();
    for (int64_t i = 0; i < size; i += LANES) {
        const int count = int(size - i < LANES ? size - i : LANES);
        const Floats steps = minus(converted(load_codes(codes + i, count)), splat(float(step.zero_a)));
        store_floats(work.result + i, times(steps, splat(step.scale_a)), count);
    }
}

void run(const Step &step, int phase, int64_t item, const Work &work) {
    switch (step.kind) {
        case Kind::quantize: return run_quantize(step, item, work);
        case Kind::pointwise: return run_pointwise(step, step.project, *step.a, item, work);
        case Kind::dense: return run_dense(step, item, work);
        case Kind::depthwise: return run_depthwise(step, item, work);
        case Kind::block:
            return phase == 0 ? run_block(step, item, work)
                              : run_pointwise(step, step.project, *step.between, item, work);
        case Kind::pool: return run_pool(step, item, work);
        case Kind::maximum:
        case Kind::average: return run_windows(step, item, work);
        case Kind::copy: return run_copy(step, item, work);
        case Kind::logits: return run_logits(step, item, work);
        case Kind::dequantize: return run_dequantize(step, work);
        default: return run_pixelwise(step, item, work);
    }
}
