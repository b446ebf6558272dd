// SPDX-License-Identifier: Apache-2.0
// The scalar ALU: SOP1, SOP2, SOPC, and SOPK but for the hardware registers.
#include "bit_operations.h"
#include "handlers.h"
#include "operands.h"

namespace emu {
namespace {

uint32_t source32(const Wave &wave, const Instruction &i, int k) {
  return read_scalar(wave, i.source[k], i.literal);
}
uint64_t source64(const Wave &wave, const Instruction &i, int k) {
  return read_scalar64(wave, i.source[k], i.literal);
}

// SCC as the instruction leaves it: untouched, "result is not zero", or set by the function.
enum class Scc { kept, nonzero };

template <Scc scc, class F>
constexpr Handler unary32(F) {
  return [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = F{}(source32(wave, i, 0));
    if (scc == Scc::nonzero) wave.scc = wave.s[i.destination] != 0;
  };
}
template <Scc scc, class F>
constexpr Handler unary64(F) {
  return [](Wave &wave, const Instruction &i) {
    const uint64_t result = F{}(source64(wave, i, 0));
    wave.set_pair(i.destination, result);
    if (scc == Scc::nonzero) wave.scc = result != 0;
  };
}
template <Scc scc, class F>
constexpr Handler count64(F) {  // 64 bits to 32
  return [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = F{}(source64(wave, i, 0));
    if (scc == Scc::nonzero) wave.scc = wave.s[i.destination] != 0;
  };
}
template <Scc scc, class F>
constexpr Handler binary32(F) {
  return [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = F{}(source32(wave, i, 0), source32(wave, i, 1));
    if (scc == Scc::nonzero) wave.scc = wave.s[i.destination] != 0;
  };
}
template <Scc scc, class F>
constexpr Handler binary64(F) {
  return [](Wave &wave, const Instruction &i) {
    const uint64_t result = F{}(source64(wave, i, 0), source64(wave, i, 1));
    wave.set_pair(i.destination, result);
    if (scc == Scc::nonzero) wave.scc = result != 0;
  };
}
template <Scc scc, class F>
constexpr Handler shift64(F) {  // 64 bits by 32
  return [](Wave &wave, const Instruction &i) {
    const uint64_t result = F{}(source64(wave, i, 0), source32(wave, i, 1));
    wave.set_pair(i.destination, result);
    if (scc == Scc::nonzero) wave.scc = result != 0;
  };
}
template <class F>
constexpr Handler with_scc(F) {  // the function gets SCC and changes it
  return [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = F{}(source32(wave, i, 0), source32(wave, i, 1), wave.scc);
  };
}
template <class F>
constexpr Handler compare32(F) {
  return [](Wave &wave, const Instruction &i) {
    wave.scc = F{}(source32(wave, i, 0), source32(wave, i, 1));
  };
}
template <class F>
constexpr Handler compare_constant(F) {
  return [](Wave &wave, const Instruction &i) {
    wave.scc = F{}(wave.s[i.destination], static_cast<uint32_t>(i.immediate));
  };
}
template <class F>
constexpr Handler save_exec(F) {  // D = EXEC, EXEC = f(S0, EXEC)
  return [](Wave &wave, const Instruction &i) {
    const uint64_t old = wave.exec_mask(), now = F{}(source64(wave, i, 0), old);
    wave.set_pair(exec, now);
    wave.set_pair(i.destination, old);
    wave.scc = now != 0;
  };
}
template <class F>
constexpr Handler write_exec(F) {  // EXEC = D = f(S0, EXEC)
  return [](Wave &wave, const Instruction &i) {
    const uint64_t now = F{}(source64(wave, i, 0), wave.exec_mask());
    wave.set_pair(exec, now);
    wave.set_pair(i.destination, now);
    wave.scc = now != 0;
  };
}

uint64_t whole_quads(uint64_t x) {
  uint64_t result = 0;
  for (int i = 0; i < 64; i += 4)
    if (x >> i & 15) result |= 15ull << i;
  return result;
}
uint64_t quad_mask(uint64_t x) {
  uint64_t result = 0;
  for (int i = 0; i < 16; i++)
    if (x >> (4 * i) & 15) result |= 1ull << i;
  return result;
}
uint64_t replicate_bits(uint32_t x) {
  uint64_t result = 0;
  for (int i = 0; i < 32; i++)
    if (x >> i & 1) result |= 3ull << (2 * i);
  return result;
}

void add_sums_and_products(Bindings &b) {
  b.add("s_add_u32",
        with_scc([](uint32_t x, uint32_t y, bool &scc) { return scc = x + y < x, x + y; }));
  b.add("s_sub_u32",
        with_scc([](uint32_t x, uint32_t y, bool &scc) { return scc = y > x, x - y; }));
  b.add("s_add_i32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          return scc = (~(x ^ y) & (x ^ (x + y))) >> 31, x + y;
        }));
  b.add("s_sub_i32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          return scc = ((x ^ y) & (x ^ (x - y))) >> 31, x - y;
        }));
  b.add("s_addc_u32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          const uint64_t sum = uint64_t{x} + y + scc;
          return scc = sum >> 32, static_cast<uint32_t>(sum);
        }));
  b.add("s_subb_u32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          const uint64_t taken = uint64_t{y} + scc;
          return scc = taken > x, static_cast<uint32_t>(x - taken);
        }));
  b.add("s_min_i32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          return (scc = as_signed(x) < as_signed(y)) ? x : y;
        }));
  b.add("s_min_u32",
        with_scc([](uint32_t x, uint32_t y, bool &scc) { return (scc = x < y) ? x : y; }));
  b.add("s_max_i32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          return (scc = as_signed(x) > as_signed(y)) ? x : y;
        }));
  b.add("s_max_u32",
        with_scc([](uint32_t x, uint32_t y, bool &scc) { return (scc = x > y) ? x : y; }));
  b.add("s_lshl1_add_u32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          const uint64_t sum = (uint64_t{x} << 1) + y;
          return scc = sum >> 32, static_cast<uint32_t>(sum);
        }));
  b.add("s_lshl2_add_u32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          const uint64_t sum = (uint64_t{x} << 2) + y;
          return scc = sum >> 32, static_cast<uint32_t>(sum);
        }));
  b.add("s_lshl3_add_u32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          const uint64_t sum = (uint64_t{x} << 3) + y;
          return scc = sum >> 32, static_cast<uint32_t>(sum);
        }));
  b.add("s_lshl4_add_u32", with_scc([](uint32_t x, uint32_t y, bool &scc) {
          const uint64_t sum = (uint64_t{x} << 4) + y;
          return scc = sum >> 32, static_cast<uint32_t>(sum);
        }));
  b.add("s_mul_i32", binary32<Scc::kept>([](uint32_t x, uint32_t y) { return x * y; }));
  b.add("s_mul_hi_u32", binary32<Scc::kept>([](uint32_t x, uint32_t y) {
          return static_cast<uint32_t>(uint64_t{x} * y >> 32);
        }));
  b.add("s_mul_hi_i32", binary32<Scc::kept>([](uint32_t x, uint32_t y) {
          return as_unsigned(int64_t{as_signed(x)} * as_signed(y) >> 32);
        }));
  b.add("s_absdiff_i32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) {
          return as_unsigned(std::abs(int64_t{as_signed(x)} - as_signed(y)));
        }));
  b.add("s_abs_i32",
        unary32<Scc::nonzero>([](uint32_t x) { return as_signed(x) < 0 ? 0 - x : x; }));
}

template <class F>
void add_logic(Bindings &b, const std::string &name, F) {
  b.add("s_" + name + "_b32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) {
          return static_cast<uint32_t>(F{}(x, y));
        }));
  b.add("s_" + name + "_b64", binary64<Scc::nonzero>(F{}));
  b.add("s_" + name + "_saveexec_b64", save_exec(F{}));
}

void add_bits(Bindings &b) {
  add_logic(b, "and", [](uint64_t x, uint64_t y) { return x & y; });
  add_logic(b, "or", [](uint64_t x, uint64_t y) { return x | y; });
  add_logic(b, "xor", [](uint64_t x, uint64_t y) { return x ^ y; });
  add_logic(b, "andn2", [](uint64_t x, uint64_t y) { return x & ~y; });
  add_logic(b, "orn2", [](uint64_t x, uint64_t y) { return x | ~y; });
  add_logic(b, "nand", [](uint64_t x, uint64_t y) { return ~(x & y); });
  add_logic(b, "nor", [](uint64_t x, uint64_t y) { return ~(x | y); });
  add_logic(b, "xnor", [](uint64_t x, uint64_t y) { return ~(x ^ y); });
  b.add("s_andn1_saveexec_b64", save_exec([](uint64_t x, uint64_t e) { return ~x & e; }));
  b.add("s_orn1_saveexec_b64", save_exec([](uint64_t x, uint64_t e) { return ~x | e; }));
  b.add("s_andn1_wrexec_b64", write_exec([](uint64_t x, uint64_t e) { return ~x & e; }));
  b.add("s_andn2_wrexec_b64", write_exec([](uint64_t x, uint64_t e) { return x & ~e; }));
  b.add("s_lshl_b32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) { return x << (y & 31); }));
  b.add("s_lshr_b32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) { return x >> (y & 31); }));
  b.add("s_ashr_i32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) {
          return as_unsigned(as_signed(x) >> (y & 31));
        }));
  b.add("s_lshl_b64", shift64<Scc::nonzero>([](uint64_t x, uint32_t y) { return x << (y & 63); }));
  b.add("s_lshr_b64", shift64<Scc::nonzero>([](uint64_t x, uint32_t y) { return x >> (y & 63); }));
  b.add("s_ashr_i64", shift64<Scc::nonzero>([](uint64_t x, uint32_t y) {
          return static_cast<uint64_t>(static_cast<int64_t>(x) >> (y & 63));
        }));
  b.add("s_bfm_b32", binary32<Scc::kept>([](uint32_t x, uint32_t y) {
          return bit_mask<uint32_t>(x & 31, y & 31);
        }));
  b.add("s_bfm_b64", shift64<Scc::kept>([](uint64_t x, uint32_t y) {
          return bit_mask<uint64_t>(x & 63, y & 63);
        }));
  b.add("s_bfe_u32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) {
          return extract_unsigned(x, y & 31, y >> 16 & 127);
        }));
  b.add("s_bfe_i32", binary32<Scc::nonzero>([](uint32_t x, uint32_t y) {
          return extract_signed(x, y & 31, y >> 16 & 127);
        }));
  b.add("s_bfe_u64", shift64<Scc::nonzero>([](uint64_t x, uint32_t y) {
          return extract_unsigned(x, y & 63, y >> 16 & 127);
        }));
  b.add("s_bfe_i64", shift64<Scc::nonzero>([](uint64_t x, uint32_t y) {
          return extract_signed(x, y & 63, y >> 16 & 127);
        }));
  b.add("s_pack_ll_b32_b16",
        binary32<Scc::kept>([](uint32_t x, uint32_t y) { return y << 16 | (x & 0xffff); }));
  b.add("s_pack_lh_b32_b16", binary32<Scc::kept>([](uint32_t x, uint32_t y) {
          return (y & 0xffff0000u) | (x & 0xffff);
        }));
  b.add("s_pack_hh_b32_b16",
        binary32<Scc::kept>([](uint32_t x, uint32_t y) { return (y & 0xffff0000u) | x >> 16; }));
  b.add("s_bitreplicate_b64_b32", [](Wave &wave, const Instruction &i) {
    wave.set_pair(i.destination, replicate_bits(source32(wave, i, 0)));
  });
  b.add("s_bitset0_b32", [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] &= ~(1u << (source32(wave, i, 0) & 31));
  });
  b.add("s_bitset1_b32", [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] |= 1u << (source32(wave, i, 0) & 31);
  });
  b.add("s_bitset0_b64", [](Wave &wave, const Instruction &i) {
    wave.set_pair(i.destination, wave.pair(i.destination) & ~(1ull << (source32(wave, i, 0) & 63)));
  });
  b.add("s_bitset1_b64", [](Wave &wave, const Instruction &i) {
    wave.set_pair(i.destination, wave.pair(i.destination) | 1ull << (source32(wave, i, 0) & 63));
  });
}

void add_unary(Bindings &b) {
  b.add("s_mov_b32", unary32<Scc::kept>([](uint32_t x) { return x; }));
  b.add("s_mov_b64", unary64<Scc::kept>([](uint64_t x) { return x; }));
  b.add("s_not_b32", unary32<Scc::nonzero>([](uint32_t x) { return ~x; }));
  b.add("s_not_b64", unary64<Scc::nonzero>([](uint64_t x) { return ~x; }));
  b.add("s_wqm_b32",
        unary32<Scc::nonzero>([](uint32_t x) { return static_cast<uint32_t>(whole_quads(x)); }));
  b.add("s_wqm_b64", unary64<Scc::nonzero>([](uint64_t x) { return whole_quads(x); }));
  b.add("s_quadmask_b32",
        unary32<Scc::nonzero>([](uint32_t x) { return static_cast<uint32_t>(quad_mask(x)); }));
  b.add("s_quadmask_b64", unary64<Scc::nonzero>([](uint64_t x) { return quad_mask(x); }));
  b.add("s_brev_b32", unary32<Scc::kept>([](uint32_t x) { return reverse_bits(x); }));
  b.add("s_brev_b64", unary64<Scc::kept>([](uint64_t x) { return reverse_bits(x); }));
  b.add("s_sext_i32_i8",
        unary32<Scc::kept>([](uint32_t x) { return as_unsigned(static_cast<int8_t>(x)); }));
  b.add("s_sext_i32_i16", unary32<Scc::kept>([](uint32_t x) { return as_unsigned(signed16(x)); }));
  b.add("s_bcnt0_i32_b32",
        unary32<Scc::nonzero>([](uint32_t x) { return as_unsigned(std::popcount(~x)); }));
  b.add("s_bcnt1_i32_b32",
        unary32<Scc::nonzero>([](uint32_t x) { return as_unsigned(std::popcount(x)); }));
  b.add("s_bcnt0_i32_b64",
        count64<Scc::nonzero>([](uint64_t x) { return as_unsigned(std::popcount(~x)); }));
  b.add("s_bcnt1_i32_b64",
        count64<Scc::nonzero>([](uint64_t x) { return as_unsigned(std::popcount(x)); }));
  b.add("s_ff0_i32_b32", unary32<Scc::kept>([](uint32_t x) { return first_one(~x); }));
  b.add("s_ff1_i32_b32", unary32<Scc::kept>([](uint32_t x) { return first_one(x); }));
  b.add("s_ff0_i32_b64", count64<Scc::kept>([](uint64_t x) { return first_one(~x); }));
  b.add("s_ff1_i32_b64", count64<Scc::kept>([](uint64_t x) { return first_one(x); }));
  b.add("s_flbit_i32_b32", unary32<Scc::kept>([](uint32_t x) { return leading_one(x); }));
  b.add("s_flbit_i32_b64", count64<Scc::kept>([](uint64_t x) { return leading_one(x); }));
  b.add("s_flbit_i32", unary32<Scc::kept>([](uint32_t x) { return leading_non_sign(x); }));
  b.add("s_flbit_i32_i64", count64<Scc::kept>([](uint64_t x) { return leading_non_sign(x); }));
}

void add_moves_under_scc(Bindings &b) {
  b.add("s_cselect_b32", [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = source32(wave, i, wave.scc ? 0 : 1);
  });
  b.add("s_cselect_b64", [](Wave &wave, const Instruction &i) {
    wave.set_pair(i.destination, source64(wave, i, wave.scc ? 0 : 1));
  });
  b.add("s_cmov_b32", [](Wave &wave, const Instruction &i) {
    if (wave.scc) wave.s[i.destination] = source32(wave, i, 0);
  });
  b.add("s_cmov_b64", [](Wave &wave, const Instruction &i) {
    if (wave.scc) wave.set_pair(i.destination, source64(wave, i, 0));
  });
  b.add("s_cmovk_i32", [](Wave &wave, const Instruction &i) {
    if (wave.scc) wave.s[i.destination] = static_cast<uint32_t>(i.immediate);
  });
  b.add("s_movrels_b32", [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = wave.s[(i.source[0] + wave.s[m0]) & 127];
  });
  b.add("s_movreld_b32", [](Wave &wave, const Instruction &i) {
    wave.s[(i.destination + wave.s[m0]) & 127] = source32(wave, i, 0);
  });
  b.add("s_movrels_b64", [](Wave &wave, const Instruction &i) {
    wave.set_pair(i.destination, wave.pair((i.source[0] + wave.s[m0]) & 126));
  });
  b.add("s_movreld_b64", [](Wave &wave, const Instruction &i) {
    wave.set_pair((i.destination + wave.s[m0]) & 126, source64(wave, i, 0));
  });
}

template <class F, class G>
void add_comparison(Bindings &b, const std::string &name, F, G) {  // of signed, of unsigned
  b.add("s_cmp_" + name + "_i32", compare32(F{}));
  b.add("s_cmp_" + name + "_u32", compare32(G{}));
  b.add("s_cmpk_" + name + "_i32", compare_constant(F{}));
  b.add("s_cmpk_" + name + "_u32",
        compare_constant([](uint32_t x, uint32_t k) { return G{}(x, k & 0xffff); }));
}

void add_comparisons(Bindings &b) {
  auto equal = [](uint32_t x, uint32_t y) { return x == y; };
  auto different = [](uint32_t x, uint32_t y) { return x != y; };
  add_comparison(b, "eq", equal, equal);
  add_comparison(b, "lg", different, different);
  add_comparison(
      b, "gt", [](uint32_t x, uint32_t y) { return as_signed(x) > as_signed(y); },
      [](uint32_t x, uint32_t y) { return x > y; });
  add_comparison(
      b, "ge", [](uint32_t x, uint32_t y) { return as_signed(x) >= as_signed(y); },
      [](uint32_t x, uint32_t y) { return x >= y; });
  add_comparison(
      b, "lt", [](uint32_t x, uint32_t y) { return as_signed(x) < as_signed(y); },
      [](uint32_t x, uint32_t y) { return x < y; });
  add_comparison(
      b, "le", [](uint32_t x, uint32_t y) { return as_signed(x) <= as_signed(y); },
      [](uint32_t x, uint32_t y) { return x <= y; });
  b.add("s_bitcmp0_b32", compare32([](uint32_t x, uint32_t y) { return !(x >> (y & 31) & 1); }));
  b.add("s_bitcmp1_b32", compare32([](uint32_t x, uint32_t y) { return x >> (y & 31) & 1; }));
  b.add("s_cmp_eq_u64", [](Wave &wave, const Instruction &i) {
    wave.scc = source64(wave, i, 0) == source64(wave, i, 1);
  });
  b.add("s_cmp_lg_u64", [](Wave &wave, const Instruction &i) {
    wave.scc = source64(wave, i, 0) != source64(wave, i, 1);
  });
  b.add("s_bitcmp0_b64", [](Wave &wave, const Instruction &i) {
    wave.scc = !(source64(wave, i, 0) >> (source32(wave, i, 1) & 63) & 1);
  });
  b.add("s_bitcmp1_b64", [](Wave &wave, const Instruction &i) {
    wave.scc = source64(wave, i, 0) >> (source32(wave, i, 1) & 63) & 1;
  });
}

void add_constants(Bindings &b) {
  b.add("s_movk_i32", [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] = static_cast<uint32_t>(i.immediate);
  });
  b.add("s_mulk_i32", [](Wave &wave, const Instruction &i) {
    wave.s[i.destination] *= static_cast<uint32_t>(i.immediate);
  });
  b.add("s_addk_i32", [](Wave &wave, const Instruction &i) {
    const uint32_t x = wave.s[i.destination], y = static_cast<uint32_t>(i.immediate);
    wave.scc = (~(x ^ y) & (x ^ (x + y))) >> 31;
    wave.s[i.destination] = x + y;
  });
}

}  // namespace

void add_scalar_arithmetic(Bindings &b) {
  add_sums_and_products(b);
  add_bits(b);
  add_unary(b);
  add_moves_under_scc(b);
  add_comparisons(b);
  add_constants(b);
}

}  // namespace emu
