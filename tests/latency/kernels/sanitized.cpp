// Runs programs of files on images of files, and compares the outputs with those that files have.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "inspect.h"

static std::vector<char> content(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// For each folder: program, images and outputs; by each instruction set.
int main(int count, char **folders) {
    const std::string names = hwnas_instruction_sets();
    for (int i = 1; i < count; i++) {
        const std::string folder = folders[i];
        const auto program = content(folder + "/program"), images = content(folder + "/images"),
                   expected = content(folder + "/outputs");
        for (size_t begin = 0; begin < names.size();) {
            const size_t end = std::min(names.find(' ', begin), names.size());
            const std::string name = names.substr(begin, end - begin);
            begin = end + 1;
            char message[256] = "";
            hwnas_program *opened = hwnas_open(program.data(), program.size(), name.c_str(), message, sizeof message);
            if (!opened) return std::fprintf(stderr, "%s: %s\n", folders[i], message), 1;
            int64_t image, output, steps;
            hwnas_sizes(opened, &image, &output, &steps);
            std::vector<int64_t> times(steps);
            const std::vector<float> x(reinterpret_cast<const float *>(images.data()),
                                       reinterpret_cast<const float *>(images.data() + images.size()));
            for (int number = 0; number < 6; number++) {  // late threads are left behind first, and then waited for
                const int threads = number % 3 + 1;
                if (number == 3) hwnas_crowd(opened);
                std::vector<float> y(expected.size() / 4);
                const int64_t batch = y.size() / output;
                const int failed = number == 0 ? hwnas_run_timed(opened, x.data(), y.data(), batch, times.data())
                                               : hwnas_run(opened, x.data(), y.data(), batch, threads);
                if (failed) return 2;
                if (std::vector<char>(reinterpret_cast<char *>(y.data()),
                                      reinterpret_cast<char *>(y.data() + y.size())) != expected)
                    return std::fprintf(stderr, "%s: other outputs by %s\n", folders[i], name.c_str()), 3;
            }
            hwnas_close(opened);
        }
    }
    return 0;
}
