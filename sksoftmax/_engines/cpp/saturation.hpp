// Probabilities that are linearised along a step, and those that would leave [0, 1]: see `_maths/saturation.py`.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "arrays.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

//: Rounding error of a change of a raw prediction, in units of machine epsilon: `_ROUNDING` in saturation.py.
constexpr double CHANGE_ROUNDING = 4;

//: Relative change of a probability below which its divergence is computed by its series: `_SERIES_BELOW`.
constexpr double SERIES_BELOW = 1e-2;

// p ((1 + e) log(1 + e) - e), with e the relative change from p to `linearized`.
inline double divergence(double linearized, double p) {
    constexpr double tiny = std::numeric_limits<double>::min();
    const double e = std::max(linearized / std::max(p, tiny) - 1, -1.0);
    if (std::abs(e) < SERIES_BELOW)
        return p * (e * e * (0.5 - e * (1.0 / 6 - e / 12)));
    return p * ((1 + e) * std::log(std::max(1 + e, tiny)) - e);
}

// Linearise the probabilities of three or more classes along a step, for rows `start` to `end` of tables with n_samples
// columns; `change` is the change of the raw predictions.
//
// `differences`, (2 n_classes, n_samples), becomes weight times: the linearised probabilities less those at the start;
// and, below them, the part of this difference that is due to rows that saturate. Adds the sums of its rows to the
// first 2 n_classes entries of `sums`, and the variances of the classes, without saturated probabilities, to the
// others. Returns the sum of weight times the divergence less the first-order change of the loss.
template <class Real>
double linearize(const Real *proba, const Real *change, const double *weight, Size n_classes, Size n_samples,
                 double *differences, double *sums) {
    const Size K = n_classes;
    const double rounding = CHANGE_ROUNDING * std::numeric_limits<Real>::epsilon();
    std::vector<double> memory(3 * K);
    double *p = memory.data(), *q = p + K, *c = q + K, total = 0;
    for (Size i = 0; i < n_samples; ++i) {
        Size largest = 0;
        double others = 0;
        for (Size k = 0; k < K; ++k) {
            p[k] = proba[k * n_samples + i];
            c[k] = change[k * n_samples + i];
            largest = p[k] > p[largest] ? k : largest;
        }
        if (sizeof(Real) == 4) { // the largest one keeps the digits of the others
            for (Size k = 0; k < K; ++k)
                others += k == largest ? 0 : p[k];
            p[largest] = 1 - others;
        }
        std::copy_n(p, K, q);
        double mean = 0, mean_before = 0;
        for (Size round = 0; round <= K; ++round) {
            mean = 0;
            for (Size k = 0; k < K; ++k)
                mean += q[k] * c[k];
            if (round == 0)
                mean_before = mean;
            bool saturates = false;
            for (Size k = 0; k < K; ++k)
                if (q[k] > 0 && 1 + c[k] - mean < 0)
                    q[k] = 0, saturates = true;
            if (!saturates)
                break;
            double sum = 0;
            for (Size k = 0; k < K; ++k)
                sum += q[k];
            for (Size k = 0; k < K; ++k)
                q[k] /= sum;
        }
        Size largest_left = 0;
        double others_left = 0, row = 0;
        for (Size k = 0; k < K; ++k)
            largest_left = q[k] > q[largest_left] ? k : largest_left;
        for (Size k = 0; k < K; ++k)
            others_left += k == largest_left ? 0 : q[k];
        for (Size k = 0; k < K; ++k) {
            const double linearized = q[k] + q[k] * (c[k] - mean), before = p[k] + p[k] * (c[k] - mean_before);
            const double change_of_p = linearized - p[k], linear = change_of_p * c[k];
            row += divergence(linearized, p[k]) - (linear - rounding * std::abs(linear));
            const double first = weight[i] * change_of_p, second = weight[i] * (linearized - before);
            differences[k * n_samples + i] = first;
            differences[(K + k) * n_samples + i] = second;
            sums[k] += first;
            sums[K + k] += second;
            sums[2 * K + k] += weight[i] * q[k] * (k == largest_left ? others_left : 1 - q[k]);
        }
        total += weight[i] * row;
    }
    return total;
}

// Do `linearize` for two classes: the tables have one row, of the second class.
template <class Real>
double linearize_binary(const double *proba, const Real *change, const double *weight, Size n_samples,
                        double *differences, double *sums) {
    const double rounding = CHANGE_ROUNDING * std::numeric_limits<Real>::epsilon();
    double total = 0;
    for (Size i = 0; i < n_samples; ++i) {
        const double p = proba[i], c = change[i];
        const double q = 1 + (1 - p) * c < 0 ? 0 : 1 - p * c < 0 ? 1 : p;
        const double linearized = q + q * (1 - q) * c, change_of_p = linearized - p, linear = change_of_p * c;
        const double first = weight[i] * change_of_p, second = weight[i] * (linearized - (p + p * (1 - p) * c));
        differences[i] = first;
        differences[n_samples + i] = second;
        sums[0] += first;
        sums[1] += second;
        sums[2] += weight[i] * q * (1 - q);
        total += weight[i] * (divergence(linearized, p) + divergence(1 - linearized, 1 - p) -
                              (linear - rounding * std::abs(linear)));
    }
    return total;
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
