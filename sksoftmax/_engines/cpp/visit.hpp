// One visit of a row whose raw predictions are known: its dual step, or its loss and gradient.

#pragma once

#include "row.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

// Take the dual step of row i, whose raw predictions are s.z, and update its dual variables.
//
// Returns weight * loss and weight * gap before the step. If the gap is above `gap_tol`, s.z becomes
// (old - new) * weight / n_samples, old and new the row's probabilities: the change of the model.
template <class Real>
SKSOFTMAX_INLINE Sums sdca_step(Size i, Size y, Real weight, const DualVariables<Real> &dual, Real inv_n,
                                double gap_tol, const Scratch<Real> &s, Size n_lanes) {
    Real *residual = dual.residual + i * n_lanes;
    const Real loss = softmax(s.z, y, s.r, n_lanes);
    const double gap = weight * (loss - dot(residual, s.z, n_lanes) - dual.entropy[i]);
    if (gap > gap_tol) {
        dual.entropy[i] = prox_row(s, y, residual, dual.q[i], loss, n_lanes);
        const Vec<Real> w = all(weight * inv_n);
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
            const Vec<Real> r = load(s.r + k);
            store(s.z + k, (load(residual + k) - r) * w);
            store(residual + k, r);
        }
    }
    return {weight * loss, gap};
}

// Do `sdca_step` for two classes: `z` is the raw prediction, and `change` the change of the model, or 0.
template <class Real>
SKSOFTMAX_INLINE Sums sdca_step_binary(Size i, double z, Size y, Real weight, const DualVariables<Real> &dual,
                                       Real inv_n, double gap_tol, double &change) {
    const double sign = y ? -1 : 1, old = dual.residual[i], loss = softplus(sign * z);
    const double gap = weight * (loss - old * z - dual.entropy[i]);
    change = 0;
    if (gap > gap_tol) {
        const BinaryProx end = prox_row_binary(sign * z, sign * old, dual.q[i]);
        dual.entropy[i] = Real(end.entropy);
        dual.residual[i] = Real(sign * end.p);
        change = (old - sign * end.p) * weight * inv_n;
    }
    return {weight * loss, gap};
}

// Return weight * loss and weight * gap of row i, whose raw predictions are s.z.
//
// If `with_gradient`, the dual variables become those of the model's probabilities p, and s.z the gradient,
// weight * (p - t). Without dual variables the gap is 0.
template <class Real>
SKSOFTMAX_INLINE Sums evaluate_row(Size i, Size y, Real weight, const DualVariables<Real> &dual, bool with_gradient,
                                   const Scratch<Real> &s, Size n_lanes) {
    const Real loss = softmax(s.z, y, s.r, n_lanes);
    if (!dual.residual) {
        for (Size k = 0; with_gradient && k < n_lanes; k += WIDTH<Real>)
            store(s.z + k, load(s.r + k) * all(weight));
        return {weight * loss, 0};
    }
    Real *residual = dual.residual + i * n_lanes;
    const double gap = weight * (loss - dot(residual, s.z, n_lanes) - dual.entropy[i]);
    if (with_gradient) {
        dual.entropy[i] = loss - dot(s.r, s.z, n_lanes);
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
            const Vec<Real> r = load(s.r + k);
            store(residual + k, r);
            store(s.z + k, r * all(weight));
        }
    }
    return {weight * loss, gap};
}

// Do `evaluate_row` for two classes: `z` is the raw prediction, and becomes the gradient.
template <class Real>
SKSOFTMAX_INLINE Sums evaluate_row_binary(Size i, double &z, Size y, Real weight, const DualVariables<Real> &dual,
                                          bool with_gradient) {
    const double sign = y ? -1 : 1, loss = softplus(sign * z), derivative = sign * logistic(sign * z);
    if (!dual.residual) {
        z = weight * derivative;
        return {weight * loss, 0};
    }
    const double gap = weight * (loss - double(dual.residual[i]) * z - dual.entropy[i]);
    if (with_gradient) {
        dual.residual[i] = Real(derivative);
        dual.entropy[i] = Real(loss - derivative * z);
        z = weight * derivative;
    }
    return {weight * loss, gap};
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
