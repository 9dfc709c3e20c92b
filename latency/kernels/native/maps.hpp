// What maps codes without weights: images, means, windows, sums and products of tensors; and codes as outputs.

// A row of a channel of the image; of a resized one, in the scratch memory of line `line`.
const float *image_row(const Step &step, int64_t channel, int64_t row, int line, const Work &work) {
    const Tensor &image = *step.a;
    const float *pixels = work.image + channel * image.pixels();
    if (!step.rows.before) return pixels + row * image.width;
    const int64_t last = image.height - 1, top = step.rows.before[row], bottom = top < last ? top + 1 : last;
    const float *const above = pixels + top * image.width, *const below = pixels + bottom * image.width;
    const float t = step.rows.of_before[row], d = step.rows.of_behind[row];
    float *const made = reinterpret_cast<float *>(work.scratch + line * line_of(step.output->width));
    for (int64_t x = 0; x < step.output->width; x++) {
        const int64_t left = step.columns.before[x], right = left < image.width - 1 ? left + 1 : left;
        const float w = step.columns.of_before[x], e = step.columns.of_behind[x];
        made[x] = above[left] * (w * t) + above[right] * (e * t) + below[left] * (w * d) + below[right] * (e * d);
    }
    return made;
}

// float32 (c, h, w) to codes (h, w, c), four channels of 16 pixels at once; an item is a row.  Words of four times four
// channels are lines of the scratch memory until they are stored together.
void run_quantize(const Step &step, int64_t item, const Work &work) {
    const Tensor &tensor = *step.output;
    const int64_t width = tensor.width, channels = tensor.channels, line = line_of(width);
    const Floats scale = splat(step.scale_a), zero = splat(float(step.zero_a));
    uint8_t *const to = work.codes(tensor) + item * width * channels;
    for (int64_t first = 0; first < channels; first += LANES) {
        const int all = int(channels - first < LANES ? channels - first : LANES);
        for (int c = 0; c < all; c += 4) {
            const int some = all - c < 4 ? all - c : 4;
            const float *rows[4];
            for (int i = 0; i < some; i++) rows[i] = image_row(step, first + c + i, item, i, work);
            for (int64_t x = 0; x < width; x += LANES) {
                const int count = int(width - x < LANES ? width - x : LANES);
                Ints word = zeros();
                for (int i = 0; i < 4; i++)
                    word = pushed(word, i < some ? quantized(rows[i] + x, count, scale, zero) : zeros());
                if (all <= 4)
                    store_some(to + x * channels + first, channels, word, some, count);
                else
                    store_words(work.scratch + (4 + c / 4) * line + 4 * x, word);
            }
        }
        for (int64_t x = 0; all > 4 && x < width; x += LANES)
            store_lines(to + x * channels + first, channels, work.scratch + 4 * line + 4 * x, line, all, int(width - x));
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

// Values of codes of two tensors, added: of each vector of a line.
struct Added {
    const uint8_t *a, *b;
    Floats scale_a, scale, bias;
    int count;
    INLINE Floats at(int i) const {
        const Floats other = fused(converted(load_codes(b + i * LANES, count)), scale, bias);
        return fused(converted(load_codes(a + i * LANES, count)), scale_a, other);
    }
};

// A row of codes of another tensor added to a row: where all channels have the same constants, the row is one line.
void run_add(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const Cut cut(layer);
    const ptrdiff_t channels = step.output->channels, row = step.output->width * channels;
    const ptrdiff_t line = layer.uniform ? row : channels;
    const uint8_t *a = work.codes(*step.a) + item * row, *b = work.codes(*step.b) + item * row;
    uint8_t *to = work.codes(*step.output) + item * row;
    for (const uint8_t *end = a + row; a < end; a += line, b += line, to += line)
        for (ptrdiff_t i = 0; i < line;) {
            const float *scale = layer.scale + (layer.uniform ? 0 : i), *bias = layer.bias + (layer.uniform ? 0 : i);
            const Added values{a + i, b + i, splat(step.scale_a), floats(scale), floats(bias), int(line - i)};
            if (layer.uniform && line - i >= 4 * LANES) {
                store_pixels<0, 4>(to + i, LANES, LANES, cut, values);
                i += 4 * LANES;
            } else {
                store_pixels<0, 1>(to + i, LANES, int(line - i), cut, values);
                i += LANES;
            }
        }
}

// A tensor's codes times those of one pixel, or through a table; an item is a row.
void run_pixelwise(const Step &step, int64_t item, const Work &work) {
    const Layer &layer = step.project;
    const ptrdiff_t channels = step.output->channels, begin = item * step.output->width * channels;
    const uint8_t *const a = work.codes(*step.a) + begin, *const b = step.b ? work.codes(*step.b) : nullptr;
    uint8_t *const to = work.codes(*step.output) + begin;
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
            const Floats other = minus(converted(load_codes(b + channel, count)), zero_b);
            const Floats product = times(minus(converted(codes), zero_a), other);  // exact
            store_pixel(to + at, plus(times(product, floats(layer.scale + channel)), floats(layer.bias + channel)), count, layer);
        }
}

// Codes to float32; an item is a row.
void run_dequantize(const Step &step, int64_t item, const Work &work) {
    const int64_t row = step.a->width * step.a->channels;
    const uint8_t *const codes = work.codes(*step.a) + item * row;
    float *const to = work.result + item * row;
    for (int64_t i = 0; i < row; i += LANES) {
        const int count = int(row - i < LANES ? row - i : LANES);
        const Floats steps = minus(converted(load_codes(codes + i, count)), splat(float(step.zero_a)));
        store_floats(to + i, times(steps, splat(step.scale_a)), count);
    }
}
