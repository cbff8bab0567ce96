// Products of dense rows with tables of a few classes. A BLAS would first copy the rows into its own order, which takes
// as long as such a product; here the classes are the entries of a vector, and the rows are read as they are.
//
// A tile of the result stays in registers: `N_TILE` of its rows, with the classes of a panel of up to 4 vectors.

#pragma once

#include <algorithm>

#include "arrays.hpp"
#include "lanes.hpp"

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

//: Entries of the widest register.
template <class Real> constexpr int FULL_WIDTH = REGISTER_BYTES / int(sizeof(Real));

//: Rows of a tile with 1 to 4 vectors of classes: its sums leave room in the registers for the factors.
constexpr int N_TILE[] = {0, 12, REGISTER_BYTES == 64 ? 12 : 6, REGISTER_BYTES == 64 ? 8 : 4,
                          REGISTER_BYTES == 64 ? 6 : 3};

//: Terms of a sum in a register; longer sums are added up from parts, which rounds less.
constexpr Size N_TERMS = 512;

// Compute out[a, k] = sum_t x[a, t] * table[t, k] for N_ROWS_OF_TILE rows a and the classes k of N_VECTORS vectors of
// WIDTH_OF_VECTOR, or add it to `out`. x[a, t] is x[a * row_step + t * term_step].
template <class Real, int WIDTH_OF_VECTOR, int N_VECTORS, int N_ROWS_OF_TILE>
SKSOFTMAX_INLINE void multiply_register_tile(const Real *x, Size row_step, Size term_step, const Real *table,
                                             Size width, Size n_terms, bool add, Real *out) {
    using V = Vector<Real, WIDTH_OF_VECTOR>;
    V sums[N_ROWS_OF_TILE][N_VECTORS];
    for (int a = 0; a < N_ROWS_OF_TILE; ++a)
        for (int v = 0; v < N_VECTORS; ++v)
            sums[a][v] = broadcast<V>(Real(0));
    for (Size t = 0; t < n_terms; ++t) {
        V factors[N_VECTORS];
        for (int v = 0; v < N_VECTORS; ++v)
            std::memcpy(&factors[v], table + t * width + v * WIDTH_OF_VECTOR, sizeof(V));
        for (int a = 0; a < N_ROWS_OF_TILE; ++a) {
            const V entry = broadcast<V>(x[a * row_step + t * term_step]);
            for (int v = 0; v < N_VECTORS; ++v)
                sums[a][v] += entry * factors[v];
        }
    }
    for (int a = 0; a < N_ROWS_OF_TILE; ++a)
        for (int v = 0; v < N_VECTORS; ++v) {
            Real *target = out + a * width + v * WIDTH_OF_VECTOR;
            if (add) {
                V before;
                std::memcpy(&before, target, sizeof(V));
                sums[a][v] += before;
            }
            std::memcpy(target, &sums[a][v], sizeof(V));
        }
}

// Ask for a row of X that is used soon. So many rows at a time are too many for the processor to foresee.
template <class Real> SKSOFTMAX_INLINE void prefetch_row(const Real *row, Size n_entries) {
#if defined(__GNUC__)
    constexpr int CACHE_LINE = 64 / int(sizeof(Real));
    for (Size t = 0; t < n_entries; t += CACHE_LINE)
        __builtin_prefetch(row + t, 0, 2);
#endif
}

// Do `multiply_register_tile` for all rows of a panel.
template <class Real, int WIDTH_OF_VECTOR, int N_VECTORS, int N_ROWS_OF_TILE>
void multiply_panel(const Real *x, Size n_rows, Size row_step, Size term_step, const Real *table, Size width,
                    Size n_terms, bool add, Real *out) {
    Size a = 0;
    for (; a + N_ROWS_OF_TILE <= n_rows; a += N_ROWS_OF_TILE) {
        if (term_step == 1 && a + 2 * N_ROWS_OF_TILE <= n_rows)
            for (int r = 0; r < N_ROWS_OF_TILE; ++r)
                prefetch_row(x + (a + N_ROWS_OF_TILE + r) * row_step, n_terms);
        multiply_register_tile<Real, WIDTH_OF_VECTOR, N_VECTORS, N_ROWS_OF_TILE>(
            x + a * row_step, row_step, term_step, table, width, n_terms, add, out + a * width);
    }
    if constexpr (N_ROWS_OF_TILE > 1)
        if (a < n_rows)
            multiply_panel<Real, WIDTH_OF_VECTOR, N_VECTORS, N_ROWS_OF_TILE / 2>(
                x + a * row_step, n_rows - a, row_step, term_step, table, width, n_terms, add, out + a * width);
}

// Compute out = x table for the first `n_lanes` columns, a multiple of 8, of tables with `width` columns, or add it.
//
// `table` has n_terms rows, and `out` n_rows. x[a, t] is x[a * row_step + t * term_step].
template <class Real>
void multiply_table(const Real *x, Size n_rows, Size row_step, Size term_step, const Real *table, Size width,
                    Size n_lanes, Size n_terms, bool add, Real *out) {
    constexpr int FULL = FULL_WIDTH<Real>, HALF = FULL / 2;
    if (n_terms == 0 && !add)
        for (Size a = 0; a < n_rows; ++a)
            std::fill_n(out + a * width, n_lanes, Real(0));
    for (Size start = 0; start < n_terms; start += N_TERMS) {
        const Size n = std::min(N_TERMS, n_terms - start);
        const Real *entries = x + start * term_step, *rows_of_table = table + start * width;
        const auto panel = [&](auto multiply, Size lane) {
            multiply(entries, n_rows, row_step, term_step, rows_of_table + lane, width, n, add || start > 0,
                     out + lane);
        };
        Size lane = 0;
        for (; lane + 4 * FULL <= n_lanes; lane += 4 * FULL)
            panel(multiply_panel<Real, FULL, 4, N_TILE[4]>, lane);
        const Size n_vectors = (n_lanes - lane) / FULL;
        if (n_vectors == 3)
            panel(multiply_panel<Real, FULL, 3, N_TILE[3]>, lane);
        else if (n_vectors == 2)
            panel(multiply_panel<Real, FULL, 2, N_TILE[2]>, lane);
        else if (n_vectors == 1)
            panel(multiply_panel<Real, FULL, 1, N_TILE[1]>, lane);
        lane += n_vectors * FULL;
        if (lane < n_lanes)
            panel(multiply_panel<Real, HALF, 1, N_TILE[1]>, lane);
    }
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
