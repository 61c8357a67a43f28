/* What does cuBLASLt do with what it is told? A stand-in for tests: it takes the descriptions as NVIDIA
   documents them, checks that they fit one another, and multiplies on the host by plain loops, columns
   one after another as the library has them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 7, UNSUPPORTED = 15 };
enum { FLOAT = 0, HALF = 2, BFLOAT = 14, COMPUTE_FLOAT = 68 };

typedef struct { int type; uint64_t rows, cols; int64_t ld; } Layout;
typedef struct { int compute, scale; int32_t transposes[2]; } Description;
typedef struct { size_t workspace; } Preference;
typedef struct { uint64_t algo[8]; size_t workspace; int state; float waves; int reserved[4]; } Result;

static int live;
int fake_live(void) { return live; }

static int make(void **out, size_t n) {
  *out = calloc(1, n);
  ++live;
  return OK;
}
static int end(void *it) {
  free(it);
  --live;
  return OK;
}

size_t cublasLtGetVersion(void) { return 130203; }
int cublasLtCreate(void **out) { return make(out, 1); }
int cublasLtDestroy(void *it) { return end(it); }
int cublasLtMatmulDescDestroy(void *it) { return end(it); }
int cublasLtMatrixLayoutDestroy(void *it) { return end(it); }
int cublasLtMatmulPreferenceDestroy(void *it) { return end(it); }
int cublasLtMatmulPreferenceCreate(void **out) { return make(out, sizeof(Preference)); }

int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  make(out, sizeof(Layout));
  *(Layout *)*out = (Layout){type, rows, cols, ld};
  return (uint64_t)ld < rows ? INVALID : OK;
}

int cublasLtMatmulDescCreate(void **out, int compute, int scale) {
  make(out, sizeof(Description));
  *(Description *)*out = (Description){compute, scale, {0, 0}};
  return OK;
}

int cublasLtMatmulDescSetAttribute(Description *it, int which, const void *value, size_t n) {
  if ((which != 3 && which != 4) || n != sizeof(int32_t)) return INVALID;
  memcpy(&it->transposes[which - 3], value, n);
  return OK;
}

int cublasLtMatmulPreferenceSetAttribute(Preference *it, int which, const void *value, size_t n) {
  if (which != 1 || n != sizeof(size_t)) return INVALID;
  memcpy(&it->workspace, value, n);
  return OK;
}

static uint64_t rows_of(const Layout *of, int transposed) { return transposed ? of->cols : of->rows; }

static int fault(const Description *d, const Layout *a, const Layout *b, const Layout *c) {
  const int ta = d->transposes[0], tb = d->transposes[1];
  if (d->compute != COMPUTE_FLOAT || d->scale != FLOAT || c->type != FLOAT) return UNSUPPORTED;
  if (a->type != b->type || (a->type != HALF && a->type != BFLOAT)) return UNSUPPORTED;
  if (rows_of(a, ta) != c->rows || rows_of(b, !tb) != c->cols) return INVALID;
  if (rows_of(a, !ta) != rows_of(b, tb)) return INVALID;
  return rows_of(b, tb) % 8 ? UNSUPPORTED : OK;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, const Description *d, const Layout *a,
                                   const Layout *b, const Layout *c, const Layout *out,
                                   const Preference *preference, int n, Result *results, int *found) {
  *found = 0;
  const int status = handle && n > 0 && c == out ? fault(d, a, b, c) : INVALID;
  if (status != OK) return status;
  memset(results, 0, sizeof *results);
  results->algo[0] = preference->workspace; /* known again when it is used */
  *found = 1;
  return OK;
}

static float widened(uint16_t bits, int type) {
  uint32_t whole = (uint32_t)bits << 16;
  float out;
  if (type == HALF) { /* normal numbers and zeros, which is what the test has */
    const uint32_t exponent = bits >> 10 & 31;
    whole = (uint32_t)(bits & 0x8000) << 16;
    if (exponent) whole |= (exponent + 112) << 23 | (uint32_t)(bits & 1023) << 13;
  }
  memcpy(&out, &whole, sizeof out);
  return out;
}

static float at(const Layout *of, const uint16_t *values, int transposed, uint64_t row, uint64_t col) {
  const uint64_t r = transposed ? col : row, c = transposed ? row : col;
  return widened(values[c * of->ld + r], of->type);
}

int cublasLtMatmul(void *handle, const Description *d, const float *alpha, const uint16_t *a,
                   const Layout *la, const uint16_t *b, const Layout *lb, const float *beta,
                   const float *c, const Layout *lc, float *out, const Layout *lout,
                   const uint64_t *algo, void *workspace, size_t workspace_bytes, void *stream) {
  if (!handle || !workspace || !stream || algo[0] != workspace_bytes || c != out || lc != lout) {
    return INVALID;
  }
  const int status = fault(d, la, lb, lc);
  if (status != OK) return status;
  const int ta = d->transposes[0], tb = d->transposes[1];
  for (uint64_t col = 0; col < lc->cols; ++col) {
    for (uint64_t row = 0; row < lc->rows; ++row) {
      float sum = 0;
      for (uint64_t k = 0; k < rows_of(lb, tb); ++k) {
        sum += at(la, a, ta, row, k) * at(lb, b, tb, k, col);
      }
      float *to = out + col * lout->ld + row;
      *to = *alpha * sum + (*beta == 0 ? 0 : *beta * *to);
    }
  }
  return OK;
}
