/* Operators along a dimension: softmax, sums up to each number, sorting, the place of the largest number. */

/* Calls `row` for every row along the last loop; returns whether one of them returned an error. */
typedef int Row(const Record *, char **at);

SHARED int each_row(const Record *r, char **p, Row *row)
{
    const int32_t(*s)[RANK] = r->stride;
    char *at[OPERANDS];
    for (long i = 0; i < r->size[0]; i++)
        for (long j = 0; j < r->size[1]; j++)
            for (long k = 0; k < r->size[2]; k++)
                for (long l = 0; l < r->size[3]; l++) {
                    for (int o = 0; o < r->count; o++)
                        at[o] = p[o] + i * s[o][0] + j * s[o][1] + k * s[o][2] + l * s[o][3];
                    if (row(r, at)) return 1;
                }
    return 0;
}

#define ABREAST 16 /* rows that are computed together; a column of them is contiguous */

/* Memory that is as large as was ever needed. */
static void *scratch(long bytes)
{
    static _Thread_local void *memory;
    static _Thread_local long size;
    if (bytes > size) {
        free(memory);
        memory = malloc(bytes);
        size = memory ? bytes : 0;
    }
    return memory;
}

/* Computes `count` columns, or one, into the first operand's from the others'. */
typedef void Columns(long count, real (**at)[ABREAST], double number);

SHARED int abreast(const Record *r, char **p, Columns *compute, int one)
{
    const int32_t(*s)[RANK] = r->stride, *size = r->size;
    const long count = size[4];
    real *memory = scratch(r->count * count * ABREAST * SIZE(real)), (*at[OPERANDS])[ABREAST];
    if (!memory) return 1;
    if (size[3] % ABREAST) memset(memory, 0, r->count * count * ABREAST * SIZE(real));
    for (int o = 0; o < r->count; o++) at[o] = (real(*)[ABREAST])(memory + o * count * ABREAST);
    for (long i = 0; i < size[0]; i++)
        for (long j = 0; j < size[1]; j++)
            for (long k = 0; k < size[2]; k++)
                for (long l = 0; l < size[3]; l += ABREAST) {
                    const long rows = size[3] - l < ABREAST ? size[3] - l : ABREAST;
                    for (int o = 1; o < r->count; o++)
                        move_real(count, rows, (char *)at[o], ABREAST * SIZE(real), SIZE(real),
                                  p[o] + i * s[o][0] + j * s[o][1] + k * s[o][2] + l * s[o][3], s[o][4], s[o][3]);
                    compute(count, at, r->number[0]);
                    move_real(rows, one ? 1 : count, p[0] + i * s[0][0] + j * s[0][1] + k * s[0][2] + l * s[0][3],
                              s[0][3], s[0][4], (char *)at[0], SIZE(real), ABREAST * SIZE(real));
                }
    return 0;
}

#define ALL _Pragma("GCC unroll 1") for (int r = 0; r < ABREAST; r++) /* rows */
#define COLUMNWISE(name, body)                                                                                         \
    static void name##_columns(long count, real (**at)[ABREAST], double number)                                        \
    {                                                                                                                  \
        real(*out)[ABREAST] = at[0], (*x)[ABREAST] = at[1], (*y)[ABREAST] = at[2];                                     \
        real total[ABREAST] = {0};                                                                                     \
        (void)y, (void)number;                                                                                         \
        body                                                                                                           \
    }                                                                                                                  \
    static int name(const Record *r, char **p) { return abreast(r, p, name##_columns, 0); }

#define LARGEST                                                                                                        \
    real top[ABREAST];                                                                                                 \
    ALL top[r] = x[0][r];                                                                                              \
    for (long i = 1; i < count; i++) ALL top[r] = x[i][r] > top[r] ? x[i][r] : top[r]; /* a row with NaN becomes NaN */

COLUMNWISE(softmax, {
    LARGEST
    for (long i = 0; i < count; i++) ALL out[i][r] = EXP(x[i][r] - top[r]);
    for (long i = 0; i < count; i++) ALL total[r] += out[i][r];
    ALL total[r] = 1 / total[r];
    for (long i = 0; i < count; i++) ALL out[i][r] *= total[r];
})
COLUMNWISE(log_softmax, {
    LARGEST
    for (long i = 0; i < count; i++) ALL out[i][r] = EXP(x[i][r] - top[r]);
    for (long i = 0; i < count; i++) ALL total[r] += out[i][r];
    ALL total[r] = LOG(total[r]);
    for (long i = 0; i < count; i++) ALL out[i][r] = x[i][r] - top[r] - total[r];
})
COLUMNWISE(softmax_backward, {
    for (long i = 0; i < count; i++) ALL total[r] += x[i][r] * y[i][r];
    for (long i = 0; i < count; i++) ALL out[i][r] = (x[i][r] - total[r]) * y[i][r];
})
COLUMNWISE(log_softmax_backward, {
    for (long i = 0; i < count; i++) ALL total[r] += x[i][r];
    for (long i = 0; i < count; i++) ALL out[i][r] = x[i][r] - EXP(y[i][r]) * total[r];
})

static void sum_columns(long count, real (**at)[ABREAST], double number)
{
    double total[ABREAST] = {0};
    for (long i = 0; i < count; i++) ALL total[r] += at[1][i][r];
    ALL at[0][0][r] = (real)(total[r] * number);
}

static int sum_abreast(const Record *r, char **p) { return abreast(r, p, sum_columns, 1); }

#define AT(operand, type, i) (*(type *)(at[operand] + (i) * (long)r->stride[operand][RANK - 1]))

static int running_sum_row(const Record *r, char **at)
{
    double total = 0;
    for (long i = 0; i < r->size[RANK - 1]; i++) AT(0, real, i) = (real)(total += AT(1, real, i));
    return 0;
}

static int running_product_row(const Record *r, char **at)
{
    double total = 1;
    for (long i = 0; i < r->size[RANK - 1]; i++) AT(0, real, i) = (real)(total *= AT(1, real, i));
    return 0;
}

/* Whether a number comes before another in ascending order: NaN is last. */
INLINE int before(real a, real b) { return a < b || (a == a && b != b); }

/* The first place of the smallest number, or of the largest if whole[0]; of NaN, if there is one */
static int place_of_row(const Record *r, char **at)
{
    long found = 0;
    for (long i = 1; i < r->size[RANK - 1]; i++) {
        const real a = AT(1, real, i), b = AT(1, real, found);
        if (b == b && (a != a || (r->whole[0] ? a > b : a < b))) found = i;
    }
    *(int64_t *)at[0] = found;
    return 0;
}

typedef struct {
    real number;
    int64_t place;
} Placed;

/* operands: sorted numbers, their places before, numbers; descending if whole[0]. Equal numbers stay in order. */
static int sort_row(const Record *r, char **at)
{
    const long count = r->size[RANK - 1];
    Placed *from = scratch(2 * count * SIZE(Placed)), *to = from + count;
    if (!from) return 1;
    for (long i = 0; i < count; i++) from[i] = (Placed){AT(2, real, i), i};
    for (long half = 1; half < count; half *= 2) {
        for (long first = 0; first < count; first += 2 * half) {
            const long middle = first + half < count ? first + half : count;
            const long end = middle + half < count ? middle + half : count;
            for (long i = first, j = middle, k = first; k < end; k++) {
                const int second = j < end && (i == middle || (r->whole[0] ? before(from[i].number, from[j].number)
                                                                           : before(from[j].number, from[i].number)));
                to[k] = second ? from[j++] : from[i++];
            }
        }
        Placed *sorted = to;
        to = from, from = sorted;
    }
    for (long i = 0; i < count; i++) AT(0, real, i) = from[i].number, AT(1, int64_t, i) = from[i].place;
    return 0;
}
#undef AT

static int running_sum(const Record *r, char **p) { return each_row(r, p, running_sum_row); }
static int running_product(const Record *r, char **p) { return each_row(r, p, running_product_row); }
static int place_of(const Record *r, char **p) { return each_row(r, p, place_of_row); }
static int sort(const Record *r, char **p) { return each_row(r, p, sort_row); }
