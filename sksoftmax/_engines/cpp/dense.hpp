// Passes over blocks of dense rows, given their raw predictions.

#pragma once

#include <vector>

#include "visit.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

// Do `sdca_epoch` for a block of rows, given their raw predictions and inner products.
//
// `z` is the raw predictions before the block, (n_block, n_lanes); on return it holds the changes of the model.
// `coupling` is (n_block, n_block): coupling[a, c] times the change of row c is the change of row a's raw prediction.
// `y` and `weight` are those of all rows. `n_changed` becomes the number of rows that changed.
template <class Real>
Sums sdca_block(const Size *order, Size n_block, Real *z, const Real *coupling, const Size *y, const Real *weight,
                const DualVariables<Real> &dual, Size n_lanes, Real inv_n, double gap_tol, Size &n_changed) {
    std::vector<Real> memory(N_SCRATCH * n_lanes);
    std::vector<Size> changed(n_block);
    Scratch<Real> s(memory.data(), n_lanes);
    Sums sums;
    n_changed = 0;
    for (Size a = 0; a < n_block; ++a) {
        const Size i = order[a];
        const Real *factors = coupling + a * n_block;
        Real *row = z + a * n_lanes;
        Sums row_sums;
        if (n_lanes == 1) {
            double raw = row[0], change;
            for (Size m = 0; m < n_changed; ++m)
                raw += factors[changed[m]] * z[changed[m]];
            row_sums = sdca_step_binary(i, raw, y[i], weight[i], dual, inv_n, gap_tol, change);
            row[0] = Real(change);
        } else {
            for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
                Vec<Real> even = load(row + k), odd = all(Real(0));
                Size m = 0;
                for (; m + 1 < n_changed; m += 2) {
                    even += all(factors[changed[m]]) * load(z + changed[m] * n_lanes + k);
                    odd += all(factors[changed[m + 1]]) * load(z + changed[m + 1] * n_lanes + k);
                }
                if (m < n_changed)
                    even += all(factors[changed[m]]) * load(z + changed[m] * n_lanes + k);
                store(row + k, even + odd);
            }
            s.z = row;
            row_sums = sdca_step(i, y[i], weight[i], dual, inv_n, gap_tol, s, n_lanes);
            if (!(row_sums.gap > gap_tol))
                for (Size k = 0; k < n_lanes; ++k)
                    row[k] = 0;
        }
        sums += row_sums;
        if (row_sums.gap > gap_tol)
            changed[n_changed++] = a;
    }
    return sums;
}

// Sum `evaluate_row` over the n_block rows from `start`; `z` is their raw predictions, (n_block, n_lanes), and becomes
// the gradient.
template <class Real>
Sums evaluate_block(Size start, Size n_block, Real *z, const Size *y, const Real *weight,
                    const DualVariables<Real> &dual, Size n_lanes, bool with_gradient) {
    std::vector<Real> memory(N_SCRATCH * n_lanes);
    Scratch<Real> s(memory.data(), n_lanes);
    Sums sums;
    for (Size a = 0; a < n_block; ++a) {
        const Size i = start + a;
        if (n_lanes == 1) {
            double raw = z[a];
            sums += evaluate_row_binary(i, raw, y[i], weight[i], dual, with_gradient);
            z[a] = Real(raw);
        } else {
            s.z = z + a * n_lanes;
            sums += evaluate_row(i, y[i], weight[i], dual, with_gradient, s, n_lanes);
        }
    }
    return sums;
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
