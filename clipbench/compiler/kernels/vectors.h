/* Vectors of numbers: parts of them in memory, and the transposition of matrices. */

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#include <immintrin.h>
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define WIDTH ((long)(VECTOR_BYTES / sizeof(real))) /* numbers in a vector */

typedef real vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef real four __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));

#ifdef REAL_IS_DOUBLE
typedef int64_t place;
#define FOURS (VECTOR_BYTES / 32) /* in a vector */
#else
typedef int32_t place;
#define FOURS (VECTOR_BYTES / 16)
#endif
#ifdef __clang__
#define CHOOSE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef place places __attribute__((vector_size(VECTOR_BYTES)));
typedef place four_places __attribute__((vector_size(4 * sizeof(real))));
#define CHOOSE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
#ifdef REAL_IS_DOUBLE
INLINE __m256i first_of(long count)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
#else
INLINE __m256i first_of(long count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif
#endif

/* The first `count` numbers of a vector; memory behind them is not touched. */
INLINE vector load_part(const real *from, long count)
{
#if defined(__AVX512F__) && defined(REAL_IS_DOUBLE)
    return (vector)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), from);
#elif defined(__AVX512F__)
    return (vector)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif defined(__AVX2__) && defined(REAL_IS_DOUBLE)
    return (vector)_mm256_maskload_pd(from, first_of(count));
#elif defined(__AVX2__)
    return (vector)_mm256_maskload_ps(from, first_of(count));
#else
    vector part = {0};
    for (long i = 0; i < count; i++) ((real *)&part)[i] = from[i];
    return part;
#endif
}

INLINE void store_part(real *to, long count, vector part)
{
#if defined(__AVX512F__) && defined(REAL_IS_DOUBLE)
    _mm512_mask_storeu_pd(to, (__mmask8)((1u << count) - 1), (__m512d)part);
#elif defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)part);
#elif defined(__AVX2__) && defined(REAL_IS_DOUBLE)
    _mm256_maskstore_pd(to, first_of(count), (__m256d)part);
#elif defined(__AVX2__)
    _mm256_maskstore_ps(to, first_of(count), (__m256)part);
#else
    for (long i = 0; i < count; i++) to[i] = ((real *)&part)[i];
#endif
}

/* Four numbers of each of `FOURS` rows, `four_rows` elements apart. */
#if FOURS > 1
INLINE vector load_fours(const real *at, long four_rows)
{
#if defined(__AVX512F__) && defined(REAL_IS_DOUBLE)
    return (vector)_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(at)), _mm256_loadu_pd(at + four_rows), 1);
#elif defined(__AVX512F__)
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(at));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(at + four_rows), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(at + 2 * four_rows), 2);
    return (vector)_mm512_insertf32x4(x, _mm_loadu_ps(at + 3 * four_rows), 3);
#else
    return (vector)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(at + four_rows), 1);
#endif
}
#endif

#define ACROSS(type, places_type, each, width)                                                                         \
    type ab = CHOOSE(places_type, a, b, each(0, width, 1, width + 1));                                                 \
    type cd = CHOOSE(places_type, c, d, each(0, width, 1, width + 1));                                                 \
    type ef = CHOOSE(places_type, a, b, each(2, width + 2, 3, width + 3));                                             \
    type gh = CHOOSE(places_type, c, d, each(2, width + 2, 3, width + 3));                                             \
    real *row = to + p * to_row + j;                                                                                   \
    *(type *)row = CHOOSE(places_type, ab, cd, each(0, 1, width, width + 1));                                          \
    *(type *)(row + to_row) = CHOOSE(places_type, ab, cd, each(2, 3, width + 2, width + 3));                           \
    *(type *)(row + 2 * to_row) = CHOOSE(places_type, ef, gh, each(0, 1, width, width + 1));                           \
    *(type *)(row + 3 * to_row) = CHOOSE(places_type, ef, gh, each(2, 3, width + 2, width + 3));

#define ONCE(a, b, c, d) a, b, c, d
#define TWICE(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#if FOURS == 4
#define IN_EACH_FOUR(a, b, c, d) TWICE(a, b, c, d), TWICE(a + 8, b + 8, c + 8, d + 8)
#else
#define IN_EACH_FOUR TWICE
#endif

/* to[p * to_row + j] = from[j * from_row + p] for `rows` values of p and `columns` of j */
SHARED void transpose(long rows, long columns, const real *from, long from_row, real *to, long to_row)
{
    const long whole = rows & ~3L; /* rows of the result that are written in fours */
    long j = 0;
#if FOURS > 1
    for (; j + WIDTH <= columns; j += WIDTH)
        for (long p = 0; p < whole; p += 4) {
            const real *at = from + j * from_row + p;
            vector a = load_fours(at, 4 * from_row), b = load_fours(at + from_row, 4 * from_row);
            vector c = load_fours(at + 2 * from_row, 4 * from_row), d = load_fours(at + 3 * from_row, 4 * from_row);
            ACROSS(vector, places, IN_EACH_FOUR, (int)WIDTH)
        }
#endif
    for (; j + 4 <= columns; j += 4)
        for (long p = 0; p < whole; p += 4) {
            const real *at = from + j * from_row + p;
            four a = *(const four *)at, b = *(const four *)(at + from_row);
            four c = *(const four *)(at + 2 * from_row), d = *(const four *)(at + 3 * from_row);
            ACROSS(four, four_places, ONCE, 4)
        }
    for (long p = 0; p < whole; p++)
        for (long i = j; i < columns; i++) to[p * to_row + i] = from[i * from_row + p];
    for (long p = whole; p < rows; p++)
        for (long i = 0; i < columns; i++) to[p * to_row + i] = from[i * from_row + p];
}
