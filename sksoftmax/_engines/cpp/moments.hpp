// Passes over dense rows for moments of X and curvatures of F: statistics of columns, and the factors of products that
// `module.cpp` adds up by the BLAS.

#pragma once

#include <cmath>

#include "arrays.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

// Update the least and largest entry of each column, and add sum_i weight_i x_ij to sums[j].
template <class Real>
void summarize_columns(const Real *X, const double *weight, Size n_samples, Size n_features, Real *low, Real *high,
                       double *sums) {
    for (Size i = 0; i < n_samples; ++i, X += n_features) {
        const double w = weight[i];
        for (Size j = 0; j < n_features; ++j) {
            const Real x = X[j];
            low[j] = x < low[j] ? x : low[j];
            high[j] = x > high[j] ? x : high[j];
            sums[j] += w * x;
        }
    }
}

// Add sum_i weight_i ((x_ij - mean_j) factor_j)^2 to sums[j].
template <class Real>
void add_column_squares(const Real *X, const Real *mean, const Real *factor, const double *weight, Size n_samples,
                        Size n_features, double *sums) {
    for (Size i = 0; i < n_samples; ++i, X += n_features) {
        const double w = weight[i];
        for (Size j = 0; j < n_features; ++j) {
            const double u = (X[j] - mean[j]) * factor[j];
            sums[j] += w * (u * u);
        }
    }
}

// Compute the sums over the columns of ((x_ij - mean_j) factor_j)^2.
template <class Real>
void row_squares(const Real *X, const Real *mean, const double *factor, Size n_samples, Size n_features,
                 double *squares) {
    constexpr int N_SUMS = 16;
    for (Size i = 0; i < n_samples; ++i, X += n_features) {
        double sums[N_SUMS] = {};
        const auto add = [&](Size j, double &sum) {
            const double u = (X[j] - mean[j]) * factor[j];
            sum += u * u;
        };
        Size j = 0;
        for (; j + N_SUMS <= n_features; j += N_SUMS)
            for (int k = 0; k < N_SUMS; ++k)
                add(j + k, sums[k]);
        for (int k = 0; j < n_features; ++j, ++k)
            add(j, sums[k]);
        for (int half = N_SUMS / 2; half > 0; half /= 2)
            for (int k = 0; k < half; ++k)
                sums[k] += sums[k + half];
        squares[i] = sums[0];
    }
}

// Compute u_ij = root_i (x_ij - mean_j) factor_j; u has n_columns >= n_features columns, of root_i beyond n_features.
template <class Real, class Result>
void scale_rows(const Real *X, const Result *mean, const Result *factor, const Result *root, Size n_samples,
                Size n_features, Size n_columns, Result *u) {
    for (Size i = 0; i < n_samples; ++i, X += n_features, u += n_columns) {
        for (Size j = 0; j < n_features; ++j)
            u[j] = (X[j] - mean[j]) * factor[j] * root[i];
        for (Size j = n_features; j < n_columns; ++j)
            u[j] = root[i];
    }
}

// Compute the products u_j u_k, k <= j, of the entries of each row, one j after the other.
inline void pair_products(const double *u, Size n_samples, Size n_columns, double *products) {
    for (Size i = 0; i < n_samples; ++i, u += n_columns)
        for (Size j = 0; j < n_columns; ++j)
            for (Size k = 0; k <= j; ++k)
                *products++ = u[j] * u[k];
}

// Compute the rows of u times the square roots of |weights|, whose entry for row i is weights[i * stride].
inline void multiply_by_roots(const double *u, const double *weights, Size stride, Size n_samples, Size n_columns,
                              double *out) {
    for (Size i = 0; i < n_samples; ++i, u += n_columns, out += n_columns) {
        const double root = std::sqrt(std::abs(weights[i * stride]));
        for (Size j = 0; j < n_columns; ++j)
            out[j] = root * u[j];
    }
}

// Compute the entries (c, d), d <= c, of diag(p) - p p' for rows `start` to `end`, one row after the other.
//
// `proba` and `variances`, (n_classes, n_samples), are p and p (1 - p): the latter keeps the digits of a p near 1.
inline void class_covariances(const double *proba, const double *variances, Size n_classes, Size n_samples, Size start,
                              Size end, double *out) {
    for (Size i = start; i < end; ++i)
        for (Size c = 0; c < n_classes; ++c) {
            for (Size d = 0; d < c; ++d)
                *out++ = -proba[c * n_samples + i] * proba[d * n_samples + i];
            *out++ = variances[c * n_samples + i];
        }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
