// Vectors of 16 channels in AVX-512 with VNNI, VBMI and VBMI2.  Dot products and broadcasts of hot loops are assembly:
// compilers copy accumulators of the intrinsics.  `low` stands for the lower 8 lanes, where the others are not needed.

constexpr int ROWS = 8, VECTORS = 3, PIXELS = 7, BLOCK_ROWS = 28;  // of tiles: kernels.hpp

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

INLINE Codes broadcast_some(const uint8_t *from, int count) {
    uint32_t some = 0;
    for (int i = 0; i < count; i++) some |= uint32_t(from[i]) << 8 * i;
    return _mm512_set1_epi32(static_cast<int>(some));
}

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
INLINE Ints clipped(Ints value, Ints low, Ints high) { return _mm512_min_epi32(_mm512_max_epi32(value, low), high); }

INLINE Ints pushed(Ints word, Ints next) { return _mm512_shrdi_epi32(word, next, 8); }

INLINE __m512i looked_up_bytes(__m512i codes, const uint8_t *table) {
    const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(table), codes, _mm512_load_si512(table + 64));
    const __m512i upper = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), codes, _mm512_load_si512(table + 192));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), lower, upper);
}

INLINE Ints looked_up(Ints codes, const uint8_t *table) {
    return _mm512_and_si512(looked_up_bytes(codes, table), _mm512_set1_epi32(255));
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

// Integers of M pixels, at most 4, as codes cut at both ends, through a table where there is one.
struct Ends {
    INLINE Ends(int from, int to) : low(_mm512_set1_epi8(char(from))), high(_mm512_set1_epi8(char(to))) {}
    __m512i low, high;
};
template <int M>
INLINE void store_cut(uint8_t *to, ptrdiff_t pitch, const Ints (&values)[M], int count, const Ends &ends,
                      const uint8_t *table) {
    const __m512i former = _mm512_packs_epi32(values[0], values[M > 1 ? 1 : 0]);
    const __m512i latter = M > 2 ? _mm512_packs_epi32(values[M > 2 ? 2 : 0], values[M > 3 ? 3 : 0]) : former;
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i codes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(former, latter));
    codes = _mm512_min_epu8(_mm512_max_epu8(codes, ends.low), ends.high);
    if (table) codes = looked_up_bytes(codes, table);
    store_bytes(to, _mm512_castsi512_si128(codes), count);
    if (M > 1) store_bytes(to + pitch, _mm512_extracti32x4_epi32(codes, 1), count);
    if (M > 2) store_bytes(to + 2 * pitch, _mm512_extracti32x4_epi32(codes, 2), count);
    if (M > 3) store_bytes(to + 3 * pitch, _mm512_extracti32x4_epi32(codes, 3), count);
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
