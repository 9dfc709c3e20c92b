// Threads that do a job together with the one that asks for it.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "cores.hpp"

namespace hwnas {

// Threads wait for jobs, which each does once, with its number; the caller is thread 0.  One that comes too late, since
// it slept or others have its core, is not waited for: whoever is there does all of a job.
//
// Systems leave threads that wait for each other awake on one core, though others are free.  So one that finds itself
// on the core of a thread with a lower number goes to another core first; the caller stays where it is.
class Threads {
  public:
    ~Threads() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ends_ = true;
            round_.fetch_add(1);
        }
        wake_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    // Has `count` threads, the caller among them, for jobs on these cores; none is at a job.
    void grow(int count, const Cores &cores) {
        cores_ = cores;
        if (static_cast<int>(places_.size()) < count) {
            places_ = std::vector<std::atomic<int>>(count);
            for (std::atomic<int> &place : places_) place.store(-1);
        }
        while (static_cast<int>(threads_.size()) + 1 < count)
            threads_.emplace_back([this, number = static_cast<int>(threads_.size()) + 1, seen = round_.load()] {
                wait(number, seen);
            });
    }

    // `patient`: waits until every thread has the job, so that each has a part in it.
    template <class Job>
    void run(int count, Job &job, bool patient) {
        if (count == 1) return job(0);
        stand(0);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job, call_ = [](void *each, int number) { (*static_cast<Job *>(each))(number); };
            count_ = count, taken_.store(0);
            round_.fetch_add(1);
        }
        wake_.notify_all();
        if (patient) until([&] { return taken_.load() == count - 1; });
        job(0);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            job_ = nullptr;
        }
        until([this] { return busy_.load(std::memory_order_acquire) == 0; });
    }

    // Waits for what other threads do within microseconds, and gives way where they do not.
    template <class Condition>
    static void until(Condition met) {
        for (int i = 0; !met(); i++)
            if (i < SPINS) pause(); else std::this_thread::yield();
    }

  private:
    static constexpr int SPINS = 2000, SPINS_AWAKE = 5000;

    static void pause() {
#if defined(__x86_64__)
        _mm_pause();
#endif
    }

    // The next job often comes soon: to be woken takes longer than to wait for it awake.
    void wait(int number, uint64_t seen) {
        for (;;) {
            for (int i = 0; i < SPINS_AWAKE && round_.load() == seen; i++) pause();
            void *job;
            void (*call)(void *, int);
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return round_.load() != seen; });
                if (ends_) return;
                seen = round_.load();
                job = number < count_ ? job_ : nullptr, call = call_;
                if (job) taken_.fetch_add(1), busy_.fetch_add(1);
            }
            if (!job) continue;
            if (stand(number)) part(number);
            call(job, number);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    // Says on which core a thread is, and returns whether that is the one of a thread with a lower number.
    bool stand(int number) {
        const int here = Cores::present();
        if (places_[number].load(std::memory_order_relaxed) != here) places_[number].store(here);
        for (int i = 0; i < number && here >= 0; i++)
            if (places_[i].load(std::memory_order_relaxed) == here) return true;
        return false;
    }

    void part(int number) {
        Cores free = cores_;
        for (int i = 0; i < count_; i++) free.without(i == number ? -1 : places_[i].load());
        free.without(Cores::present());
        free.move();
        stand(number);
    }

    std::vector<std::thread> threads_;
    std::vector<std::atomic<int>> places_;  // the cores that threads were on at their last jobs
    Cores cores_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> round_{0};
    std::atomic<int> taken_{0}, busy_{0};  // how many have taken the job, and how many are at it
    int count_ = 0;
    bool ends_ = false;
    void *job_ = nullptr;
    void (*call_)(void *, int) = nullptr;
};

}  // namespace hwnas
