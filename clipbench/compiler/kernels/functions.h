/* Functions of one number that compilers turn into vector instructions: no branches, no calls. For float; for double,
   those of the C library. They return NaN for NaN. */

/* The nearest number of bfloat16, which has the upper half of a float's bits; of two as near, the even one. */
INLINE float rounded_to_half(float x)
{
    union { float number; uint32_t bits; } as = {x};
    as.bits = (as.bits + 0x7fff + (as.bits >> 16 & 1)) & 0xffff0000u;
    return x != x ? x : as.number;
}

#ifdef REAL_IS_DOUBLE
#define EXP exp
#define EXPM1 expm1
#define LOG log
#define LOG1P log1p
#define TANH tanh
#define ERF erf
#else
typedef union { int32_t bits; float number; } Bits;

INLINE float EXP(float x)
{
    x = x > 89.f ? 89.f : x < -104.f ? -104.f : x; /* beyond, the result is infinite or 0 */
    float whole = __builtin_rintf(x * 1.44269504f);
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * rest * rest + rest + 1.f;
    /* 2^whole in two factors, since the exponent of a float may not hold it. */
    int32_t half = (int32_t)whole >> 1, other = (int32_t)whole - half;
    Bits one = {(half + 127) << 23}, two = {(other + 127) << 23};
    return y * one.number * two.number;
}

INLINE float EXPM1(float x)
{
    float y = 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    return __builtin_fabsf(x) < 0.3f ? y * x * x + x : EXP(x) - 1.f;
}

INLINE float LOG(float x)
{
    /* x = (1 + m) * 2^power, with 1 + m between the roots of 1/2 and 2; numbers too small for that are scaled */
    const float scale = x < 1.17549435e-38f ? 8388608.f : 1.f, shift = x < 1.17549435e-38f ? 150.f : 127.f;
    Bits in = {.number = x * scale};
    in.bits += 0x3f800000 - 0x3f3504f3;
    const float power = (float)(in.bits >> 23) - shift;
    in.bits = (in.bits & 0x7fffff) + 0x3f3504f3;
    const float m = in.number - 1.f, z = m * m;
    float y = 7.0376836292e-2f;
    y = y * m - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z - 2.12194440e-4f * power - 0.5f * z + m + 0.693359375f * power;
    y = x < INFINITY ? y : x; /* or NaN */
    y = x == 0 ? -INFINITY : y;
    return x < 0 ? NAN : y;
}

INLINE float LOG1P(float x)
{
    const float whole = 1.f + x, y = LOG(whole) * (x / (whole - 1.f)); /* corrects how `whole` was rounded */
    return whole == 1.f ? x : whole < INFINITY ? y : whole;
}

INLINE float TANH(float x)
{
    float size = __builtin_fabsf(x), square = x * x;
    float y = -5.70498872745e-3f;
    y = y * square + 2.06390887954e-2f;
    y = y * square - 5.37397155531e-2f;
    y = y * square + 1.33314422036e-1f;
    y = y * square - 3.33332819422e-1f;
    float small = x + x * square * y, large = 1.f - 2.f / (EXP(2.f * (size > 20.f ? 20.f : size)) + 1.f);
    return size < 0.625f ? small : __builtin_copysignf(large, x);
}

INLINE float ERF(float x)
{
    x = x > 4.f ? 4.f : x < -4.f ? -4.f : x;
    float s = x * x, above = -2.72614225801306e-10f, below = -1.45660718464996e-05f;
    above = above * s + 2.77068142495902e-08f;
    above = above * s - 2.10102402082508e-06f;
    above = above * s - 5.69250639462346e-05f;
    above = above * s - 7.34990630326855e-04f;
    above = above * s - 2.95459980854025e-03f;
    above = above * s - 1.60960333262415e-02f;
    below = below * s - 2.13374055278905e-04f;
    below = below * s - 1.68282697438203e-03f;
    below = below * s - 7.37332916720468e-03f;
    below = below * s - 1.42647390514189e-02f;
    return x * above / below;
}
#endif

#ifdef REAL_IS_DOUBLE
#define CALL(name, ...) name(__VA_ARGS__) /* of the C library */
#else
#define CALL(name, ...) name##f(__VA_ARGS__)
#endif

#define SIGMOID(x) (1 / (1 + EXP(-(x))))
#define GELU_CDF(x) (((real)1 + ERF((x) * (real)M_SQRT1_2)) / 2)
#define GELU_PDF(x) (EXP(-(x) * (x) / 2) * (real)0.39894228040143267794)

/* The remainder that has the sign of the divisor, and the quotient that belongs to it. */
INLINE real remainder_of(real a, real b)
{
    const real rest = CALL(fmod, a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

INLINE real quotient_of(real a, real b)
{
    const real rest = CALL(fmod, a, b), whole = (a - rest) / b - (rest != 0 && (rest < 0) != (b < 0));
    const real below = CALL(floor, whole);
    return b == 0 ? a / b : whole == 0 ? CALL(copysign, 0, a / b) : whole - below > (real)0.5 ? below + 1 : below;
}

INLINE int64_t quotient_of_integers(int64_t a, int64_t b)
{
    const int64_t whole = b ? a / b : 0; /* an error in Python, which has no place here */
    return whole - (b && a % b != 0 && (a < 0) != (b < 0));
}
