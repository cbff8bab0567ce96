// The arrays of the kernels. `compiled.py` describes them.

#pragma once

#include <cstddef>

namespace sksoftmax {

using Size = std::ptrdiff_t;

// CSR rows: class codes, and values and weights of the same dtype.
//
// The columns are divided in `n_ranges` ranges. `indptr`, (n_samples * n_ranges + 1), has the first entry of each range
// in each row, one row after the other; with one range it is the usual one.
template <class Real, class Index> struct Rows {
    const Index *indptr;
    const Index *indices;
    const Real *values;
    const Size *y;
    const Real *weight;
    Size n_samples;
    Size n_ranges;

    // The first entry of range c of row i. The last range of a row ends where the next row begins.
    Size first(Size i, Size c = 0) const { return indptr[i * n_ranges + c]; }
    Size n_entries() const { return first(n_samples); }
};

// Scaled coefficients, `n_lanes` side by side for each feature, their soft thresholds, and intercepts.
template <class Real> struct Model {
    const Real *table;      // null: coefficients of 0
    const Real *thresholds; // null: no thresholds
    const Real *intercept;
    Size n_lanes;
};

// Sums over rows in the layout of a model.
template <class Real> struct ModelSums {
    Real *table; // null: not wanted
    double *intercept;
};

template <class Real> struct DualVariables {
    Real *residual;
    Real *entropy;
    const Real *q;
};

//: Number of vectors that a row's step computes with: `Scratch` in row.hpp.
constexpr Size N_SCRATCH = 6;

// Sums over rows of weight * loss and of weight * gap.
struct Sums {
    double loss = 0.0;
    double gap = 0.0;

    Sums &operator+=(Sums other) {
        loss += other.loss;
        gap += other.gap;
        return *this;
    }
};

} // namespace sksoftmax
