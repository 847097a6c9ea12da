/* Products whose factors are both contiguous along the inner dimension, which is long: sums of products of vectors. */

#if VECTOR_BYTES == 64
#define DOT_ROWS 4
#else
#define DOT_ROWS 2
#endif
#define DOT_COLUMNS 4
#define MOST_DOTS 1024       /* results */
#define CLOSE 40             /* rows of the left factor that are copied, so that they do not share lines of the cache */
#define APART (DEPTH + 16)   /* numbers from one copied row to the next */

/* sum[i * next + j] += vectors of left[i] times those of right[j] */
INLINE void dot_tile(int rows, int columns, long depth, const real *left, long left_row, const real *right,
                     long right_row, vector *sums, long next)
{
    vector sum[DOT_ROWS][DOT_COLUMNS];
    long p = 0;
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) sum[i][j] = sums[i * next + j];
#define DOTS(load)                                                                                                     \
    {                                                                                                                  \
        vector b[DOT_COLUMNS];                                                                                         \
        UNROLL for (int j = 0; j < columns; j++)                                                                       \
        {                                                                                                              \
            const real *at = right + j * right_row + p;                                                                \
            b[j] = load;                                                                                               \
        }                                                                                                              \
        UNROLL for (int i = 0; i < rows; i++)                                                                          \
        {                                                                                                              \
            const real *at = left + i * left_row + p;                                                                  \
            const vector a = load;                                                                                     \
            UNROLL for (int j = 0; j < columns; j++) sum[i][j] += a * b[j];                                            \
        }                                                                                                              \
    }
    for (; p + WIDTH <= depth; p += WIDTH) DOTS(*(const vector *)at)
    if (p < depth) DOTS(load_part(at, depth - p))
#undef DOTS
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) sums[i * next + j] = sum[i][j];
}

#define DOT_TILE(rows, columns)                                                                                        \
    static void dot_tile_##rows##_##columns(long depth, const real *left, long left_row, const real *right,            \
                                            long right_row, vector *sums, long next)                                   \
    {                                                                                                                  \
        dot_tile(rows, columns, depth, left, left_row, right, right_row, sums, next);                                  \
    }
DOT_TILE(1, 1) DOT_TILE(1, 4) DOT_TILE(2, 1) DOT_TILE(2, 4)
#if DOT_ROWS == 4
DOT_TILE(4, 1) DOT_TILE(4, 4)
#define DOT_TILES(rows, wide) (rows == 4 ? wide ? dot_tile_4_4 : dot_tile_4_1 : DOT_TILES_2(rows, wide))
#else
#define DOT_TILES DOT_TILES_2
#endif
#define DOT_TILES_2(rows, wide) (rows == 2 ? wide ? dot_tile_2_4 : dot_tile_2_1 : wide ? dot_tile_1_4 : dot_tile_1_1)

/* out[m, n] = or += left[m, k] @ right[n, k].T, where m * n is at most MOST_DOTS; strides between rows */
static void multiply_rows(long m, long n, long k, const real *left, long left_row, const real *right, long right_row,
                          real *out, long row, long column, int add)
{
    if (m > n) { /* the transposed product */
        multiply_rows(n, m, k, right, right_row, left, left_row, out, column, row, add);
        return;
    }
    static _Thread_local vector sums[MOST_DOTS + 16] __attribute__((aligned(64)));
    static _Thread_local real copied[CLOSE * APART] __attribute__((aligned(64)));
    memset(sums, 0, (m * n + 16) * sizeof(vector));
    for (long first = 0; first < k; first += DEPTH) {
        const long depth = k - first < DEPTH ? k - first : DEPTH;
        const real *a = left + first, *b = right + first;
        long a_row = left_row;
        if (m <= CLOSE) {
            for (long i = 0; i < m; i++) memcpy(copied + i * APART, a + i * left_row, depth * sizeof(real));
            a = copied, a_row = APART;
        }
        for (long j = 0; j < n; j += n - j < DOT_COLUMNS ? 1 : DOT_COLUMNS)
            for (long i = 0, rows; i < m; i += rows) {
                rows = m - i >= DOT_ROWS ? DOT_ROWS : m - i >= 2 ? 2 : 1;
                DOT_TILES(rows, n - j >= DOT_COLUMNS)(depth, a + i * a_row, a_row, b + j * right_row, right_row,
                                                      sums + i * n + j, n);
            }
    }
    for (long first = 0; first < m * n; first += 16) {
        real turned[WIDTH][16], total[16] = {0};
        transpose(WIDTH, 16, (real *)(sums + first), WIDTH, turned[0], 16);
        for (int lane = 0; lane < WIDTH; lane++)
            for (int each = 0; each < 16; each++) total[each] += turned[lane][each];
        for (long each = first; each < m * n && each < first + 16; each++) {
            real *to = out + each / n * row + each % n * column;
            *to = add ? *to + total[each - first] : total[each - first];
        }
    }
}
