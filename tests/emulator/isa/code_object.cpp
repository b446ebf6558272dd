// SPDX-License-Identifier: Apache-2.0
// Loads code objects: offload bundles, ELF segments, relocations, symbols, kernel descriptors.
#include "code_object.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "error.h"

namespace emu {
namespace {

template <class T>
T load(const uint8_t *p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

constexpr char bundle_magic[] = "__CLANG_OFFLOAD_BUNDLE__";

std::vector<uint8_t> unbundle(const uint8_t *bytes, size_t size, const char *arch) {
  if (size >= 4 && std::memcmp(bytes, "CCOB", 4) == 0)
    throw Error("a compressed offload bundle (CCOB) is not supported");
  if (size < 32 || std::memcmp(bytes, bundle_magic, 24) != 0) return {bytes, bytes + size};
  const uint64_t count = load<uint64_t>(bytes + 24);
  uint64_t at = 32;
  std::string seen;
  for (uint64_t i = 0; i < count; i++) {
    if (at + 24 > size) throw Error("truncated offload bundle");
    const uint64_t offset = load<uint64_t>(bytes + at), length = load<uint64_t>(bytes + at + 8);
    const uint64_t id_length = load<uint64_t>(bytes + at + 16);
    if (id_length > size - at - 24) throw Error("truncated offload bundle");
    const std::string id(reinterpret_cast<const char *>(bytes) + at + 24, id_length);
    at += 24 + id_length;
    seen += " " + id;
    if (id.starts_with("host") || !length) continue;
    const size_t gfx = id.find("gfx");
    const std::string target =
        gfx == std::string::npos ? "" : id.substr(gfx, id.find(':', gfx) - gfx);
    if (arch && *arch && target != arch) continue;
    if (offset > size || length > size - offset) throw Error("truncated offload bundle");
    return {bytes + offset, bytes + offset + length};
  }
  throw Error("the offload bundle has no entry for " + std::string(arch ? arch : "AMDGPU") +
              "; it has" + seen);
}

class Loader {
 public:
  Loader(std::vector<uint8_t> file, const char *arch) : file_(std::move(file)) {
    check_header(arch);
    load_segments();
    relocate();
    read_symbols();
    read_notes();
    out_->reserve_instructions();
  }
  std::unique_ptr<CodeObject> take() { return std::move(out_); }

 private:
  std::vector<uint8_t> file_;
  std::unique_ptr<CodeObject> out_ = std::make_unique<CodeObject>();
  uint64_t dynamic_ = 0, dynamic_size_ = 0;

  const uint8_t *in_file(uint64_t offset, uint64_t size) const {
    if (offset > file_.size() || size > file_.size() - offset)
      throw Error("code object: truncated or corrupt");
    return file_.data() + offset;
  }
  uint8_t *in_image(uint64_t address, uint64_t size) const {
    if (address > out_->image_bytes || size > out_->image_bytes - address)
      throw Error("code object: an address lies outside its segments");
    return out_->base + address;
  }
  void for_each_header(int table_at, int count_at, uint64_t size,
                       const std::function<void(const uint8_t *)> &visit) const {
    const uint64_t table = load<uint64_t>(file_.data() + table_at);
    const unsigned step = load<uint16_t>(file_.data() + count_at - 2);
    const unsigned count = load<uint16_t>(file_.data() + count_at);
    if (count && step < size) throw Error("code object: unexpected header size");
    for (unsigned i = 0; i < count; i++) visit(in_file(table + uint64_t{i} * step, size));
  }
  void for_each_segment(const std::function<void(const uint8_t *)> &visit) const {
    for_each_header(32, 56, 56, visit);
  }
  void for_each_section(const std::function<void(const uint8_t *)> &visit) const {
    for_each_header(40, 60, 64, visit);
  }

  void check_header(const char *arch) {
    if (file_.size() < 64 || std::memcmp(file_.data(),
                                         "\x7f"
                                         "ELF\x02",
                                         5) != 0)
      throw Error("not a 64-bit ELF file");
    if (load<uint16_t>(file_.data() + 18) != 224) throw Error("this ELF file is not for AMDGPU");
    const uint32_t machine = load<uint32_t>(file_.data() + 48) & 0xff;
    if (machine == 0x4c)
      out_->arch = Arch::gfx942, out_->arch_name = "gfx942";
    else if (machine == 0x4f)
      out_->arch = Arch::gfx950, out_->arch_name = "gfx950";
    else
      throw Error(format("code object: AMDGPU machine 0x%x is neither gfx942 nor gfx950", machine));
    if (arch && *arch && out_->arch_name != arch)
      throw Error("the code object is for " + out_->arch_name + ", the device is " + arch);
  }

  void load_segments() {
    CodeObject &code = *out_;
    uint64_t top = 0;
    for_each_segment([&](const uint8_t *h) {
      const uint64_t address = load<uint64_t>(h + 16), size = load<uint64_t>(h + 40);
      if (load<uint32_t>(h) != 1) return;
      if (address > 1ull << 31 || size > 1ull << 31 || load<uint64_t>(h + 32) > size)
        throw Error("code object: corrupt segment");
      top = std::max(top, address + size);
    });
    if (!top) throw Error("code object: nothing to load");
    constexpr uintptr_t page = 4096;
    code.image.assign(top + 2 * page, 0);
    code.base = reinterpret_cast<uint8_t *>(
        (reinterpret_cast<uintptr_t>(code.image.data()) + page - 1) & ~(page - 1));
    code.image_bytes = top;
    for_each_segment([&](const uint8_t *h) {
      const uint32_t type = load<uint32_t>(h), flags = load<uint32_t>(h + 4);
      const uint64_t address = load<uint64_t>(h + 16), size = load<uint64_t>(h + 40);
      const uint64_t file_size = load<uint64_t>(h + 32);
      if (type == 2) dynamic_ = address, dynamic_size_ = size;
      if (type != 1) return;
      std::memcpy(code.base + address, in_file(load<uint64_t>(h + 8), file_size), file_size);
      if (!(flags & 1)) return;
      if (!code.code_end || address < code.code_begin) code.code_begin = address & ~3ull;
      code.code_end =
          std::max<uint64_t>(code.code_end, std::min((address + size + 3) & ~3ull, top & ~3ull));
    });
  }

  void relocate() {
    if (!dynamic_) return;
    in_image(dynamic_, dynamic_size_);
    uint64_t table = 0, size = 0, symbols = 0;
    for (uint64_t at = 0; at + 16 <= dynamic_size_; at += 16) {
      const uint64_t tag = load<uint64_t>(out_->base + dynamic_ + at);
      const uint64_t value = load<uint64_t>(out_->base + dynamic_ + at + 8);
      if (tag == 0) break;
      if (tag == 7) table = value;
      if (tag == 8) size = value;
      if (tag == 6) symbols = value;
    }
    if (!table) return;
    in_image(table, size);
    for (uint64_t at = 0; at + 24 <= size; at += 24) apply(out_->base + table + at, symbols);
  }

  void apply(const uint8_t *entry, uint64_t symbols) {
    const uint32_t type = load<uint32_t>(entry + 8), symbol = load<uint32_t>(entry + 12);
    uint8_t *target = in_image(load<uint64_t>(entry), 8);
    uint64_t value = reinterpret_cast<uint64_t>(out_->base) + load<uint64_t>(entry + 16);
    if (symbol && symbols) value += load<uint64_t>(in_image(symbols + 24ull * symbol, 24) + 8);
    switch (type) {
      case 0: return;
      case 3:
      case 13: std::memcpy(target, &value, 8); return;  // ABS64, RELATIVE64
      case 2: value >>= 32; [[fallthrough]];                    // ABS32_HI
      case 1: std::memcpy(target, &value, 4); return;           // ABS32_LO
    }
    throw Error(format("code object: relocation type %u is not supported", type));
  }

  void read_symbols() {
    std::map<std::string, CodeObject::Variable> objects;
    for_each_section([&](const uint8_t *h) {
      const uint32_t type = load<uint32_t>(h + 4);
      if (type != 2 && type != 11) return;  // SYMTAB, DYNSYM
      const uint64_t offset = load<uint64_t>(h + 24), size = load<uint64_t>(h + 32);
      const uint8_t *names =
          in_file(load<uint64_t>(file_.data() + 40) + 64ull * load<uint32_t>(h + 40), 64);
      const uint64_t text = load<uint64_t>(names + 24), text_size = load<uint64_t>(names + 32);
      in_file(offset, size);
      in_file(text, text_size);
      for (uint64_t at = 24; at + 24 <= size; at += 24) {
        const uint8_t *symbol = file_.data() + offset + at;
        const uint32_t name = load<uint32_t>(symbol);
        const bool is_object = (symbol[4] & 15) == 1 && load<uint16_t>(symbol + 6) != 0;
        if (!is_object || name >= text_size) continue;
        const char *begin = reinterpret_cast<const char *>(file_.data() + text + name);
        objects[std::string(begin, strnlen(begin, text_size - name))] = {
            load<uint64_t>(symbol + 8), load<uint64_t>(symbol + 16)};
      }
    });
    for (const auto &[name, object] : objects) {
      if (name.ends_with(".kd") && object.size == 64)
        read_descriptor(name, object.offset);
      else
        in_image(object.offset, object.size), out_->variables[name] = object;
    }
  }

  void read_descriptor(const std::string &symbol, uint64_t address) {
    const uint8_t *d = in_image(address, 64);
    Kernel kernel;
    kernel.name = symbol.substr(0, symbol.size() - 3);
    kernel.static_lds = load<uint32_t>(d);
    kernel.private_bytes = load<uint32_t>(d + 4);
    kernel.kernarg_bytes = kernel.explicit_bytes = load<uint32_t>(d + 8);
    kernel.entry = address + load<uint64_t>(d + 16);
    kernel.rsrc3 = load<uint32_t>(d + 44);
    kernel.rsrc1 = load<uint32_t>(d + 48);
    kernel.rsrc2 = load<uint32_t>(d + 52);
    kernel.properties = load<uint16_t>(d + 56);
    kernel.preload = load<uint16_t>(d + 58);
    out_->kernels.push_back(std::move(kernel));
  }

  void read_notes() {
    for_each_section([&](const uint8_t *h) {
      if (load<uint32_t>(h + 4) != 7) return;
      const uint64_t offset = load<uint64_t>(h + 24), size = load<uint64_t>(h + 32);
      in_file(offset, size);
      for (uint64_t at = 0; at + 12 <= size;) {
        const uint8_t *note = file_.data() + offset + at;
        const uint64_t name = load<uint32_t>(note), length = load<uint32_t>(note + 4);
        const uint64_t body = 12 + ((name + 3) & ~3ull);
        if (body > size - at || length > size - at - body) throw Error("code object: corrupt note");
        if (load<uint32_t>(note + 8) == 32) read_metadata(note + body, length, out_->kernels);
        at += body + ((length + 3) & ~3ull);
      }
    });
  }
};

}  // namespace

std::unique_ptr<CodeObject> load_code_object(const void *bytes, size_t size, const char *arch) {
  return Loader(unbundle(static_cast<const uint8_t *>(bytes), size, arch), arch).take();
}

const Kernel &CodeObject::kernel(const char *name) const {
  for (const Kernel &kernel : kernels)
    if (name ? kernel.name == name : kernels.size() == 1) return kernel;
  std::string known;
  for (const Kernel &kernel : kernels) known += " " + kernel.name;
  throw Error("there is no kernel '" + std::string(name ? name : "") + "'; the code object has" +
              known);
}

void CodeObject::reserve_instructions() {
  decoded_ = std::make_unique<std::atomic<const Instruction *>[]>((code_end - code_begin) / 4);
}

const Instruction *CodeObject::fetch(uint64_t offset) {
  if (offset < code_begin || offset >= code_end || offset & 3) return nullptr;
  std::atomic<const Instruction *> &slot = decoded_[(offset - code_begin) / 4];
  if (const Instruction *known = slot.load(std::memory_order_acquire)) return known;
  std::lock_guard lock(mutex_);
  if (const Instruction *known = slot.load(std::memory_order_acquire)) return known;
  auto instruction = std::make_unique<Instruction>(
      decode(reinterpret_cast<const uint32_t *>(base + offset), (code_end - offset) / 4, arch));
  instruction->offset = offset;
  slot.store(instruction.get(), std::memory_order_release);
  pool_.push_back(std::move(instruction));
  return pool_.back().get();
}

}  // namespace emu
