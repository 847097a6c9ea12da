/* Types that all kernels share. Compiled on the user's machine, once for each type of real numbers. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef REAL_IS_DOUBLE
typedef double real;
#else
typedef float real;
#endif
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* a loop that calls a function of the C library has no vectors */
#define SHARED static __attribute__((noinline)) /* one for all operators, not a copy for each */
#else
#define SHARED static __attribute__((noinline, noclone))
#endif

#define RANK 5     /* loops of an operator, the innermost last; unused ones are of size 1 */
#define OPERANDS 5 /* the first is the result */
#define WHOLES 10

typedef struct {
    char *at; /* for the first part of the first lane at the first step */
    /* Bytes to what the next lane has, the lanes of the next seed, the next part of a lane, and the next step. */
    int64_t lane, seed, part, step;
} Operand;

typedef struct {
    int32_t operator, count; /* of operands */
    int32_t chain;           /* this record and those after it, which are computed block by block; see chains.py */
    int32_t size[RANK];
    int32_t stride[OPERANDS][RANK];
    int32_t whole[WHOLES]; /* integers whose meaning is the operator's */
    double number[2];
    Operand operand[OPERANDS];
} Record;

/* Computes a record, whose operands are at these addresses; returns whether an index is out of range. */
typedef int Operator(const Record *, char **);

/* The operators of pointwise.c and their names. */
extern Operator *const pointwise_operators[];
extern const char *const pointwise_names;
