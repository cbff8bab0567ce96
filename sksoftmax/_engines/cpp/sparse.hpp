// Passes over CSR rows: dual steps, losses and gradients, Hessian products.
//
// Each pass has two parts, so that threads can share it: what the raw predictions of a row change, row by row, and the
// sum of the rows' products with these changes, column by column. `rounds.hpp` distributes them.

#pragma once

#include <type_traits>

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

// Prefetch what a step reads of row i but its entries: rows in random order are not in the cache.
template <class Real, class Index>
SKSOFTMAX_INLINE void prefetch_row(Size i, const Rows<Real, Index> &rows, const DualVariables<Real> &dual,
                                   Size n_lanes) {
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

// Add the products of entries `start` to `end` of a row with the coefficients to z.
template <class Real, class Index>
SKSOFTMAX_INLINE void add_product(const Rows<Real, Index> &rows, Size start, Size end, const Model<Real> &model,
                                  Real *z) {
    if (!model.table)
        return;
    const auto add = [&](auto n_vectors, Size k) {
        accumulate<n_vectors()>(model, model.table + k, rows.indices + start, rows.values + start, end - start, z + k);
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

// Compute the raw predictions z of row i.
template <class Real, class Index>
SKSOFTMAX_INLINE void raw_row(Size i, const Rows<Real, Index> &rows, const Model<Real> &model, Real *z) {
    for (Size k = 0; k < model.n_lanes; k += WIDTH<Real>)
        store(z + k, load(model.intercept + k));
    add_product(rows, rows.first(i), rows.first(i + 1), model, z);
}

// Add entries `start` to `end` of a row times each of `change` to the table.
template <class Real, class Index>
SKSOFTMAX_INLINE void add_row(const Rows<Real, Index> &rows, Size start, Size end, const Real *change, Real *table,
                              Size n_lanes) {
    for (Size e = start; e < end; ++e) {
        Real *target = table + rows.indices[e] * n_lanes;
        const Vec<Real> value = all(rows.values[e]);
        for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
            store(target + k, load(target + k) + value * load(change + k));
    }
}

// The product of entries `start` to `end` of a row with the coefficients, for two classes.
template <class Real, class Index>
SKSOFTMAX_INLINE Real product_binary(const Rows<Real, Index> &rows, Size start, Size end, const Model<Real> &model) {
    Real sums[4] = {};
    if (!model.table)
        return 0;
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

// The raw prediction of row i, for two classes.
template <class Real, class Index>
SKSOFTMAX_INLINE double raw_row_binary(Size i, const Rows<Real, Index> &rows, const Model<Real> &model) {
    return model.intercept[0] + product_binary(rows, rows.first(i), rows.first(i + 1), model);
}

// Do `add_row` for two classes.
template <class Real, class Index>
SKSOFTMAX_INLINE void add_row_binary(const Rows<Real, Index> &rows, Size start, Size end, Real change, Real *table) {
    for (Size e = start; e < end; ++e)
        table[rows.indices[e]] += change * rows.values[e];
}

// Write the products of rows order[start] to order[end] with ranges `first` to `last` of the columns to `products`,
// (end - start, n_ranges, n_lanes).
template <class Real, class Index>
void multiply_ranges(const Rows<Real, Index> &rows, const Model<Real> &model, const Size *order, Size n_order,
                     Size start, Size end, Size first, Size last, Real *products) {
    const Size n_lanes = model.n_lanes;
    for (Size a = start; a < end; ++a, products += rows.n_ranges * n_lanes) {
        if (a + 1 < n_order) {
            prefetch(rows.indices, rows.first(order[a + 1], first), rows.first(order[a + 1], last));
            prefetch(rows.values, rows.first(order[a + 1], first), rows.first(order[a + 1], last));
        }
        for (Size c = first; c < last; ++c) {
            const Size entry = rows.first(order[a], c), end_entry = rows.first(order[a], c + 1);
            Real *z = products + c * n_lanes;
            if (n_lanes == 1) {
                *z = product_binary(rows, entry, end_entry, model);
                continue;
            }
            for (Size k = 0; k < n_lanes; k += WIDTH<Real>)
                store(z + k, all(Real(0)));
            add_product(rows, entry, end_entry, model, z);
        }
    }
}

// Take the dual steps of rows order[start] to order[end] from their `products` with the model, and update their dual
// variables.
//
// Writes the change of the model by each row to `changes`, (end - start, n_lanes), and to `sums` weight * loss and
// weight * the Fenchel-Young gap between the dual variables and the raw predictions, both before the step. Rows whose
// weighted gap is at most `gap_tol` do not change. `memory` has room for the vectors of `Scratch`.
template <class Real, class Index>
void sdca_steps(const Rows<Real, Index> &rows, const Model<Real> &model, const DualVariables<Real> &dual,
                const Size *order, Size n_order, Size start, Size end, const Real *products, Real inv_n, double gap_tol,
                Real *changes, Sums *sums, Real *memory) {
    const Size n_lanes = model.n_lanes;
    Scratch<Real> s(memory, n_lanes);
    for (Size a = start; a < end; ++a, changes += n_lanes, ++sums) {
        const Size i = order[a];
        if (a + 1 < n_order)
            prefetch_row(order[a + 1], rows, dual, n_lanes);
        if (n_lanes == 1) {
            Real z = model.intercept[0];
            for (Size c = 0; c < rows.n_ranges; ++c)
                z += *products++;
            double change;
            *sums = sdca_step_binary(i, z, rows.y[i], rows.weight[i], dual, inv_n, gap_tol, change);
            *changes = Real(change);
        } else {
            s.z = changes;
            for (Size k = 0; k < n_lanes; k += WIDTH<Real>) {
                Vec<Real> z = load(model.intercept + k);
                for (Size c = 0; c < rows.n_ranges; ++c)
                    z += load(products + c * n_lanes + k);
                store(s.z + k, z);
            }
            products += rows.n_ranges * n_lanes;
            *sums = sdca_step(i, rows.y[i], rows.weight[i], dual, inv_n, gap_tol, s, n_lanes);
        }
    }
}

// Write the sums of `sdca_steps` for rows `start` to `end`, without a step.
//
// Unless `changes` is null, the gradient of the first sum by the raw predictions of each row is written to it, and the
// dual variables become those of the model's probabilities.
template <class Real, class Index>
void evaluate(const Rows<Real, Index> &rows, const Model<Real> &model, const DualVariables<Real> &dual, Size start,
              Size end, Real *changes, Sums *sums, Real *memory) {
    const Size n_lanes = model.n_lanes;
    Scratch<Real> s(memory, n_lanes);
    const bool with_gradient = changes;
    for (Size i = start; i < end; ++i, ++sums) {
        if (n_lanes == 1) {
            double z = raw_row_binary(i, rows, model);
            *sums = evaluate_row_binary(i, z, rows.y[i], rows.weight[i], dual, with_gradient);
            if (with_gradient)
                *changes++ = Real(z);
        } else {
            if (with_gradient)
                s.z = changes + (i - start) * n_lanes;
            raw_row(i, rows, model, s.z);
            *sums = evaluate_row(i, rows.y[i], rows.weight[i], dual, with_gradient, s, n_lanes);
        }
    }
}

// Add the products of rows order[start] to order[end] and their `changes` to ranges `first` to `last` of the columns of
// the table.
//
// Rows in the order of their numbers if `order` is null. A row whose gap in `sums` is at most `gap_tol` adds nothing,
// unless `sums` is null.
template <class Real, class Index>
void add_changes(const Rows<Real, Index> &rows, const Size *order, Size start, Size end, Size first, Size last,
                 const Real *changes, const Sums *sums, double gap_tol, Real *table, Size n_lanes) {
    for (Size a = start; a < end; ++a, changes += n_lanes) {
        if (sums && !(sums++->gap > gap_tol))
            continue;
        const Size i = order ? order[a] : a, entry = rows.first(i, first), end_entry = rows.first(i, last);
        if (n_lanes == 1)
            add_row_binary(rows, entry, end_entry, *changes, table);
        else
            add_row(rows, entry, end_entry, changes, table, n_lanes);
    }
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

// Write the Hessian of the loss of rows `start` to `end` by their raw predictions, at the probabilities of the dual
// variables, times the raw predictions of `direction`.
template <class Real, class Index>
void multiply_rows(const Rows<Real, Index> &rows, const DualVariables<Real> &dual, const Model<Real> &direction,
                   Size start, Size end, Real *changes) {
    const Size n_lanes = direction.n_lanes;
    for (Size i = start; i < end; ++i) {
        const Real weight = rows.weight[i];
        Real *z = changes + (i - start) * n_lanes;
        if (n_lanes == 1) {
            const double p = std::abs(double(dual.residual[i]));
            *z = Real(weight * (p * (1 - p)) * raw_row_binary(i, rows, direction));
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
    }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
