// From rounded values to codes, pixel by pixel: where vectors cannot pack those of several at once.

// How values, rounded, become codes: moved by their zero, cut at both ends, and through a table.
struct Cut {
    explicit INLINE Cut(const Layer &layer)
        : zero(splat(layer.output_zero)), low(splat(layer.low)), high(splat(layer.high)), table(layer.table) {}
    INLINE Ints codes(Ints value) const {
        const Ints found = clipped(plus(value, zero), low, high);
        return table ? looked_up(found, table) : found;
    }
    Ints zero, low, high;
    const uint8_t *table;
};

template <int M>
INLINE void store_cut(uint8_t *to, ptrdiff_t pitch, const Ints (&values)[M], int count, const Cut &cut) {
    UNROLL for (int i = 0; i < M; i++) store_codes(to + i * pitch, cut.codes(values[i]), count);
}

// Words with the codes of R new rows: of M pixels, those of a column after each other.
template <int R, int M>
INLINE void push_cut(uint8_t *to, const uint8_t *before, ptrdiff_t pitch, const Ints (&values)[M], const Cut &cut) {
    UNROLL for (int i = 0; i < M / R; i++) {
        Ints word = words(before + i * pitch);
        UNROLL for (int r = 0; r < R; r++) word = pushed(word, cut.codes(values[i * R + r]));
        store_words(to + i * pitch, word);
    }
}
