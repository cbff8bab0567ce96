// The table of the kernels. Each variant of the processor fills one; `module.cpp` picks a variant and calls its
// kernels.

#pragma once

#include "arrays.hpp"

namespace sksoftmax {

// See sparse.hpp, dense.hpp, columns.hpp, center.hpp, moments.hpp, products.hpp,
// saturation.hpp and softmax.hpp for what they compute.
template <class Real, class Index> struct Kernels {
    void (*multiply_ranges)(const Rows<Real, Index> &, const Model<Real> &, const Size *order, Size n_order, Size start,
                            Size end, Size first, Size last, Real *products);
    void (*sdca_steps)(const Rows<Real, Index> &, const Model<Real> &, const DualVariables<Real> &, const Size *order,
                       Size n_order, Size start, Size end, const Real *products, Real inv_n, double gap_tol,
                       Real *changes, Sums *sums, Real *memory);
    void (*evaluate)(const Rows<Real, Index> &, const Model<Real> &, const DualVariables<Real> &, Size start, Size end,
                     Real *changes, Sums *sums, Real *memory);
    void (*add_changes)(const Rows<Real, Index> &, const Size *order, Size start, Size end, Size first, Size last,
                        const Real *changes, const Sums *sums, double gap_tol, Real *table, Size n_lanes);
    void (*multiply_rows)(const Rows<Real, Index> &, const DualVariables<Real> &, const Model<Real> &direction,
                          Size start, Size end, Real *changes);
    void (*raw_predictions)(const Rows<Real, Index> &, const Model<Real> &, Real *z, Size start, Size end);
    Sums (*sdca_block)(const Size *order, Size n_block, Real *z, const Real *coupling, const Size *y,
                       const Real *weight, const DualVariables<Real> &, Size n_lanes, Real inv_n, double gap_tol,
                       Size &n_changed);
    Sums (*evaluate_block)(Size start, Size n_block, Real *z, const Size *y, const Real *weight,
                           const DualVariables<Real> &, Size n_lanes, bool with_gradient);
    void (*add_mean_squares)(const Index *indptr, const Index *indices, const Real *values, const double *norm_weight,
                             Size n_samples, double *squares);
    void (*squared_norms)(const Index *indptr, const Index *indices, const Real *values, const double *scale,
                          Size n_samples, double *squared_norm);
    void (*split_rows)(const Index *indptr, const Index *indices, Size n_samples, const Size *bounds, Size n_ranges,
                       Index *splits);
    void (*scale_values)(const Index *indices, const Real *values, const double *factor, Size n_entries, Real *out);
    void (*count_nonzeros)(const Real *X, Size n_samples, Size n_features, Size *indptr);
    void (*copy_nonzeros)(const Real *X, Size n_samples, Size n_features, Index *indices, Real *values);
    void (*threshold_rows)(const Real *table, const Real *thresholds, Size n_rows, Size n_lanes, Real *out);
    void (*penalty_sums)(const Real *table, const Real *thresholds, const double *scale, const double *root,
                         Size n_rows, Size n_lanes, double *sums);
    void (*center_moves)(const Real *coef, const Real *center, const Real *fraction, Size n_rows, Size n_lanes, Real *g,
                         Real *last_coef, Real *last_g, const Real *older_g, double *sums);
    double (*extrapolate_rows)(const Real *coef, const Real *center, const Real *g, const Real *change, Real factor,
                               const Real *older_change, Real older_factor, Size n_rows, Size n_lanes, Real *target);
    void (*add_moves)(const Size *rows, const Real *fraction, const Real *target, const Real *center, Size n_rows,
                      Size n_lanes, Real *table);
    double (*loss_and_residual)(Real *z, Size n_outputs, Size n_samples, const Size *y, const double *weight,
                                double *sums);
    void (*multiply_table)(const Real *x, Size n_rows, Size row_step, Size term_step, const Real *table, Size width,
                           Size n_lanes, Size n_terms, bool add, Real *out);
    void (*expit)(const Real *z, Size n_samples, double *proba);
    void (*softmax_in_place)(Real *z, Size n_classes, Size n_samples);
    void (*multiply_hessian)(const Real *proba, Size proba_stride, Real *z, Size n_classes, Size n_samples,
                             const double *weight, double *sums);
    double (*linearize)(const Real *proba, const Real *change, const double *weight, Size n_classes, Size n_samples,
                        double *differences, double *sums);
    double (*linearize_binary)(const double *proba, const Real *change, const double *weight, Size n_samples,
                               double *differences, double *sums);
    void (*summarize_columns)(const Real *X, const double *weight, Size n_samples, Size n_features, Real *low,
                              Real *high, double *sums);
    void (*add_column_squares)(const Real *X, const Real *mean, const Real *factor, const double *weight,
                               Size n_samples, Size n_features, double *sums);
    void (*row_squares)(const Real *X, const Real *mean, const double *factor, Size n_samples, Size n_features,
                        double *squares);
    void (*scale_rows)(const Real *X, const Real *mean, const Real *factor, const Real *root, Size n_samples,
                       Size n_features, Size n_columns, Real *u);
    void (*scale_rows_double)(const Real *X, const double *mean, const double *factor, const double *root,
                              Size n_samples, Size n_features, Size n_columns, double *u);
    void (*scale_columns)(const Real *X, const double *mean, const double *factor, Size n_samples, Size n_features,
                          Size n_columns, Size width, Size stride, double *u);
    void (*proba_and_variances)(const Real *proba, Size n_classes, Size n_samples, double *p, double *variances);
    void (*class_covariance)(const double *weight, const double *p, const double *other, Size n_samples, double *out);
    void (*multiply_by_roots)(const double *u, const double *weight, Size n_columns, Size stride, double *out);
    void (*add_weighted_gram)(const double *u, const double *weight, Size n_columns, Size stride, double *weighted,
                              double *gram);
};

#define SKSOFTMAX_DECLARE(variant)                                                                                     \
    namespace variant {                                                                                                \
    template <class Real, class Index> Kernels<Real, Index> kernels();                                                 \
    }
SKSOFTMAX_DECLARE(baseline)
#if defined(SKSOFTMAX_X86)
SKSOFTMAX_DECLARE(avx2)
SKSOFTMAX_DECLARE(avx512)
#endif
#undef SKSOFTMAX_DECLARE

} // namespace sksoftmax
