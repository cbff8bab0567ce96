// Passes over the tables of coefficients between the epochs of the dual solver: see `_solvers/_prox_center.py`.
//
// A table has `n_rows` rows, one for each column of X or for some of them, of `n_lanes` entries. Each function makes
// one pass: the tables of wide X do not fit in a cache.

#pragma once

#include "arrays.hpp"
#include "lanes.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

// The entries of a row: vectors, or for two classes one number.
template <class T> struct Vectors {
    static constexpr Size width = WIDTH<T>;
    static SKSOFTMAX_INLINE Vec<T> get(const T *source) { return load(source); }
    static SKSOFTMAX_INLINE void set(T *target, Vec<T> value) { store(target, value); }
    static SKSOFTMAX_INLINE Vec<T> fill(T value) { return all(value); }
    static SKSOFTMAX_INLINE T total(Vec<T> value) { return sum<T>(value); }
    static SKSOFTMAX_INLINE Vec<T> clip(Vec<T> w, T limit) { return min(max(w, all(-limit)), all(limit)); }
    static SKSOFTMAX_INLINE Vec<T> magnitude(Vec<T> w) { return absolute<T>(w); }
};

template <class T> struct Number {
    static constexpr Size width = 1;
    static T get(const T *source) { return *source; }
    static void set(T *target, T value) { *target = value; }
    static T fill(T value) { return value; }
    static T total(T value) { return value; }
    static T clip(T w, T limit) { return w > limit ? limit : w < -limit ? -limit : w; }
    static T magnitude(T w) { return std::abs(w); }
};

// Call body with the type of a row's entries.
template <class Real, class Body> void with_entries(Size n_lanes, Body body) {
    if (n_lanes == 1)
        body(Number<Real>());
    else
        body(Vectors<Real>());
}

// Compute the coefficients after soft thresholding; `thresholds` has one for each row.
template <class Real>
void threshold_rows(const Real *table, const Real *thresholds, Size n_rows, Size n_lanes, Real *out) {
    with_entries<Real>(n_lanes, [&](auto entries) {
        using L = decltype(entries);
        for (Size j = 0; j < n_rows; ++j)
            for (Size k = j * n_lanes; k < (j + 1) * n_lanes; k += L::width) {
                const auto w = L::get(table + k);
                L::set(out + k, w - L::clip(w, thresholds[j]));
            }
    });
}

// Add to sums sum_j scale_j ||w_j||^2 and sum_j root_j ||w_j||_1, w the coefficients after soft thresholding. Null: no
// thresholds.
template <class Real>
void penalty_sums(const Real *table, const Real *thresholds, const double *scale, const double *root, Size n_rows,
                  Size n_lanes, double *sums) {
    with_entries<Real>(n_lanes, [&](auto entries) {
        using L = decltype(entries);
        for (Size j = 0; j < n_rows; ++j) {
            auto squares = L::fill(Real(0)), magnitudes = squares;
            for (Size k = j * n_lanes; k < (j + 1) * n_lanes; k += L::width) {
                auto w = L::get(table + k);
                if (thresholds)
                    w = w - L::clip(w, thresholds[j]);
                squares += w * w;
                magnitudes += L::magnitude(w);
            }
            sums[0] += scale[j] * L::total(squares);
            sums[1] += root[j] * L::total(magnitudes);
        }
    });
}

// Compute g = fraction (coef - center). Then turn `last_coef` and `last_g` into the changes since the last epoch,
// unless they are null.
//
// Adds to sums, with d the change of g and e that of an earlier epoch, `older_g`: g' (coef - center), d' d, d' g, d' e,
// e' g, e' e.
template <class Real>
void center_moves(const Real *coef, const Real *center, const Real *fraction, Size n_rows, Size n_lanes, Real *g,
                  Real *last_coef, Real *last_g, const Real *older_g, double *sums) {
    with_entries<Real>(n_lanes, [&](auto entries) {
        using L = decltype(entries);
        for (Size j = 0; j < n_rows; ++j) {
            const auto zero = L::fill(Real(0)), f = L::fill(fraction[j]);
            auto g_move = zero, d_d = zero, d_g = zero, d_e = zero, e_g = zero, e_e = zero;
            for (Size k = j * n_lanes; k < (j + 1) * n_lanes; k += L::width) {
                const auto w = L::get(coef + k), move = w - L::get(center + k), new_g = f * move;
                L::set(g + k, new_g);
                g_move += new_g * move;
                if (!last_g)
                    continue;
                const auto d = new_g - L::get(last_g + k);
                L::set(last_coef + k, w - L::get(last_coef + k));
                L::set(last_g + k, d);
                d_d += d * d;
                d_g += d * new_g;
                if (!older_g)
                    continue;
                const auto e = L::get(older_g + k);
                d_e += d * e;
                e_g += e * new_g;
                e_e += e * e;
            }
            const Real row[] = {L::total(g_move), L::total(d_d), L::total(d_g),
                                L::total(d_e),    L::total(e_g), L::total(e_e)};
            for (int m = 0; m < 6; ++m)
                sums[m] += row[m];
        }
    });
}

// Compute target = coef - sum_m factor_m change_m for one or two changes, and return g' (target - center).
template <class Real>
double extrapolate_rows(const Real *coef, const Real *center, const Real *g, const Real *change, Real factor,
                        const Real *older_change, Real older_factor, Size n_rows, Size n_lanes, Real *target) {
    double slope = 0;
    with_entries<Real>(n_lanes, [&](auto entries) {
        using L = decltype(entries);
        for (Size j = 0; j < n_rows; ++j) {
            auto row = L::fill(Real(0));
            for (Size k = j * n_lanes; k < (j + 1) * n_lanes; k += L::width) {
                auto w = L::get(coef + k) - L::fill(factor) * L::get(change + k);
                if (older_change)
                    w -= L::fill(older_factor) * L::get(older_change + k);
                L::set(target + k, w);
                row += L::get(g + k) * (w - L::get(center + k));
            }
            slope += L::total(row);
        }
    });
    return slope;
}

// Add fraction_j (target_j - center_j) to row rows[j] of the table.
template <class Real>
void add_moves(const Size *rows, const Real *fraction, const Real *target, const Real *center, Size n_rows,
               Size n_lanes, Real *table) {
    with_entries<Real>(n_lanes, [&](auto entries) {
        using L = decltype(entries);
        for (Size j = 0; j < n_rows; ++j)
            for (Size k = 0; k < n_lanes; k += L::width) {
                Real *entry = table + rows[j] * n_lanes + k;
                const Size source = j * n_lanes + k;
                const auto move = L::get(target + source) - L::get(center + source);
                L::set(entry, L::get(entry) + L::fill(fraction[j]) * move);
            }
    });
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
