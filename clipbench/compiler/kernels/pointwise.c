/* Operators that compute each number from those at the same place of the operands; see pointwise.h. */

#include "records.h"

#include "functions.h"
#include "vectors.h"
#include "moves.h"
#include "blocks.h"
#include "pointwise.h"

POINTWISE(UNARY, BINARY, ARITHMETIC, TERNARY)

#define ENTRY(name, ...) name,
#define NAME(name, ...) #name " "
Operator *const pointwise_operators[] = {POINTWISE(ENTRY, ENTRY, ENTRY, ENTRY)};
const char *const pointwise_names = POINTWISE(NAME, NAME, NAME, NAME);
