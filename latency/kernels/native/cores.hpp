// Cores that threads may use and are on, as far as the system tells: on Linux.
#pragma once

#if defined(__linux__)
#include <sched.h>
#endif

#include <climits>

namespace hwnas {

class Cores {  // that the calling thread may use
  public:
#if defined(__linux__)
    Cores() {
        if (sched_getaffinity(0, sizeof all_, &all_) != 0) CPU_ZERO(&all_);
        others_ = all_;
    }

    int count() const { return CPU_COUNT(&all_) ? CPU_COUNT(&all_) : INT_MAX; }

    // The one that the calling thread is on; -1 where that is not known.
    static int present() { return sched_getcpu(); }

    void without(int core) {
        if (core >= 0) CPU_CLR(core, &others_);
    }

    // Moves the calling thread to one that is left, if any is; the system may move it again.
    void move() const {
        if (!CPU_COUNT(&others_)) return;
        sched_setaffinity(0, sizeof others_, &others_);
        sched_setaffinity(0, sizeof all_, &all_);
    }

  private:
    cpu_set_t all_, others_;
#else
    int count() const { return INT_MAX; }
    static int present() { return -1; }
    void without(int) {}
    void move() const {}
#endif
};

}  // namespace hwnas
