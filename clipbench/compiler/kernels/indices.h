/* Look-ups in a table, whose first entry is an operand, at places that indices say. whole: for each of the last
   operands, the indices, the bytes between entries, and their number. */

/* Adds to `offset`; returns whether an index is out of range. */
INLINE int place_in(const Record *r, char **at, long step, long *offset)
{
    for (int o = 2; o < r->count; o++) {
        const long size = r->whole[2 * o - 3];
        int64_t index = *(const int64_t *)(at[o] + step * r->stride[o][RANK - 1]);
        index += index < 0 ? size : 0;
        if (index < 0 || index >= size) return 1;
        *offset += index * r->whole[2 * o - 4];
    }
    return 0;
}

/* `statement` is of `to`, `from` and `offset`: of one of both. Indices are read once where a whole row has the same; it
   is copied at once if the statement `copies`. */
#define LOOKUP(name, type, copies, statement)                                                                                  \
    static int name##_row(const Record *r, char **at)                                                                  \
    {                                                                                                                  \
        int shared = 1;                                                                                                \
        long offset = 0;                                                                                               \
        for (int o = 2; o < r->count; o++) shared &= !r->stride[o][RANK - 1];                                          \
        if (shared && place_in(r, at, 0, &offset)) return 1;                                                           \
        if (copies && shared && r->stride[0][RANK - 1] == sizeof(type) && r->stride[1][RANK - 1] == sizeof(type)) {    \
            memcpy(at[0], at[1] + offset, r->size[RANK - 1] * sizeof(type));                                           \
            return 0;                                                                                                  \
        }                                                                                                              \
        for (long i = 0; i < r->size[RANK - 1]; i++) {                                                                 \
            char *to = at[0] + i * r->stride[0][RANK - 1], *from = at[1] + i * r->stride[1][RANK - 1];                 \
            if (!shared && (offset = 0, place_in(r, at, i, &offset))) return 1;                                        \
            statement;                                                                                                 \
        }                                                                                                              \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int name(const Record *r, char **p) { return each_row(r, p, name##_row); }
LOOKUP(look_up, real, 1, *(real *)to = *(const real *)(from + offset))
LOOKUP(look_up_integer, int64_t, 1, *(int64_t *)to = *(const int64_t *)(from + offset))
LOOKUP(look_up_flag, uint8_t, 1, *(uint8_t *)to = *(const uint8_t *)(from + offset))
LOOKUP(put_at, real, 0, *(real *)(to + offset) = *(const real *)from)
LOOKUP(put_at_integer, int64_t, 0, *(int64_t *)(to + offset) = *(const int64_t *)from)
LOOKUP(add_at, real, 0, *(real *)(to + offset) += *(const real *)from)
LOOKUP(add_at_integer, int64_t, 0, *(int64_t *)(to + offset) += *(const int64_t *)from)
