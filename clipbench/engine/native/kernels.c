/* The kernels of native programs, and the loop that runs them: see program.py. A program is a list of records; it is
   run for one lane after another, so that what a lane computes stays in the cache and no lane depends on another. */

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

typedef struct {
    const Record *records;
    int32_t count, parts; /* it is run for each part of a lane */
} Program;

/* Run programs one after another, for some steps of one lane, then of the next. Returns 0, or 1 if an index was out of
   range. */
int run(const Program *programs, int program_count, const int32_t *lanes, int lane_count, int64_t first, int64_t steps)
{
    for (int n = 0; n < lane_count; n++)
        for (int64_t step = first; step < first + steps; step++)
            for (const Program *program = programs; program < programs + program_count; program++)
                for (int part = 0; part < program->parts; part++)
                    for (const Record *r = program->records; r < program->records + program->count; r++) {
                        char *p[OPERANDS];
                        for (int o = 0; o < r->count; o++) {
                            const Operand *each = r->operand + o;
                            p[o] = each->at + lanes[n] * each->lane + part * each->part + step * each->step;
                        }
                        const int number = r->operator;
                        if ((number < COUNT ? operators[number] : pointwise_operators[number - COUNT])(r, p)) return 1;
                    }
    return 0;
}
