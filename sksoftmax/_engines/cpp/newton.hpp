// Newton steps with the exact Hessian of few dense rows, up to the neighbourhood of the minimum.
//
// `module.cpp` includes this file after the sums over rows that it calls.

#pragma once

//: Sufficient decrease, as a fraction of the slope; fraction of the slope at the end of a step from which twice the
//: length is tried; and the rounding error of F in units of epsilon F: as in `_line_search.py`.
constexpr double ARMIJO = 1e-4, STEEP_SLOPE = 0.25, ROUNDING_EPS = 8;

//: Lengths that are tried, fewer than there: the stage that follows searches on.
constexpr int MAX_HALVINGS = 20, MAX_DOUBLINGS = 10;

// F = sum of weight * loss + alpha / 2 ||coef||^2 of dense rows with class codes. The parameters are coef, (n_outputs,
// n_features), and below it the intercept, in one vector.
template <class Real> class NewtonSteps {
  public:
    NewtonSteps(const Real *rows, const Size *labels, const double *weights, const double *scales, Size samples,
                Size features, Size outputs, double strength, bool with_intercept)
        : X(rows), y(labels), weight(weights), scale(scales), n_samples(samples), n_features(features),
          n_outputs(outputs), alpha(strength), fit_intercept(with_intercept) {}

    // Take at most max_steps steps, until the predicted decrease is at most tol F, or no step decreases F. Returns
    // their number; `values` becomes F after each.
    Size run(double *coef, double *intercept, double tol, Size max_steps, double *values) {
        [[maybe_unused]] const FlushSubnormals flush;
        std::vector<double> params(coef, coef + n_outputs * n_features), gradient, trial, trial_gradient;
        params.insert(params.end(), intercept, intercept + n_outputs);
        double value = evaluate(params, gradient);
        const double eps = std::numeric_limits<Real>::epsilon();
        Size n_steps = 0;
        for (; n_steps < max_steps; ++n_steps) {
            const std::vector<double> step = direction(params, gradient);
            const double slope = -dot(step, gradient), noise = ROUNDING_EPS * eps * std::abs(value);
            if (!(slope / 2 > std::max(tol * value, noise)))
                break;
            double length = 1, found = INFINITY;
            for (int i = 0; i < MAX_HALVINGS; ++i, length /= 2) {
                found = evaluate_at(params, length, step, trial, trial_gradient);
                if (found <= value - ARMIJO * length * slope)
                    break;
                found = INFINITY;
            }
            if (!(found < value))
                break;
            std::vector<double> longer, longer_gradient;
            for (int i = 0; length >= 1 && i < MAX_DOUBLINGS && -dot(step, trial_gradient) > STEEP_SLOPE * slope; ++i) {
                length *= 2;
                const double next = evaluate_at(params, length, step, longer, longer_gradient);
                if (!(next < found))
                    break;
                found = next;
                trial.swap(longer);
                trial_gradient.swap(longer_gradient);
            }
            params.swap(trial);
            gradient.swap(trial_gradient);
            values[n_steps] = value = found;
        }
        std::copy_n(params.data(), n_outputs * n_features, coef);
        std::copy_n(params.data() + n_outputs * n_features, n_outputs, intercept);
        return n_steps;
    }

  private:
    static double dot(const std::vector<double> &a, const std::vector<double> &b) {
        double sum = 0;
        for (std::size_t i = 0; i < a.size(); ++i)
            sum += a[i] * b[i];
        return sum;
    }

    TableProduct<Real> product(const std::vector<double> &params) {
        columns_.resize(n_features * n_outputs);
        intercept_.assign(params.end() - n_outputs, params.end());
        for (Size k = 0; k < n_outputs; ++k)
            for (Size j = 0; j < n_features; ++j)
                columns_[j * n_outputs + k] = Real(params[k * n_features + j]);
        return {columns_.data(), intercept_.data(), n_features, n_outputs};
    }

    // Return F and compute its gradient.
    double evaluate(const std::vector<double> &params, std::vector<double> &gradient) {
        const Size n_coefs = n_outputs * n_features;
        gradient.assign(params.size(), 0.0);
        double *sums = gradient.data() + n_coefs, value = 0, mean = 0;
        const auto losses = kernels<Real, std::int32_t>().loss_and_residual;
        TableProduct<Real> products = product(params);
        visit_products(X, n_samples, products, gradient.data(), [&](Size start, Size end, Real *z) {
            value += losses(z, n_outputs, end - start, y + start, weight + start, sums);
        });
        for (Size i = 0; i < n_coefs; ++i) {
            gradient[i] += alpha * params[i];
            value += alpha / 2 * params[i] * params[i];
        }
        for (Size k = 0; k < n_outputs; ++k)
            mean += sums[k] / n_outputs;
        for (Size k = 0; k < n_outputs; ++k) // with a row per class their sum is 0, except for rounding
            sums[k] = !fit_intercept ? 0 : n_outputs > 1 ? sums[k] - mean : sums[k];
        return value;
    }

    // Return F at `start` + length * step, which becomes `end`.
    double evaluate_at(const std::vector<double> &start, double length, const std::vector<double> &step,
                       std::vector<double> &end, std::vector<double> &gradient) {
        end.resize(start.size());
        for (std::size_t i = 0; i < start.size(); ++i)
            end[i] = start[i] + length * step[i];
        return evaluate(end, gradient);
    }

    // Return the Newton direction: see `curvature.factorize_hessian` and `CholeskyPreconditioner` for its coordinates.
    std::vector<double> direction(const std::vector<double> &params, const std::vector<double> &gradient) {
        const Size K = n_outputs, p = n_features, q = p + fit_intercept, d = K * q;
        probabilities(params);
        std::vector<double> mean = curvature_mean(), hessian(d * d, 0.0), factor(p);
        for (Size j = 0; j < p; ++j)
            factor[j] = 1 / scale[j];
        Interrupts interrupts;
        sum_hessian(X, n_samples, p, mean.data(), factor.data(), weight, proba_.data(), variances_.data(), K, q,
                    hessian.data(), interrupts);
        for (Size c = 0; c < K; ++c)
            for (Size j = 0; j < p; ++j)
                hessian[(c * q + j) * (d + 1)] += alpha * factor[j] * factor[j];
        if (K > 1) // add curvature along the shift common to all classes, where F has only that of the penalty
            for (Size j = 0; j < q; ++j) {
                double shift = 0;
                for (Size c = 0; c < K; ++c)
                    shift += hessian[(c * q + j) * (d + 1)] / K / K;
                for (Size c = 0; c < K; ++c)
                    for (Size e = 0; e <= c; ++e)
                        hessian[(c * q + j) * d + e * q + j] += shift;
            }
        std::vector<double> unit(d), solution(d);
        for (Size i = 0; i < d; ++i) {
            const double diagonal = hessian[i * (d + 1)];
            unit[i] = 1 / std::sqrt(diagonal > 0 ? diagonal : 1.0);
        }
        std::vector<double> cholesky(d * d);
        for (double jitter = std::numeric_limits<double>::epsilon();; jitter *= 10) {
            for (Size i = 0; i < d; ++i) {
                for (Size k = 0; k < i; ++k)
                    cholesky[i * d + k] = hessian[i * d + k] * unit[i] * unit[k];
                cholesky[i * (d + 1)] = 1 + jitter;
            }
            if (factorize(cholesky.data(), d) || !(jitter < 1))
                break;
        }
        const double *intercept_gradient = gradient.data() + K * p;
        for (Size c = 0; c < K; ++c) {
            for (Size j = 0; j < p; ++j)
                solution[c * q + j] =
                    -(gradient[c * p + j] - intercept_gradient[c] * mean[j]) * factor[j] * unit[c * q + j];
            if (fit_intercept)
                solution[c * q + p] = -intercept_gradient[c] * unit[c * q + p];
        }
        solve(cholesky.data(), d, solution.data());
        std::vector<double> step(params.size(), 0.0);
        for (Size c = 0; c < K; ++c) {
            double shift = 0;
            for (Size j = 0; j < p; ++j) {
                step[c * p + j] = solution[c * q + j] * unit[c * q + j] * factor[j];
                shift += step[c * p + j] * mean[j];
            }
            if (fit_intercept)
                step[K * p + c] = solution[c * q + p] * unit[c * q + p] - shift;
        }
        return step;
    }

    // Compute the probabilities of all rows and their variances, (n_outputs, n_samples).
    void probabilities(const std::vector<double> &params) {
        const auto kernel = kernels<Real, std::int32_t>();
        raw_.resize(n_outputs * n_samples);
        proba_.resize(n_outputs * n_samples);
        variances_.resize(n_outputs * n_samples);
        TableProduct<Real> products = product(params);
        visit_products(X, n_samples, products, static_cast<double *>(nullptr), [&](Size start, Size end, Real *z) {
            for (Size k = 0; k < n_outputs; ++k)
                std::copy_n(z + k * (end - start), end - start, raw_.data() + k * n_samples + start);
        });
        if (n_outputs == 1) {
            kernel.expit(raw_.data(), n_samples, proba_.data());
            for (Size i = 0; i < n_samples; ++i)
                variances_[i] = proba_[i] * (1 - proba_[i]);
        } else {
            kernel.softmax_in_place(raw_.data(), n_outputs, n_samples);
            kernel.proba_and_variances(raw_.data(), n_outputs, n_samples, proba_.data(), variances_.data());
        }
    }

    // Return the mean of each column, with rows weighted by their curvature; 0 without intercept.
    std::vector<double> curvature_mean() const {
        std::vector<double> mean(n_features, 0.0);
        double total = 0;
        for (Size i = 0; fit_intercept && i < n_samples; ++i) {
            double curvature = 0;
            for (Size k = 0; k < n_outputs; ++k)
                curvature += variances_[k * n_samples + i];
            curvature *= weight[i];
            total += curvature;
            for (Size j = 0; j < n_features; ++j)
                mean[j] += curvature * X[i * n_features + j];
        }
        for (double &entry : mean)
            entry = total > 0 ? entry / total : 0;
        return mean;
    }

    const Real *X;
    const Size *y;
    const double *weight, *scale;
    Size n_samples, n_features, n_outputs;
    double alpha;
    bool fit_intercept;
    std::vector<Real> columns_, intercept_, raw_;
    std::vector<double> proba_, variances_;
};
