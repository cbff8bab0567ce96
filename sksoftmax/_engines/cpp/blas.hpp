// Products with vectors, Gram matrices and inner products of dense rows, by the BLAS that SciPy brings
// (`scipy.linalg.cython_blas`), and Cholesky factors by its LAPACK.

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

// Compute z = X v, for X of (n_samples, n_features).
template <class Real> void multiply_vector(const Real *X, const Real *v, Size n_samples, Size n_features, Real *z) {
    int p = int(n_features), m = int(n_samples), one_int = 1;
    Real one = 1, zero = 0;
    char transposed = 'T'; // the BLAS reads the columns first
    if (n_features == 0)
        std::fill_n(z, n_samples, zero);
    else if (n_samples > 0)
        Blas<Real>::gemv(&transposed, &p, &m, &one, const_cast<Real *>(X), &p, const_cast<Real *>(v), &one_int, &zero,
                         z, &one_int);
}

// Compute out = X' z, or add it to `out`, for the first n_columns of the n_features columns of X.
template <class Real>
void multiply_transposed(const Real *X, const Real *z, Size n_samples, Size n_features, Size n_columns, bool add,
                         Real *out) {
    int p = int(n_features), q = int(n_columns), m = int(n_samples), one_int = 1;
    Real one = 1, factor = add ? one : Real(0);
    char plain = 'N';
    if (n_columns > 0)
        Blas<Real>::gemv(&plain, &q, &m, &one, const_cast<Real *>(X), &p, const_cast<Real *>(z), &one_int, &factor, out,
                         &one_int);
}

// Compute z = columns' X', (n_columns, n_samples), for columns of (n_features, n_columns).
template <class Real>
void multiply_columns(const Real *X, const Real *columns, Size n_samples, Size n_features, Size n_columns, Real *z) {
    if (n_columns == 1)
        return multiply_vector(X, columns, n_samples, n_features, z);
    int p = int(n_features), m = int(n_samples), n = int(n_columns);
    int ld = std::max(1, p); // of X without columns
    Real one = 1, zero = 0;
    char transposed = 'T';
    Blas<Real>::gemm(&transposed, &transposed, &m, &n, &p, &one, const_cast<Real *>(X), &ld,
                     const_cast<Real *>(columns), &n, &zero, z, &m);
}

// Compute out = rows X, (n_rows, n_features), for rows of (n_rows, n_samples).
template <class Real>
void multiply_rows(const Real *X, const Real *rows, Size n_samples, Size n_features, Size n_rows, Real *out) {
    if (n_rows == 1)
        return multiply_transposed(X, rows, n_samples, n_features, n_features, false, out);
    int p = int(n_features), m = int(n_samples), n = int(n_rows);
    Real one = 1, zero = 0;
    char plain = 'N';
    if (n_features > 0)
        Blas<Real>::gemm(&plain, &plain, &p, &n, &m, &one, const_cast<Real *>(X), &p, const_cast<Real *>(rows), &m,
                         &zero, out, &p);
}

// Add factor * u' u to the lower triangle of `gram`, (n_columns, n_columns); u is (n_samples, n_columns).
template <class Real> void add_gram(const Real *u, Size n_samples, Size n_columns, Real factor, Real *gram) {
    int q = int(n_columns), n = int(n_samples);
    Real one = 1;
    char upper = 'U', plain = 'N'; // the BLAS reads the columns first
    if (n_columns > 0)
        Blas<Real>::syrk(&upper, &plain, &q, &n, &factor, const_cast<Real *>(u), &q, &one, gram, &q);
}

// Do `add_gram` for u one column after the other: (n_columns, stride), with zeros beyond the last row.
template <class Real> void add_gram_of_columns(const Real *u, Size stride, Size n_columns, Real factor, Real *gram) {
    int q = int(n_columns), n = int(stride);
    Real one = 1;
    char upper = 'U', transposed = 'T';
    if (n_columns > 0)
        Blas<Real>::syrk(&upper, &transposed, &q, &n, &factor, const_cast<Real *>(u), &n, &one, gram, &q);
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

// Cholesky factors in float64.
struct Lapack {
    using Potrf = void(char *, int *, double *, int *, int *);
    using Potrs = void(char *, int *, int *, double *, int *, double *, int *, int *);

    static inline Potrf *factorize = nullptr;
    static inline Potrs *solve = nullptr;
};

// Overwrite the lower triangle of a matrix, (d, d), by its Cholesky factor. Returns whether it is positive definite.
inline bool factorize(double *matrix, Size d) {
    int n = int(d), info = 0;
    char upper = 'U'; // LAPACK reads the columns first
    Lapack::factorize(&upper, &n, matrix, &n, &info);
    return info == 0;
}

// Overwrite the right-hand side by the solution of the system with this Cholesky factor.
inline void solve(const double *factor, Size d, double *right) {
    int n = int(d), one = 1, info = 0;
    char upper = 'U';
    Lapack::solve(&upper, &n, &one, const_cast<double *>(factor), &n, right, &n, &info);
}

} // namespace sksoftmax
