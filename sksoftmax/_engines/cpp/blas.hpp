// Products of dense rows with the coefficients of all classes, by the BLAS that SciPy brings
// (`scipy.linalg.cython_blas`).

#pragma once

#include <algorithm>

#include "arrays.hpp"

namespace sksoftmax {

template <class Real> struct Blas {
    using Gemm = void(char *, char *, int *, int *, int *, Real *, Real *, int *, Real *, int *, Real *, Real *, int *);
    using Gemv = void(char *, int *, int *, Real *, Real *, int *, Real *, int *, Real *, Real *, int *);
    using Syrk = void(char *, char *, int *, int *, Real *, Real *, int *, Real *, Real *, int *);

    static inline Gemm *gemm = nullptr;
    static inline Gemv *gemv = nullptr;
    static inline Syrk *syrk = nullptr;
};

//: Multiplications of a product that a BLAS computes without packing its operands first. For a thin product, of rows
//: with a few classes, packing takes as long as the product.
constexpr Size MAX_UNPACKED = 1000000;

//: Rows of a product at least: for fewer, the overhead of a call dominates.
constexpr Size MIN_ROWS = 64;

// Whether MIN_ROWS rows need no packing.
inline bool is_thin(Size n_features, Size n_outputs) { return n_features * n_outputs * MIN_ROWS <= MAX_UNPACKED; }

//: Entries of the rows and raw predictions of a product that is not thin, at least MIN_ROWS rows: they fit in a cache.
constexpr Size SPAN_ENTRIES = Size(1) << 18;

// The number of rows of a product with `n_outputs` classes.
inline Size product_rows(Size n_samples, Size n_features, Size n_outputs) {
    const Size n_rows = is_thin(n_features, n_outputs) ? MAX_UNPACKED / std::max<Size>(1, n_features * n_outputs)
                                                       : SPAN_ENTRIES / (n_features + n_outputs);
    return std::min(std::max(n_rows, MIN_ROWS), n_samples);
}

// Compute z = coef X' + intercept for the rows `start` to `end` of X, (n_samples, n_features).
//
// `columns` is coef', (n_features, n_outputs). z, (n_outputs, end - start), begins at the first of these rows. A thin
// product is faster with the rows in their order, and is transposed; `memory` has room for its entries.
template <class Real>
void multiply_rows(const Real *X, const Real *columns, const Real *intercept, Size n_features, Size n_outputs,
                   Size start, Size end, Real *z, Real *memory) {
    int p = int(n_features), m = int(end - start), K = int(n_outputs), one_int = 1;
    Real one = 1, zero = 0;
    Real *rows = const_cast<Real *>(X + start * n_features), *table = const_cast<Real *>(columns);
    char transposed = 'T', plain = 'N';
    if (n_features == 0) {
        std::fill_n(z, m * K, zero);
    } else if (n_outputs == 1) {
        Blas<Real>::gemv(&transposed, &p, &m, &one, rows, &p, table, &one_int, &zero, z, &one_int);
    } else if (is_thin(n_features, n_outputs)) {
        Blas<Real>::gemm(&plain, &plain, &K, &m, &p, &one, table, &K, rows, &p, &zero, memory, &K);
        for (Size k = 0; k < n_outputs; ++k)
            for (Size i = 0; i < m; ++i)
                z[k * m + i] = memory[i * n_outputs + k];
    } else {
        Blas<Real>::gemm(&transposed, &transposed, &m, &K, &p, &one, rows, &p, table, &K, &zero, z, &m);
    }
    for (Size k = 0; k < n_outputs; ++k)
        for (Size i = 0; i < m; ++i)
            z[k * m + i] += intercept[k];
}

// Add residual X to `coef`, (n_outputs, n_features), for the rows `start` to `end`; `residual` is as z above. `memory`
// has room for the entries of `coef`.
template <class Real>
void add_gradient(const Real *X, const Real *residual, Size n_features, Size n_outputs, Size start, Size end,
                  Real *memory, double *coef) {
    int p = int(n_features), m = int(end - start), K = int(n_outputs), one_int = 1;
    Real one = 1, zero = 0;
    Real *rows = const_cast<Real *>(X + start * n_features), *table = const_cast<Real *>(residual);
    char plain = 'N';
    if (n_features == 0)
        return;
    if (n_outputs == 1)
        Blas<Real>::gemv(&plain, &p, &m, &one, rows, &p, table, &one_int, &zero, memory, &one_int);
    else
        Blas<Real>::gemm(&plain, &plain, &p, &K, &m, &one, rows, &p, table, &m, &zero, memory, &p);
    for (Size j = 0; j < n_outputs * n_features; ++j)
        coef[j] += memory[j];
}

// Add factor * u' u to the lower triangle of `gram`, (n_columns, n_columns); u is (n_samples, n_columns).
template <class Real> void add_gram(const Real *u, Size n_samples, Size n_columns, Real factor, Real *gram) {
    int q = int(n_columns), n = int(n_samples);
    Real one = 1;
    char upper = 'U', plain = 'N'; // the BLAS reads the columns first
    if (n_columns > 0)
        Blas<Real>::syrk(&upper, &plain, &q, &n, &factor, const_cast<Real *>(u), &q, &one, gram, &q);
}

// Add a' b to `sums`, (n_left, n_right); a is (n_samples, n_left), and b (n_samples, n_right).
template <class Real>
void add_inner_products(const Real *a, const Real *b, Size n_samples, Size n_left, Size n_right, Real *sums) {
    int left = int(n_left), right = int(n_right), n = int(n_samples);
    Real one = 1;
    char plain = 'N', transposed = 'T';
    if (n_left > 0 && n_right > 0)
        Blas<Real>::gemm(&plain, &transposed, &right, &left, &n, &one, const_cast<Real *>(b), &right,
                         const_cast<Real *>(a), &left, &one, sums, &right);
}

// Compute z = rows columns for a tile: rows is (n_rows, n_features); columns and z are tiles, with n_outputs columns,
// of tables with `width` columns.
template <class Real>
void multiply_tile(const Real *rows, const Real *columns, Size n_features, Size width, Size n_rows, Size n_outputs,
                   Real *z) {
    int p = int(n_features), ld = int(width), m = int(n_rows), K = int(n_outputs), one_int = 1;
    Real one = 1, zero = 0;
    Real *x = const_cast<Real *>(rows), *table = const_cast<Real *>(columns);
    char plain = 'N', transposed = 'T';
    if (width == 1)
        Blas<Real>::gemv(&transposed, &p, &m, &one, x, &p, table, &one_int, &zero, z, &one_int);
    else
        Blas<Real>::gemm(&plain, &plain, &K, &m, &p, &one, table, &ld, x, &p, &zero, z, &ld);
}

// Add rows' changes to a range of `n_columns` rows of a table: rows are tiles of a table with n_features columns, and
// changes is (n_rows, n_outputs).
template <class Real>
void add_transposed_tile(const Real *rows, const Real *changes, Size n_features, Size n_outputs, Size n_rows,
                         Size n_columns, Real *table) {
    int p = int(n_features), m = int(n_rows), K = int(n_outputs), q = int(n_columns), one_int = 1;
    Real one = 1;
    Real *x = const_cast<Real *>(rows), *z = const_cast<Real *>(changes);
    char plain = 'N', transposed = 'T';
    if (n_outputs == 1)
        Blas<Real>::gemv(&plain, &q, &m, &one, x, &p, z, &one_int, &one, table, &one_int);
    else
        Blas<Real>::gemm(&plain, &transposed, &K, &q, &m, &one, z, &K, x, &p, &one, table, &K);
}

// Compute the inner products of n_left with n_right rows of n_features entries; out is a tile of a table of `width`
// columns.
template <class Real>
void inner_products(const Real *left, const Real *right, Size n_features, Size n_left, Size n_right, Real *out,
                    Size width) {
    int p = int(n_features), m = int(n_left), n = int(n_right), ld = int(width);
    Real one = 1, zero = 0;
    char plain = 'N', transposed = 'T';
    Blas<Real>::gemm(&transposed, &plain, &n, &m, &p, &one, const_cast<Real *>(right), &p, const_cast<Real *>(left), &p,
                     &zero, out, &ld);
}

} // namespace sksoftmax
