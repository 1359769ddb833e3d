/* Reads the data of the one tensor of an inference request straight from its JSON text.
 *
 * Numbers come out as the nearest float64, ties to even, to the last bit. Whatever is not plainly an array of numbers and
 * nulls, or an array of such arrays of equal length, is in doubt: nothing is said of it but that.
 *
 * `struct reading` mirrors `_Reading` in numbers.py, field by field; MILLPOND_NUMBERS is raised with every change of it.
 *
 * Sources: RFC 8259. Clinger, How to read floating point numbers accurately, PLDI 1990 (the fast case). Möller and
 * Granlund, Improved division by invariant integers, IEEE Transactions on Computers 60 (2011), algorithm 4. Digits are
 * read eight at a time within a word, as in Lemire, Number parsing at a gigabyte per second, SPE 51 (2021).
 */
#define _GNU_SOURCE /* newlocale, strtod_l */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define MILLPOND_NUMBERS 1

#define EXACT 9007199254740992.0 /* 2^53 */
#define SMALL 22                 /* powers of ten up to this are exact as float64 */
#define POWERS 27                /* powers of five up to this fit 64 bits */
#define DIGITS 19                /* so many decimal digits fit 64 bits */

enum { FRACTIONS = 1, NULLS = 2 };

struct reading {
    double *out;             /* room for so many numbers, given by the caller */
    int64_t room;
    int64_t start, end;      /* of the array within the text: its bracket, and what follows its last one */
    int64_t count;           /* numbers and nulls */
    int64_t rows;            /* arrays within it; 0 where it is flat */
    int64_t flags;           /* FRACTIONS: one has a fraction or an exponent; NULLS: there is one, NaN in `out` */
    double least, most;      /* of the numbers; infinity and minus infinity where all are null */
};

static const double TENS[SMALL + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint64_t WHOLE_TENS[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* 5^q shifted to the left until its highest bit is set, by how much, and its reciprocal floor((2^128 - 1) / d) - 2^64. */
static struct { uint64_t divisor, reciprocal; int shift; } fives[POWERS + 1];
static locale_t plain;

__attribute__((constructor)) static void prepare(void) {
    uint64_t power = 1;
    for (int q = 0; q <= POWERS; q++, power *= 5) {
        int shift = __builtin_clzll(power);
        uint64_t divisor = power << shift;
        fives[q].divisor = divisor;
        fives[q].shift = shift;
        fives[q].reciprocal = (uint64_t)(~(unsigned __int128)0 / divisor - ((unsigned __int128)1 << 64));
    }
    plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

EXPORT int64_t millpond_numbers(void) { return MILLPOND_NUMBERS; }
EXPORT int64_t millpond_reading_size(void) { return (int64_t)sizeof(struct reading); }

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

INLINE double power_of_two(int exponent) { /* -1022 to 1023 */
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

/* Without a branch: the signs of data are as good as random. */
INLINE double with_sign(double value, int negative) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits ^= (uint64_t)negative << 63;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

/* digits / 10^q, rounded once, where digits > 0 and 0 <= q <= POWERS: far from where float64 ends. */
INLINE double divided(uint64_t digits, int q) {
    const int left = __builtin_clzll(digits);
    const uint64_t wide = digits << left, divisor = fives[q].divisor;
    const uint64_t high = wide >> 1, low = wide << 63; /* high < divisor, so that the quotient fits 64 bits */
    unsigned __int128 product = (unsigned __int128)fives[q].reciprocal * high;
    product += ((unsigned __int128)high << 64) | low;
    uint64_t quotient = (uint64_t)(product >> 64) + 1;
    uint64_t rest = low - quotient * divisor;
    if (rest > (uint64_t)product) { quotient--; rest += divisor; }
    if (rest >= divisor) { quotient++; rest -= divisor; }
    const int drop = 11 - __builtin_clzll(quotient); /* of the 63 or 64 bits, 53 are kept */
    const uint64_t half = (uint64_t)1 << (drop - 1), lost = quotient & (2 * half - 1);
    uint64_t kept = quotient >> drop;
    kept += lost > half || (lost == half && (rest || (kept & 1)));
    return (double)kept * power_of_two(drop - 63 + fives[q].shift - left - q);
}

/* The first eight bytes from `at`, the first one lowest; what lies beyond `stop` is no digit. */
INLINE uint64_t load(const char *at, const char *stop) {
    uint64_t word = 0;
    if (LIKELY(stop - at >= 8)) memcpy(&word, at, 8); else memcpy(&word, at, (size_t)(stop - at));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* How many of the first bytes of a word are digits. */
INLINE int digits_in(uint64_t word) {
    const uint64_t other = ((word & 0xf0f0f0f0f0f0f0f0) | (((word + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) >> 4)) ^
                           0x3333333333333333;
    return other ? __builtin_ctzll(other) >> 3 : 8;
}

/* The number that the first `count` digits of a word are, 1 <= count <= 8. */
INLINE uint64_t value_of(uint64_t word, int count) {
    word = (word & 0x0f0f0f0f0f0f0f0f) << (64 - 8 * count);
    word = word * 10 + (word >> 8);
    return (((word & 0x000000ff000000ff) * 0x000f424000000064) +
            (((word >> 16) & 0x000000ff000000ff) * 0x0000271000000001)) >> 32;
}

/* One or more digits from *at on, appended to *value; how many, or 0. *value overflows with more than DIGITS in all. */
INLINE int64_t read_digits(const char **at, const char *stop, uint64_t *value) {
    const char *first = *at;
    int count;
    do {
        uint64_t word = load(*at, stop);
        count = digits_in(word);
        if (count) *value = *value * WHOLE_TENS[count] + value_of(word, count);
        *at += count;
    } while (count == 8);
    return *at - first;
}

/* The number whose text begins at *at, which is moved behind it; 0 in doubt. */
INLINE int read_number(const char **at, const char *stop, double *out, int64_t *flags) {
    const char *p = *at, *first;
    uint64_t digits = 0;
    int64_t count, exponent = 0;
    const int negative = *p == '-';
    p += negative;
    first = p;
    if ((unsigned)(*p - '0') > 9) return 0;
    digits = (uint64_t)(*p++ - '0');
    count = 1;
    if ((unsigned)(*p - '0') <= 9) {
        if (!digits) return 0;
        count += read_digits(&p, stop, &digits);
    }
    if (LIKELY(*p == '.')) {
        p++;
        int64_t fraction = read_digits(&p, stop, &digits);
        if (!fraction) return 0;
        count += fraction;
        exponent = -fraction;
        *flags |= FRACTIONS;
    } else if (LIKELY(*p != 'e' && *p != 'E')) {
        /* Whole: exact as float64 below 2^53; the whole number -0 is 0, which is not for here to say. */
        if (count > DIGITS || digits >= (uint64_t)EXACT || (negative && !digits)) return 0;
        *out = with_sign((double)digits, negative);
        *at = p;
        return 1;
    }
    if (*p == 'e' || *p == 'E') {
        uint64_t told = 0;
        p++;
        const int down = *p == '-';
        p += *p == '-' || *p == '+';
        int64_t length = read_digits(&p, stop, &told);
        if (!length) return 0;
        if (length > 9) return 0;
        exponent += down ? -(int64_t)told : (int64_t)told;
        *flags |= FRACTIONS;
    }
    double value;
    if (count <= DIGITS && digits < (uint64_t)EXACT && -SMALL <= exponent && exponent <= SMALL && FLT_EVAL_METHOD == 0) {
        value = exponent < 0 ? (double)digits / TENS[-exponent] : (double)digits * TENS[exponent];
    } else if (count <= DIGITS && digits && -POWERS <= exponent && exponent <= 0) {
        value = divided(digits, (int)-exponent);
    } else { /* what follows is not part of a number, so it ends there for strtod too */
        char *end;
        if (!plain) return 0;
        value = strtod_l(first, &end, plain);
        if (end != p || !(value <= DBL_MAX)) return 0;
    }
    *out = with_sign(value, negative);
    *at = p;
    return 1;
}

/* ---- arrays ----------------------------------------------------------------------------------------------------- */

INLINE const char *skip_blanks(const char *at, const char *stop) {
    while (at < stop && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at;
}

/* The elements of an array without arrays from behind its bracket to behind its last one; NULL in doubt. */
static const char *read_flat(struct reading *r, const char *at, const char *stop) {
    double least = r->least, most = r->most, *out = r->out + r->count;
    const double *full = r->out + r->room;
    int64_t flags = r->flags;
    for (;;) {
        at = skip_blanks(at, stop);
        if (at == stop || out == full) return NULL;
        if (LIKELY(*at != 'n')) {
            if (!read_number(&at, stop, out, &flags)) return NULL;
            if (*out < least) least = *out;
            if (*out > most) most = *out;
        } else {
            if (stop - at < 4 || memcmp(at, "null", 4)) return NULL;
            at += 4;
            *out = NAN;
            flags |= NULLS;
        }
        out++;
        if (*at != ',') {
            at = skip_blanks(at, stop);
            if (at == stop) return NULL;
            if (*at == ']') break;
            if (*at != ',') return NULL;
        }
        at++;
    }
    r->count = out - r->out;
    r->least = least;
    r->most = most;
    r->flags = flags;
    return at + 1;
}

/* Arrays of equal length, as `read_flat`. */
static const char *read_rows(struct reading *r, const char *at, const char *stop) {
    int64_t width = 0;
    for (;;) {
        int64_t before = r->count;
        at = skip_blanks(at, stop);
        if (at == stop || *at != '[') return NULL;
        at = read_flat(r, at + 1, stop);
        if (!at || (r->rows && r->count - before != width)) return NULL;
        width = r->count - before;
        r->rows++;
        at = skip_blanks(at, stop);
        if (at == stop) return NULL;
        if (*at == ']') return at + 1;
        if (*at != ',') return NULL;
        at++;
    }
}

/* The array that is the value of the only "data" in a text, which a zero byte follows. Returns 1, or 0 in doubt.
 *
 * That the text is JSON but for the array, and whose field it is, is not looked at. */
EXPORT int64_t millpond_read_numbers(struct reading *r, const char *text, int64_t size) {
    const char *stop = text + size, *at = text, *found;
    for (;;) {
        at = memmem(at, (size_t)(stop - at), "\"data\"", 6);
        if (!at) return 0;
        at = skip_blanks(at + 6, stop);
        if (at < stop && *at == ':') break;
    }
    at = skip_blanks(at + 1, stop);
    if (at == stop || *at != '[') return 0;
    r->start = at - text;
    r->count = r->rows = r->flags = 0;
    r->least = INFINITY;
    r->most = -INFINITY;
    found = skip_blanks(at + 1, stop);
    if (found == stop) return 0;
    at = *found == '[' ? read_rows(r, found, stop) : read_flat(r, found, stop);
    if (!at || memmem(at, (size_t)(stop - at), "\"data\"", 6)) return 0;
    r->end = at - text;
    return 1;
}
