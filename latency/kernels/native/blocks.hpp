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

    static constexpr ptrdiff_t PITCH = GROUP * 64;  // from column to column, whatever number of vectors
    ptrdiff_t bytes() const { return (left + width + right) * PITCH; }
    uint8_t *row(int past) const { return memory + (newest + kept - past) % kept * bytes(); }
    void advance(int rows) {
        newest = (newest + rows) % kept;
        words = row(0), before = row(rows % kept), former = row(4 % kept);
    }
};

// Pixels from FIRST on, four at a time, of M of a vector, of R rows at once.
template <int R, int FIRST, int M, class Values>
INLINE void push_pixels(uint8_t *to, const uint8_t *before, ptrdiff_t pitch, const Cut &cut, const Values &values) {
    if constexpr (FIRST < M) {
        constexpr int SOME = M - FIRST < 4 ? M - FIRST : 4;
        Ints some[SOME];
        UNROLL for (int i = 0; i < SOME; i++) some[i] = rounded(values.at(FIRST + i));
        push_cut<R, SOME>(to + FIRST / R * pitch, before + FIRST / R * pitch, pitch, some, cut);
        push_pixels<R, FIRST + SOME, M>(to, before, pitch, cut, values);
    }
}

template <int R, int M, int N>
INLINE void push_codes(const Layer &layer, const Line &line, int j, Ints (&sums)[M][N], ptrdiff_t column) {
    const Cut cut(layer);
    const ptrdiff_t at = column * Line::PITCH + j * 64;
    UNROLL for (int n = 0; n < N; n++) {
        const int channel = (line.vector + j + n) * LANES;
        const Sums<M, N> values{
            sums, n, floats(layer.scale + channel), floats(layer.bias + channel), splat(0.0f), nullptr, 0, 0};
        push_pixels<R, 0, M>(line.words + at + n * 64, line.before + at + n * 64, Line::PITCH, cut, values);
    }
}

template <int R, int M, int N>
void push_tile(const Columns<R> &codes, const Layer &layer, const Line &line, int j, ptrdiff_t column) {
    Ints sums[M][N];
    multiply<M, N, false>(codes, layer, line.vector + j, sums);
    push_codes<R, M, N>(layer, line, j, sums, column);
}

template <int R>
using Pusher = void (*)(const Columns<R> &, const Layer &, const Line &, int, ptrdiff_t);

template <int R, int N, int COLUMNS = ROWS / R>
Pusher<R> pusher_of(int columns) {
    if constexpr (COLUMNS > 1)
        if (columns < COLUMNS) return pusher_of<R, N, COLUMNS - 1>(columns);
    return push_tile<R, COLUMNS * R, N>;
}

template <int R, int N = VECTORS>
Pusher<R> pusher_with(int vectors, int columns) {
    if constexpr (N > 1)
        if (vectors < N) return pusher_with<R, N - 1>(vectors, columns);
    return pusher_of<R, N>(columns);
}

template <int R, int M>
void push_tile_of_blocks(const Columns<R> &codes, const Layer &layer, const Line &line, int j, ptrdiff_t column) {
    Ints sums[M][1];
    multiply_blocks<M, false>(codes, layer, line.vector + j, sums);
    push_codes<R, M, 1>(layer, line, j, sums, column);
}

template <int R, int COLUMNS = BLOCK_ROWS / R>
Pusher<R> pusher_of_blocks(int columns) {
    if constexpr (COLUMNS > 1)
        if (columns < COLUMNS) return pusher_of_blocks<R, COLUMNS - 1>(columns);
    return push_tile_of_blocks<R, COLUMNS * R>;
}

// Pushes expanded codes of R rows.
template <int R>
void push_expanded(const Layer &layer, const Columns<R> &rows, const Line &line) {
    const int most = layer.blocks ? 1 : VECTORS;
    const Parts tiles(line.width, (layer.blocks ? BLOCK_ROWS : ROWS) / R);
    for (int j = 0; j < line.vectors; j += most) {
        const int n = most < line.vectors - j ? most : line.vectors - j;
        const auto pusher = [&](int columns) {
            return layer.blocks ? pusher_of_blocks<R>(columns) : pusher_with<R>(n, columns);
        };
        const Pusher<R> larger = pusher(tiles.size), smaller = pusher(tiles.size - 1);
        for (int tile = 0, x = 0; tile < tiles.large + tiles.small; tile++) {
            (tile < tiles.large ? larger : smaller)(rows.moved(x * rows.pitch), layer, line, j, line.left + x);
            x += tiles.size - (tile >= tiles.large);
        }
    }
}

// Pushes R rows of `channels` codes as they stand.
template <int R>
void push_rows(const Columns<R> &rows, int channels, const Line &line) {
    for (int x = 0; x < line.width; x++)
        for (int j = 0; j < line.vectors; j++) {
            const int channel = (line.vector + j) * LANES;
            const ptrdiff_t at = (line.left + x) * Line::PITCH + j * 64;
            Ints word = words(line.before + at);
            UNROLL for (int r = 0; r < R; r++)
                word = pushed(word, load_codes(rows.rows[r] + x * rows.pitch + channel, channels - channel));
            store_words(line.words + at, word);
        }
}

// Pushes a row of zeros.
void push_padding(int zero, const Line &line) {
    const Ints codes = splat(zero);
    for (ptrdiff_t at = line.left * Line::PITCH, end = at + line.width * Line::PITCH; at < end; at += Line::PITCH)
        for (int j = 0; j < line.vectors; j++)
            store_words(line.words + at + j * 64, pushed(words(line.before + at + j * 64), codes));
}

template <int M>
struct Sifted {  // values of M pixels
    const Ints (&sums)[M];
    Floats scale, bias;
    INLINE Floats at(int i) const { return fused(converted(sums[i]), scale, bias); }
};

// Codes of M pixels of a vector: of the words of the newest rows, and of those of four rows before.
template <int K, int STRIDE, int M>
void sift(const Layer &layer, const int8_t *weight, int vector, const uint8_t *newest, const uint8_t *former,
          uint8_t *to) {
    constexpr int WORDS = K / 4 + 1;
    Weights taps[WORDS][K];
    weight += ptrdiff_t(vector) * WORDS * K * 64;
    UNROLL for (int r = 0; r < WORDS; r++) UNROLL for (int i = 0; i < K; i++)
        taps[r][i] = weights(weight + (r * K + i) * 64);
    Ints sums[M];
    UNROLL for (int i = 0; i < M; i++) sums[i] = ints(layer.offset + vector * LANES);
    UNROLL for (int c = 0; c < (M - 1) * STRIDE + K; c++) UNROLL for (int r = 0; r < WORDS; r++) {
        const Codes four = prepared(words((r == WORDS - 1 ? newest : former) + c * Line::PITCH));
        UNROLL for (int i = 0; i < M; i++) {
            const int tap = c - i * STRIDE;
            if (tap >= 0 && tap < K) sums[i] = dot(sums[i], four, taps[r][tap]);
        }
    }
    const Sifted<M> values{sums, floats(layer.scale + vector * LANES), floats(layer.bias + vector * LANES)};
    store_pixels<0, M>(to, layer.channels, layer.channels - vector * LANES, Cut(layer), values);
}

using Sifter = void (*)(const Layer &, const int8_t *, int, const uint8_t *, const uint8_t *, uint8_t *);

template <int K, int STRIDE, int M = PIXELS>
Sifter sifter_of(int pixels) {
    if constexpr (M > 1)
        if (pixels < M) return sifter_of<K, STRIDE, M - 1>(pixels);
    return sift<K, STRIDE, M>;
}

// All pixels of a row in nearly equal tiles.
template <int K, int STRIDE>
void sift_row(const Layer &layer, const int8_t *weight, const Line &line, int64_t width, uint8_t *to) {
    const Parts tiles(int(width), PIXELS);
    const Sifter larger = sifter_of<K, STRIDE>(tiles.size), smaller = sifter_of<K, STRIDE>(tiles.size - 1);
    for (int j = 0; j < line.vectors; j++) {
        const uint8_t *newest = line.words + j * 64, *former = line.former + j * 64;
        uint8_t *at = to + (line.vector + j) * LANES;
        for (int tile = 0; tile < tiles.large + tiles.small; tile++) {
            const int pixels = tiles.size - (tile >= tiles.large);
            (tile < tiles.large ? larger : smaller)(layer, weight, line.vector + j, newest, former, at);
            newest += pixels * STRIDE * Line::PITCH, former += pixels * STRIDE * Line::PITCH;
            at += ptrdiff_t(pixels) * layer.channels;
        }
    }
}

void sift_row(const Layer &layer, const int8_t *weight, const Line &line, int64_t width, uint8_t *to) {
    switch (layer.height * 2 + layer.stride) {
        case 7: return sift_row<3, 1>(layer, weight, line, width, to);
        case 8: return sift_row<3, 2>(layer, weight, line, width, to);
        case 11: return sift_row<5, 1>(layer, weight, line, width, to);
        case 12: return sift_row<5, 2>(layer, weight, line, width, to);
        case 15: return sift_row<7, 1>(layer, weight, line, width, to);
        default: return sift_row<7, 2>(layer, weight, line, width, to);
    }
}

// Pushes R rows of the input from `codes` on, of `pitch` bytes.
template <int R>
void push_input(const Step &step, const uint8_t *codes, int64_t pitch, Line &line) {
    Columns<R> rows{{}, step.a->channels};
    for (int r = 0; r < R; r++) rows.rows[r] = codes + r * pitch;
    line.advance(R);
    if (step.expand.present)
        push_expanded(step.expand, rows, line);
    else
        push_rows(rows, step.depthwise.channels, line);
}

// Codes of columns from FIRST on, of M, in two rows: four are made as soon as their sums are complete.
template <int FIRST, int M>
INLINE void sift_columns(const Layer &layer, int vector, const Weights (&taps)[2][3], const uint8_t *newest, uint8_t *to,
                         ptrdiff_t below, const Cut &cut, const Sifted<M> (&values)[2], Ints (&sums)[2][M]) {
    if constexpr (FIRST < M) {
        constexpr int LAST = FIRST + 4 < M ? FIRST + 4 : M;
        UNROLL for (int c = FIRST ? FIRST + 2 : 0; c < LAST + 2; c++) {
            const Codes four = prepared(words(newest + c * Line::PITCH));
            UNROLL for (int i = 0; i < M; i++) UNROLL for (int r = 0; r < 2; r++) {
                const int tap = c - i;
                if (tap == 0) sums[r][i] = ints(layer.offset + vector * LANES);
                if (tap >= 0 && tap < 3) sums[r][i] = dot(sums[r][i], four, taps[r][tap]);
            }
        }
        UNROLL for (int r = 0; r < 2; r++)
            store_pixels<FIRST, LAST>(to + r * below, layer.channels, layer.channels - vector * LANES, cut, values[r]);
        sift_columns<LAST, M>(layer, vector, taps, newest, to, below, cut, values, sums);
    }
}

template <int M>
void sift_two(const Layer &layer, int vector, const uint8_t *newest, uint8_t *to, ptrdiff_t below) {
    Weights taps[2][3];
    UNROLL for (int i = 0; i < 3; i++) {
        taps[0][i] = weights(layer.earlier + (ptrdiff_t(vector) * 3 + i) * 64);
        taps[1][i] = weights(layer.weight + (ptrdiff_t(vector) * 3 + i) * 64);
    }
    Ints sums[2][M];
    const Floats scale = floats(layer.scale + vector * LANES), bias = floats(layer.bias + vector * LANES);
    const Sifted<M> values[2] = {{sums[0], scale, bias}, {sums[1], scale, bias}};
    sift_columns<0, M>(layer, vector, taps, newest, to, below, Cut(layer), values, sums);
}

using TwoSifter = void (*)(const Layer &, int, const uint8_t *, uint8_t *, ptrdiff_t);

template <int M = PIXELS>
TwoSifter two_sifter_of(int columns) {
    if constexpr (M > 1)
        if (columns < M) return two_sifter_of<M - 1>(columns);
    return sift_two<M>;
}

// All pixels of two rows, `below` bytes apart, for a kernel of 3: there are registers for the weights of both.
void sift_rows(const Layer &layer, const Line &line, int64_t width, uint8_t *to, ptrdiff_t below) {
    const Parts tiles(int(width), PIXELS);
    const TwoSifter larger = two_sifter_of(tiles.size), smaller = two_sifter_of(tiles.size - 1);
    for (int j = 0; j < line.vectors; j++) {
        const uint8_t *newest = line.words + j * 64;
        uint8_t *at = to + (line.vector + j) * LANES;
        for (int tile = 0; tile < tiles.large + tiles.small; tile++) {
            const int columns = tiles.size - (tile >= tiles.large);
            (tile < tiles.large ? larger : smaller)(layer, line.vector + j, newest, at, below);
            newest += columns * Line::PITCH, at += ptrdiff_t(columns) * layer.channels;
        }
    }
}

// Depthwise codes of a block; an item is some rows of a group of channels.
//
// Rows are pushed in twos where there are two, so that words of the row between them are never made: with a stride of 1
// its codes are sifted from the words of the next, by weights that are a row earlier.
void run_block(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.depthwise;
    const Tensor &input = *step.a, &output = step.project.present ? *step.between : *step.output;
    const int vectors = layer.vectors(), groups = parts(vectors, GROUP);
    const int group = int(item % groups);
    const int first = group * vectors / groups, last = (group + 1) * vectors / groups;
    const int kept = lines_of(layer);
    uint8_t *const zeros = work.scratch;  // until rows are pushed
    Line line{zeros, first, last - first, kept, layer.left, int(input.width), layer.right, 0, zeros, zeros, zeros};
    const int64_t band = item / groups;
    const int64_t begin = band * output.height / work.bands, end = (band + 1) * output.height / work.bands;
    std::memset(line.memory, layer.zero, line.bytes() * kept);
    const uint8_t *const codes = work.codes(input);
    const int64_t pitch = input.width * input.channels, made = output.width * layer.channels;
    const int most = layer.stride == 1 ? 2 : 1;  // rows of the output that are made of the same words
    int rows = (end - begin) % most ? 1 : most;
    int64_t next = begin * layer.stride - layer.top;
    for (int64_t y = begin; y < end; y += rows, rows = most) {
        for (const int64_t stop = (y + rows - 1) * layer.stride - layer.top + layer.height; next < stop; next++) {
            if (next < 0) continue;  // the words are zeros
            if ((stop - next) % 2 == 0 && next + 1 < input.height)
                push_input<2>(step, codes + next++ * pitch, pitch, line);
            else if (next < input.height)
                push_input<1>(step, codes + next * pitch, pitch, line);
            else
                line.advance(1), push_padding(layer.zero, line);
        }
        uint8_t *const to = work.codes(output) + y * made;
        if (rows == 2 && layer.height == 3) {
            sift_rows(layer, line, output.width, to, made);
        } else {
            if (rows == 2) sift_row(layer, layer.earlier, line, output.width, to);
            sift_row(layer, layer.weight, line, output.width, to + (rows - 1) * made);
        }
    }
}
