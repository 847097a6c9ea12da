/* Moves of elements between memory of any strides. */

#define SIZE(type) ((long)sizeof(type))
/* No result of the loop below is an operand of a later turn. */
#ifdef __clang__
#define VECTORISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTORISE _Pragma("GCC ivdep")
#endif

/* Move `rows` rows of `count` elements; strides in bytes. */
#define MOVE(type, first)                                                                                              \
    static void move_##type(long rows, long count, char *to, long to_row, long to_step, const char *from,              \
                            long from_row, long from_step)                                                             \
    {                                                                                                                  \
        first;                                                                                                         \
        for (long l = 0; l < rows; l++, to += to_row, from += from_row)                                                \
            if (to_step == SIZE(type) && from_step == SIZE(type))                                                      \
                VECTORISE for (long i = 0; i < count; i++)((type *)to)[i] = ((const type *)from)[i];                   \
            else if (to_step == SIZE(type) && !from_step) {                                                            \
                const type one = *(const type *)from;                                                                  \
                for (long i = 0; i < count; i++) ((type *)to)[i] = one;                                                \
            } else                                                                                                     \
                for (long i = 0; i < count; i++) *(type *)(to + i * to_step) = *(const type *)(from + i * from_step);  \
    }
#define REARRANGE                                                                                                      \
    if (to_step == SIZE(real) && from_step == SIZE(real) && count <= WIDTH) {                                          \
        for (long l = 0; l < rows; l++, to += to_row, from += from_row)                                                \
            store_part((real *)to, count, load_part((const real *)from, count));                                       \
        return;                                                                                                        \
    }                                                                                                                  \
    if (to_step == SIZE(real) && from_row == SIZE(real) && from_step > from_row && rows > 3 && count > 3)              \
        return transpose(rows, count, (const real *)from, from_step / SIZE(real), (real *)to, to_row / SIZE(real))
MOVE(uint8_t, )
MOVE(int64_t, )
MOVE(real, REARRANGE)

typedef void Move(long rows, long count, char *, long, long, const char *, long, long);
#define MOVE_OF(type) _Generic((type)0, uint8_t: move_uint8_t, int64_t: move_int64_t, real: move_real)
