// SPDX-License-Identifier: Apache-2.0
// Reads clang's offload bundles, plain and compressed, and the length of an ELF file.
#include "bundle.h"

#include <dlfcn.h>
#include <elf.h>

#include <algorithm>
#include <cstring>
#include <sstream>

namespace hip {
namespace {

constexpr char kBundleMagic[] = "__CLANG_OFFLOAD_BUNDLE__";
constexpr char kCompressedMagic[] = "CCOB";

template <typename T>
T read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

bool begins_with(const uint8_t* bytes, const char* magic) {
  return std::memcmp(bytes, magic, std::strlen(magic)) == 0;
}

// HIP images come without their length, but an ELF file names the places of all its parts.
size_t elf_size(const uint8_t* elf) {
  const auto header = read<Elf64_Ehdr>(elf);
  size_t end = header.e_shoff + size_t{header.e_shentsize} * header.e_shnum;
  for (size_t i = 0; i < header.e_phnum; ++i) {
    const auto segment = read<Elf64_Phdr>(elf + header.e_phoff + i * header.e_phentsize);
    end = std::max(end, segment.p_offset + segment.p_filesz);
  }
  return end;
}

// An entry such as "hipv4-amdgcn-amd-amdhsa--gfx942:xnack-" serves a target if it names the same
// processor and no feature that the target has the other way.
bool serves(const std::string& entry, const std::string& target) {
  const size_t processor = entry.rfind("gfx");
  if (processor == std::string::npos) return false;
  std::istringstream parts(entry.substr(processor));
  std::string part;
  std::getline(parts, part, ':');
  if (part != target.substr(0, target.find(':'))) return false;
  while (std::getline(parts, part, ':')) {
    if (target.find(part) == std::string::npos) return false;
  }
  return true;
}

std::vector<uint8_t> inflate_zstd(const uint8_t* bytes, size_t size, size_t inflated) {
  using Decompress = size_t (*)(void*, size_t, const void*, size_t);
  void* const library = dlopen("libzstd.so.1", RTLD_NOW);
  const auto decompress =
      library ? reinterpret_cast<Decompress>(dlsym(library, "ZSTD_decompress")) : nullptr;
  std::vector<uint8_t> out(inflated);
  if (!decompress || decompress(out.data(), inflated, bytes, size) != inflated) out.clear();
  return out;
}

std::vector<uint8_t> inflate_zlib(const uint8_t* bytes, size_t size, size_t inflated) {
  using Uncompress = int (*)(uint8_t*, unsigned long*, const uint8_t*, unsigned long);
  void* const library = dlopen("libz.so.1", RTLD_NOW);
  const auto uncompress =
      library ? reinterpret_cast<Uncompress>(dlsym(library, "uncompress")) : nullptr;
  std::vector<uint8_t> out(inflated);
  unsigned long length = inflated;
  if (!uncompress || uncompress(out.data(), &length, bytes, size) != 0) out.clear();
  return out;
}

// Header: magic, 16-bit version and method, then the sizes (32 bits in version 2, 64 in version 3)
// of the file and of its content, and a hash of 8 bytes.
std::vector<uint8_t> inflate(const uint8_t* bytes, std::string* why) {
  const auto version = read<uint16_t>(bytes + 4), method = read<uint16_t>(bytes + 6);
  if (version != 2 && version != 3) {
    *why = "a compressed bundle of version " + std::to_string(version);
    return {};
  }
  const bool wide = version == 3;
  const size_t header = wide ? 32 : 24;
  const size_t file = wide ? read<uint64_t>(bytes + 8) : read<uint32_t>(bytes + 8);
  const size_t inflated = wide ? read<uint64_t>(bytes + 16) : read<uint32_t>(bytes + 12);
  const auto out = method == 1 ? inflate_zstd(bytes + header, file - header, inflated)
                               : inflate_zlib(bytes + header, file - header, inflated);
  if (out.empty()) {
    *why = std::string("a compressed bundle, which needs ") +
           (method == 1 ? "libzstd.so.1" : "libz.so.1");
  }
  return out;
}

std::vector<uint8_t> find_in_bundle(const uint8_t* bundle, const std::string& target,
                                    std::string* why) {
  const uint8_t* entry = bundle + std::strlen(kBundleMagic);
  const auto count = read<uint64_t>(entry);
  entry += 8;
  std::string seen;
  for (uint64_t i = 0; i < count; ++i) {
    const auto offset = read<uint64_t>(entry), size = read<uint64_t>(entry + 8);
    const std::string name(reinterpret_cast<const char*>(entry) + 24, read<uint64_t>(entry + 16));
    entry += 24 + name.size();
    if (size && serves(name, target)) return {bundle + offset, bundle + offset + size};
    seen += " " + name;
  }
  *why = "a bundle without code for " + target + "; it has" + seen;
  return {};
}

}  // namespace

std::vector<uint8_t> find_code_object(const void* image, const std::string& target,
                                      std::string* why) {
  const auto* bytes = static_cast<const uint8_t*>(image);
  if (begins_with(bytes, ELFMAG)) return {bytes, bytes + elf_size(bytes)};
  std::vector<uint8_t> inflated;
  if (begins_with(bytes, kCompressedMagic)) {
    inflated = inflate(bytes, why);
    if (inflated.empty()) return {};
    bytes = inflated.data();
  }
  if (begins_with(bytes, kBundleMagic)) return find_in_bundle(bytes, target, why);
  *why = "neither an ELF file nor an offload bundle";
  return {};
}

}  // namespace hip
