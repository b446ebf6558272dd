// SPDX-License-Identifier: Apache-2.0
// Vector arithmetic on 16-bit integers.
#include "bit_operations.h"
#include "lanewise.h"

namespace emu {
namespace {

uint32_t saturate16(int x) { return as_unsigned(std::clamp(x, -32768, 32767)); }

template <class F>
void add_ternary(Bindings &b, const std::string &name, F) {  // GFX9 keeps the other half
  b.add("v_" + name, ternary_u16<OtherHalf::kept>(F{}));
}

}  // namespace

void add_vector_integer16(Bindings &b) {
  b.add("v_add_u16", clamped_u16([](uint32_t x, uint32_t y) { return x + y; },
                                 [](uint32_t x, uint32_t y) { return std::min(x + y, 0xffffu); }));
  b.add("v_sub_u16", clamped_u16([](uint32_t x, uint32_t y) { return x - y; },
                                 [](uint32_t x, uint32_t y) { return x < y ? 0u : x - y; }));
  b.add("v_subrev_u16", clamped_u16([](uint32_t x, uint32_t y) { return y - x; },
                                    [](uint32_t x, uint32_t y) { return y < x ? 0u : y - x; }));
  b.add("v_add_i16",
        clamped_u16([](uint32_t x, uint32_t y) { return x + y; },
                    [](uint32_t x, uint32_t y) { return saturate16(signed16(x) + signed16(y)); }));
  b.add("v_sub_i16",
        clamped_u16([](uint32_t x, uint32_t y) { return x - y; },
                    [](uint32_t x, uint32_t y) { return saturate16(signed16(x) - signed16(y)); }));
  b.add("v_mul_lo_u16", binary_u16([](uint32_t x, uint32_t y) { return x * y; }));
  b.add("v_lshlrev_b16", binary_u16([](uint32_t x, uint32_t y) { return y << (x & 15); }));
  b.add("v_lshrrev_b16", binary_u16([](uint32_t x, uint32_t y) { return y >> (x & 15); }));
  b.add("v_ashrrev_i16",
        binary_u16([](uint32_t x, uint32_t y) { return as_unsigned(signed16(y) >> (x & 15)); }));
  b.add("v_min_u16", binary_u16([](uint32_t x, uint32_t y) { return std::min(x, y); }));
  b.add("v_max_u16", binary_u16([](uint32_t x, uint32_t y) { return std::max(x, y); }));
  b.add("v_min_i16", binary_u16([](uint32_t x, uint32_t y) {
          return as_unsigned(std::min(signed16(x), signed16(y)));
        }));
  b.add("v_max_i16", binary_u16([](uint32_t x, uint32_t y) {
          return as_unsigned(std::max(signed16(x), signed16(y)));
        }));
  auto multiply_add = [](uint32_t x, uint32_t y, uint32_t z) { return x * y + z; };
  add_ternary(b, "mad_u16", multiply_add);
  add_ternary(b, "mad_i16", multiply_add);
  b.add("v_mad_legacy_u16", ternary_u16<OtherHalf::cleared>(multiply_add));
  b.add("v_mad_legacy_i16", ternary_u16<OtherHalf::cleared>(multiply_add));
  add_ternary(b, "min3_u16",
              [](uint32_t x, uint32_t y, uint32_t z) { return std::min({x, y, z}); });
  add_ternary(b, "max3_u16",
              [](uint32_t x, uint32_t y, uint32_t z) { return std::max({x, y, z}); });
  add_ternary(b, "med3_u16",
              [](uint32_t x, uint32_t y, uint32_t z) { return median_integer(x, y, z); });
  add_ternary(b, "min3_i16", [](uint32_t x, uint32_t y, uint32_t z) {
    return as_unsigned(std::min({signed16(x), signed16(y), signed16(z)}));
  });
  add_ternary(b, "max3_i16", [](uint32_t x, uint32_t y, uint32_t z) {
    return as_unsigned(std::max({signed16(x), signed16(y), signed16(z)}));
  });
  add_ternary(b, "med3_i16", [](uint32_t x, uint32_t y, uint32_t z) {
    return as_unsigned(median_integer(signed16(x), signed16(y), signed16(z)));
  });
}

}  // namespace emu
