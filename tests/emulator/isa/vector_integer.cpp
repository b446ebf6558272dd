// SPDX-License-Identifier: Apache-2.0
// Vector arithmetic on 32- and 64-bit integers.
#include "bit_operations.h"
#include "lanewise.h"

namespace emu {
namespace {

// Addition and subtraction with carry: f(x, y, carry_in, carry_out).
template <bool carry_in, class F>
constexpr Handler with_carry(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, result;
    const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
    const uint64_t in = carry_in ? read_scalar64(wave, i.source[2], 0) : 0;
    uint64_t out = 0;
    for (int l = 0; l < lanes; l++) {
      bool carry = false;
      result[l] = F{}(x[l], y[l], static_cast<uint32_t>(in >> l & 1), carry);
      out |= uint64_t{carry} << l;
    }
    const uint64_t active = wave.exec_mask();
    write_u32(wave, i, result);
    wave.set_pair(i.scalar_destination, out & active);
  };
}

uint32_t subtract(uint32_t x, uint32_t y, uint32_t borrow, bool &out) {
  const uint64_t taken = uint64_t{y} + borrow;
  out = taken > x;
  return static_cast<uint32_t>(x - taken);
}

template <bool is_signed>
void multiply_add_wide(Wave &wave, const Instruction &i) {
  Row a, b;
  WideRow c, result;
  const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
  const uint64_t *z = read_u64(wave, i, 2, c);
  uint64_t overflow = 0;
  for (int l = 0; l < lanes; l++) {
    const uint64_t product = is_signed
                                 ? static_cast<uint64_t>(int64_t{as_signed(x[l])} * as_signed(y[l]))
                                 : uint64_t{x[l]} * y[l];
    const uint64_t sum = product + z[l];
    const bool over = is_signed ? (~(product ^ z[l]) & (product ^ sum)) >> 63 : sum < product;
    result[l] = sum;
    overflow |= uint64_t{over} << l;
  }
  const uint64_t active = wave.exec_mask();
  write_u64(wave, i, result);
  wave.set_pair(i.scalar_destination, overflow & active);
}

template <class F>
constexpr Handler shift_wide(F) {  // 64 bits, the amount comes first
  return [](Wave &wave, const Instruction &i) {
    Row a;
    WideRow b, result;
    const uint32_t *amount = read_u32(wave, i, 0, a);
    const uint64_t *x = read_u64(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], amount[l] & 63);
    write_u64(wave, i, result);
  };
}

void shift_add_wide(Wave &wave, const Instruction &i) {  // v_lshl_add_u64
  WideRow a, c, result;
  Row b;
  const uint64_t *x = read_u64(wave, i, 0, a), *z = read_u64(wave, i, 2, c);
  const uint32_t *amount = read_u32(wave, i, 1, b);
  for (int l = 0; l < lanes; l++) result[l] = (x[l] << (amount[l] & 7)) + z[l];
  write_u64(wave, i, result);
}

template <int first>  // lanes below `first` count nothing
void count_below(Wave &wave, const Instruction &i) {  // v_mbcnt
  Row a, b, result;
  const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
  for (int l = 0; l < lanes; l++) {
    const int below = std::clamp(l - first, 0, 32);
    const uint32_t mask = below == 32 ? ~0u : (1u << below) - 1;
    result[l] = static_cast<uint32_t>(std::popcount(x[l] & mask)) + y[l];
  }
  write_u32(wave, i, result);
}

// v_mad_u32_u16 and the like take a half of each factor.
template <class F>
constexpr Handler multiply_halves(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, c, result;
    const uint32_t *x = read_u16(wave, i, 0, a), *y = read_u16(wave, i, 1, b);
    const uint32_t *z = read_u32(wave, i, 2, c);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l]) + z[l];
    write_u32(wave, i, result);
  };
}

uint32_t byte_of(uint32_t x, int n) { return x >> (8 * n) & 0xff; }

uint32_t sum_of_differences(uint32_t x, uint32_t y, bool masked = false) {
  uint32_t sum = 0;
  for (int n = 0; n < 4; n++) {
    const int a = static_cast<int>(byte_of(x, n)), b = static_cast<int>(byte_of(y, n));
    if (!masked || b) sum += static_cast<uint32_t>(std::abs(a - b));
  }
  return sum;
}

uint32_t permuted_byte(uint64_t bytes, uint32_t selector) {
  if (selector >= 13) return 0xff;
  if (selector == 12) return 0;
  if (selector >= 8) return bytes >> (16 * (selector - 8) + 15) & 1 ? 0xff : 0;
  return static_cast<uint32_t>(bytes >> (8 * selector)) & 0xff;
}

uint32_t permute(uint32_t x, uint32_t y, uint32_t selectors) {
  const uint64_t bytes = uint64_t{x} << 32 | y;
  uint32_t result = 0;
  for (int n = 0; n < 4; n++) result |= permuted_byte(bytes, byte_of(selectors, n)) << (8 * n);
  return result;
}

void permute_bytes(Wave &wave, const Instruction &i) {  // v_perm_b32
  Row a, b, c, result;
  const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
  const uint32_t *selectors = read_u32(wave, i, 2, c);
  const bool only_bytes = i.source[2] < vgpr && !(selectors[0] & 0xf8f8f8f8u);
  if (!only_bytes) {
    for (int l = 0; l < lanes; l++) result[l] = permute(x[l], y[l], selectors[l]);
  } else {  // the common case, the same bytes for all lanes, as a loop that becomes vector code
    const uint32_t s = selectors[0];
    for (int l = 0; l < lanes; l++) {
      const uint64_t bytes = uint64_t{x[l]} << 32 | y[l];
      result[l] = static_cast<uint32_t>((bytes >> (8 * byte_of(s, 0)) & 0xff) |
                                        (bytes >> (8 * byte_of(s, 1)) & 0xff) << 8 |
                                        (bytes >> (8 * byte_of(s, 2)) & 0xff) << 16 |
                                        (bytes >> (8 * byte_of(s, 3)) & 0xff) << 24);
    }
  }
  write_u32(wave, i, result);
}

uint32_t average_bytes(uint32_t x, uint32_t y, uint32_t rounding) {
  uint32_t result = 0;
  for (int n = 0; n < 4; n++)
    result |= ((byte_of(x, n) + byte_of(y, n) + (byte_of(rounding, n) & 1)) >> 1) << (8 * n);
  return result;
}

void add_sums(Bindings &b) {
  b.add("v_add_u32", clamped_u32([](uint32_t x, uint32_t y) { return x + y; },
                                 [](uint32_t x, uint32_t y) { return x + y < x ? ~0u : x + y; }));
  b.add("v_sub_u32", clamped_u32([](uint32_t x, uint32_t y) { return x - y; },
                                 [](uint32_t x, uint32_t y) { return x < y ? 0u : x - y; }));
  b.add("v_subrev_u32", clamped_u32([](uint32_t x, uint32_t y) { return y - x; },
                                    [](uint32_t x, uint32_t y) { return y < x ? 0u : y - x; }));
  b.add("v_add_i32", clamped_u32([](uint32_t x, uint32_t y) { return x + y; },
                                 [](uint32_t x, uint32_t y) {
                                   return saturate_signed(int64_t{as_signed(x)} + as_signed(y));
                                 }));
  b.add("v_sub_i32", clamped_u32([](uint32_t x, uint32_t y) { return x - y; },
                                 [](uint32_t x, uint32_t y) {
                                   return saturate_signed(int64_t{as_signed(x)} - as_signed(y));
                                 }));
  auto add = [](uint32_t x, uint32_t y, uint32_t in, bool &out) {
    const uint64_t sum = uint64_t{x} + y + in;
    out = sum >> 32;
    return static_cast<uint32_t>(sum);
  };
  auto sub = [](uint32_t x, uint32_t y, uint32_t in, bool &out) { return subtract(x, y, in, out); };
  auto subrev = [](uint32_t x, uint32_t y, uint32_t in, bool &out) {
    return subtract(y, x, in, out);
  };
  b.add("v_add_co_u32", with_carry<false>(add));
  b.add("v_sub_co_u32", with_carry<false>(sub));
  b.add("v_subrev_co_u32", with_carry<false>(subrev));
  b.add("v_addc_co_u32", with_carry<true>(add));
  b.add("v_subb_co_u32", with_carry<true>(sub));
  b.add("v_subbrev_co_u32", with_carry<true>(subrev));
  b.add("v_add3_u32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return x + y + z; }));
  b.add("v_xad_u32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return (x ^ y) + z; }));
  b.add("v_lshl_add_u32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return (x << (y & 31)) + z; }));
  b.add("v_add_lshl_u32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return (x + y) << (z & 31); }));
  b.add("v_lshl_add_u64", shift_add_wide);
}

void add_products(Bindings &b) {
  b.add("v_mul_lo_u32", binary_u32([](uint32_t x, uint32_t y) { return x * y; }));
  b.add("v_mul_hi_u32", binary_u32([](uint32_t x, uint32_t y) {
          return static_cast<uint32_t>(uint64_t{x} * y >> 32);
        }));
  b.add("v_mul_hi_i32", binary_u32([](uint32_t x, uint32_t y) {
          return as_unsigned(int64_t{as_signed(x)} * as_signed(y) >> 32);
        }));
  b.add("v_mul_i32_i24", binary_u32([](uint32_t x, uint32_t y) {
          return as_unsigned(int64_t{signed24(x)} * signed24(y));
        }));
  b.add("v_mul_hi_i32_i24", binary_u32([](uint32_t x, uint32_t y) {
          return as_unsigned(int64_t{signed24(x)} * signed24(y) >> 32);
        }));
  b.add("v_mul_u32_u24",
        binary_u32([](uint32_t x, uint32_t y) { return unsigned24(x) * unsigned24(y); }));
  b.add("v_mul_hi_u32_u24", binary_u32([](uint32_t x, uint32_t y) {
          return static_cast<uint32_t>(uint64_t{unsigned24(x)} * unsigned24(y) >> 32);
        }));
  b.add("v_mad_i32_i24", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return as_unsigned(int64_t{signed24(x)} * signed24(y)) + z;
        }));
  b.add("v_mad_u32_u24", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return unsigned24(x) * unsigned24(y) + z;
        }));
  b.add("v_mad_u32_u16", multiply_halves([](uint32_t x, uint32_t y) { return x * y; }));
  b.add("v_mad_i32_i16", multiply_halves([](uint32_t x, uint32_t y) {
          return as_unsigned(signed16(x) * signed16(y));
        }));
  b.add("v_mad_u64_u32", multiply_add_wide<false>);
  b.add("v_mad_i64_i32", multiply_add_wide<true>);
}

void add_bits(Bindings &b) {
  b.add("v_and_b32", binary_u32([](uint32_t x, uint32_t y) { return x & y; }));
  b.add("v_or_b32", binary_u32([](uint32_t x, uint32_t y) { return x | y; }));
  b.add("v_xor_b32", binary_u32([](uint32_t x, uint32_t y) { return x ^ y; }));
  b.add("v_xnor_b32", binary_u32([](uint32_t x, uint32_t y) { return ~(x ^ y); }));
  b.add("v_not_b32", unary_u32([](uint32_t x) { return ~x; }));
  b.add("v_and_or_b32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return (x & y) | z; }));
  b.add("v_or3_b32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return x | y | z; }));
  b.add("v_lshl_or_b32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return (x << (y & 31)) | z; }));
  b.add("v_lshlrev_b32", binary_u32([](uint32_t x, uint32_t y) { return y << (x & 31); }));
  b.add("v_lshrrev_b32", binary_u32([](uint32_t x, uint32_t y) { return y >> (x & 31); }));
  b.add("v_ashrrev_i32",
        binary_u32([](uint32_t x, uint32_t y) { return as_unsigned(as_signed(y) >> (x & 31)); }));
  b.add("v_lshlrev_b64", shift_wide([](uint64_t x, uint32_t n) { return x << n; }));
  b.add("v_lshrrev_b64", shift_wide([](uint64_t x, uint32_t n) { return x >> n; }));
  b.add("v_ashrrev_i64", shift_wide([](uint64_t x, uint32_t n) {
          return static_cast<uint64_t>(static_cast<int64_t>(x) >> n);
        }));
  b.add("v_bfrev_b32", unary_u32([](uint32_t x) { return reverse_bits(x); }));
  b.add("v_ffbh_u32", unary_u32([](uint32_t x) { return leading_one(x); }));
  b.add("v_ffbl_b32", unary_u32([](uint32_t x) { return first_one(x); }));
  b.add("v_ffbh_i32", unary_u32([](uint32_t x) { return leading_non_sign(x); }));
  b.add("v_bcnt_u32_b32", binary_u32([](uint32_t x, uint32_t y) {
          return static_cast<uint32_t>(std::popcount(x)) + y;
        }));
  b.add("v_mbcnt_lo_u32_b32", count_below<0>);
  b.add("v_mbcnt_hi_u32_b32", count_below<32>);
  b.add("v_bfm_b32",
        binary_u32([](uint32_t x, uint32_t y) { return bit_mask<uint32_t>(x & 31, y & 31); }));
  b.add("v_bfe_u32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return extract_unsigned(x, y & 31, z & 31);
        }));
  b.add("v_bfe_i32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return extract_signed(x, y & 31, z & 31);
        }));
  b.add("v_bfi_b32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return (x & y) | (~x & z); }));
  b.add("v_alignbit_b32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return static_cast<uint32_t>((uint64_t{x} << 32 | y) >> (z & 31));
        }));
  b.add("v_alignbyte_b32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return static_cast<uint32_t>((uint64_t{x} << 32 | y) >> (8 * (z & 3)));
        }));
  b.add("v_perm_b32", permute_bytes);
}

void add_orders(Bindings &b) {
  b.add("v_min_i32", binary_u32([](uint32_t x, uint32_t y) {
          return as_unsigned(std::min(as_signed(x), as_signed(y)));
        }));
  b.add("v_max_i32", binary_u32([](uint32_t x, uint32_t y) {
          return as_unsigned(std::max(as_signed(x), as_signed(y)));
        }));
  b.add("v_min_u32", binary_u32([](uint32_t x, uint32_t y) { return std::min(x, y); }));
  b.add("v_max_u32", binary_u32([](uint32_t x, uint32_t y) { return std::max(x, y); }));
  b.add("v_min3_i32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return as_unsigned(std::min({as_signed(x), as_signed(y), as_signed(z)}));
        }));
  b.add("v_max3_i32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return as_unsigned(std::max({as_signed(x), as_signed(y), as_signed(z)}));
        }));
  b.add("v_med3_i32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return as_unsigned(median_integer(as_signed(x), as_signed(y), as_signed(z)));
        }));
  b.add("v_min3_u32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return std::min({x, y, z}); }));
  b.add("v_max3_u32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return std::max({x, y, z}); }));
  b.add("v_med3_u32",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return median_integer(x, y, z); }));
}

void add_byte_arithmetic(Bindings &b) {
  b.add("v_sad_u8", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return sum_of_differences(x, y) + z;
        }));
  b.add("v_sad_hi_u8", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return (sum_of_differences(x, y) << 16) + z;
        }));
  b.add("v_msad_u8", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return sum_of_differences(x, y, true) + z;
        }));
  b.add("v_sad_u16", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          const int low = static_cast<int>(x & 0xffff) - static_cast<int>(y & 0xffff);
          const int high = static_cast<int>(x >> 16) - static_cast<int>(y >> 16);
          return as_unsigned(std::abs(low) + std::abs(high)) + z;
        }));
  b.add("v_sad_u32", ternary_u32([](uint32_t x, uint32_t y, uint32_t z) {
          return (x > y ? x - y : y - x) + z;
        }));
  b.add("v_lerp_u8",
        ternary_u32([](uint32_t x, uint32_t y, uint32_t z) { return average_bytes(x, y, z); }));
}

}  // namespace

void add_vector_integer(Bindings &b) {
  add_sums(b);
  add_products(b);
  add_bits(b);
  add_orders(b);
  add_byte_arithmetic(b);
}

}  // namespace emu
