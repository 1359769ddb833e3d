/* Kernels of compiled plans: raw input rows in, outputs out. Plain C, called through ctypes.
 *
 * Sums run in the order and precision of the library that a model was trained with, so that results are equal to the
 * last bit: compile with -ffp-contract=off and never with -ffast-math.
 *
 * A forest is scored in one of two ways. `walk_*` follows nodes from the root, several trees or rows at a time.
 * QuickScorer (Lucchese et al., SIGIR 2015; vectorised: Lucchese et al., SIGIR 2016) looks at the thresholds of one
 * input after the other in ascending order: each test that fails takes the leaves of its left side out of a bit set
 * per tree, and the lowest bit that is left is the tree's leaf. It needs trees of at most 64 leaves, numbered from the
 * left. Of 16 rows hardly any test fails for none, so that with AVX-512 they are tested tree by tree instead, which
 * leaves the bit sets in registers.
 *
 * `struct plan` mirrors `_Plan` in kernels.py, field by field; MILLPOND_KERNELS is raised with every change of it.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define MILLPOND_KERNELS 2

#define BLOCK 16 /* rows at a time in the block kernels */
#define WIDEST 512 /* columns of a block that are held at once */
#define LANES 8  /* cursors at a time in the walk */

enum { DEFAULT_LEFT = 1, CATEGORICAL = 2, ZERO_IS_MISSING = 4 };
enum { OP_FILL, OP_SUBTRACT, OP_DIVIDE, OP_MULTIPLY, OP_ADD, OP_LOW, OP_HIGH, OP_IS_NAN, OP_TABLE, OP_LOOKUP, OP_FLOAT32,
       OP_FINITE, OP_NUMBER };
enum { LINK_NONE, LINK_SIGMOID, LINK_SOFTMAX, LINK_EXP, LINK_MEAN, LINK_SIGMOID32, LINK_SOFTMAX32, LINK_EXP32, LINK_SIGNED_SQUARE,
       LINK_LOG1P_EXP, LINK_SIGMOID_EACH };

struct node { /* goes left where value <= threshold; children below 0 are leaves: ~index */
    double threshold; /* of a categorical node: index of its set */
    int32_t feature, left, right, flags;
};

struct plan {
    /* preparation */
    int64_t inputs, width, prepared_is_raw;
    const int32_t *column_source, *column_ops; /* [width], [width + 1] */
    const int32_t *op_code;                    /* [ops] */
    const double *op_argument;                 /* [ops]; of tables: offset */
    const double *tables;
    /* what is summed */
    int64_t outputs, link, single_precision, vector_leaves, trees;
    double link_argument;
    const double *base; /* [outputs] */
    /* linear: [outputs, width]; NULL for a forest */
    const double *weights;
    /* forest */
    int64_t plain; /* no categorical and no zero-is-missing node */
    const struct node *nodes;
    const int32_t *roots, *group, *leaf_start; /* [trees], [trees], [trees + 1] */
    const double *leaves;
    const int32_t *set_start;
    const uint32_t *sets;
    /* QuickScorer; bits 0, 32 or 64 */
    int64_t bits;
    const int32_t *scan_start, *scan_tree; /* [width + 1], [scans] */
    const double *scan_threshold;
    const void *scan_mask;
    const int32_t *nan_start, *nan_tree;
    const void *nan_mask;
    const int32_t *category_start, *category_tree, *category_node;
    const void *category_mask;
    /* the scans again, tree by tree */
    const int32_t *tree_start, *tree_feature; /* [trees + 1], [scans] */
    const double *tree_threshold;
    const uint64_t *tree_mask;
    void *bitvectors; /* [trees, BLOCK] of uint32, or [trees] of uint64; on a 64-byte boundary */
    /* one row */
    double *row, *prepared, *result;
    /* covers, for contributions */
    const double *node_cover, *leaf_cover;
};

EXPORT int64_t millpond_kernels(void) { return MILLPOND_KERNELS; }
EXPORT int64_t millpond_plan_size(void) { return (int64_t)sizeof(struct plan); }

/* ---- preparation ------------------------------------------------------------------------------------------------ */

/* A lookup is laid out as: count, of NaN, of others, keys ascending [count], values [count]. */
static double look_up(const double *table, double value) {
    int64_t count = (int64_t)table[0], low = 0, high = count;
    if (value != value) return table[1];
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (table[3 + middle] < value) low = middle + 1; else high = middle;
    }
    return low < count && table[3 + low] == value ? table[3 + count + low] : table[2];
}

/* One prepared column of a row. A value that the original refuses sets *refused to 1 + the raw input. */
INLINE double prepare_column(const struct plan *p, int64_t column, const double *row, int64_t *refused) {
    int32_t source = p->column_source[column];
    double value = row[source];
    for (int32_t op = p->column_ops[column]; op < p->column_ops[column + 1]; op++) {
        double argument = p->op_argument[op];
        switch (p->op_code[op]) {
        case OP_FILL: if (value != value) value = argument; break;
        case OP_SUBTRACT: value -= argument; break;
        case OP_DIVIDE: value /= argument; break;
        case OP_MULTIPLY: value *= argument; break;
        case OP_ADD: value += argument; break;
        case OP_LOW: if (value < argument) value = argument; break;
        case OP_HIGH: if (value > argument) value = argument; break;
        case OP_IS_NAN: value = value != value; break;
        case OP_TABLE: { /* count, values */
            const double *table = p->tables + (int64_t)argument;
            if (value >= 0 && value < table[0]) value = table[1 + (int64_t)value]; else *refused = source + 1;
            break;
        }
        case OP_LOOKUP: value = look_up(p->tables + (int64_t)argument, value); break;
        case OP_FLOAT32: value = (double)(float)value; break;
        case OP_FINITE: if (value == INFINITY || value == -INFINITY) *refused = source + 1; break;
        case OP_NUMBER: if (!(value - value == 0.0)) *refused = source + 1; break;
        }
    }
    return value;
}

INLINE void prepare_row(const struct plan *p, const double *row, double *out, int64_t *refused) {
    for (int64_t column = 0; column < p->width; column++) out[column] = prepare_column(p, column, row, refused);
}

/* ---- walking ---------------------------------------------------------------------------------------------------- */

static int in_set(const struct plan *p, int32_t set, double value) {
    if (!(value > -1.0 && value < 2147483648.0)) return 0;
    uint32_t category = (uint32_t)value, word = category >> 5;
    int32_t start = p->set_start[set], stop = p->set_start[set + 1];
    return word < (uint32_t)(stop - start) && ((p->sets[start + word] >> (category & 31)) & 1);
}

static int goes_left(const struct plan *p, const struct node *q, double value) {
    if (q->flags & CATEGORICAL) {
        if (value != value || value <= -1.0) return q->flags & DEFAULT_LEFT;
        return in_set(p, (int32_t)q->threshold, value);
    }
    if (value != value || ((q->flags & ZERO_IS_MISSING) && value >= -(double)1e-35f && value <= (double)1e-35f))
        return q->flags & DEFAULT_LEFT;
    return value <= q->threshold;
}

INLINE int32_t step(const struct plan *p, int32_t at, const double *x, int plain) {
    const struct node *q = p->nodes + at;
    double value = x[q->feature];
    int left = plain ? ((value <= q->threshold) | ((value != value) & q->flags)) : goes_left(p, q, value);
    return left ? q->left : q->right;
}

/* LANES cursors to their leaves. `at` holds roots and becomes leaf indices. */
INLINE void descend(const struct plan *p, int32_t *at, const double *const *x, int plain) {
    int going;
    do {
        going = 0;
        for (int lane = 0; lane < LANES; lane++)
            if (at[lane] >= 0) { at[lane] = step(p, at[lane], x[lane], plain); going = 1; }
    } while (going);
    for (int lane = 0; lane < LANES; lane++) at[lane] = ~at[lane];
}

INLINE void add_leaf(const struct plan *p, int64_t tree, int64_t leaf, double *sums) {
    if (p->vector_leaves) {
        const double *values = p->leaves + leaf * p->outputs;
        for (int64_t k = 0; k < p->outputs; k++) sums[k] += values[k];
    } else if (p->single_precision) {
        double *sum = sums + p->group[tree];
        *sum = (double)((float)*sum + (float)p->leaves[leaf]);
    } else
        sums[p->group[tree]] += p->leaves[leaf];
}

INLINE void walk_row_body(const struct plan *p, const double *x, double *sums, int plain) {
    const double *rows[LANES];
    int32_t at[LANES];
    int64_t tree = 0;
    for (int lane = 0; lane < LANES; lane++) rows[lane] = x;
    for (; tree + LANES <= p->trees; tree += LANES) {
        for (int lane = 0; lane < LANES; lane++) at[lane] = p->roots[tree + lane];
        descend(p, at, rows, plain);
        for (int lane = 0; lane < LANES; lane++) add_leaf(p, tree + lane, at[lane], sums);
    }
    for (; tree < p->trees; tree++) {
        int32_t node = p->roots[tree];
        while (node >= 0) node = step(p, node, x, plain);
        add_leaf(p, tree, ~node, sums);
    }
}

static void walk_row(const struct plan *p, const double *x, double *sums) {
    if (p->plain) walk_row_body(p, x, sums, 1); else walk_row_body(p, x, sums, 0);
}

/* BLOCK rows, tree by tree, so that a tree stays in the cache. */
INLINE void walk_block_body(const struct plan *p, const double *x, double *sums, int plain) {
    for (int64_t tree = 0; tree < p->trees; tree++)
        for (int first = 0; first < BLOCK; first += LANES) {
            const double *rows[LANES];
            int32_t at[LANES];
            for (int lane = 0; lane < LANES; lane++) {
                rows[lane] = x + (first + lane) * p->width;
                at[lane] = p->roots[tree];
            }
            descend(p, at, rows, plain);
            for (int lane = 0; lane < LANES; lane++) add_leaf(p, tree, at[lane], sums + (first + lane) * p->outputs);
        }
}

static void walk_block(const struct plan *p, const double *x, double *sums) {
    if (p->plain) walk_block_body(p, x, sums, 1); else walk_block_body(p, x, sums, 0);
}

/* ---- QuickScorer ------------------------------------------------------------------------------------------------ */

#define QUICK_ROW(NAME, WORD, LOWEST)                                                                                  \
    static void NAME(const struct plan *p, const double *x, double *sums) {                                            \
        WORD *bits = p->bitvectors;                                                                                    \
        const WORD *scan_mask = p->scan_mask, *nan_mask = p->nan_mask, *category_mask = p->category_mask;              \
        const double *thresholds = p->scan_threshold;                                                                  \
        const int32_t *trees = p->scan_tree;                                                                           \
        memset(bits, 0xff, (size_t)p->trees * sizeof(WORD));                                                           \
        for (int64_t f = 0; f < p->width; f++) {                                                                       \
            double value = x[f];                                                                                       \
            int32_t stop = p->scan_start[f + 1];                                                                       \
            for (int32_t k = p->scan_start[f]; k < stop && value > thresholds[k]; k++) bits[trees[k]] &= scan_mask[k]; \
            if (value != value)                                                                                        \
                for (int32_t k = p->nan_start[f]; k < p->nan_start[f + 1]; k++) bits[p->nan_tree[k]] &= nan_mask[k];   \
            for (int32_t k = p->category_start[f]; k < p->category_start[f + 1]; k++)                                  \
                if (!goes_left(p, p->nodes + p->category_node[k], value)) bits[p->category_tree[k]] &= category_mask[k]; \
        }                                                                                                              \
        if (p->outputs == 1 && !p->single_precision) {                                                                 \
            double sum = sums[0];                                                                                      \
            for (int64_t t = 0; t < p->trees; t++) sum += p->leaves[p->leaf_start[t] + LOWEST(bits[t])];               \
            sums[0] = sum;                                                                                             \
        } else                                                                                                         \
            for (int64_t t = 0; t < p->trees; t++) add_leaf(p, t, p->leaf_start[t] + LOWEST(bits[t]), sums);           \
    }
QUICK_ROW(quick_row_32, uint32_t, __builtin_ctz)
QUICK_ROW(quick_row_64, uint64_t, __builtin_ctzll)

/* BLOCK rows at once, left to the compiler to vectorise for each target; of 32 bits alone: with 64, walking is faster. */
INLINE void quick_block_body(const struct plan *p, const double *x, double *sums) {
    uint32_t *bits = p->bitvectors;
    const uint32_t *scan_mask = p->scan_mask, *nan_mask = p->nan_mask, *category_mask = p->category_mask;
    memset(bits, 0xff, (size_t)p->trees * BLOCK * sizeof(uint32_t));
    for (int64_t f = 0; f < p->width; f++) {
        double value[BLOCK], most = -INFINITY;
        int nans = 0;
        for (int r = 0; r < BLOCK; r++) {
            value[r] = x[r * p->width + f];
            if (value[r] > most) most = value[r];
            nans |= value[r] != value[r];
        }
        for (int32_t k = p->scan_start[f]; k < p->scan_start[f + 1]; k++) {
            double threshold = p->scan_threshold[k];
            uint32_t mask = scan_mask[k], *set = bits + (int64_t)p->scan_tree[k] * BLOCK;
            if (!(most > threshold)) break;
            for (int r = 0; r < BLOCK; r++) set[r] &= value[r] > threshold ? mask : ~0u;
        }
        if (nans)
            for (int32_t k = p->nan_start[f]; k < p->nan_start[f + 1]; k++) {
                uint32_t *set = bits + (int64_t)p->nan_tree[k] * BLOCK;
                for (int r = 0; r < BLOCK; r++) set[r] &= value[r] != value[r] ? nan_mask[k] : ~0u;
            }
        for (int32_t k = p->category_start[f]; k < p->category_start[f + 1]; k++) {
            uint32_t *set = bits + (int64_t)p->category_tree[k] * BLOCK;
            for (int r = 0; r < BLOCK; r++)
                if (!goes_left(p, p->nodes + p->category_node[k], value[r])) set[r] &= category_mask[k];
        }
    }
    for (int64_t t = 0; t < p->trees; t++)
        for (int r = 0; r < BLOCK; r++)
            add_leaf(p, t, p->leaf_start[t] + __builtin_ctz(bits[t * BLOCK + r]), sums + r * p->outputs);
}

static void quick_block(const struct plan *p, const double *x, double *sums) { quick_block_body(p, x, sums); }

#ifdef X86
__attribute__((target("avx2"))) static void quick_block_avx2(const struct plan *p, const double *x, double *sums) {
    quick_block_body(p, x, sums);
}

#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512cd")))

AVX512 static inline __mmask16 halves(__mmask8 low, __mmask8 high) { return (__mmask16)(low | (high << 8)); }

/* The index of the lowest bit of each word. */
AVX512 static inline __m512i lowest_bit(__m512i words) {
    const __m512i lowest = _mm512_and_si512(words, _mm512_sub_epi64(_mm512_setzero_si512(), words));
    return _mm512_sub_epi64(_mm512_set1_epi64(63), _mm512_lzcnt_epi64(lowest));
}

/* Sums of one output in float64, of trees without categories: tree by tree, so that a bit set stays in a register.
 * Returns 0 where a value is NaN, which has tests of its own; then nothing is summed. */
AVX512 static int sum_trees_avx512(const struct plan *p, const double *x, double *sums) {
    double columns[WIDEST * BLOCK] __attribute__((aligned(64)));
    const __m256i lanes = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)p->width));
    const int32_t *start = p->tree_start, *features = p->tree_feature;
    const double *thresholds = p->tree_threshold;
    const uint64_t *masks = p->tree_mask;
    const int64_t trees = p->trees;
    for (int64_t f = 0; f < p->width; f++) {
        const __m512d a = _mm512_i32gather_pd(lanes, x + f, 8), b = _mm512_i32gather_pd(lanes, x + 8 * p->width + f, 8);
        if (_mm512_cmp_pd_mask(a, b, _CMP_UNORD_Q)) return 0;
        _mm512_store_pd(columns + f * BLOCK, a);
        _mm512_store_pd(columns + f * BLOCK + 8, b);
    }
    __m512d low = _mm512_loadu_pd(sums), high = _mm512_loadu_pd(sums + 8);
    for (int64_t t = 0; t < trees; t++) {
        __m512i left = _mm512_set1_epi64(-1), right = left; /* of rows 0 to 7, and 8 to 15 */
        for (int32_t k = start[t]; k < start[t + 1]; k++) {
            const double *column = columns + (int64_t)features[k] * BLOCK;
            const __m512d threshold = _mm512_set1_pd(thresholds[k]);
            const __m512i mask = _mm512_set1_epi64((int64_t)masks[k]);
            const __mmask8 a = _mm512_cmp_pd_mask(_mm512_load_pd(column), threshold, _CMP_GT_OQ);
            const __mmask8 b = _mm512_cmp_pd_mask(_mm512_load_pd(column + 8), threshold, _CMP_GT_OQ);
            left = _mm512_mask_and_epi64(left, a, left, mask);
            right = _mm512_mask_and_epi64(right, b, right, mask);
        }
        low = _mm512_add_pd(low, _mm512_i64gather_pd(lowest_bit(left), p->leaves + p->leaf_start[t], 8));
        high = _mm512_add_pd(high, _mm512_i64gather_pd(lowest_bit(right), p->leaves + p->leaf_start[t], 8));
    }
    _mm512_storeu_pd(sums, low);
    _mm512_storeu_pd(sums + 8, high);
    return 1;
}

/* Sums of one output in float64: 16 leaf values a tree are gathered at once. */
AVX512 static void quick_block_avx512(const struct plan *p, const double *x, double *sums) {
    if (p->plain && p->width <= WIDEST && sum_trees_avx512(p, x, sums)) return;
    __m512i *bits = p->bitvectors;
    const uint32_t *scan_mask = p->scan_mask, *nan_mask = p->nan_mask, *category_mask = p->category_mask;
    const int width = (int)p->width;
    const __m256i lanes = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(width));
    const __m512i ones = _mm512_set1_epi32(-1);
    for (int64_t t = 0; t < p->trees; t++) bits[t] = ones;
    for (int64_t f = 0; f < p->width; f++) {
        const __m512d a = _mm512_i32gather_pd(lanes, x + f, 8), b = _mm512_i32gather_pd(lanes, x + 8 * p->width + f, 8);
        const int32_t stop = p->scan_start[f + 1];
        for (int32_t k = p->scan_start[f]; k < stop; k++) {
            const __m512d threshold = _mm512_set1_pd(p->scan_threshold[k]);
            const __mmask16 right = halves(_mm512_cmp_pd_mask(a, threshold, _CMP_GT_OQ), _mm512_cmp_pd_mask(b, threshold, _CMP_GT_OQ));
            if (!right) break;
            __m512i *set = bits + p->scan_tree[k];
            *set = _mm512_mask_and_epi32(*set, right, *set, _mm512_set1_epi32((int)scan_mask[k]));
        }
        const __mmask16 missing = halves(_mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q), _mm512_cmp_pd_mask(b, b, _CMP_UNORD_Q));
        if (missing)
            for (int32_t k = p->nan_start[f]; k < p->nan_start[f + 1]; k++) {
                __m512i *set = bits + p->nan_tree[k];
                *set = _mm512_mask_and_epi32(*set, missing, *set, _mm512_set1_epi32((int)nan_mask[k]));
            }
        for (int32_t k = p->category_start[f]; k < p->category_start[f + 1]; k++) {
            __mmask16 right = 0;
            for (int r = 0; r < BLOCK; r++)
                right |= (__mmask16)(!goes_left(p, p->nodes + p->category_node[k], x[r * p->width + f]) << r);
            __m512i *set = bits + p->category_tree[k];
            *set = _mm512_mask_and_epi32(*set, right, *set, _mm512_set1_epi32((int)category_mask[k]));
        }
    }
    __m512d low_sum = _mm512_loadu_pd(sums), high_sum = _mm512_loadu_pd(sums + 8);
    for (int64_t t = 0; t < p->trees; t++) {
        const __m512i lowest = _mm512_and_si512(bits[t], _mm512_sub_epi32(_mm512_setzero_si512(), bits[t]));
        const __m512i leaf = _mm512_sub_epi32(_mm512_set1_epi32(31), _mm512_lzcnt_epi32(lowest));
        const double *leaves = p->leaves + p->leaf_start[t];
        low_sum = _mm512_add_pd(low_sum, _mm512_i32gather_pd(_mm512_castsi512_si256(leaf), leaves, 8));
        high_sum = _mm512_add_pd(high_sum, _mm512_i32gather_pd(_mm512_extracti64x4_epi64(leaf, 1), leaves, 8));
    }
    _mm512_storeu_pd(sums, low_sum);
    _mm512_storeu_pd(sums + 8, high_sum);
}
#endif

typedef void (*block_kernel)(const struct plan *, const double *, double *);

/* The widest vectors used: 0 those of every machine, 1 AVX2, 2 AVX-512. Tests lower it, to try every kernel. */
static int64_t widest = 2;
EXPORT void millpond_widest(int64_t level) { widest = level; }

static block_kernel choose_block(const struct plan *p) {
    if (p->bits != 32) return walk_block;
#ifdef X86
    __builtin_cpu_init();
    if (widest > 1 && p->outputs == 1 && !p->single_precision && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return quick_block_avx512;
    if (widest > 0 && __builtin_cpu_supports("avx2")) return quick_block_avx2;
#endif
    return quick_block;
}

/* ---- from sums to outputs --------------------------------------------------------------------------------------- */

static void softmax(double *out, int64_t count) {
    double most = out[0], sum = 0;
    for (int64_t k = 1; k < count; k++) if (out[k] > most) most = out[k];
    for (int64_t k = 0; k < count; k++) sum += out[k] = exp(out[k] - most);
    for (int64_t k = 0; k < count; k++) out[k] /= sum;
}

/* As XGBoost: float32, but the sum of the exponentials in float64. */
static void softmax32(double *out, int64_t count) {
    float most = (float)out[0];
    double sum = 0;
    for (int64_t k = 1; k < count; k++) if ((float)out[k] > most) most = (float)out[k];
    for (int64_t k = 0; k < count; k++) sum += out[k] = (double)expf((float)out[k] - most);
    for (int64_t k = 0; k < count; k++) out[k] = (double)((float)out[k] / (float)sum);
}

static double sigmoid32(double value) {
    float negative = -(float)value < 88.7f ? -(float)value : 88.7f;
    return (double)(1.0f / (expf(negative) + 1.0f + 1e-16f));
}

static void apply_link(const struct plan *p, double *out) {
    int64_t count = p->outputs;
    double argument = p->link_argument;
    switch (p->link) {
    case LINK_SIGMOID: case LINK_SIGMOID_EACH:
        for (int64_t k = 0; k < count; k++) out[k] = 1.0 / (1.0 + exp(-argument * out[k]));
        break;
    case LINK_SOFTMAX: softmax(out, count); break;
    case LINK_EXP: for (int64_t k = 0; k < count; k++) out[k] = exp(out[k]); break;
    case LINK_MEAN: for (int64_t k = 0; k < count; k++) out[k] /= argument; break;
    case LINK_SIGMOID32: for (int64_t k = 0; k < count; k++) out[k] = sigmoid32(out[k]); break;
    case LINK_SOFTMAX32: softmax32(out, count); break;
    case LINK_EXP32: for (int64_t k = 0; k < count; k++) out[k] = (double)expf((float)out[k]); break;
    case LINK_SIGNED_SQUARE: for (int64_t k = 0; k < count; k++) out[k] = copysign(out[k] * out[k], out[k]); break;
    case LINK_LOG1P_EXP: for (int64_t k = 0; k < count; k++) out[k] = log1p(exp(out[k])); break;
    }
}

/* ---- scoring ---------------------------------------------------------------------------------------------------- */

static void linear_row(const struct plan *p, const double *x, double *out) {
    for (int64_t k = 0; k < p->outputs; k++) {
        const double *weights = p->weights + k * p->width;
        double sum = 0;
        for (int64_t j = 0; j < p->width; j++) sum += x[j] * weights[j];
        out[k] = sum + p->base[k];
    }
}

static void sum_row(const struct plan *p, const double *x, double *out) {
    if (p->weights) { linear_row(p, x, out); return; }
    for (int64_t k = 0; k < p->outputs; k++) out[k] = p->base[k];
    if (p->bits == 32) quick_row_32(p, x, out);
    else if (p->bits == 64) quick_row_64(p, x, out);
    else walk_row(p, x, out);
}

/* The row in p->row to p->result. Returns 0, or 1 + the raw input whose value the original refuses. */
EXPORT int64_t millpond_score_one(const struct plan *p) {
    int64_t refused = 0;
    const double *x = p->row;
    if (!p->prepared_is_raw) {
        prepare_row(p, p->row, p->prepared, &refused);
        if (refused) return refused;
        x = p->prepared;
    }
    sum_row(p, x, p->result);
    apply_link(p, p->result);
    return 0;
}

/* Prepared columns of `count` rows. Returns as millpond_score_one. */
EXPORT int64_t millpond_prepare(const struct plan *p, const double *rows, int64_t count, double *out) {
    int64_t refused = 0;
    for (int64_t r = 0; r < count && !refused; r++) prepare_row(p, rows + r * p->inputs, out + r * p->width, &refused);
    return refused;
}

/* Prepared rows to outputs [count, outputs]; without the link where `raw`. */
EXPORT void millpond_score(const struct plan *p, const double *x, int64_t count, int64_t raw, double *out) {
    int64_t r = 0;
    if (!p->weights && count >= BLOCK) {
        block_kernel kernel = choose_block(p);
        for (; r + BLOCK <= count; r += BLOCK) {
            double *sums = out + r * p->outputs;
            for (int64_t k = 0; k < BLOCK * p->outputs; k++) sums[k] = p->base[k % p->outputs];
            kernel(p, x + r * p->width, sums);
        }
    }
    for (; r < count; r++) sum_row(p, x + r * p->width, out + r * p->outputs);
    if (!raw) for (r = 0; r < count; r++) apply_link(p, out + r * p->outputs);
}

/* ---- contributions ---------------------------------------------------------------------------------------------- */

/* Exact Shapley values of trees, path-dependent: Lundberg, Erion, Lee: Consistent Individualized Feature Attribution
 * for Tree Ensembles (2018), algorithm 2; Lundberg et al., Nature Machine Intelligence 2 (2020). An element of the path
 * is a feature that was split on, the share of training rows that goes on where it is unknown (zero) and known (one),
 * and the weight of sets of each size. */
struct element { int64_t feature; double zero, one, weight; };

static void extend(struct element *path, int64_t depth, double zero, double one, int64_t feature) {
    path[depth] = (struct element){feature, zero, one, depth == 0 ? 1.0 : 0.0};
    for (int64_t i = depth - 1; i >= 0; i--) {
        path[i + 1].weight += one * path[i].weight * (double)(i + 1) / (double)(depth + 1);
        path[i].weight = zero * path[i].weight * (double)(depth - i) / (double)(depth + 1);
    }
}

static void unwind(struct element *path, int64_t depth, int64_t at) {
    double one = path[at].one, zero = path[at].zero, next = path[depth].weight;
    for (int64_t i = depth - 1; i >= 0; i--) {
        if (one != 0) {
            double before = path[i].weight;
            path[i].weight = next * (double)(depth + 1) / ((double)(i + 1) * one);
            next = before - path[i].weight * zero * (double)(depth - i) / (double)(depth + 1);
        } else
            path[i].weight = path[i].weight * (double)(depth + 1) / (zero * (double)(depth - i));
    }
    for (int64_t i = at; i < depth; i++) {
        path[i].feature = path[i + 1].feature;
        path[i].zero = path[i + 1].zero;
        path[i].one = path[i + 1].one;
    }
}

static double unwound_sum(const struct element *path, int64_t depth, int64_t at) {
    double one = path[at].one, zero = path[at].zero, next = path[depth].weight, total = 0;
    for (int64_t i = depth - 1; i >= 0; i--) {
        if (one != 0) {
            double weight = next * (double)(depth + 1) / ((double)(i + 1) * one);
            total += weight;
            next = path[i].weight - weight * zero * (double)(depth - i) / (double)(depth + 1);
        } else if (zero != 0)
            total += path[i].weight / zero / ((double)(depth - i) / (double)(depth + 1));
    }
    return total;
}

static double cover(const struct plan *p, int32_t at) { return at >= 0 ? p->node_cover[at] : p->leaf_cover[~at]; }

static void shap(const struct plan *p, const double *x, double *out, int32_t at, int64_t depth, struct element *parent,
                 double zero, double one, int64_t feature) {
    struct element *path = parent + depth + 1;
    if (depth > 0) memcpy(path, parent, (size_t)depth * sizeof(struct element)); else path = parent;
    extend(path, depth, zero, one, feature);
    if (at < 0) {
        for (int64_t i = 1; i <= depth; i++)
            out[path[i].feature] += unwound_sum(path, depth, i) * (path[i].one - path[i].zero) * p->leaves[~at];
        return;
    }
    const struct node *q = p->nodes + at;
    int left = goes_left(p, q, x[q->feature]) != 0;
    int32_t hot = left ? q->left : q->right, cold = left ? q->right : q->left;
    double before_zero = 1, before_one = 1;
    for (int64_t i = 1; i <= depth; i++)
        if (path[i].feature == q->feature) {
            before_zero = path[i].zero;
            before_one = path[i].one;
            unwind(path, depth, i);
            depth--;
            break;
        }
    shap(p, x, out, hot, depth + 1, path, cover(p, hot) / p->node_cover[at] * before_zero, before_one, q->feature);
    shap(p, x, out, cold, depth + 1, path, cover(p, cold) / p->node_cover[at] * before_zero, 0, q->feature);
}

/* Contributions of prepared columns, added to out [count, width], which is zero; of plans with one output.
 * `path` has room for (depth + 2) * (depth + 3) / 2 elements of the deepest tree. */
EXPORT void millpond_explain(const struct plan *p, const double *x, int64_t count, void *path, double *out) {
    for (int64_t r = 0; r < count; r++)
        for (int64_t t = 0; t < p->trees; t++)
            if (p->roots[t] >= 0) shap(p, x + r * p->width, out + r * p->width, p->roots[t], 0, path, 1, 1, -1);
}
