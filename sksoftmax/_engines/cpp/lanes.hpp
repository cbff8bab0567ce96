// SIMD vectors: operations on the classes of a row, or on rows side by side.
//
// A `Vec<Real>` has `WIDTH<Real>` entries: as many as a register of the variant holds, and at most 8. GCC and clang
// have such vectors as a language extension; for other compilers a struct with loops takes their place.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if !defined(SKSOFTMAX_VARIANT)
#error "compile with -DSKSOFTMAX_VARIANT=name"
#endif

#if defined(__GNUC__)
#define SKSOFTMAX_INLINE inline __attribute__((always_inline))
#else
#define SKSOFTMAX_INLINE inline
#endif

namespace sksoftmax {
namespace SKSOFTMAX_VARIANT {

//: Classes are padded to a multiple of this number.
constexpr int LANES = 8;

#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64;
#elif defined(__AVX__)
constexpr int REGISTER_BYTES = 32;
#else
constexpr int REGISTER_BYTES = 16;
#endif

template <class Real> constexpr int fit_width() {
    return REGISTER_BYTES / int(sizeof(Real)) < LANES ? REGISTER_BYTES / int(sizeof(Real)) : LANES;
}

template <class Real> constexpr int WIDTH = fit_width<Real>();

template <class Real> struct BitsOf;
template <> struct BitsOf<float> {
    using type = std::uint32_t;
};
template <> struct BitsOf<double> {
    using type = std::uint64_t;
};

#if defined(__GNUC__) && !defined(SKSOFTMAX_PLAIN_VECTORS)

template <class T, int N> struct VectorType {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};

template <class T, int N> using Vector = typename VectorType<T, N>::type;

// All entries are `value`. The difference from 0 is the value itself, -0 too, so that the compiler computes none.
template <class V, class T> SKSOFTMAX_INLINE V broadcast(T value) { return value - V{}; }

template <class M, class V> SKSOFTMAX_INLINE V select(M mask, V yes, V no) { return mask ? yes : no; }

template <class V> SKSOFTMAX_INLINE V max(V a, V b) { return a > b ? a : b; }

template <class V> SKSOFTMAX_INLINE V min(V a, V b) { return a < b ? a : b; }

#else

template <class T, int N> struct Vector {
    T entries[N];
    T &operator[](int k) { return entries[k]; }
    T operator[](int k) const { return entries[k]; }
};

#define SKSOFTMAX_OPERATOR(op, Result)                                                                                 \
    template <class T, int N> SKSOFTMAX_INLINE Vector<Result, N> operator op(Vector<T, N> a, Vector<T, N> b) {         \
        Vector<Result, N> out;                                                                                         \
        for (int k = 0; k < N; ++k)                                                                                    \
            out[k] = Result(a[k] op b[k]);                                                                             \
        return out;                                                                                                    \
    }                                                                                                                  \
    template <class T, int N> SKSOFTMAX_INLINE Vector<Result, N> operator op(Vector<T, N> a, T b) {                    \
        Vector<Result, N> out;                                                                                         \
        for (int k = 0; k < N; ++k)                                                                                    \
            out[k] = Result(a[k] op b);                                                                                \
        return out;                                                                                                    \
    }
SKSOFTMAX_OPERATOR(+, T)
SKSOFTMAX_OPERATOR(-, T)
SKSOFTMAX_OPERATOR(*, T)
SKSOFTMAX_OPERATOR(/, T)
SKSOFTMAX_OPERATOR(&, T)
SKSOFTMAX_OPERATOR(|, T)
SKSOFTMAX_OPERATOR(>>, T)
SKSOFTMAX_OPERATOR(<<, T)
SKSOFTMAX_OPERATOR(==, bool)
SKSOFTMAX_OPERATOR(>=, bool)
#undef SKSOFTMAX_OPERATOR

template <class T, int N> SKSOFTMAX_INLINE Vector<T, N> &operator+=(Vector<T, N> &a, Vector<T, N> b) {
    return a = a + b;
}

template <class T, int N> SKSOFTMAX_INLINE Vector<T, N> &operator-=(Vector<T, N> &a, Vector<T, N> b) {
    return a = a - b;
}

template <class T, int N> SKSOFTMAX_INLINE Vector<T, N> operator-(Vector<T, N> a) {
    for (int k = 0; k < N; ++k)
        a[k] = -a[k];
    return a;
}

template <class V, class T> SKSOFTMAX_INLINE V broadcast(T value) {
    V out;
    for (T &entry : out.entries)
        entry = value;
    return out;
}

template <class T, int N>
SKSOFTMAX_INLINE Vector<T, N> select(Vector<bool, N> mask, Vector<T, N> yes, Vector<T, N> no) {
    for (int k = 0; k < N; ++k)
        no[k] = mask[k] ? yes[k] : no[k];
    return no;
}

template <class T, int N> SKSOFTMAX_INLINE Vector<T, N> max(Vector<T, N> a, Vector<T, N> b) {
    for (int k = 0; k < N; ++k)
        a[k] = a[k] > b[k] ? a[k] : b[k];
    return a;
}

template <class T, int N> SKSOFTMAX_INLINE Vector<T, N> min(Vector<T, N> a, Vector<T, N> b) {
    for (int k = 0; k < N; ++k)
        a[k] = a[k] < b[k] ? a[k] : b[k];
    return a;
}

#endif

template <class Real> using Vec = Vector<Real, WIDTH<Real>>;
template <class Real> using BitsVec = Vector<typename BitsOf<Real>::type, WIDTH<Real>>;

template <class Real> SKSOFTMAX_INLINE Vec<Real> load(const Real *source) {
    Vec<Real> out;
    std::memcpy(&out, source, sizeof out);
    return out;
}

template <class Real> SKSOFTMAX_INLINE void store(Real *target, Vec<Real> value) {
    std::memcpy(target, &value, sizeof value);
}

template <class Real> SKSOFTMAX_INLINE Vec<Real> all(Real value) { return broadcast<Vec<Real>>(value); }

template <class Real> SKSOFTMAX_INLINE BitsVec<Real> to_bits(Vec<Real> value) {
    BitsVec<Real> bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <class Real> SKSOFTMAX_INLINE Vec<Real> from_bits(BitsVec<Real> bits) {
    Vec<Real> value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The absolute values.
template <class Real> SKSOFTMAX_INLINE Vec<Real> absolute(Vec<Real> value) { return max(value, -value); }

// The sum of the entries, by halves.
template <class Real> SKSOFTMAX_INLINE Real sum(Vec<Real> value) {
    Real entries[WIDTH<Real>];
    std::memcpy(entries, &value, sizeof value);
    for (int half = WIDTH<Real> / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k)
            entries[k] += entries[k + half];
    return entries[0];
}

// The largest entry.
template <class Real> SKSOFTMAX_INLINE Real largest_entry(Vec<Real> value) {
    Real entries[WIDTH<Real>];
    std::memcpy(entries, &value, sizeof value);
    for (int half = WIDTH<Real> / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k)
            entries[k] = entries[k] > entries[k + half] ? entries[k] : entries[k + half];
    return entries[0];
}

// `yes` in the entry of class `y`, and `no` in the others; the first entry is that of class `first`.
template <class Real>
SKSOFTMAX_INLINE Vec<Real> where_class(std::ptrdiff_t y, std::ptrdiff_t first, Vec<Real> yes, Vec<Real> no) {
    using Bits = typename BitsOf<Real>::type;
    BitsVec<Real> lane;
    for (int k = 0; k < WIDTH<Real>; ++k)
        lane[k] = Bits(k);
    return select(lane == broadcast<BitsVec<Real>>(Bits(y - first)), yes, no);
}

template <class Real> struct ExpConstants;

// Polynomial of exp on [-ln 2 / 2, ln 2 / 2] by least squares at Chebyshev points, relative error 8e-8. `magic` is 1.5
// * 2^23: the sum of it and a small number x is x rounded to an integer, in the last bits.
template <> struct ExpConstants<float> {
    static constexpr float magic = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.1219444005e-4f;
    static constexpr int bias = 127, shift = 23, degree = 6;
    static constexpr float polynomial[] = {0.0013941118905446957f, 0.00837513477408027f, 0.04166635277096187f,
                                           0.16666415414047356f,   0.5000000047146153f,  1.0000000377388694f,
                                           0.9999999999999997f};
};

// The Taylor polynomial of degree 13.
template <> struct ExpConstants<double> {
    static constexpr double magic = 6755399441055744.0, ln2_high = 6.93145751953125e-1,
                            ln2_low = 1.42860682030941723212e-6;
    static constexpr int bias = 1023, shift = 52, degree = 13;
    static constexpr double polynomial[] = {1.0 / 6227020800.0,
                                            1.0 / 479001600.0,
                                            1.0 / 39916800.0,
                                            1.0 / 3628800.0,
                                            1.0 / 362880.0,
                                            1.0 / 40320.0,
                                            1.0 / 5040.0,
                                            1.0 / 720.0,
                                            1.0 / 120.0,
                                            1.0 / 24.0,
                                            1.0 / 6.0,
                                            0.5,
                                            1.0,
                                            1.0};
};

// exp(x) for x <= 0: 2^n times a polynomial of the remainder, n the integer nearest to x / ln 2.
//
// It is 0 for x below `floor`, which is at least the logarithm of the smallest normal number: subnormal numbers would
// take 2 to 5 times as long.
template <class Real> SKSOFTMAX_INLINE Vec<Real> exp_negative(Vec<Real> x, Real floor) {
    using C = ExpConstants<Real>;
    using Bits = typename BitsOf<Real>::type;
    const Vec<Real> clipped = max(x, all(floor));
    const Vec<Real> shifted = clipped * all(Real(1.4426950408889634)) + all(C::magic);
    const Vec<Real> n = shifted - all(C::magic);
    const Vec<Real> r = (clipped - n * all(C::ln2_high)) - n * all(C::ln2_low);
    Vec<Real> p = all(C::polynomial[0]);
    for (int m = 1; m <= C::degree; ++m)
        p = p * r + all(C::polynomial[m]);
    Bits magic_bits;
    std::memcpy(&magic_bits, &C::magic, sizeof magic_bits);
    const BitsVec<Real> exponent = to_bits<Real>(shifted) - broadcast<BitsVec<Real>>(Bits(magic_bits - C::bias));
    const Vec<Real> power = from_bits<Real>(exponent << broadcast<BitsVec<Real>>(Bits(C::shift)));
    return select(x >= all(floor), p * power, all(Real(0)));
}

} // namespace SKSOFTMAX_VARIANT
} // namespace sksoftmax
