// An epoch of the dual solver over blocks of dense rows, which threads share, with the same bits for any number of
// them.
//
// Each block takes three phases:
//
// 1. Multiply: the raw predictions of its rows by one product with the coefficients, in tiles. The rows of the next
//    block are copied meanwhile, centred and scaled.
// 2. Visit: the dual steps of its rows, in order, by one thread. Their inner products give the effect of each step on
//    the raw predictions of the later rows. The others compute the inner products of the next block meanwhile.
// 3. Add: the changes times the rows to the coefficients, in ranges of columns.
//
// Tiles, stripes and ranges depend on the shapes alone: a BLAS may round differently at other borders.

#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "blas.hpp"
#include "kernels.hpp"
#include "rounds.hpp"

namespace sksoftmax {

//: Rows of a tile or stripe, at least, and classes and columns of one. With fewer a BLAS would mostly pack its
//: operands.
constexpr Size TILE_ROWS = 32, TILE_LANES = 64, TILE_COLUMNS = 64;

// The dense rows of an epoch, the model that it changes, and the dual variables.
template <class Real> struct DenseEpoch {
    const Real *X, *mean, *root;
    const Size *y;
    const Real *weight;
    Size n_features, n_lanes;
    Real *table, *intercept;
    const Real *thresholds; // null: no thresholds
    DualVariables<Real> dual;
    const Size *order;
    Size n_order, block_size;
    Real intercept_scale, inv_n;
    double gap_tol;

    // Run the epoch, and return the sums of `sdca_block`. `between` is called after each block.
    template <class Between> Sums run(const Kernels<Real, std::int32_t> &kernel, int n_threads, Between between) const;
};

template <class Real>
template <class Between>
Sums DenseEpoch<Real>::run(const Kernels<Real, std::int32_t> &kernel, int n_threads, Between between) const {
    struct Block {
        std::vector<Real> rows, coupling;
        const Size *order;
        Size n_rows = 0;
    };
    Block blocks[2];
    for (Block &block : blocks) {
        block.rows.resize(block_size * n_features);
        block.coupling.resize(block_size * block_size);
    }
    Block *current = &blocks[0], *next = &blocks[1];
    std::vector<Real> z(block_size * n_lanes), coef(thresholds ? n_features * n_lanes : 0);
    const Real *columns = thresholds ? coef.data() : table, one = 1;
    Size n_changed = 0;
    Sums total;

    const auto threshold = [&](Size first, Size last) {
        if (thresholds)
            kernel.threshold_rows(table + first * n_lanes, thresholds + first, last - first, n_lanes,
                                  &coef[first * n_lanes]);
    };
    const auto copy = [&](Size first, Size last) {
        for (Size a = first; a < last; ++a)
            kernel.scale_rows(X + next->order[a] * n_features, mean, root, &one, 1, n_features, n_features,
                              &next->rows[a * n_features]);
    };
    // the lower triangle suffices: a step changes the raw predictions of later rows only
    const auto couple = [&](Size first, Size last) {
        inner_products(&next->rows[first * n_features], next->rows.data(), n_features, last - first, last,
                       &next->coupling[first * next->n_rows], next->n_rows);
        for (Size a = first; a < last; ++a)
            for (Size c = 0; c < last; ++c)
                next->coupling[a * next->n_rows + c] += intercept_scale;
    };
    const auto multiply = [&](Size first, Size last, Size first_lane, Size last_lane) {
        const Real *rows = &current->rows[first * n_features];
        if (n_lanes == 1)
            multiply_vector(rows, columns, last - first, n_features, &z[first]);
        else
            kernel.multiply_table(rows, last - first, n_features, 1, columns + first_lane, n_lanes,
                                  last_lane - first_lane, n_features, false, &z[first * n_lanes + first_lane]);
        for (Size a = first; a < last; ++a)
            for (Size k = first_lane; k < last_lane; ++k)
                z[a * n_lanes + k] += intercept[k];
    };

    enum class Phase { start, multiply, visit, add } phase = Phase::start;
    const auto work = [&](Size part, Size n_parts) {
        // visit(first, last) for this part's share of the tiles of n items
        const auto for_tiles = [&](Size n, Size size, auto visit) {
            const Size n_tiles = (n + size - 1) / size;
            for (Size tile = part * n_tiles / n_parts; tile < (part + 1) * n_tiles / n_parts; ++tile)
                visit(tile * size, std::min((tile + 1) * size, n));
        };
        switch (phase) {
        case Phase::start:
            for_tiles(n_features, TILE_COLUMNS, threshold);
            for_tiles(next->n_rows, TILE_ROWS, copy);
            break;
        case Phase::multiply:
            // 1.
            if (current->n_rows * TILE_LANES >= n_lanes * TILE_ROWS)
                for_tiles(current->n_rows, TILE_ROWS,
                          [&](Size first, Size last) { multiply(first, last, 0, n_lanes); });
            else
                for_tiles(n_lanes, TILE_LANES,
                          [&](Size first, Size last) { multiply(0, current->n_rows, first, last); });
            for_tiles(next->n_rows, TILE_ROWS, copy);
            break;
        case Phase::visit:
            // 2. the first part takes the steps, alone unless there is no other
            if (part == 0 && current->n_rows)
                total += kernel.sdca_block(current->order, current->n_rows, z.data(), current->coupling.data(), y,
                                           weight, dual, n_lanes, inv_n, gap_tol, n_changed);
            if (n_parts > 1) {
                if (part == 0)
                    break;
                --part, --n_parts;
            }
            for_tiles(next->n_rows, TILE_ROWS, couple);
            break;
        case Phase::add:
            // 3.
            for_tiles(n_features, TILE_COLUMNS, [&](Size first, Size last) {
                const Real *columns_of_rows = &current->rows[first];
                if (n_lanes == 1)
                    multiply_transposed(columns_of_rows, z.data(), current->n_rows, n_features, last - first, true,
                                        table + first);
                else
                    kernel.multiply_table(columns_of_rows, last - first, 1, n_features, z.data(), n_lanes, n_lanes,
                                          current->n_rows, true, table + first * n_lanes);
                threshold(first, last);
            });
            break;
        }
    };
    const int n_parts = n_threads > 1 ? PARTS_PER_THREAD * n_threads : 1;
    Team team(n_threads, n_parts / n_threads, [&work, n_parts](int part, int) { work(part, n_parts); });
    const auto run_phase = [&](Phase which) {
        phase = which;
        team.run([&work, n_parts](int part, int) { work(part, n_parts); });
    };
    for (Size start = 0;; start += block_size) {
        next->order = order + std::min(start, n_order);
        next->n_rows = std::min(block_size, std::max(n_order - start, Size(0)));
        n_changed = 0;
        run_phase(start == 0 ? Phase::start : Phase::multiply);
        run_phase(Phase::visit);
        if (n_changed) {
            for (Size a = 0; a < current->n_rows; ++a)
                for (Size k = 0; k < n_lanes; ++k)
                    intercept[k] += intercept_scale * z[a * n_lanes + k];
            run_phase(Phase::add);
        }
        if (next->n_rows == 0)
            return total;
        std::swap(current, next);
        between();
    }
}

} // namespace sksoftmax
