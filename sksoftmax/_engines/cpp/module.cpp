// The Python module of the kernels: it checks the arrays, releases the interpreter's lock and lets signals interrupt.
//
// `compiled.py` documents the functions for their callers.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#if defined(SKSOFTMAX_X86)
#include <xmmintrin.h> // _mm_getcsr
#endif

#if defined(_MSC_VER)
#define NOMINMAX
#include <windows.h> // IsProcessorFeaturePresent
#endif

#include "blas.hpp"
#include "blocks.hpp"
#include "kernels.hpp"
#include "rounds.hpp"

namespace nb = nanobind;

namespace sksoftmax {
namespace {

// Arrays of any number of dimensions, or of two; all contiguous, in the order of rows.
template <class T> using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T> using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// The tuples of arrays that `compiled.py` makes: CsrRows, FlatModel, GradientSums, DualVariables.
template <class Real, class Index>
using RowArrays =
    std::tuple<Array<const Index>, Array<const Index>, Array<const Real>, Array<const Size>, Array<const Real>>;
template <class Real> using ModelArrays = std::tuple<Array<Real>, Array<const Real>, Array<Real>>;
template <class Real> using SumArrays = std::tuple<Array<Real>, Array<double>>;
template <class Real> using DualArrays = std::tuple<Array<Real>, Array<Real>, Array<const Real>>;

// --- variants ---

enum class Variant { baseline, avx2, avx512 };

// The variants that this processor can run, the fastest last.
std::vector<std::string> variants() {
    std::vector<std::string> names = {"baseline"};
#if defined(SKSOFTMAX_X86)
#if defined(__GNUC__)
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
    const bool has_avx2 = IsProcessorFeaturePresent(PF_AVX2_INSTRUCTIONS_AVAILABLE);
    const bool has_avx512 = IsProcessorFeaturePresent(PF_AVX512F_INSTRUCTIONS_AVAILABLE);
#endif
    if (has_avx2)
        names.push_back("avx2");
    if (has_avx2 && has_avx512)
        names.push_back("avx512");
#endif
    return names;
}

Variant find_variant(const std::string &name) {
    for (const std::string &known : variants())
        if (known == name)
            return name == "avx512" ? Variant::avx512 : name == "avx2" ? Variant::avx2 : Variant::baseline;
    throw nb::value_error(("no variant " + name + " on this processor").c_str());
}

Variant variant = find_variant(variants().back());

template <class Real, class Index> Kernels<Real, Index> kernels() {
#if defined(SKSOFTMAX_X86)
    if (variant == Variant::avx512)
        return avx512::kernels<Real, Index>();
    if (variant == Variant::avx2)
        return avx2::kernels<Real, Index>();
#endif
    return baseline::kernels<Real, Index>();
}

// --- checks ---

void check(bool holds, const char *message) {
    if (!holds)
        throw nb::value_error(message);
}

void check_lanes(Size n_lanes, const char *message) {
    check(n_lanes == 1 || (n_lanes > 0 && n_lanes % 8 == 0), message);
}

// The entries of an array; null if it is empty, which stands for an array that is not there.
template <class A> auto data_or_null(const A &array) { return array.size() ? array.data() : nullptr; }

template <class Real, class Index> Rows<Real, Index> to_rows(const RowArrays<Real, Index> &arrays) {
    const auto &[indptr, indices, values, y, weight] = arrays;
    const Size n_samples = weight.size(), n_splits = Size(indptr.size()) - 1;
    const Size n_ranges = n_samples ? n_splits / n_samples : 1;
    check(n_ranges > 0 && n_splits == n_ranges * n_samples && Size(y.size()) == n_samples,
          "y must have as many entries as weight, and indptr a multiple of that and one more");
    check(indices.size() == values.size(), "indices and values must have the same length");
    check(indptr.data()[0] == 0 && Size(indptr.data()[n_splits]) <= Size(values.size()),
          "indptr must begin with 0 and end with at most the number of values");
    return {indptr.data(), indices.data(), values.data(), y.data(), weight.data(), n_samples, n_ranges};
}

// The n_features of a table are not checked against the indices: `_data.validation` has checked X.
template <class Real> Model<Real> to_model(const ModelArrays<Real> &arrays) {
    const auto &[table, thresholds, intercept] = arrays;
    const Size n_lanes = intercept.size();
    check_lanes(n_lanes, "intercept must have 1 entry or a multiple of 8");
    check(table.size() % n_lanes == 0, "table must have a multiple of the entries of intercept");
    check(thresholds.size() == 0 || thresholds.size() * n_lanes == table.size(),
          "l1_thresholds must have one entry for each feature, or none");
    return {data_or_null(table), data_or_null(thresholds), intercept.data(), n_lanes};
}

template <class Real> ModelSums<Real> to_sums(const SumArrays<Real> &arrays, Size n_lanes, Size n_entries) {
    const auto &[table, intercept] = arrays;
    check(Size(intercept.size()) == n_lanes && (table.size() == 0 || Size(table.size()) == n_entries || n_entries == 0),
          "sums must have the shapes of the model");
    return {data_or_null(table), intercept.data()};
}

template <class Real> DualVariables<Real> to_dual(const DualArrays<Real> &arrays, Size n_samples, Size n_lanes) {
    const auto &[residual, entropy, q] = arrays;
    check(Size(residual.size()) == n_samples * n_lanes && Size(entropy.size()) == n_samples &&
              Size(q.size()) == n_samples,
          "the dual variables must have n_samples * n_lanes, n_samples and n_samples entries");
    return {residual.data(), entropy.data(), q.data()};
}

void check_order(const Array<const Size> &order, Size n_samples) {
    for (Size a = 0; a < Size(order.size()); ++a)
        check(order.data()[a] >= 0 && order.data()[a] < n_samples, "order must hold row numbers");
}

void check_rounds(Size round_size, int n_threads) {
    check(round_size > 0 && n_threads > 0, "rounds and threads must be positive numbers");
}

// --- passes over CSR rows ---

//: Multiplications of a round of a pass that takes no steps, some tenths of a millisecond. Sums of rounds are added, so
//: that the rounds depend on the data alone: the same fit gives the same bits.
constexpr Size ROUND_WORK = Size(1) << 20;

//: Multiplications of a class that softmax and the dual step take, roughly.
constexpr Size STEP_WORK = 100;

//: Time between two looks for a signal: Ctrl-C ends a kernel soon, and a thread that holds the interpreter's lock
//: hardly slows it.
constexpr std::chrono::milliseconds PATIENCE(20);

// Raises KeyboardInterrupt if it came.
class Interrupts {
  public:
    void look() {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ <= PATIENCE)
            return;
        last_ = now;
        nb::gil_scoped_acquire locked;
        if (PyErr_CheckSignals() != 0)
            throw nb::python_error();
    }

  private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// The number of rows in a round of a pass that takes no steps.
template <class Real, class Index> Size count_rows(const Rows<Real, Index> &rows, Size n_lanes) {
    const Size n_entries = rows.n_samples ? rows.n_entries() / rows.n_samples : 0;
    return 1 + ROUND_WORK / ((n_entries + STEP_WORK) * n_lanes);
}

// The memory of a round, without the interpreter's lock.
template <class Real> struct RoundMemory {
    std::vector<Real> changes;              // of the model, (round_size, n_lanes)
    std::vector<Sums> sums;                 // of each row
    std::vector<std::vector<Real>> scratch; // of each thread

    RoundMemory(Size round_size, Size n_lanes, int n_threads)
        : changes(round_size * n_lanes), sums(round_size), scratch(n_threads, std::vector<Real>(N_SCRATCH * n_lanes)) {}

    Sums total(Size n_rows) const {
        Sums total;
        for (Size a = 0; a < n_rows; ++a)
            total += sums[a];
        return total;
    }
};

using Pair = std::tuple<double, double>;

// Take the dual steps of the rows in `order`, and update the model and the dual variables.
//
// The steps of `round_size` rows start from the same model. Returns the sums of `sdca_steps` over the rows.
template <class Real, class Index>
Pair sdca_epoch(RowArrays<Real, Index> row_arrays, ModelArrays<Real> model_arrays, DualArrays<Real> dual_arrays,
                Array<const Size> order, double intercept_scale, double inv_n, double gap_tol, Size round_size,
                int n_threads) {
    const Model<Real> model = to_model(model_arrays);
    const Size n_lanes = model.n_lanes, n_order = order.size();
    const Rows<Real, Index> rows = to_rows(row_arrays);
    const DualVariables<Real> dual = to_dual(dual_arrays, rows.n_samples, n_lanes);
    check_order(order, rows.n_samples);
    check_rounds(round_size, n_threads);
    Real *table = std::get<0>(model_arrays).data(), *intercept = std::get<2>(model_arrays).data();
    const Kernels<Real, Index> kernel = kernels<Real, Index>();
    round_size = std::min(round_size, std::max(n_order, Size(1)));
    nb::gil_scoped_release unlocked;
    RoundMemory<Real> memory(round_size, n_lanes, n_threads);
    std::vector<Real> products(round_size * rows.n_ranges * n_lanes);
    Interrupts interrupts;
    Sums sums;
    for_rounds(
        rows.n_ranges, n_order, round_size, n_threads,
        [&](Size start, Size end, Size offset, int worker) {
            kernel.sdca_steps(rows, model, dual, order.data(), n_order, start, end,
                              &products[offset * rows.n_ranges * n_lanes], Real(inv_n), gap_tol,
                              &memory.changes[offset * n_lanes], &memory.sums[offset], memory.scratch[worker].data());
        },
        [&](Size start, Size end) {
            for (Size a = 0; a < end - start; ++a)
                if (memory.sums[a].gap > gap_tol)
                    for (Size k = 0; k < n_lanes; ++k)
                        intercept[k] += Real(intercept_scale) * memory.changes[a * n_lanes + k];
            sums += memory.total(end - start);
            interrupts.look();
        },
        [&](Size start, Size end, Size next_end, Size first, Size last) {
            kernel.add_changes(rows, order.data(), start, end, first, last, memory.changes.data(), memory.sums.data(),
                               gap_tol, table, n_lanes);
            kernel.multiply_ranges(rows, model, order.data(), n_order, end, next_end, first, last, products.data());
        });
    return {sums.loss, sums.gap};
}

// Compute changes of a model for all rows by step(start, end, changes, row_sums, scratch), and add their products with
// the rows to `sums`, unless it has no table. Returns the total of `row_sums`.
template <class Real, class Index, class Step>
Sums add_in_rounds(const Rows<Real, Index> &rows, const ModelSums<Real> &sums, Size n_lanes, int n_threads, Step step) {
    const Size round_size = count_rows(rows, n_lanes);
    check_rounds(round_size, n_threads);
    const auto add_changes = kernels<Real, Index>().add_changes;
    nb::gil_scoped_release unlocked;
    RoundMemory<Real> memory(round_size, n_lanes, n_threads);
    Interrupts interrupts;
    Sums total;
    for_rounds(
        rows.n_ranges, rows.n_samples, round_size, n_threads,
        [&](Size start, Size end, Size offset, int worker) {
            step(start, end, &memory.changes[offset * n_lanes], &memory.sums[offset], memory.scratch[worker].data());
        },
        [&](Size start, Size end) {
            if (sums.table)
                for (Size a = 0; a < end - start; ++a)
                    for (Size k = 0; k < n_lanes; ++k)
                        sums.intercept[k] += memory.changes[a * n_lanes + k];
            total += memory.total(end - start);
            interrupts.look();
        },
        [&](Size start, Size end, Size, Size first, Size last) {
            if (sums.table)
                add_changes(rows, nullptr, start, end, first, last, memory.changes.data(), nullptr, 0.0, sums.table,
                            n_lanes);
        });
    return total;
}

// Return the sums of `evaluate` over all rows; add the gradient of the first, unless it has no table. Empty dual
// variables stand for none.
template <class Real, class Index>
Pair evaluate(RowArrays<Real, Index> row_arrays, ModelArrays<Real> model_arrays, DualArrays<Real> dual_arrays,
              SumArrays<Real> gradient_arrays, int n_threads) {
    const Model<Real> model = to_model(model_arrays);
    const Size n_lanes = model.n_lanes;
    const Rows<Real, Index> rows = to_rows(row_arrays);
    const bool has_dual = std::get<0>(dual_arrays).size() > 0;
    const DualVariables<Real> dual =
        has_dual ? to_dual(dual_arrays, rows.n_samples, n_lanes) : DualVariables<Real>{nullptr, nullptr, nullptr};
    const ModelSums<Real> gradient = to_sums(gradient_arrays, n_lanes, std::get<0>(model_arrays).size());
    const Kernels<Real, Index> kernel = kernels<Real, Index>();
    const Sums sums = add_in_rounds(
        rows, gradient, n_lanes, n_threads, [&](Size start, Size end, Real *changes, Sums *row_sums, Real *scratch) {
            kernel.evaluate(rows, model, dual, start, end, gradient.table ? changes : nullptr, row_sums, scratch);
        });
    return {sums.loss, sums.gap};
}

// Add the Hessian of the loss, at the probabilities of the dual variables, times `direction` to `product`.
template <class Real, class Index>
void add_hessian_product(RowArrays<Real, Index> row_arrays, DualArrays<Real> dual_arrays,
                         ModelArrays<Real> direction_arrays, SumArrays<Real> product_arrays, int n_threads) {
    const Model<Real> direction = to_model(direction_arrays);
    const Size n_lanes = direction.n_lanes;
    const ModelSums<Real> product = to_sums(product_arrays, n_lanes, std::get<0>(direction_arrays).size());
    check(product.table, "product must have a table");
    const Rows<Real, Index> rows = to_rows(row_arrays);
    const DualVariables<Real> dual = to_dual(dual_arrays, rows.n_samples, n_lanes);
    const Kernels<Real, Index> kernel = kernels<Real, Index>();
    add_in_rounds(rows, product, n_lanes, n_threads, [&](Size start, Size end, Real *changes, Sums *, Real *) {
        kernel.multiply_rows(rows, dual, direction, start, end, changes);
    });
}

// Add sum_i weight_i x_i r_i' to `gradient`, r the residuals of the dual variables.
template <class Real, class Index>
void add_dual_gradient(RowArrays<Real, Index> row_arrays, DualArrays<Real> dual_arrays, SumArrays<Real> gradient_arrays,
                       int n_threads) {
    const Rows<Real, Index> rows = to_rows(row_arrays);
    const Size n_lanes = std::get<1>(gradient_arrays).size();
    check_lanes(n_lanes, "sums must have 1 column or a multiple of 8");
    const ModelSums<Real> gradient = to_sums(gradient_arrays, n_lanes, 0);
    check(gradient.table, "the gradient must have a table");
    const DualVariables<Real> dual = to_dual(dual_arrays, rows.n_samples, n_lanes);
    add_in_rounds(rows, gradient, n_lanes, n_threads, [&](Size start, Size end, Real *changes, Sums *, Real *) {
        for (Size i = start; i < end; ++i)
            for (Size k = 0; k < n_lanes; ++k)
                *changes++ = rows.weight[i] * dual.residual[i * n_lanes + k];
    });
}

template <class Real, class Index>
using CsrArrays = std::tuple<Array<const Index>, Array<const Index>, Array<const Real>>;

// The rows of a CSR matrix, without classes and weights.
template <class Real, class Index> Rows<Real, Index> to_matrix(const CsrArrays<Real, Index> &arrays, Size n_samples) {
    const auto &[indptr, indices, values] = arrays;
    const Size n_splits = Size(indptr.size()) - 1, n_ranges = n_samples ? n_splits / n_samples : 1;
    check(n_ranges > 0 && n_splits == n_ranges * n_samples,
          "indptr must have a multiple of the rows and one entry more");
    check(indices.size() == values.size() && Size(indptr.data()[n_splits]) <= Size(values.size()),
          "indices and values must have the length that indptr says");
    return {indptr.data(), indices.data(), values.data(), nullptr, nullptr, n_samples, n_ranges};
}

template <class Real, class Index>
void raw_predictions(CsrArrays<Real, Index> csr, ModelArrays<Real> model_arrays, Matrix<Real> z) {
    const Model<Real> model = to_model(model_arrays);
    const Rows<Real, Index> rows = to_matrix(csr, z.shape(0));
    check(Size(z.shape(1)) == model.n_lanes, "z must have the columns of the model");
    const auto kernel = kernels<Real, Index>().raw_predictions;
    const Size n_rows = count_rows(rows, model.n_lanes);
    nb::gil_scoped_release unlocked;
    Interrupts interrupts;
    for (Size start = 0; start < rows.n_samples; start += n_rows) {
        kernel(rows, model, z.data(), start, std::min(start + n_rows, rows.n_samples));
        interrupts.look();
    }
}

// Add X' residual to `table`; `residual` is (n_samples, n_lanes).
template <class Real, class Index>
void add_transposed_product(CsrArrays<Real, Index> csr, Matrix<const Real> residual, Matrix<Real> table) {
    const Rows<Real, Index> rows = to_matrix(csr, residual.shape(0));
    const Size n_lanes = residual.shape(1);
    check_lanes(n_lanes, "residual must have 1 column or a multiple of 8");
    check(Size(table.shape(1)) == n_lanes, "table must have the columns of residual");
    const auto kernel = kernels<Real, Index>().add_changes;
    const Size n_rows = count_rows(rows, n_lanes);
    nb::gil_scoped_release unlocked;
    Interrupts interrupts;
    for (Size start = 0; start < rows.n_samples; start += n_rows) {
        kernel(rows, nullptr, start, std::min(start + n_rows, rows.n_samples), 0, rows.n_ranges,
               residual.data() + start * n_lanes, nullptr, 0.0, table.data(), n_lanes);
        interrupts.look();
    }
}

// --- blocks of dense rows ---

// Do `sdca_epoch` for dense rows of columns (x - mean) * root, in blocks of at most `block_size` rows.
template <class Real>
Pair sdca_epoch_dense(Matrix<const Real> X, Array<const Size> y, Array<const Real> weight, Array<const Real> mean,
                      Array<const Real> root, ModelArrays<Real> model_arrays, DualArrays<Real> dual_arrays,
                      Array<const Size> order, double intercept_scale, double inv_n, double gap_tol, Size block_size,
                      int n_threads) {
    const Model<Real> model = to_model(model_arrays);
    const Size n_samples = X.shape(0), n_features = X.shape(1), n_lanes = model.n_lanes, n_order = order.size();
    check(Size(y.size()) == n_samples && Size(weight.size()) == n_samples,
          "y and weight must have an entry for each row of X");
    check(Size(mean.size()) == n_features && Size(root.size()) == n_features &&
              Size(std::get<0>(model_arrays).size()) == n_features * n_lanes,
          "mean, root and the model must have an entry for each column of X");
    check(Blas<Real>::gemm, "set_blas must come first");
    check_order(order, n_samples);
    check_rounds(block_size, n_threads);
    const DenseEpoch<Real> epoch{X.data(),
                                 mean.data(),
                                 root.data(),
                                 y.data(),
                                 weight.data(),
                                 n_features,
                                 n_lanes,
                                 std::get<0>(model_arrays).data(),
                                 std::get<2>(model_arrays).data(),
                                 model.thresholds,
                                 to_dual(dual_arrays, n_samples, n_lanes),
                                 order.data(),
                                 n_order,
                                 block_size,
                                 Real(intercept_scale),
                                 Real(inv_n),
                                 gap_tol};
    const Kernels<Real, std::int32_t> kernel = kernels<Real, std::int32_t>();
    nb::gil_scoped_release unlocked;
    Interrupts interrupts;
    const Sums sums = epoch.run(kernel, n_threads, [&] { interrupts.look(); });
    return {sums.loss, sums.gap};
}

// One block alone: the tests compare epochs with it.
template <class Real>
std::tuple<double, double, Size> sdca_block(Array<const Size> order, Matrix<Real> z, Matrix<const Real> coupling,
                                            Array<const Size> y, Array<const Real> weight, DualArrays<Real> dual_arrays,
                                            double inv_n, double gap_tol) {
    const Size n_block = order.size(), n_lanes = z.shape(1), n_samples = y.size();
    check_lanes(n_lanes, "z must have 1 column or a multiple of 8");
    check(Size(z.shape(0)) == n_block && Size(coupling.shape(0)) == n_block && Size(coupling.shape(1)) == n_block,
          "z and coupling must have a row for each row of the block");
    check(Size(weight.size()) == n_samples, "y and weight must have the same length");
    check_order(order, n_samples);
    const DualVariables<Real> dual = to_dual(dual_arrays, n_samples, n_lanes);
    Size n_changed = 0;
    Sums sums;
    {
        nb::gil_scoped_release unlocked;
        sums = kernels<Real, std::int32_t>().sdca_block(order.data(), n_block, z.data(), coupling.data(), y.data(),
                                                        weight.data(), dual, n_lanes, Real(inv_n), gap_tol, n_changed);
    }
    return {sums.loss, sums.gap, n_changed};
}

template <class Real>
Pair evaluate_block(Size start, Matrix<Real> z, Array<const Size> y, Array<const Real> weight,
                    DualArrays<Real> dual_arrays, bool with_gradient) {
    const Size n_block = z.shape(0), n_lanes = z.shape(1), n_samples = y.size();
    check_lanes(n_lanes, "z must have 1 column or a multiple of 8");
    check(start >= 0 && start + n_block <= n_samples && Size(weight.size()) == n_samples,
          "the block must lie within the rows of y and weight");
    const DualVariables<Real> dual = to_dual(dual_arrays, n_samples, n_lanes);
    Sums sums;
    {
        nb::gil_scoped_release unlocked;
        sums = kernels<Real, std::int32_t>().evaluate_block(start, n_block, z.data(), y.data(), weight.data(), dual,
                                                            n_lanes, with_gradient);
    }
    return {sums.loss, sums.gap};
}

template <class Real, class Index>
void add_mean_squares(Array<const Index> indptr, Array<const Index> indices, Array<const Real> values,
                      Array<const double> norm_weight, Array<double> squares) {
    to_matrix<Real, Index>({indptr, indices, values}, norm_weight.size());
    nb::gil_scoped_release unlocked;
    kernels<Real, Index>().add_mean_squares(indptr.data(), indices.data(), values.data(), norm_weight.data(),
                                            norm_weight.size(), squares.data());
}

template <class Real, class Index>
void squared_norms(Array<const Index> indptr, Array<const Index> indices, Array<const Real> values,
                   Array<const double> scale, Array<double> squared_norm) {
    to_matrix<Real, Index>({indptr, indices, values}, squared_norm.size());
    nb::gil_scoped_release unlocked;
    kernels<Real, Index>().squared_norms(indptr.data(), indices.data(), values.data(), scale.data(),
                                         squared_norm.size(), squared_norm.data());
}

template <class Index>
void split_rows(Array<const Index> indptr, Array<const Index> indices, Array<const Size> bounds, Array<Index> splits) {
    const Size n_samples = Size(indptr.size()) - 1, n_ranges = bounds.size();
    check(n_samples >= 0 && Size(indptr.data()[n_samples]) <= Size(indices.size()),
          "indices must have the length that indptr says");
    check(n_ranges > 0 && Size(splits.size()) == n_samples * n_ranges + 1,
          "splits must have an entry for each range of each row, and one more");
    nb::gil_scoped_release unlocked;
    kernels<float, Index>().split_rows(indptr.data(), indices.data(), n_samples, bounds.data(), n_ranges,
                                       splits.data());
}

template <class Real, class Index>
void scale_values(Array<const Index> indices, Array<const Real> values, Array<const double> factor, Array<Real> out) {
    check(indices.size() == values.size() && values.size() == out.size(),
          "indices, values and out must have the same length");
    nb::gil_scoped_release unlocked;
    kernels<Real, Index>().scale_values(indices.data(), values.data(), factor.data(), out.size(), out.data());
}

template <class Real> void count_nonzeros(Matrix<const Real> X, Array<Size> indptr) {
    check(indptr.size() == X.shape(0) + 1, "indptr must have one entry more than X has rows");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().count_nonzeros(X.data(), X.shape(0), X.shape(1), indptr.data());
}

template <class Real, class Index> void copy_nonzeros(Matrix<const Real> X, Array<Index> indices, Array<Real> values) {
    check(indices.size() == values.size(), "indices and values must have the same length");
    nb::gil_scoped_release unlocked;
    kernels<Real, Index>().copy_nonzeros(X.data(), X.shape(0), X.shape(1), indices.data(), values.data());
}

template <class Real>
double loss_and_residual(Matrix<Real> z, Array<const Size> y, Array<const double> weight, Array<double> sums) {
    check(z.shape(1) == y.size() && y.size() == weight.size() && z.shape(0) == sums.size(),
          "z must be (n_outputs, n_samples), y and weight (n_samples,), and sums (n_outputs,)");
    nb::gil_scoped_release unlocked;
    return kernels<Real, std::int32_t>().loss_and_residual(z.data(), z.shape(0), z.shape(1), y.data(), weight.data(),
                                                           sums.data());
}

template <class Real> void expit(Array<const Real> z, Array<double> proba) {
    check(z.size() == proba.size(), "proba must have an entry for each one of z");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().expit(z.data(), z.size(), proba.data());
}

template <class Real> void softmax_in_place(Matrix<Real> z) {
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().softmax_in_place(z.data(), z.shape(0), z.shape(1));
}

template <class Real>
void multiply_hessian(Matrix<const Real> proba, Matrix<Real> z, Array<const double> weight, Array<double> sums) {
    check(proba.shape(0) == z.shape(0) && proba.shape(1) == z.shape(1) && z.shape(1) == weight.size() &&
              z.shape(0) == sums.size(),
          "proba and z must be (n_classes, n_samples), weight (n_samples,), and sums (n_classes,)");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().multiply_hessian(proba.data(), proba.shape(1), z.data(), z.shape(0), z.shape(1),
                                                   weight.data(), sums.data());
}

// --- tables of coefficients between epochs ---

template <class Real> void check_table(const Matrix<Real> &table, Size n_rows, Size n_lanes) {
    check(Size(table.shape(0)) == n_rows && Size(table.shape(1)) == n_lanes, "the tables must have the same shape");
}

template <class Real> void threshold_rows(Matrix<const Real> table, Array<const Real> thresholds, Matrix<Real> out) {
    const Size n_rows = table.shape(0), n_lanes = table.shape(1);
    check_lanes(n_lanes, "tables must have 1 column or a multiple of 8");
    check_table(out, n_rows, n_lanes);
    check(Size(thresholds.size()) == n_rows, "thresholds must have an entry for each row");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().threshold_rows(table.data(), thresholds.data(), n_rows, n_lanes, out.data());
}

template <class Real>
void penalty_sums(Matrix<const Real> table, Array<const Real> thresholds, Array<const double> scale,
                  Array<const double> root, Array<double> sums) {
    const Size n_rows = table.shape(0), n_lanes = table.shape(1);
    check_lanes(n_lanes, "tables must have 1 column or a multiple of 8");
    check(Size(scale.size()) == n_rows && Size(root.size()) == n_rows &&
              (thresholds.size() == 0 || Size(thresholds.size()) == n_rows) && sums.size() == 2,
          "scale, root and thresholds must have an entry for each row, sums two");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().penalty_sums(table.data(), data_or_null(thresholds), scale.data(), root.data(),
                                               n_rows, n_lanes, sums.data());
}

// Empty arrays stand for what is not there.
template <class Real>
void center_moves(Matrix<const Real> coef, Matrix<const Real> center, Array<const Real> fraction, Matrix<Real> g,
                  Matrix<Real> last_coef, Matrix<Real> last_g, Matrix<const Real> older_g, Array<double> sums) {
    const Size n_rows = coef.shape(0), n_lanes = coef.shape(1);
    check_lanes(n_lanes, "tables must have 1 column or a multiple of 8");
    check_table(center, n_rows, n_lanes);
    check_table(g, n_rows, n_lanes);
    if (last_g.size())
        check_table(last_coef, n_rows, n_lanes), check_table(last_g, n_rows, n_lanes);
    if (older_g.size())
        check_table(older_g, n_rows, n_lanes);
    check(Size(fraction.size()) == n_rows && sums.size() == 6, "fraction must have an entry for each row, sums six");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().center_moves(coef.data(), center.data(), fraction.data(), n_rows, n_lanes, g.data(),
                                               data_or_null(last_coef), data_or_null(last_g), data_or_null(older_g),
                                               sums.data());
}

template <class Real>
double extrapolate_rows(Matrix<const Real> coef, Matrix<const Real> center, Matrix<const Real> g,
                        Matrix<const Real> change, double factor, Matrix<const Real> older_change, double older_factor,
                        Matrix<Real> target) {
    const Size n_rows = coef.shape(0), n_lanes = coef.shape(1);
    check_lanes(n_lanes, "tables must have 1 column or a multiple of 8");
    check_table(center, n_rows, n_lanes);
    check_table(g, n_rows, n_lanes);
    check_table(change, n_rows, n_lanes);
    if (older_change.size())
        check_table(older_change, n_rows, n_lanes);
    check_table(target, n_rows, n_lanes);
    nb::gil_scoped_release unlocked;
    return kernels<Real, std::int32_t>().extrapolate_rows(coef.data(), center.data(), g.data(), change.data(),
                                                          Real(factor), data_or_null(older_change), Real(older_factor),
                                                          n_rows, n_lanes, target.data());
}

template <class Real>
void add_moves(Array<const Size> rows, Array<const Real> fraction, Matrix<const Real> target, Matrix<const Real> center,
               Matrix<Real> table) {
    const Size n_rows = rows.size(), n_lanes = table.shape(1);
    check_lanes(n_lanes, "tables must have 1 column or a multiple of 8");
    check_table(target, n_rows, n_lanes);
    check_table(center, n_rows, n_lanes);
    check(Size(fraction.size()) == n_rows, "fraction must have an entry for each row");
    check_order(rows, table.shape(0));
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().add_moves(rows.data(), fraction.data(), target.data(), center.data(), n_rows, n_lanes,
                                            table.data());
}

// --- dense rows: products by the BLAS, and the fused softmax ---

// Take the functions of SciPy's BLAS from their capsules.
template <class Real> void set_blas_of(nb::capsule gemm, nb::capsule gemv, nb::capsule syrk) {
    Blas<Real>::gemm = reinterpret_cast<typename Blas<Real>::Gemm *>(gemm.data());
    Blas<Real>::gemv = reinterpret_cast<typename Blas<Real>::Gemv *>(gemv.data());
    Blas<Real>::syrk = reinterpret_cast<typename Blas<Real>::Syrk *>(syrk.data());
}

void set_blas(nb::capsule sgemm, nb::capsule sgemv, nb::capsule ssyrk, nb::capsule dgemm, nb::capsule dgemv,
              nb::capsule dsyrk) {
    set_blas_of<float>(sgemm, sgemv, ssyrk);
    set_blas_of<double>(dgemm, dgemv, dsyrk);
}

// Take the functions of SciPy's LAPACK from their capsules.
void set_lapack(nb::capsule potrf, nb::capsule potrs) {
    Lapack::factorize = reinterpret_cast<Lapack::Potrf *>(potrf.data());
    Lapack::solve = reinterpret_cast<Lapack::Potrs *>(potrs.data());
}

//: Entries of the rows and raw predictions of a span, and its rows at least: they fit in a cache of the second level.
constexpr Size SPAN_ENTRIES = Size(1) << 18, MIN_SPAN_ROWS = 64;

//: Rows of a table that are transposed at once: they fit in a cache of the first level.
constexpr Size TRANSPOSED_ROWS = 64;

//: Outputs from which the BLAS computes products of dense rows with a table. It first copies the rows into its own
//: order, which takes as long as the products of about so many outputs take longer in `multiply_table`.
constexpr Size BLAS_OUTPUTS = 128;

// Products of dense rows with coef', (n_features, n_outputs), of a model or of a direction, and with their residuals.
//
// The BLAS, which computes them for one output and for many, takes tables of (n_outputs, n_features). `multiply_table`
// takes tables of (n_features, width), whose rows are padded with 0.
template <class Real> class TableProduct {
  public:
    Size n_features, n_outputs;

    // `columns` is coef', (n_features, n_outputs).
    TableProduct(const Real *columns, const Real *intercept, Size features, Size outputs)
        : n_features(features), n_outputs(outputs), by_blas_(n_outputs == 1 || n_outputs >= BLAS_OUTPUTS),
          kernel_(kernels<Real, std::int32_t>()), intercept_(intercept),
          width_(by_blas_ ? n_outputs : (n_outputs + 7) / 8 * 8), table_(n_features * width_),
          product_(n_features * width_), gradient_(n_features * width_) {
        for (Size j = 0; j < n_features; ++j)
            std::copy_n(columns + j * n_outputs, n_outputs, &table_[j * width_]);
    }

    // The number of rows of a span.
    Size span_rows() const { return std::max(SPAN_ENTRIES / (n_features + width_), MIN_SPAN_ROWS); }

    // Compute z = coef X' + intercept, (n_outputs, n_rows).
    void multiply(const Real *X, Size n_rows, Real *z) {
        if (by_blas_) {
            multiply_columns(X, table_.data(), n_rows, n_features, n_outputs, z);
            for (Size k = 0; k < n_outputs; ++k)
                for (Size i = 0; i < n_rows; ++i)
                    z[k * n_rows + i] += intercept_[k];
            return;
        }
        rows_.resize(n_rows * width_);
        kernel_.multiply_table(X, n_rows, n_features, 1, table_.data(), width_, width_, n_features, false,
                               rows_.data());
        for (Size start = 0; start < n_rows; start += TRANSPOSED_ROWS)
            for (Size k = 0; k < n_outputs; ++k)
                for (Size i = start; i < std::min(start + TRANSPOSED_ROWS, n_rows); ++i)
                    z[k * n_rows + i] = rows_[i * width_ + k] + intercept_[k];
    }

    // Add residual X to the gradient; `residual` is as z.
    void add_gradient(const Real *X, const Real *residual, Size n_rows) {
        if (by_blas_) {
            multiply_rows(X, residual, n_rows, n_features, n_outputs, product_.data());
        } else {
            rows_.assign(n_rows * width_, Real(0));
            for (Size start = 0; start < n_rows; start += TRANSPOSED_ROWS)
                for (Size k = 0; k < n_outputs; ++k)
                    for (Size i = start; i < std::min(start + TRANSPOSED_ROWS, n_rows); ++i)
                        rows_[i * width_ + k] = residual[k * n_rows + i];
            kernel_.multiply_table(X, n_features, 1, n_features, rows_.data(), width_, width_, n_rows, false,
                                   product_.data());
        }
        for (std::size_t j = 0; j < gradient_.size(); ++j)
            gradient_[j] += product_[j];
    }

    // Add the sums of `add_gradient` to `gradient`, (n_outputs, n_features).
    void write_gradient(double *gradient) const {
        const Size row_step = by_blas_ ? n_features : 1, column_step = by_blas_ ? 1 : width_;
        for (Size k = 0; k < n_outputs; ++k)
            for (Size j = 0; j < n_features; ++j)
                gradient[k * n_features + j] += gradient_[k * row_step + j * column_step];
    }

  private:
    bool by_blas_;
    Kernels<Real, std::int32_t> kernel_;
    const Real *intercept_;
    Size width_; // of the tables: n_outputs, padded to a multiple of 8 for `multiply_table`
    std::vector<Real> table_, product_, rows_;
    std::vector<double> gradient_;
};

// While it lives, subnormal numbers count as 0 in this thread, on x86. Products of small probabilities with weights and
// entries of X would otherwise take several times as long.
class FlushSubnormals {
#if defined(SKSOFTMAX_X86)
  public:
    FlushSubnormals() : mode_(_mm_getcsr()) { _mm_setcsr(mode_ | FLUSH_TO_ZERO | SUBNORMALS_ARE_ZERO); }
    ~FlushSubnormals() { _mm_setcsr(mode_); }
    FlushSubnormals(const FlushSubnormals &) = delete;
    FlushSubnormals &operator=(const FlushSubnormals &) = delete;

  private:
    static constexpr unsigned FLUSH_TO_ZERO = 0x8000, SUBNORMALS_ARE_ZERO = 0x0040;
    unsigned mode_;
#endif
};

// Call visit(start, end, z) for spans of rows, with their raw predictions z, (n_outputs, end - start). If `gradient` is
// not null, add to it the products of the rows with what `visit` makes of z.
template <class Real, class Visit>
void visit_products(const Real *X, Size n_samples, TableProduct<Real> &product, double *gradient, Visit visit) {
    const Size size = std::min(product.span_rows(), n_samples);
    std::vector<Real> z(size * product.n_outputs);
    for (Size start = 0; start < n_samples; start += size) {
        const Size end = std::min(start + size, n_samples);
        const Real *rows = X + start * product.n_features;
        product.multiply(rows, end - start, z.data());
        visit(start, end, z.data());
        if (gradient)
            product.add_gradient(rows, z.data(), end - start);
    }
    if (gradient)
        product.write_gradient(gradient);
}

// The rows of a block, and the coefficients of a model or of a direction.
template <class Real> struct DenseProduct {
    const Real *X;
    Size n_samples, n_features, n_outputs;

    DenseProduct(const Matrix<const Real> &rows, const Matrix<const Real> &columns, const Array<const Real> &intercept)
        : X(rows.data()), n_samples(rows.shape(0)), n_features(rows.shape(1)), n_outputs(columns.shape(1)),
          columns_(columns.data()), intercept_(intercept.data()) {
        check(Blas<Real>::gemm, "set_blas must come first");
        check(Size(columns.shape(0)) == n_features, "coef' must be (n_features, n_outputs)");
        check(Size(intercept.size()) == n_outputs, "intercept must be (n_outputs,)");
    }

    void check_gradient(const Matrix<double> &gradient, const Array<double> &sums) const {
        check(Size(gradient.shape(0)) == n_outputs && Size(gradient.shape(1)) == n_features &&
                  Size(sums.size()) == n_outputs,
              "the gradient must have the shapes of coef and intercept");
    }

    // Do `visit_products`.
    template <class Visit> void for_spans(double *gradient, Visit visit) const {
        nb::gil_scoped_release unlocked;
        [[maybe_unused]] const FlushSubnormals flush;
        TableProduct<Real> product(columns_, intercept_, n_features, n_outputs);
        visit_products(X, n_samples, product, gradient, visit);
    }

  private:
    const Real *columns_, *intercept_;
};

template <class Real>
void raw_predictions_dense(Matrix<const Real> X, Matrix<const Real> columns, Array<const Real> intercept,
                           Matrix<Real> z) {
    const DenseProduct<Real> product(X, columns, intercept);
    check(Size(z.shape(0)) == product.n_outputs && Size(z.shape(1)) == product.n_samples,
          "z must be (n_outputs, n_samples)");
    product.for_spans(nullptr, [&](Size start, Size end, const Real *span) {
        for (Size k = 0; k < product.n_outputs; ++k)
            std::copy_n(span + k * (end - start), end - start, z.data() + k * product.n_samples + start);
    });
}

// Add the gradient of the loss to `gradient` and `sums`, and return the loss: the sum of weight * loss.
template <class Real>
double add_loss_gradient(Matrix<const Real> X, Matrix<const Real> columns, Array<const Real> intercept,
                         Array<const Size> y, Array<const double> weight, Matrix<double> gradient, Array<double> sums) {
    const DenseProduct<Real> product(X, columns, intercept);
    product.check_gradient(gradient, sums);
    check(Size(y.size()) == product.n_samples && Size(weight.size()) == product.n_samples,
          "y and weight must have an entry for each row");
    const auto kernel = kernels<Real, std::int32_t>().loss_and_residual;
    double loss = 0;
    product.for_spans(gradient.data(), [&](Size start, Size end, Real *z) {
        loss += kernel(z, product.n_outputs, end - start, y.data() + start, weight.data() + start, sums.data());
    });
    return loss;
}

// Add the Hessian of the loss times a direction to `result` and `sums`; `proba` is (n_classes, n_samples), of more than
// two classes.
template <class Real>
void add_hessian_product_dense(Matrix<const Real> X, Matrix<const Real> columns, Array<const Real> intercept,
                               Matrix<const Real> proba, Array<const double> weight, Matrix<double> result,
                               Array<double> sums) {
    const DenseProduct<Real> product(X, columns, intercept);
    product.check_gradient(result, sums);
    check(Size(proba.shape(0)) == product.n_outputs && Size(proba.shape(1)) == product.n_samples &&
              Size(weight.size()) == product.n_samples,
          "proba must be (n_classes, n_samples), and weight (n_samples,)");
    const auto kernel = kernels<Real, std::int32_t>().multiply_hessian;
    product.for_spans(result.data(), [&](Size start, Size end, Real *z) {
        kernel(proba.data() + start, product.n_samples, z, product.n_outputs, end - start, weight.data() + start,
               sums.data());
    });
}

// Do `add_hessian_product_dense` for two classes; `proba` is that of the second one.
template <class Real>
void add_hessian_product_binary(Matrix<const Real> X, Matrix<const Real> columns, Array<const Real> intercept,
                                Array<const double> proba, Array<const double> weight, Matrix<double> result,
                                Array<double> sums) {
    const DenseProduct<Real> product(X, columns, intercept);
    product.check_gradient(result, sums);
    check(product.n_outputs == 1 && Size(proba.size()) == product.n_samples && Size(weight.size()) == product.n_samples,
          "proba and weight must be (n_samples,), of two classes");
    const double *p = proba.data(), *w = weight.data();
    product.for_spans(result.data(), [&](Size start, Size end, Real *z) {
        for (Size i = start; i < end; ++i) {
            const double change = p[i] * (1 - p[i]) * w[i] * z[i - start];
            z[i - start] = Real(change);
            sums.data()[0] += change;
        }
    });
}

// Linearise probabilities along a step: see `linearize` of the kernels.
template <class Real>
double linearize(Matrix<const Real> proba, Matrix<const Real> change, Array<const double> weight,
                 Matrix<double> differences, Array<double> sums) {
    const Size n_classes = proba.shape(0), n_samples = proba.shape(1);
    check(n_classes > 1 && Size(change.shape(0)) == n_classes && Size(change.shape(1)) == n_samples,
          "proba and change must have the same shape, (n_classes, n_samples)");
    check(Size(weight.size()) == n_samples, "weight must have an entry for each row");
    check(Size(differences.shape(0)) == 2 * n_classes && Size(differences.shape(1)) == n_samples &&
              Size(sums.size()) == 3 * n_classes,
          "differences must be (2 n_classes, n_samples), and sums (3 n_classes,)");
    nb::gil_scoped_release unlocked;
    return kernels<Real, std::int32_t>().linearize(proba.data(), change.data(), weight.data(), n_classes, n_samples,
                                                   differences.data(), sums.data());
}

// Do `linearize` for two classes; `proba` and `change` are those of the second one.
template <class Real>
double linearize_binary(Array<const double> proba, Array<const Real> change, Array<const double> weight,
                        Matrix<double> differences, Array<double> sums) {
    const Size n_samples = proba.size();
    check(Size(change.size()) == n_samples && Size(weight.size()) == n_samples,
          "change and weight must have an entry for each one of proba");
    check(differences.shape(0) == 2 && Size(differences.shape(1)) == n_samples && sums.size() == 3,
          "differences must be (2, n_samples), and sums (3,)");
    nb::gil_scoped_release unlocked;
    return kernels<Real, std::int32_t>().linearize_binary(proba.data(), change.data(), weight.data(), n_samples,
                                                          differences.data(), sums.data());
}

// --- moments and curvatures of dense rows ---

template <class Real>
void summarize_columns(Matrix<const Real> X, Array<const double> weight, Array<Real> low, Array<Real> high,
                       Array<double> sums) {
    check(X.shape(0) == weight.size() && X.shape(1) == low.size() && low.size() == high.size() &&
              low.size() == sums.size(),
          "weight must have an entry for each row of X, low, high and sums for each column");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().summarize_columns(X.data(), weight.data(), X.shape(0), X.shape(1), low.data(),
                                                    high.data(), sums.data());
}

template <class Real>
void add_column_squares(Matrix<const Real> X, Array<const Real> mean, Array<const Real> factor,
                        Array<const double> weight, Array<double> sums) {
    check(X.shape(0) == weight.size() && X.shape(1) == mean.size() && mean.size() == factor.size() &&
              mean.size() == sums.size(),
          "weight must have an entry for each row of X, mean, factor and sums for each column");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().add_column_squares(X.data(), mean.data(), factor.data(), weight.data(), X.shape(0),
                                                     X.shape(1), sums.data());
}

template <class Real>
void row_squares(Matrix<const Real> X, Array<const Real> mean, Array<const double> factor, Array<double> squares) {
    check(X.shape(0) == squares.size() && X.shape(1) == mean.size() && mean.size() == factor.size(),
          "squares must have an entry for each row of X, mean and factor for each column");
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().row_squares(X.data(), mean.data(), factor.data(), X.shape(0), X.shape(1),
                                              squares.data());
}

//: Rows whose scaled copies are multiplied at once, at least.
constexpr Size MIN_SCALED_ROWS = 256;

// What `scale_rows` scales.
template <class Real, class Result> struct Scaling {
    const Real *X;
    const Result *mean, *factor, *root;
    Size n_samples, n_features;

    Scaling(const Matrix<const Real> &rows, const Array<const Result> &means, const Array<const Result> &factors,
            const Result *roots)
        : X(rows.data()), mean(means.data()), factor(factors.data()), root(roots), n_samples(rows.shape(0)),
          n_features(rows.shape(1)) {
        check(Size(means.size()) == n_features && Size(factors.size()) == n_features,
              "mean and factor must have an entry for each column of X");
        check(Blas<Result>::gemm, "set_blas must come first");
    }

    // Call visit(start, end, u) for spans of at most n_rows rows.
    template <class Scale, class Visit> void for_spans(Size n_columns, Size n_rows, Scale scale, Visit visit) const {
        check(n_columns == n_features || n_columns == n_features + 1, "there is at most one column of ones");
        nb::gil_scoped_release unlocked;
        Interrupts interrupts;
        std::vector<Result> u(std::min(n_rows, n_samples) * n_columns);
        for (Size start = 0; start < n_samples; start += n_rows) {
            const Size end = std::min(start + n_rows, n_samples);
            scale(X + start * n_features, mean, factor, root + start, end - start, n_features, n_columns, u.data());
            visit(start, end, u.data());
            interrupts.look();
        }
    }
};

// Add the Gram matrix of the scaled rows, and of a column of `root` if `gram` has one column more than X.
template <class Real>
void add_gram_of_scaled(Matrix<const Real> X, Array<const Real> mean, Array<const Real> factor, Array<const Real> root,
                        Matrix<Real> gram) {
    const Size n_columns = gram.shape(0);
    check(Size(gram.shape(1)) == n_columns, "gram must be square");
    check(root.size() == X.shape(0), "root must have an entry for each row of X");
    const Scaling<Real, Real> scaling(X, mean, factor, root.data());
    scaling.for_spans(
        n_columns, std::max(n_columns, MIN_SCALED_ROWS), kernels<Real, std::int32_t>().scale_rows,
        [&](Size start, Size end, const Real *u) { add_gram(u, end - start, n_columns, Real(1), gram.data()); });
}

template <class Real> void proba_and_variances(Matrix<const Real> proba, Matrix<double> p, Matrix<double> variances) {
    const Size n_classes = proba.shape(0), n_samples = proba.shape(1);
    check_table(p, n_classes, n_samples);
    check_table(variances, n_classes, n_samples);
    nb::gil_scoped_release unlocked;
    kernels<Real, std::int32_t>().proba_and_variances(proba.data(), n_classes, n_samples, p.data(), variances.data());
}

// Memory for numbers that begins where a cache line does: loads of vectors then read one line each.
class LineAligned {
  public:
    explicit LineAligned(Size n_entries) : memory_(n_entries + LINE - 1) {}

    double *data() {
        const auto address = reinterpret_cast<std::uintptr_t>(memory_.data()) / sizeof(double);
        return memory_.data() + (LINE - address % LINE) % LINE;
    }

  private:
    static constexpr std::size_t LINE = 64 / sizeof(double);
    std::vector<double> memory_;
};

//: Entries of a span of scaled columns, which fit in a cache of the second level, and rows of a span.
constexpr Size SCALED_ENTRIES = Size(1) << 18, SCALED_ROWS = 512;

// The rows of a span of scaled columns: a multiple of 8, and not one of a page, so that entries of a row do not share a
// place in the cache.
Size count_padded_rows(Size n_samples) { return (n_samples + 7) / 8 * 8 + 8; }

// Add the Hessian of the loss to `hessian`, a matrix of n_classes x n_columns rows: the sum over the rows of X of
// weight (diag(p) - p p') (x) u u', u the scaled row. Only its lower triangle is valid.
template <class Real>
void sum_hessian(const Real *X, Size n_samples, Size n_features, const double *mean, const double *factor,
                 const double *weight, const double *proba, const double *variances, Size n_classes, Size n_columns,
                 double *hessian, Interrupts &interrupts) {
    const auto kernel = kernels<Real, std::int32_t>();
    // with many columns a span is out of the cache, which is for the BLAS
    const Size width = (n_columns + 3) / 4 * 4, block = n_columns * n_columns, d = n_classes * n_columns;
    const bool by_blas = width * SCALED_ROWS > SCALED_ENTRIES;
    const Size longest = count_padded_rows(std::min(SCALED_ROWS, n_samples));
    LineAligned u(longest * width), weighted(longest * (by_blas ? width : 4)), covariance(longest);
    std::vector<double> sums(n_classes * (n_classes + 1) / 2 * block);
    for (Size start = 0; start < n_samples; start += SCALED_ROWS) {
        const Size n = std::min(SCALED_ROWS, n_samples - start), stride = count_padded_rows(n);
        kernel.scale_columns(X + start * n_features, mean, factor, n, n_features, n_columns, width, stride, u.data());
        std::fill(covariance.data() + n, covariance.data() + stride, 0.0);
        double *gram = sums.data();
        for (Size c = 0; c < n_classes; ++c)
            for (Size e = 0; e <= c; ++e, gram += block) {
                const double *p = (e < c ? proba : variances) + c * n_samples + start,
                             *other = e < c ? proba + e * n_samples + start : nullptr;
                kernel.class_covariance(weight + start, p, other, n, covariance.data());
                if (by_blas) {
                    kernel.multiply_by_roots(u.data(), covariance.data(), n_columns, stride, weighted.data());
                    add_gram_of_columns(weighted.data(), stride, n_columns, e < c ? -1.0 : 1.0, gram);
                } else {
                    kernel.add_weighted_gram(u.data(), covariance.data(), n_columns, stride, weighted.data(), gram);
                }
            }
        interrupts.look();
    }
    const double *gram = sums.data();
    for (Size c = 0; c < n_classes; ++c)
        for (Size e = 0; e <= c; ++e, gram += block)
            for (Size j = 0; j < n_columns; ++j)
                for (Size k = 0; k < (e < c ? n_columns : j + 1); ++k)
                    hessian[(c * n_columns + j) * d + e * n_columns + k] +=
                        gram[std::max(j, k) * n_columns + std::min(j, k)];
}

// Do `sum_hessian`.
template <class Real>
void add_hessian(Matrix<const Real> X, Array<const double> mean, Array<const double> factor, Array<const double> weight,
                 Matrix<const double> proba, Matrix<const double> variances, Matrix<double> hessian) {
    const Size n_samples = X.shape(0), n_features = X.shape(1), n_classes = proba.shape(0), d = hessian.shape(0),
               n_columns = d / n_classes;
    check(d == n_classes * n_columns && Size(hessian.shape(1)) == d, "hessian must be square, with n_classes blocks");
    check(n_columns == n_features || n_columns == n_features + 1, "there is at most one column of ones");
    check(Size(mean.size()) == n_features && Size(factor.size()) == n_features,
          "mean and factor must have an entry for each column of X");
    check(Size(proba.shape(1)) == n_samples && variances.shape(0) == proba.shape(0) &&
              Size(variances.shape(1)) == n_samples,
          "proba and variances must be (n_classes, n_samples)");
    check(Size(weight.size()) == n_samples, "weight must have an entry for each row of X");
    nb::gil_scoped_release unlocked;
    Interrupts interrupts;
    sum_hessian(X.data(), n_samples, n_features, mean.data(), factor.data(), weight.data(), proba.data(),
                variances.data(), n_classes, n_columns, hessian.data(), interrupts);
}

#include "newton.hpp"

// Take at most as many Newton steps as `values` has entries from coef and intercept, which are overwritten: see
// `compiled.newton_steps`. Returns their number; `values` becomes F after each.
template <class Real>
Size newton_steps(Matrix<const Real> X, Array<const Size> y, Array<const double> weight, Array<const double> scale,
                  double alpha, bool fit_intercept, double tol, Matrix<double> coef, Array<double> intercept,
                  Array<double> values) {
    const Size n_samples = X.shape(0), n_features = X.shape(1), n_outputs = coef.shape(0);
    check(Lapack::factorize, "set_lapack must come first");
    check(Size(y.size()) == n_samples && Size(weight.size()) == n_samples,
          "y and weight must have an entry for each row of X");
    check(Size(scale.size()) == n_features && Size(coef.shape(1)) == n_features,
          "scale and coef must have an entry for each column of X");
    check(Size(intercept.size()) == n_outputs, "intercept must be (n_outputs,)");
    nb::gil_scoped_release unlocked;
    NewtonSteps<Real> steps(X.data(), y.data(), weight.data(), scale.data(), n_samples, n_features, n_outputs, alpha,
                            fit_intercept);
    return steps.run(coef.data(), intercept.data(), tol, values.size(), values.data());
}

// Return the loss in float64 of the rows (x - mean) * factor: the sum of weight * loss. `columns` is coef',
// (n_features, n_outputs).
template <class Real>
double exact_loss(Matrix<const Real> X, Array<const double> mean, Array<const double> factor,
                  Matrix<const double> columns, Array<const double> intercept, Array<const Size> y,
                  Array<const double> weight) {
    const Size n_features = X.shape(1), n_outputs = columns.shape(1), n_samples = X.shape(0);
    check(Size(columns.shape(0)) == n_features && Size(intercept.size()) == n_outputs,
          "coef' must be (n_features, n_outputs), and intercept (n_outputs,)");
    check(Size(y.size()) == n_samples && Size(weight.size()) == n_samples,
          "y and weight must have an entry for each row");
    const std::vector<double> ones(n_samples, 1.0);
    const Scaling<Real, double> scaling(X, mean, factor, ones.data());
    const Kernels<Real, std::int32_t> kernel = kernels<Real, std::int32_t>();
    const auto losses = kernels<double, std::int32_t>().loss_and_residual;
    TableProduct<double> product(columns.data(), intercept.data(), n_features, n_outputs);
    const Size n_rows = std::max(std::min(product.span_rows(), n_samples), Size(1));
    std::vector<double> z(n_rows * n_outputs), sums(n_outputs);
    double loss = 0;
    scaling.for_spans(n_features, n_rows, kernel.scale_rows_double, [&](Size start, Size end, const double *rows) {
        product.multiply(rows, end - start, z.data());
        loss += losses(z.data(), n_outputs, end - start, y.data() + start, weight.data() + start, sums.data());
    });
    return loss;
}

// Add left X, computed in float64, to `sums`; left is (n_left, n_samples).
template <class Real> void add_exact_product(Matrix<const double> left, Matrix<const Real> X, Matrix<double> sums) {
    const Size n_left = left.shape(0), n_samples = X.shape(0), n_features = X.shape(1);
    check(Size(left.shape(1)) == n_samples, "left must have a column for each row of X");
    check_table(sums, n_left, n_features);
    nb::gil_scoped_release unlocked;
    const std::vector<double> zeros((n_features + 1) * n_left);
    TableProduct<double> product(zeros.data(), zeros.data(), n_features, n_left);
    const Size size = std::max(std::min(product.span_rows(), n_samples), Size(1));
    std::vector<double> rows(size * n_features), part(size * n_left);
    for (Size start = 0; start < n_samples; start += size) {
        const Size n = std::min(size, n_samples - start);
        std::copy_n(X.data() + start * n_features, n * n_features, rows.data());
        for (Size k = 0; k < n_left; ++k)
            std::copy_n(left.data() + k * n_samples + start, n, part.data() + k * n);
        product.add_gradient(rows.data(), part.data(), n);
    }
    product.write_gradient(sums.data());
}

// --- the module ---

// Define a function that converts no argument: a copy of an array would take the results.
template <class Result, class... Args> void define(nb::module_ &m, const char *name, Result (*function)(Args...)) {
    m.def(name, function, (static_cast<void>(sizeof(Args)), nb::arg().noconvert())...);
}

template <class Real, class Index> void define_for_index(nb::module_ &m) {
    define(m, "sdca_epoch", sdca_epoch<Real, Index>);
    define(m, "evaluate", evaluate<Real, Index>);
    define(m, "add_hessian_product", add_hessian_product<Real, Index>);
    define(m, "raw_predictions", raw_predictions<Real, Index>);
    define(m, "add_dual_gradient", add_dual_gradient<Real, Index>);
    define(m, "add_transposed_product", add_transposed_product<Real, Index>);
    define(m, "add_mean_squares", add_mean_squares<Real, Index>);
    define(m, "squared_norms", squared_norms<Real, Index>);
    define(m, "scale_values", scale_values<Real, Index>);
    define(m, "copy_nonzeros", copy_nonzeros<Real, Index>);
}

template <class Real> void define_for_dtype(nb::module_ &m) {
    define_for_index<Real, std::int32_t>(m);
    define_for_index<Real, std::int64_t>(m);
    define(m, "sdca_epoch_dense", sdca_epoch_dense<Real>);
    define(m, "sdca_block", sdca_block<Real>);
    define(m, "evaluate_block", evaluate_block<Real>);
    define(m, "count_nonzeros", count_nonzeros<Real>);
    define(m, "threshold_rows", threshold_rows<Real>);
    define(m, "penalty_sums", penalty_sums<Real>);
    define(m, "center_moves", center_moves<Real>);
    define(m, "extrapolate_rows", extrapolate_rows<Real>);
    define(m, "add_moves", add_moves<Real>);
    define(m, "loss_and_residual", loss_and_residual<Real>);
    define(m, "expit", expit<Real>);
    define(m, "softmax_in_place", softmax_in_place<Real>);
    define(m, "multiply_hessian", multiply_hessian<Real>);
    define(m, "raw_predictions_dense", raw_predictions_dense<Real>);
    define(m, "add_loss_gradient", add_loss_gradient<Real>);
    define(m, "add_hessian_product_dense", add_hessian_product_dense<Real>);
    define(m, "add_hessian_product_binary", add_hessian_product_binary<Real>);
    define(m, "linearize", linearize<Real>);
    define(m, "linearize_binary", linearize_binary<Real>);
    define(m, "summarize_columns", summarize_columns<Real>);
    define(m, "add_column_squares", add_column_squares<Real>);
    define(m, "row_squares", row_squares<Real>);
    define(m, "add_exact_product", add_exact_product<Real>);
    define(m, "exact_loss", exact_loss<Real>);
    define(m, "add_gram", add_gram_of_scaled<Real>);
    define(m, "proba_and_variances", proba_and_variances<Real>);
    define(m, "newton_steps", newton_steps<Real>);
    define(m, "add_hessian", add_hessian<Real>);
}

} // namespace
} // namespace sksoftmax

NB_MODULE(_sksoftmax_kernels, m) {
    using namespace sksoftmax;
    m.attr("VERSION") = SKSOFTMAX_KERNELS_VERSION;
    m.def("set_blas", set_blas);
    m.def("set_lapack", set_lapack);
    m.def("variants", variants);
    m.def("use_variant", [](const std::string &name) { variant = find_variant(name); });
    define(m, "split_rows", split_rows<std::int32_t>);
    define(m, "split_rows", split_rows<std::int64_t>);
    define_for_dtype<float>(m);
    define_for_dtype<double>(m);
}
