// Passes over CSR rows: epochs of dual steps, losses and gradients, Hessian products.

#pragma once

#include <type_traits>
#include <vector>

#include "visit.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

// Prefetch the cache lines of entries `start` to `end` of an array, without waiting.
template <class T> SKSOFTMAX_INLINE void prefetch(const T *array, Size start, Size end) {
#if defined(__GNUC__)
    const char *first = reinterpret_cast<const char *>(array + start),
               *last = reinterpret_cast<const char *>(array + end);
    for (; first < last; first += 64)
        __builtin_prefetch(first);
#else
    (void)array, (void)start, (void)end;
#endif
}

// Prefetch all that a step reads of row i: rows in random order are not in the cache.
template <class Real, class Index>
SKSOFTMAX_INLINE void prefetch_row(Size i, const Rows<Real, Index> &rows, const DualVariables<Real> &dual,
                                   Size n_lanes) {
    prefetch(rows.indices, rows.indptr[i], rows.indptr[i + 1]);
    prefetch(rows.values, rows.indptr[i], rows.indptr[i + 1]);
    prefetch(rows.y, i, i + 1);
    prefetch(rows.weight, i, i + 1);
    prefetch(dual.residual, i * n_lanes, (i + 1) * n_lanes);
    prefetch(dual.entropy, i, i + 1);
    prefetch(dual.q, i, i + 1);
}

// w without its part within [-threshold, threshold].
template <class Real> SKSOFTMAX_INLINE Vec<Real> soft_threshold(Vec<Real> w, Real threshold) {
    return w - min(max(w, all(-threshold)), all(threshold));
}

// Add the raw predictions of a row to the `n_vectors` vectors of z: sum_e value_e * table[index_e].
//
// All vectors have two sums in registers: with one in memory each addition would wait for the one before.
template <int n_vectors, class Real, class Index>
SKSOFTMAX_INLINE void accumulate(const Model<Real> &model, const Real *table, const Index *indices, const Real *values,
                                 Size n_entries, Real *z) {
    Vec<Real> even[n_vectors], odd[n_vectors];
    for (int v = 0; v < n_vectors; ++v) {
        even[v] = load(z + v * WIDTH<Real>);
        odd[v] = all(Real(0));
    }
    const auto add = [&](Vec<Real> *sums, Size e) {
        const Real *source = table + indices[e] * model.n_lanes;
        for (int v = 0; v < n_vectors; ++v) {
            Vec<Real> w = load(source + v * WIDTH<Real>);
            if (model.thresholds)
                w = soft_threshold<Real>(w, model.thresholds[indices[e]]);
            sums[v] += all(values[e]) * w;
        }
    };
    Size e = 0;
    for (; e + 1 < n_entries; e += 2) {
        add(even, e);
        add(odd, e + 1);
    }
    if (e < n_entries)
        add(even, e);
    for (int v = 0; v < n_vectors; ++v)
        store(z + v * WIDTH<Real>, even[v] + odd[v]);
}

// Compute the raw predictions z of row i.
template <class Real, class Index>
SKSOFTMAX_INLINE void raw_row(Size i, const Rows<Real, Index> &rows, const Model<Real> &model, Real *z) {
    for (Size k = 0; k < model.n_lanes; k += WIDTH<Real>)
        store(z + k, load(model.intercept + k));
    if (!model.table)
        return;
    const Size start = rows.indptr[i], n_entries = rows.indptr[i + 1] - start;
    const auto add = [&](auto n_vectors, Size k) {
        accumulate<n_vectors()>(model, model.table + k, rows.indices + start, rows.values + start, n_entries, z + k);
    };
    Size k = 0;
    for (; k + 4 * WIDTH<Real> <= model.n_lanes; k += 4 * WIDTH<Real>)
        add(std::integral_constant<int, 4>(), k);
    switch ((model.n_lanes - k) / WIDTH<Real>) {
    case 3:
        return add(std::integral_constant<int, 3>(), k);
    case 2:
        return add(std::integral_constant<int, 2>(), k);
    case 1:
        return add(std::integral_constant<int, 1>(), k);
    }
}

// Add row i times each of `change` to the table.
template <class Real, class Index>
SKSOFTMAX_INLINE void add_row(Size i, const Rows<Real, Index> &rows, const Real *change, Real *table, Size n_lanes) {
    for (Size e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
        Real *target = table + rows.indices[e] * n_lanes;
        const Vec<Real> value = all(rows.values[e]);
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
            store(target + k, load(target + k) + value * load(change + k));
    }
}

// The raw prediction of row i, for two classes.
template <class Real, class Index>
SKSOFTMAX_INLINE double raw_row_binary(Size i, const Rows<Real, Index> &rows, const Model<Real> &model) {
    Real sums[4] = {model.intercept[0], 0, 0, 0};
    if (!model.table)
        return sums[0];
    const Size start = rows.indptr[i], end = rows.indptr[i + 1];
    const auto entry = [&](Size e) {
        const Index j = rows.indices[e];
        Real w = model.table[j];
        if (model.thresholds) {
            const Real threshold = model.thresholds[j], low = w > -threshold ? w : -threshold;
            w -= low < threshold ? low : threshold;
        }
        return rows.values[e] * w;
    };
    Size e = start;
    for (; e + 4 <= end; e += 4)
        for (int k = 0; k < 4; ++k)
            sums[k] += entry(e + k);
    for (; e < end; ++e)
        sums[0] += entry(e);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Do `add_row` for two classes.
template <class Real, class Index>
SKSOFTMAX_INLINE void add_row_binary(Size i, const Rows<Real, Index> &rows, Real change, Real *table) {
    for (Size e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e)
        table[rows.indices[e]] += change * rows.values[e];
}

// Take the dual steps of the rows in `order`, and update the model and the dual variables.
//
// Returns two sums over the rows, each before the row's step: weight * loss, and weight * the Fenchel-Young gap between
// the dual variables and the raw predictions. Rows whose weighted gap is at most `gap_tol` do not change.
template <class Real, class Index>
Sums sdca_epoch(const Rows<Real, Index> &rows, const Model<Real> &model, Real *table, Real *intercept,
                const DualVariables<Real> &dual, const Size *order, Size n_order, Real intercept_scale, Real inv_n,
                double gap_tol) {
    const Size n_lanes = model.n_lanes;
    std::vector<Real> memory(Scratch<Real>::n_vectors * n_lanes);
    const Scratch<Real> s(memory.data(), n_lanes);
    Sums sums;
    for (Size a = 0; a < n_order; ++a) {
        const Size i = order[a];
        if (a + 1 < n_order)
            prefetch_row(order[a + 1], rows, dual, n_lanes);
        Sums row;
        if (n_lanes == 1) {
            double change;
            row = sdca_step_binary(i, raw_row_binary(i, rows, model), rows.y[i], rows.weight[i], dual, inv_n, gap_tol,
                                   change);
            if (row.gap > gap_tol) {
                add_row_binary(i, rows, Real(change), table);
                intercept[0] += intercept_scale * Real(change);
            }
        } else {
            raw_row(i, rows, model, s.z);
            row = sdca_step(i, rows.y[i], rows.weight[i], dual, inv_n, gap_tol, s, n_lanes);
            if (row.gap > gap_tol) {
                add_row(i, rows, s.z, table, n_lanes);
                for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
                    store(intercept + k, load(intercept + k) + all(intercept_scale) * load(s.z + k));
            }
        }
        sums += row;
    }
    return sums;
}

// Return the sums of `sdca_epoch` over rows `start` to `end` at the model as it is, without a step.
//
// Unless `gradient` has no table, the gradient of the first sum is added to it, and the dual variables become those of
// the model's probabilities.
template <class Real, class Index>
Sums evaluate(const Rows<Real, Index> &rows, const Model<Real> &model, const DualVariables<Real> &dual,
              const ModelSums<Real> &gradient, Size start, Size end) {
    const Size n_lanes = model.n_lanes;
    std::vector<Real> memory(Scratch<Real>::n_vectors * n_lanes);
    const Scratch<Real> s(memory.data(), n_lanes);
    const bool with_gradient = gradient.table;
    Sums sums;
    for (Size i = start; i < end; ++i) {
        if (n_lanes == 1) {
            double z = raw_row_binary(i, rows, model);
            sums += evaluate_row_binary(i, z, rows.y[i], rows.weight[i], dual, with_gradient);
            if (with_gradient) {
                add_row_binary(i, rows, Real(z), gradient.table);
                gradient.intercept[0] += z;
            }
        } else {
            raw_row(i, rows, model, s.z);
            sums += evaluate_row(i, rows.y[i], rows.weight[i], dual, with_gradient, s, n_lanes);
            if (with_gradient) {
                add_row(i, rows, s.z, gradient.table, n_lanes);
                for (Size k = 0; k < n_lanes; ++k)
                    gradient.intercept[k] += s.z[k];
            }
        }
    }
    return sums;
}

// Compute the raw predictions of rows `start` to `end`: z is (n_samples, n_lanes).
template <class Real, class Index>
void raw_predictions(const Rows<Real, Index> &rows, const Model<Real> &model, Real *z, Size start, Size end) {
    for (Size i = start; i < end; ++i) {
        if (model.n_lanes == 1)
            z[i] = Real(raw_row_binary(i, rows, model));
        else
            raw_row(i, rows, model, z + i * model.n_lanes);
    }
}

// Add X' residual of rows `start` to `end` to `table`; `residual` is (n_samples, n_lanes).
template <class Real, class Index>
void add_transposed_product(const Rows<Real, Index> &rows, const Real *residual, Real *table, Size n_lanes, Size start,
                            Size end) {
    for (Size i = start; i < end; ++i) {
        if (n_lanes == 1)
            add_row_binary(i, rows, residual[i], table);
        else
            add_row(i, rows, residual + i * n_lanes, table, n_lanes);
    }
}

// Add the Hessian of the loss of rows `start` to `end`, at the probabilities of the dual variables, times `direction`.
template <class Real, class Index>
void add_hessian_product(const Rows<Real, Index> &rows, const DualVariables<Real> &dual, const Model<Real> &direction,
                         const ModelSums<Real> &product, Size start, Size end) {
    const Size n_lanes = direction.n_lanes;
    std::vector<Real> memory(n_lanes);
    Real *z = memory.data();
    for (Size i = start; i < end; ++i) {
        const Real weight = rows.weight[i];
        if (n_lanes == 1) {
            const double p = std::abs(double(dual.residual[i]));
            const double change = weight * (p * (1 - p)) * raw_row_binary(i, rows, direction);
            add_row_binary(i, rows, Real(change), product.table);
            product.intercept[0] += change;
            continue;
        }
        raw_row(i, rows, direction, z);
        const Real *r = dual.residual + i * n_lanes;
        const Real z_class = z[rows.y[i]];
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
            store(z + k, load(z + k) - all(z_class));
        const Real mean = dot(r, z, n_lanes);
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
            store(z + k, all(weight) * load(r + k) * (load(z + k) - all(mean)));
        z[rows.y[i]] -= weight * mean;
        add_row(i, rows, z, product.table, n_lanes);
        for (Size k = 0; k < n_lanes; ++k)
            product.intercept[k] += z[k];
    }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
