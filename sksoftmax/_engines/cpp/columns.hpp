// Passes over X alone: norms of columns and rows, scaling, and the conversion of dense X to CSR.

#pragma once

#include "arrays.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

// Add sum_i norm_weight_i x_ij^2 to squares[j].
template <class Real, class Index>
void add_mean_squares(const Index *indptr, const Index *indices, const Real *values, const double *norm_weight,
                      Size n_samples, double *squares) {
    for (Size i = 0; i < n_samples; ++i)
        for (Size e = indptr[i]; e < indptr[i + 1]; ++e) {
            const double value = values[e];
            squares[indices[e]] += norm_weight[i] * value * value;
        }
}

// Compute squared_norm_i = x_i' diag(scale) x_i.
template <class Real, class Index>
void squared_norms(const Index *indptr, const Index *indices, const Real *values, const double *scale, Size n_samples,
                   double *squared_norm) {
    for (Size i = 0; i < n_samples; ++i) {
        double norm = 0;
        for (Size e = indptr[i]; e < indptr[i + 1]; ++e) {
            const double value = values[e];
            norm += value * value * scale[indices[e]];
        }
        squared_norm[i] = norm;
    }
}

// Fill the indptr of `Rows` with ranges of columns: range c begins at column bounds[c]. Rows have sorted columns.
template <class Index>
void split_rows(const Index *indptr, const Index *indices, Size n_samples, const Size *bounds, Size n_ranges,
                Index *splits) {
    for (Size i = 0; i < n_samples; ++i) {
        Index e = indptr[i];
        for (Size c = 0; c < n_ranges; ++c) {
            while (e < indptr[i + 1] && Size(indices[e]) < bounds[c])
                ++e;
            *splits++ = e;
        }
    }
    *splits = indptr[n_samples];
}

// Compute out[e] = values[e] * factor[indices[e]].
template <class Real, class Index>
void scale_values(const Index *indices, const Real *values, const double *factor, Size n_entries, Real *out) {
    for (Size e = 0; e < n_entries; ++e)
        out[e] = Real(values[e] * factor[indices[e]]);
}

// Fill indptr of a CSR copy of X, (n_samples, n_features), from its first entry on: indptr[i + 1] - indptr[i] nonzeros
// in row i.
template <class Real> void count_nonzeros(const Real *X, Size n_samples, Size n_features, Size *indptr) {
    for (Size i = 0; i < n_samples; ++i, X += n_features) {
        Size count = 0;
        for (Size j = 0; j < n_features; ++j)
            count += X[j] != 0;
        indptr[i + 1] = indptr[i] + count;
    }
}

// Copy the nonzeros of X, row by row: their columns and values.
template <class Real, class Index>
void copy_nonzeros(const Real *X, Size n_samples, Size n_features, Index *indices, Real *values) {
    for (Size i = 0; i < n_samples; ++i, X += n_features)
        for (Size j = 0; j < n_features; ++j)
            if (X[j] != 0) {
                *indices++ = Index(j);
                *values++ = X[j];
            }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
