// Rounds of rows that threads share, with the same bits for any number of threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "arrays.hpp"

namespace sksoftmax {

// A thread that waits looks this many times, some microseconds, before it offers its core to others at each look.
constexpr int N_SPINS = 2000;

// Call `holds` until it returns true.
template <class Condition> void wait_until(Condition holds) {
    for (int n_looks = 0; !holds(); ++n_looks)
        if (n_looks > N_SPINS)
            std::this_thread::yield();
}

// Threads that share one phase of work after the other. The thread that makes the team is one of them.
//
// A phase consists of parts, the same number in each. A thread takes its own parts first, which are the same in each
// phase: what it has changed is in its cache. Then it takes those that nobody has begun, so that a slow or busy core
// delays a phase by one part at most, and a thread that never gets a core delays nothing. If the first thread waits for
// the others longer than it works, other processes have their cores: it sends them home and goes on alone.
class Team {
  public:
    const int n_parts;

    // Start n_threads - 1 threads, or as many as the system allows. Each calls work(part, worker).
    template <class Work>
    Team(int n_threads, int parts_per_thread, Work work)
        : n_parts(n_threads * parts_per_thread), parts_per_thread_(parts_per_thread), phase_of_(n_parts) {
        try {
            for (int worker = 1; worker < n_threads; ++worker)
                helpers_.emplace_back([this, worker, work] { help(worker, work); });
        } catch (const std::system_error &) {
        }
    }

    Team(const Team &) = delete;
    Team &operator=(const Team &) = delete;

    ~Team() { dismiss(); }

    // Do all parts of a phase. What they read must not change meanwhile.
    template <class Work> void run(Work work) {
        n_done_.store(0, std::memory_order_relaxed);
        ++n_phases_;
        if (!helpers_.empty())
            phase_.store(n_phases_, std::memory_order_release);
        take_parts(n_phases_, 0, work);
        if (helpers_.empty())
            return;
        const Clock::time_point begin = Clock::now();
        wait_until([this] { return n_done_.load(std::memory_order_acquire) == n_parts; });
        const Clock::time_point end = Clock::now();
        waited_ += end - begin;
        if (end - window_start_ < WINDOW)
            return;
        if (2 * waited_ > end - window_start_)
            dismiss();
        window_start_ = end;
        waited_ = waited_.zero();
    }

    // The number of threads beside the first that still help.
    Size n_helpers() const { return helpers_.size(); }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr Size OVER = -1;

    //: Time after which the first thread looks how long it has waited.
    static constexpr std::chrono::milliseconds WINDOW{20};

    const int parts_per_thread_;
    std::atomic<Size> phase_{0};
    std::atomic<int> n_done_{0};
    std::vector<std::atomic<Size>> phase_of_; // each part: the last phase in which somebody took it
    std::vector<std::thread> helpers_;
    Size n_phases_ = 0;
    Clock::time_point window_start_ = Clock::now();
    Clock::duration waited_{};

    void dismiss() {
        phase_.store(OVER, std::memory_order_release);
        for (std::thread &helper : helpers_)
            helper.join();
        helpers_.clear();
    }

    template <class Work> void help(int worker, Work work) {
        for (Size phase = 0;;) {
            wait_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
            phase = phase_.load(std::memory_order_acquire);
            if (phase == OVER)
                return;
            take_parts(phase, worker, work);
        }
    }

    // Do the parts that nobody else has taken. If the phase is over, there is none.
    template <class Work> void take_parts(Size phase, int worker, Work &work) {
        for (int k = 0; k < n_parts; ++k) {
            const int part = (worker * parts_per_thread_ + k) % n_parts;
            Size before = phase - 1;
            if (phase_of_[part].compare_exchange_strong(before, phase, std::memory_order_acq_rel)) {
                work(part, worker);
                n_done_.fetch_add(1, std::memory_order_release);
            }
        }
    }
};

//: Parts of a phase for each thread: one more where a core is slow.
constexpr int PARTS_PER_THREAD = 2;

// Process rows 0 to n_rows in rounds of `round_size` rows, each in two phases:
//
// 1. step(start, end, offset, worker) for parts of its rows. Their results depend on no other row of the round. The
//    offset is the number of the part's first row in its round.
// 2. add(start, end, next_end, first, last) for ranges of columns. Each column gets its sum in the order of the rows,
//    whatever the parts. Then what the next round, rows `end` to `next_end`, needs of these columns is computed. This
//    phase also precedes the first round.
//
// after_step(start, end) comes between the phases, in the calling thread.
template <class Step, class AfterStep, class Add>
void for_rounds(Size n_ranges, Size n_rows, Size round_size, int n_threads, Step step, AfterStep after_step, Add add) {
    Size start = 0, end = 0, next_end = 0;
    bool is_adding = true;
    const Size n_parts = n_threads > 1 ? PARTS_PER_THREAD * n_threads : 1;
    const auto work = [&](Size part, int worker) {
        const auto share = [&](Size n) { return std::pair(part * n / n_parts, (part + 1) * n / n_parts); };
        const auto [first, last] = share(is_adding ? n_ranges : end - start);
        if (first == last)
            return;
        if (is_adding)
            add(start, end, next_end, first, last);
        else
            step(start + first, start + last, first, worker);
    };
    Team team(n_threads, int(n_parts) / n_threads, [&work](int part, int worker) { work(part, worker); });
    for (;;) {
        is_adding = true;
        next_end = std::min(end + round_size, n_rows);
        team.run(work);
        if (end == n_rows)
            return;
        start = end;
        end = next_end;
        is_adding = false;
        team.run(work);
        after_step(start, end);
    }
}

} // namespace sksoftmax
