// The arrays of the kernels. `compiled.py` describes them.

#pragma once

#include <cstddef>

namespace sksoftmax {

using Size = std::ptrdiff_t;

// CSR rows: class codes, and values and weights of the same dtype.
template <class Real, class Index> struct Rows {
    const Index *indptr;
    const Index *indices;
    const Real *values;
    const Size *y;
    const Real *weight;
    Size n_samples;
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
