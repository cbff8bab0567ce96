// Passes over dense rows for moments of X and curvatures of F: statistics of columns, and the factors of products that
// `module.cpp` adds up by the BLAS.

#pragma once

#include <algorithm>
#include <cmath>

#include "arrays.hpp"
#include "lanes.hpp"

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
        for (; j < n_features; ++j)
            add(j, sums[0]);
        if (n_features < N_SUMS) {
            squares[i] = sums[0];
            continue;
        }
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

// Do the same without roots, one column after the other: the columns of u have `stride` entries, a multiple of 8. Those
// beyond n_samples are 0, and so are the columns from n_columns to `width`.
template <class Real>
void scale_columns(const Real *X, const double *mean, const double *factor, Size n_samples, Size n_features,
                   Size n_columns, Size width, Size stride, double *u) {
    for (Size j = 0; j < width; ++j)
        std::fill(u + j * stride + (j < n_columns ? n_samples : 0), u + (j + 1) * stride, 0.0);
    for (Size start = 0; start < n_samples; start += LANES) // rows that stay in a cache of the first level
        for (Size j = 0; j < n_features; ++j)
            for (Size i = start; i < std::min(start + LANES, n_samples); ++i)
                u[j * stride + i] = (X[i * n_features + j] - mean[j]) * factor[j];
    for (Size j = n_features; j < n_columns; ++j)
        std::fill_n(u + j * stride, n_samples, 1.0);
}

// Compute the probabilities p in float64, and p (1 - p), for three or more classes; the tables are (n_classes,
// n_samples).
//
// The largest p of a row is multiplied by the sum of the others, as 1 - p would lose digits; from float32 it is 1 less
// this sum.
template <class Real>
void proba_and_variances(const Real *proba, Size n_classes, Size n_samples, double *p, double *variances) {
    constexpr Size N = 16;
    for (Size start = 0; start < n_samples; start += N) {
        const Size n = std::min(N, n_samples - start);
        Size largest[N] = {};
        double highest[N], others[N] = {};
        std::copy_n(proba + start, n, highest);
        for (Size k = 1; k < n_classes; ++k)
            for (Size i = 0; i < n; ++i) {
                const double entry = proba[k * n_samples + start + i];
                largest[i] = entry > highest[i] ? k : largest[i];
                highest[i] = entry > highest[i] ? entry : highest[i];
            }
        for (Size k = 0; k < n_classes; ++k)
            for (Size i = 0; i < n; ++i)
                others[i] += k == largest[i] ? 0 : double(proba[k * n_samples + start + i]);
        for (Size k = 0; k < n_classes; ++k)
            for (Size i = 0; i < n; ++i) {
                const Size at = k * n_samples + start + i;
                const double entry = sizeof(Real) == 4 && k == largest[i] ? 1 - others[i] : double(proba[at]);
                p[at] = entry;
                variances[at] = entry * (k == largest[i] ? others[i] : 1 - entry);
            }
    }
}

// Compute weight p, or -weight p other if `other` is not null: an entry of the covariance matrix of the classes.
inline void class_covariance(const double *weight, const double *p, const double *other, Size n_samples, double *out) {
    for (Size i = 0; i < n_samples; ++i)
        out[i] = other ? -weight[i] * p[i] * other[i] : weight[i] * p[i];
}

// Compute the columns of u, (n_columns, stride), times the square roots of |weight|.
inline void multiply_by_roots(const double *u, const double *weight, Size n_columns, Size stride, double *out) {
    for (Size i = 0; i < stride; ++i)
        out[i] = std::sqrt(std::abs(weight[i]));
    for (Size j = n_columns - 1; j >= 0; --j) // the roots, in the first column, come last
        for (Size i = 0; i < stride; ++i)
            out[j * stride + i] = out[i] * u[j * stride + i];
}

//: Columns of a tile of a Gram matrix: its sums leave room in the registers for the factors.
constexpr int GRAM_ROWS = 4, GRAM_COLUMNS = REGISTER_BYTES == 64 ? 4 : 2;

// Add sum_i weight_i u_ij u_ik, k <= j, to gram[j * n_columns + k]; u is that of `scale_columns`, with a width that is
// a multiple of 4. `weighted` is memory for 4 columns.
inline void add_weighted_gram(const double *u, const double *weight, Size n_columns, Size stride, double *weighted,
                              double *gram) {
    using V = Vec<double>;
    for (Size j = 0; j < n_columns; j += GRAM_ROWS) {
        for (int a = 0; a < GRAM_ROWS; ++a)
            for (Size i = 0; i < stride; i += WIDTH<double>)
                store(weighted + a * stride + i, load(weight + i) * load(u + (j + a) * stride + i));
        for (Size k = 0; k < std::min(j + GRAM_ROWS, n_columns); k += GRAM_COLUMNS) {
            V sums[GRAM_ROWS][GRAM_COLUMNS];
            for (int a = 0; a < GRAM_ROWS; ++a)
                for (int b = 0; b < GRAM_COLUMNS; ++b)
                    sums[a][b] = all(0.0);
            for (Size i = 0; i < stride; i += WIDTH<double>) {
                V left[GRAM_ROWS];
                for (int a = 0; a < GRAM_ROWS; ++a)
                    left[a] = load(weighted + a * stride + i);
                for (int b = 0; b < GRAM_COLUMNS; ++b) {
                    const V right = load(u + (k + b) * stride + i);
                    for (int a = 0; a < GRAM_ROWS; ++a)
                        sums[a][b] += left[a] * right;
                }
            }
            for (Size a = 0; a < std::min(Size(GRAM_ROWS), n_columns - j); ++a)
                for (Size b = 0; b < std::min(Size(GRAM_COLUMNS), n_columns - k); ++b)
                    if (k + b <= j + a)
                        gram[(j + a) * n_columns + k + b] += sum<double>(sums[a][b]);
        }
    }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
