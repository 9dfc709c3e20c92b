// Runs the sample input, and compares the outputs with those that the network gave where it was exported.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <vector>

#include "hwnas.h"

template <class T>
std::vector<T> content(const char *name) {
    std::ifstream file(name, std::ios::binary | std::ios::ate);
    std::vector<T> values(file ? static_cast<size_t>(file.tellg()) / sizeof(T) : 0);
    file.seekg(0).read(reinterpret_cast<char *>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
    return values;
}

int main() {
    const auto weights = content<char>("weights.bin");
    const auto input = content<float>("sample-input.bin"), expected = content<float>("sample-output.bin");
    if (weights.empty() || input.empty() || expected.empty())
        return std::printf("weights.bin and both samples have to be in the current folder\n"), 1;
    char message[256];
    hwnas_program *network = hwnas_open(weights.data(), weights.size(), nullptr, message, sizeof message);
    if (!network) return std::printf("%s\n", message), 1;
    std::vector<float> output(expected.size());
    const bool ran = hwnas_run(network, input.data(), output.data(), 1, 1) == 0;  // one image in one thread
    const bool same = ran && std::memcmp(output.data(), expected.data(), 4 * output.size()) == 0;
    const auto top = std::max_element(output.begin(), output.end()) - output.begin();
    std::printf("class %d; outputs are %s\n", static_cast<int>(top), same ? "as expected" : "NOT as expected");
    hwnas_close(network);
    return same ? 0 : 1;
}
