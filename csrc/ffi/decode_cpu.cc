// SPDX-License-Identifier: Apache-2.0
// jax_mla_decode_kernel_cpu_v1: decodes the call, cuts it into pieces, and lets XLA's threads and
// the calling one take them.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "cpu/dispatch.h"
#include "ffi/buffers.h"
#include "ffi/handlers.h"

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

std::optional<cpu::Dtype> DtypeOf(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::DataType::F32: return cpu::Dtype::kFloat32;
    case ffi::DataType::BF16: return cpu::Dtype::kBfloat16;
    case ffi::DataType::F16: return cpu::Dtype::kFloat16;
    case ffi::DataType::F8E4M3FN: return cpu::Dtype::kFloat8E4M3FN;
    case ffi::DataType::F8E4M3FNUZ: return cpu::Dtype::kFloat8E4M3FNUZ;
    default: return std::nullopt;
  }
}

bool IsFloat8(cpu::Dtype dtype) {
  return dtype == cpu::Dtype::kFloat8E4M3FN || dtype == cpu::Dtype::kFloat8E4M3FNUZ;
}

struct Call {
  const char* q;  // [batch, rows, width]
  const void* kv_pages;
  const int32_t* lengths;
  const int32_t* page_indices;
  char* out;  // [batch, rows, latent_dim]
  float* lse;
  float* workspace;  // [slots, splits, rows, Pitch(latent_dim)], sequences in turn
  cpu::Dtype q_dtype, kv_dtype, out_dtype;
  int64_t q_bytes, out_bytes;  // of a number
  int64_t batch, q_len, heads, width, latent_dim, pages, page_size, pages_per_seq;
  int64_t slots;        // sequences that may be under way
  int64_t splits;       // parts of a sequence, at most
  int64_t part_tokens;  // a part has no fewer, but a sequence's last
  float factor;         // from q . k to the exponent of 2
  float value_scale;

  int64_t rows() const { return q_len * heads; }
  int64_t length(int64_t sequence) const {
    return std::clamp<int64_t>(lengths[sequence], 0, pages_per_seq * page_size);
  }
};

// Memory of a thread, which grows and stays.
class Scratch {
 public:
  void* AtLeast(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > bytes_) {
      memory_.reset(std::aligned_alloc(64, bytes));
      bytes_ = memory_ ? bytes : 0;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t bytes_ = 0;
};

// The pieces of a call: parts of a sequence's keys, for a tile of its rows. How a sequence is cut
// depends on its own length alone, so neither the batch nor the threads change a bit.
class Pieces {
 public:
  Pieces(const Call& call, const cpu::Kernel& kernel)
      : call_(call), kernel_(kernel), tiles_((call.rows() + cpu::kRowTile - 1) / cpu::kRowTile) {
    for (int64_t sequence = 0; sequence < call.batch; ++sequence) {
      const int64_t tokens = PartTokens(sequence);
      const int64_t parts = std::max<int64_t>(1, (call.length(sequence) + tokens - 1) / tokens);
      first_piece_.push_back(count_);
      parts_.push_back(parts);
      count_ += parts * tiles_;
    }
    left_ = std::vector<std::atomic<int64_t>>(call.batch * tiles_);
    for (size_t i = 0; i < left_.size(); ++i) left_[i] = parts_[i / tiles_];
    tiles_left_ = std::vector<std::atomic<int64_t>>(call.batch);
    for (auto& left : tiles_left_) left = tiles_;
  }

  int64_t count() const { return count_; }
  bool failed() const { return failed_; }

  // Takes pieces until there are none left. While there are many, the next one before the one at
  // hand is done: its first keys are fetched meanwhile.
  void Work(int64_t threads) {
    for (int64_t piece = next_.fetch_add(1); piece < count_;) {
      const bool many = count_ - next_.load() > 2 * threads;
      const int64_t following = many ? next_.fetch_add(1) : count_;
      Run(piece, following);
      done_.fetch_add(1, std::memory_order_release);
      piece = many ? following : next_.fetch_add(1);
    }
  }

  // Until the pieces that others have taken are done too. A thread that comes late finds none, so
  // nobody waits for one that has not begun.
  void Wait() const {
    while (done_.load(std::memory_order_acquire) < count_) std::this_thread::yield();
  }

 private:
  int64_t PartTokens(int64_t sequence) const {
    const int64_t even = (call_.length(sequence) + call_.splits - 1) / call_.splits;
    const int64_t tokens = std::max(even, call_.part_tokens);
    return (tokens + cpu::kBlockTokens - 1) / cpu::kBlockTokens * cpu::kBlockTokens;
  }

  float* Partial(int64_t sequence, int64_t part, int64_t row) const {
    const int64_t index = (sequence % call_.slots * call_.splits + part) * call_.rows() + row;
    return call_.workspace + index * cpu::Pitch(call_.latent_dim);
  }

  struct Piece {
    int64_t sequence, part, tile;
  };

  Piece Find(int64_t piece) const {
    const auto after = std::upper_bound(first_piece_.begin(), first_piece_.end(), piece);
    const int64_t sequence = after - first_piece_.begin() - 1;
    const int64_t within = piece - first_piece_[sequence];
    return {sequence, within / tiles_, within % tiles_};
  }

  void Run(int64_t index, int64_t following) {
    static thread_local Scratch scratch;
    const Piece piece = Find(index);
    cpu::Part part = Describe(piece), next;
    if (following < count_) {
      next = Describe(Find(following));
      part.next = &next;
    }
    part.scratch = scratch.AtLeast(cpu::ScratchBytes(call_.width));
    AwaitSlot(piece.sequence);
    if (part.scratch != nullptr) {
      kernel_.decode(part);
    } else {
      failed_ = true;
    }
    if (left_[piece.sequence * tiles_ + piece.tile].fetch_sub(1, std::memory_order_acq_rel) == 1) {
      Merge(piece.sequence, piece.tile);
      tiles_left_[piece.sequence].fetch_sub(1, std::memory_order_release);
    }
  }

  // Until the sequence that had the slot before is merged. Its pieces were taken earlier, and
  // whoever has the earliest piece there is waits for nobody.
  void AwaitSlot(int64_t sequence) const {
    const int64_t before = sequence - call_.slots;
    while (before >= 0 && tiles_left_[before].load(std::memory_order_acquire) > 0) {
      std::this_thread::yield();
    }
  }

  cpu::Part Describe(const Piece& piece) const {
    const int64_t sequence = piece.sequence, first_row = piece.tile * cpu::kRowTile;
    const int64_t length = call_.length(sequence), tokens = PartTokens(sequence);
    cpu::Part p = {};
    p.q = call_.q + (sequence * call_.rows() + first_row) * call_.width * call_.q_bytes;
    p.kv_pages = call_.kv_pages;
    p.page_indices = call_.page_indices + sequence * call_.pages_per_seq;
    p.q_dtype = call_.q_dtype;
    p.kv_dtype = call_.kv_dtype;
    p.pages = call_.pages;
    p.page_size = call_.page_size;
    p.width = call_.width;
    p.latent_dim = call_.latent_dim;
    p.begin = piece.part * tokens;
    p.end = std::min(length, p.begin + tokens);
    p.rows = static_cast<int>(std::min<int64_t>(cpu::kRowTile, call_.rows() - first_row));
    for (int i = 0; i < p.rows; ++i) {
      p.visible[i] = length - call_.q_len + 1 + (first_row + i) / call_.heads;
    }
    p.factor = call_.factor;
    p.partial = Partial(sequence, piece.part, first_row);
    return p;
  }

  void Merge(int64_t sequence, int64_t tile) {
    const int64_t pitch = cpu::Pitch(call_.latent_dim);
    const int64_t end = std::min((tile + 1) * cpu::kRowTile, call_.rows());
    for (int64_t row = tile * cpu::kRowTile; row < end; ++row) {
      const int64_t index = sequence * call_.rows() + row;
      kernel_.merge({Partial(sequence, 0, row), call_.rows() * pitch, parts_[sequence],
                     call_.latent_dim, call_.value_scale, call_.out_dtype,
                     call_.out + index * call_.latent_dim * call_.out_bytes, call_.lse + index});
    }
  }

  const Call call_;
  const cpu::Kernel& kernel_;
  const int64_t tiles_;
  std::vector<int64_t> first_piece_, parts_;  // of each sequence
  std::vector<std::atomic<int64_t>> left_;    // parts that a tile of a sequence waits for
  std::vector<std::atomic<int64_t>> tiles_left_;  // of a sequence, that are not merged yet
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0}, done_{0};
  std::atomic<bool> failed_{false};
};

ffi::Error Check(bool fits, const char* what) {
  return fits ? ffi::Error::Success() : InvalidArgument("jax_mla decode: ", what);
}

// Scales are operands where q, then kv_pages, are float8.
ffi::Error DecodeCpu(ffi::ThreadPool threads, ffi::AnyBuffer q, ffi::AnyBuffer kv_pages,
                     ffi::AnyBuffer lengths, ffi::AnyBuffer page_indices,
                     ffi::RemainingArgs scales, ffi::Result<ffi::AnyBuffer> out,
                     ffi::Result<ffi::AnyBuffer> lse, ffi::Result<ffi::AnyBuffer> workspace,
                     int64_t num_kv_splits, int64_t part_tokens, float scale) {
  const cpu::Kernel* kernel = cpu::ChosenKernel();
  if (kernel == nullptr) {
    return FailedPrecondition("decode", Status::Failure("this machine has no AVX2"));
  }
  JAX_MLA_RETURN_IF_ERROR(CheckBuffer("decode", "q", q, {kAny, kAny, kAny, kAny}, {}));
  const auto dims = q.dimensions();
  Call call = {};
  call.batch = dims[0];
  call.q_len = dims[1];
  call.heads = dims[2];
  call.width = dims[3];
  JAX_MLA_RETURN_IF_ERROR(
      CheckBuffer("decode", "kv_pages", kv_pages, {kAny, kAny, call.width}, {}));
  call.pages = kv_pages.dimensions()[0];
  call.page_size = kv_pages.dimensions()[1];
  constexpr auto kI32 = ffi::DataType::S32;
  JAX_MLA_RETURN_IF_ERROR(CheckBuffer("decode", "lengths", lengths, {call.batch}, kI32));
  JAX_MLA_RETURN_IF_ERROR(
      CheckBuffer("decode", "page_indices", page_indices, {call.batch, kAny}, kI32));
  call.pages_per_seq = page_indices.dimensions()[1];

  const auto q_dtype = DtypeOf(q.element_type()), kv_dtype = DtypeOf(kv_pages.element_type());
  JAX_MLA_RETURN_IF_ERROR(Check(q_dtype && kv_dtype, "q, kv_pages: no such dtype"));
  call.q_dtype = *q_dtype;
  call.kv_dtype = *kv_dtype;
  call.out_dtype = IsFloat8(call.q_dtype) ? cpu::Dtype::kBfloat16 : call.q_dtype;
  const auto out_dtype = IsFloat8(call.q_dtype) ? ffi::DataType::BF16 : q.element_type();
  JAX_MLA_RETURN_IF_ERROR(
      CheckBuffer("decode", "out", *out, {call.batch, call.q_len, call.heads, kAny}, out_dtype));
  call.latent_dim = out->dimensions()[3];
  JAX_MLA_RETURN_IF_ERROR(CheckBuffer("decode", "lse", *lse, {call.batch, call.q_len, call.heads},
                                      ffi::DataType::F32));
  JAX_MLA_RETURN_IF_ERROR(
      Check(call.latent_dim > 0 && call.latent_dim <= call.width &&
                call.latent_dim % cpu::kColumnTile == 0 && call.width % (cpu::kColumnTile / 2) == 0,
            "expected a latent_dim that is a multiple of 64, and a width that is one of 32"));
  JAX_MLA_RETURN_IF_ERROR(Check(call.pages > 0 && call.page_size > 0, "kv_pages: empty"));
  JAX_MLA_RETURN_IF_ERROR(Check(num_kv_splits > 0 && part_tokens > 0,
                                "num_kv_splits, part_tokens: expected positive numbers"));
  call.splits = num_kv_splits;
  call.part_tokens = part_tokens;
  JAX_MLA_RETURN_IF_ERROR(
      CheckBuffer("decode", "workspace", *workspace, {kAny}, ffi::DataType::U8));
  const int64_t bytes = workspace->element_count();
  const int64_t slot = call.splits * call.rows() * cpu::Pitch(call.latent_dim) * 4;
  call.slots = slot > 0 ? bytes / slot : 0;
  if (call.slots * slot != bytes || (call.slots == 0 && call.batch * call.rows() > 0)) {
    return InvalidArgument("jax_mla decode: workspace: expected a multiple of ", slot,
                           " bytes, got ", bytes);
  }

  constexpr float kLog2E = 1.44269504088896f;
  call.factor = scale * kLog2E;
  call.value_scale = 1.0f;
  size_t next_scale = 0;
  for (const bool of_q : {true, false}) {
    if (!IsFloat8(of_q ? call.q_dtype : call.kv_dtype)) continue;
    const auto operand = scales.get<ffi::BufferR0<ffi::F32>>(next_scale++);
    JAX_MLA_RETURN_IF_ERROR(Check(operand.has_value(), "q_scale, kv_scale: expected float32 []"));
    const float value = *operand->typed_data();
    call.factor *= value;
    if (!of_q) call.value_scale = value;
  }
  JAX_MLA_RETURN_IF_ERROR(Check(next_scale == scales.size(), "too many operands"));

  call.q = static_cast<const char*>(q.untyped_data());
  call.q_bytes = ffi::ByteWidth(q.element_type());
  call.kv_pages = kv_pages.untyped_data();
  call.lengths = lengths.typed_data<int32_t>();
  call.page_indices = page_indices.typed_data<int32_t>();
  call.out = static_cast<char*>(out->untyped_data());
  call.out_bytes = ffi::ByteWidth(out_dtype);
  call.lse = static_cast<float*>(lse->untyped_data());
  call.workspace = static_cast<float*>(workspace->untyped_data());

  // Shared with the threads, which may come after all is done.
  const auto pieces = std::make_shared<Pieces>(call, *kernel);
  const int64_t workers = std::min(threads.num_threads(), pieces->count());
  for (int64_t i = 1; i < workers; ++i) threads.Schedule([=] { pieces->Work(workers); });
  pieces->Work(workers);
  pieces->Wait();
  if (pieces->failed()) {
    return MakeError(ffi::ErrorCode::kResourceExhausted, "jax_mla decode: out of memory");
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kDecodeCpu, DecodeCpu,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<int64_t>("num_kv_splits")
                           .Attr<int64_t>("part_tokens")
                           .Attr<float>("scale"));

}  // namespace

XLA_FFI_Handler* DecodeCpuHandler() { return kDecodeCpu; }

}  // namespace jax_mla
