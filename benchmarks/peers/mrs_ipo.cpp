// MRS-IPO rollouts by hand: one trajectory a lane, everything in registers for small K.
//
// z' = alpha z + drive + beta lam A pi with A = P - 1/2 skew, so that only the entries above the diagonal are kept.
// Statistics are sums about the first policy of a chunk, merged chunk by chunk, as ipodyn takes them.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__) && !defined(FORCE_AVX2)
static const char *const instruction_set = "AVX-512";
struct Lane {
    static constexpr int width = 16;
    __m512 v;
    static INLINE Lane load(const float *p) { return {_mm512_loadu_ps(p)}; }
    static INLINE Lane set(float x) { return {_mm512_set1_ps(x)}; }
    INLINE void store(float *p) const { _mm512_storeu_ps(p, v); }
};
static INLINE Lane operator+(Lane a, Lane b) { return {_mm512_add_ps(a.v, b.v)}; }
static INLINE Lane operator-(Lane a, Lane b) { return {_mm512_sub_ps(a.v, b.v)}; }
static INLINE Lane operator*(Lane a, Lane b) { return {_mm512_mul_ps(a.v, b.v)}; }
static INLINE Lane operator/(Lane a, Lane b) { return {_mm512_div_ps(a.v, b.v)}; }
static INLINE Lane max(Lane a, Lane b) { return {_mm512_max_ps(a.v, b.v)}; }
static INLINE Lane fma(Lane a, Lane b, Lane c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static INLINE Lane fnma(Lane a, Lane b, Lane c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
static INLINE Lane nearest(Lane a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
static INLINE Lane scale(Lane a, Lane n) { return {_mm512_scalef_ps(a.v, n.v)}; }
#elif defined(__AVX2__) && defined(__FMA__)
static const char *const instruction_set = "AVX2";
struct Lane {
    static constexpr int width = 8;
    __m256 v;
    static INLINE Lane load(const float *p) { return {_mm256_loadu_ps(p)}; }
    static INLINE Lane set(float x) { return {_mm256_set1_ps(x)}; }
    INLINE void store(float *p) const { _mm256_storeu_ps(p, v); }
};
static INLINE Lane operator+(Lane a, Lane b) { return {_mm256_add_ps(a.v, b.v)}; }
static INLINE Lane operator-(Lane a, Lane b) { return {_mm256_sub_ps(a.v, b.v)}; }
static INLINE Lane operator*(Lane a, Lane b) { return {_mm256_mul_ps(a.v, b.v)}; }
static INLINE Lane operator/(Lane a, Lane b) { return {_mm256_div_ps(a.v, b.v)}; }
static INLINE Lane max(Lane a, Lane b) { return {_mm256_max_ps(a.v, b.v)}; }
static INLINE Lane fma(Lane a, Lane b, Lane c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
static INLINE Lane fnma(Lane a, Lane b, Lane c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
static INLINE Lane nearest(Lane a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
static INLINE Lane scale(Lane a, Lane n) {
    const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), shift))};
}
#else
static const char *const instruction_set = "scalar";
struct Lane {
    static constexpr int width = 1;
    float v;
    static INLINE Lane load(const float *p) { return {*p}; }
    static INLINE Lane set(float x) { return {x}; }
    INLINE void store(float *p) const { *p = v; }
};
static INLINE Lane operator+(Lane a, Lane b) { return {a.v + b.v}; }
static INLINE Lane operator-(Lane a, Lane b) { return {a.v - b.v}; }
static INLINE Lane operator*(Lane a, Lane b) { return {a.v * b.v}; }
static INLINE Lane operator/(Lane a, Lane b) { return {a.v / b.v}; }
static INLINE Lane max(Lane a, Lane b) { return {a.v > b.v ? a.v : b.v}; }
static INLINE Lane fma(Lane a, Lane b, Lane c) { return {a.v * b.v + c.v}; }
static INLINE Lane fnma(Lane a, Lane b, Lane c) { return {c.v - a.v * b.v}; }
static INLINE Lane nearest(Lane a) { return {std::nearbyint(a.v)}; }
static INLINE Lane scale(Lane a, Lane n) { return {std::ldexp(a.v, (int)n.v)}; }
#endif

// `U` vectors side by side: their chains of dependent instructions fill each other's waiting time.
template <int U> struct Vec {
    static constexpr int width = U * Lane::width;
    Lane v[U];
    static INLINE Vec load(const float *p) {
        Vec a;
        for (int u = 0; u < U; ++u) a.v[u] = Lane::load(p + u * Lane::width);
        return a;
    }
    static INLINE Vec set(float x) {
        Vec a;
        for (int u = 0; u < U; ++u) a.v[u] = Lane::set(x);
        return a;
    }
    INLINE void store(float *p) const {
        for (int u = 0; u < U; ++u) v[u].store(p + u * Lane::width);
    }
};
#define EACH_VECTOR(expression)                                                                                        \
    {                                                                                                                  \
        Vec<U> out;                                                                                                    \
        _Pragma("GCC unroll 8") for (int u = 0; u < U; ++u) out.v[u] = expression;                                     \
        return out;                                                                                                    \
    }
template <int U> static INLINE Vec<U> operator+(Vec<U> a, Vec<U> b) EACH_VECTOR(a.v[u] + b.v[u])
template <int U> static INLINE Vec<U> operator-(Vec<U> a, Vec<U> b) EACH_VECTOR(a.v[u] - b.v[u])
template <int U> static INLINE Vec<U> operator*(Vec<U> a, Vec<U> b) EACH_VECTOR(a.v[u] * b.v[u])
template <int U> static INLINE Vec<U> operator/(Vec<U> a, Vec<U> b) EACH_VECTOR(a.v[u] / b.v[u])
template <int U> static INLINE Vec<U> max(Vec<U> a, Vec<U> b) EACH_VECTOR(max(a.v[u], b.v[u]))
template <int U> static INLINE Vec<U> fma(Vec<U> a, Vec<U> b, Vec<U> c) EACH_VECTOR(fma(a.v[u], b.v[u], c.v[u]))
template <int U> static INLINE Vec<U> fnma(Vec<U> a, Vec<U> b, Vec<U> c) EACH_VECTOR(fnma(a.v[u], b.v[u], c.v[u]))
template <int U> static INLINE Vec<U> nearest(Vec<U> a) EACH_VECTOR(nearest(a.v[u]))
template <int U> static INLINE Vec<U> scale(Vec<U> a, Vec<U> n) EACH_VECTOR(scale(a.v[u], n.v[u]))

// exp(x) for x <= 0. exp(x) = 2^n exp(r), |r| <= ln 2 / 2; minimax polynomial of the Cephes library.
template <int U> static INLINE Vec<U> exp_negative(Vec<U> x) {
    using Vec = ::Vec<U>;
    x = max(x, Vec::set(-87.0f));
    const Vec n = nearest(x * Vec::set(1.44269504088896341f));
    Vec r = fnma(n, Vec::set(0.693359375f), x);
    r = fnma(n, Vec::set(-2.12194440e-4f), r);
    Vec p = Vec::set(1.9875691500e-4f);
    p = fma(p, r, Vec::set(1.3981999507e-3f));
    p = fma(p, r, Vec::set(8.3334519073e-3f));
    p = fma(p, r, Vec::set(4.1665795894e-2f));
    p = fma(p, r, Vec::set(1.6666665459e-1f));
    p = fma(p, r, Vec::set(5.0000001201e-1f));
    p = fma(p, r * r, r + Vec::set(1.0f));
    return scale(p, n);
}

static constexpr int chunk = 64;

// The unrolled loops of a round; K is known to the compiler, so that small K lives in registers.
#define EACH(k) _Pragma("GCC unroll 16") for (int k = 0; k < K; ++k)

// Probabilities near a vertex underflow; denormal numbers would make every instruction on them slow.
struct FlushDenormals {
#if defined(__AVX2__)
    const unsigned before = _mm_getcsr();
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#endif
};

template <int K, int U> struct Trajectories {
    using Vec = ::Vec<U>;
    static constexpr int pairs = K * (K - 1) / 2;

    // `stride` is the number of trajectories: arrays are (K, K, stride), (stride,).
    static void run(long at, long stride, int rounds, const float *P, const float *alphas, const float *betas,
                    const float *lams, float *variance, float *entropy) {
        const Vec half = Vec::set(0.5f), alpha = Vec::load(alphas + at), beta = Vec::load(betas + at);
        const Vec lam = Vec::load(lams + at), uniform = Vec::set(1.0f / K), zero = Vec::set(0.0f);
        Vec gain[pairs], drive[K], z[K], pi[K];
        EACH(i) drive[i] = z[i] = zero, pi[i] = uniform;
        int at_pair = 0;
        for (int i = 0; i < K; ++i)
            for (int j = i + 1; j < K; ++j, ++at_pair) {
                const Vec A = Vec::load(P + ((long)i * K + j) * stride + at) - half;
                const Vec fixed = beta * (Vec::set(1.0f) - lam) * A * uniform;
                drive[i] = drive[i] + fixed;
                drive[j] = drive[j] - fixed;
                gain[at_pair] = beta * lam * A;
            }
        // mean and sum of squared deviations of the `count` policies so far
        Vec mean[K], squares = zero;
        EACH(i) mean[i] = zero;
        float count = 0;
        for (int left = rounds; left > 0; left -= chunk) {
            const int length = left < chunk ? left : chunk;
            Vec origin[K], sum[K], sum_squares = zero;
            EACH(i) origin[i] = pi[i], sum[i] = zero;
            for (int t = 0; t < length; ++t) {
                Vec next[K];
                EACH(i) next[i] = fma(alpha, z[i], drive[i]);
                if constexpr (K <= 8) {
                    int pair = 0;
                    EACH(i) _Pragma("GCC unroll 16") for (int j = i + 1; j < K; ++j, ++pair) {
                        next[i] = fma(gain[pair], pi[j], next[i]);
                        next[j] = fnma(gain[pair], pi[i], next[j]);
                    }
                } else {
                    const Vec *g = gain;
                    for (int i = 0; i < K; ++i) {
                        Vec own = next[i], other = zero;
                        const Vec policy = pi[i];
                        int j = i + 1;
                        for (; j + 1 < K; j += 2) {
                            const Vec g0 = g[0], g1 = g[1];
                            g += 2;
                            own = fma(g0, pi[j], own);
                            other = fma(g1, pi[j + 1], other);
                            next[j] = fnma(g0, policy, next[j]);
                            next[j + 1] = fnma(g1, policy, next[j + 1]);
                        }
                        if (j < K) {
                            const Vec g0 = *g++;
                            own = fma(g0, pi[j], own);
                            next[j] = fnma(g0, policy, next[j]);
                        }
                        next[i] = own + other;
                    }
                }
                Vec top = next[0], total = zero;
                EACH(i) top = max(top, next[i]);
                EACH(i) {
                    z[i] = next[i] - top;
                    pi[i] = exp_negative(z[i]);
                    total = total + pi[i];
                }
                const Vec share = Vec::set(1.0f) / total;
                EACH(i) {
                    pi[i] = pi[i] * share;
                    const Vec apart = pi[i] - origin[i];
                    sum[i] = sum[i] + apart;
                    sum_squares = fma(apart, apart, sum_squares);
                }
            }
            const float more = (float)length, all = count + more;
            const Vec per_length = Vec::set(1.0f / more), weight = Vec::set(more / all), pair = Vec::set(count * more / all);
            EACH(i) {
                const Vec local = sum[i] * per_length;
                sum_squares = fnma(sum[i], local, sum_squares);
                const Vec apart = origin[i] + local - mean[i];
                mean[i] = fma(weight, apart, mean[i]);
                squares = fma(pair * apart, apart, squares);
            }
            squares = squares + max(sum_squares, zero);
            count = all;
        }
        (squares * Vec::set(1.0f / count)).store(variance + at);
        alignas(64) float policy[K][Vec::width];
        EACH(i) pi[i].store(policy[i]);
        for (int lane = 0; lane < Vec::width; ++lane) {
            double H = 0;
            for (int i = 0; i < K; ++i)
                if (policy[i][lane] > 0) H -= policy[i][lane] * std::log((double)policy[i][lane]);
            entropy[at + lane] = (float)H;
        }
    }
};

template <int K, int U>
static void all(long n, int rounds, const float *P, const float *alpha, const float *beta, const float *lam,
                float *variance, float *entropy, int threads) {
    using Vec = ::Vec<U>;
    const long whole = n / Vec::width * Vec::width;
#pragma omp parallel num_threads(threads)
    {
        const FlushDenormals flush;
#pragma omp for schedule(static)
        for (long at = 0; at < whole; at += Vec::width)
            Trajectories<K, U>::run(at, n, rounds, P, alpha, beta, lam, variance, entropy);
    }
    if (whole == n) return;
    const FlushDenormals flush;
    // The rest, padded with copies of the last trajectory to one full vector.
    constexpr int W = Vec::width;
    std::vector<float> last((size_t)(K * K + 5) * W);
    float *rest_P = last.data(), *rest = rest_P + K * K * W;
    for (int lane = 0; lane < W; ++lane) {
        const long at = std::min(whole + lane, n - 1);
        for (int pair = 0; pair < K * K; ++pair) rest_P[pair * W + lane] = P[pair * n + at];
        rest[lane] = alpha[at], rest[W + lane] = beta[at], rest[2 * W + lane] = lam[at];
    }
    Trajectories<K, U>::run(0, W, rounds, rest_P, rest, rest + W, rest + 2 * W, rest + 3 * W, rest + 4 * W);
    for (long at = whole; at < n; ++at) {
        variance[at] = rest[3 * W + at - whole];
        entropy[at] = rest[4 * W + at - whole];
    }
}

extern "C" {
const char *mrs_ipo_instructions() { return instruction_set; }

int mrs_ipo_threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// exp_negative at n values (a multiple of 16), to check its accuracy.
void mrs_ipo_exp(long n, const float *x, float *y) {
    for (long at = 0; at < n; at += Vec<1>::width) exp_negative(Vec<1>::load(x + at)).store(y + at);
}

// P (K, K, n), the rest (n,). Returns 0, or 1 for a K that was not compiled.
int mrs_ipo(int K, long n, int rounds, const float *P, const float *alpha, const float *beta, const float *lam,
            float *variance, float *entropy, int threads) {
    switch (K) {
#define CASE(k, U)                                                                                                       \
    case k: all<k, U>(n, rounds, P, alpha, beta, lam, variance, entropy, threads); return 0;
        // (K, vectors side by side), the fastest of 1, 2, 3, 4, 6
        CASE(3, 4) CASE(4, 4) CASE(8, 3)
#ifndef SMALL_ONLY
        CASE(16, 1) CASE(64, 1)
#endif
    }
    return 1;
}
}
