// Rounds on 1 to 4 threads, for the thread sanitizer: it reports data races, and the sums must have the same bits.
// A thread that makes the others wait is sent home.

#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "../../sksoftmax/_engines/cpp/rounds.hpp"

using sksoftmax::Size;

// Some epochs of steps that depend on a table of sums, and add to it.
std::vector<double> sums(int n_threads) {
    const Size n_rows = 2000, round_size = 50, n_ranges = 8;
    std::vector<double> changes(round_size), table(n_ranges, 1.0);
    for (int epoch = 0; epoch < 20; ++epoch)
        sksoftmax::for_rounds(
            n_ranges, n_rows, round_size, n_threads,
            [&](Size start, Size end, Size offset, int) {
                for (Size i = start; i < end; ++i)
                    changes[offset + i - start] = 1 / (table[i % n_ranges] + double(i));
            },
            [](Size, Size) {},
            [&](Size start, Size end, Size, Size first, Size last) {
                for (Size i = start; i < end; ++i)
                    for (Size c = first; c < last; ++c)
                        table[c] += changes[i - start];
            });
    return table;
}

// Whether no part is lost or done twice if the second thread sleeps 20 times as long in each as the first, and whether
// it is dismissed in the end.
bool dismisses_a_slow_thread() {
    const int n_phases = 100, parts_per_thread = 2;
    std::vector<int> counts(2 * parts_per_thread);
    const auto work = [&](int part, int worker) {
        std::this_thread::sleep_for(std::chrono::milliseconds(worker > 0 ? 20 : 1));
        ++counts[part];
    };
    sksoftmax::Team team(2, parts_per_thread, work);
    const bool had_help = team.n_helpers() == 1;
    for (int phase = 0; phase < n_phases; ++phase)
        team.run(work);
    for (int count : counts)
        if (count != n_phases)
            return false;
    return had_help && team.n_helpers() == 0;
}

int main() {
    if (!dismisses_a_slow_thread()) {
        std::printf("a slow thread was kept, or parts were lost\n");
        return 1;
    }
    for (int n_threads = 2; n_threads <= 4; ++n_threads)
        if (sums(n_threads) != sums(1)) {
            std::printf("%d threads: other sums than on one\n", n_threads);
            return 1;
        }
}
