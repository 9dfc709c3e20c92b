// Blocks: expansion and depthwise convolution without the expanded image.
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
