// Vectors of 16 channels in plain C++, for any processor.  `low` stands for the lower 8 lanes.

constexpr int ROWS = 2, VECTORS = 1, PIXELS = 2, BLOCK_ROWS = 2;  // of tiles: products.hpp, blocks.hpp

struct Ints {
    int32_t at[LANES];
};
struct Floats {
    float at[LANES];
};
struct Codes {
    uint8_t at[LANES][4];
};
struct Weights {
    const int8_t *at;
};

#define EACH for (int i = 0; i < LANES; i++)

INLINE Ints splat(int value) {
    Ints made;
    EACH made.at[i] = value;
    return made;
}
INLINE Ints zeros() { return splat(0); }
INLINE Floats splat(float value) {
    Floats made;
    EACH made.at[i] = value;
    return made;
}
INLINE Floats floats(const float *from) {
    Floats made;
    std::memcpy(&made, from, sizeof made);
    return made;
}
INLINE Ints words(const void *from) {
    Ints made;
    std::memcpy(&made, from, sizeof made);
    return made;
}
INLINE void store_words(void *to, Ints value) { std::memcpy(to, &value, sizeof value); }
INLINE Weights weights(const int8_t *from) { return {from}; }
INLINE Weights weights_low(const int8_t *from) { return {from}; }

// The oldest of four codes stands in the lowest byte, whatever the order of bytes in memory.
INLINE Codes prepared(Ints words) {
    Codes made;
    EACH for (int j = 0; j < 4; j++) made.at[i][j] = static_cast<uint8_t>(static_cast<uint32_t>(words.at[i]) >> 8 * j);
    return made;
}
INLINE Codes broadcast(const uint8_t *from) {
    Codes made;
    EACH std::memcpy(made.at[i], from, 4);
    return made;
}

template <int COUNT>
INLINE Ints dot_some(Ints sum, const Codes &codes, Weights weights) {
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < 4; j++) sum.at[i] += int32_t(codes.at[i][j]) * weights.at[4 * i + j];
    return sum;
}
INLINE Ints dot(Ints sum, const Codes &codes, Weights weights) { return dot_some<LANES>(sum, codes, weights); }
INLINE Ints dot_low(Ints sum, const Codes &codes, Weights weights) { return dot_some<8>(sum, codes, weights); }

INLINE Ints ints(const int32_t *from) { return words(from); }
INLINE Ints larger(Ints a, Ints b) {
    EACH a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i];
    return a;
}
INLINE Floats plus(Floats a, Floats b) {
    EACH a.at[i] += b.at[i];
    return a;
}
INLINE Floats over(Floats a, Floats b) {
    EACH a.at[i] /= b.at[i];
    return a;
}
INLINE Ints plus(Ints a, Ints b) {
    EACH a.at[i] += b.at[i];
    return a;
}
INLINE Floats converted(Ints value) {
    Floats made;
    EACH made.at[i] = static_cast<float>(value.at[i]);
    return made;
}
INLINE Floats times(Floats a, Floats b) {
    EACH a.at[i] *= b.at[i];
    return a;
}
INLINE Floats minus(Floats a, Floats b) {
    EACH a.at[i] -= b.at[i];
    return a;
}
INLINE Floats fused(Floats a, Floats b, Floats c) {
    EACH c.at[i] = std::fma(a.at[i], b.at[i], c.at[i]);
    return c;
}

// Any float: what is far from codes is brought near before it becomes an integer.
INLINE int32_t rounded(float value) {
    const float below = value < 1e6f ? value : 1e6f;
    return static_cast<int32_t>(std::nearbyint(below > -1e6f ? below : -1e6f));
}
INLINE Ints rounded(Floats value) {
    Ints made;
    EACH made.at[i] = rounded(value.at[i]);
    return made;
}
INLINE int32_t clipped(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value < high ? value : high;
}
INLINE Ints clipped(Ints value, Ints low, Ints high) {
    EACH value.at[i] = clipped(value.at[i], low.at[i], high.at[i]);
    return value;
}

INLINE Ints pushed(Ints word, Ints next) {
    EACH word.at[i] = static_cast<int32_t>((static_cast<uint32_t>(word.at[i]) >> 8) |
                                           (static_cast<uint32_t>(next.at[i]) << 24));
    return word;
}
INLINE Ints looked_up(Ints codes, const uint8_t *table) {
    EACH codes.at[i] = table[codes.at[i]];
    return codes;
}

INLINE Ints load_codes(const uint8_t *from, int count) {
    Ints made = zeros();
    for (int i = 0; i < LANES && i < count; i++) made.at[i] = from[i];
    return made;
}
INLINE void store_codes(uint8_t *to, Ints codes, int count) {
    for (int i = 0; i < LANES && i < count; i++) to[i] = static_cast<uint8_t>(codes.at[i]);
}

#include "cut.hpp"

INLINE void store_floats(float *to, Floats value, int count) {
    for (int i = 0; i < LANES && i < count; i++) to[i] = value.at[i];
}
INLINE Ints quantized(const float *from, int count, Floats scale, Floats zero) {
    Ints made = zeros();
    for (int i = 0; i < LANES && i < count; i++)
        made.at[i] = clipped(rounded(std::nearbyint(from[i] / scale.at[i]) + zero.at[i]), 0, 255);
    return made;
}

// The lowest `some` bytes of the words of `count` pixels.
INLINE void store_some(uint8_t *to, ptrdiff_t pitch, Ints word, int some, int count) {
    for (int i = 0; i < LANES && i < count; i++)
        for (int j = 0; j < some; j++) to[i * pitch + j] = static_cast<uint8_t>(static_cast<uint32_t>(word.at[i]) >> 8 * j);
}

// Of each of `count` pixels `some` bytes: those of its words in up to four lines, `line` bytes apart.
INLINE void store_lines(uint8_t *to, ptrdiff_t pitch, const uint8_t *lines, ptrdiff_t line, int some, int count) {
    for (int i = 0; 4 * i < some; i++)
        store_some(to + 4 * i, pitch, words(lines + i * line), some - 4 * i < 4 ? some - 4 * i : 4, count);
}

#undef EACH
