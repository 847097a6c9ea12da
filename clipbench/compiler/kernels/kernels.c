/* The kernels of native programs, and the loop that runs them: see native_program.py. A program is a list of records;
   it is run for one lane after another, so that what a lane computes stays in the cache and no lane depends on
   another. */

#include "records.h"
#include "functions.h"
#include "vectors.h"
#include "moves.h"
#include "copies.h"
#include "matmul.h"
#include "reduce.h"
#include "rows.h"
#include "indices.h"
#include "pooling.h"

/* Python reads this list: an operator's number is its place, in this list and then in that of pointwise.c. */
#define OTHERS(_)                                                                                                      \
    _(matmul) _(copy_real) _(copy_integer) _(copy_flag) _(fill) _(fill_integer) _(fill_flag)                           \
    _(sum) _(sum_of_rows) _(product_of) _(maximum_of) _(minimum_of) _(largest) _(smallest) _(count_not_zero)           \
    _(norm) _(sum_of_sizes) _(variance) _(root_of_squares)                                                             \
    _(softmax) _(log_softmax) _(softmax_backward) _(log_softmax_backward) _(running_sum) _(running_product)            \
    _(sum_abreast) _(place_of) _(sort)                                                                                 \
    _(look_up) _(look_up_integer) _(look_up_flag) _(put_at) _(put_at_integer) _(add_at) _(add_at_integer)              \
    _(max_pool) _(max_pool_backward)

#define ENTRY(name) name,
#define NAME(name) #name " "
static Operator *const operators[] = {OTHERS(ENTRY)};
const char *const operator_names = OTHERS(NAME);
#define COUNT ((int)(sizeof(operators) / sizeof(*operators)))
const int64_t record_size = sizeof(Record);
#define GRADUAL_NAMES "sum largest count_not_zero sum_of_sizes "
#ifdef REAL_IS_DOUBLE
const char *const gradual_names = GRADUAL_NAMES;
#else
const char *const gradual_names = GRADUAL_NAMES "root_of_squares";
#endif

typedef struct {
    const Record *records;
    int32_t count, parts; /* it is run for each part of a lane */
} Program;

#define LONGEST 12       /* records of a chain */
#define CHAIN_BLOCK 2048 /* numbers that a record of a chain computes at a time */

/* Compute the records of a chain, whose operands are at these addresses, block by block. */
static int run_chain(const Record *first, char *(*p)[OPERANDS])
{
    Record part[LONGEST];
    const Gradual *gradual[LONGEST];
    double total[LONGEST] = {0};
    const int count = first->chain;
    const long numbers = first->size[RANK - 1];
    memcpy(part, first, count * sizeof(Record));
    for (int n = 0; n < count; n++) gradual[n] = gradual_of(part[n].operator < COUNT ? operators[part[n].operator] : 0);
    for (long begin = 0; begin < numbers; begin += CHAIN_BLOCK) {
        const int width = (int)(numbers - begin < CHAIN_BLOCK ? numbers - begin : CHAIN_BLOCK);
        for (int n = 0; n < count; n++) {
            const int number = part[n].operator;
            part[n].size[RANK - 1] = width;
            if (gradual[n]) {
                total[n] = gradual[n]->fold(total[n], (const real *)p[n][1], width, 1, (const double[]){0});
                p[n][1] += width * SIZE(real);
                continue;
            }
            if ((number < COUNT ? operators[number] : pointwise_operators[number - COUNT])(part + n, p[n])) return 1;
            for (int o = 0; o < part[n].count; o++) p[n][o] += (long)width * part[n].stride[o][RANK - 1];
        }
    }
    for (int n = 0; n < count; n++)
        if (gradual[n]) *(real *)p[n][0] = (real)gradual[n]->result(total[n], part[n].number[0]);
    return 0;
}

/* Run programs one after another, for some steps of one lane, then of the next; `seeds` are the numbers of the lanes'
   seeds. Returns 0, or 1 if an index was out of range. */
int run(const Program *programs, int program_count, const int32_t *lanes, const int32_t *seeds, int lane_count,
        int64_t first, int64_t steps)
{
    for (int n = 0; n < lane_count; n++)
        for (int64_t step = first; step < first + steps; step++)
            for (const Program *program = programs; program < programs + program_count; program++)
                for (int part = 0; part < program->parts; part++)
                    for (const Record *r = program->records; r < program->records + program->count; r += r->chain) {
                        char *p[LONGEST][OPERANDS];
                        for (int c = 0; c < r->chain; c++)
                            for (int o = 0; o < r[c].count; o++) {
                                const Operand *each = r[c].operand + o;
                                p[c][o] = each->at + lanes[n] * each->lane + seeds[n] * each->seed
                                          + part * each->part + step * each->step;
                            }
                        const int number = r->operator;
                        if (r->chain > 1 ? run_chain(r, p)
                                         : (number < COUNT ? operators[number]
                                                           : pointwise_operators[number - COUNT])(r, p[0]))
                            return 1;
                    }
    return 0;
}
