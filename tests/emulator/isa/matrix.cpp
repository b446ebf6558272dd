// SPDX-License-Identifier: Apache-2.0
// Matrix instructions (MFMA).
//
// The 64 lanes form 64 / M groups of M. Lane c of group g holds row c of A (column c of B): with
// one block, the elements K/groups * g and on; with several blocks, all elements of block g.
#include "matrix.h"

#include <array>

#include "lanewise.h"
#include "matrix_shapes.h"

namespace emu {
namespace {

constexpr int largest = 64 * 32;  // elements of A, B or D

int bits_of(Element type) {
  switch (type) {
    case Element::f32:
    case Element::xf32: return 32;
    case Element::f16:
    case Element::bf16: return 16;
    case Element::f6:
    case Element::b6: return 6;
    case Element::f4: return 4;
    default: return 8;
  }
}

SmallFloat format_of(Element type, bool ocp) {
  switch (type) {
    case Element::fp8: return fp8_of(ocp);
    case Element::bf8: return bf8_of(ocp);
    case Element::f6: return fp6_format;
    case Element::b6: return bf6_format;
    default: return fp4_format;
  }
}

using DecodedCodes = std::array<float, 256>;

const DecodedCodes &decoded(Element type, bool ocp) {
  struct Tables {
    DecodedCodes of[2][static_cast<int>(Element::selected)];
    Tables() {
      for (int ocp = 0; ocp < 2; ocp++)
        for (Element type : {Element::fp8, Element::bf8, Element::f6, Element::b6, Element::f4})
          for (unsigned code = 0; code < 1u << bits_of(type); code++)
            of[ocp][static_cast<int>(type)][code] =
                static_cast<float>(decode_float(code, format_of(type, ocp)));
    }
  };
  static const Tables tables;
  return tables.of[ocp][static_cast<int>(type)];
}

uint32_t bits_at(const uint32_t *rows, int lane, int position, int count) {
  const int dword = position / 32, shift = position % 32;
  uint64_t window = rows[dword * lanes + lane];
  if (shift + count > 32) window |= uint64_t{rows[(dword + 1) * lanes + lane]} << 32;
  return static_cast<uint32_t>(window >> shift) & ((1u << count) - 1);
}

// Where each lane takes its operand from: cbsz and abid broadcast a block of A, blgp permutes B.
using LaneMap = std::array<uint8_t, lanes>;

LaneMap map_a(const Instruction &i, const MatrixShape &shape) {
  LaneMap map;
  for (int l = 0; l < lanes; l++) {
    const int group = l / shape.rows, size = 1 << i.cbsz;
    const int from = shape.blocks > 1 && i.cbsz ? (group & ~(size - 1)) + i.abid : group;
    map[l] = static_cast<uint8_t>(from * shape.rows + l % shape.rows);
  }
  return map;
}

LaneMap map_b(const Instruction &i) {
  LaneMap map;
  for (int l = 0; l < lanes; l++) {
    int from = l;
    if (i.blgp == 1) from = l & 31;
    if (i.blgp == 2) from = (l & 31) + 32;
    if (i.blgp == 3) from = (l + 16) & 63;
    if (i.blgp >= 4) from = (l & 15) + 16 * (i.blgp - 4);
    map[l] = static_cast<uint8_t>(from);
  }
  return map;
}

bool is_identity(const LaneMap &map) {
  for (int l = 0; l < lanes; l++)
    if (map[l] != l) return false;
  return true;
}

// One operand as K rows of M numbers (A transposed), block after block.
class Operand {
 public:
  alignas(64) float value[largest];

  void load(Wave &wave, const Instruction &i, int k, const MatrixShape &shape, Element type) {
    const int per_lane = shape.blocks * shape.rows * shape.depth / lanes;
    const int dwords = (per_lane * bits_of(type) + 31) / 32;
    const uint32_t *rows = registers(wave, i, k, dwords, type);
    const bool ocp = wave.workgroup->arch() == Arch::gfx950;
    for (int j = 0; j < per_lane; j++) {
      alignas(64) float element[lanes];
      convert(rows, j, type, ocp, element);
      // Lane c of group g holds element [g * per_lane + j][c]: contiguous in c, for one block as
      // for several, because a group of several blocks holds all K elements of its own.
      for (int g = 0; g < lanes / shape.rows; g++)
        std::memcpy(value + (g * per_lane + j) * shape.rows, element + g * shape.rows,
                    static_cast<size_t>(shape.rows) * 4);
    }
  }

 private:
  alignas(64) uint32_t space_[16][lanes];

  const uint32_t *registers(Wave &wave, const Instruction &i, int k, int dwords, Element type) {
    const bool permutes = i.opcode->matrix->a != Element::selected;
    const LaneMap map = k ? map_b(i) : map_a(i, *i.opcode->matrix);
    const bool direct = !permutes || is_identity(map);
    if (direct && i.source[k] >= vgpr) return wave.row(i.source[k]);
    for (int d = 0; d < dwords; d++) {
      Row row;
      const uint32_t *from = read_raw(wave, i, k, row, d, type == Element::f16);
      for (int l = 0; l < lanes; l++) space_[d][l] = from[direct ? l : map[l]];
    }
    return space_[0];
  }

  static void convert(const uint32_t *rows, int j, Element type, bool ocp, float *element) {
    switch (type) {
      case Element::f32: std::memcpy(element, rows + j * lanes, lanes * 4); return;
      case Element::xf32:
        for (int l = 0; l < lanes; l++) element[l] = as_float(rows[j * lanes + l] & 0xffffe000u);
        return;
      case Element::bf16: {
        const uint32_t *row = rows + j / 2 * lanes;
        if (j & 1)
          for (int l = 0; l < lanes; l++) element[l] = as_float(row[l] & 0xffff0000u);
        else
          for (int l = 0; l < lanes; l++) element[l] = as_float(row[l] << 16);
        return;
      }
      case Element::f16: {
        const uint32_t *row = rows + j / 2 * lanes;
        for (int l = 0; l < lanes; l++) element[l] = half_to_float(row[l] >> (j & 1 ? 16 : 0));
        return;
      }
      case Element::fp8:
      case Element::bf8: {
        const float *code = decoded(type, ocp).data();
        const uint32_t *row = rows + j / 4 * lanes;
        for (int l = 0; l < lanes; l++) element[l] = code[row[l] >> (8 * (j & 3)) & 0xff];
        return;
      }
      default: {
        const float *code = decoded(type, ocp).data();
        const int bits = bits_of(type);
        for (int l = 0; l < lanes; l++) element[l] = code[bits_at(rows, l, bits * j, bits)];
      }
    }
  }
};

// Accumulator register r of a group of lanes is part of a row of D.
struct Place {
  int block, row;
};
Place place_of(const MatrixShape &shape, int r, int group) {
  switch (shape.rows) {
    case 32: return {r / 16, 8 * (r % 16 / 4) + 4 * group + r % 4};
    case 16: return {r / 4, 4 * group + r % 4};
    default: return {group, r};
  }
}

template <class T>
void load_accumulator(Wave &wave, const Instruction &i, const MatrixShape &shape, T *d) {
  const int registers = shape.rows * shape.rows * shape.blocks / lanes;
  if (i.source[2] < vgpr) {
    const uint32_t constant = read_scalar(wave, i.source[2], i.literal);
    std::fill(d, d + registers * lanes, std::bit_cast<T>(constant));
    return;
  }
  const uint32_t *rows = wave.row(i.source[2]);
  for (int r = 0; r < registers; r++)
    for (int g = 0; g < lanes / shape.rows; g++) {
      const Place place = place_of(shape, r, g);
      std::memcpy(d + (place.block * shape.rows + place.row) * shape.rows,
                  rows + r * lanes + g * shape.rows, static_cast<size_t>(shape.rows) * 4);
    }
}

template <class T>
void store_accumulator(Wave &wave, const Instruction &i, const MatrixShape &shape, const T *d) {
  const int registers = shape.rows * shape.rows * shape.blocks / lanes;
  uint32_t *rows = wave.row(i.destination);
  for (int r = 0; r < registers; r++)
    for (int g = 0; g < lanes / shape.rows; g++) {
      const Place place = place_of(shape, r, g);
      std::memcpy(rows + r * lanes + g * shape.rows,
                  d + (place.block * shape.rows + place.row) * shape.rows,
                  static_cast<size_t>(shape.rows) * 4);
    }
}

// D += A * B, in the order of k, every product added with one rounding.
template <int M>
void multiply_add(float *d, const float *a, const float *b, int depth) {
  constexpr int tile = 64 / M;  // rows at once: as many accumulators as there are vector registers
  for (int row = 0; row < M; row += tile) {
    Lanes<float> sum[M * tile / lanes];
    float *sums = sum[0].lane;
    std::memcpy(sums, d + row * M, sizeof(float) * M * tile);
#ifdef __AVX2__
    __m256 vector[M * tile / 8];
    for (int v = 0; v < M * tile / 8; v++) vector[v] = _mm256_load_ps(sums + 8 * v);
    for (int k = 0; k < depth; k++) {
#pragma GCC unroll 16
      for (int r = 0; r < tile; r++) {
        const __m256 factor = _mm256_broadcast_ss(a + k * M + row + r);
#pragma GCC unroll 16
        for (int v = 0; v < M / 8; v++)
          vector[r * (M / 8) + v] =
              _mm256_fmadd_ps(factor, _mm256_load_ps(b + k * M + 8 * v), vector[r * (M / 8) + v]);
      }
    }
    for (int v = 0; v < M * tile / 8; v++) _mm256_store_ps(sums + 8 * v, vector[v]);
#else
    for (int k = 0; k < depth; k++)
      for (int r = 0; r < tile; r++)
        for (int c = 0; c < M; c++)
          sums[r * M + c] = std::fma(a[k * M + row + r], b[k * M + c], sums[r * M + c]);
#endif
    std::memcpy(d + row * M, sums, sizeof(float) * M * tile);
  }
}

void multiply_add_4(float *d, const float *a, const float *b, int depth) {
  for (int k = 0; k < depth; k++)
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) d[r * 4 + c] = std::fma(a[k * 4 + r], b[k * 4 + c], d[r * 4 + c]);
}

void multiply_blocks(const MatrixShape &shape, float *d, const float *a, const float *b) {
  for (int block = 0; block < shape.blocks; block++) {
    switch (shape.rows) {
      case 32: multiply_add<32>(d, a, b, shape.depth); break;
      case 16: multiply_add<16>(d, a, b, shape.depth); break;
      default: multiply_add_4(d, a, b, shape.depth);
    }
    a += shape.rows * shape.depth;
    b += shape.rows * shape.depth;
    d += shape.rows * shape.rows;
  }
}

void multiply_floats(Wave &wave, const Instruction &i) {
  const MatrixShape &shape = *i.opcode->matrix;
  Operand a, b;
  alignas(64) float d[largest];
  a.load(wave, i, 0, shape, shape.a);
  b.load(wave, i, 1, shape, shape.b);
  load_accumulator(wave, i, shape, d);
  multiply_blocks(shape, d, a.value, b.value);
  store_accumulator(wave, i, shape, d);
}

// f8f6f4: cbsz and blgp name the formats of A and B.
Element selected_element(const Wave &wave, int code) {
  constexpr Element formats[] = {Element::fp8, Element::bf8, Element::f6, Element::b6, Element::f4};
  if (code > 4) fault(wave, "reserved matrix format");
  return formats[code];
}

// A block of 32 elements along K, those of one lane, has a scale: a power of two in a byte.
void scale_operand(Wave &wave, const Instruction &i, int k, const MatrixShape &shape,
                   float *value) {
  Row space;
  const uint32_t *scales = i.scale[k] >= vgpr
                               ? wave.row(i.scale[k])
                               : broadcast(space, read_scalar(wave, i.scale[k], i.literal));
  const int byte = (i.op_sel >> k & 1) | (i.op_sel_high >> k & 1) << 1;
  const int per_lane = shape.rows * shape.depth / lanes;
  for (int l = 0; l < lanes; l++) {
    const int code = static_cast<int>(scales[l] >> (8 * byte) & 0xff);
    const float scale = code == 255 ? as_float(quiet_nan) : std::ldexp(1.0f, code - 127);
    for (int j = 0; j < per_lane; j++)
      value[(l / shape.rows * per_lane + j) * shape.rows + l % shape.rows] *= scale;
  }
}

template <bool scaled>
void multiply_selected(Wave &wave, const Instruction &i) {
  const MatrixShape &shape = *i.opcode->matrix;
  Operand a, b;
  alignas(64) float d[largest];
  a.load(wave, i, 0, shape, selected_element(wave, i.cbsz));
  b.load(wave, i, 1, shape, selected_element(wave, i.blgp));
  if (scaled) {
    scale_operand(wave, i, 0, shape, a.value);
    scale_operand(wave, i, 1, shape, b.value);
  }
  load_accumulator(wave, i, shape, d);
  multiply_blocks(shape, d, a.value, b.value);
  store_accumulator(wave, i, shape, d);
}

void multiply_integers(Wave &wave, const Instruction &i) {
  const MatrixShape &shape = *i.opcode->matrix;
  const int per_lane = shape.blocks * shape.rows * shape.depth / lanes;
  const LaneMap from[2] = {map_a(i, shape), map_b(i)};
  int32_t operand[2][largest];
  for (int k = 0; k < 2; k++)
    for (int j = 0; j < per_lane; j++) {
      Row space;
      const uint32_t *row = read_raw(wave, i, k, space, j / 4);
      for (int l = 0; l < lanes; l++)
        operand[k][(l / shape.rows * per_lane + j) * shape.rows + l % shape.rows] =
            static_cast<int8_t>(row[from[k][l]] >> (8 * (j & 3)));
    }
  uint32_t d[largest];
  load_accumulator(wave, i, shape, d);
  for (int block = 0; block < shape.blocks; block++)
    for (int k = 0; k < shape.depth; k++)
      for (int r = 0; r < shape.rows; r++)
        for (int c = 0; c < shape.rows; c++) {
          const int at = (block * shape.depth + k) * shape.rows;
          d[(block * shape.rows + r) * shape.rows + c] +=
              static_cast<uint32_t>(operand[0][at + r] * operand[1][at + c]);
        }
  store_accumulator(wave, i, shape, d);
}

double double_at(Wave &wave, unsigned operand, int element, int lane) {
  if (operand < vgpr) return as_double(read_scalar64(wave, operand, 0, true));
  const uint32_t *low = wave.row(operand + 2 * element);
  return as_double(uint64_t{low[lanes + lane]} << 32 | low[lane]);
}

// blgp negates A, B and C here.
template <int M>
void multiply_doubles(Wave &wave, const Instruction &i) {
  constexpr int registers = M == 16 ? 4 : 1;
  const double sign_a = i.blgp & 1 ? -1 : 1, sign_b = i.blgp & 2 ? -1 : 1,
               sign_c = i.blgp & 4 ? -1 : 1;
  WideRow result[registers];
  for (int r = 0; r < registers; r++)
    for (int l = 0; l < lanes; l++) {
      const int block = M == 16 ? 0 : l / 4 % 4, row = M == 16 ? 4 * r + l / 16 : l / 16;
      double sum = sign_c * double_at(wave, i.source[2], r, l);
      for (int k = 0; k < 4; k++) {
        const int at = 16 * k + M * block;
        sum = std::fma(sign_a * double_at(wave, i.source[0], 0, at + row),
                       sign_b * double_at(wave, i.source[1], 0, at + l % M), sum);
      }
      result[r][l] = as_bits(sum);
    }
  for (int r = 0; r < registers; r++)
    for (int l = 0; l < lanes; l++) {
      wave.row(i.destination + 2 * r)[l] = static_cast<uint32_t>(result[r][l]);
      wave.row(i.destination + 2 * r + 1)[l] = static_cast<uint32_t>(result[r][l] >> 32);
    }
}

}  // namespace

void add_matrix(Bindings &b) {
  for (const MatrixShape &shape : float_shapes)
    b.add(shape.mnemonic, {multiply_floats, nullptr, &shape});
  for (const MatrixShape &shape : integer_shapes)
    b.add(shape.mnemonic, {multiply_integers, nullptr, &shape});
  for (const MatrixShape &shape : selected_shapes)
    b.add(shape.mnemonic, {multiply_selected<false>, nullptr, &shape});
  for (const MatrixShape &shape : scaled_shapes)
    b.add(shape.mnemonic, {multiply_selected<true>, nullptr, &shape});
  b.add("v_mfma_f64_16x16x4_f64", multiply_doubles<16>);
  b.add("v_mfma_f64_4x4x4_4b_f64", multiply_doubles<4>);
}

}  // namespace emu
