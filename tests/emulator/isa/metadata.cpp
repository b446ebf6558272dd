// SPDX-License-Identifier: Apache-2.0
// The AMDGPU metadata note: a MessagePack document with the kernels' sizes and arguments.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "code_object.h"
#include "error.h"

namespace emu {
namespace {

// As much of a MessagePack value as the note uses.
struct Value {
  uint64_t number = 0;
  std::string text;
  std::vector<Value> items;
  std::vector<std::pair<std::string, Value>> entries;

  const Value *find(const char *key) const {
    for (const auto &[name, value] : entries)
      if (name == key) return &value;
    return nullptr;
  }
  uint32_t number_of(const char *key) const {
    const Value *value = find(key);
    return value ? static_cast<uint32_t>(value->number) : 0;
  }
  std::string text_of(const char *key) const {
    const Value *value = find(key);
    return value ? value->text : "";
  }
};

class Reader {
 public:
  Reader(const uint8_t *begin, size_t size) : at_(begin), end_(begin + size) {}

  Value read(int depth = 0) {
    if (depth > 32) throw Error("code object: metadata nested too deeply");
    const uint8_t tag = static_cast<uint8_t>(integer(1));
    if (tag < 0x80) return number(tag);
    if (tag < 0x90) return map(tag & 15, depth);
    if (tag < 0xa0) return array(tag & 15, depth);
    if (tag < 0xc0) return string(tag & 31);
    if (tag >= 0xe0) return number(static_cast<uint64_t>(static_cast<int8_t>(tag)));
    switch (tag) {
      case 0xc0: return {};
      case 0xc2:
      case 0xc3: return number(tag & 1);
      case 0xcc:
      case 0xd0: return number(integer(1));
      case 0xcd:
      case 0xd1: return number(integer(2));
      case 0xce:
      case 0xd2: return number(integer(4));
      case 0xcf:
      case 0xd3: return number(integer(8));
      case 0xd9: return string(integer(1));
      case 0xda: return string(integer(2));
      case 0xdb: return string(integer(4));
      case 0xdc: return array(integer(2), depth);
      case 0xdd: return array(integer(4), depth);
      case 0xde: return map(integer(2), depth);
      case 0xdf: return map(integer(4), depth);
    }
    throw Error(format("code object: unknown tag 0x%x in the metadata", tag));
  }

 private:
  const uint8_t *at_, *end_;

  void need(uint64_t size) const {
    if (size > static_cast<uint64_t>(end_ - at_)) throw Error("code object: truncated metadata");
  }
  uint64_t integer(int size) {  // big endian
    need(static_cast<uint64_t>(size));
    uint64_t value = 0;
    while (size--) value = value << 8 | *at_++;
    return value;
  }
  Value number(uint64_t value) {
    Value out;
    out.number = value;
    return out;
  }
  Value string(uint64_t size) {
    need(size);
    Value out;
    out.text.assign(reinterpret_cast<const char *>(at_), size);
    at_ += size;
    return out;
  }
  Value array(uint64_t size, int depth) {
    Value out;
    while (size--) out.items.push_back(read(depth + 1));
    return out;
  }
  Value map(uint64_t size, int depth) {
    Value out;
    while (size--) {
      std::string key = read(depth + 1).text;
      out.entries.emplace_back(std::move(key), read(depth + 1));
    }
    return out;
  }
};

void describe(Kernel &kernel, const Value &value) {
  auto at_least = [&](uint32_t &field, const char *key) {
    field = std::max(field, value.number_of(key));
  };
  at_least(kernel.kernarg_bytes, ".kernarg_segment_size");
  at_least(kernel.static_lds, ".group_segment_fixed_size");
  at_least(kernel.private_bytes, ".private_segment_fixed_size");
  if (value.number_of(".uses_dynamic_stack")) kernel.private_bytes += 16384;
  kernel.max_workgroup_size = value.number_of(".max_flat_workgroup_size");
  kernel.sgprs = value.number_of(".sgpr_count");
  kernel.vgprs = value.number_of(".vgpr_count");
  kernel.agprs = value.number_of(".agpr_count");
  kernel.explicit_bytes = kernel.kernarg_bytes;
  const Value *arguments = value.find(".args");
  if (!arguments) return;
  kernel.explicit_bytes = 0;
  for (const Value &item : arguments->items) {
    Argument argument{item.text_of(".name"), item.text_of(".value_kind"), item.number_of(".offset"),
                      item.number_of(".size")};
    if (!argument.kind.starts_with("hidden_"))
      kernel.explicit_bytes = std::max(kernel.explicit_bytes, argument.offset + argument.size);
    kernel.arguments.push_back(std::move(argument));
  }
}

}  // namespace

void read_metadata(const uint8_t *note, size_t size, std::vector<Kernel> &kernels) {
  const Value document = Reader(note, size).read();
  const Value *list = document.find("amdhsa.kernels");
  if (!list) return;
  for (const Value &value : list->items)
    for (Kernel &kernel : kernels)
      if (value.text_of(".symbol") == kernel.name + ".kd") describe(kernel, value);
}

}  // namespace emu
