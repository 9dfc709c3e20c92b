// Vectors of 16 channels in AVX-512 with VNNI, VBMI and VBMI2.  Dot products and broadcasts of hot loops are assembly:
// compilers copy accumulators of the intrinsics.  `low` stands for the lower 8 lanes, where the others are not needed.

constexpr int ROWS = 8, VECTORS = 3, PIXELS = 14, BLOCK_ROWS = 14;  // of tiles: products.hpp, blocks.hpp

using Ints = __m512i;
using Floats = __m512;
using Codes = __m512i;
using Weights = __m512i;

INLINE Ints zeros() { return _mm512_setzero_si512(); }
INLINE Ints splat(int value) { return _mm512_set1_epi32(value); }
INLINE Floats splat(float value) { return _mm512_set1_ps(value); }
INLINE Floats floats(const float *from) { return _mm512_loadu_ps(from); }
INLINE Ints words(const void *from) { return _mm512_load_si512(from); }
INLINE void store_words(void *to, Ints value) { _mm512_store_si512(to, value); }
INLINE Weights weights(const int8_t *from) { return _mm512_load_si512(from); }
INLINE Weights weights_low(const int8_t *from) {
    return _mm512_zextsi256_si512(_mm256_load_si256(reinterpret_cast<const __m256i *>(from)));
}
INLINE Codes prepared(Ints words) { return words; }

#if HWNAS_PLAIN
INLINE Codes broadcast(const uint8_t *from) {
    int32_t four;
    std::memcpy(&four, from, 4);
    return _mm512_set1_epi32(four);
}
INLINE Ints dot(Ints sum, Codes codes, Weights weights) { return _mm512_dpbusd_epi32(sum, codes, weights); }
INLINE Ints dot_low(Ints sum, Codes codes, Weights weights) { return _mm512_dpbusd_epi32(sum, codes, weights); }
#else
struct __attribute__((packed, may_alias)) Four {
    int32_t value;
};
INLINE Codes broadcast(const uint8_t *from) {
    Codes codes;
    asm volatile("vpbroadcastd %1,%0" : "=v"(codes) : "m"(*reinterpret_cast<const Four *>(from)));
    return codes;
}
INLINE Ints dot(Ints sum, Codes codes, Weights weights) {
    asm("vpdpbusd %2,%1,%0" : "+v"(sum) : "v"(codes), "v"(weights));
    return sum;
}
INLINE Ints dot_low(Ints sum, Codes codes, Weights weights) {
    asm("vpdpbusd %t2,%t1,%t0" : "+v"(sum) : "v"(codes), "v"(weights));
    return sum;
}
#endif

INLINE Ints ints(const int32_t *from) { return _mm512_loadu_si512(from); }
INLINE Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
INLINE Ints larger(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
INLINE Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
INLINE Floats over(Floats a, Floats b) { return _mm512_div_ps(a, b); }
INLINE Floats converted(Ints value) { return _mm512_cvtepi32_ps(value); }
INLINE Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
INLINE Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }

INLINE Ints rounded(Floats value) { return _mm512_cvtps_epi32(value); }

INLINE Ints pushed(Ints word, Ints next) { return _mm512_shrdi_epi32(word, next, 8); }

INLINE __m512i looked_up(__m512i codes, const uint8_t *table) {  // bytes
    const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(table), codes, _mm512_load_si512(table + 64));
    const __m512i upper = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), codes, _mm512_load_si512(table + 192));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), lower, upper);
}

INLINE __mmask16 mask(int count) { return static_cast<__mmask16>((1u << count) - 1); }

INLINE Ints load_codes(const uint8_t *from, int count) {
    if (count >= LANES) return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask(count), from));
}

INLINE void store_bytes(uint8_t *to, __m128i bytes, int count) {
    if (count >= LANES)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to), bytes);
    else
        _mm_mask_storeu_epi8(to, mask(count), bytes);
}

INLINE void store_codes(uint8_t *to, Ints codes, int count) { store_bytes(to, _mm512_cvtepi32_epi8(codes), count); }

// How values, rounded, become codes: moved by their zero, cut at both ends, and through a table.
struct Cut {
    explicit INLINE Cut(const Layer &layer)
        : zero(_mm512_set1_epi16(short(layer.output_zero))), low(_mm512_set1_epi8(char(layer.low))),
          high(_mm512_set1_epi8(char(layer.high))), table(layer.table),
          plain(!layer.output_zero && !layer.low && layer.high == 255 && !layer.table) {}
    __m512i zero, low, high;
    const uint8_t *table;
    bool plain;
};

// Codes of M pixels, at most 4: of each four channels those of one pixel after those of the other.
template <int M>
INLINE __m512i packed(const Ints (&values)[M], const Cut &cut) {
    __m512i former = _mm512_packs_epi32(values[0], values[M > 1 ? 1 : 0]);
    __m512i latter = M > 2 ? _mm512_packs_epi32(values[M > 2 ? 2 : 0], values[M > 3 ? 3 : 0]) : former;
    if (cut.plain) return _mm512_packus_epi16(former, latter);
    former = _mm512_adds_epi16(former, cut.zero);
    latter = M > 2 ? _mm512_adds_epi16(latter, cut.zero) : former;
    const __m512i all = _mm512_packus_epi16(former, latter);
    const __m512i codes = _mm512_min_epu8(_mm512_max_epu8(all, cut.low), cut.high);
    return cut.table ? looked_up(codes, cut.table) : codes;
}

template <int M>
INLINE void store_cut(uint8_t *to, ptrdiff_t pitch, const Ints (&values)[M], int count, const Cut &cut) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i codes = _mm512_permutexvar_epi32(order, packed<M>(values, cut));
    store_bytes(to, _mm512_castsi512_si128(codes), count);
    if (M > 1) store_bytes(to + pitch, _mm512_extracti32x4_epi32(codes, 1), count);
    if (M > 2) store_bytes(to + 2 * pitch, _mm512_extracti32x4_epi32(codes, 2), count);
    if (M > 3) store_bytes(to + 3 * pitch, _mm512_extracti32x4_epi32(codes, 3), count);
}

struct Order {  // of bytes
    alignas(64) uint8_t at[4][64];
};

// For each column of `packed`, the bytes of its words: some of those before, and the codes of new rows, pixel by pixel.
constexpr Order pushed_order(int rows) {
    Order order{};
    for (int column = 0; column < 4 / rows; column++)
        for (int channel = 0; channel < LANES; channel++)
            for (int i = 0; i < 4; i++) {
                const int pixel = column * rows + i + rows - 4, made = 64 + channel / 4 * 16 + pixel * 4 + channel % 4;
                order.at[column][4 * channel + i] = uint8_t(i + rows < 4 ? 4 * channel + i + rows : made);
            }
    return order;
}
template <int R>
constexpr Order PUSHED_ORDER = pushed_order(R);

// For the first bytes of all words, 1 to 4 of each: where they are.
constexpr Order some_order() {
    Order order{};
    for (int some = 1; some <= 4; some++)
        for (int i = 0; i < LANES * some; i++) order.at[some - 1][i] = uint8_t(i / some * 4 + i % some);
    return order;
}
constexpr Order SOME_ORDER = some_order();

// Words with the codes of R new rows: of M pixels, at most 4, those of a column after each other.
template <int R, int M>
INLINE void push_cut(uint8_t *to, const uint8_t *before, ptrdiff_t pitch, const Ints (&values)[M], const Cut &cut) {
    const __m512i codes = packed<M>(values, cut);
    UNROLL for (int i = 0; i < M / R; i++) {
        const __m512i order = _mm512_load_si512(PUSHED_ORDER<R>.at[i]);
        store_words(to + i * pitch, _mm512_permutex2var_epi8(words(before + i * pitch), order, codes));
    }
}

INLINE void store_floats(float *to, Floats value, int count) {
    if (count >= LANES)
        _mm512_storeu_ps(to, value);
    else
        _mm512_mask_storeu_ps(to, mask(count), value);
}

INLINE Ints quantized(const float *from, int count, Floats scale, Floats zero) {
    const Floats value = count >= LANES ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(mask(count), from);
    const Floats steps = _mm512_roundscale_ps(_mm512_div_ps(value, scale), 0);
    const Floats moved = _mm512_min_ps(_mm512_add_ps(steps, zero), _mm512_set1_ps(255.0f));
    return _mm512_cvtps_epi32(_mm512_max_ps(moved, _mm512_setzero_ps()));
}

// The lowest `some` bytes of the words of `count` pixels.
INLINE void store_some(uint8_t *to, ptrdiff_t pitch, Ints word, int some, int count) {
    if (pitch != some) {
        alignas(64) uint8_t bytes[LANES][4];
        store_words(bytes, word);
        return scatter(to, pitch, bytes, some, count);
    }
    const __m512i order = _mm512_load_si512(SOME_ORDER.at[some - 1]);
    const int bytes = some * (count < LANES ? count : LANES);
    _mm512_mask_storeu_epi8(to, ~0ull >> (64 - bytes), _mm512_permutexvar_epi8(order, word));
}

// Of each of `count` pixels `some` bytes: those of its words in up to four lines, `line` bytes apart.
INLINE void store_lines(uint8_t *to, ptrdiff_t pitch, const uint8_t *lines, ptrdiff_t line, int some, int count) {
    Ints from[4];
    UNROLL for (int i = 0; i < 4; i++) from[i] = 4 * i < some ? words(lines + i * line) : zeros();
    const __m512i a = _mm512_unpacklo_epi32(from[0], from[1]), b = _mm512_unpackhi_epi32(from[0], from[1]);
    const __m512i c = _mm512_unpacklo_epi32(from[2], from[3]), d = _mm512_unpackhi_epi32(from[2], from[3]);
    const __m512i each[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
                             _mm512_unpackhi_epi64(b, d)};
    UNROLL for (int i = 0; i < 4; i++) {
        if (i < count) store_bytes(to + i * pitch, _mm512_castsi512_si128(each[i]), some);
        if (4 + i < count) store_bytes(to + (4 + i) * pitch, _mm512_extracti32x4_epi32(each[i], 1), some);
        if (8 + i < count) store_bytes(to + (8 + i) * pitch, _mm512_extracti32x4_epi32(each[i], 2), some);
        if (12 + i < count) store_bytes(to + (12 + i) * pitch, _mm512_extracti32x4_epi32(each[i], 3), some);
    }
}
