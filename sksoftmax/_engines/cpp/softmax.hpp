// The fused softmax: operations on a table of raw predictions, (n_outputs, n_samples), in one pass over blocks of rows.

#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "arrays.hpp"
#include "lanes.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

//: Rows that are processed side by side: their scratch vectors stay in the first-level cache.
constexpr Size N_ROWS = 64;

// log(1 + x) for x >= 0, as fdlibm computes it: 1 + x = 2^n (1 + f) with 1 + f in [0.7, 1.42), and a polynomial of
// s = f / (2 + f) (Remez; error below 2^-58). The rounding of 1 + x is corrected by its derivative.
SKSOFTMAX_INLINE Vec<double> log1p_positive(Vec<double> x) {
    const Vec<double> one = all(1.0), u = one + x, rounding = (x - (u - one)) / u;
    const BitsVec<double> half_bits = broadcast<BitsVec<double>>(std::uint64_t(0x3fe6a09e667f3bcd)); // sqrt(1/2)
    const BitsVec<double> shifted = to_bits<double>(u) - half_bits;
    const BitsVec<double> exponent = shifted >> broadcast<BitsVec<double>>(std::uint64_t(52));
    const Vec<double> m =
        from_bits<double>(to_bits<double>(u) - (exponent << broadcast<BitsVec<double>>(std::uint64_t(52))));
    // n as a number: its bits in the last places of 2^52, minus 2^52
    const Vec<double> n = from_bits<double>(exponent | broadcast<BitsVec<double>>(std::uint64_t(0x4330000000000000))) -
                          all(4503599627370496.0);
    const Vec<double> f = m - one, s = f / (all(2.0) + f), z = s * s, half_square = all(0.5) * f * f;
    constexpr double coefficients[] = {1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01,
                                       2.222219843214978396e-01, 2.857142874366239149e-01, 3.999999999940941908e-01,
                                       6.666666666666735130e-01};
    Vec<double> polynomial = all(coefficients[0]);
    for (int k = 1; k < 7; ++k)
        polynomial = polynomial * z + all(coefficients[k]);
    return n * all(6.93147180369123816490e-01) -
           ((half_square - (s * (half_square + polynomial * z) + n * all(1.90821492927058770002e-10) + rounding)) - f);
}

//: exp of less is 0: the logarithm of the smallest normal number, rounded up.
template <class Real> constexpr Real MIN_EXPONENT = sizeof(Real) == 4 ? Real(-87) : Real(-708);

// The columns `start` to `start + N_ROWS` of a table of n_outputs x n_samples: its entries if there are as many
// columns, or a copy, padded by 0.
template <class T> class Block {
  public:
    T *entries;
    Size stride; // from one output to the next

    Block(T *table, Size n_outputs, Size n_samples, Size start)
        : Block(table, n_outputs, n_samples, start, n_samples) {}

    Block(T *table, Size n_outputs, Size n_samples, Size start, Size table_stride)
        : entries(table + start), stride(table_stride), n_outputs_(n_outputs), n_rows_(n_samples - start),
          source_(entries) {
        if (n_rows_ >= N_ROWS)
            return;
        memory_.resize(n_outputs * N_ROWS);
        entries = memory_.data();
        stride = N_ROWS;
        for (Size k = 0; k < n_outputs; ++k)
            std::copy_n(source_ + k * table_stride, n_rows_, memory_.data() + k * N_ROWS);
    }

    // Copy the entries back to the table.
    void write(Size n_samples) const {
        if (n_rows_ < N_ROWS)
            for (Size k = 0; k < n_outputs_; ++k)
                std::copy_n(memory_.data() + k * N_ROWS, n_rows_, const_cast<Value *>(source_) + k * n_samples);
    }

  private:
    using Value = std::remove_const_t<T>;
    Size n_outputs_, n_rows_;
    T *source_;
    std::vector<Value> memory_;
};

// Replace z by exp(z - the largest of the row), and return the largest of each row.
template <class Real> void exp_block(Real *z, Size stride, Size n_classes, Real *largest) {
    for (Size i = 0; i < N_ROWS; i += WIDTH<Real>) {
        Vec<Real> row_largest = load(z + i);
        for (Size k = 1; k < n_classes; ++k)
            row_largest = max(row_largest, load<Real>(z + k * stride + i));
        store(largest + i, row_largest);
    }
    for (Size k = 0; k < n_classes; ++k)
        for (Size i = 0; i < N_ROWS; i += WIDTH<Real>) {
            Real *entry = z + k * stride + i;
            store(entry, exp_negative<Real>(load(entry) - load(largest + i), MIN_EXPONENT<Real>));
        }
}

// Replace the raw predictions of a block by the gradient of the loss, weight * (p - t), and add its sum over the rows
// to `sums` (n_classes,). Returns the sum of weight * loss.
template <class Real>
double loss_block(Real *z, Size stride, Size n_classes, const Size *y, const double *weight, double *sums) {
    Real largest[N_ROWS], z_class[N_ROWS], scale[N_ROWS];
    double others[N_ROWS] = {}, exp_class[N_ROWS], losses[N_ROWS];
    for (Size i = 0; i < N_ROWS; ++i)
        z_class[i] = z[y[i] * stride + i];
    exp_block(z, stride, n_classes, largest);
    for (Size i = 0; i < N_ROWS; ++i) {
        Real &entry = z[y[i] * stride + i];
        exp_class[i] = entry;
        entry = 0; // the class is not subtracted from the sum: its rounding would exceed small others
    }
    for (Size k = 0; k < n_classes; ++k)
        for (Size i = 0; i < N_ROWS; ++i)
            others[i] += z[k * stride + i];
    for (Size i = 0; i < N_ROWS; i += WIDTH<double>)
        store(losses + i, log1p_positive(load(others + i) + (load(exp_class + i) - all(1.0))));
    double loss = 0;
    for (Size i = 0; i < N_ROWS; ++i) {
        loss += weight[i] * (losses[i] + (double(largest[i]) - double(z_class[i])));
        z[y[i] * stride + i] = Real(-others[i]);
        scale[i] = Real(weight[i] / (others[i] + exp_class[i]));
    }
    for (Size k = 0; k < n_classes; ++k) {
        Vec<Real> total = all(Real(0));
        for (Size i = 0; i < N_ROWS; i += WIDTH<Real>) {
            Real *entry = z + k * stride + i;
            const Vec<Real> gradient = load(entry) * load(scale + i);
            store(entry, gradient);
            total += gradient;
        }
        sums[k] += sum<Real>(total);
    }
    return loss;
}

// Do `loss_block` for two classes, whose raw prediction is that of the second class.
template <class Real> double loss_block_binary(Real *z, const Size *y, const double *weight, double *sums) {
    double exps[N_ROWS], losses[N_ROWS], loss = 0;
    Real sign[N_ROWS], positive_part[N_ROWS];
    for (Size i = 0; i < N_ROWS; ++i)
        sign[i] = y[i] ? Real(-1) : Real(1);
    const Vec<Real> zero = all(Real(0)), one = all(Real(1));
    for (Size i = 0; i < N_ROWS; i += WIDTH<Real>) {
        const Vec<Real> a = load(sign + i) * load(z + i); // raw prediction of the wrong class less that of the true one
        const Vec<Real> e = exp_negative<Real>(-absolute<Real>(a), MIN_EXPONENT<Real>);
        store(positive_part + i, max(a, zero));
        store(z + i, load(sign + i) * (select(a >= zero, one, e) / (one + e)));
        for (int k = 0; k < WIDTH<Real>; ++k)
            exps[i + k] = e[k];
    }
    for (Size i = 0; i < N_ROWS; i += WIDTH<double>)
        store(losses + i, log1p_positive(load(exps + i)));
    for (Size i = 0; i < N_ROWS; ++i) {
        loss += weight[i] * (losses[i] + positive_part[i]);
        z[i] *= Real(weight[i]);
        sums[0] += z[i];
    }
    return loss;
}

// Do `loss_block` for all rows; `z` is (n_outputs, n_samples), with one output for two classes.
template <class Real>
double loss_and_residual(Real *z, Size n_outputs, Size n_samples, const Size *y, const double *weight, double *sums) {
    double loss = 0;
    for (Size start = 0; start < n_samples; start += N_ROWS) {
        const Block<Real> block(z, n_outputs, n_samples, start);
        const Block<const Size> block_y(y, 1, n_samples, start);
        const Block<const double> block_weight(weight, 1, n_samples, start); // 0 in the padding
        loss += n_outputs == 1
                    ? loss_block_binary(block.entries, block_y.entries, block_weight.entries, sums)
                    : loss_block(block.entries, block.stride, n_outputs, block_y.entries, block_weight.entries, sums);
        block.write(n_samples);
    }
    return loss;
}

// Compute the probabilities 1 / (1 + exp(-z)) of the second one of two classes.
template <class Real> void expit(const Real *z, Size n_samples, double *proba) {
    constexpr double lowest = -708; // the exponential of less is no normal number
    constexpr int W = WIDTH<double>;
    const auto compute = [](const double *x, double *out) {
        const Vec<double> v = load(x), e = exp_negative(-absolute<double>(v), lowest);
        store(out, select(v >= all(0.0), all(1.0), e) / (all(1.0) + e));
    };
    double entries[W] = {};
    Size i = 0;
    for (; i + W <= n_samples; i += W) {
        for (int k = 0; k < W; ++k)
            entries[k] = z[i + k];
        compute(entries, proba + i);
    }
    std::copy(z + i, z + n_samples, entries);
    compute(entries, entries);
    std::copy_n(entries, n_samples - i, proba + i);
}

// Replace the raw predictions z, (n_classes, n_samples), by probabilities.
template <class Real> void softmax_in_place(Real *z, Size n_classes, Size n_samples) {
    for (Size start = 0; start < n_samples; start += N_ROWS) {
        const Block<Real> block(z, n_classes, n_samples, start);
        Real largest[N_ROWS], total[N_ROWS] = {};
        exp_block(block.entries, block.stride, n_classes, largest);
        for (Size k = 0; k < n_classes; ++k)
            for (Size i = 0; i < N_ROWS; ++i)
                total[i] += block.entries[k * block.stride + i];
        for (Size i = 0; i < N_ROWS; ++i)
            total[i] = 1 / total[i];
        for (Size k = 0; k < n_classes; ++k)
            for (Size i = 0; i < N_ROWS; ++i)
                block.entries[k * block.stride + i] *= total[i];
        block.write(n_samples);
    }
}

// Replace z, (n_classes, n_samples), by weight * (diag(p) - p p') z for each row, and add its sum over the rows to
// `sums`.
template <class Real>
void multiply_hessian(const Real *proba, Size proba_stride, Real *z, Size n_classes, Size n_samples,
                      const double *weight, double *sums) {
    for (Size start = 0; start < n_samples; start += N_ROWS) {
        const Block<const Real> p(proba, n_classes, n_samples, start, proba_stride);
        const Block<Real> block(z, n_classes, n_samples, start);
        const Block<const double> block_weight(weight, 1, n_samples, start);
        Real mean[N_ROWS] = {}, w[N_ROWS];
        for (Size k = 0; k < n_classes; ++k)
            for (Size i = 0; i < N_ROWS; ++i)
                mean[i] += p.entries[k * p.stride + i] * block.entries[k * block.stride + i];
        for (Size i = 0; i < N_ROWS; ++i)
            w[i] = Real(block_weight.entries[i]);
        for (Size k = 0; k < n_classes; ++k) {
            Vec<Real> total = all(Real(0));
            for (Size i = 0; i < N_ROWS; i += WIDTH<Real>) {
                Real *entry = block.entries + k * block.stride + i;
                const Vec<Real> product =
                    load(w + i) * load<Real>(p.entries + k * p.stride + i) * (load(entry) - load(mean + i));
                store(entry, product);
                total += product;
            }
            sums[k] += sum<Real>(total);
        }
        block.write(n_samples);
    }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
