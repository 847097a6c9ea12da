/* Products of small matrices that are in the cache: no blocking beyond registers and panels. */

#if VECTOR_BYTES == 64
#define TILE_ROWS 12
#else
#define TILE_ROWS 6
#endif
#define DEPTH 256 /* of a panel of the right factor, which stays in the L1 cache */
#define PADDED (2 * WIDTH) /* numbers in a row of a packed panel */

typedef struct {
    const real *at;
    long row, column; /* elements to the next row and column */
} Matrix;

/* A panel of columns of a product: what its tiles share. */
typedef struct {
    const real *right;
    long depth, left_row, left_column; /* elements to the next row and column of left */
    long step;                         /* elements to the next row of right */
    long row, column, columns;         /* elements to the next row and column of the result, and its columns */
    long begin_row;                    /* elements to the next row of what sums begin with */
    int add, whole;                    /* whether to add to the result at the end, and to read the last vector whole */
} Panel;

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)") /* early enough for registers, unlike a number of turns */
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Write sums to a result whose columns are not contiguous. */
static void scatter(const Panel *panel, int rows, const real (*sum)[PADDED], real *out)
{
    real turned[PADDED][16];
    if (panel->row == 1 && !panel->add) {
        transpose(panel->columns, rows, sum[0], PADDED, out, panel->column);
        return;
    }
    transpose(panel->columns, rows, sum[0], PADDED, turned[0], 16);
    for (long j = 0; j < panel->columns; j++)
        for (int i = 0; i < rows; i++) {
            real *to = out + i * panel->row + j * panel->column;
            *to = panel->add ? *to + turned[j][i] : turned[j][i];
        }
}

/* out[rows, columns] = or += left[rows, depth] @ right[depth, columns], where the columns fill `wide` vectors, the last
   one perhaps in part. Sums are in the order of depth. */
INLINE void tile(int rows, int wide, const Panel *panel, const real *left, real *out, const real *begin)
{
    const long rest = panel->columns - (wide - 1) * WIDTH; /* numbers of the last vector */
    const long left_row = panel->left_row, left_column = panel->left_column, step = panel->step, row = panel->row;
    const real *right = panel->right;
    vector sum[TILE_ROWS][2];
    UNROLL for (int i = 0; i < rows; i++)
    {
        const real *from = begin + i * panel->begin_row;
        UNROLL for (int j = 0; j < wide - 1; j++) sum[i][j] = begin ? *(vector *)(from + j * WIDTH) : (vector){0};
        sum[i][wide - 1] = begin ? load_part(from + (wide - 1) * WIDTH, rest) : (vector){0};
    }
#define PRODUCTS(last)                                                                                                 \
    for (long p = 0; p < panel->depth; p++, left += left_column, right += step) {                                      \
        vector b[2];                                                                                                   \
        UNROLL for (int j = 0; j < wide - 1; j++) b[j] = *(const vector *)(right + j * WIDTH);                         \
        b[wide - 1] = last;                                                                                            \
        UNROLL for (int i = 0; i < rows; i++)                                                                          \
        {                                                                                                              \
            const real a = left[i * left_row];                                                                         \
            UNROLL for (int j = 0; j < wide; j++) sum[i][j] += a * b[j];                                               \
        }                                                                                                              \
    }
    if (panel->whole) PRODUCTS(*(const vector *)(right + (wide - 1) * WIDTH))
    else PRODUCTS(load_part(right + (wide - 1) * WIDTH, rest))
#undef PRODUCTS
    if (panel->column != 1) {
        real held[TILE_ROWS][PADDED]; /* `sum` itself stays in registers */
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < wide; j++) *(vector *)(held[i] + j * WIDTH) = sum[i][j];
        scatter(panel, rows, (const real(*)[PADDED])held, out);
        return;
    }
    if (panel->add)
        UNROLL for (int i = 0; i < rows; i++)
        {
            UNROLL for (int j = 0; j < wide - 1; j++) sum[i][j] += *(vector *)(out + i * row + j * WIDTH);
            sum[i][wide - 1] += load_part(out + i * row + (wide - 1) * WIDTH, rest);
        }
    UNROLL for (int i = 0; i < rows; i++)
    {
        UNROLL for (int j = 0; j < wide - 1; j++) *(vector *)(out + i * row + j * WIDTH) = sum[i][j];
        if (rest == WIDTH) *(vector *)(out + i * row + (wide - 1) * WIDTH) = sum[i][wide - 1];
        else store_part(out + i * row + (wide - 1) * WIDTH, rest, sum[i][wide - 1]);
    }
}

typedef void Tile(const Panel *panel, const real *left, real *out, const real *begin);

/* One function for each size, so that the sums are in registers. */
#define TILE(rows, wide)                                                                                               \
    static void tile_##rows##_##wide(const Panel *panel, const real *left, real *out, const real *begin)               \
    {                                                                                                                  \
        tile(rows, wide, panel, left, out, begin);                                                                     \
    }
TILE(1, 1) TILE(2, 1) TILE(4, 1) TILE(6, 1) TILE(1, 2) TILE(2, 2) TILE(4, 2) TILE(6, 2)
#if TILE_ROWS == 12
TILE(8, 1) TILE(12, 1) TILE(8, 2) TILE(12, 2)
#endif

static const int HEIGHTS[] = {
#if TILE_ROWS == 12
    12, 8,
#endif
    6, 4, 2, 1};
static Tile *const TILES[][2] = {
#if TILE_ROWS == 12
    {tile_12_1, tile_12_2}, {tile_8_1, tile_8_2},
#endif
    {tile_6_1, tile_6_2}, {tile_4_1, tile_4_2}, {tile_2_1, tile_2_2}, {tile_1_1, tile_1_2}};

/* Copy a panel of a right factor into rows that are `PADDED` apart. */
static void pack(Matrix right, long depth, long columns, real *into)
{
    if (right.row == 1) transpose(depth, columns, right.at, right.column, into, PADDED);
    else
        for (long j = 0; j < columns; j++)
            for (long p = 0; p < depth; p++) into[p * PADDED + j] = right.at[p * right.row + j * right.column];
}

/* out[m, n] = left[m, k] @ right[k, n] + addend[m, n], if there is one; its columns and those of the result are
   contiguous, or else it is the result */
static void multiply_matrices(long m, long n, long k, Matrix left, Matrix right, Matrix addend, real *out, long row,
                              long column)
{
    static _Thread_local real packing[DEPTH * PADDED] __attribute__((aligned(64)));
    if (!k)
        for (long i = 0; i < m; i++)
            for (long j = 0; j < n; j++)
                out[i * row + j * column] = addend.at ? addend.at[i * addend.row + j * addend.column] : 0;
    for (long first = 0; first < k; first += DEPTH) {
        long depth = k - first < DEPTH ? k - first : DEPTH;
        for (long j = 0; j < n; j += 2 * WIDTH) {
            long columns = n - j < 2 * WIDTH ? n - j : 2 * WIDTH, step = right.row;
            const int wide = columns > WIDTH ? 2 : 1, packed = right.column != 1;
            const real *part = right.at + first * right.row + j * right.column;
            if (packed) {
                pack((Matrix){part, right.row, right.column}, depth, columns, packing);
                part = packing, step = PADDED;
            }
            const real *begin = addend.at && !first && column == 1 ? addend.at + j : 0;
            const Panel panel = {part, depth, left.row, left.column, step, row, column, columns, addend.row,
                                 first || (addend.at && !begin), packed || columns == wide * WIDTH};
            for (long i = 0, height = 0; i < m; i += HEIGHTS[height]) {
                while (HEIGHTS[height] > m - i) height++;
                TILES[height][wide - 1](&panel, left.at + i * left.row + first * left.column,
                                        out + i * row + j * column, begin ? begin + i * addend.row : 0);
            }
        }
    }
}

#include "dots.h"

/* The time that an orientation takes, about: products of vectors, copies of the right factor, scattered results. */
INLINE long cost(long m, long n, long k, Matrix right, long column, int add)
{
    return m * ((n + WIDTH - 1) / WIDTH) * k + (right.column != 1) * n * k / 2 + (column != 1) * (1 + 2 * add) * m * n;
}

INLINE void copy_matrix(long m, long n, real *out, long row, long column, Matrix from)
{
    for (long i = 0; i < m; i++) {
        real *to = out + i * row;
        const real *at = from.at + i * from.row;
        if (column == 1 && from.column == 1)
            for (long j = 0; j < n; j++) to[j] = at[j];
        else
            for (long j = 0; j < n; j++) to[j * column] = at[j * from.column];
    }
}

/* operands: out, left, right, perhaps an addend; size: batch, m, n, k; strides in elements: batch, row, column */
static int matmul(const Record *r, char **p)
{
    const int32_t *so = r->stride[0], *sl = r->stride[1], *sr = r->stride[2], *sa = r->stride[3];
    long m = r->size[1], n = r->size[2], k = r->size[3];
    for (long batch = 0; batch < r->size[0]; batch++) {
        real *out = (real *)p[0] + batch * so[0];
        Matrix left = {(real *)p[1] + batch * sl[0], sl[1], sl[2]};
        Matrix right = {(real *)p[2] + batch * sr[0], sr[1], sr[2]};
        Matrix right_t = {left.at, left.column, left.row}, left_t = {right.at, right.column, right.row};
        const int add = r->count > 3, turned = cost(n, m, k, right_t, so[1], add) < cost(m, n, k, right, so[2], add);
        const int by_rows = m * n <= MOST_DOTS && k >= DEPTH && left.column == 1 && right.row == 1;
        Matrix addend = {0, so[1], so[2]};
        if (add) {
            addend = (Matrix){(real *)p[3] + batch * sa[0], sa[1], sa[2]};
            const int contiguous = turned ? so[1] == 1 && sa[1] == 1 : so[2] == 1 && sa[2] == 1;
            if (p[3] != p[0] && (by_rows || !contiguous)) {
                copy_matrix(m, n, out, so[1], so[2], addend);
                addend = (Matrix){out, so[1], so[2]};
            }
        }
        if (by_rows)
            multiply_rows(m, n, k, left.at, left.row, right.at, right.column, out, so[1], so[2], addend.at != 0);
        else if (turned)
            multiply_matrices(n, m, k, left_t, right_t, (Matrix){addend.at, addend.column, addend.row}, out, so[2],
                              so[1]);
        else
            multiply_matrices(m, n, k, left, right, addend, out, so[1], so[2]);
    }
    return 0;
}
