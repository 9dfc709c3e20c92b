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

// What is far below becomes the least integer, and then `low`; what is far above is met by `high` before.
INLINE Ints rounded(Floats value, Floats high, Ints low) {
    return _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_min_ps(value, high)), low);
}

INLINE Ints pushed(Ints word, Ints next) { return _mm512_shrdi_epi32(word, next, 8); }

INLINE Ints looked_up(Ints codes, const uint8_t *table) {
    const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(table), codes, _mm512_load_si512(table + 64));
    const __m512i upper = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), codes, _mm512_load_si512(table + 192));
    const __m512i found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), lower, upper);
    return _mm512_and_si512(found, _mm512_set1_epi32(255));
}

INLINE __mmask16 mask(int count) { return static_cast<__mmask16>((1u << count) - 1); }

INLINE Ints load_codes(const uint8_t *from, int count) {
    if (count >= LANES) return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask(count), from));
}

INLINE void store_codes(uint8_t *to, Ints codes, int count) {
    const __m128i bytes = _mm512_cvtepi32_epi8(codes);
    if (count >= LANES)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to), bytes);
    else
        _mm_mask_storeu_epi8(to, mask(count), bytes);
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
