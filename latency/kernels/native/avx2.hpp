// Vectors of 16 channels as two registers of AVX2.  Without AVX-VNNI, bytes are widened to 16 bits before they are
// multiplied: vpmaddubsw would saturate.  `low` stands for the lower 8 lanes, where the others are not needed.

constexpr int ROWS = 4, VECTORS = 1, PIXELS = 4, BLOCK_ROWS = 6;  // of tiles: products.hpp, blocks.hpp

struct Ints {
    __m256i a, b;
};
struct Floats {
    __m256 a, b;
};

INLINE Ints splat(int value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
INLINE Ints zeros() { return splat(0); }
INLINE Floats splat(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
INLINE Floats floats(const float *from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
INLINE Ints words(const void *from) {
    const auto *at = static_cast<const __m256i *>(from);
    return {_mm256_load_si256(at), _mm256_load_si256(at + 1)};
}
INLINE void store_words(void *to, Ints value) {
    auto *at = static_cast<__m256i *>(to);
    _mm256_store_si256(at, value.a), _mm256_store_si256(at + 1, value.b);
}

#if HWNAS_AVX_VNNI
using Codes = Ints;
using Weights = Ints;
INLINE Codes prepared(Ints words) { return words; }
INLINE Weights weights(const int8_t *from) { return words(from); }
INLINE Ints dot(Ints sum, Codes codes, Weights weights) {
    return {_mm256_dpbusd_avx_epi32(sum.a, codes.a, weights.a), _mm256_dpbusd_avx_epi32(sum.b, codes.b, weights.b)};
}
INLINE Ints dot_low(Ints sum, Codes codes, Weights weights) {
    return {_mm256_dpbusd_avx_epi32(sum.a, codes.a, weights.a), sum.b};
}
#else
struct Codes {
    Ints even, odd;
};
struct Weights {
    Ints even, odd;
};
INLINE __m256i even_codes(__m256i word) { return _mm256_and_si256(word, _mm256_set1_epi32(0x00ff00ff)); }
INLINE __m256i odd_codes(__m256i word) { return _mm256_srli_epi16(word, 8); }
INLINE __m256i even_weights(__m256i word) { return _mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8); }
INLINE __m256i odd_weights(__m256i word) { return _mm256_srai_epi16(word, 8); }
INLINE Codes prepared(Ints word) {
    return {{even_codes(word.a), even_codes(word.b)}, {odd_codes(word.a), odd_codes(word.b)}};
}
INLINE Weights weights(const int8_t *from) {
    const Ints word = words(from);
    return {{even_weights(word.a), even_weights(word.b)}, {odd_weights(word.a), odd_weights(word.b)}};
}
INLINE __m256i widened(__m256i sum, __m256i codes, __m256i weights) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(codes, weights));
}
INLINE Ints dot_low(Ints sum, Codes codes, Weights weights) {
    return {widened(widened(sum.a, codes.even.a, weights.even.a), codes.odd.a, weights.odd.a), sum.b};
}
INLINE Ints dot(Ints sum, Codes codes, Weights weights) {
    const Ints lower = dot_low(sum, codes, weights);
    return {lower.a, widened(widened(sum.b, codes.even.b, weights.even.b), codes.odd.b, weights.odd.b)};
}
#endif
INLINE Weights weights_low(const int8_t *from) { return weights(from); }

INLINE Codes broadcast(const uint8_t *from) {
    int32_t four;
    std::memcpy(&four, from, 4);
    return prepared(splat(four));
}

INLINE Ints ints(const int32_t *from) {
    const auto *at = reinterpret_cast<const __m256i *>(from);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
INLINE Ints larger(Ints x, Ints y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
INLINE Floats plus(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE Floats over(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE Ints plus(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
INLINE Floats converted(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE Floats times(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE Floats minus(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE Floats fused(Floats x, Floats y, Floats z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

INLINE Ints rounded(Floats x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
INLINE Ints clipped(Ints x, Ints low, Ints high) {
    return {_mm256_min_epi32(_mm256_max_epi32(x.a, low.a), high.a),
            _mm256_min_epi32(_mm256_max_epi32(x.b, low.b), high.b)};
}

INLINE __m256i pushed(__m256i word, __m256i next) {
    return _mm256_or_si256(_mm256_srli_epi32(word, 8), _mm256_slli_epi32(next, 24));
}
INLINE Ints pushed(Ints word, Ints next) { return {pushed(word.a, next.a), pushed(word.b, next.b)}; }

INLINE Ints load_codes(const uint8_t *from, int count) {
    uint8_t some[LANES] = {};
    if (count < LANES) std::memcpy(some, from, count);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(count < LANES ? some : from));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}

INLINE __m128i narrowed(Ints codes) {
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(codes.a, codes.b), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

INLINE void store_bytes(uint8_t *to, __m128i bytes, int count) {
    if (count >= LANES) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to), bytes);
        return;
    }
    uint8_t some[LANES];
    _mm_storeu_si128(reinterpret_cast<__m128i *>(some), bytes);
    std::memcpy(to, some, count);
}

INLINE void store_codes(uint8_t *to, Ints codes, int count) { store_bytes(to, narrowed(codes), count); }

INLINE Ints looked_up(Ints codes, const uint8_t *table) {
    uint8_t some[LANES];
    store_codes(some, codes, LANES);
    for (int i = 0; i < LANES; i++) some[i] = table[some[i]];
    return load_codes(some, LANES);
}

#include "cut.hpp"

INLINE void store_floats(float *to, Floats value, int count) {
    float some[LANES];
    _mm256_storeu_ps(some, value.a), _mm256_storeu_ps(some + 8, value.b);
    std::memcpy(to, some, 4 * (count < LANES ? count : LANES));
}

INLINE __m256i quantized(__m256 value, __m256 scale, __m256 zero) {
    const __m256 steps = _mm256_round_ps(_mm256_div_ps(value, scale), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 moved = _mm256_min_ps(_mm256_add_ps(steps, zero), _mm256_set1_ps(255.0f));
    return _mm256_cvtps_epi32(_mm256_max_ps(moved, _mm256_setzero_ps()));
}
INLINE Ints quantized(const float *from, int count, Floats scale, Floats zero) {
    float some[LANES] = {};
    std::memcpy(some, from, 4 * (count < LANES ? count : LANES));
    return {quantized(_mm256_loadu_ps(some), scale.a, zero.a), quantized(_mm256_loadu_ps(some + 8), scale.b, zero.b)};
}

// The lowest `some` bytes of the words of `count` pixels.
INLINE void store_some(uint8_t *to, ptrdiff_t pitch, Ints word, int some, int count) {
    alignas(32) uint8_t bytes[LANES][4];
    store_words(bytes, word);
    scatter(to, pitch, bytes, some, count);
}

// Of each of `count` pixels `some` bytes: those of its words in up to four lines, `line` bytes apart.
INLINE void store_lines(uint8_t *to, ptrdiff_t pitch, const uint8_t *lines, ptrdiff_t line, int some, int count) {
    for (int i = 0; 4 * i < some; i++)
        store_some(to + 4 * i, pitch, words(lines + i * line), some - 4 * i < 4 ? some - 4 * i : 4, count);
}
