// The computations for one row: softmax and loss, and the solution of the dual step.
//
// Probabilities p are stored as residuals r = p - t, t the one-hot target. If the probability of the row's own class is
// 1 up to rounding, r and the loss still have all their digits. Arrays of a row have `n_lanes` entries, a multiple of
// LANES; those of the padding have probability 0.

#pragma once

#include "arrays.hpp"
#include "lanes.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

//: Maximum number of Newton steps for a row of several classes, after the first, which usually suffices.
constexpr int MAX_NEWTON = 12;

//: Maximum number of Newton or bisection steps for a row of two classes.
constexpr int MAX_NEWTON_BINARY = 40;

//: exp of less is 0, so that products of a probability and a value of X are not subnormal either.
template <class Real> constexpr Real EXP_FLOOR = sizeof(Real) == 4 ? -40 : -300;

//: Rows with a smaller q do not move: x - z = -q (r - old) is less than any rounding.
constexpr double MIN_Q = 1e-30;

// r' z; for residuals r, the mean raw prediction less the raw prediction of the row's class.
template <class Real> SKSOFTMAX_INLINE Real dot(const Real *r, const Real *z, Size n_lanes) {
    Vec<Real> total = all(Real(0));
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
        total += load(r + k) * load(z + k);
    return sum<Real>(total);
}

// Compute r = softmax(z) - t, t one-hot at y, and return the loss, logsumexp(z) - z_y.
template <class Real> SKSOFTMAX_INLINE Real softmax(const Real *z, Size y, Real *r, Size n_lanes) {
    Vec<Real> largest_lanes = load(z);
    for (Size k = WIDTH<Real>; k < n_lanes; k += WIDTH<Real>)
        largest_lanes = max(largest_lanes, load(z + k));
    const Real largest = largest_entry<Real>(largest_lanes);
    Vec<Real> others_lanes = all(Real(0));
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
        const Vec<Real> exps = exp_negative<Real>(load(z + k) - all(largest), EXP_FLOOR<Real>);
        others_lanes += where_class<Real>(y, k, all(Real(0)), exps);
        store(r + k, exps);
    }
    const Real exp_class = r[y], others = sum<Real>(others_lanes);
    const Real inverse = 1 / (exp_class + others);
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
        store(r + k, where_class<Real>(y, k, all(-others), load(r + k)) * all(inverse));
    if (z[y] == largest)
        return std::log1p(others);
    return std::log(exp_class + others) + (largest - z[y]);
}

// The vectors of a row that `prox_row` computes with.
template <class Real> struct Scratch {
    Real *z, *r, *x, *u, *d, *step;

    Scratch(Real *memory, Size n_lanes)
        : z(memory), r(z + n_lanes), x(r + n_lanes), u(x + n_lanes), d(u + n_lanes), step(d + n_lanes) {}
};

// Compute step = q (I + q (diag p - p p'))^-1 u with p = r + t, and return its maximum less its minimum.
//
// By Sherman & Morrison's formula. Its denominator is 1 - q sum p^2 / (1 + q p). As the sum of p is 1, it is computed
// as sum p / (1 + q p), which has no cancellation.
template <class Real>
SKSOFTMAX_INLINE Real newton_step(const Real *r, Size y, const Real *u, Real q, Real *step, Size n_lanes) {
    const Vec<Real> zero = all(Real(0)), one = all(Real(1)), q_lanes = all(q);
    Vec<Real> numerator = zero, denominator = zero;
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
        const Vec<Real> p = load(r + k) + where_class<Real>(y, k, one, zero);
        const Vec<Real> a = one / (one + q_lanes * p), ua = load(u + k) * a;
        store(step + k, ua);
        numerator += p * ua;
        denominator += p * a;
    }
    const Vec<Real> c = all(q * sum<Real>(numerator) / sum<Real>(denominator));
    Vec<Real> low = zero, high = zero;
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
        const Vec<Real> p = load(r + k) + where_class<Real>(y, k, one, zero);
        const Vec<Real> full = q_lanes * (load(step + k) + c * p / (one + q_lanes * p));
        store(step + k, full);
        low = min(low, full);
        high = max(high, full);
    }
    return largest_entry<Real>(high) + largest_entry<Real>(-low);
}

// Compute u = r - old + (x - z) / q, which is 0 at the solution, and return its maximum norm.
template <class Real>
SKSOFTMAX_INLINE Real prox_residual(const Scratch<Real> &s, const Real *old, Real q, Size n_lanes) {
    Vec<Real> norm = all(Real(0));
    const Vec<Real> q_lanes = all(q);
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
        const Vec<Real> u = load(s.r + k) - load(old + k) + (load(s.x + k) - load(s.z + k)) / q_lanes;
        store(s.u + k, u);
        norm = max(norm, absolute<Real>(u));
    }
    return largest_entry<Real>(norm);
}

// Minimise the objective of `prox_row` over x = z - theta q d, theta in [0, 1], by bisection.
//
// Ends if the bracket of x is at most 1 wide in every class; `largest` is the maximum norm of d. Sets x and
// r = softmax(x) - t, and returns the loss at x.
template <class Real> Real bisect(const Scratch<Real> &s, Size y, const Real *old, Real q, Real largest, Size n_lanes) {
    Real low = 0, high = 1, loss = 0;
    for (Real width = 2 * q * largest; width > 1; width /= 2) {
        const Real theta = (low + high) / 2;
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
            store(s.x + k, load(s.z + k) - all(q * theta) * load(s.d + k));
        loss = softmax(s.x, y, s.r, n_lanes);
        Vec<Real> slope = all(Real(0));
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
            slope += load(s.d + k) * (load(s.r + k) - load(old + k) - all(theta) * load(s.d + k));
        (sum<Real>(slope) > 0 ? low : high) = theta;
    }
    return loss;
}

// Solve r = softmax(z - q (r - old)) - t for r, to about a tenth; on entry r is softmax(z) - t.
//
// Then r is softmax(x) - t, x the minimiser of logsumexp(x) - x_y + ||x - z - q old||^2 / 2q, which is strongly convex:
//
// 1. Take one Newton step from x = z. It usually suffices.
// 2. If the residual is too large and the step was long, bisect along r - old.
// 3. Take Newton steps damped by ln(1 + s) / s, s the range of the step, until the residual is small enough. Each
//    decreases the objective (generalised self-concordance: Sun & Tran-Dinh, 2019).
//
// Returns the entropy of the probabilities; `loss` is that of z.
template <class Real> Real prox_row(const Scratch<Real> &s, Size y, const Real *old, Real q, Real loss, Size n_lanes) {
    if (!(q > Real(MIN_Q)))
        return loss - dot(s.r, s.z, n_lanes);
    Vec<Real> norm_lanes = all(Real(0)), size_lanes = all(Real(0));
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
        const Vec<Real> r = load(s.r + k), z = load(s.z + k), d = r - load(old + k);
        store(s.d + k, d);
        norm_lanes = max(norm_lanes, absolute<Real>(d));
        size_lanes = max(size_lanes, absolute<Real>(r * z));
    }
    const Real initial_norm = largest_entry<Real>(norm_lanes), class_size = (1 + s.r[y]) * std::abs(s.z[y]);
    Real z_size = largest_entry<Real>(size_lanes);
    z_size = z_size > class_size ? z_size : class_size;
    // the raw prediction after the step is x - q u: so q u has to be small, not only u, down to the rounding of z
    const Real eighth = initial_norm / 8, half = 1 / (2 * q), rounding = sizeof(Real) == 4 ? 0x1p-21 : 0x1p-50;
    const Real exact = rounding * (1 + z_size) / q, wanted = eighth < half ? eighth : half;
    const Real residual_tol = wanted > exact ? wanted : exact;
    // 1.
    Real range = newton_step(s.r, y, s.d, q, s.step, n_lanes);
    for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
        store(s.x + k, load(s.z + k) - load(s.step + k));
    loss = softmax(s.x, y, s.r, n_lanes);
    Real residual_norm = prox_residual(s, old, q, n_lanes);
    if (residual_norm > residual_tol) {
        // 2.
        if (range > 1 && 2 * q * initial_norm > 1) {
            loss = bisect(s, y, old, q, initial_norm, n_lanes);
            residual_norm = prox_residual(s, old, q, n_lanes);
        }
        // 3.
        for (int n_steps = 0; n_steps < MAX_NEWTON && residual_norm > residual_tol; ++n_steps) {
            range = newton_step(s.r, y, s.u, q, s.step, n_lanes);
            const Real damping = range > 1 ? std::log1p(range) / range : Real(1);
            for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
                store(s.x + k, load(s.x + k) - all(damping) * load(s.step + k));
            loss = softmax(s.x, y, s.r, n_lanes);
            residual_norm = prox_residual(s, old, q, n_lanes);
        }
    }
    return loss - dot(s.r, s.x, n_lanes);
}

// 1 / (1 + exp(-z)) without overflow.
inline double logistic(double z) {
    if (z >= 0)
        return 1 / (1 + std::exp(-z));
    const double e = std::exp(z);
    return e / (1 + e);
}

// log(1 + exp(z)) without overflow.
inline double softplus(double z) { return (z > 0 ? z : 0.0) + std::log1p(std::exp(-std::abs(z))); }

struct BinaryProx {
    double p;
    double entropy;
};

// Solve p = logistic(z - q (p - old)) for p by Newton steps in a bracket; return p and its entropy.
//
// p is the probability of the class that is not the row's own, so it is the residual up to its sign.
inline BinaryProx prox_row_binary(double z, double old, double q) {
    double p = logistic(z), x = z;
    const double edge = z - q * (p - old); // the solution is between z and edge
    double low = z < edge ? z : edge, high = z < edge ? edge : z;
    if (q > MIN_Q) {
        for (int n_steps = 0; n_steps < MAX_NEWTON_BINARY; ++n_steps) {
            const double slope = p - old + (x - z) / q;
            if (std::abs(slope) <= 1e-3 * std::abs(edge - z) / q)
                break;
            (slope > 0 ? high : low) = x;
            x -= slope / (p * (1 - p) + 1 / q);
            if (!(low < x && x < high))
                x = 0.5 * (low + high);
            p = logistic(x);
        }
    }
    return {p, softplus(x) - x * p};
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
