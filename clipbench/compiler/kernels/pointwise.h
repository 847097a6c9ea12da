/* What is computed element by element: three forms of loops, and the list of operators. */

/* `expression` is of a, b and c, and of n, the record's number. */
#define UNARY(name, out, first, expression)                                                                            \
    static void name##_block(long count, char **at, const double *number, const Ones *ones)                            \
    {                                                                                                                  \
        const first *x = (const first *)at[1];                                                                         \
        out *to = (out *)at[0];                                                                                        \
        const double n = *number;                                                                                      \
        (void)n, (void)ones;                                                                                           \
        VECTORISE for (long i = 0; i < count; i++)                                                                     \
        {                                                                                                              \
            const first a = x[i];                                                                                      \
            to[i] = (expression);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static int name(const Record *r, char **p)                                                                         \
    {                                                                                                                  \
        static const Kind kinds[] = {KIND(out), KIND(first)};                                                          \
        return blocks(r, p, name##_block, kinds);                                                                      \
    }

#define BINARY(name, out, in, expression)                                                                              \
    static void name##_block(long count, char **at, const double *number, const Ones *ones)                            \
    {                                                                                                                  \
        const in *x = (const in *)at[1], *y = (const in *)at[2];                                                       \
        out *to = (out *)at[0];                                                                                        \
        const double n = *number;                                                                                      \
        (void)n, (void)ones;                                                                                           \
        VECTORISE for (long i = 0; i < count; i++)                                                                     \
        {                                                                                                              \
            const in a = x[i], b = y[i];                                                                               \
            to[i] = (expression);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static int name(const Record *r, char **p)                                                                         \
    {                                                                                                                  \
        static const Kind kinds[] = {KIND(out), KIND(in), KIND(in)};                                                   \
        return blocks(r, p, name##_block, kinds);                                                                      \
    }

/* The same, also where b is one number for each row. */
#define ARITHMETIC(name, out, in, expression)                                                                          \
    static void name##_block(long count, char **at, const double *number, const Ones *ones)                            \
    {                                                                                                                  \
        const in *x = (const in *)at[1], *y = (const in *)at[2];                                                       \
        out *to = (out *)at[0];                                                                                        \
        const double n = *number;                                                                                      \
        (void)n;                                                                                                       \
        if (ones) {                                                                                                    \
            const int32_t(*s)[RANK] = ones->record->stride;                                                            \
            for (long l = 0; l < ones->rows; l++) {                                                                    \
                const in *x = (const in *)(at[1] + l * s[1][RANK - 2]), b = *(const in *)(at[2] + l * s[2][RANK - 2]); \
                out *to = (out *)(at[0] + l * s[0][RANK - 2]);                                                         \
                VECTORISE for (long i = 0; i < count; i++)                                                             \
                {                                                                                                      \
                    const in a = x[i];                                                                                 \
                    to[i] = (expression);                                                                              \
                }                                                                                                      \
            }                                                                                                          \
        } else                                                                                                         \
            VECTORISE for (long i = 0; i < count; i++)                                                                 \
            {                                                                                                          \
                const in a = x[i], b = y[i];                                                                           \
                to[i] = (expression);                                                                                  \
            }                                                                                                          \
    }                                                                                                                  \
    static int name(const Record *r, char **p)                                                                         \
    {                                                                                                                  \
        static const Kind kinds[] = {KIND(out), KIND(in), {SIZE(in), MOVE_OF(in), 1}};                                 \
        return blocks(r, p, name##_block, kinds);                                                                      \
    }

#define TERNARY(name, out, first, in, expression)                                                                      \
    static void name##_block(long count, char **at, const double *number, const Ones *ones)                            \
    {                                                                                                                  \
        const first *x = (const first *)at[1];                                                                         \
        const in *y = (const in *)at[2], *z = (const in *)at[3];                                                       \
        out *to = (out *)at[0];                                                                                        \
        const double n = *number;                                                                                      \
        (void)n, (void)ones;                                                                                           \
        VECTORISE for (long i = 0; i < count; i++)                                                                     \
        {                                                                                                              \
            const first a = x[i];                                                                                      \
            const in b = y[i], c = z[i];                                                                               \
            to[i] = (expression);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static int name(const Record *r, char **p)                                                                         \
    {                                                                                                                  \
        static const Kind kinds[] = {KIND(out), KIND(first), KIND(in), KIND(in)};                                      \
        return blocks(r, p, name##_block, kinds);                                                                      \
    }
#define KIND(type) {SIZE(type), MOVE_OF(type), 0}

/* Whatever is done to real numbers and integers alike. */
#define OF_NUMBERS(unary, binary, arithmetic, ternary, suffix, type)                                                   \
    unary(negate##suffix, type, type, -a)                                                                              \
    unary(sign##suffix, type, type, (a > 0) - (a < 0))                                                                 \
    unary(square##suffix, type, type, a *a)                                                                            \
    unary(cube##suffix, type, type, a *a *a)                                                                           \
    unary(relu##suffix, type, type, a < 0 ? 0 : a)                                                                     \
    arithmetic(add##suffix, type, type, a + (type)n * b)                                                               \
    arithmetic(subtract##suffix, type, type, a - (type)n * b)                                                          \
    arithmetic(multiply##suffix, type, type, a *b)                                                                     \
    binary(maximum##suffix, type, type, a > b || a != a ? a : b)                                                       \
    binary(minimum##suffix, type, type, a < b || a != a ? a : b)                                                       \
    binary(less##suffix, uint8_t, type, a < b)                                                                         \
    binary(less_equal##suffix, uint8_t, type, a <= b)                                                                  \
    binary(equal##suffix, uint8_t, type, a == b)                                                                       \
    binary(not_equal##suffix, uint8_t, type, a != b)                                                                   \
    ternary(choose##suffix, type, uint8_t, type, a ? b : c)

#define POINTWISE(unary, binary, arithmetic, ternary)                                                                  \
    OF_NUMBERS(unary, binary, arithmetic, ternary, , real)                                                             \
    OF_NUMBERS(unary, binary, binary, ternary, _integer, int64_t)                                                      \
    unary(magnitude, real, real, (real)__builtin_fabs(a))                                                              \
    unary(round_to_half, real, real, rounded_to_half(a))                                                               \
    unary(magnitude_integer, int64_t, int64_t, a < 0 ? -a : a)                                                         \
    unary(real_of_integer, real, int64_t, (real)a)                                                                     \
    unary(real_of_flag, real, uint8_t, (real)a)                                                                        \
    unary(integer_of_real, int64_t, real, (int64_t)a)                                                                  \
    unary(integer_of_flag, int64_t, uint8_t, a)                                                                        \
    unary(flag_of_real, uint8_t, real, a != 0)                                                                         \
    unary(flag_of_integer, uint8_t, int64_t, a != 0)                                                                   \
    unary(square_root, real, real, CALL(sqrt, a))                                                                      \
    unary(inverse_root, real, real, 1 / CALL(sqrt, a))                                                                 \
    unary(inverse, real, real, 1 / a)                                                                                  \
    unary(exponential, real, real, EXP(a))                                                                             \
    unary(exponential_m1, real, real, EXPM1(a))                                                                        \
    unary(exponential_2, real, real, CALL(exp2, a))                                                                    \
    unary(logarithm, real, real, LOG(a))                                                                               \
    unary(logarithm_1p, real, real, LOG1P(a))                                                                          \
    unary(logarithm_2, real, real, CALL(log2, a))                                                                      \
    unary(logarithm_10, real, real, CALL(log10, a))                                                                    \
    unary(tanh_of, real, real, TANH(a))                                                                                \
    unary(sigmoid, real, real, SIGMOID(a))                                                                             \
    unary(gelu, real, real, a *GELU_CDF(a))                                                                            \
    unary(silu, real, real, a *SIGMOID(a))                                                                             \
    unary(leaky_relu, real, real, a > 0 ? a : a * (real)n)                                                             \
    unary(sine, real, real, CALL(sin, a))                                                                              \
    unary(cosine, real, real, CALL(cos, a))                                                                            \
    unary(tangent, real, real, CALL(tan, a))                                                                           \
    unary(arc_sine, real, real, CALL(asin, a))                                                                         \
    unary(arc_cosine, real, real, CALL(acos, a))                                                                       \
    unary(arc_tangent, real, real, CALL(atan, a))                                                                      \
    unary(hyperbolic_sine, real, real, CALL(sinh, a))                                                                  \
    unary(hyperbolic_cosine, real, real, CALL(cosh, a))                                                                \
    unary(inverse_hyperbolic_sine, real, real, CALL(asinh, a))                                                         \
    unary(inverse_hyperbolic_cosine, real, real, CALL(acosh, a))                                                       \
    unary(inverse_hyperbolic_tangent, real, real, CALL(atanh, a))                                                      \
    unary(error_function_complement, real, real, CALL(erfc, a))                                                        \
    unary(error_function, real, real, ERF(a))                                                                          \
    unary(round_down, real, real, CALL(floor, a))                                                                      \
    unary(round_up, real, real, CALL(ceil, a))                                                                         \
    unary(round_to_zero, real, real, CALL(trunc, a))                                                                   \
    unary(round_to_even, real, real, CALL(rint, a))                                                                    \
    unary(not_flag, uint8_t, uint8_t, !a)                                                                              \
    arithmetic(divide, real, real, a / b)                                                                              \
    binary(power, real, real, CALL(pow, a, b))                                                                         \
    binary(modulo, real, real, remainder_of(a, b))                                                                     \
    binary(signed_modulo, real, real, CALL(fmod, a, b))                                                                \
    binary(quotient, real, real, quotient_of(a, b))                                                                    \
    binary(modulo_integer, int64_t, int64_t, a - b * quotient_of_integers(a, b))                                       \
    binary(quotient_integer, int64_t, int64_t, quotient_of_integers(a, b))                                             \
    binary(arc_tangent_2, real, real, CALL(atan2, a, b))                                                               \
    binary(tanh_backward, real, real, a *(1 - b * b))                                                                  \
    binary(sigmoid_backward, real, real, a *(1 - b) * b)                                                               \
    binary(threshold_backward, real, real, b <= (real)n ? 0 : a)                                                       \
    binary(shrink_backward, real, real, b >= -(real)n && b <= (real)n ? 0 : a)                                         \
    binary(gelu_backward, real, real, a *(GELU_CDF(b) + b * GELU_PDF(b)))                                              \
    binary(silu_backward, real, real, a *SIGMOID(b) * (1 + b * (1 - SIGMOID(b))))                                      \
    binary(leaky_relu_backward, real, real, b > 0 ? a : a * (real)n)                                                   \
    binary(both, uint8_t, uint8_t, a &b)                                                                               \
    binary(either, uint8_t, uint8_t, a | b)                                                                            \
    binary(one_of, uint8_t, uint8_t, a ^ b)                                                                            \
    ternary(choose_flag, uint8_t, uint8_t, uint8_t, a ? b : c)                                                         \
    ternary(add_product, real, real, real, a + (real)n * b * c)                                                        \
    ternary(add_quotient, real, real, real, a + (real)n * b / c)                                                       \
    ternary(interpolate, real, real, real, c < (real)0.5 ? a + c * (b - a) : b - (b - a) * (1 - c))
