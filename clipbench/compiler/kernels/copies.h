/* Copies, and memory that is filled with a number. */

SHARED int copies(const Record *r, char **p, Move *move)
{
    const int32_t *to = r->stride[0], *from = r->stride[1], *size = r->size;
    for (long i = 0; i < size[0]; i++)
        for (long j = 0; j < size[1]; j++)
            for (long k = 0; k < size[2]; k++)
                move(size[3], size[4], p[0] + i * to[0] + j * to[1] + k * to[2], to[3], to[4],
                     p[1] + i * from[0] + j * from[1] + k * from[2], from[3], from[4]);
    return 0;
}

static int copy_real(const Record *r, char **p) { return copies(r, p, move_real); }
static int copy_integer(const Record *r, char **p) { return copies(r, p, move_int64_t); }
static int copy_flag(const Record *r, char **p) { return copies(r, p, move_uint8_t); }

static void move_number(const Record *r, char **p, char *number, Move *move)
{
    char *operands[2] = {p[0], number};
    copies(r, operands, move);
}

/* number[0]: what the result is filled with; whole[0]: its bytes, if they are contiguous and all 0 */
static int fill(const Record *r, char **p)
{
    real number = (real)r->number[0];
    if (r->whole[0]) memset(p[0], 0, r->whole[0]);
    else move_number(r, p, (char *)&number, move_real);
    return 0;
}

static int fill_integer(const Record *r, char **p)
{
    int64_t number = (int64_t)r->number[0];
    move_number(r, p, (char *)&number, move_int64_t);
    return 0;
}

static int fill_flag(const Record *r, char **p)
{
    uint8_t number = r->number[0] != 0;
    move_number(r, p, (char *)&number, move_uint8_t);
    return 0;
}
