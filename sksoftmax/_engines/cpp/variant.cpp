// The kernels, compiled once for each variant of the processor: see setup.py.

#include "kernels.hpp"

#include "center.hpp"
#include "columns.hpp"
#include "dense.hpp"
#include "moments.hpp"
#include "products.hpp"
#include "saturation.hpp"
#include "softmax.hpp"
#include "sparse.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

template <class Real, class Index> Kernels<Real, Index> kernels() {
    return {
        multiply_ranges<Real, Index>,
        sdca_steps<Real, Index>,
        evaluate<Real, Index>,
        add_changes<Real, Index>,
        multiply_rows<Real, Index>,
        raw_predictions<Real, Index>,
        sdca_block<Real>,
        evaluate_block<Real>,
        add_mean_squares<Real, Index>,
        squared_norms<Real, Index>,
        split_rows<Index>,
        scale_values<Real, Index>,
        count_nonzeros<Real>,
        copy_nonzeros<Real, Index>,
        threshold_rows<Real>,
        penalty_sums<Real>,
        center_moves<Real>,
        extrapolate_rows<Real>,
        add_moves<Real>,
        loss_and_residual<Real>,
        multiply_table<Real>,
        expit<Real>,
        softmax_in_place<Real>,
        multiply_hessian<Real>,
        linearize<Real>,
        linearize_binary<Real>,
        summarize_columns<Real>,
        add_column_squares<Real>,
        row_squares<Real>,
        scale_rows<Real, Real>,
        scale_rows<Real, double>,
        scale_columns<Real>,
        proba_and_variances<Real>,
        class_covariance,
        multiply_by_roots,
        add_weighted_gram,
    };
}

template Kernels<float, std::int32_t> kernels();
template Kernels<float, std::int64_t> kernels();
template Kernels<double, std::int32_t> kernels();
template Kernels<double, std::int64_t> kernels();

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
