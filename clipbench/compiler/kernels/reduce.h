/* Reductions along some dimensions. The first `whole[0]` loops are over the elements of the result, the others over
   what is reduced. Sums are in double, so that they hardly depend on how they are cut. */

typedef double Fold(double before, const real *at, long count, long step, const double *number);

/* The sum of an expression of x and `number`. */
#define SUM_OF(name, expression)                                                                                       \
    static double name(double before, const real *at, long count, long step, const double *number)                     \
    {                                                                                                                  \
        double part[16] = {0}, rest = 0;                                                                               \
        long i = 0;                                                                                                    \
        if (step == 1) {                                                                                               \
            for (; i + 16 <= count; i += 16)                                                                           \
                for (int j = 0; j < 16; j++) { const double x = at[i + j]; part[j] += (expression); }                  \
            for (int width = 8; width; width /= 2)                                                                     \
                for (int j = 0; j < width; j++) part[j] += part[j + width];                                            \
        }                                                                                                              \
        for (; i < count; i++) { const double x = at[i * step]; rest += (expression); }                                \
        (void)number;                                                                                                  \
        return before + part[0] + rest;                                                                                \
    }
SUM_OF(fold_sum, x)
SUM_OF(fold_squares, (x - number[0]) * (x - number[0]))
SUM_OF(fold_not_zero, x != 0)
SUM_OF(fold_sizes, fabs(x))
SUM_OF(fold_scaled_squares, (x / number[0]) * (x / number[0]))
SUM_OF(fold_scaled_powers, pow(fabs(x) / number[0], number[1]))

#define FOLD(name, type, expression)                                                                                   \
    static double name(double before, const real *at, long count, long step, const double *number)                     \
    {                                                                                                                  \
        type part[16], a = (type)before, b;                                                                            \
        long i = 0;                                                                                                    \
        if (step == 1 && count >= 16) {                                                                                \
            for (int j = 0; j < 16; j++) part[j] = a;                                                                  \
            for (; i + 16 <= count; i += 16)                                                                           \
                for (int j = 0; j < 16; j++) { const type a = part[j], b = at[i + j]; part[j] = (expression); }        \
            for (int j = 0; j < 16; j++) b = part[j], a = (expression);                                                \
        }                                                                                                              \
        for (; i < count; i++) b = at[i * step], a = (expression);                                                     \
        (void)number;                                                                                                  \
        return a;                                                                                                      \
    }
#define SIZE_OF(x) ((real)__builtin_fabs(x))
FOLD(fold_maximum, real, a > b || a != a ? a : b)
FOLD(fold_minimum, real, a < b || a != a ? a : b)

#ifdef REAL_IS_DOUBLE
typedef int64_t __attribute__((may_alias)) bits;
#else
typedef int32_t __attribute__((may_alias)) bits;
#endif

/* The largest absolute number. Without their signs, numbers have the order of their bits, and NaN comes last. */
static double fold_largest(double before, const real *at, long count, long step, const double *number)
{
    const bits sizes = sizeof(real) == 4 ? INT32_MAX : (bits)INT64_MAX; /* all bits but the sign */
    union { real number; bits of; } first = {(real)before};
    bits most = first.of;
    (void)number;
    if (step == 1)
        for (long i = 0; i < count; i++) {
            const bits b = *(const bits *)(at + i) & sizes;
            most = b > most ? b : most;
        }
    else
        for (long i = 0; i < count; i++) {
            const bits b = *(const bits *)(at + i * step) & sizes;
            most = b > most ? b : most;
        }
    first.of = most;
    return first.number;
}
FOLD(fold_smallest, real, a < SIZE_OF(b) || a != a ? a : SIZE_OF(b))

static double fold_product(double before, const real *at, long count, long step, const double *number)
{
    (void)number;
    for (long i = 0; i < count; i++) before *= at[i * step];
    return before;
}

/* Go on to the next place of the loops from `first` to `last`, of `place` in two operands. */
INLINE void go_on(const Record *r, int first, int last, int32_t *place, char **out, char **in)
{
    for (int d = last - 1; d >= first; d--) {
        *out += r->stride[0][d], *in += r->stride[1][d];
        if (++place[d] < r->size[d]) return;
        *out -= (long)r->size[d] * r->stride[0][d], *in -= (long)r->size[d] * r->stride[1][d];
        place[d] = 0;
    }
}

INLINE long product_of_sizes(const Record *r, int first, int last)
{
    long product = 1;
    for (int d = first; d < last; d++) product *= r->size[d];
    return product;
}

/* Fold all numbers that belong to one of the result. */
SHARED double folded(const Record *r, char *in, Fold *fold, double initial, const double *number)
{
    const int kept = r->whole[0];
    const long rows = product_of_sizes(r, kept, RANK - 1);
    int32_t place[RANK] = {0};
    char *unused = 0;
    for (long n = 0; n < rows; n++) {
        initial = fold(initial, (const real *)in, r->size[RANK - 1], r->stride[1][RANK - 1] / SIZE(real), number);
        go_on(r, kept, RANK - 1, place, &unused, &in);
    }
    return initial;
}

/* `result` is of `r`, `in` and `number`. */
#define REDUCTION(name, result)                                                                                        \
    static int name(const Record *r, char **p)                                                                         \
    {                                                                                                                  \
        const int kept = r->whole[0];                                                                                  \
        const double *number = r->number, count = (double)product_of_sizes(r, kept, RANK);                             \
        const long results = product_of_sizes(r, 0, kept);                                                             \
        int32_t place[RANK] = {0};                                                                                     \
        char *out = p[0], *in = p[1];                                                                                  \
        (void)number, (void)count;                                                                                     \
        for (long n = 0; n < results; n++) {                                                                           \
            *(real *)out = (real)(result);                                                                             \
            go_on(r, 0, kept, place, &out, &in);                                                                       \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

/* Sums whose result is contiguous along the last loop, over the others: a row of sums at a time. */
#define COLUMNS 128
static int sum_of_rows(const Record *r, char **p)
{
    const int kept = r->whole[0];
    const long outer = product_of_sizes(r, 0, kept), count = r->size[RANK - 1];
    const long deep = kept < RANK - 1 ? r->size[RANK - 2] : 1, step = r->stride[1][RANK - 2];
    const long groups = product_of_sizes(r, kept, RANK - 2);
    int32_t place[RANK] = {0};
    char *out = p[0], *in = p[1];
    for (long o = 0; o < outer; o++) {
        for (long first = 0; first < count; first += COLUMNS) {
            const long width = count - first < COLUMNS ? count - first : COLUMNS;
            double total[COLUMNS] = {0};
            char *from = in, *to = out;
            for (long n = 0; n < groups; n++) {
                const char *at = from;
                long l = 0;
                for (; l + 4 <= deep; l += 4, at += 4 * step) {
                    const real *a = (const real *)at + first, *b = (const real *)(at + step) + first;
                    const real *c = (const real *)(at + 2 * step) + first, *d = (const real *)(at + 3 * step) + first;
                    for (long i = 0; i < width; i++) total[i] += ((double)a[i] + b[i]) + ((double)c[i] + d[i]);
                }
                for (; l < deep; l++, at += step)
                    for (long i = 0; i < width; i++) total[i] += ((const real *)at)[first + i];
                go_on(r, kept, RANK - 2, place, &to, &from);
            }
            for (long i = 0; i < width; i++) ((real *)out)[first + i] = (real)(total[i] * r->number[0]);
        }
        go_on(r, 0, kept, place, &out, &in);
    }
    return 0;
}

/* A norm of order `power`, also of numbers whose powers a double may not hold. */
static double norm_of(const Record *r, char *in, double power)
{
    const double top = folded(r, in, fold_largest, 0, 0), number[2] = {power < 0 ? 1 : top, power};
    if (power > 0 && !(top > 0 && top < INFINITY)) return top;
    return power == 2 ? top * sqrt(folded(r, in, fold_scaled_squares, 0, number))
                      : number[0] * pow(folded(r, in, fold_scaled_powers, 0, number), 1 / power);
}

static double variance_of(const Record *r, char *in, double count, double correction)
{
    const double mean = folded(r, in, fold_sum, 0, 0) / count, rest = count - correction;
    return folded(r, in, fold_squares, 0, &mean) / (rest > 0 ? rest : 0);
}

REDUCTION(sum, folded(r, in, fold_sum, 0, 0) * number[0])
REDUCTION(product_of, folded(r, in, fold_product, 1, 0))
REDUCTION(maximum_of, folded(r, in, fold_maximum, -INFINITY, 0))
REDUCTION(minimum_of, folded(r, in, fold_minimum, INFINITY, 0))
REDUCTION(largest, folded(r, in, fold_largest, 0, 0))
REDUCTION(smallest, folded(r, in, fold_smallest, INFINITY, 0))
REDUCTION(sum_of_sizes, folded(r, in, fold_sizes, 0, 0))
REDUCTION(count_not_zero, folded(r, in, fold_not_zero, 0, 0))
REDUCTION(norm, norm_of(r, in, number[0]))
REDUCTION(variance, variance_of(r, in, count, number[0]))
#ifdef REAL_IS_DOUBLE
REDUCTION(root_of_squares, norm_of(r, in, 2))
#else
REDUCTION(root_of_squares, sqrt(folded(r, in, fold_squares, 0, (const double[]){0})))
#endif

/* Reductions of contiguous numbers that can go on from block to block: what they fold, and the result of that and the
   number of the record. */
typedef struct {
    Operator *operator;
    Fold *fold;
    double (*result)(double total, double number);
} Gradual;

static double times(double total, double number) { return total * number; }
static double itself(double total, double number) { return (void)number, total; }
#ifndef REAL_IS_DOUBLE
static double root(double total, double number) { return (void)number, sqrt(total); }
#endif

static const Gradual GRADUAL[] = {
    {sum, fold_sum, times},
    {largest, fold_largest, itself},
    {count_not_zero, fold_not_zero, itself},
    {sum_of_sizes, fold_sizes, itself},
#ifndef REAL_IS_DOUBLE
    {root_of_squares, fold_squares, root},
#endif
};

static const Gradual *gradual_of(Operator *operator)
{
    for (unsigned n = 0; n < sizeof(GRADUAL) / sizeof(*GRADUAL); n++)
        if (GRADUAL[n].operator == operator) return GRADUAL + n;
    return 0;
}
