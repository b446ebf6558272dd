// SPDX-License-Identifier: Apache-2.0
#include "ffi/decode_sm90.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "kernels/decode_sm90.h"

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr int64_t kLinesOfRow = 9;
constexpr int64_t kStageKeys = 16;

int Saturate(int64_t x) {
  return static_cast<int>(std::min<int64_t>(x, std::numeric_limits<int>::max()));
}

int64_t CountRows(const DecodeCall& call) { return call.q_len * call.plan.heads; }
int64_t TileRows(const DecodeCall& call) { return CountRows(call) <= 8 ? 8 : 16; }
int64_t CountTiles(const DecodeCall& call) {
  return (CountRows(call) + TileRows(call) - 1) / TileRows(call);
}

// More than a few parts are merged by many waves. With fixed splits the bits of a sum must not
// depend on the batch, so nor does the number of waves.
int MergeWaves(const DecodeCall& call, const Sm90Parts& parts) {
  constexpr int64_t kFew = 8;
  const int64_t jobs = std::max<int64_t>(call.batch * CountTiles(call), 1);
  const int64_t expected = parts.num_splits > 0 ? parts.num_splits : parts.workers / jobs;
  return expected > kFew ? kSm90MergeThreads / 32 : 1;
}

DecodeSm90Arguments MakeArguments(const DecodeCall& call, const Workspace& workspace,
                                  const Sm90Parts& parts, float scale) {
  DecodeSm90Arguments a = {};
  a.q = call.q;
  a.lengths = call.lengths;
  a.page_indices = call.page_indices;
  a.q_scale = call.q_scale;
  a.kv_scale = call.kv_scale;
  a.partial = reinterpret_cast<float*>(call.workspace + workspace.partial);
  a.partial_lse = reinterpret_cast<float*>(call.workspace + workspace.partial_lse);
  a.out = call.out;
  a.lse = call.lse;
  a.scale = scale;
  a.batch = static_cast<int>(call.batch);
  a.q_len = static_cast<int>(call.q_len);
  a.heads = static_cast<int>(call.plan.heads);
  a.tile_rows = static_cast<int>(TileRows(call));
  a.num_splits = static_cast<int>(parts.num_splits);
  a.workers = static_cast<int>(parts.workers);
  a.pages = static_cast<int>(call.pages);
  a.page_size = static_cast<int>(call.page_size);
  a.pages_per_seq = static_cast<int>(call.pages_per_seq);
  a.capacity = Saturate(call.capacity());
  a.merge_waves = MergeWaves(call, parts);
  a.box_keys = static_cast<int>(std::gcd(call.page_size, kStageKeys));
  return a;
}

Status LaunchStage1(const Launcher& launcher, const DecodeCall& call, DecodeSm90Arguments& a,
                    int64_t partial_rows) {
  const size_t row_bytes = call.width * ffi::ByteWidth(call.kv_dtype);
  const auto line_bytes = static_cast<uint32_t>(row_bytes / kLinesOfRow);
  const Status status =
      launcher.MapLines(call.kv_pages, call.tokens() * kLinesOfRow, line_bytes,
                        static_cast<uint32_t>(a.box_keys * kLinesOfRow), &a.kv_lines);
  if (!status.ok()) return status;
  const auto tiles = static_cast<uint32_t>(CountTiles(call));
  const Grid grid = a.num_splits > 0 ? Grid{static_cast<uint32_t>(a.num_splits), tiles,
                                            static_cast<uint32_t>(a.batch)}
                                     : Grid{static_cast<uint32_t>(a.workers), 1, 1};
  const size_t rows = call.batch * CountRows(call), out_bytes = ffi::ByteWidth(call.out_dtype);
  const std::string name = std::string("jax_mla_decode_sm90_") +
                           DtypeName(call.q_dtype, call.kv_dtype) + "_" +
                           std::to_string(a.tile_rows);
  return launcher.Launch(
      "decode_sm90", name.c_str(), grid, {kSm90Threads, kSm90SharedBytes}, a,
      {{"q", a.q, rows * call.width * ffi::ByteWidth(call.q_dtype), Extent::kRead},
       {"kv_pages", call.kv_pages, call.tokens() * row_bytes, Extent::kRead},
       {"lengths", a.lengths, call.batch * sizeof(int), Extent::kRead},
       {"page_indices", a.page_indices, call.batch * call.pages_per_seq * sizeof(int),
        Extent::kRead},
       {"q_scale", a.q_scale, sizeof(float), Extent::kRead},
       {"kv_scale", a.kv_scale, sizeof(float), Extent::kRead},
       {"partial", a.partial, partial_rows * kSm90Latent * sizeof(float), Extent::kWrite},
       {"partial_lse", a.partial_lse, partial_rows * sizeof(float), Extent::kWrite},
       {"out", a.out, rows * kSm90Latent * out_bytes, Extent::kWrite},
       {"lse", a.lse, rows * sizeof(float), Extent::kWrite}});
}

Status LaunchStage2(const Launcher& launcher, const DecodeCall& call, const DecodeSm90Arguments& a,
                    int64_t partial_rows) {
  constexpr int kBlockWaves = kSm90MergeThreads / 32;
  const int waves = a.heads * kSm90MergeChunks * a.merge_waves;
  const Grid grid{static_cast<uint32_t>((waves + kBlockWaves - 1) / kBlockWaves),
                  static_cast<uint32_t>(a.q_len), static_cast<uint32_t>(a.batch)};
  const size_t rows = call.batch * CountRows(call), out_bytes = ffi::ByteWidth(call.out_dtype);
  const char* name =
      call.out_dtype == ffi::DataType::F16 ? "jax_mla_merge_sm90_f16" : "jax_mla_merge_sm90_bf16";
  return launcher.Launch(
      "decode_sm90", name, grid, {kSm90MergeThreads, 0, true}, a,
      {{"lengths", a.lengths, call.batch * sizeof(int), Extent::kRead},
       {"kv_scale", a.kv_scale, sizeof(float), Extent::kRead},
       {"partial", a.partial, partial_rows * kSm90Latent * sizeof(float), Extent::kRead},
       {"partial_lse", a.partial_lse, partial_rows * sizeof(float), Extent::kRead},
       {"out", a.out, rows * kSm90Latent * out_bytes, Extent::kWrite},
       {"lse", a.lse, rows * sizeof(float), Extent::kWrite}});
}

}  // namespace

int64_t CountSm90PartialRows(const DecodeCall& call, const Sm90Parts& parts) {
  const int64_t jobs = call.batch * CountTiles(call);
  const int64_t count = parts.num_splits > 0 ? jobs * parts.num_splits : jobs + parts.workers;
  return count * TileRows(call);
}

ffi::Error CheckSm90(const DecodeCall& call, const Sm90Parts& parts) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  const int64_t blocks = (call.capacity() + kSm90Keys - 1) / kSm90Keys;
  if ((parts.num_splits > 0) == (parts.workers > 0)) {
    return InvalidArgument("jax_mla decode: expected either num_kv_splits or workers, got ",
                           parts.num_splits, " and ", parts.workers);
  }
  if (call.width != kSm90Width || call.latent_dim != kSm90Latent) {
    return InvalidArgument("jax_mla decode: the kernels for sm_90 take rows of ", kSm90Width,
                           " with ", kSm90Latent, " of latent, got ", call.width, " with ",
                           call.latent_dim);
  }
  if (call.kv_dtype == ffi::DataType::F8E4M3FN && call.page_size % 2 != 0) {
    return InvalidArgument("jax_mla decode: the kernels for sm_90 take an fp8 cache with an even "
                           "page_size, got ",
                           call.page_size);
  }
  if (call.tokens() > kMost / kLinesOfRow ||
      (call.batch > 0 && blocks > kMost / (call.batch * CountTiles(call)))) {
    return InvalidArgument("jax_mla decode: the kernels for sm_90 take fewer than 2^31 lines of "
                           "cache and blocks of keys, got ",
                           call.tokens(), " keys and ", call.batch, " sequences of ",
                           call.capacity());
  }
  return ffi::Error::Success();
}

Status LaunchDecodeSm90(const Launcher& launcher, const DecodeCall& call,
                        const Workspace& workspace, const Sm90Parts& parts, float scale) {
  if (call.batch == 0 || CountRows(call) == 0) return {};
  const int64_t partial_rows = CountSm90PartialRows(call, parts);
  DecodeSm90Arguments arguments = MakeArguments(call, workspace, parts, scale);
  const Status status = LaunchStage1(launcher, call, arguments, partial_rows);
  return status.ok() ? LaunchStage2(launcher, call, arguments, partial_rows) : status;
}

}  // namespace jax_mla
