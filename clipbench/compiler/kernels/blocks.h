/* How operators that work element by element visit their operands: in contiguous blocks. */

#define BLOCK 1024 /* numbers that are computed at a time where an operand is not contiguous */
#define NARROW 64  /* several rows of fewer numbers are computed at a time */

/* What an operand consists of, and whether the operator takes one number in place of a row. */
typedef struct {
    long bytes;
    Move *move;
    int may_be_one;
} Kind;

/* Rows whose last operand is one number each: how many, and the record with the bytes between them. */
typedef struct {
    long rows;
    const Record *record;
} Ones;

/* Computes `count` contiguous elements of the result, `at[0]`, from those of the operands; or such rows, if given. */
typedef void Compute(long count, char **at, const double *number, const Ones *ones);

/* Compute blocks of contiguous elements: in place, or in `held` where an operand is not contiguous. */
SHARED int blocks(const Record *r, char **p, Compute *compute, const Kind *kind)
{
    static _Thread_local char held[OPERANDS][BLOCK * 8] __attribute__((aligned(64)));
    const int32_t(*s)[RANK] = r->stride, *size = r->size;
    const long count = size[4], most = BLOCK / count < size[3] ? BLOCK / count : size[3];
    const long tall = count >= NARROW ? 1 : most; /* rows of a block */
    int direct[OPERANDS], all = 1, last = r->count - 1, one = kind[last].may_be_one && !s[last][4] && count > 1;
    const char *filled[OPERANDS] = {0}; /* the number that `held` is full of */
    char *at[OPERANDS], *row[OPERANDS];
    for (int o = 0; o < r->count; o++) {
        const long bytes = kind[o].bytes;
        direct[o] = (count == 1 || s[o][4] == bytes) && (tall == 1 || s[o][3] == count * bytes);
        all &= direct[o], one &= o == last || s[o][4] == bytes;
    }
    const long wide = all || count < BLOCK ? count : BLOCK;
    for (long i = 0; i < size[0]; i++)
        for (long j = 0; j < size[1]; j++)
            for (long k = 0; k < size[2]; k++) {
                for (int o = 0; o < r->count; o++) row[o] = p[o] + i * s[o][0] + j * s[o][1] + k * s[o][2];
                if (one) {
                    compute(count, row, r->number, &(Ones){size[3], r});
                    continue;
                }
                for (long l = 0; l < size[3]; l += tall) {
                    const long rows = size[3] - l < tall ? size[3] - l : tall;
                    for (long m = 0; m < count; m += wide) {
                        const long width = count - m < wide ? count - m : wide;
                        for (int o = 0; o < r->count; o++) {
                            char *from = at[o] = row[o] + m * s[o][4];
                            if (direct[o]) continue;
                            at[o] = held[o];
                            if (!o || filled[o] == from) continue;
                            if (!s[o][4] && (tall == 1 || !s[o][3])) {
                                filled[o] = from;
                                kind[o].move(1, tall * wide, held[o], 0, kind[o].bytes, from, 0, 0);
                            } else
                                kind[o].move(rows, width, held[o], width * kind[o].bytes, kind[o].bytes, from,
                                             s[o][3], s[o][4]);
                        }
                        compute(rows * width, at, r->number, 0);
                        if (!direct[0])
                            kind[0].move(rows, width, row[0] + m * s[0][4], s[0][3], s[0][4], held[0],
                                         width * kind[0].bytes, kind[0].bytes);
                    }
                    for (int o = 0; o < r->count; o++) row[o] += tall * s[o][3];
                }
            }
    return 0;
}
