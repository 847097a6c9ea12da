/* Pooling of images. */

/* Maxima of windows of [N, C, H, W] whose channels are the last loop. whole: kernel, stride, padding, dilation, all
   height and width; then the height and width of the input. size: N, C, H', W'; strides in bytes of N, C, H, W. */
typedef struct { long kernel[2], stride[2], padding[2], dilation[2], size[2]; } Window;

INLINE Window window_of(const Record *r)
{
    const int32_t *w = r->whole;
    return (Window){{w[0], w[1]}, {w[2], w[3]}, {w[4], w[5]}, {w[6], w[7]}, {w[8], w[9]}};
}

#define WINDOWS                                                                                                        \
    for (long n = 0; n < r->size[0]; n++)                                                                              \
        for (long row = 0; row < r->size[2]; row++)                                                                    \
            for (long column = 0; column < r->size[3]; column++)

#define PLACES                                                                                                         \
    for (long y = row * w.stride[0] - w.padding[0], i = 0; i < w.kernel[0]; i++, y += w.dilation[0])                   \
        for (long x = column * w.stride[1] - w.padding[1], j = 0; j < w.kernel[1]; j++, x += w.dilation[1])            \
            if (y >= 0 && y < w.size[0] && x >= 0 && x < w.size[1])

#define PIXEL(operand, y, x)                                                                                           \
    (p[operand] + n * r->stride[operand][0] + (y) * r->stride[operand][2] + (x) * r->stride[operand][3])

/* operands: maxima, their indices in the plane, images */
static int max_pool(const Record *r, char **p)
{
    const Window w = window_of(r);
    const long channels = r->size[1], sm = r->stride[0][1], si = r->stride[1][1], sx = r->stride[2][1];
    WINDOWS {
        char *most = PIXEL(0, row, column), *index = PIXEL(1, row, column);
        int first = 1;
        PLACES {
            const char *image = PIXEL(2, y, x);
            const int64_t place = y * w.size[1] + x;
            if (sm == SIZE(real) && sx == SIZE(real) && si == 8) {
                real *m = (real *)most;
                int64_t *at = (int64_t *)index;
                const real *from = (const real *)image;
                if (first)
                    for (long c = 0; c < channels; c++) m[c] = from[c], at[c] = place;
                else
                    VECTORISE for (long c = 0; c < channels; c++) {
                        const int more = from[c] > m[c] || from[c] != from[c];
                        m[c] = more ? from[c] : m[c];
                        at[c] = more ? place : at[c];
                    }
            } else
                for (long c = 0; c < channels; c++) {
                    real value = *(real *)(image + c * sx);
                    if (first || value > *(real *)(most + c * sm) || value != value)
                        *(real *)(most + c * sm) = value, *(int64_t *)(index + c * si) = place;
                }
            first = 0;
        }
    }
    return 0;
}

/* operands: gradient of the images, gradient of the maxima, their indices. number[0]: whether every number belongs to
   one window, and is written; otherwise gradients are added to zeros */
#define GRADIENTS(assign)                                                                                              \
    if (so == SIZE(real) && sg == SIZE(real) && si == 8)                                                               \
        VECTORISE for (long c = 0; c < channels; c++)                                                                  \
            ((real *)image)[c] assign ((const int64_t *)index)[c] == place ? ((const real *)gradient)[c] : 0;          \
    else                                                                                                               \
        for (long c = 0; c < channels; c++)                                                                            \
            *(real *)(image + c * so) assign *(int64_t *)(index + c * si) == place ? *(real *)(gradient + c * sg) : 0;

static int max_pool_backward(const Record *r, char **p)
{
    const Window w = window_of(r);
    const long channels = r->size[1], so = r->stride[0][1], sg = r->stride[1][1], si = r->stride[2][1];
    WINDOWS {
        const char *gradient = PIXEL(1, row, column), *index = PIXEL(2, row, column);
        PLACES {
            char *image = PIXEL(0, y, x);
            const int64_t place = y * w.size[1] + x;
            if (r->number[0]) { GRADIENTS(=) } else { GRADIENTS(+=) }
        }
    }
    return 0;
}
