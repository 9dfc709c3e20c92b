// Cores that a thread may use, as far as the system tells: on Linux.
#pragma once

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include <climits>
#include <thread>
#include <vector>

namespace hwnas {

#if defined(__linux__)

class Cores {
  public:
    // Those of the calling thread, which is on one of them.
    Cores() : present_(sched_getcpu()) {
        CPU_ZERO(&all_);
        if (present_ < 0 || sched_getaffinity(0, sizeof all_, &all_) != 0) CPU_ZERO(&all_);
    }

    int count() const { return CPU_COUNT(&all_) ? CPU_COUNT(&all_) : INT_MAX; }
    bool operator==(const Cores &other) const { return present_ == other.present_ && CPU_EQUAL(&all_, &other.all_); }

    // Deals out all cores but the present one to the first `count` threads: alone each has those that no other has.
    void deal(std::vector<std::thread> &threads, int count) const {
        if (count >= this->count() || !CPU_COUNT(&all_)) return;
        std::vector<cpu_set_t> dealt(count);
        for (cpu_set_t &cores : dealt) CPU_ZERO(&cores);
        for (int core = 0, next = 0; core < CPU_SETSIZE; core++)
            if (core != present_ && CPU_ISSET(core, &all_)) CPU_SET(core, &dealt[next++ % count]);
        for (int i = 0; i < count; i++)  // where it fails, they stay where they are
            pthread_setaffinity_np(threads[i].native_handle(), sizeof dealt[i], &dealt[i]);
    }

  private:
    int present_;
    cpu_set_t all_;
};

#else

class Cores {
  public:
    int count() const { return INT_MAX; }
    bool operator==(const Cores &) const { return true; }
    void deal(std::vector<std::thread> &, int) const {}
};

#endif

}  // namespace hwnas
